//! The PostgreSQL store keeps what every store has to keep, over a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "../on_server/mod.rs"]
mod on_server;
#[path = "../servers/mod.rs"]
mod servers;

mod callers;
mod opening;
mod troubles;

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use on_server::proxy::Proxy;
use on_server::{OnServer, authority, way_to};
use respond_async::OperationId;
use respond_async::store::conformance::Fixture;
use respond_async::store::{OperationStore, PostgresStore};
use servers::Sort;
use tokio::sync::OnceCell;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

/// A client of the test's own.
async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A name that no other test has, whichever process runs it.
fn unique(what: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{what}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst))
}

/// A database of the same server for tests that hold a transaction open: while one is, the tables of its database
/// grow, and some tests look at how large theirs are.
async fn apart() -> String {
    static IS_THERE: OnceCell<()> = OnceCell::const_new();
    let shared = servers::shared("POSTGRES_URL");
    let create = async || {
        let created = client(&shared).await.batch_execute("CREATE DATABASE apart").await;
        let is_old =
            |error: &tokio_postgres::Error| error.code() == Some(&SqlState::DUPLICATE_DATABASE);
        assert!(created.as_ref().err().is_none_or(is_old), "{created:?}");
    };
    IS_THERE.get_or_init(create).await;
    database(&shared, "apart")
}

/// The URL of another database of the same server.
fn database(url: &str, name: &str) -> String {
    let settings = url.find('?').map_or("", |at| &url[at..]);
    format!("{}/{name}{settings}", &url[..authority(url).end])
}

/// A schema of its own on the server that all tests share. Each handle has connections of its own.
struct InSchema<S> {
    server: String,
    schema: String,
    /// How the handles of now reach the server: those from before a kill do not any more.
    way: Mutex<(Proxy, String)>,
    form: PhantomData<fn() -> S>,
}

/// What a PostgreSQL store can be made into.
trait Form: OperationStore {
    fn of(store: PostgresStore) -> Self;
}

impl<S: Form> Fixture for InSchema<S> {
    type Store = S;
    const UNIT: Duration = Duration::from_millis(600);
    const ROUNDS: usize = 10;

    async fn empty() -> Self {
        Self::at(servers::shared("POSTGRES_URL"))
    }

    async fn open(&self) -> S {
        let builder = PostgresStore::builder(&self.url()).unwrap().schema(&self.schema);
        // Sixty-four tasks that come at once may wait for each other on a slow machine.
        let builder = builder.call_timeout(Duration::from_secs(20)).max_body_bytes(10 << 20);
        S::of(builder.connect_timeout(Duration::from_secs(10)).open().await.unwrap())
    }

    /// Every connection of this place is cut off, in the middle of whatever it does, and for good.
    async fn kill(&self) {
        *self.way.lock().unwrap() = way_to(&self.server);
        let client = client(&self.server).await;
        loop {
            let ended = client
                .query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE application_name = $1 AND pid <> pg_backend_pid()",
                    &[&self.schema],
                )
                .await
                .unwrap();
            if ended.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn size(&self) -> Option<u64> {
        let client = client(&self.server).await;
        let schema = &self.schema;
        for table in ["operations", "inputs", "outcomes", "keys", "live"] {
            client.batch_execute(&format!("VACUUM {schema}.{table}")).await.unwrap();
        }
        let row = client
            .query_one(
                "SELECT sum(pg_total_relation_size(oid))::int8 FROM pg_class
                WHERE relnamespace = $1::text::regnamespace AND relkind = 'r'",
                &[schema],
            )
            .await;
        u64::try_from(row.unwrap().get::<_, i64>(0)).ok()
    }
}

impl<S> InSchema<S> {
    fn at(server: String) -> Self {
        let way = Mutex::new(way_to(&server));
        Self { server, schema: unique("suite"), way, form: PhantomData }
    }

    /// Its connections are known by their name.
    fn url(&self) -> String {
        format!("{}?application_name={}", self.way.lock().unwrap().1, self.schema)
    }
}

impl<S> Drop for InSchema<S> {
    fn drop(&mut self) {
        let (url, schema) = (self.server.clone(), self.schema.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
                client(&url).await.batch_execute(&drop).await
            })
        });
        let _ = dropped.join();
    }
}

impl OnServer for PostgresStore {
    const SORT: Sort = Sort::Postgres;
    const BOUND: Duration = Self::DEFAULT_CALL_TIMEOUT;

    async fn at(url: &str, name: &str) -> Self {
        Self::builder(url).unwrap().schema(name).open().await.unwrap()
    }

    fn needle(id: OperationId) -> Vec<u8> {
        id.as_uuid().as_bytes().to_vec()
    }

    fn is_listening(&self) -> bool {
        self.is_listening()
    }
}

tests_on_server!(PostgresStore, "needs PostgreSQL: run ./tests/all");

mod as_it_is {
    use super::*;

    impl Form for PostgresStore {
        fn of(store: PostgresStore) -> Self {
            store
        }
    }

    respond_async::store_conformance!(
        InSchema<PostgresStore>,
        ignore = "needs PostgreSQL: run ./tests/all"
    );
}

mod shared_dyn {
    use super::*;

    impl Form for Arc<dyn OperationStore> {
        fn of(store: PostgresStore) -> Self {
            Arc::new(store)
        }
    }

    respond_async::store_conformance!(
        InSchema<Arc<dyn OperationStore>>,
        ignore = "needs PostgreSQL: run ./tests/all"
    );
}

//! The Redis store keeps what every store has to keep, over a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

#[path = "../on_server/mod.rs"]
mod on_server;
#[path = "../servers/mod.rs"]
mod servers;

mod opening;
mod troubles;

use std::marker::PhantomData;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use on_server::proxy::Proxy;
use on_server::{OnServer, way_to};
use respond_async::OperationId;
use respond_async::store::conformance::Fixture;
use respond_async::store::{OperationStore, RedisStore};
use servers::Sort;

/// A client of the test's own.
fn client(url: &str) -> redis::Connection {
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

/// A name that no other test has, whichever process runs it.
fn unique(what: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst))
}

/// A prefix of its own on the server that all tests share. Each handle has connections of its own.
struct InPrefix<S> {
    prefix: String,
    /// How the handles of now reach the server: those from before a kill do not any more.
    way: Mutex<(Proxy, String)>,
    form: PhantomData<fn() -> S>,
}

/// What a Redis store can be made into.
trait Form: OperationStore {
    fn of(store: RedisStore) -> Self;
}

impl<S: Form> Fixture for InPrefix<S> {
    type Store = S;
    const UNIT: Duration = Duration::from_millis(600);
    const ROUNDS: usize = 20;

    async fn empty() -> Self {
        let way = Mutex::new(way_to(&servers::shared("REDIS_URL")));
        Self { prefix: unique("suite"), way, form: PhantomData }
    }

    async fn open(&self) -> S {
        let url = self.way.lock().unwrap().1.clone();
        let builder = RedisStore::builder(&url).unwrap();
        let builder = builder.prefix(&self.prefix).client_name(&self.prefix);
        // Sixty-four tasks that come at once may wait for each other on a slow machine.
        let builder = builder.call_timeout(Duration::from_secs(20)).max_body_bytes(10 << 20);
        S::of(builder.connect_timeout(Duration::from_secs(10)).open().await.unwrap())
    }

    /// Every connection of this place is cut off, in the middle of whatever it does, and for good.
    async fn kill(&self) {
        *self.way.lock().unwrap() = way_to(&servers::shared("REDIS_URL"));
        let mut client = client(&servers::shared("REDIS_URL"));
        let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut client).unwrap();
        let name = format!(" name={} ", self.prefix);
        for line in list.lines().filter(|line| line.contains(&name)) {
            let id = line.split(' ').find_map(|field| field.strip_prefix("id=")).unwrap();
            let _: usize =
                redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).query(&mut client).unwrap();
        }
    }

    async fn size(&self) -> Option<u64> {
        let mut client = client(&servers::shared("REDIS_URL"));
        u64::try_from(keys(&mut client, &self.prefix).len()).ok()
    }
}

fn keys(client: &mut redis::Connection, prefix: &str) -> Vec<Vec<u8>> {
    let (mut keys, mut cursor) = (Vec::new(), 0_u64);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{{{prefix}}}:*")).arg("COUNT").arg(10_000);
        let (next, found): (u64, Vec<Vec<u8>>) = scan.query(client).unwrap();
        keys.extend(found);
        cursor = next;
        if cursor == 0 {
            return keys;
        }
    }
}

impl<S> Drop for InPrefix<S> {
    fn drop(&mut self) {
        let Ok(url) = std::env::var("REDIS_URL") else { return };
        let mut client = client(&url);
        for key in keys(&mut client, &self.prefix) {
            redis::cmd("UNLINK").arg(key).exec(&mut client).unwrap();
        }
    }
}

impl OnServer for RedisStore {
    const SORT: Sort = Sort::Redis;
    const BOUND: Duration = Self::DEFAULT_CALL_TIMEOUT;

    async fn at(url: &str, name: &str) -> Self {
        Self::builder(url).unwrap().prefix(name).open().await.unwrap()
    }

    fn needle(id: OperationId) -> Vec<u8> {
        id.as_uuid().simple().to_string().into_bytes()
    }

    fn is_listening(&self) -> bool {
        self.is_listening()
    }
}

tests_on_server!(RedisStore, "needs Redis: run ./tests/all");

mod as_it_is {
    use super::*;

    impl Form for RedisStore {
        fn of(store: RedisStore) -> Self {
            store
        }
    }

    respond_async::store_conformance!(
        InPrefix<RedisStore>,
        ignore = "needs Redis: run ./tests/all"
    );
}

mod boxed_dyn {
    use super::*;

    impl Form for Box<dyn OperationStore> {
        fn of(store: RedisStore) -> Self {
            Box::new(store)
        }
    }

    respond_async::store_conformance!(
        InPrefix<Box<dyn OperationStore>>,
        ignore = "needs Redis: run ./tests/all"
    );
}

//! What clients of a service notice while its server is away, and what they do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use respond_async::monitor::Monitor;
use respond_async::operations::{Job, OperationsBuilder};
use respond_async::prefer::Preferences;
use respond_async::problem::types;
use respond_async::respond::{Created, Response};
use respond_async::{OperationId, Operations, Owner, Problem, Status};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::proxy::Way;
use super::{Cut, OnServer};

const LEASE: Duration = Duration::from_secs(4);

#[derive(Debug, Serialize, Deserialize)]
struct Work {
    millis: u64,
}

impl Job for Work {
    const KIND: &'static str = "tests.work";
}

struct Service {
    operations: Operations,
    monitor: Monitor,
    began: Arc<AtomicUsize>,
}

impl Service {
    fn start<S: OnServer>(
        store: &S,
        set: impl FnOnce(OperationsBuilder) -> OperationsBuilder,
    ) -> Self {
        let began = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&began);
        let builder = Operations::builder(store.clone())
            .lease(LEASE)
            .poll_interval(Duration::from_millis(100))
            .job(move |work: Work, _| {
                count.fetch_add(1, Ordering::SeqCst);
                async move {
                    sleep(Duration::from_millis(work.millis)).await;
                    Created::at("/made")
                }
            });
        let operations = set(builder).start();
        Self { monitor: Monitor::new(&operations), operations, began }
    }

    async fn post(&self, prefer: &str, millis: u64) -> Response {
        let preferences = Preferences::parse(prefer).unwrap();
        self.operations.kick_off(&preferences).respond(Work { millis }).await
    }

    /// Has work accepted, and waits until it is being done.
    async fn begin(&self, millis: u64) -> Response {
        let before = self.began.load(Ordering::SeqCst);
        let accepted = self.post("respond-async", millis).await;
        while self.began.load(Ordering::SeqCst) == before {
            sleep(Duration::from_millis(5)).await;
        }
        accepted
    }

    async fn get(&self, uri: &str) -> Response {
        self.monitor.respond(&Owner::anonymous(), &Request::get(uri).body(()).unwrap()).await
    }
}

fn id_of(accepted: &Response) -> OperationId {
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    location(accepted).rsplit('/').next().unwrap().parse().unwrap()
}

fn location(response: &Response) -> &str {
    response.headers()["location"].to_str().unwrap()
}

#[track_caller]
fn is_unavailable(response: &Response) {
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    let problem: Problem = serde_json::from_slice(response.body().as_bytes()).unwrap();
    assert!(problem.is(types::STORE_UNAVAILABLE), "{problem:?}");
    assert_eq!(problem.detail(), None);
}

async fn ended<S: OnServer>(store: &S, id: OperationId) -> respond_async::Operation {
    let began = Instant::now();
    loop {
        if let Ok(Some(observed)) = store.get(id).await {
            if observed.operation.status().is_finished() {
                return observed.operation;
            }
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{id} is stuck");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn while_the_server_is_away_it_is_503_and_what_was_accepted_is_done_after_it<
    S: OnServer,
>() {
    let cut = Cut::start::<S>();
    let (store, direct): (S, S) = (cut.by_proxy().await, cut.direct().await);
    // Longer than any outage here.
    let service = Service::start(&store, |builder| builder.lease(Duration::from_secs(30)));
    for way in [Way::Refused, Way::Silent] {
        let accepted = service.begin(1_000).await;
        let id = id_of(&accepted);
        cut.proxy.set(way);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            is_unavailable(&service.get(location(&accepted)).await);
            is_unavailable(&service.post("respond-async", 1).await);
            // Who is answered at once does not notice, and who would have to wait for longer does.
            assert_eq!(service.post("wait=1", 1).await.status(), StatusCode::CREATED);
            is_unavailable(&service.post("respond-async, wait=1", 2_000).await);
            sleep(Duration::from_millis(100)).await;
        }
        cut.proxy.set(Way::Open);
        // It ended meanwhile, which is recorded as soon as it can be.
        let operation = ended(&direct, id).await;
        assert_eq!((operation.status(), operation.attempt()), (Status::Succeeded, 1));
        let began = Instant::now();
        while service.get(location(&accepted)).await.status() != StatusCode::OK {
            assert!(began.elapsed() < Duration::from_secs(20), "it does not come back");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

pub(crate) async fn no_lease_is_stolen_before_its_time<S: OnServer>() {
    let cut = Cut::start::<S>();
    let (store, direct): (S, S) = (cut.by_proxy().await, cut.direct().await);
    let one = Service::start(&store, |builder| builder);
    // Cut off for less than a lease, it keeps what it has.
    let lease = u64::try_from(LEASE.as_millis()).unwrap();
    let id = id_of(&one.begin(lease).await);
    let other = Service::start(&direct, |builder| builder);
    cut.proxy.set(Way::Silent);
    sleep(LEASE / 4).await;
    cut.proxy.set(Way::Open);
    let operation = ended(&direct, id).await;
    assert_eq!((operation.status(), operation.attempt()), (Status::Succeeded, 1));
    assert_eq!(other.began.load(Ordering::SeqCst), 0);
    drop(other);

    // Cut off for longer, it is taken over once the lease is over, not before, and what it says then
    // counts no more.
    let id = id_of(&one.begin(4 * lease).await);
    let other = Service::start(&direct, |builder| builder);
    cut.proxy.set(Way::Silent);
    loop {
        let observed = direct.get(id).await.unwrap().unwrap();
        let expires = observed.operation.lease_expires().unwrap();
        if observed.operation.attempt() == 2 {
            break;
        }
        assert!(observed.now < expires + Duration::from_secs(3), "nobody takes it over");
        let is_over = observed.now >= expires;
        assert!(is_over || other.began.load(Ordering::SeqCst) == 0, "its lease was stolen");
        sleep(Duration::from_millis(10)).await;
    }
    cut.proxy.set(Way::Open);
    let operation = ended(&direct, id).await;
    assert_eq!((operation.status(), operation.attempt()), (Status::Succeeded, 2));
}

pub(crate) async fn a_flood_is_shed_and_what_was_accepted_is_finished<S: OnServer>() {
    let cut = Cut::start::<S>();
    let (store, direct): (S, S) = (cut.by_proxy().await, cut.direct().await);
    let service = Arc::new(Service::start(&store, |builder| builder.live_limit(2_000)));
    // The server is no faster than this, and many more come than it takes.
    cut.proxy.set(Way::Slow(Duration::from_millis(5)));
    let (accepted, shed) =
        (Arc::new(std::sync::Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..500)
        .map(|_| {
            let (service, accepted) = (Arc::clone(&service), Arc::clone(&accepted));
            let shed = Arc::clone(&shed);
            tokio::spawn(async move {
                for _ in 0..20 {
                    let response = service.post("respond-async", 1).await;
                    if response.status() == StatusCode::ACCEPTED {
                        accepted.lock().unwrap().push(id_of(&response));
                    } else {
                        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
                        assert!(response.headers().contains_key("retry-after"));
                        shed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();
    // It finishes what it has while more comes.
    let mut finished_meanwhile = 0;
    let began = Instant::now();
    while clients.iter().any(|client| !client.is_finished()) {
        assert!(began.elapsed() < Duration::from_secs(120), "it stalls");
        sleep(Duration::from_millis(100)).await;
        let first = accepted.lock().unwrap().get(finished_meanwhile).copied();
        if let Some(id) = first {
            let observed = direct.get(id).await.unwrap().unwrap();
            finished_meanwhile += usize::from(observed.operation.status().is_finished());
        }
    }
    for client in clients {
        client.await.unwrap();
    }
    let accepted = accepted.lock().unwrap().clone();
    let shed = shed.load(Ordering::SeqCst);
    assert!(shed > 0, "nothing was too much");
    assert!(finished_meanwhile > 0, "it finished nothing while more came");
    for id in &accepted {
        assert_eq!(ended(&direct, *id).await.status(), Status::Succeeded);
    }
    // Whoever was told that the answer was lost will send it again; that happens to few.
    let in_vain = service.began.load(Ordering::SeqCst) - accepted.len();
    assert!(in_vain * 10 <= accepted.len(), "{in_vain} beside {}", accepted.len());
}

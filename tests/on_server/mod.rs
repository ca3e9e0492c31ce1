//! What every store on a server has to stand: the tests are the same, the servers are not.
//! Each has one of its own.

#![allow(dead_code, reason = "not every test that has this module wants all of it")]

pub(crate) mod facade;
pub(crate) mod losses;
pub(crate) mod outage;
pub(crate) mod proxy;
pub(crate) mod waiting;
pub(crate) mod word;

use std::time::{Duration, Instant};

use respond_async::OperationId;
use respond_async::operation::NewOperation;
use respond_async::store::{OperationStore, OperationStoreExt, Submission};
use respond_async::time::{Clock, SystemClock};

use crate::servers::{Server, Sort};
use proxy::Proxy;

/// What the store is called on a test's own server.
const NAME: &str = "here";

/// A store on a server.
pub(crate) trait OnServer: OperationStore + Clone {
    const SORT: Sort;
    /// How long a call may take, and how long a connection.
    const BOUND: Duration;

    /// Opens the store of that name on the server, with the defaults.
    fn at(url: &str, name: &str) -> impl Future<Output = Self> + Send;

    /// How that id stands in a call.
    fn needle(id: OperationId) -> Vec<u8>;

    fn is_listening(&self) -> bool;
}

/// Makes tests of all that is here.
#[macro_export]
macro_rules! tests_on_server {
    ($store:ty, $reason:literal) => {
        $crate::tests_on_server! { $store, $reason,
            outage: what_was_acknowledged_survives_the_death_of_the_server
                a_server_that_stands_still_holds_nobody_up
                a_way_that_is_closed_silent_or_slow_holds_nobody_up,
            losses: an_answer_that_is_lost_is_found_out
                a_request_that_is_torn_leaves_all_or_nothing
                an_answer_that_is_torn_is_no_answer
                what_was_claimed_by_a_lost_answer_comes_back_after_its_lease,
            word: another_process_learns_of_each_change_by_its_id
                a_listener_that_was_cut_off_says_so_and_hears_again
                three_processes_that_are_sent_each_key_twice_make_one_operation_of_it,
            facade: while_the_server_is_away_it_is_503_and_what_was_accepted_is_done_after_it
                no_lease_is_stolen_before_its_time
                a_flood_is_shed_and_what_was_accepted_is_finished,
            waiting: a_poll_at_one_replica_ends_with_a_change_at_another
                a_stream_at_one_replica_tells_what_another_does,
        }
    };
    ($store:ty, $reason:literal, $($subject:ident: $($test:ident)*,)*) => {
        mod on_its_server {
            use super::*;

            $(mod $subject {
                use super::*;

                $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                #[ignore = $reason]
                async fn $test() {
                    $crate::on_server::$subject::$test::<$store>().await;
                })*
            })*

            /// The child of one of them.
            #[tokio::test]
            #[ignore = "it is the child of another test"]
            async fn sender() {
                $crate::on_server::word::send::<$store>().await;
            }
        }
    };
}

pub(crate) fn new() -> NewOperation {
    NewOperation::new(OperationId::generate(SystemClock.now()).unwrap())
}

/// Accepts so many operations, each with an input of so many bytes.
pub(crate) async fn accept_large(
    store: &impl OperationStore,
    count: usize,
    bytes: usize,
) -> Vec<OperationId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let new = new();
        ids.push(new.id());
        store.accept(Submission::new(new).with_input(vec![7; bytes])).await.unwrap();
    }
    ids
}

/// Reads the inputs of all at once, and again of those that did not come, until it has all.
pub(crate) async fn read_all(store: &impl OperationStore, mut left: Vec<OperationId>) {
    let began = Instant::now();
    while !left.is_empty() {
        let reads = left.iter().map(|id| store.input(*id));
        let mut reads = futures_util::future::join_all(reads).await.into_iter();
        left.retain(|_| reads.next().unwrap().is_err());
        assert!(began.elapsed() < Duration::from_secs(120), "{} are never read", left.len());
    }
}

/// Where in a URL its host and port stand.
pub(crate) fn authority(url: &str) -> std::ops::Range<usize> {
    let from = url.find("://").map_or(0, |at| at + 3);
    let to = url[from..].find(['/', '?']).map_or(url.len(), |at| from + at);
    url[from..to].rfind('@').map_or(from, |at| from + at + 1)..to
}

/// A way to the server of that URL, and the URL by it.
pub(crate) fn way_to(url: &str) -> (Proxy, String) {
    let at = authority(url);
    let proxy = Proxy::before(&url[at.clone()]);
    let by_it = [&url[..at.start], &proxy.address(), &url[at.end..]].concat();
    (proxy, by_it)
}

/// A server of a test's own, and a way to it that can be cut off.
struct Cut {
    server: Server,
    proxy: Proxy,
    by_proxy: String,
}

impl Cut {
    fn start<S: OnServer>() -> Self {
        let server = Server::start(S::SORT);
        let (proxy, by_proxy) = way_to(&server.url());
        Self { server, proxy, by_proxy }
    }

    /// A store that goes straight to the server.
    async fn direct<S: OnServer>(&self) -> S {
        S::at(&self.server.url(), NAME).await
    }

    /// The same store by the way that can be cut off.
    async fn by_proxy<S: OnServer>(&self) -> S {
        S::at(&self.by_proxy, NAME).await
    }
}

/// Waits until the store reads and writes again, which it does by itself.
pub(crate) async fn comes_back(store: &impl OperationStore) {
    let began = Instant::now();
    while store.get(new().id()).await.and(store.submit(Submission::new(new())).await).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

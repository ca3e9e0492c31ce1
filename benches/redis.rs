//! Claims: with as many clients as `redis-benchmark` has, at least half as many operations are accepted a
//! second as it sets strings of the same size without pipelining, on the same server and as durably; a whole
//! cycle takes at most 60 us of CPU, ours and the server's; and with 10^6 operations stored, reading,
//! claiming and purging cost at most 1.5 times what they cost with 10^3.
//!
//! The server is private and started for it, with every write on disk before it is acknowledged.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints what it measured")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

mod on_server;
#[path = "../tests/servers/mod.rs"]
mod servers;

use std::process::{Command, Stdio};
use std::time::Instant;

use respond_async::store::RedisStore;

use on_server::{Place, ROUND, is_wanted};
use servers::{Server, Sort};

/// About as long as an operation with its input.
const SIZE: &str = "500";

fn main() {
    if !["accept", "cycle", "read"].into_iter().any(is_wanted) {
        return;
    }
    let open = async |server: &Server, prefix: &str| {
        let builder = RedisStore::builder(&server.url()).unwrap();
        builder.prefix(prefix).open().await.unwrap()
    };
    let place = Place { server: Server::start(Sort::Redis), runtime: on_server::runtime(), open };
    if is_wanted("accept") {
        for clients in [1, 16, 64] {
            // As many as it takes for about a round.
            let began = Instant::now();
            set(&place.server, clients, 20_000);
            let rounds = ROUND.as_micros() / began.elapsed().as_micros();
            let count = 20_000 * u64::try_from(rounds).unwrap().max(1);
            let raw = || {
                set(&place.server, clients, count);
                count
            };
            on_server::accepting(&place, clients, "redis-benchmark", raw);
        }
    }
    if is_wanted("cycle") {
        for clients in [16, 64] {
            on_server::cycling(&place, clients);
        }
    }
    if is_wanted("read") {
        on_server::reading(&place, || {});
    }
}

/// Sets so many strings.
fn set(server: &Server, clients: usize, count: u64) {
    let status = Command::new("redis-benchmark")
        .args(["-p", &server.port().to_string(), "-t", "set", "-d", SIZE, "-r", "1000000", "-q"])
        .args(["-c", &clients.to_string(), "-n", &count.to_string()])
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

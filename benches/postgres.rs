//! Claims: with 64 clients, more operations are accepted a second than `pgbench` commits rows of the same
//! size one by one with as many clients on the same server; and with 10^6 operations stored, reading,
//! claiming and purging cost at most 1.5 times what they cost with 10^3.
//!
//! The server is private and started for it, with PostgreSQL's own settings for durability.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints what it measured")]
#![allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

mod on_server;
#[path = "../tests/servers/mod.rs"]
mod servers;

use std::fs;
use std::process::Command;

use respond_async::store::PostgresStore;
use respond_async::time::{Clock, SystemClock};

use on_server::{Place, ROUND, is_wanted};
use servers::{Server, Sort};

fn main() {
    if !["accept", "cycle", "read"].into_iter().any(is_wanted) {
        return;
    }
    let open = async |server: &Server, schema: &str| {
        let builder = PostgresStore::builder(&server.url()).unwrap();
        builder.schema(schema).open().await.unwrap()
    };
    let place =
        Place { server: Server::start(Sort::Postgres), runtime: on_server::runtime(), open };
    if is_wanted("accept") {
        for clients in [1, 16, 64] {
            let bench = PgBench::new(&place.server, clients);
            on_server::accepting(&place, clients, "pgbench", || bench.run());
        }
    }
    if is_wanted("cycle") {
        for clients in [16, 64] {
            on_server::cycling(&place, clients);
        }
    }
    if is_wanted("read") {
        on_server::reading(&place, || {
            let url = place.server.url();
            let vacuumed = Command::new("psql").args(["-q", "-c", "VACUUM ANALYZE", &url]).status();
            assert!(vacuumed.unwrap().success());
        });
    }
}

/// The same row, committed by itself, by `pgbench` with prepared statements.
struct PgBench {
    url: String,
    clients: usize,
    script: tempfile::NamedTempFile,
}

impl PgBench {
    fn new(server: &Server, clients: usize) -> Self {
        let script = tempfile::NamedTempFile::new().unwrap();
        let record =
            String::from_utf8(on_server::new_operation().accept(SystemClock.now()).to_record())
                .unwrap();
        let insert = format!("INSERT INTO bench VALUES (gen_random_uuid(), 'task', '{record}');\n");
        fs::write(script.path(), insert).unwrap();
        let table =
            "CREATE TABLE IF NOT EXISTS bench (id uuid PRIMARY KEY, kind text, record text)";
        let made = Command::new("psql").args(["-q", "-c", table, &server.url()]).status();
        assert!(made.unwrap().success());
        Self { url: server.url(), clients, script }
    }

    fn run(&self) -> u64 {
        let clients = self.clients.to_string();
        let threads = self.clients.min(2).to_string();
        let seconds = ROUND.as_secs().to_string();
        let output = Command::new("pgbench")
            .args(["-n", "-M", "prepared", "-c", &clients, "-j", &threads, "-T", &seconds, "-f"])
            .arg(self.script.path())
            .arg(&self.url)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.contains("actually processed")).unwrap();
        line.rsplit(' ').next().unwrap().split('/').next().unwrap().parse().unwrap()
    }
}

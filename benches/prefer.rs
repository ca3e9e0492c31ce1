//! The claim: reading a typical `Prefer` field takes at most 100 ns on average, and no allocation.
//!
//! "Reading" is `Preferences::from_headers` with `respond_async()` and `wait()`. The naive parser of the tests runs
//! beside it, so that there is a ratio to compare across machines; it allocates, and counting that costs it some time.
//! Timed are the fastest of many rounds: the rest is noise.
#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use respond_async::prefer::{PREFER, Preferences};

#[path = "../tests/prefer_reference.rs"]
mod reference;

const FIELDS: [&[&str]; 5] = [
    &["respond-async"],
    &["respond-async, wait=10"],
    &["return=minimal"],
    &["respond-async, wait=100, handling=lenient", r#"return=representation; foo="a,b;c""#],
    &[r#"callback; url="https://example.com/a,b"; retry="3;5"; token="q\"t""#],
];

const ROUNDS: u32 = 300;
const REPEATS: u32 = 1_000;

fn main() {
    println!("{:>9} {:>7} {:>9} {:>6}  field", "ns", "allocs", "naive ns", "ratio");
    let mut sums = [0.0; 2];
    let mut allocations = 0;
    for lines in FIELDS {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(PREFER, HeaderValue::from_static(line));
        }
        let allocated = allocation_counter::measure(|| read(&headers)).count_total;
        let figures = [fastest(|| read(&headers)), fastest(|| read_naively(&headers))];
        print_row(figures, allocated, &lines.join(" | "));
        sums = [sums[0] + figures[0], sums[1] + figures[1]];
        allocations += allocated;
    }
    let fields = f64::from(u32::try_from(FIELDS.len()).unwrap_or(u32::MAX));
    print_row(sums.map(|sum| sum / fields), allocations, "average; allocations in all");
}

fn read(headers: &HeaderMap) {
    let preferences = Preferences::from_headers(black_box(headers));
    black_box((preferences.respond_async(), preferences.wait()));
}

fn read_naively(headers: &HeaderMap) {
    let lines: Vec<&[u8]> =
        black_box(headers).get_all(&PREFER).iter().map(HeaderValue::as_bytes).collect();
    let preferences = reference::preferences(&lines);
    black_box((
        reference::respond_async(&preferences),
        reference::wait(&preferences).map(Duration::from_secs),
    ));
}

/// Nanoseconds for one call.
fn fastest(mut call: impl FnMut()) -> f64 {
    let round = |_| {
        let start = Instant::now();
        (0..REPEATS).for_each(|_| call());
        start.elapsed()
    };
    let fastest = (0..ROUNDS).map(round).min().unwrap_or_default();
    fastest.as_secs_f64() * 1e9 / f64::from(REPEATS)
}

fn print_row([own, naive]: [f64; 2], allocations: u64, field: &str) {
    println!("{own:9.1} {allocations:7} {naive:9.1} {:5.1}x  {field}", naive / own);
}

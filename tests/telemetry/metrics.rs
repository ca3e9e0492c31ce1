use std::collections::BTreeMap;
use std::time::Duration;

use http::Request;
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use respond_async::monitor::Monitor;
use respond_async::{Owner, Status};
use tokio::time::sleep;

use crate::store::Flaky;
use crate::{Work, builder, prefer};

/// What was told, by name and labels: `name{label=value,…}`. Of a histogram, its number of samples.
fn told(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let metrics = snapshotter.snapshot().into_vec();
    let told = metrics.into_iter().map(|(key, _, description, value)| {
        assert!(description.is_some(), "{key:?} has no description");
        let labels: Vec<_> =
            key.key().labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        let value = match value {
            DebugValue::Counter(count) => f64::from(u32::try_from(count).unwrap()),
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(samples) => f64::from(u32::try_from(samples.len()).unwrap()),
        };
        (format!("{}{{{}}}", key.key().name(), labels.join(",")), value)
    });
    told.collect()
}

#[test]
fn all_that_happens_is_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(everything()));

    let metrics = snapshotter.snapshot().into_vec();
    let mut found: Vec<_> = metrics
        .iter()
        .map(|(key, ..)| {
            let kind = match key.kind() {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
            };
            let labels: Vec<_> =
                key.key().labels().map(|label| format!("`{}`", label.key())).collect();
            let name = key.key().name().strip_prefix("respond_async_").unwrap();
            format!("| `{name}` | {kind} | {} |", labels.join(", "))
        })
        .collect();
    found.sort();
    found.dedup();
    let page = include_str!("../../docs/operating.md");
    let listed: Vec<_> = page
        .lines()
        .filter(|line| {
            ["| counter |", "| gauge |", "| histogram |"].iter().any(|kind| line.contains(kind))
        })
        .map(|line| {
            let cells: Vec<_> = line.split('|').collect();
            format!("|{}|", cells[1..4].join("|"))
        })
        .collect();
    let mut sorted = listed.clone();
    sorted.sort();
    assert_eq!(found, sorted, "docs/operating.md lists what there is");
}

/// Makes each of the metrics.
async fn everything() {
    let store = Flaky::new();
    let operations = builder(&store).live_limit(3).start();
    let monitor = Monitor::new(&operations);
    let now = prefer("respond-async");
    for job in [Work::Sleep(1_000), Work::FailOnce, Work::Sleep(1_000)] {
        assert_eq!(operations.respond(&now, job).await.status(), 202);
    }
    let refused = operations.respond(&now, Work::Succeed).await;
    assert_eq!(refused.status(), 503);
    sleep(Duration::from_secs(10)).await;
    operations.respond(&now, Work::Panic).await;
    let in_time = operations.respond(&prefer("respond-async, wait=5"), Work::Sleep(10)).await;
    assert_eq!(in_time.status(), 200);

    // Somebody else ends it while it runs.
    let id = operations.kick_off(&now).submit(Work::Forever).await.unwrap().operation.id();
    sleep(Duration::from_millis(10)).await;
    store.set_away(true);
    let request = Request::get(format!("/operations/{id}")).body(()).unwrap();
    assert_eq!(monitor.respond(&Owner::anonymous(), &request).await.status(), 503);
    store.set_away(false);
    store.end(id).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(monitor.respond(&Owner::anonymous(), &request).await.status(), 200);
    let canceled = operations.kick_off(&now).submit(Work::Forever).await.unwrap().operation.id();
    sleep(Duration::from_millis(10)).await;
    operations.cancel(&Owner::anonymous(), canceled).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let ended = operations.get(&Owner::anonymous(), canceled).await.unwrap();
    assert_eq!(ended.operation.status(), Status::Canceled);
}

#[test]
fn the_numbers_are_right() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(everything()));
    let told = told(&snapshotter);
    let number = |name: &str| *told.get(&format!("respond_async_{name}")).unwrap_or(&-1.0);
    for (name, expected) in [
        ("accepted_total{kind=work}", 6.0),
        ("rejected_total{reason=overloaded}", 1.0),
        ("answered_in_time_total{kind=work}", 1.0),
        // One of them twice.
        ("attempts_total{kind=work}", 7.0),
        ("queue_seconds{kind=work}", 7.0),
        ("attempt_seconds{kind=work}", 7.0),
        ("retries_total{kind=work}", 1.0),
        ("panics_total{kind=work}", 1.0),
        ("leases_lost_total{kind=work}", 1.0),
        ("finished_total{kind=work,status=succeeded}", 3.0),
        ("finished_total{kind=work,status=failed}", 1.0),
        ("finished_total{kind=work,status=canceled}", 1.0),
        ("polls_total{resource=operation,status=200}", 1.0),
        ("polls_total{resource=operation,status=503}", 1.0),
        ("store_errors_total{kind=unavailable}", 1.0),
        ("running{kind=work}", 0.0),
        ("waiting{kind=work}", 0.0),
        ("held_polls{}", 0.0),
        ("open_streams{}", 0.0),
    ] {
        assert!((number(name) - expected).abs() < 0.1, "{name}: {}\n{told:#?}", number(name));
    }
}

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use respond_async::operation::{TRACEPARENT, TraceContext};
use respond_async::operations::{JobPolicy, RunInfo};
use respond_async::{Context, Operations};
use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Instrument, Span, Subscriber, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{self, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::store::Flaky;
use crate::{Work, builder, prefer, work};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

type Fields = BTreeMap<String, String>;

/// A span or an event that was told: its name or message, its parent's, and its fields.
#[derive(Debug, Clone)]
struct Told {
    name: String,
    parent: Option<String>,
    fields: Fields,
}

#[derive(Clone, Default)]
struct Notes {
    spans: Arc<Mutex<Vec<(Id, Told)>>>,
    events: Arc<Mutex<Vec<Told>>>,
}

struct Collect<'a>(&'a mut Fields);

impl Visit for Collect<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Notes {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: layer::Context<'_, S>) {
        let span = cx.span(id).unwrap();
        let mut fields = Fields::new();
        attributes.record(&mut Collect(&mut fields));
        let parent = span.parent().map(|parent| parent.name().to_owned());
        let told = Told { name: span.name().to_owned(), parent, fields };
        self.spans.lock().unwrap().push((id.clone(), told));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: layer::Context<'_, S>) {
        let mut spans = self.spans.lock().unwrap();
        // Ids are used again: the last is the one.
        let (_, told) = spans.iter_mut().rev().find(|(known, _)| known == id).unwrap();
        values.record(&mut Collect(&mut told.fields));
    }

    fn on_event(&self, event: &Event<'_>, cx: layer::Context<'_, S>) {
        if event.metadata().target() != "respond_async" {
            return;
        }
        let mut fields = Fields::new();
        event.record(&mut Collect(&mut fields));
        let parent = cx.event_span(event).map(|span| span.name().to_owned());
        let name = fields.remove("message").unwrap();
        self.events.lock().unwrap().push(Told { name, parent, fields });
    }
}

/// Has every thread listen to what is told. `tracing` asks a place that tells something once whether anybody
/// listens, and while it knows of one subscriber only that of the thread that comes by first: a test without
/// one would answer for the others.
pub(crate) fn listen_everywhere() {
    static GLOBAL: Once = Once::new();
    GLOBAL.call_once(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap();
    });
}

impl Notes {
    /// Collects what this thread tells.
    fn listen() -> (Self, tracing::subscriber::DefaultGuard) {
        let notes = Self::default();
        let subscriber = tracing_subscriber::registry().with(notes.clone());
        (notes, tracing::subscriber::set_default(subscriber))
    }

    fn spans(&self, name: &str) -> Vec<Told> {
        let spans = self.spans.lock().unwrap();
        spans.iter().filter(|(_, told)| told.name == name).map(|(_, told)| told.clone()).collect()
    }

    fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().iter().map(|told| told.name.clone()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_leads_to_its_acceptance_and_its_run() {
    let (notes, _guard) = Notes::listen();
    let operations = builder(&Flaky::new()).start();
    let preferences = prefer("respond-async");
    let trace = TraceContext::new(PARENT, "");
    let respond = operations.kick_off(&preferences).trace(trace).respond(Work::FailOnce);
    let response = respond.instrument(info_span!("request")).await;
    sleep(Duration::from_secs(5)).await;

    let accepted = &notes.spans("operation.accept")[0];
    assert_eq!(accepted.parent.as_deref(), Some("request"));
    let id = &accepted.fields["operation.id"];
    assert!(response.headers()["location"].to_str().unwrap().ends_with(id));
    let runs = notes.spans("operation.run");
    let seen: Vec<_> = runs
        .iter()
        .map(|run| {
            let field = |name: &str| run.fields.get(name).map(String::as_str);
            assert_eq!(
                (field("operation.id"), field("operation.kind")),
                (Some(&**id), Some("work"))
            );
            assert_eq!((field("trace.parent"), run.parent.as_deref()), (Some(PARENT), None));
            (field("operation.attempt").unwrap(), field("operation.status"))
        })
        .collect();
    assert_eq!(seen, [("1", None), ("2", Some("succeeded"))]);
    let warned = "the attempt failed, and another follows";
    assert_eq!(
        notes.events(),
        ["started", "accepted", "begun", "ended", warned, "begun", "ended", "finished"]
    );
    let events = notes.events.lock().unwrap();
    assert_eq!(events[0].fields["durability"], "volatile");
    assert!(events[2..].iter().all(|told| told.parent.as_deref() == Some("operation.run")));
    let delay: f64 = events[4].fields["delay_seconds"].parse().unwrap();
    assert_eq!(events[4].fields["status"], "502");
    assert!(delay > 0.0 && delay <= 1.0);
}

#[tokio::test(start_paused = true)]
async fn what_runs_for_who_waits_is_the_requests_child() {
    let (notes, _guard) = Notes::listen();
    let operations = builder(&Flaky::new()).start();
    for (job, status) in [(Work::Succeed, 200), (Work::Panic, 500), (Work::Sleep(9_000), 202)] {
        let preferences = prefer("respond-async, wait=5");
        let respond = operations.respond(&preferences, job);
        assert_eq!(respond.instrument(info_span!("request")).await.status(), status);
    }
    sleep(Duration::from_secs(5)).await;
    let runs = notes.spans("operation.run");
    assert_eq!(runs.len(), 3);
    assert!(runs.iter().all(|run| run.parent.as_deref() == Some("request")));
    assert_eq!(runs[2].fields.get("operation.status").unwrap(), "succeeded");
    let events = notes.events();
    let all = ["started", "answered in time", "answered in time", "the handler panicked"];
    assert_eq!(events[..4], all);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_told_by_who_needs_it() {
    let (notes, _guard) = Notes::listen();
    let store = Flaky::new();
    let operations = builder(&store).start();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(notes.events(), ["started"]);
    store.set_away(true);
    operations.respond(&prefer("respond-async"), Work::Succeed).await;
    sleep(Duration::from_secs(2)).await;
    let events = notes.events.lock().unwrap();
    let tasks: Vec<_> =
        events.iter().filter_map(|told| told.fields.get("task")).map(String::as_str).collect();
    assert!(tasks.contains(&"worker") && tasks.contains(&"sweeper"), "{tasks:?}");
    let told = events.iter().find(|told| told.name == "the store failed").unwrap();
    let field = |name: &str| &*told.fields[name];
    assert_eq!(
        (field("kind"), field("error"), field("cause")),
        ("unavailable", "cannot reach the store", "on purpose")
    );
    assert!(events.iter().any(|told| told.name == "rejected"));
}

/// As docs/operating.md has it.
fn run_span(run: RunInfo<'_>) -> Span {
    let span =
        info_span!("run", kind = run.kind().as_str(), operation.status = tracing::field::Empty);
    if let Some(trace) = run.trace() {
        let fields = [("traceparent", trace.parent()), ("tracestate", trace.state())];
        let fields: HashMap<_, _> = fields.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        let _ = span.set_parent(TraceContextPropagator::new().extract(&fields));
    }
    span
}

#[tokio::test(start_paused = true)]
async fn one_trace_goes_from_replica_to_replica() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    let _guard = tracing::subscriber::set_default(subscriber);

    // One takes requests, the other does the work.
    let store = Flaky::new();
    let none = JobPolicy::new().with_concurrency(0);
    let gateway = Operations::builder(store.clone())
        .job_with(none, async |job: Work, context: Context| work(job, context).await)
        .start();
    let worker = Operations::builder(store.clone()).job(work).run_span(run_span).start();

    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, PARENT.parse().unwrap());
    let preferences = prefer("respond-async");
    let kick_off = gateway.kick_off(&preferences).trace(TraceContext::from_headers(&headers));
    assert_eq!(kick_off.respond(Work::Succeed).await.status(), 202);
    sleep(Duration::from_secs(2)).await;
    drop((gateway, worker));

    let spans = exporter.get_finished_spans().unwrap();
    let run = spans.iter().find(|span| span.name == "run").unwrap();
    assert_eq!(run.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(run.parent_span_id.to_string(), "b7ad6b7169203331");
    let status = run.attributes.iter().find(|one| one.key.as_str() == "operation.status").unwrap();
    assert_eq!(status.value.as_str(), "succeeded");
}

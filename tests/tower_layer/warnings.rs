//! In debug builds a mistake in an answer is told by `tracing`.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::routing::put;
use http::{Request, StatusCode};
use respond_async::store::MemoryStore;
use respond_async::tower::{AsyncMode, Route};
use respond_async::{Operations, Outcome, prefer::Preferences};
use tower::{Layer, ServiceExt};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber, subscriber};

/// Notes the warnings of this crate.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<String>>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && metadata.target().starts_with("respond_async")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        struct Message<'a>(&'a mut String);
        impl Visit for Message<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    writeln!(self.0, "{value:?}").unwrap();
                }
            }
        }
        event.record(&mut Message(&mut self.0.lock().unwrap()));
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_mistake_is_reported() {
    let warnings = Warnings::default();
    let _guard = subscriber::set_default(warnings.clone());
    let told = || std::mem::take(&mut *warnings.0.lock().unwrap());

    let layer =
        AsyncMode::new([Route::put("/")]).start::<Body>(Operations::builder(MemoryStore::new()));
    let app = layer.layer(Router::new().route("/", put(async || StatusCode::ACCEPTED)));
    app.oneshot(Request::put("/").body(Body::empty()).unwrap()).await.unwrap();
    let no_monitor = "a 202 names no status monitor (RFC 9110 §15.3.3)\n";
    assert_eq!(told(), if cfg!(debug_assertions) { no_monitor } else { "" });

    let answer = async |_| Outcome::new(StatusCode::ACCEPTED);
    layer.operations().respond_with(&Preferences::default(), answer).await;
    assert_eq!(told(), if cfg!(debug_assertions) { no_monitor } else { "" });

    let answer = async |_| Outcome::new(StatusCode::CREATED);
    layer.operations().respond_with(&Preferences::default(), answer).await;
    assert_eq!(told(), "");
}

//! A receiver that answers as it is told, and notes what comes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use bytes::Bytes;
use respond_async::time::{Clock, SystemClock};
use respond_async::webhook::Verifier;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::secret;

/// A call that came, and was of who shares the secret.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) content_type: String,
    pub(crate) body: Value,
    pub(crate) raw: Bytes,
    pub(crate) headers: HeaderMap,
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    _server: JoinSet<()>,
}

type Answers = Arc<dyn Fn(usize) -> Response<String> + Send + Sync>;

#[derive(Clone)]
struct Served {
    answers: Answers,
    calls: Arc<Mutex<Vec<Call>>>,
    pause: Duration,
}

async fn receive(
    State(served): State<Served>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<String> {
    let verified = Verifier::new([secret()]).verify_at(&headers, &body, SystemClock.now()).unwrap();
    let number = {
        let mut calls = served.calls.lock().unwrap();
        calls.push(Call {
            path: uri.path().to_owned(),
            id: verified.id().to_owned(),
            content_type: headers["content-type"].to_str().unwrap().to_owned(),
            body: serde_json::from_slice(&body).unwrap(),
            raw: body,
            headers,
        });
        calls.len()
    };
    sleep(served.pause).await;
    (served.answers)(number)
}

impl Receiver {
    /// Answers the first call with `answers(1)`, and so on.
    pub(crate) async fn start(
        answers: impl Fn(usize) -> Response<String> + Send + Sync + 'static,
    ) -> Self {
        Self::slow(Duration::ZERO, answers).await
    }

    pub(crate) async fn slow(
        pause: Duration,
        answers: impl Fn(usize) -> Response<String> + Send + Sync + 'static,
    ) -> Self {
        let calls: Arc<Mutex<Vec<_>>> = Arc::default();
        let served = Served { answers: Arc::new(answers), calls: Arc::clone(&calls), pause };
        let app = Router::new().fallback(receive).with_state(served);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, calls, _server: task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }
}

pub(crate) fn answer(status: u16) -> Response<String> {
    let status = StatusCode::from_u16(status).unwrap();
    Response::builder().status(status).body(String::new()).unwrap()
}

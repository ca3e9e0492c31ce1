//! Whatever a server answers, a client comes to an end, and takes its credentials nowhere else.
//!
//! The input is answers, parted by lines of `----`: a status, header fields, an empty line, content. The last
//! is given again and again.
#![no_main]

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use libfuzzer_sys::fuzz_target;
use respond_async::client::{
    Client, Opened, StreamTransport, Transport, TransportError, TransportErrorKind,
};
use tokio::runtime::Builder;

/// No operation is followed longer than that, by a clock that jumps to what is waited for.
const DEADLINE: Duration = Duration::from_secs(3_600);
/// A client that asks once in half a second at most cannot have asked more often.
const MOST: usize = 7_300;

#[derive(Debug)]
struct Script {
    answers: Vec<Option<Response<Bytes>>>,
    asked: Mutex<usize>,
}

#[async_trait]
impl Transport for Script {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        assert_eq!(request.uri().authority().unwrap(), "service.example");
        assert_eq!(request.uri().scheme_str(), Some("http"));
        let mut asked = self.asked.lock().unwrap();
        assert!(*asked < MOST, "asked without a pause");
        let answer = &self.answers[(*asked).min(self.answers.len() - 1)];
        *asked += 1;
        answer.clone().ok_or_else(lost)
    }

    fn streaming(&self) -> Option<&dyn StreamTransport> {
        Some(self)
    }
}

#[async_trait]
impl StreamTransport for Script {
    /// A stream comes in pieces of three bytes, and then breaks.
    async fn open(&self, request: Request<Bytes>) -> Result<Opened, TransportError> {
        let answer = self.send(request).await?;
        let content_type = answer.headers().get(header::CONTENT_TYPE);
        if content_type.is_none_or(|value| value != "text/event-stream") {
            return Ok(Opened::Whole(answer));
        }
        Ok(Opened::Stream(answer.map(|body| {
            let pieces: Vec<_> = body.chunks(3).map(|piece| Ok(body.slice_ref(piece))).collect();
            stream::iter(pieces.into_iter().chain([Err(lost())])).boxed()
        })))
    }
}

fn lost() -> TransportError {
    TransportError::new(TransportErrorKind::Ambiguous, "lost")
}

/// None is an answer that does not arrive.
fn answer(text: &[u8]) -> Option<Response<Bytes>> {
    let end = text.windows(2).position(|two| two == b"\n\n");
    let (head, body) = end.map_or((text, &b""[..]), |end| (&text[..end], &text[end + 2..]));
    let mut lines = head.split(|&byte| byte == b'\n');
    let mut response = Response::new(Bytes::copy_from_slice(body));
    *response.status_mut() = StatusCode::from_bytes(lines.next()?).ok()?;
    for line in lines {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            response.headers_mut().append(name, value);
        }
    }
    Some(response)
}

fuzz_target!(|script: &[u8]| {
    let mut answers = vec![Vec::new()];
    for line in script.split_inclusive(|&byte| byte == b'\n') {
        match (line, answers.last_mut()) {
            (b"----\n", _) => answers.push(Vec::new()),
            (_, Some(last)) => last.extend_from_slice(line),
            (_, None) => unreachable!(),
        }
    }
    let answers = answers.iter().map(|text| answer(text)).collect();
    let client = Client::with(Script { answers, asked: Mutex::new(0) });
    let request = Request::post("http://service.example/things").header(header::AUTHORIZATION, "s");
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let ended = async {
        let sending = client.send(request.body("content").unwrap());
        tokio::time::timeout(DEADLINE * 2, sending.respond_async().deadline(DEADLINE).finished())
            .await
            .expect("an end")
    };
    let _: Result<_, _> = runtime.block_on(ended);
});

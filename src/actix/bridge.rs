//! The `http` 0.2 of actix and the `http` 1 of everything else, into each other.
//!
//! Both versions take and give the same statuses, methods, field names and field values, byte for
//! byte, so nothing is lost on the way; the tests say so of each byte. (Names with a quotation mark,
//! which the older one lets through, are none by RFC 9110 §5.1.) Bodies are [`Bytes`] on both sides
//! and are handed on, not copied.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::StatusCode as ActixStatus;
use actix_web::http::header::{
    HeaderMap as ActixHeaders, HeaderName as ActixName, HeaderValue as ActixValue,
};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use crate::monitor::Content;
use crate::problem::{Problem, types};
use crate::respond::{Body, Response};

/// The fields of a request, each line in its place.
pub(super) fn headers(from: &ActixHeaders) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(from.len());
    for (name, value) in from {
        if let Some((name, value)) = field(name.as_str(), value.as_bytes()) {
            headers.append(name, value);
        }
    }
    headers
}

/// The field, if it is one.
pub(super) fn field(name: &str, value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
}

/// A request without its content and its extensions.
pub(super) fn parts(from: &HttpRequest) -> Result<Parts, http::Error> {
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(from.method().as_str().as_bytes())?;
    *request.uri_mut() = Uri::try_from(from.uri().to_string())?;
    *request.headers_mut() = headers(from.headers());
    Ok(request.into_parts().0)
}

/// An answer. One that actix could not say would be a 500, rather than another answer than it was.
pub(super) fn response(from: Response) -> HttpResponse<Bytes> {
    response_with(from.map(Body::into_bytes))
}

/// The same with any body.
pub(super) fn response_with<B: From<Body>>(from: http::Response<B>) -> HttpResponse<B> {
    let (parts, body) = from.into_parts();
    let Ok(status) = ActixStatus::from_u16(parts.status.as_u16()) else { return unspeakable() };
    let mut response = HttpResponse::with_body(status, body);
    for (name, value) in &parts.headers {
        let name = ActixName::from_bytes(name.as_str().as_bytes());
        let value = ActixValue::from_bytes(value.as_bytes());
        let (Ok(name), Ok(value)) = (name, value) else { return unspeakable() };
        response.headers_mut().append(name, value);
    }
    response
}

fn unspeakable<B: From<Body>>() -> HttpResponse<B> {
    let body = serde_json::to_vec(&Problem::new(types::INTERNAL)).unwrap_or_default();
    HttpResponse::with_body(ActixStatus::INTERNAL_SERVER_ERROR, Body::from(body).into())
}

impl MessageBody for Content {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.len().map_or(BodySize::Stream, |len| BodySize::Sized(len as u64))
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.poll_bytes(cx).map(|bytes| bytes.map(Ok))
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        if self.is_stream() { Err(self) } else { Ok(self.into_body().into_bytes()) }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use http::StatusCode;

    use super::*;

    #[test]
    fn both_take_the_same_names_and_values() {
        for byte in 0..=u8::MAX {
            for text in [vec![byte], vec![b'a', byte, b'b']] {
                if byte != b'"' {
                    assert_eq!(
                        HeaderName::from_bytes(&text).ok().map(|name| name.as_str().to_owned()),
                        ActixName::from_bytes(&text).ok().map(|name| name.as_str().to_owned()),
                        "{text:?}"
                    );
                }
                assert_eq!(
                    HeaderValue::from_bytes(&text).ok().map(|value| value.as_bytes().to_vec()),
                    ActixValue::from_bytes(&text).ok().map(|value| value.as_bytes().to_vec()),
                    "{text:?}"
                );
            }
        }
    }

    #[test]
    fn each_status_and_byte_arrives() {
        for status in 100..1_000 {
            let status = StatusCode::from_u16(status).unwrap();
            let given = http::Response::builder().status(status).body(Body::default()).unwrap();
            assert_eq!(response(given).status().as_u16(), status.as_u16());
        }
        let every_byte: Vec<u8> =
            (0..=u8::MAX).filter(|byte| HeaderValue::from_bytes(&[*byte]).is_ok()).collect();
        let body = Bytes::from(vec![0xFF; 64]);
        let given = http::Response::builder()
            .header("x-bytes", HeaderValue::from_bytes(&every_byte).unwrap())
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .header("x-empty", "")
            .body(Body::from(body.clone()))
            .unwrap();
        let answer = response(given);
        let values = |name| -> Vec<_> {
            answer.headers().get_all(name).map(|value| value.as_bytes().to_vec()).collect()
        };
        assert_eq!(values("x-bytes"), [every_byte]);
        assert_eq!(values("set-cookie"), [b"a=1".to_vec(), b"b=2".to_vec()]);
        assert_eq!(values("x-empty"), [b"".to_vec()]);
        // The same memory, and no copy of it.
        assert_eq!(answer.into_body().as_ptr(), body.as_ptr());
    }

    #[test]
    fn a_request_arrives_whole() {
        let request = TestRequest::with_uri("/a%20b/%C3%A9?q=1&q=%2F")
            .method(actix_web::http::Method::from_bytes(b"M-SEARCH").unwrap())
            .append_header(("prefer", "respond-async"))
            .append_header(("prefer", "wait=5"))
            .append_header(("x-bytes", ActixValue::from_bytes(b"\xE9\xFF").unwrap()))
            .to_http_request();
        let parts = parts(&request).unwrap();
        assert_eq!(parts.method, "M-SEARCH");
        assert_eq!(parts.uri, "/a%20b/%C3%A9?q=1&q=%2F");
        assert_eq!(parts.headers["x-bytes"].as_bytes(), b"\xE9\xFF");
        let lines: Vec<_> = parts.headers.get_all("prefer").iter().collect();
        assert_eq!(lines, ["respond-async", "wait=5"]);
    }
}

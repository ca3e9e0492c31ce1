//! A request as a job: what is kept of it, and how it is stored.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Uri};
use serde::{Deserialize, Serialize};

use crate::header::{from_pairs, to_pairs};
use crate::operation::{Owner, TRACEPARENT, TRACESTATE};
use crate::operations::{Job, JobInput, JobInputError};
use crate::prefer::{PREFER, PreferError, PreferField, Preferences};
use crate::store::IDEMPOTENCY_KEY;

/// The fields of a request that are kept: what its content is (and which part of what, in a `PUT` with
/// `Content-Range`), which answer is wanted, on what condition, and by which name and trace the request is known.
///
/// `Accept-Encoding` and `Range` are not among them: the result is for every later reader, whole.
pub const KEPT: [HeaderName; 19] = [
    header::ACCEPT,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
    HeaderName::from_static("content-digest"),
    IDEMPOTENCY_KEY,
    PREFER,
    HeaderName::from_static("repr-digest"),
    TRACEPARENT,
    TRACESTATE,
    HeaderName::from_static("x-request-id"),
];

/// A request, as much of it as is kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kept {
    pub(super) method: Method,
    pub(super) target: Uri,
    pub(super) headers: HeaderMap,
    pub(super) owner: Owner,
    pub(super) body: Bytes,
}

/// One that may be begun again.
#[derive(Debug)]
pub(super) struct Repeatable(pub(super) Kept);

/// One that is begun once.
#[derive(Debug)]
pub(super) struct Once(pub(super) Kept);

/// What stands before the content, in one line of JSON.
#[derive(Serialize, Deserialize)]
struct Head {
    method: String,
    target: String,
    /// As [`to_pairs`] gives them.
    headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
}

impl Kept {
    /// What is kept of a request: the fields of [`KEPT`] and of `also`.
    pub(super) fn of(
        parts: &Parts,
        preferences: &Preferences,
        also: &[HeaderName],
        owner: Owner,
        body: Bytes,
    ) -> Self {
        let mut headers = HeaderMap::new();
        for name in KEPT.iter().chain(also).filter(|name| **name != PREFER) {
            if !headers.contains_key(name) {
                for value in parts.headers.get_all(name) {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        if let Some(rest) = rest(preferences) {
            headers.insert(PREFER, rest);
        }
        // HTTP/2 has it in the target.
        let authority = parts.uri.authority().map(http::uri::Authority::as_str);
        if let (false, Some(Ok(host))) =
            (headers.contains_key(header::HOST), authority.map(HeaderValue::from_str))
        {
            headers.insert(header::HOST, host);
        }
        let target = parts.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
        Self { method: parts.method.clone(), target, headers, owner, body }
    }

    fn encode(&self) -> Result<Bytes, JobInputError> {
        let head = Head {
            method: self.method.to_string(),
            target: self.target.to_string(),
            headers: to_pairs(&self.headers),
            owner: self.owner.name().map(str::to_owned),
        };
        let head = serde_json::to_vec(&head).map_err(JobInputError::new)?;
        let mut bytes = BytesMut::with_capacity(head.len() + 1 + self.body.len());
        bytes.put_slice(&head);
        bytes.put_u8(b'\n');
        bytes.put_slice(&self.body);
        Ok(bytes.freeze())
    }

    fn decode(mut input: Bytes) -> Result<Self, JobInputError> {
        // JSON has no line feed where it is not written for people.
        let end = input.iter().position(|byte| *byte == b'\n');
        let line = input.split_to(end.ok_or_else(|| JobInputError::new("no line of JSON"))?);
        let head: Head = serde_json::from_slice(&line).map_err(JobInputError::new)?;
        let headers =
            from_pairs(&head.headers).ok_or_else(|| JobInputError::new("no header fields"))?;
        let owner = match &head.owner {
            None => Owner::anonymous(),
            Some(name) => Owner::new(name).map_err(JobInputError::new)?,
        };
        Ok(Self {
            method: head.method.parse().map_err(JobInputError::new)?,
            target: head.target.parse().map_err(JobInputError::new)?,
            headers,
            owner,
            body: input.split_off(1),
        })
    }
}

macro_rules! job {
    ($($job:ident = $kind:literal)*) => {$(
        impl JobInput for $job {
            fn encode(&self) -> Result<Bytes, JobInputError> {
                self.0.encode()
            }

            fn decode(input: Bytes) -> Result<Self, JobInputError> {
                Kept::decode(input).map(Self)
            }
        }

        impl Job for $job {
            const KIND: &'static str = $kind;
        }
    )*};
}

job! {
    Repeatable = "http.request"
    Once = "http.request.once"
}

/// What the client prefers besides the asynchronous mode, which the inner service has no part in.
fn rest(preferences: &Preferences) -> Option<HeaderValue> {
    let asynchronous = ["respond-async", "wait"];
    let mut rest = preferences
        .iter()
        .filter(|one| !asynchronous.iter().any(|name| one.name().eq_ignore_ascii_case(name)));
    let write = |field: PreferField, one: crate::prefer::Preference<'_>| {
        let value = one.value().map(|value| value.to_bytes()).unwrap_or_default();
        one.parameters().try_fold(field.with(one.name(), value)?, |field, parameter| {
            let value = parameter.value().map(|value| value.to_bytes()).unwrap_or_default();
            field.parameter(parameter.name(), value)
        })
    };
    // What was read can be written.
    let field: Result<PreferField, PreferError> = rest.try_fold(PreferField::new(), write);
    field.ok()?.to_header_value()
}

/// Whether a request was given a key: then it is answered from the store.
pub(super) fn is_named(headers: &HeaderMap) -> bool {
    headers.contains_key(IDEMPOTENCY_KEY)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn kept(request: Request<()>, also: &[HeaderName], body: &'static [u8]) -> Kept {
        let (parts, ()) = request.into_parts();
        let preferences = Preferences::from_headers(&parts.headers);
        let owner = Owner::new("ann").unwrap();
        Kept::of(&parts, &preferences, also, owner, Bytes::from_static(body))
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let every_byte: Vec<u8> =
            (0..=u8::MAX).filter(|byte| HeaderValue::from_bytes(&[*byte]).is_ok()).collect();
        let request = Request::builder()
            .method("M-SEARCH")
            .uri("/a%20b/c?q=1&q=%0A")
            .header("accept", HeaderValue::from_bytes(&every_byte).unwrap())
            .header("accept", "second/line")
            .body(())
            .unwrap();
        let request = kept(request, &[], b"{\n\0\xFF\r\n");
        let stored = request.encode().unwrap();
        assert_eq!(Kept::decode(stored.clone()).unwrap(), request);
        // A member of another version does no harm.
        let newer = String::from_utf8_lossy(&stored[..1]).replace('{', "{\"new\":[1],");
        let newer = [newer.as_bytes(), &stored[1..]].concat();
        assert_eq!(Kept::decode(newer.into()).unwrap(), request);
    }

    #[test]
    fn the_stored_form_stays() {
        let request = Request::put("/x?y=1").header("content-type", "a/b").body(()).unwrap();
        let stored = kept(request, &[], b"content").encode().unwrap();
        let expected: &[u8] =
            br#"{"method":"PUT","target":"/x?y=1","headers":[["content-type","a/b"]],"owner":"ann"}
content"#;
        assert_eq!(stored, expected);
    }

    #[test]
    fn what_is_no_request_is_an_error() {
        let good = r#"{"method":"PUT","target":"/","headers":[]}"#;
        assert!(Kept::decode(format!("{good}\n").into()).is_ok());
        for bad in [
            good.to_owned(),
            String::new(),
            "\n".to_owned(),
            "{}\n".to_owned(),
            good.replace("PUT", "P T") + "\n",
            good.replace("\"/\"", "\"\\u0000\"") + "\n",
            good.replace("[]", "[[\"a b\",\"\"]]") + "\n",
            good.replace("[]", "[[\"a\",\"\\n\"]]") + "\n",
            good.replace("[]", "[[\"a\",\"\\u0100\"]]") + "\n",
        ] {
            assert!(Kept::decode(bad.clone().into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_are_kept_only_where_they_are_named() {
        let request = || {
            let request = Request::post("http://h.example/x");
            let request = request.header("cookie", "a=1").header("authorization", "Basic x");
            let request = request.header("x-mine", "1").header("accept-encoding", "gzip");
            request.header("content-length", "3").header("accept", "a/b").body(()).unwrap()
        };
        let names = |kept: Kept| -> Vec<String> {
            kept.headers.keys().map(HeaderName::to_string).collect()
        };
        assert_eq!(names(kept(request(), &[], b"")), ["accept", "host"]);
        let also = [header::AUTHORIZATION, header::ACCEPT];
        let with = kept(request(), &also, b"");
        assert_eq!(with.headers["host"], "h.example");
        assert_eq!(with.headers.get_all("accept").iter().count(), 1);
        assert_eq!(names(with), ["accept", "authorization", "host"]);
    }

    #[test]
    fn the_inner_service_sees_the_other_preferences() {
        for (sent, kept_of_it) in [
            ("respond-async, wait=5", None),
            ("Respond-Async, return=minimal, WAIT=5", Some("return=minimal")),
            ("a=\"b, c\"; d=e; f, respond-async", Some("a=\"b, c\"; d=e; f")),
        ] {
            let request = Request::post("/").header("prefer", sent).body(()).unwrap();
            let headers = kept(request, &[PREFER], b"").headers;
            let prefer = headers.get("prefer").map(|value| value.to_str().unwrap());
            assert_eq!(prefer, kept_of_it, "{sent}");
        }
    }
}

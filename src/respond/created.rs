use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use serde::Serialize;

use super::Response;
use crate::header::{CacheControl, EntityTag, JSON, UriReference};
use crate::operation::{IntoOutcome, Outcome};

/// 201 Created: the result is there
/// ([RFC 9110 §15.3.2](https://www.rfc-editor.org/rfc/rfc9110#section-15.3.2)).
///
/// `Location` is the created resource. With content, `Content-Location` says that the content is the
/// representation of that resource
/// ([RFC 9110 §8.7](https://www.rfc-editor.org/rfc/rfc9110#section-8.7)), so a client may keep it as
/// if it had asked for it.
///
/// ```
/// use std::time::Duration;
/// use respond_async::header::{CacheControl, EntityTag};
/// use respond_async::respond::Created;
///
/// let response = Created::at("/images/17")
///     .json(&serde_json::json!({ "id": 17 }))
///     .cache_control(CacheControl::private().max_age(Duration::from_secs(60)))
///     .etag(&EntityTag::new("17-1")?)
///     .into_response();
/// assert_eq!(response.status(), 201);
/// assert_eq!(response.headers()["content-location"], response.headers()["location"]);
/// # Ok::<(), respond_async::header::InvalidEntityTag>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Created {
    location: UriReference,
    outcome: Outcome,
}

impl Created {
    /// What was created is at `location`: an absolute URL, or a path that begins with `/`, for the answer may be read
    /// at several URLs (the request's, its result's, its monitor's).
    pub fn at(location: impl Into<UriReference>) -> Self {
        let location = location.into();
        let mut outcome = Outcome::new(StatusCode::CREATED);
        outcome.headers.insert(header::LOCATION, location.to_header_value());
        Self { location, outcome }
    }

    /// Gives the representation of what was created, as JSON. A value that has no JSON form makes
    /// the whole answer a 500 problem.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        let content = Outcome::json(StatusCode::CREATED, value);
        if content.status == StatusCode::CREATED {
            self.content(JSON, content.body)
        } else {
            Self { outcome: content, ..self }
        }
    }

    /// Gives the representation of what was created, in any media type.
    pub fn content(self, media_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        let location = self.location.without_fragment().to_header_value();
        let mut created = self
            .header(header::CONTENT_TYPE, media_type)
            .header(header::CONTENT_LOCATION, location);
        created.outcome.body = body.into();
        created
    }

    /// Names the version of the representation.
    pub fn etag(self, tag: &EntityTag) -> Self {
        self.header(header::ETAG, tag.to_header_value())
    }

    /// Says who may keep the representation, and for how long.
    pub fn cache_control(self, cache_control: CacheControl) -> Self {
        self.header(header::CACHE_CONTROL, cache_control.to_header_value())
    }

    /// Sets any other field.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.outcome.headers.insert(name, value);
        self
    }

    /// The answer as a response.
    pub fn into_response(self) -> Response {
        self.outcome.into_response()
    }
}

impl IntoOutcome for Created {
    fn into_outcome(self) -> Outcome {
        self.outcome
    }
}

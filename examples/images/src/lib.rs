//! An image service: it takes a JPEG or PNG, sharpens, scales and recompresses it, and answers with
//! the new image's address, or with the address where that will be known.
//!
//! This is what it does; `axum-images` and `actix-images` serve it.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /images` | [`Images::upload`] |
//! | `GET /images/{id}` | [`Images::download`] |
//! | `/operations` and below | the monitor |
//! | `GET /openapi.json` | [`document`], which says all this |

mod callbacks;
mod describe;
mod gallery;
mod pipeline;
mod settings;
mod stop;
mod workshop;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use respond_async::header::{CacheControl, preferred_type};
use respond_async::operation::TraceContext;
use respond_async::operations::{Job, JobInput, JobInputError};
use respond_async::prefer::Preferences;
use respond_async::problem::{ProblemType, types};
use respond_async::respond::Response;
use respond_async::store::Idempotency;
use respond_async::{Operations, Outcome, Owner, Problem};

use crate::callbacks::Callbacks;
pub use crate::describe::document;
pub use crate::pipeline::MAX_UPLOAD_BYTES;
use crate::pipeline::{EnhanceError, Refusal, Upload};
pub use crate::settings::{Role, Settings, log};
use crate::workshop::Workshop;

const UNSUPPORTED_TYPE: ProblemType = ProblemType::new(
    "urn:problem-type:images:unsupported-type",
    "Unsupported media type",
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
);
const TOO_LARGE: ProblemType = ProblemType::new(
    "urn:problem-type:images:too-large",
    "Image too large",
    StatusCode::PAYLOAD_TOO_LARGE,
);
const NOT_AN_IMAGE: ProblemType = ProblemType::new(
    "urn:problem-type:images:not-an-image",
    "Not an image",
    StatusCode::UNPROCESSABLE_ENTITY,
);
const NO_SUCH_IMAGE: ProblemType =
    ProblemType::new("urn:problem-type:images:not-found", "No such image", StatusCode::NOT_FOUND);

/// The service: a clone is the same.
#[derive(Debug, Clone)]
pub struct Images {
    operations: Operations,
    workshop: Workshop,
    callbacks: Callbacks,
}

/// What an operation keeps of its request is the image as it came.
impl JobInput for Upload {
    fn encode(&self) -> Result<Bytes, JobInputError> {
        Ok(self.bytes().clone())
    }

    fn decode(input: Bytes) -> Result<Self, JobInputError> {
        Self::check(None, input).map_err(JobInputError::new)
    }
}

impl Job for Upload {
    const KIND: &'static str = "images.enhance";
}

impl Images {
    /// `POST /images`: 201 with the enhanced image's address, or 202 with that of its operation.
    /// `body` is the content, or the status that says why it could not be read.
    ///
    /// # Errors
    /// The problem that the client is answered with.
    pub async fn upload(
        &self,
        preferences: &Preferences,
        owner: Owner,
        head: &Parts,
        body: Result<Bytes, StatusCode>,
    ) -> Result<Response, Problem> {
        // What can be refused now is refused now, whatever the client prefers.
        let body = body.map_err(unreadable)?;
        let named = Idempotency::from_request(&head.method, &head.uri, &head.headers, &body)?;
        let content_type = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str);
        let upload = Upload::check(content_type.transpose().unwrap_or(Some("")), body)?;

        let callback = self.callbacks.preferred(preferences, &owner)?;
        let kick_off = self.operations.kick_off(preferences).owner(owner).idempotency(named);
        let trace = TraceContext::from_headers(&head.headers);
        Ok(kick_off.callback(callback).trace(trace).respond(upload).await)
    }

    /// `GET /images/{id}`: the image, to be kept for as long as its client likes; to a client that
    /// accepts JSON, what the 201 said of it.
    ///
    /// # Errors
    /// The problem that the client is answered with.
    pub async fn download(&self, id: String, request: &HeaderMap) -> Result<Response, Problem> {
        let gallery = self.workshop.gallery.clone();
        let found = tokio::task::spawn_blocking(move || gallery.load(&id)).await;
        let found = found.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
        let (picture, bytes) = found.ok_or_else(|| Problem::new(NO_SUCH_IMAGE))?;

        // The image if the client accepts neither: it says more than a 406.
        let forms = [picture.format.media_type(), "application/json"];
        let mut outcome = if preferred_type(request, &forms) == Some(1) {
            Outcome::json(StatusCode::OK, &picture)
        } else {
            let tag = picture.tag().map_err(|error| internal(&error))?;
            let media_type = HeaderValue::from_static(picture.format.media_type());
            let mut image = if tag.is_in_if_none_match(request) {
                Outcome::new(StatusCode::NOT_MODIFIED)
            } else {
                Outcome::with_body(StatusCode::OK, media_type, bytes)
            };
            image.headers.insert(header::ETAG, tag.to_header_value());
            image
        };
        // An image never changes: fresh for a year, and offline for as long as it is kept.
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        let keep = CacheControl::private().immutable().max_age(year).stale_if_error(year);
        outcome.headers.insert(header::CACHE_CONTROL, keep.to_header_value());
        outcome.headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        Ok(outcome.into_response())
    }
}

/// Who asks, so that its operations are its own. Put your authentication here: this one believes
/// whatever `X-User` says. A client without a name can use the links that it was given, and nothing
/// else.
///
/// # Errors
/// 400, if the name cannot be one: whoever gives one is not taken for somebody without a name.
pub fn who_asks(request: &HeaderMap) -> Result<Owner, Problem> {
    let Some(name) = request.get("x-user") else { return Ok(Owner::anonymous()) };
    let owner = name.to_str().ok().and_then(|name| Owner::new(name).ok());
    let no_name =
        || Problem::from_status(StatusCode::BAD_REQUEST).with_detail("X-User is no name.");
    owner.ok_or_else(no_name)
}

fn unreadable(status: StatusCode) -> Problem {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge.into(),
        status => {
            Problem::from_status(status).with_detail("The request's content could not be read.")
        }
    }
}

/// What broke is for the service's own log, not for its clients.
fn internal(error: &dyn std::error::Error) -> Problem {
    use io::Write;
    let _ = writeln!(io::stderr(), "error: {error}");
    Problem::new(types::INTERNAL)
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::UnsupportedType => UNSUPPORTED_TYPE,
            Refusal::TooLarge => TOO_LARGE,
            Refusal::TooManyPixels | Refusal::NotAnImage(_) => NOT_AN_IMAGE,
        };
        Self::new(kind).with_detail(format!("Refused: {refusal}."))
    }
}

impl From<EnhanceError> for Problem {
    fn from(error: EnhanceError) -> Self {
        match error {
            EnhanceError::Refused(refusal) => refusal.into(),
            EnhanceError::Stopped => Self::new(types::CANCELED),
            EnhanceError::Encode(error) => internal(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_picture_or_what_is_known_of_it_as_its_client_prefers() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { data: folder.path().to_owned(), ..Settings::default() };
        let images = Images::start(&settings).await.unwrap();
        let mut png = io::Cursor::new(Vec::new());
        image::RgbaImage::new(8, 8).write_to(&mut png, image::ImageFormat::Png).unwrap();
        let ((head, ()), body) =
            (http::Request::post("/images").body(()).unwrap().into_parts(), png.into_inner());
        let (preferences, owner) = (Preferences::default(), Owner::anonymous());
        let made = images.upload(&preferences, owner, &head, Ok(body.into())).await.unwrap();
        let location = made.headers()[header::LOCATION].to_str().unwrap();
        let id = location.strip_prefix("/images/").unwrap();
        for (accept, media_type) in [
            (None, "image/png"),
            (Some("*/*"), "image/png"),
            (Some("application/json"), "application/json"),
            (Some("application/*"), "application/json"),
            (Some("image/png, application/json;q=0.5"), "image/png"),
            (Some("application/json-seq"), "image/png"),
        ] {
            let accept = accept.map(|it| (header::ACCEPT, HeaderValue::from_static(it)));
            let answer = images.download(id.to_owned(), &accept.into_iter().collect()).await;
            assert_eq!(answer.unwrap().headers()[header::CONTENT_TYPE], media_type);
        }
    }
}

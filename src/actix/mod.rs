//! For [actix-web]: what a handler takes and returns, and the monitor's routes. No logic is here.
//!
//! - [`Preferences`] is an extractor. It never rejects.
//! - [`Owner`] is an extractor: the one that a middleware of yours put into the request's
//!   extensions, else the anonymous one. Only authenticated names belong there.
//! - [`Head`] is an extractor: the request's head in the types of `http` 1, for all in this crate that
//!   reads one, such as [`Idempotency::from_request`](crate::store::Idempotency::from_request).
//! - [`Answer`] is what a handler returns: a [`respond::Response`](crate::respond::Response).
//! - [`Problem`], [`Created`], [`SeeOther`], [`Accepted`] and [`Outcome`] are responses too, and a
//!   [`Problem`] is an error that a handler can return.
//! - [`monitor`] configures the scope at your base path.
//!
//! ```
//! use actix_web::{App, web};
//! use respond_async::actix::Answer;
//! use respond_async::prefer::Preferences;
//! use respond_async::respond::Created;
//! use respond_async::store::MemoryStore;
//! use respond_async::{Context, Operations, Problem};
//!
//! async fn upload(operations: web::Data<Operations>, preferences: Preferences) -> Answer {
//!     operations.respond_with(&preferences, enhance).await.into()
//! }
//!
//! async fn enhance(context: Context) -> Result<Created, Problem> {
//!     context.progress(0.4, "sharpening");
//!     Ok(Created::at("/images/17"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let operations = Operations::builder(MemoryStore::new()).start();
//! let app = App::new()
//!     .app_data(web::Data::new(operations.clone()))
//!     .route("/images", web::post().to(upload))
//!     .service(web::scope("/operations").configure(respond_async::actix::monitor(&operations)));
//! # }
//! ```
//!
//! # Which runtime
//! actix has a runtime of one thread for each of its workers. What goes on after a 202 does not run
//! there but on the runtime that the operations were
//! [started](crate::operations::OperationsBuilder::start) on, so that it neither holds up a worker's
//! other requests nor ends with it. Start them under `#[tokio::main]`, which has all cores;
//! `#[actix_web::main]` has one.
//!
//! To stop, tell the server to stop when [`Operations::shutdown`] has returned: until then clients
//! that wait get their answer.
//!
//! [actix-web]: https://docs.rs/actix-web

mod bridge;

use std::convert::Infallible;
use std::future::{Ready, ready};

use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{
    FromRequest, HttpMessage, HttpRequest, HttpResponse, Responder, ResponseError, web,
};
use bytes::Bytes;
use http::Uri;
use http::request::Parts;

use crate::monitor::Monitor;
use crate::operation::{Outcome, Owner};
use crate::operations::Operations;
use crate::prefer::{PREFER, Preferences};
use crate::problem::Problem;
use crate::respond::{Accepted, Created, Response, SeeOther};

/// What the path below the scope is called: like nothing in a scope around it.
const BELOW: &str = "below_the_status_monitors";

/// Configures the scope of the status monitors, to be mounted where the operations'
/// [base URL](crate::operations::OperationsBuilder::base_url) says.
///
/// Who asks is told by an [`Owner`] in the request's extensions.
pub fn monitor(operations: &Operations) -> impl FnOnce(&mut web::ServiceConfig) + Clone + use<> {
    let monitor = Monitor::new(operations);
    move |scope| {
        let answer = move |owner: Owner, Head(mut parts): Head, whole: HttpRequest| {
            let monitor = monitor.clone();
            // What is left of the path below the scope, whatever a proxy took from the base URL's.
            // It is decoded: what would end a path is written as it came.
            let below = whole.match_info().get(BELOW).unwrap_or_default();
            let below = below.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
            let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            // What is no path below it is no operation's either. The authority tells a page of one's own.
            let mut uri = parts.uri.clone().into_parts();
            uri.path_and_query = format!("/{below}{query}").parse().ok().or(uri.path_and_query);
            parts.uri = Uri::from_parts(uri).unwrap_or(parts.uri);
            async move {
                let request = http::Request::from_parts(parts, ());
                bridge::response_with(monitor.answer(&owner, &request).await)
            }
        };
        scope
            .service(web::resource("").to(answer.clone()))
            .service(web::resource(format!("/{{{BELOW}:.+}}")).to(answer));
    }
}

/// The head of a request, in the types of `http` 1. Its extensions are empty.
#[derive(Debug, Clone)]
pub struct Head(pub Parts);

/// A [`respond::Response`](Response) as a response of actix.
#[derive(Debug, Clone)]
pub struct Answer(pub Response);

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self(response)
    }
}

impl Responder for Answer {
    type Body = Bytes;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse<Bytes> {
        bridge::response(self.0)
    }
}

macro_rules! responder {
    ($($answer:ident)*) => {$(
        impl Responder for $answer {
            type Body = Bytes;

            fn respond_to(self, _: &HttpRequest) -> HttpResponse<Bytes> {
                bridge::response(self.into_response())
            }
        }
    )*};
}

responder! { Accepted Created Outcome Problem SeeOther }

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status().as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        bridge::response(self.clone().into_response()).map_into_boxed_body()
    }
}

impl FromRequest for Preferences {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let lines = request.headers().get_all(PREFER.as_str());
        let fields = lines.filter_map(|value| bridge::field(PREFER.as_str(), value.as_bytes()));
        ready(Ok(Self::from_headers(&fields.collect())))
    }
}

impl FromRequest for Owner {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(request.extensions().get().cloned().unwrap_or_default()))
    }
}

impl FromRequest for Head {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let unreadable = |_| Problem::from_status(http::StatusCode::BAD_REQUEST);
        ready(bridge::parts(request).map(Self).map_err(unreadable))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::{App, test};

    use super::*;
    use crate::store::MemoryStore;

    #[actix_web::test]
    async fn monitors_are_found_below_their_scope_whatever_the_base_url_says() {
        let operations = Operations::builder(MemoryStore::new())
            .base_url("https://api.example/v1/operations")
            .start();
        let preferences = Preferences::parse("respond-async").unwrap();
        let accepted = operations.respond_with(&preferences, async |_| Outcome::default()).await;
        let monitor = accepted.headers()["location"].to_str().unwrap();
        // A proxy in front takes `/v1` away.
        let path = monitor.strip_prefix("https://api.example/v1").unwrap();
        let scope = web::scope("/operations").configure(super::monitor(&operations));
        let app = test::init_service(App::new().service(scope)).await;
        for (path, status) in [
            (path.to_owned(), 200),
            (format!("{path}/x"), 404),
            (format!("{path}/a%20b?c=%ff"), 404),
            (format!("{path}%23x"), 404),
            (format!("{path}%3Fx"), 404),
            ("/operations/%23/result".to_owned(), 404),
        ] {
            let request = test::TestRequest::get().uri(&path).to_request();
            assert_eq!(test::call_service(&app, request).await.status(), status, "{path}");
        }
    }

    /// In HTTP/2 the host is said by the URI alone; whatever a scope around it calls its own parts.
    #[actix_web::test]
    async fn a_page_of_its_own_is_known_by_the_authority() {
        let operations = Operations::builder(MemoryStore::new()).start();
        let preferences = Preferences::parse("respond-async").unwrap();
        let accepted = operations.respond_with(&preferences, async |_| Outcome::default()).await;
        let monitor = accepted.headers()["location"].to_str().unwrap().to_owned();
        let scope = web::scope("/{path}/operations").configure(super::monitor(&operations));
        let app = test::init_service(App::new().service(scope)).await;
        for (origin, status) in [("http://images.example", 303), ("http://evil.example", 403)] {
            let request = test::TestRequest::post()
                .uri(&format!("http://images.example/v1{monitor}/cancel"))
                .insert_header(("origin", origin))
                .to_request();
            assert_eq!(test::call_service(&app, request).await.status(), status, "{origin}");
        }
    }
}

//! Passes a request on to another service, as RFC 9110 §7.6 has an intermediary do it.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use respond_async::Problem;
use tower_http::timeout::TimeoutBody;

use crate::upload;

/// How long the other service may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How this proxy is called in `Via` (RFC 9110 §7.6.3).
const VIA: HeaderValue = HeaderValue::from_static("1.1 gateway-proxy");

/// Fields of one connection (RFC 9110 §7.6.1), and those that this proxy answers itself.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Fields by which a proxy says what it saw of a client. What a client writes there itself is not passed on:
/// the service behind would take it for this proxy's word.
const FORWARDED: [HeaderName; 6] = [
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
];

/// The way to another service. A clone is the same, connections included.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    client: Client<HttpConnector, Body>,
    authority: Authority,
    timeout: Duration,
}

/// A URL that names no service to pass requests on to.
#[derive(Debug)]
pub(crate) struct InvalidUpstream(String);

impl fmt::Display for InvalidUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UPSTREAM is {:?}: say http://host or http://host:port", self.0)
    }
}

impl std::error::Error for InvalidUpstream {}

impl Proxy {
    /// The way to the service at that URL, which may take so long to begin its answer and between two
    /// pieces of it.
    pub(crate) fn to(upstream: &str, timeout: Duration) -> Result<Self, InvalidUpstream> {
        let invalid = || InvalidUpstream(upstream.to_owned());
        let url: Uri = upstream.parse().map_err(|_| invalid())?;
        let is_root = url.path_and_query().is_none_or(|path| path == "/");
        let authority = url.authority().filter(|_| is_root && url.scheme() == Some(&Scheme::HTTP));
        let authority = authority.cloned().ok_or_else(invalid)?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, authority, timeout })
    }

    pub(crate) async fn forward(&self, mut request: Request<Body>) -> Response {
        if request.method() == Method::CONNECT {
            return Problem::from_status(StatusCode::NOT_IMPLEMENTED)
                .into_response()
                .map(into_body);
        }
        if let Err(error) = self.readdress(&mut request) {
            let problem =
                Problem::from_status(StatusCode::BAD_REQUEST).with_detail(error.to_string());
            return problem.into_response().map(into_body);
        }
        let bad = |status, detail: &'static str| {
            Problem::from_status(status).with_detail(detail).into_response().map(into_body)
        };
        let (request, upload) = upload::watched(request);
        let answer = tokio::select! {
            answer = self.client.request(request) => Ok(answer),
            () = upload.stalled(self.timeout) => Err(()),
        };
        match answer {
            Ok(Ok(mut response)) => {
                end_to_end(response.headers_mut());
                response.headers_mut().append(header::VIA, VIA);
                response
                    .map(|body| TimeoutBody::new(self.timeout, body))
                    .map(Body::new)
                    .into_response()
            }
            Ok(Err(error)) if error.is_connect() => {
                bad(StatusCode::BAD_GATEWAY, "The service behind this one cannot be reached.")
            }
            Ok(Err(_)) => {
                bad(StatusCode::BAD_GATEWAY, "The service behind this one broke off its answer.")
            }
            Err(()) => bad(
                StatusCode::GATEWAY_TIMEOUT,
                "The service behind this one did not answer in time.",
            ),
        }
    }

    /// Makes it a request to the other service.
    fn readdress(&self, request: &mut Request<Body>) -> Result<(), http::Error> {
        let target = request.uri().path_and_query().cloned();
        let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let host = request.headers().get(header::HOST).cloned();
        *request.uri_mut() = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(target)
            .build()?;
        *request.version_mut() = http::Version::HTTP_11;
        let headers = request.headers_mut();
        end_to_end(headers);
        headers.insert(header::HOST, HeaderValue::from_str(self.authority.as_str())?);
        for name in &FORWARDED {
            headers.remove(name);
        }
        if let Some(host) = host {
            headers.insert(HeaderName::from_static("x-forwarded-host"), host);
        }
        headers.append(header::VIA, VIA);
        Ok(())
    }
}

/// Takes out the fields that speak of one connection: the known ones, and those that `Connection`
/// names.
fn end_to_end(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

fn into_body(body: respond_async::respond::Body) -> Body {
    body.into_bytes().into()
}

//! Gets a picture, through what is kept.

use std::io::{self, Write};
use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use respond_async::client::cache::{CACHE_STATUS, Cached};
use respond_async::client::{Answer, Client, ReqwestTransport};
use respond_async::{Outcome, Problem};
use url::Url;

use crate::follow::explain;
use crate::kept::Folder;
use crate::show::Show;
use crate::{End, Failure};

#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) output: Option<PathBuf>,
    pub(crate) about: bool,
    pub(crate) offline: bool,
}

pub(crate) async fn get(wanted: Wanted, folder: &Folder, show: &Show) -> Result<End, Failure> {
    let trouble = |message: String| (End::Trouble, message);
    let transport = ReqwestTransport::new().map_err(|error| trouble(error.to_string()))?;
    let cache = folder.cache().map_err(|error| trouble(error.to_string()))?;
    let client = Client::with(Cached::new(transport, cache).offline(wanted.offline)).tries(1);

    let mut request = Request::new(Bytes::new());
    *request.uri_mut() =
        wanted.url.as_str().parse().map_err(|_| trouble(format!("{} is no URL", wanted.url)))?;
    *request.headers_mut() = wanted.headers;
    let accept = if wanted.about { "application/json" } else { "image/*" };
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
    let answer =
        client.send(request).await.map_err(|error| trouble(explain(&error, &wanted.url)))?;
    let Answer::Answered(response) = answer else { return Ok(End::AtWork) };

    let (parts, body) = response.into_parts();
    if parts.status != StatusCode::OK {
        if wanted.offline && parts.status == StatusCode::GATEWAY_TIMEOUT {
            return Err((End::Trouble, format!("{} is not kept here", wanted.url)));
        }
        let outcome = Outcome { status: parts.status, headers: parts.headers, body };
        let problem = outcome.problem().unwrap_or_else(|| Problem::from_status(outcome.status));
        return Err((End::Failed, format!("{}: {problem}", wanted.url)));
    }
    let from = parts.headers.get(CACHE_STATUS).and_then(|value| value.to_str().ok());
    if let Some(file) = &wanted.output {
        if let Some(folder) = file.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(|error| trouble(error.to_string()))?;
        }
        let written = tokio::fs::write(file, &body).await;
        written.map_err(|error| (End::NotUnderstood, format!("{}: {error}", file.display())))?;
        if from.is_some_and(|from| from.contains("hit")) {
            show.say(&format!("{} was kept here", wanted.url));
        }
    } else {
        let written = io::stdout().write_all(&body).and_then(|()| io::stdout().flush());
        written.map_err(|error| trouble(error.to_string()))?;
    }
    Ok(End::Well)
}

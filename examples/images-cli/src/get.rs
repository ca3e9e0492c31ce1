//! Gets a picture, through what is kept.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use respond_async::client::cache::{CACHE_STATUS, Cached};
use respond_async::client::{Answer, Client, ReqwestTransport};
use respond_async::{Outcome, Problem};
use tokio::io::AsyncWriteExt;
use url::Url;

use crate::follow::explain;
use crate::kept::Folder;
use crate::show::Show;
use crate::{End, Failure};

#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) to: To,
    pub(crate) about: bool,
    pub(crate) offline: bool,
}

/// Where a picture is put.
#[derive(Debug)]
pub(crate) enum To {
    Print,
    File(PathBuf),
    /// In a new file in that folder, with the name of that one, and the ending of what it is.
    New {
        folder: PathBuf,
        like: PathBuf,
    },
}

/// The fields for a request to that URL: who asks is said to the origin of `base` alone.
pub(crate) fn headers_for(url: &Url, base: &Url, headers: &HeaderMap) -> HeaderMap {
    if url.origin() == base.origin() { headers.clone() } else { HeaderMap::new() }
}

/// Gets it, and says in which file it is now.
pub(crate) async fn get(
    wanted: Wanted,
    folder: &Folder,
    show: &Show,
) -> Result<Option<PathBuf>, Failure> {
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
    let Answer::Answered(response) = answer else {
        return Err((End::Trouble, format!("{} is no picture", wanted.url)));
    };

    let (parts, body) = response.into_parts();
    if parts.status != StatusCode::OK {
        if wanted.offline && parts.status == StatusCode::GATEWAY_TIMEOUT {
            return Err((End::Trouble, format!("{} is not kept here", wanted.url)));
        }
        let outcome = Outcome { status: parts.status, headers: parts.headers, body };
        let problem = outcome.problem().unwrap_or_else(|| Problem::from_status(outcome.status));
        let end = if outcome.status.is_server_error() { End::Trouble } else { End::Failed };
        return Err((end, format!("{}: {problem}", wanted.url)));
    }
    let from = parts.headers.get(CACHE_STATUS).and_then(|value| value.to_str().ok());
    let file = match wanted.to {
        To::Print => {
            let written = io::stdout().write_all(&body).and_then(|()| io::stdout().flush());
            return written.map(|()| None).map_err(|error| trouble(error.to_string()));
        }
        To::File(file) => {
            let unwritten = |error| (End::NotUnderstood, format!("{}: {error}", file.display()));
            if let Some(folder) = file.parent() {
                tokio::fs::create_dir_all(folder).await.map_err(unwritten)?;
            }
            tokio::fs::write(&file, &body).await.map_err(unwritten)?;
            file
        }
        To::New { folder, like } => {
            let media_type = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
            let ending = match media_type {
                Some(b"image/jpeg") => "jpg",
                Some(b"image/png") => "png",
                _ => "bin",
            };
            let unwritten = |error| (End::NotUnderstood, format!("{}: {error}", folder.display()));
            save_new(&folder, &like, ending, &body).await.map_err(unwritten)?
        }
    };
    if from.is_some_and(|from| from.contains("hit")) {
        show.say(&format!("{} was kept here", wanted.url));
    }
    Ok(Some(file))
}

/// Saves it under the name of another file, or the next that is free: two files may have one name, and nothing
/// is written over.
async fn save_new(folder: &Path, like: &Path, ending: &str, body: &[u8]) -> io::Result<PathBuf> {
    tokio::fs::create_dir_all(folder).await?;
    let stem = like.file_stem().unwrap_or(like.as_os_str()).to_string_lossy();
    let mut number = 1_u32;
    loop {
        let name = match number {
            1 => format!("{stem}.{ending}"),
            number => format!("{stem}-{number}.{ending}"),
        };
        let file = folder.join(name);
        match tokio::fs::File::create_new(&file).await {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            made => {
                let mut made = made?;
                made.write_all(body).await?;
                made.flush().await?;
                return Ok(file);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_said_to_one_origin() {
        let url = |text| Url::parse(text).unwrap();
        let base = url("http://api.example/operations/1");
        let user = HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static("ann"))]);
        for (target, is_told) in [
            ("http://api.example:80/images/1", true),
            ("https://api.example/images/1", false),
            ("http://cdn.example/images/1", false),
        ] {
            assert_eq!(!headers_for(&url(target), &base, &user).is_empty(), is_told, "{target}");
        }
    }
}

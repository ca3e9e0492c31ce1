//! Uploads, and follows to the end what the service accepted.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use respond_async::client::{
    Answer, Client, ClientError, ClientErrorKind, Finished, Poller, Update,
};
use respond_async::{Outcome, Problem};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use url::Url;

use crate::get::{self, To, Wanted};
use crate::kept::{Folder, Kept};
use crate::show::{Line, Show};
use crate::{End, Failure, OnInterrupt};

/// All that the uploads of one run have in common.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) client: Client,
    pub(crate) server: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) folder: Folder,
    pub(crate) show: Show,
    pub(crate) output: Option<PathBuf>,
    pub(crate) wait: Duration,
    pub(crate) on_interrupt: OnInterrupt,
    pub(crate) detach: bool,
}

impl Upload {
    pub(crate) async fn files(self, files: Vec<PathBuf>, at_once: usize) -> End {
        let this = Arc::new(self);
        let (places, interrupted) = (Arc::new(Semaphore::new(at_once)), interrupts());
        let mut tasks = JoinSet::new();
        for file in files {
            let (this, places) = (Arc::clone(&this), Arc::clone(&places));
            let interrupted = interrupted.clone();
            tasks.spawn(async move {
                let Ok(_place) = places.acquire().await else { return End::Trouble };
                if *interrupted.borrow() {
                    this.show.line(&file).unsent();
                    return End::AtWork;
                }
                this.file(file, interrupted).await
            });
        }
        worst(tasks).await
    }

    /// Takes up all that was left at this service: at another one, this user is somebody else.
    pub(crate) async fn resume(self, at_once: usize) -> Result<End, Failure> {
        let kept = self.folder.all().map_err(|error| (End::Trouble, error.to_string()))?;
        let (kept, elsewhere): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|kept| kept.is_at(&self.server));
        if kept.is_empty() {
            self.show.say("Nothing was left.");
        }
        for other in elsewhere {
            self.show.elsewhere(&other);
        }
        let this = Arc::new(self);
        let (places, interrupted) = (Arc::new(Semaphore::new(at_once)), interrupts());
        let mut tasks = JoinSet::new();
        for Kept { file, state } in kept {
            let (this, places) = (Arc::clone(&this), Arc::clone(&places));
            let interrupted = interrupted.clone();
            tasks.spawn(async move {
                let Ok(_place) = places.acquire().await else { return End::Trouble };
                let line = this.show.line(&file);
                line.progress(state.snapshot());
                let poller = this.client.resume(state, this.headers.clone());
                this.follow(file, poller, &line, interrupted).await
            });
        }
        Ok(worst(tasks).await)
    }

    async fn file(&self, file: PathBuf, interrupted: watch::Receiver<bool>) -> End {
        let line = self.show.line(&file);
        let (media_type, content) = match read(&file).await {
            Ok(read) => read,
            Err(message) => {
                line.trouble(&message);
                return End::NotUnderstood;
            }
        };
        let url = match self.server.join("/images") {
            Ok(url) => url,
            Err(error) => {
                line.trouble(&error.to_string());
                return End::NotUnderstood;
            }
        };
        line.uploading();
        let mut request = Request::new(content);
        *request.method_mut() = http::Method::POST;
        *request.headers_mut() = self.headers.clone();
        request
            .headers_mut()
            .insert(header::CONTENT_TYPE, http::HeaderValue::from_static(media_type));
        match url.as_str().parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(_) => return End::NotUnderstood,
        }
        match self.client.send(request).respond_async().wait(self.wait).await {
            Err(error) => self.trouble(&line, &error),
            Ok(Answer::Answered(response)) => {
                let (parts, body) = response.into_parts();
                let outcome = Outcome { status: parts.status, headers: parts.headers, body };
                match outcome.problem() {
                    Some(problem) if outcome.status.is_server_error() => {
                        line.trouble(&problem.to_string());
                        End::Trouble
                    }
                    Some(problem) => failed(&line, &problem),
                    None => self.done(&file, &line, &url, &outcome).await,
                }
            }
            Ok(Answer::Accepted(poller)) => {
                line.accepted(poller.monitor());
                // Before anything else: whatever happens now, it can be taken up again.
                self.keep(&file, &poller, &line);
                if self.detach {
                    line.left(poller.monitor());
                    return End::AtWork;
                }
                self.follow(file, poller, &line, interrupted).await
            }
        }
    }

    async fn follow(
        &self,
        file: PathBuf,
        mut poller: Poller,
        line: &Line,
        mut interrupted: watch::Receiver<bool>,
    ) -> End {
        let mut canceling = false;
        loop {
            let update = tokio::select! {
                biased;
                _ = interrupted.wait_for(|it| *it), if !canceling => None,
                update = poller.next() => Some(update),
            };
            match update {
                None if self.on_interrupt == OnInterrupt::Detach => {
                    self.keep(&file, &poller, line);
                    line.left(poller.monitor());
                    return End::AtWork;
                }
                None => {
                    canceling = true;
                    if let Err(error) = poller.cancel().await {
                        return self.trouble(line, &error);
                    }
                }
                Some(Some(Ok(Update::Progress(snapshot)))) => line.progress(&snapshot),
                Some(Some(Ok(Update::Finished(finished)))) => {
                    let has_picture = matches!(finished, Finished::Succeeded(_));
                    let end = match finished {
                        Finished::Succeeded(outcome) => {
                            let monitor = Url::parse(poller.monitor());
                            let base = monitor.as_ref().unwrap_or(&self.server);
                            self.done(&file, line, base, &outcome).await
                        }
                        Finished::Failed(problem, _) => failed(line, &problem),
                        Finished::Canceled => {
                            line.canceled();
                            if canceling { End::Well } else { End::Failed }
                        }
                    };
                    if has_picture && end != End::Well {
                        // It was made, and could not be fetched: the next time it may.
                        self.keep(&file, &poller, line);
                    } else {
                        let _ = self.folder.forget(poller.monitor());
                    }
                    return end;
                }
                Some(Some(Err(error))) => {
                    // By 404 the service says too that it is somebody else's.
                    if error.status() == Some(StatusCode::GONE) {
                        let _ = self.folder.forget(poller.monitor());
                    } else {
                        self.keep(&file, &poller, line);
                    }
                    return self.trouble(line, &error);
                }
                Some(None) => return End::Trouble,
            }
        }
    }

    fn keep(&self, file: &Path, poller: &Poller, line: &Line) {
        let kept = Kept { file: file.to_owned(), state: poller.state() };
        if let Err(error) = self.folder.keep(&kept) {
            line.trouble(&format!("{} could not be kept: {error}", poller.monitor()));
        }
    }

    /// `base` is where the outcome is from.
    async fn done(&self, file: &Path, line: &Line, base: &Url, outcome: &Outcome) -> End {
        let location = outcome.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let Some(url) = location.and_then(|location| base.join(location).ok()) else {
            line.trouble("the service does not say where the picture is");
            return End::Trouble;
        };
        line.done(url.as_str());
        let Some(folder) = &self.output else { return End::Well };
        let wanted = Wanted {
            headers: get::headers_for(&url, base, &self.headers),
            url,
            to: To::New { folder: folder.clone(), like: file.to_owned() },
            about: false,
            offline: false,
        };
        match get::get(wanted, &self.folder, &self.show).await {
            Ok(saved) => {
                line.saved(&saved.unwrap_or_default());
                End::Well
            }
            Err((end, message)) => {
                line.trouble(&message);
                end
            }
        }
    }

    fn trouble(&self, line: &Line, error: &ClientError) -> End {
        line.trouble(&explain(error, &self.server));
        if error.is_retryable() && error.kind() != ClientErrorKind::Transport {
            End::AtWork
        } else {
            End::Trouble
        }
    }
}

fn failed(line: &Line, problem: &Problem) -> End {
    line.failed(problem);
    End::Failed
}

/// What went wrong, with its causes, and what may help.
pub(crate) fn explain(error: &ClientError, server: &Url) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    match error.kind() {
        ClientErrorKind::Transport if server.scheme() == "https" && cfg!(not(feature = "tls")) => {
            format!("{text}. Build this program with `--features tls`.")
        }
        ClientErrorKind::Transport => format!("{text}. Is the service at {server}? See --server."),
        ClientErrorKind::Gone if error.status() == Some(StatusCode::GONE) => {
            format!("{text}. It has expired.")
        }
        ClientErrorKind::Gone => {
            format!("{text}. It may be another user's, so it stays in the list: see --user.")
        }
        _ => text,
    }
}

async fn worst(mut tasks: JoinSet<End>) -> End {
    let mut worst = End::Well;
    while let Some(end) = tasks.join_next().await {
        worst = worst.and(end.unwrap_or(End::Trouble));
    }
    worst
}

/// Becomes true with the first Ctrl-C. The second ends the program.
fn interrupts() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            let _ = sender.send(true);
            let _ = tokio::signal::ctrl_c().await;
            std::process::exit(130);
        }
        // Nobody can interrupt: the channel stays open, so that nobody is told otherwise.
        sender.closed().await;
    });
    receiver
}

/// The content of a file, and what it is by its name.
async fn read(file: &Path) -> Result<(&'static str, Bytes), String> {
    let extension = file.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let media_type = match &*extension {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        _ => return Err("its name ends in neither .jpg nor .png".to_owned()),
    };
    let content = tokio::fs::read(file).await.map_err(|error| error.to_string())?;
    Ok((media_type, content.into()))
}

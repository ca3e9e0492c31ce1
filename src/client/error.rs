use std::error::Error;
use std::fmt;

use http::StatusCode;
use url::Url;

use super::transport::{TransportError, TransportErrorKind};
use crate::problem::Problem;

/// Why a request was not answered, or an operation could not be followed to its end. That an operation
/// failed is no such error: it is a [`Finished`](super::Finished).
#[derive(Debug)]
pub struct ClientError {
    kind: ClientErrorKind,
    status: Option<StatusCode>,
    problem: Option<Box<Problem>>,
    url: Option<Box<Url>>,
    source: Option<TransportError>,
}

/// What kind of trouble it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientErrorKind {
    /// The request's target is no absolute `http` or `https` URL, or has a name and password in it.
    InvalidRequest,
    /// There was no answer, however often it was tried.
    Transport,
    /// The server accepted the request and did not say where its operation is.
    NoMonitor,
    /// A link leads to another origin, to which credentials would leak. See
    /// [`allow_origin`](super::Client::allow_origin).
    ForeignOrigin,
    /// The server does not let this client look or cancel ([`status`](ClientError::status) says how).
    Refused,
    /// The operation, or its result, is not there any more.
    Gone,
    /// The monitor's answers made no sense, however often it was asked.
    Unreadable,
    /// The monitor did not answer as it should, however often it was asked: the poll failed, or the
    /// cancellation, and it is not known how the operation goes.
    PollFailed,
    /// Links led on and on.
    TooManyRedirects,
    /// The client's own time was over. The operation goes on.
    DeadlinePassed,
}

impl ClientError {
    pub(super) fn new(kind: ClientErrorKind) -> Self {
        Self { kind, status: None, problem: None, url: None, source: None }
    }

    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    pub(super) fn with_problem(mut self, problem: Option<Problem>) -> Self {
        self.problem = problem.map(Box::new);
        self
    }

    pub(super) fn with_url(mut self, url: Url) -> Self {
        self.url = Some(Box::new(url));
        self
    }

    pub(super) fn with_source(mut self, source: TransportError) -> Self {
        self.source = Some(source);
        self
    }

    /// What kind of trouble it was.
    pub fn kind(&self) -> ClientErrorKind {
        self.kind
    }

    /// The status of the answer that brought the trouble, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// What the server said about it.
    pub fn problem(&self) -> Option<&Problem> {
        self.problem.as_deref()
    }

    /// Where it was.
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref().map(Url::as_str)
    }

    /// Whether following the operation may succeed later, from the poller's
    /// [state](super::Poller::state). What is too large stays so, and what cannot be sent too.
    pub fn is_retryable(&self) -> bool {
        let passes = self.source.as_ref().is_none_or(|source| {
            matches!(source.kind(), TransportErrorKind::NotSent | TransportErrorKind::Ambiguous)
        });
        passes
            && matches!(
                self.kind,
                ClientErrorKind::Transport
                    | ClientErrorKind::Unreadable
                    | ClientErrorKind::PollFailed
                    | ClientErrorKind::DeadlinePassed
            )
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ClientErrorKind::InvalidRequest => {
                "the target of a request is an absolute http or https URL, without a password"
            }
            ClientErrorKind::Transport => "the request was not answered",
            ClientErrorKind::NoMonitor => "the request was accepted, and no status monitor named",
            ClientErrorKind::ForeignOrigin => "a link leads to another origin",
            ClientErrorKind::Refused => "the server does not show the operation to this client",
            ClientErrorKind::Gone => "the operation is not there any more",
            ClientErrorKind::Unreadable => "the status monitor's answers make no sense",
            ClientErrorKind::PollFailed => "the status monitor does not answer as it should",
            ClientErrorKind::TooManyRedirects => "links lead on and on",
            ClientErrorKind::DeadlinePassed => "the time to wait for the operation is over",
        })?;
        if let Some(status) = self.status {
            write!(f, ": {status}")?;
        }
        if let Some(url) = &self.url {
            write!(f, " ({url})")?;
        }
        Ok(())
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_not_pass_is_not_retryable() {
        for (kind, is_retryable) in [
            (TransportErrorKind::NotSent, true),
            (TransportErrorKind::Ambiguous, true),
            (TransportErrorKind::Invalid, false),
            (TransportErrorKind::TooLarge, false),
        ] {
            for of in [ClientErrorKind::PollFailed, ClientErrorKind::Transport] {
                let error = ClientError::new(of).with_source(TransportError::new(kind, "no"));
                assert_eq!(error.is_retryable(), is_retryable, "{kind:?}");
            }
        }
        assert!(ClientError::new(ClientErrorKind::PollFailed).is_retryable());
        assert!(!ClientError::new(ClientErrorKind::Gone).is_retryable());
    }
}

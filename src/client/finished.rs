//! How an operation ended, as its client sees it.

use bytes::Bytes;
use http::header::HeaderName;
use http::{Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::operation::{IntoOutcome, Outcome};
use crate::problem::{Problem, types};

/// With which status an operation ended whose monitor's answer is replayed: OData's own is 200 always
/// ([OData 4.01 §8.3.1](https://docs.oasis-open.org/odata/odata/v4.01/odata-v4.01-part1-protocol.html#sec_HeaderAsyncResult)).
pub(super) const ASYNC_RESULT: HeaderName = HeaderName::from_static("asyncresult");

/// How an operation ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Finished {
    /// It succeeded. This is the answer that a client that waits would have got, with a status below 400, a
    /// redirect included; where the server does not keep that, the last that its monitor said.
    Succeeded(Outcome),
    /// It failed: why, and the answer that a client that waits would have got, or the last that the monitor
    /// said. None if it is gone.
    Failed(Problem, Option<Outcome>),
    /// It was canceled.
    Canceled,
}

impl Finished {
    /// What an answer at once amounts to: succeeded below 400.
    pub(super) fn of(answer: Response<Bytes>) -> Self {
        if answer.status().as_u16() < 400 {
            Self::Succeeded(answer.into_outcome())
        } else {
            Self::failed(None, answer)
        }
    }

    /// The answer that a monitor replays: how the operation ended.
    pub(super) fn replayed(mut answer: Response<Bytes>) -> Self {
        let told = answer.headers().get(ASYNC_RESULT).and_then(|told| told.to_str().ok());
        if let Some(status) = told.and_then(|told| told.parse().ok()) {
            *answer.status_mut() = status;
        }
        Self::of(answer)
    }

    /// Why it failed is what the monitor said, or what the answer says.
    pub(super) fn failed(error: Option<Problem>, answer: Response<Bytes>) -> Self {
        let outcome = answer.into_outcome();
        let error = error.or_else(|| outcome.problem());
        let unknown = || Problem::from_status(StatusCode::INTERNAL_SERVER_ERROR);
        Self::Failed(error.unwrap_or_else(unknown), Some(outcome))
    }

    /// The content of the answer as JSON.
    ///
    /// # Errors
    /// The problem, if the operation failed; one of the type [`CANCELED`](types::CANCELED), if it was
    /// canceled; a 502, if the content is no such JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        match self {
            Self::Succeeded(answer) => serde_json::from_slice(&answer.body).map_err(|error| {
                Problem::from_status(StatusCode::BAD_GATEWAY).with_detail(error.to_string())
            }),
            Self::Failed(problem, _) => Err(problem.clone()),
            Self::Canceled => Err(Problem::new(types::CANCELED)),
        }
    }
}

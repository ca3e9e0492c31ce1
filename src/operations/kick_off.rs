use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::calls::{unavailable, without_panic};
use super::context::{Context, Run};
use super::task::{Answer, Task};
use super::{Operations, pace};
use crate::header::vary_on_prefer;
use crate::operation::{IntoOutcome, Kind, NewOperation, OperationId, Owner};
use crate::prefer::{Handling, PreferErrorKind, Preferences};
use crate::problem::{Problem, types};
use crate::respond::{OperationView, Response};

/// One request that is about to begin work: who asks, and how the route wants it answered.
///
/// Made by [`Operations::kick_off`].
#[derive(Debug, Clone)]
#[must_use]
pub struct KickOff<'a> {
    operations: &'a Operations,
    preferences: &'a Preferences,
    owner: Owner,
    kind: Option<Kind>,
    deadline: Option<Duration>,
    accepts_overdue: bool,
    strict: Option<&'a [&'a str]>,
}

/// How a request is answered. Pure: what the preferences and the route's policy say, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// With the handler's answer, however long that takes.
    Inline,
    /// With the handler's answer if it comes in time, else 202.
    Within(Duration),
}

fn mode(preferences: &Preferences, accepts_overdue: bool, cap: Duration) -> Mode {
    let wait = preferences.wait().map(|wait| wait.min(cap));
    match (preferences.respond_async(), wait) {
        (true, wait) => Mode::Within(wait.unwrap_or(Duration::ZERO)),
        (false, Some(wait)) if accepts_overdue => Mode::Within(wait),
        (false, _) => Mode::Inline,
    }
}

impl<'a> KickOff<'a> {
    pub(super) fn new(operations: &'a Operations, preferences: &'a Preferences) -> Self {
        Self {
            operations,
            preferences,
            owner: Owner::anonymous(),
            kind: None,
            deadline: None,
            accepts_overdue: false,
            strict: None,
        }
    }

    /// Who asks: nobody else will see the operation.
    pub fn owner(mut self, owner: Owner) -> Self {
        self.owner = owner;
        self
    }

    /// What sort of work it is; clients can list by it.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// How long after a 202 the work must have ended; else the operation fails.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Lets `wait=N` without `respond-async` become a 202 when it is over
    /// ([RFC 7240 §4.3](https://www.rfc-editor.org/rfc/rfc7240#section-4.3) leaves that to the
    /// server). Otherwise such a request waits for its answer as one without preference does.
    pub fn accept_overdue(mut self) -> Self {
        self.accepts_overdue = true;
        self
    }

    /// Refuses a request with `handling=strict` whose other preferences are malformed or unknown
    /// ([RFC 7240 §4.4](https://www.rfc-editor.org/rfc/rfc7240#section-4.4)): 400. Known are
    /// `respond-async`, `wait`, `handling` and the names in `also`.
    pub fn strict(mut self, also: &'a [&'a str]) -> Self {
        self.strict = Some(also);
        self
    }

    /// Runs the work and answers as the client prefers: see [`Operations::respond_with`].
    ///
    /// # Cancel safety
    /// As [`Operations::respond_with`].
    pub async fn respond_with<W, F>(self, work: W) -> Response
    where
        W: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output: IntoOutcome> + Send + 'static,
    {
        let settings = &self.operations.inner.settings;
        let mode = mode(self.preferences, self.accepts_overdue, settings.wait_cap);
        let mut response = match (self.check(), mode) {
            (Err(problem), _) => problem.into_response(),
            (Ok(()), Mode::Inline) => {
                let mut work =
                    pin!(
                        async move { work(Context::default()).await.into_outcome().into_response() }
                    );
                without_panic(work.as_mut()).await.unwrap_or_else(Problem::into_response)
            }
            (Ok(()), Mode::Within(wait)) => {
                self.respond_within(wait, work).await.unwrap_or_else(Problem::into_response)
            }
        };
        vary_on_prefer(response.headers_mut());
        response
    }

    fn check(&self) -> Result<(), Problem> {
        const KNOWN: [&str; 3] = ["respond-async", "wait", "handling"];
        let Some(also) = self.strict else { return Ok(()) };
        if self.preferences.handling() != Some(Handling::Strict) {
            return Ok(());
        }
        let refused = |detail: String| Err(Problem::new(types::INVALID_PREFERENCE).detail(detail));
        // A preference that is repeated is neither malformed nor unknown.
        let mut dropped = self.preferences.dropped();
        if let Some(fault) = dropped.find(|fault| fault.kind() != PreferErrorKind::Duplicate) {
            return refused(format!("Prefer: {fault}."));
        }
        for preference in self.preferences.iter() {
            let name = preference.name();
            if !KNOWN.iter().chain(also).any(|known| known.eq_ignore_ascii_case(name)) {
                return refused(format!("This resource does not know the preference {name:?}."));
            }
            if name.eq_ignore_ascii_case("wait") && self.preferences.wait().is_none() {
                return refused("The preference \"wait\" needs a number of seconds.".to_owned());
            }
        }
        Ok(())
    }

    async fn respond_within<W, F>(self, wait: Duration, work: W) -> Result<Response, Problem>
    where
        W: FnOnce(Context) -> F + Send + 'static,
        F: Future<Output: IntoOutcome> + Send + 'static,
    {
        let inner = &self.operations.inner;
        if inner.is_closing() {
            return Err(Problem::new(types::SHUTTING_DOWN).retry_after(pace::MIN));
        }
        let Some(admitted) = inner.admission.admit() else {
            return Err(Problem::new(types::OVERLOADED).retry_after(inner.overloaded()));
        };
        let id = OperationId::generate(inner.clock.now()).map_err(|_| unavailable())?;
        let mut operation = NewOperation::new(id)
            .with_kind(self.kind.unwrap_or_default())
            .with_owner(self.owner)
            .with_attempt_limit(1)
            .with_retention(inner.settings.retention);
        if let Some(deadline) = self.deadline {
            operation = operation.with_deadline(deadline);
        }

        let run = Run::new(id, 1);
        let context = Context::of(&run);
        let (answer, answered) = oneshot::channel();
        let task = Task { inner: Arc::clone(inner), admitted, run, operation, wait, answer };
        task.spawn(Box::pin(async move { work(context).await.into_outcome() }));

        match answered.await {
            Ok(Answer::Ready(outcome)) => Ok(outcome.into_response()),
            Ok(Answer::Accepted(accepted)) => {
                let view =
                    OperationView::new(&accepted.operation, accepted.now, &inner.settings.urls);
                let delay = inner.retry_after(&accepted);
                Ok(view.retry_after(delay).accepted(self.preferences))
            }
            Ok(Answer::Refused(problem)) => Err(problem),
            // The runtime is being shut down and dropped the task.
            Err(_) => Err(Problem::new(types::SHUTTING_DOWN).retry_after(pace::MIN)),
        }
    }
}

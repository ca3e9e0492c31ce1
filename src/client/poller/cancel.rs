//! Asks for the cancellation of an operation, and of nothing that has ended meanwhile.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};
use tokio::time::{Instant, sleep, timeout_at};
use url::Url;

use super::Poller;
use crate::client::error::{ClientError, ClientErrorKind};
use crate::client::follow::{Follow, Glance, MAX_REDIRECTS, moved, untaken};
use crate::client::policy::fraction;
use crate::client::shared::{random, untransported};

/// What was answered, where, and whether a 302 led there.
struct Asked {
    answer: Response<Bytes>,
    url: Url,
    found: bool,
}

impl Poller {
    /// For how long the operation may change between any two requests before a cancellation is given up.
    const CHANGING: Duration = Duration::from_secs(30);
    /// The longest pause after the first such change. It grows by as much with each.
    const FIRST_PAUSE: Duration = Duration::from_millis(50);
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);

    /// Asks for the cancellation of the operation, and says whether the server takes that: go on to see how
    /// it ends. One that has finished meanwhile is left as it is, which is no error: servers forget
    /// finished operations that are deleted, with their results.
    ///
    /// For that `If-Match` names the operation as it was seen last
    /// ([RFC 9110 §13.1.1](https://www.rfc-editor.org/rfc/rfc9110#section-13.1.1)). Without a tag the monitor is
    /// asked first; a server that gives none may still forget what finishes between the two requests. A
    /// monitor that has moved is followed.
    ///
    /// # Errors
    /// If the server does not answer ([`Transport`](ClientErrorKind::Transport)), has its trouble
    /// ([`PollFailed`](ClientErrorKind::PollFailed)), does not know the operation any more
    /// ([`Gone`](ClientErrorKind::Gone)) or refuses to ([`Refused`](ClientErrorKind::Refused)); if the operation
    /// changes between any two requests for half a minute (`PollFailed`); if the monitor has moved too far
    /// ([`TooManyRedirects`](ClientErrorKind::TooManyRedirects),
    /// [`ForeignOrigin`](ClientErrorKind::ForeignOrigin)); or if the poller's [deadline](Self::deadline) passes.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing. The cancellation may have been taken or not.
    pub async fn cancel(&mut self) -> Result<(), ClientError> {
        let (deadline, monitor) = (self.deadline, self.follow.monitor.clone());
        let canceling = self.ask_to_cancel();
        let canceled = match deadline {
            None => canceling.await,
            Some(deadline) => timeout_at(deadline, canceling).await.unwrap_or_else(|_| {
                let late = ClientError::new(ClientErrorKind::DeadlinePassed);
                Err(late.with_url(monitor))
            }),
        };
        if canceled.is_ok() {
            // What is under way may be held, or has been answered before.
            (self.due, self.sent) = (Instant::now(), None);
        }
        canceled
    }

    async fn ask_to_cancel(&mut self) -> Result<(), ClientError> {
        let mut tag = self.follow.tag();
        let (began, mut changes) = (Instant::now(), 0);
        loop {
            let mut fields = Follow::plain_fields();
            let (mut place, is_unseen) = (self.follow.monitor.clone(), tag.is_some());
            if !is_unseen {
                let Asked { answer, url, found } = self.ask(Method::GET, &place, &fields).await?;
                tag = match self.follow.glance(&answer, &url, found)? {
                    Glance::Finished => return Ok(()),
                    Glance::Live(tag) => tag,
                };
                if found {
                    place = url;
                }
            }
            fields.extend(tag.take().map(|tag| (header::IF_MATCH, tag)));
            let Asked { answer, url, .. } = self.ask(Method::DELETE, &place, &fields).await?;
            match answer.status() {
                status if status.is_success() => return Ok(()),
                // It has changed meanwhile: it may have ended.
                StatusCode::PRECONDITION_FAILED if began.elapsed() < Self::CHANGING => {}
                // It is elsewhere, or its outcome is there.
                StatusCode::FOUND if is_unseen => {}
                _ => return Err(untaken(&answer, &url)),
            }
            // Of any length up to that, so as not to keep step with an operation that reports by the clock.
            changes += 1;
            let pause = (Self::FIRST_PAUSE * changes).min(Self::LONGEST_PAUSE);
            sleep(pause.mul_f64(fraction(random()))).await;
        }
    }

    /// Asks at that place, or wherever that has moved to.
    ///
    /// Borrowed for itself alone: a poller is not to be shared, so that its stream need not be.
    async fn ask(
        &mut self,
        method: Method,
        place: &Url,
        fields: &HeaderMap,
    ) -> Result<Asked, ClientError> {
        let (mut url, mut found) = (place.clone(), false);
        for _ in 0..=MAX_REDIRECTS {
            let request = self.request(method.clone(), &url, fields)?;
            let answer = self.shared.transport.send(request).await;
            let answer = answer.map_err(|error| untransported(error).with_url(url.clone()))?;
            let Some(target) = moved(&answer, &method) else {
                return Ok(Asked { answer, url, found });
            };
            found |= answer.status() == StatusCode::FOUND;
            let target = self.shared.origins.join(&url, &target);
            url = target.map_err(|error| error.with_status(answer.status()))?;
        }
        Err(ClientError::new(ClientErrorKind::TooManyRedirects).with_url(url))
    }
}

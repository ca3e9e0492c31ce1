//! Asks for the cancellation of an operation, and of nothing that has ended meanwhile.

use http::{Method, StatusCode, header};
use tokio::time::{Instant, timeout_at};

use super::Poller;
use crate::client::error::{ClientError, ClientErrorKind};
use crate::client::follow::{Follow, Glance, untaken};
use crate::client::shared::untransported;

impl Poller {
    /// How often the operation may change between two requests before a cancellation is given up.
    const CANCEL_TRIES: u32 = 8;

    /// Asks for the cancellation of the operation, and says whether the server takes that: go on to see how
    /// it ends. One that has finished meanwhile is left as it is, which is no error: servers forget
    /// finished operations that are deleted, with their results.
    ///
    /// For that `If-Match` names the operation as it was seen last
    /// ([RFC 9110 §13.1.1](https://www.rfc-editor.org/rfc/rfc9110#section-13.1.1)). Without a tag the monitor is
    /// asked first; a server that gives none may still forget what finishes between the two requests.
    ///
    /// # Errors
    /// If the server does not answer ([`Transport`](ClientErrorKind::Transport)), has its trouble or changes
    /// the operation too often ([`PollFailed`](ClientErrorKind::PollFailed)), does not know the operation any
    /// more ([`Gone`](ClientErrorKind::Gone)) or refuses to ([`Refused`](ClientErrorKind::Refused)); or if the
    /// poller's [deadline](Self::deadline) passes.
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
            self.due = Instant::now();
        }
        canceled
    }

    /// Borrowed for itself alone: a poller is not to be shared, so that its stream need not be.
    async fn ask_to_cancel(&mut self) -> Result<(), ClientError> {
        let monitor = &self.follow.monitor;
        let unsent = |error| untransported(error).with_url(monitor.clone());
        let mut tag = self.follow.tag();
        let mut tries = 0;
        loop {
            let mut fields = Follow::plain_fields();
            if tag.is_none() {
                let look = self.request(Method::GET, monitor, &fields)?;
                let answer = self.shared.transport.send(look).await.map_err(unsent)?;
                tag = match self.follow.glance(&answer)? {
                    Glance::Finished => return Ok(()),
                    Glance::Live(tag) => tag,
                };
            }
            fields.extend(tag.take().map(|tag| (header::IF_MATCH, tag)));
            let cancel = self.request(Method::DELETE, monitor, &fields)?;
            let answer = self.shared.transport.send(cancel).await.map_err(unsent)?;
            tries += 1;
            match answer.status() {
                status if status.is_success() => return Ok(()),
                // It has changed meanwhile: it may have ended.
                StatusCode::PRECONDITION_FAILED if tries < Self::CANCEL_TRIES => {}
                _ => return Err(untaken(&answer, monitor)),
            }
        }
    }
}

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::time::{Instant, timeout_at};

use super::events::{EventReader, MAX_EVENT_BYTES, ServerEvent};
use super::transport::{TransportError, TransportErrorKind};

/// How long an event stream that has just begun may say nothing: a server says at once how things stand, and
/// what comes no sooner is held back by something between.
const FIRST_SILENCE: Duration = Duration::from_secs(10);
/// How long it may be silent later: servers send a comment every 15 seconds or so.
const SILENCE: Duration = Duration::from_secs(60);

/// An event stream that is listened to.
pub(super) struct Listening {
    pieces: BoxStream<'static, Result<Bytes, TransportError>>,
    /// What of the last piece has not been read.
    rest: Bytes,
    reader: EventReader,
    began: Instant,
    /// When the last piece came.
    spoke: Option<Instant>,
}

impl Listening {
    pub(super) fn new(pieces: BoxStream<'static, Result<Bytes, TransportError>>) -> Self {
        let (rest, reader) = (Bytes::new(), EventReader::default());
        Self { pieces, rest, reader, began: Instant::now(), spoke: None }
    }

    /// Whether it was one for a while, so that its end is no failure of the server, whatever ended it.
    pub(super) fn has_lasted(&self) -> bool {
        self.spoke.is_some() && self.began.elapsed() >= FIRST_SILENCE
    }

    /// After how long the server wants to be asked again.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.reader.retry()
    }

    /// The next event; none at the end. After either the end or an error there is no more.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<ServerEvent>, TransportError> {
        loop {
            let read = self.reader.read(&mut self.rest).map_err(|_| {
                let most = format!("an event of more than {MAX_EVENT_BYTES} bytes");
                TransportError::new(TransportErrorKind::TooLarge, most)
            })?;
            if read.is_some() {
                return Ok(read);
            }
            let (since, most) = match self.spoke {
                None => (self.began, FIRST_SILENCE),
                Some(spoke) => (spoke, SILENCE),
            };
            self.rest = match timeout_at(since + most, self.pieces.next()).await {
                Ok(Some(piece)) => piece?,
                Ok(None) => return Ok(None),
                Err(_) => {
                    let why = format!("nothing was told for {most:?}");
                    return Err(TransportError::new(TransportErrorKind::Ambiguous, why));
                }
            };
            self.spoke = Some(Instant::now());
        }
    }
}

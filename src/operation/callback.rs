use std::fmt;
use std::sync::Arc;

use super::Operation;

/// Where an operation's end, and more if that is asked for, is told besides its monitor: kept with the operation.
///
/// The feature `webhook` tells it. This is only what is kept: whether a URL may be called at all is decided there.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Callback {
    url: Arc<str>,
    acceptance: bool,
    progress: bool,
}

impl Callback {
    /// The longest URL, in bytes.
    pub const MAX_URL_BYTES: usize = 2048;

    /// Tells the operation's end there; none if it is empty, too long, or has another character than printable
    /// ASCII.
    pub fn new(url: &str) -> Option<Self> {
        let is_url = (1..=Self::MAX_URL_BYTES).contains(&url.len())
            && url.bytes().all(|byte| byte.is_ascii_graphic());
        is_url.then(|| Self { url: url.into(), acceptance: false, progress: false })
    }

    /// Tells its acceptance too.
    #[must_use]
    pub fn with_acceptance(mut self) -> Self {
        self.acceptance = true;
        self
    }

    /// Tells each change on the way too.
    #[must_use]
    pub fn with_progress(mut self) -> Self {
        self.progress = true;
        self
    }

    /// Where it is told.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it is to be told that the operation has become so.
    pub fn wants(&self, operation: &Operation) -> bool {
        match operation.status().is_finished() {
            true => true,
            false if operation.revision() == 1 => self.acceptance,
            false => self.progress,
        }
    }

    /// What it wants besides the end, as it is kept.
    pub(super) fn also(&self) -> &'static str {
        match (self.acceptance, self.progress) {
            (false, false) => "",
            (true, false) => "acceptance",
            (false, true) => "progress",
            (true, true) => "acceptance,progress",
        }
    }

    pub(super) fn with_also(mut self, also: &str) -> Self {
        for word in also.split(',') {
            match word {
                "acceptance" => self.acceptance = true,
                "progress" => self.progress = true,
                _ => {}
            }
        }
        self
    }
}

/// Without the URL, which may have a token in it.
impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback").field("also", &self.also()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::operation::{Change, NewOperation, OperationId};
    use crate::time::Timestamp;

    #[test]
    fn it_is_told_what_it_wants() {
        let now = Timestamp::from_unix_millis(0);
        let accepted = NewOperation::new(OperationId::from_parts(now, [1; 10])).accept(now);
        let claim = Change::Claim { lease: Duration::from_secs(9) };
        let running = accepted.apply(&claim, now).unwrap();
        let ended = accepted.apply(&Change::Cancel, now).unwrap();
        let end = Callback::new("https://a.example/x").unwrap();
        for (callback, wanted) in [
            (end.clone(), [false, false, true]),
            (end.clone().with_acceptance(), [true, false, true]),
            (end.clone().with_progress(), [false, true, true]),
            (end.clone().with_progress().with_acceptance(), [true, true, true]),
        ] {
            assert_eq!([&accepted, &running, &ended].map(|one| callback.wants(one)), wanted);
            assert_eq!(end.clone().with_also(callback.also()), callback);
        }
        assert_eq!(end.clone().with_also("another,,"), end);
    }

    #[test]
    fn a_url_has_a_form() {
        for wrong in ["", "a b", "a\n", "\u{e4}", "\u{7f}", &"x".repeat(2049)] {
            assert_eq!(Callback::new(wrong), None, "{wrong}");
        }
        let longest = "x".repeat(2048);
        assert_eq!(Callback::new(&longest).unwrap().url(), longest);
        assert!(
            !format!("{:?}", Callback::new("https://a.example/token").unwrap()).contains("token")
        );
    }
}

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::text::floor_char_boundary;

/// What a handler last reported: how much is done, and what it is at.
///
/// ```
/// use respond_async::Progress;
///
/// let progress = Progress::new(0.4, "sharpening");
/// assert_eq!(serde_json::to_string(&progress)?, r#"{"fraction":0.4,"message":"sharpening"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "Told")]
pub struct Progress {
    #[serde(skip_serializing_if = "Option::is_none")]
    fraction: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Arc<str>>,
}

/// What somebody else says: it is held to the same bounds.
#[derive(Deserialize)]
struct Told {
    fraction: Option<f64>,
    message: Option<String>,
}

impl From<Told> for Progress {
    fn from(told: Told) -> Self {
        Self::new(told.fraction, told.message.unwrap_or_default())
    }
}

impl Progress {
    /// The longest message, in bytes; a longer one is cut.
    pub const MAX_MESSAGE_BYTES: usize = 1024;

    /// So much is done, from 0 to 1 (`None` if that is not known), and this is what the work is at. A
    /// fraction outside is moved to the nearest end; one that is not a number says nothing. An empty
    /// message says nothing, and a control character in one is a space, so that it may go into any log, page
    /// or database.
    pub fn new(fraction: impl Into<Option<f64>>, message: impl AsRef<str>) -> Self {
        let message = message.as_ref();
        let end = floor_char_boundary(message, Self::MAX_MESSAGE_BYTES);
        Self {
            fraction: fraction.into().filter(|it| !it.is_nan()).map(|it| it.clamp(0.0, 1.0)),
            message: (end > 0).then(|| match &message[..end] {
                text if text.contains(char::is_control) => {
                    text.replace(char::is_control, " ").into()
                }
                text => text.into(),
            }),
        }
    }

    /// How much is done, from 0 to 1; none if that is not known.
    pub fn fraction(&self) -> Option<f64> {
        self.fraction
    }

    /// What the work is at, in words for people.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_within_its_bounds() {
        assert_eq!(Progress::new(1.5, "").fraction(), Some(1.0));
        assert_eq!(Progress::new(-1.0, "").fraction(), Some(0.0));
        assert_eq!(Progress::new(f64::NAN, ""), Progress::default());
        assert_eq!(Progress::new(None, "x").message(), Some("x"));
        let read: Progress =
            serde_json::from_str(r#"{"fraction":7,"message":"a\u0000b"}"#).unwrap();
        assert_eq!(read, Progress::new(1.0, "a b"));
        assert_eq!(serde_json::to_string(&Progress::default()).unwrap(), "{}");
        assert_eq!(Progress::new(0.0, "a\0b\r\nc\u{85}").message(), Some("a b  c "));
        let long = "ä".repeat(Progress::MAX_MESSAGE_BYTES);
        let message = format!("x{long}");
        assert_eq!(Progress::new(0.0, message).message().unwrap().len(), 1023);
    }
}

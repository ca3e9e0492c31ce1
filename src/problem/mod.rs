//! Problem documents: errors that a client sees ([RFC 9457]).
//!
//! - A [`ProblemType`] is a kind of problem: its URI, title and status. Those that this crate
//!   answers with are constants in [`types`].
//! - A [`Problem`] is one occurrence. A member that a peer sent with the wrong type is ignored, as
//!   [RFC 9457 §3.1] asks; one that is not registered is an extension and kept.
//! - Nothing of an error's cause gets into a problem by itself: what a client reads is what the
//!   service wrote for it.
//!
//! ```
//! use http::StatusCode;
//! use respond_async::problem::{Problem, ProblemType};
//!
//! const NO_IMAGE: ProblemType =
//!     ProblemType::new("https://example.com/problems/no-image", "Not an image", StatusCode::UNPROCESSABLE_ENTITY);
//!
//! let problem = Problem::new(NO_IMAGE).with_detail("The file ends in the middle.").with_extension("offset", 512);
//! assert_eq!(
//!     serde_json::to_string(&problem)?,
//!     r#"{"type":"https://example.com/problems/no-image","title":"Not an image","status":422,"#.to_owned()
//!         + r#""detail":"The file ends in the middle.","offset":512}"#
//! );
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457
//! [RFC 9457 §3.1]: https://www.rfc-editor.org/rfc/rfc9457#section-3.1

mod document;
pub mod types;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::text::floor_char_boundary;

/// The media type of a problem document
/// ([RFC 9457 §6.1](https://www.rfc-editor.org/rfc/rfc9457#section-6.1)).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A kind of problem: its identifying URI, its title, and the status it is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProblemType {
    uri: &'static str,
    title: &'static str,
    status: StatusCode,
}

impl ProblemType {
    /// A kind of problem of your own. `uri` should be one that you control
    /// ([RFC 9457 §3.1.1](https://www.rfc-editor.org/rfc/rfc9457#section-3.1.1)); `title` stays the
    /// same from occurrence to occurrence.
    pub const fn new(uri: &'static str, title: &'static str, status: StatusCode) -> Self {
        Self { uri, title, status }
    }

    /// The URI that identifies the kind.
    pub const fn uri(&self) -> &'static str {
        self.uri
    }

    /// The title of the kind.
    pub const fn title(&self) -> &'static str {
        self.title
    }

    /// The status that such a problem is answered with.
    pub const fn status(&self) -> StatusCode {
        self.status
    }
}

/// One occurrence of a problem.
///
/// It is an [`Error`](std::error::Error), so a handler can return it with `?`; it is one pointer, so
/// `Result<T, Problem>` stays cheap, and a clone shares what it points to.
#[derive(Clone, PartialEq)]
pub struct Problem(Arc<Members>);

#[derive(Clone, PartialEq, Default)]
struct Members {
    uri: Option<Cow<'static, str>>,
    title: Option<Cow<'static, str>>,
    status: Option<StatusCode>,
    detail: Option<Cow<'static, str>>,
    instance: Option<Cow<'static, str>>,
    extensions: Map<String, Value>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// How much of a problem an operation tells as its error: 16 KiB. Of a larger one it tells the title
    /// and the detail, each cut to a quarter of that, the type and the instance unless they are longer than that, and
    /// no extension; the result still has all of it.
    pub const MAX_KEPT_BYTES: usize = 16 * 1024;

    /// A problem of the given kind.
    pub fn new(kind: ProblemType) -> Self {
        Self(Arc::new(Members {
            uri: Some(kind.uri.into()),
            title: Some(kind.title.into()),
            status: Some(kind.status),
            ..Members::default()
        }))
    }

    /// A problem that says no more than its status does: type `about:blank`
    /// ([RFC 9457 §4.2.1](https://www.rfc-editor.org/rfc/rfc9457#section-4.2.1)).
    pub fn from_status(status: StatusCode) -> Self {
        Self(Arc::new(Members {
            title: status.canonical_reason().map(Cow::from),
            status: Some(status),
            ..Members::default()
        }))
    }

    /// The same problem with the status that it was really answered with; the document's own member
    /// is only advice ([RFC 9457 §3.1.2](https://www.rfc-editor.org/rfc/rfc9457#section-3.1.2)).
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.members().status = Some(status);
        self
    }

    fn members(&mut self) -> &mut Members {
        Arc::make_mut(&mut self.0)
    }

    /// The same within [`MAX_KEPT_BYTES`](Self::MAX_KEPT_BYTES).
    pub(crate) fn within_bounds(mut self) -> Self {
        const TEXT: usize = Problem::MAX_KEPT_BYTES / 4;
        let members = &*self.0;
        let texts = [&members.uri, &members.title, &members.detail, &members.instance];
        let texts: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
        let extensions = || serde_json::to_string(&members.extensions).map_or(0, |text| text.len());
        if texts <= Self::MAX_KEPT_BYTES && texts + extensions() <= Self::MAX_KEPT_BYTES {
            return self;
        }
        let members = self.members();
        members.extensions = Map::new();
        // Half a URI would name something else.
        for uri in [&mut members.uri, &mut members.instance] {
            uri.take_if(|uri| uri.len() > TEXT);
        }
        for text in [&mut members.title, &mut members.detail].into_iter().flatten() {
            let end = floor_char_boundary(text, TEXT);
            text.to_mut().truncate(end);
        }
        self
    }

    /// Says what is special about this occurrence, in words for people.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.members().detail = Some(detail.into());
        self
    }

    /// Names this occurrence by a URI reference.
    #[must_use]
    pub fn with_instance(mut self, instance: impl Into<Cow<'static, str>>) -> Self {
        self.members().instance = Some(instance.into());
        self
    }

    /// Adds an extension member
    /// ([RFC 9457 §3.2](https://www.rfc-editor.org/rfc/rfc9457#section-3.2)).
    ///
    /// The five registered members have methods of their own and are not replaced by this; a value
    /// that has no JSON form (a map with keys that are no strings) is left out.
    #[must_use]
    pub fn with_extension(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        let name = name.into();
        if !document::REGISTERED.contains(&name.as_str()) {
            if let Ok(value) = serde_json::to_value(value) {
                self.members().extensions.insert(name, value);
            }
        }
        self
    }

    /// Tells the client when to try again: the response gets a `Retry-After` field. It is no member
    /// of the document.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.members().retry_after = Some(delay);
        self
    }

    /// The URI of the problem's kind; `about:blank` if it names none.
    pub fn type_uri(&self) -> &str {
        self.0.uri.as_deref().unwrap_or("about:blank")
    }

    /// Whether the problem is of the given kind.
    pub fn is(&self, kind: ProblemType) -> bool {
        self.type_uri() == kind.uri
    }

    /// The title of the problem's kind.
    pub fn title(&self) -> Option<&str> {
        self.0.title.as_deref()
    }

    /// The status that the problem is answered with; 500 if a foreign document names none, or one that is no
    /// error's.
    pub fn status(&self) -> StatusCode {
        let status = self.0.status.filter(|status| status.as_u16() >= 400);
        status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What is special about this occurrence.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The URI reference that names this occurrence.
    pub fn instance(&self) -> Option<&str> {
        self.0.instance.as_deref()
    }

    /// The extension members, by their names.
    pub fn extensions(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.extensions.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// An extension member.
    pub fn extension(&self, name: &str) -> Option<&Value> {
        self.0.extensions.get(name)
    }

    /// The same without a word on when to try again.
    pub(crate) fn without_retry_after(mut self) -> Self {
        self.members().retry_after = None;
        self
    }

    /// After how long the client may try again, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.title(), self.detail()) {
            (Some(title), Some(detail)) => write!(f, "{title}: {detail}"),
            (Some(text), None) | (None, Some(text)) => f.write_str(text),
            (None, None) => write!(f, "{}", self.status()),
        }
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "Problem({text})")
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parse(json: &str) -> Problem {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn round_trips() {
        let problem = Problem::new(types::NOT_FOUND)
            .with_detail("Nobody here.")
            .with_instance("/operations/1")
            .with_extension("account", 17)
            .with_extension("status", 200);
        let text = serde_json::to_string(&problem).unwrap();
        assert_eq!(parse(&text), problem);
        assert_eq!(problem.status(), StatusCode::NOT_FOUND);
        assert_eq!(problem.extension("account"), Some(&Value::from(17)));
        assert_eq!(problem.to_string(), "Not found: Nobody here.");
    }

    #[test]
    fn an_empty_document_conforms() {
        let problem = parse("{}");
        assert_eq!(problem.type_uri(), "about:blank");
        assert_eq!(problem.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(serde_json::to_string(&problem).unwrap(), "{}");
    }

    #[test]
    fn members_of_a_wrong_type_are_ignored() {
        let problem =
            parse(r#"{"type":1,"title":[],"status":"500","detail":{},"instance":null,"x":[1.10]}"#);
        assert_eq!(serde_json::to_string(&problem).unwrap(), r#"{"x":[1.1]}"#);
        for status in ["99", "1000", "-1", "200.5", "99999999999999999999"] {
            let problem = parse(&format!(r#"{{"status":{status}}}"#));
            assert_eq!(problem.status(), StatusCode::INTERNAL_SERVER_ERROR, "{status}");
        }
        assert!(serde_json::from_str::<Problem>("[]").is_err());
    }

    #[test]
    fn what_is_no_error_is_answered_as_one() {
        for status in [100, 200, 304, 399] {
            let problem = parse(&format!(r#"{{"status":{status}}}"#));
            assert_eq!(problem.status(), StatusCode::INTERNAL_SERVER_ERROR, "{status}");
        }
    }

    #[test]
    fn a_large_one_is_told_in_part() {
        let just = Problem::new(types::INTERNAL)
            .with_extension("x", "x".repeat(Problem::MAX_KEPT_BYTES - 200));
        assert_eq!(just.clone().within_bounds(), just);
        let large = just
            .with_detail("ä".repeat(Problem::MAX_KEPT_BYTES))
            .with_instance("/".repeat(Problem::MAX_KEPT_BYTES));
        let kept = large.within_bounds();
        assert!(kept.is(types::INTERNAL) && kept.extensions().count() == 0);
        assert_eq!(kept.detail().unwrap().len(), Problem::MAX_KEPT_BYTES / 4);
        assert_eq!(kept.instance(), None);
    }

    #[test]
    fn a_bare_status_is_about_blank() {
        let problem = Problem::from_status(StatusCode::CONFLICT);
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"title":"Conflict","status":409}"#
        );
    }
}

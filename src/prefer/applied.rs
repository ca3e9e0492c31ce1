//! Saying, and reading, which preferences were honoured.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::field::{write_list, write_pair};
use super::parameter::Value;
use super::preference::Preference;
use super::preferences::{CALLBACKS, Preferences};
use super::text::MAX_PREFERENCES;

/// The name of the `Preference-Applied` field
/// ([RFC 7240 §3](https://www.rfc-editor.org/rfc/rfc7240.html#section-3)).
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Which preferences of a request were honoured
/// ([RFC 7240 §3](https://www.rfc-editor.org/rfc/rfc7240.html#section-3)).
///
/// A server selects from the request's own preferences, so that it cannot name one that the client did not state, nor
/// another value than the client's. What the request does not have is left out without a word: code that honours a
/// preference says so and need not ask first. Parameters are never sent.
///
/// ```
/// use respond_async::prefer::{PreferenceApplied, Preferences};
///
/// let preferences = Preferences::parse("respond-async, wait=10; x=1, tx=rollback")?;
/// let applied = PreferenceApplied::of(&preferences).respond_async().return_().preference("TX");
/// assert_eq!(applied.to_header_value().ok_or("empty")?, "respond-async, tx=rollback");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A client reads it from the response:
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use respond_async::prefer::PreferenceApplied;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("preference-applied", HeaderValue::from_static("Respond-Async, wait=5"));
/// let applied = PreferenceApplied::from_headers(&headers);
/// assert!(applied.contains("respond-async"));
/// assert!(applied.get("wait").and_then(|wait| wait.value()).is_some_and(|value| value == "5"));
/// ```
///
/// Some clients take an answer as asynchronous only if the field is exactly `respond-async`: name `wait` only if it
/// made a difference.
#[derive(Clone, Default)]
#[must_use = "it says nothing until it is put into a header map"]
pub struct PreferenceApplied {
    preferences: Preferences,
    /// One bit for each place in the list of preferences.
    applied: u64,
}

const _: () = assert!(MAX_PREFERENCES <= u64::BITS as usize, "one bit for each preference");

impl PreferenceApplied {
    /// None of the request's preferences yet.
    pub fn of(preferences: &Preferences) -> Self {
        Self { preferences: preferences.clone(), applied: 0 }
    }

    /// Reads all `Preference-Applied` lines of a response, as leniently as [`Preferences::from_headers`]. Parameters
    /// have no place here; if there are some, they are ignored.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        Self {
            preferences: Preferences::from_field(headers, &PREFERENCE_APPLIED),
            applied: u64::MAX,
        }
    }

    /// Adds `respond-async`, if [`Preferences::respond_async`] holds.
    pub fn respond_async(self) -> Self {
        let stated = self.preferences.respond_async();
        self.preference_if(stated, "respond-async")
    }

    /// Adds `wait`, if [`Preferences::wait`] has a duration.
    pub fn wait(self) -> Self {
        let stated = self.preferences.wait().is_some();
        self.preference_if(stated, "wait")
    }

    /// Adds `return`, if [`Preferences::return_`] has one of its values.
    pub fn return_(self) -> Self {
        let stated = self.preferences.return_().is_some();
        self.preference_if(stated, "return")
    }

    /// Adds `handling`, if [`Preferences::handling`] has one of its values.
    pub fn handling(self) -> Self {
        let stated = self.preferences.handling().is_some();
        self.preference_if(stated, "handling")
    }

    /// Adds `callback`, under whichever of its names [`Preferences::callback`] has it.
    pub fn callback(self) -> Self {
        let name = CALLBACKS.into_iter().find(|name| self.preferences.get(name).is_some());
        self.preference_if(name.is_some(), name.unwrap_or_default())
    }

    /// Adds the preference of this name, in whatever case, if the request has it.
    pub fn preference(mut self, name: &str) -> Self {
        let found = self
            .preferences
            .distinct()
            .find(|(_, preference)| preference.name().eq_ignore_ascii_case(name));
        self.applied |= found.map_or(0, |(index, _)| bit(index));
        self
    }

    /// Whether the preference of this name, in whatever case, was honoured.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The applied preference of this name, in whatever case. It has no parameters.
    pub fn get(&self, name: &str) -> Option<Preference<'_>> {
        self.iter().find(|preference| preference.name().eq_ignore_ascii_case(name))
    }

    /// The applied preferences in the order in which the request, or the response that was read, has them. They have no
    /// parameters.
    pub fn iter(&self) -> impl Iterator<Item = Preference<'_>> {
        self.preferences
            .distinct()
            .filter(|(index, _)| self.applied & bit(*index) != 0)
            .map(|(_, preference)| preference.without_parameters())
    }

    /// Whether none was honoured.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The field value, or `None` if no preference was honoured: an empty field must not be sent
    /// ([RFC 9110 §5.6.1.1](https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.1.1)). Does not allocate for
    /// `respond-async` alone, which is what nearly all answers say.
    pub fn to_header_value(&self) -> Option<HeaderValue> {
        let mut members = self.iter();
        if let (Some(only), None) = (members.next(), members.next()) {
            if only.name().eq_ignore_ascii_case("respond-async") && only.value().is_none() {
                return Some(HeaderValue::from_static("respond-async"));
            }
        }
        write_list(self.iter(), |field, preference| {
            write_pair(
                field,
                preference.name(),
                preference.value().into_iter().flat_map(Value::bytes),
            );
        })
    }

    fn preference_if(self, stated: bool, name: &str) -> Self {
        if stated { self.preference(name) } else { self }
    }
}

const fn bit(index: usize) -> u64 {
    1 << index
}

impl PartialEq for PreferenceApplied {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for PreferenceApplied {}

impl fmt::Debug for PreferenceApplied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreferenceApplied")?;
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;

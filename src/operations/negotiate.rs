//! What a request's preferences and its route's policy come to: no I/O.

use std::time::Duration;

use super::task::Answer;
use crate::operation::Outcome;
use crate::prefer::{CALLBACKS, Handling, PreferErrorKind, Preferences};
use crate::problem::Problem;
use crate::store::Observed;

/// How a request is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// With the handler's answer, however long that takes.
    Inline,
    /// With the handler's answer if it comes in time, else 202.
    Within(Duration),
}

/// What the preferences and the route's policy say.
pub(super) fn mode(preferences: &Preferences, accepts_overdue: bool, cap: Duration) -> Mode {
    let wait = preferences.wait().map(|wait| wait.min(cap));
    match (preferences.respond_async(), wait) {
        (true, wait) => Mode::Within(wait.unwrap_or(Duration::ZERO)),
        (false, Some(wait)) if accepts_overdue => Mode::Within(wait),
        (false, _) => Mode::Inline,
    }
}

/// Why `handling=strict` has the request refused ([RFC 7240 §4.4]), if it does. Known are `respond-async`, `wait`,
/// `handling`, the names in `also`, and those of callbacks if the route takes one.
///
/// [RFC 7240 §4.4]: https://www.rfc-editor.org/rfc/rfc7240#section-4.4
pub(super) fn refusal(
    preferences: &Preferences,
    also: &[&str],
    takes_callback: bool,
) -> Option<String> {
    const KNOWN: [&str; 3] = ["respond-async", "wait", "handling"];
    if preferences.handling() != Some(Handling::Strict) {
        return None;
    }
    // A preference that is repeated is neither malformed nor unknown.
    let mut dropped = preferences.dropped();
    if let Some(fault) = dropped.find(|fault| fault.kind() != PreferErrorKind::Duplicate) {
        return Some(format!("Prefer: {fault}."));
    }
    for preference in preferences.iter() {
        let name = preference.name();
        let is_callback =
            takes_callback && CALLBACKS.iter().any(|known| known.eq_ignore_ascii_case(name));
        if !is_callback && !KNOWN.iter().chain(also).any(|known| known.eq_ignore_ascii_case(name)) {
            return Some(format!("This resource does not know the preference {name:?}."));
        }
        if name.eq_ignore_ascii_case("wait") && preferences.wait().is_none() {
            return Some("The preference \"wait\" needs a number of seconds.".to_owned());
        }
    }
    None
}

/// How the work of a request was begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    /// Its operation stands for an idempotency key.
    pub(super) is_named: bool,
    /// It is left to a worker, of this process or of another.
    pub(super) is_elsewhere: bool,
    pub(super) delay: Duration,
}

/// What is left to do for a request once its work has begun, or is not going to.
pub(super) enum Next {
    Answer(Outcome),
    Refuse(Problem),
    /// Its operation is waited for, for so long or to its end, and then answers it.
    Follow {
        observed: Observed,
        is_new: bool,
        wait: Option<Duration>,
    },
}

/// Who asked for no 202 waits for the end of the work that this request began, but gets one if an earlier request
/// did.
pub(super) fn next(answer: Answer, mode: Mode, begun: Begun) -> Next {
    let Begun { is_named, is_elsewhere, delay } = begun;
    let (observed, is_new) = match answer {
        Answer::Ready(outcome) => return Next::Answer(outcome),
        Answer::Refused(problem) => return Next::Refuse(problem),
        Answer::Accepted(observed) => (observed, true),
        Answer::Existing(observed) => (observed, false),
    };
    let wait = match mode {
        Mode::Inline if is_new && is_named && delay.is_zero() => None,
        // The work that begins here had its time before it was accepted.
        Mode::Within(wait) if !is_new || is_named || is_elsewhere => Some(wait),
        _ => Some(Duration::ZERO),
    };
    // What was put off for longer than that cannot have ended by then.
    let wait = wait.map(|wait| if delay < wait { wait } else { Duration::ZERO });
    Next::Follow { observed, is_new, wait }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::operation::{NewOperation, OperationId};
    use crate::prefer::PREFER;
    use crate::time::Timestamp;

    fn preferences(field: &str) -> Preferences {
        let mut headers = HeaderMap::new();
        headers.insert(PREFER.clone(), HeaderValue::from_str(field).unwrap());
        Preferences::from_headers(&headers)
    }

    #[test]
    fn a_mode_follows_from_what_is_preferred() {
        let cap = Duration::from_secs(25);
        let within = |seconds| Mode::Within(Duration::from_secs(seconds));
        for (field, overdue, expected) in [
            ("", false, Mode::Inline),
            ("", true, Mode::Inline),
            ("wait=5", false, Mode::Inline),
            ("wait=5", true, within(5)),
            ("wait=3600", true, within(25)),
            ("respond-async", false, within(0)),
            ("respond-async, wait=5", false, within(5)),
            ("respond-async, wait=3600", false, within(25)),
            ("wait=0, respond-async", true, within(0)),
        ] {
            assert_eq!(mode(&preferences(field), overdue, cap), expected, "{field:?}, {overdue}");
        }
    }

    #[test]
    fn strict_handling_refuses_what_is_not_known() {
        for (field, callback, expected) in [
            ("depth-noroot", false, None),
            ("handling=lenient, depth-noroot", false, None),
            ("handling=strict", false, None),
            ("handling=strict, respond-async, wait=5", false, None),
            ("handling=strict, Return=minimal", false, None),
            ("handling=strict, depth-noroot", false, Some("\"depth-noroot\"")),
            ("handling=strict, wait=soon", false, Some("wait")),
            ("handling=strict, wait", false, Some("wait")),
            ("handling=strict, respond-async, respond-async", false, None),
            ("handling=strict, callback=\"https://a.example\"", false, Some("\"callback\"")),
            ("handling=strict, callback=\"https://a.example\"", true, None),
        ] {
            let refused = refusal(&preferences(field), &["return"], callback);
            match expected {
                None => assert_eq!(refused, None, "{field:?}"),
                Some(part) => assert!(refused.unwrap().contains(part), "{field:?}"),
            }
        }
    }

    #[test]
    fn what_is_waited_for_follows_from_how_it_began() {
        let now = Timestamp::from_unix_millis(1_700_000_000_000);
        let id = OperationId::from_parts(now, [7; 10]);
        let observed = || {
            let operation = NewOperation::new(id).accept(now);
            Observed { operation, now, write_id: 0 }
        };
        let (none, some) = (Duration::ZERO, Duration::from_secs(5));
        let (here, named, elsewhere) = ((false, false), (true, false), (false, true));
        for (is_new, mode, (is_named, is_elsewhere), delay, expected) in [
            // Its work began here, and was waited for before it was accepted.
            (true, Mode::Within(some), here, none, Some(none)),
            (true, Mode::Inline, named, none, None),
            (true, Mode::Within(some), named, none, Some(some)),
            (true, Mode::Within(some), elsewhere, none, Some(some)),
            (true, Mode::Within(none), elsewhere, none, Some(none)),
            // A delayed one is answered 202, whatever its client prefers.
            (true, Mode::Inline, elsewhere, some, Some(none)),
            (true, Mode::Inline, named, some, Some(none)),
            (true, Mode::Within(some), named, some * 2, Some(none)),
            (true, Mode::Within(some * 2), named, some, Some(some * 2)),
            // Of an earlier request.
            (false, Mode::Inline, named, none, Some(none)),
            (false, Mode::Within(some), named, none, Some(some)),
        ] {
            let answer = if is_new { Answer::Accepted } else { Answer::Existing };
            let begun = Begun { is_named, is_elsewhere, delay };
            match next(answer(observed()), mode, begun) {
                Next::Follow { is_new: new, wait, .. } => {
                    assert_eq!((new, wait), (is_new, expected), "{mode:?}, {begun:?}");
                }
                _ => panic!("it is not followed: {mode:?}, {begun:?}"),
            }
        }
    }
}

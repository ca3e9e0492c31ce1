//! Instants as the wire and the stores know them, and the clocks that tell them.
//!
//! A [`Timestamp`] has a resolution of one millisecond, which is what an operation id carries too.
//! It is written as RFC 3339 in JSON and as an HTTP-date ([RFC 9110 §5.6.7]) in header fields.
//!
//! [RFC 9110 §5.6.7]: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// An instant in UTC, in whole milliseconds since 1970-01-01T00:00:00Z.
///
/// The range is that of RFC 3339 without its last 26 hours: from [`MIN`](Self::MIN) to [`MAX`](Self::MAX).
/// Arithmetic saturates at its ends.
///
/// ```
/// use std::time::Duration;
/// use respond_async::Timestamp;
///
/// let start: Timestamp = "2026-11-23T05:00:00Z".parse()?;
/// let end = start + Duration::from_millis(1_500);
/// assert_eq!(end.to_string(), "2026-11-23T05:00:01.500Z");
/// assert_eq!(end.to_http_date(), "Mon, 23 Nov 2026 05:00:01 GMT");
/// # Ok::<(), respond_async::time::TimestampError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A text that is no RFC 3339 date and time, or one before [`Timestamp::MIN`] or after [`Timestamp::MAX`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 date and time")]
pub struct TimestampError(());

impl Timestamp {
    /// The first instant that can be written: 0000-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_167_219_200_000);
    /// The last instant that can be written: 9999-12-30T22:00:00Z, the largest that an HTTP-date
    /// can be made of in every time zone.
    pub const MAX: Self = Self(253_402_207_200_000);

    /// The instant that many milliseconds after (or, if negative, before) 1970, kept within
    /// [`MIN`](Self::MIN) and [`MAX`](Self::MAX).
    pub fn from_unix_millis(millis: i64) -> Self {
        Self(millis.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Milliseconds since 1970, negative before.
    pub const fn as_unix_millis(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is in fact later.
    pub fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The instant as an HTTP-date ([RFC 9110 §5.6.7]), cut to whole seconds.
    ///
    /// [RFC 9110 §5.6.7]: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7
    pub fn to_http_date(self) -> String {
        jiff::fmt::rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&self.to_jiff())
            .unwrap_or_else(|_| self.to_string())
    }

    /// Reads a date of HTTP in any of its three forms
    /// ([RFC 9110 §5.6.7](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7)): the one that is written
    /// today, and the two that a recipient must still accept. What is beyond [`MAX`](Self::MAX) is that; a year
    /// of two digits is the one that is at most 50 years ahead.
    ///
    /// ```
    /// use respond_async::Timestamp;
    ///
    /// let date = Timestamp::from_http_date("Sun, 06 Nov 1994 08:49:37 GMT");
    /// assert_eq!(date, Timestamp::from_http_date("Sunday, 06-Nov-94 08:49:37 GMT"));
    /// assert_eq!(date, Timestamp::from_http_date("Sun Nov  6 08:49:37 1994"));
    /// assert_eq!(date.map(|date| date.to_string()).as_deref(), Some("1994-11-06T08:49:37.000Z"));
    /// ```
    pub fn from_http_date(text: &str) -> Option<Self> {
        const TODAY: &str = "%a, %d %b %Y %H:%M:%S GMT";
        const RFC_850: &str = "%A, %d-%b-%y %H:%M:%S GMT";
        const ASCTIME: &str = "%a %b %e %H:%M:%S %Y";
        let parts = |form| BrokenDownTime::parse(form, text).ok();
        let civil = if let Some(parts) = parts(TODAY).or_else(|| parts(ASCTIME)) {
            parts.to_datetime().ok()?
        } else {
            let mut parts = parts(RFC_850)?;
            let this_year = SystemClock.now().to_jiff().to_zoned(TimeZone::UTC).year();
            let year = this_year - this_year % 100 + parts.year()?.rem_euclid(100);
            parts.set_year(Some(if year > this_year + 50 { year - 100 } else { year })).ok()?;
            parts.to_datetime().ok()?
        };
        if civil.year() < 0 {
            return None;
        }
        let instant = civil.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp().as_millisecond());
        Some(Self::from_unix_millis(instant.unwrap_or(i64::MAX)))
    }

    /// RFC 3339 with milliseconds. An answer has several, so they are written here and not by jiff's printer, which
    /// takes three times as long: it has many forms, and each in a string of its own.
    fn to_rfc_3339(self) -> [u8; 24] {
        let civil = TimeZone::UTC.to_datetime(self.to_jiff());
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let parts = [
            (0..4, i64::from(civil.year())),
            (5..7, civil.month().into()),
            (8..10, civil.day().into()),
            (11..13, civil.hour().into()),
            (14..16, civil.minute().into()),
            (17..19, civil.second().into()),
            (20..23, self.0.rem_euclid(1_000)),
        ];
        for (place, mut number) in parts {
            for digit in text[place].iter_mut().rev() {
                *digit += u8::try_from(number % 10).unwrap_or_default();
                number /= 10;
            }
        }
        text
    }

    fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_unix_millis(self.0.saturating_add(millis))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_unix_millis(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => millis(after),
            Err(before) => -millis(before.duration()),
        })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_rfc_3339()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        // jiff reads more than RFC 3339 has: a zone's name behind the offset, and six digits of a year.
        if text.ends_with(']') || !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')) {
            return Err(TimestampError(()));
        }
        let parsed: jiff::Timestamp = text.parse().map_err(|_| TimestampError(()))?;
        let millis = parsed.as_millisecond();
        if (Self::MIN.0..=Self::MAX.0).contains(&millis) {
            Ok(Self(millis))
        } else {
            Err(TimestampError(()))
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.to_rfc_3339();
        serializer.serialize_str(std::str::from_utf8(&text).map_err(ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Tells the time to whoever must judge whether something is due.
///
/// A store has one clock and judges every lease, delay, deadline and expiry by it; callers pass
/// durations, never instants.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The instant at which this is called.
    fn now(&self) -> Timestamp;
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

/// A clock that stands still until it is told otherwise, for tests.
///
/// ```
/// use std::time::Duration;
/// use respond_async::time::{Clock, ManualClock};
///
/// let clock = ManualClock::default();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().duration_since(before), Duration::from_secs(60));
/// ```
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.set(self.now() + by);
    }

    /// Puts the clock to any instant, also to an earlier one.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    /// A clock that shows the time at which it was made.
    fn default() -> Self {
        Self::new(SystemClock.now())
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

impl<C: Clock> Clock for std::sync::Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// Makes of a setting of "never" what is longer than any process lives, and counted from now on still an instant.
#[cfg(feature = "tokio")]
pub(crate) fn keep_within_reach<const N: usize>(settings: [&mut Duration; N]) {
    const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    for setting in settings {
        *setting = (*setting).min(FOR_EVER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in
            ["2026-11-23T05:54:39.123Z", "1969-12-31T23:59:59.999Z", "0000-01-01T00:00:00.000Z"]
        {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
        assert_eq!(
            "2026-11-23T06:54:39.123+01:00".parse::<Timestamp>().unwrap().to_string(),
            "2026-11-23T05:54:39.123Z"
        );
        for wrong in [
            "",
            "2026-11-23",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "-000001-01-01T00:00:00Z",
            "2026-11-23T05:54:39Z[UTC]",
            "9999-12-31T00:00:00Z",
        ] {
            assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn instants_are_written_as_jiff_writes_them() {
        let printer = jiff::fmt::temporal::DateTimePrinter::new().precision(Some(3));
        let range = Timestamp::MIN.0..=Timestamp::MAX.0;
        // A step of 11 years that is no whole number of anything.
        let instants = range.step_by(347_155_200_119).map(Timestamp);
        for instant in instants.chain([Timestamp::MIN, Timestamp(-1), Timestamp::MAX]) {
            assert_eq!(instant.to_string(), printer.timestamp_to_string(&instant.to_jiff()));
        }
    }

    #[test]
    fn dates_of_http_are_kept_within_the_range() {
        let read = Timestamp::from_http_date;
        assert_eq!(read("Fri, 31 Dec 9999 23:59:59 GMT"), Some(Timestamp::MAX));
        assert_eq!(read("Fri, 01 Jan -9999 00:00:00 GMT"), None);
        assert_eq!(read("Mon, 06 Nov 1994 08:49:37 GMT"), None, "it was a Sunday");
        // RFC 9110 §5.6.7: at most fifty years ahead.
        let year = |date: Timestamp| date.to_string()[..4].parse::<i16>().unwrap();
        let this_year = year(SystemClock.now());
        for ahead in [-49_i16, 0, 50, 51, 99] {
            let meant = if ahead > 50 { this_year + ahead - 100 } else { this_year + ahead };
            let date =
                jiff::civil::date(meant, 1, 1).strftime("%A, %d-%b-%y 00:00:00 GMT").to_string();
            assert_eq!(read(&date).map(year), Some(meant), "{date}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp::MIN.duration_since(Timestamp::MAX), Duration::ZERO);
        assert_eq!(Timestamp::from_unix_millis(i64::MIN), Timestamp::MIN);
        assert_eq!(Timestamp::MIN.to_string(), "0000-01-01T00:00:00.000Z");
        assert_eq!(Timestamp::MAX.to_http_date(), "Thu, 30 Dec 9999 22:00:00 GMT");
    }
}

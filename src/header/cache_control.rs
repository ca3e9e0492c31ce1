use std::fmt;
use std::time::Duration;

use http::HeaderValue;

/// What a client, and caches on the way, may keep and for how long: `Cache-Control` of a response
/// ([RFC 9111 §5.2.2](https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2),
/// [RFC 5861](https://www.rfc-editor.org/rfc/rfc5861) for the `stale-…` directives,
/// [RFC 8246](https://www.rfc-editor.org/rfc/rfc8246) for `immutable`).
///
/// Durations are written in whole seconds, cut down, at most 2³¹.
///
/// ```
/// use std::time::Duration;
/// use respond_async::header::CacheControl;
///
/// // For an hour without asking; for a week more when the service cannot be reached.
/// let offline = CacheControl::private()
///     .max_age(Duration::from_secs(3600))
///     .stale_if_error(Duration::from_secs(7 * 24 * 3600));
/// assert_eq!(offline.to_string(), "private, max-age=3600, stale-if-error=604800");
/// assert_eq!(CacheControl::no_store().to_string(), "no-store");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
#[allow(clippy::struct_excessive_bools, reason = "each is a directive that is there or not")]
pub struct CacheControl {
    scope: Option<Scope>,
    no_cache: bool,
    no_store: bool,
    no_transform: bool,
    must_revalidate: bool,
    immutable: bool,
    max_age: Option<Duration>,
    s_maxage: Option<Duration>,
    stale_while_revalidate: Option<Duration>,
    stale_if_error: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Public,
    Private,
}

impl CacheControl {
    /// `no-store`: nobody keeps it.
    pub fn no_store() -> Self {
        Self { no_store: true, ..Self::default() }
    }

    /// `private`: only the client that asked keeps it, no shared cache.
    pub fn private() -> Self {
        Self { scope: Some(Scope::Private), ..Self::default() }
    }

    /// `public`: shared caches keep it too, even if the request carried `Authorization`.
    pub fn public() -> Self {
        Self { scope: Some(Scope::Public), ..Self::default() }
    }

    /// `no-cache`: may be kept, but is asked for again, conditionally, before each use.
    pub fn no_cache(mut self) -> Self {
        self.no_cache = true;
        self
    }

    /// `no-transform`: intermediaries leave the content as it is.
    pub fn no_transform(mut self) -> Self {
        self.no_transform = true;
        self
    }

    /// `must-revalidate`: never used stale, not even offline. Beware: it lets shared caches keep
    /// answers to requests with `Authorization` unless the scope is private.
    pub fn must_revalidate(mut self) -> Self {
        self.must_revalidate = true;
        self
    }

    /// `immutable`: will not change while it is fresh, so a reload need not ask.
    pub fn immutable(mut self) -> Self {
        self.immutable = true;
        self
    }

    /// `max-age`: fresh for that long.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// `s-maxage`: fresh for that long in shared caches.
    pub fn s_maxage(mut self, age: Duration) -> Self {
        self.s_maxage = Some(age);
        self
    }

    /// `stale-while-revalidate`: for that long after it went stale it may be used while a fresh
    /// one is fetched.
    pub fn stale_while_revalidate(mut self, age: Duration) -> Self {
        self.stale_while_revalidate = Some(age);
        self
    }

    /// `stale-if-error`: for that long after it went stale it may be used when the service cannot
    /// be reached or answers 5xx. This is what lets a client work offline.
    pub fn stale_if_error(mut self, age: Duration) -> Self {
        self.stale_if_error = Some(age);
        self
    }

    /// The directives as a header value; empty if there are none.
    pub fn to_header_value(self) -> HeaderValue {
        const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
        if self == Self::no_store() {
            return NO_STORE;
        }
        let mut text = String::with_capacity(64);
        // Directive names and digits are visible ASCII, and a string takes whatever is written.
        match self.write(&mut text) {
            Ok(()) => HeaderValue::try_from(text).unwrap_or(NO_STORE),
            Err(fmt::Error) => NO_STORE,
        }
    }

    fn write(&self, to: &mut impl fmt::Write) -> fmt::Result {
        let flags = [
            (self.scope == Some(Scope::Public), "public"),
            (self.scope == Some(Scope::Private), "private"),
            (self.no_cache, "no-cache"),
            (self.no_store, "no-store"),
            (self.no_transform, "no-transform"),
            (self.must_revalidate, "must-revalidate"),
            (self.immutable, "immutable"),
        ];
        let ages = [
            (self.max_age, "max-age="),
            (self.s_maxage, "s-maxage="),
            (self.stale_while_revalidate, "stale-while-revalidate="),
            (self.stale_if_error, "stale-if-error="),
        ];
        let mut separator = "";
        for (_, name) in flags.into_iter().filter(|(is_set, _)| *is_set) {
            to.write_str(separator)?;
            to.write_str(name)?;
            separator = ", ";
        }
        for (age, name) in ages.into_iter().filter_map(|(age, name)| Some((age?, name))) {
            to.write_str(separator)?;
            to.write_str(name)?;
            // RFC 9111 §1.2.2: a larger number is read as 2³¹ anyway.
            write!(to, "{}", age.as_secs().min(1 << 31))?;
            separator = ", ";
        }
        Ok(())
    }
}

impl fmt::Display for CacheControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_written_in_a_fixed_order() {
        let hour = Duration::from_secs(3600);
        let all = CacheControl::public()
            .stale_if_error(hour)
            .stale_while_revalidate(hour)
            .s_maxage(hour)
            .max_age(Duration::MAX)
            .immutable()
            .must_revalidate()
            .no_transform()
            .no_cache();
        assert_eq!(
            all.to_header_value(),
            "public, no-cache, no-transform, must-revalidate, immutable, max-age=2147483648, \
             s-maxage=3600, stale-while-revalidate=3600, stale-if-error=3600"
        );
        assert_eq!(CacheControl::default().to_header_value(), "");
    }
}

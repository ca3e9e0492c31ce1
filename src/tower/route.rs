use http::Method;
use http::header::{self, HeaderMap};

/// A route that opts in: a method and a pattern of paths.
///
/// In a pattern, `{name}` stands for one segment that is not empty, and `{*rest}` at its end for all
/// that follows, which is not empty either; the names mean nothing. All else is compared byte for
/// byte, as it stands in the request's target.
///
/// ```
/// use http::Method;
/// use respond_async::tower::Route;
///
/// let route = Route::post("/users/{id}/reports").repeatable();
/// assert!(route.matches(&Method::POST, "/users/17/reports"));
/// assert!(!route.matches(&Method::POST, "/users/17/reports/3"));
/// assert!(Route::put("/files/{*path}").matches(&Method::PUT, "/files/a/b"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Route {
    method: Method,
    pattern: Box<str>,
    /// What the route says of it; else its method does.
    repeats: Option<bool>,
}

impl Route {
    /// Requests of that method whose path the pattern stands for. It may be begun again after a crash
    /// if the method is idempotent: GET, HEAD, OPTIONS, TRACE, and without a condition (`If-Match`,
    /// `If-None-Match`, `If-Unmodified-Since`) PUT or DELETE.
    pub fn new(method: Method, pattern: impl Into<String>) -> Self {
        Self { method, pattern: pattern.into().into(), repeats: None }
    }

    /// A `POST`, which is begun once.
    pub fn post(pattern: impl Into<String>) -> Self {
        Self::new(Method::POST, pattern)
    }

    /// A `PUT`, which may be begun again unless it has a condition.
    pub fn put(pattern: impl Into<String>) -> Self {
        Self::new(Method::PUT, pattern)
    }

    /// A `GET` or `HEAD`, which may be begun again.
    pub fn get(pattern: impl Into<String>) -> Self {
        Self::new(Method::GET, pattern)
    }

    /// Its requests may be begun again after a crash, whatever their method: the handler does no harm
    /// when it runs twice.
    pub fn repeatable(mut self) -> Self {
        self.repeats = Some(true);
        self
    }

    /// Its requests are begun once, whatever their method.
    pub fn never_twice(mut self) -> Self {
        self.repeats = Some(false);
        self
    }

    /// Whether the route is that of a request.
    pub fn matches(&self, method: &Method, path: &str) -> bool {
        // What holds for GET holds for HEAD, `Vary` included.
        let is_head_of_get = self.method == Method::GET && *method == Method::HEAD;
        (self.method == *method || is_head_of_get) && matches(&self.pattern, path)
    }

    /// Whether a request of the route with these fields may be begun again.
    pub(super) fn repeats(&self, headers: &HeaderMap) -> bool {
        // What was done the first time would fail the condition the second time, and be told as not done
        // (RFC 9110 §13.1.1).
        let is_spent = || {
            let conditions = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_UNMODIFIED_SINCE];
            !self.method.is_safe() && conditions.iter().any(|name| headers.contains_key(name))
        };
        self.repeats.unwrap_or_else(|| self.method.is_idempotent() && !is_spent())
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(part), Some(segment)) => {
                if let Some(name) = part.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                    if name.starts_with('*') {
                        return !segment.is_empty() || path.next().is_some();
                    }
                    if segment.is_empty() {
                        return false;
                    }
                } else if part != segment {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_paths() {
        for (pattern, yes, no) in [
            ("/", &["/"][..], &["", "/a", "//"][..]),
            ("/a", &["/a"], &["/", "/a/", "/A", "/ab", "/a/b"]),
            ("/a/{x}", &["/a/b", "/a/%2F"], &["/a", "/a/", "/a/b/c", "/b/a"]),
            ("/{x}/b/{y}", &["/a/b/c"], &["/a/b", "//b/c", "/a/c/b"]),
            ("/a/{*rest}", &["/a/b", "/a/b/c", "/a/b/", "/a//b"], &["/a", "/a/"]),
            ("/{*rest}", &["/a", "/a/b"], &["/"]),
            ("/a{x}", &["/a{x}"], &["/ab"]),
        ] {
            for path in yes {
                assert!(matches(pattern, path), "{pattern} {path}");
            }
            for path in no {
                assert!(!matches(pattern, path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn idempotent_methods_repeat() {
        let mut headers = HeaderMap::new();
        assert!(Route::put("/").repeats(&headers) && Route::get("/").repeats(&headers));
        assert!(Route::new(Method::DELETE, "/").repeats(&headers));
        assert!(!Route::post("/").repeats(&headers));
        assert!(!Route::new(Method::PATCH, "/").repeats(&headers));
        assert!(Route::post("/").repeatable().repeats(&headers));
        assert!(!Route::put("/").never_twice().repeats(&headers));
        headers.insert(header::IF_MATCH, header::HeaderValue::from_static("\"v1\""));
        assert!(!Route::put("/").repeats(&headers) && Route::get("/").repeats(&headers));
        assert!(Route::put("/").repeatable().repeats(&headers));
    }
}

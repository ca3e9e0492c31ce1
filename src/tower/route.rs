use http::Method;

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
    repeats: bool,
}

impl Route {
    /// Requests of that method whose path the pattern stands for. It may be begun again after a crash
    /// if the method is idempotent: GET, HEAD, OPTIONS, TRACE, PUT or DELETE.
    pub fn new(method: Method, pattern: impl Into<String>) -> Self {
        let repeats = method.is_idempotent();
        Self { method, pattern: pattern.into().into(), repeats }
    }

    /// A `POST`, which is begun once.
    pub fn post(pattern: impl Into<String>) -> Self {
        Self::new(Method::POST, pattern)
    }

    /// A `PUT`, which may be begun again.
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
        self.repeats = true;
        self
    }

    /// Its requests are begun once, whatever their method.
    pub fn never_twice(mut self) -> Self {
        self.repeats = false;
        self
    }

    /// Whether the route is that of a request.
    pub fn matches(&self, method: &Method, path: &str) -> bool {
        // What holds for GET holds for HEAD, `Vary` included.
        let is_head_of_get = self.method == Method::GET && *method == Method::HEAD;
        (self.method == *method || is_head_of_get) && matches(&self.pattern, path)
    }

    pub(super) fn repeats(&self) -> bool {
        self.repeats
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
        assert!(Route::put("/").repeats() && Route::get("/").repeats());
        assert!(Route::new(Method::DELETE, "/").repeats());
        assert!(!Route::post("/").repeats() && !Route::new(Method::PATCH, "/").repeats());
        assert!(Route::post("/").repeatable().repeats());
        assert!(!Route::put("/").never_twice().repeats());
    }
}

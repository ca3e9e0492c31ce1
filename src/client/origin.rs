use url::{Origin, Url};

use super::error::{ClientError, ClientErrorKind};

/// The origins to which a client sends its credentials.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins {
    allowed: Vec<Origin>,
}

impl Origins {
    pub(super) fn allow(&mut self, url: &Url) {
        self.allowed.push(url.origin());
    }

    /// Where a link leads, if it may be followed: within the origin of `base`, or to one that is allowed.
    /// A fragment is left out; a name and password in a link are another's.
    pub(super) fn join(&self, base: &Url, link: &str) -> Result<Url, ClientError> {
        let foreign =
            |url: &Url| ClientError::new(ClientErrorKind::ForeignOrigin).with_url(url.clone());
        let mut url = base
            .join(link)
            .map_err(|_| ClientError::new(ClientErrorKind::NoMonitor).with_url(base.clone()))?;
        url.set_fragment(None);
        let is_own = url.origin() == base.origin() && base.origin().is_tuple();
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        if has_credentials || !(is_own || self.allowed.contains(&url.origin())) {
            return Err(foreign(&url));
        }
        Ok(url)
    }
}

/// The absolute URL of a request. A name and password in it are refused: no link back to the server has
/// them, and they would be shown wherever the URL is.
pub(super) fn absolute(uri: &http::Uri) -> Result<Url, ClientError> {
    let invalid = || ClientError::new(ClientErrorKind::InvalidRequest);
    let url = Url::parse(&uri.to_string()).map_err(|_| invalid())?;
    let has_credentials = !url.username().is_empty() || url.password().is_some();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && !has_credentials {
        Ok(url)
    } else {
        Err(invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_within_their_origin() {
        let base = Url::parse("https://api.example/v1/images?q=1").unwrap();
        let mut origins = Origins::default();
        origins.allow(&Url::parse("https://jobs.example").unwrap());
        for (link, url) in [
            ("/operations/1", "https://api.example/operations/1"),
            ("operations/1?x=1#part", "https://api.example/v1/operations/1?x=1"),
            ("../o", "https://api.example/o"),
            ("https://api.example:443/o", "https://api.example/o"),
            ("//api.example/o", "https://api.example/o"),
            ("https://jobs.example/1", "https://jobs.example/1"),
        ] {
            assert_eq!(origins.join(&base, link).unwrap().as_str(), url);
        }
        for link in [
            "http://api.example/o",
            "https://api.example:444/o",
            "https://evil.example/o",
            "//evil.example/o",
            "\\\\evil.example/o",
            "https://api.example@evil.example/",
            "https://user:word@api.example/",
            "http://jobs.example/1",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "data:,x",
        ] {
            let error = origins.join(&base, link).unwrap_err();
            assert_eq!(error.kind(), ClientErrorKind::ForeignOrigin, "{link}");
        }
        assert!(origins.join(&base, "http://[").is_err());
    }

    #[test]
    fn a_target_has_no_password() {
        let of = |target: &str| absolute(&target.parse().unwrap()).map(String::from);
        assert_eq!(of("http://api.example/o?q").unwrap(), "http://api.example/o?q");
        for target in ["http://ann:word@api.example/o", "http://ann@api.example/o", "/o"] {
            assert_eq!(of(target).unwrap_err().kind(), ClientErrorKind::InvalidRequest, "{target}");
        }
    }
}

//! Whatever `Link` fields a server sends, reading them ends, and what it finds is a part of what was sent.
#![no_main]

use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use respond_async::header::{Link, UriReference};

fuzz_target!(|field: &[u8]| {
    let mut headers = HeaderMap::new();
    let lines = field.split(|&byte| byte == b'\n');
    for line in lines.filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(header::LINK, line);
    }
    if let Some(target) = Link::monitor_in(&headers) {
        let text = |line: &HeaderValue| String::from_utf8_lossy(line.as_bytes()).into_owned();
        assert!(headers.get_all(header::LINK).iter().any(|line| text(line).contains(target)));
        // Made a reference and written again, it is read as that.
        let reference = UriReference::new(target);
        let field = Link::monitor(reference.clone()).to_header_value();
        let written = HeaderMap::from_iter([(header::LINK, field)]);
        assert_eq!(Link::monitor_in(&written), Some(reference.as_str()));
    }
});

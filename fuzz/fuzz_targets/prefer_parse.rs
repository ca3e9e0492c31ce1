//! Whatever the bytes are, reading ends without a panic, and what the strict door accepts the lenient one reads alike.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use respond_async::prefer::{MAX_PREFERENCES, PREFER, PreferErrorKind, Preferences};

fuzz_target!(|field: &[u8]| {
    let strict = Preferences::parse(field);
    let mut headers = HeaderMap::new();
    for line in
        field.split(|&byte| byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok())
    {
        headers.append(PREFER, line);
    }
    let lenient = Preferences::from_headers(&headers);
    assert!(lenient.len() <= MAX_PREFERENCES && lenient.dropped().count() <= MAX_PREFERENCES + 1);
    assert!(lenient.iter().all(|preference| lenient.get(preference.name()) == Some(preference)));
    if let Ok(strict) = strict {
        assert_eq!(strict, lenient);
        assert!(lenient.dropped().all(|reason| reason.kind() == PreferErrorKind::Duplicate));
    }
});

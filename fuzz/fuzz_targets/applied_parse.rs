//! A `Preference-Applied` names only what the request has, and reads as what was written.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use respond_async::prefer::{MAX_FIELD_BYTES, PREFERENCE_APPLIED, PreferenceApplied, Preferences};

fuzz_target!(|field: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(field) else { return };
    let read =
        PreferenceApplied::from_headers(&HeaderMap::from_iter([(PREFERENCE_APPLIED, value)]));
    assert!(read.iter().all(|applied| applied.parameters().next().is_none()));

    let Ok(request) = Preferences::parse(field) else { return };
    let names = request.iter().map(|preference| preference.name());
    let all = names.fold(PreferenceApplied::of(&request), |applied, name| applied.preference(name));
    assert_eq!(all, read);
    if let Some(value) = all.to_header_value().filter(|value| value.len() <= MAX_FIELD_BYTES) {
        let headers = HeaderMap::from_iter([(PREFERENCE_APPLIED, value)]);
        assert_eq!(PreferenceApplied::from_headers(&headers), read);
    }
});

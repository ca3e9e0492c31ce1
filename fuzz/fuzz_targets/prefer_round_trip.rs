//! What is read can be written again, and reads as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use respond_async::prefer::{MAX_FIELD_BYTES, PreferField, Preferences, Value};

fuzz_target!(|field: &[u8]| {
    let Ok(preferences) = Preferences::parse(field) else { return };
    let bytes = |value: Option<Value<'_>>| {
        value.map(|value| value.to_bytes().into_owned()).unwrap_or_default()
    };
    let mut again = PreferField::new();
    for preference in preferences.iter() {
        again = again.with(preference.name(), bytes(preference.value())).expect("it was read");
        for parameter in preference.parameters() {
            again =
                again.parameter(parameter.name(), bytes(parameter.value())).expect("it was read");
        }
    }
    let Some(again) = again.to_header_value() else { return assert!(preferences.is_empty()) };
    // Separators come with a space, so that a field may grow over the limit.
    if again.len() <= MAX_FIELD_BYTES {
        assert_eq!(Preferences::parse(again).expect("it was written"), preferences);
    }
});

//! What holds for any field, by random ones: bytes without a plan, and strings that are nearly grammar.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use respond_async::prefer::{
    Handling, MAX_FIELD_BYTES, MAX_PREFERENCES, PREFER, PREFERENCE_APPLIED, PreferErrorKind,
    PreferField, PreferenceApplied, Preferences, Return, Value,
};

mod prefer_reference;

/// What fields are made of, so that a random sequence of them is often nearly well-formed.
#[rustfmt::skip]
const PIECES: &[&[u8]] = &[
    b"respond-async", b"Respond-Async", b"wait", b"WAIT=", b"return", b"handling", b"foo", b"a",
    b"b", b"10", b"minimal", b"strict", b"99999999999", b"=", b"=", b"=",
    b",", b",", b", ", b";", b"; ", b" ", b"\t", b"\"",
    b"\"", b"\\", b"\\\"", b"\"\"", b"\"a,b;c=\"", b"\xff", b"@", b"/",
];

fn nearly_a_field() -> impl Strategy<Value = Vec<u8>> {
    vec(select(PIECES), 0..24).prop_map(|pieces| pieces.concat())
}

/// Bytes that a header map can hold.
fn any_line() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(b'\t'), b' '..=b'~', 0x80..=u8::MAX], 0..100)
}

fn lines() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(prop_oneof![4 => nearly_a_field(), 1 => any_line()], 0..4)
}

fn token() -> impl Strategy<Value = String> {
    "[!#$%&'*+.^_`|~0-9a-zA-Z-]{1,6}"
}

/// A word, and the value that it stands for.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![token(), r#""([ !#-\[\]-~\t]|\\["\\a]){0,8}""#]
}

fn pair() -> impl Strategy<Value = Vec<String>> {
    (token(), proptest::option::of(word())).prop_map(|(name, word)| match word {
        Some(word) => vec![name, "=".into(), word],
        None => vec![name],
    })
}

/// A well-formed list, as the pieces between which white space may stand.
fn well_formed() -> impl Strategy<Value = Vec<String>> {
    let preference = vec(pair(), 1..4).prop_map(|pairs| pairs.join(&";".to_owned()));
    vec(preference, 0..6).prop_map(|preferences| preferences.join(&",".to_owned()))
}

fn read<L: AsRef<[u8]>>(lines: impl IntoIterator<Item = L>) -> Preferences {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(PREFER, HeaderValue::from_bytes(line.as_ref()).unwrap());
    }
    Preferences::from_headers(&headers)
}

fn bytes(value: Option<Value<'_>>) -> Option<Vec<u8>> {
    value.map(|value| value.to_bytes().into_owned())
}

fn as_reference(preferences: &Preferences) -> Vec<prefer_reference::Member> {
    let pair = |name: &str, value| (name.to_ascii_lowercase(), bytes(value));
    preferences
        .iter()
        .map(|preference| {
            let parameters =
                preference.parameters().map(|parameter| pair(parameter.name(), parameter.value()));
            (pair(preference.name(), preference.value()), parameters.collect())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_as_the_reference_does(lines in lines()) {
        let slices: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        prop_assume!(prefer_reference::count(&slices) <= MAX_PREFERENCES);
        let (own, reference) = (read(&lines), prefer_reference::preferences(&slices));
        prop_assert_eq!(as_reference(&own), &reference[..]);
        prop_assert_eq!(own.respond_async(), prefer_reference::respond_async(&reference));
        prop_assert_eq!(own.wait().map(|time| time.as_secs()), prefer_reference::wait(&reference));
        prop_assert_eq!(own.len() + own.dropped().count(), prefer_reference::count(&slices));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(field in vec(any::<u8>(), 0..200)) {
        let strict = Preferences::parse(&field);
        if let Err(error) = strict {
            prop_assert!(error.position() <= field.len());
            let words = format!("{error:#} at byte {}", error.position());
            prop_assert_eq!(error.to_string(), words);
        }
    }

    #[test]
    fn lenient_is_strict_where_strict_accepts(field in prop_oneof![nearly_a_field(), any_line()]) {
        let lenient = read([&field]);
        match Preferences::parse(&field) {
            Ok(strict) => {
                prop_assert!(lenient.dropped().all(|reason| reason.kind() == PreferErrorKind::Duplicate));
                prop_assert_eq!(strict.respond_async(), lenient.respond_async());
                prop_assert_eq!(strict.wait(), lenient.wait());
                prop_assert_eq!(strict.return_(), lenient.return_());
                prop_assert_eq!(strict.handling(), lenient.handling());
                prop_assert_eq!(strict, lenient);
            }
            // And where it does not, its fault is the first that is not a duplicate.
            Err(error) => {
                let first = lenient.dropped().find(|reason| reason.kind() != PreferErrorKind::Duplicate);
                prop_assert_eq!(first, Some(error));
            }
        }
    }

    #[test]
    fn well_formed_lists_are_accepted(pieces in well_formed()) {
        prop_assert_eq!(Preferences::parse(pieces.concat()).err(), None);
    }

    #[test]
    fn white_space_between_the_pieces_changes_nothing(pieces in well_formed(), blanks in vec("[ \t]{0,2}", 64)) {
        let spaced: String =
            pieces.iter().zip(blanks.iter().cycle()).flat_map(|(piece, blank)| [blank.as_str(), piece]).collect();
        prop_assert_eq!(Preferences::parse(spaced + &blanks[0]), Preferences::parse(pieces.concat()));
    }

    #[test]
    fn one_line_or_several_are_the_same_list(parts in vec(well_formed(), 0..5)) {
        let lines: Vec<String> = parts.iter().map(|pieces| pieces.concat()).collect();
        prop_assert_eq!(read(&lines), read([lines.join(",")]));
    }

    #[test]
    fn lines_do_not_harm_each_other(before in any_line(), after in any_line()) {
        let preferences = read([before.as_slice(), b"respond-async, wait=7", after.as_slice()]);
        prop_assert!(preferences.get("respond-async").is_some());
        prop_assert!(preferences.get("wait").is_some());
    }

    #[test]
    fn later_instances_change_nothing(
        lines in lines(),
        again in select(&["wait=9", "foo; x", "A", "respond-async=b"][..]),
    ) {
        let lines: Vec<_> = [b"wait=1, foo, a; b=c, respond-async".to_vec()].into_iter().chain(lines).collect();
        let first = read(&lines);
        let more = read(lines.iter().map(Vec::as_slice).chain([again.as_bytes()]));
        prop_assert_eq!(&more, &first);
        prop_assert_eq!((more.wait(), more.respond_async()), (Some(Duration::from_secs(1)), true));
        prop_assert_eq!(more.dropped().count(), first.dropped().count() + 1);
    }

    #[test]
    fn get_finds_what_iter_lists(lines in lines()) {
        let preferences = read(&lines);
        for preference in preferences.iter() {
            prop_assert_eq!(preferences.get(&preference.name().to_ascii_uppercase()), Some(preference));
        }
        prop_assert_eq!(preferences.iter().count(), preferences.len());
        prop_assert_eq!(preferences.is_empty(), preferences.iter().next().is_none());
        prop_assert!(preferences.dropped().all(|reason| reason.line() < lines.len()));
    }

    #[test]
    fn what_is_built_is_read_back(
        wait in proptest::option::of(0_u64..1 << 31),
        minimal in proptest::option::of(any::<bool>()),
        others in vec((token(), any_line(), token(), any_line()), 0..4),
    ) {
        let mut field = PreferField::new().respond_async();
        if let Some(seconds) = wait {
            field = field.wait(Duration::from_secs(seconds));
        }
        if let Some(minimal) = minimal {
            let return_ = if minimal { Return::Minimal } else { Return::Representation };
            field = field.return_(return_).handling(if minimal { Handling::Strict } else { Handling::Lenient });
        }
        for (name, value, parameter, parameter_value) in &others {
            field = field.with(&format!("x-{name}"), value).unwrap().parameter(parameter, parameter_value).unwrap();
        }
        let value = field.to_header_value().unwrap();
        let preferences = Preferences::parse(value.as_bytes()).unwrap();
        prop_assert_eq!(preferences.dropped().count(), 0);
        prop_assert!(preferences.respond_async());
        prop_assert_eq!(preferences.wait(), wait.map(Duration::from_secs));
        prop_assert_eq!(preferences.return_().map(|it| it == Return::Minimal), minimal);
        prop_assert_eq!(preferences.handling().map(|it| it == Handling::Strict), minimal);
        // The last of several with one name is the one that is sent.
        for (index, (name, value, parameter, parameter_value)) in others.iter().enumerate() {
            if others[index + 1..].iter().any(|later| later.0.eq_ignore_ascii_case(name)) {
                continue;
            }
            let preference = preferences.get(&format!("x-{name}")).unwrap();
            prop_assert_eq!(bytes(preference.value()).unwrap_or_default(), &value[..]);
            let parameter = preference.parameter(parameter).unwrap();
            prop_assert_eq!(bytes(parameter.value()).unwrap_or_default(), &parameter_value[..]);
        }
    }

    #[test]
    fn what_is_applied_was_asked_for(
        lines in lines(),
        names in vec(select(&["respond-async", "wait", "foo", "a"][..]), 0..4),
    ) {
        let request = read(&lines);
        let applied = names.iter().fold(PreferenceApplied::of(&request), |applied, name| applied.preference(name));
        for name in &names {
            prop_assert_eq!(applied.contains(name), request.get(name).is_some());
        }
        prop_assert_eq!(applied.is_empty(), applied.to_header_value().is_none());
        if let Some(value) = applied.to_header_value() {
            let headers = HeaderMap::from_iter([(PREFERENCE_APPLIED, value)]);
            prop_assert_eq!(&PreferenceApplied::from_headers(&headers), &applied);
        }
        for preference in applied.iter() {
            prop_assert_eq!(preference.value(), request.get(preference.name()).and_then(|asked| asked.value()));
        }
    }

    #[test]
    fn long_fields_stop_at_the_limit(field in nearly_a_field(), times in 1_usize..2_000) {
        prop_assume!(!field.is_empty());
        let field = field.repeat(times);
        let preferences = read([&field]);
        prop_assert!(preferences.len() + preferences.dropped().count() <= MAX_PREFERENCES + 1);
        prop_assert!(preferences.dropped().all(|reason| reason.position() <= MAX_FIELD_BYTES));
    }
}

//! The collection itself. What it reads from which field is in `tests/prefer_vectors.rs`.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::super::text::INLINE;
use super::{PREFER, Preferences};

#[test]
fn is_small_and_goes_anywhere() {
    fn assert_goes_anywhere<T: Clone + Default + Send + Sync + 'static>() {}
    assert_goes_anywhere::<Preferences>();
    assert!(size_of::<Preferences>() <= 128, "{} bytes", size_of::<Preferences>());
}

#[test]
fn none_are_stated_by_default() {
    let preferences = Preferences::default();
    assert_eq!(preferences, Preferences::from_headers(&HeaderMap::new()));
    assert!(preferences.is_empty());
    assert!(!preferences.respond_async());
    assert_eq!(
        (preferences.wait(), preferences.return_(), preferences.handling()),
        (None, None, None)
    );
}

#[test]
fn equality_is_of_what_is_stated() {
    let parse = |field| Preferences::parse(field).unwrap();
    assert_eq!(parse("a=1, b; c"), parse(" A = \"1\" ,, B;C ; , a=2"));
    assert_ne!(parse("a, b"), parse("b, a"));
    assert_ne!(parse("a=x"), parse("a=X"));
    assert_ne!(parse("a; x"), parse("a; y"));
    assert_ne!(parse("a"), parse("a; x"));
}

#[test]
fn debug_shows_what_is_stated() {
    let preferences = Preferences::parse(b"a, b=\"\xff\\\"\"; c=1, a").unwrap();
    assert_eq!(format!("{preferences:?}"), r#"Preferences[a, b="\xff\""; c="1"]"#);
}

#[test]
fn reads_fields_of_any_length_alike() {
    // On both sides of the step from the inline buffer to the heap, in one line and in two.
    for length in INLINE - 20..INLINE + 20 {
        let name = "x".repeat(length);
        for lines in [vec![format!("wait=3, {name}")], vec!["wait=3".into(), name.clone()]] {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(PREFER, HeaderValue::from_str(line).unwrap());
            }
            let preferences = Preferences::from_headers(&headers);
            assert_eq!(preferences.wait(), Some(Duration::from_secs(3)));
            assert!(preferences.get(&name).is_some());
            assert_eq!(preferences, Preferences::parse(lines.join(",")).unwrap());
        }
    }
}

#[test]
fn values_are_bytes() {
    let preferences = Preferences::parse(b"a=\"\xff\", b=\"\\\xff\", c=\"\xc3\xb6\"").unwrap();
    let value = |name| preferences.get(name).unwrap().value().unwrap();
    assert_eq!((value("a").to_bytes().as_ref(), value("a").to_str()), (b"\xff".as_slice(), None));
    assert_eq!((value("b").to_bytes().as_ref(), value("b").to_str()), (b"\xff".as_slice(), None));
    assert_eq!(value("c").to_str().as_deref(), Some("ö"));
    assert_eq!(value("a"), value("b"));
    assert_eq!(value("a"), *b"\xff".as_slice());
    assert_ne!(value("c"), "o");
}

#[test]
fn parameters_are_found_by_name() {
    let preferences = Preferences::parse("a; x=1; X=2; y").unwrap();
    let a = preferences.get("A").unwrap();
    assert_eq!(a.parameter("X").unwrap().value().unwrap(), "1");
    assert_eq!(a.parameter("y").unwrap().value(), None);
    assert_eq!(a.parameter("a"), None);
}

use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields as pairs of texts, for JSON: name, and the value's bytes as the characters of the same numbers.
/// Most values are ASCII, and any can be read back.
pub(crate) fn to_pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| value.as_bytes().iter().copied().map(char::from).collect();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// The fields of such pairs; none if one of them is no field.
pub(crate) fn from_pairs(pairs: &[(String, String)]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        let value: Result<Vec<u8>, _> = value.chars().map(u8::try_from).collect();
        let value = HeaderValue::from_bytes(&value.ok()?).ok()?;
        headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
    }
    Some(headers)
}

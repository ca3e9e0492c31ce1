use http::HeaderMap;
use http::header::ACCEPT;

/// How many bytes of `Accept` are read, over all its lines. What is beyond them says nothing.
pub const MAX_ACCEPT_BYTES: usize = 8 * 1024;

/// How much a media type is worth to a client, in thousandths.
type Quality = u16;

/// Which of the media types that a resource has its client would rather have
/// ([RFC 9110 §12.5.1](https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1)).
///
/// Of several that are worth the same to the client, the one that is offered first is taken. None if
/// it accepts none of them. Without the field, all are worth the same. A range may have parameters;
/// of these only its weight counts. What is no range is passed over.
///
/// ```
/// use http::{HeaderMap, HeaderValue, header::ACCEPT};
/// use respond_async::header::preferred_type;
///
/// let offered = ["application/json", "text/html"];
/// let mut request = HeaderMap::new();
/// assert_eq!(preferred_type(&request, &offered), Some(0));
/// request.insert(ACCEPT, HeaderValue::from_static("text/html, */*;q=0.8"));
/// assert_eq!(preferred_type(&request, &offered), Some(1));
/// ```
pub fn preferred_type(headers: &HeaderMap, offered: &[&str]) -> Option<usize> {
    let mut best = None;
    for (index, media_type) in offered.iter().enumerate() {
        let quality = quality(headers, media_type);
        if quality > best.map_or(0, |(_, best)| best) {
            best = Some((index, quality));
        }
    }
    best.map(|(index, _)| index)
}

/// The weight of the most specific range that has the type in it; of equally specific ones the first.
fn quality(headers: &HeaderMap, media_type: &str) -> Quality {
    let mut budget = MAX_ACCEPT_BYTES;
    let mut found: Option<(u8, Quality)> = None;
    let mut is_stated = false;
    for line in headers.get_all(ACCEPT) {
        let Some(rest) = budget.checked_sub(line.len()) else { break };
        budget = rest;
        for member in members(line.as_bytes()) {
            is_stated = true;
            let mut parts = member.split(|byte| *byte == b';');
            let range = parts.next().unwrap_or_default().trim_ascii();
            let Some(specificity) = specificity(range, media_type.as_bytes()) else { continue };
            let Some(weight) = weight(parts) else { continue };
            if found.is_none_or(|(best, _)| specificity > best) {
                found = Some((specificity, weight));
            }
        }
    }
    // An empty field states nothing, as none does.
    found.map_or(if is_stated { 0 } else { 1_000 }, |(_, weight)| weight)
}

/// The members of a list, without the empty ones. A comma in a quoted string is none.
fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    line.split(move |byte| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'\\' if is_quoted && !was_escaped => is_escaped = true,
            b'"' if !was_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        *byte == b',' && !is_quoted
    })
    .map(<[u8]>::trim_ascii)
    .filter(|member| !member.is_empty())
}

fn specificity(range: &[u8], media_type: &[u8]) -> Option<u8> {
    if range.eq_ignore_ascii_case(media_type) {
        return Some(2);
    }
    if range == b"*/*" {
        return Some(0);
    }
    let slash = media_type.iter().position(|byte| *byte == b'/')?;
    let is_whole_type = range.strip_suffix(b"*")?.eq_ignore_ascii_case(&media_type[..=slash]);
    is_whole_type.then_some(1)
}

/// The weight among a range's parameters: `q` with at most three decimals
/// ([RFC 9110 §12.4.2](https://www.rfc-editor.org/rfc/rfc9110#section-12.4.2)). None if it is malformed.
fn weight<'a>(parameters: impl Iterator<Item = &'a [u8]>) -> Option<Quality> {
    let named = parameters.map(<[u8]>::trim_ascii).find_map(|parameter| match parameter {
        [b'q' | b'Q', b'=', value @ ..] => Some(value),
        _ => None,
    });
    let Some(value) = named else { return Some(1_000) };
    let (whole, decimals) = match value {
        [whole, b'.', decimals @ ..] => (*whole, decimals),
        [whole] => (*whole, &[][..]),
        _ => return None,
    };
    if !matches!(whole, b'0' | b'1') || decimals.len() > 3 {
        return None;
    }
    let mut quality = Quality::from(whole - b'0');
    for place in 0..3 {
        let digit = decimals.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        quality = quality * 10 + Quality::from(digit - b'0');
    }
    (quality <= 1_000).then_some(quality)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OFFERED: [&str; 3] = ["application/json", "text/event-stream", "text/html"];

    #[track_caller]
    fn check(lines: &[&str], expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, HeaderValue::from_str(line).unwrap());
        }
        let found = preferred_type(&headers, &OFFERED).map(|index| OFFERED[index]);
        assert_eq!(found, expected, "{lines:?}");
    }

    #[test]
    fn the_client_decides_and_then_the_order() {
        let [json, events, page] = OFFERED.map(Some);
        check(&[], json);
        check(&["", " , "], json);
        check(&["*/*"], json);
        check(&["text/event-stream"], events);
        check(&["text/*"], events);
        check(&["text/*, text/event-stream;q=0.5"], page);
        check(
            &["text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"],
            page,
        );
        check(&["application/json, */*;q=0.1"], json);
        check(&["text/html;q=0.5", "application/json;q=0.4"], page);
        check(&["TEXT/HTML ; level=1 ; Q=1.000, application/json;q=0.999"], page);
        check(&["text/html;q=0, */*;q=0.001"], json);
        check(&["image/png"], None);
        check(&["text/html;q=0"], None);
        check(&["a/b;x=\"c, text/html;\\\", text/html\""], None);
        check(&["text/html/*, text, *, /, ;;, text/"], None);
    }

    #[test]
    fn a_malformed_weight_is_no_weight_at_all() {
        for weight in ["2", "1.001", "-1", "0.1234", ".5", "", "0,5", "1.x", "00.5"] {
            check(&[&format!("text/html;q={weight}")], None);
        }
        check(&["text/html;q=0.", "application/json;q=0.1"], Some("application/json"));
    }

    #[test]
    fn what_is_too_long_is_not_read() {
        let long = format!("a/b, {}", " ".repeat(MAX_ACCEPT_BYTES));
        check(&["text/html;q=0.1", &long, "text/event-stream"], Some("text/html"));
    }
}

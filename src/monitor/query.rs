//! The query of a list.

use crate::header::UriReference;
use crate::operation::{Kind, OperationId};
use crate::problem::{Problem, types};
use crate::store::ListQuery;

/// Reads `status`, `kind`, `limit` and `cursor`; a parameter of another name means nothing.
pub(super) fn parse(query: &str) -> Result<ListQuery, Problem> {
    let mut list = ListQuery::default();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let invalid = |rule: &str| {
            let detail = format!("The parameter {name:?} must be {rule}.");
            Problem::new(types::INVALID_QUERY).with_detail(detail).with_extension("parameter", name)
        };
        match name {
            "status" => {
                let rule = "pending, running, succeeded, failed or canceled";
                list.status = Some(value.parse().map_err(|_| invalid(rule))?);
            }
            "kind" => {
                let kind = percent_decode(value).and_then(|text| Kind::new(text).ok());
                list.kind = Some(kind.ok_or_else(|| invalid("a kind of work"))?);
            }
            "limit" => {
                let is_number =
                    !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                // A number that no number holds is more than any page has.
                let limit = is_number.then(|| value.parse().unwrap_or(usize::MAX));
                let limit = limit.filter(|limit| *limit > 0);
                list.limit = limit.ok_or_else(|| invalid("a number from 1"))?;
            }
            "cursor" => {
                let cursor = value.parse().map_err(|_| invalid("what a \"next\" link said"))?;
                list.before = Some(cursor);
            }
            _ => {}
        }
    }
    Ok(list)
}

/// The link to the page that begins after `next`.
pub(super) fn next_page(list: &UriReference, query: &ListQuery, next: OperationId) -> UriReference {
    let status = query.status.map(|status| format!("&status={status}")).unwrap_or_default();
    let kind = query.kind.as_ref().map(|kind| format!("&kind={kind}")).unwrap_or_default();
    UriReference::new(format!("{list}?cursor={next}&limit={}{status}{kind}", query.page_size()))
}

/// Undoes percent-encoding ([RFC 3986 §2.1](https://www.rfc-editor.org/rfc/rfc3986#section-2.1)).
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Status;
    use crate::time::Timestamp;

    #[test]
    fn reads_what_it_writes() {
        let id = OperationId::from_parts(Timestamp::from_unix_millis(1), [7; 10]);
        let query = ListQuery {
            status: Some(Status::Failed),
            kind: Some(Kind::new("a/b:c").unwrap()),
            before: Some(id),
            limit: 7,
        };
        let next = next_page(&UriReference::new("/operations"), &query, id);
        let (_, text) = next.as_str().split_once('?').unwrap();
        assert_eq!(parse(text).unwrap(), query);
        assert_eq!(parse("kind=a%2Fb%3ac").unwrap().kind, query.kind);
    }

    #[test]
    fn tells_what_is_wrong() {
        assert_eq!(parse("").unwrap(), ListQuery::default());
        assert_eq!(parse("&&x=1&").unwrap(), ListQuery::default());
        let most = parse("limit=99999999999999999999").unwrap();
        assert_eq!(most.page_size(), ListQuery::MAX_LIMIT);
        for wrong in [
            "status=done",
            "status",
            "kind=",
            "kind=%",
            "kind=%zz",
            "kind=%ff",
            "limit=0",
            "limit=-1",
            "limit=x",
            "limit=+1",
            "limit=",
            "cursor=1",
        ] {
            let problem = parse(wrong).unwrap_err();
            assert!(problem.is(types::INVALID_QUERY), "{wrong}");
            assert_eq!(problem.extension("parameter").unwrap(), wrong.split('=').next().unwrap());
        }
    }
}

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;

/// One block of an event stream, as the
/// [HTML standard](https://html.spec.whatwg.org/multipage/server-sent-events.html) has it.
///
/// Whatever text it is given, it cannot become another field or another event: data are split where a
/// client splits lines (CR, LF, CRLF), and a name or an id with a character that would end it is left
/// out.
///
/// ```
/// use respond_async::respond::Event;
///
/// let event = Event::new().name("operation").id("3").data("{\n}");
/// assert_eq!(event.into_bytes(), "event: operation\nid: 3\ndata: {\ndata: }\n\n");
/// assert_eq!(Event::comment("").into_bytes(), ":\n\n");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Event {
    text: String,
}

impl Event {
    /// The media type of event streams.
    pub const MEDIA_TYPE: &'static str = "text/event-stream";

    /// A block that says nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A comment, which clients pass over: it keeps what is between from hanging up.
    pub fn comment(text: &str) -> Self {
        let mut text = text.replace(is_line_end, " ");
        text.insert(0, ':');
        text.push('\n');
        Self { text }
    }

    /// After how long a client should come again when the stream has ended, in whole milliseconds.
    pub fn retry(mut self, delay: Duration) -> Self {
        // A string takes whatever is written.
        let _ = writeln!(self.text, "retry: {}", delay.as_millis());
        self
    }

    /// What sort of event it is: what a script listens for.
    pub fn name(self, name: &str) -> Self {
        self.field("event", name)
    }

    /// What the client says in `Last-Event-ID` when it comes again. Without it, the last one holds.
    pub fn id(self, id: &str) -> Self {
        self.field("id", id)
    }

    /// The data. A block without any is no event: clients note its other fields, and tell nobody.
    pub fn data(mut self, data: &str) -> Self {
        let mut rest = data;
        loop {
            let end = rest.find(is_line_end).unwrap_or(rest.len());
            self.text.extend(["data: ", &rest[..end], "\n"]);
            let Some(next) = rest.get(end..).filter(|next| !next.is_empty()) else { return self };
            rest = next.strip_prefix("\r\n").unwrap_or(&next[1..]);
        }
    }

    /// The block as it is sent.
    pub fn into_bytes(mut self) -> Bytes {
        self.text.push('\n');
        self.text.into()
    }

    fn field(mut self, name: &str, value: &str) -> Self {
        if !value.contains(is_line_end) && !value.contains('\0') {
            self.text.extend([name, ": ", value, "\n"]);
        }
        self
    }
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(event: Event) -> String {
        String::from_utf8(event.into_bytes().to_vec()).unwrap()
    }

    #[test]
    fn data_are_split_where_a_client_splits_them() {
        for (data, lines) in [
            ("", &[""][..]),
            ("a", &["a"]),
            ("a\nb\rc\r\nd", &["a", "b", "c", "d"]),
            ("\n\r\r\n", &["", "", "", ""]),
            (" a", &[" a"]),
            ("a\u{2028}b\u{85}c", &["a\u{2028}b\u{85}c"]),
            ("ä\nö", &["ä", "ö"]),
        ] {
            let expected = format!("data: {}\n\n", lines.join("\ndata: "));
            assert_eq!(text(Event::new().data(data)), expected, "{data:?}");
        }
    }

    #[test]
    fn a_name_or_an_id_ends_with_its_line() {
        for wrong in ["a\nb", "\r", "a\0"] {
            assert_eq!(text(Event::new().id(wrong).name(wrong)), "\n");
        }
        assert_eq!(text(Event::new().id("").name("x y")), "id: \nevent: x y\n\n");
        assert_eq!(text(Event::new().retry(Duration::from_micros(1_500_999))), "retry: 1500\n\n");
        assert_eq!(text(Event::comment("a\r\ndata: b")), ":a  data: b\n\n");
    }

    /// What a client makes of it, after the standard's own words.
    fn read(stream: &str) -> Vec<(String, String, String)> {
        let (mut events, mut id) = (Vec::new(), String::new());
        let (mut name, mut data) = (String::new(), String::new());
        let lines = stream.replace("\r\n", "\n").replace('\r', "\n");
        for line in lines.split_terminator('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" if line.is_empty() => {
                    if !data.is_empty() {
                        data.pop();
                        events.push((std::mem::take(&mut name), id.clone(), data.clone()));
                    }
                    data.clear();
                    name.clear();
                }
                "event" => value.clone_into(&mut name),
                "data" => data.extend([value, "\n"]),
                "id" if !value.contains('\0') => value.clone_into(&mut id),
                _ => {}
            }
        }
        events
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_one_event(
            name in "[a-z\r\n\0: ]{0,8}", id in "[a-z0-9\r\n\0:]{0,8}", data in "[a-z:{}\r\n\0 ]{1,20}",
        ) {
            let event = Event::new().name(&name).id(&id).data(&data);
            let stream = text(event) + &text(Event::new().data("next"));
            let events = read(&stream);
            prop_assert_eq!(events.len(), 2);
            let kept = |text: &str| if text.contains(['\r', '\n', '\0']) { "" } else { text }.to_owned();
            // The one space after the colon is the field's own; the text's are kept.
            prop_assert_eq!(&events[0].0, &kept(&name));
            prop_assert_eq!(&events[0].1, &kept(&id));
            prop_assert_eq!(&events[0].2, &data.replace("\r\n", "\n").replace('\r', "\n"));
        }
    }
}

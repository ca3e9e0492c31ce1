//! An event stream, read piece by piece and without I/O, as the
//! [HTML standard](https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream)
//! has it.

use std::time::Duration;

use bytes::{Buf, Bytes};

/// The largest event that is taken.
pub(super) const MAX_EVENT_BYTES: usize = 1 << 20;
/// The longest id that is sent back.
const MAX_ID_BYTES: usize = 1024;

/// What a server told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerEvent {
    /// Empty if it has none.
    pub(super) name: String,
    pub(super) data: Bytes,
    /// That of this event, or of the last before it that had one.
    pub(super) id: Option<String>,
}

/// An event is larger than what is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

/// What was read of a stream so far.
#[derive(Debug, Default)]
pub(super) struct EventReader {
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    id: Option<String>,
    retry: Option<Duration>,
    /// The last byte was a CR, so an LF belongs to it.
    after_cr: bool,
    is_begun: bool,
}

impl EventReader {
    /// After how long the server wants to be asked again when the stream has ended.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Takes from a piece as much as belongs to the next event: all, if it does not end there.
    ///
    /// # Errors
    /// If the event is too large. There is no more to be read then.
    pub(super) fn read(&mut self, piece: &mut Bytes) -> Result<Option<ServerEvent>, TooLarge> {
        while !piece.is_empty() {
            if std::mem::take(&mut self.after_cr) && piece[0] == b'\n' {
                piece.advance(1);
                continue;
            }
            let end = piece.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            let part = &piece[..end.unwrap_or(piece.len())];
            if self.line.len() + self.data.len() + part.len() > MAX_EVENT_BYTES {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else {
                piece.clear();
                break;
            };
            self.after_cr = piece[end] == b'\r';
            piece.advance(end + 1);
            if let Some(event) = self.end_line() {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn end_line(&mut self) -> Option<ServerEvent> {
        let line = std::mem::take(&mut self.line);
        let mut text = &line[..];
        if !std::mem::replace(&mut self.is_begun, true) {
            text = text.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(text);
        }
        if text.is_empty() {
            return self.end_event();
        }
        let colon = text.iter().position(|&byte| byte == b':');
        let (field, value) = match colon {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (text, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.name = value.to_vec(),
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"id" if !value.contains(&0) && value.len() <= MAX_ID_BYTES => {
                self.id = Some(String::from_utf8_lossy(value).into_owned());
            }
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let millis = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.retry = millis.map(Duration::from_millis).or(self.retry);
            }
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<ServerEvent> {
        let (name, mut data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        // Without data it is none. Each line of data has ended with an LF.
        data.pop()?;
        let name = String::from_utf8_lossy(&name).into_owned();
        Some(ServerEvent { name, data: data.into(), id: self.id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::respond::Event;

    /// All events, of a stream that comes in pieces of that size.
    fn read(stream: &[u8], size: usize) -> (Vec<ServerEvent>, EventReader) {
        let (mut reader, mut events) = (EventReader::default(), Vec::new());
        for piece in stream.chunks(size) {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(event) = reader.read(&mut piece).unwrap() {
                events.push(event);
            }
            assert!(piece.is_empty());
        }
        (events, reader)
    }

    fn event(name: &str, data: &'static str, id: Option<&str>) -> ServerEvent {
        let data = Bytes::from_static(data.as_bytes());
        ServerEvent { name: name.to_owned(), data, id: id.map(str::to_owned) }
    }

    #[test]
    fn streams_are_read_as_browsers_read_them() {
        for (stream, told) in [
            ("", &[][..]),
            ("data: a\n\n", &[event("", "a", None)]),
            ("data:a\r\rdata:  b\r\n\r\n", &[event("", "a", None), event("", " b", None)]),
            ("\u{FEFF}data: a\n\n", &[event("", "a", None)]),
            ("\n\u{FEFF}data: a\n\ndata: b\n\n", &[event("", "b", None)]),
            ("data: a\ndata\ndata: b\n\n", &[event("", "a\n\nb", None)]),
            (": beat\n\n:\n\nevent: x\nid: 3\ndata: a\n\n", &[event("x", "a", Some("3"))]),
            // An id holds until there is another, a name for one event.
            ("id: 3\nevent: x\n\ndata: a\n\n", &[event("", "a", Some("3"))]),
            (
                "id: 3\ndata: a\n\nid\ndata: b\n\n",
                &[event("", "a", Some("3")), event("", "b", Some(""))],
            ),
            ("id: 3\nid: \0\ndata: a\n\n", &[event("", "a", Some("3"))]),
            // The end cuts off what is not complete.
            ("data: a\n\ndata: b\n", &[event("", "a", None)]),
            ("other: a\ndatas: b\n data: c\n\n", &[]),
            ("data\n\n", &[event("", "", None)]),
        ] {
            for size in 1..=8 {
                assert_eq!(read(stream.as_bytes(), size).0, told, "{stream:?} by {size}");
            }
        }
        let (events, _) = read(b"data: \xFF\n\nevent: \xFF\ndata: x\n\n", 100);
        assert_eq!((&events[0].data[..], &*events[1].name), (&b"\xFF"[..], "\u{FFFD}"));
    }

    #[test]
    fn when_to_come_again_is_a_number() {
        for (stream, millis) in [
            ("retry: 1500\n", Some(1_500)),
            ("retry:0\n\n", Some(0)),
            ("retry: 1500\nretry: 1s\nretry:\nretry: -1\n", Some(1_500)),
            ("retry: 99999999999999999999\n", None),
        ] {
            let (_, reader) = read(stream.as_bytes(), 3);
            assert_eq!(reader.retry(), millis.map(Duration::from_millis), "{stream:?}");
        }
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let piece = || Bytes::from(vec![b'x'; MAX_EVENT_BYTES / 4]);
        let mut reader = EventReader::default();
        for _ in 0..4 {
            assert_eq!(reader.read(&mut piece()), Ok(None));
        }
        assert_eq!(reader.read(&mut Bytes::from_static(b"x")), Err(TooLarge));

        let line = Bytes::from([&b"data: "[..], &piece(), b"\n"].concat());
        let mut reader = EventReader::default();
        let mut read = || reader.read(&mut line.clone());
        assert_eq!((read(), read(), read(), read()), (Ok(None), Ok(None), Ok(None), Err(TooLarge)));

        let id = format!("id: 1\nid: {}\ndata: a\n\n", "x".repeat(MAX_ID_BYTES + 1));
        let (events, _) = self::read(id.as_bytes(), 1_000);
        assert_eq!(events[0].id.as_deref(), Some("1"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            name in "[a-z ]{0,8}", id in "[a-z0-9:]{1,8}", data in "[a-z:{}\n ]{0,20}", size in 1usize..9,
        ) {
            let stream = Event::new().name(&name).id(&id).data(&data).into_bytes();
            let (events, _) = read(&stream, size);
            prop_assert_eq!(events, [ServerEvent { name, data: data.into(), id: Some(id) }]);
        }

        #[test]
        fn it_does_not_matter_how_it_comes(
            stream in "([a-z]|data: |id|event:|\r|\n|\0|\u{FEFF}|ä){0,40}", size in 1usize..9,
        ) {
            prop_assert_eq!(read(stream.as_bytes(), size).0, read(stream.as_bytes(), usize::MAX).0);
        }
    }
}

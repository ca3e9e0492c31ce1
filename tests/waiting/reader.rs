//! A client of an event stream.

use std::future::poll_fn;

use respond_async::monitor::Content;
use serde_json::Value;

pub(crate) struct Reader {
    content: Content,
    text: String,
    /// The id of the last event, as a browser keeps it.
    pub(crate) last: Option<String>,
}

impl Reader {
    pub(crate) fn new(content: Content, last: Option<String>) -> Self {
        assert!(content.is_stream());
        Self { content, text: String::new(), last }
    }

    /// The next event; none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                };
                if let Some(id) = field("id") {
                    self.last = Some(id.to_owned());
                }
                let event = field("data").map(|data| serde_json::from_str(data).unwrap());
                if event.is_some() {
                    return event;
                }
            }
            let bytes = poll_fn(|cx| self.content.poll_bytes(cx)).await?;
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }
}

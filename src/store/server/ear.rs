//! What a process hears before it is told: so many messages, then only that some were missed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;

/// How many messages wait to be told.
const MAX_UNHEARD: usize = 1_024;

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Heard {
    /// What somebody said.
    Message(String),
    /// More than could be kept.
    Missed,
}

/// Where the task that reads a connection puts what it hears. It never waits: what the connection carries
/// besides would wait too.
#[derive(Debug, Clone)]
pub(in crate::store) struct Voice {
    messages: mpsc::Sender<String>,
    missed: Arc<AtomicBool>,
}

/// Where it is told.
#[derive(Debug)]
pub(in crate::store) struct Ear {
    messages: mpsc::Receiver<String>,
    missed: Arc<AtomicBool>,
}

/// From a connection to whoever listens.
pub(in crate::store) fn ear() -> (Voice, Ear) {
    let (sender, receiver) = mpsc::channel(MAX_UNHEARD);
    let missed = Arc::<AtomicBool>::default();
    (Voice { messages: sender, missed: Arc::clone(&missed) }, Ear { messages: receiver, missed })
}

impl Voice {
    /// Keeps a message, or that one was missed.
    pub(in crate::store) fn say(&self, message: String) {
        if self.messages.try_send(message).is_err() {
            self.missed.store(true, Ordering::SeqCst);
        }
    }
}

impl Ear {
    /// What was heard next; none once the connection is lost. A call that is dropped loses nothing.
    pub(in crate::store) async fn hear(&mut self) -> Option<Heard> {
        // There are messages then, so that nobody waits here with word of it.
        if self.missed.swap(false, Ordering::SeqCst) {
            return Some(Heard::Missed);
        }
        self.messages.recv().await.map(Heard::Message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_says_more_than_is_heard_does_not_wait_and_is_told_to_have_been_missed() {
        let (voice, mut ear) = ear();
        for number in 0..MAX_UNHEARD * 3 {
            voice.say(number.to_string());
        }
        assert_eq!(ear.hear().await, Some(Heard::Missed));
        for number in 0..MAX_UNHEARD {
            assert_eq!(ear.hear().await, Some(Heard::Message(number.to_string())));
        }
        voice.say("again".into());
        drop(voice);
        assert_eq!(ear.hear().await, Some(Heard::Message("again".into())));
        assert_eq!(ear.hear().await, None);
    }
}

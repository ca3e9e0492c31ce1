//! What the service does of itself: it publishes its events, and forgets old answers.

use std::time::Duration;

use respond_async::Timestamp;
use respond_async::amqp::EventStream;
use respond_async::read_model::Positioned;
use respond_async::time::{Clock, SystemClock};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Database, complain};
use crate::messages::UserEvent;

/// How often events are looked for that nobody told of.
const LOOK: Duration = Duration::from_secs(1);
/// The pause before the broker is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long answers are kept: longer than any gateway repeats a job.
const KEEP_MILLIS: i64 = 7 * 24 * 60 * 60 * 1_000;
/// How often older ones are looked for.
const SWEEP: Duration = Duration::from_secs(60 * 60);

/// Publishes what has happened, in its order, each until the broker has it.
pub(super) async fn publish(database: Database, stream: EventStream) {
    loop {
        let reading = database.clone();
        let events = spawn_blocking(move || {
            let position = reading.published()?;
            reading.events_after(position)
        });
        // A database that cannot be read may be read in a moment.
        let events = match events.await {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => complain_of(&error),
            Err(error) => complain_of(&error),
        };
        let Some(last) = events.last().map(|event| event.position) else {
            tokio::select! {
                () = database.news.notified() => {}
                () = sleep(LOOK) => {}
            }
            continue;
        };
        append(&stream, &events).await;
        let writing = database.clone();
        // If that is lost, they are published again, and everybody has them already.
        if let Ok(Err(error)) = spawn_blocking(move || writing.set_published(last)).await {
            complain(&error);
        }
    }
}

/// Appends events until the broker has them. One that is too large will never be sent: it is left out, and whoever
/// reads the stream finds the gap and asks for a snapshot.
async fn append(stream: &EventStream, events: &[Positioned<UserEvent>]) {
    let (mut rest, mut at_once, mut is_told) = (events, events.len(), false);
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(at_once.min(rest.len()));
        let Err(error) = stream.append(batch).await else {
            (rest, is_told) = (later, false);
            continue;
        };
        if !error.is_too_large() {
            // The broker may be away for long: that is said once.
            if !std::mem::replace(&mut is_told, true) {
                complain(&error);
            }
            sleep(PAUSE).await;
        } else if let [event] = batch {
            let what = format!("event {} is too large to be published", event.position);
            let left_out: Box<dyn std::error::Error + Send + Sync> = what.into();
            complain(&*left_out);
            rest = later;
        } else {
            // It is one of these.
            at_once = 1;
        }
    }
}

fn complain_of<T>(error: &dyn std::error::Error) -> Vec<T> {
    complain(error);
    Vec::new()
}

/// Forgets what nobody asks for again.
pub(super) async fn forget(database: Database) {
    loop {
        let database = database.clone();
        let before = SystemClock.now().as_unix_millis().saturating_sub(KEEP_MILLIS);
        let before = Timestamp::from_unix_millis(before);
        if let Ok(Err(error)) = spawn_blocking(move || database.forget_answers(before)).await {
            complain(&error);
        }
        sleep(SWEEP).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_forgotten_after_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("users.db")).unwrap();
        for position in 1..=3_i64 {
            let connection = database.lock();
            let event = json!({}).to_string();
            connection
                .execute("INSERT INTO events VALUES (?, ?, ?)", (position, position * 1_000, event))
                .unwrap();
            let operation = position.to_string();
            connection
                .execute("INSERT INTO answers VALUES (?, '', ?)", (operation, position))
                .unwrap();
        }
        let forget = |millis| database.forget_answers(Timestamp::from_unix_millis(millis)).unwrap();
        assert_eq!((forget(1_000), forget(2_500), forget(2_500), forget(9_000)), (0, 2, 0, 1));
    }
}

//! Connections that are never handed out: each belongs to a task, which takes all calls that wait and
//! makes them at once. A caller that goes away cuts none off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::store::{StoreError, StoreErrorKind};

/// How many calls are made at once at the most.
const MAX_GROUP: usize = 256;
/// How long to wait before a connection is tried again, at first and at the most.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const ABANDONED: u8 = 2;

/// Where the answer of a call goes.
#[derive(Debug)]
pub(in crate::store) struct Answer<T> {
    sender: oneshot::Sender<Result<T, StoreError>>,
    state: Arc<AtomicU8>,
}

impl<T> Answer<T> {
    /// Whether the call is to be made: whoever waited too long was told that it never was.
    pub(in crate::store) fn begin(&self) -> bool {
        let state = &self.state;
        state.compare_exchange(WAITING, BEGUN, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(in crate::store) fn send(self, result: Result<T, StoreError>) {
        // Whoever asked may have gone away.
        let _ = self.sender.send(result);
    }
}

/// The queue before some lanes of one sort.
#[derive(Debug)]
pub(in crate::store) struct Calls<C> {
    sender: mpsc::Sender<C>,
    /// How many of its lanes are connected.
    connected: Arc<AtomicUsize>,
    call_timeout: Duration,
}

/// A connection and what it does with the calls that it takes.
pub(in crate::store) trait Lane<C>: Send + 'static {
    /// What is there while it is connected.
    type Session: Send;

    /// Connects; none if that fails.
    fn connect(&mut self) -> impl Future<Output = Option<Self::Session>> + Send;

    /// Returns when the connection is lost while nothing is asked of it.
    fn lost(session: &mut Self::Session) -> impl Future<Output = ()> + Send;

    /// Makes all calls, and says whether the connection can be used any longer.
    fn serve(
        &mut self,
        session: &mut Self::Session,
        calls: Vec<C>,
    ) -> impl Future<Output = bool> + Send;
}

impl<C: Send + 'static> Calls<C> {
    /// Starts the lanes. As many calls as `room` may wait for them, and each for as long as
    /// `call_timeout`.
    pub(in crate::store) fn start<L: Lane<C>>(
        lanes: impl IntoIterator<Item = L>,
        room: usize,
        call_timeout: Duration,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(room);
        let receiver = Arc::new(Mutex::new(receiver));
        let connected = Arc::new(AtomicUsize::new(0));
        for lane in lanes {
            // None has failed yet: calls wait for the first connection.
            connected.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(run(lane, Arc::clone(&receiver), Arc::clone(&connected)));
        }
        Self { sender, connected, call_timeout }
    }

    /// Makes a call, and waits for its answer for as long as a call may take.
    pub(in crate::store) async fn ask<T>(
        &self,
        writes: bool,
        call: impl FnOnce(Answer<T>) -> C,
    ) -> Result<T, StoreError> {
        let unavailable = |message| StoreError::new(StoreErrorKind::Unavailable, message);
        if self.connected.load(Ordering::SeqCst) == 0 {
            return Err(unavailable("the database cannot be reached"));
        }
        let (sender, receiver) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(WAITING));
        self.sender
            .try_send(call(Answer { sender, state: Arc::clone(&state) }))
            .map_err(|_| unavailable("too many calls wait for the database"))?;
        match timeout(self.call_timeout, receiver).await {
            Ok(Ok(result)) => result,
            late => {
                let waited =
                    state.compare_exchange(WAITING, ABANDONED, Ordering::SeqCst, Ordering::SeqCst);
                Err(if waited.is_err() && writes {
                    let message = "the database gave no answer in time";
                    StoreError::new(StoreErrorKind::Ambiguous, message)
                } else if late.is_ok() {
                    unavailable("the connection to the database was lost")
                } else {
                    unavailable("the database gives no answer in time")
                })
            }
        }
    }
}

async fn run<C: Send + 'static, L: Lane<C>>(
    mut lane: L,
    receiver: Arc<Mutex<mpsc::Receiver<C>>>,
    connected: Arc<AtomicUsize>,
) {
    let mut is_counted = true;
    let [first, most] = PAUSES;
    let mut pause = first;
    loop {
        let Some(mut session) = lane.connect().await else {
            if std::mem::take(&mut is_counted) {
                connected.fetch_sub(1, Ordering::SeqCst);
            }
            if !wait(&receiver, pause).await {
                return;
            }
            pause = (pause * 2).min(most).mul_f64(0.75 + 0.25 * jitter());
            continue;
        };
        pause = first;
        if !std::mem::replace(&mut is_counted, true) {
            connected.fetch_add(1, Ordering::SeqCst);
        }
        loop {
            let mut calls = Vec::new();
            let taken = tokio::select! {
                taken = take(&receiver, &mut calls) => taken,
                () = L::lost(&mut session) => break,
            };
            if taken == 0 {
                return;
            }
            if !lane.serve(&mut session, calls).await {
                break;
            }
        }
    }
}

async fn take<C>(receiver: &Mutex<mpsc::Receiver<C>>, calls: &mut Vec<C>) -> usize {
    receiver.lock().await.recv_many(calls, MAX_GROUP).await
}

/// Waits before the next try; false once nobody can ask any more.
async fn wait<C>(receiver: &Mutex<mpsc::Receiver<C>>, pause: Duration) -> bool {
    sleep(pause).await;
    // Whoever waits for calls holds the lock, and will see the end of it.
    !receiver.try_lock().is_ok_and(|receiver| receiver.is_closed() && receiver.is_empty())
}

/// A number from 0 to 1 that differs between processes, so that they do not come back in step.
fn jitter() -> f64 {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}

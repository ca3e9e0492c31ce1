//! Connections that are never handed out: each belongs to a task, which takes all calls that wait and
//! makes them at once. A caller that goes away cuts none off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::store::{StoreError, StoreErrorKind};

/// How many calls are made at once at the most.
const MAX_GROUP: usize = 256;
/// How many bytes of bodies go together at the most, but for one body that has more by itself.
const MAX_GROUP_BYTES: usize = 16 << 20;
/// How long to wait before a connection is made again, after one that could not be made or used, at first
/// and at the most.
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

    /// Whether anybody still waits for it.
    #[cfg(any(feature = "postgres", test))]
    pub(in crate::store) fn is_awaited(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(in crate::store) fn send(self, result: Result<T, StoreError>) {
        // Whoever asked may have gone away.
        let _ = self.try_send(result);
    }

    /// Gives it back if whoever asked has gone away.
    pub(in crate::store) fn try_send(
        self,
        result: Result<T, StoreError>,
    ) -> Result<(), Result<T, StoreError>> {
        self.sender.send(result)
    }
}

/// A call that goes together with others.
pub(in crate::store) trait Grouped: Send + 'static {
    /// About how many bytes its bodies have, on their way there or back.
    fn bytes(&self) -> usize;
}

/// What the body of an input or an outcome that is read is taken to have.
pub(in crate::store) const READ_BYTES: usize = 256 << 10;

/// The queue before some lanes of one sort.
#[derive(Debug)]
pub(in crate::store) struct Calls<C> {
    sender: mpsc::Sender<C>,
    /// How many of its lanes are connected.
    connected: Arc<AtomicUsize>,
    call_timeout: Duration,
}

/// What the lanes of one queue have in common.
struct Queue<C> {
    receiver: Mutex<mpsc::Receiver<C>>,
    /// How many lanes are at work.
    busy: AtomicUsize,
    /// One of them is done.
    done: Notify,
    stagger: Duration,
    connected: Arc<AtomicUsize>,
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

impl<C: Grouped> Calls<C> {
    /// Starts the lanes. As many calls as `room` may wait for them, and each for as long as
    /// `call_timeout`. While one lane is at work, another begins only after the `stagger`: what comes
    /// meanwhile goes together, and what is held up is not held up for longer.
    pub(in crate::store) fn start<L: Lane<C>>(
        lanes: impl IntoIterator<Item = L>,
        room: usize,
        call_timeout: Duration,
        stagger: Duration,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(room);
        let connected = Arc::new(AtomicUsize::new(0));
        let queue = Arc::new(Queue {
            receiver: Mutex::new(receiver),
            busy: AtomicUsize::new(0),
            done: Notify::new(),
            stagger,
            connected: Arc::clone(&connected),
        });
        for lane in lanes {
            // None has failed yet: calls wait for the first connection.
            connected.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(run(lane, Arc::clone(&queue)));
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
        let (sender, mut receiver) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(WAITING));
        self.sender
            .try_send(call(Answer { sender, state: Arc::clone(&state) }))
            .map_err(|_| unavailable("too many calls wait for the database"))?;
        match timeout(self.call_timeout, &mut receiver).await {
            Ok(Ok(result)) => result,
            late => {
                // From here on whoever answers learns that nobody hears it.
                receiver.close();
                if let Ok(result) = receiver.try_recv() {
                    return result;
                }
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

async fn run<C: Grouped, L: Lane<C>>(mut lane: L, queue: Arc<Queue<C>>) {
    let mut is_counted = true;
    let [first, most] = PAUSES;
    let longer = |pause: Duration| (pause * 2).min(most).mul_f64(0.75 + 0.25 * jitter());
    let mut pause = first;
    loop {
        let Some(mut session) = lane.connect().await else {
            if std::mem::take(&mut is_counted) {
                queue.connected.fetch_sub(1, Ordering::SeqCst);
            }
            if !queue.wait(pause).await {
                return;
            }
            pause = longer(pause);
            continue;
        };
        if !std::mem::replace(&mut is_counted, true) {
            queue.connected.fetch_add(1, Ordering::SeqCst);
        }
        loop {
            let calls = tokio::select! {
                calls = queue.take() => calls,
                () = L::lost(&mut session) => break,
            };
            if calls.is_empty() {
                return;
            }
            queue.busy.fetch_add(1, Ordering::SeqCst);
            let goes_on = lane.serve(&mut session, calls).await;
            queue.busy.fetch_sub(1, Ordering::SeqCst);
            queue.done.notify_waiters();
            if !goes_on {
                // A server that answers nothing may still be at work for this one: it is not given
                // connection after connection.
                sleep(pause).await;
                pause = longer(pause);
                break;
            }
            pause = first;
        }
    }
}

impl<C: Grouped> Queue<C> {
    /// Takes the calls that wait, or the next one; none once nobody can ask any more.
    async fn take(&self) -> Vec<C> {
        let mut receiver = self.receiver.lock().await;
        let mut calls: Vec<C> = receiver.recv().await.into_iter().collect();
        let mut bytes: usize = calls.iter().map(C::bytes).sum();
        let mut take_more = |calls: &mut Vec<C>, receiver: &mut mpsc::Receiver<C>| {
            while calls.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
                let Ok(call) = receiver.try_recv() else { break };
                bytes = bytes.saturating_add(call.bytes());
                calls.push(call);
            }
        };
        take_more(&mut calls, &mut receiver);
        // Made before the look, so that no end is missed in between.
        let done = self.done.notified();
        if !calls.is_empty() && !self.stagger.is_zero() && self.busy.load(Ordering::SeqCst) > 0 {
            let _ = timeout(self.stagger, done).await;
            take_more(&mut calls, &mut receiver);
        }
        calls
    }

    /// Waits before the next try; false once nobody can ask any more.
    async fn wait(&self, pause: Duration) -> bool {
        sleep(pause).await;
        // Whoever waits for calls holds the lock, and will see the end of it. Of the calls that are left
        // nobody waits for an answer.
        !self.receiver.try_lock().is_ok_and(|receiver| receiver.is_closed())
    }
}

/// A number from 0 to 1 that differs between processes, so that they do not come back in step.
fn jitter() -> f64 {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    impl Grouped for u32 {
        fn bytes(&self) -> usize {
            *self as usize
        }
    }

    /// Takes so long for each group, and tells of it.
    struct Slow(Duration, mpsc::UnboundedSender<(Duration, Vec<u32>)>, Instant);

    impl Lane<u32> for Slow {
        type Session = ();

        async fn connect(&mut self) -> Option<()> {
            Some(())
        }

        async fn lost((): &mut ()) {
            std::future::pending::<()>().await;
        }

        async fn serve(&mut self, (): &mut (), calls: Vec<u32>) -> bool {
            self.1.send((self.2.elapsed(), calls)).unwrap();
            sleep(self.0).await;
            true
        }
    }

    /// When each group began, in milliseconds, with calls at 0, 1, 4 and 30 ms.
    async fn groups(each: u64, stagger: u64) -> Vec<(u64, Vec<u32>)> {
        let millis = Duration::from_millis;
        let (told, mut groups) = mpsc::unbounded_channel();
        let began = Instant::now();
        let lanes = (0..2).map(|_| Slow(millis(each), told.clone(), began));
        let calls = Calls::start(lanes, 10, Duration::from_secs(1), millis(stagger));
        for (call, at) in (0..).zip([0, 1, 4, 30]) {
            tokio::time::sleep_until(began + millis(at)).await;
            calls.sender.try_send(call).unwrap();
        }
        sleep(Duration::from_secs(1)).await;
        let mut seen = Vec::new();
        while let Ok((at, calls)) = groups.try_recv() {
            seen.push((u64::try_from(at.as_millis()).unwrap(), calls));
        }
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_a_lane_is_at_work_goes_together_and_soon() {
        // At once, on whichever lane is free.
        assert_eq!(groups(8, 0).await, [(0, vec![0]), (1, vec![1]), (8, vec![2]), (30, vec![3])]);
        // As soon as the other is done.
        assert_eq!(groups(8, 10).await, [(0, vec![0]), (8, vec![1, 2]), (30, vec![3])]);
        // However long the other takes.
        assert_eq!(groups(500, 10).await, [(0, vec![0]), (11, vec![1, 2]), (510, vec![3])]);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_go_together_only_up_to_so_many_bytes() {
        let (told, mut groups) = mpsc::unbounded_channel();
        let lane = Slow(Duration::from_millis(8), told, Instant::now());
        let calls = Calls::start([lane], 10, Duration::from_secs(1), Duration::ZERO);
        let half = u32::try_from(MAX_GROUP_BYTES / 2).unwrap();
        for bytes in [1, half, half, half, half * 5, 1] {
            calls.sender.try_send(bytes).unwrap();
            tokio::task::yield_now().await;
        }
        sleep(Duration::from_secs(1)).await;
        let expected = [vec![1], vec![half, half], vec![half, half * 5], vec![1]];
        for group in expected {
            assert_eq!(groups.try_recv().unwrap().1, group);
        }
    }

    /// A server that lets nobody in, or lets everybody in and then fails; it tells when anybody comes.
    struct Bad(bool, mpsc::UnboundedSender<Instant>);

    impl Lane<u32> for Bad {
        type Session = ();

        async fn connect(&mut self) -> Option<()> {
            self.1.send(Instant::now()).unwrap();
            self.0.then_some(())
        }

        async fn lost((): &mut ()) {
            std::future::pending::<()>().await;
        }

        async fn serve(&mut self, (): &mut (), _: Vec<u32>) -> bool {
            false
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_fails_whoever_comes_is_not_given_one_connection_after_the_other() {
        let (told, mut came) = mpsc::unbounded_channel();
        let calls = Calls::start([Bad(true, told)], 100, Duration::from_secs(1), Duration::ZERO);
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            let _ = calls.sender.try_send(1);
            sleep(Duration::from_millis(10)).await;
        }
        let mut count = 0;
        while came.try_recv().is_ok() {
            count += 1;
        }
        assert!((20..60).contains(&count), "{count} connections in a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_nobody_has_gives_up_a_server_that_is_away() {
        let (told, mut came) = mpsc::unbounded_channel();
        let calls = Calls::start([Bad(false, told)], 100, Duration::from_secs(1), Duration::ZERO);
        // What was asked for before nobody waits for.
        calls.sender.try_send(1).unwrap();
        drop(calls);
        while came.recv().await.is_some() {}
    }

    #[tokio::test(start_paused = true)]
    async fn who_answers_learns_whether_anybody_hears_it() {
        struct Question(Answer<u32>);

        impl Grouped for Question {
            fn bytes(&self) -> usize {
                0
            }
        }

        /// Answers after so long, and tells whether it was heard.
        struct Late(Duration, mpsc::UnboundedSender<bool>);

        impl Lane<Question> for Late {
            type Session = ();

            async fn connect(&mut self) -> Option<()> {
                Some(())
            }

            async fn lost((): &mut ()) {
                std::future::pending::<()>().await;
            }

            async fn serve(&mut self, (): &mut (), calls: Vec<Question>) -> bool {
                for Question(answer) in calls {
                    assert!(answer.begin());
                    sleep(self.0).await;
                    let is_awaited = answer.is_awaited();
                    let is_heard = answer.try_send(Ok(7)).is_ok();
                    assert!(is_heard || !is_awaited);
                    self.1.send(is_heard).unwrap();
                }
                true
            }
        }

        for (millis, heard) in [(500, true), (1_500, false)] {
            let (told, mut is_heard) = mpsc::unbounded_channel();
            let lane = Late(Duration::from_millis(millis), told);
            let calls = Calls::start([lane], 10, Duration::from_secs(1), Duration::ZERO);
            let answer = calls.ask(true, Question).await;
            assert_eq!(answer.map_err(|error| error.kind()).ok(), heard.then_some(7));
            assert_eq!(is_heard.recv().await, Some(heard));
        }
    }
}

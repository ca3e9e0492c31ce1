//! How the tasks of this layer listen to a store.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::sleep;

use crate::store::{Hint, Hints, OperationStore};

/// A store's hints for as long as somebody listens. If the store ends them, they begin anew.
#[derive(Debug)]
pub(super) struct Listener {
    store: Arc<dyn OperationStore>,
    hints: Option<Box<dyn Hints>>,
    /// After how long they begin anew.
    pause: Duration,
}

impl Listener {
    /// Listens from now on. None if the store gives no hints.
    pub(super) fn new(store: &Arc<dyn OperationStore>, pause: Duration) -> Option<Self> {
        let hints = store.hints()?;
        Some(Self { store: Arc::clone(store), hints: Some(hints), pause })
    }

    /// The next hint.
    ///
    /// # Cancel safety
    /// A future that is dropped has taken none.
    pub(super) async fn next(&mut self) -> Hint {
        loop {
            if let Some(hints) = &mut self.hints {
                if let Some(hint) = poll_fn(|cx| hints.poll_hint(cx)).await {
                    return hint;
                }
                self.hints = None;
            }
            sleep(self.pause).await;
            self.hints = self.store.hints();
            if self.hints.is_some() {
                return Hint::Missed;
            }
        }
    }

    /// The next hint, if it is there already.
    pub(super) fn next_now(&mut self) -> Option<Hint> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match self.hints.as_mut()?.poll_hint(&mut cx) {
            Poll::Ready(hint) => hint,
            Poll::Pending => None,
        }
    }
}

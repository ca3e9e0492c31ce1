//! For any service: waits until it is told to stop.

use std::future::pending;

use tokio::signal::ctrl_c;

/// Waits for SIGTERM or Ctrl-C. A signal that cannot be waited for is none.
pub(crate) async fn told_to_stop() {
    let interrupted = async {
        if ctrl_c().await.is_err() {
            pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = pending::<()>();
    tokio::select! {
        () = interrupted => {}
        () = terminated => {}
    }
}

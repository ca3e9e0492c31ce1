use std::io;
use std::time::Duration;

use axum::Router;
use respond_async::Operations;
use tokio::net::TcpListener;

pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    operations: Operations,
    told_to_stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let stopped = async move {
        told_to_stop.await;
        // The server still answers: clients that wait get their answer.
        operations.shutdown(Duration::from_secs(15)).await;
    };
    axum::serve(listener, app).with_graceful_shutdown(stopped).await
}

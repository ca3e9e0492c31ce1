use std::io;
use std::net::TcpListener;
use std::time::Duration;

use actix_web::web::ServiceConfig;
use actix_web::{App, HttpServer};
use respond_async::Operations;

pub(crate) async fn serve(
    listener: TcpListener,
    app: impl FnOnce(&mut ServiceConfig) + Clone + Send + 'static,
    operations: Operations,
    told_to_stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let server = HttpServer::new(move || App::new().configure(app.clone()))
        // Else the server would stop first.
        .disable_signals()
        .listen(listener)?
        .run();
    let handle = server.handle();
    tokio::spawn(async move {
        told_to_stop.await;
        // The server still answers: clients that wait get their answer.
        operations.shutdown(Duration::from_secs(15)).await;
        handle.stop(true).await;
    });
    server.await
}

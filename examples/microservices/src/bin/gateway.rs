//! The gateway alone. Several may run beside each other, each with a `DATA_DIR` of its own (default `data/gateway`).

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use microservices::gateway::Gateway;
use microservices::{AMQP_URL, setting, told_to_stop};
use respond_async::amqp::Amqp;
use respond_async::serve::Server;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let listener = TcpListener::bind(setting("LISTEN", "127.0.0.1:3000")).await?;
    let amqp = Amqp::connect(&setting("AMQP_URL", AMQP_URL))?;
    let gateway = Gateway::start(&amqp, &PathBuf::from(setting("DATA_DIR", "data/gateway")))?;
    let base = format!("http://{}", listener.local_addr()?);
    let _ = writeln!(io::stdout(), "{base} is a gateway. Try: curl -i {base}/users");
    let router = gateway.router();
    // In place of `axum::serve`, which waits for slow clients for ever.
    let stopped = async move {
        told_to_stop().await;
        gateway.stop(Duration::from_secs(10)).await;
    };
    Server::new(listener, router).run(stopped).await;
    Ok(())
}

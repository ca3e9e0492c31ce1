//! The gateway and the service of users, in one process for a start. `gateway` and `user-service` are each alone.
//!
//! - `LISTEN` is the address to listen on (default 127.0.0.1:3000; port 0 takes a free one).
//! - `AMQP_URL` is where RabbitMQ is (default `amqp://127.0.0.1:5672`).
//! - `DATA_DIR` is the folder for both (default `data`).
//! - `TELL`, if it is set, has what becomes of operations told to other services.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use microservices::gateway::Gateway;
use microservices::users::UserService;
use microservices::{AMQP_URL, setting, told_to_stop};
use respond_async::amqp::Amqp;
use respond_async::serve::Server;
use tokio::net::TcpListener;

const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let listener = TcpListener::bind(setting("LISTEN", "127.0.0.1:3000")).await?;
    let url = setting("AMQP_URL", AMQP_URL);
    let amqp = Amqp::connect(&url)?;
    let folder = PathBuf::from(setting("DATA_DIR", "data"));
    fs::create_dir_all(&folder)?;
    let users = UserService::start(&amqp, &folder.join("users.db"))?;
    let gateway = Gateway::start(&amqp, &folder.join("gateway"))?;
    say_what_to_try(&format!("http://{}", listener.local_addr()?), &url);
    let router = gateway.router();
    // In place of `axum::serve`, which waits for slow clients for ever.
    let stopped = async move {
        told_to_stop().await;
        gateway.stop(GRACE).await;
    };
    Server::new(listener, router).run(stopped).await;
    users.stop(GRACE).await;
    Ok(())
}

fn say_what_to_try(base: &str, url: &str) {
    // A service whose output nobody reads serves all the same.
    let _ = writeln!(
        io::stdout(),
        "{base} is a gateway to a service that talks over RabbitMQ at {url}. Try:

  curl -i {base}/users -d '{{\"name\":\"ann\",\"email\":\"ann@example.com\"}}'
  curl -i {base}/users -d '{{\"name\":\"bob\",\"email\":\"bob@example.com\"}}' -H 'Prefer: respond-async'
  curl -i {base}/operations/ID                      # the Content-Location of the 202
  curl -i {base}/users/1                            # by message and reply
  curl -i {base}/model/users/1                      # from the local copy
  curl -i {base}/cached/users/1                     # from the cache
  curl -i {base}/snapshot/users                     # from a snapshot and the events since
"
    );
}

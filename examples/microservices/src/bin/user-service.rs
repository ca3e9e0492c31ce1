//! The service of users alone: `USERS_DB` is its database (default `data/users.db`).

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use microservices::users::UserService;
use microservices::{AMQP_URL, setting, told_to_stop};
use respond_async::amqp::Amqp;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let url = setting("AMQP_URL", AMQP_URL);
    let file = PathBuf::from(setting("USERS_DB", "data/users.db"));
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let users = UserService::start(&Amqp::connect(&url)?, &file)?;
    let _ = writeln!(io::stdout(), "The service of users takes messages at {url}.");
    told_to_stop().await;
    users.stop(Duration::from_secs(10)).await;
    Ok(())
}

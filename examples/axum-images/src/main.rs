//! The image service of `examples/images` on axum. What it is told by the environment is in
//! `images::Settings`.

use std::error::Error;

use axum_images::app;
use images::{Images, Role, Settings};
use respond_async::serve::Server;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    images::log()?;
    let settings = Settings::from_env()?;
    if settings.role == Role::Worker {
        let images = Images::start(&settings).await?;
        images.say_what_to_try(None);
        images.stopped().await;
        return Ok(());
    }
    let listener = TcpListener::bind(&settings.listen).await?;
    let images = Images::start(&settings).await?;
    images.say_what_to_try(Some(listener.local_addr()?));
    // In place of `axum::serve`, which waits for slow clients for ever.
    Server::new(listener, app(images.clone())).run(async move { images.stopped().await }).await;
    Ok(())
}

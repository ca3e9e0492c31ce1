//! The other service, if none is named: it takes its time for each report, and has never heard of
//! preferences.

use std::io;
use std::time::Duration;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Router, routing};
use tokio::net::TcpListener;

/// How long a report takes.
const REPORT: Duration = Duration::from_secs(5);

/// Starts it on a free port, and gives its URL.
pub(crate) async fn start() -> io::Result<String> {
    let make = async |Path(year): Path<u16>| {
        tokio::time::sleep(REPORT).await;
        let location = [(header::LOCATION, format!("/reports/{year}"))];
        (StatusCode::CREATED, location, report(year))
    };
    let read = async |Path(year): Path<u16>| report(year);
    let app = Router::new().route("/reports/{year}", routing::post(make).put(make).get(read));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async { axum::serve(listener, app).await });
    Ok(url)
}

fn report(year: u16) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain")], format!("All was well in {year}.\n"))
}

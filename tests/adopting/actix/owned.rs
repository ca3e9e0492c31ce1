use std::path::Path;

use actix_web::web;
use respond_async::actix::{Answer, Head};
use respond_async::operations::Job;
use respond_async::prefer::Preferences;
use respond_async::respond::Created;
use respond_async::store::{Idempotency, SqliteOpenError, SqliteStore};
use respond_async::{Context, Operations, Owner, Problem};
use serde::{Deserialize, Serialize};

use crate::report::{Report, write_report};

pub(crate) fn app(
    database: &Path,
) -> Result<impl FnOnce(&mut web::ServiceConfig) + Clone + use<>, SqliteOpenError> {
    let operations = Operations::builder(SqliteStore::open(database)?).job(write).start();
    Ok(|app: &mut web::ServiceConfig| {
        let monitor = respond_async::actix::monitor(&operations);
        app.route("/reports/{year}", web::post().to(create))
            .service(web::scope("/operations").configure(monitor))
            .app_data(web::Data::new(operations));
    })
}

async fn create(
    operations: web::Data<Operations>,
    prefer: Preferences,
    owner: Owner,
    year: web::Path<u16>,
    Head(head): Head,
    body: web::Bytes,
) -> Result<Answer, Problem> {
    let year = year.into_inner();
    let named = Idempotency::from_request(&head.method, &head.uri, &head.headers, &body)?;
    let kick_off = operations.kick_off(&prefer).owner(owner).idempotency(named);
    Ok(kick_off.respond(Write { year }).await.into())
}

#[derive(Serialize, Deserialize)]
struct Write {
    year: u16,
}

impl Job for Write {
    const KIND: &'static str = "reports.write";
}

async fn write(Write { year }: Write, context: Context) -> Created {
    let report: Report = write_report(year, |done| context.progress(done, "writing")).await;
    Created::at(format!("/reports/{year}")).json(&report)
}

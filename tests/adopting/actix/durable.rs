use std::path::Path;

use actix_web::web;
use respond_async::actix::Answer;
use respond_async::operations::Job;
use respond_async::prefer::Preferences;
use respond_async::respond::Created;
use respond_async::store::{SqliteOpenError, SqliteStore};
use respond_async::{Context, Operations};
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
    year: web::Path<u16>,
) -> Answer {
    let year = year.into_inner();
    operations.respond(&prefer, Write { year }).await.into()
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

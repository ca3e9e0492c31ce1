use actix_web::web;
use respond_async::actix::Answer;
use respond_async::prefer::Preferences;
use respond_async::respond::Created;
use respond_async::store::MemoryStore;
use respond_async::{Context, Operations};

use crate::report::{Report, write_report};

pub(crate) fn app() -> impl FnOnce(&mut web::ServiceConfig) + Clone {
    let operations = Operations::builder(MemoryStore::new()).start();
    |app| {
        let monitor = respond_async::actix::monitor(&operations);
        app.route("/reports/{year}", web::post().to(create))
            .service(web::scope("/operations").configure(monitor))
            .app_data(web::Data::new(operations));
    }
}

async fn create(
    operations: web::Data<Operations>,
    prefer: Preferences,
    year: web::Path<u16>,
) -> Answer {
    let year = year.into_inner();
    operations.respond_with(&prefer, move |context| write(year, context)).await.into()
}

async fn write(year: u16, context: Context) -> Created {
    let report: Report = write_report(year, |done| context.progress(done, "writing")).await;
    Created::at(format!("/reports/{year}")).json(&report)
}

use actix_web::http::header;
use actix_web::{HttpResponse, Responder, web};

use crate::report::{Report, write_report};

pub(crate) fn app() -> impl FnOnce(&mut web::ServiceConfig) + Clone {
    |app| {
        app.route("/reports/{year}", web::post().to(create));
    }
}

async fn create(year: web::Path<u16>) -> impl Responder {
    let year = year.into_inner();
    let report: Report = write_report(year, |_| ()).await;
    HttpResponse::Created()
        .insert_header((header::LOCATION, format!("/reports/{year}")))
        .json(report)
}

use std::path::Path;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::ErrorForbidden;
use actix_web::middleware::{Next, from_fn};
use actix_web::{HttpMessage, web};
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
        let all = web::scope("")
            .route("/reports/{year}", web::post().to(create))
            .service(web::scope("/operations").configure(monitor))
            // Around the monitor's routes too.
            .wrap(from_fn(authenticate));
        app.service(all).app_data(web::Data::new(operations));
    })
}

/// In place of your authentication: it believes whatever `X-User` says.
async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let user = request.headers().get("x-user").and_then(|user| user.to_str().ok());
    let owner = user.and_then(|user| Owner::new(user).ok());
    let owner = owner.ok_or_else(|| ErrorForbidden("Who are you?"))?;
    request.extensions_mut().insert(owner);
    next.call(request).await
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

//! What the service takes and answers, as an OpenAPI document.
//!
//! Its own routes are described here; the asynchronous mode and the monitors are what the library says of
//! them.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use respond_async::Outcome;
use respond_async::openapi::{AnswerComponent, Monitors, Negotiated, Parameter, problem_response};
use respond_async::operations::Health;
use respond_async::problem::types;
use respond_async::respond::Response;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathItem,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, Header, InfoBuilder, KnownFormat, LicenseBuilder, ObjectBuilder, OpenApi, Paths, Ref,
    RefOr, Required, ResponseBuilder, Schema, SchemaFormat, Type, link,
};
use utoipa::{Modify, PartialSchema, ToSchema};

use crate::gallery::Picture;
use crate::{NO_SUCH_IMAGE, NOT_AN_IMAGE, TOO_LARGE, UNSUPPORTED_TYPE};

/// How the document names what tells who asks.
const USER: &str = "user";

/// `GET /openapi.json`: what the service takes and answers.
pub fn document() -> Response {
    static JSON: LazyLock<Bytes> =
        LazyLock::new(|| serde_json::to_vec(&describe()).unwrap_or_default().into());
    let json = HeaderValue::from_static("application/json");
    let mut outcome = Outcome::with_body(StatusCode::OK, json, JSON.clone());
    outcome.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    outcome.into_response()
}

fn describe() -> OpenApi {
    let mut upload = upload();
    Negotiated::new().idempotency_key().apply(&mut upload);
    let mut paths = Paths::new();
    for (path, method, operation) in [
        ("/images", HttpMethod::Post, upload),
        ("/images/{id}", HttpMethod::Get, download()),
        ("/health", HttpMethod::Get, health()),
        ("/openapi.json", HttpMethod::Get, openapi()),
    ] {
        paths.paths.insert(path.to_owned(), PathItem::new(method, operation));
    }
    let info = InfoBuilder::new()
        .title("Images")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Makes photographs fit for a screen, at once or later, as the client prefers.",
        ))
        .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").build()));
    let mut document = OpenApi::new(info.build(), paths);
    Monitors::default().modify(&mut document);

    let components = document.components.get_or_insert_default();
    let mut schemas = vec![
        (Picture::name().into_owned(), Picture::schema()),
        (Health::name().into_owned(), Health::schema()),
    ];
    Picture::schemas(&mut schemas);
    components.schemas.extend(schemas);
    let user = ApiKeyValue::with_description(
        "X-User",
        "Who asks; taken for true. Who gives no name can use the links that it was given, and nothing else.",
    );
    components.add_security_scheme(USER, SecurityScheme::ApiKey(ApiKey::Header(user)));
    let no_scopes: [&str; 0] = [];
    document.security =
        Some(vec![SecurityRequirement::default(), SecurityRequirement::new(USER, no_scopes)]);
    // A name that cannot be one is refused everywhere.
    let no_name = problem_response("The request is malformed.", &[]);
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            let answers = &mut operation.responses.responses;
            answers.entry("400".to_owned()).or_insert_with(|| no_name.clone().into());
        }
    }
    document
}

fn upload() -> Operation {
    let image = RequestBodyBuilder::new()
        .description(Some("The image, of at most 16 MiB."))
        .required(Some(Required::True))
        .content("image/jpeg", binary())
        .content("image/png", binary());
    let created = ResponseBuilder::new()
        .description("The image is there.")
        .header("Location", Header::default())
        .header("Content-Location", Header::default())
        .content("application/json", Content::new(Some(picture())))
        .link("image", to_image());
    OperationBuilder::new()
        .operation_id(Some("uploadImage"))
        .summary(Some("Sharpens, scales and recompresses an image"))
        .request_body(Some(image.build()))
        .response("201", created)
        .response("413", problem_response("The image is too large.", &[TOO_LARGE]))
        .response("415", problem_response("It is neither JPEG nor PNG.", &[UNSUPPORTED_TYPE]))
        .response(
            "422",
            problem_response(
                "The content is no readable image, or the idempotency key was used for another.",
                &[NOT_AN_IMAGE, types::KEY_REUSED],
            ),
        )
        .build()
}

fn download() -> Operation {
    let id = ParameterBuilder::new()
        .name("id")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("Which image."))
        .schema(Some(string().pattern(Some("^[0-9a-f-]{1,64}$"))));
    let image = ResponseBuilder::new()
        .description("The image; to a client that accepts JSON, what the 201 said of it.")
        .header("ETag", Header::default())
        .header("Cache-Control", Header::default())
        .header("Vary", Header::default())
        .content("image/jpeg", binary())
        .content("image/png", binary())
        .content("application/json", Content::new(Some(picture())));
    OperationBuilder::new()
        .operation_id(Some("downloadImage"))
        .summary(Some("An image"))
        .parameter(id)
        .parameter_ref(Parameter::IfNoneMatch.reference())
        .response("200", image)
        .response("304", AnswerComponent::NotModified.reference())
        .response("404", problem_response("There is no such image.", &[NO_SUCH_IMAGE]))
        .response("500", AnswerComponent::Failed.reference())
        .build()
}

fn health() -> Operation {
    let answer = |description: &str| {
        let health = Content::new(Some(Ref::from_schema_name(Health::name())));
        ResponseBuilder::new().description(description).content("application/json", health)
    };
    OperationBuilder::new()
        .operation_id(Some("health"))
        .summary(Some("How the store and the workers are doing"))
        .response("200", answer("All is well."))
        .response("503", answer("Send requests elsewhere."))
        .build()
}

fn openapi() -> Operation {
    let document = Content::new(Some(ObjectBuilder::new().schema_type(Type::Object)));
    let answer = ResponseBuilder::new().description("This document.");
    OperationBuilder::new()
        .operation_id(Some("describe"))
        .summary(Some("What the service takes and answers"))
        .response("200", answer.content("application/json", document))
        .build()
}

fn to_image() -> link::Link {
    link::LinkBuilder::new()
        .operation_id("downloadImage")
        .parameter("id", "$response.body#/id")
        .description("The image itself.")
        .build()
}

fn picture() -> RefOr<Schema> {
    Ref::from_schema_name(Picture::name()).into()
}

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn binary() -> Content {
    let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
    Content::new(Some(string().format(Some(format))))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The references in a value.
    fn referred<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| referred(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| referred(item, found)),
            _ => {}
        }
    }

    #[test]
    fn what_the_document_refers_to_is_there() {
        let document: Value = serde_json::from_slice(document().body().as_bytes()).unwrap();
        let mut found = Vec::new();
        referred(&document, &mut found);
        assert!(found.len() > 50, "{found:?}");
        for reference in found {
            let place = reference.trim_start_matches('#');
            assert!(document.pointer(place).is_some(), "{reference} leads nowhere");
        }
        assert_eq!(document["openapi"], "3.1.0");
        let upload = &document["paths"]["/images"]["post"];
        assert_eq!(upload["responses"]["202"]["$ref"], "#/components/responses/Accepted");
    }
}

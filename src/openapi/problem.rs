//! Problems as answers.

use utoipa::ToResponse;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{Content, ContentBuilder, RefOr};

use super::schemas::reference;
use crate::problem::{self, Problem, ProblemType};

/// The content of a problem of one of these types.
pub(super) fn problems(kinds: &[ProblemType]) -> Content {
    let examples = kinds.iter().map(|kind| {
        let name = kind.uri().rsplit(':').next().unwrap_or_default();
        let value = serde_json::to_value(Problem::new(*kind)).ok();
        (name, ExampleBuilder::new().value(value).build())
    });
    ContentBuilder::new().schema(Some(reference::<Problem>())).examples_from_iter(examples).build()
}

/// An answer that is a problem of one of these types, such as those of your own service.
///
/// ```
/// use http::StatusCode;
/// use respond_async::openapi::problem_response;
/// use respond_async::problem::ProblemType;
///
/// const NO_IMAGE: ProblemType =
///     ProblemType::new("https://example.com/problems/no-image", "Not an image", StatusCode::UNPROCESSABLE_ENTITY);
/// let response = problem_response("The content is no image.", &[NO_IMAGE]);
/// assert!(response.content.contains_key("application/problem+json"));
/// ```
pub fn problem_response(description: &str, kinds: &[ProblemType]) -> Response {
    ResponseBuilder::new()
        .description(description)
        .content(problem::MEDIA_TYPE, problems(kinds))
        .build()
}

impl<'r> ToResponse<'r> for Problem {
    fn response() -> (&'r str, RefOr<Response>) {
        ("Problem", problem_response("What went wrong.", &[]).into())
    }
}

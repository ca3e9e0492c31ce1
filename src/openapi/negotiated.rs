//! The asynchronous mode of an operation of the document.

use utoipa::openapi::path::{HttpMethod, Operation, Paths};
use utoipa::openapi::{RefOr, path};

use super::field::Field;
use super::{AnswerComponent, Parameter};

/// What the asynchronous mode of an operation adds to its description: `Prefer`, the 202 with links to
/// the status monitor, and the problems that come with it.
///
/// What the operation describes already stays as it is: a status is described by its owner first.
///
/// ```
/// use respond_async::openapi::Negotiated;
/// use utoipa::openapi::path::OperationBuilder;
///
/// let mut upload = OperationBuilder::new().operation_id(Some("upload")).build();
/// Negotiated::new().idempotency_key().apply(&mut upload);
/// assert!(upload.responses.responses.contains_key("202"));
/// assert_eq!(upload.parameters.map(|parameters| parameters.len()), Some(2));
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[must_use]
pub struct Negotiated {
    key: Option<Parameter>,
    strict: bool,
    callback: bool,
}

/// A document does not describe the operation that was named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the document has no such operation at {path}")]
pub struct NoSuchOperation {
    path: String,
}

impl Negotiated {
    /// The mode as every operation has it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the operation heeds an `Idempotency-Key`
    /// ([`KickOff::idempotency`](crate::operations::KickOff::idempotency)).
    pub fn idempotency_key(self) -> Self {
        Self { key: Some(Parameter::IdempotencyKey), ..self }
    }

    /// Says that each request must have an `Idempotency-Key`.
    pub fn require_idempotency_key(self) -> Self {
        Self { key: Some(Parameter::RequiredIdempotencyKey), ..self }
    }

    /// Says that the operation heeds `handling=strict`
    /// ([`KickOff::strict`](crate::operations::KickOff::strict)).
    pub fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    /// Says that the operation heeds `callback; url="…"`
    /// ([`KickOff::callback`](crate::operations::KickOff::callback)).
    pub fn callback(self) -> Self {
        Self { callback: true, ..self }
    }

    /// Describes the mode in an operation. It refers to [`components`](super::components). What is described
    /// already stays, so that it may be applied twice.
    pub fn apply(&self, operation: &mut Operation) {
        let parameters = operation.parameters.get_or_insert_default();
        for parameter in [Some(Parameter::Prefer), self.key].into_iter().flatten() {
            if !parameters.iter().any(|there| is_of(there, parameter)) {
                parameters.push(RefOr::Ref(parameter.reference()));
            }
        }

        // A preference may be left out of account, but never out of `Vary`.
        for response in operation.responses.responses.values_mut() {
            if let RefOr::T(response) = response {
                Field::Vary.describe(response);
                if self.key.is_some() {
                    Field::IdempotencyReplayed.describe(response);
                }
            }
        }
        for answer in [
            AnswerComponent::Accepted,
            AnswerComponent::Canceled,
            AnswerComponent::TooLarge,
            AnswerComponent::TooManyOperations,
            AnswerComponent::Failed,
            AnswerComponent::Unavailable,
            AnswerComponent::Overdue,
        ] {
            answer.describe(operation);
        }
        if self.key.is_some() {
            AnswerComponent::KeyReused.describe(operation);
        }
        if self.key.is_some() || self.strict || self.callback {
            AnswerComponent::BadRequest.describe(operation);
        }
    }

    /// Describes the mode in an operation of a document.
    ///
    /// # Errors
    /// [`NoSuchOperation`] if the document has none of that method at that path.
    pub fn apply_at(
        &self,
        paths: &mut Paths,
        method: &HttpMethod,
        path: &str,
    ) -> Result<(), NoSuchOperation> {
        let item = paths.paths.get_mut(path);
        let operation = item.and_then(|item| match method {
            HttpMethod::Get => item.get.as_mut(),
            HttpMethod::Post => item.post.as_mut(),
            HttpMethod::Put => item.put.as_mut(),
            HttpMethod::Delete => item.delete.as_mut(),
            HttpMethod::Options => item.options.as_mut(),
            HttpMethod::Head => item.head.as_mut(),
            HttpMethod::Patch => item.patch.as_mut(),
            HttpMethod::Trace => item.trace.as_mut(),
        });
        let operation = operation.ok_or_else(|| NoSuchOperation { path: path.to_owned() })?;
        self.apply(operation);
        Ok(())
    }
}

/// Whether that is described there already: an operation may have a field of one name once
/// ([OpenAPI 3.1, Operation Object](https://spec.openapis.org/oas/v3.1.1.html#operation-object)).
fn is_of(there: &RefOr<path::Parameter>, parameter: Parameter) -> bool {
    match there {
        RefOr::Ref(there) => there.ref_location == parameter.reference().ref_location,
        RefOr::T(there) => {
            let own = parameter.object();
            there.parameter_in == own.parameter_in && there.name.eq_ignore_ascii_case(&own.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use utoipa::openapi::path::{OperationBuilder, PathItem};
    use utoipa::openapi::response::Response;

    use super::*;

    fn statuses(operation: &Operation) -> Vec<&str> {
        operation.responses.responses.keys().map(String::as_str).collect()
    }

    #[test]
    fn adds_what_the_mode_can_answer() {
        let plain = OperationBuilder::new().response("201", Response::new("There.")).build();
        let mut operation = plain.clone();
        Negotiated::new().apply(&mut operation);
        assert_eq!(statuses(&operation), ["201", "202", "409", "413", "429", "500", "503", "504"]);
        let RefOr::T(created) = &operation.responses.responses["201"] else {
            panic!("a reference")
        };
        assert_eq!(created.headers.keys().collect::<Vec<_>>(), ["Vary"]);

        let mut strict = plain.clone();
        Negotiated::new().strict().apply(&mut strict);
        assert!(statuses(&strict).contains(&"400"));
        let mut called = plain.clone();
        Negotiated::new().callback().apply(&mut called);
        assert!(statuses(&called).contains(&"400"));
        let mut keyed = plain;
        Negotiated::new().require_idempotency_key().apply(&mut keyed);
        assert!(statuses(&keyed).contains(&"422") && statuses(&keyed).contains(&"400"));
    }

    #[test]
    fn what_is_described_already_stays() {
        let own = Response::new("Our own words.");
        let mut operation = OperationBuilder::new()
            .response("503", own)
            .parameter(Parameter::Prefer.object())
            .build();
        // Twice is as once.
        for _ in 0..2 {
            Negotiated::new().idempotency_key().apply(&mut operation);
        }
        assert_eq!(operation.parameters.as_ref().map(Vec::len), Some(2));
        let RefOr::T(kept) = &operation.responses.responses["503"] else { panic!("a reference") };
        assert_eq!(kept.description, "Our own words.");
    }

    #[test]
    fn an_operation_that_is_not_there_is_told() {
        let mut paths = Paths::new();
        let mode = Negotiated::new();
        let error = mode.apply_at(&mut paths, &HttpMethod::Post, "/images").unwrap_err();
        assert_eq!(error.to_string(), "the document has no such operation at /images");
        let item = PathItem::new(HttpMethod::Post, OperationBuilder::new());
        paths.paths.insert("/images".to_owned(), item);
        assert!(mode.apply_at(&mut paths, &HttpMethod::Put, "/images").is_err());
        assert!(mode.apply_at(&mut paths, &HttpMethod::Post, "/images").is_ok());
    }
}

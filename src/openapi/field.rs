//! What an answer's head may carry.

use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::response::Response;
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Schema, Type};

use super::schemas::{reference, text};
use crate::header::UriReference;

/// A field of an answer that is a component of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Allow,
    CacheControl,
    ContentLocation,
    ETag,
    IdempotencyReplayed,
    Link,
    Location,
    PreferenceApplied,
    RetryAfter,
    Sunset,
    Vary,
}

impl Field {
    pub(super) const ALL: [Self; 11] = [
        Self::Allow,
        Self::CacheControl,
        Self::ContentLocation,
        Self::ETag,
        Self::IdempotencyReplayed,
        Self::Link,
        Self::Location,
        Self::PreferenceApplied,
        Self::RetryAfter,
        Self::Sunset,
        Self::Vary,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::CacheControl => "Cache-Control",
            Self::ContentLocation => "Content-Location",
            Self::ETag => "ETag",
            Self::IdempotencyReplayed => "Idempotency-Replayed",
            Self::Link => "Link",
            Self::Location => "Location",
            Self::PreferenceApplied => "Preference-Applied",
            Self::RetryAfter => "Retry-After",
            Self::Sunset => "Sunset",
            Self::Vary => "Vary",
        }
    }

    /// What it is. Where it is always there, it is `required`.
    pub(super) fn object(self, required: bool) -> Header {
        let seconds = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
        let plain = || ObjectBuilder::new().schema_type(Type::String);
        let (description, schema): (&str, RefOr<Schema>) = match self {
            Self::Allow => ("The methods that the resource knows.", plain().into()),
            Self::CacheControl => ("Who may keep the answer, and for how long.", plain().into()),
            Self::ContentLocation => {
                ("The URL at which a GET gives this content.", reference::<UriReference>().into())
            }
            Self::ETag => ("The entity tag of this content, for `If-None-Match`.", plain().into()),
            Self::IdempotencyReplayed => (
                "`true` if an earlier request with the same key has begun what this answer tells of.",
                plain().enum_values(Some(["true"])).into(),
            ),
            Self::Link => (
                "The status monitor (`rel=\"monitor\"`, RFC 5989), or a list's next page (`rel=\"next\"`).",
                plain().into(),
            ),
            Self::Location => ("Where to go on.", reference::<UriReference>().into()),
            Self::PreferenceApplied => {
                ("The preferences that came true (RFC 7240).", plain().into())
            }
            Self::RetryAfter => ("After how many seconds to ask again.", seconds().into()),
            Self::Sunset => (
                "When the resource will go (RFC 8594).",
                text("An HTTP date.").examples(["Tue, 24 Nov 2026 07:15:48 GMT"]).into(),
            ),
            Self::Vary => ("The fields of a request that the answer depends on.", plain().into()),
        };
        // There is no builder for `required`; it stands where an extension would.
        let required = required.then(|| Extensions::from_iter([("required", true)]));
        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description));
        header.extensions(required).build()
    }

    /// A reference to the component.
    pub(super) fn reference(self) -> Ref {
        Ref::new(format!("#/components/headers/{}", self.name()))
    }

    /// Adds it to a response that does not describe it yet.
    pub(super) fn describe(self, response: &mut Response) {
        let is_there = response.headers.keys().any(|name| name.eq_ignore_ascii_case(self.name()));
        if !is_there {
            response.headers.insert(self.name().to_owned(), RefOr::Ref(self.reference()));
        }
    }
}

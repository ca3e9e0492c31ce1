//! The kinds of problem that this crate answers with.
//!
//! The URIs identify; there is nothing to fetch at them. They are stable: a client may compare them.

use http::StatusCode;

use super::ProblemType;

macro_rules! problem_types {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $title:literal, $status:ident;)*) => {
        $($(#[$doc])* pub const $name: ProblemType = ProblemType::new(
            concat!("urn:problem-type:respond-async:", $slug), $title, StatusCode::$status);)*

        #[cfg(test)]
        const ALL: &[ProblemType] = &[$($name),*];
    };
}

problem_types! {
    /// No such operation, or it is somebody else's: the two are not told apart. If its id is older than the shortest
    /// retention, [`EXPIRED`] is said of either.
    NOT_FOUND = "not-found", "Not found", NOT_FOUND;
    /// No such operation, or it is somebody else's, and its id is older than the shortest retention: so it may have
    /// finished and expired.
    EXPIRED = "expired", "Expired", GONE;
    /// The operation has not finished, so it has no result yet.
    RESULT_NOT_READY = "result-not-ready", "Result not ready", NOT_FOUND;
    /// The operation finished without a result: it was canceled.
    RESULT_NOT_AVAILABLE = "result-not-available", "Result not available", NOT_FOUND;
    /// The operation has changed since its client last saw it (`If-Match`); nothing was done.
    PRECONDITION_FAILED = "precondition-failed", "Precondition failed", PRECONDITION_FAILED;
    /// The resource does not know this method; `Allow` lists those that it knows.
    METHOD_NOT_ALLOWED = "method-not-allowed", "Method not allowed", METHOD_NOT_ALLOWED;
    /// A form was sent by a page of another origin, or by something that does not say by which.
    CROSS_SITE = "cross-site", "Cross-site request", FORBIDDEN;
    /// A list cannot be given to somebody whose name is not known.
    OWNER_REQUIRED = "owner-required", "Not found", NOT_FOUND;
    /// The query of a list is malformed.
    INVALID_QUERY = "invalid-query", "Invalid query", BAD_REQUEST;
    /// A preference is malformed or unknown, and the client asked for `handling=strict`.
    INVALID_PREFERENCE = "invalid-preference", "Invalid preference", BAD_REQUEST;
    /// The `Idempotency-Key` field holds no key.
    INVALID_KEY = "invalid-idempotency-key", "Invalid idempotency key", BAD_REQUEST;
    /// The resource wants each request to have an `Idempotency-Key`.
    KEY_REQUIRED = "idempotency-key-required", "Idempotency key required", BAD_REQUEST;
    /// The idempotency key was used before for a request with another payload.
    KEY_REUSED = "idempotency-key-reused", "Idempotency key reused", UNPROCESSABLE_ENTITY;
    /// The work's input is larger than the store takes; nothing of the request was stored.
    REQUEST_TOO_LARGE = "request-too-large", "Request too large", PAYLOAD_TOO_LARGE;
    /// The service has as much work as it takes, and nothing of the request was stored; or it has as many results on
    /// their way to clients as it may.
    OVERLOADED = "overloaded", "Overloaded", SERVICE_UNAVAILABLE;
    /// The owner has as much unfinished work as one may have; nothing of the request was stored.
    TOO_MANY_OPERATIONS = "too-many-operations", "Too many operations", TOO_MANY_REQUESTS;
    /// The owner asks more often than one may; nothing was read.
    TOO_MANY_POLLS = "too-many-polls", "Too many requests", TOO_MANY_REQUESTS;
    /// The store does not answer, so it is not known what became of the request.
    STORE_UNAVAILABLE = "store-unavailable", "Temporarily unavailable", SERVICE_UNAVAILABLE;
    /// The service is shutting down and takes no new work.
    SHUTTING_DOWN = "shutting-down", "Shutting down", SERVICE_UNAVAILABLE;
    /// The work stopped because its cancellation was requested.
    CANCELED = "canceled", "Canceled", CONFLICT;
    /// The work failed in a way that it did not foresee.
    INTERNAL = "internal", "Internal error", INTERNAL_SERVER_ERROR;
    /// The work's process ended before the work did, and it may not run twice.
    INTERRUPTED = "interrupted", "Interrupted", INTERNAL_SERVER_ERROR;
    /// The work was begun as often as it may be, and no attempt finished.
    ATTEMPTS_EXHAUSTED = "attempts-exhausted", "Attempts exhausted", INTERNAL_SERVER_ERROR;
    /// What the work needs was not stored, or cannot be read by this version of the service.
    UNREADABLE_INPUT = "unreadable-input", "Unreadable input", INTERNAL_SERVER_ERROR;
    /// The work did not finish before its deadline.
    DEADLINE_PASSED = "deadline-passed", "Deadline passed", GATEWAY_TIMEOUT;
    /// The URL that the client wants to be told at is none that may be called.
    CALLBACK_REFUSED = "callback-refused", "Callback refused", BAD_REQUEST;
    /// The URL that the client wants to be told at could not be called, or did not take the call.
    CALLBACK_FAILED = "callback-failed", "Callback failed", BAD_GATEWAY;
    /// The URL that the client wanted to be told at wants no calls any more.
    CALLBACK_GONE = "callback-gone", "Callback gone", GONE;
    /// The message broker cannot be reached, so that the request could not be passed on.
    BROKER_UNAVAILABLE = "broker-unavailable", "Temporarily unavailable", SERVICE_UNAVAILABLE;
    /// No service takes requests of this kind at present.
    NO_WORKER = "no-worker", "Temporarily unavailable", SERVICE_UNAVAILABLE;
    /// The local copy of another service's data has not what the client wants to see yet.
    NOT_CAUGHT_UP = "not-caught-up", "Not caught up", SERVICE_UNAVAILABLE;
    /// The service behind did not answer in time.
    REPLY_OVERDUE = "reply-overdue", "Reply overdue", GATEWAY_TIMEOUT;
    /// The work's answer is larger than what may be kept.
    RESULT_TOO_LARGE = "result-too-large", "Result too large", INTERNAL_SERVER_ERROR;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_a_uri_of_its_own_and_an_error_status() {
        let uris: HashSet<_> = ALL.iter().map(ProblemType::uri).collect();
        assert_eq!(uris.len(), ALL.len());
        for kind in ALL {
            assert!(kind.status().is_client_error() || kind.status().is_server_error());
        }
    }
}

//! What a status monitor says, in this crate's own words or another's.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::operation::{Progress, Status};
use crate::problem::Problem;

/// How an operation stood when its monitor was last asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    #[serde(skip)]
    pub(super) error: Option<Problem>,
    /// Where the outcome is, and where what was created is.
    #[serde(skip)]
    pub(super) result: Option<String>,
    #[serde(skip)]
    pub(super) location: Option<String>,
    /// The status of the outcome, if the monitor tells it.
    #[serde(skip)]
    pub(super) result_status: Option<u16>,
}

impl Snapshot {
    /// Where it stands. A name that is not known counts as running in the answer to a poll, if that is surely
    /// the operation's; in an event of a stream it tells nothing.
    pub fn status(&self) -> Status {
        self.status
    }

    /// How much is done, if the server tells that.
    pub fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    /// Of an operation that is at work, and of which nothing else is known.
    pub(super) fn running() -> Self {
        Self {
            status: Status::Running,
            progress: None,
            error: None,
            result: None,
            location: None,
            result_status: None,
        }
    }

    /// Reads a monitor's document. None if it is JSON, but not that of an operation, as far as one can
    /// tell: `surely` says that it must be one.
    ///
    /// # Errors
    /// If it is no JSON.
    pub(super) fn read(body: &[u8], surely: bool) -> Result<Option<Self>, serde_json::Error> {
        let Value::Object(document) = serde_json::from_slice(body)? else { return Ok(None) };
        let status = match (document.get("status"), document.get("done")) {
            (Some(Value::String(word)), _) => match known(word) {
                None if !surely => return Ok(None),
                status => status.unwrap_or(Status::Running),
            },
            // Google's: done, with an error or a response.
            (None, Some(Value::Bool(false))) => Status::Running,
            (None, Some(Value::Bool(true))) if document.contains_key("error") => {
                let code = document.get("error").and_then(|error| error.get("code"));
                let is_canceled = code.and_then(Value::as_u64) == Some(GOOGLE_CANCELLED);
                if is_canceled { Status::Canceled } else { Status::Failed }
            }
            (None, Some(Value::Bool(true))) => Status::Succeeded,
            _ => return Ok(None),
        };
        let result = document.get("result").and_then(Value::as_object);
        let text = |object: Option<&Map<String, Value>>, name: &str| {
            object.and_then(|object| object.get(name)).and_then(Value::as_str).map(str::to_owned)
        };
        let links = document.get("links");
        Ok(Some(Self {
            status,
            progress: progress(&document),
            error: error(&document),
            result: text(result, "href")
                .or_else(|| text(links.and_then(Value::as_object), "result"))
                .or_else(|| result_link(links)),
            location: text(result, "location")
                .or_else(|| text(Some(&document), "resourceLocation")),
            result_status: result
                .and_then(|result| result.get("status"))
                .and_then(Value::as_u64)
                .and_then(|status| u16::try_from(status).ok()),
        }))
    }
}

/// `CANCELLED` of Google's codes of errors.
const GOOGLE_CANCELLED: u64 = 1;

/// The words of this crate, OGC API Processes, Azure and others, in whatever case, and parted by whatever.
fn known(word: &str) -> Option<Status> {
    let word = word.replace(['_', '-', ' '], "").to_ascii_lowercase();
    Some(match &*word {
        "pending" | "accepted" | "queued" | "notstarted" | "submitted" | "created" => {
            Status::Pending
        }
        "running" | "inprogress" | "processing" | "started" | "starting" | "creating"
        | "updating" | "deleting" | "canceling" | "cancelling" => Status::Running,
        "succeeded" | "successful" | "success" | "completed" | "done" => Status::Succeeded,
        "failed" | "failure" | "error" => Status::Failed,
        "canceled" | "cancelled" | "dismissed" | "terminated" => Status::Canceled,
        _ => return None,
    })
}

/// `{fraction, message}`, or per cent as OGC and Azure tell it.
fn progress(document: &Map<String, Value>) -> Option<Progress> {
    let message = || document.get("message").and_then(Value::as_str).unwrap_or_default();
    match document.get("progress").or_else(|| document.get("percentComplete"))? {
        Value::Object(progress) => {
            let fraction = progress.get("fraction").and_then(Value::as_f64);
            let message = progress.get("message").and_then(Value::as_str).unwrap_or_default();
            Some(Progress::new(fraction, message))
        }
        Value::Number(percent) => Some(Progress::new(percent.as_f64()? / 100.0, message())),
        _ => None,
    }
}

/// A problem, or Azure's and Google's `{code, message}`.
fn error(document: &Map<String, Value>) -> Option<Problem> {
    let error = document.get("error").or_else(|| document.get("exception"))?;
    let problem: Problem = serde_json::from_value(error.clone()).ok()?;
    Some(match error.get("message").and_then(Value::as_str) {
        Some(message) if problem.detail().is_none() => problem.with_detail(message.to_owned()),
        _ => problem,
    })
}

/// OGC's `links` are a list, with a relation that ends in `result` or `results`.
fn result_link(links: Option<&Value>) -> Option<String> {
    let is_result = |link: &&Value| {
        let rel = link.get("rel").and_then(Value::as_str).unwrap_or_default();
        matches!(rel.rsplit('/').next(), Some("result" | "results"))
    };
    let link = links?.as_array()?.iter().find(is_result)?;
    link.get("href").and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(json: &str) -> Option<Snapshot> {
        Snapshot::read(json.as_bytes(), false).unwrap()
    }

    #[test]
    fn many_servers_are_understood() {
        let native = r#"{"status":"failed","progress":{"fraction":0.5,"message":"m"},"error":{"title":"T"},
            "result":{"status":422,"href":"/o/1/result"},"links":{"self":"/o/1"}}"#;
        let native = read(native).unwrap();
        assert_eq!(
            (native.status, native.progress),
            (Status::Failed, Some(Progress::new(0.5, "m")))
        );
        assert_eq!(native.error.unwrap().title(), Some("T"));
        assert_eq!(
            (native.result.as_deref(), native.result_status),
            (Some("/o/1/result"), Some(422))
        );

        let ogc = r#"{"jobID":"1","status":"successful","progress":75,"message":"x",
            "links":[{"rel":"self","href":"a"},{"rel":"http://www.opengis.net/def/rel/ogc/1.0/results","href":"b"}]}"#;
        let ogc = read(ogc).unwrap();
        assert_eq!((ogc.status, ogc.result.as_deref()), (Status::Succeeded, Some("b")));
        assert_eq!(ogc.progress, Some(Progress::new(0.75, "x")));

        let azure =
            r#"{"status":"Cancelled","percentComplete":10,"error":{"code":"C","message":"gone"}}"#;
        let azure = read(azure).unwrap();
        assert_eq!(azure.status, Status::Canceled);
        assert_eq!(azure.error.unwrap().detail(), Some("gone"));

        assert_eq!(read(r#"{"name":"o/1","done":false}"#).unwrap().status, Status::Running);
        assert_eq!(read(r#"{"done":true,"error":{"code":5}}"#).unwrap().status, Status::Failed);
        assert_eq!(read(r#"{"done":true,"response":{}}"#).unwrap().status, Status::Succeeded);
        let canceled = r#"{"done":true,"error":{"code":1,"message":"cancelled"}}"#;
        assert_eq!(read(canceled).unwrap().status, Status::Canceled);
        for word in ["in_progress", "in-progress", "InProgress", "Updating", "starting"] {
            let document = format!(r#"{{"status":"{word}"}}"#);
            assert_eq!(read(&document).unwrap().status, Status::Running, "{word}");
        }
    }

    #[test]
    fn what_is_no_operation_is_none() {
        for json in ["[]", "1", "{}", r#"{"status":"shipped"}"#, r#"{"status":1}"#, r#"{"done":1}"#]
        {
            assert_eq!(read(json), None, "{json}");
        }
        let surely = Snapshot::read(br#"{"status":"ContinuedAsNew"}"#, true).unwrap().unwrap();
        assert_eq!(surely.status, Status::Running);
        for json in ["", "{", r#"{"status":"runn"#, "<html>"] {
            assert!(Snapshot::read(json.as_bytes(), true).is_err());
        }
    }
}

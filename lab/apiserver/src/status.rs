//! The `Status` object with which every refused request is answered.
//!
//! Owns the reasons, HTTP codes and wording of refusals; does not decide when one is due.

use serde_json::{Value, json};

/// One cause of a 422 `Invalid` or a 409 `Conflict` answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable cause, e.g. `FieldValueInvalid`.
    pub reason: &'static str,
    /// Text for people.
    pub message: String,
    /// Path of the field concerned, e.g. `spec.ports[0].port`.
    pub field: String,
}

impl Cause {
    /// A field whose value is not acceptable.
    #[must_use]
    pub fn invalid(field: impl Into<String>, value: &Value, why: impl std::fmt::Display) -> Self {
        let shown = shorten(value);
        let message = format!("Invalid value: {shown}: {why}");
        Self {
            reason: "FieldValueInvalid",
            message,
            field: field.into(),
        }
    }

    /// A field that has to be present and is not.
    #[must_use]
    pub fn required(field: impl Into<String>, why: impl std::fmt::Display) -> Self {
        let why = why.to_string();
        let message = if why.is_empty() {
            "Required value".into()
        } else {
            format!("Required value: {why}")
        };
        Self {
            reason: "FieldValueRequired",
            message,
            field: field.into(),
        }
    }

    /// A field that must not be set or changed.
    #[must_use]
    pub fn forbidden(field: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self {
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {why}"),
            field: field.into(),
        }
    }
}

fn shorten(value: &Value) -> String {
    match value {
        Value::Object(_) => "\"object\"".into(),
        Value::Array(_) => "\"array\"".into(),
        other => other.to_string(),
    }
}

/// A refused request: becomes a `Status` object of kind Failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, e.g. `NotFound`.
    pub reason: &'static str,
    /// Text for people.
    pub message: String,
    /// Group and plural (or kind) and name of what the request was about.
    pub about: Option<Box<About>>,
    /// Single causes.
    pub causes: Vec<Cause>,
    /// Seconds after which the client may try again (`Retry-After` header as well).
    pub retry_after: Option<u32>,
    /// Continue token that lets an expired list go on inconsistently.
    pub continue_token: Option<String>,
}

/// What a refusal is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// API group, empty for core.
    pub group: String,
    /// Resource plural, or the kind for `Invalid`.
    pub kind: String,
    /// Object name.
    pub name: String,
}

impl About {
    /// Names an object of a resource (or kind).
    #[must_use]
    pub fn new(group: &str, kind: &str, name: &str) -> Self {
        Self {
            group: group.into(),
            kind: kind.into(),
            name: name.into(),
        }
    }

    fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.kind.clone()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            about: None,
            causes: Vec::new(),
            retry_after: None,
            continue_token: None,
        }
    }

    fn about(mut self, about: About) -> Self {
        self.about = Some(Box::new(about));
        self
    }

    /// 404 for an object.
    #[must_use]
    pub fn not_found(about: About) -> Self {
        let message = format!("{} {:?} not found", about.qualified(), about.name);
        Self::new(404, "NotFound", message).about(about)
    }

    /// 404 for a path nobody serves.
    #[must_use]
    pub fn no_such_path() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    /// 409 for a name already taken.
    #[must_use]
    pub fn already_exists(about: About) -> Self {
        let message = format!("{} {:?} already exists", about.qualified(), about.name);
        Self::new(409, "AlreadyExists", message).about(about)
    }

    /// 409 for a generated name that was taken: the client is asked to try again.
    #[must_use]
    pub fn generated_name_taken(about: About) -> Self {
        let mut refusal = Self::already_exists(about);
        refusal.message = format!(
            "{}, the server was not able to generate a unique name for the object",
            refusal.message
        );
        refusal.retry_after = Some(1);
        refusal
    }

    /// 409 for a stale resourceVersion, or a failed precondition.
    #[must_use]
    pub fn conflict(about: About, why: impl std::fmt::Display) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {:?}: {why}",
            about.qualified(),
            about.name
        );
        Self::new(409, "Conflict", message).about(about)
    }

    /// 409 for the field ownership conflicts of server-side apply.
    #[must_use]
    pub fn apply_conflict(causes: Vec<Cause>) -> Self {
        let mut message = format!(
            "Apply failed with {} conflict{}: ",
            causes.len(),
            if causes.len() == 1 { "" } else { "s" }
        );
        let texts: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.message, cause.field))
            .collect();
        message.push_str(&texts.join("\n"));
        let mut refusal = Self::new(409, "Conflict", message);
        refusal.causes = causes;
        refusal
    }

    /// 422 for an object that breaks rules.
    #[must_use]
    pub fn invalid(about: About, causes: Vec<Cause>) -> Self {
        let texts: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let text = if texts.len() == 1 {
            texts[0].clone()
        } else {
            format!("[{}]", texts.join(", "))
        };
        let message = format!("{} {:?} is invalid: {text}", about.qualified(), about.name);
        let mut refusal = Self::new(422, "Invalid", message).about(about);
        refusal.causes = causes;
        refusal
    }

    /// 422 for request options that contradict each other, or a patch that cannot be applied.
    #[must_use]
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(422, "Invalid", message)
    }

    /// 400.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 403 with a reason text.
    #[must_use]
    pub fn forbidden(about: About, why: impl std::fmt::Display) -> Self {
        let message = format!("{} {:?} is forbidden: {why}", about.qualified(), about.name);
        Self::new(403, "Forbidden", message).about(about)
    }

    /// 403 for want of a Role, before any object is looked at.
    #[must_use]
    pub fn not_allowed(verb: &str, resource: &str) -> Self {
        let message = format!("{resource} is forbidden: cannot {verb} resource {resource:?}");
        Self::new(403, "Forbidden", message)
    }

    /// 403 for a create in a namespace that is going away.
    #[must_use]
    pub fn namespace_terminating(about: About, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let mut refusal = Self::forbidden(about, why);
        refusal.causes.push(Cause {
            reason: "NamespaceTerminating",
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        });
        refusal
    }

    /// 405.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message)
    }

    /// 406: lists what could have been served.
    #[must_use]
    pub fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json, \
                       application/yaml";
        Self::new(406, "NotAcceptable", message)
    }

    /// 415: lists what could have been read.
    #[must_use]
    pub fn unsupported_media_type(got: &str, accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format ({got:?}) - accepted media types \
             include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 413.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 410 for history that is gone.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 504 for a resourceVersion of the future.
    #[must_use]
    pub fn version_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let mut refusal = Self::new(504, "Timeout", message);
        refusal.causes.push(Cause {
            reason: "ResourceVersionTooLarge",
            message: "Too large resource version".into(),
            field: String::new(),
        });
        refusal.retry_after = Some(1);
        refusal
    }

    /// 429 with `Retry-After`.
    #[must_use]
    pub fn too_many_requests(retry_after: u32) -> Self {
        let message = "the server has received too many requests and has asked us to try again \
                       later";
        let mut refusal = Self::new(429, "TooManyRequests", message);
        refusal.retry_after = Some(retry_after);
        refusal
    }

    /// 504 after the request may have been carried out.
    #[must_use]
    pub fn timeout() -> Self {
        let message = "request did not complete within requested timeout";
        Self::new(504, "Timeout", message)
    }

    /// The `Status` object.
    #[must_use]
    pub fn to_status(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = json!(token);
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata,
            "status": "Failure", "message": self.message, "reason": self.reason, "code": self.code,
        });
        let mut details = serde_json::Map::new();
        if let Some(about) = &self.about {
            for (key, text) in [
                ("name", &about.name),
                ("group", &about.group),
                ("kind", &about.kind),
            ] {
                if !text.is_empty() {
                    details.insert(key.into(), json!(text));
                }
            }
        }
        if !self.causes.is_empty() {
            let causes: Vec<Value> = self
                .causes
                .iter()
                .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
                .collect();
            details.insert("causes".into(), causes.into());
        }
        if let Some(seconds) = self.retry_after {
            details.insert("retryAfterSeconds".into(), json!(seconds));
        }
        if !details.is_empty() {
            status["details"] = details.into();
        }
        status
    }
}

//! Reads and writes of objects.
//!
//! Owns the order of steps of each verb (decode, prepare, default, validate, track ownership,
//! store); the steps themselves are in their own modules.

pub mod body;
pub mod create;
pub mod delete;
pub mod patch;
pub mod protobuf;
pub mod read;
pub mod update;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::managed_fields::{Tracking, Writer};
use crate::request::Request;
use crate::resource::{Origin, ResourceType};
use crate::schema::{prune, validate};
use crate::status::{Cause, Refusal};

/// What happens with fields the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped in silence.
    Ignore,
    /// They are dropped with a `Warning` header.
    Warn,
    /// The request is refused.
    Strict,
}

/// Options common to all writes.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Time of the request.
    pub now: Timestamp,
    /// Everything but the storing.
    pub dry_run: bool,
    /// Field manager as asked for, or from the user agent.
    pub manager: String,
    /// Unknown fields.
    pub field_validation: FieldValidation,
    /// Subresource, empty for the main one.
    pub subresource: String,
}

impl WriteOptions {
    /// Reads the options from the query.
    ///
    /// # Errors
    /// 400 or 422 for values that are not known.
    pub fn read(request: &Request, now: Timestamp, subresource: &str) -> Result<Self, Refusal> {
        let dry_run = match request.param("dryRun") {
            None => false,
            Some("All") => true,
            Some(other) => {
                let why =
                    format!("dryRun: Unsupported value: {other:?}: supported values: \"All\"");
                return Err(Refusal::unprocessable(why));
            }
        };
        let field_validation = match request.param("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let why = format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \
                     \"Ignore\", \"Warn\", \"Strict\""
                );
                return Err(Refusal::unprocessable(why));
            }
        };
        let manager = match request.param("fieldManager") {
            Some(manager) if manager.len() > 128 => {
                let why = "fieldManager: Too long: may not be more than 128 bytes";
                return Err(Refusal::unprocessable(why));
            }
            Some(manager) => manager.to_owned(),
            None => default_manager(&request.user_agent),
        };
        let subresource = subresource.to_owned();
        Ok(Self {
            now,
            dry_run,
            manager,
            field_validation,
            subresource,
        })
    }

    pub(crate) fn writer(&self, resource: &ResourceType) -> Writer {
        Writer {
            manager: self.manager.clone(),
            subresource: self.subresource.clone(),
            time: timestamp(self.now),
            api_version: resource.api_version(),
        }
    }
}

/// Field manager of clients that name none: the user agent up to the first slash.
fn default_manager(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or_default();
    let name = if name.is_empty() { "unknown" } else { name };
    name.chars().take(128).collect()
}

/// A successful answer, before it is put into the form the client accepts.
#[derive(Debug)]
pub struct Outcome {
    /// 200 or 201.
    pub code: u16,
    /// The object.
    pub object: Arc<Value>,
    /// Texts of `Warning` headers.
    pub warnings: Vec<String>,
}

/// RFC 3339 in UTC with whole seconds, as in `metadata.creationTimestamp`.
#[must_use]
pub fn timestamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(crate) fn tracking(resource: &ResourceType) -> Tracking<'_> {
    Tracking {
        schema: &resource.schema,
        has_status: resource.has_status,
        custom: resource.origin == Origin::Custom,
    }
}

/// Drops unknown fields; they and duplicate keys are refused or warned about as asked.
pub(crate) fn drop_unknown_fields(
    resource: &ResourceType,
    object: &mut Value,
    duplicates: &[String],
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let unknown = prune::prune(&resource.schema, object);
    let complaints: Vec<String> = duplicates
        .iter()
        .map(|path| format!("duplicate field {path:?}"))
        .chain(unknown.iter().map(|path| format!("unknown field {path:?}")))
        .collect();
    match options.field_validation {
        FieldValidation::Strict if !complaints.is_empty() => {
            let kind = &resource.kind;
            let version = &resource.version;
            let about = format!("{kind} in version {version:?} cannot be handled as a {kind}");
            let why = complaints.join(", ");
            Err(Refusal::bad_request(format!(
                "{about}: strict decoding error: {why}"
            )))
        }
        FieldValidation::Warn => {
            warnings.extend(complaints);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Validates an object whole: metadata, schema, CEL, and hand-written rules.
pub(crate) fn check_object(
    resource: &ResourceType,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Refusal> {
    let mut causes: Vec<Cause> = crate::metadata::check(resource, object, old);
    match resource.origin {
        Origin::Builtin => {
            // A built-in of the wrong shape does not decode, which is no matter of validation.
            if let Some(wrong) = validate::validate(&resource.schema, object, None)
                .iter()
                .find(|cause| cause.reason == "FieldValueTypeInvalid")
            {
                let kind = &resource.kind;
                let about = format!(
                    "{kind} in version {:?} cannot be handled as a {kind}",
                    resource.version
                );
                return Err(Refusal::bad_request(format!("{about}: {}", wrong.message)));
            }
            causes.extend(crate::builtin::rules::check(resource, object, old));
        }
        Origin::Custom => {
            let schema_causes = validate::validate(&resource.schema, object, old);
            let well_formed = schema_causes.is_empty();
            causes.extend(schema_causes);
            // CEL rules may rely on the schema, so they run only on what fits it.
            if well_formed && let Some(rules) = &resource.cel {
                causes.extend(rules.check(&resource.group, object, old));
            }
        }
    }
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Refusal::invalid(
            resource.about_kind(crate::object::name(object)),
            causes,
        ))
    }
}

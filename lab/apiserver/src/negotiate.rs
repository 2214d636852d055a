//! The form of an answer: whole objects, only metadata, or a table; JSON or YAML.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::Answer;
use crate::crud::read::List;
use crate::request::Request;
use crate::resource::{Origin, ResourceType};
use crate::schema::default;
use crate::status::Refusal;
use crate::table::{self, Include};

/// What an answer consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Whole objects.
    Objects,
    /// `PartialObjectMetadata`, or its list.
    Metadata,
    /// `Table`.
    Table,
}

/// Encoding of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// The form the client accepts best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// Content.
    pub content: Content,
    /// Encoding.
    pub encoding: Encoding,
    /// `Content-Type` of the answer.
    pub content_type: String,
}

/// One media range of an `Accept` header.
#[derive(Debug)]
pub(crate) struct MediaRange<'a> {
    pub(crate) media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaRange<'a> {
    /// Media ranges, the most wanted first; equal weights keep their order.
    pub(crate) fn parse_all(accept: &'a str) -> Vec<Self> {
        let mut ranges: Vec<(f32, Self)> = accept
            .split(',')
            .map(str::trim)
            .filter(|range| !range.is_empty())
            .map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let media_type = parts.next().unwrap_or_default();
                let parameters: Vec<(&str, &str)> =
                    parts.filter_map(|part| part.split_once('=')).collect();
                let weight = parameters
                    .iter()
                    .find(|(key, _)| *key == "q")
                    .and_then(|(_, weight)| weight.parse().ok())
                    .unwrap_or(1.0);
                (
                    weight,
                    Self {
                        media_type,
                        parameters,
                    },
                )
            })
            .collect();
        ranges.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        ranges.into_iter().map(|(_, range)| range).collect()
    }

    pub(crate) fn parameter(&self, wanted: &str) -> Option<&'a str> {
        self.parameters
            .iter()
            .find(|(key, _)| *key == wanted)
            .map(|(_, value)| *value)
    }
}

impl Form {
    fn plain(encoding: Encoding) -> Self {
        let content_type = match encoding {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
        };
        Self {
            content: Content::Objects,
            encoding,
            content_type: content_type.into(),
        }
    }

    /// The first form of an `Accept` header that can be served; JSON if there is no header.
    ///
    /// # Errors
    /// 406 if there is none.
    pub fn negotiate(accept: &str) -> Result<Self, Refusal> {
        let ranges = MediaRange::parse_all(accept);
        if ranges.is_empty() {
            return Ok(Self::plain(Encoding::Json));
        }
        ranges
            .iter()
            .find_map(Self::serve)
            .ok_or_else(Refusal::not_acceptable)
    }

    fn serve(range: &MediaRange<'_>) -> Option<Self> {
        let encoding = match range.media_type {
            "application/json" | "*/*" | "application/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            _ => return None,
        };
        let Some(kind) = range.parameter("as") else {
            return Some(Self::plain(encoding));
        };
        let known_group = range.parameter("g") == Some("meta.k8s.io");
        let version = range.parameter("v")?;
        let content = match kind {
            "Table" => Content::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Content::Metadata,
            _ => return None,
        };
        let known_version = matches!(version, "v1" | "v1beta1");
        (known_group && known_version).then(|| Self {
            content,
            content_type: format!(
                "{};as={kind};g=meta.k8s.io;v={version}",
                Self::plain(encoding).content_type
            ),
            encoding,
        })
    }

    /// The answer with a value in this form's encoding.
    #[must_use]
    pub fn answer(&self, code: u16, value: &Value) -> Answer {
        let mut answer = Answer::json(code, value);
        if self.encoding == Encoding::Yaml {
            answer.body = serde_saphyr::to_string(value)
                .unwrap_or_default()
                .into_bytes();
        }
        answer.content_type = self.content_type.clone();
        answer
    }
}

/// The options of a table request.
///
/// # Errors
/// 400 for values of `includeObject` that are not known.
pub fn table_options(request: &Request) -> Result<table::Options, Refusal> {
    let include = match request.param("includeObject") {
        None | Some("Metadata") => Include::Metadata,
        Some("None") => Include::None,
        Some("Object") => Include::Object,
        Some(other) => {
            let why = format!("unrecognized includeObject value: {other:?}");
            return Err(Refusal::bad_request(why));
        }
    };
    Ok(table::Options {
        include,
        with_columns: true,
        now: request.received,
    })
}

/// The stored object in the version of the resource, with defaults that have come since.
#[must_use]
pub fn served(resource: &ResourceType, object: &Arc<Value>) -> Arc<Value> {
    let version = resource.api_version();
    let same_version = object["apiVersion"] == version.as_str();
    let complete = resource.origin == Origin::Builtin || !resource.schema.has_default;
    if same_version && complete {
        return Arc::clone(object);
    }
    let mut object = (**object).clone();
    object["apiVersion"] = json!(version);
    default::apply(&resource.schema, &mut object);
    Arc::new(object)
}

/// Answers with one object.
///
/// # Errors
/// 400 for table options that are not known.
pub fn object(
    resource: &ResourceType,
    code: u16,
    object: &Arc<Value>,
    form: &Form,
    request: &Request,
) -> Result<Answer, Refusal> {
    let object = served(resource, object);
    Ok(match form.content {
        Content::Objects => form.answer(code, &object),
        Content::Metadata => form.answer(code, &table::partial(&object)),
        Content::Table => {
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            let objects = std::iter::once(&*object);
            form.answer(
                code,
                &table::table(resource, objects, metadata, table_options(request)?),
            )
        }
    })
}

/// Answers with a list.
///
/// # Errors
/// 400 for table options that are not known.
pub fn list(
    resource: &ResourceType,
    list: &List,
    form: &Form,
    request: &Request,
) -> Result<Answer, Refusal> {
    let mut metadata = json!({"resourceVersion": list.revision.to_string()});
    if let Some(token) = &list.continue_token {
        metadata["continue"] = json!(token);
    }
    if let Some(remaining) = list.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    let items: Vec<Arc<Value>> = list
        .items
        .iter()
        .map(|item| served(resource, item))
        .collect();
    Ok(match form.content {
        Content::Objects => form.answer(
            200,
            &json!({
                "kind": resource.list_kind, "apiVersion": resource.api_version(),
                "metadata": metadata,
                "items": items.iter().map(|item| (**item).clone()).collect::<Vec<_>>(),
            }),
        ),
        Content::Metadata => form.answer(
            200,
            &json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": items.iter().map(|item| table::partial(item)).collect::<Vec<_>>(),
            }),
        ),
        Content::Table => {
            let objects = items.iter().map(|item| &**item);
            form.answer(
                200,
                &table::table(resource, objects, metadata, table_options(request)?),
            )
        }
    })
}

//! Structural schemas, parsed from OpenAPI v3 once and walked many times.
//!
//! Owns the parsed form and its reading; pruning, defaulting, validation and CEL are in the
//! submodules. `$ref` is not known here: built-in schemas are inlined before they are parsed.

pub mod cel;
pub mod default;
pub mod formats;
pub mod prune;
pub mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

/// JSON type of a schema node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
}

impl Type {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// Name as written in schemas.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How list items are merged and owned (`x-kubernetes-list-type`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListType {
    /// As one value.
    #[default]
    Atomic,
    /// Scalars, each owned by itself.
    Set,
    /// Objects identified by these fields.
    Map(Vec<String>),
}

/// Schema of object keys that are not among `properties`.
#[derive(Debug, Clone, Default)]
pub enum Additional {
    /// Not said.
    #[default]
    Unspecified,
    /// Anything goes (`additionalProperties: true`).
    Any,
    /// All have this schema: the object is a map.
    Schema(Box<Schema>),
}

/// One node of a schema.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// JSON type; `None` for int-or-string, anything, and parts of `allOf` and its like.
    pub kind: Option<Type>,
    /// `null` is a value.
    pub nullable: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded_resource: bool,
    /// Known fields.
    pub properties: BTreeMap<String, Schema>,
    /// Other fields.
    pub additional: Additional,
    /// Elements of an array.
    pub items: Option<Box<Schema>>,
    /// How a list is merged and owned.
    pub list_type: ListType,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    /// `default`.
    pub default: Option<Value>,
    /// `x-kubernetes-patch-merge-key`, for strategic merge patches of built-ins.
    pub patch_merge_key: Option<String>,
    /// `x-kubernetes-patch-strategy` contains `merge`.
    pub patch_merge: bool,
    /// Value rules.
    pub rules: Rules,
    /// Whether this node or one below it has `x-kubernetes-validations`.
    pub has_cel: bool,
    /// Whether this node or one below it has a default.
    pub has_default: bool,
}

/// The value rules of a node.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// `required`
    pub required: Vec<String>,
    /// `enum`
    pub one_of_values: Option<Vec<Value>>,
    /// `format`
    pub format: Option<String>,
    /// `pattern`, with its text.
    pub pattern: Option<Regex>,
    /// `minimum`, and whether the bound itself is excluded.
    pub minimum: Option<(f64, bool)>,
    /// `maximum`, and whether the bound itself is excluded.
    pub maximum: Option<(f64, bool)>,
    /// `multipleOf`
    pub multiple_of: Option<f64>,
    /// `minLength`, in characters.
    pub min_length: Option<u64>,
    /// `maxLength`, in characters.
    pub max_length: Option<u64>,
    /// `minItems`
    pub min_items: Option<u64>,
    /// `maxItems`
    pub max_items: Option<u64>,
    /// `minProperties`
    pub min_properties: Option<u64>,
    /// `maxProperties`
    pub max_properties: Option<u64>,
    /// `uniqueItems`
    pub unique_items: bool,
    /// `allOf`
    pub all_of: Vec<Schema>,
    /// `anyOf`
    pub any_of: Vec<Schema>,
    /// `oneOf`
    pub one_of: Vec<Schema>,
    /// `not`
    pub not: Option<Box<Schema>>,
}

impl Schema {
    /// Reads a schema; parts that are not understood are as if not there.
    #[must_use]
    pub fn parse(source: &Value) -> Self {
        let text = |key: &str| source.get(key).and_then(Value::as_str);
        let flag = |key: &str| source.get(key).and_then(Value::as_bool).unwrap_or_default();
        let properties: BTreeMap<String, Self> = source["properties"]
            .as_object()
            .map(|map| {
                map.iter()
                    .map(|(key, value)| (key.clone(), Self::parse(value)))
                    .collect()
            })
            .unwrap_or_default();
        let additional = match source.get("additionalProperties") {
            Some(Value::Bool(true)) => Additional::Any,
            Some(Value::Object(map)) if map.is_empty() => Additional::Any,
            Some(Value::Object(_)) => {
                Additional::Schema(Box::new(Self::parse(&source["additionalProperties"])))
            }
            _ => Additional::Unspecified,
        };
        let items = source
            .get("items")
            .map(|items| Box::new(Self::parse(items)));
        let list_type = match text("x-kubernetes-list-type") {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(strings(&source["x-kubernetes-list-map-keys"])),
            _ => ListType::Atomic,
        };
        let below = |test: fn(&Self) -> bool| {
            properties.values().any(test)
                || items.as_deref().is_some_and(test)
                || matches!(&additional, Additional::Schema(schema) if test(schema))
        };
        let has_cel =
            source.get("x-kubernetes-validations").is_some() || below(|schema| schema.has_cel);
        let has_default = source.get("default").is_some() || below(|schema| schema.has_default);
        Self {
            kind: text("type").and_then(Type::parse),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string")
                || text("format") == Some("int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            properties,
            additional,
            items,
            list_type,
            atomic_map: text("x-kubernetes-map-type") == Some("atomic"),
            default: source.get("default").cloned(),
            patch_merge_key: text("x-kubernetes-patch-merge-key").map(Into::into),
            patch_merge: text("x-kubernetes-patch-strategy")
                .is_some_and(|strategy| strategy.split(',').any(|part| part == "merge")),
            rules: Rules::parse(source),
            has_cel,
            has_default,
        }
    }

    /// Schema of the value under an object key, if the key is known.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&Self> {
        self.properties.get(key).or(match &self.additional {
            Additional::Schema(schema) => Some(schema),
            _ => None,
        })
    }

    /// Schema of list elements.
    #[must_use]
    pub fn element(&self) -> Option<&Self> {
        self.items.as_deref()
    }
}

impl Rules {
    fn parse(source: &Value) -> Self {
        let number = |key: &str| source.get(key).and_then(Value::as_u64);
        let float = |key: &str| source.get(key).and_then(Value::as_f64);
        let flag = |key: &str| source.get(key).and_then(Value::as_bool).unwrap_or_default();
        let list = |key: &str| -> Vec<Schema> {
            source[key]
                .as_array()
                .map(|all| all.iter().map(Schema::parse).collect())
                .unwrap_or_default()
        };
        Self {
            required: strings(&source["required"]),
            one_of_values: source.get("enum").and_then(Value::as_array).cloned(),
            format: source.get("format").and_then(Value::as_str).map(Into::into),
            pattern: source
                .get("pattern")
                .and_then(Value::as_str)
                .and_then(|pattern| Regex::new(pattern).ok()),
            minimum: float("minimum").map(|bound| (bound, flag("exclusiveMinimum"))),
            maximum: float("maximum").map(|bound| (bound, flag("exclusiveMaximum"))),
            multiple_of: float("multipleOf"),
            min_length: number("minLength"),
            max_length: number("maxLength"),
            min_items: number("minItems"),
            max_items: number("maxItems"),
            min_properties: number("minProperties"),
            max_properties: number("maxProperties"),
            unique_items: flag("uniqueItems"),
            all_of: list("allOf"),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            not: source
                .get("not")
                .map(|schema| Box::new(Schema::parse(schema))),
        }
    }
}

pub(crate) fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .map(|list| {
            list.iter()
                .filter_map(Value::as_str)
                .map(Into::into)
                .collect()
        })
        .unwrap_or_default()
}

/// Appends an object key to a field path.
pub(crate) fn child(path: &str, key: &str) -> String {
    let plain = key
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    match (path.is_empty(), plain) {
        (true, _) => key.to_owned(),
        (false, true) => format!("{path}.{key}"),
        (false, false) => format!("{path}[{key}]"),
    }
}

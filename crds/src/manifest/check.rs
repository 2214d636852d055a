//! A tree against the schema of its kind: the part of OpenAPI that our definitions and the core
//! kinds use, then the CEL rules.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::cel::{CompiledSchema, ValidationErrors, Validator, compile_schema};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value as Json;

use super::tree::{Located, Value};

/// Kinds of our group.
pub(super) const KINDS: [&str; 7] = [
    "IPPool",
    "IPBlock",
    "IPBlockRequest",
    "BGPConfiguration",
    "BGPPeer",
    "BGPFilter",
    "NodeNetworkStatus",
];

/// The schemas of every kind that a manifest may hold.
pub(super) struct Checker {
    kinds: BTreeMap<String, Kind>,
    metadata: Json,
}

struct Kind {
    schema: Json,
    /// The CEL rules of our kinds; compiling them takes longer than all else.
    rules: Option<LazyLock<CompiledSchema, Box<dyn FnOnce() -> CompiledSchema + Send>>>,
}

/// One violation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) line: u64,
    pub(super) path: String,
    pub(super) message: String,
}

impl Checker {
    /// The one checker of the process: schemas are constants.
    pub(super) fn shared() -> &'static Self {
        static SHARED: LazyLock<Checker> = LazyLock::new(Checker::new);
        &SHARED
    }

    fn new() -> Self {
        let mut kinds = BTreeMap::new();
        for definition in crate::all() {
            let version = definition.spec.versions.into_iter().next();
            let schema = version
                .and_then(|v| v.schema)
                .and_then(|s| s.open_api_v3_schema);
            let schema = serde_json::to_value(schema).expect("a schema is plain data");
            let source = schema.clone();
            let compile: Box<dyn FnOnce() -> CompiledSchema + Send> =
                Box::new(move || compile_schema(&source));
            let rules = Some(LazyLock::new(compile));
            kinds.insert(definition.spec.names.kind, Kind { schema, rules });
        }
        for (kind, schema) in [
            ("Node", root_schema::<Node>()),
            ("Secret", root_schema::<Secret>()),
        ] {
            let rules = None;
            kinds.insert(kind.to_owned(), Kind { schema, rules });
        }
        Checker {
            kinds,
            metadata: root_schema::<ObjectMeta>(),
        }
    }

    /// Everything in `document` that the schema of `kind` refuses. CEL rules run only on what the
    /// schema accepts: they may rely on it.
    pub(super) fn check(&self, kind: &str, document: &Located) -> Vec<Finding> {
        let Some(Kind { schema, rules }) = self.kinds.get(kind) else {
            return Vec::new();
        };
        let mut walk = Walk {
            root: schema,
            confidential: kind == "Secret",
            findings: Vec::new(),
        };
        let ours = rules.is_some();
        walk.document(document, schema, ours);
        let mut findings = walk.findings;
        if ours {
            if let Some(metadata) = document.get("metadata") {
                let mut walk = Walk {
                    root: &self.metadata,
                    confidential: false,
                    findings: Vec::new(),
                };
                walk.value(metadata, &self.metadata, "metadata");
                findings.append(&mut walk.findings);
            }
            if findings.is_empty()
                && let Some(rules) = rules
            {
                findings = violations(rules, document);
            }
        }
        findings
    }
}

fn root_schema<T: JsonSchema>() -> Json {
    SchemaGenerator::default()
        .into_root_schema_for::<T>()
        .to_value()
}

fn violations(rules: &CompiledSchema, document: &Located) -> Vec<Finding> {
    let validated = Validator::new().validate_compiled(rules, &document.to_json(), None);
    let errors = validated.err().map(ValidationErrors::into_vec);
    errors
        .unwrap_or_default()
        .into_iter()
        .map(|error| {
            let path = error.field_path.trim_start_matches('.').to_owned();
            Finding {
                line: line_of(document, &path),
                message: error.message,
                path,
            }
        })
        .collect()
}

/// The line of the deepest part of `path` that the document has.
fn line_of(document: &Located, path: &str) -> u64 {
    let mut at = document;
    let mut line = document.line;
    for step in path.split(['.', '[', ']']).filter(|step| !step.is_empty()) {
        let (next, next_line) = match &at.value {
            Value::Map(entries) => match entries.iter().find(|entry| entry.key == step) {
                Some(entry) => (&entry.value, entry.line),
                None => break,
            },
            Value::List(items) => match step.parse().ok().and_then(|index: usize| items.get(index))
            {
                Some(item) => (item, item.line),
                None => break,
            },
            _ => break,
        };
        at = next;
        line = next_line;
    }
    line
}

struct Walk<'a> {
    root: &'a Json,
    /// Messages go to logs: they name the kind of a value, not the value.
    confidential: bool,
    findings: Vec<Finding>,
}

impl<'a> Walk<'a> {
    /// The top level, where apiVersion, kind and, for our kinds, metadata have no schema of their
    /// own.
    fn document(&mut self, document: &Located, schema: &'a Json, ours: bool) {
        let schema = self.resolve(schema);
        let Value::Map(entries) = &document.value else {
            return;
        };
        let properties = schema.get("properties").and_then(Json::as_object);
        for entry in entries {
            match (
                entry.key.as_str(),
                properties.and_then(|p| p.get(&entry.key)),
            ) {
                ("apiVersion" | "kind", _) => {}
                ("metadata", _) if ours => {}
                (key, Some(property)) => self.value(&entry.value, property, key),
                (key, None) => {
                    let known = properties
                        .into_iter()
                        .flat_map(|p| p.keys())
                        .map(String::as_str);
                    let known: Vec<&str> =
                        known.chain(["apiVersion", "kind", "metadata"]).collect();
                    self.report(entry.line, key, unknown(key, known));
                }
            }
        }
        if ours {
            self.required(document, schema, "");
        }
    }

    fn value(&mut self, located: &Located, schema: &'a Json, path: &str) {
        let schema = self.resolve(schema);
        if located.value == Value::Null {
            return; // As absent; whether it may be is for `required` to say.
        }
        if let Some(types) = types(schema)
            && !types.iter().any(|t| has_type(&located.value, t))
        {
            let expected = types
                .iter()
                .map(|t| name_of(t))
                .collect::<Vec<_>>()
                .join(" or ");
            self.report(
                located.line,
                path,
                format!("expected {expected}, found {}", self.found(&located.value)),
            );
            return;
        }
        if let Some(allowed) = schema.get("enum").and_then(Json::as_array) {
            let json = located.to_json();
            let allowed: Vec<&Json> = allowed.iter().filter(|v| !v.is_null()).collect();
            if !allowed.contains(&&json) {
                let list = allowed
                    .iter()
                    .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
                let list = list.collect::<Vec<_>>().join(", ");
                self.report(
                    located.line,
                    path,
                    format!(
                        "expected one of {list}, found {}",
                        self.found(&located.value)
                    ),
                );
                return;
            }
        }
        match &located.value {
            Value::Map(_) => self.map(located, schema, path),
            Value::List(items) => {
                self.bounds(
                    located,
                    schema,
                    path,
                    items.len() as f64,
                    "minItems",
                    "maxItems",
                    "items",
                );
                if let Some(item_schema) = schema.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.value(item, item_schema, &format!("{path}[{index}]"));
                    }
                }
            }
            Value::String(text) => {
                let length = text.chars().count() as f64;
                self.bounds(
                    located,
                    schema,
                    path,
                    length,
                    "minLength",
                    "maxLength",
                    "characters",
                );
            }
            Value::Integer(value) => {
                self.bounds(
                    located,
                    schema,
                    path,
                    *value as f64,
                    "minimum",
                    "maximum",
                    "",
                );
            }
            Value::Float(value) => {
                self.bounds(located, schema, path, *value, "minimum", "maximum", "")
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn map(&mut self, located: &Located, schema: &'a Json, path: &str) {
        let Value::Map(entries) = &located.value else {
            return;
        };
        let properties = schema.get("properties").and_then(Json::as_object);
        let additional = schema.get("additionalProperties");
        for entry in entries {
            let field = format!("{path}.{}", entry.key);
            match (properties.and_then(|p| p.get(&entry.key)), additional) {
                (Some(property), _) => self.value(&entry.value, property, &field),
                (None, Some(Json::Object(_))) => {
                    self.value(&entry.value, &schema["additionalProperties"], &field);
                }
                (None, Some(Json::Bool(true))) => {}
                (None, _) if properties.is_none() => {}
                (None, _) => {
                    let known = properties
                        .into_iter()
                        .flat_map(|p| p.keys())
                        .map(String::as_str);
                    self.report(entry.line, &field, unknown(&entry.key, known.collect()));
                }
            }
        }
        self.required(located, schema, path);
    }

    fn required(&mut self, located: &Located, schema: &Json, path: &str) {
        let required = schema.get("required").and_then(Json::as_array);
        for key in required.into_iter().flatten().filter_map(Json::as_str) {
            if located
                .get(key)
                .is_none_or(|value| value.value == Value::Null)
            {
                let field = if path.is_empty() {
                    key.to_owned()
                } else {
                    format!("{path}.{key}")
                };
                self.report(located.line, &field, "required".to_owned());
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one row of a table of bounds")]
    fn bounds(
        &mut self,
        at: &Located,
        schema: &Json,
        path: &str,
        value: f64,
        low: &str,
        high: &str,
        unit: &str,
    ) {
        let low = schema
            .get(low)
            .and_then(Json::as_f64)
            .filter(|bound| value < *bound);
        let high = schema
            .get(high)
            .and_then(Json::as_f64)
            .filter(|bound| value > *bound);
        let (word, bound) = match (low, high) {
            (Some(bound), _) => ("least", bound),
            (_, Some(bound)) => ("most", bound),
            _ => return,
        };
        let unit = if unit.is_empty() {
            String::new()
        } else {
            format!(" {unit}")
        };
        self.report(
            at.line,
            path,
            format!("expected at {word} {bound}{unit}, found {value}"),
        );
    }

    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let mut schema = schema;
        while let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
            match self.root.pointer(reference.trim_start_matches('#')) {
                Some(target) => schema = target,
                None => break,
            }
        }
        // An optional reference is `anyOf: [reference, null]`.
        match schema.get("anyOf").and_then(Json::as_array) {
            Some(options) => match options
                .iter()
                .find(|o| o.get("type").is_none_or(|t| t != "null"))
            {
                Some(option) => self.resolve(option),
                None => schema,
            },
            None => schema,
        }
    }

    fn found(&self, value: &Value) -> String {
        match value {
            value if self.confidential => value.kind().to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Integer(value) => format!("the integer {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::String(text) => format!("{text:?}"),
            other => other.kind().to_owned(),
        }
    }

    fn report(&mut self, line: u64, path: &str, message: String) {
        self.findings.push(Finding {
            line,
            path: path.to_owned(),
            message,
        });
    }
}

fn types(schema: &Json) -> Option<Vec<&str>> {
    if schema.get("x-kubernetes-int-or-string").is_some() {
        return Some(vec!["integer", "string"]);
    }
    match schema.get("type")? {
        Json::String(one) => Some(vec![one]),
        Json::Array(many) => Some(
            many.iter()
                .filter_map(Json::as_str)
                .filter(|t| *t != "null")
                .collect(),
        ),
        _ => None,
    }
}

fn has_type(value: &Value, expected: &str) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(_) => expected == "boolean",
        Value::Integer(_) => matches!(expected, "integer" | "number"),
        Value::Float(_) => expected == "number",
        Value::String(_) => expected == "string",
        Value::List(_) => expected == "array",
        Value::Map(_) => expected == "object",
    }
}

fn name_of(expected: &str) -> &str {
    match expected {
        "boolean" => "a boolean",
        "integer" => "an integer",
        "number" => "a number",
        "string" => "a string",
        "array" => "a list",
        "object" => "an object",
        other => other,
    }
}

fn unknown(key: &str, mut known: Vec<&str>) -> String {
    known.sort_unstable();
    match known
        .iter()
        .find(|candidate| candidate.eq_ignore_ascii_case(key))
    {
        Some(meant) => format!("unknown field; did you mean {meant}?"),
        None => format!("unknown field; expected one of {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(schema: &CompiledSchema, path: &str, found: &mut Vec<String>) {
        for error in schema.compilation_errors() {
            found.push(format!("{path}: {error:?}"));
        }
        for (name, property) in &schema.properties {
            errors(property, &format!("{path}.{name}"), found);
        }
        for inner in schema.items.iter().chain(&schema.additional_properties) {
            errors(inner, &format!("{path}[]"), found);
        }
        for option in schema.all_of.iter().chain(&schema.any_of) {
            errors(option, path, found);
        }
    }

    #[test]
    fn every_rule_of_every_definition_compiles() {
        let mut found = Vec::new();
        let mut seen = 0;
        for (name, kind) in &Checker::shared().kinds {
            if let Some(rules) = &kind.rules {
                errors(rules, name, &mut found);
                seen += 1;
            }
        }
        assert_eq!(found, [""; 0]);
        assert_eq!(seen, KINDS.len());
    }
}

//! Protobuf bodies of the few kinds that kubectl's typed commands send.
//!
//! `kubectl create namespace` and its like send protobuf whatever the server offers, and do not
//! fall back. Owns the envelope and the field tables of those kinds; answers are always JSON.

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::status::Refusal;

/// First bytes of every protobuf body of Kubernetes.
const MAGIC: &[u8] = b"k8s\0";

/// How a field is written on the wire, and so how it reads as JSON.
enum Kind {
    Text,
    Texts,
    Integer,
    Boolean,
    Message(&'static [Field]),
    Messages(&'static [Field]),
    TextMap,
    BytesMap,
}

/// Field number, JSON name and kind.
type Field = (u64, &'static str, Kind);

const OWNER: &[Field] = &[
    (1, "kind", Kind::Text),
    (3, "name", Kind::Text),
    (4, "uid", Kind::Text),
    (5, "apiVersion", Kind::Text),
    (6, "controller", Kind::Boolean),
    (7, "blockOwnerDeletion", Kind::Boolean),
];
const METADATA: &[Field] = &[
    (1, "name", Kind::Text),
    (2, "generateName", Kind::Text),
    (4, "namespace", Kind::Text),
    (5, "uid", Kind::Text),
    (6, "resourceVersion", Kind::Text),
    (11, "labels", Kind::TextMap),
    (12, "annotations", Kind::TextMap),
    (13, "ownerReferences", Kind::Messages(OWNER)),
    (14, "finalizers", Kind::Texts),
];
const NAMESPACE: &[Field] = &[(1, "metadata", Kind::Message(METADATA))];
const CONFIG_MAP: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "data", Kind::TextMap),
    (3, "binaryData", Kind::BytesMap),
    (4, "immutable", Kind::Boolean),
];
const SECRET: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "data", Kind::BytesMap),
    (3, "type", Kind::Text),
    (4, "stringData", Kind::TextMap),
    (5, "immutable", Kind::Boolean),
];
const SERVICE_ACCOUNT: &[Field] = &[(1, "metadata", Kind::Message(METADATA))];
const RESOURCE_ATTRIBUTES: &[Field] = &[
    (1, "namespace", Kind::Text),
    (2, "verb", Kind::Text),
    (3, "group", Kind::Text),
    (4, "version", Kind::Text),
    (5, "resource", Kind::Text),
    (6, "subresource", Kind::Text),
    (7, "name", Kind::Text),
];
const URL_ATTRIBUTES: &[Field] = &[(1, "path", Kind::Text), (2, "verb", Kind::Text)];
const ACCESS_REVIEW_SPEC: &[Field] = &[
    (1, "resourceAttributes", Kind::Message(RESOURCE_ATTRIBUTES)),
    (2, "nonResourceAttributes", Kind::Message(URL_ATTRIBUTES)),
];
const ACCESS_REVIEW: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "spec", Kind::Message(ACCESS_REVIEW_SPEC)),
];
const RULES_REVIEW_SPEC: &[Field] = &[(1, "namespace", Kind::Text)];
const RULES_REVIEW: &[Field] = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "spec", Kind::Message(RULES_REVIEW_SPEC)),
];
const PRECONDITIONS: &[Field] = &[(1, "uid", Kind::Text), (2, "resourceVersion", Kind::Text)];
const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", Kind::Integer),
    (2, "preconditions", Kind::Message(PRECONDITIONS)),
    (3, "orphanDependents", Kind::Boolean),
    (4, "propagationPolicy", Kind::Text),
    (5, "dryRun", Kind::Texts),
];
const TYPE_META: &[Field] = &[(1, "apiVersion", Kind::Text), (2, "kind", Kind::Text)];

/// Decodes a body of one of the known kinds.
///
/// # Errors
/// 415 for other kinds, 400 for a body that is cut short or not protobuf.
pub fn decode(bytes: &[u8]) -> Result<Value, Refusal> {
    let malformed = || Refusal::bad_request("the body is not valid Kubernetes protobuf");
    let envelope = bytes.strip_prefix(MAGIC).ok_or_else(malformed)?;
    let (mut type_meta, mut raw) = (json!({}), &b""[..]);
    for (number, wire) in fields(envelope).ok_or_else(malformed)? {
        match (number, wire) {
            (1, Wire::Bytes(inner)) => {
                type_meta = message(TYPE_META, inner).ok_or_else(malformed)?
            }
            (2, Wire::Bytes(inner)) => raw = inner,
            _ => {}
        }
    }
    let kind = type_meta["kind"].as_str().unwrap_or_default();
    let table = match kind {
        "Namespace" => NAMESPACE,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "SelfSubjectAccessReview" => ACCESS_REVIEW,
        "SelfSubjectRulesReview" => RULES_REVIEW,
        "DeleteOptions" => DELETE_OPTIONS,
        other => {
            let got = format!("application/vnd.kubernetes.protobuf of kind {other}");
            let accepted = ["application/json", "application/yaml"];
            return Err(Refusal::unsupported_media_type(&got, &accepted));
        }
    };
    let mut value = message(table, raw).ok_or_else(malformed)?;
    value["apiVersion"] = type_meta["apiVersion"].clone();
    value["kind"] = type_meta["kind"].clone();
    Ok(value)
}

enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// All fields of a message; fixed-width ones do not occur in these kinds and are skipped.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Wire<'_>)>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        match key & 7 {
            0 => all.push((key >> 3, Wire::Varint(varint(&mut bytes)?))),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (inner, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                all.push((key >> 3, Wire::Bytes(inner)));
            }
            1 => bytes = bytes.get(8..)?,
            5 => bytes = bytes.get(4..)?,
            _ => return None,
        }
    }
    Some(all)
}

fn message(table: &[Field], bytes: &[u8]) -> Option<Value> {
    let mut map = Map::new();
    for (number, wire) in fields(bytes)? {
        let Some((_, name, kind)) = table.iter().find(|(known, _, _)| *known == number) else {
            continue;
        };
        let name = (*name).to_owned();
        match (kind, wire) {
            // Go's encoder writes empty texts, which JSON omits.
            (Kind::Text, Wire::Bytes(b"")) => {}
            (Kind::Text, Wire::Bytes(text)) => {
                map.insert(name, text_of(text)?.into());
            }
            (Kind::Texts, Wire::Bytes(text)) => push(&mut map, name, text_of(text)?.into()),
            (Kind::Integer, Wire::Varint(number)) => {
                // Negative numbers are written in two's complement.
                map.insert(name, json!(number.cast_signed()));
            }
            (Kind::Boolean, Wire::Varint(number)) => {
                map.insert(name, json!(number != 0));
            }
            (Kind::Message(table), Wire::Bytes(inner)) => {
                map.insert(name, message(table, inner)?);
            }
            (Kind::Messages(table), Wire::Bytes(inner)) => {
                push(&mut map, name, message(table, inner)?);
            }
            (kind @ (Kind::TextMap | Kind::BytesMap), Wire::Bytes(inner)) => {
                let (key, value) = entry(inner)?;
                let value = match kind {
                    Kind::TextMap => text_of(value)?.to_owned(),
                    _ => base64::engine::general_purpose::STANDARD.encode(value),
                };
                let object = map.entry(name).or_insert_with(|| Value::Object(Map::new()));
                object[key] = value.into();
            }
            _ => return None,
        }
    }
    Some(Value::Object(map))
}

fn text_of(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn push(map: &mut Map<String, Value>, name: String, value: Value) {
    if let Value::Array(list) = map.entry(name).or_insert_with(|| json!([])) {
        list.push(value);
    }
}

/// Key and value of a map entry.
fn entry(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (mut key, mut value) = ("", &b""[..]);
    for field in fields(bytes)? {
        match field {
            (1, Wire::Bytes(text)) => key = text_of(text)?,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Some((key, value))
}

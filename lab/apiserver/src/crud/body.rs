//! Reading of request bodies.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::resource::ResourceType;
use crate::status::Refusal;

/// A body and the paths of keys that occur in it more than once.
#[derive(Debug)]
pub struct Body {
    /// The value; of duplicate keys, the last one counts.
    pub value: Value,
    /// Paths of duplicate keys.
    pub duplicates: Vec<String>,
}

/// Reads JSON or YAML by media type; no media type means JSON.
///
/// # Errors
/// 415 for other media types, 400 for a body that does not parse.
pub fn decode(media_type: &str, bytes: &[u8]) -> Result<Body, Refusal> {
    match media_type {
        "" | "application/json" | "*/*" => json(bytes),
        "application/yaml" | "application/apply-patch+yaml" => yaml(bytes),
        "application/vnd.kubernetes.protobuf" => Ok(Body {
            value: super::protobuf::decode(bytes)?,
            duplicates: Vec::new(),
        }),
        other => {
            let accepted = ["application/json", "application/yaml"];
            Err(Refusal::unsupported_media_type(other, &accepted))
        }
    }
}

/// Reads JSON and notes duplicate keys.
///
/// # Errors
/// 400 if it is not JSON.
pub fn json(bytes: &[u8]) -> Result<Body, Refusal> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let node = Node {
        path: String::new(),
        duplicates: &mut duplicates,
    };
    let value = node
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| Refusal::bad_request(format!("the body is not valid JSON: {error}")))?;
    Ok(Body { value, duplicates })
}

/// Reads YAML, or JSON, which is YAML too.
///
/// # Errors
/// 400 if it is neither.
pub fn yaml(bytes: &[u8]) -> Result<Body, Refusal> {
    if let Ok(body) = json(bytes) {
        return Ok(body);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Refusal::bad_request(format!("the body is not UTF-8: {error}")))?;
    let value = serde_saphyr::from_str(text)
        .map_err(|error| Refusal::bad_request(format!("the body is not valid YAML: {error}")))?;
    Ok(Body {
        value,
        duplicates: Vec::new(),
    })
}

/// Checks that a body is an object of the resource, and fills in `apiVersion` and `kind`.
///
/// # Errors
/// 400 for another kind or version.
pub fn check_kind(resource: &ResourceType, value: &mut Value) -> Result<(), Refusal> {
    let Some(map) = value.as_object_mut() else {
        return Err(Refusal::bad_request("the body is not an object"));
    };
    for (key, wanted) in [
        ("apiVersion", resource.api_version()),
        ("kind", resource.kind.clone()),
    ] {
        match map.get(key).and_then(Value::as_str).unwrap_or_default() {
            "" => {
                map.insert(key.into(), wanted.into());
            }
            got if got == wanted => {}
            got => {
                let why = format!(
                    "the {key} in the data ({got}) does not match the expected {key} ({wanted})"
                );
                return Err(Refusal::bad_request(why));
            }
        }
    }
    match map.get("metadata") {
        Some(Value::Object(_)) => {}
        None | Some(Value::Null) => {
            map.insert("metadata".into(), Value::Object(Map::new()));
        }
        Some(_) => return Err(Refusal::bad_request("metadata is not an object")),
    }
    Ok(())
}

struct Node<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, list.len());
            let node = Node {
                path,
                duplicates: &mut *self.duplicates,
            };
            match access.next_element_seed(node)? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = if self.path.is_empty() {
                key.clone()
            } else {
                format!("{}.{key}", self.path)
            };
            if map.contains_key(&key) {
                self.duplicates.push(path.clone());
            }
            let node = Node {
                path,
                duplicates: &mut *self.duplicates,
            };
            map.insert(key, access.next_value_seed(node)?);
        }
        Ok(Value::Object(map))
    }
}

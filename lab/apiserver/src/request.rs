//! Requests as the logic sees them, and what their paths mean.
//!
//! Owns the parsing of paths, queries and media types. Knows neither sockets nor resources.

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;

use crate::status::Refusal;

/// A request with its body read.
#[derive(Debug, Clone)]
pub struct Request {
    /// HTTP method.
    pub method: Method,
    /// Percent-decoded path segments.
    pub segments: Vec<String>,
    /// Decoded query parameters, in order.
    pub query: Vec<(String, String)>,
    /// `Accept`, empty if absent.
    pub accept: String,
    /// `Content-Type`, empty if absent.
    pub content_type: String,
    /// `User-Agent`, empty if absent.
    pub user_agent: String,
    /// Body.
    pub body: Bytes,
    /// When it came in: the only clock that the logic knows.
    pub received: Timestamp,
}

impl Request {
    /// Reads the head of an HTTP request.
    #[must_use]
    pub fn new<B>(head: &http::Request<B>, body: Bytes, received: Timestamp) -> Self {
        let header = |name: http::HeaderName| {
            let values: Vec<&str> = head
                .headers()
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .collect();
            values.join(",")
        };
        let uri = head.uri();
        Self {
            method: head.method().clone(),
            segments: uri
                .path()
                .split('/')
                .filter(|segment| !segment.is_empty())
                .map(|segment| percent_decode(segment, false))
                .collect(),
            query: uri
                .query()
                .unwrap_or_default()
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (percent_decode(key, true), percent_decode(value, true))
                })
                .collect(),
            accept: header(http::header::ACCEPT),
            content_type: header(http::header::CONTENT_TYPE),
            user_agent: header(http::header::USER_AGENT),
            body,
            received,
        }
    }

    /// First value of a query parameter; an empty value is as if absent.
    #[must_use]
    pub fn param(&self, key: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(name, value)| name == key && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// A boolean query parameter.
    ///
    /// # Errors
    /// 400 if it is neither true nor false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Refusal> {
        match self.param(key) {
            None => Ok(None),
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(Some(true)),
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(Refusal::bad_request(format!(
                "{key}: {other:?} is not a boolean"
            ))),
        }
    }

    /// A numeric query parameter.
    ///
    /// # Errors
    /// 400 if it is not a number.
    pub fn number(&self, key: &str) -> Result<Option<u64>, Refusal> {
        self.param(key)
            .map(|text| {
                text.parse().map_err(|_| {
                    Refusal::bad_request(format!("{key}: invalid value {text:?}: not a number"))
                })
            })
            .transpose()
    }

    /// `Content-Type` without parameters, lower case.
    #[must_use]
    pub fn media_type(&self) -> String {
        self.content_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    }
}

fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = || -> Option<u8> {
            let digits = std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?;
            u8::from_str_radix(digits, 16).ok()
        };
        match (bytes[at], hex()) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (b'+', _) if plus_is_space => {
                decoded.push(b' ');
                at += 1;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A path below `/api/v1` or `/apis/<group>/<version>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourcePath {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Namespace, if the path has one.
    pub namespace: Option<String>,
    /// Plural of the resource.
    pub resource: String,
    /// Object name.
    pub name: Option<String>,
    /// Subresource.
    pub subresource: Option<String>,
    /// The deprecated `/watch/` prefix was used.
    pub watch: bool,
}

impl ResourcePath {
    /// Understands the segments of a path, if they are those of a resource.
    #[must_use]
    pub fn parse(segments: &[String]) -> Option<Self> {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (watch, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            _ => (false, rest),
        };
        // `namespaces/<name>` and its subresources are the object; anything longer is a scope.
        let (namespace, rest) = match rest {
            ["namespaces", name, tail @ ..]
                if !tail.is_empty() && !matches!(tail, ["status" | "finalize"]) =>
            {
                (Some((*name).to_owned()), tail)
            }
            _ => (None, rest),
        };
        let (resource, name, subresource) = match rest {
            [resource] => (*resource, None, None),
            [resource, name] => (*resource, Some(*name), None),
            [resource, name, subresource] => (*resource, Some(*name), Some(*subresource)),
            _ => return None,
        };
        Some(Self {
            group: group.into(),
            version: version.into(),
            namespace,
            resource: resource.into(),
            name: name.map(Into::into),
            subresource: subresource.map(Into::into),
            watch,
        })
    }
}

//! GET of objects and lists.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::api::Api;
use crate::request::Request;
use crate::resource::ResourceType;
use crate::selectors::{FieldSelector, LabelSelector};
use crate::status::Refusal;
use crate::store::ObjectKey;

/// One object.
///
/// # Errors
/// 404; 504 if a newer revision is asked for than there is.
pub fn get(
    api: &Api,
    resource: &ResourceType,
    key: &ObjectKey,
    request: &Request,
) -> Result<Arc<Value>, Refusal> {
    not_newer(api, revision(request)?)?;
    api.store
        .get(&resource.key(), key)
        .cloned()
        .ok_or_else(|| Refusal::not_found(resource.about(&key.name)))
}

/// A page of a list.
#[derive(Debug)]
pub struct List {
    /// Objects in key order.
    pub items: Vec<Arc<Value>>,
    /// Revision the list is consistent at.
    pub revision: u64,
    /// Token for the next page.
    pub continue_token: Option<String>,
    /// Objects after this page, if they were counted.
    pub remaining: Option<usize>,
}

/// The selectors of a list or watch request.
#[derive(Debug, Clone, Default)]
pub struct Selectors {
    /// Label selector.
    pub labels: LabelSelector,
    /// Field selector.
    pub fields: FieldSelector,
}

impl Selectors {
    /// Reads both from the query.
    ///
    /// # Errors
    /// 400 for what is not understood or not offered.
    pub fn read(request: &Request, resource: &ResourceType) -> Result<Self, Refusal> {
        Ok(Self {
            labels: LabelSelector::parse(request.param("labelSelector").unwrap_or_default())?,
            fields: FieldSelector::parse(
                request.param("fieldSelector").unwrap_or_default(),
                resource,
            )?,
        })
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object is selected.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }
}

/// `resourceVersion` of the query; `None` if unset, 0 meaning any.
///
/// # Errors
/// 400 if it is not a number.
pub fn revision(request: &Request) -> Result<Option<u64>, Refusal> {
    request
        .param("resourceVersion")
        .map(|text| {
            text.parse().map_err(|_| {
                Refusal::bad_request(format!(
                    "resourceVersion: Invalid value: {text:?}: not a number"
                ))
            })
        })
        .transpose()
}

fn not_newer(api: &Api, asked: Option<u64>) -> Result<(), Refusal> {
    match asked {
        Some(asked) if asked > api.store.revision() => {
            Err(Refusal::version_too_large(asked, api.store.revision()))
        }
        _ => Ok(()),
    }
}

/// Where the next page of a list begins.
struct Continue {
    revision: u64,
    after: ObjectKey,
}

impl Continue {
    /// Revision 0 marks a token for going on inconsistently, at whatever is current then.
    fn encode(&self) -> String {
        let token = json!([self.revision, self.after.namespace, self.after.name]);
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn decode(text: &str) -> Result<Self, Refusal> {
        let bad = || Refusal::bad_request("continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
        let token: (u64, String, String) = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        let (revision, namespace, name) = token;
        Ok(Self {
            revision,
            after: ObjectKey { namespace, name },
        })
    }
}

/// A list, or a page of it.
///
/// # Errors
/// 400 for options that contradict each other, 410 if the asked revision is no longer known, 504
/// if it is not yet.
pub fn list(
    api: &Api,
    resource: &ResourceType,
    namespace: Option<&str>,
    request: &Request,
) -> Result<List, Refusal> {
    let selectors = Selectors::read(request, resource)?;
    let asked = revision(request)?;
    let limit = request
        .number("limit")?
        .filter(|limit| *limit > 0)
        .and_then(|limit| usize::try_from(limit).ok());
    let token = request
        .param("continue")
        .map(Continue::decode)
        .transpose()?;
    let exact = match (request.param("resourceVersionMatch"), asked) {
        (None, _) => false,
        (Some(_), None) => {
            let why = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless \
                       resourceVersion is provided";
            return Err(Refusal::unprocessable(why));
        }
        (Some("Exact"), Some(0)) => {
            let why = "resourceVersionMatch: Forbidden: resourceVersionMatch \"Exact\" is \
                       forbidden for resourceVersion \"0\"";
            return Err(Refusal::unprocessable(why));
        }
        (Some("Exact"), _) => true,
        (Some("NotOlderThan"), _) => false,
        (Some(other), _) => {
            let why = format!("resourceVersionMatch: Unsupported value: {other:?}");
            return Err(Refusal::unprocessable(why));
        }
    };
    if token.is_some() && asked.is_some_and(|asked| asked != 0) {
        let why = "specifying resource version is not allowed when using continue";
        return Err(Refusal::bad_request(why));
    }
    not_newer(api, asked)?;
    let current = api.store.revision();
    let revision = match (&token, asked) {
        (Some(token), _) if token.revision > 0 => token.revision,
        // Without a match rule, a limit makes a revision exact (the legacy rule).
        (None, Some(asked))
            if asked > 0
                && (exact
                    || (limit.is_some() && request.param("resourceVersionMatch").is_none())) =>
        {
            asked
        }
        _ => current,
    };
    let objects = api.store.list_at(&resource.key(), revision).map_err(|_| {
        let mut refusal = match &token {
            Some(_) => Refusal::expired(
                "The provided continue parameter is too old to display a consistent list result. \
                 You can start a new list without the continue parameter, or use the continue \
                 token in this response to retrieve the remainder of the results.",
            ),
            None => Refusal::expired(format!("too old resource version: {revision} ({current})")),
        };
        refusal.continue_token = token.as_ref().map(|token| {
            Continue {
                revision: 0,
                after: token.after.clone(),
            }
            .encode()
        });
        refusal
    })?;
    let mut selected = objects
        .into_iter()
        .filter(|(key, _)| namespace.is_none_or(|namespace| key.namespace == namespace))
        .filter(|(key, _)| token.as_ref().is_none_or(|token| *key > token.after))
        .filter(|(_, object)| selectors.matches(object));
    let page: Vec<(ObjectKey, Arc<Value>)> = selected
        .by_ref()
        .take(limit.unwrap_or(usize::MAX))
        .collect();
    let remaining = selected.count();
    let last = page.last().map(|(key, _)| key.clone());
    Ok(List {
        items: page.into_iter().map(|(_, object)| object).collect(),
        revision,
        continue_token: last
            .filter(|_| remaining > 0)
            .map(|after| Continue { revision, after }.encode()),
        // With selectors the count would need all objects to be looked at; upstream omits it.
        remaining: (remaining > 0 && selectors.is_empty()).then_some(remaining),
    })
}

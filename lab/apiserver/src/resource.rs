//! What resources there are and what is known about each.
//!
//! Owns the registry; built-in entries come from [`crate::builtin`], custom ones from
//! [`crate::crd`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::schema::{Schema, cel};
use crate::status::About;
use crate::store::ResourceKey;
use crate::table::Column;

/// Whether a resource comes with the server or from a CRD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Comes with the server.
    Builtin,
    /// Declared by a CRD.
    Custom,
}

/// How names of a resource have to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// DNS-1123 subdomain, up to 253 characters.
    Subdomain,
    /// DNS-1123 label, up to 63 characters.
    Label,
    /// DNS-1035 label: as above, but does not begin with a digit.
    Label1035,
}

/// One resource in one served version.
#[derive(Debug)]
pub struct ResourceType {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind, e.g. `Pod`.
    pub kind: String,
    /// Kind of lists, e.g. `PodList`.
    pub list_kind: String,
    /// Plural, e.g. `pods`.
    pub plural: String,
    /// Singular, e.g. `pod`.
    pub singular: String,
    /// Short names, e.g. `po`.
    pub short_names: Vec<String>,
    /// Categories, e.g. `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether `/status` is a subresource, and so the only way to write `status`.
    pub has_status: bool,
    /// Origin.
    pub origin: Origin,
    /// Rule for names.
    pub name_rule: NameRule,
    /// Schema of the objects.
    pub schema: Arc<Schema>,
    /// Published OpenAPI schema (with descriptions), for custom resources.
    pub openapi: Option<Value>,
    /// CEL rules, if the schema has any.
    pub cel: Option<cel::Rules>,
    /// Columns of tables after the name.
    pub columns: Vec<Column>,
    /// Fields (dotted paths) usable in field selectors besides name and namespace.
    pub selectable_fields: Vec<String>,
}

impl ResourceType {
    /// Key in the store, without version.
    #[must_use]
    pub fn key(&self) -> ResourceKey {
        ResourceKey {
            group: self.group.clone(),
            resource: self.plural.clone(),
        }
    }

    /// `v1` or `group/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        join_group_version(&self.group, &self.version)
    }

    /// For refusals about one object.
    #[must_use]
    pub fn about(&self, name: &str) -> About {
        About::new(&self.group, &self.plural, name)
    }

    /// For `Invalid` refusals, which name the kind.
    #[must_use]
    pub fn about_kind(&self, name: &str) -> About {
        About::new(&self.group, &self.kind, name)
    }

    /// Whether this is the core resource with this plural.
    #[must_use]
    pub fn is_core(&self, plural: &str) -> bool {
        self.group.is_empty() && self.plural == plural
    }

    /// Whether this is the resource of CRDs.
    #[must_use]
    pub fn is_crd(&self) -> bool {
        self.group == "apiextensions.k8s.io" && self.plural == "customresourcedefinitions"
    }
}

/// `v1` for the core group, `group/v1` for others.
#[must_use]
pub fn join_group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.into()
    } else {
        format!("{group}/{version}")
    }
}

/// All resources served.
#[derive(Debug, Default)]
pub struct Registry {
    types: BTreeMap<(String, String, String), Arc<ResourceType>>,
    /// Changes with each change of the registry; part of the discovery ETag.
    generation: u64,
}

impl Registry {
    /// Adds or replaces a resource.
    pub fn insert(&mut self, resource: ResourceType) {
        let key = (
            resource.group.clone(),
            resource.version.clone(),
            resource.plural.clone(),
        );
        self.types.insert(key, Arc::new(resource));
        self.generation += 1;
    }

    /// Removes all versions of a resource.
    pub fn remove(&mut self, group: &str, plural: &str) {
        self.types.retain(|(g, _, p), _| g != group || p != plural);
        self.generation += 1;
    }

    /// Changes with each change of the registry.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// One resource in one version.
    #[must_use]
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<ResourceType>> {
        self.types
            .get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// All, ordered by group, version and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ResourceType>> {
        self.types.values()
    }

    /// A resource by group and kind, in any version.
    #[must_use]
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<&Arc<ResourceType>> {
        self.iter()
            .find(|resource| resource.group == group && resource.kind == kind)
    }

    /// Groups other than core, each with its versions, the preferred one first.
    #[must_use]
    pub fn groups(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (group, version, _) in self.types.keys().filter(|(group, _, _)| !group.is_empty()) {
            let versions = groups.entry(group).or_default();
            if !versions.contains(&version.as_str()) {
                versions.push(version);
            }
        }
        for versions in groups.values_mut() {
            versions.sort_by_key(|version| std::cmp::Reverse(version_priority(version)));
        }
        groups
    }
}

/// Order of versions: `v2` > `v1` > `v1beta2` > `v1beta1` > `v1alpha1` > anything else.
fn version_priority(version: &str) -> (u8, u32, u32) {
    let digits = |text: &str| text.parse::<u32>().ok();
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let parsed = if let Some(major) = digits(rest) {
        Some((3, major, 0))
    } else if let Some((major, minor)) = rest.split_once("beta") {
        digits(major)
            .zip(digits(minor))
            .map(|(major, minor)| (2, major, minor))
    } else if let Some((major, minor)) = rest.split_once("alpha") {
        digits(major)
            .zip(digits(minor))
            .map(|(major, minor)| (1, major, minor))
    } else {
        None
    };
    parsed.unwrap_or((0, 0, 0))
}

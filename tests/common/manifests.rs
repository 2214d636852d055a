//! The manifests of `deploy/`, read as the API server would.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Objects by kind and name, each read as its type.
pub(crate) struct Deployed(BTreeMap<(String, String), Value>);

impl Deployed {
    /// What `deploy/node.yaml` holds.
    pub(crate) fn node() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/node.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let keyed = objects.into_iter().map(|object| {
            let kind = object["kind"].as_str().unwrap().to_owned();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            ((kind, name), object)
        });
        Self(keyed.collect())
    }

    /// Kinds and names.
    pub(crate) fn names(&self) -> Vec<(&str, &str)> {
        let names = self.0.keys();
        names.map(|(kind, name)| (&**kind, &**name)).collect()
    }

    /// An object as `T`, which must know every field of it.
    pub(crate) fn read<T: DeserializeOwned + Serialize>(&self, kind: &str, name: &str) -> T {
        let object = &self.0[&(kind.to_owned(), name.to_owned())];
        let read: T = serde_json::from_value(object.clone()).unwrap();
        // A field that the type does not have would be lost on the way.
        assert_eq!(&serde_json::to_value(&read).unwrap(), object);
        read
    }
}

/// Whether rules let somebody do `verb` to `resource`, with its subresource where it has one.
pub(crate) fn allow(rules: &[PolicyRule], verb: &str, resource: &str) -> bool {
    rules.iter().any(|rule| {
        let resources = rule.resources.iter().flatten();
        rule.verbs.iter().any(|it| it == verb) && { resources }.any(|it| it == resource)
    })
}

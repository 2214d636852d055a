//! The CustomResourceDefinitions as objects and as YAML files.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{
    BgpConfiguration, BgpFilter, BgpPeer, IpBlock, IpBlockRequest, IpPool, NodeNetworkStatus,
};

/// Every definition, as it is to be installed.
pub fn all() -> Vec<CustomResourceDefinition> {
    [
        IpPool::crd(),
        IpBlock::crd(),
        IpBlockRequest::crd(),
        BgpConfiguration::crd(),
        BgpPeer::crd(),
        BgpFilter::crd(),
        NodeNetworkStatus::crd(),
    ]
    .into_iter()
    .map(with_kubernetes_formats)
    .collect()
}

/// File name of a definition under `deploy/crds/`, such as `caracal.dev_ippools.yaml`.
pub fn file_name(definition: &CustomResourceDefinition) -> String {
    format!(
        "{}_{}.yaml",
        definition.spec.group, definition.spec.names.plural
    )
}

/// The definition as a YAML document without a leading separator.
///
/// # Errors
/// When the serializer fails, which no definition of this crate makes it do.
pub fn yaml(definition: &CustomResourceDefinition) -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(definition)
}

/// Rust's unsigned integers get formats that Kubernetes does not know and warns about at each
/// install; their bounds are in `minimum` and `maximum` already.
fn with_kubernetes_formats(definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(&definition).expect("a definition is plain data");
    rewrite(&mut value);
    serde_json::from_value(value).expect("only format strings were changed")
}

fn rewrite(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(rewrite),
        Value::Object(fields) => {
            let known = match fields.get("format").and_then(Value::as_str) {
                Some("uint8" | "uint16" | "int8" | "int16") => Some("int32"),
                Some("uint32" | "uint64" | "uint") => Some("int64"),
                _ => None,
            };
            if let Some(known) = known {
                fields.insert("format".to_owned(), known.into());
            }
            fields.values_mut().for_each(rewrite);
        }
        _ => {}
    }
}

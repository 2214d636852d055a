//! Validation of object metadata.

use serde_json::Value;

use crate::names;
use crate::object;
use crate::resource::ResourceType;
use crate::status::Cause;

/// Largest total size of annotations, in bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Checks names, labels, annotations, owners and finalizers.
#[must_use]
pub fn check(resource: &ResourceType, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = object::name(object);
    if name.is_empty() {
        causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if let Some(why) = names::check(resource.name_rule, name) {
        causes.push(Cause::invalid(
            "metadata.name",
            &object["metadata"]["name"],
            why,
        ));
    }
    check_maps(object, &mut causes);
    check_owners(object, &mut causes);
    for finalizer in object::finalizers(object) {
        if !names::is_qualified_name(finalizer) {
            let why = "name part must consist of alphanumeric characters, '-', '_' or '.'";
            let value = Value::from(finalizer);
            causes.push(Cause::invalid("metadata.finalizers", &value, why));
        }
    }
    if let Some(old) = old
        && object::is_terminating(old)
    {
        let before = object::finalizers(old);
        let added: Vec<&str> = object::finalizers(object)
            .into_iter()
            .filter(|finalizer| !before.contains(finalizer))
            .collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers {added:?}"
            );
            causes.push(Cause::forbidden("metadata.finalizers", why));
        }
    }
    causes
}

fn check_maps(object: &Value, causes: &mut Vec<Cause>) {
    if let Some(labels) = object["metadata"]["labels"].as_object() {
        for (key, value) in labels {
            if !names::is_qualified_name(key) {
                let why = "name part must consist of alphanumeric characters, '-', '_' or '.', \
                           and must start and end with an alphanumeric character";
                causes.push(Cause::invalid(
                    "metadata.labels",
                    &Value::from(key.as_str()),
                    why,
                ));
            }
            if !value.as_str().is_some_and(names::is_label_value) {
                let why = "a valid label must be an empty string or consist of alphanumeric \
                           characters, '-', '_' or '.', and must start and end with an \
                           alphanumeric character";
                causes.push(Cause::invalid("metadata.labels", value, why));
            }
        }
    }
    if let Some(annotations) = object["metadata"]["annotations"].as_object() {
        let mut size = 0;
        for (key, value) in annotations {
            size += key.len() + value.as_str().unwrap_or_default().len();
            if !names::is_qualified_name(&key.to_ascii_lowercase()) {
                let why = "name part must consist of alphanumeric characters, '-', '_' or '.', \
                           and must start and end with an alphanumeric character";
                causes.push(Cause::invalid(
                    "metadata.annotations",
                    &Value::from(key.as_str()),
                    why,
                ));
            }
        }
        if size > MAX_ANNOTATIONS {
            causes.push(Cause {
                reason: "FieldValueTooLong",
                message: format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes"),
                field: "metadata.annotations".into(),
            });
        }
    }
}

fn check_owners(object: &Value, causes: &mut Vec<Cause>) {
    let Some(owners) = object["metadata"]["ownerReferences"].as_array() else {
        return;
    };
    let mut controllers = 0;
    for (index, owner) in owners.iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or_default().is_empty() {
                let path = format!("metadata.ownerReferences[{index}].{field}");
                causes.push(Cause::invalid(path, &owner[field], "must not be empty"));
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        let why = "Only one reference can have Controller set to true";
        let shown = Value::from("object");
        causes.push(Cause::invalid("metadata.ownerReferences", &shown, why));
    }
}

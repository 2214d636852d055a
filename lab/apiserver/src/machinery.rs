//! What follows from a write without a client asking: the work of the controllers that every
//! cluster has.
//!
//! Owns namespace deletion, garbage collection by owner references, and the taking up of CRDs. All
//! of it happens within the write that causes it, so that clients never see it half done.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::Api;
use crate::builtin::rules::PERMANENT_NAMESPACES;
use crate::crd;
use crate::crud::{FieldValidation, WriteOptions, delete, timestamp};
use crate::object;
use crate::resource::{Origin, ResourceType};
use crate::store::{ObjectKey, ResourceKey};

/// Finalizer of owners that are deleted in the foreground.
const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of owners whose dependents are to be kept.
const ORPHAN: &str = "orphan";

/// Store key of namespaces.
#[must_use]
pub fn namespaces() -> ResourceKey {
    ResourceKey {
        group: String::new(),
        resource: "namespaces".into(),
    }
}

fn server_options(now: Timestamp) -> WriteOptions {
    WriteOptions {
        now,
        dry_run: false,
        manager: "kube-apiserver".into(),
        field_validation: FieldValidation::Ignore,
        subresource: String::new(),
    }
}

impl Api {
    pub(crate) fn create_permanent_namespaces(&mut self, now: Timestamp) {
        for name in PERMANENT_NAMESPACES {
            let uid = self.identifiers.next_uid();
            let object = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {
                    "name": name, "uid": uid, "creationTimestamp": timestamp(now),
                    "labels": {"kubernetes.io/metadata.name": name},
                },
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            });
            self.store
                .put(&namespaces(), &ObjectKey::new("", name), object);
        }
    }

    /// Does what follows from an object having been stored; returns its newest state if it is
    /// another than the one stored.
    pub(crate) fn after_write(
        &mut self,
        resource: &ResourceType,
        key: &ObjectKey,
        now: Timestamp,
    ) -> Option<Arc<Value>> {
        let object = Arc::clone(self.store.get(&resource.key(), key)?);
        if resource.is_crd() {
            crd::take_up(self, &object, now);
        }
        if object::is_terminating(&object) {
            if resource.is_core("namespaces") {
                self.sweep_namespace(&key.name, now);
            }
            if resource.is_crd() {
                self.sweep_instances(&object, now);
            }
            self.release_owner(resource, key, now);
        } else {
            self.collect_if_dangling(resource, key, now);
        }
        self.store
            .get(&resource.key(), key)
            .cloned()
            .filter(|newest| *newest != object)
    }

    /// Removes an object for good, and does what follows from that.
    pub(crate) fn remove(&mut self, resource: &ResourceType, key: &ObjectKey, now: Timestamp) {
        let Some(gone) = self.store.remove(&resource.key(), key) else {
            return;
        };
        if resource.is_crd() {
            crd::drop_types(self, &gone);
        }
        self.collect_dependents(&gone, now);
        if object::is_terminating(&gone) || resource.namespaced {
            self.finish_terminating_parents(&gone, resource, now);
        }
    }

    fn sweep_namespace(&mut self, namespace: &str, now: Timestamp) {
        let key = ObjectKey::new("", namespace);
        for (resource, key) in
            self.objects_where(|resource, key, _| resource.namespaced && key.namespace == namespace)
        {
            self.delete_quietly(&resource, &key, now, Some(0));
        }
        self.finish_namespace(&key, now);
    }

    /// A terminating namespace goes with its last object.
    fn finish_namespace(&mut self, key: &ObjectKey, now: Timestamp) {
        let terminating = self
            .store
            .get(&namespaces(), key)
            .is_some_and(|object| object::is_terminating(object));
        let left = self
            .objects_where(|resource, other, _| resource.namespaced && other.namespace == key.name);
        if !terminating || !left.is_empty() {
            return;
        }
        let Some(mut object) = self
            .store
            .get(&namespaces(), key)
            .map(|object| (**object).clone())
        else {
            return;
        };
        object["spec"]["finalizers"] = json!([]);
        let held = !object::finalizers(&object).is_empty();
        self.store.put(&namespaces(), key, object);
        if !held && let Some(resource) = self.registry.get("", "v1", "namespaces").cloned() {
            self.remove(&resource, key, now);
        }
    }

    fn sweep_instances(&mut self, definition: &Value, now: Timestamp) {
        let (group, plural) = crd::group_and_plural(definition);
        for (resource, key) in self
            .objects_where(|resource, _, _| resource.group == group && resource.plural == plural)
        {
            self.delete_quietly(&resource, &key, now, None);
        }
        self.finish_definition(&group, &plural, now);
    }

    /// A terminating CRD goes with its last instance.
    fn finish_definition(&mut self, group: &str, plural: &str, now: Timestamp) {
        let Some(resource) = self
            .registry
            .get("apiextensions.k8s.io", "v1", "customresourcedefinitions")
            .cloned()
        else {
            return;
        };
        let key = ObjectKey::new("", &format!("{plural}.{group}"));
        let Some(object) = self.store.get(&resource.key(), &key).cloned() else {
            return;
        };
        let instances = ResourceKey {
            group: group.into(),
            resource: plural.into(),
        };
        if !object::is_terminating(&object) || self.store.list(&instances, None).next().is_some() {
            return;
        }
        let mut object = (*object).clone();
        remove_finalizer(&mut object, crd::CLEANUP_FINALIZER);
        let held = !object::finalizers(&object).is_empty();
        self.store.put(&resource.key(), &key, object);
        if !held {
            self.remove(&resource, &key, now);
        }
    }

    fn finish_terminating_parents(
        &mut self,
        gone: &Value,
        resource: &ResourceType,
        now: Timestamp,
    ) {
        if resource.namespaced {
            self.finish_namespace(&ObjectKey::new("", object::namespace(gone)), now);
        }
        if resource.origin == Origin::Custom {
            self.finish_definition(&resource.group, &resource.plural, now);
        }
        // Owners deleted in the foreground wait for the dependents that block them.
        for owner in owner_references(gone) {
            if let Some((resource, key)) = self.find_owner(owner, object::namespace(gone)) {
                self.release_owner(&resource, &key, now);
            }
        }
    }

    /// Takes the garbage collector's finalizers off a terminating owner once they are fulfilled.
    fn release_owner(&mut self, resource: &ResourceType, key: &ObjectKey, now: Timestamp) {
        let Some(owner) = self.store.get(&resource.key(), key).cloned() else {
            return;
        };
        if !object::is_terminating(&owner) {
            return;
        }
        let finalizers = object::finalizers(&owner);
        let (foreground, orphan) = (
            finalizers.contains(&FOREGROUND),
            finalizers.contains(&ORPHAN),
        );
        if !foreground && !orphan {
            return;
        }
        let uid = object::uid(&owner).to_owned();
        let dependents = self.dependents_of(&uid);
        if orphan {
            for (resource, key) in &dependents {
                self.drop_owner_reference(resource, key, &uid);
            }
        } else {
            for (resource, key) in &dependents {
                self.delete_quietly(resource, key, now, None);
            }
            let blocked = self.dependents_of(&uid).iter().any(|(resource, key)| {
                self.store
                    .get(&resource.key(), key)
                    .is_some_and(|dependent| {
                        owner_references(dependent)
                            .any(|owner| owner["uid"] == uid && owner["blockOwnerDeletion"] == true)
                    })
            });
            if blocked {
                return;
            }
        }
        let Some(owner) = self.store.get(&resource.key(), key).cloned() else {
            return;
        };
        let mut owner = (*owner).clone();
        remove_finalizer(&mut owner, if orphan { ORPHAN } else { FOREGROUND });
        let held = !object::finalizers(&owner).is_empty();
        self.store.put(&resource.key(), key, owner);
        if !held {
            self.remove(resource, key, now);
        }
    }

    /// Deletes what named the removed object as owner and has no other owner left.
    fn collect_dependents(&mut self, gone: &Value, now: Timestamp) {
        let uid = object::uid(gone);
        if uid.is_empty() {
            return;
        }
        for (resource, key) in self.dependents_of(uid) {
            let Some(dependent) = self.store.get(&resource.key(), &key).cloned() else {
                continue;
            };
            let others = owner_references(&dependent).any(|owner| {
                owner["uid"] != uid
                    && self
                        .find_owner(owner, object::namespace(&dependent))
                        .is_some()
            });
            if others {
                self.drop_owner_reference(&resource, &key, uid);
            } else {
                self.delete_quietly(&resource, &key, now, None);
            }
        }
    }

    /// An object whose owners are all gone when it is written is collected at once.
    fn collect_if_dangling(&mut self, resource: &ResourceType, key: &ObjectKey, now: Timestamp) {
        let Some(object) = self.store.get(&resource.key(), key).cloned() else {
            return;
        };
        let mut owners = owner_references(&object).peekable();
        if owners.peek().is_none() {
            return;
        }
        let namespace = object::namespace(&object);
        let dangling = owners.all(|owner| {
            let kind_known = self.owner_type(owner).is_some_and(|owner_type| {
                // A cluster-scoped dependent of a namespaced owner cannot be resolved: it is
                // never deleted.
                resource.namespaced || !owner_type.namespaced
            });
            kind_known && self.find_owner(owner, namespace).is_none()
        });
        if dangling {
            self.delete_quietly(resource, key, now, None);
        }
    }

    fn owner_type(&self, owner: &Value) -> Option<Arc<ResourceType>> {
        let api_version = owner["apiVersion"].as_str()?;
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.registry
            .by_kind(group, owner["kind"].as_str()?)
            .cloned()
    }

    /// The owner that a reference means; namespaced ones are looked up in the dependent's
    /// namespace, and another uid means another object.
    fn find_owner(&self, owner: &Value, namespace: &str) -> Option<(Arc<ResourceType>, ObjectKey)> {
        let resource = self.owner_type(owner)?;
        let namespace = if resource.namespaced { namespace } else { "" };
        let key = ObjectKey::new(namespace, owner["name"].as_str()?);
        let object = self.store.get(&resource.key(), &key)?;
        (object::uid(object) == owner["uid"]).then_some((resource, key))
    }

    fn dependents_of(&self, uid: &str) -> Vec<(Arc<ResourceType>, ObjectKey)> {
        self.objects_where(|_, _, object| owner_references(object).any(|owner| owner["uid"] == uid))
    }

    fn drop_owner_reference(&mut self, resource: &ResourceType, key: &ObjectKey, uid: &str) {
        let Some(object) = self.store.get(&resource.key(), key).cloned() else {
            return;
        };
        let mut object = (*object).clone();
        let owners: Vec<Value> = owner_references(&object)
            .filter(|owner| owner["uid"] != uid)
            .cloned()
            .collect();
        let owners = (!owners.is_empty()).then_some(Value::Array(owners));
        object::set_meta(&mut object, "ownerReferences", owners);
        self.store.put(&resource.key(), key, object);
    }

    fn objects_where(
        &self,
        wanted: impl Fn(&ResourceType, &ObjectKey, &Value) -> bool,
    ) -> Vec<(Arc<ResourceType>, ObjectKey)> {
        let mut found = Vec::new();
        let mut seen: Vec<ResourceKey> = Vec::new();
        for resource in self.registry.iter() {
            // Versions of a resource share its objects.
            if seen.contains(&resource.key()) {
                continue;
            }
            seen.push(resource.key());
            for (key, object) in self.store.list(&resource.key(), None) {
                if wanted(resource, key, object) {
                    found.push((Arc::clone(resource), key.clone()));
                }
            }
        }
        found
    }

    fn delete_quietly(
        &mut self,
        resource: &ResourceType,
        key: &ObjectKey,
        now: Timestamp,
        grace_period: Option<i64>,
    ) {
        let options = delete::DeleteOptions {
            grace_period,
            ..delete::DeleteOptions::background()
        };
        // The only refusals are "not found" and "may not be deleted": nothing is left to do.
        let _ = delete::delete(self, resource, key, &options, &server_options(now));
    }
}

fn owner_references(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
}

fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let kept: Vec<Value> = object::finalizers(object)
        .into_iter()
        .filter(|other| *other != finalizer)
        .map(Value::from)
        .collect();
    let kept = (!kept.is_empty()).then_some(Value::Array(kept));
    object::set_meta(object, "finalizers", kept);
}

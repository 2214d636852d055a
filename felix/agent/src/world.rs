//! The objects that the agent acts on, as last seen.
//!
//! Owns the list of watched kinds, what is kept of each object, and the question whether the view
//! is complete. Does not own how objects arrive (see [`crate::watch`]) nor what they mean.
//!
//! A kind is *covered* once its first list is complete, or once a snapshot that was written with it
//! covered is loaded. Until every kind is covered nothing may be deleted from the kernel or the
//! RIB: an object that is merely not here yet looks the same as one that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use caracal_crds::{BgpConfiguration, BgpFilter, BgpPeer, IpBlock, IpBlockRequest, IpPool};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use crate::prune;

/// Names an object among its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    /// Empty for an object without a namespace.
    pub(crate) namespace: String,
    /// `metadata.name`.
    pub(crate) name: String,
}

impl Key {
    /// The key of an object of a namespace.
    pub(crate) fn namespaced(namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object of the cluster.
    pub(crate) fn cluster(name: impl Into<String>) -> Key {
        Key {
            namespace: String::new(),
            name: name.into(),
        }
    }

    /// The key of `object`.
    pub(crate) fn of<K: ResourceExt>(object: &K) -> Key {
        Key {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// One step of one watch.
#[derive(Clone)]
pub(crate) enum TableChange<K> {
    /// The whole list: what is not in it is gone.
    Listed(Vec<K>),
    /// Added or modified.
    Applied(K),
    /// Gone.
    Deleted(Key),
}

impl<K: ResourceExt> fmt::Debug for TableChange<K> {
    /// Names only: an object may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableChange::Listed(objects) => {
                let keys = objects.iter().map(|object| Key::of(object).to_string());
                f.debug_list().entries(keys).finish()
            }
            TableChange::Applied(object) => write!(f, "{} applied", Key::of(object)),
            TableChange::Deleted(key) => write!(f, "{key} deleted"),
        }
    }
}

/// The objects of one kind, by the text of their [`Key`]: for objects without a namespace that is
/// their name.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Table<K>(BTreeMap<String, K>);

impl<K> fmt::Debug for Table<K> {
    /// Names only: an object may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<K> Default for Table<K> {
    fn default() -> Table<K> {
        Table(BTreeMap::new())
    }
}

impl<K: ResourceExt + PartialEq> Table<K> {
    /// The object of that key.
    pub(crate) fn get(&self, key: &Key) -> Option<&K> {
        self.0.get(&key.to_string())
    }

    /// Every object, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &K> {
        self.0.values()
    }

    /// The objects by the text of their keys.
    pub(crate) fn by_name(&self) -> &BTreeMap<String, K> {
        &self.0
    }

    fn put(&mut self, object: K, touched: &mut BTreeSet<Key>) {
        let key = Key::of(&object);
        let text = key.to_string();
        if self.0.get(&text) != Some(&object) {
            self.0.insert(text, object);
            touched.insert(key);
        }
    }

    fn remove(&mut self, key: Key, touched: &mut BTreeSet<Key>) {
        if self.0.remove(&key.to_string()).is_some() {
            touched.insert(key);
        }
    }

    fn apply(&mut self, change: TableChange<K>) -> BTreeSet<Key> {
        let mut touched = BTreeSet::new();
        match change {
            TableChange::Applied(object) => self.put(object, &mut touched),
            TableChange::Deleted(key) => self.remove(key, &mut touched),
            TableChange::Listed(objects) => {
                let listed: BTreeSet<Key> = objects.iter().map(Key::of).collect();
                let known: Vec<Key> = self.iter().map(Key::of).collect();
                for key in known.into_iter().filter(|key| !listed.contains(key)) {
                    self.remove(key, &mut touched);
                }
                for object in objects {
                    self.put(object, &mut touched);
                }
            }
        }
        touched
    }
}

/// A kind that can be watched: how to wrap its changes and what to leave out of its objects.
pub(crate) trait Watched: Sized {
    /// Which kind.
    const KIND: Kind;

    /// A change of this kind.
    fn change(change: TableChange<Self>) -> Change;

    /// Drops what nobody reads, so that changes of it (heartbeats, managed fields) are no changes.
    fn prune(&mut self);
}

macro_rules! kinds {
    ($($kind:ident $table:ident: $object:ty, $prune:path;)*) => {
        /// The watched kinds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub(crate) enum Kind {
            $(#[doc = concat!("See [`World::", stringify!($table), "`].")] $kind,)*
        }

        impl Kind {
            /// Every watched kind.
            pub(crate) const ALL: &[Kind] = &[$(Kind::$kind,)*];
        }

        /// One step of one watch, of any kind.
        #[derive(Clone, Debug)]
        #[expect(clippy::large_enum_variant, reason = "lives only from a channel to a table")]
        pub(crate) enum Change {
            $(#[doc = concat!("A change in [`World::", stringify!($table), "`].")]
            $kind(TableChange<$object>),)*
        }

        $(impl Watched for $object {
            const KIND: Kind = Kind::$kind;

            fn change(change: TableChange<Self>) -> Change {
                Change::$kind(change)
            }

            fn prune(&mut self) {
                $prune(self);
            }
        })*

        /// Everything seen.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        pub(crate) struct World {
            covered: BTreeSet<Kind>,
            $(
                #[doc = concat!("Objects of kind ", stringify!($kind), ".")]
                #[serde(default)]
                pub(crate) $table: Table<$object>,
            )*
        }

        impl World {
            /// Takes one change in and says which objects really differ now.
            pub(crate) fn apply(&mut self, change: Change) -> (Kind, BTreeSet<Key>) {
                match change {
                    $(Change::$kind(change) => {
                        if matches!(change, TableChange::Listed(_)) {
                            self.covered.insert(Kind::$kind);
                        }
                        (Kind::$kind, self.$table.apply(change))
                    })*
                }
            }
        }
    };
}

kinds! {
    Node nodes: Node, prune::node;
    Namespace namespaces: Namespace, prune::namespace;
    Pod pods: Pod, prune::pod;
    NetworkPolicy network_policies: NetworkPolicy, prune::metadata;
    IpPool ip_pools: IpPool, prune::metadata;
    IpBlock ip_blocks: IpBlock, prune::versioned;
    IpBlockRequest ip_block_requests: IpBlockRequest, prune::metadata;
    BgpConfiguration bgp_configurations: BgpConfiguration, prune::metadata;
    BgpPeer bgp_peers: BgpPeer, prune::metadata;
    BgpFilter bgp_filters: BgpFilter, prune::metadata;
    Secret secrets: Secret, prune::metadata;
}

impl World {
    /// Whether every kind is covered.
    pub(crate) fn complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// The kinds that are not covered yet. Secrets never are: only some of them are watched, and which
    /// follows from the other kinds.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL
            .iter()
            .copied()
            .filter(|kind| *kind != Kind::Secret && !self.covered.contains(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str, label: &str) -> Namespace {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "labels": {"tier": label}}
        }))
        .unwrap()
    }

    fn touched(world: &mut World, change: TableChange<Namespace>) -> Vec<String> {
        world
            .apply(Change::Namespace(change))
            .1
            .into_iter()
            .map(|key| key.name)
            .collect()
    }

    #[test]
    fn only_real_differences_count() {
        let mut world = World::default();
        let list = vec![namespace("b", "x"), namespace("a", "x")];
        assert_eq!(
            touched(&mut world, TableChange::Listed(list.clone())),
            ["a", "b"]
        );
        assert!(touched(&mut world, TableChange::Listed(list)).is_empty());
        assert!(touched(&mut world, TableChange::Applied(namespace("a", "x"))).is_empty());
        assert_eq!(
            touched(&mut world, TableChange::Applied(namespace("a", "y"))),
            ["a"]
        );
        let relist = vec![namespace("a", "y"), namespace("c", "x")];
        assert_eq!(touched(&mut world, TableChange::Listed(relist)), ["b", "c"]);
        assert_eq!(
            touched(&mut world, TableChange::Deleted(Key::cluster("a"))),
            ["a"]
        );
        assert!(touched(&mut world, TableChange::Deleted(Key::cluster("a"))).is_empty());
    }

    #[test]
    fn an_empty_list_covers_a_kind_and_a_single_object_does_not() {
        let mut world = World::default();
        world.apply(Change::Namespace(TableChange::Applied(namespace("a", "x"))));
        assert!(world.missing().any(|kind| kind == Kind::Namespace));
        world.apply(Change::Namespace(TableChange::Listed(Vec::new())));
        assert!(!world.missing().any(|kind| kind == Kind::Namespace));
        assert!(!world.complete());
    }
}

//! The object store: what is, and the recent past that watches and paged lists need.
//!
//! Owns the one revision counter of all resources, the objects and a bounded ring of events per
//! resource. Does not look into objects except for `metadata.resourceVersion`, which it writes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

/// Events kept per resource; a watch that asks for an older revision gets 410.
///
/// Large enough for every write of a whole demo run, small enough that tests can outrun it.
pub const DEFAULT_HISTORY: usize = 4096;

/// A resource as the store knows it: group and plural, shared by all served versions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// API group, empty for core.
    pub group: String,
    /// Plural name.
    pub resource: String,
}

/// An object within a resource. `namespace` is empty for cluster-scoped ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// A key from its two parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was made.
    Added,
    /// It was changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// One write.
#[derive(Debug, Clone)]
pub struct Event {
    /// Revision of the write.
    pub revision: u64,
    /// What it did.
    pub change: Change,
    /// Which object.
    pub key: ObjectKey,
    /// The object after the write; for [`Change::Deleted`] its last state at this revision.
    pub object: Arc<Value>,
    /// The object before the write.
    pub previous: Option<Arc<Value>>,
}

/// The asked revision is older than the history kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOld {
    /// Revision of the newest event already dropped.
    pub floor: u64,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<ObjectKey, Arc<Value>>,
    events: VecDeque<Event>,
    /// Revision of the newest event that was dropped from `events`.
    floor: u64,
}

/// All objects of all resources.
#[derive(Debug)]
pub struct Store {
    revision: u64,
    history: usize,
    buckets: BTreeMap<ResourceKey, Bucket>,
}

impl Store {
    /// An empty store that keeps `history` events per resource.
    #[must_use]
    pub fn new(history: usize) -> Self {
        // Revision 0 means "any" in requests, so the counter starts at 1.
        Self {
            revision: 1,
            history: history.max(1),
            buckets: BTreeMap::new(),
        }
    }

    /// Revision of the newest write of any resource.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One object.
    #[must_use]
    pub fn get(&self, resource: &ResourceKey, key: &ObjectKey) -> Option<&Arc<Value>> {
        self.buckets.get(resource)?.objects.get(key)
    }

    /// Objects of a resource in key order, of one namespace or of all.
    pub fn list<'a>(
        &'a self,
        resource: &ResourceKey,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<Value>)> {
        self.buckets
            .get(resource)
            .into_iter()
            .flat_map(|bucket| bucket.objects.iter())
            .filter(move |(key, _)| namespace.is_none_or(|wanted| key.namespace == wanted))
    }

    /// The objects of a resource as they were at `revision`.
    ///
    /// # Errors
    /// [`TooOld`] if the history no longer reaches back so far.
    pub fn list_at(
        &self,
        resource: &ResourceKey,
        revision: u64,
    ) -> Result<BTreeMap<ObjectKey, Arc<Value>>, TooOld> {
        let Some(bucket) = self.buckets.get(resource) else {
            return Ok(BTreeMap::new());
        };
        if revision < bucket.floor {
            return Err(TooOld {
                floor: bucket.floor,
            });
        }
        let mut objects = bucket.objects.clone();
        for event in bucket
            .events
            .iter()
            .rev()
            .take_while(|event| event.revision > revision)
        {
            match &event.previous {
                Some(previous) => objects.insert(event.key.clone(), Arc::clone(previous)),
                None => objects.remove(&event.key),
            };
        }
        Ok(objects)
    }

    /// Events of a resource strictly after `revision`, oldest first.
    ///
    /// # Errors
    /// [`TooOld`] if events after `revision` were already dropped.
    pub fn events_after(
        &self,
        resource: &ResourceKey,
        revision: u64,
    ) -> Result<impl Iterator<Item = &Event>, TooOld> {
        let bucket = self.buckets.get(resource);
        if let Some(bucket) = bucket
            && revision < bucket.floor
        {
            return Err(TooOld {
                floor: bucket.floor,
            });
        }
        Ok(bucket.into_iter().flat_map(move |bucket| {
            let start = bucket
                .events
                .partition_point(|event| event.revision <= revision);
            bucket.events.range(start..)
        }))
    }

    /// Stores an object under `key`, new or replacing, and returns it with its resourceVersion.
    pub fn put(&mut self, resource: &ResourceKey, key: &ObjectKey, object: Value) -> Arc<Value> {
        self.revision += 1;
        let object = Arc::new(stamped(object, self.revision));
        let bucket = self.buckets.entry(resource.clone()).or_default();
        let previous = bucket.objects.insert(key.clone(), Arc::clone(&object));
        let change = if previous.is_some() {
            Change::Modified
        } else {
            Change::Added
        };
        let event = Event {
            revision: self.revision,
            change,
            key: key.clone(),
            object: Arc::clone(&object),
            previous,
        };
        bucket.record(event, self.history);
        object
    }

    /// Removes an object; returns its last state, stamped with the revision of the removal.
    pub fn remove(&mut self, resource: &ResourceKey, key: &ObjectKey) -> Option<Arc<Value>> {
        let bucket = self.buckets.get_mut(resource)?;
        let previous = bucket.objects.remove(key)?;
        self.revision += 1;
        let object = Arc::new(stamped((*previous).clone(), self.revision));
        let event = Event {
            revision: self.revision,
            change: Change::Deleted,
            key: key.clone(),
            object: Arc::clone(&object),
            previous: Some(previous),
        };
        bucket.record(event, self.history);
        Some(object)
    }

    /// Drops all history: whoever asks for an older revision than now gets 410.
    pub fn compact(&mut self) {
        // Compaction itself is a revision of its own, so that even a client that has seen the
        // newest write is too old.
        self.revision += 1;
        for bucket in self.buckets.values_mut() {
            bucket.events.clear();
            bucket.floor = self.revision;
        }
    }
}

impl Bucket {
    fn record(&mut self, event: Event, history: usize) {
        self.events.push_back(event);
        while self.events.len() > history {
            if let Some(dropped) = self.events.pop_front() {
                self.floor = dropped.revision;
            }
        }
    }
}

fn stamped(mut object: Value, revision: u64) -> Value {
    object["metadata"]["resourceVersion"] = json!(revision.to_string());
    object
}

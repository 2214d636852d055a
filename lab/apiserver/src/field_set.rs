//! Sets of field paths: who owns which fields of an object.
//!
//! Owns the set algebra and the `FieldsV1` wire form of structured-merge-diff v4. Which manager
//! owns which set is [`crate::managed_fields`]'s.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::schema::{ListType, Schema};

/// One step of a field path, in its `FieldsV1` spelling.
///
/// The spelling is canonical (`f:name`, `k:{"name":"x"}` with sorted keys, `v:value`), so text
/// comparison is step comparison.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step(String);

impl Step {
    /// An object key.
    #[must_use]
    pub fn field(name: &str) -> Self {
        Self(format!("f:{name}"))
    }

    /// An element of a list of type map, identified by its keys.
    #[must_use]
    pub fn key(element: &Value, keys: &[String], schema: Option<&Schema>) -> Self {
        let identity: Map<String, Value> = keys
            .iter()
            .filter_map(|key| key_value(element, key, schema).map(|value| (key.clone(), value)))
            .collect();
        Self(format!("k:{}", Value::Object(identity)))
    }

    /// An element of a list of type set.
    #[must_use]
    pub fn value(element: &Value) -> Self {
        Self(format!("v:{element}"))
    }

    fn shown(&self) -> String {
        match self.0.split_once(':') {
            Some(("f", name)) => format!(".{name}"),
            Some(("k", identity)) => {
                let parts: Vec<String> = serde_json::from_str::<Map<String, Value>>(identity)
                    .unwrap_or_default()
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                format!("[{}]", parts.join(","))
            }
            Some(("v", value)) => format!("[={value}]"),
            _ => format!("[{}]", self.0),
        }
    }
}

/// The value of a key field, or its default.
fn key_value(element: &Value, key: &str, schema: Option<&Schema>) -> Option<Value> {
    element
        .get(key)
        .cloned()
        .or_else(|| schema.and_then(|schema| schema.properties.get(key)?.default.clone()))
}

/// A set of paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSet {
    /// The path that ends here is in the set.
    member: bool,
    children: BTreeMap<Step, FieldSet>,
}

impl FieldSet {
    /// A set of just the empty path.
    #[must_use]
    pub fn leaf() -> Self {
        Self {
            member: true,
            children: BTreeMap::new(),
        }
    }

    /// Whether there is no path in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// Adds everything of `other`.
    pub fn union(&mut self, other: &Self) {
        self.member |= other.member;
        for (step, set) in &other.children {
            self.children.entry(step.clone()).or_default().union(set);
        }
    }

    /// Removes everything that is in `other`.
    pub fn subtract(&mut self, other: &Self) {
        if other.member {
            self.member = false;
        }
        for (step, set) in &other.children {
            if let Some(mine) = self.children.get_mut(step) {
                mine.subtract(set);
            }
        }
        self.children.retain(|_, set| !set.is_empty());
    }

    /// Removes everything at and below the paths of `other`.
    pub fn subtract_below(&mut self, other: &Self) {
        if other.member {
            *self = Self::default();
            return;
        }
        for (step, set) in &other.children {
            if let Some(mine) = self.children.get_mut(step) {
                mine.subtract_below(set);
            }
        }
        self.children.retain(|_, set| !set.is_empty());
    }

    /// Paths that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self {
            member: self.member && other.member,
            children: BTreeMap::new(),
        };
        for (step, set) in &self.children {
            if let Some(theirs) = other.children.get(step) {
                let inner = set.intersection(theirs);
                if !inner.is_empty() {
                    both.children.insert(step.clone(), inner);
                }
            }
        }
        both
    }

    /// The set below one step.
    #[must_use]
    pub fn child(&self, step: &Step) -> Option<&Self> {
        self.children.get(step)
    }

    /// Whether the path of this node itself is in the set.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.member
    }

    /// Puts a set below one step.
    pub fn insert(&mut self, step: Step, set: Self) {
        if !set.is_empty() {
            self.children.entry(step).or_default().union(&set);
        }
    }

    /// Marks the node itself as a path of the set.
    pub fn insert_self(&mut self) {
        self.member = true;
    }

    /// Removes a whole branch, named by object keys.
    pub fn remove_branch(&mut self, path: &[&str]) {
        match path {
            [] => *self = Self::default(),
            [first, rest @ ..] => {
                let step = Step::field(first);
                if let Some(set) = self.children.get_mut(&step) {
                    set.remove_branch(rest);
                    if set.is_empty() {
                        self.children.remove(&step);
                    }
                }
            }
        }
    }

    /// Keeps nothing but a branch, named by object keys.
    pub fn keep_branches(&mut self, names: &[&str]) {
        let kept: Vec<Step> = names.iter().map(|name| Step::field(name)).collect();
        self.children.retain(|step, _| kept.contains(step));
    }

    /// All paths as texts such as `.spec.ports[port=80].name`.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.collect(String::new(), &mut all);
        all
    }

    fn collect(&self, path: String, all: &mut Vec<String>) {
        for (step, set) in &self.children {
            set.collect(format!("{path}{}", step.shown()), all);
        }
        if self.member {
            all.push(path);
        }
    }

    /// Wire form.
    #[must_use]
    pub fn to_fields_v1(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (step, set) in &self.children {
            map.insert(step.0.clone(), set.to_fields_v1());
        }
        Value::Object(map)
    }

    /// From wire form.
    #[must_use]
    pub fn from_fields_v1(value: &Value) -> Self {
        fn node(value: &Value) -> FieldSet {
            let Some(map) = value.as_object().filter(|map| !map.is_empty()) else {
                return FieldSet::leaf();
            };
            let mut set = FieldSet {
                member: map.contains_key("."),
                children: BTreeMap::new(),
            };
            for (key, inner) in map.iter().filter(|(key, _)| *key != ".") {
                set.children.insert(Step(key.clone()), node(inner));
            }
            set
        }
        if value.as_object().is_none_or(Map::is_empty) {
            Self::default()
        } else {
            node(value)
        }
    }

    /// The fields that a manager of exactly this object owns.
    #[must_use]
    pub fn of(value: &Value, schema: Option<&Schema>) -> Self {
        let mut set = Self::default();
        match shape(value, schema) {
            Shape::Leaf => set.member = true,
            Shape::Map(map) => {
                for (key, value) in map {
                    let inner = schema.and_then(|schema| schema.field(key));
                    let mut below = Self::of(value, inner);
                    // Keys of maps (unlike those of structs) are owned themselves.
                    let is_struct =
                        schema.is_some_and(|schema| schema.properties.contains_key(key));
                    let empty = value.as_object().is_some_and(Map::is_empty) || value.is_null();
                    if (!is_struct && schema.is_some()) || empty {
                        below.member = true;
                    }
                    set.insert(Step::field(key), below);
                }
            }
            Shape::List(list) => {
                let element_schema = schema.and_then(Schema::element);
                for (step, element) in list {
                    let mut below = Self::of(element, element_schema);
                    if step.0.starts_with("v:") {
                        below = Self::leaf();
                    }
                    below.member = true;
                    set.insert(step, below);
                }
            }
        }
        set
    }
}

/// How a value is owned: as a whole, per key, or per element.
#[derive(Debug)]
pub enum Shape<'a> {
    /// As one value.
    Leaf,
    /// Per key.
    Map(&'a Map<String, Value>),
    /// Per element, with the step that names it.
    List(Vec<(Step, &'a Value)>),
}

/// Decides how a value is owned. Without schema, objects are granular and lists atomic.
#[must_use]
pub fn shape<'a>(value: &'a Value, schema: Option<&Schema>) -> Shape<'a> {
    match value {
        Value::Object(map) => {
            if schema.is_some_and(|schema| schema.atomic_map) {
                Shape::Leaf
            } else {
                Shape::Map(map)
            }
        }
        Value::Array(list) => match schema.map(|schema| &schema.list_type) {
            Some(ListType::Set) => Shape::List(
                list.iter()
                    .map(|value| (Step::value(value), value))
                    .collect(),
            ),
            Some(ListType::Map(keys)) => {
                let element = schema.and_then(Schema::element);
                Shape::List(
                    list.iter()
                        .map(|value| (Step::key(value, keys, element), value))
                        .collect(),
                )
            }
            _ => Shape::Leaf,
        },
        _ => Shape::Leaf,
    }
}

/// What changed from one object to another.
#[derive(Debug, Default)]
pub struct Difference {
    /// Paths that were not there, or have another value.
    pub changed: FieldSet,
    /// Paths that are gone.
    pub removed: FieldSet,
}

/// Compares two objects path by path.
#[must_use]
pub fn difference(old: &Value, new: &Value, schema: Option<&Schema>) -> Difference {
    let mut result = Difference::default();
    compare(
        Some(old),
        Some(new),
        schema,
        &mut result.changed,
        &mut result.removed,
    );
    result
}

fn compare(
    old: Option<&Value>,
    new: Option<&Value>,
    schema: Option<&Schema>,
    changed: &mut FieldSet,
    removed: &mut FieldSet,
) {
    match (old, new) {
        (None, None) => {}
        (Some(old), Some(new)) if old == new => {}
        (None, Some(new)) => {
            changed.union(&whole(new, schema));
        }
        (Some(old), None) => {
            removed.union(&whole(old, schema));
        }
        (Some(old), Some(new)) => match (shape(old, schema), shape(new, schema)) {
            (Shape::Map(before), Shape::Map(after)) => {
                let keys: std::collections::BTreeSet<&String> =
                    before.keys().chain(after.keys()).collect();
                for key in keys {
                    let inner = schema.and_then(|schema| schema.field(key));
                    let step = Step::field(key);
                    descend(
                        before.get(key),
                        after.get(key),
                        inner,
                        step,
                        changed,
                        removed,
                    );
                }
            }
            (Shape::List(before), Shape::List(after)) => {
                let inner = schema.and_then(Schema::element);
                let steps: std::collections::BTreeSet<&Step> =
                    before.iter().chain(&after).map(|(step, _)| step).collect();
                for step in steps {
                    let find = |list: &[(Step, &Value)]| {
                        list.iter()
                            .find(|(other, _)| other == step)
                            .map(|(_, value)| (*value).clone())
                    };
                    let (old, new) = (find(&before), find(&after));
                    descend(
                        old.as_ref(),
                        new.as_ref(),
                        inner,
                        step.clone(),
                        changed,
                        removed,
                    );
                }
            }
            _ => {
                changed.member = true;
            }
        },
    }
}

fn descend(
    old: Option<&Value>,
    new: Option<&Value>,
    schema: Option<&Schema>,
    step: Step,
    changed: &mut FieldSet,
    removed: &mut FieldSet,
) {
    let (mut inner_changed, mut inner_removed) = (FieldSet::default(), FieldSet::default());
    compare(old, new, schema, &mut inner_changed, &mut inner_removed);
    changed.insert(step.clone(), inner_changed);
    removed.insert(step, inner_removed);
}

/// All paths of a value that came or went, its own included.
fn whole(value: &Value, schema: Option<&Schema>) -> FieldSet {
    let mut set = FieldSet::of(value, schema);
    set.member = true;
    for (step, inner) in &mut set.children {
        if step.0.starts_with("f:") && !inner.children.is_empty() {
            inner.member = true;
        }
    }
    set
}

//! Faults that a server can be told to show.
//!
//! Owns the rules and which request they hit; showing them is [`crate::server`]'s.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Which requests a fault hits. Unset fields match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// The user agent contains this.
    pub user_agent: Option<String>,
    /// Verb: get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: Option<String>,
    /// Plural of the resource, e.g. `pods`.
    pub resource: Option<String>,
}

impl Target {
    /// Requests of one client.
    #[must_use]
    pub fn client(user_agent: impl Into<String>) -> Self {
        Self {
            user_agent: Some(user_agent.into()),
            ..Self::default()
        }
    }

    /// Requests on one resource.
    #[must_use]
    pub fn resource(resource: impl Into<String>) -> Self {
        Self {
            resource: Some(resource.into()),
            ..Self::default()
        }
    }

    /// Restricts it to one verb.
    #[must_use]
    pub fn verb(mut self, verb: impl Into<String>) -> Self {
        self.verb = Some(verb.into());
        self
    }

    fn matches(&self, user_agent: &str, verb: &str, resource: &str) -> bool {
        self.user_agent
            .as_ref()
            .is_none_or(|part| user_agent.contains(part.as_str()))
            && self.verb.as_ref().is_none_or(|wanted| wanted == verb)
            && self
                .resource
                .as_ref()
                .is_none_or(|wanted| wanted == resource)
    }
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed without an answer; running watches end without a word.
    Partition,
    /// The answer comes later.
    Delay(Duration),
    /// 410 as HTTP status, for watches.
    Gone,
    /// 410 inside a watch, after which it ends. Hits running watches, too.
    GoneInBand,
    /// 429 with `Retry-After` in seconds.
    TooManyRequests(u32),
    /// 403, as where no Role allows it.
    Forbidden,
    /// The request is carried out, and answered with 504.
    TimeoutAfterWrite,
    /// Watches stay open and say nothing any more.
    Stall,
}

#[derive(Debug, Clone)]
struct Rule {
    id: u64,
    target: Target,
    fault: Fault,
    /// How often it still strikes; `None` means until it is lifted.
    left: Option<u32>,
}

#[derive(Debug, Default)]
struct Rules {
    next_id: u64,
    rules: Vec<Rule>,
}

/// The faults of a server. Clones are handles to the same rules.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    rules: Arc<Mutex<Rules>>,
    changed: Arc<tokio::sync::Notify>,
}

/// Names a fault so that it can be lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultId(u64);

impl Faults {
    /// Makes requests of a kind go wrong until the fault is lifted.
    pub fn inject(&self, target: Target, fault: Fault) -> FaultId {
        self.add(target, fault, None)
    }

    /// Makes the next `count` requests of a kind go wrong.
    pub fn inject_times(&self, target: Target, fault: Fault, count: u32) -> FaultId {
        self.add(target, fault, Some(count))
    }

    /// Ends a fault. One that has worn off already is no error.
    pub fn lift(&self, id: FaultId) {
        self.lock().rules.retain(|rule| rule.id != id.0);
        self.changed.notify_waiters();
    }

    /// Ends all faults.
    pub fn clear(&self) {
        self.lock().rules.clear();
        self.changed.notify_waiters();
    }

    fn add(&self, target: Target, fault: Fault, left: Option<u32>) -> FaultId {
        let mut rules = self.lock();
        rules.next_id += 1;
        let id = rules.next_id;
        rules.rules.push(Rule {
            id,
            target,
            fault,
            left,
        });
        drop(rules);
        self.changed.notify_waiters();
        FaultId(id)
    }

    /// The faults that hit a request; counted ones wear off by it.
    pub(crate) fn strike(&self, user_agent: &str, verb: &str, resource: &str) -> Vec<Fault> {
        let mut rules = self.lock();
        let mut struck = Vec::new();
        for rule in &mut rules.rules {
            if rule.target.matches(user_agent, verb, resource) {
                struck.push(rule.fault.clone());
                if let Some(left) = &mut rule.left {
                    *left -= 1;
                }
            }
        }
        rules.rules.retain(|rule| rule.left != Some(0));
        struck
    }

    /// The lasting faults that hit a watch that is already running.
    pub(crate) fn on_running_watch(&self, user_agent: &str, resource: &str) -> Vec<Fault> {
        let rules = self.lock();
        rules
            .rules
            .iter()
            .filter(|rule| {
                rule.left.is_none() && rule.target.matches(user_agent, "watch", resource)
            })
            .map(|rule| rule.fault.clone())
            .collect()
    }

    /// Resolves when rules change. Take it before looking at the rules.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    fn lock(&self) -> MutexGuard<'_, Rules> {
        // A panic elsewhere cannot leave the rules half written.
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

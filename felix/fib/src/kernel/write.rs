//! Turns planned writes into messages, sends them, and notes what the kernel said.
//!
//! Owns the flags of each request and the tracing of a refusal to its first cause. Does not own the
//! order of writes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::{FibWork, WriteOutcome};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use super::plan::{Actual, InstalledTarget, Op};
use super::resolve::Hop;
use crate::error::{Refusal, Result};
use crate::rtnl::Rtnl;
use crate::rtnl::message::Message;
use crate::rtnl::nexthop::NexthopMessage;
use crate::rtnl::objects::{RouteSpec, RouteTarget};
use crate::{METRIC_BGP, PROTOCOL_BGP};

/// What the kernel refused.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Next hops, with the reason.
    pub(super) hops: Vec<(Hop, String)>,
    /// Routes, with the reason: that of their group or next hop where those were refused.
    pub(super) routes: BTreeMap<Prefix, String>,
    /// Some object could not be written for a reason that lies in our picture of the kernel.
    pub(super) objects: bool,
}

impl Failures {
    pub(super) fn is_empty(&self) -> bool {
        self.hops.is_empty() && self.routes.is_empty() && !self.objects
    }
}

/// Writes `ops` in order and notes in `actual` those that the kernel acknowledged; in `work`, how long
/// it took.
pub(super) fn write(
    rtnl: &mut Rtnl,
    actual: &mut Actual,
    ops: &[Op],
    work: &FibWork,
) -> Result<Failures> {
    if ops.is_empty() {
        return Ok(Failures::default());
    }
    let begun = Instant::now();
    let written = send(rtnl, actual, ops);
    let outcome = match &written {
        Ok(failures) if failures.is_empty() => WriteOutcome::Acknowledged,
        Ok(_) => WriteOutcome::Refused,
        Err(_) => WriteOutcome::Failed,
    };
    work.wrote(outcome, begun.elapsed());
    written
}

fn send(rtnl: &mut Rtnl, actual: &mut Actual, ops: &[Op]) -> Result<Failures> {
    let mut failures = Failures::default();
    let requests: Vec<(Message, u16)> = ops.iter().map(|op| request(op, actual)).collect();
    let outcomes = rtnl.batch(&requests)?;
    let mut causes: BTreeMap<u32, String> = BTreeMap::new();
    for (op, outcome) in ops.iter().zip(outcomes) {
        match outcome {
            Ok(()) => actual.apply(op),
            Err(refusal) if is_done_already(op, &refusal) => actual.apply(op),
            Err(refusal) => failures.note(op, &refusal, actual, &mut causes),
        }
    }
    if !failures.is_empty() {
        let (hops, routes) = (failures.hops.len(), failures.routes.len());
        tracing::warn!(hops, routes, "the kernel refused writes");
    }
    Ok(failures)
}

impl Failures {
    fn note(
        &mut self,
        op: &Op,
        refusal: &Refusal,
        actual: &mut Actual,
        causes: &mut BTreeMap<u32, String>,
    ) {
        match op {
            // Another program took the number after we listed the objects.
            Op::AddHop { id, .. } if refusal.errno == libc::EEXIST => {
                actual.taken.insert(*id);
                self.objects = true;
                causes.insert(*id, format!("next-hop number {id} is taken"));
            }
            Op::AddHop { id, hop } => {
                let why = format!("kernel refuses next hop {}: {refusal}", hop.gateway);
                causes.insert(*id, why.clone());
                self.hops.push((*hop, why));
            }
            Op::PutGroup { id, members, .. } => {
                self.objects = true;
                let first = members.iter().find_map(|member| causes.get(member));
                let why = first
                    .cloned()
                    .unwrap_or_else(|| format!("kernel refuses next-hop group: {refusal}"));
                causes.insert(*id, why);
            }
            Op::PutRoute { prefix, route } => {
                let cause = match route.target {
                    InstalledTarget::Object(id) => causes.get(&id).cloned(),
                    _ => None,
                };
                let why = cause.unwrap_or_else(|| format!("kernel refuses route: {refusal}"));
                self.routes.insert(*prefix, why);
            }
            Op::DeleteRoute { prefix } => {
                let why = format!("kernel refuses to delete the route: {refusal}");
                self.routes.insert(*prefix, why);
            }
            Op::DeleteObject { .. } => self.objects = true,
        }
    }
}

/// Whether a refusal to delete means that there is nothing to delete.
fn is_done_already(op: &Op, refusal: &Refusal) -> bool {
    match op {
        Op::DeleteRoute { .. } => refusal.errno == libc::ESRCH,
        Op::DeleteObject { .. } => refusal.errno == libc::ENOENT,
        _ => false,
    }
}

fn request(op: &Op, actual: &Actual) -> (Message, u16) {
    let object = |id: &u32| NexthopMessage {
        id: Some(*id),
        ..NexthopMessage::default()
    };
    match op {
        Op::AddHop { id, hop } => {
            let family = if hop.gateway.is_ipv4() {
                libc::AF_INET
            } else {
                libc::AF_INET6
            };
            let message = NexthopMessage {
                family: family as u8,
                protocol: PROTOCOL_BGP,
                gateway: Some(hop.gateway),
                interface: Some(hop.interface),
                ..object(id)
            };
            // EXCL: a number that another program took is never overwritten.
            (Message::NewNexthop(message), NLM_F_CREATE | NLM_F_EXCL)
        }
        Op::PutGroup {
            id,
            members,
            exists,
        } => {
            let message = NexthopMessage {
                protocol: PROTOCOL_BGP,
                members: members.iter().copied().collect(),
                ..object(id)
            };
            let how = if *exists { NLM_F_REPLACE } else { NLM_F_EXCL };
            (Message::NewNexthop(message), NLM_F_CREATE | how)
        }
        Op::PutRoute { prefix, route } => {
            let target = match route.target {
                InstalledTarget::Object(id) => RouteTarget::Object(id),
                InstalledTarget::Blackhole => RouteTarget::Blackhole,
                InstalledTarget::Other => RouteTarget::Any,
            };
            let spec = spec(*prefix, target, route.source);
            // Where nothing of ours lies, nothing may be replaced: another program may have been
            // there first since we looked.
            let how = match actual.slot(prefix) {
                Some(_) => NLM_F_REPLACE,
                None => NLM_F_EXCL,
            };
            (spec.add(), NLM_F_CREATE | how)
        }
        Op::DeleteRoute { prefix } => (spec(*prefix, RouteTarget::Any, None).delete(), 0),
        Op::DeleteObject { id } => (Message::DelNexthop(object(id)), 0),
    }
}

fn spec(prefix: Prefix, target: RouteTarget, source: Option<std::net::IpAddr>) -> RouteSpec {
    RouteSpec {
        prefix,
        protocol: PROTOCOL_BGP,
        metric: METRIC_BGP,
        target,
        source,
    }
}

/// The first wait after a refusal. A link that has just come up needs some milliseconds before the
/// kernel finds its neighbours.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// Waits double up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How long to wait after `attempts` refusals in a row.
pub(super) fn backoff(attempts: u32) -> Duration {
    LONGEST_WAIT.min(FIRST_WAIT * 2_u32.saturating_pow(attempts.min(16)))
}

/// Next hops that the kernel refused: left out of their groups for a while.
#[derive(Debug, Default)]
pub(super) struct Rejections {
    hops: BTreeMap<Hop, Rejection>,
}

#[derive(Debug)]
struct Rejection {
    why: String,
    attempts: u32,
    /// `None` while it is being tried again.
    until: Option<Instant>,
}

impl Rejections {
    pub(super) fn add(&mut self, now: Instant, hop: Hop, why: String) {
        let attempts = self.hops.get(&hop).map_or(0, |before| before.attempts + 1);
        let until = Some(now + backoff(attempts));
        let rejection = Rejection {
            why,
            attempts,
            until,
        };
        self.hops.insert(hop, rejection);
    }

    pub(super) fn contains(&self, hop: &Hop) -> bool {
        self.hops
            .get(hop)
            .is_some_and(|found| found.until.is_some())
    }

    pub(super) fn why(&self, hop: &Hop) -> Option<&str> {
        self.hops.get(hop).map(|found| found.why.as_str())
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.hops.values().filter_map(|found| found.until).min()
    }

    /// Lets next hops be tried again whose time is over; whether there are any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut any = false;
        for rejection in self.hops.values_mut() {
            if rejection.until.is_some_and(|until| until <= now) {
                rejection.until = None;
                any = true;
            }
        }
        any
    }

    /// Forgets what was refused on a link: after a change of the link everything is new.
    pub(super) fn forget_link(&mut self, index: u32) {
        self.hops.retain(|hop, _| hop.interface != index);
    }
}

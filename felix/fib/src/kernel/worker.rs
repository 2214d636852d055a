//! The thread that keeps the kernel's routes as they should be.
//!
//! Owns the loop: hear the kernel, take the mail, compare, write, answer. Does not own what to write
//! ([`super::plan`]) nor where next hops are ([`super::resolve`], [`super::reach`]).

mod answers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::{FibChange, FibEvent, FibWork};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

use super::drift::Disturbances;
use super::mailbox::{Mail, Mailbox, Wake};
use super::observe::{self, Observation};
use super::plan::{Actual, Desired, GroupKey, Planner, Route, Scope, Target};
use super::reach::{Reach, Underlay};
use super::resolve::{Topology, Transition, Way};
use super::tracked::Tracked;
use super::write::{Rejections, backoff, write};
use super::{FibOptions, PreferredSource};
use crate::error::Result;
use crate::netns::Netns;
use crate::rtnl::{Heard, Monitor, Rtnl};
use answers::family_mismatch;

/// The kernel tells of a link that is set down before it removes what used the link; a second look
/// after this long sees what the first may have missed.
const SECOND_LOOK: Duration = Duration::from_millis(100);

/// Before the kernel is asked again after a socket failed.
const RETRY: Duration = Duration::from_secs(5);

/// Notifications read before mail is looked at: a flood must not keep the speaker waiting.
const DATAGRAMS_PER_TURN: usize = 1024;

pub(super) struct Worker {
    rtnl: Rtnl,
    monitor: Monitor,
    mailbox: Arc<Mailbox>,
    wake: Wake,
    outlets: Outlets,
    resync_interval: Duration,

    /// What the speaker wants, by prefix; a removal only until it is answered.
    requests: BTreeMap<Prefix, Request>,
    blackholes: BTreeSet<Prefix>,
    preferred_source: PreferredSource,

    desired: Desired,
    actual: Actual,
    /// When `actual` was last listed from the kernel.
    listed: SystemTime,
    planner: Planner,
    topology: Topology,
    underlay: Underlay,
    /// Next hops that are reached over routes, or would be if there were any.
    further_away: BTreeSet<IpAddr>,
    /// Next hops of which the speaker wants to know where they lead.
    tracked: Tracked,
    rejections: Rejections,
    disturbances: Disturbances,
    /// Ways on which packets are lost, by the speaker's word.
    lost: BTreeSet<Way>,

    agenda: Agenda,
    /// How many writes in a row the kernel refused.
    refusals: u32,
}

/// Where the worker reports.
pub(super) struct Outlets {
    pub(super) events: mpsc::Sender<FibEvent>,
    pub(super) work: Arc<FibWork>,
}

#[derive(Debug)]
struct Request {
    /// `None` asks for the route's removal.
    next_hops: Option<GroupKey>,
    seq: u64,
    told: Told,
}

/// What the speaker heard last about a request.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Installed,
    Failed(String),
}

/// What the next turn has to look at.
#[derive(Debug)]
struct Agenda {
    /// Routes to compare.
    prefixes: BTreeSet<Prefix>,
    /// Every route is to be compared.
    everything: bool,
    /// Next hops are to be resolved again.
    resolve: bool,
    /// When to list everything anew.
    resync_at: Instant,
}

impl Worker {
    pub(super) fn open(
        netns: &Netns,
        options: FibOptions,
        mailbox: Arc<Mailbox>,
        wake: Wake,
        outlets: Outlets,
    ) -> Result<Self> {
        // Listening begins before reading: what changes in between is heard, not missed.
        let monitor = Monitor::open_in(netns)?;
        let mut rtnl = Rtnl::open_in(netns)?;
        let topology = observe::read_topology(&mut rtnl)?;
        let (actual, underlay) = observe::read_back(&mut rtnl)?;
        let now = Instant::now();
        let mut worker = Self {
            rtnl,
            monitor,
            mailbox,
            wake,
            outlets,
            resync_interval: options.resync_interval,
            requests: BTreeMap::new(),
            blackholes: BTreeSet::new(),
            preferred_source: options.preferred_source,
            desired: Desired::default(),
            actual,
            listed: SystemTime::now(),
            planner: Planner::default(),
            topology,
            underlay,
            further_away: BTreeSet::new(),
            tracked: Tracked::default(),
            rejections: Rejections::default(),
            disturbances: Disturbances::default(),
            lost: BTreeSet::new(),
            agenda: Agenda {
                prefixes: BTreeSet::new(),
                everything: false,
                resolve: false,
                resync_at: now + options.resync_interval,
            },
            refusals: 0,
        };
        worker.set_blackholes(options.blackholes);
        Ok(worker)
    }

    /// How many routes of ours were found at the start.
    pub(super) fn inherited(&self) -> usize {
        self.actual.ours()
    }

    pub(super) fn run(mut self) {
        loop {
            if let Err(error) = self.turn() {
                tracing::error!(%error, "kernel routes may differ until the next comparison");
                self.agenda.resync_at = Instant::now() + RETRY;
            }
            let mail = self.mailbox.take();
            if mail.closed {
                return;
            }
            self.read_mail(mail);
            if !self.agenda.is_due(Instant::now()) {
                self.wait();
            }
        }
    }

    /// One round: hear, compare, write, answer.
    fn turn(&mut self) -> Result<()> {
        self.listen()?;
        let now = Instant::now();
        if self.rejections.expire(now) {
            self.agenda.resolve = true;
        }
        let resync = now >= self.agenda.resync_at;
        if resync {
            self.read_back()?;
        }
        let resolve = std::mem::take(&mut self.agenda.resolve);
        if resolve {
            self.resolve_groups();
        }
        if resolve || self.tracked.wake().is_some_and(|wake| wake <= now) {
            self.tell_where_next_hops_lead(now);
        }
        self.reconcile(now)?;
        if resync {
            self.tell(FibEvent::Resynced);
        }
        Ok(())
    }

    fn wait(&mut self) {
        let now = Instant::now();
        let mut until = self.agenda.resync_at;
        if let Some(expiry) = self.rejections.next_expiry() {
            until = until.min(expiry);
        }
        if let Some(wake) = self.tracked.wake() {
            until = until.min(wake);
        }
        // Rounded up: a timeout of 0 ms would spin until the instant is reached.
        let rest = until.saturating_duration_since(now) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX);
        let mut ready = [
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.monitor.as_fd(), PollFlags::POLLIN),
        ];
        if let Err(errno) = poll(&mut ready, timeout)
            && errno != Errno::EINTR
        {
            tracing::error!(error = %errno, "cannot wait for the kernel");
        }
        self.wake.quiet();
    }

    fn read_mail(&mut self, mail: Mail) {
        if let Some(source) = mail.preferred_source
            && source != self.preferred_source
        {
            self.preferred_source = source;
            self.want_everything();
        }
        if let Some(blackholes) = mail.blackholes {
            self.set_blackholes(blackholes);
        }
        if !mail.tracked.is_empty() {
            self.tracked.set(Instant::now(), mail.tracked);
            self.agenda.resolve = true;
        }
        for (prefix, FibChange { route, seq, .. }) in mail.changes {
            let next_hops = route.map(|route| route.next_hops);
            for next_hop in next_hops.iter().flat_map(|next_hops| next_hops.iter()) {
                // The speaker has chosen it since.
                if !self.lost.is_empty() && self.lost.remove(&Way::of(next_hop)) {
                    self.agenda.resolve = true;
                }
            }
            let told = Told::Nothing;
            let request = Request {
                next_hops,
                seq,
                told,
            };
            self.requests.insert(prefix, request);
            self.want(prefix);
        }
        if !mail.lost.is_empty() {
            self.lost.extend(mail.lost);
            self.agenda.resolve = true;
        }
        for (prefix, answer) in mail.looks {
            // Whoever asked may have given up.
            let _ = answer.send(self.look(&prefix));
        }
        if mail.initial_sync_complete {
            self.desired.complete();
            self.agenda.resync_at = Instant::now();
        }
    }

    fn set_blackholes(&mut self, blackholes: BTreeSet<Prefix>) {
        let before = std::mem::replace(&mut self.blackholes, blackholes);
        let changed: Vec<Prefix> = before
            .symmetric_difference(&self.blackholes)
            .copied()
            .collect();
        for prefix in changed {
            self.want(prefix);
        }
    }

    /// Works out what should be at a prefix.
    fn want(&mut self, prefix: Prefix) {
        let source = self
            .preferred_source
            .for_prefix(&prefix)
            .filter(|&source| self.topology.has_address(source));
        let request = self.requests.get(&prefix);
        let next_hops = request.and_then(|request| request.next_hops.clone());
        let dropped = next_hops.as_ref().is_some_and(|key| key.is_empty());
        let route = if dropped || self.blackholes.contains(&prefix) {
            // IPv4 could name a source for it, but nothing is ever sent.
            Some(Route {
                target: Target::Blackhole,
                source: None,
            })
        } else {
            next_hops
                .filter(|key| family_mismatch(&prefix, key).is_none())
                .map(|key| Route {
                    target: Target::Group(key),
                    source,
                })
        };
        if let Some(Route {
            target: Target::Group(key),
            ..
        }) = &route
            && self.desired.members(key).is_none()
        {
            self.agenda.resolve = true;
        }
        self.desired.set(prefix, route);
        self.agenda.prefixes.insert(prefix);
        self.agenda.resolve |= self.holds_next_hops(&prefix);
    }

    /// Whether a route to `prefix` may lead to next hops.
    fn holds_next_hops(&self, prefix: &Prefix) -> bool {
        let mut from_there = self.further_away.range(prefix.addr()..);
        let first = from_there.next();
        first.is_some_and(|address| prefix.contains_addr(*address))
    }

    fn want_everything(&mut self) {
        let all: Vec<Prefix> = self.requests.keys().copied().collect();
        for prefix in all {
            self.want(prefix);
        }
    }

    /// Reads what has happened. Losses of links are told at once, before anything is repaired.
    fn listen(&mut self) -> Result<()> {
        for _ in 0..DATAGRAMS_PER_TURN {
            match self.monitor.read()? {
                Heard::Nothing => return Ok(()),
                Heard::Lost => {
                    tracing::warn!("the kernel dropped notifications; comparing everything");
                    self.agenda.resync_at = Instant::now();
                }
                Heard::Changes(changes) => {
                    let port = self.rtnl.port();
                    for change in changes {
                        let (actual, underlay) = (&mut self.actual, &mut self.underlay);
                        let observation = observe::observe(actual, underlay, change, port);
                        self.take_in(observation);
                    }
                }
            }
        }
        Ok(())
    }

    fn take_in(&mut self, observation: Observation) {
        match observation {
            Observation::Nothing => {}
            Observation::LinkIs(link) => {
                let (ifindex, name) = (link.index, link.name.clone());
                match self.topology.set_link(link) {
                    Transition::None => {}
                    Transition::Up => {
                        self.link_changed(ifindex);
                        self.tell(FibEvent::LinkUp { ifindex, name });
                    }
                    Transition::Down => {
                        self.tell(FibEvent::LinkDown { ifindex, name });
                        self.link_changed(ifindex);
                    }
                    Transition::Flapped => {
                        let lost = name.clone();
                        self.tell(FibEvent::LinkDown {
                            ifindex,
                            name: lost,
                        });
                        self.tell(FibEvent::LinkUp { ifindex, name });
                        self.link_changed(ifindex);
                    }
                }
            }
            Observation::LinkGone(index) => {
                if let Some(link) = self.topology.remove_link(index) {
                    if link.is_usable() {
                        self.tell(FibEvent::LinkDown {
                            ifindex: index,
                            name: link.name,
                        });
                    }
                    self.link_changed(index);
                }
            }
            Observation::AddressAdded(address) => {
                if self.topology.add_address(address) {
                    self.agenda.resolve = true;
                    self.source_changed(address.address);
                }
            }
            Observation::AddressRemoved(address) => {
                if self.topology.remove_address(&address) {
                    self.agenda.resolve = true;
                    self.source_changed(address.address);
                }
            }
            Observation::RouteChanged { prefix, before } => {
                self.disturbances.route(prefix, before);
                self.agenda.prefixes.insert(prefix);
                self.agenda.resolve |= self.holds_next_hops(&prefix);
            }
            Observation::OthersChanged(prefix) => {
                self.agenda.resolve |= self.holds_next_hops(&prefix);
            }
            Observation::ObjectChanged => self.agenda.resync_at = Instant::now(),
        }
    }

    /// The kernel drops next hops, group members and routes on single next hops when their link
    /// loses its carrier, says nothing, and brings nothing back: everything is to be listed again.
    fn link_changed(&mut self, index: u32) {
        self.rejections.forget_link(index);
        self.agenda.resolve = true;
        if self.actual.hops.values().any(|hop| hop.interface == index) {
            self.disturbances.unsettled = true;
            self.agenda.resync_at = Instant::now();
        }
    }

    /// With an address, the kernel silently drops the IPv4 routes that have it as their source.
    fn source_changed(&mut self, address: IpAddr) {
        let PreferredSource { v4, v6 } = self.preferred_source;
        if v4.is_some_and(|source| address == source) || v6.is_some_and(|source| address == source)
        {
            self.want_everything();
            self.disturbances.unsettled = true;
            self.agenda.resync_at = Instant::now();
        }
    }

    fn read_back(&mut self) -> Result<()> {
        let links_before: Vec<u32> = self
            .topology
            .links()
            .filter(|link| link.is_usable())
            .map(|link| link.index)
            .collect();
        let topology = observe::read_topology(&mut self.rtnl)?;
        let (mut actual, underlay) = observe::read_back(&mut self.rtnl)?;
        actual.inherit_ownership(&self.actual);
        let lost_objects = actual.hops.len() < self.actual.hops.len();
        let before = std::mem::replace(&mut self.actual, actual);
        self.listed = SystemTime::now();
        self.underlay = underlay;
        self.replace_topology(topology);
        self.disturbances.listed(before);
        let lost_links = links_before.iter().any(|index| {
            !self
                .topology
                .links()
                .any(|link| link.index == *index && link.is_usable())
        });
        let now = Instant::now();
        let next = if lost_links || lost_objects {
            SECOND_LOOK
        } else {
            self.disturbances.unsettled = false;
            self.resync_interval
        };
        self.agenda.resync_at = now + next;
        self.agenda.everything = true;
        self.agenda.resolve = true;
        Ok(())
    }

    /// Takes over a new listing, and tells of links whose change was not heard.
    fn replace_topology(&mut self, new: Topology) {
        let gone: Vec<u32> = self
            .topology
            .links()
            .map(|link| link.index)
            .filter(|index| !new.links().any(|link| link.index == *index))
            .collect();
        for index in gone {
            self.take_in(Observation::LinkGone(index));
        }
        let links: Vec<_> = new.links().cloned().collect();
        for link in links {
            self.take_in(Observation::LinkIs(link));
        }
        self.topology = new;
    }

    /// Finds the members of each group. Routes are compared again where a group begins or ceases to
    /// have any; else the group changes under them.
    fn resolve_groups(&mut self) {
        let mut emptied_or_filled = false;
        self.further_away.clear();
        let (mut on_links, mut over_routes) = (Vec::new(), Vec::new());
        for key in self.desired.keys() {
            let further_away: Vec<IpAddr> = self.reach().further_away(&key).collect();
            if further_away.is_empty() {
                on_links.push(key);
            } else {
                self.further_away.extend(further_away);
                over_routes.push(key);
            }
        }
        let tracked = self.tracked.next_hops();
        let far: Vec<IpAddr> = tracked
            .filter_map(|next_hop| self.reach().is_further_away(next_hop))
            .collect();
        self.further_away.extend(far);
        // What is reached over routes of ours goes where those go now.
        for key in on_links.into_iter().chain(over_routes) {
            let reached = key
                .iter()
                .filter_map(|next_hop| self.reach().resolve(next_hop).ok());
            let members: BTreeSet<_> = reached
                .flatten()
                .filter(|hop| !self.rejections.contains(hop))
                .collect();
            let before = self.desired.members(&key);
            emptied_or_filled |= before.is_none_or(BTreeSet::is_empty) != members.is_empty();
            self.desired.set_members(&key, members);
        }
        self.agenda.everything |= emptied_or_filled;
    }

    /// The groups have their members.
    fn tell_where_next_hops_lead(&mut self, now: Instant) {
        let mut tracked = std::mem::take(&mut self.tracked);
        let news = tracked.judge(now, |next_hop| self.reach().reachability(next_hop));
        self.tracked = tracked;
        for (next_hop, reachability) in news {
            self.tell(FibEvent::Reached {
                next_hop,
                reachability,
            });
        }
    }

    fn reach(&self) -> Reach<'_> {
        Reach {
            topology: &self.topology,
            underlay: &self.underlay,
            desired: &self.desired,
            lost: &self.lost,
        }
    }

    fn reconcile(&mut self, now: Instant) -> Result<()> {
        let mut prefixes = std::mem::take(&mut self.agenda.prefixes);
        let everything = std::mem::take(&mut self.agenda.everything);
        let scope = if everything {
            Scope::All
        } else {
            Scope::Only(&prefixes)
        };
        self.disturbances
            .judge(&self.desired, &self.planner, &self.actual);
        let ops = self.planner.plan(&self.desired, &self.actual, scope);
        let work = &self.outlets.work;
        let failures = write(&mut self.rtnl, &mut self.actual, &ops, work)?;
        let ops = self.planner.plan_cleanup(&self.desired, &self.actual);
        write(&mut self.rtnl, &mut self.actual, &ops, work)?;
        self.disturbances
            .settle(&self.desired, &self.planner, &self.actual, work);
        for (hop, why) in &failures.hops {
            self.rejections.add(now, *hop, why.clone());
        }
        if failures.is_empty() {
            self.refusals = 0;
        } else {
            let retry = now + backoff(self.refusals);
            self.agenda.resync_at = self.agenda.resync_at.min(retry);
            self.refusals += 1;
        }
        if everything {
            prefixes.extend(self.requests.keys());
        }
        if !failures.hops.is_empty() {
            // The routes go at once over what is left of their groups; that decides the answer.
            self.agenda.resolve = true;
            for prefix in failures.routes.keys() {
                prefixes.remove(prefix);
                self.agenda.prefixes.insert(*prefix);
            }
        }
        for prefix in prefixes {
            self.answer(prefix, failures.routes.get(&prefix));
        }
        Ok(())
    }
}

impl Agenda {
    fn is_due(&self, now: Instant) -> bool {
        self.everything || self.resolve || !self.prefixes.is_empty() || now >= self.resync_at
    }
}

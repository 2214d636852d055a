//! One cell: a router and a feature, from two empty namespaces to the last comparison.
//!
//! Owns the course that all cells take (routes compared on both sides after establishing, after a change and after
//! a restart) and what each side should have of the other's routes. What a feature adds is in [`crate::course`].

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use caracal_bgp_core::types::Family;
use caracal_lab::namespace::Namespace;
use caracal_lab::process::Process;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::arena::{self, Arena, DEADLINE, run, source, their_source, until};
use crate::daemons::{Daemon, Place};
use crate::ours::{Ours, ROUTER, Standing};
use crate::route::{Route, difference};
use crate::scripted::{Identity, Scripted};
use crate::setup::{OUR_ASN, OUR_ID, Setup, THEIR_ID};
use crate::tap::Tap;

/// Everything of one cell, ended by dropping it.
pub(crate) struct Cell<'a> {
    pub(crate) arena: &'a Arena,
    pub(crate) setup: Setup,
    pub(crate) daemon: &'a dyn Daemon,
    pub(crate) place: Place,
    pub(crate) ours: Ours<'a>,
    pub(crate) tap: Tap,
    running: Vec<Process>,
    /// What we originate.
    own: Vec<Route>,
    pub(crate) our_sources: Vec<Source>,
    pub(crate) their_sources: Vec<Source>,
}

/// A scripted speaker and what it tells, without next hops.
pub(crate) struct Source {
    pub(crate) speaker: Option<Scripted>,
    told: Vec<Route>,
    number: u8,
    ours: bool,
    internal: bool,
}

impl Source {
    /// Makes `routes` all that it tells.
    fn tell(&mut self, routes: &[Route]) {
        self.told = routes
            .iter()
            .map(|route| {
                let family = route.family();
                let next_hop = if self.internal {
                    arena::third_party(family)
                } else {
                    self.address(family)
                };
                route.clone().via(next_hop)
            })
            .collect();
        if let Some(speaker) = &self.speaker {
            speaker.tell(&self.told);
        }
    }

    fn address(&self, family: Family) -> std::net::IpAddr {
        if self.ours {
            source(self.number, family)
        } else {
            their_source(self.number, family)
        }
    }
}

impl<'a> Cell<'a> {
    /// Both sides are configured, and nothing runs yet.
    pub(crate) fn new(
        arena: &'a Arena,
        daemon: &'a dyn Daemon,
        setup: Setup,
        own: Vec<Route>,
    ) -> Self {
        let place = Place::of(arena);
        daemon.configure(&place, &setup);
        let mut cell = Self {
            arena,
            daemon,
            place,
            ours: Ours::new(arena, &setup, &own),
            tap: Tap::start(&arena.ours),
            running: Vec::new(),
            own,
            our_sources: Vec::new(),
            their_sources: Vec::new(),
            setup,
        };
        cell.our_sources = cell.sources(true);
        cell.their_sources = cell.sources(false);
        cell
    }

    fn sources(&self, ours: bool) -> Vec<Source> {
        let setup = &self.setup;
        let (count, asn, remote, remote_asn) = if ours {
            let remote = arena::OURS_TO_SOURCES;
            (setup.our_sources, setup.source_asn(), remote, OUR_ASN)
        } else {
            let remote = arena::THEIRS_TO_SOURCES;
            let asn = setup.their_source_asn();
            (setup.their_sources, asn, remote, setup.their_asn())
        };
        let source = |number| {
            let mut source = Source {
                speaker: None,
                told: Vec::new(),
                number,
                ours,
                internal: asn == remote_asn,
            };
            if ours || self.daemon.forwards() {
                let identity = Identity {
                    asn,
                    address: source.address(Family::Ipv4Unicast),
                    remote: remote.into(),
                    remote_asn,
                };
                source.speaker = Some(Scripted::start(&self.arena.elsewhere, identity));
            }
            source
        };
        (1..=count).map(source).collect()
    }

    /// Makes `ours` all that our sources tell us, and `theirs` all that the router's tell it; one list for each.
    pub(crate) fn tell(&mut self, ours: &[Vec<Route>], theirs: &[Vec<Route>]) {
        assert_eq!(ours.len(), self.our_sources.len());
        assert_eq!(theirs.len(), self.their_sources.len());
        for (source, routes) in self.our_sources.iter_mut().zip(ours) {
            source.tell(routes);
        }
        for (source, routes) in self.their_sources.iter_mut().zip(theirs) {
            source.tell(routes);
        }
        if !self.daemon.forwards() {
            let routes = self.theirs_at_us();
            self.daemon.tell(&self.place, &self.setup, &routes);
        }
    }

    /// Starts both sides.
    pub(crate) fn start(&mut self) {
        self.start_router(false);
        self.ours.start();
    }

    pub(crate) fn start_router(&mut self, again: bool) {
        let (place, setup) = (&self.place, &self.setup);
        self.daemon.start(place, setup, again, &mut self.running);
    }

    /// Ends the router's BGP.
    pub(crate) fn end_router(&mut self, signal: Signal) {
        for mut process in self.running.drain(self.daemon.stays()..) {
            process.signal(signal);
            process.wait(DEADLINE).unwrap();
        }
    }

    /// Restarts the router as a service manager does, and waits for its next session.
    pub(crate) fn restart_router(&mut self) {
        let before = self.ours.peer(ROUTER).unwrap().established_count;
        self.end_router(Signal::SIGTERM);
        self.start_router(false);
        self.session_after(before);
    }

    /// Waits for a session with the router after the `before`th.
    pub(crate) fn session_after(&self, before: u64) {
        until("another session", || {
            let peer = self.ours.settled(&self.setup.families)?;
            if peer.established_count > before {
                Ok(())
            } else {
                Err(format!("{peer:#?}"))
            }
        });
    }

    /// Waits until both sides have all of the other's routes as they should be, and the kernels too.
    pub(crate) fn agree(&self, when: &str) {
        let (ours, theirs) = (self.ours_at_router(), self.theirs_at_us());
        assert!(!ours.is_empty() && !theirs.is_empty());
        until(&format!("{when}: the session"), || {
            self.ours.settled(&self.setup.families)
        });
        for source in self.our_sources.iter().chain(&self.their_sources) {
            if let Some(speaker) = &source.speaker {
                until(&format!("{when}: the sources"), || speaker.settled());
            }
        }
        until(&format!("{when}: its routes at us"), || {
            let told = self.told()?;
            let bad = told.iter().find(|(_, s)| s.stale || s.rejected.is_some());
            if let Some((route, standing)) = bad {
                return Err(format!("{route:?} {standing:?}"));
            }
            let seen: Vec<Route> = told.into_iter().map(|(route, _)| route).collect();
            difference(&theirs, &without_ids(seen)).map_or(Ok(()), Err)
        });
        until(&format!("{when}: our routes at it"), || {
            let seen = self.daemon.told(&self.place, &self.setup)?;
            difference(&ours, &without_ids(seen)).map_or(Ok(()), Err)
        });
        until(&format!("{when}: our kernel"), || {
            let linked = arena::THEIRS_LINK_LOCAL;
            in_kernel(&self.arena.ours, &theirs, linked, &self.setup)
        });
        if self.daemon.has_kernel() {
            until(&format!("{when}: its kernel"), || {
                let linked = arena::OURS_LINK_LOCAL;
                in_kernel(&self.arena.theirs, &ours, linked, &self.setup)
            });
        }
    }

    /// What the router has told us, without its echo of our own routes where it has that habit.
    pub(crate) fn told(&self) -> Result<Vec<(Route, Standing)>, String> {
        let mut told = self.ours.told_by(ROUTER)?;
        if self.daemon.echoes() {
            told.retain(|(route, path)| !self.is_echo(route, path));
        }
        Ok(told)
    }

    /// Whether a path that the router told is one that we told it, refused for that reason.
    fn is_echo(&self, route: &Route, path: &Standing) -> bool {
        let loops = [
            "our AS is in its path",
            "ORIGINATOR_ID is ours",
            "our cluster",
        ];
        let why = path.rejected.as_deref().unwrap_or_default();
        let ours = self.ours_at_router();
        loops.iter().any(|reason| why.contains(reason))
            && ours.iter().any(|told| told.prefix == route.prefix)
    }

    /// What the router should have from us.
    pub(crate) fn ours_at_router(&self) -> Vec<Route> {
        let setup = &self.setup;
        let mut routes = Vec::new();
        for route in &self.own {
            let mut route = route.clone().via(setup.our_next_hop(route.family()));
            if setup.internal {
                route.local_pref = Some(100);
            } else {
                route = route.through(OUR_ASN);
            }
            routes.push(route);
        }
        for source in &self.our_sources {
            routes.extend(source.told.iter().filter_map(|route| {
                let next_hop = setup.our_next_hop(route.family());
                let internal = setup.internal_sources;
                let id = source.address(Family::Ipv4Unicast).to_string();
                passed_on(
                    route,
                    setup.internal,
                    internal,
                    OUR_ASN,
                    next_hop,
                    &id,
                    OUR_ID,
                )
            }));
        }
        routes.retain(|route| setup.families.contains(&route.family()));
        routes
    }

    /// What we should have from the router.
    pub(crate) fn theirs_at_us(&self) -> Vec<Route> {
        let setup = &self.setup;
        let mut routes = Vec::new();
        for source in &self.their_sources {
            routes.extend(source.told.iter().filter_map(|route| {
                let next_hop = setup.their_next_hop(route.family());
                let internal = setup.internal_their_sources;
                let (asn, id) = (setup.their_asn(), source.address(Family::Ipv4Unicast));
                let id = id.to_string();
                passed_on(
                    route,
                    setup.internal,
                    internal,
                    asn,
                    next_hop,
                    &id,
                    THEIR_ID,
                )
            }));
        }
        routes.retain(|route| setup.families.contains(&route.family()));
        let told = |route| self.daemon.as_told(setup, route);
        routes.into_iter().map(told).collect()
    }
}

impl Drop for Cell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "our log:\n{}\nlog of {}:\n{}",
                self.ours.log(),
                self.daemon.title(),
                self.daemon.logs(&self.place)
            );
            for source in self.our_sources.iter().chain(&self.their_sources) {
                if let Some(speaker) = &source.speaker {
                    let whose = if source.ours { "ours" } else { "the router's" };
                    let (number, trouble) = (source.number, speaker.trouble());
                    eprintln!("scripted speaker {number} of {whose}: {trouble}");
                }
            }
        }
    }
}

/// What becomes of a source's route on the way from whom it told to the other one; nothing when its communities
/// keep it.
fn passed_on(
    route: &Route,
    internal: bool,
    internal_source: bool,
    asn: u32,
    next_hop: std::net::IpAddr,
    source_id: &str,
    cluster: &str,
) -> Option<Route> {
    let has = |community: &str| route.communities.iter().any(|other| other == community);
    // RFC 1997: NO_ADVERTISE to nobody, NO_EXPORT and NO_EXPORT_SUBCONFED within the AS.
    if has("no-advertise") || (!internal && (has("no-export") || has("no-export-subconfed"))) {
        return None;
    }
    let mut route = route.clone();
    if !internal {
        // RFC 4271 §5.1.4: a MULTI_EXIT_DISC does not go on to another AS.
        route.med = None;
        route.local_pref = None;
        return Some(route.through(asn).via(next_hop));
    }
    if !internal_source {
        route.next_hop = next_hop.to_string();
    } else {
        // RFC 4456 §8.
        route.originator_id = Some(source_id.to_owned());
        route.cluster_list.insert(0, cluster.to_owned());
    }
    route.local_pref = route.local_pref.or(Some(100));
    if has("graceful-shutdown") {
        // RFC 8326 §4.1, which we honour on what we are told.
        route.local_pref = Some(0);
    }
    Some(route)
}

/// Numbers of paths are the sender's affair; what they tell apart is compared.
fn without_ids(mut routes: Vec<Route>) -> Vec<Route> {
    for route in &mut routes {
        route.path_id = None;
    }
    routes
}

/// Whether packets to all of `routes`, and to nothing else, go to their next hop, by the kernel's word; or to
/// `linked`, the link-local address that comes with it (RFC 2545 §3).
fn in_kernel(
    namespace: &Namespace,
    routes: &[Route],
    linked: std::net::Ipv6Addr,
    setup: &Setup,
) -> Result<(), String> {
    for family in &setup.families {
        let mut table = kernel(namespace, *family)?;
        let mut hops = BTreeSet::from([linked.to_string()]);
        for route in routes.iter().filter(|route| route.family() == *family) {
            let expected = [route.next_hop.clone(), linked.to_string()];
            // Several paths of a prefix are one route.
            let seen = table.get(&route.prefix);
            if !seen.is_some_and(|seen| seen.iter().all(|hop| expected.contains(hop))) {
                return Err(format!(
                    "{}: {seen:?} instead of {expected:?}",
                    route.prefix
                ));
            }
            hops.extend(expected);
        }
        table.retain(|prefix, _| !routes.iter().any(|route| route.prefix == *prefix));
        let left = |(_, seen): &(&String, &Vec<String>)| seen.iter().any(|hop| hops.contains(hop));
        if let Some((prefix, seen)) = table.iter().find(left) {
            return Err(format!("{prefix}: still by {seen:?}"));
        }
    }
    Ok(())
}

/// The gateways of every route in a namespace, without those that the kernel takes from router advertisements.
pub(crate) fn kernel(
    namespace: &Namespace,
    family: Family,
) -> Result<BTreeMap<String, Vec<String>>, String> {
    let flag = match family {
        Family::Ipv4Unicast => "-4",
        Family::Ipv6Unicast => "-6",
    };
    let text = run(namespace, Command::new("ip").args(["-j", flag, "route"]))?;
    let list: Vec<Value> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let gateway = |hop: &Value| {
        let gateway = hop.get("gateway").or_else(|| hop.get("via")?.get("host"));
        gateway.and_then(Value::as_str).map(str::to_owned)
    };
    let mut table = BTreeMap::new();
    for route in list.iter().filter(|route| route["protocol"] != "ra") {
        let mut prefix = route["dst"].as_str().unwrap_or_default().to_owned();
        if !prefix.contains('/') {
            prefix.push_str(if flag == "-4" { "/32" } else { "/128" });
        }
        let hops: Vec<String> = match route.get("nexthops").and_then(Value::as_array) {
            Some(hops) => hops.iter().filter_map(gateway).collect(),
            None => gateway(route).into_iter().collect(),
        };
        if !hops.is_empty() {
            table.insert(prefix, hops);
        }
    }
    Ok(table)
}

//! What each step of a plan does, and what undoes it.

use std::time::Duration;

use caracal_bgp_core::fsm::{Admin, Event, PathWhy};
use caracal_bgp_core::rib::{Event as RibEvent, PrivateAs};
use caracal_bgp_core::types::{Asn, Family, NextHop, Nlri, PathId, Prefix};
use caracal_bgp_core::wire::{AsPath, Community, PathAttributes, Reach, Update};

use crate::fabric::{Side, across, index};
use crate::plan::{Death, Step};
use crate::world::{Job, WireId, World};

/// For how long a peer does not read in a storm: less than any hold time.
const STORM: Duration = Duration::from_secs(5);

/// The second half of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Undo {
    Start(usize, bool),
    PathUp(usize),
    Up(Side),
    Unlimit(Side),
}

impl World {
    pub(crate) fn step(&mut self, number: usize) {
        let step = self.plan.steps[number].1.clone();
        match step {
            Step::Originate(router, prefix, own) => {
                self.fabric.routers[router].own.insert(prefix, own);
                self.configure_rib(router);
            }
            Step::Disown(router, prefix) => {
                self.fabric.routers[router].own.remove(&prefix);
                self.configure_rib(router);
            }
            Step::Import(side, import) => {
                self.fabric.end_mut(side).import = import;
                self.configure_rib(self.fabric.end(side).router);
            }
            Step::Export(side, export) => {
                self.fabric.end_mut(side).export = export;
                self.configure_rib(self.fabric.end(side).router);
            }
            Step::NextHop(side, mode) => {
                self.fabric.end_mut(side).next_hop_mode = mode;
                self.configure_rib(self.fabric.end(side).router);
            }
            Step::Rewrite(side, as_designed) => {
                let designed = self.plan.design.fabric.end(side);
                let (as_override, private_as) = match as_designed {
                    true => (designed.as_override, designed.private_as),
                    false => (false, PrivateAs::Keep),
                };
                let end = self.fabric.end_mut(side);
                (end.as_override, end.private_as) = (as_override, private_as);
                self.configure_rib(self.fabric.end(side).router);
            }
            Step::Transit(router, transit) => {
                self.fabric.routers[router].transit = transit;
                self.configure_rib(router);
            }
            Step::Client(side, client) => {
                self.fabric.end_mut(side).client = client;
                self.configure_rib(self.fabric.end(side).router);
            }
            Step::Cluster(router, cluster) => {
                self.fabric.routers[router].cluster = cluster;
                self.configure_rib(router);
            }
            Step::PeerCluster(side, cluster) => {
                self.fabric.end_mut(side).cluster = cluster;
                self.configure_rib(self.fabric.end(side).router);
            }
            Step::Multipath(router, maximum, relax) => {
                self.fabric.routers[router].maximum_paths = maximum;
                self.fabric.routers[router].relax = relax;
                self.configure_rib(router);
            }
            Step::Terms(side, hold_time, new_session) => {
                self.fabric.end_mut(side).hold_time = hold_time;
                self.configure(side, new_session);
            }
            Step::Refresh(side, family) => self.tell(side, Event::RequestRefresh { family }),
            Step::Resend(side, family) => {
                let router = self.fabric.end(side).router;
                let index = index(side);
                self.ask(router, RibEvent::Resend { index, family });
            }
            Step::Ghost(side, prefix) => self.believe(side, prefix, true),
            Step::Amnesia(side, prefix) => self.believe(side, prefix, false),
            Step::Reset(link) => self.cut_link(link),
            Step::Hole(link, length) => self.dig(link, length),
            Step::Carrier(link, length) => {
                self.dig(link, length);
                for side in [(link, 0), (link, 1)] {
                    let why = PathWhy::LinkDown;
                    self.tell(side, Event::PathDown { why });
                    let (router, index) = (self.fabric.end(side).router, index(side));
                    self.ask(router, RibEvent::PathDown { index });
                }
                self.later(length, Undo::PathUp(link));
            }
            Step::Death(router, death, length, keeps) => self.die(router, death, length, keeps),
            Step::Freeze(router, length) => {
                let until = self.now + length;
                let frozen = &mut self.speakers[router].frozen;
                *frozen = until.max(*frozen);
            }
            Step::Busy(router, length) => {
                let until = self.now + length;
                let busy = &mut self.speakers[router].busy;
                *busy = until.max(*busy);
            }
            Step::Deaf(side, length) => {
                let until = self.now + length;
                let router = self.fabric.end(side).router;
                if let Some(session) = self.speakers[router].sessions.get_mut(&side) {
                    session.deaf = until.max(session.deaf);
                }
            }
            Step::Clear(side) => {
                let text = "cleared".to_owned();
                self.tell(side, Event::Admin(Admin::Clear { text }));
            }
            Step::Down(side, length) => {
                let text = "down for a while".to_owned();
                self.tell(side, Event::Admin(Admin::Down { text }));
                self.later(length, Undo::Up(side));
            }
            Step::Limit(side, limit, length) => {
                let end = self.fabric.end_mut(side);
                end.limit = Some(limit);
                end.limit_restart = Some(length);
                self.configure_rib(self.fabric.end(side).router);
                self.configure(side, false);
                self.later(length, Undo::Unlimit(side));
            }
            Step::Storm(router, changes) => self.storm(router, changes),
        }
    }

    pub(crate) fn undo(&mut self, number: usize) {
        match self.undos[number] {
            Undo::Start(router, kept) => self.start(router, kept),
            Undo::PathUp(link) => {
                // A later hole, or a later loss of carrier, may not be over.
                if self.holes[link] > self.now {
                    let left = self.holes[link] - self.now;
                    return self.later(left, Undo::PathUp(link));
                }
                self.tell((link, 0), Event::PathUp);
                self.tell((link, 1), Event::PathUp);
            }
            Undo::Up(side) => self.tell(side, Event::Admin(Admin::Up)),
            Undo::Unlimit(side) => {
                let end = self.fabric.end_mut(side);
                end.limit = None;
                end.limit_restart = None;
                self.configure_rib(self.fabric.end(side).router);
                self.configure(side, false);
            }
        }
    }

    fn later(&mut self, after: Duration, undo: Undo) {
        self.undos.push(undo);
        let number = self.undos.len() - 1;
        self.enqueue(self.now + after, Job::Undo(number));
    }

    /// Gives a RIB what is configured now.
    pub(crate) fn configure_rib(&mut self, router: usize) {
        let config = self.fabric.rib_config(router);
        self.ask(router, RibEvent::Configure(config));
    }

    fn cut_link(&mut self, link: usize) {
        let wires = self.wires.iter().filter(|(_, wire)| wire.link == link);
        let wires: Vec<WireId> = wires.map(|(id, _)| *id).collect();
        wires.into_iter().for_each(|wire| self.cut(wire));
    }

    fn dig(&mut self, link: usize, length: Duration) {
        self.holes[link] = self.holes[link].max(self.now + length);
    }

    fn die(&mut self, router: usize, death: Death, length: Duration, keeps: bool) {
        if self.speakers[router].rib.is_none() {
            return;
        }
        self.totals.restarts += 1;
        let wish = match death {
            Death::Restart => Some(Admin::Restart),
            Death::Cease => Some(Admin::Deconfigure),
            Death::Killed | Death::Power => None,
        };
        for side in self.fabric.sides(router) {
            if let Some(wish) = wish.clone() {
                self.tell(side, Event::Admin(wish));
            }
        }
        let off = death == Death::Power;
        self.end(router, off);
        // A host that was off has kept nothing; who says goodbye keeps nothing at his peers.
        let kept = keeps && matches!(death, Death::Killed | Death::Restart);
        self.later(length, Undo::Start(router, kept));
    }

    /// Has a router believe that its peer has told something, or that it has taken it back, and ask
    /// for everything again.
    fn believe(&mut self, side: Side, prefix: Prefix, told: bool) {
        let family = prefix.family();
        let router = self.fabric.end(side).router;
        let peer_asn = Asn(self.fabric.asn(across(side)));
        let internal = self.fabric.internal(side);
        let Some(session) = self.speakers[router].sessions.get(&side) else {
            return;
        };
        let terms = session.machine.negotiated();
        let Some((up, terms)) = session.up.as_ref().zip(terms) else {
            return;
        };
        if !terms.enhanced_route_refresh || !terms.can_refresh(family) {
            return;
        }
        let nlri = Nlri {
            prefix,
            id: PathId::default(),
        };
        let update = if told {
            let path = if internal { vec![] } else { vec![peer_asn] };
            let next_hop = match family {
                Family::Ipv4Unicast => NextHop::V4([192, 0, 2, 77].into()),
                Family::Ipv6Unicast => NextHop::V6 {
                    global: "2001:db8:77::1".parse().unwrap(),
                    link_local: None,
                },
            };
            Update {
                reach: vec![Reach {
                    family,
                    next_hop,
                    nlri: vec![nlri],
                }],
                attributes: Some(PathAttributes {
                    as_path: AsPath::new(path),
                    ..PathAttributes::default()
                }),
                ..Update::default()
            }
        } else {
            Update {
                withdrawn: vec![(family, vec![nlri])],
                ..Update::default()
            }
        };
        let peer = up.id;
        self.ask(
            router,
            RibEvent::Updates {
                peer,
                updates: vec![update],
            },
        );
        self.tell(side, Event::RequestRefresh { family });
    }

    /// Own routes change over and over, while a peer does not read: it falls so far behind that what it
    /// has missed is no longer known, only what it should know now.
    fn storm(&mut self, router: usize, changes: usize) {
        let side = self.random.pick(&self.fabric.sides(router));
        let other = across(side);
        let until = self.now + STORM;
        let peer = self.fabric.end(other).router;
        if let Some(session) = self.speakers[peer].sessions.get_mut(&other) {
            session.deaf = until.max(session.deaf);
        }
        let own: Vec<Prefix> = self.fabric.routers[router].own.keys().copied().collect();
        if own.is_empty() {
            return;
        }
        for _ in 0..changes {
            let prefix = self.random.pick(&own);
            if let Some(own) = self.fabric.routers[router].own.get_mut(&prefix) {
                let tag = Community(0xfde8_0003).0;
                if !own.communities.remove(&tag) {
                    own.communities.insert(tag);
                }
            }
            self.configure_rib(router);
        }
    }
}

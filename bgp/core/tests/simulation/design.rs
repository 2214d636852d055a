//! Which routers there are and who speaks with whom: drawn at random, from shapes in which BGP
//! provably converges to one result.
//!
//! Owns the shapes. Every one keeps to this: what a route becomes when it is told on is less
//! preferred than it was, by a longer AS path, by being internal, or by a longer cluster list. Local
//! preference differs only between customers, peers and providers, under roles that keep routes from
//! going up again (Gao and Rexford), or raises an AS's own routes. MEDs occur only where each AS
//! has one router, which so sees all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use caracal_bgp_core::rib::{NextHopMode, PrivateAs};
use caracal_bgp_core::types::{BgpRole, Family, Prefix};
use caracal_bgp_core::wire::{Community, Origin};

use crate::fabric::{End, Export, Fabric, Import, Link, Own, Program, Router, across};
use crate::random::Random;

/// A fabric, and what may be done to it.
#[derive(Clone, Debug)]
pub(crate) struct Design {
    pub(crate) fabric: Fabric,
    /// Prefixes that come and go.
    pub(crate) prefixes: Vec<Prefix>,
    /// Whether MEDs may differ.
    pub(crate) meds: bool,
    /// Whether local preference follows roles.
    pub(crate) prefers: bool,
}

pub(crate) fn design(random: &mut Random) -> Design {
    let ases = ases(random);
    let roles = random.chance(30);
    let prefers = roles && random.chance(70);
    let mut drawing = Drawing {
        meds: !roles && ases.iter().all(|routers| routers.len() == 1),
        roles,
        prefers,
        restarts: random.chance(80),
        renamed: random.chance(40).then(|| random.below(3)),
        fabric: Fabric {
            routers: Vec::new(),
            links: Vec::new(),
        },
        habits: Vec::new(),
        ases,
    };
    drawing.routers(random);
    for number in 0..drawing.ases.len() {
        drawing.inside(number, random);
    }
    drawing.between(random);
    let prefixes = prefixes(random);
    let mut fabric = drawing.fabric;
    for prefix in &prefixes {
        for _ in 0..random.between(0, 2) {
            let router = random.below(fabric.routers.len());
            let own = own(random, drawing.meds, drawing.prefers);
            fabric.routers[router].own.insert(*prefix, own);
        }
    }
    for router in &mut fabric.routers {
        if router.forwards && random.chance(20) {
            router.refused = random.some(&prefixes, 15);
        }
        if random.chance(10) {
            router.protected = random.some(&prefixes, 10);
        }
    }
    Design {
        fabric,
        prefixes,
        meds: drawing.meds,
        prefers,
    }
}

/// Has some sessions tell other AS paths than those that were learnt.
///
/// A number that is taken out of a path stops no loop any more, and what then goes round grows without
/// end. So it is the number of one AS alone, of the renamed router's where there is one; and any number on
/// the way to a router that has nobody to tell.
pub(crate) fn rewrite(fabric: &mut Fabric, random: &mut Random) {
    let sides = fabric.every_side();
    let renamed = sides
        .iter()
        .find(|side| fabric.end(**side).local_asn.is_some());
    let replaced = match renamed {
        Some(side) => fabric.router_at(*side).asn,
        None => random.pick(&fabric.routers).asn,
    };
    let overrides = random.chance(40);
    for side in sides {
        if fabric.internal(side) {
            continue;
        }
        let to = across(side);
        let tells_nobody = fabric.sides(fabric.end(to).router).len() == 1;
        let to_replaced = fabric.router_at(to).asn == replaced;
        let end = fabric.end_mut(side);
        end.as_override = overrides && to_replaced && random.chance(60);
        if tells_nobody && random.chance(50) {
            end.private_as = random.pick(&[PrivateAs::Remove, PrivateAs::Replace]);
        }
    }
}

/// Routers by AS.
fn ases(random: &mut Random) -> Vec<Vec<usize>> {
    let routers = random.between(3, 12);
    let apart = |routers: std::ops::Range<usize>| routers.map(|router| vec![router]);
    match random.below(4) {
        0 => apart(0..routers).collect(),
        1 => vec![(0..routers).collect()],
        2 => {
            let stubs = random.between(1, 2.min(routers - 2));
            let mut ases = vec![(stubs..routers).collect()];
            ases.extend(apart(0..stubs));
            ases
        }
        _ => {
            let count = random.between(2, 4.min(routers));
            let mut ases: Vec<Vec<usize>> = apart(0..count).collect();
            for router in count..routers {
                ases[random.below(count)].push(router);
            }
            ases
        }
    }
}

fn prefixes(random: &mut Random) -> Vec<Prefix> {
    let count = random.between(3, 14);
    let prefix = |number: usize| match number % 3 {
        2 => format!("2001:db8:{number}::/48"),
        _ => format!("10.{number}.0.0/16"),
    };
    (0..count)
        .map(|number| prefix(number).parse().unwrap())
        .collect()
}

/// What an own route may carry.
pub(crate) fn own(random: &mut Random, meds: bool, prefers: bool) -> Own {
    let plain = random.chance(50);
    let rarely = |random: &mut Random| !plain && random.chance(25);
    let tags = [0xfde8_0001, 0xfde8_0002, Community::NO_EXPORT.0];
    Own {
        origin: match random.below(4) {
            0 if !plain => Origin::Egp,
            1 if !plain => Origin::Incomplete,
            _ => Origin::Igp,
        },
        med: (meds && rarely(random)).then(|| random.below(3) as u32),
        // Where learnt routes have preferences, an AS prefers its own to all of them.
        local_pref: (prefers || rarely(random)).then_some(300),
        communities: if rarely(random) {
            [random.pick(&tags)].into()
        } else {
            BTreeSet::new()
        },
        large: if rarely(random) {
            [(65_000, 1, random.below(2) as u32)].into()
        } else {
            BTreeSet::new()
        },
    }
}

/// How a router's sessions are usually configured, so that many of them are told the same.
#[derive(Clone)]
struct Habit {
    hold_time: Duration,
    restart_time: Option<Duration>,
    long_lived: Option<Duration>,
    extended_messages: bool,
    next_hop_mode: NextHopMode,
}

#[derive(Clone, Copy)]
enum Medium {
    Loopback,
    PointToPoint,
    Shared(u8),
}

struct Drawing {
    fabric: Fabric,
    ases: Vec<Vec<usize>>,
    habits: Vec<Habit>,
    meds: bool,
    roles: bool,
    prefers: bool,
    restarts: bool,
    /// The router that some know by another AS. Of two, each would take for new what it had told
    /// under the one number and hears under the other, and tell it again, without end.
    renamed: Option<usize>,
}

impl Drawing {
    fn routers(&mut self, random: &mut Random) {
        let count: usize = self.ases.iter().map(Vec::len).sum();
        let mut ids: Vec<u32> = (1..=count as u32).collect();
        for at in (1..ids.len()).rev() {
            ids.swap(at, random.below(at + 1));
        }
        let mut asns = vec![0; count];
        for (number, routers) in self.ases.iter().enumerate() {
            // Some do not fit into two octets.
            let asn = if random.chance(50) {
                65_001
            } else {
                4_200_000_001
            } + number as u32;
            for router in routers {
                asns[*router] = asn;
            }
        }
        for (id, asn) in ids.into_iter().zip(asns) {
            self.habits.push(self.habit(random));
            self.fabric.routers.push(Router {
                asn,
                id,
                cluster: id,
                transit: random.chance(95),
                maximum_paths: random.pick(&[1, 2, 16]),
                relax: random.chance(50),
                stale_time: random.millis(20_000, 60_000),
                deferral: random.millis(10_000, 30_000),
                forwards: random.chance(50),
                refused: BTreeSet::new(),
                own: BTreeMap::new(),
                protected: Vec::new(),
                program: program(random),
            });
        }
    }

    fn habit(&self, random: &mut Random) -> Habit {
        let restarts = self.restarts && random.chance(80);
        Habit {
            hold_time: Duration::from_secs(random.pick(&[6, 9, 9, 30, 90])),
            restart_time: restarts.then(|| Duration::from_secs(random.pick(&[5, 20, 60]))),
            long_lived: random
                .chance(40)
                .then(|| Duration::from_secs(random.pick(&[10, 60]))),
            extended_messages: random.chance(50),
            next_hop_mode: random.pick(&[
                NextHopMode::Auto,
                NextHopMode::Auto,
                NextHopMode::Auto,
                NextHopMode::Self_,
                NextHopMode::Keep,
            ]),
        }
    }

    /// The sessions inside one AS.
    fn inside(&mut self, number: usize, random: &mut Random) {
        let routers = self.ases[number].clone();
        let several = routers.len() > 2;
        match random.below(4) {
            1 if several => self.reflectors(&routers, random),
            2 if several => self.tree(&routers, random),
            3 if several => self.wild(&routers, random),
            _ => {
                for (at, router) in routers.iter().enumerate() {
                    for other in &routers[..at] {
                        self.link(*router, *other, Medium::Loopback, random);
                    }
                }
            }
        }
    }

    /// One or two reflectors, sometimes of one cluster, with clients and others.
    fn reflectors(&mut self, routers: &[usize], random: &mut Random) {
        let (reflectors, others) = routers.split_at(random.between(1, 2));
        if random.chance(40) {
            for reflector in reflectors {
                self.fabric.routers[*reflector].cluster = 1000;
            }
        }
        let clients: Vec<usize> = random.some(others, 80);
        let meshed = routers.iter().filter(|router| !clients.contains(router));
        let meshed: Vec<usize> = meshed.copied().collect();
        for (at, router) in meshed.iter().enumerate() {
            for other in &meshed[..at] {
                self.link(*router, *other, Medium::Loopback, random);
            }
        }
        for client in clients {
            let first = random.below(reflectors.len());
            for (at, reflector) in reflectors.iter().enumerate() {
                if at == first || random.chance(70) {
                    let link = self.link(*reflector, client, Medium::Loopback, random);
                    self.fabric.links[link].ends[0].client = true;
                }
            }
        }
    }

    /// Reflectors that are clients of others.
    fn tree(&mut self, routers: &[usize], random: &mut Random) {
        for (at, router) in routers.iter().enumerate().skip(1) {
            let parent = routers[random.below(at)];
            let link = self.link(parent, *router, Medium::Loopback, random);
            self.fabric.links[link].ends[0].client = true;
        }
    }

    /// Anything that is connected.
    fn wild(&mut self, routers: &[usize], random: &mut Random) {
        for (at, router) in routers.iter().enumerate().skip(1) {
            let neighbour = random.below(at);
            for (other_at, other) in routers[..at].iter().enumerate() {
                if other_at != neighbour && !random.chance(25) {
                    continue;
                }
                let link = self.link(*router, *other, Medium::Loopback, random);
                for end in &mut self.fabric.links[link].ends {
                    end.client = random.chance(50);
                }
            }
        }
    }

    /// The sessions between ASes.
    fn between(&mut self, random: &mut Random) {
        let count = self.ases.len();
        if count < 2 {
            return;
        }
        let extra = random.pick(&[0, 15, 40]);
        for later in 1..count {
            let tree = random.below(later);
            for earlier in 0..later {
                if earlier == tree || random.chance(extra) {
                    for _ in 0..random.pick(&[1, 1, 1, 2]) {
                        let one = random.pick(&self.ases[earlier]);
                        let other = random.pick(&self.ases[later]);
                        self.external(one, other, Medium::PointToPoint, random);
                    }
                }
            }
        }
        if random.chance(35) {
            // Everybody there has a session with everybody else.
            let members: Vec<usize> = self.ases.iter().map(|routers| routers[0]).collect();
            let members: Vec<usize> = random.some(&members, 60);
            for (at, router) in members.iter().enumerate() {
                for other in &members[..at] {
                    self.external(*other, *router, Medium::Shared(1), random);
                }
            }
        }
    }

    fn external(&mut self, one: usize, other: usize, medium: Medium, random: &mut Random) {
        let link = self.link(one, other, medium, random);
        let as_of = |router: usize| {
            self.ases
                .iter()
                .position(|routers| routers.contains(&router))
        };
        let (up, down) = (as_of(one), as_of(other));
        let alone = [up, down].map(|number| number.is_some_and(|at| self.ases[at].len() == 1));
        for (end, alone) in self.fabric.links[link].ends.iter_mut().zip(alone) {
            if alone && self.renamed == Some(end.router) && random.chance(50) {
                end.local_asn = Some(64_600 + end.router as u32);
            }
            if random.chance(4) {
                end.allowed_own_as = 1;
            }
        }
        if !self.roles {
            return;
        }
        // The same for all sessions of two ASes, and the earlier AS is never a customer of the
        // later one: no AS is its own provider by any way round.
        let peers = up
            .zip(down)
            .is_some_and(|(up, down)| (up * 7 + down) % 3 == 0);
        let role = if peers {
            BgpRole::Peer
        } else {
            BgpRole::Provider
        };
        let preference = |role| match role {
            BgpRole::Provider => 200,
            BgpRole::Peer => 150,
            _ => 50,
        };
        let roles = [role, role.counterpart()];
        for (end, role) in self.fabric.links[link].ends.iter_mut().zip(roles) {
            end.role = Some(role);
            end.import.local_pref = self.prefers.then(|| preference(role));
        }
    }

    /// A session between two routers; the number of its link.
    fn link(&mut self, one: usize, other: usize, medium: Medium, random: &mut Random) -> usize {
        let number = self.fabric.links.len();
        let families = match random.below(12) {
            0 => vec![Family::Ipv4Unicast],
            1 => vec![Family::Ipv6Unicast],
            _ => Family::ALL.to_vec(),
        };
        let no_v4 = matches!(medium, Medium::PointToPoint) && random.chance(15);
        let over_v6 = no_v4 || matches!(medium, Medium::PointToPoint) && random.chance(40);
        let silent = random.chance(3);
        let mut ends = [(one, 1), (other, 2)].map(|(router, side)| {
            let mut end = self.end(router, number, side, medium);
            end.families = families.clone();
            end.extended_next_hop = no_v4 || random.chance(10);
            if no_v4 {
                end.v4 = None;
            }
            if over_v6 && let Some((global, _)) = end.v6 {
                end.address = global.into();
            }
            if random.chance(20) {
                end.next_hop_mode = NextHopMode::Auto;
                end.extended_messages ^= true;
            }
            if random.chance(15) {
                end.send_hold_time = Some(end.hold_time + Duration::from_secs(5));
            }
            if silent {
                end.hold_time = Duration::ZERO;
            }
            end.connect_retry = random.millis(1000, 5000);
            end
        });
        if random.chance(20) {
            ends[random.below(2)].passive = true;
        }
        self.fabric.links.push(Link {
            ends,
            latency: random.pick(&[(50, 2000), (50, 2000), (5000, 20_000), (10_000, 150_000)]),
            segment: match random.below(100) {
                0..3 => 1,
                3..10 => 17,
                10..30 => 100,
                _ => 1460,
            },
            window: random.pick(&[600, 4096, 65_536]),
        });
        number
    }

    fn end(&self, router: usize, link: usize, side: u8, medium: Medium) -> End {
        let host = router as u8 + 1;
        let net = link as u8;
        let v6 = |group: u16, net: u8, host: u8| {
            Ipv6Addr::new(0x2001, 0xdb8, group, net.into(), 0, 0, 0, host.into())
        };
        let link_local = |host: u8| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host.into());
        let (v4, v6, interface) = match medium {
            Medium::Loopback => (
                Ipv4Addr::new(10, 255, 0, host),
                (v6(0xffff, 0, host), None),
                None,
            ),
            Medium::PointToPoint => (
                Ipv4Addr::new(172, 16, net, side),
                (v6(0xfffe, net, side), Some(link_local(side))),
                Some(100 + u32::from(net)),
            ),
            Medium::Shared(net) => (
                Ipv4Addr::new(198, 18, net, host),
                (v6(0xfffd, net, host), None),
                Some(1000 + u32::from(net)),
            ),
        };
        let subnets = match medium {
            Medium::Loopback => Vec::new(),
            Medium::PointToPoint => vec![Prefix::v4(v4, 30), Prefix::v6(v6.0, 64)],
            Medium::Shared(_) => vec![Prefix::v4(v4, 24), Prefix::v6(v6.0, 64)],
        };
        let habit = self.habits[router].clone();
        End {
            router,
            address: v4.into(),
            v4: Some(v4),
            v6: Some(v6),
            interface,
            subnets: subnets.into_iter().flatten().collect(),
            local_asn: None,
            families: Vec::new(),
            extended_next_hop: false,
            extended_messages: habit.extended_messages,
            hold_time: habit.hold_time,
            send_hold_time: None,
            connect_retry: Duration::from_secs(1),
            passive: false,
            restart_time: habit.restart_time,
            long_lived: habit.long_lived,
            role: None,
            client: false,
            cluster: None,
            allowed_own_as: 0,
            next_hop_mode: habit.next_hop_mode,
            as_override: false,
            private_as: PrivateAs::Keep,
            import: Import::default(),
            export: Export::default(),
            limit: None,
            limit_restart: None,
        }
    }
}

fn program(random: &mut Random) -> Program {
    Program {
        log_limit: random.pick(&[1, 3, 16, 64 * 1024]),
        pull_budget: random.pick(&[1, 2, 7, 4096]),
        rib_depth: random.pick(&[1, 8, 512]),
        burst: random.pick(&[1, 4, 64]),
        thinks: (0, random.pick(&[100, 5000, 50_000])),
        installs: (0, random.pick(&[200, 20_000, 1_000_000])),
    }
}

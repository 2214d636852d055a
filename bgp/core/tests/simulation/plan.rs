//! What happens, and when: drawn at random before anything runs, so that a failure can be repeated
//! with less of it.
//!
//! Owns the schedule. Does not own what a step does (`steps`).

use std::fmt;
use std::time::Duration;

use caracal_bgp_core::rib::{NextHopMode, PrivateAs};
use caracal_bgp_core::types::{Family, Prefix};
use caracal_bgp_core::wire::Community;

use crate::design::{self, Design};
use crate::fabric::{Export, Import, Own, Side, across};
use crate::random::Random;

/// One case: a fabric and what happens to it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) design: Design,
    /// When each router starts.
    pub(crate) starts: Vec<Duration>,
    /// What happens, in order of time.
    pub(crate) steps: Vec<(Duration, Step)>,
    /// From here on nothing more happens.
    pub(crate) end: Duration,
}

/// How a speaker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// The process is killed; the kernel closes its connections.
    Killed,
    /// The host loses power, and says nothing.
    Power,
    /// It leaves so that peers keep its routes.
    Restart,
    /// It says goodbye.
    Cease,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Originate(usize, Prefix, Own),
    Disown(usize, Prefix),
    Import(Side, Import),
    Export(Side, Export),
    NextHop(Side, NextHopMode),
    /// Whether AS paths are told as designed, or as they were learnt.
    Rewrite(Side, bool),
    Transit(usize, bool),
    Client(Side, bool),
    Cluster(usize, u32),
    PeerCluster(Side, Option<u32>),
    Multipath(usize, usize, bool),
    /// Another hold time, or another offer, with a new session if so said.
    Terms(Side, Duration, bool),
    /// The router asks its peer for everything again.
    Refresh(Side, Family),
    /// The router tells its peer everything again.
    Resend(Side, Family),
    /// The router believes that its peer has told something that it has not, and asks again.
    Ghost(Side, Prefix),
    /// The router has lost something that its peer has told, and asks again.
    Amnesia(Side, Prefix),
    /// TCP ends.
    Reset(usize),
    /// Nothing passes for a while, and nobody is told.
    Hole(usize, Duration),
    /// The same, and both ends see their carriers go.
    Carrier(usize, Duration),
    /// A speaker ends and comes back; with `keeps` its kernel has kept its routes.
    Death(usize, Death, Duration, bool),
    /// Nothing of the speaker runs for a while.
    Freeze(usize, Duration),
    /// Its RIB is busy with something else for a while.
    Busy(usize, Duration),
    /// It does not read from one peer for a while.
    Deaf(Side, Duration),
    Clear(Side),
    Down(Side, Duration),
    /// The peer may tell that many prefixes, for a while.
    Limit(Side, u32, Duration),
    /// Own routes of a router change that often, at once.
    Storm(usize, usize),
}

pub(crate) fn plan(seed: u64) -> Plan {
    let mut random = Random::new(seed);
    let mut design = design::design(&mut random);
    // Drawn apart, so that the rest of a case stays what it was before there was this.
    let mut apart = Random::new(!seed);
    design::rewrite(&mut design.fabric, &mut apart);
    let routers = design.fabric.routers.len();
    let starts = (0..routers).map(|_| random.millis(0, 4000)).collect();
    let mut steps = Vec::new();
    let mut at = random.millis(0, 12_000);
    for _ in 0..random.pick(&[5, 15, 30, 60]) {
        if !random.chance(30) {
            at += match random.below(3) {
                0 => random.millis(0, 50),
                1 => random.millis(50, 2000),
                _ => random.millis(2000, 15_000),
            };
        }
        steps.push((at, step(&design, &mut random)));
    }
    for _ in 0..apart.pick(&[0, 1, 3, 8]) {
        let when = apart.micros((0, u64::try_from(at.as_micros()).unwrap()));
        steps.push((when, telling(&design, &mut apart)));
    }
    steps.sort_by_key(|(at, _)| *at);
    Plan {
        seed,
        design,
        starts,
        steps,
        end: at + Duration::from_secs(1),
    }
}

fn step(design: &Design, random: &mut Random) -> Step {
    let fabric = &design.fabric;
    let router = random.below(fabric.routers.len());
    let link = random.below(fabric.links.len());
    let side = (link, random.below(2));
    let family = random.pick(&Family::ALL);
    let prefix = random.pick(&design.prefixes);
    let internal = fabric.internal(side);
    match random.below(100) {
        0..20 => Step::Originate(
            router,
            prefix,
            design::own(random, design.meds, design.prefers),
        ),
        20..32 => Step::Disown(router, prefix),
        32..37 => Step::Import(side, import(design, side, random)),
        37..44 => Step::Export(side, export(design, side, random)),
        44..46 => Step::Transit(router, random.chance(80)),
        46..49 if internal => {
            let sides = fabric.sides(fabric.end(side).router);
            let internal: Vec<Side> = sides
                .into_iter()
                .filter(|side| fabric.internal(*side))
                .collect();
            Step::Client(random.pick(&internal), random.chance(60))
        }
        49..51 => Step::Cluster(router, random.pick(&[1000, 1001, router as u32 + 1])),
        51..52 => Step::PeerCluster(side, random.pick(&[None, Some(1000), Some(1002)])),
        52..53 => Step::Multipath(router, random.pick(&[1, 2, 16]), random.chance(50)),
        53..55 => {
            // A session without keepalives does not end by itself.
            let keepalives = fabric.links[link]
                .ends
                .iter()
                .all(|end| !end.hold_time.is_zero());
            match keepalives {
                true => Step::Terms(
                    side,
                    Duration::from_secs(random.pick(&[6, 9, 20])),
                    random.chance(50),
                ),
                false => Step::Refresh(side, family),
            }
        }
        55..60 => Step::Refresh(side, family),
        60..62 => Step::Resend(side, family),
        62..64 => Step::Ghost(
            side,
            random
                .pick(&["10.250.0.0/16", "2001:db8:250::/48"])
                .parse()
                .unwrap(),
        ),
        64..66 => Step::Amnesia(side, prefix),
        66..69 => Step::Reset(link),
        69..73 => Step::Hole(link, length(random, 40_000)),
        73..76 => Step::Carrier(link, length(random, 20_000)),
        76..82 => {
            let mut death =
                random.pick(&[Death::Killed, Death::Power, Death::Restart, Death::Cease]);
            // Without keepalives nobody notices that a host has gone.
            let sides = fabric.sides(router);
            if sides
                .iter()
                .any(|side| fabric.end(*side).hold_time.is_zero())
                && death == Death::Power
            {
                death = Death::Killed;
            }
            Step::Death(router, death, length(random, 40_000), random.chance(60))
        }
        82..85 => Step::Freeze(router, length(random, 20_000)),
        85..88 => Step::Busy(router, length(random, 30_000)),
        88..91 => Step::Deaf(side, length(random, 20_000)),
        91..93 => Step::Clear(side),
        93..95 => Step::Down(side, length(random, 10_000)),
        95..97 => Step::Limit(side, random.below(4) as u32, length(random, 15_000)),
        97..98 => Step::Storm(router, random.pick(&[20, 200, 1500])),
        98..99 => Step::Storm(router, 1500),
        _ => Step::Originate(
            router,
            prefix,
            design::own(random, design.meds, design.prefers),
        ),
    }
}

/// Another way to tell the same routes.
fn telling(design: &Design, random: &mut Random) -> Step {
    let fabric = &design.fabric;
    let sides = fabric.every_side();
    let rewrites = |side: &&Side| {
        let end = fabric.end(**side);
        end.as_override || end.private_as != PrivateAs::Keep
    };
    let rewriting: Vec<Side> = sides.iter().filter(rewrites).copied().collect();
    if !rewriting.is_empty() && random.chance(50) {
        return Step::Rewrite(random.pick(&rewriting), random.chance(50));
    }
    let modes = [NextHopMode::Auto, NextHopMode::Self_, NextHopMode::Keep];
    Step::NextHop(random.pick(&sides), random.pick(&modes))
}

fn length(random: &mut Random, most: u64) -> Duration {
    match random.below(3) {
        0 => random.millis(1, 300),
        1 => random.millis(300, 4000),
        _ => random.millis(1000, most),
    }
}

const TAGS: [u32; 4] = [
    0xfde8_0007,
    0xfde8_0008,
    Community::NO_EXPORT.0,
    Community::NO_ADVERTISE.0,
];

fn tags(design: &Design, random: &mut Random) -> Option<(u32, std::collections::BTreeSet<Prefix>)> {
    let percent = random.pick(&[20, 60, 100]);
    random
        .chance(30)
        .then(|| (random.pick(&TAGS), random.some(&design.prefixes, percent)))
}

fn import(design: &Design, side: Side, random: &mut Random) -> Import {
    let as_designed = design.fabric.end(side).import.clone();
    if random.chance(40) {
        return as_designed;
    }
    Import {
        closed: random.chance(15),
        rejects: random.some(&design.prefixes, 25),
        tags: tags(design, random),
        ..as_designed
    }
}

fn export(design: &Design, side: Side, random: &mut Random) -> Export {
    if random.chance(40) {
        return Export::default();
    }
    let external = !design.fabric.internal(side);
    Export {
        closed: random.chance(10),
        rejects: random.some(&design.prefixes, 25),
        med: (design.meds && random.chance(50)).then(|| random.below(3) as u32),
        prepends: if external {
            random.pick(&[0, 0, 1, 2])
        } else {
            0
        },
        tags: tags(design, random),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fabric = &self.design.fabric;
        for (number, router) in fabric.routers.iter().enumerate() {
            let own: Vec<String> = router.own.keys().map(Prefix::to_string).collect();
            writeln!(
                f,
                "router {number}: AS {} id {} cluster {} forwards {} transit {} own {own:?} {:?}",
                router.asn,
                router.id,
                router.cluster,
                router.forwards,
                router.transit,
                router.program
            )?;
        }
        for (number, link) in fabric.links.iter().enumerate() {
            write!(f, "link {number}:")?;
            for end in 0..2 {
                let side = (number, end);
                let at = fabric.end(side);
                let other = fabric.end(across(side)).router;
                write!(
                    f,
                    " {}→{other} {} hold {:?} gr {:?} llgr {:?} client {} role {:?} override {} {:?};",
                    at.router,
                    at.address,
                    at.hold_time,
                    at.restart_time,
                    at.long_lived,
                    at.client,
                    at.role,
                    at.as_override,
                    at.private_as
                )?;
            }
            writeln!(
                f,
                " {:?} µs, segments {}, window {}",
                link.latency, link.segment, link.window
            )?;
        }
        for (at, step) in &self.steps {
            writeln!(f, "{at:>10.3?} {step:?}")?;
        }
        writeln!(f, "{:>10.3?} quiet", self.end)
    }
}

//! One link: when we advertise, solicit and answer, and who is there.
//!
//! Owns the timers of RFC 4861 §6.2 and §6.3.7 and the routers heard of late. Does not own the
//! socket, nor the meaning of a neighbour for BGP.
//!
//! ```text
//!  time 0     0.0..0.5 s   advertise to all nodes, and again twice, 3 s apart
//!             0.0..1.0 s   solicit, up to three times, 4 s apart, until a router is heard
//!  later      every 7.5..10 s   advertise
//!  a new router, or a solicitation: advertise within 0.5 s, to all nodes unless we did within 3 s
//! ```

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use crate::ra::wire::{Advertisement, LinkLayer, Message};

/// The least pause between two advertisements to all nodes (RFC 4861 §6.2.6, §10).
pub const MIN_DELAY_BETWEEN_RAS: Duration = Duration::from_secs(3);
/// Answers wait a random time up to this, so that several routers do not speak at once.
const MAX_RA_DELAY: Duration = Duration::from_millis(500);
/// How often an interface that begins, or has news, advertises at the fast pace
/// (RFC 4861 §6.2.4, MAX_INITIAL_RTR_ADVERTISEMENTS).
const INITIAL_ADVERTISEMENTS: u8 = 3;
/// The least pause between answers to single nodes: a solicitor cannot make us a source of floods.
const UNICAST_PAUSE: Duration = Duration::from_secs(1);
/// RFC 4861 §10: MAX_RTR_SOLICITATIONS, RTR_SOLICITATION_INTERVAL, MAX_RTR_SOLICITATION_DELAY.
const SOLICITATIONS: u8 = 3;
const SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);
const SOLICITATION_DELAY: Duration = Duration::from_secs(1);
/// After this long without a word we ask whether a router is still there: some advertise every ten
/// minutes only.
const QUIET: Duration = Duration::from_secs(15);
/// A router not heard of for so long is gone: it has then not answered three solicitations.
pub const NEIGHBOR_LIFETIME: Duration = Duration::from_secs(35);
/// Routers that are remembered. One is right, two are an error to report, and more only lengthen
/// the report.
const NEIGHBOR_LIMIT: usize = 8;

/// How a link is tended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The longest time between unsolicited advertisements; the shortest is three quarters of it
    /// (MaxRtrAdvInterval, RFC 4861 §6.2.1: 4 s to 1800 s; values outside are brought inside).
    pub interval: Duration,
    /// Seed of all random waits; it should differ between interfaces and hosts.
    pub seed: u64,
}

impl Settings {
    /// Every ten seconds, as other routers that speak BGP unnumbered do.
    pub fn new(seed: u64) -> Self {
        Self {
            interval: Duration::from_secs(10),
            seed,
        }
    }
}

/// What happens to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The link carries packets, and we have a link-local address on it. Also when either changes.
    Up {
        /// Our link-local address, the source of all we send.
        address: Ipv6Addr,
        /// Our address on the link, where it has one of this kind.
        link_layer: Option<LinkLayer>,
    },
    /// The link does not carry packets, or we have no address on it any more.
    Down,
    /// A valid message has arrived.
    Heard {
        /// Its source.
        from: Ipv6Addr,
        /// What it says.
        message: Message,
    },
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the message with our link-local address as source and hop limit 255. A failure needs no
    /// answer: what was lost is said again.
    Send {
        /// To whom.
        to: Destination,
        /// What.
        message: Message,
    },
    /// Tell whoever waits for the peer; the view differs from the one reported before.
    Report(View),
}

/// Who is to hear a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// [`super::ALL_NODES`].
    AllNodes,
    /// [`super::ALL_ROUTERS`].
    AllRouters,
    /// One node, by its link-local address.
    Node(Ipv6Addr),
}

/// Who is on the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// The link is down, so nobody is known.
    Down,
    /// No router has been heard, or none for [`NEIGHBOR_LIFETIME`].
    Silent,
    /// The one router, as it should be.
    Neighbor(Ipv6Addr),
    /// Several routers: an unnumbered peer cannot be told from the others. At least two, sorted.
    Several(Vec<Ipv6Addr>),
}

/// A router on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Neighbor {
    address: Ipv6Addr,
    heard: Instant,
}

/// The machine of one link.
#[derive(Clone, Debug)]
pub struct Link {
    settings: Settings,
    chance: Chance,
    told: View,
    up: Option<Up>,
}

/// A link that carries packets.
#[derive(Clone, Debug)]
struct Up {
    address: Ipv6Addr,
    link_layer: Option<LinkLayer>,
    /// When all nodes are told next.
    advertise_at: Instant,
    advertised: Option<Instant>,
    /// How many advertisements are still due at the fast pace.
    initial: u8,
    /// A node that is answered alone, and when.
    answer: Option<(Instant, Ipv6Addr)>,
    answered: Option<Instant>,
    solicitations: u8,
    first_solicitation: Instant,
    solicited: Option<Instant>,
    neighbors: Vec<Neighbor>,
}

impl Link {
    /// A link that is down.
    pub fn new(settings: Settings) -> Self {
        let interval = settings
            .interval
            .clamp(Duration::from_secs(4), Duration::from_secs(1800));
        Self {
            chance: Chance(settings.seed),
            settings: Settings {
                interval,
                ..settings
            },
            told: View::Down,
            up: None,
        }
    }

    /// Takes note of `event`.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Up {
                address,
                link_layer,
            } => self.rise(now, address, link_layer),
            Event::Down => self.up = None,
            Event::Heard { from, message } => self.hear(now, from, &message),
        }
        self.handle_timeout(now, out);
    }

    /// When [`Link::handle_timeout`] has something to do next; never while the link is down.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let up = self.up.as_ref()?;
        let lapse = up.neighbors.iter().map(|neighbor| neighbor.lapses()).min();
        let answer = up.answer.map(|(at, _)| at);
        [Some(up.advertise_at), answer, up.solicit_at(), lapse]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Action>) {
        if let Some(up) = &mut self.up {
            up.neighbors.retain(|neighbor| neighbor.lapses() > now);
            if up.advertise_at <= now {
                let pause = self.chance.pause(&self.settings, &mut up.initial);
                up.advertised = Some(now);
                up.advertise_at = now + pause;
                // Whoever waits for an answer of its own has it with this.
                up.answer = None;
                out.push(up.advertisement(Destination::AllNodes));
            }
            if let Some((at, node)) = up.answer
                && at <= now
            {
                up.answer = None;
                up.answered = Some(now);
                out.push(up.advertisement(Destination::Node(node)));
            }
            if up.solicit_at().is_some_and(|at| at <= now) {
                up.solicitations -= 1;
                up.solicited = Some(now);
                let source_link = up.link_layer;
                out.push(Action::Send {
                    to: Destination::AllRouters,
                    message: Message::Solicitation { source_link },
                });
            }
        }
        let view = self.view();
        if view != self.told {
            self.told = view.clone();
            out.push(Action::Report(view));
        }
    }

    /// Who is on the link, as reported last.
    pub fn told(&self) -> &View {
        &self.told
    }

    /// The routers on the link, and when each was heard last.
    pub fn neighbors(&self) -> impl Iterator<Item = (Ipv6Addr, Instant)> {
        self.up
            .iter()
            .flat_map(|up| &up.neighbors)
            .map(|neighbor| (neighbor.address, neighbor.heard))
    }

    fn rise(&mut self, now: Instant, address: Ipv6Addr, link_layer: Option<LinkLayer>) {
        if let Some(up) = &mut self.up {
            if (up.address, up.link_layer) == (address, link_layer) {
                return;
            }
            // RFC 4861 §6.2.4: what is said has changed, so it is said at the fast pace again.
            (up.address, up.link_layer) = (address, link_layer);
            up.initial = INITIAL_ADVERTISEMENTS;
            up.hasten(now, &mut self.chance);
            return;
        }
        self.up = Some(Up {
            address,
            link_layer,
            advertise_at: now + self.chance.up_to(MAX_RA_DELAY),
            advertised: None,
            initial: INITIAL_ADVERTISEMENTS,
            answer: None,
            answered: None,
            solicitations: SOLICITATIONS,
            first_solicitation: now + self.chance.up_to(SOLICITATION_DELAY),
            solicited: None,
            neighbors: Vec::new(),
        });
    }

    fn hear(&mut self, now: Instant, from: Ipv6Addr, message: &Message) {
        let Some(up) = &mut self.up else {
            return;
        };
        // What a looped cable brings back, and a node with our address, tell us nothing.
        if from == up.address {
            return;
        }
        let known = up.neighbors.iter_mut().find(|known| known.address == from);
        if let Some(neighbor) = known {
            neighbor.heard = now;
            up.solicitations = SOLICITATIONS;
        } else if matches!(message, Message::Advertisement(_)) {
            // Hosts also solicit and resolve: only an advertisement makes a router.
            up.meet(now, from, &mut self.chance);
        }
        if matches!(message, Message::Solicitation { .. }) {
            up.solicited_by(now, from, &mut self.chance);
        }
    }

    fn view(&self) -> View {
        let Some(up) = &self.up else {
            return View::Down;
        };
        match up.neighbors.as_slice() {
            [] => View::Silent,
            [only] => View::Neighbor(only.address),
            several => {
                let mut addresses: Vec<Ipv6Addr> =
                    several.iter().map(|neighbor| neighbor.address).collect();
                addresses.sort_unstable();
                View::Several(addresses)
            }
        }
    }
}

impl Neighbor {
    fn lapses(&self) -> Instant {
        self.heard + NEIGHBOR_LIFETIME
    }
}

impl Up {
    fn advertisement(&self, to: Destination) -> Action {
        Action::Send {
            to,
            message: Message::Advertisement(Advertisement {
                source_link: self.link_layer,
                ..Advertisement::default()
            }),
        }
    }

    /// A router that was not known.
    fn meet(&mut self, now: Instant, address: Ipv6Addr, chance: &mut Chance) {
        if self.neighbors.len() == NEIGHBOR_LIMIT {
            return;
        }
        let heard = now;
        self.neighbors.push(Neighbor { address, heard });
        self.solicitations = SOLICITATIONS;
        // It may have missed what we said before it came.
        self.initial = INITIAL_ADVERTISEMENTS;
        self.hasten(now, chance);
    }

    /// Tells all nodes soon, but not sooner than the pace of RFC 4861 §6.2.6 allows.
    fn hasten(&mut self, now: Instant, chance: &mut Chance) {
        let earliest = self
            .advertised
            .map_or(now, |last| now.max(last + MIN_DELAY_BETWEEN_RAS));
        let soon = earliest + chance.up_to(MAX_RA_DELAY);
        self.advertise_at = self.advertise_at.min(soon);
    }

    /// RFC 4861 §6.2.6: all nodes are told, and the one that asks alone where all have just been.
    fn solicited_by(&mut self, now: Instant, from: Ipv6Addr, chance: &mut Chance) {
        self.hasten(now, chance);
        let soon = now + chance.up_to(MAX_RA_DELAY);
        let too_late = self.advertise_at > now + MAX_RA_DELAY;
        let rested = self
            .answered
            .is_none_or(|last| last + UNICAST_PAUSE <= soon);
        if too_late && rested && self.answer.is_none() && from.is_unicast_link_local() {
            self.answer = Some((soon, from));
        }
    }

    /// When routers are asked to show themselves: at first, and when one has been quiet.
    fn solicit_at(&self) -> Option<Instant> {
        if self.solicitations == 0 {
            return None;
        }
        let quietest = self.neighbors.iter().map(|neighbor| neighbor.heard).min();
        let due = quietest.map_or(self.first_solicitation, |heard| heard + QUIET);
        let rested = self.solicited.map(|last| last + SOLICITATION_INTERVAL);
        Some(rested.map_or(due, |rested| rested.max(due)))
    }
}

/// A small deterministic source of chance: the same seed gives the same waits in every replay.
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    /// A wait between zero and `longest`.
    fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.share())
    }

    /// The pause before the next advertisement to all nodes.
    fn pause(&mut self, settings: &Settings, initial: &mut u8) -> Duration {
        *initial = initial.saturating_sub(1);
        let usual = settings.interval.mul_f64(0.75 + 0.25 * self.share());
        if *initial == 0 {
            return usual;
        }
        let fast = MIN_DELAY_BETWEEN_RAS + self.up_to(MAX_RA_DELAY);
        fast.min(usual)
    }

    /// A number in [0, 1): one step of SplitMix64, which needs no state but a counter.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let part = u32::try_from(mixed >> 40).expect("24 bits fit in 32");
        f64::from(part) / f64::from(1 << 24)
    }
}

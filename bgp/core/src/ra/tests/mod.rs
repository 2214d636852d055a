//! Router discovery: octets, timers, two machines on one link, and what holds for any sequence.

mod link;
mod pair;
mod property;
mod wire;

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use super::*;

const OWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const MAC: LinkLayer = [2, 0, 0, 0, 0, 1];

fn neighbor(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xaa, number)
}

fn up() -> Event {
    Event::Up {
        address: OWN,
        link_layer: Some(MAC),
    }
}

fn advertised_by(from: Ipv6Addr) -> Event {
    let message = Message::Advertisement(Advertisement::default());
    Event::Heard { from, message }
}

fn solicited_by(from: Ipv6Addr) -> Event {
    let message = Message::Solicitation { source_link: None };
    Event::Heard { from, message }
}

fn resolved_by(from: Ipv6Addr) -> Event {
    let message = Message::NeighborSolicitation {
        target: OWN,
        source_link: None,
    };
    Event::Heard { from, message }
}

/// A link in virtual time, with everything that it did and when.
struct Bench {
    link: Link,
    start: Instant,
    now: Instant,
    log: Vec<(Duration, Action)>,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let start = Instant::now();
        Self {
            link: Link::new(settings),
            start,
            now: start,
            log: Vec::new(),
        }
    }

    fn up() -> Self {
        let mut bench = Self::new(Settings::new(7));
        bench.give(up());
        bench
    }

    fn give(&mut self, event: Event) {
        let mut out = Vec::new();
        self.link.handle(self.now, event, &mut out);
        self.note(out);
    }

    /// Lets `duration` pass, with the timers that end in it.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.link.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut out = Vec::new();
            self.link.handle_timeout(self.now, &mut out);
            self.note(out);
            let next = self.link.poll_timeout();
            assert!(
                next.is_none_or(|next| next > self.now),
                "a timer stays due: {next:?} at {:?}",
                self.now
            );
        }
        self.now = end;
    }

    fn note(&mut self, actions: Vec<Action>) {
        let at = self.now - self.start;
        self.log
            .extend(actions.into_iter().map(|action| (at, action)));
    }

    /// When messages of which `wanted` approves were sent.
    fn sent(&self, wanted: impl Fn(&Destination, &Message) -> bool) -> Vec<Duration> {
        let of = |(at, action): &(Duration, Action)| match action {
            Action::Send { to, message } if wanted(to, message) => Some(*at),
            _ => None,
        };
        self.log.iter().filter_map(of).collect()
    }

    fn advertisements(&self) -> Vec<Duration> {
        self.sent(|to, message| {
            *to == Destination::AllNodes && matches!(message, Message::Advertisement(_))
        })
    }

    fn solicitations(&self) -> Vec<Duration> {
        self.sent(|_, message| matches!(message, Message::Solicitation { .. }))
    }

    fn answers(&self) -> Vec<Duration> {
        self.sent(|to, _| matches!(to, Destination::Node(_)))
    }

    fn reports(&self) -> Vec<View> {
        let of = |(_, action): &(Duration, Action)| match action {
            Action::Report(view) => Some(view.clone()),
            Action::Send { .. } => None,
        };
        self.log.iter().filter_map(of).collect()
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

//! A FIB that a test asks for routes.

use std::thread;
use std::time::{Duration, Instant};

use caracal_bgp_speaker::snapshot::{KernelNextHop, KernelRoute};
use caracal_bgp_speaker::{Fib, FibChange, FibEvent, FibNextHop, FibRoute};
use caracal_fib::{FibControl, FibOptions, KernelFib, NamedNetns, PROTOCOL_BGP};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use super::{DEADLINE, addr};

/// A FIB under test, and what it said.
pub struct Subject {
    pub fib: KernelFib,
    pub control: FibControl,
    pub events: Receiver<FibEvent>,
    seq: u64,
}

impl Subject {
    pub fn start(node: &NamedNetns, options: FibOptions) -> Self {
        let (fib, control, events) = KernelFib::start(node.netns(), options).unwrap();
        Self {
            fib,
            control,
            events,
            seq: 0,
        }
    }

    /// Asks for one route that drops its packets. Returns the sequence number.
    pub fn ask_to_drop(&mut self, prefix: &str) -> u64 {
        self.seq += 1;
        self.fib.apply(vec![FibChange {
            prefix: prefix.parse().unwrap(),
            route: Some(FibRoute {
                next_hops: [].into(),
            }),
            seq: self.seq,
        }]);
        self.seq
    }

    /// Asks for routes; an empty list of next hops withdraws. Returns the last sequence number.
    pub fn ask(&mut self, routes: &[(&str, &[&str])]) -> u64 {
        let changes = routes
            .iter()
            .map(|(prefix, next_hops)| {
                self.seq += 1;
                let next_hops: Vec<FibNextHop> =
                    next_hops.iter().map(|text| next_hop(text)).collect();
                FibChange {
                    prefix: prefix.parse().unwrap(),
                    route: (!next_hops.is_empty()).then(|| FibRoute {
                        next_hops: next_hops.into(),
                    }),
                    seq: self.seq,
                }
            })
            .collect();
        self.fib.apply(changes);
        self.seq
    }

    /// The next event that `pick` wants; others are passed over.
    pub fn event<T>(&mut self, what: &str, mut pick: impl FnMut(&FibEvent) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            match self.events.try_recv() {
                Ok(event) => match pick(&event) {
                    Some(found) => return found,
                    None => seen.push(event),
                },
                Err(_) => thread::sleep(Duration::from_micros(200)),
            }
        }
        panic!("no event: {what}; seen: {seen:?}");
    }

    /// Waits until the answer with this number is "installed"; whether it is the first one.
    pub fn installed(&mut self, wanted: u64) -> bool {
        self.event("installed", |event| match event {
            FibEvent::Installed { seq, first, .. } if *seq == wanted => Some(*first),
            FibEvent::Failed { seq, why, .. } if *seq == wanted => panic!("failed: {why}"),
            _ => None,
        })
    }

    /// What lies at a prefix, and whether it should.
    pub fn look(&self, prefix: &str) -> (KernelRoute, bool) {
        let (answer, seen) = oneshot::channel();
        let window = self.fib.window().unwrap();
        window.look(prefix.parse().unwrap(), answer);
        let seen = seen.blocking_recv().unwrap();
        assert!(seen.checked_ms > 0);
        (seen.route, seen.in_sync)
    }

    pub fn failed(&mut self, wanted: u64) -> String {
        self.event("failed", |event| match event {
            FibEvent::Failed { seq, why, .. } if *seq == wanted => Some(why.clone()),
            _ => None,
        })
    }

    pub fn synced(&mut self) {
        self.fib.initial_sync_complete();
        self.event("resynced", |event| {
            matches!(event, FibEvent::Resynced).then_some(())
        });
    }
}

/// Routes of ours over these gateways and links.
pub fn forwarding(next_hops: &[(&str, &str)]) -> KernelRoute {
    let next_hops = next_hops.iter().map(|(address, interface)| KernelNextHop {
        address: addr(address),
        interface: (*interface).to_owned(),
    });
    KernelRoute::Forwarding {
        protocol: PROTOCOL_BGP,
        next_hops: next_hops.collect(),
    }
}

/// `address`, or `address%interface index`.
pub fn next_hop(text: &str) -> FibNextHop {
    let (address, interface) = match text.split_once('%') {
        Some((address, index)) => (address, Some(index.parse().unwrap())),
        None => (text, None),
    };
    FibNextHop {
        address: addr(address),
        link_local: None,
        interface,
    }
}

//! Tests of the peer machine: by table, by scenario, by property, and two of them against each
//! other over a simulated network.

mod collision;
mod configure;
mod idle;
mod pair;
mod property;
mod restart;
mod strict;
mod table;
mod terms;
mod timers;

use std::time::{Duration, Instant};

use super::*;
use crate::types::{Asn, Family, RouterId};
use crate::wire::{AfiSafi, Capability, GracefulRestart, Message, Notification, Open};

/// One machine, its clock, and all that it asked for.
struct Bench {
    now: Instant,
    peer: Peer,
    /// Actions of the last call.
    last: Vec<Action>,
}

const CONN: ConnId = ConnId(1);
const OTHER: ConnId = ConnId(2);

/// Of IPv4 prefixes in [`config`].
const LIMIT: PrefixLimit = PrefixLimit {
    limit: 1,
    restart_after: None,
};

fn config() -> Config {
    Config {
        graceful_restart: Some(LocalGracefulRestart {
            restart_time: Duration::from_secs(120),
            restarting: false,
            families: Family::ALL.map(|family| (family, true)).to_vec(),
        }),
        prefix_limits: [Some(LIMIT), None],
        jitter_seed: 7,
        ..Config::new(Asn(65000), RouterId(20), Asn(65001))
    }
}

/// An OPEN that suits [`config`], with router ID 10 and without graceful restart.
fn open() -> Open {
    Open {
        asn: Asn(65001),
        hold_time: Duration::from_secs(30),
        router_id: RouterId(10),
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4Unicast.into()),
            Capability::Multiprotocol(Family::Ipv6Unicast.into()),
            Capability::RouteRefresh,
            Capability::FourOctetAs(Asn(65001)),
        ],
    }
}

/// [`open`] with a graceful restart capability.
fn restart_open(families: &[(Family, bool)], notification: bool, restarting: bool) -> Open {
    let mut open = open();
    let families = families
        .iter()
        .map(|(family, kept)| ((*family).into(), *kept));
    open.capabilities
        .push(Capability::GracefulRestart(GracefulRestart {
            restarting,
            notification,
            restart_time: Duration::from_secs(60),
            families: families.collect(),
        }));
    open
}

impl Bench {
    fn new(config: Config) -> Self {
        Self {
            now: Instant::now(),
            peer: Peer::new(config),
            last: Vec::new(),
        }
    }

    fn event(&mut self, event: Event) -> &[Action] {
        self.last.clear();
        self.peer.handle(self.now, event, &mut self.last);
        &self.last
    }

    fn connected(&mut self, conn: ConnId, role: Role) -> &[Action] {
        self.event(Event::Connected { conn, role })
    }

    fn receive(&mut self, conn: ConnId, message: Incoming) -> &[Action] {
        self.event(Event::Received { conn, message })
    }

    /// Lets time pass to the next timer and runs it.
    fn next_timer(&mut self) -> &[Action] {
        self.now = self.peer.poll_timeout().expect("a timer is armed");
        self.last.clear();
        self.peer.handle_timeout(self.now, &mut self.last);
        &self.last
    }

    /// Runs timers until `wanted` is among the actions; how long that took.
    fn until(&mut self, wanted: impl Fn(&Action) -> bool) -> Duration {
        let start = self.now;
        for _ in 0..1000 {
            if self.next_timer().iter().any(&wanted) {
                return self.now - start;
            }
        }
        panic!("never seen; last: {:?}", self.last);
    }

    /// Brings up a session on [`CONN`], dialled by us, with this OPEN of the peer.
    fn established(config: Config, open: Open) -> Self {
        let mut bench = Self::new(config);
        bench.event(Event::Admin(Admin::Up));
        bench.connected(CONN, Role::Active);
        bench.receive(CONN, Incoming::Open(open));
        bench.receive(CONN, Incoming::Keepalive);
        assert_eq!(bench.peer.state(), State::Established);
        bench
    }

    /// Codes of the NOTIFICATIONs sent on `conn` in the last call.
    fn notified(&self, conn: ConnId) -> Vec<(u8, u8)> {
        self.notifications(conn)
            .map(|notification| notification.error.codes())
            .collect()
    }

    fn notifications(&self, conn: ConnId) -> impl Iterator<Item = &Notification> {
        self.last.iter().filter_map(move |action| match action {
            Action::Send {
                conn: on,
                message: Message::Notification(notification),
            } if *on == conn => Some(notification),
            _ => None,
        })
    }

    fn closed(&self, conn: ConnId) -> bool {
        self.last.contains(&Action::Close { conn })
    }

    /// What the last call said on leaving Established.
    fn down(&self) -> Option<(DownWhy, Vec<Retention>)> {
        self.last.iter().find_map(|action| match action {
            Action::Down { why, retain } => Some((why.clone(), retain.clone())),
            _ => None,
        })
    }

    /// Families that the last call said to retain.
    fn retained(&self) -> Vec<Family> {
        let (_, retain) = self.down().expect("the session ended");
        retain.into_iter().map(|kept| kept.family).collect()
    }
}

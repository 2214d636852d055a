//! The task of one link: drives its machine.
//!
//! Owns the socket while the interface is there. Turns what happens into events and does what the
//! machine says.

use std::io;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caracal_bgp_core::ra::{
    ALL_NODES, ALL_ROUTERS, Action, Destination, Event, Link, Message, Settings, View,
};
use tokio::sync::watch;

use super::socket::{Datagram, LinkSocket};
use super::{Board, Ground, LinkReport, LinkState, Pacer};

/// The first and the longest wait after a socket was refused.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

pub(super) struct LinkTask {
    pub(super) name: String,
    pub(super) ground: watch::Receiver<Ground>,
    pub(super) board: Arc<Board>,
    pub(super) pacer: Arc<Pacer>,
    pub(super) seed: u64,
}

/// How many messages of a link are looked at in [`WINDOW`]: a node that floods it costs us no more,
/// and what is too much is dropped by the kernel.
const MESSAGES: u32 = 32;
const WINDOW: Duration = Duration::from_millis(100);

/// What is left of [`MESSAGES`].
#[derive(Default)]
struct Allowance {
    spent: u32,
    began: Option<Instant>,
}

impl Allowance {
    /// Counts a message, and waits where there were too many.
    async fn spend(&mut self) {
        let now = Instant::now();
        let end = self.began.map(|began| began + WINDOW);
        match end {
            Some(end) if now < end => {
                self.spent += 1;
                if self.spent >= MESSAGES {
                    tokio::time::sleep_until(end.into()).await;
                }
            }
            _ => {
                self.began = Some(now);
                self.spent = 1;
            }
        }
    }
}

/// What ended a stay on an interface.
enum Ended {
    /// The interface has changed, or gone.
    Moved,
    /// The supervisor has ended.
    Over,
}

impl LinkTask {
    pub(super) async fn run(mut self) {
        let mut retry = FIRST_RETRY;
        loop {
            let ground = self.ground.borrow_and_update().clone();
            let ended = match ground {
                Ground::Absent => {
                    self.report(None, LinkState::Absent, None);
                    self.moved().await
                }
                Ground::Down { ifindex, why } => {
                    self.report(Some(ifindex), LinkState::Down(why), None);
                    self.moved().await
                }
                Ground::Ready { ifindex, .. } => match LinkSocket::open(ifindex) {
                    Ok(socket) => {
                        retry = FIRST_RETRY;
                        self.stay(ifindex, &socket).await
                    }
                    Err(error) => {
                        let state = LinkState::Failed(error.to_string());
                        self.report(Some(ifindex.get()), state, None);
                        let wait = retry;
                        retry = (retry * 2).min(LONGEST_RETRY);
                        tokio::time::timeout(wait, self.moved())
                            .await
                            .unwrap_or(Ended::Moved)
                    }
                },
            };
            if let Ended::Over = ended {
                return;
            }
        }
    }

    async fn moved(&mut self) -> Ended {
        match self.ground.changed().await {
            Ok(()) => Ended::Moved,
            Err(_) => Ended::Over,
        }
    }

    /// Tends the link until the interface is another one or down.
    async fn stay(&mut self, ifindex: NonZeroU32, socket: &LinkSocket) -> Ended {
        let mut machine = Link::new(Settings::new(self.seed));
        let mut trouble = None;
        let mut carrier = None;
        let mut allowance = Allowance::default();
        loop {
            let ground = self.ground.borrow_and_update().clone();
            let own = match ground {
                Ground::Ready {
                    ifindex: now,
                    carrier_changes,
                    address,
                    link_layer,
                } if now == ifindex => {
                    // The link was down for a moment: somebody else may be there now.
                    if carrier.replace(carrier_changes) != Some(carrier_changes) {
                        machine.handle(Instant::now(), Event::Down, &mut Vec::new());
                    }
                    let event = Event::Up {
                        address,
                        link_layer,
                    };
                    self.give(&mut machine, event, address, socket, &mut trouble)
                        .await;
                    address
                }
                _ => return Ended::Moved,
            };
            loop {
                self.show(ifindex.get(), &machine, trouble.as_ref());
                let due = machine.poll_timeout().map(tokio::time::Instant::from_std);
                tokio::select! {
                    // What becomes of the interface comes before what is heard on it.
                    biased;
                    change = self.ground.changed() => match change {
                        Ok(()) => break,
                        Err(_) => return Ended::Over,
                    },
                    () = sleep_until(due) => {
                        let mut out = Vec::new();
                        machine.handle_timeout(Instant::now(), &mut out);
                        self.act(out, own, socket, &mut trouble).await;
                    }
                    received = socket.receive() => match received {
                        Ok(datagram) => {
                            if let Some(event) = self.heard(datagram) {
                                self.give(&mut machine, event, own, socket, &mut trouble).await;
                            }
                            allowance.spend().await;
                        }
                        Err(error) => {
                            trouble = Some(format!("cannot hear router advertisements: {error}"));
                            tokio::time::sleep(FIRST_RETRY).await;
                        }
                    },
                }
            }
        }
    }

    fn heard(&self, datagram: Datagram) -> Option<Event> {
        let Datagram { envelope, octets } = datagram;
        match Message::decode(&octets, envelope) {
            Ok(message) => Some(Event::Heard {
                from: envelope.source,
                message,
            }),
            Err(why) => {
                let (interface, from) = (&self.name, envelope.source);
                tracing::debug!(%interface, %from, reason = %why, "router discovery: message ignored");
                None
            }
        }
    }

    async fn give(
        &self,
        machine: &mut Link,
        event: Event,
        own: Ipv6Addr,
        socket: &LinkSocket,
        trouble: &mut Option<String>,
    ) {
        let mut out = Vec::new();
        machine.handle(Instant::now(), event, &mut out);
        self.act(out, own, socket, trouble).await;
    }

    async fn act(
        &self,
        actions: Vec<Action>,
        own: Ipv6Addr,
        socket: &LinkSocket,
        trouble: &mut Option<String>,
    ) {
        for action in actions {
            match action {
                Action::Send { to, message } => {
                    let slot = self.pacer.slot(Instant::now());
                    tokio::time::sleep_until(slot.into()).await;
                    let sent = socket.send(own, address(to), &message.encode());
                    *trouble = sent.err().and_then(|error| self.lasting(&error));
                }
                // What the board shows is read off the machine.
                Action::Report(_) => {}
            }
        }
    }

    /// What a failure to send says to a person; nothing where the interface is on its way down,
    /// which will be told by itself.
    fn lasting(&self, error: &io::Error) -> Option<String> {
        use io::ErrorKind as Kind;
        let interface = &self.name;
        tracing::debug!(%interface, %error, "router discovery: message not sent");
        let passing = matches!(
            error.kind(),
            Kind::NetworkDown | Kind::AddrNotAvailable | Kind::NetworkUnreachable
        ) || error.raw_os_error() == Some(libc::ENODEV);
        (!passing).then(|| format!("cannot send router advertisements: {error}"))
    }

    fn show(&self, ifindex: u32, machine: &Link, trouble: Option<&String>) {
        let state = match machine.told() {
            // It has been told to be up before anybody looks.
            View::Down | View::Silent => LinkState::Silent,
            View::Several(addresses) => LinkState::Several(addresses.clone()),
            View::Neighbor(address) => LinkState::Neighbor {
                address: *address,
                heard: machine
                    .neighbors()
                    .map(|(_, heard)| heard)
                    .max()
                    .unwrap_or_else(Instant::now),
            },
        };
        self.report(Some(ifindex), state, trouble.cloned());
    }

    fn report(&self, ifindex: Option<u32>, state: LinkState, trouble: Option<String>) {
        self.board.report(LinkReport {
            interface: self.name.clone(),
            ifindex,
            state,
            trouble,
        });
    }
}

fn address(to: Destination) -> Ipv6Addr {
    match to {
        Destination::AllNodes => ALL_NODES,
        Destination::AllRouters => ALL_ROUTERS,
        Destination::Node(address) => address,
    }
}

/// Sleeps until `due`; for good without one.
async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

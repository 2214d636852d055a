//! A session without sockets and clocks: octets go through framing and decoding into the peer
//! machine, and what the machine asks for is checked against what may never happen.
//!
//! An input is a list of steps, each an octet that says what happens and what it needs:
//!
//! ```text
//!  0  the peer connects
//!  1  our dial succeeds
//!  2  octets come on the newest connection: a length of two octets, and they
//!  3  octets come on the oldest connection, likewise
//!  4  our dial fails
//!  5  the newest connection, or the oldest, closes: as the next octet says
//!  6  an operator's wish: as the next octet says
//!  7  the path goes, or comes back: as the next octet says
//!  8  time passes: seconds in the next octet
//!  9  the prefix limit is exceeded
//! 10  a refresh is asked for
//! 11  something was written on the newest connection
//! 12  our restart is over
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use caracal_bgp_core::fsm::{
    Action, AddPath, Admin, CloseWhy, Config, ConnId, Event, Incoming, LocalGracefulRestart,
    LocalLongLived, LocalRole, PathWhy, Peer, PrefixLimit, Role, State,
};
use caracal_bgp_core::types::{Asn, BgpRole, Family, FamilySet, PeerAs, RouterId};
use caracal_bgp_core::wire::{
    self, DecodeContext, EncodeContext, Frame, MessageType, UpdateOutcome,
};

/// Steps of one input that are run: longer lives find nothing that shorter ones do not, and cost many
/// short ones.
const MAX_STEPS: usize = 100;
/// Our AS; the peers of the vectors are of AS 65000.
const LOCAL: Asn = Asn(65100);

/// One peer, its connections and its clock.
pub struct Harness {
    now: Instant,
    peer: Peer,
    /// What has come on each open connection and makes no whole message yet.
    connections: BTreeMap<ConnId, BytesMut>,
    names: u64,
    up: Option<(ConnId, DecodeContext)>,
    /// UPDATEs handed to the RIB.
    pub delivered: usize,
}

impl Harness {
    /// A peer that has been started, with every extension on offer where `extended`.
    pub fn new(extended: bool) -> Self {
        let mut config = Config::new(LOCAL, RouterId(20), PeerAs::External);
        let limit = PrefixLimit {
            limit: 1,
            restart_after: Some(Duration::from_secs(60)),
        };
        config.prefix_limits = [Some(limit); Family::ALL.len()];
        config.graceful_restart = Some(LocalGracefulRestart {
            restart_time: Duration::from_secs(120),
            restarting: extended,
            families: Family::ALL.map(|family| (family, true)).to_vec(),
        });
        if extended {
            config.add_path = AddPath {
                send: FamilySet::ALL,
                receive: FamilySet::ALL,
            };
            config.extended_next_hop = true;
            config.extended_messages = true;
            config.bfd_strict = true;
            config.long_lived = Some(LocalLongLived::default());
            config.role = Some(LocalRole {
                role: BgpRole::Peer,
                strict: false,
            });
        }
        let mut harness = Self {
            now: Instant::now(),
            peer: Peer::new(config),
            connections: BTreeMap::new(),
            names: 0,
            up: None,
            delivered: 0,
        };
        harness.handle(Event::PathProved(true), None);
        harness.handle(Event::Admin(Admin::Up), None);
        harness
    }

    /// Runs the steps of an input.
    pub fn run(&mut self, mut input: &[u8]) {
        for _ in 0..MAX_STEPS {
            let Some((step, tail)) = input.split_first() else {
                return;
            };
            input = tail;
            let mut next = || {
                let (octet, tail) = input.split_first().unwrap_or((&0, &[]));
                input = tail;
                *octet
            };
            match step % 13 {
                0 => self.connected(Role::Passive),
                1 => self.connected(Role::Active),
                which @ (2 | 3) => {
                    let length = usize::from(u16::from_be_bytes([next(), next()]));
                    let (octets, tail) = input.split_at(length.min(input.len()));
                    let conn = if which == 2 {
                        self.newest()
                    } else {
                        self.oldest()
                    };
                    if let Some(conn) = conn {
                        self.came(conn, octets);
                    }
                    input = tail;
                }
                4 => {
                    let why = CloseWhy::Refused;
                    self.handle(Event::DialFailed { why }, None);
                }
                5 => {
                    let conn = if next() & 1 == 0 {
                        self.newest()
                    } else {
                        self.oldest()
                    };
                    if let Some(conn) = conn {
                        let why = CloseWhy::Eof;
                        self.handle(Event::Closed { conn, why }, None);
                        self.connections.remove(&conn);
                    }
                }
                6 => self.admin(next()),
                7 => {
                    let down = |why| Event::PathDown { why };
                    let event = match next() % 7 {
                        0 => Event::PathUp,
                        1 => down(PathWhy::BfdDown),
                        2 => down(PathWhy::LinkDown),
                        3 => Event::PathProved(false),
                        4 => Event::PathProved(true),
                        5 => Event::PeerKnown(false),
                        _ => Event::PeerKnown(true),
                    };
                    self.handle(event, None);
                }
                8 => self.pass(Duration::from_secs(next().into())),
                9 => {
                    if let Some(conn) = self.newest() {
                        let family = Family::Ipv4Unicast;
                        let limit = 1;
                        let event = Event::PrefixLimitExceeded {
                            conn,
                            family,
                            limit,
                        };
                        self.handle(event, None);
                    }
                }
                10 => {
                    let family = Family::Ipv6Unicast;
                    self.handle(Event::RequestRefresh { family }, None);
                }
                11 => {
                    if let Some(conn) = self.newest() {
                        self.handle(Event::Wrote { conn }, None);
                    }
                }
                _ => self.handle(Event::RestartComplete, None),
            }
        }
    }

    fn newest(&self) -> Option<ConnId> {
        self.connections.keys().next_back().copied()
    }

    fn oldest(&self) -> Option<ConnId> {
        self.connections.keys().next().copied()
    }

    fn connected(&mut self, role: Role) {
        self.names += 1;
        let conn = ConnId(self.names);
        self.connections.insert(conn, BytesMut::new());
        self.handle(Event::Connected { conn, role }, None);
    }

    fn admin(&mut self, which: u8) {
        let text = "because".to_owned();
        let wish = match which % 8 {
            0..=3 => Admin::Up,
            4 => Admin::Down { text },
            5 => Admin::Clear { text },
            6 => Admin::Deconfigure,
            _ => Admin::Restart,
        };
        self.handle(Event::Admin(wish), None);
    }

    fn came(&mut self, conn: ConnId, octets: &[u8]) {
        if let Some(buffer) = self.connections.get_mut(&conn) {
            buffer.extend_from_slice(octets);
        }
        let max_len = self.peer.config().max_receive_len();
        while let Some(buffer) = self.connections.get_mut(&conn) {
            match wire::frame(buffer, max_len) {
                Ok(Some(frame)) => self.framed(conn, &frame),
                Ok(None) => return,
                Err(notification) => {
                    self.handle(Event::Malformed { conn, notification }, None);
                    // A stream out of step is of no more use, whatever the machine said.
                    self.connections.remove(&conn);
                    return;
                }
            }
        }
    }

    fn framed(&mut self, conn: ConnId, frame: &Frame) {
        if frame.kind == MessageType::Update {
            return self.update(conn, frame);
        }
        let event = match wire::decode_control(frame) {
            Ok(message) => Event::Received {
                conn,
                message: message.into(),
            },
            Err(notification) => Event::Malformed { conn, notification },
        };
        self.handle(event, None);
    }

    fn update(&mut self, conn: ConnId, frame: &Frame) {
        let context = self.up.as_ref().filter(|(on, _)| *on == conn);
        let Some((_, context)) = context else {
            let message = Incoming::Update;
            self.handle(Event::Received { conn, message }, None);
            // It may have been what brought the session up.
            if self.up.as_ref().is_some_and(|(on, _)| *on == conn) {
                self.update(conn, frame);
            }
            return;
        };
        match wire::decode_update(&frame.body, context) {
            UpdateOutcome::Reset(notification) => {
                self.handle(Event::Malformed { conn, notification }, None);
                assert!(
                    self.up.as_ref().is_none_or(|(on, _)| *on != conn),
                    "a session outlived its reset"
                );
            }
            _ => {
                let message = Incoming::Update;
                self.handle(Event::Received { conn, message }, Some(conn));
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut runs = 0;
        while let Some(at) = self.peer.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut out = Vec::new();
            self.peer.handle_timeout(self.now, &mut out);
            self.act(out, None);
            runs += 1;
            assert!(runs < 10_000, "timers never end");
        }
        self.now = end;
    }

    /// Tells the machine; `expects` is the connection of an UPDATE that the RIB is to have.
    fn handle(&mut self, event: Event, expects: Option<ConnId>) {
        let mut out = Vec::new();
        self.peer.handle(self.now, event, &mut out);
        self.act(out, expects);
    }

    fn act(&mut self, actions: Vec<Action>, expects: Option<ConnId>) {
        let mut delivered = false;
        for action in actions {
            match action {
                Action::Send { conn, message } => {
                    assert!(
                        self.connections.contains_key(&conn),
                        "sent on a closed connection"
                    );
                    let mut octets = BytesMut::new();
                    wire::encode(&message, EncodeContext::default(), &mut octets)
                        .expect("the machine sends no UPDATEs");
                    assert!(octets.len() <= wire::MAX_MESSAGE_LEN);
                }
                Action::Close { conn } => {
                    assert!(self.connections.remove(&conn).is_some(), "closed twice");
                }
                Action::Up { conn, negotiated } => {
                    assert!(self.up.is_none(), "two sessions");
                    assert!(
                        self.connections.contains_key(&conn),
                        "up on a closed connection"
                    );
                    self.up = Some((conn, negotiated.decode_context()));
                }
                Action::Down { .. } => {
                    assert!(self.up.take().is_some(), "down without up");
                }
                Action::Deliver { conn } => {
                    let on = self.up.as_ref().map(|(on, _)| *on);
                    assert_eq!(on, Some(conn), "delivered from outside the session");
                    self.delivered += 1;
                    delivered = true;
                }
                Action::Dial | Action::CancelDial | Action::DropRetained | Action::Note(_) => {}
            }
        }
        if expects.is_some() {
            assert!(delivered, "an UPDATE of the session was lost");
        }
        let established = self.peer.state() == State::Established;
        assert_eq!(self.up.is_some(), established);
        assert_eq!(self.peer.negotiated().is_some(), established);
        assert_eq!(
            self.peer.idle_why().is_some(),
            self.peer.state() == State::Idle
        );
    }
}

/// Sessions that come up and then hear each vector, connections that hear each OPEN, collisions, and a
/// whole life.
pub fn seeds() -> Vec<Vec<u8>> {
    use caracal_bgp_core::vectors;

    let on = |step: u8, octets: &[u8]| {
        let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
        let mut step = vec![step];
        step.extend_from_slice(&length.to_be_bytes());
        step.extend_from_slice(octets);
        step
    };
    let came = |octets: &[u8]| on(2, octets);
    let keepalive = vectors::framed(4, &[]);
    let good = vectors::opens().swap_remove(1).octets;
    let established = |extended: u8| [&[extended, 0][..], &came(&good), &came(&keepalive)].concat();
    let opens = vectors::opens()
        .into_iter()
        .map(|open| [&[1, 0][..], &came(&open.octets), &came(&keepalive)].concat());
    let updates = vectors::updates().into_iter().flat_map(|update| {
        let update = came(&vectors::framed(2, &update.body));
        [0, 1].map(|extended| [established(extended), update.clone()].concat())
    });
    // Both sides dial; the OPENs and KEEPALIVEs come in every order.
    let collisions = [[2, 3, 2, 3], [3, 2, 3, 2], [2, 2, 3, 3], [3, 3, 2, 2]].map(|order| {
        let messages = [&good, &good, &keepalive, &keepalive];
        let steps = order.into_iter().zip(messages);
        let steps: Vec<u8> = steps
            .flat_map(|(step, message)| on(step, message))
            .collect();
        [&[1, 0, 1][..], &steps].concat()
    });
    // A second connection beside a session, at once and later, takes part in every way.
    let beside = [&[][..], &[8, 2]].map(|wait: &[u8]| {
        let session = established(1);
        [&session[..], wait, &[0], &came(&good), &came(&keepalive)].concat()
    });
    // Lost, back, limited, held, cleared, shut down, started again.
    let back = [&[0][..], &came(&good), &came(&keepalive)].concat();
    let life = [
        &established(1)[..],
        &[10, 11, 5, 0, 8, 200],
        &back,
        &[9, 8, 10, 6, 5, 8, 90],
        &back,
        &[7, 1, 7, 0, 4, 12, 6, 4, 6, 0],
    ]
    .concat();
    opens
        .chain(updates)
        .chain(collisions)
        .chain(beside)
        .chain([life])
        .collect()
}

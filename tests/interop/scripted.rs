//! A speaker that does what the test says, octet by octet of its own: it tells routes with any attributes, and
//! keeps what it is told.
//!
//! Owns one session, which it dials again for as long as it lives. It stands behind us as whoever gives us
//! routes to pass on and takes what we pass on, and behind the router likewise.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use caracal_bgp_core::types::{Asn, Family, FamilySet, NextHop, Nlri, PeerKind, RouterId};
use caracal_bgp_core::wire::{
    self, Capability, DecodeContext, EncodeContext, MAX_MESSAGE_LEN, Message, MessageType, Open,
    PathAttributes, Reach, Update, UpdateOutcome,
};
use caracal_lab::namespace::Namespace;
use socket2::{Domain, Socket, Type};

use crate::route::Route;

const HOLD_TIME: Duration = Duration::from_secs(90);
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long one look at the socket takes at most.
const TURN: Duration = Duration::from_millis(20);

/// Who it is and whom it talks to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) asn: u32,
    pub(crate) address: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) remote_asn: u32,
}

/// A running speaker; it ends without a word when dropped.
pub(crate) struct Scripted {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// What it is to tell.
    wanted: BTreeMap<Nlri, (NextHop, PathAttributes)>,
    /// What it has told in this session.
    told: BTreeMap<Nlri, (NextHop, PathAttributes)>,
    /// What it was told in this session.
    heard: BTreeMap<Nlri, (NextHop, PathAttributes)>,
    established: bool,
    /// Withdrawals heard since [`Scripted::watch`]; the end of a session counts as one.
    withdrawals: u64,
    /// How often a session came up.
    sessions: u32,
    /// Why the last one ended, for people.
    trouble: String,
}

impl Scripted {
    /// Starts to dial.
    pub(crate) fn start(namespace: &Namespace, identity: Identity) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped, namespace) =
            (Arc::clone(&state), Arc::clone(&stop), namespace.clone());
        let run = move || {
            let work = || -> anyhow::Result<()> {
                while !stopped.load(Ordering::Relaxed) {
                    let why = match session(identity, &shared, &stopped) {
                        Ok(()) => "stopped".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    let mut state = lock(&shared);
                    state.withdrawals += u64::from(state.established);
                    state.established = false;
                    state.told.clear();
                    state.heard.clear();
                    state.trouble = why;
                    drop(state);
                    std::thread::sleep(TURN * 5);
                }
                Ok(())
            };
            namespace.run(work).unwrap();
        };
        let thread = std::thread::Builder::new()
            .name("scripted".into())
            .spawn(run)
            .unwrap();
        Self {
            state,
            stop,
            thread: Some(thread),
        }
    }

    /// Makes `routes` all that it tells.
    pub(crate) fn tell(&self, routes: &[Route]) {
        let wanted = routes.iter().map(|route| {
            let (nlri, next_hop, attributes) = route.encoded();
            (nlri, (next_hop, attributes))
        });
        lock(&self.state).wanted = wanted.collect();
    }

    /// Whether its session is up, and whether all that it is to tell is told.
    pub(crate) fn settled(&self) -> Result<(), String> {
        let state = lock(&self.state);
        if state.established && state.told == state.wanted {
            return Ok(());
        }
        Err(format!("scripted speaker: {state:#?}"))
    }

    /// Why its last session ended; empty where none has.
    pub(crate) fn trouble(&self) -> String {
        lock(&self.state).trouble.clone()
    }

    /// Begins to count withdrawals.
    pub(crate) fn watch(&self) {
        lock(&self.state).withdrawals = 0;
    }

    /// How many withdrawals, or ends of its session, there were since [`Self::watch`].
    pub(crate) fn withdrawals(&self) -> u64 {
        lock(&self.state).withdrawals
    }

    /// What it was told in this session.
    pub(crate) fn heard(&self) -> Vec<Route> {
        let state = lock(&self.state);
        let heard = state.heard.iter();
        heard
            .map(|(nlri, (next_hop, attributes))| Route::decoded(nlri, next_hop, attributes))
            .collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread shows in its own words.
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One session from dialling to its end.
fn session(identity: Identity, state: &Mutex<State>, stop: &AtomicBool) -> std::io::Result<()> {
    let mut wire = Wire::dial(identity)?;
    let open = Message::Open(Open {
        asn: Asn(identity.asn),
        hold_time: HOLD_TIME,
        router_id: router_id(identity.address),
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4Unicast.into()),
            Capability::Multiprotocol(Family::Ipv6Unicast.into()),
            Capability::RouteRefresh,
            Capability::FourOctetAs(Asn(identity.asn)),
        ],
    });
    wire.send(&open)?;
    let mut families = FamilySet::EMPTY;
    let mut said = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        while let Some(frame) = wire.receive()? {
            let mut state = lock(state);
            match frame.kind {
                MessageType::Update => take_in(&frame.body, identity, &mut state)?,
                MessageType::Open => {
                    let Ok(Message::Open(theirs)) = wire::decode_control(&frame) else {
                        return Err(std::io::Error::other("an OPEN that cannot be read"));
                    };
                    let listed = theirs.families().into_iter();
                    families = listed.filter_map(|family| family.family()).collect();
                    wire.send(&Message::Keepalive)?;
                }
                MessageType::Keepalive if !state.established => {
                    state.established = true;
                    state.sessions += 1;
                    catch_up(&mut wire, &mut state, families)?;
                    for family in families.iter() {
                        wire.end_of_rib(family)?;
                    }
                }
                MessageType::Notification => {
                    let text = match wire::decode_control(&frame) {
                        Ok(Message::Notification(said)) => said.to_string(),
                        other => format!("{other:?}"),
                    };
                    return Err(std::io::Error::other(text));
                }
                _ => {}
            }
        }
        let mut state = lock(state);
        if state.established {
            catch_up(&mut wire, &mut state, families)?;
        }
        drop(state);
        if said.elapsed() > KEEPALIVE {
            said = Instant::now();
            wire.send(&Message::Keepalive)?;
        }
    }
    Ok(())
}

fn router_id(address: IpAddr) -> RouterId {
    match address {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [.., last] = address.octets();
            Ipv4Addr::new(10, 9, 9, last).into()
        }
    }
}

/// Tells what is wanted and not yet told.
fn catch_up(wire: &mut Wire, state: &mut State, families: FamilySet) -> std::io::Result<()> {
    if state.told == state.wanted {
        return Ok(());
    }
    let wanted = state.wanted.clone();
    for nlri in state.told.keys().filter(|nlri| !wanted.contains_key(nlri)) {
        wire.send(&Message::Update(Update {
            withdrawn: vec![(nlri.prefix.family(), vec![*nlri])],
            ..Update::default()
        }))?;
    }
    for (nlri, route) in &wanted {
        let family = nlri.prefix.family();
        if state.told.get(nlri) == Some(route) || !families.contains(family) {
            continue;
        }
        let (next_hop, attributes) = route.clone();
        wire.send(&Message::Update(Update {
            reach: vec![Reach {
                family,
                next_hop,
                nlri: vec![*nlri],
            }],
            attributes: Some(attributes),
            ..Update::default()
        }))?;
    }
    state.told = wanted;
    Ok(())
}

fn take_in(body: &[u8], identity: Identity, state: &mut State) -> std::io::Result<()> {
    let kind = if identity.asn == identity.remote_asn {
        PeerKind::Internal
    } else {
        PeerKind::External
    };
    let update = match wire::decode_update(body, &DecodeContext::new(kind)) {
        UpdateOutcome::Valid(update) => update,
        // Some name next hops that nobody can use to one who did not ask for that family.
        UpdateOutcome::TreatAsWithdraw { withdrawn, .. } => {
            for nlri in withdrawn.iter().flat_map(|(_, gone)| gone) {
                state.heard.remove(nlri);
            }
            return Ok(());
        }
        // The other side is one that the test trusts with its own notes.
        other => return Err(std::io::Error::other(format!("{other:?}"))),
    };
    for (_, gone) in &update.withdrawn {
        for nlri in gone {
            state.withdrawals += 1;
            state.heard.remove(nlri);
        }
    }
    for reach in &update.reach {
        let attributes = update.attributes.clone().unwrap_or_default();
        // RFC 4456 §8: a reflector may send a route back to where it came from.
        if attributes.originator_id == Some(router_id(identity.address)) {
            continue;
        }
        for nlri in &reach.nlri {
            let route = (reach.next_hop, attributes.clone());
            state.heard.insert(*nlri, route);
        }
    }
    Ok(())
}

/// A connection as messages.
struct Wire {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Wire {
    fn dial(identity: Identity) -> std::io::Result<Self> {
        const BGP: u16 = 179;
        let remote = SocketAddr::new(identity.remote, BGP);
        let socket = Socket::new(Domain::for_address(remote), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(identity.address, 0).into())?;
        socket.connect_timeout(&remote.into(), Duration::from_secs(1))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(TURN))?;
        stream.set_nodelay(true)?;
        let buffer = BytesMut::new();
        Ok(Self { stream, buffer })
    }

    fn send(&mut self, message: &Message) -> std::io::Result<()> {
        let mut octets = BytesMut::new();
        wire::encode(message, EncodeContext::default(), &mut octets)
            .map_err(std::io::Error::other)?;
        self.stream.write_all(&octets)
    }

    fn end_of_rib(&mut self, family: Family) -> std::io::Result<()> {
        let mut octets = BytesMut::new();
        wire::end_of_rib(family, &mut octets);
        self.stream.write_all(&octets)
    }

    /// The next message; nothing when none came within a turn.
    fn receive(&mut self) -> std::io::Result<Option<wire::Frame>> {
        loop {
            let frame = wire::frame(&mut self.buffer, MAX_MESSAGE_LEN);
            if let Some(frame) = frame.map_err(|error| std::io::Error::other(error.to_string()))? {
                return Ok(Some(frame));
            }
            let mut octets = [0; 4096];
            match self.stream.read(&mut octets) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.buffer.extend_from_slice(&octets[..length]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

//! What one monitoring station is still to be told.
//!
//! Owns which of it is told in which order. Does not own the connection, nor routes: what has changed
//! is kept by name and looked up in the RIB when the station takes it. So a station that reads slowly
//! costs names and no copies, and is told the state of the moment once, however often it changed
//! (RFC 7854 §5 allows it); and one that has just connected is told everything by the same way.
//!
//! What peers are told is the exception: it is kept in the words in which they are told it, as these
//! are what RFC 8671 asks for. Both have a bound ([`Feed::is_overrun`]), beyond which the station has
//! to begin anew.

mod routes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::bmp::peer::{Instance, PeerDownReason, PeerHeader, PeerUp, Table};
use crate::bmp::statistics::Statistic;
use crate::bmp::{Message, route_monitoring};
use crate::fsm::Negotiated;
use crate::rib::{Changed, Cursor, PeerId, PeerIndex, Rib};
use crate::types::{Asn, Family, FamilySet, RouterId};
use crate::wire;
use routes::{Name, OUT, Stage};

/// Names written in one go: a few milliseconds of the RIB's time.
const BATCH: usize = 2048;
/// The same for what peers are told: each costs a look at what the peer has not taken yet.
const ADVERTISED_BATCH: usize = 256;
/// Slots of the table that are named in one go, over all peers.
const SWEEP: u32 = 4096;
/// Octets of what peers are told that are written in one go.
const SENT_AT_ONCE: usize = 256 * 1024;
/// Octets of what peers are told that may wait.
const SENT_LIMIT: usize = 32 * 1024 * 1024;
/// Names that may wait, beyond twice as many as there are routes.
const NAMES_LIMIT: usize = 256 * 1024;
/// What the Loc-RIB is called (RFC 9069 §5.2.1).
const TABLE_NAME: &str = "global";

/// What a station wants to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What peers tell, before import policy (RFC 7854 §5).
    pub pre_policy: bool,
    /// What of it is used, after import policy (RFC 7854 §5).
    pub post_policy: bool,
    /// What is selected (RFC 9069).
    pub loc_rib: bool,
    /// What peers are told, after export policy (RFC 8671).
    pub adj_rib_out: bool,
}

/// A session that is up, as stations are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    /// Its name in the RIB.
    pub id: PeerId,
    /// Its terms.
    pub negotiated: Negotiated,
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// Index of the interface that carries it, where it is known.
    pub interface: Option<u32>,
    /// The OPEN that we sent, header included.
    pub sent_open: Bytes,
    /// The OPEN that came, header included.
    pub received_open: Bytes,
    /// When it came up, since the beginning of 1970.
    pub since: Duration,
    /// What the configuration calls the peer.
    pub name: String,
}

impl SessionFacts {
    fn header(&self, table: Table, two_octet_as: bool, time: Duration) -> PeerHeader {
        let address = self.remote.ip();
        // Link-local addresses, and the routers behind them, may be the same on several interfaces: a
        // station could not tell the sessions apart.
        let instance = match (address, self.interface) {
            (IpAddr::V6(v6), Some(interface)) if v6.is_unicast_link_local() => {
                Instance::Local(interface.into())
            }
            _ => Instance::Global,
        };
        PeerHeader {
            table,
            instance,
            address,
            asn: self.negotiated.peer_asn,
            router_id: self.negotiated.peer_router_id,
            two_octet_as,
            time,
        }
    }

    /// The session in messages that are about all its tables (RFC 8671 §5.1).
    fn session_header(&self, time: Duration) -> PeerHeader {
        self.header(Table::AdjRibIn { post_policy: false }, false, time)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Feed {
    wanted: Wanted,
    asn: Asn,
    router_id: RouterId,
    /// The Loc-RIB has been told of.
    begun: bool,
    /// Sessions that are up.
    sessions: BTreeMap<PeerIndex, Arc<SessionFacts>>,
    /// Sessions that the station takes to be up.
    told: BTreeMap<PeerIndex, Arc<SessionFacts>>,
    /// Why sessions in `told` are up no more.
    ended: BTreeMap<PeerIndex, PeerDownReason>,
    /// Peers of which `sessions` and `told` may differ.
    touched: BTreeSet<PeerIndex>,
    /// What has to be looked up.
    names: BTreeSet<Name>,
    /// The last of them that was taken: the next ones come first, so that none waits for ever.
    last: Option<Name>,
    /// How far the table has been named for the first time.
    sweep: Option<Cursor>,
    /// End-of-RIBs that are due once everything before has been told.
    ends: BTreeSet<(Stage, Option<PeerIndex>, Family)>,
    /// What peers were told, in order.
    sent: VecDeque<(PeerId, Bytes)>,
    sent_octets: usize,
    reports: BytesMut,
}

impl Feed {
    /// One that has everything to tell. `sessions` are those that are up.
    pub fn new(
        wanted: Wanted,
        asn: Asn,
        router_id: RouterId,
        sessions: impl IntoIterator<Item = Arc<SessionFacts>>,
    ) -> Self {
        let sessions: BTreeMap<PeerIndex, Arc<SessionFacts>> = sessions
            .into_iter()
            .map(|facts| (facts.id.index, facts))
            .collect();
        Self {
            wanted,
            asn,
            router_id,
            begun: false,
            touched: sessions.keys().copied().collect(),
            sessions,
            told: BTreeMap::new(),
            ended: BTreeMap::new(),
            names: BTreeSet::new(),
            last: None,
            sweep: Some(Cursor::default()),
            ends: BTreeSet::new(),
            sent: VecDeque::new(),
            sent_octets: 0,
            reports: BytesMut::new(),
        }
    }

    /// Whether [`Changed`]s are of use to it.
    pub fn follows_table(&self) -> bool {
        self.wanted.pre_policy || self.wanted.post_policy || self.wanted.loc_rib
    }

    /// A session has come up.
    pub fn session_up(&mut self, facts: Arc<SessionFacts>) {
        let index = facts.id.index;
        self.touched.insert(index);
        if let Some(told) = self.told.get(&index)
            && told.id != facts.id
        {
            // It took the place of one whose end was not said.
            let reason = PeerDownReason::RemoteClosed;
            self.ended.entry(index).or_insert(reason);
        }
        self.sessions.insert(index, facts);
    }

    /// A session has ended.
    pub fn session_down(&mut self, id: PeerId, reason: PeerDownReason) {
        let up = self.sessions.get(&id.index);
        if up.is_none_or(|facts| facts.id != id) {
            return;
        }
        self.sessions.remove(&id.index);
        // The end of the session says that they are gone (RFC 7854 §4.9).
        self.names.retain(|name| name.peer() != Some(id.index));
        if self.told.get(&id.index).is_some_and(|told| told.id == id) {
            self.ended.insert(id.index, reason);
            self.touched.insert(id.index);
        }
    }

    /// Something in the table is otherwise than before.
    pub fn changed(&mut self, changed: &Changed) {
        match *changed {
            Changed::Entry { peer, nlri } => {
                let wanted = self.wanted.pre_policy || self.wanted.post_policy;
                if wanted && self.sessions.contains_key(&peer) {
                    self.names.insert(Name::Entry(peer, nlri));
                }
            }
            Changed::Selected(prefix) => {
                if self.wanted.loc_rib {
                    self.names.insert(Name::Selected(prefix));
                }
            }
            Changed::EndOfRib { peer, family } => {
                for stage in self.stages_of_peers().filter(|stage| *stage != Stage::Out) {
                    self.ends.insert((stage, Some(peer), family));
                }
            }
        }
    }

    /// A peer has been told something: messages, as they are on the wire.
    pub fn sent(&mut self, peer: PeerId, octets: &Bytes) {
        if self.wanted.adj_rib_out {
            self.sent_octets += octets.len();
            self.sent.push_back((peer, octets.clone()));
        }
    }

    /// Whether so much waits that the station has to begin anew.
    pub fn is_overrun(&self, rib: &Rib) -> bool {
        // Slots too: what has just gone leaves names and no entries.
        let named = || 2 * rib.entry_count().max(rib.slots());
        self.sent_octets > SENT_LIMIT
            || self.names.len() > NAMES_LIMIT && self.names.len() > NAMES_LIMIT + named()
    }

    /// Whether there is nothing to tell.
    pub fn is_idle(&self) -> bool {
        self.touched.is_empty()
            && (self.begun || !self.wanted.loc_rib)
            && self.reports.is_empty()
            && self.sent.is_empty()
            && self.names.is_empty()
            && self.sweep.is_none()
            && self.ends.is_empty()
    }

    /// How much of a peer waits to be looked up.
    #[cfg(test)]
    pub(crate) fn waiting_of(&self, peer: PeerIndex) -> usize {
        let of = |name: &&Name| name.peer() == Some(peer);
        self.names.iter().filter(of).count()
    }

    /// Whether the station has been told the whole table once.
    pub fn is_synchronised(&self) -> bool {
        self.sweep.is_none()
    }

    /// Appends a part of what there is to tell; there may be more although it is nothing
    /// ([`Self::is_idle`]). `now` is since the beginning of 1970.
    pub fn next(&mut self, rib: &Rib, now: Duration, out: &mut BytesMut) {
        self.tell_sessions(out);
        out.extend_from_slice(&std::mem::take(&mut self.reports));
        self.tell_sent(now, out);
        if !self.sent.is_empty() {
            return;
        }
        // RFC 7854 §4.2: zero where nobody knows, as for what was there before.
        let time = if self.sweep.is_some() {
            Duration::ZERO
        } else {
            now
        };
        if self.names.is_empty()
            && let Some(cursor) = self.sweep.take()
        {
            self.sweep(rib, cursor);
        }
        self.tell_routes(rib, time, out);
        if self.names.is_empty() && self.sweep.is_none() {
            self.tell_ends(now, out);
        }
    }

    /// Prepares counts of every session and of the Loc-RIB. `treated_as_withdraw` says how many
    /// UPDATEs of a peer were treated as withdrawals.
    pub fn report(
        &mut self,
        rib: &Rib,
        now: Duration,
        treated_as_withdraw: impl Fn(PeerIndex) -> u64,
    ) {
        let advertised = if self.wanted.adj_rib_out {
            rib.peers()
        } else {
            BTreeMap::new()
        };
        let gauge = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let counter = |count: u64| u32::try_from(count & u64::from(u32::MAX)).unwrap_or_default();
        for (index, facts) in &self.told {
            let tallies = facts
                .negotiated
                .families
                .iter()
                .map(|family| (*family, rib.tally(*index, *family)));
            let tallies: Vec<(Family, (usize, usize))> = tallies.collect();
            let rejected: usize = tallies.iter().map(|(_, (_, rejected))| rejected).sum();
            let received: usize = tallies.iter().map(|(_, (received, _))| received).sum();
            let mut values = vec![
                Statistic::RejectedByPolicy(counter(gauge(rejected))),
                Statistic::AdjRibIn(gauge(received)),
                Statistic::UpdatesTreatedAsWithdraw(counter(treated_as_withdraw(*index))),
            ];
            for (family, (received, _)) in tallies {
                values.push(Statistic::AdjRibInOf(family.into(), gauge(received)));
            }
            if let Some(views) = advertised.get(index) {
                let total = views.iter().map(|view| view.advertised).sum();
                values.push(Statistic::AdjRibOutPostPolicy(gauge(total)));
                values.extend(views.iter().map(|view| {
                    let family = view.family.into();
                    Statistic::AdjRibOutPostPolicyOf(family, gauge(view.advertised))
                }));
            }
            let peer = facts.session_header(now);
            Message::Statistics { peer, values }.encode(&mut self.reports);
        }
        if self.wanted.loc_rib && self.begun {
            let counts = rib.selected_counts();
            let mut values = vec![Statistic::LocRib(gauge(counts.iter().sum()))];
            values.extend(
                Family::ALL.map(|family| {
                    Statistic::LocRibOf(family.into(), gauge(counts[family.index()]))
                }),
            );
            let peer = self.loc_rib_header(now);
            Message::Statistics { peer, values }.encode(&mut self.reports);
        }
    }

    fn loc_rib_header(&self, time: Duration) -> PeerHeader {
        // RFC 9069 §4.1: no address; AS and identifier are our own.
        PeerHeader {
            table: Table::LocRib { filtered: false },
            instance: Instance::Global,
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            asn: self.asn,
            router_id: self.router_id,
            two_octet_as: false,
            time,
        }
    }

    fn stages_of_peers(&self) -> impl Iterator<Item = Stage> + use<> {
        let Wanted {
            pre_policy,
            post_policy,
            adj_rib_out,
            ..
        } = self.wanted;
        let stages = [
            (Stage::Pre, pre_policy),
            (Stage::Post, post_policy),
            (Stage::Out, adj_rib_out),
        ];
        let wanted = stages.into_iter().filter(|(_, wanted)| *wanted);
        wanted.map(|(stage, _)| stage)
    }

    /// RFC 7854 §4.10: a session is told of before its routes, and its end takes them along.
    fn tell_sessions(&mut self, out: &mut BytesMut) {
        if self.wanted.loc_rib && !self.begun {
            let none = FamilySet::EMPTY;
            let (asn, id) = (self.asn, self.router_id);
            let up = PeerUp::of_loc_rib(asn, id, &Family::ALL, none, TABLE_NAME);
            Message::PeerUp(Box::new(up)).encode(out);
        }
        self.begun = true;
        for index in std::mem::take(&mut self.touched) {
            let up = self.sessions.get(&index);
            let told = self.told.get(&index);
            if up.map(|facts| facts.id) == told.map(|facts| facts.id) {
                continue;
            }
            if let Some(told) = told {
                let reason = self.ended.remove(&index);
                let reason = reason.unwrap_or(PeerDownReason::RemoteClosed);
                let peer = told.session_header(Duration::ZERO);
                Message::PeerDown { peer, reason }.encode(out);
            }
            if let Some(facts) = up {
                let message = PeerUp {
                    peer: facts.session_header(facts.since),
                    local: facts.local,
                    remote_port: facts.remote.port(),
                    sent_open: facts.sent_open.clone(),
                    received_open: facts.received_open.clone(),
                    table_name: String::new(),
                    admin_label: String::new(),
                    text: facts.name.clone(),
                };
                Message::PeerUp(Box::new(message)).encode(out);
                self.told.insert(index, Arc::clone(facts));
            } else {
                self.told.remove(&index);
            }
        }
    }

    fn tell_sent(&mut self, now: Duration, out: &mut BytesMut) {
        let mut written = 0;
        while written < SENT_AT_ONCE
            && let Some((peer, octets)) = self.sent.pop_front()
        {
            written += octets.len();
            self.sent_octets -= octets.len();
            let told = self.told.get(&peer.index);
            // Of a session that has ended, or ended and came up again: the station has forgotten it.
            if let Some(facts) = told.filter(|facts| facts.id == peer) {
                let two_octet_as = !facts.negotiated.four_octet_as;
                let header = facts.header(OUT, two_octet_as, now);
                route_monitoring(&header, &octets, out);
            }
        }
    }

    /// Names one stretch of the table.
    fn sweep(&mut self, rib: &Rib, cursor: Cursor) {
        let peers: Vec<PeerIndex> = if self.wanted.adj_rib_out {
            self.told.keys().copied().collect()
        } else {
            Vec::new()
        };
        let share = u32::try_from(peers.len() + 1).unwrap_or(u32::MAX);
        let mut found = Vec::new();
        let names = &mut self.names;
        let changed = |changed| found.push(changed);
        let told = |peer, prefix| {
            names.insert(Name::Advertised(peer, prefix));
        };
        let slots = (SWEEP / share).max(16);
        self.sweep = rib.sweep(cursor, slots, &peers, changed, told);
        for changed in &found {
            self.changed(changed);
        }
        if self.sweep.is_none() {
            self.owe_ends();
        }
    }

    /// RFC 7854 §5: the end of the first dump is marked, for each table by itself.
    fn owe_ends(&mut self) {
        for (index, facts) in &self.told {
            for family in &facts.negotiated.families {
                for stage in self.stages_of_peers() {
                    self.ends.insert((stage, Some(*index), *family));
                }
            }
        }
        if self.wanted.loc_rib {
            let families = Family::ALL.map(|family| (Stage::Loc, None, family));
            self.ends.extend(families);
        }
    }

    fn tell_ends(&mut self, now: Duration, out: &mut BytesMut) {
        for (stage, peer, family) in std::mem::take(&mut self.ends) {
            let mut marker = BytesMut::new();
            wire::end_of_rib(family, &mut marker);
            if let Some((header, _)) = self.writing(stage, peer, now) {
                route_monitoring(&header, &marker, out);
            }
        }
    }
}

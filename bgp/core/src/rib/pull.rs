//! Output, pulled: each peer reads changes at its own pace and is told the state of the moment.
//!
//! Owns the way from journal and table to octets, what each peer believes (Adj-RIB-Out), and the
//! sharing of octets among peers whose [`EgressConfig`] is equal. Does not own when a peer pulls.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::rib::egress::{EgressConfig, Exported, Withheld, export};
use crate::rib::machine::Rib;
use crate::rib::path::{Path, PeerId};
use crate::rib::peer::{Position, Session};
use crate::types::{Family, Prefix};
use crate::wire::{self, EncodeContext};

/// Peers with equal egress configuration.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) members: usize,
    /// What was last encoded: members that read in step find it here.
    last: Option<Encoded>,
}

#[derive(Clone, Debug)]
struct Encoded {
    deltas: Vec<Delta>,
    octets: Bytes,
    /// Prefixes whose attributes do not fit into a message for this group.
    too_long: Vec<Prefix>,
}

/// What changes for a peer: `None` withdraws.
type Delta = (Prefix, Option<Arc<Exported>>);

impl Rib {
    /// The next messages for `peer`, about as many as `budget` prefixes take; `None` when there is
    /// nothing until [`crate::rib::Action::EgressReady`] names the peer, or when the session is
    /// gone.
    pub fn pull(&mut self, now: Instant, peer: PeerId, budget: usize) -> Option<Bytes> {
        let deltas = self.deltas(peer, budget)?;
        if !deltas.is_empty() {
            return Some(self.encode(peer, deltas));
        }
        let settled = self.table.pending() == 0;
        let deferring = self.deferral.is_some();
        let egress = &mut self.peers.get_mut(&peer.index)?.session(peer)?.egress;
        // RFC 4724 §4.1: End-of-RIB ends the first dump; after a restart that is the one which
        // follows selection, and which the FIB has seen.
        if !deferring && (settled || egress.end_of_rib_at <= now) {
            let mut octets = BytesMut::new();
            for family in std::mem::take(&mut egress.end_of_rib_owed) {
                wire::end_of_rib(family, &mut octets);
            }
            if !octets.is_empty() {
                return Some(octets.freeze());
            }
        }
        egress.idle = true;
        None
    }

    /// Reads on from the peer's position until `budget` changes are found or nothing is left, and
    /// notes them as told.
    fn deltas(&mut self, id: PeerId, budget: usize) -> Option<Vec<Delta>> {
        let table = &self.table.entries;
        let session = self.peers.get_mut(&id.index)?.session(id)?;
        let mut deltas = Vec::new();
        while deltas.len() < budget {
            let egress = &session.egress;
            let (prefix, next, resend) = match egress.position {
                Position::Walk {
                    after,
                    then,
                    resend,
                } => match next_known(after, table, &egress.advertised) {
                    Some(prefix) => (
                        prefix,
                        Position::Walk {
                            after: Some(prefix),
                            then,
                            resend,
                        },
                        resend == Some(prefix.family()),
                    ),
                    None => {
                        session.egress.position = Position::Journal(then);
                        continue;
                    }
                },
                Position::Journal(position) if position < self.journal.start() => {
                    // Fell behind so far that the journal is gone: compare with the table.
                    session.egress.position = Position::Walk {
                        after: None,
                        then: self.journal.end(),
                        resend: None,
                    };
                    continue;
                }
                Position::Journal(position) => match self.journal.next(position) {
                    Some((prefix, next)) => (prefix, Position::Journal(next), false),
                    None => {
                        session.egress.position = Position::Journal(self.journal.end());
                        break;
                    }
                },
            };
            session.egress.position = next;
            let told = table
                .get(&prefix)
                .and_then(|entry| entry.announced.as_ref())
                .and_then(|path| tell(&prefix, path, session).ok())
                .map(|exported| self.exported.intern(exported));
            let egress = &mut session.egress;
            if egress.advertised.get(&prefix) == told.as_ref() && !(resend && told.is_some()) {
                continue;
            }
            match &told {
                Some(exported) => egress.advertised.insert(prefix, Arc::clone(exported)),
                None => egress.advertised.remove(&prefix),
            };
            deltas.push((prefix, told));
        }
        self.trim_journal();
        Some(deltas)
    }

    fn encode(&mut self, id: PeerId, deltas: Vec<Delta>) -> Bytes {
        let Some(session) = self
            .peers
            .get_mut(&id.index)
            .and_then(|peer| peer.session(id))
        else {
            return Bytes::new();
        };
        let egress = &mut session.egress;
        let group = self.groups.entry(Arc::clone(&egress.config)).or_default();
        let encoded = match group.last.take() {
            Some(last) if last.deltas == deltas => last,
            _ => encode(deltas, &egress.config),
        };
        for prefix in &encoded.too_long {
            egress.advertised.remove(prefix);
        }
        let octets = encoded.octets.clone();
        if group.members > 1 {
            group.last = Some(encoded);
        }
        octets
    }
}

/// What `session` is told about `path`, with the two checks that depend on the peer itself and not
/// on its group.
pub(super) fn tell(prefix: &Prefix, path: &Path, session: &Session) -> Result<Exported, Withheld> {
    if path.source.index() == Some(session.id.index) {
        return Err(Withheld::SplitHorizon);
    }
    let exported = export(prefix, path, &session.egress.config)?;
    if exported.next_hop.addr() == session.ends.peer {
        return Err(Withheld::PeerIsNextHop);
    }
    Ok(exported)
}

/// The first prefix behind `after` that the table or the peer knows.
fn next_known<A, B>(
    after: Option<Prefix>,
    table: &BTreeMap<Prefix, A>,
    advertised: &BTreeMap<Prefix, B>,
) -> Option<Prefix> {
    let range = (
        after.map_or(Bound::Unbounded, Bound::Excluded),
        Bound::Unbounded,
    );
    let in_table = table.range(range).next().map(|(prefix, _)| *prefix);
    let told = advertised.range(range).next().map(|(prefix, _)| *prefix);
    match (in_table, told) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Withdrawals first, then announcements, those that carry the same packed together.
fn encode(deltas: Vec<Delta>, config: &EgressConfig) -> Encoded {
    let context = EncodeContext {
        four_octet_as: config.four_octet_as,
    };
    let mut withdrawn: BTreeMap<Family, Vec<Prefix>> = BTreeMap::new();
    let mut order: Vec<(&Exported, Family)> = Vec::new();
    let mut announced: HashMap<(&Exported, Family), Vec<Prefix>> = HashMap::new();
    for (prefix, told) in &deltas {
        match told {
            None => withdrawn.entry(prefix.family()).or_default().push(*prefix),
            Some(exported) => {
                let key = (&**exported, prefix.family());
                announced
                    .entry(key)
                    .or_insert_with(|| {
                        order.push(key);
                        Vec::new()
                    })
                    .push(*prefix);
            }
        }
    }
    let mut announcements = BytesMut::new();
    let mut too_long = Vec::new();
    for key in order {
        let (exported, family) = key;
        let prefixes = &announced[&key];
        let fits = wire::announce(
            &exported.attributes,
            &exported.next_hop,
            family,
            prefixes,
            context,
            &mut announcements,
        );
        if fits.is_err() {
            // What cannot be told must not stay believed.
            withdrawn.entry(family).or_default().extend(prefixes);
            too_long.extend(prefixes);
        }
    }
    let mut octets = BytesMut::new();
    for (family, prefixes) in &withdrawn {
        wire::withdraw(*family, prefixes, &mut octets);
    }
    octets.extend_from_slice(&announcements);
    Encoded {
        octets: octets.freeze(),
        too_long,
        deltas,
    }
}

//! What of a route must come through a daemon unharmed.
//!
//! Owns the canonical form of attributes: a daemon's own duties (its AS in front, its reflector attributes, the
//! next hop) are checked and taken off, what it may do either way is left out, and everything else stays, octet
//! by octet. Two routes are the same exactly when their canonical forms are. No hash is trusted: the form itself
//! is the key.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use foldhash::fast::FixedState;

use crate::routes::{Path, PathId, Routes};
use crate::wire::{Malformed, code};

/// How the daemon under test stands to its peers.
#[derive(Clone, Debug)]
pub enum Terms {
    /// It puts its AS in front, and names itself or leaves the next hop where all share a subnet (RFC 4271
    /// §5.1.3).
    External {
        /// Its AS.
        asn: u32,
    },
    /// It reflects (RFC 4456): nothing changes but ORIGINATOR_ID, which names the sender, and CLUSTER_LIST,
    /// which has one entry.
    Reflector,
}

/// The paths of a case by what a receiver sees of them.
#[derive(Debug)]
pub struct Catalogue {
    terms: Terms,
    /// The next hops that are right for each path, by sender: the sender's own, and the daemon's where it may
    /// name itself.
    senders: Vec<Sender>,
    daemon: Ipv4Addr,
    canonical: HashMap<Box<[u8]>, PathId, FixedState>,
    /// Attributes seen before, exactly as they came. A daemon says the same to many receivers, and looking at
    /// the octets once is what makes the receivers fast.
    seen: HashMap<Box<[u8]>, PathId, FixedState>,
    sender_of: Vec<u32>,
    scratch: Vec<u8>,
    /// The first attributes that nobody sent, for the report.
    foreign: Option<String>,
}

/// A sender as receivers see it.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// The next hop that it names.
    pub next_hop: Ipv4Addr,
    /// Its BGP identifier.
    pub router_id: u32,
}

impl Catalogue {
    /// All paths of `routes` as a receiver of the daemon at `daemon` sees them.
    ///
    /// # Panics
    /// Two paths look the same, so that the case would prove nothing.
    pub fn new(routes: &Routes, terms: Terms, daemon: Ipv4Addr, senders: Vec<Sender>) -> Self {
        let mut canonical =
            HashMap::with_capacity_and_hasher(routes.paths.len(), FixedState::default());
        for (number, path) in routes.paths.iter().enumerate().skip(1) {
            let sender = senders[path.sender as usize];
            let mut form = Vec::with_capacity(64);
            expected(path, &terms, sender, &mut form);
            let earlier = canonical.insert(form.into_boxed_slice(), PathId(number as u32));
            assert!(earlier.is_none(), "two paths look alike: {path:?}");
        }
        Self {
            sender_of: routes.paths.iter().map(|path| path.sender).collect(),
            terms,
            senders,
            daemon,
            canonical,
            seen: HashMap::default(),
            scratch: Vec::new(),
            foreign: None,
        }
    }

    /// Which path has these attributes; [`PathId::FOREIGN`] when nobody sent them so.
    pub fn resolve(&mut self, attributes: &[u8]) -> PathId {
        if let Some(id) = self.seen.get(attributes) {
            return *id;
        }
        let id = self.resolve_new(attributes);
        self.seen.insert(attributes.into(), id);
        id
    }

    /// Who sends the path.
    #[inline]
    pub fn sender(&self, path: PathId) -> Option<u32> {
        self.sender_of.get(path.0 as usize).copied()
    }

    /// What was wrong with the first foreign attributes.
    pub fn foreign(&self) -> Option<&str> {
        self.foreign.as_deref()
    }

    fn resolve_new(&mut self, attributes: &[u8]) -> PathId {
        self.scratch.clear();
        let next_hop = match canonical(attributes, &self.terms, &mut self.scratch) {
            Ok(next_hop) => next_hop,
            Err(reason) => return self.strange(attributes, reason.0),
        };
        let Some(id) = self.canonical.get(&self.scratch[..]).copied() else {
            return self.strange(attributes, "no sender gave these attributes");
        };
        let sender = self.senders[self.sender_of[id.0 as usize] as usize];
        let own = matches!(self.terms, Terms::External { .. }) && next_hop == self.daemon;
        if next_hop != sender.next_hop && !own {
            return self.strange(
                attributes,
                "the next hop is neither the sender nor the daemon",
            );
        }
        id
    }

    fn strange(&mut self, attributes: &[u8], reason: &str) -> PathId {
        self.foreign.get_or_insert_with(|| {
            let octets: Vec<String> = attributes.iter().map(|o| format!("{o:02x}")).collect();
            format!("{reason}: {}", octets.join(""))
        });
        PathId::FOREIGN
    }
}

/// The canonical form of what the daemon is to say of `path`.
fn expected(path: &Path, terms: &Terms, sender: Sender, out: &mut Vec<u8>) {
    let internal = matches!(terms, Terms::Reflector);
    Form {
        origin: Some(path.origin),
        as_path: path.as_path.clone(),
        med: path.med.filter(|_| internal),
        local_pref: path.local_pref.filter(|_| internal),
        originator: internal.then_some(sender.router_id),
        clusters: usize::from(internal),
        communities: path.communities.clone(),
        large_communities: path.large_communities.clone(),
        others: Vec::new(),
    }
    .write(out);
}

/// Attributes by meaning.
#[derive(Debug, Default)]
struct Form {
    origin: Option<u8>,
    as_path: Vec<u32>,
    med: Option<u32>,
    local_pref: Option<u32>,
    originator: Option<u32>,
    clusters: usize,
    communities: Vec<u32>,
    large_communities: Vec<[u32; 3]>,
    /// Whatever else there is, flags and all.
    others: Vec<u8>,
}

impl Form {
    fn write(mut self, out: &mut Vec<u8>) {
        let option = |value: Option<u32>, out: &mut Vec<u8>| {
            out.push(value.is_some().into());
            out.extend(value.unwrap_or_default().to_be_bytes());
        };
        out.push(self.origin.unwrap_or(u8::MAX));
        // Absent means the lowest (RFC 4271 §9.1.2.2), and FRR says so in so many octets.
        option(Some(self.med.unwrap_or(0)), out);
        option(self.local_pref, out);
        option(self.originator, out);
        out.push(self.clusters.min(255) as u8);
        // Communities are sets (RFC 1997, RFC 8092 §5): their order is the daemon's.
        self.communities.sort_unstable();
        self.large_communities.sort_unstable();
        out.extend((self.as_path.len() as u16).to_be_bytes());
        out.extend(self.as_path.iter().flat_map(|asn| asn.to_be_bytes()));
        out.extend((self.communities.len() as u16).to_be_bytes());
        out.extend(self.communities.iter().flat_map(|c| c.to_be_bytes()));
        out.extend((self.large_communities.len() as u16).to_be_bytes());
        let parts = self.large_communities.iter().flatten();
        out.extend(parts.flat_map(|part| part.to_be_bytes()));
        out.extend(self.others);
    }
}

/// Brings received attributes into canonical form; gives back the next hop, which is judged apart.
fn canonical(attributes: &[u8], terms: &Terms, out: &mut Vec<u8>) -> Result<Ipv4Addr, Malformed> {
    let mut form = Form::default();
    let mut next_hop = None;
    let mut rest = attributes;
    while !rest.is_empty() {
        let (code, value, after) = attribute(rest)?;
        let whole = &rest[..rest.len() - after.len()];
        rest = after;
        match code {
            code::ORIGIN => form.origin = Some(single(value)?),
            code::AS_PATH => form.as_path = as_path(value)?,
            code::NEXT_HOP => next_hop = Some(Ipv4Addr::from_bits(word(value)?)),
            // What an external peer is told as MED is the daemon's own business (RFC 4271 §5.1.4).
            code::MED if matches!(terms, Terms::External { .. }) => {}
            code::MED => form.med = Some(word(value)?),
            code::LOCAL_PREF => form.local_pref = Some(word(value)?),
            code::ORIGINATOR_ID => form.originator = Some(word(value)?),
            code::CLUSTER_LIST => form.clusters = words(value)?.count(),
            code::COMMUNITIES => form.communities = words(value)?.collect(),
            code::LARGE_COMMUNITIES => form.large_communities = triples(value)?,
            _ => form.others.extend(whole),
        }
    }
    if let Terms::External { asn } = terms {
        if form.as_path.first() != Some(asn) {
            return Err(Malformed("the AS path does not begin with the daemon's AS"));
        }
        form.as_path.remove(0);
    }
    let next_hop = next_hop.ok_or(Malformed("there is no next hop"))?;
    form.write(out);
    Ok(next_hop)
}

const SHORT: Malformed = Malformed("an attribute ends too early");

/// Code and value of the first attribute of `input`, and what follows it.
fn attribute(input: &[u8]) -> Result<(u8, &[u8], &[u8]), Malformed> {
    let (head, rest) = input.split_first_chunk::<2>().ok_or(SHORT)?;
    let [flags, code] = *head;
    let (length, rest) = if flags & 0x10 == 0 {
        let (length, rest) = rest.split_first().ok_or(SHORT)?;
        (usize::from(*length), rest)
    } else {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(SHORT)?;
        (usize::from(u16::from_be_bytes(*length)), rest)
    };
    let (value, rest) = rest.split_at_checked(length).ok_or(SHORT)?;
    Ok((code, value, rest))
}

fn as_path(mut value: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut path = Vec::new();
    while let [kind, count, rest @ ..] = value {
        if *kind != 2 {
            return Err(Malformed("a segment of the AS path is no sequence"));
        }
        let (segment, rest) = rest
            .split_at_checked(4 * usize::from(*count))
            .ok_or(SHORT)?;
        path.extend(words(segment)?);
        value = rest;
    }
    if value.is_empty() {
        Ok(path)
    } else {
        Err(SHORT)
    }
}

fn single(value: &[u8]) -> Result<u8, Malformed> {
    match value {
        [octet] => Ok(*octet),
        _ => Err(SHORT),
    }
}

fn word(value: &[u8]) -> Result<u32, Malformed> {
    value.try_into().map(u32::from_be_bytes).map_err(|_| SHORT)
}

fn words(value: &[u8]) -> Result<impl Iterator<Item = u32>, Malformed> {
    let (chunks, rest) = value.as_chunks::<4>();
    if rest.is_empty() {
        Ok(chunks.iter().map(|chunk| u32::from_be_bytes(*chunk)))
    } else {
        Err(SHORT)
    }
}

fn triples(value: &[u8]) -> Result<Vec<[u32; 3]>, Malformed> {
    let words: Vec<u32> = words(value)?.collect();
    let (triples, rest) = words.as_chunks::<3>();
    if rest.is_empty() {
        Ok(triples.to_vec())
    } else {
        Err(SHORT)
    }
}

#[cfg(test)]
mod tests;

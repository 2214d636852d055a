//! The generator's own BGP codec: what senders write, and what receivers read without a copy.
//!
//! Owns as much of RFC 4271 as a bench needs. It shares no code with the product, so that a fault there cannot
//! hide here. Does not own what attributes mean ([`crate::digest`]).

use std::fmt;
use std::net::Ipv4Addr;

use crate::prefix::Prefix;
use crate::routes::{Feed, Path, Routes};

/// Marker, length, type.
pub const HEADER: usize = 19;
/// The longest message; extended messages (RFC 8654) are not offered, so that all daemons pack alike.
pub const LONGEST: usize = 4096;
/// OPEN.
pub const OPEN: u8 = 1;
/// UPDATE.
pub const UPDATE: u8 = 2;
/// NOTIFICATION.
pub const NOTIFICATION: u8 = 3;
/// KEEPALIVE.
pub const KEEPALIVE: u8 = 4;

/// Attribute type codes (RFC 4271 §5, RFC 1997, RFC 4456, RFC 8092).
pub mod code {
    /// ORIGIN.
    pub const ORIGIN: u8 = 1;
    /// AS_PATH.
    pub const AS_PATH: u8 = 2;
    /// NEXT_HOP.
    pub const NEXT_HOP: u8 = 3;
    /// MULTI_EXIT_DISC.
    pub const MED: u8 = 4;
    /// LOCAL_PREF.
    pub const LOCAL_PREF: u8 = 5;
    /// COMMUNITIES.
    pub const COMMUNITIES: u8 = 8;
    /// ORIGINATOR_ID.
    pub const ORIGINATOR_ID: u8 = 9;
    /// CLUSTER_LIST.
    pub const CLUSTER_LIST: u8 = 10;
    /// LARGE_COMMUNITY.
    pub const LARGE_COMMUNITIES: u8 = 32;
}

const AS_SEQUENCE: u8 = 2;
const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0x40;
const EXTENDED: u8 = 0x10;
/// AS_TRANS (RFC 6793 §9).
const AS_TRANS: u16 = 23456;

/// What cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// What a daemon's OPEN says, as far as the bench cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// AS number, from the capability where there is one.
    pub asn: u32,
    /// Proposed hold time in seconds.
    pub hold: u16,
    /// BGP identifier.
    pub router_id: u32,
    /// Whether AS numbers take four octets.
    pub four_octets: bool,
}

/// Appends an OPEN for IPv4 unicast with four-octet AS numbers and route refresh: nothing that would let a
/// daemon work differently from the others.
pub fn put_open(open: &Open, out: &mut Vec<u8>) {
    const CAPABILITIES: [u8; 8] = [1, 4, 0, 1, 0, 1, 2, 0];
    let body = out.len();
    put_header(OPEN, out);
    out.push(4);
    out.extend(u16::try_from(open.asn).unwrap_or(AS_TRANS).to_be_bytes());
    out.extend(open.hold.to_be_bytes());
    out.extend(open.router_id.to_be_bytes());
    let capabilities = CAPABILITIES.len() + if open.four_octets { 6 } else { 0 };
    out.extend([capabilities as u8 + 2, 2, capabilities as u8]);
    out.extend(CAPABILITIES);
    if open.four_octets {
        out.extend([65, 4]);
        out.extend(open.asn.to_be_bytes());
    }
    close(body, out);
}

/// Appends a KEEPALIVE.
pub fn put_keepalive(out: &mut Vec<u8>) {
    let start = out.len();
    put_header(KEEPALIVE, out);
    close(start, out);
}

/// Appends the UPDATEs that announce `prefixes` with `path`, as few as hold them.
pub fn put_announcement(path: &Path, voice: Voice<'_>, prefixes: &[Prefix], out: &mut Vec<u8>) {
    let mut attributes = Vec::with_capacity(128);
    put_attributes(path, voice, &mut attributes);
    let mut left = prefixes;
    while !left.is_empty() {
        let start = out.len();
        put_header(UPDATE, out);
        out.extend([0, 0]);
        out.extend((attributes.len() as u16).to_be_bytes());
        out.extend(&attributes);
        left = put_prefixes(left, start + LONGEST, out);
        close(start, out);
    }
}

/// Appends the UPDATEs that withdraw `prefixes`, as few as hold them.
pub fn put_withdrawal(prefixes: &[Prefix], out: &mut Vec<u8>) {
    let mut left = prefixes;
    while !left.is_empty() {
        let start = out.len();
        put_header(UPDATE, out);
        let length = out.len();
        out.extend([0, 0]);
        // Room for the length of the attributes that are not there.
        left = put_prefixes(left, start + LONGEST - 2, out);
        let octets = (out.len() - length - 2) as u16;
        out[length..length + 2].copy_from_slice(&octets.to_be_bytes());
        out.extend([0, 0]);
        close(start, out);
    }
}

/// Appends the End-of-RIB marker of IPv4 unicast (RFC 4724 §2).
pub fn put_end_of_rib(out: &mut Vec<u8>) {
    let start = out.len();
    put_header(UPDATE, out);
    out.extend([0, 0, 0, 0]);
    close(start, out);
}

/// Who speaks.
#[derive(Clone, Copy, Debug)]
pub enum Voice<'a> {
    /// The sender of the routes, which names itself as next hop.
    Sender(Ipv4Addr),
    /// A daemon to an external peer: its AS in front, itself as next hop.
    External {
        /// Its AS.
        asn: u32,
        /// Its address.
        next_hop: Ipv4Addr,
    },
    /// A route reflector to a client.
    Reflector {
        /// Its cluster.
        cluster: u32,
        /// Address and identifier of each sender.
        senders: &'a [Ipv4Addr],
    },
}

/// The octets that announce a whole feed, one or more UPDATEs to a group.
pub fn announce(routes: &Routes, feed: &Feed, voice: Voice<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut prefixes = Vec::new();
    for group in feed {
        prefixes.clear();
        prefixes.extend(group.prefixes.iter().map(|n| routes.prefixes[*n as usize]));
        let path = &routes.paths[group.path.0 as usize];
        put_announcement(path, voice, &prefixes, &mut out);
    }
    out
}

/// The octets that withdraw a whole feed, packed as tightly as can be.
pub fn withdraw(routes: &Routes, feed: &Feed) -> Vec<u8> {
    let prefixes: Vec<Prefix> = feed
        .iter()
        .flat_map(|group| &group.prefixes)
        .map(|number| routes.prefixes[*number as usize])
        .collect();
    let mut out = Vec::new();
    put_withdrawal(&prefixes, &mut out);
    out
}

/// A message, where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The type octet.
    pub kind: u8,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The first message in `buffer`, `None` until all of it is there.
///
/// # Errors
/// The header is none.
pub fn message(buffer: &[u8]) -> Result<Option<Message<'_>>, Malformed> {
    let Some(header) = buffer.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    if header[..16] != [0xff; 16] {
        return Err(Malformed("the marker of a message is not all ones"));
    }
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    if !(HEADER..=LONGEST).contains(&length) {
        return Err(Malformed("a message has an impossible length"));
    }
    Ok(buffer.get(HEADER..length).map(|body| Message {
        kind: header[18],
        body,
    }))
}

/// The three parts of an UPDATE.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// Withdrawn prefixes.
    pub withdrawn: &'a [u8],
    /// Attributes as they came.
    pub attributes: &'a [u8],
    /// Announced prefixes.
    pub announced: &'a [u8],
}

/// Splits the body of an UPDATE.
///
/// # Errors
/// A length leads beyond the message.
pub fn update(body: &[u8]) -> Result<Update<'_>, Malformed> {
    const BEYOND: Malformed = Malformed("a length in an UPDATE leads beyond its end");
    let (withdrawn, rest) = length_and_value(body).ok_or(BEYOND)?;
    let (attributes, announced) = length_and_value(rest).ok_or(BEYOND)?;
    Ok(Update {
        withdrawn,
        attributes,
        announced,
    })
}

/// The prefixes of a run, one after another; ends after the first that cannot be read.
#[derive(Clone, Debug)]
pub struct Nlri<'a>(pub &'a [u8]);

impl Iterator for Nlri<'_> {
    type Item = Result<Prefix, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (len, rest) = self.0.split_first()?;
        let octets = usize::from(*len).div_ceil(8);
        if *len > 32 || octets > rest.len() {
            self.0 = &[];
            return Some(Err(Malformed("a prefix is too long")));
        }
        // Where four octets can be read, the masking of the prefix takes off those that are not its own.
        let address = match rest.first_chunk::<4>() {
            Some(four) => *four,
            None => {
                let mut address = [0; 4];
                address[..octets].copy_from_slice(&rest[..octets]);
                address
            }
        };
        self.0 = &rest[octets..];
        Some(Ok(Prefix::new(u32::from_be_bytes(address), *len)))
    }
}

/// Reads the body of an OPEN.
///
/// # Errors
/// It is no OPEN of version 4.
pub fn open(body: &[u8]) -> Result<Open, Malformed> {
    const SHORT: Malformed = Malformed("an OPEN ends too early");
    let fixed = body.first_chunk::<10>().ok_or(SHORT)?;
    if fixed[0] != 4 {
        return Err(Malformed("an OPEN is not of version 4"));
    }
    let mut open = Open {
        asn: u16::from_be_bytes([fixed[1], fixed[2]]).into(),
        hold: u16::from_be_bytes([fixed[3], fixed[4]]),
        router_id: u32::from_be_bytes([fixed[5], fixed[6], fixed[7], fixed[8]]),
        four_octets: false,
    };
    let mut parameters = &body[10..];
    while let [kind, length, rest @ ..] = parameters {
        let (mut value, rest) = rest.split_at_checked((*length).into()).ok_or(SHORT)?;
        parameters = rest;
        while *kind == 2
            && let [capability, length, rest @ ..] = value
        {
            let (content, rest) = rest.split_at_checked((*length).into()).ok_or(SHORT)?;
            value = rest;
            if let (65, Ok(asn)) = (*capability, <[u8; 4]>::try_from(content)) {
                open.asn = u32::from_be_bytes(asn);
                open.four_octets = true;
            }
        }
    }
    Ok(open)
}

fn length_and_value(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

fn put_attributes(path: &Path, voice: Voice<'_>, out: &mut Vec<u8>) {
    let next_hop = match voice {
        Voice::Sender(next_hop) | Voice::External { next_hop, .. } => next_hop,
        Voice::Reflector { senders, .. } => senders[path.sender as usize],
    };
    let in_front = match voice {
        Voice::External { asn, .. } => Some(asn),
        Voice::Sender(_) | Voice::Reflector { .. } => None,
    };
    put_attribute(TRANSITIVE, code::ORIGIN, &[path.origin], out);
    let asns: Vec<u32> = in_front
        .into_iter()
        .chain(path.as_path.iter().copied())
        .collect();
    let mut value = Vec::with_capacity(2 + 4 * asns.len());
    if !asns.is_empty() {
        debug_assert!(asns.len() < 256, "a path of one segment");
        value.extend([AS_SEQUENCE, asns.len() as u8]);
        value.extend(asns.iter().flat_map(|asn| asn.to_be_bytes()));
    }
    put_attribute(TRANSITIVE, code::AS_PATH, &value, out);
    put_attribute(TRANSITIVE, code::NEXT_HOP, &next_hop.octets(), out);
    if let Some(med) = path.med {
        put_attribute(OPTIONAL, code::MED, &med.to_be_bytes(), out);
    }
    if let Some(preference) = path.local_pref {
        put_attribute(TRANSITIVE, code::LOCAL_PREF, &preference.to_be_bytes(), out);
    }
    if !path.communities.is_empty() {
        let value: Vec<u8> = path
            .communities
            .iter()
            .flat_map(|community| community.to_be_bytes())
            .collect();
        put_attribute(OPTIONAL | TRANSITIVE, code::COMMUNITIES, &value, out);
    }
    if let Voice::Reflector { cluster, .. } = voice {
        put_attribute(OPTIONAL, code::ORIGINATOR_ID, &next_hop.octets(), out);
        put_attribute(OPTIONAL, code::CLUSTER_LIST, &cluster.to_be_bytes(), out);
    }
    if !path.large_communities.is_empty() {
        let value: Vec<u8> = path
            .large_communities
            .iter()
            .flatten()
            .flat_map(|part| part.to_be_bytes())
            .collect();
        put_attribute(OPTIONAL | TRANSITIVE, code::LARGE_COMMUNITIES, &value, out);
    }
}

fn put_attribute(flags: u8, code: u8, value: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(value.len()) {
        Ok(length) => out.extend([flags, code, length]),
        Err(_) => {
            out.extend([flags | EXTENDED, code]);
            out.extend((value.len() as u16).to_be_bytes());
        }
    }
    out.extend(value);
}

/// Writes prefixes while they fit before `end`; gives back the others.
fn put_prefixes<'a>(prefixes: &'a [Prefix], end: usize, out: &mut Vec<u8>) -> &'a [Prefix] {
    for (place, prefix) in prefixes.iter().enumerate() {
        let octets = usize::from(prefix.len()).div_ceil(8);
        if out.len() + 1 + octets > end {
            return &prefixes[place..];
        }
        out.push(prefix.len());
        out.extend(&prefix.address().to_be_bytes()[..octets]);
    }
    &[]
}

fn put_header(kind: u8, out: &mut Vec<u8>) {
    out.extend([0xff; 16]);
    out.extend([0, 0, kind]);
}

/// Fills in the length of the message that began at `start`.
fn close(start: usize, out: &mut [u8]) {
    let length = (out.len() - start) as u16;
    out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests;

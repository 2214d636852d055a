//! Records to octets.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::error::Error;
use crate::fsm::State;
use crate::mrt::{
    MessageForm, PeerTable, Record, RibEntries, RibPath, STATES, Session, dump_subtype,
    record_type, trace_subtype,
};
use crate::types::{Asn, Family, NextHop};
use crate::wire::{self, AttributeCode, iana::flags};

impl Record {
    /// Appends the record to `out`.
    ///
    /// # Errors
    /// [`Error::AttributesTooLong`] when the attributes of a path exceed what a record can say; `out`
    /// is then as it was.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        let written = self.write(out);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn write(&self, out: &mut BytesMut) -> Result<(), Error> {
        match self {
            Self::Peers { time, peers } => {
                record(*time, dump(dump_subtype::PEER_INDEX_TABLE), out, |out| {
                    put_peers(peers, out);
                    Ok(())
                })
            }
            Self::Rib { time, rib } => {
                let subtype = match (rib.prefix.family(), rib.with_ids) {
                    (Family::Ipv4Unicast, false) => dump_subtype::RIB_IPV4_UNICAST,
                    (Family::Ipv6Unicast, false) => dump_subtype::RIB_IPV6_UNICAST,
                    (Family::Ipv4Unicast, true) => dump_subtype::RIB_IPV4_UNICAST_ADDPATH,
                    (Family::Ipv6Unicast, true) => dump_subtype::RIB_IPV6_UNICAST_ADDPATH,
                };
                record(*time, dump(subtype), out, |out| put_rib(rib, out))
            }
            Self::Message {
                time,
                session,
                form,
                message,
            } => record(*time, trace(message_subtype(*form)), out, |out| {
                put_session(session, form.four_octet_as, out);
                out.put_slice(message);
                Ok(())
            }),
            Self::StateChange {
                time,
                session,
                from,
                to,
            } => record(*time, trace(trace_subtype::STATE_CHANGE_AS4), out, |out| {
                put_session(session, true, out);
                out.put_u16(state(*from));
                out.put_u16(state(*to));
                Ok(())
            }),
        }
    }
}

fn dump(subtype: u16) -> (u16, u16) {
    (record_type::TABLE_DUMP_V2, subtype)
}

fn trace(subtype: u16) -> (u16, u16) {
    (record_type::BGP4MP_ET, subtype)
}

/// Writes the header, lets `body` write the rest, and fills in the length.
fn record(
    time: Duration,
    (kind, subtype): (u16, u16),
    out: &mut BytesMut,
    body: impl FnOnce(&mut BytesMut) -> Result<(), Error>,
) -> Result<(), Error> {
    // RFC 6396 §2: 32 bits of seconds, which end in 2106.
    out.put_u32(u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
    out.put_u16(kind);
    out.put_u16(subtype);
    let length_at = out.len();
    out.put_u32(0);
    let start = out.len();
    if kind == record_type::BGP4MP_ET {
        // RFC 6396 §3: counted in the length.
        out.put_u32(time.subsec_micros());
    }
    body(out)?;
    let length = u32::try_from(out.len() - start).expect("65,535 parts of 65,535 octets fit");
    out[length_at..start].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn put_peers(table: &PeerTable, out: &mut BytesMut) {
    const IPV6: u8 = 1;
    const FOUR_OCTET_AS: u8 = 2;
    out.put_u32(table.collector.0);
    let view = &table.view[..table.view.floor_char_boundary(u16::MAX.into())];
    put_count(view.len(), out);
    out.put_slice(view.as_bytes());
    let peers = &table.peers[..table.peers.len().min(u16::MAX.into())];
    put_count(peers.len(), out);
    for peer in peers {
        let ipv6 = if peer.address.is_ipv6() { IPV6 } else { 0 };
        out.put_u8(FOUR_OCTET_AS | ipv6);
        out.put_u32(peer.router_id.0);
        put_address(peer.address, out);
        out.put_u32(peer.asn.0);
    }
}

fn put_rib(rib: &RibEntries, out: &mut BytesMut) -> Result<(), Error> {
    out.put_u32(rib.sequence);
    let octets = usize::from(rib.prefix.len().div_ceil(8));
    out.put_u8(rib.prefix.len());
    match rib.prefix.addr() {
        IpAddr::V4(address) => out.put_slice(&address.octets()[..octets]),
        IpAddr::V6(address) => out.put_slice(&address.octets()[..octets]),
    }
    let paths = &rib.paths[..rib.paths.len().min(u16::MAX.into())];
    put_count(paths.len(), out);
    for path in paths {
        out.put_u16(path.peer);
        out.put_u32(u32::try_from(path.time.as_secs()).unwrap_or(u32::MAX));
        if rib.with_ids {
            out.put_u32(path.id.0);
        }
        let attributes = attributes(path, rib.prefix.family());
        let length = u16::try_from(attributes.len()).map_err(|_| Error::AttributesTooLong {
            octets: attributes.len(),
        })?;
        out.put_u16(length);
        out.put_slice(&attributes);
    }
    Ok(())
}

/// RFC 6396 §4.3.4: AS numbers always take four octets, and of MP_REACH_NLRI there is the next hop
/// alone.
fn attributes(path: &RibPath, family: Family) -> Vec<u8> {
    let mut octets = Vec::with_capacity(128);
    let classic = match (family, path.next_hop) {
        (Family::Ipv4Unicast, NextHop::V4(address)) => Some(address),
        _ => None,
    };
    wire::encode_attributes(&path.attributes, classic, true, &mut octets);
    if classic.is_none() {
        let mut next_hop = Vec::with_capacity(32);
        match path.next_hop {
            NextHop::V4(address) => next_hop.extend_from_slice(&address.octets()),
            NextHop::V6 { global, link_local } => {
                next_hop.extend_from_slice(&global.octets());
                if let Some(link_local) = link_local {
                    next_hop.extend_from_slice(&link_local.octets());
                }
            }
        }
        let length = u8::try_from(next_hop.len()).expect("next hops take at most 32 octets");
        let code = AttributeCode::MpReach.into();
        octets.extend_from_slice(&[flags::OPTIONAL, code, length + 1, length]);
        octets.append(&mut next_hop);
    }
    octets
}

fn put_session(session: &Session, four_octet_as: bool, out: &mut BytesMut) {
    const IPV4: u16 = 1;
    const IPV6: u16 = 2;
    for asn in [session.peer_asn, session.local_asn] {
        if four_octet_as {
            out.put_u32(asn.0);
        } else {
            let trans = Asn::TRANS.two_octet().unwrap_or_default();
            out.put_u16(asn.two_octet().unwrap_or(trans));
        }
    }
    out.put_u16(session.interface);
    out.put_u16(if session.peer.is_ipv6() { IPV6 } else { IPV4 });
    put_address(session.peer, out);
    match (session.peer, session.local) {
        // The family is said once, for both.
        (IpAddr::V4(_), IpAddr::V6(_)) => out.put_bytes(0, 4),
        (IpAddr::V6(_), IpAddr::V4(local)) => out.put_slice(&local.to_ipv6_mapped().octets()),
        (_, local) => put_address(local, out),
    }
}

fn put_address(address: IpAddr, out: &mut BytesMut) {
    match address {
        IpAddr::V4(address) => out.put_slice(&address.octets()),
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
}

fn put_count(count: usize, out: &mut BytesMut) {
    out.put_u16(u16::try_from(count).expect("lists are cut to 65,535"));
}

fn message_subtype(form: MessageForm) -> u16 {
    let mut forms = trace_subtype::MESSAGES.iter();
    let found = forms.find(|(_, of)| *of == form);
    found.expect("every form has a subtype").0
}

fn state(state: State) -> u16 {
    let mut states = STATES.iter();
    let found = states.find(|(of, _)| *of == state);
    found.expect("every state has a number").1
}

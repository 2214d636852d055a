//! Capabilities: what a speaker says in its OPEN that it can do (RFC 5492), both ways.
//!
//! Owns their values and syntax. Does not own the optional parameters around them ([`super::open`])
//! nor what two lists of them agree on ([`crate::fsm`]).

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use nom::combinator::{all_consuming, map, map_res};
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u24, be_u32};
use nom::{IResult, Parser};

use crate::types::Asn;
use crate::wire::iana::{AfiSafi, CapabilityCode};

/// The longest time that the 24 bits of a long-lived stale time can say, in seconds.
const MAX_STALE_TIME: u64 = 0x00ff_ffff;
/// The longest restart time: twelve bits of seconds (RFC 4724 §3).
const MAX_RESTART_TIME: u64 = 0x0fff;

/// A capability (RFC 5492).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Routes of this family may be exchanged (RFC 4760).
    Multiprotocol(AfiSafi),
    /// ROUTE-REFRESH is understood (RFC 2918).
    RouteRefresh,
    /// Families whose next hop may be of the other family, with the AFI of the next hop (RFC 8950).
    ExtendedNextHop(Vec<(AfiSafi, u16)>),
    /// Messages of up to 65,535 octets are understood (RFC 8654).
    ExtendedMessage,
    /// What the sender is to the receiver (RFC 9234); [`crate::types::BgpRole::from_code`] reads
    /// the value.
    Role(u8),
    /// The sender may keep forwarding while it restarts (RFC 4724).
    GracefulRestart(GracefulRestart),
    /// AS numbers take four octets, and this is the sender's (RFC 6793).
    FourOctetAs(Asn),
    /// Several paths per prefix: 1 receive, 2 send, 3 both (RFC 7911).
    AddPath(Vec<(AfiSafi, u8)>),
    /// Refreshes are bracketed (RFC 7313).
    EnhancedRouteRefresh,
    /// Routes may be kept long beyond the restart time (RFC 9494).
    LongLivedRestart(Vec<LongLived>),
    /// What the sender is called (draft-walton-bgp-hostname-capability).
    Hostname {
        /// Its host name, at most 255 octets of UTF-8.
        host: String,
        /// The domain, likewise; often empty.
        domain: String,
    },
    /// The sender establishes no session before BFD is up (draft-ietf-idr-bgp-bfd-strict-mode §5).
    BfdStrict,
    /// What the sender runs, at most 254 octets of UTF-8 (draft-abraitis-bgp-version-capability).
    SoftwareVersion(String),
    /// A link-local address alone is a next hop, of 16 octets (draft-ietf-idr-linklocal-capability).
    LinkLocalNextHop,
    /// Anything else, and what has not the form it should have, kept as it came.
    Unknown {
        /// Capability code.
        code: u8,
        /// Capability value.
        value: Vec<u8>,
    },
}

/// The graceful restart capability (RFC 4724 §3, RFC 8538 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R bit: the sender has restarted and wants the End-of-RIB of others before its own.
    pub restarting: bool,
    /// N bit: NOTIFICATIONs other than Hard Reset do not end retention.
    pub notification: bool,
    /// How long a restart may take, in whole seconds up to 4095.
    pub restart_time: Duration,
    /// Families kept, each with its F bit: forwarding state survived the last restart.
    pub families: Vec<(AfiSafi, bool)>,
}

/// One family of the long-lived graceful restart capability (RFC 9494 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongLived {
    /// The family.
    pub family: AfiSafi,
    /// F bit: its state survived the last restart.
    pub forwarding: bool,
    /// How long stale routes may stay after the restart time, in whole seconds up to 2²⁴ − 1.
    pub stale_time: Duration,
}

/// Reads one capability.
///
/// One that decides how the session works must have its exact form; one that is merely kept stays
/// as raw octets when it has not.
pub(super) fn decode(input: &[u8]) -> IResult<&[u8], Capability> {
    let (input, code) = be_u8(input)?;
    let (input, value) = length_data(be_u8).parse(input)?;
    let (_, capability) = decode_value(code, value)?;
    Ok((input, capability))
}

fn decode_value(code: u8, value: &[u8]) -> IResult<&[u8], Capability> {
    let unknown = || Capability::Unknown {
        code,
        value: value.to_vec(),
    };
    let known = |capability| Ok((&value[value.len()..], capability));
    let or_raw = |parsed: IResult<&[u8], Capability>| match parsed {
        Ok((_, capability)) => known(capability),
        Err(_) => known(unknown()),
    };
    match code.into() {
        CapabilityCode::Multiprotocol => {
            let family = map((be_u16, be_u8, be_u8), |(afi, _reserved, safi)| {
                Capability::Multiprotocol(AfiSafi { afi, safi })
            });
            all_consuming(family).parse(value)
        }
        CapabilityCode::FourOctetAs => {
            all_consuming(map(be_u32, |asn| Capability::FourOctetAs(Asn(asn)))).parse(value)
        }
        CapabilityCode::GracefulRestart => {
            all_consuming(map(graceful_restart, Capability::GracefulRestart)).parse(value)
        }
        CapabilityCode::Role => all_consuming(map(be_u8, Capability::Role)).parse(value),
        CapabilityCode::RouteRefresh if value.is_empty() => known(Capability::RouteRefresh),
        CapabilityCode::EnhancedRouteRefresh if value.is_empty() => {
            known(Capability::EnhancedRouteRefresh)
        }
        CapabilityCode::ExtendedMessage if value.is_empty() => known(Capability::ExtendedMessage),
        CapabilityCode::BfdStrict if value.is_empty() => known(Capability::BfdStrict),
        CapabilityCode::LinkLocalNextHop if value.is_empty() => known(Capability::LinkLocalNextHop),
        CapabilityCode::ExtendedNextHop => {
            let family = map_res((be_u16, be_u16, be_u16), |(afi, safi, next_hop)| {
                u8::try_from(safi).map(|safi| (AfiSafi { afi, safi }, next_hop))
            });
            let list = all_consuming(many0(family));
            or_raw(map(list, Capability::ExtendedNextHop).parse(value))
        }
        CapabilityCode::AddPath => {
            let list = all_consuming(many0((afi_safi, be_u8)));
            or_raw(map(list, Capability::AddPath).parse(value))
        }
        CapabilityCode::LongLivedRestart => {
            let family = map((afi_safi, be_u8, be_u24), |(family, flags, seconds)| {
                LongLived {
                    family,
                    forwarding: flags & 0x80 != 0,
                    stale_time: Duration::from_secs(seconds.into()),
                }
            });
            let list = all_consuming(many0(family));
            or_raw(map(list, Capability::LongLivedRestart).parse(value))
        }
        CapabilityCode::Hostname => {
            let names = all_consuming((text, text));
            or_raw(
                map(names, |(host, domain)| Capability::Hostname {
                    host,
                    domain,
                })
                .parse(value),
            )
        }
        CapabilityCode::SoftwareVersion => {
            or_raw(map(all_consuming(text), Capability::SoftwareVersion).parse(value))
        }
        CapabilityCode::RouteRefresh
        | CapabilityCode::EnhancedRouteRefresh
        | CapabilityCode::ExtendedMessage
        | CapabilityCode::BfdStrict
        | CapabilityCode::LinkLocalNextHop
        | CapabilityCode::Unknown(_) => known(unknown()),
    }
}

fn afi_safi(input: &[u8]) -> IResult<&[u8], AfiSafi> {
    map((be_u16, be_u8), |(afi, safi)| AfiSafi { afi, safi }).parse(input)
}

/// Text behind its length.
fn text(input: &[u8]) -> IResult<&[u8], String> {
    map_res(length_data(be_u8), |octets: &[u8]| {
        str::from_utf8(octets).map(str::to_owned)
    })
    .parse(input)
}

/// RFC 4724 §3: four flags and twelve bits of time, then four octets per family.
fn graceful_restart(input: &[u8]) -> IResult<&[u8], GracefulRestart> {
    let (input, head) = be_u16(input)?;
    let family = map((afi_safi, be_u8), |(family, flags)| {
        (family, flags & 0x80 != 0)
    });
    let (input, families) = many0(family).parse(input)?;
    let restart = GracefulRestart {
        restarting: head & 0x8000 != 0,
        notification: head & 0x4000 != 0,
        restart_time: Duration::from_secs(u64::from(head) & MAX_RESTART_TIME),
        families,
    };
    Ok((input, restart))
}

/// Writes one capability; a value beyond 255 octets is cut.
pub(super) fn encode(capability: &Capability, out: &mut BytesMut) {
    let mut value = BytesMut::new();
    let code = encode_value(capability, &mut value);
    value.truncate(u8::MAX.into());
    out.put_u8(code);
    out.put_u8(u8::try_from(value.len()).expect("the value was cut at 255 octets"));
    out.put_slice(&value);
}

fn encode_value(capability: &Capability, out: &mut BytesMut) -> u8 {
    match capability {
        Capability::Multiprotocol(family) => {
            out.put_u16(family.afi);
            out.put_u8(0);
            out.put_u8(family.safi);
            CapabilityCode::Multiprotocol
        }
        Capability::RouteRefresh => CapabilityCode::RouteRefresh,
        Capability::ExtendedNextHop(entries) => {
            for (family, next_hop) in entries {
                out.put_u16(family.afi);
                out.put_u16(family.safi.into());
                out.put_u16(*next_hop);
            }
            CapabilityCode::ExtendedNextHop
        }
        Capability::ExtendedMessage => CapabilityCode::ExtendedMessage,
        Capability::Role(role) => {
            out.put_u8(*role);
            CapabilityCode::Role
        }
        Capability::GracefulRestart(restart) => {
            encode_graceful_restart(restart, out);
            CapabilityCode::GracefulRestart
        }
        Capability::FourOctetAs(asn) => {
            out.put_u32(asn.0);
            CapabilityCode::FourOctetAs
        }
        Capability::AddPath(entries) => {
            for (family, mode) in entries {
                put_family(*family, out);
                out.put_u8(*mode);
            }
            CapabilityCode::AddPath
        }
        Capability::EnhancedRouteRefresh => CapabilityCode::EnhancedRouteRefresh,
        Capability::LongLivedRestart(entries) => {
            for entry in entries {
                put_family(entry.family, out);
                put_forwarding(entry.forwarding, out);
                out.put_uint(entry.stale_time.as_secs().min(MAX_STALE_TIME), 3);
            }
            CapabilityCode::LongLivedRestart
        }
        Capability::Hostname { host, domain } => {
            // Both with their lengths have to fit into 255 octets; the host names the peer better.
            let domain_room = usize::from(u8::MAX) - 2 - put_text(host, 253, out);
            put_text(domain, domain_room, out);
            CapabilityCode::Hostname
        }
        Capability::SoftwareVersion(version) => {
            put_text(version, 254, out);
            CapabilityCode::SoftwareVersion
        }
        Capability::BfdStrict => CapabilityCode::BfdStrict,
        Capability::LinkLocalNextHop => CapabilityCode::LinkLocalNextHop,
        Capability::Unknown { code, value } => {
            out.put_slice(value);
            CapabilityCode::from(*code)
        }
    }
    .into()
}

fn encode_graceful_restart(restart: &GracefulRestart, out: &mut BytesMut) {
    let seconds = restart.restart_time.as_secs().min(MAX_RESTART_TIME);
    let mut head = u16::try_from(seconds).expect("twelve bits fit in sixteen");
    if restart.restarting {
        head |= 0x8000;
    }
    if restart.notification {
        head |= 0x4000;
    }
    out.put_u16(head);
    for (family, forwarding) in &restart.families {
        put_family(*family, out);
        put_forwarding(*forwarding, out);
    }
}

fn put_family(family: AfiSafi, out: &mut BytesMut) {
    out.put_u16(family.afi);
    out.put_u8(family.safi);
}

fn put_forwarding(forwarding: bool, out: &mut BytesMut) {
    out.put_u8(if forwarding { 0x80 } else { 0 });
}

/// Writes text behind its length, cut at a character boundary; the octets of text written.
fn put_text(text: &str, room: usize, out: &mut BytesMut) -> usize {
    let cut = text.floor_char_boundary(room);
    out.put_u8(u8::try_from(cut).expect("callers leave room for at most 254 octets"));
    out.put_slice(&text.as_bytes()[..cut]);
    cut
}

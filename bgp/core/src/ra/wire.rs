//! The messages, as octets (RFC 4861 §4) and what makes them valid (§6.1, §7.1.1).
//!
//! Owns ICMPv6 from its type octet on. Does not own the checksum: a raw ICMPv6 socket fills it in
//! and has verified it before we read (RFC 3542 §3.1), so it is zero here and ignored.

use std::net::Ipv6Addr;
use std::time::Duration;

use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::{IResult, Parser};

/// Every IPv6 node on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Every IPv6 router on the link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// The hop limit of each message. One that arrives with less has been forwarded, so that nobody
/// beyond the link can speak to us (RFC 4861 §6.1).
pub const HOP_LIMIT: u8 = 255;

/// ICMPv6 types that this module understands.
pub mod kind {
    /// Router Solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router Advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbor Solicitation.
    pub const NEIGHBOR_SOLICITATION: u8 = 135;
}

/// Option types (RFC 4861 §4.6).
mod option {
    pub(super) const SOURCE_LINK_LAYER: u8 = 1;
    pub(super) const MTU: u8 = 5;
}

/// An Ethernet address, the only link-layer address that is written or kept.
pub type LinkLayer = [u8; 6];

/// One message of router discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Asks the routers on the link to advertise themselves.
    Solicitation {
        /// The sender's address on the link.
        source_link: Option<LinkLayer>,
    },
    /// A router makes itself known.
    Advertisement(Advertisement),
    /// The sender resolves an address, or asks whether it is still there: a sign of life.
    NeighborSolicitation {
        /// The address that is resolved.
        target: Ipv6Addr,
        /// The sender's address on the link.
        source_link: Option<LinkLayer>,
    },
}

/// What a router says of itself and its link (RFC 4861 §4.2). Zero is "not said" in every field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// The hop limit that hosts should use.
    pub hop_limit: u8,
    /// Flags: managed, other, home agent, preference (RFC 4191), proxy.
    pub flags: u8,
    /// How long the sender may serve as a default router, in whole seconds up to 65,535; zero:
    /// it is none.
    pub router_lifetime: Duration,
    /// Reachable time, in milliseconds.
    pub reachable_time: u32,
    /// Time between repeated solicitations, in milliseconds.
    pub retransmission_time: u32,
    /// The sender's address on the link.
    pub source_link: Option<LinkLayer>,
    /// The MTU of the link.
    pub mtu: Option<u32>,
}

/// What the IPv6 header said of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Who sent it.
    pub source: Ipv6Addr,
    /// Its hop limit on arrival.
    pub hop_limit: u8,
}

/// Why a message is ignored. RFC 4861 has invalid messages discarded without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It has been forwarded, so its sender is not on the link.
    #[error("hop limit {0} instead of 255: the sender is not on the link")]
    HopLimit(u8),
    /// No message of router discovery.
    #[error("ICMPv6 type {0} is no message of router discovery")]
    Type(u8),
    /// The code is not zero.
    #[error("ICMPv6 code {0} instead of 0")]
    Code(u8),
    /// Shorter than its type demands.
    #[error("{0} octets are too few")]
    TooShort(usize),
    /// An option of no length, or one that reaches beyond the end.
    #[error("an option is malformed")]
    Option,
    /// A source that this type of message cannot have.
    #[error("{0} cannot be the source of the message")]
    Source(Ipv6Addr),
    /// A multicast address is resolved by nobody.
    #[error("{0} cannot be resolved")]
    Target(Ipv6Addr),
}

impl Message {
    /// Reads an ICMPv6 message whose checksum the kernel has verified.
    ///
    /// # Errors
    /// [`Invalid`], with the rule of RFC 4861 that it breaks.
    pub fn decode(octets: &[u8], envelope: Envelope) -> Result<Self, Invalid> {
        let too_short = Invalid::TooShort(octets.len());
        if envelope.hop_limit != HOP_LIMIT {
            return Err(Invalid::HopLimit(envelope.hop_limit));
        }
        let (body, (kind, code, _checksum)) = header(octets).map_err(|_| too_short)?;
        let known = matches!(
            kind,
            kind::ROUTER_SOLICITATION | kind::ROUTER_ADVERTISEMENT | kind::NEIGHBOR_SOLICITATION
        );
        if !known {
            return Err(Invalid::Type(kind));
        }
        if code != 0 {
            return Err(Invalid::Code(code));
        }
        let source = envelope.source;
        match kind {
            kind::ROUTER_ADVERTISEMENT => {
                let (rest, fixed) = advertisement(body).map_err(|_| too_short)?;
                let options = Options::read(rest)?;
                // RFC 4861 §6.1.2: routers are known by their link-local address.
                if !source.is_unicast_link_local() {
                    return Err(Invalid::Source(source));
                }
                Ok(Self::Advertisement(Advertisement {
                    source_link: options.source_link,
                    mtu: options.mtu,
                    ..fixed
                }))
            }
            kind::ROUTER_SOLICITATION => {
                let (rest, _reserved) = word(body).map_err(|_| too_short)?;
                let source_link = Options::read(rest)?.from(source)?;
                Ok(Self::Solicitation { source_link })
            }
            _ => {
                let (rest, target) = resolution(body).map_err(|_| too_short)?;
                if target.is_multicast() {
                    return Err(Invalid::Target(target));
                }
                let source_link = Options::read(rest)?.from(source)?;
                Ok(Self::NeighborSolicitation {
                    target,
                    source_link,
                })
            }
        }
    }

    /// The message as octets, from the ICMPv6 type on, with a checksum of zero.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        match self {
            Self::Solicitation { source_link } => {
                out.extend([kind::ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
                put_source_link(*source_link, &mut out);
            }
            Self::Advertisement(advertisement) => advertisement.encode(&mut out),
            Self::NeighborSolicitation {
                target,
                source_link,
            } => {
                out.extend([kind::NEIGHBOR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
                out.extend(target.octets());
                put_source_link(*source_link, &mut out);
            }
        }
        out
    }
}

impl Advertisement {
    fn encode(&self, out: &mut Vec<u8>) {
        let lifetime = u16::try_from(self.router_lifetime.as_secs()).unwrap_or(u16::MAX);
        out.extend([kind::ROUTER_ADVERTISEMENT, 0, 0, 0]);
        out.extend([self.hop_limit, self.flags]);
        out.extend(lifetime.to_be_bytes());
        out.extend(self.reachable_time.to_be_bytes());
        out.extend(self.retransmission_time.to_be_bytes());
        put_source_link(self.source_link, out);
        if let Some(mtu) = self.mtu {
            out.extend([option::MTU, 1, 0, 0]);
            out.extend(mtu.to_be_bytes());
        }
    }
}

fn put_source_link(address: Option<LinkLayer>, out: &mut Vec<u8>) {
    if let Some(address) = address {
        out.extend([option::SOURCE_LINK_LAYER, 1]);
        out.extend(address);
    }
}

/// The options that mean something here. Others are skipped unread (RFC 4861 §4.6: "must ignore
/// options they do not recognize"); of one that is repeated, the first counts.
#[derive(Default)]
struct Options {
    source_link: Option<LinkLayer>,
    mtu: Option<u32>,
    /// There is a source link-layer address, of whatever length.
    names_source: bool,
}

impl Options {
    fn read(mut rest: &[u8]) -> Result<Self, Invalid> {
        let mut options = Self::default();
        while !rest.is_empty() {
            let (after, (kind, value)) = option(rest).map_err(|_| Invalid::Option)?;
            rest = after;
            match kind {
                option::SOURCE_LINK_LAYER => {
                    options.names_source = true;
                    // Longer ones belong to links that are not Ethernet.
                    options.source_link = options.source_link.or(value.try_into().ok());
                }
                option::MTU => {
                    let mtu = value.get(2..6).and_then(|mtu| mtu.try_into().ok());
                    options.mtu = options.mtu.or(mtu.map(u32::from_be_bytes));
                }
                _ => {}
            }
        }
        Ok(options)
    }

    /// RFC 4861 §6.1.1, §7.1.1: who has no address yet cannot say where it is.
    fn from(&self, source: Ipv6Addr) -> Result<Option<LinkLayer>, Invalid> {
        if source.is_multicast() || source.is_unspecified() && self.names_source {
            return Err(Invalid::Source(source));
        }
        Ok(self.source_link)
    }
}

/// Type, code, checksum.
fn header(input: &[u8]) -> IResult<&[u8], (u8, u8, u16)> {
    (be_u8, be_u8, be_u16).parse(input)
}

fn word(input: &[u8]) -> IResult<&[u8], u32> {
    be_u32(input)
}

fn advertisement(input: &[u8]) -> IResult<&[u8], Advertisement> {
    (be_u8, be_u8, be_u16, be_u32, be_u32)
        .map(
            |(hop_limit, flags, lifetime, reachable_time, retransmission_time)| Advertisement {
                hop_limit,
                flags,
                router_lifetime: Duration::from_secs(lifetime.into()),
                reachable_time,
                retransmission_time,
                ..Advertisement::default()
            },
        )
        .parse(input)
}

/// The reserved word and the target of a Neighbor Solicitation.
fn resolution(input: &[u8]) -> IResult<&[u8], Ipv6Addr> {
    let (input, _reserved) = be_u32(input)?;
    let (input, high) = nom::number::complete::be_u64(input)?;
    let (input, low) = nom::number::complete::be_u64(input)?;
    let bits = u128::from(high) << 64 | u128::from(low);
    Ok((input, Ipv6Addr::from_bits(bits)))
}

/// Type and value of an option; its length counts units of eight octets, with the first two.
fn option(input: &[u8]) -> IResult<&[u8], (u8, &[u8])> {
    let (input, kind) = be_u8(input)?;
    let (input, units) = be_u8(input)?;
    // RFC 4861 §6.1: a length of zero makes the message invalid; it would also never end.
    let length = (usize::from(units) * 8)
        .checked_sub(2)
        .ok_or(nom::Err::Error(nom::error::Error::new(
            input,
            nom::error::ErrorKind::Verify,
        )))?;
    let (input, value) = take(length)(input)?;
    Ok((input, (kind, value)))
}

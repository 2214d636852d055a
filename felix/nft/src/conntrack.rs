//! The kernel's connections, and how to cut those that a new policy forbids.
//!
//! Owns the ctnetlink messages. Does not own the decision: the caller says which connection stays.
//! A packet of a known connection is accepted before any policy is asked, so a connection that a new
//! policy forbids lives on until it is deleted here. Source: `linux/netfilter/nfnetlink_conntrack.h`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::connection::Connection;
use crate::error::Error;
use crate::wire::{Attributes, FAMILY_ANY, Writer};

/// One direction of a connection as its packets show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// What tells connections of the same addresses and protocol apart.
    pub discriminator: Discriminator,
}

/// The part of a tuple that depends on the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discriminator {
    /// Ports of TCP, UDP, SCTP and the like.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6 queries.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Identifier.
        id: u16,
    },
    /// The protocol has neither.
    None,
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// As its first packet arrived.
    pub original: Tuple,
    /// As answers to it arrive: the other way round, after any address translation.
    pub reply: Tuple,
    /// Conntrack zone.
    pub zone: u16,
    /// Tells it from a later connection with the same tuples.
    pub id: u32,
}

impl Flow {
    /// Who opened it, before source translation: what an ingress policy judges.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        self.original.source
    }

    /// Who it was opened to, after destination translation: what an egress policy judges.
    #[expect(
        clippy::misnamed_getters,
        reason = "the real destination is where the answers come from"
    )]
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        self.reply.source
    }

    /// The port it was opened to, after destination translation.
    #[must_use]
    pub fn destination_port(&self) -> Option<u16> {
        match self.reply.discriminator {
            Discriminator::Ports { source, .. } => Some(source),
            Discriminator::Icmp { .. } | Discriminator::None => None,
        }
    }
}

/// What the caller decides about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is still allowed.
    Keep,
    /// It is forbidden now.
    Cut,
}

/// What became of the connections of some addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Connections that were asked about.
    pub examined: usize,
    /// Connections that were cut.
    pub cut: Vec<Flow>,
    /// Connections that ended by themselves before they could be cut.
    pub vanished: usize,
    /// How often an answer that was under way had opened a connection of its own, which was cut as well.
    pub reopened: usize,
}

/// Pauses between looks for connections that answers under way have opened: most answers take less than
/// their sum, and the caller can wait for as long.
const LOOKS: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(16),
];

impl Connection {
    /// Every connection of the namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] if the kernel has no ctnetlink; [`Error::Socket`].
    pub fn flows(&mut self) -> Result<Vec<Flow>, Error> {
        let mut flows = Vec::new();
        self.query(
            "read the connections",
            message(MSG_GET),
            FAMILY_ANY,
            true,
            &|_| {},
            &mut |answer| {
                match answer {
                    None => flows.clear(),
                    Some(answer) => flows.extend(Flow::read(answer.netfilter()?.1)),
                }
                Ok(())
            },
        )?;
        Ok(flows)
    }

    /// Asks `decide` about each connection that has one of `affected` as source or destination, before
    /// or after translation, and deletes those to be cut. Never deletes by address alone: that would
    /// also take the translations of allowed connections.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] or [`Error::Socket`]; connections cut until then stay cut.
    pub fn cut_flows(
        &mut self,
        affected: &BTreeSet<IpAddr>,
        mut decide: impl FnMut(&Flow) -> Decision,
    ) -> Result<Cut, Error> {
        let mut result = Cut::default();
        if affected.is_empty() {
            return Ok(result);
        }
        for flow in self.flows()? {
            let ends = [
                flow.original.source,
                flow.original.destination,
                flow.reply.source,
                flow.reply.destination,
            ];
            if !ends.iter().any(|end| affected.contains(end)) {
                continue;
            }
            result.examined += 1;
            if decide(&flow) == Decision::Keep {
                continue;
            }
            if self.delete_flow(&flow)? {
                result.cut.push(flow);
            } else {
                result.vanished += 1;
            }
        }
        result.reopened = self.cut_reopened(&result.cut)?;
        Ok(result)
    }

    /// An answer to a packet that passed before its connection was cut finds no connection, and opens one the
    /// other way round. Where the policy allows that, the packets that it forbids would pass as answers. A
    /// connection that is allowed and has the same ends by chance is opened again by its next packet.
    fn cut_reopened(&mut self, cut: &[Flow]) -> Result<usize, Error> {
        let mut reopened = 0;
        if cut.is_empty() {
            return Ok(reopened);
        }
        for pause in LOOKS {
            std::thread::sleep(pause);
            for flow in cut {
                reopened += usize::from(self.delete(&flow.reply, flow.zone, None)?);
            }
        }
        Ok(reopened)
    }

    /// Deletes one connection; false if it is no longer there.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] or [`Error::Socket`].
    pub fn delete_flow(&mut self, flow: &Flow) -> Result<bool, Error> {
        self.delete(&flow.original, flow.zone, Some(flow.id))
    }

    /// Deletes the connection that a packet with this tuple belongs to, if it has this ID.
    fn delete(&mut self, tuple: &Tuple, zone: u16, id: Option<u32>) -> Result<bool, Error> {
        let family = match tuple.source {
            IpAddr::V4(_) => AF_INET,
            IpAddr::V6(_) => AF_INET6,
        };
        let deleted = self.request(
            &format!(
                "delete connection {} to {}",
                tuple.source, tuple.destination
            ),
            message(MSG_DELETE),
            family,
            &|w| {
                w.nest(CTA_TUPLE_ORIGINAL, |w| tuple.write(w));
                if zone != 0 {
                    w.u16(CTA_ZONE, zone);
                }
                if let Some(id) = id {
                    w.u32(CTA_ID, id);
                }
            },
        );
        match deleted {
            Err(Error::Query { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }
}

impl Flow {
    /// `None` for an entry of a family other than IPv4 and IPv6.
    pub(crate) fn read(attributes: Attributes<'_>) -> Option<Self> {
        Some(Self {
            original: Tuple::read(attributes.nested(CTA_TUPLE_ORIGINAL)?)?,
            reply: Tuple::read(attributes.nested(CTA_TUPLE_REPLY)?)?,
            zone: attributes.u16(CTA_ZONE).unwrap_or(0),
            id: attributes.u32(CTA_ID)?,
        })
    }
}

impl Tuple {
    pub(crate) fn read(attributes: Attributes<'_>) -> Option<Self> {
        let ip = attributes.nested(CTA_TUPLE_IP)?;
        let v4 = |kind| {
            let octets: [u8; 4] = ip.get(kind)?.try_into().ok()?;
            Some(IpAddr::from(octets))
        };
        let v6 = |kind| {
            let octets: [u8; 16] = ip.get(kind)?.try_into().ok()?;
            Some(IpAddr::from(octets))
        };
        let proto = attributes.nested(CTA_TUPLE_PROTO)?;
        let byte = |kind| proto.get(kind).and_then(|value| value.first().copied());
        let icmp = |id, kind, code| {
            Some(Discriminator::Icmp {
                id: proto.u16(id)?,
                kind: byte(kind)?,
                code: byte(code)?,
            })
        };
        let ports = || {
            Some(Discriminator::Ports {
                source: proto.u16(CTA_PROTO_SOURCE_PORT)?,
                destination: proto.u16(CTA_PROTO_DESTINATION_PORT)?,
            })
        };
        Some(Self {
            source: v4(CTA_IP_V4_SOURCE).or_else(|| v6(CTA_IP_V6_SOURCE))?,
            destination: v4(CTA_IP_V4_DESTINATION).or_else(|| v6(CTA_IP_V6_DESTINATION))?,
            protocol: byte(CTA_PROTO_NUMBER)?,
            discriminator: ports()
                .or_else(|| icmp(CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE))
                .or_else(|| {
                    icmp(
                        CTA_PROTO_ICMPV6_ID,
                        CTA_PROTO_ICMPV6_TYPE,
                        CTA_PROTO_ICMPV6_CODE,
                    )
                })
                .unwrap_or(Discriminator::None),
        })
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.nest(CTA_TUPLE_IP, |w| match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                w.bytes(CTA_IP_V4_SOURCE, &source.octets());
                w.bytes(CTA_IP_V4_DESTINATION, &destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                w.bytes(CTA_IP_V6_SOURCE, &source.octets());
                w.bytes(CTA_IP_V6_DESTINATION, &destination.octets());
            }
            // The kernel refuses a tuple without addresses.
            _ => {}
        });
        w.nest(CTA_TUPLE_PROTO, |w| {
            w.bytes(CTA_PROTO_NUMBER, &[self.protocol]);
            match self.discriminator {
                Discriminator::Ports {
                    source,
                    destination,
                } => {
                    w.u16(CTA_PROTO_SOURCE_PORT, source);
                    w.u16(CTA_PROTO_DESTINATION_PORT, destination);
                }
                Discriminator::Icmp { kind, code, id } => {
                    let [id_kind, type_kind, code_kind] = if self.protocol == IPPROTO_ICMPV6 {
                        [
                            CTA_PROTO_ICMPV6_ID,
                            CTA_PROTO_ICMPV6_TYPE,
                            CTA_PROTO_ICMPV6_CODE,
                        ]
                    } else {
                        [CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE]
                    };
                    w.u16(id_kind, id);
                    w.bytes(type_kind, &[kind]);
                    w.bytes(code_kind, &[code]);
                }
                Discriminator::None => {}
            }
        });
    }
}

fn message(kind: u16) -> u16 {
    /// `NFNL_SUBSYS_CTNETLINK`.
    const SUBSYSTEM: u16 = 1;
    (SUBSYSTEM << 8) | kind
}

const MSG_GET: u16 = 1;
const MSG_DELETE: u16 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_ICMPV6: u8 = 58;

const CTA_TUPLE_ORIGINAL: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SOURCE: u16 = 1;
const CTA_IP_V4_DESTINATION: u16 = 2;
const CTA_IP_V6_SOURCE: u16 = 3;
const CTA_IP_V6_DESTINATION: u16 = 4;
const CTA_PROTO_NUMBER: u16 = 1;
const CTA_PROTO_SOURCE_PORT: u16 = 2;
const CTA_PROTO_DESTINATION_PORT: u16 = 3;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_PROTO_ICMPV6_CODE: u16 = 9;

//! Messages to octets.

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};

use crate::bmp::peer::{Instance, PeerDownReason, PeerHeader, PeerUp, Table};
use crate::bmp::statistics::{Statistic, Value};
use crate::bmp::{HEADER_LEN, Initiation, Message, VERSION, info, message_type};
use crate::wire::{self, EncodeContext, MAX_EXTENDED_LEN, MessageType, Notification};

impl Message {
    /// Appends the message to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::RouteMonitoring { peer, update } => {
                framed(message_type::ROUTE_MONITORING, out, |out| {
                    put_peer(peer, out);
                    out.put_slice(update);
                });
            }
            Self::Statistics { peer, values } => framed(message_type::STATISTICS, out, |out| {
                put_peer(peer, out);
                let count =
                    u32::try_from(values.len()).expect("there are eighteen kinds of counts");
                out.put_u32(count);
                values.iter().for_each(|value| put_statistic(*value, out));
            }),
            Self::PeerDown { peer, reason } => framed(message_type::PEER_DOWN, out, |out| {
                put_peer(peer, out);
                put_reason(reason, out);
            }),
            Self::PeerUp(up) => framed(message_type::PEER_UP, out, |out| put_peer_up(up, out)),
            Self::Initiation(initiation) => framed(message_type::INITIATION, out, |out| {
                let Initiation {
                    system_description,
                    system_name,
                    text,
                } = initiation;
                // RFC 7854 §4.3: both are mandatory, also when there is nothing to say.
                put_info(info::SYSTEM_DESCRIPTION, system_description.as_bytes(), out);
                put_info(info::SYSTEM_NAME, system_name.as_bytes(), out);
                put_text(info::STRING, text, out);
            }),
            Self::Termination { reason, text } => framed(message_type::TERMINATION, out, |out| {
                put_info(info::REASON, &reason.code().to_be_bytes(), out);
                put_text(info::STRING, text, out);
            }),
        }
    }
}

/// Appends a Route Monitoring message for each of the UPDATEs in `updates`: what the BGP encoder
/// wrote, header by header. Other messages in there are passed over, as is what is not whole.
pub fn route_monitoring(peer: &PeerHeader, updates: &[u8], out: &mut BytesMut) {
    let mut rest = updates;
    while let Some(header) = rest.first_chunk::<{ wire::HEADER_LEN }>() {
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let is_update = MessageType::from(header[18]) == MessageType::Update;
        let Some((message, tail)) = rest
            .split_at_checked(length)
            .filter(|(message, _)| !message.is_empty())
        else {
            return;
        };
        if is_update {
            framed(message_type::ROUTE_MONITORING, out, |out| {
                put_peer(peer, out);
                out.put_slice(message);
            });
        }
        rest = tail;
    }
}

/// Appends a Route Monitoring message for an UPDATE as it came, of which `body` is what followed the
/// header.
pub fn received_update(peer: &PeerHeader, body: &[u8], out: &mut BytesMut) {
    framed(message_type::ROUTE_MONITORING, out, |out| {
        put_peer(peer, out);
        out.put_bytes(0xff, 16);
        let length = u16::try_from(wire::HEADER_LEN + body.len());
        out.put_u16(length.expect("a message that came has a length of two octets"));
        out.put_u8(MessageType::Update.into());
        out.put_slice(body);
    });
}

/// Writes the common header, lets `body` write the rest, and fills in the length.
fn framed(kind: u8, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u8(VERSION);
    out.put_u32(0);
    out.put_u8(kind);
    body(out);
    let length = u32::try_from(out.len() - start).expect("parts are cut to 65,535 octets each");
    out[start + 1..start + HEADER_LEN - 1].copy_from_slice(&length.to_be_bytes());
}

fn put_peer(peer: &PeerHeader, out: &mut BytesMut) {
    const IPV6: u8 = 0x80;
    const POST_POLICY: u8 = 0x40;
    const TWO_OCTET_AS: u8 = 0x20;
    const ADJ_RIB_OUT: u8 = 0x10;
    const FILTERED: u8 = 0x80;

    let (instance, distinguisher) = match peer.instance {
        Instance::Global => (0, 0),
        Instance::RouteDistinguisher(distinguisher) => (1, distinguisher),
        Instance::Local(distinguisher) => (2, distinguisher),
    };
    let post = |post_policy: bool| if post_policy { POST_POLICY } else { 0 };
    let (kind, mut flags) = match peer.table {
        Table::AdjRibIn { post_policy } => (instance, post(post_policy)),
        Table::AdjRibOut { post_policy } => (instance, ADJ_RIB_OUT | post(post_policy)),
        // RFC 9069 §4.2: a peer type of its own, with flags of its own.
        Table::LocRib { filtered } => (3, if filtered { FILTERED } else { 0 }),
    };
    if !matches!(peer.table, Table::LocRib { .. }) {
        flags |= if peer.address.is_ipv6() { IPV6 } else { 0 };
        flags |= if peer.two_octet_as { TWO_OCTET_AS } else { 0 };
    }
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u64(distinguisher);
    put_address(peer.address, out);
    out.put_u32(peer.asn.0);
    out.put_u32(peer.router_id.0);
    // RFC 7854 §4.2: 32 bits of seconds; what is beyond 2106 is said to be unknown.
    let seconds = u32::try_from(peer.time.as_secs());
    out.put_u32(seconds.unwrap_or(0));
    out.put_u32(seconds.map_or(0, |_| peer.time.subsec_micros()));
}

/// RFC 7854 §4.2: sixteen octets, of which an IPv4 address takes the last four.
fn put_address(address: IpAddr, out: &mut BytesMut) {
    match address {
        IpAddr::V4(address) => {
            out.put_bytes(0, 12);
            out.put_slice(&address.octets());
        }
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
}

fn put_peer_up(up: &PeerUp, out: &mut BytesMut) {
    put_peer(&up.peer, out);
    put_address(up.local.ip(), out);
    out.put_u16(up.local.port());
    out.put_u16(up.remote_port);
    out.put_slice(&up.sent_open);
    out.put_slice(&up.received_open);
    put_text(info::STRING, &up.text, out);
    put_text(info::TABLE_NAME, &up.table_name, out);
    put_text(info::ADMIN_LABEL, &up.admin_label, out);
}

fn put_reason(reason: &PeerDownReason, out: &mut BytesMut) {
    match reason {
        PeerDownReason::LocalNotification(notification) => {
            out.put_u8(1);
            out.put_slice(&notification_octets(notification));
        }
        PeerDownReason::LocalEvent(event) => {
            out.put_u8(2);
            out.put_u16(*event);
        }
        PeerDownReason::RemoteNotification(notification) => {
            out.put_u8(3);
            out.put_slice(&notification_octets(notification));
        }
        PeerDownReason::RemoteClosed => out.put_u8(4),
        PeerDownReason::NoLongerMonitored => out.put_u8(5),
        PeerDownReason::LocalTable { table_name } => {
            out.put_u8(6);
            put_text(info::TABLE_NAME, table_name, out);
        }
    }
}

fn notification_octets(notification: &Notification) -> Bytes {
    let mut octets = BytesMut::new();
    let message = wire::Message::Notification(notification.clone());
    let context = EncodeContext {
        max_len: MAX_EXTENDED_LEN,
        ..EncodeContext::default()
    };
    wire::encode(&message, context, &mut octets).expect("only UPDATEs can be too long");
    octets.freeze()
}

fn put_statistic(statistic: Statistic, out: &mut BytesMut) {
    let (kind, value) = statistic.parts();
    out.put_u16(kind);
    match value {
        Value::Counter(count) => {
            out.put_u16(4);
            out.put_u32(count);
        }
        Value::Gauge(count) => {
            out.put_u16(8);
            out.put_u64(count);
        }
        Value::OfFamily(family, count) => {
            out.put_u16(11);
            out.put_u16(family.afi);
            out.put_u8(family.safi);
            out.put_u64(count);
        }
    }
}

/// Text is left out when it is empty, and cut at a character boundary when it is too long.
fn put_text(kind: u16, text: &str, out: &mut BytesMut) {
    if !text.is_empty() {
        let cut = text.floor_char_boundary(u16::MAX.into());
        put_info(kind, &text.as_bytes()[..cut], out);
    }
}

fn put_info(kind: u16, value: &[u8], out: &mut BytesMut) {
    out.put_u16(kind);
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    out.put_u16(length);
    out.put_slice(&value[..length.into()]);
}

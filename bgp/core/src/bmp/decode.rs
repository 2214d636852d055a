//! Octets to messages, for those who check what a station is told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use nom::combinator::{all_consuming, map};
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u32, be_u64, be_u128};
use nom::{IResult, Parser};

use crate::bmp::peer::{Instance, PeerDownReason, PeerHeader, PeerUp, Table};
use crate::bmp::statistics::{Statistic, Value};
use crate::bmp::{HEADER_LEN, Initiation, Message, TerminationReason, VERSION, info, message_type};
use crate::types::{Asn, RouterId};
use crate::wire::{
    self, AfiSafi, Frame, MAX_EXTENDED_LEN, MessageType, Notification, decode_control,
};

/// What is no BMP message, or not one of those that this speaker writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

type Parsed<'a, T> = IResult<&'a [u8], T>;

/// Takes the first message out of `buffer`; `None` until the whole of it is there.
///
/// # Errors
/// [`Malformed`]; `buffer` is of no more use then.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Message>, Malformed> {
    let Some(&[version, a, b, c, d, kind]) = buffer.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(|_| Malformed)?;
    if version != VERSION || length < HEADER_LEN {
        return Err(Malformed);
    }
    if buffer.len() < length {
        return Ok(None);
    }
    let mut body = buffer.split_to(length).freeze();
    body.advance(HEADER_LEN);
    message(kind, &body).map(Some).ok_or(Malformed)
}

fn message(kind: u8, body: &Bytes) -> Option<Message> {
    if kind == message_type::INITIATION {
        let mut initiation = Initiation::default();
        for (kind, value) in infos(body)? {
            *match kind {
                info::STRING => &mut initiation.text,
                info::SYSTEM_DESCRIPTION => &mut initiation.system_description,
                info::SYSTEM_NAME => &mut initiation.system_name,
                _ => return None,
            } = text(value)?;
        }
        return Some(Message::Initiation(initiation));
    }
    if kind == message_type::TERMINATION {
        return termination(body);
    }
    let (rest, peer) = peer(body).ok()?;
    let rest = body.slice_ref(rest);
    match kind {
        message_type::ROUTE_MONITORING => {
            let (update, tail) = bgp(&rest)?;
            (tail.is_empty() && update.kind == MessageType::Update).then_some(())?;
            Some(Message::RouteMonitoring { peer, update: rest })
        }
        message_type::STATISTICS => {
            let (_, values) = all_consuming(statistics).parse(&rest).ok()?;
            Some(Message::Statistics { peer, values })
        }
        message_type::PEER_DOWN => {
            let reason = reason(&rest)?;
            Some(Message::PeerDown { peer, reason })
        }
        message_type::PEER_UP => peer_up(peer, &rest).map(Box::new).map(Message::PeerUp),
        _ => None,
    }
}

fn termination(body: &[u8]) -> Option<Message> {
    let mut reason = None;
    let mut words = String::new();
    for (kind, value) in infos(body)? {
        match kind {
            info::REASON => {
                let code = u16::from_be_bytes(value.try_into().ok()?);
                let mut codes = TerminationReason::CODES.iter();
                let listed = codes.find_map(|(reason, of)| (*of == code).then_some(*reason));
                reason = Some(listed.unwrap_or(TerminationReason::Unknown(code)));
            }
            info::STRING => words = text(value)?,
            _ => return None,
        }
    }
    Some(Message::Termination {
        reason: reason?,
        text: words,
    })
}

fn infos(body: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let list: Parsed<'_, _> = all_consuming(many0((be_u16, length_data(be_u16)))).parse(body);
    list.ok().map(|(_, infos)| infos)
}

fn text(octets: &[u8]) -> Option<String> {
    str::from_utf8(octets).ok().map(str::to_owned)
}

fn peer(input: &[u8]) -> Parsed<'_, PeerHeader> {
    let (input, (kind, flags, distinguisher)) = (be_u8, be_u8, be_u64).parse(input)?;
    let (input, address) = be_u128(input)?;
    let (input, (asn, router_id, seconds, micros)) =
        (be_u32, be_u32, be_u32, be_u32).parse(input)?;
    if micros >= 1_000_000 {
        return Err(failure(input));
    }
    let post_policy = flags & 0x40 != 0;
    let table = match kind {
        3 => Table::LocRib {
            filtered: flags & 0x80 != 0,
        },
        _ if flags & 0x10 != 0 => Table::AdjRibOut { post_policy },
        _ => Table::AdjRibIn { post_policy },
    };
    let instance = match kind {
        0 => Instance::Global,
        1 => Instance::RouteDistinguisher(distinguisher),
        2 => Instance::Local(distinguisher),
        3 if distinguisher == 0 => Instance::Global,
        3 => Instance::RouteDistinguisher(distinguisher),
        _ => return Err(failure(input)),
    };
    let of_peer = kind != 3;
    let header = PeerHeader {
        table,
        instance,
        address: ip(address, of_peer && flags & 0x80 != 0).ok_or_else(|| failure(input))?,
        asn: Asn(asn),
        router_id: RouterId(router_id),
        two_octet_as: of_peer && flags & 0x20 != 0,
        time: Duration::from_secs(seconds.into()) + Duration::from_micros(micros.into()),
    };
    Ok((input, header))
}

fn failure(input: &[u8]) -> nom::Err<nom::error::Error<&[u8]>> {
    nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::Verify))
}

fn ip(address: u128, ipv6: bool) -> Option<IpAddr> {
    if ipv6 {
        return Some(Ipv6Addr::from_bits(address).into());
    }
    let address = u32::try_from(address).ok()?;
    Some(Ipv4Addr::from_bits(address).into())
}

fn statistics(input: &[u8]) -> Parsed<'_, Vec<Statistic>> {
    let (mut input, count) = be_u32(input)?;
    let mut values = Vec::new();
    for _ in 0..count {
        let (rest, (kind, value)) = (be_u16, length_data(be_u16)).parse(input)?;
        let value = match value.len() {
            4 => map(be_u32, Value::Counter).parse(value)?.1,
            8 => map(be_u64, Value::Gauge).parse(value)?.1,
            _ => {
                let of_family = map((be_u16, be_u8, be_u64), |(afi, safi, count)| {
                    Value::OfFamily(AfiSafi { afi, safi }, count)
                });
                all_consuming(of_family).parse(value)?.1
            }
        };
        values.push(Statistic::from_parts(kind, value).ok_or_else(|| failure(rest))?);
        input = rest;
    }
    Ok((input, values))
}

fn reason(body: &Bytes) -> Option<PeerDownReason> {
    let (code, data) = body.split_first()?;
    let data = body.slice_ref(data);
    let whole = |reason| data.is_empty().then_some(reason);
    match code {
        1 => notification(&data).map(PeerDownReason::LocalNotification),
        2 => {
            let event = u16::from_be_bytes(data[..].try_into().ok()?);
            Some(PeerDownReason::LocalEvent(event))
        }
        3 => notification(&data).map(PeerDownReason::RemoteNotification),
        4 => whole(PeerDownReason::RemoteClosed),
        5 => whole(PeerDownReason::NoLongerMonitored),
        6 => {
            let mut table_name = String::new();
            for (kind, value) in infos(&data)? {
                (kind == info::TABLE_NAME).then_some(())?;
                table_name = text(value)?;
            }
            Some(PeerDownReason::LocalTable { table_name })
        }
        _ => None,
    }
}

fn notification(octets: &Bytes) -> Option<Notification> {
    let (frame, tail) = bgp(octets)?;
    match decode_control(&frame) {
        Ok(wire::Message::Notification(notification)) if tail.is_empty() => Some(notification),
        _ => None,
    }
}

fn peer_up(peer: PeerHeader, body: &Bytes) -> Option<PeerUp> {
    let ends: Parsed<'_, _> = (be_u128, be_u16, be_u16).parse(body);
    let (rest, (address, port, remote_port)) = ends.ok()?;
    // The flag of the header speaks of both addresses; that of the Loc-RIB has none.
    let ipv6 = peer.address.is_ipv6();
    let local = SocketAddr::new(ip(address, ipv6)?, port);
    let mut rest = body.slice_ref(rest);
    let mut open = || {
        let (frame, tail) = bgp(&rest)?;
        let length = rest.len() - tail.len();
        let open = rest.split_to(length);
        (frame.kind == MessageType::Open).then_some(open)
    };
    let (sent_open, received_open) = (open()?, open()?);
    let mut up = PeerUp {
        peer,
        local,
        remote_port,
        sent_open,
        received_open,
        table_name: String::new(),
        admin_label: String::new(),
        text: String::new(),
    };
    for (kind, value) in infos(&rest)? {
        *match kind {
            info::STRING => &mut up.text,
            info::TABLE_NAME => &mut up.table_name,
            info::ADMIN_LABEL => &mut up.admin_label,
            _ => return None,
        } = text(value)?;
    }
    Some(up)
}

/// The first BGP message in `octets`, and what follows.
fn bgp(octets: &Bytes) -> Option<(Frame, Bytes)> {
    let mut rest = BytesMut::from(&octets[..]);
    let frame = wire::frame(&mut rest, MAX_EXTENDED_LEN).ok()??;
    let tail = octets.slice(octets.len() - rest.len()..);
    Some((frame, tail))
}

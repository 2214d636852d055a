//! OPEN: optional parameters and capabilities, both ways.
//!
//! Owns the syntax of RFC 4271 §4.2, RFC 5492 and RFC 9072. Does not own whether the values suit
//! the configuration.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use nom::bytes::complete::take;
use nom::combinator::{all_consuming, map, rest, verify};
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::{IResult, Parser};

use crate::types::{Asn, RouterId};
use crate::wire::iana::{AfiSafi, OpenError, capability};
use crate::wire::message::{Capability, GracefulRestart, Open};
use crate::wire::notification::Notification;

const VERSION: u8 = 4;
/// Parameter type of capabilities (RFC 5492 §4).
const PARAMETER_CAPABILITIES: u8 = 2;
/// Marks the extended form: both as length and as first type (RFC 9072 §2).
const EXTENDED: u8 = 255;

/// Reads an OPEN.
///
/// # Errors
/// The NOTIFICATION of RFC 4271 §6.2 with which the connection must end.
pub(super) fn decode(body: &[u8]) -> Result<Open, Notification> {
    let malformed = || Notification::new(OpenError::Unspecific, []);
    let (parameters, (version, two_octet_as, hold_time, router_id)) =
        fixed_part(body).map_err(|_| malformed())?;
    if version != VERSION {
        // RFC 4271 §6.2: the data is the largest version supported, in two octets.
        let supported = u16::from(VERSION).to_be_bytes();
        return Err(Notification::new(OpenError::UnsupportedVersion, supported));
    }
    let (_, parameters) = optional_parameters(parameters).map_err(|_| malformed())?;
    let mut capabilities = Vec::new();
    for (kind, value) in parameters {
        if kind != PARAMETER_CAPABILITIES {
            return Err(Notification::new(OpenError::UnsupportedParameter, []));
        }
        let (_, mut listed) = all_consuming(many0(capability))
            .parse(value)
            .map_err(|_| malformed())?;
        capabilities.append(&mut listed);
    }
    let four_octet_as = capabilities.iter().find_map(|capability| match capability {
        Capability::FourOctetAs(asn) => Some(*asn),
        _ => None,
    });
    Ok(Open {
        // RFC 6793 §4.1: with the capability, the two-octet field may hold AS_TRANS or anything.
        asn: four_octet_as.unwrap_or(Asn(two_octet_as.into())),
        hold_time: Duration::from_secs(hold_time.into()),
        router_id: RouterId(router_id),
        capabilities,
    })
}

/// Writes the body of an OPEN.
pub(super) fn encode(open: &Open, out: &mut BytesMut) {
    out.put_u8(VERSION);
    // RFC 6793 §4.2.2: a number that does not fit is announced as AS_TRANS.
    let trans = Asn::TRANS.two_octet().unwrap_or_default();
    out.put_u16(open.asn.two_octet().unwrap_or(trans));
    out.put_u16(u16::try_from(open.hold_time.as_secs()).unwrap_or(u16::MAX));
    out.put_u32(open.router_id.0);

    let mut listed = BytesMut::new();
    for capability in &open.capabilities {
        encode_capability(capability, &mut listed);
    }
    match u8::try_from(listed.len()) {
        Ok(0) => out.put_u8(0),
        Ok(length) if length <= EXTENDED - 3 => {
            out.put_slice(&[length + 2, PARAMETER_CAPABILITIES, length]);
        }
        _ => {
            // RFC 9072 §2: more than a length octet can say needs the extended form.
            let length = u16::try_from(listed.len()).unwrap_or(u16::MAX - 3);
            listed.truncate(length.into());
            out.put_slice(&[EXTENDED, EXTENDED]);
            out.put_u16(length + 3);
            out.put_u8(PARAMETER_CAPABILITIES);
            out.put_u16(length);
        }
    }
    out.put_slice(&listed);
}

fn fixed_part(body: &[u8]) -> IResult<&[u8], (u8, u16, u16, u32)> {
    (be_u8, be_u16, be_u16, be_u32).parse(body)
}

/// Everything behind the identifier, as pairs of type and value.
fn optional_parameters(input: &[u8]) -> IResult<&[u8], Vec<(u8, &[u8])>> {
    // RFC 9072 §2: the first *type* tells the extended form; the length before it should be 255
    // but any value other than zero counts.
    if let [length, EXTENDED, extended @ ..] = input
        && *length != 0
    {
        let parameter = (be_u8, length_data(be_u16));
        let (input, parameters) = length_data(be_u16).parse(extended)?;
        all_consuming(rest_is_empty).parse(input)?;
        return all_consuming(many0(parameter)).parse(parameters);
    }
    let (input, parameters) = length_data(be_u8).parse(input)?;
    all_consuming(rest_is_empty).parse(input)?;
    all_consuming(many0((be_u8, length_data(be_u8)))).parse(parameters)
}

fn rest_is_empty(input: &[u8]) -> IResult<&[u8], &[u8]> {
    verify(rest, |left: &[u8]| left.is_empty()).parse(input)
}

fn capability(input: &[u8]) -> IResult<&[u8], Capability> {
    let (input, code) = be_u8(input)?;
    let (input, value) = length_data(be_u8).parse(input)?;
    let (_, capability) = capability_value(code, value)?;
    Ok((input, capability))
}

/// A capability that decides how the session works must have its exact form; one that is merely
/// kept stays as raw octets when it has not.
fn capability_value(code: u8, value: &[u8]) -> IResult<&[u8], Capability> {
    let unknown = || Capability::Unknown {
        code,
        value: value.to_vec(),
    };
    match code {
        capability::MULTIPROTOCOL => {
            let family = map((be_u16, be_u8, be_u8), |(afi, _reserved, safi)| {
                Capability::Multiprotocol(AfiSafi { afi, safi })
            });
            all_consuming(family).parse(value)
        }
        capability::FOUR_OCTET_AS => {
            all_consuming(map(be_u32, |asn| Capability::FourOctetAs(Asn(asn)))).parse(value)
        }
        capability::GRACEFUL_RESTART => {
            all_consuming(map(graceful_restart, Capability::GracefulRestart)).parse(value)
        }
        capability::ROUTE_REFRESH if value.is_empty() => Ok((&[], Capability::RouteRefresh)),
        capability::ENHANCED_ROUTE_REFRESH if value.is_empty() => {
            Ok((&[], Capability::EnhancedRouteRefresh))
        }
        capability::EXTENDED_MESSAGE if value.is_empty() => Ok((&[], Capability::ExtendedMessage)),
        capability::EXTENDED_NEXT_HOP => {
            let entry = map((be_u16, be_u16, be_u16), |(afi, safi, next_hop)| {
                u8::try_from(safi)
                    .ok()
                    .map(|safi| (AfiSafi { afi, safi }, next_hop))
            });
            let entries: IResult<&[u8], Vec<_>> = all_consuming(many0(entry)).parse(value);
            let entries = entries
                .ok()
                .and_then(|(_, list)| list.into_iter().collect::<Option<Vec<_>>>());
            Ok((
                &[],
                entries.map_or_else(unknown, Capability::ExtendedNextHop),
            ))
        }
        capability::ADD_PATH => {
            let entry = map((be_u16, be_u8, be_u8), |(afi, safi, mode)| {
                (AfiSafi { afi, safi }, mode)
            });
            let entries: IResult<&[u8], Vec<_>> = all_consuming(many0(entry)).parse(value);
            Ok((
                &[],
                entries.map_or_else(|_| unknown(), |(_, list)| Capability::AddPath(list)),
            ))
        }
        _ => Ok((&[], unknown())),
    }
}

/// RFC 4724 §3: four flags and twelve bits of time, then four octets per family.
fn graceful_restart(input: &[u8]) -> IResult<&[u8], GracefulRestart> {
    let (input, head) = be_u16(input)?;
    let family = map((take(2_usize), be_u8, be_u8), |(afi, safi, flags)| {
        let afi: &[u8] = afi;
        let afi = u16::from_be_bytes([afi[0], afi[1]]);
        (AfiSafi { afi, safi }, flags & 0x80 != 0)
    });
    let (input, families) = many0(family).parse(input)?;
    let restart = GracefulRestart {
        restarting: head & 0x8000 != 0,
        notification: head & 0x4000 != 0,
        restart_time: Duration::from_secs(u64::from(head & 0x0fff)),
        families,
    };
    Ok((input, restart))
}

fn encode_capability(capability: &Capability, out: &mut BytesMut) {
    let mut value = BytesMut::new();
    let code = match capability {
        Capability::Multiprotocol(family) => {
            value.put_u16(family.afi);
            value.put_u8(0);
            value.put_u8(family.safi);
            capability::MULTIPROTOCOL
        }
        Capability::RouteRefresh => capability::ROUTE_REFRESH,
        Capability::EnhancedRouteRefresh => capability::ENHANCED_ROUTE_REFRESH,
        Capability::ExtendedMessage => capability::EXTENDED_MESSAGE,
        Capability::FourOctetAs(asn) => {
            value.put_u32(asn.0);
            capability::FOUR_OCTET_AS
        }
        Capability::GracefulRestart(restart) => {
            encode_graceful_restart(restart, &mut value);
            capability::GRACEFUL_RESTART
        }
        Capability::ExtendedNextHop(entries) => {
            for (family, next_hop) in entries {
                value.put_u16(family.afi);
                value.put_u16(family.safi.into());
                value.put_u16(*next_hop);
            }
            capability::EXTENDED_NEXT_HOP
        }
        Capability::AddPath(entries) => {
            for (family, mode) in entries {
                value.put_u16(family.afi);
                value.put_u8(family.safi);
                value.put_u8(*mode);
            }
            capability::ADD_PATH
        }
        Capability::Unknown { code, value: raw } => {
            value.put_slice(raw);
            *code
        }
    };
    value.truncate(u8::MAX.into());
    out.put_u8(code);
    out.put_u8(u8::try_from(value.len()).expect("the value was cut at 255 octets"));
    out.put_slice(&value);
}

fn encode_graceful_restart(restart: &GracefulRestart, out: &mut BytesMut) {
    // RFC 4724 §3: twelve bits of seconds.
    let seconds = restart.restart_time.as_secs().min(0x0fff);
    let mut head = u16::try_from(seconds).expect("twelve bits fit in sixteen");
    if restart.restarting {
        head |= 0x8000;
    }
    if restart.notification {
        head |= 0x4000;
    }
    out.put_u16(head);
    for (family, forwarding) in &restart.families {
        out.put_u16(family.afi);
        out.put_u8(family.safi);
        out.put_u8(if *forwarding { 0x80 } else { 0 });
    }
}

//! OPEN: its fixed part and its optional parameters, both ways.
//!
//! Owns the syntax of RFC 4271 §4.2 and RFC 9072. Does not own the capabilities in the parameters
//! ([`super::capability`]), nor whether the values suit the configuration.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use nom::combinator::{all_consuming, rest, verify};
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::{IResult, Parser};

use crate::types::{Asn, RouterId};
use crate::wire::capability::{self, Capability};
use crate::wire::iana::OpenError;
use crate::wire::message::Open;
use crate::wire::notification::Notification;
use crate::wire::{HEADER_LEN, MAX_MESSAGE_LEN};

const VERSION: u8 = 4;
/// Parameter type of capabilities (RFC 5492 §4).
const PARAMETER_CAPABILITIES: u8 = 2;
/// Marks the extended form: both as length and as first type (RFC 9072 §2).
const EXTENDED: u8 = 255;
/// What a message has room for behind the fixed part and the headers of the extended form.
const MAX_CAPABILITIES_LEN: usize = MAX_MESSAGE_LEN - HEADER_LEN - 9 - 7;

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
        let (_, mut listed) = all_consuming(many0(capability::decode))
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
        let end = listed.len();
        capability::encode(capability, &mut listed);
        // RFC 8654 §4: an OPEN is never long. What does not fit is not offered.
        if listed.len() > MAX_CAPABILITIES_LEN {
            listed.truncate(end);
        }
    }
    match u8::try_from(listed.len()) {
        Ok(0) => out.put_u8(0),
        Ok(length) if length <= EXTENDED - 3 => {
            out.put_slice(&[length + 2, PARAMETER_CAPABILITIES, length]);
        }
        _ => {
            // RFC 9072 §2: more than a length octet can say needs the extended form.
            let length = u16::try_from(listed.len()).expect("the list was kept short");
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

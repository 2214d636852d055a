//! The byte vectors of `tests/vectors/bgp`, for tests of the codec, of a live speaker and for fuzz
//! corpora.
//!
//! Owns their reading. The README beside the files says what the columns mean; a line that is not
//! of that form is a mistake of ours, and reading it panics.

use std::fmt;

use crate::types::Asn;

/// AS 65000: the first in the paths of the vectors.
pub const PEER_ASN: Asn = Asn(65000);

const ATTRIBUTES: &str = include_str!("../../../tests/vectors/bgp/attributes.txt");
const UPDATES: &str = include_str!("../../../tests/vectors/bgp/updates.txt");
const OPENS: &str = include_str!("../../../tests/vectors/bgp/opens.txt");
const MESSAGES: &str = include_str!("../../../tests/vectors/bgp/messages.txt");

/// What an UPDATE costs, by how much is lost (RFC 7606 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cost {
    /// The routes are taken as they are.
    Nothing,
    /// The routes are taken without an attribute.
    Attribute,
    /// The routes are treated as withdrawn.
    Routes,
    /// The session ends with a NOTIFICATION of this code and subcode.
    Session(u8, u8),
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("valid"),
            Self::Attribute => f.write_str("discard"),
            Self::Routes => f.write_str("withdraw"),
            Self::Session(code, subcode) => write!(f, "reset {code}/{subcode}"),
        }
    }
}

/// An UPDATE and what it must cost.
#[derive(Clone, Debug)]
pub struct UpdateVector {
    /// What is wrong with it, or not.
    pub name: &'static str,
    /// The clause, and the vulnerability or incident where there was one.
    pub source: &'static str,
    /// Whether the session uses four-octet AS numbers.
    pub four_octet_as: bool,
    /// What follows the header of the message.
    pub body: Vec<u8>,
    /// The cost on a session with another AS.
    pub external: Cost,
    /// The cost on a session inside an AS.
    pub internal: Cost,
    /// The attributes that the speaker does not read and tells on all the same, with the Partial bit
    /// (RFC 4271 §5), ascending: type and value. Others that it does not read stay with it.
    pub told_on: Vec<(u8, Vec<u8>)>,
}

/// An OPEN, or the octets of a connection, and the answer.
#[derive(Clone, Debug)]
pub struct MessageVector {
    /// What is wrong with it, or not.
    pub name: &'static str,
    /// The clause, and the vulnerability where there was one.
    pub source: &'static str,
    /// The whole message, header included.
    pub octets: Vec<u8>,
    /// Code and subcode of the NOTIFICATION that answers it; `None` when it is accepted.
    pub refused: Option<(u8, u8)>,
}

/// Every UPDATE: attributes under test in a good one, and whole bodies.
pub fn updates() -> Vec<UpdateVector> {
    let wrapped = rows(ATTRIBUTES).map(|columns| update(&columns, |tested| good_with(&tested)));
    let whole = rows(UPDATES).map(|columns| update(&columns, |body| body));
    wrapped.chain(whole).collect()
}

/// Every OPEN.
pub fn opens() -> Vec<MessageVector> {
    let open = |octets: Vec<u8>| framed(1, &octets);
    rows(OPENS).map(|columns| message(&columns, open)).collect()
}

/// Every sequence of octets from a header on.
pub fn messages() -> Vec<MessageVector> {
    rows(MESSAGES)
        .map(|columns| message(&columns, |octets| octets))
        .collect()
}

/// `body` as a message of type `kind`.
pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).expect("vectors fit into a message");
    let mut octets = vec![0xff; 16];
    octets.extend_from_slice(&length.to_be_bytes());
    octets.push(kind);
    octets.extend_from_slice(body);
    octets
}

fn update(columns: &[&'static str], body: impl FnOnce(Vec<u8>) -> Vec<u8>) -> UpdateVector {
    let (&[name, source, width, octets, external, internal], told_on) = (match columns {
        [six @ .., told_on] if columns.len() == 7 => (six, *told_on),
        six => (six, ""),
    }) else {
        panic!("neither six nor seven columns: {columns:?}");
    };
    UpdateVector {
        name,
        source,
        four_octet_as: width == "4",
        body: body(hex(octets)),
        external: cost(external),
        internal: cost(internal),
        told_on: match told_on {
            "" | "nothing" => Vec::new(),
            list => list.split(',').map(carried).collect(),
        },
    }
}

fn message(columns: &[&'static str], whole: impl FnOnce(Vec<u8>) -> Vec<u8>) -> MessageVector {
    let &[name, source, octets, answer] = columns else {
        panic!("not four columns: {columns:?}");
    };
    MessageVector {
        name,
        source,
        octets: whole(hex(octets)),
        refused: match answer {
            "accept" => None,
            _ => Some(codes(answer, "refuse ")),
        },
    }
}

/// The good UPDATE with `tested` at its end, in place of those mandatory attributes of which the
/// type comes first in it.
fn good_with(tested: &[u8]) -> Vec<u8> {
    const GOOD: [(u8, &str); 3] = [
        (1, "400101 00"),
        (2, "400206 0201 0000fde8"),
        (3, "400304 c0000201"),
    ];
    let mut attributes = Vec::new();
    for (code, good) in GOOD {
        if tested.get(1) != Some(&code) {
            attributes.extend(hex(good));
        }
    }
    // Last, because what is truncated would swallow what follows.
    attributes.extend_from_slice(tested);
    let length = u16::try_from(attributes.len()).expect("attributes fit into a message");
    let mut body = vec![0, 0];
    body.extend_from_slice(&length.to_be_bytes());
    body.extend(attributes);
    body.extend(hex("18 0a0000"));
    body
}

fn rows(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split('|').map(str::trim).collect())
}

fn cost(text: &str) -> Cost {
    match text {
        "valid" => Cost::Nothing,
        "discard" => Cost::Attribute,
        "withdraw" => Cost::Routes,
        _ => {
            let (code, subcode) = codes(text, "reset ");
            Cost::Session(code, subcode)
        }
    }
}

/// The type of an attribute, and its value.
fn carried(text: &str) -> (u8, Vec<u8>) {
    let text = text.trim();
    let (code, value) = text.split_once(' ').unwrap_or((text, ""));
    let code = code.parse();
    let code = code.unwrap_or_else(|_| panic!("'{text}' does not begin with an attribute type"));
    (code, hex(value))
}

fn codes(text: &str, before: &str) -> (u8, u8) {
    let codes = text.strip_prefix(before).and_then(|codes| {
        let (code, subcode) = codes.split_once('/')?;
        Some((code.parse().ok()?, subcode.parse().ok()?))
    });
    codes.unwrap_or_else(|| panic!("'{text}' is not '{before}code/subcode'"))
}

/// Hexadecimal octets, of which groups may be repeated: `ff (00)*16`.
fn hex(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if rest.starts_with('(') {
            let end = closing(rest);
            let group = hex(&rest[1..end]);
            let tail = rest[end + 1..].strip_prefix('*');
            let tail = tail.unwrap_or_else(|| panic!("no '*' behind a group in '{text}'"));
            let digits = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let times: usize = tail[..digits]
                .parse()
                .expect("a group is repeated a number of times");
            octets.extend(group.repeat(times));
            rest = tail[digits..].trim_start();
        } else {
            let pair = rest
                .get(..2)
                .and_then(|pair| u8::from_str_radix(pair, 16).ok());
            octets.push(pair.unwrap_or_else(|| panic!("'{rest}' does not begin with an octet")));
            rest = rest[2..].trim_start();
        }
    }
    octets
}

/// Where the parenthesis that `text` begins with is closed.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    let end = text.bytes().position(|octet| {
        depth += match octet {
            b'(' => 1,
            b')' => -1,
            _ => 0,
        };
        depth == 0
    });
    end.unwrap_or_else(|| panic!("a parenthesis is not closed in '{text}'"))
}

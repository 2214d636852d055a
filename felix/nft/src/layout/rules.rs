//! Short words for the expressions that the layout is made of, and for the bytes of keys.

use std::net::IpAddr;

use caracal_policy::plan::{Direction, IdentityId, InterfaceName, Protocol};

use crate::expr::{
    CmpOp, CtKey, Expr, LookupResult, MetaKey, PayloadBase, Register, Rule, Verdict,
    ct_state as state,
};
use crate::set::Key;

const R0: Register = Register::FIRST;

/// `NFPROTO_IPV4`.
const NFPROTO_IPV4: u8 = 2;
/// `NFPROTO_IPV6`.
const NFPROTO_IPV6: u8 = 10;
pub(super) const IPPROTO_TCP: u8 = 6;
pub(super) const IPPROTO_ICMPV6: u8 = 58;

/// The two halves of a dual-stack rule.
#[derive(Clone, Copy)]
pub(super) enum IpFamily {
    V4,
    V6,
}

/// Which address of a packet.
#[derive(Clone, Copy)]
pub(super) enum Field {
    Source,
    Destination,
}

impl Field {
    /// The peer's address, seen from the pod.
    pub(super) fn peer(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Self::Source,
            Direction::Egress => Self::Destination,
        }
    }
}

pub(super) fn rule(parts: impl IntoIterator<Item = Vec<Expr>>) -> Rule {
    Rule {
        expressions: parts.into_iter().flatten().collect(),
        comment: None,
    }
}

pub(super) fn verdict(verdict: Verdict) -> Vec<Expr> {
    vec![Expr::Verdict(verdict)]
}

pub(super) fn jump(chain: &str) -> Vec<Expr> {
    verdict(Verdict::Jump(chain.to_owned()))
}

pub(super) fn goto(chain: &str) -> Vec<Expr> {
    verdict(Verdict::Goto(chain.to_owned()))
}

pub(super) fn count(counter: &str) -> Vec<Expr> {
    vec![Expr::CounterRef {
        name: counter.to_owned(),
    }]
}

pub(super) fn count_and_drop(counter: &str) -> Vec<Expr> {
    [count(counter), verdict(Verdict::Drop)].concat()
}

fn equals(op: CmpOp, value: &[u8]) -> Expr {
    Expr::Cmp {
        from: R0,
        op,
        value: value.to_vec(),
    }
}

/// Any of the state bits is set.
pub(super) fn ct_state(bits: u32) -> Vec<Expr> {
    vec![
        Expr::Ct {
            key: CtKey::State,
            to: R0,
        },
        Expr::Bitwise {
            from: R0,
            to: R0,
            mask: bits.to_ne_bytes().to_vec(),
            xor: vec![0; 4],
        },
        equals(CmpOp::Neq, &[0; 4]),
    ]
}

/// The interface's name begins with `prefix`.
pub(super) fn interface(key: MetaKey, prefix: &str) -> Vec<Expr> {
    vec![
        Expr::Meta { key, to: R0 },
        equals(CmpOp::Eq, prefix.as_bytes()),
    ]
}

pub(super) fn family(family: IpFamily) -> Vec<Expr> {
    let number = match family {
        IpFamily::V4 => NFPROTO_IPV4,
        IpFamily::V6 => NFPROTO_IPV6,
    };
    vec![
        Expr::Meta {
            key: MetaKey::NfProto,
            to: R0,
        },
        equals(CmpOp::Eq, &[number]),
    ]
}

pub(super) fn l4proto(number: u8) -> Vec<Expr> {
    vec![
        Expr::Meta {
            key: MetaKey::L4Proto,
            to: R0,
        },
        equals(CmpOp::Eq, &[number]),
    ]
}

/// Loads an address; the rule must have matched its family before.
pub(super) fn address(family: IpFamily, field: Field, to: Register) -> Expr {
    // RFC 791 §3.1 and RFC 8200 §3: where the addresses lie in the header.
    let (offset, len) = match (family, field) {
        (IpFamily::V4, Field::Source) => (12, 4),
        (IpFamily::V4, Field::Destination) => (16, 4),
        (IpFamily::V6, Field::Source) => (8, 16),
        (IpFamily::V6, Field::Destination) => (24, 16),
    };
    Expr::Payload {
        base: PayloadBase::Network,
        offset,
        len,
        to,
    }
}

/// Loads the destination port, which lies at the same place in TCP, UDP and SCTP; in any other
/// protocol it would be garbage, so the rule must have matched the protocol before.
pub(super) fn destination_port(to: Register) -> Expr {
    Expr::Payload {
        base: PayloadBase::Transport,
        offset: 2,
        len: 2,
        to,
    }
}

pub(super) fn meta(key: MetaKey, to: Register) -> Expr {
    Expr::Meta { key, to }
}

pub(super) fn lookup(set: &str, result: LookupResult) -> Expr {
    Expr::Lookup {
        set: set.to_owned(),
        from: R0,
        result,
    }
}

pub(super) fn is_in(set: &str) -> Expr {
    lookup(set, LookupResult::Membership { inverted: false })
}

pub(super) fn is_not_in(set: &str) -> Expr {
    lookup(set, LookupResult::Membership { inverted: true })
}

/// A port from `first` to `last`.
pub(super) fn port_between(first: u16, last: u16) -> Vec<Expr> {
    let load = destination_port(R0);
    if first == last {
        return vec![load, equals(CmpOp::Eq, &first.to_be_bytes())];
    }
    vec![
        load,
        equals(CmpOp::Gte, &first.to_be_bytes()),
        equals(CmpOp::Lte, &last.to_be_bytes()),
    ]
}

/// A TCP packet that conntrack takes for the first of a connection although it is not.
pub(super) fn tcp_midstream() -> Vec<Expr> {
    const FIN_SYN_RST_ACK: u8 = 0x17;
    const SYN: u8 = 0x02;
    // RFC 9293 §3.1: the flags are in byte 13.
    let flags = Expr::Payload {
        base: PayloadBase::Transport,
        offset: 13,
        len: 1,
        to: R0,
    };
    let mask = Expr::Bitwise {
        from: R0,
        to: R0,
        mask: vec![FIN_SYN_RST_ACK],
        xor: vec![0],
    };
    [
        // Not "untracked": others exempt connections from tracking, as NodeLocal DNSCache does.
        ct_state(state::NEW),
        l4proto(IPPROTO_TCP),
        vec![flags, mask, equals(CmpOp::Neq, &[SYN])],
    ]
    .concat()
}

/// The identity as it stands in the mark: bits 16 to 31.
pub(super) fn identity_mark(identity: IdentityId) -> [u8; 4] {
    (u32::from(identity.0) << 16).to_ne_bytes()
}

/// The identity in a mark that [`identity_mark`] made.
pub(super) fn identity_of(mark: &[u8]) -> Option<IdentityId> {
    let mark = u32::from_ne_bytes(mark.try_into().ok()?);
    u16::try_from(mark >> 16).ok().map(IdentityId)
}

/// The address of a key that [`address_bytes`] made.
pub(super) fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

pub(super) fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A name in an `ifname` field: 16 bytes, padded with NUL.
pub(super) fn interface_bytes(name: &InterfaceName) -> Vec<u8> {
    let mut bytes = name.as_str().as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// Key of a (protocol, port) concatenation.
pub(super) fn port_key(protocol: Protocol, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol.number(), 0, 0, 0, high, low, 0, 0]
}

pub(super) fn value(bytes: impl Into<Vec<u8>>) -> Key {
    Key::Value(bytes.into())
}

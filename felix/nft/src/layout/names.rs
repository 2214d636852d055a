//! Names of everything in the table. Chosen so that a listing reads well, no name is a keyword of
//! `nft`, and a class's number can be found again from its counter's name.

use caracal_policy::plan::{ChainRule, ClassId, Direction, PeerMatch};

pub(super) const FORWARD: &str = "forward";
pub(super) const INPUT: &str = "input";
pub(super) const POD_INPUT: &str = "pod_input";
pub(super) const POD_PACKET: &str = "pod_packet";
pub(super) const JUDGE: &str = "judge";
pub(super) const POD_SOURCE: &str = "pod_source";
pub(super) const FROM_POD: &str = "from_pod";
pub(super) const TO_POD: &str = "to_pod";
pub(super) const ISOLATED: &str = "isolated";

pub(super) const KEPT_MARK: &str = "kept_mark";
pub(super) const PORTED: &str = "ported";
pub(super) const DISCOVERY: &str = "discovery";
pub(super) const SOURCE4: &str = "source4";
pub(super) const SOURCE6: &str = "source6";
pub(super) const ID4: &str = "id4";
pub(super) const ID6: &str = "id6";
pub(super) const POD_EGRESS: &str = "pod_egress";
pub(super) const POD_INGRESS: &str = "pod_ingress";

pub(super) const DROP_INVALID: &str = "drop_invalid";
pub(super) const DROP_SPOOFED: &str = "drop_spoofed";
pub(super) const DROP_MIDSTREAM: &str = "drop_midstream";
pub(super) const DROP_UNKNOWN: &str = "drop_unknown";
pub(super) const DROP_ISOLATED: &str = "drop_isolated";

/// Chain that puts the bits `kept` of the mark back.
pub(super) fn mark_chain(kept: u32) -> String {
    format!("mark_{kept:04x}")
}

/// Chain of a class, and the stem of the names of its sets.
pub(super) fn class(id: ClassId, direction: Direction) -> String {
    match direction {
        Direction::Ingress => format!("in_{id}"),
        Direction::Egress => format!("out_{id}"),
    }
}

pub(super) fn cells(class: &str) -> String {
    format!("{class}_cells")
}

pub(super) fn any_port(class: &str) -> String {
    format!("{class}_any_port")
}

pub(super) fn any_peer(class: &str) -> String {
    format!("{class}_any_peer")
}

pub(super) fn drop_counter(class: &str) -> String {
    format!("drop_{class}")
}

/// The class whose drop counter has this name.
pub(super) fn class_of_counter(counter: &str) -> Option<ClassId> {
    let class = counter.strip_prefix("drop_")?;
    let digits = class
        .strip_prefix("in_")
        .or_else(|| class.strip_prefix("out_"))?;
    u32::from_str_radix(digits, 16).ok().map(ClassId)
}

/// Stem of the names of a chain rule's sets. Made of what tells the rules of a class apart (kind of
/// peer and ports), not of its place, so that a set keeps its name while its members change.
pub(super) fn rule(class: &str, rule: &ChainRule) -> String {
    let kind = match rule.peer {
        PeerMatch::Any => "any",
        PeerMatch::Identities(_) => "id",
        PeerMatch::Nets4(_) => "net4",
        PeerMatch::Nets6(_) => "net6",
    };
    if rule.ports.is_empty() {
        return format!("{class}_{kind}");
    }
    let ports = rule.ports.iter().flat_map(|port| {
        let [first_high, first_low] = port.first.to_be_bytes();
        let [last_high, last_low] = port.last.to_be_bytes();
        [
            port.protocol.number(),
            first_high,
            first_low,
            last_high,
            last_low,
        ]
    });
    format!("{class}_{kind}_{:016x}", fnv1a(ports))
}

/// FNV-1a, 64 bits: short, and the same in every build, which the standard hasher does not promise.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

//! Hand-written schemas of the string notations.
//!
//! Each carries its rule in CEL, so that the API server refuses what the Rust type would not read:
//! an object that the server stores and a client cannot decode would end every watch on its kind.
//! `maxLength` is on every string because the cost of a rule is estimated from it.

use schemars::{Schema, SchemaGenerator, json_schema};

/// `10.64.0.0/19`, host bits zero.
pub(crate) fn ipv4_cidr(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 18,
        "x-kubernetes-validations": [
            {"rule": "isCIDR(self) && cidr(self).ip().family() == 4 && cidr(self).masked() == cidr(self)",
             "message": "must be an IPv4 prefix with zero host bits, such as 10.64.0.0/19"},
        ],
    })
}

/// `fd00:64::/115`, host bits zero.
pub(crate) fn ipv6_cidr(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 43,
        "x-kubernetes-validations": [
            {"rule": "isCIDR(self) && cidr(self).ip().family() == 6 && cidr(self).masked() == cidr(self)",
             "message": "must be an IPv6 prefix with zero host bits, such as fd00:64::/115"},
        ],
    })
}

/// A prefix of either family, host bits zero.
pub(crate) fn cidr(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 43,
        "x-kubernetes-validations": [
            {"rule": "isCIDR(self) && cidr(self).masked() == cidr(self)",
             "message": "must be a prefix with zero host bits, such as 10.0.0.0/24"},
        ],
    })
}

/// An address of either family.
pub(crate) fn ip(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 45,
        "x-kubernetes-validations": [
            {"rule": "isIP(self)", "message": "must be an IP address"},
        ],
    })
}

/// A router or cluster identifier: four octets, not all zero (RFC 6286 §2.1).
pub(crate) fn router_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 15,
        "x-kubernetes-validations": [
            {"rule": "isIP(self) && ip(self).family() == 4 && self != '0.0.0.0'",
             "message": "must be four octets as in an IPv4 address, not 0.0.0.0"},
        ],
    })
}

pub(crate) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 16,
        "x-kubernetes-validations": [
            {"rule": "self.matches('^([0-9]{1,9}(ms|s|m|h))+$')",
             "message": "must be numbers with units ms, s, m or h, such as 240s or 1m30s"},
        ],
    })
}

/// Seconds that fit the OPEN message: 0 (off) or 3 to 65535.
pub(crate) fn hold_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 16,
        "x-kubernetes-validations": [
            {"rule": "self.matches('^([0-9]{1,9}(s|m|h))+$')",
             "message": "must be whole seconds, such as 240s"},
            // RFC 4271 §4.2: the hold time is zero or at least three seconds.
            {"rule": "!self.matches('^([0-9]{1,9}(s|m|h))+$') || duration(self) == duration('0s') || (duration(self) >= duration('3s') && duration(self) <= duration('65535s'))",
             "message": "must be 0s, or from 3s to 65535s"},
        ],
    })
}

/// A duration from `least` to `most`, of whole seconds.
fn seconds(least: &str, most: &str, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 16,
        "x-kubernetes-validations": [
            {"rule": format!("self.matches('^([0-9]{{1,9}}(s|m|h))+$') && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"),
             "message": message},
        ],
    })
}

/// A third of the longest hold time.
pub(crate) fn keepalive_time(_: &mut SchemaGenerator) -> Schema {
    seconds("1s", "21845s", "must be whole seconds, from 1s to 21845s")
}

/// Up to a day.
pub(crate) fn whole_seconds(_: &mut SchemaGenerator) -> Schema {
    seconds("0s", "86400s", "must be whole seconds, at most 86400s")
}

/// Seconds that fit the 24 bits of the long-lived graceful-restart capability (RFC 9494 §3.2).
pub(crate) fn long_lived_time(_: &mut SchemaGenerator) -> Schema {
    seconds(
        "0s",
        "16777215s",
        "must be whole seconds, at most 16777215s",
    )
}

/// Files of MRT are not shorter than a minute nor longer than a day.
pub(crate) fn dump_interval(_: &mut SchemaGenerator) -> Schema {
    seconds("60s", "86400s", "must be whole seconds, from 60s to 86400s")
}

/// Counts for a monitoring station: not more often than each second, nor less than once a day.
pub(crate) fn statistics_interval(_: &mut SchemaGenerator) -> Schema {
    seconds("1s", "86400s", "must be whole seconds, from 1s to 86400s")
}

/// Between 10 ms, below which no scheduler keeps time, and a minute.
pub(crate) fn bfd_interval(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 16,
        "x-kubernetes-validations": [
            {"rule": "self.matches('^([0-9]{1,9}(ms|s|m|h))+$') && duration(self) >= duration('10ms') && duration(self) <= duration('60s')",
             "message": "must be from 10ms to 60s"},
        ],
    })
}

/// Seconds that fit the 12 bits of the graceful-restart capability (RFC 4724 §3).
pub(crate) fn restart_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 16,
        "x-kubernetes-validations": [
            {"rule": "self.matches('^([0-9]{1,9}(s|m|h))+$') && duration(self) <= duration('4095s')",
             "message": "must be whole seconds, at most 4095s"},
        ],
    })
}

pub(crate) fn peer_address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 53,
        "x-kubernetes-validations": [
            {"rule": "isIP(self) || (self.matches('^[0-9.]+:[0-9]{1,5}$') && isIP(self.split(':')[0]) && int(self.split(':')[1]) > 0 && int(self.split(':')[1]) < 65536) || (self.matches('^\\\\[[0-9a-fA-F:.]+\\\\]:[0-9]{1,5}$') && isIP(self.split(']')[0].substring(1)) && int(self.split(']:')[1]) > 0 && int(self.split(']:')[1]) < 65536)",
             "message": "must be an IP address, with a port as 10.0.1.1:1790 or [fd00::1]:1790"},
        ],
    })
}

pub(crate) fn address_range(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 91,
        "x-kubernetes-validations": [
            {"rule": "isIP(self) || isCIDR(self) || (self.split('-').size() == 2 && self.split('-').all(end, isIP(end)) && ip(self.split('-')[0]).family() == ip(self.split('-')[1]).family())",
             "message": "must be first-last of one family, a CIDR or an address"},
        ],
    })
}

/// Decimal numbers that fit two octets, and those of up to ten digits: whether the latter fit four
/// octets is told by a condition, since only the parts of a split could be compared, and a rule in
/// nested lists has to be cheap.
const TWO_OCTETS: &str =
    "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5]?[0-9]{1,4})";
const FOUR_OCTETS: &str = "[0-9]{1,10}";
/// Names of communities that IANA has registered.
const WELL_KNOWN: &str =
    "graceful-shutdown|llgr-stale|blackhole|no-(llgr|export|export-subconfed|advertise|peer)";

/// An API server prices a match by the product of both lengths, and multiplies it by the sizes of
/// the lists around it.
fn matching(pattern: &str, longest: usize, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": longest,
        "x-kubernetes-validations": [
            {"rule": format!("self.matches('^({pattern})$')"), "message": message},
        ],
    })
}

fn standard() -> String {
    format!("{WELL_KNOWN}|{TWO_OCTETS}:{TWO_OCTETS}")
}

fn large() -> String {
    format!("{FOUR_OCTETS}:{FOUR_OCTETS}:{FOUR_OCTETS}")
}

/// The administrator is an AS number or an IPv4 address.
const EXTENDED: &str = "(rt|soo):[0-9.]{1,15}:[0-9]{1,10}|0x[0-9a-fA-F]{16}";

/// `aa:nn` (RFC 1997) or `aa:nn:mm` (RFC 8092).
pub(crate) fn community(_: &mut SchemaGenerator) -> Schema {
    matching(
        &format!("{}|{}", standard(), large()),
        32,
        "must be a community aa:nn or a large community aa:nn:mm",
    )
}

/// A community of any kind.
pub(crate) fn any_community(_: &mut SchemaGenerator) -> Schema {
    matching(
        &format!("{}|{}|{EXTENDED}", standard(), large()),
        32,
        "must be a community aa:nn or its name, a large community aa:nn:mm, or an extended community rt:aa:nn, soo:aa:nn or 0x and 16 digits",
    )
}

/// `aa:nn` or a name (RFC 1997).
pub(crate) fn standard_community(_: &mut SchemaGenerator) -> Schema {
    matching(&standard(), 19, "must be a community aa:nn or its name")
}

/// `aa:nn:mm` (RFC 8092).
pub(crate) fn large_community(_: &mut SchemaGenerator) -> Schema {
    matching(&large(), 32, "must be a large community aa:nn:mm")
}

/// `rt:aa:nn`, `soo:aa:nn` or eight octets (RFC 4360).
pub(crate) fn extended_community(_: &mut SchemaGenerator) -> Schema {
    matching(
        EXTENDED,
        30,
        "must be an extended community rt:aa:nn, soo:aa:nn or 0x and 16 digits",
    )
}

/// Communities of one kind, with `*` for any part.
pub(crate) fn community_pattern(_: &mut SchemaGenerator) -> Schema {
    let two = format!("({TWO_OCTETS}|[*])");
    let four = format!("({FOUR_OCTETS}|[*])");
    matching(
        &format!(
            "{WELL_KNOWN}|{two}:{two}|{four}:{four}:{four}|(rt|soo):([0-9.]{{1,15}}|[*]):{four}|0x[0-9a-fA-F]{{16}}"
        ),
        32,
        "must be a community aa:nn or its name, a large community aa:nn:mm, or an extended community rt:aa:nn, soo:aa:nn or 0x and 16 digits; a part may be *",
    )
}

/// The name of an interface in Linux.
pub(crate) fn interface(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 15,
        "x-kubernetes-validations": [
            {"rule": "self.matches('^[^ /:*]+$')", "message": "must be the name of an interface, such as eth0"},
        ],
    })
}

/// A path from the root, without `..`.
pub(crate) fn absolute_path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 256,
        "x-kubernetes-validations": [
            {"rule": "self.startsWith('/') && !self.contains('..')", "message": "must be a path from the root, without .."},
        ],
    })
}

/// A router identifier, or `hash`.
pub(crate) fn router_id_source(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 15,
        "x-kubernetes-validations": [
            {"rule": "self == 'hash' || (isIP(self) && ip(self).family() == 4 && self != '0.0.0.0')",
             "message": "must be four octets as in an IPv4 address, not 0.0.0.0, or hash"},
        ],
    })
}

/// A list of `LEAST` to `MOST` entries.
fn list<const LEAST: usize, const MOST: usize>(entry: Schema) -> Schema {
    let mut list = json_schema!({"type": "array", "maxItems": MOST, "items": entry});
    if LEAST > 0 {
        list.insert("minItems".to_owned(), LEAST.into());
    }
    list
}

macro_rules! lists {
    ($($name:ident of $entry:ident;)*) => {
        $(
            #[doc = concat!("A list of `LEAST` to `MOST` entries, each as in [`", stringify!($entry), "`].")]
            pub(crate) fn $name<const LEAST: usize, const MOST: usize>(
                generator: &mut SchemaGenerator,
            ) -> Schema {
                list::<LEAST, MOST>($entry(generator))
            }
        )*
    };
}

lists! {
    ips of ip;
    cidrs of cidr;
    asns of asn;
    standard_communities of standard_community;
    extended_communities of extended_community;
    large_communities of large_community;
    community_patterns of community_pattern;
}

/// Any number of four octets.
pub(crate) fn number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 0, "maximum": 4_294_967_295_u64})
}

/// A selector; whether it parses is told by a condition, since CEL has no grammar for it.
pub(crate) fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 1024})
}

/// A four-octet AS number but the reserved 0 (RFC 7607) and 4294967295 (RFC 7300).
pub(crate) fn asn(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 1, "maximum": 4_294_967_294_u64})
}

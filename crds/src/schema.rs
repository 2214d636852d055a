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

/// `aa:nn` (RFC 1997) or `aa:nn:mm` (RFC 8092).
pub(crate) fn community(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "x-kubernetes-validations": [
            {"rule": "self.matches('^[0-9]{1,5}:[0-9]{1,5}$') || self.matches('^[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$')",
             "message": "must be a community aa:nn or a large community aa:nn:mm"},
        ],
    })
}

/// A selector; whether it parses is told by a condition, since CEL has no grammar for it.
pub(crate) fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 1024})
}

/// A four-octet AS number but the reserved 0 (RFC 7607) and 4294967295 (RFC 7300).
pub(crate) fn asn(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "format": "int64", "minimum": 1, "maximum": 4_294_967_294_u64})
}

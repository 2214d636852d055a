//! The one error type of this crate: text that does not parse and routes that cannot be told.
//!
//! What a peer sends is never an error here: decoders answer with the outcome that the protocol
//! prescribes.

use std::net::IpAddr;

/// What could not be done, with what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A prefix length beyond the width of the address family.
    #[error("prefix length {len} is too long for {address}")]
    PrefixLength {
        /// The address before the slash.
        address: IpAddr,
        /// The length after it.
        len: u8,
    },
    /// Not `address/length`.
    #[error("'{text}' is not a prefix (expected address/length)")]
    ParsePrefix {
        /// What was read.
        text: String,
    },
    /// Not a dotted quad.
    #[error("'{text}' is not a router ID (expected a dotted quad)")]
    ParseRouterId {
        /// What was read.
        text: String,
    },
    /// Not a family that this speaker routes.
    #[error("'{text}' is not an address family (expected ipv4-unicast or ipv6-unicast)")]
    ParseFamily {
        /// What was read.
        text: String,
    },
    /// Neither a number nor one of the words for whichever suits.
    #[error("'{text}' is not a peer AS (expected a number, internal or external)")]
    ParsePeerAs {
        /// What was read.
        text: String,
    },
    /// Not a role of RFC 9234.
    #[error(
        "'{text}' is not a BGP role (expected provider, rs-server, rs-client, customer or peer)"
    )]
    ParseBgpRole {
        /// What was read.
        text: String,
    },
    /// Not `high:low`, nor the name of a well-known community.
    #[error("'{text}' is not a community (expected number:number or a well-known name)")]
    ParseCommunity {
        /// What was read.
        text: String,
    },
    /// Not `global:local:local`.
    #[error("'{text}' is not a large community (expected number:number:number)")]
    ParseLargeCommunity {
        /// What was read.
        text: String,
    },
    /// Not a community of any kind, nor a pattern for one.
    #[error(
        "'{text}' is not a community (expected 65000:1, 65000:1:2, rt:65000:1, soo:65000:1 or 0x and 16 digits)"
    )]
    ParseAnyCommunity {
        /// What was read.
        text: String,
    },
    /// Not a regular expression over AS paths.
    #[error("'{text}' is not an AS path expression: {why}")]
    AsPathPattern {
        /// What was read.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Attributes so long that no prefix fits beside them into one UPDATE.
    #[error("path attributes of {octets} octets leave no room for a prefix in an UPDATE")]
    AttributesTooLong {
        /// What the attributes take.
        octets: usize,
    },
}

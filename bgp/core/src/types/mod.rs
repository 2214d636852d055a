//! The nouns that every part of the speaker shares: AS numbers, router IDs, address families,
//! prefixes, next hops, and what a peer is to us.
//!
//! Owns their invariants (a prefix never carries host bits) and their text forms. Does not own
//! any wire encoding, which is [`crate::wire`]'s.

mod asn;
mod bgp_role;
mod family;
mod next_hop;
mod nlri;
mod peer_as;
mod peer_kind;
mod prefix;
mod router_id;

pub use asn::Asn;
pub use bgp_role::BgpRole;
pub use family::{Family, FamilySet};
pub use next_hop::NextHop;
pub use nlri::{Nlri, PathId};
pub use peer_as::PeerAs;
pub use peer_kind::PeerKind;
pub use prefix::Prefix;
pub use router_id::RouterId;

//! Which keys a listener needs, so that each SYN is checked with the key of its peer.
//!
//! Owns the way from peers to keys: as few as will do, because a listening socket holds some 960
//! of them and no more (`net.core.optmem_max`). Does not own sockets.
//!
//! The kernel picks the key of the longest prefix that holds the remote address, and without one
//! takes unsigned segments only. So a key must never cover a peer that has none, and peers that
//! share a secret share a key where nobody else is between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use caracal_bgp_core::types::{Family, Prefix};

use super::auth::Auth;
use crate::error::Error;

/// Keys are merged up to these lengths. Two peers far apart must not make the rest of the world
/// sign: who is refused by a key gets no answer at all, where a stranger would be refused aloud.
const SHORTEST_V4: u8 = 8;
const SHORTEST_V6: u8 = 16;

/// Whose connections a key is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// Peers by address: one, or a listen range.
    Prefix(Prefix),
    /// The peer on a link. Until it has shown its link-local address, it has no key of its own; it
    /// then dials again, and connections that are not signed are refused when they are adopted
    /// ([`super::Transport::adopt`]).
    Interface {
        /// The peer's link-local address, when it is known.
        address: Option<Ipv6Addr>,
    },
}

/// The keys that listeners are to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keychain {
    /// Never [`Auth::None`].
    keys: BTreeMap<Prefix, Auth>,
}

impl Keychain {
    /// The keys for `peers`, of whom those that do not sign must be named too, with [`Auth::None`].
    ///
    /// Beside it, [`Error::KeyConflict`] for each peer whose address another has with another
    /// secret; the first one counts.
    pub fn new(peers: impl IntoIterator<Item = (Remote, Auth)>) -> (Self, Vec<Error>) {
        let mut conflicts = Vec::new();
        let mut entries = BTreeMap::new();
        let mut unnumbered = Vec::new();
        let mut add = |prefix: Prefix, auth: Auth| {
            let known = entries.entry(prefix).or_insert_with(|| auth.clone());
            if *known != auth {
                conflicts.push(Error::KeyConflict { remote: prefix });
            }
        };
        for (remote, auth) in peers {
            match remote {
                Remote::Prefix(prefix) => add(prefix, auth),
                Remote::Interface { address } => unnumbered.push((address, auth)),
            }
        }
        match unnumbered.split_first() {
            // One secret for all links needs no address.
            Some(((_, auth), others)) if others.iter().all(|(_, other)| other == auth) => {
                add(link_local(), auth.clone());
            }
            _ => {
                for (address, auth) in unnumbered {
                    if let Some(address) = address {
                        add(Prefix::host(address.into()), auth);
                    }
                }
            }
        }
        let entries: Vec<(Prefix, &Auth)> = entries.iter().map(|(p, auth)| (*p, auth)).collect();
        let mut keys = BTreeMap::new();
        for family in Family::ALL {
            let ours = entries
                .iter()
                .filter(|(prefix, _)| prefix.family() == family);
            let ours: Vec<(Prefix, &Auth)> = ours.copied().collect();
            Cover {
                keys: &mut keys,
                given: None,
            }
            .solve(everything(family), None, &ours);
        }
        (Self { keys }, conflicts)
    }

    /// Prefixes and what to sign with; never [`Auth::None`].
    pub fn keys(&self) -> impl Iterator<Item = (Prefix, &Auth)> {
        self.keys.iter().map(|(prefix, auth)| (*prefix, auth))
    }

    /// The key that the kernel takes for `address`.
    pub fn key_of(&self, address: IpAddr) -> Option<&Auth> {
        let holds = |(prefix, _): &(&Prefix, &Auth)| prefix.contains_addr(address);
        let matching = self.keys.iter().filter(holds);
        matching
            .max_by_key(|(prefix, _)| prefix.len())
            .map(|(_, auth)| auth)
    }
}

/// fe80::/10.
fn link_local() -> Prefix {
    Prefix::v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).expect("10 bits are few")
}

fn everything(family: Family) -> Prefix {
    match family {
        Family::Ipv4Unicast => Prefix::v4(Ipv4Addr::UNSPECIFIED, 0),
        Family::Ipv6Unicast => Prefix::v6(Ipv6Addr::UNSPECIFIED, 0),
    }
    .expect("no bits are few")
}

/// The walk down the tree of prefixes.
struct Cover<'a, 'b> {
    keys: &'b mut BTreeMap<Prefix, Auth>,
    /// The key that holds where no longer one is set.
    given: Option<&'a Auth>,
}

impl<'a> Cover<'a, '_> {
    /// Sets keys so that each address within `area` gets what the longest of `entries` that holds
    /// it says, or else `base`; `None` does not matter. `entries` lie within `area`, sorted.
    fn solve(&mut self, area: Prefix, base: Option<&'a Auth>, entries: &[(Prefix, &'a Auth)]) {
        let (base, entries) = match entries.split_first() {
            Some(((prefix, auth), rest)) if *prefix == area => (Some(*auth), rest),
            _ => (base, entries),
        };
        let Some(((_, first), others)) = entries.split_first() else {
            if let Some(base) = base {
                self.set(area, base);
            }
            return;
        };
        let uniform = others.iter().all(|(_, auth)| auth == first);
        match base {
            Some(base) if uniform && base == *first => self.set(area, base),
            Some(Auth::None) => self.halve(area, Some(&Auth::None), entries),
            Some(base) if entries.iter().all(|(_, auth)| **auth != Auth::None) => {
                self.set(area, base);
                let outer = self.given.replace(base);
                self.halve(area, Some(base), entries);
                self.given = outer;
            }
            // Somebody within does not sign, so no key may hold here as a whole.
            Some(base) => self.halve(area, Some(base), entries),
            None => {
                let tight = common(entries);
                let shortest = match area.family() {
                    Family::Ipv4Unicast => SHORTEST_V4,
                    Family::Ipv6Unicast => SHORTEST_V6,
                };
                // Entries that are themselves shorter are the operator's choice.
                if uniform && (tight.len() >= shortest || entries[0].0 == tight) {
                    self.set(tight, first);
                } else if tight != area {
                    self.solve(tight, None, entries);
                } else {
                    self.halve(area, None, entries);
                }
            }
        }
    }

    fn halve(&mut self, area: Prefix, base: Option<&'a Auth>, entries: &[(Prefix, &'a Auth)]) {
        // Entries within `area` that are not `area` lie in one half or the other, lower ones first.
        let Some([low, high]) = halves(area) else {
            return;
        };
        let split = entries.partition_point(|(prefix, _)| low.contains(prefix));
        let (lower, higher) = entries.split_at(split);
        for (half, entries) in [(low, lower), (high, higher)] {
            if base.is_some() || !entries.is_empty() {
                self.solve(half, base, entries);
            }
        }
    }

    fn set(&mut self, prefix: Prefix, auth: &'a Auth) {
        if *auth != Auth::None && self.given != Some(auth) {
            self.keys.insert(prefix, auth.clone());
        }
    }
}

/// The longest prefix that holds all of `entries`, which are sorted and of one family.
fn common(entries: &[(Prefix, &Auth)]) -> Prefix {
    let (first, last) = (entries[0].0, entries[entries.len() - 1].0);
    let shared = (bits(first) ^ bits(last)).leading_zeros();
    // The first of equal addresses is the shortest, but a later one may be shorter than it.
    let shortest = entries.iter().map(|(prefix, _)| prefix.len()).min();
    let len = shared.min(shortest.unwrap_or_default().into());
    prefix(first, len)
}

fn halves(area: Prefix) -> Option<[Prefix; 2]> {
    let len = u32::from(area.len()) + 1;
    if area.is_host() {
        return None;
    }
    let low = prefix(area, len);
    let bit = 1_u128 << (128 - len);
    let high = match area.addr() {
        IpAddr::V4(v4) => {
            let bit = u32::try_from(bit >> 96).expect("the upper 32 bits");
            IpAddr::from(Ipv4Addr::from_bits(v4.to_bits() | bit))
        }
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() | bit).into(),
    };
    Some([low, prefix(Prefix::host(high), len)])
}

/// The address, at the top of 128 bits.
fn bits(prefix: Prefix) -> u128 {
    match prefix.addr() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The first `len` bits of `of`; as many as there are when `len` is more.
fn prefix(of: Prefix, len: u32) -> Prefix {
    let width = of.family().address_bits();
    let len = u8::try_from(len).unwrap_or(width).min(width);
    Prefix::new(of.addr(), len).expect("no longer than the family is wide")
}

#[cfg(test)]
mod tests;

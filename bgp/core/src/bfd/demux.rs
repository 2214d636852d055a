//! Which session a packet belongs to, and whether it came the way it must.
//!
//! Owns the choice of RFC 5880 §6.3 and the checks of the path: RFC 5881 for one hop, RFC 5883 for
//! more. Does not look into authentication or state.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

use super::packet::{Discard, Packet};

/// RFC 5881 §5: what nobody beyond the link can send.
const MAX_TTL: u8 = 255;

/// How far the peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hops {
    /// On the same link (RFC 5881).
    Single,
    /// Anywhere (RFC 5883).
    Multi {
        /// The least TTL or hop limit with which packets may arrive: 255 less the routers between,
        /// or 1 for no limit.
        min_ttl: u8,
    },
}

/// Between which ends a session runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Our address; `None` for any.
    pub local: Option<IpAddr>,
    /// The peer's address.
    pub peer: IpAddr,
    /// Index of the interface that packets must come by; `None` for any.
    pub interface: Option<u32>,
    /// How far the peer may be.
    pub hops: Hops,
}

/// How a packet arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// To which of our addresses.
    pub local: IpAddr,
    /// From whom.
    pub peer: IpAddr,
    /// Index of the interface.
    pub interface: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether on the port of RFC 5883 instead of that of RFC 5881.
    pub multihop: bool,
}

impl Path {
    fn is_multihop(&self) -> bool {
        matches!(self.hops, Hops::Multi { .. })
    }

    fn fits(&self, arrival: &Arrival) -> bool {
        self.peer == arrival.peer
            && self.is_multihop() == arrival.multihop
            && self.local.is_none_or(|local| local == arrival.local)
            && self
                .interface
                .is_none_or(|interface| interface == arrival.interface)
    }

    /// Who says more precisely what it wants is preferred.
    fn precision(&self) -> u8 {
        u8::from(self.local.is_some()) + 2 * u8::from(self.interface.is_some())
    }

    /// RFC 5881 §5; RFC 5883 §5 leaves the limit to the operator.
    fn check_ttl(&self, received: u8) -> Result<(), Discard> {
        let least = match self.hops {
            Hops::Single => MAX_TTL,
            Hops::Multi { min_ttl } => min_ttl,
        };
        if received < least {
            return Err(Discard::HopLimit { received, least });
        }
        Ok(())
    }
}

/// Every session of a system, by the names in packets and by the ends of its path.
#[derive(Clone, Debug)]
pub struct Demux<K> {
    by_discriminator: BTreeMap<NonZeroU32, (Path, K)>,
    by_peer: BTreeMap<IpAddr, Vec<NonZeroU32>>,
}

impl<K: Copy> Default for Demux<K> {
    fn default() -> Self {
        Self {
            by_discriminator: BTreeMap::new(),
            by_peer: BTreeMap::new(),
        }
    }
}

impl<K: Copy> Demux<K> {
    /// Whether a session has this discriminator.
    pub fn contains(&self, discriminator: NonZeroU32) -> bool {
        self.by_discriminator.contains_key(&discriminator)
    }

    /// Makes a session known, in place of one with the same discriminator.
    pub fn insert(&mut self, discriminator: NonZeroU32, path: Path, session: K) {
        self.remove(discriminator);
        self.by_discriminator.insert(discriminator, (path, session));
        self.by_peer
            .entry(path.peer)
            .or_default()
            .push(discriminator);
    }

    /// Forgets a session, where there is one.
    pub fn remove(&mut self, discriminator: NonZeroU32) {
        let Some((path, _)) = self.by_discriminator.remove(&discriminator) else {
            return;
        };
        if let Some(peers) = self.by_peer.get_mut(&path.peer) {
            peers.retain(|other| *other != discriminator);
            if peers.is_empty() {
                self.by_peer.remove(&path.peer);
            }
        }
    }

    /// The session of a packet.
    ///
    /// RFC 5881 §6 would let a peer change its address within a session. Here sessions are named by
    /// their ends, so a packet from elsewhere is not the peer's, even if it knows the discriminator.
    ///
    /// # Errors
    /// There is none, or the packet came by a way that it must not come.
    pub fn select(&self, arrival: &Arrival, packet: &Packet) -> Result<K, Discard> {
        let (path, session) = match packet.your_discriminator {
            Some(discriminator) => {
                let found = self.by_discriminator.get(&discriminator);
                let found = found.ok_or(Discard::NoSuchDiscriminator(discriminator))?;
                if !found.0.fits(arrival) {
                    return Err(Discard::OtherPath);
                }
                found
            }
            None => {
                let peers = self.by_peer.get(&arrival.peer).ok_or(Discard::NoSession)?;
                peers
                    .iter()
                    .filter_map(|discriminator| self.by_discriminator.get(discriminator))
                    .filter(|(path, _)| path.fits(arrival))
                    .max_by_key(|(path, _)| path.precision())
                    .ok_or(Discard::OtherPath)?
            }
        };
        path.check_ttl(arrival.ttl)?;
        Ok(*session)
    }
}

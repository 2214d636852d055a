//! GTSM from the first segment of a connection that a peer opens (RFC 5082 §3).
//!
//! Owns which least TTL holds for which source, and the filter of listening sockets that sees to
//! it: a program of classic BPF. Does not own the least TTL of a connection that is known to be a
//! peer's ([`Hops`]), which is exact and takes over when the connection is adopted.
//!
//! The kernel runs the filter of a listening socket on SYNs and on the ACKs of handshakes, and the
//! connection that comes of them inherits it: what comes before adoption passes it too.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use caracal_bgp_core::types::{Family, Prefix};
use libc::sock_filter;
use nix::errno::Errno;
use socket2::{SockFilter, SockRef};

use super::auth::option_memory;
use super::hops::Hops;
use super::keychain::Remote;
use crate::error::Error;

mod program;

/// So many peers are named where their filter was refused.
const NAMED: usize = 3;

/// The least TTL with which segments from each peer are taken, by the prefix of its addresses. Of
/// several that hold an address, the longest counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floors(BTreeMap<Prefix, u8>);

/// From this address on, at the top of 128 bits, this floor holds, up to the next cut. None holds
/// before the first.
type Cut = (u128, u8);

impl Floors {
    /// Those of `peers`, of whom those that take any TTL must be named too, as they may lie in the
    /// range of one that does not.
    ///
    /// Of several at one address the lowest counts: which of them a connection is shows when it is
    /// adopted, and it gets its own floor then. So it is with link-local peers that have one
    /// address on different interfaces. One that has not yet shown its address cannot connect
    /// either.
    pub fn new(peers: impl IntoIterator<Item = (Remote, Hops)>) -> Self {
        let mut floors = BTreeMap::new();
        for (remote, hops) in peers {
            let prefix = match remote {
                Remote::Prefix(prefix) => prefix,
                Remote::Interface {
                    address: Some(address),
                } => Prefix::host(address.into()),
                Remote::Interface { address: None } => continue,
            };
            let floor = hops.floor();
            let lowest = floors.entry(prefix).or_insert(floor);
            *lowest = floor.min(*lowest);
        }
        Self(floors)
    }

    /// The floors of one family as intervals; none where any TTL will do everywhere.
    fn cuts(&self, family: Family) -> Vec<Cut> {
        let mut cuts = BTreeMap::new();
        // The prefixes around the place where we are, with their last addresses.
        let mut around: Vec<Cut> = Vec::new();
        let leave = |last: u128, around: &[Cut], cuts: &mut BTreeMap<u128, u8>| {
            // After the highest address there is nothing.
            if let Some(next) = last.checked_add(1) {
                cuts.insert(next, around.last().map_or(0, |(_, floor)| *floor));
            }
        };
        let ours = self.0.iter();
        for (prefix, floor) in ours.filter(|(prefix, _)| prefix.family() == family) {
            let first = bits(prefix.addr());
            while let Some((last, _)) = around.pop_if(|(last, _)| *last < first) {
                leave(last, &around, &mut cuts);
            }
            // A prefix within another that begins at the same address comes after it.
            cuts.insert(first, *floor);
            let host = u128::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
            around.push((first | host, *floor));
        }
        while let Some((last, _)) = around.pop() {
            leave(last, &around, &mut cuts);
        }
        let mut floor = 0;
        cuts.retain(|_, new| std::mem::replace(&mut floor, *new) != *new);
        cuts.into_iter().collect()
    }

    /// Whom the floors of `family` protect, for people.
    fn names(&self, family: Family) -> String {
        let guarded = self.0.iter();
        let guarded = guarded.filter(|(prefix, floor)| prefix.family() == family && **floor > 0);
        let names: Vec<String> = guarded.map(|(prefix, _)| prefix.to_string()).collect();
        match names.get(NAMED..) {
            Some(others @ [_, ..]) => {
                format!("{} and {} others", names[..NAMED].join(", "), others.len())
            }
            _ => names.join(", "),
        }
    }
}

/// The filter of one listening socket.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// What it does; none while nothing is attached.
    cuts: Vec<Cut>,
}

impl Gate {
    /// Changes the filter of `socket`, whose addresses are of `family`, to what `wanted` asks for.
    /// One that does the same stays, and a new one takes the place of an old one at once.
    ///
    /// # Errors
    /// [`Error::FilterLength`], [`Error::FilterRoom`] and [`Error::Filter`]; no filter is attached
    /// then, as an old one could bar a peer that may come from afar now.
    pub(super) fn apply(
        &mut self,
        socket: &impl AsFd,
        family: Family,
        wanted: &Floors,
    ) -> Result<(), Error> {
        let cuts = wanted.cuts(family);
        if cuts == self.cuts {
            return Ok(());
        }
        let program = program::render(family, &cuts);
        if cuts.is_empty() || program.len() > program::MAX_LEN {
            self.open(socket);
            return match program.len() {
                0 => Ok(()),
                instructions => Err(Error::FilterLength {
                    peers: wanted.names(family),
                    instructions,
                }),
            };
        }
        let mut result = attach(socket, &program);
        if result.is_err() && self.is_shut() {
            // While one takes the place of another, both need room.
            self.open(socket);
            result = attach(socket, &program);
        }
        match result {
            Ok(()) => {
                self.cuts = cuts;
                Ok(())
            }
            Err(source) => Err(refused(wanted.names(family), source)),
        }
    }

    /// Whether there is a filter.
    pub(super) fn is_shut(&self) -> bool {
        !self.cuts.is_empty()
    }

    /// Takes the filter off `socket`.
    pub(super) fn open(&mut self, socket: &impl AsFd) {
        if self.is_shut()
            && let Err(error) = detach(socket)
        {
            // Nobody has locked it, and without a lock there is no reason to refuse.
            tracing::debug!(%error, "cannot detach the filter of a listening socket");
        }
        self.cuts.clear();
    }
}

/// Takes off `socket` the filter that it has inherited, or has not.
pub(super) fn detach(socket: &impl AsFd) -> io::Result<()> {
    match SockRef::from(socket).detach_filter() {
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
        result => result,
    }
}

fn attach(socket: &impl AsFd, program: &[sock_filter]) -> io::Result<()> {
    let program: Vec<SockFilter> = program
        .iter()
        .map(|step| SockFilter::new(step.code, step.jt, step.jf, step.k))
        .collect();
    SockRef::from(socket).attach_filter(&program)
}

fn refused(peers: String, source: io::Error) -> Error {
    match source.raw_os_error().map(Errno::from_raw) {
        // Filters are charged to the socket's option memory, as keys are.
        Some(Errno::ENOMEM) => Error::FilterRoom {
            peers,
            limit: option_memory(),
        },
        _ => Error::Filter { peers, source },
    }
}

/// The address, at the top of 128 bits.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests;

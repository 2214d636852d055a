//! What the speaker is told of its routes: that they are there, or why not, and what lies there.

use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

use caracal_bgp_core::types::{Family, Prefix};
use caracal_bgp_speaker::FibEvent;
use caracal_bgp_speaker::snapshot::{KernelNextHop, KernelRoute, KernelSnapshot};

use super::{Told, Worker};
use crate::PROTOCOL_BGP;
use crate::kernel::plan::{GroupKey, Installed, InstalledTarget, Slot};

impl Worker {
    /// Tells the speaker what became of a prefix, unless it knows.
    pub(super) fn answer(&mut self, prefix: Prefix, refusal: Option<&String>) {
        let Some(request) = self.requests.get(&prefix) else {
            return;
        };
        let seq = request.seq;
        let removal = request.next_hops.is_none();
        let wanted = self.planner.installed(&self.desired, &prefix);
        let found = match self.actual.slot(&prefix) {
            Some(Slot::Ours(route)) => Some(*route),
            _ => None,
        };
        let (told, event) = if wanted == found && (removal || wanted.is_some()) {
            let first = request.told == Told::Nothing;
            (Told::Installed, FibEvent::Installed { prefix, seq, first })
        } else {
            let why = refusal.map_or_else(|| self.explain(&prefix), Clone::clone);
            (
                Told::Failed(why.clone()),
                FibEvent::Failed { prefix, seq, why },
            )
        };
        let news = request.told != told;
        if removal && told == Told::Installed {
            self.requests.remove(&prefix);
        } else if let Some(request) = self.requests.get_mut(&prefix) {
            request.told = told;
        }
        if news {
            self.tell(event);
        }
    }

    /// What lies at a prefix with our metric, as far as is known: notifications are followed between two
    /// listings.
    pub(in crate::kernel) fn look(&self, prefix: &Prefix) -> KernelSnapshot {
        let slot = self.actual.slot(prefix);
        let found = match slot {
            Some(Slot::Ours(route)) => Some(*route),
            Some(Slot::Stolen(_) | Slot::Foreign(_)) | None => None,
        };
        let listed = self.listed.duration_since(UNIX_EPOCH);
        let listed_ms = listed.unwrap_or_default().as_millis();
        KernelSnapshot {
            route: match slot {
                None => KernelRoute::Absent,
                Some(Slot::Stolen(protocol) | Slot::Foreign(protocol)) => KernelRoute::Foreign {
                    protocol: *protocol,
                },
                Some(Slot::Ours(route)) => self.ours(route),
            },
            in_sync: found == self.planner.installed(&self.desired, prefix),
            checked_ms: u64::try_from(listed_ms).unwrap_or(u64::MAX),
        }
    }

    fn ours(&self, route: &Installed) -> KernelRoute {
        let hops = match route.target {
            InstalledTarget::Object(id) => self.actual.members_of(id).unwrap_or_default(),
            InstalledTarget::Blackhole => {
                return KernelRoute::Dropping {
                    protocol: PROTOCOL_BGP,
                };
            }
            InstalledTarget::Other => BTreeSet::new(),
        };
        let next_hops = hops.into_iter().map(|hop| {
            let mut links = self.topology.links();
            let link = links.find(|link| link.index == hop.interface);
            KernelNextHop {
                address: hop.gateway,
                interface: link.map_or_else(|| hop.interface.to_string(), |link| link.name.clone()),
            }
        });
        KernelRoute::Forwarding {
            protocol: PROTOCOL_BGP,
            next_hops: next_hops.collect(),
        }
    }

    /// Why a prefix is not installed although nothing was refused just now.
    fn explain(&self, prefix: &Prefix) -> String {
        if let Some(Slot::Foreign(protocol)) = self.actual.slot(prefix) {
            return format!(
                "the kernel holds a route of protocol {protocol} with our metric, which is not ours to replace"
            );
        }
        let request = self.requests.get(prefix);
        let Some(key) = request.and_then(|request| request.next_hops.as_ref()) else {
            return "the kernel still holds the route".to_owned();
        };
        if let Some(why) = family_mismatch(prefix, key) {
            return why;
        }
        let reasons: Vec<String> = key
            .iter()
            .flat_map(|next_hop| match self.reach().resolve(next_hop) {
                Err(why) => vec![why.to_string()],
                Ok(hops) => {
                    let refused = hops.iter().filter_map(|hop| self.rejections.why(hop));
                    refused.map(str::to_owned).collect()
                }
            })
            .collect();
        if reasons.is_empty() {
            "the kernel does not hold the route yet".to_owned()
        } else {
            reasons.join("; ")
        }
    }

    pub(super) fn tell(&self, event: FibEvent) {
        // A speaker that no longer listens has ended; the routes stay as they are.
        let _ = self.outlets.events.blocking_send(event);
    }
}

/// An IPv4 route may lead over an IPv6 next hop (RFC 8950), but not the other way round.
pub(super) fn family_mismatch(prefix: &Prefix, key: &GroupKey) -> Option<String> {
    if prefix.family() == Family::Ipv4Unicast {
        return None;
    }
    let next_hop = key.iter().find(|next_hop| next_hop.address.is_ipv4())?;
    let address = next_hop.address;
    Some(format!(
        "an IPv6 route cannot lead over the IPv4 next hop {address}"
    ))
}

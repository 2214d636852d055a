//! What the speaker is told of its routes: that they are there, or why not.

use caracal_bgp_core::types::{Family, Prefix};
use caracal_bgp_speaker::FibEvent;

use super::{Told, Worker};
use crate::kernel::plan::{GroupKey, Slot};

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

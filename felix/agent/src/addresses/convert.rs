//! Between the plugin's terms and the allocator's.

use std::net::IpAddr;
use std::time::Duration;

use caracal_ipam_core::{AddressPair, AttachmentKey, Moment};

pub(super) fn to_core(key: &caracal_cni::AttachmentKey) -> AttachmentKey {
    AttachmentKey {
        container_id: key.container_id.clone(),
        interface: key.interface.clone(),
    }
}

pub(super) fn from_core(key: &AttachmentKey) -> caracal_cni::AttachmentKey {
    caracal_cni::AttachmentKey {
        container_id: key.container_id.clone(),
        interface: key.interface.clone(),
    }
}

pub(super) fn pair(addresses: &[IpAddr]) -> AddressPair {
    let mut pair = AddressPair::default();
    for address in addresses {
        match address {
            IpAddr::V4(address) => pair.ipv4 = Some(*address),
            IpAddr::V6(address) => pair.ipv6 = Some(*address),
        }
    }
    pair
}

/// Time since boot: it goes on while the machine sleeps, and survives a restart of the process as
/// the log on tmpfs does.
pub(super) fn moment() -> Moment {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default();
    Moment(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

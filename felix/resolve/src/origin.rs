//! What a speaker announces as its own: blocks, loopbacks, configured prefixes; and what they carry.

use std::collections::BTreeMap;
use std::net::IpAddr;

use caracal_bgp_core::types::Prefix;
use caracal_bgp_core::wire::{Community, LargeCommunity};
use caracal_bgp_speaker::config::Origination;
use caracal_crds::{BlockPhase, IpBlock, IpPool, NamedCommunity, reasons};
use ipnetwork::IpNetwork;

use crate::finding::{Findings, ObjectRef};
use crate::resolve::Inputs;
use crate::settings::Settings;

/// Blocks in the hand of this node.
pub(crate) struct OwnBlocks<'a> {
    /// Each with whether it is announced.
    blocks: Vec<(&'a IpBlock, bool)>,
}

impl OwnBlocks<'_> {
    /// Prefixes of all of them, ascending.
    pub(crate) fn prefixes(&self) -> Vec<Prefix> {
        let mut prefixes: Vec<Prefix> = self
            .blocks
            .iter()
            .flat_map(|(block, _)| prefixes_of(block))
            .collect();
        prefixes.sort_unstable();
        prefixes
    }

    fn announced(&self) -> impl Iterator<Item = Prefix> {
        self.blocks
            .iter()
            .filter(|(_, announced)| *announced)
            .flat_map(|(block, _)| prefixes_of(block))
    }
}

/// The blocks that this node holds, whatever the state of its announcement.
pub(crate) fn own_blocks<'a>(inputs: &Inputs<'a>, findings: &mut Findings) -> OwnBlocks<'a> {
    let uid = inputs.node().and_then(|node| node.metadata.uid.as_deref());
    let mut blocks = Vec::new();
    for (name, block) in inputs.blocks {
        if block.spec.node_name != inputs.node_name {
            continue;
        }
        let object = ObjectRef::new("IPBlock", name);
        if uid.is_some_and(|uid| uid != block.spec.node_uid) {
            // Another node of the same name held it, and its pods may still run somewhere.
            let message = format!(
                "granted to an earlier node of this name (UID {}): not announced",
                block.spec.node_uid
            );
            findings.add(&object, "spec.nodeUID", reasons::NODE_NOT_FOUND, message);
            continue;
        }
        let phase = block.status.as_ref().map(|status| status.phase);
        let in_use = match phase.unwrap_or_default() {
            BlockPhase::Active | BlockPhase::Draining => true,
            BlockPhase::Offered => inputs.taken_up.contains(name),
            BlockPhase::Released | BlockPhase::Quarantined => continue,
        };
        let pool = inputs.pools.get(&block.spec.pool);
        if pool.is_none() {
            let message = format!(
                "IPPool {} is not known: announced all the same",
                block.spec.pool
            );
            findings.add(&object, "spec.pool", reasons::POOL_NOT_FOUND, message);
        }
        let exported = pool.is_none_or(|pool| !pool.spec.disable_bgp_export);
        blocks.push((block, in_use && exported));
    }
    OwnBlocks { blocks }
}

/// Own routes with what they carry.
pub(crate) fn originate(
    settings: &Settings,
    blocks: &OwnBlocks<'_>,
    loopbacks: &[IpAddr],
    findings: &mut Findings,
) -> BTreeMap<Prefix, Origination> {
    let hosts = loopbacks.iter().copied().map(Prefix::host);
    let mut routes: BTreeMap<Prefix, Origination> = blocks
        .announced()
        .chain(hosts)
        .map(|prefix| (prefix, Origination::default()))
        .collect();
    let (object, originated) = &settings.originated_prefixes;
    let object = ObjectRef::new("BGPConfiguration", &**object);
    for (index, originated) in originated.iter().enumerate() {
        let Some(prefix) = prefix_of(originated.cidr) else {
            continue;
        };
        let field = format!("spec.originatedPrefixes[{index}].communities");
        let carried = communities(&originated.communities, &settings.communities, |unknown| {
            findings.add(&object, &field, reasons::REFERENCE_NOT_FOUND, unknown);
        });
        add(routes.entry(prefix).or_default(), &carried);
    }
    let (object, advertisements) = &settings.prefix_advertisements;
    let object = ObjectRef::new("BGPConfiguration", &**object);
    for (index, advertisement) in advertisements.iter().enumerate() {
        let Some(within) = prefix_of(advertisement.cidr) else {
            continue;
        };
        let field = format!("spec.prefixAdvertisements[{index}].communities");
        if advertisement.communities.is_empty() {
            // It would be the way to announce the prefix itself, were it not Calico's name for something
            // else.
            let message = format!(
                "gives own routes in {within} no communities, so it does nothing; \
                 originatedPrefixes announces a prefix"
            );
            findings.add(&object, &field, reasons::INVALID_SPEC, message);
            continue;
        }
        let carried = communities(
            &advertisement.communities,
            &settings.communities,
            |unknown| {
                findings.add(&object, &field, reasons::REFERENCE_NOT_FOUND, unknown);
            },
        );
        let inside = routes.iter_mut().filter(|(own, _)| within.contains(own));
        for (_, origination) in inside {
            add(origination, &carried);
        }
    }
    routes
}

/// Originated prefixes whose packets are dropped where no longer route takes them, ascending.
pub(crate) fn dropped(settings: &Settings) -> Vec<Prefix> {
    let (_, originated) = &settings.originated_prefixes;
    let dropped = originated.iter().filter(|originated| originated.blackhole);
    let mut dropped: Vec<Prefix> = dropped
        .filter_map(|originated| prefix_of(originated.cidr))
        .collect();
    dropped.sort_unstable();
    dropped.dedup();
    dropped
}

/// Communities by name or value; `unknown` hears of each that is neither.
fn communities(
    texts: &[String],
    named: &[NamedCommunity],
    mut unknown: impl FnMut(String),
) -> Origination {
    let mut found = Origination::default();
    for text in texts {
        let definition = named.iter().find(|community| community.name == *text);
        let value = definition.map_or(text.as_str(), |community| community.value.as_str());
        if let Ok(community) = value.parse::<Community>() {
            found.communities.push(community);
        } else if let Ok(community) = value.parse::<LargeCommunity>() {
            found.large_communities.push(community);
        } else {
            unknown(format!(
                "'{text}' is neither a name in spec.communities nor a community: left out"
            ));
        }
    }
    found
}

/// Adds communities, which stay ascending and without duplicates.
fn add(to: &mut Origination, more: &Origination) {
    to.communities.extend(&more.communities);
    to.communities.sort_unstable();
    to.communities.dedup();
    to.large_communities.extend(&more.large_communities);
    to.large_communities.sort_unstable();
    to.large_communities.dedup();
}

pub(crate) fn prefixes_of(block: &IpBlock) -> impl Iterator<Item = Prefix> {
    let v4 = block.spec.ipv4.map(IpNetwork::V4);
    let v6 = block.spec.ipv6.map(IpNetwork::V6);
    [v4, v6].into_iter().flatten().filter_map(prefix_of)
}

/// The address ranges of a pool.
pub(crate) fn subnets_of(pool: &IpPool) -> impl Iterator<Item = Prefix> {
    pool.spec.subnets.iter().flat_map(|subnet| {
        let v4 = subnet.ipv4.map(IpNetwork::V4);
        let v6 = subnet.ipv6.map(IpNetwork::V6);
        [v4, v6].into_iter().flatten().filter_map(prefix_of)
    })
}

/// `None` never comes of an [`IpNetwork`], whose length fits its family.
pub(crate) fn prefix_of(network: IpNetwork) -> Option<Prefix> {
    Prefix::new(network.ip(), network.prefix()).ok()
}

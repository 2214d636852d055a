//! Pods' interfaces: from a record to a link that works.
//!
//! Owns how a record becomes a link, how a link is compared with its record, and what the runtime
//! is told about it. Does not own the record (see [`crate::addresses`]), the netlink steps (see
//! [`caracal_fib::pod`]) nor the order among address, policy and link (see [`crate::core`]).

pub(crate) mod admission;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use caracal_cni::result::{AddResult, Interface, IpConfig, Route};
use caracal_cni::{AttachmentKey, CniError, ErrorCode, PodReference};
use caracal_fib::link::MacAddress;
use caracal_fib::link::reaper::Reaper;
use caracal_fib::pod::{GATEWAY_V4, GATEWAY_V6, HOST_MAC, PodLinkSpec, PodLinks};
use caracal_fib::{Error, Netns};
use caracal_policy::plan::{InterfaceName, InterfaceNameError};
use tracing::info;

use crate::node::NodeFacts;
pub(crate) use names::Mark;

/// A pod's interface as recorded: what should exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wired {
    /// Whose it is, in the runtime's words.
    pub(crate) key: AttachmentKey,
    /// Whose it is, in the cluster's words.
    pub(crate) pod: Option<PodReference>,
    /// Path of the pod's namespace; unknown for a record that an agent rebuilt.
    pub(crate) netns: Option<PathBuf>,
    /// The host's end.
    pub(crate) interface: InterfaceName,
    /// The pod's addresses, at most one of each family, IPv4 first.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Wired {
    /// The addresses as a set.
    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.addresses.iter().copied().collect()
    }

    fn mark(&self) -> Mark {
        let pod = self.pod.as_ref();
        Mark {
            key: self.key.clone(),
            addresses: self.addresses.clone(),
            pod: pod.map(|pod| (pod.namespace.clone(), pod.name.clone())),
        }
    }
}

/// Makes, compares and removes pods' links.
pub(crate) struct Endpoints {
    links: PodLinks,
    reaper: Reaper,
    prefix: String,
    mtu: u32,
    sources: Vec<IpAddr>,
}

impl Endpoints {
    /// Works in the calling thread's namespace. Names of links begin with `prefix`; their MTU is
    /// `mtu`, in octets.
    ///
    /// # Errors
    /// Where the kernel gives no sockets.
    pub(crate) fn open(prefix: &str, mtu: u32) -> Result<Endpoints, Error> {
        let host = Netns::current()?;
        let reaper = Reaper::start(&host)?;
        let links = PodLinks::open(host)?;
        Ok(Endpoints {
            links,
            reaper,
            prefix: prefix.to_owned(),
            mtu,
            sources: Vec::new(),
        })
    }

    /// The addresses from which the node speaks to its pods.
    pub(crate) fn set_sources(&mut self, node: &NodeFacts) {
        self.sources = node.loopbacks.iter().copied().collect();
    }

    /// The name of the host's end.
    ///
    /// # Errors
    /// Where the configured prefix is no interface name.
    pub(crate) fn interface(
        &self,
        key: &AttachmentKey,
    ) -> Result<InterfaceName, InterfaceNameError> {
        names::interface(&self.prefix, key)
    }

    /// Makes the link, or what is missing of it, and tells the runtime what there is.
    ///
    /// # Errors
    /// Where the pod's namespace is gone or the kernel refuses; [`Endpoints::unwire`] removes what
    /// was made so far.
    pub(crate) fn wire(&mut self, wired: &Wired) -> Result<AddResult, Error> {
        let path = wired.netns.clone().unwrap_or_default();
        let pod = Netns::open(&path)?;
        let spec = self.specify(wired)?;
        let made = self
            .links
            .create_down(&pod, &spec)
            .and_then(|link| self.links.bring_up(&pod, &spec, link));
        made.map(|()| describe(wired, &spec))
    }

    /// Stops the pod's traffic and removes the link; one that is gone is no error.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub(crate) fn unwire(&mut self, key: &AttachmentKey) -> Result<(), Error> {
        if self.links.bury(&names::alternative(&self.prefix, key))? {
            self.reaper.wake();
        }
        Ok(())
    }

    /// Compares the link with its record and with what ADD told the runtime.
    ///
    /// # Errors
    /// What differs, as CHECK reports it.
    pub(crate) fn check(&mut self, wired: &Wired, previous: &AddResult) -> Result<(), CniError> {
        let differs = |what: &str| CniError::new(ErrorCode::StateDiffers, what);
        let kernel = |error: Error| differs("cannot compare with the kernel").because(error);
        let spec = self.specify(wired).map_err(kernel)?;
        let recorded: BTreeSet<String> = describe(wired, &spec)
            .ips
            .into_iter()
            .map(|ip| ip.address)
            .collect();
        let told: BTreeSet<String> = previous.ips.iter().map(|ip| ip.address.clone()).collect();
        if recorded != told {
            return Err(differs("prevResult names other addresses")
                .because(format!("recorded {recorded:?}, prevResult {told:?}")));
        }
        let pod = Netns::open(wired.netns.clone().unwrap_or_default()).map_err(|error| {
            CniError::new(ErrorCode::UnknownContainer, "the pod's namespace is gone").because(error)
        })?;
        let differences = self.links.check(&pod, &spec).map_err(kernel)?;
        if differences.is_empty() {
            return Ok(());
        }
        Err(differs("the link is not as it was made").because(differences.join("; ")))
    }

    /// Puts back what somebody changed about a link. Writes nothing to one that is as it should be,
    /// and leaves a pod alone whose namespace is gone: its DEL is still to come.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub(crate) fn repair(&mut self, wired: &Wired) -> Result<(), Error> {
        let Some(path) = wired.netns.as_ref().filter(|path| path.exists()) else {
            return Ok(());
        };
        let spec = self.specify(wired)?;
        let differences = self.links.check(&Netns::open(path)?, &spec)?;
        if differences.is_empty() {
            return Ok(());
        }
        info!(interface = %wired.interface, ?differences, "repairing a pod's link");
        self.wire(wired).map(drop)
    }

    /// Every living link of a pod, by what its mark says.
    ///
    /// # Errors
    /// Where the kernel cannot be read.
    pub(crate) fn marks(&mut self) -> Result<BTreeMap<AttachmentKey, Mark>, Error> {
        let links = self.links.list(&names::alternative_prefix(&self.prefix))?;
        let marks = links
            .iter()
            .filter_map(|link| Mark::parse(link.alias.as_deref()?));
        Ok(marks.map(|mark| (mark.key.clone(), mark)).collect())
    }

    fn specify(&mut self, wired: &Wired) -> Result<PodLinkSpec, Error> {
        let alternative_name = names::alternative(&self.prefix, &wired.key);
        // A link that exists keeps its MTU: another one means another link, and the end of every
        // connection of a pod that runs.
        let existing = self.links.find(&alternative_name)?;
        Ok(PodLinkSpec {
            host_name: wired.interface.as_str().to_owned(),
            pod_name: wired.key.interface.clone(),
            alternative_name,
            alias: wired.mark().render(),
            mtu: existing.map_or(self.mtu, |link| link.mtu),
            pod_mac: names::pod_mac(&wired.key),
            addresses: wired.addresses.clone(),
            node_addresses: self.sources.clone(),
        })
    }
}

/// What the runtime is told.
fn describe(wired: &Wired, spec: &PodLinkSpec) -> AddResult {
    let sandbox = wired.netns.as_ref().map(|path| path.display().to_string());
    let interface = |name: &str, mac: MacAddress, sandbox| Interface {
        name: name.to_owned(),
        mac: mac.map(|octet| format!("{octet:02x}")).join(":"),
        mtu: Some(spec.mtu),
        sandbox,
    };
    let mut result = AddResult {
        interfaces: vec![
            interface(&spec.host_name, HOST_MAC, None),
            interface(&spec.pod_name, spec.pod_mac, sandbox),
        ],
        ..AddResult::default()
    };
    for address in &wired.addresses {
        let (length, gateway, everywhere) = match address {
            IpAddr::V4(_) => (32, GATEWAY_V4.to_string(), "0.0.0.0/0"),
            IpAddr::V6(_) => (128, GATEWAY_V6.to_string(), "::/0"),
        };
        result.ips.push(IpConfig {
            address: format!("{address}/{length}"),
            gateway: Some(gateway.clone()),
            // The pod's end, second in the list.
            interface: Some(1),
        });
        result.routes.push(Route {
            dst: everywhere.to_owned(),
            gw: Some(gateway),
        });
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_is_told_both_families_and_both_ends() {
        let key = AttachmentKey {
            container_id: "c1".into(),
            interface: "eth0".into(),
        };
        let wired = Wired {
            interface: names::interface("cara", &key).unwrap(),
            key,
            pod: None,
            netns: Some("/run/netns/x".into()),
            addresses: vec!["10.64.0.7".parse().unwrap(), "fd00:64::7".parse().unwrap()],
        };
        let spec = PodLinkSpec {
            host_name: wired.interface.to_string(),
            pod_name: "eth0".into(),
            alternative_name: String::new(),
            alias: String::new(),
            mtu: 9000,
            pod_mac: [2, 0, 0, 0, 0, 1],
            addresses: wired.addresses.clone(),
            node_addresses: Vec::new(),
        };
        let told = describe(&wired, &spec);
        assert_eq!(told.ips[0].address, "10.64.0.7/32");
        assert_eq!(told.ips[1].gateway.as_deref(), Some("fe80::1"));
        assert_eq!(told.interfaces[1].mac, "02:00:00:00:00:01");
        assert_eq!(told.interfaces[1].sandbox.as_deref(), Some("/run/netns/x"));
        assert_eq!(told.interfaces[0].sandbox, None);
        assert_eq!(told.routes[1].dst, "::/0");
    }
}

//! A pod's link: a veth pair made in place, its addresses, neighbours and routes on both sides.
//!
//! Owns the sequence of netlink steps, its idempotence, and how our links are recognised: by an
//! alternative name on the host's end. Does not own addresses, names, policy or the order of the
//! whole: the caller fills policy in between [`PodLinks::create_down`] and [`PodLinks::bring_up`].
//!
//! ```text
//!   pod's namespace                        host's namespace
//!   eth0  10.244.3.7/32, fd00::7/128       veth…  (alternative name, alias)
//!   169.254.1.1 dev eth0 scope link        10.244.3.7/32  dev veth… scope link src <node>
//!   default via 169.254.1.1                fd00::7/128    dev veth… src <node>
//!   default via fe80::1
//!   neighbours 169.254.1.1, fe80::1        neighbours 10.244.3.7, fd00::7
//!     -> the host end's MAC                  -> the pod end's MAC
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use caracal_bgp_core::types::Prefix;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::RouteType;

use crate::PROTOCOL_POD;
use crate::error::{Error, Result};
use crate::link::reaper::{self, DEAD_GROUP};
use crate::link::{self, ALTERNATIVE_NAME_OCTETS, Link, MacAddress, NAME_OCTETS, check_name};
use crate::netns::Netns;
use crate::rtnl::Rtnl;
use crate::rtnl::message::Message;
use crate::rtnl::objects::{self, KernelRoute, LinkKey, RouteSpec, RouteTarget, VethEnd};
use crate::sysctl;

/// The gateway of every pod for IPv4. Nobody owns it: the pod has a permanent neighbour entry.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The gateway of every pod for IPv6; as [`GATEWAY_V4`].
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The Ethernet address of every host end (locally administered): pods that move or are saved
/// and restored find the same gateway everywhere.
pub const HOST_MAC: MacAddress = [0x02, 0xca, 0x5a, 0xca, 0x1c, 0x01];

/// The longest alias that the kernel stores, in octets.
const ALIAS_OCTETS: usize = 255;
/// How long the kernel may take to start the queue of a link whose other end came up. It takes
/// under a millisecond; a machine that is out of CPU may need more.
const CARRIER_DEADLINE: Duration = Duration::from_secs(2);
/// Between two looks at the carrier.
const CARRIER_POLL: Duration = Duration::from_micros(200);

const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
const PUT: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// What a pod's link should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLinkSpec {
    /// Name of the host's end, at most 15 octets.
    pub host_name: String,
    /// Name of the pod's end, at most 15 octets; mostly `eth0`.
    pub pod_name: String,
    /// Alternative name of the host's end: unique on the node, at most 127 octets, and made from the
    /// container ID, so that the link is found and recognised without a list.
    pub alternative_name: String,
    /// Text for operators: namespace and name of the pod. Cut at 255 octets.
    pub alias: String,
    /// Largest packet, in octets: the fabric's.
    pub mtu: u32,
    /// Ethernet address of the pod's end.
    pub pod_mac: MacAddress,
    /// The pod's addresses, of either or both families.
    pub addresses: Vec<IpAddr>,
    /// The node's own address, from which it speaks to its pods; per family where it has one.
    pub node_addresses: Vec<IpAddr>,
}

/// A link that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodLink {
    /// Interface index of the host's end.
    pub host_index: u32,
    /// Interface index of the pod's end, in the pod's namespace.
    pub pod_index: u32,
}

/// Makes, finds and removes pods' links from one host namespace.
#[derive(Debug)]
pub struct PodLinks {
    host: Netns,
    rtnl: Rtnl,
}

impl PodLinks {
    /// Works from the namespace `host`.
    ///
    /// # Errors
    /// [`Error::Socket`], [`Error::Namespace`].
    pub fn open(host: Netns) -> Result<Self> {
        let rtnl = Rtnl::open_in(&host)?;
        Ok(Self { host, rtnl })
    }

    /// Makes the pair and everything on the pod's side; the host's end stays down, so that no
    /// packet passes yet. What is there already from an earlier attempt is taken over.
    ///
    /// # Errors
    /// [`Error::Name`] for names that do not fit; [`Error::Refused`] with `EEXIST` when the host
    /// name or the pod's name belongs to another link; [`Error::Sysctl`] where IPv6 cannot be had.
    pub fn create_down(&mut self, pod: &Netns, spec: &PodLinkSpec) -> Result<PodLink> {
        check_name("link name", &spec.host_name, NAME_OCTETS)?;
        check_name("link name", &spec.pod_name, NAME_OCTETS)?;
        check_name(
            "alternative name",
            &spec.alternative_name,
            ALTERNATIVE_NAME_OCTETS,
        )?;
        let mut inside = Rtnl::open_in(pod)?;
        let link = match self.take_over(&mut inside, spec)? {
            Some(link) => link,
            None => self.create_pair(&mut inside, spec)?,
        };
        self.set_host_sysctls(spec)?;
        pod.run(|| all_set(&sysctl::pod_link_settings(&spec.pod_name)))??;
        run_all(
            &mut inside,
            &format!("configure {} of {}", spec.pod_name, spec.alias),
            &pod_steps(spec, link.pod_index),
        )?;
        Ok(link)
    }

    /// Sets the host's end up, gives it neighbours and routes, and waits until the pod's end can
    /// send: the first packet of either family passes from here on.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::NoCarrier`] or [`Error::AddressNotReady`] when an end or an address
    /// of the pod does not become ready.
    pub fn bring_up(&mut self, pod: &Netns, spec: &PodLinkSpec, link: PodLink) -> Result<()> {
        run_all(
            &mut self.rtnl,
            &format!("bring up {} for {}", spec.host_name, spec.alias),
            &host_steps(spec, link.host_index),
        )?;
        let mut inside = Rtnl::open_in(pod)?;
        await_operational(&mut inside, &spec.pod_name)?;
        await_operational(&mut self.rtnl, &spec.host_name)?;
        let mut addresses = spec.addresses.iter();
        addresses.try_for_each(|&address| await_local(&mut inside, &spec.pod_name, address))
    }

    /// Compares a link with what it should be; each difference is a sentence, and none means that all
    /// is well. [`PodLinks::create_down`] and [`PodLinks::bring_up`] repair what they can.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Namespace`] when the kernel cannot be asked.
    pub fn check(&mut self, pod: &Netns, spec: &PodLinkSpec) -> Result<Vec<String>> {
        let mut differences = Vec::new();
        let Some(host) = self.find(&spec.alternative_name)? else {
            let name = &spec.alternative_name;
            return Ok(vec![format!("the node has no link {name}")]);
        };
        let mut inside = Rtnl::open_in(pod)?;
        let Some(end) = link::find(&mut inside, &spec.pod_name)? else {
            return Ok(vec![format!("the pod has no link {}", spec.pod_name)]);
        };
        if host.peer_index != Some(end.index) || end.peer_index != Some(host.index) {
            let (host, pod) = (&host.name, &end.name);
            differences.push(format!("{host} and {pod} are not two ends of one link"));
        }
        for (link, mac) in [(&host, HOST_MAC), (&end, spec.pod_mac)] {
            let name = &link.name;
            if !link.is_usable() {
                differences.push(format!("{name} is down"));
            }
            if link.mtu != spec.mtu {
                let (found, wanted) = (link.mtu, spec.mtu);
                differences.push(format!("{name} has MTU {found}, not {wanted}"));
            }
            if link.mac != Some(mac) {
                differences.push(format!("{name} has another Ethernet address"));
            }
        }
        let held = link::addresses(&mut inside)?;
        for &address in &spec.addresses {
            let on_end =
                |own: &link::InterfaceAddress| own.interface == end.index && own.address == address;
            if !held.iter().any(on_end) {
                differences.push(format!("{} has no address {address}", end.name));
            }
            let route = matching_route(&mut self.rtnl, address)?;
            let ours = route.is_some_and(|route| {
                route.prefix == Prefix::host(address) && route.interface == Some(host.index)
            });
            if !ours {
                differences.push(format!(
                    "the node has no route to {address} over {}",
                    host.name
                ));
            }
        }
        Ok(differences)
    }

    /// Finds the host's end by alternative name; dead links do not count.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn find(&mut self, alternative_name: &str) -> Result<Option<Link>> {
        let link = link::find(&mut self.rtnl, alternative_name)?;
        Ok(link.filter(|link| link.group != DEAD_GROUP))
    }

    /// Every living link that has an alternative name that begins with `prefix`.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unsteady`].
    pub fn list(&mut self, prefix: &str) -> Result<Vec<Link>> {
        let mut links = link::list(&mut self.rtnl)?;
        links.retain(|link| {
            let ours = |name: &String| name.starts_with(prefix);
            link.group != DEAD_GROUP && link.alternative_names.iter().any(ours)
        });
        Ok(links)
    }

    /// Stops a pod's traffic at once and leaves the link to a [`reaper::Reaper`], which the caller
    /// wakes. The pod's namespace need not exist any more. `false` when there is no such link.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn bury(&mut self, alternative_name: &str) -> Result<bool> {
        let Some(link) = self.find(alternative_name)? else {
            return Ok(false);
        };
        reaper::bury(&mut self.rtnl, link.index)?;
        Ok(true)
    }

    /// Removes a pod's link now. `false` when there is none.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn delete(&mut self, alternative_name: &str) -> Result<bool> {
        let Some(link) = link::find(&mut self.rtnl, alternative_name)? else {
            return Ok(false);
        };
        link::delete(&mut self.rtnl, link.index)?;
        Ok(true)
    }

    /// Finds both ends of an earlier attempt; removes what cannot be used.
    fn take_over(&mut self, inside: &mut Rtnl, spec: &PodLinkSpec) -> Result<Option<PodLink>> {
        let host = match link::find(&mut self.rtnl, &spec.alternative_name)? {
            Some(host) => Some(host),
            // Someone who died between making the pair and naming it left no alternative name.
            None => link::find(&mut self.rtnl, &spec.host_name)?.filter(|link| {
                let alias = link.alias.as_ref();
                link.alternative_names.is_empty() && alias.is_none_or(|alias| *alias == spec.alias)
            }),
        };
        let Some(host) = host else {
            return Ok(None);
        };
        let pod = link::find(inside, &spec.pod_name)?;
        let pair = pod.filter(|pod| {
            host.group != DEAD_GROUP
                && host.name == spec.host_name
                && host.peer_index == Some(pod.index)
                && pod.peer_index == Some(host.index)
                && pod.mac == Some(spec.pod_mac)
                && pod.mtu == spec.mtu
        });
        match pair {
            Some(pod) => {
                self.name_host_end(spec, host.index)?;
                Ok(Some(PodLink {
                    host_index: host.index,
                    pod_index: pod.index,
                }))
            }
            None => {
                link::delete(&mut self.rtnl, host.index)?;
                Ok(None)
            }
        }
    }

    /// Makes both ends where they belong, in one message: an end that is moved later would lose its
    /// settings and cost a grace period.
    fn create_pair(&mut self, inside: &mut Rtnl, spec: &PodLinkSpec) -> Result<PodLink> {
        let near = VethEnd {
            name: &spec.pod_name,
            mac: Some(spec.pod_mac),
            mtu: Some(spec.mtu),
            netns: None,
        };
        let far = VethEnd {
            name: &spec.host_name,
            mac: Some(HOST_MAC),
            mtu: Some(spec.mtu),
            netns: Some(self.host.as_fd()),
        };
        inside.request(objects::create_veth(&near, &far), CREATE, || {
            format!("create link {} for {}", spec.host_name, spec.alias)
        })?;
        let host = link::expect(&mut self.rtnl, &spec.host_name)?;
        let named = self.name_host_end(spec, host.index);
        if let Err(error) = named {
            // A link that cannot be recognised would block the next attempt.
            link::delete(&mut self.rtnl, host.index)?;
            return Err(error);
        }
        let pod = link::expect(inside, &spec.pod_name)?;
        Ok(PodLink {
            host_index: host.index,
            pod_index: pod.index,
        })
    }

    /// Sets alias and alternative name; the kernel ignores both in the message that makes a link.
    fn name_host_end(&mut self, spec: &PodLinkSpec, index: u32) -> Result<()> {
        let key = LinkKey::Index(index);
        let mut end = spec.alias.len().min(ALIAS_OCTETS);
        while !spec.alias.is_char_boundary(end) {
            end -= 1;
        }
        let alias = LinkAttribute::IfAlias(spec.alias[..end].to_owned());
        let doing = || format!("name link {} of {}", spec.host_name, spec.alias);
        self.rtnl
            .request(objects::set_link(key, None, vec![alias]), 0, doing)?;
        let name = objects::add_alternative_name(key, &spec.alternative_name);
        let result = self.rtnl.request(name, CREATE, doing);
        match result {
            Err(error) if error.is_refusal(libc::EEXIST) => {
                let owner = link::find(&mut self.rtnl, &spec.alternative_name)?;
                match owner.is_some_and(|owner| owner.index == index) {
                    true => Ok(()),
                    false => Err(error),
                }
            }
            other => other,
        }
    }

    fn set_host_sysctls(&self, spec: &PodLinkSpec) -> Result<()> {
        self.host
            .run(|| all_set(&sysctl::host_link_settings(&spec.host_name)))?
    }
}

/// The route that packets to `address` take, if there is one.
fn matching_route(rtnl: &mut Rtnl, address: IpAddr) -> Result<Option<KernelRoute>> {
    let request = objects::match_route(address);
    let route = rtnl.get(
        request,
        || format!("look up the route to {address}"),
        |message| match message {
            Message::Route(RouteNetlinkMessage::NewRoute(route)) => {
                KernelRoute::from_message(&route)
            }
            _ => None,
        },
    );
    match route {
        Err(error)
            if [
                libc::ENETUNREACH,
                libc::EHOSTUNREACH,
                libc::EINVAL,
                libc::EACCES,
            ]
            .into_iter()
            .any(|errno| error.is_refusal(errno)) =>
        {
            // The four ways of a lookup to end without a way: none, unreachable, blackhole, prohibit.
            Ok(None)
        }
        other => other,
    }
}

/// Repairs settings; a key that the kernel lacks is no error, a write that fails is.
fn all_set(settings: &[sysctl::Setting]) -> Result<()> {
    let report = sysctl::repair(settings);
    report.failed.into_iter().next().map_or(Ok(()), Err)
}

fn pod_steps(spec: &PodLinkSpec, index: u32) -> Vec<(Message, u16)> {
    let mut steps = vec![(
        objects::set_link(LinkKey::Name("lo"), Some(true), Vec::new()),
        0,
    )];
    for &address in &spec.addresses {
        steps.push((
            objects::add_address(index, address, Prefix::host(address).len()),
            PUT,
        ));
    }
    // Up before its routes, which the kernel refuses on a link that is down. The other end is down,
    // so nothing passes.
    steps.push((
        objects::set_link(LinkKey::Index(index), Some(true), Vec::new()),
        0,
    ));
    let route = |prefix, target| RouteSpec {
        prefix,
        protocol: PROTOCOL_POD,
        metric: 0,
        target,
        source: None,
    };
    let gateways = [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)];
    for gateway in gateways {
        if !spec
            .addresses
            .iter()
            .any(|address| address.is_ipv4() == gateway.is_ipv4())
        {
            continue;
        }
        steps.push((objects::permanent_neighbour(index, gateway, HOST_MAC), PUT));
        if gateway.is_ipv4() {
            let on_link = route(Prefix::host(gateway), RouteTarget::Link(index));
            steps.push((on_link.add(), PUT));
        }
        let target = RouteTarget::Gateway {
            gateway,
            interface: index,
        };
        steps.push((route(default_of(gateway), target).add(), PUT));
    }
    steps
}

fn host_steps(spec: &PodLinkSpec, index: u32) -> Vec<(Message, u16)> {
    let mut steps = vec![(
        objects::set_link(LinkKey::Index(index), Some(true), Vec::new()),
        0,
    )];
    for &address in &spec.addresses {
        let neighbour = objects::permanent_neighbour(index, address, spec.pod_mac);
        steps.push((neighbour, PUT));
        let source = spec
            .node_addresses
            .iter()
            .copied()
            .find(|node| node.is_ipv4() == address.is_ipv4());
        let route = RouteSpec {
            prefix: Prefix::host(address),
            protocol: PROTOCOL_POD,
            metric: 0,
            target: RouteTarget::Link(index),
            source,
        };
        steps.push((route.add(), PUT));
    }
    steps
}

fn default_of(gateway: IpAddr) -> Prefix {
    let any = match gateway {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Prefix::new(any, 0).expect("a length of 0 fits every family")
}

fn run_all(rtnl: &mut Rtnl, doing: &str, steps: &[(Message, u16)]) -> Result<()> {
    for outcome in rtnl.batch(steps)? {
        outcome.map_err(|source| Error::Refused {
            doing: doing.to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// Waits until the pod takes packets to an address as its own. The kernel enters an IPv6 address into
/// the local table from a queue of work, also where duplicate detection is off: an answer that comes
/// before is dropped as not for this host, although the address is shown already.
fn await_local(rtnl: &mut Rtnl, name: &str, address: IpAddr) -> Result<()> {
    let deadline = Instant::now() + CARRIER_DEADLINE;
    loop {
        let request = objects::match_route(address);
        let doing = || format!("look up the local route to {address}");
        let local = rtnl.get(request, doing, |message| match message {
            Message::Route(RouteNetlinkMessage::NewRoute(route)) => {
                Some(route.header.kind == RouteType::Local)
            }
            _ => None,
        });
        // A refusal means that no route leads there yet.
        if let Ok(Some(true)) = local {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::AddressNotReady {
                address,
                name: name.to_owned(),
                waited: CARRIER_DEADLINE,
            });
        }
        thread::sleep(CARRIER_POLL);
    }
}

/// Waits for the kernel to act on a new carrier: until then a link has no queue, and drops what it
/// is given to send.
fn await_operational(rtnl: &mut Rtnl, name: &str) -> Result<()> {
    let deadline = Instant::now() + CARRIER_DEADLINE;
    loop {
        let link = link::expect(rtnl, name)?;
        if link.is_usable() && link.operational {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::NoCarrier {
                name: name.to_owned(),
                waited: CARRIER_DEADLINE,
            });
        }
        thread::sleep(CARRIER_POLL);
    }
}

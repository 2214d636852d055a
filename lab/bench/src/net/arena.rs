//! Where daemon and generator meet: a namespace for each, joined by links.
//!
//! Owns the addresses. Every peer of the generator is an address of its own on the generator's end of a link, so
//! that any number of sessions needs no more links. Does not own what runs there.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::netns::Netns;

/// The namespaces of one measurement. They are gone when it is dropped and nothing runs in them.
#[derive(Debug)]
pub struct Arena {
    /// The daemon's.
    pub daemon: Netns,
    /// The generator's.
    pub generator: Netns,
    /// That of the traffic, where there is some: a network behind the daemon.
    pub prober: Option<Netns>,
    /// Links between daemon and generator.
    pub links: Vec<Link>,
}

/// One link.
#[derive(Clone, Debug)]
pub struct Link {
    /// Name of the daemon's end.
    pub daemon_end: String,
    /// Name of the generator's end.
    pub generator_end: String,
    /// The daemon's address, the first of a /16.
    pub daemon: Ipv4Addr,
    /// The generator's addresses.
    pub peers: Vec<Ipv4Addr>,
}

/// Length of the links' networks.
const SUBNET: u8 = 16;
/// The daemon's address on the link to the prober.
const PROBER_GATEWAY: &str = "10.19.0.1";

impl Arena {
    /// Builds it with one link for each number of peers in `links`.
    ///
    /// # Errors
    /// Not root, no `ip`, or the kernel refuses.
    pub fn build(links: &[usize], prober: bool) -> anyhow::Result<Self> {
        let daemon = Netns::create()?;
        let generator = Netns::create()?;
        // What an operator of a Linux router sets (FRR's manual lists the same): forward, hash by flow, leave
        // next hops on links without carrier alone, and do not repeat every route of a next-hop object when the
        // object changes.
        daemon.sysctl(&[
            ("ipv4/nexthop_compat_mode", "0"),
            ("ipv4/ip_forward", "1"),
            ("ipv4/fib_multipath_hash_policy", "1"),
            ("ipv4/conf/all/ignore_routes_with_linkdown", "1"),
            ("ipv4/conf/default/ignore_routes_with_linkdown", "1"),
        ])?;
        for namespace in [&daemon, &generator] {
            namespace.sysctl(&[
                ("ipv4/conf/all/rp_filter", "0"),
                ("ipv4/conf/default/rp_filter", "0"),
            ])?;
        }
        let mut arena = Self {
            daemon,
            generator,
            prober: None,
            links: Vec::new(),
        };
        for (number, peers) in links.iter().enumerate() {
            let link = Link::plan(number, *peers);
            arena.join(number, &link)?;
            arena.links.push(link);
        }
        if prober {
            arena.add_prober()?;
        }
        Ok(arena)
    }

    fn join(&self, number: usize, link: &Link) -> anyhow::Result<()> {
        let Link {
            daemon_end,
            generator_end,
            daemon,
            peers,
        } = link;
        let (near, far) = (mac(number, 1), mac(number, 2));
        self.generator.ip(&format!(
            "link add {generator_end} address {far} type veth peer name {daemon_end} address {near} netns {}\n",
            self.daemon.path()
        ))?;
        let mut ours = format!("address add {daemon}/{SUBNET} dev {daemon_end}\n");
        let mut theirs = String::new();
        // Neighbours are known from the start: thousands at once would exceed the limits of the kernel's table,
        // which a namespace shares with its host, and resolving them is not what is measured.
        let mut neighbours = String::new();
        for (place, peer) in peers.iter().enumerate() {
            let length = if place == 0 { SUBNET } else { 32 };
            let _ = writeln!(theirs, "address add {peer}/{length} dev {generator_end}");
            let _ = writeln!(
                neighbours,
                "neighbour add {peer} lladdr {far} nud permanent dev {daemon_end}"
            );
        }
        let _ = writeln!(ours, "link set {daemon_end} up");
        let _ = writeln!(theirs, "link set {generator_end} up");
        self.generator.ip(&theirs)?;
        self.daemon.ip(&ours)?;
        self.daemon.ip(&neighbours)?;
        self.generator.ip(&format!(
            "neighbour add {daemon} lladdr {near} nud permanent dev {generator_end}\n"
        ))
    }

    fn add_prober(&mut self) -> anyhow::Result<()> {
        let prober = Netns::create()?;
        prober.ip(&format!(
            "link add probe type veth peer name probed netns {}\n\
             address add 10.19.0.2/24 dev probe\n\
             link set probe up\n",
            self.daemon.path()
        ))?;
        self.daemon.ip(&format!(
            "address add {PROBER_GATEWAY}/24 dev probed\nlink set probed up\n"
        ))?;
        prober.ip(&format!("route add default via {PROBER_GATEWAY}\n"))?;
        self.prober = Some(prober);
        Ok(())
    }
}

impl Link {
    fn plan(number: usize, peers: usize) -> Self {
        let network = 10 << 24 | (20 + number as u32) << 16;
        let peer =
            |place: u32| Ipv4Addr::from_bits(network | (1 + place / 250) << 8 | (1 + place % 250));
        Self {
            daemon_end: format!("d{number}"),
            generator_end: format!("g{number}"),
            daemon: Ipv4Addr::from_bits(network | 1),
            peers: (0..peers as u32).map(peer).collect(),
        }
    }
}

fn mac(link: usize, end: u8) -> String {
    format!("02:ca:00:00:{link:02x}:{end:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn thousands_of_peers_have_addresses_of_their_own_in_the_links_network() {
        let link = Link::plan(1, 2_500);
        let distinct: HashSet<Ipv4Addr> = link.peers.iter().copied().collect();
        assert_eq!(distinct.len(), 2_500);
        assert!(!distinct.contains(&link.daemon));
        let inside = |address: &Ipv4Addr| address.octets()[..2] == [10, 21];
        assert!(distinct.iter().all(inside));
        assert!(
            distinct
                .iter()
                .all(|address| !matches!(address.octets()[3], 0 | 255))
        );
    }
}

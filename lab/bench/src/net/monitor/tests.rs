//! What the kernel says, read against what it was told.

use std::time::Duration;

use super::*;

fn namespace() -> Option<Netns> {
    match Netns::create() {
        Ok(namespace) => Some(namespace),
        Err(error) => {
            caracal_skip::missing!("{error:#}");
            None
        }
    }
}

fn prefix(text: &str) -> Prefix {
    let (address, len) = text.split_once('/').unwrap();
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    Prefix::new(address.to_bits(), len.parse().unwrap())
}

/// Waits until the monitor's table is as `wanted`, and says what it was last.
fn until(monitor: &Monitor, wanted: impl Fn(&Table) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !wanted(&monitor.table()) {
        assert!(Instant::now() < deadline, "{:?}", monitor.table());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn routes_are_known_by_the_number_of_their_ways_however_they_are_written() {
    let Some(namespace) = namespace() else {
        return;
    };
    namespace
        .ip("link add veth0 type veth peer name veth1\n\
             address add 10.1.0.1/24 dev veth0\naddress add 10.2.0.1/24 dev veth1\n\
             link set veth0 up\nlink set veth1 up\n")
        .unwrap();
    // Else the kernel repeats the routes of an object that changes.
    namespace
        .sysctl(&[("ipv4/nexthop_compat_mode", "0")])
        .unwrap();
    let monitor = Monitor::start(&namespace, None).unwrap();
    namespace
        .ip("route add 192.0.2.0/25 via 10.1.0.2\n\
             route add 192.0.2.128/25 nexthop via 10.1.0.2 nexthop via 10.2.0.2\n\
             nexthop add id 1 via 10.1.0.2 dev veth0\n\
             nexthop add id 2 via 10.2.0.2 dev veth1\n\
             nexthop add id 3 group 1/2\n\
             route add 198.51.100.0/24 nhid 3\n\
             route add 203.0.113.0/24 nhid 1\n\
             route add 233.252.0.0/24 nhid 3 table 7\n")
        .unwrap();
    until(&monitor, |table| {
        table.with_ways(2) == 2 && table.with_ways(1) == 2
    });
    let two: HashSet<Prefix> = ["192.0.2.128/25", "198.51.100.0/24"].map(prefix).into();
    assert_eq!(monitor.table().prefixes_with_ways(2), two);
    assert_eq!(monitor.table().messages.next_hop_updates, 3);
    assert_eq!(monitor.table().messages.routes, 4);
    let held = dump(&namespace).unwrap();
    assert_eq!(held.prefixes_with_ways(2), two);
    // One message, and a route has another number of ways.
    namespace.ip("nexthop replace id 3 group 1\n").unwrap();
    until(&monitor, |table| table.with_ways(2) == 1);
    assert_eq!(monitor.table().messages.routes, 4);
    namespace.ip("route del 192.0.2.128/25\n").unwrap();
    until(&monitor, |table| table.with_ways(2) == 0);
    assert!(dump(&namespace).unwrap().prefixes_with_ways(2).is_empty());
    assert!(!monitor.table().overrun);
}

#[test]
fn a_link_goes_down_and_up_again() {
    let Some(namespace) = namespace() else {
        return;
    };
    namespace
        .ip("link add veth0 type veth peer name veth1\nlink set veth0 up\nlink set veth1 up\n")
        .unwrap();
    // /sys belongs to the namespace in which it was mounted, so `ip` is asked.
    let carrier = || {
        namespace.run(None, || {
            let output = std::process::Command::new("ip")
                .args(["-o", "link", "show", "veth0"])
                .output()?;
            Ok(!String::from_utf8_lossy(&output.stdout).contains("NO-CARRIER"))
        })
    };
    assert!(carrier().unwrap());
    set_link(&namespace, "veth1", false).unwrap();
    assert!(!carrier().unwrap());
    set_link(&namespace, "veth1", true).unwrap();
    assert!(carrier().unwrap());
    let error = set_link(&namespace, "veth9", true).unwrap_err().to_string();
    assert!(error.contains("veth9"), "{error}");
}

#[test]
fn no_octets_bring_the_reader_down() {
    let mut rng = crate::rng::Rng::new(1);
    let mut table = Table::default();
    for _ in 0..20_000 {
        let mut octets: Vec<u8> = (0..rng.below(80)).map(|_| rng.number() as u8).collect();
        // Let some of them look like messages.
        if octets.len() >= 16 && rng.chance(800) {
            let length = octets.len() as u32;
            octets[..4].copy_from_slice(&length.to_ne_bytes());
            let kind = *rng.pick(&[NEW_ROUTE, DEL_ROUTE, NEW_NEXT_HOP, DEL_NEXT_HOP]);
            octets[4..6].copy_from_slice(&kind.to_ne_bytes());
            octets[16..]
                .iter_mut()
                .take(1)
                .for_each(|family| *family = INET);
        }
        table.read(&octets);
        ends(&octets, 3);
    }
}

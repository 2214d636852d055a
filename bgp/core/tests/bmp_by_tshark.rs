//! What we tell a BMP station, as tshark reads it.
//!
//! It takes the octets on standard input, so that nothing is left behind. Without the program a test
//! prints SKIP; `apt-get install tshark` brings it.

#![expect(
    clippy::unwrap_used,
    reason = "every function here serves a test, and a test ends at the first surprise"
)]

mod common;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use bytes::BytesMut;
use caracal_bgp_core::bmp::{
    self, Initiation, Instance, PeerDownReason, PeerHeader, PeerUp, Statistic, Table,
    TerminationReason,
};
use caracal_bgp_core::types::{Asn, Family, FamilySet, RouterId};
use caracal_bgp_core::wire::{Cease, Notification};
use common::{next_hop, open, prefix, run, update};

/// `octets` as TCP segments to [`PORT`] in a pcap file of raw IPv4 packets.
fn pcap(octets: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    // Magic, version 2.4, zone, accuracy, longest packet, link type 101: raw IP.
    file.extend_from_slice(&0xa1b2_c3d4_u32.to_be_bytes());
    file.extend_from_slice(&[0, 2, 0, 4]);
    for field in [0_u32, 0, 65_535, 101] {
        file.extend_from_slice(&field.to_be_bytes());
    }
    let mut sequence = 1_u32;
    for segment in octets.chunks(1400) {
        let length = u16::try_from(20 + 20 + segment.len()).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        packet.extend_from_slice(&40_000_u16.to_be_bytes());
        packet.extend_from_slice(&PORT.to_be_bytes());
        packet.extend_from_slice(&sequence.to_be_bytes());
        // Acknowledgement, header of five words, ACK and PSH, window, checksum, urgent pointer.
        packet.extend_from_slice(&[0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend_from_slice(segment);
        sequence = sequence.wrapping_add(u32::try_from(segment.len()).unwrap());
        let length = u32::try_from(packet.len()).unwrap();
        for field in [0, 0, length, length] {
            file.extend_from_slice(&u32::to_be_bytes(field));
        }
        file.extend_from_slice(&packet);
    }
    file
}

const PORT: u16 = 11_019;

/// The lines that tshark makes of one BMP message, without indentation.
fn dissected(message: &bmp::Message) -> Option<Vec<String>> {
    let mut octets = BytesMut::new();
    message.encode(&mut octets);
    dissected_octets(&octets)
}

fn dissected_octets(octets: &[u8]) -> Option<Vec<String>> {
    let mut tshark = Command::new("tshark");
    tshark
        .args(["-r", "-", "-V", "-O", "bmp,bgp", "-d"])
        .arg(format!("tcp.port=={PORT},bmp"));
    let text = run(&mut tshark, &pcap(octets))?;
    let lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    let complaints: Vec<&String> = lines
        .iter()
        .filter(|line| line.contains("Malformed") || line.contains("Expert Info"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:?} in\n{text}");
    Some(lines)
}

/// Asserts that each of `wanted` is, or ends, one of `lines`, in this order.
fn assert_in_order(lines: &[String], wanted: &[&str]) {
    let mut rest = lines.iter();
    for want in wanted {
        let found = rest.any(|line| line == want || line.ends_with(want));
        assert!(
            found,
            "no '{want}' where it belongs in\n{}",
            lines.join("\n")
        );
    }
}

fn peer(table: Table, address: &str) -> PeerHeader {
    PeerHeader {
        table,
        instance: Instance::Global,
        address: address.parse().unwrap(),
        asn: Asn(4_200_000_001),
        router_id: RouterId(0x0a00_0001),
        two_octet_as: false,
        time: Duration::from_micros(1_700_000_000_000_042),
    }
}

const PRE_POLICY: Table = Table::AdjRibIn { post_policy: false };

#[test]
fn tshark_reads_the_first_and_the_last_word_to_a_station() {
    let initiation = bmp::Message::Initiation(Initiation {
        system_description: "caracal 1.0".into(),
        system_name: "leaf1".into(),
        text: "hello".into(),
    });
    let lines = or_skip!(dissected(&initiation), "tshark");
    assert_in_order(
        &lines,
        &[
            "Type: Initiation Message (4)",
            "Type: sysDescr (1)",
            "Information: caracal 1.0",
            "Type: sysName (2)",
            "Information: leaf1",
            "Information: hello",
        ],
    );
    let termination = bmp::Message::Termination {
        reason: TerminationReason::OutOfResources,
        text: "bye".into(),
    };
    let lines = or_skip!(dissected(&termination), "tshark");
    assert_in_order(
        &lines,
        &[
            "Type: Termination Message (5)",
            // tshark 4.0 stops here.
            "Reason: Out of resources (2)",
        ],
    );
}

#[test]
fn tshark_reads_a_session_coming_up_with_both_opens() {
    for (address, local, shown, flag) in [
        (
            "192.0.2.1",
            "192.0.2.2",
            "Local Address: 192.0.2.2",
            "Not set",
        ),
        (
            "2001:db8::1",
            "2001:db8::2",
            "Local Address: 2001:db8::2",
            "Set",
        ),
    ] {
        let message = bmp::Message::PeerUp(Box::new(PeerUp {
            peer: peer(PRE_POLICY, address),
            local: SocketAddr::new(local.parse().unwrap(), 179),
            remote_port: 40_001,
            sent_open: open(65_000),
            received_open: open(4_200_000_001),
            table_name: String::new(),
            admin_label: String::new(),
            // tshark 4.0 takes what follows the OPENs for more BGP.
            text: String::new(),
        }));
        let lines = or_skip!(dissected(&message), "tshark");
        let ipv6 = format!(".... = IPv6: {flag}");
        assert_in_order(
            &lines,
            &[
                "Type: Peer Up Notification (3)",
                "Type: Global Instance Peer (0)",
                &ipv6,
                &format!("Address: {address}"),
                "ASN: 4200000001",
                "BGP ID: 10.0.0.1",
                "Timestamp (sec): 1700000000",
                "Timestamp (msec): 42",
                shown,
                "Local Port: 179",
                "Remote Port: 40001",
                "Type: OPEN Message (1)",
                "My AS: 65000",
                "Type: OPEN Message (1)",
                "My AS: 23456 (AS_TRANS)",
                "AS Number: 4200000001",
            ],
        );
    }
}

#[test]
fn tshark_reads_why_a_session_ended() {
    let cease = Notification::cease(Cease::AdministrativeShutdown, "maintenance");
    let limit = Notification::prefix_limit(Family::Ipv6Unicast.into(), 1000);
    let cases: [(PeerDownReason, &[&str]); 6] = [
        (
            PeerDownReason::LocalNotification(cease.clone()),
            &[
                "Reason: Local System, Notification (1)",
                "Type: NOTIFICATION Message (3)",
                "Major error Code: Cease (6)",
                "Minor error Code (Cease): Administratively Shutdown (2)",
                "Shutdown Communication: maintenance",
            ],
        ),
        (
            PeerDownReason::LocalEvent(18),
            &["Reason: Local System, No Notification (2)", "Data"],
        ),
        (
            PeerDownReason::RemoteNotification(limit),
            &[
                "Reason: Remote System, Notification (3)",
                "Minor error Code (Cease): Maximum Number of Prefixes Reached (1)",
            ],
        ),
        (
            PeerDownReason::RemoteClosed,
            &["Reason: Remote System, No Notification (4)"],
        ),
        (PeerDownReason::NoLongerMonitored, &["(5)"]),
        (
            PeerDownReason::LocalTable {
                table_name: "global".into(),
            },
            &["(6)"],
        ),
    ];
    for (reason, wanted) in cases {
        let message = bmp::Message::PeerDown {
            peer: peer(PRE_POLICY, "192.0.2.1"),
            reason,
        };
        let lines = or_skip!(dissected(&message), "tshark");
        assert_in_order(&lines, &["Type: Peer Down Notification (2)"]);
        assert_in_order(&lines, wanted);
    }
}

#[test]
fn tshark_reads_routes_of_every_table() {
    let v4 = update(prefix("10.1.2.0/24"), &next_hop("192.0.2.9"));
    let v6 = update(prefix("2001:db8:7::/48"), &next_hop("2001:db8::9"));
    let in_post = Table::AdjRibIn { post_policy: true };
    let out_post = Table::AdjRibOut { post_policy: true };
    let cases: [(Table, &str, &BytesMut, &[&str]); 4] = [
        (
            PRE_POLICY,
            "192.0.2.1",
            &v4,
            &["= Post-policy: Not set", "= Adj-RIB-Out: Not set"],
        ),
        (
            in_post,
            "192.0.2.1",
            &v4,
            &["= Post-policy: Set", "= Adj-RIB-Out: Not set"],
        ),
        (
            out_post,
            "2001:db8::1",
            &v6,
            &["= Post-policy: Set", "= Adj-RIB-Out: Set"],
        ),
        (
            Table::LocRib { filtered: true },
            "0.0.0.0",
            &v4,
            &["Type: Loc-RIB Instance Peer (3)", "= Loc-RIB: Set"],
        ),
    ];
    for (table, address, update, flags) in cases {
        let mut octets = BytesMut::new();
        bmp::route_monitoring(&peer(table, address), update, &mut octets);
        let lines = or_skip!(dissected_octets(&octets), "tshark");
        assert_in_order(&lines, &["Type: Route Monitoring (0)"]);
        assert_in_order(&lines, flags);
        let announced = if std::ptr::eq(update, &v4) {
            "10.1.2.0/24"
        } else {
            "2001:db8:7::/48"
        };
        assert_in_order(&lines, &["Type: UPDATE Message (2)", "4200000001 65002"]);
        assert_in_order(&lines, &["Multiple exit discriminator: 50"]);
        assert_in_order(&lines, &["Local preference: 200"]);
        assert!(
            lines.iter().any(|line| line.contains(announced)),
            "{}",
            lines.join("\n")
        );
    }
}

#[test]
fn tshark_reads_the_loc_rib_coming_up() {
    let families = Family::ALL;
    let up = PeerUp::of_loc_rib(Asn(65_000), RouterId(1), &families, FamilySet::EMPTY, "");
    let lines = or_skip!(dissected(&bmp::Message::PeerUp(Box::new(up))), "tshark");
    assert_in_order(
        &lines,
        &[
            "Type: Peer Up Notification (3)",
            "Type: Loc-RIB Instance Peer (3)",
            "ASN: 65000",
            "Type: OPEN Message (1)",
            "Type: OPEN Message (1)",
        ],
    );
}

#[test]
fn tshark_reads_every_count() {
    let of = Family::Ipv6Unicast.into();
    let counts: [(Statistic, &str); 18] = [
        (
            Statistic::RejectedByPolicy(11),
            "Number of prefixes rejected by inbound policy: 11",
        ),
        (
            Statistic::DuplicateAnnouncements(12),
            "Number of (known) duplicate prefix advertisements: 12",
        ),
        (
            Statistic::DuplicateWithdrawals(13),
            "Number of (known) duplicate withdraws: 13",
        ),
        (
            Statistic::ClusterListLoops(14),
            "Number of updates invalidated due to CLUSTER_LIST loop: 14",
        ),
        (
            Statistic::AsPathLoops(15),
            "Number of updates invalidated due to AS_PATH loop: 15",
        ),
        (
            Statistic::OriginatorLoops(16),
            "Number of updates invalidated due to ORIGINATOR_ID: 16",
        ),
        (
            Statistic::ConfederationLoops(17),
            "AS_CONFED_SEQUENCE or AS_CONFED_SET: 17",
        ),
        (
            Statistic::AdjRibIn(18),
            "Number of routes in Adj-RIBs-In: 18",
        ),
        (Statistic::LocRib(19), "Number of routes in Loc-RIB: 19"),
        (
            Statistic::AdjRibInOf(of, 20),
            "Number of routes in per-AFI/SAFI Adj-RIB-In: 20",
        ),
        (Statistic::LocRibOf(of, 21), ": 21"),
        (
            Statistic::UpdatesTreatedAsWithdraw(22),
            "Number of updates subjected to treat-as-withdraw: 22",
        ),
        (
            Statistic::PrefixesTreatedAsWithdraw(23),
            "Number of prefixes subjected to treat-as-withdraw: 23",
        ),
        (
            Statistic::DuplicateUpdates(24),
            "Number of duplicate update messages received: 24",
        ),
        (
            Statistic::AdjRibOutPrePolicy(25),
            "Number of routes in pre-policy Adj-RIBs-Out: 25",
        ),
        (
            Statistic::AdjRibOutPostPolicy(1 << 40),
            "Number of routes in post-policy Adj-RIBs-Out: 1099511627776",
        ),
        (
            Statistic::AdjRibOutPrePolicyOf(of, 27),
            "Number of routes in per-AFI/SAFI pre-policy Adj-RIB-Out: 27",
        ),
        (
            Statistic::AdjRibOutPostPolicyOf(of, 28),
            "Number of routes in per-AFI/SAFI post-policy Adj-RIB-Out: 28",
        ),
    ];
    let message = bmp::Message::Statistics {
        peer: peer(PRE_POLICY, "192.0.2.1"),
        values: counts.iter().map(|(count, _)| *count).collect(),
    };
    let lines = or_skip!(dissected(&message), "tshark");
    let wanted: Vec<&str> = counts.iter().map(|(_, line)| *line).collect();
    assert_in_order(&lines, &["Stats Count: 18"]);
    assert_in_order(&lines, &wanted);
}

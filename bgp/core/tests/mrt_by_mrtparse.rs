//! What we dump as MRT, as mrtparse reads it.
//!
//! It takes the octets on standard input, so that nothing is left behind. Without the program, of version 2
//! or later, a test prints SKIP; `make peers` or `pip install mrtparse` brings it.

#![expect(
    clippy::unwrap_used,
    reason = "every function here serves a test, and a test ends at the first surprise"
)]

mod common;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use caracal_bgp_core::fsm::State;
use caracal_bgp_core::mrt::{
    MessageForm, PeerEntry, PeerTable, Record, RibEntries, RibPath, Session,
};
use caracal_bgp_core::types::{Asn, Family, FamilySet, NextHop, Nlri, PathId, RouterId};
use caracal_bgp_core::wire::{Announcement, EncodeContext, Message};
use common::{attributes, bgp, next_hop, open, prefix, run, update};

/// Where `make peers` puts modules that distributions have in other versions.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/python");

/// Ends well where the module is there in a version that these tests know.
const HAS_MRTPARSE: &str = "
import mrtparse, sys
sys.exit(int(mrtparse.__version__.split('.')[0]) < 2)
";

/// Prints every record as a line of JSON.
const MRTPARSE: &str = "
import json, sys
from mrtparse import Reader
for record in Reader(sys.stdin.buffer):
    if record.err:
        sys.exit('%s: %s' % (record.err, record.err_msg))
    print(json.dumps(record.data))
";

fn parsed(records: &[Record]) -> Option<Vec<serde_json::Value>> {
    // The first that has the module: distributions and version managers each bring a Python.
    let has_it = |python: &&str| {
        let mut command = Command::new(python);
        let status = command
            .args(["-c", HAS_MRTPARSE])
            .env("PYTHONPATH", MODULES)
            .stderr(Stdio::null());
        status.status().is_ok_and(|status| status.success())
    };
    let python = ["python3", "/usr/bin/python3"].into_iter().find(has_it)?;
    let mut octets = BytesMut::new();
    for record in records {
        record.encode(&mut octets).unwrap();
    }
    let text = run(
        Command::new(python)
            .args(["-c", MRTPARSE])
            .env("PYTHONPATH", MODULES),
        &octets,
    )?;
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    Some(lines.collect())
}

/// The names in `value`, a map from numbers to names.
fn name(value: &serde_json::Value) -> Vec<String> {
    let names = value.as_object().unwrap().values();
    names
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

fn path(peer: u16, id: u32, next_hop: NextHop) -> RibPath {
    RibPath {
        peer,
        time: Duration::from_secs(1_600_000_000),
        id: PathId(id),
        next_hop,
        attributes: Arc::new(attributes()),
    }
}

/// The value of the attribute of this type in an entry of a table.
fn attribute<'a>(entry: &'a serde_json::Value, kind: &str) -> &'a serde_json::Value {
    let attributes = entry["path_attributes"].as_array().unwrap();
    let found = attributes
        .iter()
        .find(|attribute| attribute["type"].get(kind).is_some());
    &found.unwrap_or_else(|| panic!("no attribute {kind} in {entry}"))["value"]
}

#[test]
fn mrtparse_reads_a_dump_of_a_table() {
    let time = Duration::from_secs(1_700_000_000);
    let entry = |address: &str, asn| PeerEntry {
        router_id: RouterId(0x0a00_0001),
        address: address.parse().unwrap(),
        asn: Asn(asn),
    };
    let peers = Record::Peers {
        time,
        peers: PeerTable {
            collector: RouterId(0x0a00_0009),
            view: "main".into(),
            peers: vec![
                entry("192.0.2.1", 65_001),
                entry("2001:db8::1", 4_200_000_001),
            ],
        },
    };
    let rib = |sequence, text: &str, with_ids, paths| Record::Rib {
        time,
        rib: RibEntries {
            sequence,
            prefix: prefix(text),
            with_ids,
            paths,
        },
    };
    let v6 = NextHop::V6 {
        global: Ipv6Addr::from_bits(0x2001_0db8 << 96 | 9),
        link_local: None,
    };
    let v4 = NextHop::V4(Ipv4Addr::new(192, 0, 2, 9));
    let records = [
        peers,
        rib(
            0,
            "10.1.2.0/24",
            false,
            vec![path(0, 0, v4), path(1, 0, v4)],
        ),
        rib(1, "2001:db8:7::/48", false, vec![path(1, 0, v6)]),
        rib(2, "10.0.0.0/8", true, vec![path(0, 7, v4), path(0, 8, v4)]),
        rib(3, "::/0", true, vec![path(1, 4_000_000_000, v6)]),
    ];
    let seen = or_skip!(parsed(&records), "mrtparse");
    let subtypes: Vec<Vec<String>> = seen.iter().map(|record| name(&record["subtype"])).collect();
    assert_eq!(
        subtypes,
        [
            ["PEER_INDEX_TABLE"],
            ["RIB_IPV4_UNICAST"],
            ["RIB_IPV6_UNICAST"],
            ["RIB_IPV4_UNICAST_ADDPATH"],
            ["RIB_IPV6_UNICAST_ADDPATH"],
        ]
    );
    assert_eq!(seen[0]["collector_bgp_id"], "10.0.0.9");
    assert_eq!(seen[0]["view_name"], "main");
    assert_eq!(seen[0]["peer_entries"][1]["peer_ip"], "2001:db8::1");
    assert_eq!(seen[0]["peer_entries"][1]["peer_as"], "4200000001");
    let two = &seen[1];
    assert_eq!(
        (&two["prefix"], &two["length"]),
        (&"10.1.2.0".into(), &24.into())
    );
    assert_eq!(two["rib_entries"].as_array().unwrap().len(), 2);
    let first = &two["rib_entries"][0];
    assert_eq!(first["peer_index"], 0);
    assert_eq!(name_keys(&first["originated_time"]), ["1600000000"]);
    assert_eq!(attribute(first, "3"), "192.0.2.9");
    assert_eq!(attribute(first, "4"), 50);
    assert_eq!(attribute(first, "5"), 200);
    assert_eq!(
        attribute(first, "2")[0]["value"],
        serde_json::json!(["4200000001", "65002"])
    );
    assert_eq!(
        attribute(first, "8"),
        &serde_json::json!(["65000:7", "65535:65281"])
    );
    assert_eq!(attribute(first, "32"), &serde_json::json!(["65000:1:2"]));
    let reach = attribute(&seen[2]["rib_entries"][0], "14");
    assert_eq!(reach["next_hop"], serde_json::json!(["2001:db8::9"]));
    assert_eq!(seen[3]["rib_entries"][1]["path_id"], 8);
    assert_eq!(seen[4]["rib_entries"][0]["path_id"], 4_000_000_000_u32);
    assert_eq!(seen[4]["length"], 0);
}

fn name_keys(value: &serde_json::Value) -> Vec<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn mrtparse_reads_a_trace_of_a_session() {
    let time = Duration::from_micros(1_700_000_000_000_042);
    let session = Session {
        peer_asn: Asn(4_200_000_001),
        local_asn: Asn(65_000),
        interface: 3,
        peer: "2001:db8::1".parse().unwrap(),
        local: "2001:db8::2".parse().unwrap(),
    };
    let update = update(prefix("10.1.2.0/24"), &next_hop("192.0.2.9")).freeze();
    let message = |form, message| Record::Message {
        time,
        session,
        form,
        message,
    };
    let plain = MessageForm {
        four_octet_as: true,
        add_path: false,
        sent: false,
    };
    let context = EncodeContext {
        add_path: FamilySet::ALL,
        ..EncodeContext::default()
    };
    let mut with_ids = BytesMut::new();
    let nlri = Nlri {
        prefix: prefix("10.0.0.0/8"),
        id: PathId(77),
    };
    Announcement::new(
        &attributes(),
        &next_hop("192.0.2.9"),
        Family::Ipv4Unicast,
        context,
    )
    .unwrap()
    .write(&[nlri], context, &mut with_ids);
    let add_path = MessageForm {
        add_path: true,
        sent: true,
        ..plain
    };
    let records = [
        Record::StateChange {
            time,
            session,
            from: State::OpenConfirm,
            to: State::Established,
        },
        message(plain, update),
        message(add_path, with_ids.freeze()),
        message(plain, open(65_001)),
        message(plain, bgp(&Message::Keepalive)),
    ];
    let seen = or_skip!(parsed(&records), "mrtparse");
    let subtypes: Vec<Vec<String>> = seen.iter().map(|record| name(&record["subtype"])).collect();
    assert_eq!(
        subtypes,
        [
            ["BGP4MP_STATE_CHANGE_AS4"],
            ["BGP4MP_MESSAGE_AS4"],
            ["BGP4MP_MESSAGE_AS4_LOCAL_ADDPATH"],
            ["BGP4MP_MESSAGE_AS4"],
            ["BGP4MP_MESSAGE_AS4"],
        ]
    );
    assert_eq!(name(&seen[0]["old_state"]), ["OpenConfirm"]);
    assert_eq!(name(&seen[0]["new_state"]), ["Established"]);
    for record in &seen {
        assert_eq!(name(&record["type"]), ["BGP4MP_ET"]);
        assert_eq!(record["microsecond_timestamp"], 42);
        assert_eq!(record["peer_as"], "4200000001");
        assert_eq!(record["local_as"], "65000");
        assert_eq!(record["peer_ip"], "2001:db8::1");
        assert_eq!(record["local_ip"], "2001:db8::2");
        assert_eq!(record["ifindex"], 3);
    }
    let message = &seen[1]["bgp_message"];
    assert_eq!(name(&message["type"]), ["UPDATE"]);
    assert_eq!(message["nlri"][0]["prefix"], "10.1.2.0");
    assert_eq!(attribute(message, "5"), 200);
    assert_eq!(seen[2]["bgp_message"]["nlri"][0]["path_id"], 77);
    assert_eq!(name(&seen[3]["bgp_message"]["type"]), ["OPEN"]);
    assert_eq!(seen[3]["bgp_message"]["local_as"], 65_001);
    assert_eq!(name(&seen[4]["bgp_message"]["type"]), ["KEEPALIVE"]);
}

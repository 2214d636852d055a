//! Dumps of real speakers, read back by our own reader and by foreign ones.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::BytesMut;
use caracal_bgp_core::fsm::State;
use caracal_bgp_core::mrt::{self, PeerTable, Record, RibEntries};
use caracal_bgp_core::rib::{Rib, ToldPath};
use caracal_bgp_core::types::{NextHop, PathId};
use caracal_bgp_core::wire::{self, MessageType};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::*;
use crate::api::{DumpHeader, Response};
use crate::config::{AddPath, AddPathSend, MrtDump};
use crate::handle::{Dump, DumpPart};

/// One path: who told it, its identifier, where it leads, what it carries.
type Row = (IpAddr, PathId, NextHop, Arc<wire::PathAttributes>);
type Rows = BTreeMap<Prefix, Vec<Row>>;

/// All of a dump that has an end.
async fn dumped(speaker: &SpeakerHandle) -> Vec<u8> {
    let mut stream = speaker.dump(Dump::Table).await.unwrap();
    let mut octets = Vec::new();
    loop {
        match stream.next().await.unwrap() {
            DumpPart::Records(records) => octets.extend_from_slice(&records),
            DumpPart::Lost(count) => panic!("{count} records of a table are lost"),
            DumpPart::End => return octets,
        }
    }
}

fn records(octets: &[u8]) -> Vec<Record> {
    let mut stream = BytesMut::from(octets);
    let mut records = Vec::new();
    while let Some(record) = mrt::decode(&mut stream).unwrap() {
        records.push(record);
    }
    assert!(stream.is_empty(), "a record was cut");
    records
}

/// What a dump says, after its checks of order.
fn read(octets: &[u8]) -> (PeerTable, Rows) {
    let mut records = records(octets).into_iter();
    let Some(Record::Peers { peers, .. }) = records.next() else {
        panic!("a dump begins with its peers");
    };
    let mut rows = Rows::new();
    for (at, record) in records.enumerate() {
        let Record::Rib { rib, .. } = record else {
            panic!("{record:?} is no route");
        };
        let RibEntries {
            sequence,
            prefix,
            paths,
            ..
        } = rib;
        assert_eq!(sequence as usize, at);
        let path = |path: mrt::RibPath| {
            let peer = peers.peers[usize::from(path.peer)].address;
            (peer, path.id, path.next_hop, path.attributes)
        };
        let paths: Vec<Row> = paths.into_iter().map(path).collect();
        assert!(rows.insert(prefix, paths).is_none(), "{prefix} twice");
    }
    (peers, rows)
}

async fn held(speaker: &SpeakerHandle, own: RouterId) -> Rows {
    let (answer, held) = oneshot::channel();
    let look = move |rib: &Rib| {
        let routes = rib.routes(None).into_iter();
        let rows = routes.map(|route| {
            let row = |told: ToldPath| {
                let peer = told.path.source.peer().map(|peer| peer.address);
                let ourselves = || NextHop::ourselves(own, route.prefix.family());
                let next_hop = told.path.next_hop.unwrap_or_else(ourselves);
                let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                (
                    peer.unwrap_or(nobody),
                    told.id,
                    next_hop,
                    told.path.attributes,
                )
            };
            let told = rib.told_paths(&route.prefix).into_iter();
            (route.prefix, told.map(row).collect())
        });
        let _ = answer.send(rows.collect());
    };
    speaker.with_rib(look).await;
    held.await.unwrap()
}

fn originate(config: &mut SpeakerConfig, count: u32) {
    for number in 0..count {
        let [_, _, high, low] = number.to_be_bytes();
        let prefix = Prefix::v4([100, high, low, 0].into(), 24).unwrap();
        let own = Origination {
            med: Some(number % 7),
            communities: vec![wire::Community((65_002 << 16) | (number % 5))],
            ..Origination::default()
        };
        config.originate.insert(prefix, own);
    }
}

/// Three speakers in a row; the middle one is looked at. One of its peers tells several paths.
async fn three(
    change: impl FnOnce(&mut SpeakerConfig),
) -> (SpeakerConfig, [SpeakerHandle; 3], Lab) {
    let lab = Lab::new();
    let (mut a, mut b, mut c) = (
        lab.speaker(1, 65_001),
        lab.speaker(2, 65_002),
        lab.speaker(3, 65_003),
    );
    lab.link(&mut a, &mut b);
    lab.link(&mut a, &mut c);
    for (config, other) in [(&mut a, 2), (&mut b, 1)] {
        let several = AddPath {
            send: AddPathSend::All,
            receive: true,
        };
        let peer = config.peers.get_mut(&name(other)).unwrap();
        peer.add_path = Family::ALL.map(|family| (family, several)).into();
    }
    originate(&mut b, 1500);
    originate(&mut c, 20);
    // Usable as an address, which the small numbers of the lab are not.
    a.router_id = RouterId(0x0a63_0001);
    change(&mut a);
    let config = a.clone();
    let (a, b, c) = (start(a).await, start(b).await, start(c).await);
    let last = Prefix::v4([100, 5, 219, 0].into(), 24).unwrap();
    reachable(&a, last).await;
    reachable(&a, own(3, Family::Ipv6Unicast)).await;
    reachable(&a, own(2, Family::Ipv6Unicast)).await;
    let complete = |peer: &PeerSnapshot| {
        let families = peer.families();
        !families.is_empty() && families.iter().all(|family| family.end_of_rib_received)
    };
    for other in [2, 3] {
        until("every route has come", || peer(&a, other), complete).await;
    }
    (config, [a, b, c], lab)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_of_the_table_is_the_table_path_by_path() {
    let (config, [a, _b, _c], lab) = three(|_| {}).await;
    let octets = dumped(&a).await;
    let (peers, rows) = read(&octets);
    let held = held(&a, config.router_id).await;
    assert_eq!(rows.len(), 1500 + 6);
    assert_eq!(rows, held);
    assert_eq!(peers.collector, config.router_id);
    let named: Vec<(IpAddr, Asn)> = peers.peers.iter().map(|it| (it.address, it.asn)).collect();
    let expected = [
        (IpAddr::V4(Ipv4Addr::UNSPECIFIED), Asn(65_001)),
        (lab.address(2), Asn(65_002)),
        (lab.address(3), Asn(65_003)),
    ];
    assert_eq!(named, expected);
    let both = Prefix::v4([100, 0, 7, 0].into(), 24).unwrap();
    assert_eq!(rows[&both].len(), 2, "of both peers");
    assert_ne!(rows[&both][0].1, PathId(0), "with its identifier");
    by_mrtparse(&octets, &rows);
    by_bgpdump(&octets, &rows);
}

/// Where `make peers` puts modules that distributions have in other versions.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/python");

/// Ends well where the module is there in a version that this test knows.
const HAS_MRTPARSE: &str = "
import mrtparse, sys
sys.exit(int(mrtparse.__version__.split('.')[0]) < 2)
";

/// Prints every path of a table as a line of JSON.
const MRTPARSE: &str = "
import json, sys
from mrtparse import Reader
peers = None
for record in Reader(sys.argv[1]):
    if record.err:
        sys.exit('%s: %s' % (record.err, record.err_msg))
    data = record.data
    if 'peer_entries' in data:
        peers = data['peer_entries']
        continue
    for entry in data['rib_entries']:
        attributes = {}
        for attribute in entry['path_attributes']:
            attributes[list(attribute['type'])[0]] = attribute['value']
        print(json.dumps({
            'prefix': '%s/%d' % (data['prefix'], data['length']),
            'peer': peers[entry['peer_index']]['peer_ip'],
            'id': entry.get('path_id', 0),
            'attributes': attributes,
        }))
";

/// Compares with what mrtparse reads, attribute by attribute.
fn by_mrtparse(octets: &[u8], rows: &Rows) {
    let has_it = |python: &&str| {
        let mut command = Command::new(python);
        let tried = command
            .args(["-c", HAS_MRTPARSE])
            .env("PYTHONPATH", MODULES)
            .stderr(Stdio::null());
        tried.status().is_ok_and(|status| status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_it) else {
        return caracal_skip::skip!("mrtparse 2 is not installed");
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rib.mrt");
    std::fs::write(&path, octets).unwrap();
    let output = Command::new(python)
        .args(["-c", MRTPARSE])
        .env("PYTHONPATH", MODULES)
        .arg(&path)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut seen: BTreeMap<Prefix, Vec<serde_json::Value>> = BTreeMap::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let prefix = line["prefix"].as_str().unwrap().parse().unwrap();
        seen.entry(prefix).or_default().push(line);
    }
    assert_eq!(seen.len(), rows.len());
    for (prefix, paths) in rows {
        for ((peer, id, next_hop, attributes), line) in paths.iter().zip(&seen[prefix]) {
            assert_eq!(line["peer"], peer.to_string(), "{line}");
            assert_eq!(line["id"], id.0, "{line}");
            let carried = &line["attributes"];
            let hop = match carried.get("3") {
                Some(hop) => hop.clone(),
                None => carried["14"]["next_hop"][0].clone(),
            };
            let hop: IpAddr = hop.as_str().unwrap().parse().unwrap();
            assert_eq!(hop, next_hop.addr(), "{line}");
            let ases: Vec<String> = carried["2"]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|segment| segment["value"].as_array().unwrap())
                .map(|asn| asn.as_str().unwrap().to_owned())
                .collect();
            assert_eq!(ases.join(" "), attributes.as_path.to_string(), "{line}");
            let med = carried.get("4").map(|med| med.as_u64().unwrap());
            assert_eq!(med, attributes.med.map(u64::from), "{line}");
            let communities: Vec<String> = carried
                .get("8")
                .and_then(|list| list.as_array())
                .into_iter()
                .flatten()
                .map(|community| community.as_str().unwrap().to_owned())
                .collect();
            let carried: Vec<String> = attributes
                .communities
                .iter()
                .map(|community| format!("{}:{}", community.0 >> 16, community.0 & 0xffff))
                .collect();
            assert_eq!(communities, carried, "{line}");
        }
        assert_eq!(seen[prefix].len(), paths.len(), "{prefix}");
    }
}

/// Compares with what bgpdump reads.
fn by_bgpdump(octets: &[u8], rows: &Rows) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rib.mrt");
    std::fs::write(&path, octets).unwrap();
    let Ok(output) = Command::new("bgpdump").arg("-m").arg(&path).output() else {
        return caracal_skip::missing!("bgpdump is not installed");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let mut seen: BTreeMap<Prefix, usize> = BTreeMap::new();
    for line in text.lines() {
        let mut fields: Vec<&str> = line.split('|').collect();
        let prefix: Prefix = fields[5].parse().unwrap();
        let place = seen.entry(prefix).or_default();
        let (peer, id, next_hop, attributes) = &rows[&prefix][*place];
        *place += 1;
        if fields[0] == "TABLE_DUMP2_AP" {
            assert_eq!(fields.remove(6), id.to_string(), "{line}");
        } else {
            assert_eq!((fields[0], id.0), ("TABLE_DUMP2", 0), "{line}");
        }
        assert_eq!(fields[3].parse::<IpAddr>().unwrap(), *peer, "{line}");
        assert_eq!(fields[6], attributes.as_path.to_string(), "{line}");
        let hop: IpAddr = fields[8].parse().unwrap();
        assert_eq!(hop, next_hop.addr(), "{line}");
        let med = attributes.med.unwrap_or(0);
        assert_eq!(fields[10], med.to_string(), "{line}");
    }
    for (prefix, paths) in rows {
        assert_eq!(seen.get(prefix), Some(&paths.len()), "{prefix}\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_holds_every_message_and_every_change_of_state_as_it_was() {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut a, &mut b);
    let a = start(a).await;
    let mut stream = a.dump(Dump::Updates).await.unwrap();
    let (config, b) = (b.clone(), start(b).await);
    reachable(&a, own(2, Family::Ipv6Unicast)).await;
    let mut silent = config;
    silent.originate.clear();
    b.apply(silent).await.unwrap();
    gone(&a, own(2, Family::Ipv4Unicast)).await;
    b.shutdown(How::Cease {
        message: String::new(),
    })
    .await;

    let (mut states, mut kinds) = (Vec::new(), Vec::new());
    let (mut announced, mut withdrawn) = (Vec::new(), Vec::new());
    while !states.iter().any(|(from, _)| *from == State::Established) {
        let part = tokio::time::timeout(DEADLINE, stream.next()).await;
        let part = part.unwrap_or_else(|_| panic!("nothing came behind {states:?} {kinds:?}"));
        let DumpPart::Records(octets) = part.unwrap() else {
            panic!("records");
        };
        for record in records(&octets) {
            match record {
                Record::StateChange {
                    session, from, to, ..
                } => {
                    assert_eq!(session.peer, lab.address(2));
                    states.push((from, to));
                }
                Record::Message {
                    time,
                    session,
                    form,
                    message,
                } => {
                    assert_eq!(
                        (session.peer, session.local),
                        (lab.address(2), lab.address(1))
                    );
                    assert_eq!(
                        (session.peer_asn, session.local_asn),
                        (Asn(65_002), Asn(65_001))
                    );
                    assert!(form.four_octet_as && !form.add_path && !form.sent);
                    assert!(time > Duration::from_secs(1_600_000_000));
                    let (kind, length) = wire::message_at(&message).unwrap();
                    assert_eq!(length, message.len());
                    if !kinds.contains(&kind) {
                        kinds.push(kind);
                    }
                    if kind == MessageType::Update {
                        let context =
                            wire::DecodeContext::new(caracal_bgp_core::types::PeerKind::External);
                        let body = &message[wire::HEADER_LEN..];
                        let wire::UpdateOutcome::Valid(update) =
                            wire::decode_update(body, &context)
                        else {
                            panic!("{message:?}");
                        };
                        announced.extend(update.reach.into_iter().flat_map(|reach| reach.nlri));
                        withdrawn.extend(update.withdrawn.into_iter().flat_map(|(_, nlri)| nlri));
                    }
                }
                other => panic!("{other:?} in a trace"),
            }
        }
    }
    for kind in [
        MessageType::Open,
        MessageType::Keepalive,
        MessageType::Update,
        MessageType::Notification,
    ] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    assert!(
        states.contains(&(State::OpenConfirm, State::Established)),
        "{states:?}"
    );
    for family in Family::ALL {
        assert!(announced.contains(&own(2, family).into()), "{announced:?}");
        assert!(withdrawn.contains(&own(2, family).into()), "{withdrawn:?}");
    }
}

fn files(folder: &Path, kind: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(kind) && name.ends_with(".mrt")
    });
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_fills_with_tables_and_messages_while_it_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, [a, b, _c], _lab) = three(|config| {
        config.mrt = Some(MrtDump {
            directory: folder.path().to_owned(),
            updates: Some(Duration::from_secs(3600)),
            tables: Some(Duration::from_secs(1)),
        });
    })
    .await;
    let whole = || async { files(folder.path(), "rib.") };
    let holds_everything = |paths: &Vec<std::path::PathBuf>| {
        paths.last().is_some_and(|path| {
            let (_, rows) = read(&std::fs::read(path).unwrap());
            rows.len() == 1506
        })
    };
    until("a whole table", whole, holds_everything).await;
    config.mrt = None;
    a.apply(config).await.unwrap();
    let updates = files(folder.path(), "updates.");
    let [updates] = &updates[..] else {
        panic!("{updates:?}");
    };
    let length = std::fs::metadata(updates).unwrap().len();
    let messages = records(&std::fs::read(updates).unwrap());
    let opens = messages.iter().filter(|record| match record {
        Record::Message { message, .. } => {
            wire::message_at(message).is_some_and(|(kind, _)| kind == MessageType::Open)
        }
        _ => false,
    });
    assert!(opens.count() >= 2, "one of each peer");
    // Nothing more comes once it is configured no more.
    b.shutdown(How::GracefulRestart).await;
    let down = |peer: &PeerSnapshot| peer.state != SessionState::Established;
    until("the session is down", || peer(&a, 2), down).await;
    assert_eq!(std::fs::metadata(updates).unwrap().len(), length);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_comes_by_the_local_socket_header_by_header() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new();
    let mut config = lab.speaker(1, 65_001);
    config.router_id = RouterId(0x0a63_0001);
    originate(&mut config, 1200);
    let options = SpeakerOptions {
        api_socket: Some(folder.path().join("bgp.sock")),
        ..SpeakerOptions::default()
    };
    let socket = options.api_socket.clone().unwrap();
    let speaker = Speaker::start(config, None, options).await.unwrap();
    let mut stream = BufReader::new(UnixStream::connect(&socket).await.unwrap());
    let question = b"{\"verb\":\"dump\",\"what\":\"table\"}\n";
    stream.get_mut().write_all(question).await.unwrap();
    let mut octets = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        let (header, last): (DumpHeader, bool) = match serde_json::from_str(&line).unwrap() {
            Response::Part(header) => (header, false),
            Response::Ok(header) => (header, true),
            Response::Error(why) => panic!("{why}"),
        };
        let at = octets.len();
        octets.resize(at + header.octets, 0);
        stream.read_exact(&mut octets[at..]).await.unwrap();
        if last {
            break;
        }
    }
    let (_, rows) = read(&octets);
    assert_eq!(rows, held(&speaker, RouterId(0x0a63_0001)).await);
    assert_eq!(rows.len(), 1202);
    // The connection is good for more, and what it said cost nothing.
    stream
        .get_mut()
        .write_all(b"{\"verb\":\"peers\"}\n")
        .await
        .unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("{\"ok\""), "{line}");
}

//! Our side: `caracal speaker` as people run it, configured by manifests and asked by `caracal bgp`.
//!
//! Owns the processes and the manifests. Does not own what they should say.

use std::path::PathBuf;
use std::process::Command;

use caracal_bgp_core::types::Family;
use caracal_bgp_speaker::snapshot::{PeerSnapshot, RouteSnapshot, SessionState, SpeakerSnapshot};
use caracal_lab::process::Process;
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::arena::{self, Arena, DEADLINE, OURS_TO_SOURCES};
use crate::route::Route;
use crate::setup::{AddPath, OUR_ASN, OUR_ID, Setup, Transport, object};

/// What we call the router.
pub(crate) const ROUTER: &str = "router";
const PROGRAM: &str = env!("CARGO_BIN_EXE_caracal");

/// Our speaker in an arena.
pub(crate) struct Ours<'a> {
    arena: &'a Arena,
    internal: bool,
    speaker: Option<Process>,
    bfd: Option<Process>,
}

impl<'a> Ours<'a> {
    /// Writes the manifests; starts nothing but the BFD process where the setup wants it.
    pub(crate) fn new(arena: &'a Arena, setup: &Setup, own: &[Route]) -> Self {
        let mut ours = Self {
            arena,
            internal: setup.internal,
            speaker: None,
            bfd: None,
        };
        let text: String = manifests(setup, own)
            .iter()
            .map(|object| format!("---\n{}\n", serde_json::to_string_pretty(object).unwrap()))
            .collect();
        std::fs::write(ours.path("speaker.yaml"), text).unwrap();
        if setup.bfd {
            ours.bfd = Some(ours.run("bfd", &["bfd"]));
            let socket = ours.path("bfd.sock");
            arena::until("the BFD process", || {
                if socket.exists() {
                    Ok(())
                } else {
                    Err("no socket".to_owned())
                }
            });
        }
        ours
    }

    fn path(&self, name: &str) -> PathBuf {
        self.arena.our_folder().join(name)
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Process {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .env("CARACAL_RUN_DIR", self.arena.our_folder())
            .env("CARACAL_BFD_SOCKET", self.path("bfd.sock"))
            .env("NO_COLOR", "1");
        let log = self.path(&format!("{name}.log"));
        Process::start(name, &self.arena.ours, command, &log).unwrap()
    }

    pub(crate) fn start(&mut self) {
        let file = self.path("speaker.yaml").display().to_string();
        let arguments = ["speaker", "--node", "r1", "-f", &file];
        self.speaker = Some(self.run("speaker", &arguments));
    }

    /// Asks the router for all routes again.
    pub(crate) fn refresh(&self) {
        self.ask::<Value>(&["bgp", "clear", ROUTER, "--in"])
            .unwrap();
    }

    /// Kills the speaker without a chance to say good-bye.
    pub(crate) fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Asks the speaker to end, as a service manager does.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::SIGTERM);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut speaker) = self.speaker.take() {
            speaker.signal(signal);
            speaker.wait(DEADLINE).unwrap();
        }
    }

    /// `caracal` with these words, as JSON.
    pub(crate) fn ask<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T, String> {
        let output = Command::new(PROGRAM)
            .args(words)
            .args(["-o", "json"])
            .env("CARACAL_RUN_DIR", self.arena.our_folder())
            .output()
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    pub(crate) fn speaker(&self) -> Result<SpeakerSnapshot, String> {
        self.ask(&["bgp", "peers"])
    }

    /// The session with `name`.
    pub(crate) fn peer(&self, name: &str) -> Result<PeerSnapshot, String> {
        let found = self
            .speaker()?
            .peers
            .into_iter()
            .find(|peer| peer.name == name);
        found.ok_or_else(|| format!("there is no peer {name}"))
    }

    /// The session with the router, once it is up with End-of-RIB in all families.
    pub(crate) fn settled(&self, families: &[Family]) -> Result<PeerSnapshot, String> {
        let peer = self.peer(ROUTER)?;
        let ended = peer.families().iter().all(|f| f.end_of_rib_received);
        let carried = families
            .iter()
            .all(|family| peer.families().iter().any(|seen| seen.family == *family));
        if peer.state == SessionState::Established && carried && ended {
            return Ok(peer);
        }
        Err(format!("{peer:#?}"))
    }

    pub(crate) fn table(&self) -> Result<Vec<RouteSnapshot>, String> {
        self.ask(&["bgp", "routes"])
    }

    /// What we say that `peer` has told us, and whether all of it is fresh and used.
    pub(crate) fn told_by(&self, peer: &str) -> Result<Vec<(Route, Standing)>, String> {
        let table = self.table()?;
        let mut routes = Vec::new();
        for route in &table {
            for path in route.paths.iter().filter(|path| path.from == peer) {
                let standing = Standing {
                    stale: path.stale,
                    used: path.multipath,
                    rejected: path.rejected.clone(),
                };
                routes.push((Route::shown(route.prefix, path, self.internal), standing));
            }
        }
        Ok(routes)
    }

    /// The end of the speaker's log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("speaker.log")).unwrap_or_default()
    }
}

/// What has become of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Kept from before the peer's restart.
    pub(crate) stale: bool,
    /// Packets take it.
    pub(crate) used: bool,
    pub(crate) rejected: Option<String>,
}

/// Our manifests: what everybody would write for this session, and what the setup adds.
fn manifests(setup: &Setup, own: &[Route]) -> Vec<Value> {
    let advertised: Vec<Value> = own
        .iter()
        .map(|route| {
            let communities: Vec<&String> = route.communities.iter().chain(&route.large).collect();
            json!({"cidr": route.prefix, "communities": communities})
        })
        .collect();
    let mut configuration = json!({
        "asNumber": OUR_ASN,
        "routerID": OUR_ID,
        "nodeToNodeMeshEnabled": false,
        "transit": true,
        "holdTime": "30s",
        "originatedPrefixes": advertised,
    });
    extend(&mut configuration, &setup.configuration);
    let families: Vec<String> = setup.families.iter().map(ToString::to_string).collect();
    let mut peer = json!({
        "asNumber": setup.their_asn(),
        "families": families,
    });
    let mut more = Map::new();
    match setup.transport {
        Transport::V4 | Transport::V6 => {
            more.insert("peerIP".into(), json!(setup.their_address()));
            more.insert("localAddress".into(), json!(setup.our_address()));
        }
        Transport::Unnumbered => {
            more.insert("interface".into(), json!("e1"));
        }
    }
    if setup.extended_next_hop && setup.transport != Transport::Unnumbered {
        more.insert("extendedNextHop".into(), json!(true));
    }
    if setup.internal && !setup.internal_sources {
        more.insert("nextHopMode".into(), json!("Self"));
    }
    if setup.gtsm {
        more.insert("ttlSecurity".into(), json!(1));
    }
    if setup.bfd {
        more.insert(
            "bfd".into(),
            json!({
                "minimumTransmitInterval": "100ms",
                "minimumReceiveInterval": "100ms",
                "strict": true,
            }),
        );
    }
    let add_path = |send: &str, receive: bool| {
        let of = |family: &String| json!({"family": family, "send": send, "receive": receive});
        families.iter().map(of).collect::<Vec<_>>()
    };
    match setup.add_path {
        AddPath::Off => {}
        AddPath::Sends => {
            more.insert("addPath".into(), json!(add_path("None", true)));
        }
        AddPath::Receives => {
            more.insert("addPath".into(), json!(add_path("All", false)));
        }
    }
    let mut objects = Vec::new();
    if let Some(password) = &setup.password {
        let reference = json!({"secretKeyRef": {"name": "bgp", "key": ROUTER}});
        more.insert("password".into(), reference);
        objects.push(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "bgp"},
            "stringData": {ROUTER: password},
        }));
    }
    more.extend(setup.peer.clone());
    extend(&mut peer, &more);
    objects.push(object("BGPConfiguration", "default", configuration));
    objects.push(object("BGPPeer", ROUTER, peer));
    for number in 1..=setup.our_sources {
        let spec = json!({
            "peerIP": arena::source(number, Family::Ipv4Unicast),
            "localAddress": OURS_TO_SOURCES,
            "asNumber": setup.source_asn(),
            "passive": true,
        });
        objects.push(object("BGPPeer", &source_name(number), spec));
    }
    objects.extend(setup.objects.clone());
    objects
}

/// What we call scripted speaker number `number`.
pub(crate) fn source_name(number: u8) -> String {
    format!("source-{number}")
}

fn extend(spec: &mut Value, more: &Map<String, Value>) {
    if let Value::Object(fields) = spec {
        fields.extend(more.clone());
    }
}

//! What decides that peers are told the same: whatever has a say in it is part of what their group is
//! found by, and a change of any of it reaches the peers that it concerns, and no others.

use super::*;
use crate::fsm::PeerLongLived;
use crate::rib::sessions::{concerning, egress_config};
use crate::types::BgpRole;

/// Who tells routes: an external peer, and an internal one for which we do not reflect.
const TELLERS: [u32; 2] = [0, 3];
/// Who is told.
const RECEIVERS: [u32; 2] = [8, 9];
const RECEIVERS_ASN: Asn = Asn(65_009);

/// What is configured, and what was agreed with each peer.
#[derive(Clone, Debug)]
struct Scene {
    config: RibConfig,
    sessions: BTreeMap<u32, (Negotiated, Ends)>,
}

impl Scene {
    /// Two receivers that differ in nothing but their addresses.
    fn new(kind: PeerKind, add_path: FamilySet) -> Self {
        let mut config = config();
        let peers = std::mem::take(&mut config.peers);
        let mut sessions = BTreeMap::new();
        for peer in TELLERS {
            let policy = peers[&PeerIndex(peer)].clone();
            config.peers.insert(PeerIndex(peer), policy);
            sessions.insert(peer, (no_restart(peer), ends(peer)));
        }
        for peer in RECEIVERS {
            let policy = PeerPolicy {
                export: Arc::default(),
                client: kind == PeerKind::Internal,
                ..peers[&PeerIndex(0)].clone()
            };
            config.peers.insert(PeerIndex(peer), policy);
            let asn = match kind {
                PeerKind::Internal => US,
                PeerKind::External => RECEIVERS_ASN,
            };
            let mut terms = Negotiated::plain(US, asn, RouterId(100 + peer));
            terms.add_path.send = add_path;
            let ends = Ends {
                local_v4: Some([172, 16, 0, 99].into()),
                local_v6: Some(("2001:db8::99".parse().unwrap(), None)),
                ..ends(peer)
            };
            sessions.insert(peer, (terms, ends));
        }
        Self { config, sessions }
    }

    /// Without the other receiver.
    fn alone(&self, receiver: u32) -> Self {
        let mut alone = self.clone();
        let stays = |peer: u32| TELLERS.contains(&peer) || peer == receiver;
        alone.config.peers.retain(|peer, _| stays(peer.0));
        alone.sessions.retain(|peer, _| stays(*peer));
        alone
    }

    fn signature(&self, peer: u32) -> EgressConfig {
        let (terms, ends) = &self.sessions[&peer];
        let policy = &self.config.peers[&PeerIndex(peer)];
        egress_config(
            &self.config,
            policy,
            terms,
            &concerning(ends.clone(), terms),
        )
    }

    fn signatures(&self) -> usize {
        let all = self.sessions.keys().map(|peer| self.signature(*peer));
        all.collect::<std::collections::HashSet<_>>().len()
    }

    fn policy(&mut self, peer: u32) -> &mut PeerPolicy {
        self.config.peers.get_mut(&PeerIndex(peer)).unwrap()
    }

    fn terms(&mut self, peer: u32) -> &mut Negotiated {
        &mut self.sessions.get_mut(&peer).unwrap().0
    }

    fn ends(&mut self, peer: u32) -> &mut Ends {
        &mut self.sessions.get_mut(&peer).unwrap().1
    }
}

/// Routes of which some look different for each setting.
fn routes() -> Vec<(u32, Update)> {
    let with = |mut update: Update, change: &dyn Fn(&mut PathAttributes)| {
        change(update.attributes.as_mut().unwrap());
        update
    };
    let via = |mut update: Update, family, next_hop: &str, prefix: Prefix| {
        let next_hop: std::net::IpAddr = next_hop.parse().unwrap();
        update.reach[0] = Reach {
            family,
            next_hop: next_hop.into(),
            nlri: vec![prefix.into()],
        };
        update
    };
    let plain = |number| announcement(0, &[prefix(number)], &[]);
    let six: Prefix = "2001:db8:f::/64".parse().unwrap();
    vec![
        (0, plain(0)),
        // Numbers for private use, the receivers', and one of four octets.
        (
            0,
            announcement(0, &[prefix(1)], &[64_512, RECEIVERS_ASN.0, 70_000]),
        ),
        (0, with_long_lived(plain(2))),
        (0, with(plain(3), &|route| route.otc = Some(Asn(65_001)))),
        (0, via(plain(4), V4, "2001:db8::7", prefix(4))),
        // More than a message of the classic length holds.
        (
            0,
            with(plain(5), &|route| {
                route.communities = (1..=1_100).map(Community).collect();
            }),
        ),
        (0, plain(6)),
        (3, announcement(3, &[prefix(6)], &[1, 2, 3])),
        (3, announcement(3, &[prefix(8)], &[])),
        (0, via(plain(9), Family::Ipv6Unicast, "2001:db8::7", six)),
    ]
}

fn with_long_lived(mut update: Update) -> Update {
    let communities = &mut update.attributes.as_mut().unwrap().communities;
    communities.insert(Community::LLGR_STALE);
    update
}

/// A RIB and what it has told its receivers.
struct Told {
    rib: Rib,
    scene: Scene,
    generation: u64,
    ids: BTreeMap<u32, PeerId>,
    octets: BTreeMap<u32, Vec<u8>>,
    believed: BTreeMap<u32, BTreeMap<Nlri, String>>,
}

impl Told {
    fn new(scene: &Scene) -> Self {
        let config = scene.config.clone();
        let mut told = Self {
            rib: Rib::new(config, RibOptions::default(), &mut Vec::new()),
            scene: scene.clone(),
            generation: 0,
            ids: BTreeMap::new(),
            octets: BTreeMap::new(),
            believed: BTreeMap::new(),
        };
        for peer in scene.sessions.keys() {
            told.up(*peer);
        }
        for (teller, update) in routes() {
            told.handle(Event::Updates {
                peer: told.ids[&teller],
                updates: vec![update],
            });
        }
        told.pull();
        told
    }

    fn handle(&mut self, event: Event) {
        self.rib.handle(Instant::now(), event, &mut Vec::new());
    }

    fn up(&mut self, peer: u32) {
        self.generation += 1;
        let id = PeerId {
            index: PeerIndex(peer),
            generation: self.generation,
        };
        self.ids.insert(peer, id);
        self.octets.insert(peer, Vec::new());
        self.believed.insert(peer, BTreeMap::new());
        let (negotiated, ends) = self.scene.sessions[&peer].clone();
        self.handle(Event::PeerUp {
            peer: id,
            negotiated,
            ends,
        });
    }

    /// Goes over to `scene` as a speaker does: with a new session only where other terms are agreed on.
    fn become_like(&mut self, scene: &Scene) {
        let before = std::mem::replace(&mut self.scene, scene.clone());
        self.handle(Event::Configure(scene.config.clone()));
        for (peer, (terms, ends)) in &scene.sessions {
            let (terms_before, ends_before) = &before.sessions[peer];
            if terms != terms_before {
                self.handle(Event::PeerDown {
                    peer: self.ids[peer],
                    retain: Vec::new(),
                });
                self.up(*peer);
            } else if ends != ends_before {
                self.handle(Event::Relocated {
                    index: PeerIndex(*peer),
                    ends: ends.clone(),
                });
            }
        }
        self.pull();
    }

    fn pull(&mut self) {
        for (peer, id) in self.ids.clone() {
            while let Some(octets) = self.rib.pull(Instant::now(), id, 100) {
                self.octets.get_mut(&peer).unwrap().extend(&octets);
                self.hear(peer, &octets);
            }
        }
    }

    fn hear(&mut self, peer: u32, octets: &[u8]) {
        let (terms, _) = &self.scene.sessions[&peer];
        let context = DecodeContext {
            four_octet_as: terms.four_octet_as,
            add_path: terms.add_path.send,
            extended_next_hop: terms.extended_next_hop,
            ..DecodeContext::new(terms.peer_kind())
        };
        let believed = self.believed.get_mut(&peer).unwrap();
        let mut stream = BytesMut::from(octets);
        while let Some(frame) = wire::frame(&mut stream, terms.max_send_len).unwrap() {
            let outcome = wire::decode_update(&frame.body, &context);
            let UpdateOutcome::Valid(update) = outcome else {
                panic!("peer {peer} was told an invalid UPDATE: {outcome:?}");
            };
            for nlri in update.withdrawn.into_iter().flat_map(|(_, list)| list) {
                assert!(believed.remove(&nlri).is_some(), "withdrew the unknown");
            }
            for reach in update.reach {
                let told = format!("{:?} via {:?}", update.attributes, reach.next_hop);
                let nlri = reach.nlri.into_iter();
                believed.extend(nlri.map(|nlri| (nlri, told.clone())));
            }
        }
    }

    /// What a receiver believes, whatever identifiers its paths have.
    fn belief(&self, peer: u32) -> BTreeSet<(Prefix, &str)> {
        let believed = self.believed[&peer].iter();
        believed
            .map(|(nlri, told)| (nlri.prefix, told.as_str()))
            .collect()
    }

    /// Everybody believes what they would if it had been so from the beginning, and those with one
    /// signature are told together.
    fn check(&mut self, what: &str) {
        let fresh = Self::new(&self.scene);
        for receiver in RECEIVERS {
            let (seen, expected) = (self.belief(receiver), fresh.belief(receiver));
            assert_eq!(seen, expected, "receiver {receiver} after {what}");
        }
        let groups = self.rib.footprint().groups;
        assert_eq!(groups, self.scene.signatures(), "groups after {what}");
    }
}

/// A setting of one receiver, or of the speaker, and how it changes.
type Knob = (&'static str, fn(&mut Scene, u32));

const KNOBS: [Knob; 25] = [
    ("local_asn", |scene, peer| {
        scene.policy(peer).local_asn = Some(Asn(64_999));
        let terms = scene.terms(peer);
        if terms.peer_kind() == PeerKind::Internal {
            terms.peer_asn = Asn(64_999);
        }
        terms.local_asn = Asn(64_999);
    }),
    ("cluster_id", |scene, peer| {
        scene.policy(peer).cluster_id = Some(RouterId(77));
    }),
    ("cluster_id", |scene, _| {
        scene.config.cluster_id = RouterId(78);
    }),
    ("peer", |scene, peer| {
        let terms = scene.terms(peer);
        terms.peer_asn = match terms.peer_kind() {
            PeerKind::Internal => RECEIVERS_ASN,
            PeerKind::External => terms.local_asn,
        };
    }),
    ("role", |scene, peer| {
        scene.terms(peer).role = Some(BgpRole::Customer);
    }),
    ("role", |scene, peer| {
        scene.terms(peer).role = Some(BgpRole::Provider);
    }),
    ("replaced_asn", |scene, peer| {
        scene.policy(peer).as_override = true;
    }),
    ("private_as", |scene, peer| {
        scene.policy(peer).private_as = PrivateAs::Remove;
    }),
    ("private_as", |scene, peer| {
        scene.policy(peer).private_as = PrivateAs::Replace;
    }),
    ("told_paths", |scene, peer| {
        scene.policy(peer).told_paths = [Some(1); 2];
    }),
    ("long_lived", |scene, peer| {
        scene.terms(peer).long_lived = Some(vec![PeerLongLived {
            family: V4,
            forwarding: true,
            stale_time: RESTART,
        }]);
    }),
    ("extended_next_hop", |scene, peer| {
        scene.terms(peer).extended_next_hop = true;
    }),
    ("client", |scene, peer| {
        scene.policy(peer).client ^= true;
    }),
    ("transit", |scene, _| scene.config.transit = false),
    ("families", |scene, peer| {
        scene.terms(peer).families = vec![V4]
    }),
    ("next_hop_mode", |scene, peer| {
        scene.policy(peer).next_hop_mode = NextHopMode::Self_;
    }),
    ("next_hop_mode", |scene, peer| {
        scene.policy(peer).next_hop_mode = NextHopMode::Keep;
    }),
    ("self_v4", |scene, peer| {
        scene.policy(peer).next_hop_v4 = Some([192, 0, 2, 1].into());
    }),
    ("self_v4", |scene, peer| {
        scene.ends(peer).local_v4 = Some([192, 0, 2, 2].into());
    }),
    ("self_v6", |scene, peer| {
        scene.policy(peer).next_hop_v6 = Some("2001:db8::2".parse().unwrap());
    }),
    ("self_v6", |scene, peer| scene.ends(peer).local_v6 = None),
    ("subnets", |scene, peer| {
        scene.ends(peer).subnets = vec!["172.16.1.0/24".parse().unwrap()];
    }),
    ("policy", |scene, peer| {
        let low = Policy::only("low", vec![PrefixMatch::orlonger(prefix(0))]);
        scene.policy(peer).export = Arc::new(low);
    }),
    ("encode", |scene, peer| {
        scene.terms(peer).four_octet_as = false
    }),
    ("encode", |scene, peer| {
        scene.terms(peer).max_send_len = wire::MAX_EXTENDED_LEN;
    }),
];

/// What has no say in what a peer is told.
fn irrelevant(scene: &mut Scene, peer: u32) {
    let policy = scene.policy(peer);
    policy.import = Arc::new(Policy::reject_all());
    policy.allowed_own_as = 3;
    policy.validate_origin = OriginCheck::Direct;
    policy.graceful_restart ^= true;
    policy.max_prefixes[0] = Some(MaxPrefixes {
        limit: 1,
        warn_at: 1,
        terminates: true,
    });
    let terms = scene.terms(peer);
    terms.peer_router_id = RouterId(7_000 + peer);
    terms.hold_time = Duration::ZERO;
    terms.enhanced_route_refresh = true;
    terms.add_path.receive = FamilySet::ALL;
    terms.graceful_restart = negotiated(peer).graceful_restart;
    let ends = scene.ends(peer);
    ends.peer = [172, 16, 2, peer as u8].into();
    ends.interface = Some(77);
    ends.interface_name = Some("eth7".to_owned());
}

/// Each setting, and whether it differs. A setting that is not here does not compile.
fn compared(a: &EgressConfig, b: &EgressConfig) -> [(&'static str, bool); 18] {
    let EgressConfig {
        local_asn,
        cluster_id,
        peer,
        role,
        replaced_asn,
        private_as,
        told_paths,
        long_lived,
        extended_next_hop,
        client,
        transit,
        families,
        next_hop_mode,
        self_v4,
        self_v6,
        subnets,
        policy,
        encode,
    } = a;
    [
        ("local_asn", *local_asn != b.local_asn),
        ("cluster_id", *cluster_id != b.cluster_id),
        ("peer", *peer != b.peer),
        ("role", *role != b.role),
        ("replaced_asn", *replaced_asn != b.replaced_asn),
        ("private_as", *private_as != b.private_as),
        ("told_paths", *told_paths != b.told_paths),
        ("long_lived", *long_lived != b.long_lived),
        (
            "extended_next_hop",
            *extended_next_hop != b.extended_next_hop,
        ),
        ("client", *client != b.client),
        ("transit", *transit != b.transit),
        ("families", *families != b.families),
        ("next_hop_mode", *next_hop_mode != b.next_hop_mode),
        ("self_v4", *self_v4 != b.self_v4),
        ("self_v6", *self_v6 != b.self_v6),
        ("subnets", *subnets != b.subnets),
        ("policy", *policy != b.policy),
        ("encode", *encode != b.encode),
    ]
}

fn differing(a: &EgressConfig, b: &EgressConfig) -> Vec<&'static str> {
    let settings = compared(a, b).into_iter();
    let differing: Vec<_> = settings.filter(|(_, differs)| *differs).collect();
    assert_eq!(a != b, !differing.is_empty());
    differing.into_iter().map(|(setting, _)| setting).collect()
}

fn bases() -> [Scene; 3] {
    [
        Scene::new(PeerKind::External, FamilySet::EMPTY),
        Scene::new(PeerKind::Internal, FamilySet::EMPTY),
        Scene::new(PeerKind::External, FamilySet::ALL),
    ]
}

#[test]
fn a_change_of_any_setting_regroups_and_retells_the_peer_and_no_other() {
    let [_, changed] = RECEIVERS;
    let mut turned = BTreeSet::new();
    for (at, (setting, turn)) in KNOBS.into_iter().enumerate() {
        let mut shows = false;
        for before in bases() {
            let mut after = before.clone();
            turn(&mut after, changed);
            let settings = differing(&before.signature(changed), &after.signature(changed));
            // Without IPv6 our IPv6 address has no say either.
            assert!(
                settings.contains(&setting),
                "{setting} ({at}): {settings:?}"
            );
            turned.insert(setting);
            let mut told = Told::new(&before);
            told.become_like(&after);
            told.check(setting);
            let octets = |scene| Told::new(scene).octets.remove(&changed);
            shows |= octets(&before.alone(changed)) != octets(&after.alone(changed));
        }
        assert!(shows, "no route is told otherwise with {setting} ({at})");
    }
    let any = bases()[0].signature(changed);
    let every = compared(&any, &any).map(|(setting, _)| setting);
    assert_eq!(turned, BTreeSet::from(every), "every setting was turned");
}

fn any_knobs() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..KNOBS.len(), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn peers_of_one_signature_are_told_the_same_octets(
        base in 0_usize..3,
        both in any_knobs(),
        one in prop::option::weighted(0.4, 0..KNOBS.len()),
    ) {
        let mut scene = bases()[base].clone();
        for at in both {
            for receiver in RECEIVERS {
                KNOBS[at].1(&mut scene, receiver);
            }
        }
        let [first, second] = RECEIVERS;
        irrelevant(&mut scene, second);
        if let Some(at) = one {
            KNOBS[at].1(&mut scene, second);
        }
        let mut told = Told::new(&scene);
        prop_assert_eq!(told.rib.footprint().groups, scene.signatures());
        let alone = RECEIVERS.map(|receiver| Told::new(&scene.alone(receiver)));
        if scene.signature(first) == scene.signature(second) {
            prop_assert_eq!(&alone[0].octets[&first], &alone[1].octets[&second]);
        }
        for (alone, receiver) in alone.iter().zip(RECEIVERS) {
            prop_assert_eq!(told.belief(receiver), alone.belief(receiver));
        }
    }

    #[test]
    fn settings_change_back_and_forth_and_the_last_word_counts(
        base in 0_usize..3,
        steps in prop::collection::vec(
            (0_usize..2, prop::option::weighted(0.8, 0..KNOBS.len())),
            1..6,
        ),
    ) {
        let first = bases()[base].clone();
        let mut told = Told::new(&first);
        let mut scene = first.clone();
        for (receiver, knob) in steps {
            match knob {
                Some(at) => KNOBS[at].1(&mut scene, RECEIVERS[receiver]),
                None => scene = first.clone(),
            }
            told.become_like(&scene);
            told.check("a change");
        }
    }
}

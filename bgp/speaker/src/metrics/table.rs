//! The metrics, one by one: names, labels, and what is read for them.
//!
//! Owns the table and nothing beside.

use std::time::Duration;

use caracal_metrics::{Metric, Read, Sample};

use crate::snapshot::{
    FamilySnapshot, ForwardingSnapshot, PeerSnapshot, SessionState, SpeakerSnapshot,
};
use crate::status::{Direction, MessageCounts};

/// The value of a further label, where there is one, and a count.
type Counted = (Option<&'static str>, u64);

/// Every metric of the speaker, in the order of the documentation.
pub(super) const METRICS: &[Metric<SpeakerSnapshot>] = &[
    Metric {
        name: "caracal_bgp_session_state",
        labels: &["peer", "state"],
        help: "1 for the state that a session is in, 0 for the others",
        read: Read::Gauge(|speaker| {
            let states = |peer: &PeerSnapshot| {
                STATES.map(|state| {
                    let labels = vec![peer.name.clone(), state.to_string().to_lowercase()];
                    Sample(labels, u64::from(peer.state == state))
                })
            };
            speaker.peers.iter().flat_map(states).collect()
        }),
    },
    Metric {
        name: "caracal_bgp_session_up",
        labels: &["peer", "peer_asn"],
        help: "Whether the session is established",
        read: Read::Gauge(|speaker| with_asn(speaker, is_up)),
    },
    Metric {
        name: "caracal_bgp_session_admin_enabled",
        labels: &["peer", "peer_asn"],
        help: "0 where the configuration keeps the session down",
        read: Read::Gauge(|speaker| with_asn(speaker, |peer| peer.admin_enabled)),
    },
    Metric {
        name: "caracal_bgp_session_established_timestamp_seconds",
        labels: &["peer"],
        help: "When the session came up, since the Unix epoch; absent while it is down",
        read: Read::Gauge(|speaker| {
            each(speaker, |peer| is_up(peer).then_some(peer.since_ms / 1000))
        }),
    },
    Metric {
        name: "caracal_bgp_session_established_total",
        labels: &["peer"],
        help: "How often the session came up",
        read: Read::Counter(|speaker| each(speaker, |peer| Some(peer.established_count))),
    },
    Metric {
        name: "caracal_bgp_session_flaps_total",
        labels: &["peer", "reason"],
        help: "How often a session that was up ended, by reason",
        read: Read::Counter(|speaker| {
            let of = |peer: &PeerSnapshot| -> Vec<Sample> {
                let flaps = peer.counters.flaps.iter();
                flaps
                    .map(|(reason, count)| {
                        let labels = vec![peer.name.clone(), reason.word().to_owned()];
                        Sample(labels, *count)
                    })
                    .collect()
            };
            speaker.peers.iter().flat_map(of).collect()
        }),
    },
    Metric {
        name: "caracal_bgp_notifications_total",
        labels: &["peer", "direction", "code", "subcode"],
        help: "NOTIFICATIONs by the numbers of RFC 4271; code 0 for those beyond the first 128 kinds",
        read: Read::Counter(|speaker| {
            let of = |peer: &PeerSnapshot| -> Vec<Sample> {
                let notifications = peer.counters.notifications.iter();
                notifications
                    .map(|seen| {
                        let labels = vec![
                            peer.name.clone(),
                            direction(seen.direction).to_owned(),
                            seen.code.to_string(),
                            seen.subcode.to_string(),
                        ];
                        Sample(labels, seen.count)
                    })
                    .collect()
            };
            speaker.peers.iter().flat_map(of).collect()
        }),
    },
    Metric {
        name: "caracal_bgp_messages_total",
        labels: &["peer", "direction", "type"],
        help: "Messages by type",
        read: Read::Counter(|speaker| by_direction(speaker, messages)),
    },
    Metric {
        name: "caracal_bgp_message_bytes_total",
        labels: &["peer", "direction"],
        help: "Octets of messages, headers included",
        read: Read::Counter(|speaker| by_direction(speaker, |counts| vec![(None, counts.octets)])),
    },
    Metric {
        name: "caracal_bgp_malformed_updates_total",
        labels: &["peer", "outcome"],
        help: "Faults in UPDATEs that cost no session (RFC 7606)",
        read: Read::Counter(|speaker| {
            let of = |peer: &PeerSnapshot| {
                let counters = &peer.counters;
                let sample = |outcome: &str, count| {
                    Sample(vec![peer.name.clone(), outcome.to_owned()], count)
                };
                [
                    sample("attribute-discard", counters.discarded_attributes),
                    sample("treat-as-withdraw", counters.treated_as_withdraw),
                ]
            };
            speaker.peers.iter().flat_map(of).collect()
        }),
    },
    Metric {
        name: "caracal_bgp_prefixes",
        labels: &["peer", "family", "stage"],
        help: "Routes of a peer: received, accepted, rejected, stale, advertised",
        read: Read::Gauge(|speaker| {
            let of = |peer: &PeerSnapshot| -> Vec<Sample> {
                let families = peer.families().iter();
                families.flat_map(|family| stages(peer, family)).collect()
            };
            speaker.peers.iter().flat_map(of).collect()
        }),
    },
    Metric {
        name: "caracal_bgp_end_of_rib",
        labels: &["peer", "family", "direction"],
        help: "Whether End-of-RIB has passed in this session: until then a table is not whole",
        read: Read::Gauge(|speaker| {
            let of = |peer: &PeerSnapshot| -> Vec<Sample> {
                let families = peer.families().iter();
                families
                    .flat_map(|family| {
                        let sample = |direction: &str, seen| {
                            let labels = [&peer.name, &family.family.to_string(), direction];
                            Sample(labels.map(str::to_owned).to_vec(), u64::from(seen))
                        };
                        [
                            sample("received", family.end_of_rib_received),
                            sample("sent", family.end_of_rib_sent),
                        ]
                    })
                    .collect()
            };
            speaker.peers.iter().flat_map(of).collect()
        }),
    },
    Metric {
        name: "caracal_bgp_untold_changes",
        labels: &["peer"],
        help: "Changes of routes that the peer has not been told yet, before policy",
        read: Read::Gauge(|speaker| {
            each(speaker, |peer| {
                let routes = peer.routes.as_ref().filter(|_| is_up(peer))?;
                Some(routes.untold as u64)
            })
        }),
    },
    Metric {
        name: "caracal_bgp_range_peers",
        labels: &["range"],
        help: "Peers that a range has let in",
        read: Read::Gauge(|speaker| {
            let ranges = speaker.ranges.iter();
            ranges.map(|it| one(&it.name, it.used as u64)).collect()
        }),
    },
    Metric {
        name: "caracal_bgp_range_limit",
        labels: &["range"],
        help: "Peers that a range may let in",
        read: Read::Gauge(|speaker| {
            let ranges = speaker.ranges.iter();
            ranges.map(|it| one(&it.name, it.limit as u64)).collect()
        }),
    },
    Metric {
        name: "caracal_bgp_selection_deferred",
        labels: &[],
        help: "Whether selection still waits for peers after a restart",
        read: Read::Gauge(|speaker| {
            let rib = speaker.rib.iter();
            rib.map(|rib| Sample(Vec::new(), u64::from(rib.deferring)))
                .collect()
        }),
    },
    Metric {
        name: "caracal_bgp_rib_prefixes",
        labels: &[],
        help: "Prefixes in the table, rejected ones included",
        read: Read::Gauge(|speaker| {
            let rib = speaker.rib.iter();
            rib.map(|rib| Sample(Vec::new(), rib.prefixes as u64))
                .collect()
        }),
    },
    Metric {
        name: "caracal_bgp_update_to_fib_seconds",
        labels: &["family"],
        help: "From the arrival of an UPDATE to the kernel's acknowledgement of each route that it \
               changed, withdrawals included",
        read: Read::Histogram(|speaker| {
            let families = forwarding(speaker).flat_map(|it| &it.update_to_fib);
            families
                .map(|it| Sample(vec![it.family.to_string()], it.took.clone()))
                .collect()
        }),
    },
    Metric {
        name: "caracal_bgp_best_path_changes_total",
        labels: &["family"],
        help: "How often what peers are told has changed",
        read: Read::Counter(|speaker| {
            let families = speaker.rib.iter().flat_map(|rib| &rib.fib);
            families
                .map(|fib| one(&fib.family.to_string(), fib.best_path_changes))
                .collect()
        }),
    },
    Metric {
        name: "caracal_fib_routes",
        labels: &["family", "state"],
        help: "Routes on their way to the kernel: pending, installed, failed",
        read: Read::Gauge(|speaker| {
            let families = speaker.rib.iter().flat_map(|rib| &rib.fib);
            families
                .flat_map(|fib| {
                    let sample = |state: &str, count: usize| {
                        let labels = vec![fib.family.to_string(), state.to_owned()];
                        Sample(labels, count as u64)
                    };
                    [
                        sample("pending", fib.pending),
                        sample("installed", fib.installed),
                        sample("failed", fib.failed),
                    ]
                })
                .collect()
        }),
    },
    Metric {
        name: "caracal_fib_apply_seconds",
        labels: &["outcome"],
        help: "How long batches of writes to the kernel took, by outcome: acknowledged, refused in \
               part, failed",
        read: Read::Histogram(|speaker| {
            let writes = forwarding(speaker).flat_map(|it| &it.writes);
            writes
                .map(|it| Sample(vec![it.outcome.clone()], it.took.clone()))
                .collect()
        }),
    },
    Metric {
        name: "caracal_fib_drift_total",
        labels: &["kind"],
        help: "What others changed in the kernel and was put right, by kind: routes missing or \
               replaced, stray ones with our mark, next-hop",
        read: Read::Counter(|speaker| {
            let repairs = forwarding(speaker).flat_map(|it| &it.repairs);
            repairs.map(|it| one(&it.kind, it.count)).collect()
        }),
    },
    Metric {
        name: "caracal_bfd_session_up",
        labels: &["peer"],
        help: "Whether BFD says that the path to the peer works; absent where nobody asked it to",
        read: Read::Gauge(|speaker| {
            each(speaker, |peer| {
                peer.bfd.as_ref().map(|bfd| u64::from(bfd.state == "Up"))
            })
        }),
    },
    Metric {
        name: "caracal_bfd_detect_seconds",
        labels: &["peer"],
        help: "How long nothing had been heard when BFD last took the path for dead; absent before",
        read: Read::Seconds(|speaker| {
            let peers = speaker.peers.iter();
            let detected = peers.filter_map(|peer| {
                let us = peer.bfd.as_ref()?.detected_us?;
                Some(Sample(vec![peer.name.clone()], Duration::from_micros(us)))
            });
            detected.collect()
        }),
    },
    Metric {
        name: "caracal_channel_depth",
        labels: &["channel"],
        help: "What waits inside the speaker: inputs of the RIB, routes for the FIB, records for \
               those who dump messages",
        read: Read::Gauge(|speaker| {
            let channels = speaker.channels.iter();
            channels.map(|it| one(&it.name, it.depth as u64)).collect()
        }),
    },
    Metric {
        name: "caracal_channel_drops_total",
        labels: &["channel"],
        help: "What was left out as its reader was too slow: only records may be",
        read: Read::Counter(|speaker| {
            let channels = speaker.channels.iter();
            channels
                .filter_map(|it| Some(one(&it.name, it.dropped?)))
                .collect()
        }),
    },
];

const STATES: [SessionState; 6] = [
    SessionState::Idle,
    SessionState::Connect,
    SessionState::Active,
    SessionState::OpenSent,
    SessionState::OpenConfirm,
    SessionState::Established,
];

/// What the way to the kernel takes, where there is one.
fn forwarding(speaker: &SpeakerSnapshot) -> impl Iterator<Item = &ForwardingSnapshot> {
    speaker.forwarding.iter()
}

fn is_up(peer: &PeerSnapshot) -> bool {
    peer.state == SessionState::Established
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Received => "received",
        Direction::Sent => "sent",
    }
}

fn one(label: &str, value: u64) -> Sample {
    Sample(vec![label.to_owned()], value)
}

/// One series per peer that has the number.
fn each(speaker: &SpeakerSnapshot, value: fn(&PeerSnapshot) -> Option<u64>) -> Vec<Sample> {
    let peers = speaker.peers.iter();
    peers
        .filter_map(|peer| Some(one(&peer.name, value(peer)?)))
        .collect()
}

/// One series per peer, with its AS where that is known.
fn with_asn(speaker: &SpeakerSnapshot, holds: fn(&PeerSnapshot) -> bool) -> Vec<Sample> {
    let of = |peer: &PeerSnapshot| {
        let asn = peer.asn.map(|asn| asn.0.to_string());
        let labels = vec![peer.name.clone(), asn.unwrap_or_default()];
        Sample(labels, u64::from(holds(peer)))
    };
    speaker.peers.iter().map(of).collect()
}

/// Series of each peer and direction, with one more label where `counts` gives it.
fn by_direction(
    speaker: &SpeakerSnapshot,
    counts: fn(&MessageCounts) -> Vec<Counted>,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    for peer in &speaker.peers {
        let both = [
            (Direction::Received, &peer.counters.received),
            (Direction::Sent, &peer.counters.sent),
        ];
        for (way, counted) in both {
            for (label, count) in counts(counted) {
                let labels = [Some(&*peer.name), Some(direction(way)), label];
                let labels = labels.into_iter().flatten().map(str::to_owned);
                samples.push(Sample(labels.collect(), count));
            }
        }
    }
    samples
}

fn messages(counts: &MessageCounts) -> Vec<Counted> {
    vec![
        (Some("open"), counts.open),
        (Some("update"), counts.update),
        (Some("notification"), counts.notification),
        (Some("keepalive"), counts.keepalive),
        (Some("route-refresh"), counts.route_refresh),
    ]
}

fn stages(peer: &PeerSnapshot, family: &FamilySnapshot) -> [Sample; 5] {
    let rejected = family.received.saturating_sub(family.accepted);
    [
        ("received", family.received),
        ("accepted", family.accepted),
        ("rejected", rejected),
        ("stale", family.stale),
        ("advertised", family.advertised),
    ]
    .map(|(stage, count)| {
        let labels = [&peer.name, &family.family.to_string(), stage];
        Sample(labels.map(str::to_owned).to_vec(), count as u64)
    })
}

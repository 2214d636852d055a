//! What the speaker counts, for Prometheus.
//!
//! Owns the names, which never change once released, and how they are read from a snapshot: numbers
//! are gathered when somebody asks, and nothing is kept for them. Does not own the counts.
//!
//! Labels are peers, ranges, families and words from closed lists, never prefixes: there are as many
//! series as the configuration asks for.

mod serve;
#[cfg(test)]
mod tests;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::snapshot::{FamilySnapshot, PeerSnapshot, SessionState, SpeakerSnapshot};
use crate::status::{Direction, MessageCounts};

pub(crate) use serve::serve;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only grows, from zero at the start of the speaker. Its name ends in `_total`.
    Counter,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As it is scraped.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Names of its labels, in the order of the values of a sample.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    read: fn(&SpeakerSnapshot) -> Vec<Sample>,
}

/// One series: the values of its labels, and what it is at.
struct Sample(Vec<String>, u64);

/// The value of a further label, where there is one, and a count.
type Counted = (Option<&'static str>, u64);

/// Every metric of the speaker, in the order of the documentation.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "caracal_build_info",
        kind: Kind::Gauge,
        labels: &["version"],
        help: "Always 1; the label says what runs",
        read: |_| vec![Sample(vec![env!("CARGO_PKG_VERSION").to_owned()], 1)],
    },
    Metric {
        name: "caracal_bgp_session_state",
        kind: Kind::Gauge,
        labels: &["peer", "state"],
        help: "1 for the state that a session is in, 0 for the others",
        read: |speaker| {
            let states = |peer: &PeerSnapshot| {
                STATES.map(|state| {
                    let labels = vec![peer.name.clone(), state.to_string().to_lowercase()];
                    Sample(labels, u64::from(peer.state == state))
                })
            };
            speaker.peers.iter().flat_map(states).collect()
        },
    },
    Metric {
        name: "caracal_bgp_session_up",
        kind: Kind::Gauge,
        labels: &["peer", "peer_asn"],
        help: "Whether the session is established",
        read: |speaker| {
            let of = |peer: &PeerSnapshot| {
                let asn = peer.asn.map(|asn| asn.0.to_string());
                let labels = vec![peer.name.clone(), asn.unwrap_or_default()];
                Sample(labels, u64::from(is_up(peer)))
            };
            speaker.peers.iter().map(of).collect()
        },
    },
    Metric {
        name: "caracal_bgp_session_admin_enabled",
        kind: Kind::Gauge,
        labels: &["peer"],
        help: "0 where the configuration keeps the session down",
        read: |speaker| each(speaker, |peer| Some(u64::from(peer.admin_enabled))),
    },
    Metric {
        name: "caracal_bgp_session_established_timestamp_seconds",
        kind: Kind::Gauge,
        labels: &["peer"],
        help: "When the session came up, since the Unix epoch; absent while it is down",
        read: |speaker| each(speaker, |peer| is_up(peer).then_some(peer.since_ms / 1000)),
    },
    Metric {
        name: "caracal_bgp_session_established_total",
        kind: Kind::Counter,
        labels: &["peer"],
        help: "How often the session came up",
        read: |speaker| each(speaker, |peer| Some(peer.established_count)),
    },
    Metric {
        name: "caracal_bgp_session_flaps_total",
        kind: Kind::Counter,
        labels: &["peer", "reason"],
        help: "How often a session that was up ended, by reason",
        read: |speaker| {
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
        },
    },
    Metric {
        name: "caracal_bgp_notifications_total",
        kind: Kind::Counter,
        labels: &["peer", "direction", "code", "subcode"],
        help: "NOTIFICATIONs by the numbers of RFC 4271",
        read: |speaker| {
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
        },
    },
    Metric {
        name: "caracal_bgp_messages_total",
        kind: Kind::Counter,
        labels: &["peer", "direction", "type"],
        help: "Messages by type",
        read: |speaker| by_direction(speaker, messages),
    },
    Metric {
        name: "caracal_bgp_message_bytes_total",
        kind: Kind::Counter,
        labels: &["peer", "direction"],
        help: "Octets of messages, headers included",
        read: |speaker| by_direction(speaker, |counts| vec![(None, counts.octets)]),
    },
    Metric {
        name: "caracal_bgp_malformed_updates_total",
        kind: Kind::Counter,
        labels: &["peer", "outcome"],
        help: "Faults in UPDATEs that cost no session (RFC 7606)",
        read: |speaker| {
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
        },
    },
    Metric {
        name: "caracal_bgp_prefixes",
        kind: Kind::Gauge,
        labels: &["peer", "family", "stage"],
        help: "Routes of a peer: received, accepted, rejected, stale, advertised",
        read: |speaker| {
            let of = |peer: &PeerSnapshot| -> Vec<Sample> {
                let families = peer.families.iter();
                families.flat_map(|family| stages(peer, family)).collect()
            };
            speaker.peers.iter().flat_map(of).collect()
        },
    },
    Metric {
        name: "caracal_bgp_end_of_rib",
        kind: Kind::Gauge,
        labels: &["peer", "family", "direction"],
        help: "Whether End-of-RIB has passed in this session: until then a table is not whole",
        read: |speaker| {
            let of = |peer: &PeerSnapshot| -> Vec<Sample> {
                let families = peer.families.iter();
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
        },
    },
    Metric {
        name: "caracal_bgp_range_peers",
        kind: Kind::Gauge,
        labels: &["range"],
        help: "Peers that a range has let in",
        read: |speaker| {
            let ranges = speaker.ranges.iter();
            ranges.map(|it| one(&it.name, it.used as u64)).collect()
        },
    },
    Metric {
        name: "caracal_bgp_range_limit",
        kind: Kind::Gauge,
        labels: &["range"],
        help: "Peers that a range may let in",
        read: |speaker| {
            let ranges = speaker.ranges.iter();
            ranges.map(|it| one(&it.name, it.limit as u64)).collect()
        },
    },
    Metric {
        name: "caracal_bgp_selection_deferred",
        kind: Kind::Gauge,
        labels: &[],
        help: "Whether selection still waits for peers after a restart",
        read: |speaker| vec![Sample(Vec::new(), u64::from(speaker.deferring))],
    },
    Metric {
        name: "caracal_bgp_rib_prefixes",
        kind: Kind::Gauge,
        labels: &[],
        help: "Prefixes in the table, rejected ones included",
        read: |speaker| match speaker.fib.is_empty() {
            // The RIB was too busy to say.
            true => Vec::new(),
            false => vec![Sample(Vec::new(), speaker.prefixes as u64)],
        },
    },
    Metric {
        name: "caracal_bgp_best_path_changes_total",
        kind: Kind::Counter,
        labels: &["family"],
        help: "How often what peers are told has changed",
        read: |speaker| {
            let families = speaker.fib.iter();
            families
                .map(|fib| one(&fib.family.to_string(), fib.best_path_changes))
                .collect()
        },
    },
    Metric {
        name: "caracal_fib_routes",
        kind: Kind::Gauge,
        labels: &["family", "state"],
        help: "Routes on their way to the kernel: pending, installed, failed",
        read: |speaker| {
            let families = speaker.fib.iter();
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
        },
    },
    Metric {
        name: "caracal_bfd_session_up",
        kind: Kind::Gauge,
        labels: &["peer"],
        help: "Whether BFD says that the path to the peer works; absent where nobody asked it to",
        read: |speaker| {
            each(speaker, |peer| {
                peer.bfd.as_ref().map(|bfd| u64::from(bfd.state == "Up"))
            })
        },
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

/// The snapshot in the text form of OpenMetrics 1.0, which Prometheus reads.
///
/// # Errors
/// Never in practice: strings can be written to.
pub fn encode(speaker: SpeakerSnapshot) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(speaker)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape(SpeakerSnapshot);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for metric in METRICS {
            let samples = (metric.read)(&self.0);
            if samples.is_empty() {
                continue;
            }
            let (kind, name) = match metric.kind {
                Kind::Gauge => (MetricType::Gauge, metric.name),
                // The encoder writes the ending.
                Kind::Counter => (
                    MetricType::Counter,
                    metric.name.strip_suffix("_total").unwrap_or(metric.name),
                ),
            };
            let mut family = encoder.encode_descriptor(name, metric.help, None, kind)?;
            if metric.labels.is_empty() {
                // Without braces, and there is but one.
                if let Some(Sample(_, value)) = samples.first() {
                    write(metric.kind, *value, family)?;
                }
                continue;
            }
            for Sample(values, value) in samples {
                let names = metric.labels.iter().copied();
                let labels: Vec<(&str, String)> = names.zip(values).collect();
                write(metric.kind, value, family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn write(kind: Kind, value: u64, encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
    match kind {
        Kind::Gauge => ConstGauge::new(value).encode(encoder),
        Kind::Counter => ConstCounter::new(value).encode(encoder),
    }
}

/// The table of docs/metrics.md.
pub fn documentation() -> String {
    let mut text = "| metric | kind | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let labels: Vec<String> = metric.labels.iter().map(|it| format!("`{it}`")).collect();
        let (name, labels, help) = (metric.name, labels.join(", "), metric.help);
        text.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
    }
    text
}

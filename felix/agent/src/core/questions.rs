//! What people and programs ask about policy.

use std::collections::BTreeMap;

use caracal_policy::plan::{Binding, Class, ClassId, Direction, InterfaceName};

use tracing::debug;

use super::Core;
use crate::metrics::{Figures, Inquiry};
use crate::policy_api::{self, ClassDrops, Request};
use crate::policy_server::{Question, render};

impl Core {
    /// Answers one question.
    pub(crate) fn question(&mut self, question: Question) {
        let line = match question.request {
            Request::Classes => render(self.classes()),
            Request::Drops => render(self.policy.other_drops()),
        };
        // A client that has left wants no answer.
        let _ = question.answer.send(line);
    }

    /// Answers a scrape; not before the view is complete, as nothing is known then.
    pub(crate) fn inquiry(&mut self, inquiry: Inquiry) {
        if !self.begun {
            return;
        }
        let dropped = self.policy.dropped().unwrap_or_else(|error| {
            debug!(%error, "nothing is known of dropped packets");
            BTreeMap::new()
        });
        let figures = Figures {
            rules: self.policy.rules(),
            dropped,
            addresses: self.addresses.counts(),
        };
        // A page that has waited too long goes out without them.
        let _ = inquiry.send(figures);
    }

    fn classes(&self) -> Result<Vec<ClassDrops>, caracal_nft::Error> {
        let dropped = self.policy.drop_counters()?;
        let plan = self.policy.plan();
        let names: BTreeMap<&InterfaceName, String> = self
            .wired
            .values()
            .filter_map(|wired| {
                let pod = wired.pod.as_ref()?;
                Some((&wired.interface, format!("{}/{}", pod.namespace, pod.name)))
            })
            .collect();
        let name = |interface: &InterfaceName| {
            let known = names.get(interface).cloned();
            known.unwrap_or_else(|| interface.as_str().to_owned())
        };
        let classes = plan.classes.iter().map(|(id, class)| {
            let members = plan.endpoints.iter().filter(|(_, endpoint)| {
                let binding = match class.direction {
                    Direction::Ingress => endpoint.ingress,
                    Direction::Egress => endpoint.egress,
                };
                binding == Binding::Class(*id)
            });
            let endpoints = members.map(|(interface, _)| name(interface)).collect();
            describe(*id, class, endpoints, dropped.get(id).copied())
        });
        Ok(classes.collect())
    }
}

fn describe(
    id: ClassId,
    class: &Class,
    mut endpoints: Vec<String>,
    dropped: Option<u64>,
) -> ClassDrops {
    endpoints.sort();
    ClassDrops {
        class: id.to_string(),
        direction: match class.direction {
            Direction::Ingress => policy_api::Direction::Ingress,
            Direction::Egress => policy_api::Direction::Egress,
        },
        policies: class.policies.iter().map(ToString::to_string).collect(),
        endpoints,
        // A class that allows everything has no counter.
        dropped_packets: dropped.unwrap_or(0),
    }
}

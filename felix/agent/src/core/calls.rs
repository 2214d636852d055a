//! What the CNI plugin asks.

use std::time::Instant;

use caracal_cni::protocol::{Call, Outcome};
use caracal_cni::{AddResult, Attachment, AttachmentKey, CniError, ErrorCode, tombstone};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::Core;
use crate::cni_server::CniCall;
use crate::endpoint::Wired;
use crate::endpoint::admission::{Admission, admit};
use crate::world::Key;

/// An ADD whose pod has not been seen yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    attachment: Attachment,
    since: Instant,
    /// When patience ends.
    pub(super) until: Instant,
    answer: oneshot::Sender<Outcome>,
}

impl Waiting {
    pub(super) fn refuse(self, why: &str) {
        // A plugin that has gone will ask again.
        let _ = self.answer.send(failed(ErrorCode::TryAgainLater, why));
    }
}

/// What an ADD came to.
enum Step {
    Answer(Outcome),
    Wait(Instant),
}

impl Core {
    /// Serves one call, at once or later.
    pub(crate) fn call(&mut self, call: CniCall, now: Instant) {
        let CniCall { call, answer } = call;
        let outcome = match call {
            Call::Add { attachment } => return self.begin_add(attachment, now, now, answer),
            Call::Del { attachment } => self.delete(&attachment.key),
            Call::Check {
                attachment,
                previous,
            } => self.check(&attachment.key, &previous),
            Call::Status => self.availability(),
            Call::Gc { valid } => self.collect(&valid, now),
        };
        // A plugin that has gone will ask again.
        let _ = answer.send(outcome);
    }

    /// Looks again at the ADDs that wait for their pod's object.
    pub(super) fn retry_waiting(&mut self, now: Instant) {
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.answer.is_closed() {
                continue;
            }
            self.begin_add(waiting.attachment, waiting.since, now, waiting.answer);
        }
    }

    fn begin_add(
        &mut self,
        attachment: Attachment,
        since: Instant,
        now: Instant,
        answer: oneshot::Sender<Outcome>,
    ) {
        match self.add(&attachment, since, now) {
            Step::Answer(outcome) => {
                let _ = answer.send(outcome);
            }
            Step::Wait(until) => {
                self.waiting.push(Waiting {
                    attachment,
                    since,
                    until,
                    answer,
                });
            }
        }
    }

    /// Address, log, policy, link, answer: in this order, so that a pod never has an address that
    /// nobody remembers, nor a link that no policy guards.
    fn add(&mut self, attachment: &Attachment, since: Instant, now: Instant) -> Step {
        if attachment.netns.is_none() {
            let why = "ADD needs the path of the pod's network namespace";
            return Step::Answer(failed(ErrorCode::InvalidEnvironment, why));
        }
        let known = self.wired.get(&attachment.key).cloned();
        let wired = match known {
            // Repeated, or cut short by the death of an agent: the steps that follow find what is
            // there and make only what is missing.
            // The namespace may have another path now.
            Some(wired) => Wired {
                netns: attachment.netns.clone(),
                ..wired
            },
            None => {
                let patience = self.config.labels_patience;
                let known = self.pod_is_known(attachment);
                match admit(known, since, now, patience, self.config.unknown_pods) {
                    Admission::Wire => {}
                    Admission::Wait { until } => return Step::Wait(until),
                    Admission::WireIsolated => {
                        warn!(pod = ?attachment.pod, "pod object not seen, wiring it isolated");
                    }
                    Admission::Refuse => {
                        let why = "the pod's object has not been seen yet";
                        return Step::Answer(failed(ErrorCode::TryAgainLater, why));
                    }
                }
                match self.assign(attachment, now) {
                    Ok(wired) => wired,
                    Err(error) => return Step::Answer(Outcome::Failed(error)),
                }
            }
        };
        match self.wire(&wired) {
            Ok(result) => {
                self.wired.insert(wired.key.clone(), wired);
                Step::Answer(Outcome::Added(result))
            }
            Err(error) => {
                warn!(container = wired.key.container_id, %error, "cannot wire a pod");
                self.delete(&wired.key);
                Step::Answer(Outcome::Failed(error))
            }
        }
    }

    fn assign(&mut self, attachment: &Attachment, now: Instant) -> Result<Wired, CniError> {
        let interface = self.endpoints.interface(&attachment.key).map_err(|error| {
            CniError::new(
                ErrorCode::InvalidConfig,
                "the agent's interface prefix is unusable",
            )
            .because(error)
        })?;
        let pod = attachment.pod.as_ref();
        let uid = pod.and_then(|pod| {
            let key = Key::namespaced(&pod.namespace, &pod.name);
            let object = || {
                self.world
                    .pods
                    .get(&key)
                    .and_then(|object| object.metadata.uid.clone())
            };
            pod.uid.clone().or_else(object)
        });
        let held = self
            .addresses
            .assign(attachment, uid.unwrap_or_default(), &self.world, now)?;
        Ok(Wired {
            key: attachment.key.clone(),
            pod: attachment.pod.clone(),
            netns: attachment.netns.clone(),
            interface,
            addresses: held.addresses,
        })
    }

    fn wire(&mut self, wired: &Wired) -> Result<AddResult, CniError> {
        self.policy.attach(wired);
        self.policy.commit(&self.node.addresses).map_err(|error| {
            CniError::new(
                ErrorCode::TryAgainLater,
                "cannot put the pod's policy in place",
            )
            .because(error)
        })?;
        self.endpoints.wire(wired).map_err(|error| {
            let code = match error {
                caracal_fib::Error::Namespace { .. } => ErrorCode::UnknownContainer,
                _ => ErrorCode::TryAgainLater,
            };
            CniError::new(code, "cannot make the pod's link").because(error)
        })
    }

    fn pod_is_known(&self, attachment: &Attachment) -> bool {
        let Some(pod) = &attachment.pod else {
            return false;
        };
        let namespace = self.world.namespaces.get(&Key::cluster(&pod.namespace));
        let object = self
            .world
            .pods
            .get(&Key::namespaced(&pod.namespace, &pod.name));
        namespace.is_some()
            && object.is_some_and(|object| {
                // Another UID is the pod's predecessor, whose labels say nothing about this one.
                pod.uid.is_none() || pod.uid == object.metadata.uid
            })
    }

    /// Link, policy, log: an agent that dies in between leaves an address that is still taken.
    pub(super) fn delete(&mut self, key: &AttachmentKey) -> Outcome {
        if let Err(error) = self.endpoints.unwire(key) {
            let refusal = CniError::new(ErrorCode::TryAgainLater, "cannot remove the pod's link");
            return Outcome::Failed(refusal.because(error));
        }
        if let Ok(interface) = self.endpoints.interface(key) {
            self.policy.detach(&interface);
        }
        self.wired.remove(key);
        if let Err(error) = self.policy.commit(&self.node.addresses) {
            // Rules for an interface that is gone match nothing. They go with the next commit.
            warn!(%error, "rules of a removed pod stay for now");
        }
        match self.addresses.release(key) {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(error),
        }
    }

    fn check(&mut self, key: &AttachmentKey, previous: &AddResult) -> Outcome {
        let Some(wired) = self.wired.get(key) else {
            return failed(
                ErrorCode::UnknownContainer,
                "no such interface was made here",
            );
        };
        match self.endpoints.check(wired, previous) {
            Ok(()) => Outcome::Done,
            Err(error) => Outcome::Failed(error),
        }
    }

    fn availability(&self) -> Outcome {
        if self.addresses.free() == 0 {
            let why = "the node has no free address and no new block yet";
            return failed(ErrorCode::NotAvailable, why);
        }
        match self.policy.failure() {
            None => Outcome::Done,
            Some(why) => Outcome::Failed(
                CniError::new(
                    ErrorCode::NotAvailable,
                    "the policy ruleset is not in place",
                )
                .because(why),
            ),
        }
    }

    fn collect(&mut self, valid: &[AttachmentKey], now: Instant) -> Outcome {
        let stale: Vec<AttachmentKey> = self
            .addresses
            .collectable(now)
            .into_iter()
            .filter(|key| !valid.contains(key))
            .collect();
        let mut failure = None;
        for key in stale {
            info!(
                container = key.container_id,
                "collecting an attachment nobody uses"
            );
            // SPEC.md, GC: go on past an error, and report it at the end.
            if let Outcome::Failed(error) = self.delete(&key) {
                failure = Some(error);
            }
        }
        failure.map_or(Outcome::Done, Outcome::Failed)
    }

    /// DELs that came while no agent ran.
    pub(super) fn replay_tombstones(&mut self) {
        let directory = tombstone::directory(&self.config.cni_socket());
        match tombstone::list(&directory) {
            Ok(tombstones) => {
                for (path, attachment) in tombstones {
                    if let Outcome::Failed(error) = self.delete(&attachment.key) {
                        warn!(%error, "a DEL of the time without an agent failed; kept");
                        continue;
                    }
                    if let Err(error) = std::fs::remove_file(&path) {
                        warn!(path = %path.display(), %error, "cannot remove a tombstone");
                    }
                }
            }
            Err(error) => warn!(%error, "cannot read the tombstones"),
        }
    }
}

fn failed(code: ErrorCode, why: &str) -> Outcome {
    let msg = match code {
        ErrorCode::TryAgainLater => "try again later",
        _ => return Outcome::Failed(CniError::new(code, why)),
    };
    Outcome::Failed(CniError::new(code, msg).because(why))
}

//! Leader election by a Lease, with an epoch that fences.
//!
//! Owns: the Lease. Does not own: what the leader does.
//!
//! Clocks of different machines are never compared: a candidate takes the lease when it has itself
//! watched it unchanged for the lease's duration. A leader that could not renew stops earlier than
//! that. `leaseTransitions` grows with every term and is the epoch that the leader writes into each
//! grant.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use crate::Config;

/// Times of the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// How long a candidate must see the lease unchanged before it takes it. Whole seconds.
    pub duration: Duration,
    /// How long a leader goes on without a renewal. Less than `duration`, by more than one request
    /// may take.
    pub renew_deadline: Duration,
    /// Pause between two attempts.
    pub retry: Duration,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        LeaseSettings {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// A candidate.
pub struct Election {
    leases: Api<Lease>,
    identity: String,
    namespace: String,
    name: String,
    settings: LeaseSettings,
    /// The lease as last seen, and since when it has looked so.
    observed: Option<(Lease, Instant)>,
    /// Epochs up to this one have been used, whatever the lease says.
    used_epoch: i32,
}

impl Election {
    /// A candidate that has seen nothing yet.
    pub fn new(config: &Config) -> Self {
        Election {
            leases: Api::namespaced(config.client.clone(), &config.namespace),
            identity: config.identity.clone(),
            namespace: config.namespace.clone(),
            name: config.lease_name.clone(),
            settings: config.lease,
            observed: None,
            used_epoch: 0,
        }
    }

    /// Waits until this process leads. Returns the epoch, higher than that of any earlier leader.
    pub async fn win(&mut self) -> u64 {
        loop {
            match self.attempt().await {
                Ok(Some(epoch)) => return epoch,
                Ok(None) => {}
                Err(error) => warn!(lease = %self.name, %error, "cannot stand for election"),
            }
            sleep(self.settings.retry).await;
        }
    }

    /// Renews until that fails for so long that another candidate may take over, or one has.
    pub async fn keep(&mut self) {
        let mut renewed = Instant::now();
        loop {
            sleep(self.settings.retry).await;
            let left = self
                .settings
                .renew_deadline
                .saturating_sub(renewed.elapsed());
            if left.is_zero() {
                warn!(lease = %self.name, "could not renew the lease in time");
                return;
            }
            let attempt = Instant::now();
            match timeout(left, self.renew()).await {
                Ok(Ok(true)) => renewed = attempt,
                Ok(Ok(false)) => {
                    warn!(lease = %self.name, "another holds the lease");
                    return;
                }
                Ok(Err(error)) => warn!(lease = %self.name, %error, "cannot renew the lease"),
                Err(_elapsed) => {}
            }
        }
    }

    /// Gives the lease back, so that the next leader need not wait for it to expire.
    pub async fn resign(&mut self) {
        self.observed = None;
        // Read again: a renewal may have been cut off with its answer outstanding.
        let give_back = async {
            let mut lease = self.leases.get(&self.name).await?;
            if self.is_ours(&lease) {
                if let Some(spec) = &mut lease.spec {
                    spec.holder_identity = Some(String::new());
                    spec.renew_time = Some(now());
                }
                self.leases
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<_, kube::Error>(())
        };
        // One attempt: whoever shuts down should not wait, and expiry does the same.
        match timeout(self.settings.retry, give_back).await {
            Ok(Ok(())) => debug!(lease = %self.name, "gave the lease back"),
            Ok(Err(error)) => warn!(lease = %self.name, %error, "cannot give the lease back"),
            Err(_elapsed) => warn!(lease = %self.name, "no answer to giving the lease back"),
        }
    }

    /// Makes the next epoch higher than `epoch`.
    pub fn exceed(&mut self, epoch: u64) {
        self.used_epoch = self
            .used_epoch
            .max(i32::try_from(epoch).unwrap_or(i32::MAX - 1));
    }

    /// One look at the lease, and an attempt to take it where it is free.
    async fn attempt(&mut self) -> Result<Option<u64>, kube::Error> {
        let deadline = self.settings.renew_deadline;
        let request = async {
            let Some(lease) = self.leases.get_opt(&self.name).await? else {
                let lease = self.taken(None);
                return self
                    .leases
                    .create(&PostParams::default(), &lease)
                    .await
                    .map(Some);
            };
            if !self.is_free(&lease) {
                self.observe(lease);
                return Ok(None);
            }
            let lease = self.taken(Some(lease));
            self.leases
                .replace(&self.name, &PostParams::default(), &lease)
                .await
                .map(Some)
        };
        let answer = match timeout(deadline, request).await {
            Ok(answer) => answer,
            Err(_elapsed) => return Ok(None),
        };
        match answer {
            Ok(Some(lease)) => {
                let epoch = transitions(&lease);
                self.used_epoch = self.used_epoch.max(epoch);
                self.observed = Some((lease, Instant::now()));
                Ok(Some(u64::try_from(epoch).unwrap_or(0)))
            }
            Ok(None) => Ok(None),
            // Another candidate was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the lease is still ours after an attempt to renew it.
    async fn renew(&mut self) -> Result<bool, kube::Error> {
        let Some((lease, _)) = &self.observed else {
            return Ok(false);
        };
        let mut next = lease.clone();
        if let Some(spec) = &mut next.spec {
            spec.renew_time = Some(now());
        }
        let epoch = transitions(&next);
        match self
            .leases
            .replace(&self.name, &PostParams::default(), &next)
            .await
        {
            Ok(lease) => {
                self.observed = Some((lease, Instant::now()));
                Ok(true)
            }
            // The write that made ours out of date may have been our own, whose answer was lost.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let lease = self.leases.get(&self.name).await?;
                let ours = self.is_ours(&lease) && transitions(&lease) == epoch;
                self.observed = Some((lease, Instant::now()));
                Ok(ours)
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        holder(lease) == self.identity
    }

    fn is_free(&self, lease: &Lease) -> bool {
        if holder(lease).is_empty() {
            return true;
        }
        match &self.observed {
            Some((seen, since)) if seen.resource_version() == lease.resource_version() => {
                let stated = lease
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.lease_duration_seconds);
                let stated = stated.and_then(|seconds| u64::try_from(seconds).ok());
                let duration = stated.map_or(self.settings.duration, Duration::from_secs);
                since.elapsed() >= duration
            }
            _ => false,
        }
    }

    fn observe(&mut self, lease: Lease) {
        let same = self
            .observed
            .as_ref()
            .is_some_and(|(seen, _)| seen.resource_version() == lease.resource_version());
        if !same {
            self.observed = Some((lease, Instant::now()));
        }
    }

    /// The lease as we hold it, under the next epoch.
    fn taken(&self, lease: Option<Lease>) -> Lease {
        let before = lease.as_ref().map_or(0, transitions);
        let metadata = lease.map_or_else(
            || ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            |lease| lease.metadata,
        );
        let seconds = i32::try_from(self.settings.duration.as_secs()).unwrap_or(i32::MAX);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(seconds.max(1)),
            lease_transitions: Some(before.max(self.used_epoch).saturating_add(1)),
            acquire_time: Some(now()),
            renew_time: Some(now()),
            ..LeaseSpec::default()
        };
        Lease {
            metadata,
            spec: Some(spec),
        }
    }
}

impl std::fmt::Debug for Election {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Election")
            .field("lease", &self.name)
            .field("identity", &self.identity)
            .finish()
    }
}

fn holder(lease: &Lease) -> &str {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

fn transitions(lease: &Lease) -> i32 {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_transitions)
        .unwrap_or(0)
}

fn now() -> MicroTime {
    MicroTime(jiff::Timestamp::now())
}

//! What the agent says about its node, as the status of a NodeNetworkStatus.
//!
//! Owns the summary: from the speaker's and the dataplane's own accounts to the resource. Does not
//! own when it is written (see [`crate::pacing`]) nor by whom (see [`crate::publish`]).

mod sessions;

use std::collections::BTreeMap;

use caracal_crds::conditions::{self, Statement};
use caracal_crds::{
    BlockPhase, BlockSummary, DataplaneSummary, NodeNetworkStatusStatus, RouteCounts, SessionState,
    Time, reasons,
};
use caracal_resolve::Finding;
use jiff::Timestamp;

use crate::account::Account;
use sessions::{Sessions, rejected, sessions};

/// Everything that the summary is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    /// What the speaker does.
    pub(crate) account: Account,
    /// What the BGP resources ask of this node and it does not do; none before the speaker runs.
    pub(crate) findings: Option<Vec<Finding>>,
    /// Own blocks.
    pub(crate) blocks: BTreeMap<String, BlockPhase>,
    /// Sizes of the ruleset.
    pub(crate) dataplane: DataplaneSummary,
    /// Why the ruleset in the kernel is not what the policies want.
    pub(crate) policy_failure: Option<String>,
    /// Addresses that a pod could get now.
    pub(crate) free_addresses: usize,
}

/// The status that says `facts`, with the times of `previous` where nothing has flipped since.
pub(crate) fn summarise(
    facts: &Facts,
    previous: &NodeNetworkStatusStatus,
    now: Timestamp,
) -> NodeNetworkStatusStatus {
    let speaker = facts.account.speaker.as_ref();
    let peers = speaker.into_iter().flat_map(|speaker| &speaker.peers);
    let sessions = sessions(peers, previous);
    let mut conditions = previous.conditions.clone();
    for statement in statements(facts, &sessions) {
        conditions::set(&mut conditions, &statement, &Time(now));
    }
    NodeNetworkStatusStatus {
        agent_version: Some(env!("CARGO_PKG_VERSION").into()),
        as_number: speaker.map(|speaker| speaker.asn.0),
        router_id: speaker.map(|speaker| speaker.router_id.0.into()),
        sessions_established: Some(format!("{}/{}", sessions.up, sessions.total)),
        sessions_left_out: sessions.left_out(),
        sessions: sessions.shown,
        rejected: rejected(&facts.account.rejected),
        routes: Some(facts.account.routes),
        blocks: facts
            .blocks
            .iter()
            .map(|(name, phase)| BlockSummary {
                name: name.clone(),
                phase: *phase,
            })
            .collect(),
        dataplane: Some(facts.dataplane),
        conditions,
    }
}

/// Whether two statuses say the same but for how many routes there are and which of them are rejected.
/// Those change all over a cluster when one node of it does anything.
pub(crate) fn differ_in_counts_alone(
    one: &NodeNetworkStatusStatus,
    other: &NodeNetworkStatusStatus,
) -> bool {
    let uncounted = |status: &NodeNetworkStatusStatus| {
        let mut status = status.clone();
        status.rejected.clear();
        status.routes = status.routes.map(|routes| RouteCounts {
            failed: routes.failed,
            ..RouteCounts::default()
        });
        for session in &mut status.sessions {
            session.prefixes = None;
        }
        status
    };
    one != other && uncounted(one) == uncounted(other)
}

fn statements<'a>(facts: &'a Facts, sessions: &'a Sessions) -> Vec<Statement<'a>> {
    let say = |condition, failure: Option<(&'a str, String)>| {
        let holds = failure.is_none();
        let (reason, message) = failure.unwrap_or((reasons::OK, String::new()));
        Statement {
            condition,
            holds,
            reason,
            message,
            observed_generation: None,
        }
    };
    let (up, total) = (sessions.up, sessions.total);
    let down = sessions
        .shown
        .iter()
        .find(|session| session.state != SessionState::Established);
    let sessions_failure = match down {
        _ if total == 0 => Some((reasons::NO_PEERS, "no BGPPeer names this node".to_owned())),
        None => None,
        Some(session) => Some((
            session.reason.as_deref().unwrap_or(reasons::CONNECTING),
            format!(
                "{up} of {total} sessions are up; {} ({}): {}",
                session.name,
                session
                    .peer_ip
                    .map_or_else(|| "address not known".to_owned(), |ip| ip.to_string()),
                session
                    .message
                    .as_deref()
                    .unwrap_or("no attempt has ended yet"),
            ),
        )),
    };
    let failed = facts.account.routes.failed;
    let mut statements = vec![
        say(conditions::SESSIONS_ESTABLISHED, sessions_failure),
        say(
            conditions::ROUTES_PROGRAMMED,
            (failed > 0).then(|| {
                (
                    KERNEL_REFUSED,
                    format!("the kernel refused {failed} routes"),
                )
            }),
        ),
        say(
            conditions::POLICY_PROGRAMMED,
            facts
                .policy_failure
                .clone()
                .map(|why| (KERNEL_REFUSED, why)),
        ),
        say(
            conditions::ADDRESSES_AVAILABLE,
            (facts.free_addresses == 0).then(|| {
                (
                    reasons::NO_FREE_BLOCKS,
                    "no free address in the node's blocks".into(),
                )
            }),
        ),
    ];
    if let Some(findings) = &facts.findings {
        statements.push(say(conditions::ACCEPTED, not_accepted(findings)));
    }
    statements
}

/// The longest account of findings, in characters: a cluster-wide mistake stands in every node's
/// status.
const FINDINGS_LENGTH: usize = 1024;

/// The first finding's reason, and all of them in words. They stand here and not on the objects that
/// they are about: what one node cannot follow another may, and a thousand nodes would contend for
/// one object.
fn not_accepted(findings: &[Finding]) -> Option<(&'static str, String)> {
    let first = findings.first()?;
    let all: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let message = all.join("; ").chars().take(FINDINGS_LENGTH).collect();
    Some((first.reason, message))
}

/// The kernel did not take what it was told.
const KERNEL_REFUSED: &str = "KernelRefused";

#[cfg(test)]
mod tests;

//! Policies that standards name.
//!
//! Owns what RFC 8212 and RFC 8326 ask of a policy, and Calico's priorities. Does not
//! own when they are in force: that is configuration.

use crate::policy::community::CommunityPattern;
use crate::policy::condition::{Condition, SourceMatch};
use crate::policy::operation::Operation;
use crate::policy::rule::{Action, Amendment, Rule};
use crate::policy::{AnyCommunity, Policy, Verdict};
use crate::types::{Family, PeerKind};
use crate::wire::Community;

/// The preference of routes that are about to go: lower than any other (RFC 8326 §4.2).
const LOWEST: u32 = 0;

/// The LOCAL_PREF that stands for one of Calico's priorities: there, the lower number is preferred.
pub fn priority_as_local_pref(priority: u32) -> u32 {
    2_147_483_647_u32.saturating_sub(priority)
}

/// The name of the rule that stands in for a policy.
const NOT_CONFIGURED: &str = "no policy is configured (RFC 8212)";

impl Policy {
    /// The policy of an external session for which nobody has configured one: nothing passes
    /// (RFC 8212 §2), and `explain` says why.
    pub fn not_configured() -> Self {
        let rule = Rule::reject_rest(NOT_CONFIGURED);
        Self::new(vec![rule], Verdict::Reject)
    }

    /// Whether nobody has configured a policy for `family`: [`Policy::not_configured`], or a rule of
    /// the kind for this family among those of another.
    pub fn is_not_configured(&self, family: Family) -> bool {
        self.rules.iter().any(|rule| {
            let of_family = match &*rule.conditions {
                [] => true,
                [Condition::Family(only)] => *only == family,
                _ => false,
            };
            of_family && rule.name == NOT_CONFIGURED
        })
    }
}

impl Rule {
    /// Rejects everything that comes this far, for the reason that `name` gives.
    pub fn reject_rest(name: impl Into<String>) -> Self {
        Self::new(name, Vec::new(), Action::Reject)
    }

    /// The same as [`Policy::not_configured`] for one family of a session, where the other one has
    /// a policy.
    pub fn not_configured(family: Family) -> Self {
        let family = vec![Condition::Family(family)];
        Self::new(NOT_CONFIGURED, family, Action::Reject)
    }

    /// Rejects what other peers told, so that only own routes go on.
    pub fn own_routes_only(name: impl Into<String>) -> Self {
        let learnt = Condition::Source(SourceMatch::Learnt);
        Self::new(name, vec![learnt], Action::Reject)
    }
}

impl Amendment {
    /// On import: a route that its sender is about to take away is used only for want of another
    /// (RFC 8326 §4.1).
    pub fn honour_graceful_shutdown() -> Self {
        let marked: CommunityPattern = AnyCommunity::Standard(Community::GRACEFUL_SHUTDOWN).into();
        Self::new(
            "graceful shutdown of the peer (RFC 8326)",
            vec![Condition::AllCommunities(vec![marked])],
            vec![Operation::SetLocalPref(LOWEST)],
        )
    }

    /// On import from a session that is about to go down: its routes are used only for want of
    /// others (RFC 8326 §4.2).
    pub fn drain_import() -> Self {
        Self::new(
            "draining (RFC 8326)",
            Vec::new(),
            vec![Operation::SetLocalPref(LOWEST)],
        )
    }

    /// On export to a peer of that kind while draining: the peer is asked to use other routes
    /// (RFC 8326 §4.2). Inside the AS, LOCAL_PREF says it too, to those who do not know the
    /// community.
    pub fn drain_export(peer: PeerKind) -> Self {
        let community = AnyCommunity::Standard(Community::GRACEFUL_SHUTDOWN);
        let mut operations = vec![Operation::AddCommunity(community)];
        if peer == PeerKind::Internal {
            operations.push(Operation::SetLocalPref(LOWEST));
        }
        Self::new("draining (RFC 8326)", Vec::new(), operations)
    }
}

//! What can be counted (RFC 7854 §4.8, RFC 8671 §6.2).

use crate::wire::AfiSafi;

/// One count. Counters of events begin with the session; the rest say how many there are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// Prefixes that import policy rejected.
    RejectedByPolicy(u32),
    /// Announcements of what was known already.
    DuplicateAnnouncements(u32),
    /// Withdrawals of what was not known.
    DuplicateWithdrawals(u32),
    /// UPDATEs that a CLUSTER_LIST loop made invalid.
    ClusterListLoops(u32),
    /// UPDATEs that an AS_PATH loop made invalid.
    AsPathLoops(u32),
    /// UPDATEs with our own ORIGINATOR_ID.
    OriginatorLoops(u32),
    /// UPDATEs that a loop among members of a confederation made invalid.
    ConfederationLoops(u32),
    /// Routes in Adj-RIBs-In.
    AdjRibIn(u64),
    /// Routes in the Loc-RIB.
    LocRib(u64),
    /// Routes of one family in Adj-RIB-In.
    AdjRibInOf(AfiSafi, u64),
    /// Routes of one family in the Loc-RIB.
    LocRibOf(AfiSafi, u64),
    /// UPDATEs treated as withdrawals (RFC 7606).
    UpdatesTreatedAsWithdraw(u32),
    /// Prefixes treated as withdrawn (RFC 7606).
    PrefixesTreatedAsWithdraw(u32),
    /// UPDATEs that said nothing new.
    DuplicateUpdates(u32),
    /// Routes in Adj-RIBs-Out before export policy.
    AdjRibOutPrePolicy(u64),
    /// Routes in Adj-RIBs-Out after it.
    AdjRibOutPostPolicy(u64),
    /// Routes of one family in Adj-RIB-Out before export policy.
    AdjRibOutPrePolicyOf(AfiSafi, u64),
    /// Routes of one family in Adj-RIB-Out after it.
    AdjRibOutPostPolicyOf(AfiSafi, u64),
}

/// The three forms in which counts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Counter(u32),
    Gauge(u64),
    OfFamily(AfiSafi, u64),
}

impl Statistic {
    /// Type and value.
    pub(super) fn parts(self) -> (u16, Value) {
        use Value::{Counter, Gauge, OfFamily};
        match self {
            Self::RejectedByPolicy(count) => (0, Counter(count)),
            Self::DuplicateAnnouncements(count) => (1, Counter(count)),
            Self::DuplicateWithdrawals(count) => (2, Counter(count)),
            Self::ClusterListLoops(count) => (3, Counter(count)),
            Self::AsPathLoops(count) => (4, Counter(count)),
            Self::OriginatorLoops(count) => (5, Counter(count)),
            Self::ConfederationLoops(count) => (6, Counter(count)),
            Self::AdjRibIn(count) => (7, Gauge(count)),
            Self::LocRib(count) => (8, Gauge(count)),
            Self::AdjRibInOf(family, count) => (9, OfFamily(family, count)),
            Self::LocRibOf(family, count) => (10, OfFamily(family, count)),
            Self::UpdatesTreatedAsWithdraw(count) => (11, Counter(count)),
            Self::PrefixesTreatedAsWithdraw(count) => (12, Counter(count)),
            Self::DuplicateUpdates(count) => (13, Counter(count)),
            Self::AdjRibOutPrePolicy(count) => (14, Gauge(count)),
            Self::AdjRibOutPostPolicy(count) => (15, Gauge(count)),
            Self::AdjRibOutPrePolicyOf(family, count) => (16, OfFamily(family, count)),
            Self::AdjRibOutPostPolicyOf(family, count) => (17, OfFamily(family, count)),
        }
    }

    /// The count of this type and value; `None` when there is none, or of another form.
    #[cfg(any(test, feature = "test-support"))]
    pub(super) fn from_parts(kind: u16, value: Value) -> Option<Self> {
        use Value::{Counter, Gauge, OfFamily};
        Some(match (kind, value) {
            (0, Counter(count)) => Self::RejectedByPolicy(count),
            (1, Counter(count)) => Self::DuplicateAnnouncements(count),
            (2, Counter(count)) => Self::DuplicateWithdrawals(count),
            (3, Counter(count)) => Self::ClusterListLoops(count),
            (4, Counter(count)) => Self::AsPathLoops(count),
            (5, Counter(count)) => Self::OriginatorLoops(count),
            (6, Counter(count)) => Self::ConfederationLoops(count),
            (7, Gauge(count)) => Self::AdjRibIn(count),
            (8, Gauge(count)) => Self::LocRib(count),
            (9, OfFamily(family, count)) => Self::AdjRibInOf(family, count),
            (10, OfFamily(family, count)) => Self::LocRibOf(family, count),
            (11, Counter(count)) => Self::UpdatesTreatedAsWithdraw(count),
            (12, Counter(count)) => Self::PrefixesTreatedAsWithdraw(count),
            (13, Counter(count)) => Self::DuplicateUpdates(count),
            (14, Gauge(count)) => Self::AdjRibOutPrePolicy(count),
            (15, Gauge(count)) => Self::AdjRibOutPostPolicy(count),
            (16, OfFamily(family, count)) => Self::AdjRibOutPrePolicyOf(family, count),
            (17, OfFamily(family, count)) => Self::AdjRibOutPostPolicyOf(family, count),
            _ => return None,
        })
    }
}

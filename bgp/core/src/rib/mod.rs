//! Routes: what peers told, what was picked, what is told on.
//!
//! Owns the Adj-RIBs-In, the Loc-RIB, the decision process, stale routes of restarting peers, the
//! deferral of our own restart, and what each peer is told. Does not own sessions
//! ([`crate::fsm`]), the FIB, clocks or sockets: [`Rib`] takes [`Event`]s, answers with
//! [`Action`]s, and is pulled for output.
//!
//! ```text
//! Update ──> judge ──> table ──> best_path ──> Action::Fib ──> (kernel) ──> Installed
//!                                    │                                         │
//!                                    └── own routes, withdrawals ──┐           │
//!                                                                  v           v
//!                                          journal of changed prefixes <───────┘
//!                                            │            │
//!                                         reader       reader     of peers that were told the same
//!                                            │            │
//!                                      export once, encode once ──> chunks of octets, pulled by each
//! ```

mod accounts;
mod adj_out;
mod best;
mod configure;
mod dest_set;
mod egress;
mod entries;
mod event;
mod exports;
mod follow;
mod footprint;
mod group;
mod groups;
mod hash;
mod installs;
mod intake;
mod journal;
mod listing;
mod machine;
mod next_hops;
mod origin;
mod pages;
mod path;
mod path_ids;
mod paths;
mod peer;
mod pull;
mod sessions;
mod stale;
mod table;
mod view;
mod ways;

pub use best::{Candidate, Multipath, Rank, Selection, Step, best_path};
pub use egress::{EgressConfig, Exported, NextHopMode, PrivateAs, Withheld, export};
pub use event::{
    Action, Changed, Ends, Event, FibAnswer, Forward, MaxPrefixes, PeerPolicy, Reachability,
    RibConfig, RibOptions,
};
pub use follow::{EntryView, ToldPath};
pub use footprint::Footprint;
pub use installs::{FibCounts, FibState};
pub use listing::{Cursor, Listed, Reason, ReceivedPath, Rejected, Rejections, RibCounts, STRETCH};
pub use machine::Rib;
pub use origin::{BlockOwner, BlockOwners, OriginCheck, OriginValidity, Originator};
pub use path::{
    DEFAULT_LOCAL_PREF, Path, PathPeer, PeerId, PeerIndex, Rejection, Source, TablePath,
};

pub use view::{FamilyView, RouteView};

#[cfg(test)]
mod tests;

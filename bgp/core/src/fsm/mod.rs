//! The session with one peer as a state machine.
//!
//! Owns protocol state only: connections, collision, timers, what was negotiated. Does not own
//! sockets, clocks, randomness or routes.
//!
//! ```text
//! Event (from the shell) --> Peer::handle --> Action (to the shell)
//!                            Peer::poll_timeout --> the shell's one sleep --> Peer::handle_timeout
//! ```

mod config;
mod connection;
mod event;
mod open;
mod pace;
mod peer;
mod retention;
mod terms;
#[cfg(test)]
mod tests;
mod why;

pub use config::{
    AddPath, Config, Identity, LocalGracefulRestart, LocalLongLived, LocalRole, PrefixLimit,
};
pub use event::{Action, Admin, ConnId, Event, Incoming, Note, Role, State};
pub use peer::Peer;
pub use terms::{Negotiated, PeerGracefulRestart, PeerLongLived, Retention};
pub use why::{CloseWhy, DownWhy, IdleWhy, PathWhy};

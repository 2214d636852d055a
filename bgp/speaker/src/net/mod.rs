//! The transport of sessions: sockets, and what the kernel says about the links that carry them.
//!
//! Owns how connections are made, accepted, signed and kept near ([`Transport`], [`Listeners`],
//! [`Keychain`], [`Floors`]), which addresses and interfaces there are ([`Interfaces`]) and who is
//! on the link of an unnumbered peer ([`Discovery`]). Does not own what is said on connections, nor
//! which peer a connection belongs to: it says where one comes from ([`Source`], [`Ranges`]).

pub mod ao;
mod auth;
mod discovery;
mod gate;
mod hops;
mod interfaces;
mod keychain;
mod limits;
mod listen;
pub mod md5;
mod ranges;
mod sockopt;
mod transport;

pub use self::auth::{Auth, KeyHandle, MAX_SECRET, Rekeyed, Secret};
pub use self::discovery::{Discovery, LinkReport, LinkState};
pub use self::gate::Floors;
pub use self::hops::Hops;
pub use self::interfaces::{Interface, InterfaceTable, Interfaces, Link};
pub use self::keychain::{Keychain, Remote};
pub use self::limits::raise_file_limit;
pub use self::listen::{Incoming, Listeners, Source};
pub use self::ranges::{Admission, Range, Ranges};
pub use self::transport::Transport;

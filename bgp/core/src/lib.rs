//! BGP messages, sessions and routes as pure state machines.
//!
//! Owns what a BGP speaker knows and decides: [`wire`] turns octets into messages and back, [`fsm`]
//! runs the session with one peer, [`ra`] finds the peer of an unnumbered link, [`bfd`] watches the
//! path to it, [`rib`] holds routes and picks the best by rules of [`policy`] and [`role`], [`bmp`] and
//! [`mrt`] write down what happens for others to read. Does not own sockets, clocks, randomness or
//! the kernel: time and chance come in as arguments, so that the same code runs in the speaker, in
//! tests, in fuzzers and in simulation.

pub mod bfd;
pub mod bmp;
pub mod error;
pub mod fsm;
pub mod mrt;
pub mod policy;
pub mod ra;
pub mod rib;
pub mod role;
pub mod types;
#[cfg(any(test, feature = "test-support"))]
pub mod vectors;
pub mod wire;

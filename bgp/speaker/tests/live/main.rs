//! A live speaker and what it says octet by octet: peers that a test scripts tell it routes, and what
//! other such peers read from it is compared with what the RFCs say.

#![expect(
    clippy::unwrap_used,
    reason = "every function here serves a test, and a test ends at the first surprise"
)]
#![expect(
    clippy::duplicate_mod,
    reason = "hosts and loopback labs each bring the means to wait"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../net/support.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the tests of sockets take the rest of it"
)]
mod hosts;

mod addresses;
mod links;
mod long_lived;
mod paths;
mod restart;
mod roles;
mod scripted;
mod stage;
mod unnumbered;

//! The transport of sessions against the kernel: network namespaces, real links, real keys.

#![expect(
    clippy::unwrap_used,
    reason = "every function here serves a test, and a test ends at the first surprise"
)]

mod ao;
mod discovery;
mod frr;
mod gate;
mod hops;
mod interfaces;
mod listen;
mod md5;
mod rotation;
mod support;

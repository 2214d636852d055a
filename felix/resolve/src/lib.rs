//! From resources to what one speaker has to do.
//!
//! Owns the meaning of Node, BGPConfiguration, BGPPeer, BGPFilter, Secret, IPPool and IPBlock for the
//! speaker of one node: [`resolve`] is a function of its inputs alone, and says of everything that it could not
//! follow which object, which field and why. Also owns reading those resources from files for
//! processes without an API server ([`files`]). Does not own the resource types, watching them, or
//! running the speaker.
//!
//! ```text
//! API server, or files --> Inputs --resolve--> Resolved { SpeakerConfig, findings, … }
//! ```

mod blocks;
pub mod files;
mod filters;
mod finding;
pub mod lint;
mod mesh;
mod nodes;
mod origin;
mod peers;
mod policies;
mod resolve;
mod secrets;
mod session;
mod settings;
#[cfg(test)]
mod tests;
mod watch;

pub use finding::{Finding, ObjectRef};
pub use resolve::{Inputs, KernelFeatures, PreferredSource, Resolved, resolve};
pub use secrets::Secrets;

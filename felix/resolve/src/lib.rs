//! From resources to what one speaker has to do.
//!
//! Owns the meaning of Node, BGPConfiguration, BGPPeer, IPPool and IPBlock for the speaker of one
//! node: [`resolve`] is a function of its inputs alone, and says of everything that it could not
//! follow which object, which field and why. Also owns reading those resources from files for
//! processes without an API server ([`files`]). Does not own the resource types, watching them, or
//! running the speaker.
//!
//! ```text
//! API server, or files --> Inputs --resolve--> Resolved { SpeakerConfig, findings, … }
//! ```

pub mod files;
mod finding;
mod mesh;
mod origin;
mod peers;
mod resolve;
mod settings;
#[cfg(test)]
mod tests;

pub use finding::{Finding, ObjectRef};
pub use resolve::{Inputs, PreferredSource, Resolved, resolve};

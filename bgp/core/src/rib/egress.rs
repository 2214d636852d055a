//! What one peer is told about a route.

/// Which next hop a peer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHopMode {
    /// What the protocol asks for: ourselves to external peers, except a third party on the subnet
    /// that we share (RFC 4271 §5.1.3); unchanged to internal ones.
    #[default]
    Auto,
    /// Always ourselves, on reflected routes too.
    Self_,
    /// Never changed on learnt routes.
    Keep,
}

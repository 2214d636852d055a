//! Which AS a peer may show.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::types::{Asn, PeerKind};

/// The AS that a peer is configured with: a number, or whichever suits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerAs {
    /// This one and no other.
    Number(Asn),
    /// Ours, whatever that is.
    Internal,
    /// Any but ours.
    External,
}

impl PeerAs {
    /// Whether a peer that shows `asn` may be the one configured, where our own number is `local`.
    pub fn admits(self, asn: Asn, local: Asn) -> bool {
        // RFC 7607 §2 and RFC 6793 §9: neither AS 0 nor AS_TRANS is anybody's, also where the
        // configuration is as wrong as the peer.
        if asn == Asn::ZERO || asn == Asn::TRANS {
            return false;
        }
        match self {
            Self::Number(number) => asn == number,
            Self::Internal => asn == local,
            Self::External => asn != local,
        }
    }

    /// Whether the peer will share our AS, `local`; known before it says anything.
    pub fn kind(self, local: Asn) -> PeerKind {
        match self {
            Self::Number(number) if number == local => PeerKind::Internal,
            Self::Internal => PeerKind::Internal,
            Self::Number(_) | Self::External => PeerKind::External,
        }
    }

    /// Whether the session is within our AS, `local`.
    pub fn is_internal(self, local: Asn) -> bool {
        self.kind(local) == PeerKind::Internal
    }

    /// The number, where one is configured.
    pub fn number(self) -> Option<Asn> {
        match self {
            Self::Number(number) => Some(number),
            Self::Internal | Self::External => None,
        }
    }
}

impl From<Asn> for PeerAs {
    fn from(number: Asn) -> Self {
        Self::Number(number)
    }
}

impl fmt::Display for PeerAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Internal => f.write_str("internal"),
            Self::External => f.write_str("external"),
        }
    }
}

impl FromStr for PeerAs {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "internal" => Ok(Self::Internal),
            "external" => Ok(Self::External),
            _ => {
                let number = text.parse().map(Asn).map(Self::Number);
                number.map_err(|_| Error::ParsePeerAs { text: text.into() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_admitted_as_its_configuration_says() {
        const LOCAL: u32 = 65000;
        const CASES: &[(&str, u32, bool)] = &[
            ("65001", 65001, true),
            ("65001", 65002, false),
            ("65001", LOCAL, false),
            ("internal", LOCAL, true),
            ("internal", 65001, false),
            ("external", LOCAL, false),
            ("external", 65001, true),
            ("external", 4_200_000_000, true),
            ("external", 0, false),
            ("0", 0, false),
            ("external", 23456, false),
            ("23456", 23456, false),
        ];
        for (configured, shown, admitted) in CASES {
            let peer_as: PeerAs = configured.parse().unwrap();
            assert_eq!(peer_as.to_string(), *configured);
            assert_eq!(
                peer_as.admits(Asn(*shown), Asn(LOCAL)),
                *admitted,
                "{configured} and AS {shown}"
            );
        }
        assert!("inside".parse::<PeerAs>().is_err());
    }

    #[test]
    fn the_kind_of_peer_is_known_from_its_configuration() {
        let local = Asn(65000);
        for (configured, kind) in [
            (PeerAs::Number(local), PeerKind::Internal),
            (PeerAs::Number(Asn(65001)), PeerKind::External),
            (PeerAs::Internal, PeerKind::Internal),
            (PeerAs::External, PeerKind::External),
        ] {
            assert_eq!(configured.kind(local), kind, "{configured}");
        }
    }
}

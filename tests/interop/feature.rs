//! The rows of the matrix.

/// What a cell is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Feature {
    Ipv4,
    Ipv6,
    ExtendedNextHop,
    WeSendPaths,
    TheySendPaths,
    WeRestart,
    TheyRestart,
    Md5,
    Gtsm,
    WeReflect,
    TheyReflect,
    Communities,
    WellKnown,
    Bfd,
    Unnumbered,
    WeAskRefresh,
    TheyAskRefresh,
    OurLastWords,
    TheirLastWords,
}

impl Feature {
    pub(crate) const ALL: [Self; 19] = [
        Self::Ipv4,
        Self::Ipv6,
        Self::ExtendedNextHop,
        Self::WeSendPaths,
        Self::TheySendPaths,
        Self::WeRestart,
        Self::TheyRestart,
        Self::Md5,
        Self::Gtsm,
        Self::WeReflect,
        Self::TheyReflect,
        Self::Communities,
        Self::WellKnown,
        Self::Bfd,
        Self::Unnumbered,
        Self::WeAskRefresh,
        Self::TheyAskRefresh,
        Self::OurLastWords,
        Self::TheirLastWords,
    ];

    /// In the list of what is not supported, and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::ExtendedNextHop => "extended-next-hop",
            Self::WeSendPaths => "add-path-ours",
            Self::TheySendPaths => "add-path-theirs",
            Self::WeRestart => "restart-ours",
            Self::TheyRestart => "restart-theirs",
            Self::Md5 => "md5",
            Self::Gtsm => "gtsm",
            Self::WeReflect => "reflector-ours",
            Self::TheyReflect => "reflector-theirs",
            Self::Communities => "communities",
            Self::WellKnown => "well-known",
            Self::Bfd => "bfd",
            Self::Unnumbered => "unnumbered",
            Self::WeAskRefresh => "refresh-ours",
            Self::TheyAskRefresh => "refresh-theirs",
            Self::OurLastWords => "shutdown-ours",
            Self::TheirLastWords => "shutdown-theirs",
        }
    }

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4 over IPv4",
            Self::Ipv6 => "IPv6 over IPv6",
            Self::ExtendedNextHop => "IPv4 over IPv6 next hops (RFC 8950)",
            Self::WeSendPaths => "add-path, we send (RFC 7911)",
            Self::TheySendPaths => "add-path, it sends",
            Self::WeRestart => "graceful restart, we restart (RFC 4724)",
            Self::TheyRestart => "graceful restart, it restarts",
            Self::Md5 => "TCP MD5 (RFC 2385)",
            Self::Gtsm => "GTSM (RFC 5082)",
            Self::WeReflect => "we reflect to it and from it (RFC 4456)",
            Self::TheyReflect => "it reflects to us and from us",
            Self::Communities => "communities: standard, large, extended",
            Self::WellKnown => "NO_EXPORT, NO_ADVERTISE and their kin",
            Self::Bfd => "BFD (RFC 5880)",
            Self::Unnumbered => "unnumbered, by router advertisements",
            Self::WeAskRefresh => "route refresh, we ask (RFC 2918, 7313)",
            Self::TheyAskRefresh => "route refresh, it asks",
            Self::OurLastWords => "shutdown message, ours (RFC 9003)",
            Self::TheirLastWords => "shutdown message, its",
        }
    }

    /// Whether a daemon is asked for it at all.
    pub(crate) fn concerns(self, daemon: &str) -> bool {
        match self {
            Self::Bfd => ["bird", "frr"].contains(&daemon),
            Self::Unnumbered => daemon == "frr",
            _ => true,
        }
    }
}

//! What a client may ask of a session, and whether it can be.
//!
//! Owns the shape of a session's configuration, its limits, and what is made of it when several
//! owners want one session.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use caracal_bgp_core::bfd::{Auth, AuthKind, Hops, Key, Secret, Timing};
use serde::{Deserialize, Serialize};

use crate::proto::SessionKey;

/// The shortest interval between packets. The process wakes once a millisecond at most, which must
/// stay small against it.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
/// The longest interval: beyond it, BGP's own timers are quicker.
pub const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// What a client asks of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionConfig {
    /// Which.
    pub key: SessionKey,
    /// How often to send, in microseconds: 10 ms to 60 s. Slower while the session is not up.
    #[serde(default = "default_interval")]
    pub desired_min_tx_us: u32,
    /// How often to receive, in microseconds: 10 ms to 60 s.
    #[serde(default = "default_interval")]
    pub required_min_rx_us: u32,
    /// How many of our packets the peer must miss.
    #[serde(default = "default_mult")]
    pub detect_mult: u8,
    /// Multihop only: the least TTL with which packets may arrive; 255 less the routers between.
    #[serde(default = "default_min_ttl")]
    pub min_ttl: u8,
    /// Multihop only: wait for the peer to speak first.
    #[serde(default)]
    pub passive: bool,
    /// How packets are authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthConfig>,
}

fn default_interval() -> u32 {
    300_000
}

fn default_mult() -> u8 {
    3
}

fn default_min_ttl() -> u8 {
    1
}

impl SessionConfig {
    /// Three times 300 ms, without authentication.
    pub fn new(key: SessionKey) -> Self {
        Self {
            key,
            desired_min_tx_us: default_interval(),
            required_min_rx_us: default_interval(),
            detect_mult: default_mult(),
            min_ttl: default_min_ttl(),
            passive: false,
            auth: None,
        }
    }
}

/// Authentication (RFC 5880 §6.7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// The algorithm.
    pub method: AuthMethod,
    /// ID of the key to send with.
    pub send_key: u8,
    /// Keys to accept; more than one allows for a change without a flap.
    pub keys: Vec<KeyConfig>,
}

/// Algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMethod {
    /// A password in the clear.
    SimplePassword,
    /// MD5.
    KeyedMd5,
    /// MD5 with a new sequence number in every packet.
    MeticulousKeyedMd5,
    /// SHA1.
    KeyedSha1,
    /// SHA1 with a new sequence number in every packet.
    MeticulousKeyedSha1,
}

impl From<AuthMethod> for AuthKind {
    fn from(method: AuthMethod) -> Self {
        match method {
            AuthMethod::SimplePassword => Self::SimplePassword,
            AuthMethod::KeyedMd5 => Self::KeyedMd5,
            AuthMethod::MeticulousKeyedMd5 => Self::MeticulousKeyedMd5,
            AuthMethod::KeyedSha1 => Self::KeyedSha1,
            AuthMethod::MeticulousKeyedSha1 => Self::MeticulousKeyedSha1,
        }
    }
}

/// A key: `{"id":1,"secret":"text"}` or `{"id":1,"secret_hex":"00ff"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyConfig {
    /// Auth Key ID.
    pub id: u8,
    /// The key.
    #[serde(flatten)]
    pub secret: SecretConfig,
}

/// A key's octets (RFC 5880 §6.7.2: as text, or in hexadecimal). Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretConfig {
    /// As they stand.
    #[serde(rename = "secret")]
    Text(String),
    /// Two digits an octet.
    #[serde(rename = "secret_hex")]
    Hex(String),
}

impl fmt::Debug for SecretConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A session's parameters, known to be possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) timing: Timing,
    pub(crate) hops: Hops,
    pub(crate) passive: bool,
    pub(crate) auth: Option<Auth>,
}

/// Why a session cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0} cannot be a peer's address")]
    Peer(IpAddr),
    #[error("{0} cannot be the local address")]
    Local(IpAddr),
    #[error("{local} and {peer} are of different address families")]
    Families { local: IpAddr, peer: IpAddr },
    #[error("{0} is a link-local address, which needs an interface")]
    LinkLocal(IpAddr),
    #[error("'{0}' is not the name of an interface (1 to 15 octets, no slash or blank)")]
    Interface(String),
    #[error(
        "an interval of {got:?} is out of bounds ({SHORTEST_INTERVAL:?} to {LONGEST_INTERVAL:?})"
    )]
    Interval { got: Duration },
    #[error("a minimum TTL of zero lets everything through; say 1")]
    MinTtl,
    #[error("both sides of a single-hop session must be active (RFC 5881 §3)")]
    Passive,
    #[error("key {0} is not in pairs of hexadecimal digits")]
    Hex(u8),
    #[error("{0}")]
    Invalid(#[from] caracal_bgp_core::bfd::Invalid),
    #[error("another owner wants this session with other keys")]
    OtherKeys,
    #[error("the request names this session twice")]
    Twice,
    #[error("there are {0} sessions already")]
    TooMany(usize),
}

impl SessionConfig {
    /// Parameters for the machine.
    pub(crate) fn check(&self) -> Result<Spec, Refusal> {
        self.check_addresses()?;
        let bounds = SHORTEST_INTERVAL..=LONGEST_INTERVAL;
        let [tx, rx] = [self.desired_min_tx_us, self.required_min_rx_us]
            .map(|micros| Duration::from_micros(micros.into()));
        if let Some(got) = [tx, rx].into_iter().find(|got| !bounds.contains(got)) {
            return Err(Refusal::Interval { got });
        }
        let hops = if self.key.multihop {
            Hops::Multi {
                min_ttl: self.min_ttl,
            }
        } else {
            Hops::Single
        };
        if hops == (Hops::Multi { min_ttl: 0 }) {
            return Err(Refusal::MinTtl);
        }
        if self.passive && hops == Hops::Single {
            return Err(Refusal::Passive);
        }
        Ok(Spec {
            timing: Timing::new(tx, rx, self.detect_mult)?,
            hops,
            passive: self.passive,
            auth: self.auth.as_ref().map(AuthConfig::check).transpose()?,
        })
    }

    fn check_addresses(&self) -> Result<(), Refusal> {
        let SessionKey {
            peer,
            local,
            interface,
            ..
        } = &self.key;
        // RFC 5881 §6 knows unicast only; an IPv4-mapped address would be neither family's.
        let unusable = |address: &IpAddr| {
            address.is_unspecified()
                || address.is_multicast()
                || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
                || matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
        };
        if unusable(peer) {
            return Err(Refusal::Peer(*peer));
        }
        if let Some(local) = local {
            if unusable(local) {
                return Err(Refusal::Local(*local));
            }
            if local.is_ipv4() != peer.is_ipv4() {
                let (local, peer) = (*local, *peer);
                return Err(Refusal::Families { local, peer });
            }
        }
        match interface {
            Some(name) => {
                let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
                if name.is_empty() || name.len() > 15 || name.contains(odd) {
                    return Err(Refusal::Interface(name.clone()));
                }
            }
            None => {
                let link_local = |address: &&IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
                if let Some(address) = [Some(peer), local.as_ref()]
                    .into_iter()
                    .flatten()
                    .find(link_local)
                {
                    return Err(Refusal::LinkLocal(*address));
                }
            }
        }
        Ok(())
    }
}

impl AuthConfig {
    fn check(&self) -> Result<Auth, Refusal> {
        let mut keys = Vec::with_capacity(self.keys.len());
        for KeyConfig { id, secret } in &self.keys {
            let octets = match secret {
                SecretConfig::Text(text) => text.clone().into_bytes(),
                SecretConfig::Hex(digits) => from_hex(digits).ok_or(Refusal::Hex(*id))?,
            };
            keys.push(Key {
                id: *id,
                secret: Secret::new(octets),
            });
        }
        Ok(Auth::new(self.method.into(), self.send_key, keys)?)
    }
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let [high, low] = pair else { return None };
            let digit = |octet: &u8| char::from(*octet).to_digit(16);
            u8::try_from(digit(high)? * 16 + digit(low)?).ok()
        })
        .collect()
}

impl Spec {
    /// One session for two owners: as fast as the more demanding of them asks, as guarded as the
    /// more careful one (RFC 5882 §2).
    pub(crate) fn join(&self, other: &Self) -> Result<Self, Refusal> {
        if self.auth != other.auth {
            return Err(Refusal::OtherKeys);
        }
        let hops = match (self.hops, other.hops) {
            (Hops::Multi { min_ttl: a }, Hops::Multi { min_ttl: b }) => {
                Hops::Multi { min_ttl: a.max(b) }
            }
            (hops, _) => hops,
        };
        let (a, b) = (&self.timing, &other.timing);
        Ok(Self {
            timing: Timing {
                desired_min_tx: a.desired_min_tx.min(b.desired_min_tx),
                required_min_rx: a.required_min_rx.min(b.required_min_rx),
                detect_mult: a.detect_mult.min(b.detect_mult),
            },
            hops,
            passive: self.passive && other.passive,
            auth: self.auth.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn single(peer: &str) -> SessionConfig {
        let peer = peer.parse().unwrap();
        SessionConfig::new(SessionKey::single_hop(None, peer, None))
    }

    fn with(adjust: impl FnOnce(&mut SessionConfig)) -> SessionConfig {
        let mut config = single("10.0.0.1");
        adjust(&mut config);
        config
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let local = |address: &str| {
            let address = address.parse().unwrap();
            with(|config| config.key.local = Some(address))
        };
        let interface = |name: &str| with(|config| config.key.interface = Some(name.to_owned()));
        let cases = [
            (single("0.0.0.0"), "0.0.0.0 cannot be a peer's address"),
            (single("224.0.0.1"), "224.0.0.1 cannot be a peer's address"),
            (
                single("255.255.255.255"),
                "255.255.255.255 cannot be a peer's address",
            ),
            (single("::"), ":: cannot be a peer's address"),
            (
                single("::ffff:10.0.0.1"),
                "::ffff:10.0.0.1 cannot be a peer's address",
            ),
            (local("ff02::1"), "ff02::1 cannot be the local address"),
            (
                local("::1"),
                "::1 and 10.0.0.1 are of different address families",
            ),
            (
                single("fe80::1"),
                "fe80::1 is a link-local address, which needs an interface",
            ),
            (
                interface("sixteen-octets-!"),
                "'sixteen-octets-!' is not the name of an interface (1 to 15 octets, no slash or blank)",
            ),
            (
                interface(""),
                "'' is not the name of an interface (1 to 15 octets, no slash or blank)",
            ),
            (
                interface("a/b"),
                "'a/b' is not the name of an interface (1 to 15 octets, no slash or blank)",
            ),
            (
                with(|config| config.desired_min_tx_us = 9_999),
                "an interval of 9.999ms is out of bounds (10ms to 60s)",
            ),
            (
                with(|config| config.required_min_rx_us = 60_000_001),
                "an interval of 60.000001s is out of bounds (10ms to 60s)",
            ),
            (
                with(|config| config.passive = true),
                "both sides of a single-hop session must be active (RFC 5881 §3)",
            ),
            (
                with(|config| (config.key.multihop, config.min_ttl) = (true, 0)),
                "a minimum TTL of zero lets everything through; say 1",
            ),
        ];
        for (config, why) in cases {
            assert_eq!(config.check().unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn what_can_be_has_the_defaults_that_are_documented() {
        let config: SessionConfig =
            serde_json::from_str(r#"{"key":{"peer":"10.0.0.1","multihop":true},"passive":true}"#)
                .unwrap();
        let spec = config.check().unwrap();
        assert_eq!(spec.timing.desired_min_tx.as_micros(), 300_000);
        assert_eq!(spec.timing.required_min_rx.as_micros(), 300_000);
        assert_eq!(spec.timing.detect_mult.get(), 3);
        assert_eq!(spec.hops, Hops::Multi { min_ttl: 1 });
        assert!(single("fe80::1").check().is_err());
        let scoped = SessionKey::single_hop(None, "fe80::1".parse().unwrap(), Some("eth0.100"));
        assert!(SessionConfig::new(scoped).check().is_ok());
    }

    #[test]
    fn a_field_that_does_not_exist_is_an_error() {
        for line in [
            r#"{"key":{"peer":"10.0.0.1","multi_hop":true}}"#,
            r#"{"key":{"peer":"10.0.0.1"},"interval":300}"#,
        ] {
            assert!(
                serde_json::from_str::<SessionConfig>(line).is_err(),
                "{line}"
            );
        }
    }

    #[test]
    fn keys_are_text_or_hexadecimal_and_never_shown() {
        let keyed = |key: &str| {
            let line = format!(
                r#"{{"key":{{"peer":"10.0.0.1"}},
                    "auth":{{"method":"meticulous-keyed-sha1","send_key":7,"keys":[{key}]}}}}"#
            );
            serde_json::from_str::<SessionConfig>(&line).unwrap()
        };
        let text = keyed(r#"{"id":7,"secret":"cat"}"#);
        let hex = keyed(r#"{"id":7,"secret_hex":"636174"}"#);
        assert_eq!(text.check().unwrap(), hex.check().unwrap());
        let again = serde_json::to_string(&text).unwrap();
        assert_eq!(serde_json::from_str::<SessionConfig>(&again).unwrap(), text);
        for config in [&text, &hex] {
            let shown = format!("{config:?} {:?}", config.check().unwrap());
            assert!(!shown.contains("cat") && !shown.contains("6361"), "{shown}");
        }
        for odd in ["6", "6x", "+1"] {
            let refused = keyed(&format!(r#"{{"id":7,"secret_hex":"{odd}"}}"#)).check();
            let why = refused.unwrap_err().to_string();
            assert_eq!(why, "key 7 is not in pairs of hexadecimal digits");
        }
        let long = keyed(r#"{"id":7,"secret":"much too long for a key"}"#).check();
        let why = long.unwrap_err().to_string();
        assert_eq!(
            why,
            "key 7 has 23 octets: meticulous keyed SHA1 takes 1 to 20"
        );
    }
}

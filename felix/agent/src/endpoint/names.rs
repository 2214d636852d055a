//! Names and hardware addresses of pod links.
//!
//! All are functions of (container ID, interface), so that an ADD repeated after a crash finds the
//! link that the first one made, and two sandboxes of one pod never share a name.

use std::net::IpAddr;

use caracal_cni::AttachmentKey;
use caracal_fib::link::{ALTERNATIVE_NAME_OCTETS, MacAddress};
use caracal_policy::plan::{InterfaceName, InterfaceNameError};

/// Characters of the hash in a name: with a prefix of four they fill the 15 that the kernel allows.
const HASH_CHARACTERS: usize = 11;

/// Lower-case base 32 (RFC 4648 alphabet): safe in interface names whatever the tool.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The host side's name: `prefix`, then as much of the key's hash as fits.
///
/// # Errors
/// Where the prefix itself is no interface name.
pub(crate) fn interface(
    prefix: &str,
    key: &AttachmentKey,
) -> Result<InterfaceName, InterfaceNameError> {
    let room = InterfaceName::MAX_LEN
        .saturating_sub(prefix.len())
        .min(HASH_CHARACTERS);
    let mut hash = hash(key);
    let mut name = prefix.to_owned();
    for _ in 0..room {
        name.push(char::from(ALPHABET[(hash % 32) as usize]));
        hash /= 32;
    }
    InterfaceName::new(name)
}

/// The alternative name of the host side: made of the container ID itself, so that DEL finds the
/// link with one question and a person sees whose it is.
pub(crate) fn alternative(prefix: &str, key: &AttachmentKey) -> String {
    let start = alternative_prefix(prefix);
    let name = format!("{start}{}-{}", key.container_id, key.interface);
    if name.len() <= ALTERNATIVE_NAME_OCTETS {
        name
    } else {
        format!("{start}{:016x}", hash(key))
    }
}

/// What every alternative name begins with.
pub(crate) fn alternative_prefix(prefix: &str) -> String {
    format!("{prefix}-")
}

/// What the alias of a host side says: enough to know a pod again when the log is lost, and what a
/// person wants to see in `ip link`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) key: AttachmentKey,
    pub(crate) addresses: Vec<IpAddr>,
    /// Namespace and name of the pod.
    pub(crate) pod: Option<(String, String)>,
}

impl Mark {
    /// As text: container and interface, addresses, pod.
    pub(crate) fn render(&self) -> String {
        let Mark {
            key,
            addresses,
            pod,
        } = self;
        let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        let pod = pod
            .as_ref()
            .map(|(namespace, name)| format!(" {namespace}/{name}"));
        let (container, interface) = (&key.container_id, &key.interface);
        format!(
            "{container}/{interface} {}{}",
            addresses.join(","),
            pod.unwrap_or_default()
        )
    }

    /// Reads what [`Mark::render`] wrote; none where somebody else did, or where the kernel's limit
    /// cut it short.
    pub(crate) fn parse(alias: &str) -> Option<Mark> {
        let mut words = alias.split(' ');
        let (container_id, interface) = words.next()?.split_once('/')?;
        let addresses = words
            .next()?
            .split(',')
            .map(|word| word.parse().ok())
            .collect::<Option<_>>();
        let pod = words.next().and_then(|word| word.split_once('/'));
        Some(Mark {
            key: AttachmentKey {
                container_id: container_id.into(),
                interface: interface.into(),
            },
            addresses: addresses?,
            pod: pod.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())),
        })
    }
}

/// The hardware address of the pod's side: locally administered, unicast.
pub(crate) fn pod_mac(key: &AttachmentKey) -> MacAddress {
    let [_, _, _, a, b, c, d, e] = hash(key).to_be_bytes();
    // Bit 1 of the first octet: locally administered; bit 0 clear: unicast (IEEE 802 §8.2).
    [0x0a, a, b, c, d, e]
}

/// FNV-1a, 64 bits: the same in every build, unlike the standard library's hashers.
fn hash(key: &AttachmentKey) -> u64 {
    let bytes = key
        .container_id
        .bytes()
        .chain([0])
        .chain(key.interface.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(container_id: &str, interface: &str) -> AttachmentKey {
        AttachmentKey {
            container_id: container_id.into(),
            interface: interface.into(),
        }
    }

    #[test]
    fn names_are_stable_and_differ_by_container_and_interface() {
        let name = |id: &str, ifname: &str| interface("cara", &key(id, ifname)).unwrap();
        assert_eq!(name("c1", "eth0"), name("c1", "eth0"));
        assert_ne!(name("c1", "eth0"), name("c1", "net1"));
        assert_ne!(name("c1", "eth0"), name("c2", "eth0"));
        assert_ne!(name("ab", "c"), name("a", "bc"));
        assert_eq!(name("c1", "eth0").as_str().len(), 15);
    }

    #[test]
    fn a_prefix_of_any_length_leaves_a_valid_name_or_an_error() {
        for length in 0..20 {
            let prefix = "p".repeat(length);
            let name = interface(&prefix, &key("c1", "eth0"));
            assert_eq!(name.is_ok(), length <= 15, "{length}");
        }
    }

    #[test]
    fn hardware_addresses_are_local_unicast() {
        let mac = pod_mac(&key("c1", "eth0"));
        assert_eq!(mac[0] & 0b11, 0b10, "{mac:02x?}");
        assert_ne!(mac, pod_mac(&key("c2", "eth0")));
    }

    #[test]
    fn a_mark_is_read_back_and_a_stranger_is_not() {
        for pod in [None, Some(("shop".to_owned(), "web-0".to_owned()))] {
            let addresses = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
            let mark = Mark {
                key: key("c1", "eth0"),
                addresses,
                pod,
            };
            assert_eq!(Mark::parse(&mark.render()), Some(mark));
        }
        for stranger in ["", "uplink to rack 3", "a/b", "a/b 10.0.0.1,x"] {
            assert_eq!(Mark::parse(stranger), None, "{stranger:?}");
        }
    }

    #[test]
    fn alternative_names_fit_whatever_the_container_is_called() {
        for length in [1, 64, 100, 253] {
            let name = alternative("cara", &key(&"c".repeat(length), "eth0"));
            assert!(
                name.len() <= ALTERNATIVE_NAME_OCTETS && name.starts_with("cara-"),
                "{name}"
            );
        }
        assert_eq!(alternative("cara", &key("c1", "eth0")), "cara-c1-eth0");
    }
}

//! The network configuration on standard input and the `CNI_*` environment.

use std::path::PathBuf;

use serde::Deserialize;

use crate::error::{CniError, ErrorCode};
use crate::protocol::{AttachmentKey, PodReference};
use crate::result::AddResult;
use crate::version::SpecVersion;

/// Where the agent listens unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/caracal/cni.sock";

/// What we read of the configuration; keys meant for others are left alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfig {
    /// The version that the runtime wants its answer in.
    pub cni_version: String,
    /// Name of the network.
    #[serde(default)]
    pub name: String,
    /// The agent's socket.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// What ADD returned, given back for CHECK and DEL.
    #[serde(default)]
    pub prev_result: Option<AddResult>,
    /// GC: the attachments that are still in use.
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<AttachmentKey>>,
    /// The key that libcni used before 1.1.0 was final, and still sends.
    #[serde(default, rename = "cni.dev/attachments")]
    pub attachments: Option<Vec<AttachmentKey>>,
}

fn default_socket() -> PathBuf {
    PathBuf::from(DEFAULT_SOCKET)
}

impl NetworkConfig {
    /// Parses standard input.
    ///
    /// # Errors
    /// Code 6 where it is not JSON of the right shape.
    pub fn parse(stdin: &[u8]) -> Result<NetworkConfig, CniError> {
        serde_json::from_slice(stdin).map_err(|error| {
            CniError::new(ErrorCode::Decode, "cannot read the network configuration").because(error)
        })
    }

    /// The version asked for.
    ///
    /// # Errors
    /// Code 1 where we do not speak it.
    pub fn version(&self) -> Result<SpecVersion, CniError> {
        SpecVersion::parse(&self.cni_version).ok_or_else(|| {
            let known: Vec<&str> = SpecVersion::ALL.iter().map(|v| v.as_str()).collect();
            CniError::new(ErrorCode::IncompatibleVersion, "incompatible CNI version").because(
                format!(
                    "configuration asks for {}, known: {}",
                    self.cni_version,
                    known.join(", ")
                ),
            )
        })
    }

    /// The attachments that GC has to keep. None where the runtime named none at all, which is not
    /// the same as an empty list: nothing may be collected then.
    pub fn valid(&self) -> Option<&[AttachmentKey]> {
        self.valid_attachments
            .as_deref()
            .or(self.attachments.as_deref())
    }
}

/// The `CNI_*` variables of one call.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`; may be empty for DEL, where the namespace can be gone.
    pub netns: String,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_ARGS`: `KEY=value` pairs with semicolons between.
    pub args: String,
}

impl Environment {
    /// Takes the variables from `lookup`, which is the process environment in the plugin.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Environment {
        let text = |name: &str| lookup(name).unwrap_or_default();
        Environment {
            command: text("CNI_COMMAND"),
            container_id: text("CNI_CONTAINERID"),
            netns: text("CNI_NETNS"),
            interface: text("CNI_IFNAME"),
            args: text("CNI_ARGS"),
        }
    }

    /// The attachment that the call is about.
    ///
    /// # Errors
    /// Code 4 where the container ID or the interface name is missing or malformed.
    pub fn key(&self) -> Result<AttachmentKey, CniError> {
        if !valid_container_id(&self.container_id) {
            return Err(invalid("CNI_CONTAINERID", &self.container_id));
        }
        if !valid_interface(&self.interface) {
            return Err(invalid("CNI_IFNAME", &self.interface));
        }
        Ok(AttachmentKey {
            container_id: self.container_id.clone(),
            interface: self.interface.clone(),
        })
    }

    /// The namespace's path.
    ///
    /// # Errors
    /// Code 4 where it is empty.
    pub fn required_netns(&self) -> Result<PathBuf, CniError> {
        if self.netns.is_empty() {
            return Err(invalid("CNI_NETNS", &self.netns));
        }
        Ok(PathBuf::from(&self.netns))
    }

    /// The pod that the runtime named in `CNI_ARGS`; none outside Kubernetes.
    pub fn pod(&self) -> Option<PodReference> {
        let value = |key: &str| {
            self.args
                .split(';')
                .filter_map(|pair| pair.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.to_owned())
                .filter(|value| !value.is_empty())
        };
        Some(PodReference {
            namespace: value("K8S_POD_NAMESPACE")?,
            name: value("K8S_POD_NAME")?,
            uid: value("K8S_POD_UID"),
        })
    }
}

fn invalid(variable: &str, value: &str) -> CniError {
    CniError::new(
        ErrorCode::InvalidEnvironment,
        format!("{variable} is missing or malformed"),
    )
    .because(format!("{value:?}"))
}

/// SPEC.md: starts with an alphanumeric, then alphanumerics, `_`, `.` and `-`. Because it names
/// tombstone files too, anything else must not pass.
fn valid_container_id(id: &str) -> bool {
    id.len() <= 253
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The kernel's rule (`dev_valid_name`), less the colon of interface aliases.
fn valid_interface(name: &str) -> bool {
    !name.is_empty()
        && name.len() < 16
        && name != "."
        && name != ".."
        && name
            .chars()
            .all(|c| !c.is_whitespace() && c != '/' && c != ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(id: &str, interface: &str) -> Environment {
        Environment {
            container_id: id.into(),
            interface: interface.into(),
            ..Default::default()
        }
    }

    #[test]
    fn names_that_could_escape_a_directory_are_refused() {
        for (id, interface, accepted) in [
            ("0a1b", "eth0", true),
            ("a.b_c-d", "net1", true),
            ("", "eth0", false),
            ("../x", "eth0", false),
            (".hidden", "eth0", false),
            ("a/b", "eth0", false),
            ("a", "", false),
            ("a", "..", false),
            ("a", "et/h0", false),
            ("a", "eth0:1", false),
            ("a", "sixteencharslong", false),
        ] {
            let answer = environment(id, interface).key();
            assert_eq!(answer.is_ok(), accepted, "{id:?} {interface:?}: {answer:?}");
        }
    }

    #[test]
    fn pod_is_read_from_the_arguments() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=";
        let pod = Environment {
            args: args.into(),
            ..Default::default()
        }
        .pod()
        .unwrap();
        assert_eq!(
            (pod.namespace.as_str(), pod.name.as_str()),
            ("shop", "web-0")
        );
        assert_eq!(pod.uid, None);
        assert_eq!(Environment::default().pod(), None);
    }

    #[test]
    fn absent_and_empty_lists_of_valid_attachments_differ() {
        let parse = |text: &str| NetworkConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(parse(r#"{"cniVersion":"1.1.0"}"#).valid(), None);
        let empty = parse(r#"{"cniVersion":"1.1.0","cni.dev/valid-attachments":[]}"#);
        assert_eq!(empty.valid(), Some(&[][..]));
        let old = parse(
            r#"{"cniVersion":"1.1.0","cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}]}"#,
        );
        assert_eq!(old.valid().unwrap()[0].container_id, "a");
    }
}

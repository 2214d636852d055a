//! The result of ADD, kept in the newest format and printed in the one asked for.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::version::SpecVersion;

/// What ADD made (SPEC.md, "ADD Success").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddResult {
    /// The links, host side first.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// The addresses.
    #[serde(default)]
    pub ips: Vec<IpConfig>,
    /// The routes inside the pod.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name in its namespace.
    pub name: String,
    /// Hardware address, colon separated; empty where it has none.
    #[serde(default)]
    pub mac: String,
    /// Bytes; only printed from 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Path of the pod's namespace; absent for a link on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
}

/// One address of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// With its prefix length, for instance `10.64.0.7/32`.
    pub address: String,
    /// The next hop of the default route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Index in `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// One route of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination in CIDR form.
    pub dst: String,
    /// Next hop; absent for a route on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<String>,
}

impl AddResult {
    /// The result as JSON in the format of `version`. What an older format cannot carry is left
    /// out: a runtime that parses strictly refuses keys that it does not know.
    pub fn render(&self, version: SpecVersion) -> Value {
        let interfaces: Vec<Value> = self
            .interfaces
            .iter()
            .map(|interface| {
                let mtu = interface.mtu.filter(|_| version >= SpecVersion::V1_1_0);
                json!(Interface {
                    mtu,
                    ..interface.clone()
                })
            })
            .collect();
        let ips: Vec<Value> = self
            .ips
            .iter()
            .map(|ip| {
                let mut value = json!(ip);
                // SPEC.md 0.4.0: `version` is required; 1.0.0 took it out.
                if version < SpecVersion::V1_0_0
                    && let Some(object) = value.as_object_mut()
                {
                    let family = if ip.address.contains(':') { "6" } else { "4" };
                    object.insert("version".into(), family.into());
                }
                value
            })
            .collect();
        json!({
            "cniVersion": version.as_str(),
            "interfaces": interfaces,
            "ips": ips,
            "routes": self.routes,
            "dns": {},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> AddResult {
        AddResult {
            interfaces: vec![Interface {
                name: "eth0".into(),
                mac: "02:00:00:00:00:01".into(),
                mtu: Some(1500),
                sandbox: Some("/run/netns/x".into()),
            }],
            ips: vec![
                IpConfig {
                    address: "10.0.0.1/32".into(),
                    gateway: None,
                    interface: Some(0),
                },
                IpConfig {
                    address: "fd00::1/128".into(),
                    gateway: None,
                    interface: Some(0),
                },
            ],
            routes: vec![Route {
                dst: "0.0.0.0/0".into(),
                gw: Some("169.254.1.1".into()),
            }],
        }
    }

    #[test]
    fn each_version_carries_only_the_keys_it_knows() {
        for (version, family, mtu) in [
            (SpecVersion::V0_3_1, true, false),
            (SpecVersion::V0_4_0, true, false),
            (SpecVersion::V1_0_0, false, false),
            (SpecVersion::V1_1_0, false, true),
        ] {
            let value = sample().render(version);
            assert_eq!(value["cniVersion"], version.as_str());
            assert_eq!(
                value["ips"][0].get("version").is_some(),
                family,
                "{version:?}"
            );
            assert_eq!(
                value["interfaces"][0].get("mtu").is_some(),
                mtu,
                "{version:?}"
            );
        }
        assert_eq!(
            sample().render(SpecVersion::V0_4_0)["ips"][1]["version"],
            "6"
        );
    }

    #[test]
    fn a_printed_result_parses_back_as_the_previous_result() {
        let printed = sample().render(SpecVersion::V1_1_0);
        assert_eq!(
            serde_json::from_value::<AddResult>(printed).unwrap(),
            sample()
        );
    }
}

//! The versions of the specification that the plugin answers.

use serde::{Deserialize, Serialize};

/// A version of the CNI specification whose result format we can print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SpecVersion {
    /// 0.3.1: `ips[]` carries the family in `version`; no CHECK.
    #[serde(rename = "0.3.1")]
    V0_3_1,
    /// 0.4.0: as 0.3.1, with CHECK.
    #[serde(rename = "0.4.0")]
    V0_4_0,
    /// 1.0.0: `ips[].version` is gone.
    #[serde(rename = "1.0.0")]
    V1_0_0,
    /// 1.1.0: interface MTU, more route keys, STATUS and GC.
    #[serde(rename = "1.1.0")]
    V1_1_0,
}

impl SpecVersion {
    /// Every supported version, oldest first: the answer to VERSION.
    pub const ALL: [SpecVersion; 4] = [
        SpecVersion::V0_3_1,
        SpecVersion::V0_4_0,
        SpecVersion::V1_0_0,
        SpecVersion::V1_1_0,
    ];

    /// The newest version: the format the agent answers in.
    pub const LATEST: SpecVersion = SpecVersion::V1_1_0;

    /// The version as the specification writes it, for instance `1.1.0`.
    pub const fn as_str(self) -> &'static str {
        match self {
            SpecVersion::V0_3_1 => "0.3.1",
            SpecVersion::V0_4_0 => "0.4.0",
            SpecVersion::V1_0_0 => "1.0.0",
            SpecVersion::V1_1_0 => "1.1.0",
        }
    }

    /// The version that `text` names, or none where we do not speak it.
    pub fn parse(text: &str) -> Option<SpecVersion> {
        SpecVersion::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
    }
}

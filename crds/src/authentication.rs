//! Where the keys of sessions come from.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a password is.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSource {
    /// The Secret that holds it.
    pub secret_key_ref: SecretKeyRef,
}

/// One key of a Secret in the namespace of the agent.
#[derive(
    KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Its key.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// The TCP authentication option (RFC 5925).
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpAo {
    /// Master keys. The first is the one to send with and to ask the peer for; the others are
    /// accepted, so that a new key can be brought in without a break.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(
        validation = Rule::new("self.all(k, self.filter(l, l.sendID == k.sendID).size() == 1)").message("each sendID at most once"),
        validation = Rule::new("self.all(k, self.filter(l, l.receiveID == k.receiveID).size() == 1)").message("each receiveID at most once"),
    )]
    pub keys: Vec<TcpAoKey>,

    /// Whether other TCP options are authenticated too. Default true.
    #[serde(
        default,
        rename = "includeTCPOptions",
        skip_serializing_if = "Option::is_none"
    )]
    pub include_tcp_options: Option<bool>,
}

/// One master key.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpAoKey {
    /// KeyID in what we send; the peer's receiveID.
    #[serde(rename = "sendID")]
    #[schemars(range(min = 0, max = 255))]
    pub send_id: u8,

    /// KeyID in what the peer sends; its sendID.
    #[serde(rename = "receiveID")]
    #[schemars(range(min = 0, max = 255))]
    pub receive_id: u8,

    /// Algorithm. Default HMAC-SHA-1-96.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<TcpAoAlgorithm>,

    /// The Secret that holds the key, 1 to 80 octets.
    pub secret_key_ref: SecretKeyRef,
}

/// Algorithms that every implementation has (RFC 5926).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TcpAoAlgorithm {
    /// HMAC-SHA-1-96.
    #[default]
    #[serde(rename = "HMAC-SHA-1-96")]
    HmacSha1,
    /// AES-128-CMAC-96.
    #[serde(rename = "AES-128-CMAC-96")]
    Aes128Cmac,
}

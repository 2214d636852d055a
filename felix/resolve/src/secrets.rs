//! Keys of sessions from Secrets.
//!
//! Owns which ones sessions name, finding them and saying what is wrong with one. A message names the
//! Secret and its key, never what it holds.

use std::collections::BTreeMap;

use caracal_bgp_speaker::config::{self, Lack};
use caracal_crds::{Bfd, BgpPeerSpec, PasswordSource, SecretKeyRef};
use k8s_openapi::api::core::v1::Secret;

/// What the kernel takes as a key (`TCP_MD5SIG_MAXKEYLEN`, `TCP_AO_MAXKEYLEN`).
pub(crate) const LONGEST_TCP_KEY: usize = 80;

/// What keyed SHA1 takes (RFC 5880 §4.4).
pub(crate) const LONGEST_BFD_KEY: usize = 20;

/// Secrets, as the agent or the files have them.
#[derive(Clone, Copy)]
pub struct Secrets<'a> {
    /// By `namespace/name`.
    pub objects: &'a BTreeMap<String, Secret>,
    /// Where names are looked up; anywhere when absent, as long as a name is unique.
    pub namespace: Option<&'a str>,
    /// Why what is named and not among `objects`, or lacks there, could not be read, by name: nobody can
    /// say then whether it is there.
    pub unread: &'a BTreeMap<String, String>,
}

impl std::fmt::Debug for Secrets<'_> {
    /// Names only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.objects.keys()).finish()
    }
}

/// Why a key cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) lack: Lack,
    pub(crate) message: String,
}

impl Secrets<'_> {
    /// The octets that `reference` names, 1 to `longest` of them.
    pub(crate) fn find(
        &self,
        reference: &SecretKeyRef,
        longest: usize,
    ) -> Result<config::Secret, Missing> {
        let SecretKeyRef { name, key } = reference;
        let missing = |lack, message| Err(Missing { lack, message });
        let mut candidates = self
            .objects
            .iter()
            .filter(|(full, _)| match self.namespace {
                Some(namespace) => full.split_once('/') == Some((namespace, name)),
                None => {
                    full.rsplit_once('/')
                        .map_or(full.as_str(), |(_, name)| name)
                        == name
                }
            });
        let Some((_, secret)) = candidates.next() else {
            let place = self.namespace.map_or_else(String::new, |namespace| {
                format!(" in namespace {namespace}")
            });
            let message = match self.unread.get(name) {
                Some(why) => format!("Secret {name}{place} cannot be read: {why}"),
                None => format!("there is no Secret {name}{place}"),
            };
            return missing(Lack::Secret, message);
        };
        if candidates.next().is_some() {
            return missing(
                Lack::Secret,
                format!("there are several Secrets {name}, in different namespaces"),
            );
        }
        // Where both have the key, stringData wins, as in the API server.
        let text = secret.string_data.as_ref().and_then(|data| data.get(key));
        let data = secret.data.as_ref().and_then(|data| data.get(key));
        let octets = match (text, data) {
            (Some(text), _) => text.as_bytes(),
            (None, Some(data)) => &data.0,
            (None, None) => {
                let message = match self.unread.get(name) {
                    Some(why) => format!("key {key} of Secret {name} cannot be read: {why}"),
                    None => format!("Secret {name} has no key {key}"),
                };
                return missing(Lack::SecretKey, message);
            }
        };
        if octets.is_empty() || octets.len() > longest {
            return missing(
                Lack::ValidSecret,
                format!(
                    "key {key} of Secret {name} has {} octets: there must be 1 to {longest}",
                    octets.len()
                ),
            );
        }
        config::Secret::new(octets).map_err(|error| Missing {
            lack: Lack::ValidSecret,
            message: format!("key {key} of Secret {name}: {error}"),
        })
    }
}

/// What the session of a BGPPeer needs.
pub(crate) fn named_by_peer(spec: &BgpPeerSpec) -> impl Iterator<Item = &SecretKeyRef> {
    let password = spec.password.as_ref().map(key);
    let tcp_ao = spec.tcp_ao.iter().flat_map(|ao| &ao.keys);
    password
        .into_iter()
        .chain(tcp_ao.map(|key| &key.secret_key_ref))
        .chain(spec.bfd.as_ref().and_then(key_of_bfd))
}

/// What the sessions of the mesh need.
pub(crate) fn named_by_mesh<'a>(
    password: Option<&'a PasswordSource>,
    bfd: Option<&'a Bfd>,
) -> impl Iterator<Item = &'a SecretKeyRef> {
    let password = password.map(key);
    password.into_iter().chain(bfd.and_then(key_of_bfd))
}

fn key_of_bfd(bfd: &Bfd) -> Option<&SecretKeyRef> {
    bfd.password.as_ref().filter(|_| bfd.enabled).map(key)
}

fn key(source: &PasswordSource) -> &SecretKeyRef {
    &source.secret_key_ref
}

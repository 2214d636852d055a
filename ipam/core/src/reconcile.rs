//! What a restarted agent makes of what it finds: log × veth aliases × network namespaces.
//!
//! Owns: the judgement. Does not own: looking, or doing what is judged.
//!
//! | log | veth | namespace | first look | second look, the same |
//! |---|---|---|---|---|
//! | yes | yes | yes | keep | keep |
//! | yes | yes, other addresses | any | quarantine what the veth has | the same |
//! | yes | no | yes | suspect: an ADD was cut off | free |
//! | yes | any | no | suspect: a DEL was missed | free, with the veth |
//! | no | yes | yes | adopt: the log was lost | adopt |
//! | no | yes | no | quarantine: nobody can say whose it was | remove the veth, stay quarantined |
//!
//! Nothing is freed on the first look: what a starting agent does not see may not have been shown
//! to it yet. What no record explains is never freed at all.

use std::collections::{BTreeMap, BTreeSet};

use crate::{AddressPair, AttachmentKey};

/// What the node shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Host ends of our veths, by the attachment that their alias names.
    pub veths: BTreeMap<AttachmentKey, AddressPair>,
    /// Attachments whose network namespace exists, of those in the log or with a veth.
    pub namespaces: BTreeSet<AttachmentKey>,
}

/// What seemed wrong at one look; given back at the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspicions(BTreeMap<AttachmentKey, Sight>);

impl Suspicions {
    /// How many attachments are under suspicion.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is to be done about one attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// All is as it should be.
    Keep,
    /// Look again; until then the addresses stay taken.
    Suspect,
    /// The addresses are free after their rest; `remove_veth` tells whether a veth is left.
    Free {
        /// Whether the host end of a veth is to be removed first.
        remove_veth: bool,
    },
    /// Take the attachment over from its veth.
    Adopt(AddressPair),
    /// Never give these addresses out while this boot lasts.
    Quarantine {
        /// What the veth says it has.
        addresses: AddressPair,
        /// Whether the veth is to be removed.
        remove_veth: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sight {
    logged: bool,
    veth: Option<AddressPair>,
    namespace: bool,
}

/// Judges every attachment that the log or a veth names.
pub fn judge(
    log: &BTreeMap<AttachmentKey, AddressPair>,
    found: &Found,
    before: &Suspicions,
) -> (BTreeMap<AttachmentKey, Verdict>, Suspicions) {
    let mut verdicts = BTreeMap::new();
    let mut suspicions = Suspicions::default();
    let keys: BTreeSet<&AttachmentKey> = log.keys().chain(found.veths.keys()).collect();
    for key in keys {
        let sight = Sight {
            logged: log.contains_key(key),
            veth: found.veths.get(key).copied(),
            namespace: found.namespaces.contains(key),
        };
        let again = before.0.get(key) == Some(&sight);
        let verdict = match (log.get(key), sight.veth, sight.namespace) {
            (Some(logged), Some(addresses), _) if *logged != addresses => Verdict::Quarantine {
                addresses,
                remove_veth: false,
            },
            (Some(_), Some(_), true) => Verdict::Keep,
            (Some(_), veth, _) if again => Verdict::Free {
                remove_veth: veth.is_some(),
            },
            (Some(_), _, _) => Verdict::Suspect,
            (None, Some(addresses), true) => Verdict::Adopt(addresses),
            (None, Some(addresses), false) => Verdict::Quarantine {
                addresses,
                remove_veth: again,
            },
            (None, None, _) => continue, // in neither source: not among the keys
        };
        let lasting = matches!(verdict, Verdict::Suspect | Verdict::Quarantine { .. });
        if lasting {
            suspicions.0.insert(key.clone(), sight);
        }
        verdicts.insert(key.clone(), verdict);
    }
    (verdicts, suspicions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AttachmentKey {
        AttachmentKey {
            container_id: "c".to_owned(),
            interface: "eth0".to_owned(),
        }
    }

    fn addresses(n: u32) -> AddressPair {
        AddressPair {
            ipv4: Some(n.into()),
            ipv6: None,
        }
    }

    fn look(
        sight: (Option<u32>, Option<u32>, bool),
        before: &Suspicions,
    ) -> (Option<Verdict>, Suspicions) {
        let (log, veth, namespace) = sight;
        let log = log.map(|n| (key(), addresses(n))).into_iter().collect();
        let found = Found {
            veths: veth.map(|n| (key(), addresses(n))).into_iter().collect(),
            namespaces: namespace.then(key).into_iter().collect(),
        };
        let (verdicts, suspicions) = judge(&log, &found, before);
        (verdicts.get(&key()).copied(), suspicions)
    }

    #[test]
    fn each_combination_has_its_verdict_on_both_looks() {
        use Verdict::{Adopt, Free, Keep, Quarantine, Suspect};
        let quarantine = |n, remove_veth| Quarantine {
            addresses: addresses(n),
            remove_veth,
        };
        for (sight, first, second) in [
            ((Some(1), Some(1), true), Some(Keep), Some(Keep)),
            (
                (Some(1), Some(1), false),
                Some(Suspect),
                Some(Free { remove_veth: true }),
            ),
            (
                (Some(1), None, true),
                Some(Suspect),
                Some(Free { remove_veth: false }),
            ),
            (
                (Some(1), None, false),
                Some(Suspect),
                Some(Free { remove_veth: false }),
            ),
            (
                (Some(1), Some(2), true),
                Some(quarantine(2, false)),
                Some(quarantine(2, false)),
            ),
            (
                (Some(1), Some(2), false),
                Some(quarantine(2, false)),
                Some(quarantine(2, false)),
            ),
            (
                (None, Some(1), true),
                Some(Adopt(addresses(1))),
                Some(Adopt(addresses(1))),
            ),
            (
                (None, Some(1), false),
                Some(quarantine(1, false)),
                Some(quarantine(1, true)),
            ),
            ((None, None, true), None, None),
            ((None, None, false), None, None),
        ] {
            let (verdict, suspicions) = look(sight, &Suspicions::default());
            assert_eq!(verdict, first, "{sight:?}, first look");
            let (verdict, _) = look(sight, &suspicions);
            assert_eq!(verdict, second, "{sight:?}, second look");
        }
    }

    #[test]
    fn a_change_between_the_looks_starts_over() {
        let (_, suspicions) = look((Some(1), None, true), &Suspicions::default());
        let (verdict, suspicions) = look((Some(1), None, false), &suspicions);
        assert_eq!(verdict, Some(Verdict::Suspect));
        let (verdict, suspicions) = look((Some(1), Some(1), true), &suspicions);
        assert_eq!(verdict, Some(Verdict::Keep));
        assert!(suspicions.is_empty());
    }
}

//! The Secrets that sessions need, each watched by its name.
//!
//! Owns which ones are watched and what is known of each. Which they are follows from the peers, so
//! watches come and go. None asks for the whole namespace: a Role may name the Secrets. Does not own
//! what their keys are for.
//!
//! What a Secret holds goes into [`World`] and with it into the snapshot, which is the owner's alone,
//! and of it only the keys that are needed. It goes into no log: what arrives is taken apart here,
//! since the client logs a text that it cannot read as the type that was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use caracal_crds::SecretKeyRef;
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, ObjectMeta};
use kube::core::Status;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::watch::{FAILURES_BEFORE_RELIST, PAUSE, Pauses};
use crate::world::{Change, Key, TableChange, World};

/// News on their way to the loop: Secrets change a few times a year.
const NEWS_DEPTH: usize = 16;

/// How long sessions stay as they are while a Secret that they will need has not been read. A key that
/// moves from one Secret to another must not cost a session, and one that cannot be read must not keep
/// a node from changing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause after "you may not": somebody has to change a Role first, and every node asks.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// What is asked, by the name of the Secret.
type Wanted = BTreeMap<String, Asked>;

/// Keys of one Secret that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    /// Tells it from an earlier asking for the same keys, of which late news may come.
    round: u64,
    keys: BTreeSet<String>,
}

/// What one watch has seen.
pub(crate) struct News {
    name: String,
    /// Which asking they answer.
    round: u64,
    seen: Seen,
}

enum Seen {
    There(Box<Secret>),
    Absent,
    Refused(String),
}

impl fmt::Debug for News {
    /// Without what the Secret holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = match &self.seen {
            Seen::There(_) => "there",
            Seen::Absent => "absent",
            Seen::Refused(why) => why,
        };
        write!(f, "Secret {}: {seen}", self.name)
    }
}

/// What is known of one Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// Since then.
    Awaited(Instant),
    /// It is in the world, or it does not exist.
    Known,
    Refused(String),
}

/// The Secrets that are watched.
pub(crate) struct SecretWatch {
    namespace: String,
    wanted: watch::Sender<Wanted>,
    answers: BTreeMap<String, Answer>,
    /// The last asking.
    round: u64,
}

impl SecretWatch {
    /// Watches nothing yet. Watches end with `tasks`, or when this is dropped.
    pub(crate) fn start(
        client: Client,
        namespace: String,
        tasks: &mut JoinSet<()>,
    ) -> (SecretWatch, mpsc::Receiver<News>) {
        let (wanted, receiver) = watch::channel(Wanted::new());
        let (sender, news) = mpsc::channel(NEWS_DEPTH);
        tasks.spawn(keep(client, namespace.clone(), receiver, sender));
        let watch = SecretWatch {
            namespace,
            wanted,
            answers: BTreeMap::new(),
            round: 0,
        };
        (watch, news)
    }

    /// Where Secrets are looked up.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Watches what `named` names and nothing else; says what nobody needs any more.
    #[must_use]
    pub(crate) fn want(
        &mut self,
        named: &BTreeSet<SecretKeyRef>,
        world: &World,
        now: Instant,
    ) -> Vec<Change> {
        let mut needed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for SecretKeyRef { name, key } in named {
            let keys = needed.entry(name.clone()).or_default();
            keys.insert(key.clone());
        }
        let known = world.secrets.iter();
        let forgotten = known
            .filter_map(|secret| self.less(secret, &needed))
            .map(Change::Secret)
            .collect();
        let before = self.wanted.borrow().clone();
        let mut wanted = Wanted::new();
        for (name, keys) in needed {
            let same = before.get(&name).filter(|asked| asked.keys == keys);
            let asked = same.cloned().unwrap_or_else(|| {
                self.round += 1;
                let round = self.round;
                Asked { round, keys }
            });
            wanted.insert(name, asked);
        }
        if wanted == before {
            return forgotten;
        }
        for (name, asked) in &wanted {
            if before.get(name) == Some(asked) {
                continue;
            }
            let answer = if !is_name(name) || self.holds(world, name, &asked.keys) {
                Answer::Known
            } else {
                Answer::Awaited(now)
            };
            self.answers.insert(name.clone(), answer);
        }
        self.answers.retain(|name, _| wanted.contains_key(name));
        self.wanted.send_replace(wanted);
        forgotten
    }

    /// Takes news in: what it changes in the world, and whether anything is new at all.
    pub(crate) fn take(&mut self, news: News, world: &World) -> (Option<Change>, bool) {
        let News { name, round, seen } = news;
        let keys = match self.wanted.borrow().get(&name) {
            Some(asked) if asked.round == round => asked.keys.clone(),
            _ => return (None, false),
        };
        let key = Key::namespaced(&self.namespace, &name);
        let (answer, change) = match seen {
            Seen::There(secret) => (Answer::Known, Some(TableChange::Applied(*secret))),
            Seen::Absent => (Answer::Known, Some(TableChange::Deleted(key))),
            // What is known stays in use: nobody has said that it is gone.
            Seen::Refused(_) if self.holds(world, &name, &keys) => (Answer::Known, None),
            Seen::Refused(why) => (Answer::Refused(why), None),
        };
        let before = self.answers.insert(name, answer.clone());
        (change.map(Change::Secret), before != Some(answer))
    }

    /// Why Secrets that are needed could not be read, by name.
    pub(crate) fn unread(&self) -> BTreeMap<String, String> {
        let why = |answer: &Answer| match answer {
            Answer::Known => None,
            Answer::Awaited(_) => Some("the API server has not answered yet".to_owned()),
            Answer::Refused(why) => Some(why.clone()),
        };
        let answers = self.answers.iter();
        answers
            .filter_map(|(name, answer)| Some((name.clone(), why(answer)?)))
            .collect()
    }

    /// Until when sessions wait for a Secret, if they do.
    pub(crate) fn awaited_until(&self, now: Instant) -> Option<Instant> {
        let until = self.answers.values().filter_map(|answer| match answer {
            Answer::Awaited(since) => Some(*since + PATIENCE),
            Answer::Known | Answer::Refused(_) => None,
        });
        until.filter(|until| *until > now).max()
    }

    /// What the world may lose of a Secret: all of it, some keys, or nothing.
    fn less(
        &self,
        secret: &Secret,
        needed: &BTreeMap<String, BTreeSet<String>>,
    ) -> Option<TableChange<Secret>> {
        let key = Key::of(secret);
        let keys = needed
            .get(&key.name)
            .filter(|_| key.namespace == self.namespace);
        let Some(keys) = keys else {
            return Some(TableChange::Deleted(key));
        };
        let mut less = secret.clone();
        let data = less.data.as_mut()?;
        let held = data.len();
        data.retain(|key, _| keys.contains(key));
        (data.len() < held).then_some(TableChange::Applied(less))
    }

    /// Whether the world, as a snapshot may have it, holds all that is needed of a Secret.
    fn holds(&self, world: &World, name: &str, keys: &BTreeSet<String>) -> bool {
        let secret = world.secrets.get(&Key::namespaced(&self.namespace, name));
        let data = secret.and_then(|secret| secret.data.as_ref());
        data.is_some_and(|data| keys.iter().all(|key| data.contains_key(key)))
    }
}

/// Whether an object can be called so; a selector would take another text apart.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    !name.is_empty() && name.chars().all(allowed)
}

/// One watch for each name that is wanted.
async fn keep(
    client: Client,
    namespace: String,
    mut wanted: watch::Receiver<Wanted>,
    news: mpsc::Sender<News>,
) {
    // A set of one task ends it when dropped.
    let mut watches: BTreeMap<String, (u64, JoinSet<()>)> = BTreeMap::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        watches.retain(|name, (round, _)| now.get(name).is_some_and(|it| it.round == *round));
        for (name, Asked { round, keys }) in now {
            if !is_name(&name) || watches.contains_key(&name) {
                continue;
            }
            let follower = Follower {
                api: Api::namespaced_with(
                    client.clone(),
                    &namespace,
                    &ApiResource::erase::<Secret>(&()),
                ),
                name: name.clone(),
                round,
                keys,
                news: news.clone(),
            };
            let mut task = JoinSet::new();
            task.spawn(follower.run());
            watches.insert(name, (round, task));
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

/// The watch of one Secret.
struct Follower {
    api: Api<DynamicObject>,
    name: String,
    round: u64,
    keys: BTreeSet<String>,
    news: mpsc::Sender<News>,
}

impl Follower {
    async fn run(self) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        loop {
            let mut events = watcher(self.api.clone(), config.clone())
                .backoff(Pauses::default())
                .boxed();
            let mut listed = None;
            let mut failures = 0;
            let pause = loop {
                let Some(event) = events.next().await else {
                    break PAUSE.1;
                };
                let seen = match event {
                    Ok(Event::Init) => {
                        listed = None;
                        continue;
                    }
                    Ok(Event::InitApply(object)) => {
                        listed = Some(object);
                        continue;
                    }
                    Ok(Event::InitDone) => match listed.take() {
                        Some(object) => Seen::There(Box::new(self.kept(&object))),
                        None => Seen::Absent,
                    },
                    Ok(Event::Apply(object)) => Seen::There(Box::new(self.kept(&object))),
                    Ok(Event::Delete(_)) => Seen::Absent,
                    Err(error) => {
                        if let Some(why) = refusal(&error) {
                            self.tell(Seen::Refused(why)).await;
                            break PAUSE_AFTER_REFUSAL;
                        }
                        failures += 1;
                        debug!(secret = self.name, failures, "watch interrupted");
                        if failures >= FAILURES_BEFORE_RELIST {
                            break PAUSE.1;
                        }
                        continue;
                    }
                };
                failures = 0;
                self.tell(seen).await;
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn tell(&self, seen: Seen) {
        let news = News {
            name: self.name.clone(),
            round: self.round,
            seen,
        };
        if let Seen::Refused(why) = &news.seen {
            warn!(
                secret = self.name,
                reason = why,
                "may not read a Secret that sessions need"
            );
        }
        // A loop that has ended needs no news.
        let _ = self.news.send(news).await;
    }

    /// What is kept of the Secret: the keys that are needed.
    fn kept(&self, object: &DynamicObject) -> Secret {
        let value = |key: &String| {
            let value = object.data.get("data")?.get(key)?;
            match serde_json::from_value::<ByteString>(value.clone()) {
                Ok(value) => Some((key.clone(), value)),
                Err(_) => {
                    warn!(secret = self.name, key, "a key of a Secret is not base64");
                    None
                }
            }
        };
        Secret {
            metadata: ObjectMeta {
                name: object.metadata.name.clone(),
                namespace: object.metadata.namespace.clone(),
                ..ObjectMeta::default()
            },
            data: Some(self.keys.iter().filter_map(value).collect()),
            ..Secret::default()
        }
    }
}

/// The server's words, where it says that we may not look.
fn refusal(error: &watcher::Error) -> Option<String> {
    let status: &Status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        _ => return None,
    };
    matches!(status.code, 401 | 403).then(|| status.message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A watch without a server: nobody reads what is wanted.
    fn unserved() -> SecretWatch {
        SecretWatch {
            namespace: "system".into(),
            wanted: watch::channel(Wanted::new()).0,
            answers: BTreeMap::new(),
            round: 0,
        }
    }

    fn named(keys: &[(&str, &str)]) -> BTreeSet<SecretKeyRef> {
        let named = keys.iter().map(|(name, key)| SecretKeyRef {
            name: (*name).to_owned(),
            key: (*key).to_owned(),
        });
        named.collect()
    }

    fn news(name: &str, round: u64, seen: Seen) -> News {
        News {
            name: name.into(),
            round,
            seen,
        }
    }

    fn secret(name: &str, keys: &[&str]) -> Secret {
        let data = keys.iter().map(|key| {
            let octets = format!("octets of {key}").into_bytes();
            ((*key).to_owned(), ByteString(octets))
        });
        Secret {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("system".into()),
                ..ObjectMeta::default()
            },
            data: Some(data.collect()),
            ..Secret::default()
        }
    }

    fn there() -> Seen {
        Seen::There(Box::new(secret("bgp", &["a"])))
    }

    fn take(watch: &mut SecretWatch, world: &mut World, news: News) -> bool {
        let (change, new) = watch.take(news, world);
        let changed = change.is_some_and(|change| !world.apply(change).1.is_empty());
        changed || new
    }

    #[test]
    fn sessions_wait_for_a_secret_until_it_is_there_or_not_there() {
        let start = Instant::now();
        for seen in [there(), Seen::Absent] {
            let (mut watch, mut world) = (unserved(), World::default());
            assert_eq!(watch.awaited_until(start), None);
            assert!(
                watch
                    .want(&named(&[("bgp", "a")]), &world, start)
                    .is_empty()
            );
            let until = watch.awaited_until(start);
            assert_eq!(until, Some(start + PATIENCE));
            assert_eq!(watch.awaited_until(start + PATIENCE), None, "no longer");
            assert!(watch.unread()["bgp"].contains("not answered"));
            assert!(take(&mut watch, &mut world, news("bgp", 1, seen)));
            assert_eq!(watch.awaited_until(start), None);
            assert!(watch.unread().is_empty());
        }
    }

    #[test]
    fn what_a_snapshot_holds_is_not_waited_for_and_what_nobody_needs_is_forgotten() {
        let (start, mut world) = (Instant::now(), World::default());
        for name in ["bgp", "old"] {
            world.apply(Change::Secret(TableChange::Applied(secret(name, &["a"]))));
        }
        let mut watch = unserved();
        for change in watch.want(&named(&[("bgp", "a")]), &world, start) {
            world.apply(change);
        }
        assert_eq!(watch.awaited_until(start), None);
        let names: Vec<_> = world.secrets.iter().map(|it| Key::of(it).name).collect();
        assert_eq!(names, ["bgp"]);
        // Also where nothing was ever needed in this life.
        assert_eq!(unserved().want(&named(&[]), &world, start).len(), 1);
        // Another key of it has to be asked for.
        let both = named(&[("bgp", "a"), ("bgp", "b")]);
        assert!(watch.want(&both, &world, start).is_empty());
        assert!(watch.awaited_until(start).is_some());
        // What the earlier watch still had to say does not answer that.
        assert!(!take(&mut watch, &mut world, news("bgp", 1, there())));
        assert!(watch.awaited_until(start).is_some());
        // That nobody may look is said of what is lacking, also where the rest is known.
        let refused = news("bgp", 2, Seen::Refused("forbidden".into()));
        assert!(take(&mut watch, &mut world, refused));
        assert_eq!(watch.unread()["bgp"], "forbidden");
    }

    #[test]
    fn what_is_asked_anew_is_answered_anew() {
        let (start, mut world) = (Instant::now(), World::default());
        let mut watch = unserved();
        let mut want = |watch: &mut SecretWatch, keys: &[(&str, &str)], at| {
            for change in watch.want(&named(keys), &world, at) {
                world.apply(change);
            }
            watch.wanted.borrow().get("bgp").cloned()
        };
        let first = want(&mut watch, &[("bgp", "a")], start);
        assert_eq!(want(&mut watch, &[], start), None);
        let second = want(&mut watch, &[("bgp", "a")], start);
        assert_ne!(
            first, second,
            "a watch that has told all says nothing again"
        );
        // One that is overdue makes nobody wait for another again.
        let late = start + PATIENCE;
        want(&mut watch, &[("bgp", "a"), ("new", "b")], late);
        assert!(watch.awaited_until(late).is_some());
        let new = watch.wanted.borrow()["new"].round;
        let there = Seen::There(Box::new(secret("new", &["b"])));
        watch.take(news("new", new, there), &World::default());
        assert_eq!(watch.awaited_until(late), None);
    }

    #[test]
    fn a_key_that_nobody_needs_is_kept_nowhere() {
        let (start, mut world) = (Instant::now(), World::default());
        let both = secret("bgp", &["a", "b"]);
        world.apply(Change::Secret(TableChange::Applied(both)));
        for change in unserved().want(&named(&[("bgp", "b")]), &world, start) {
            world.apply(change);
        }
        let held = world.secrets.iter().next().and_then(|it| it.data.as_ref());
        assert_eq!(
            held.map(|data| data.keys().collect::<Vec<_>>()),
            Some(vec![&"b".to_owned()])
        );
    }

    #[test]
    fn a_refusal_is_an_answer_and_takes_nothing_that_is_known() {
        let (start, mut world) = (Instant::now(), World::default());
        let mut watch = unserved();
        let refused = || news("bgp", 1, Seen::Refused("forbidden".into()));
        let nothing = watch.want(&named(&[("bgp", "a")]), &world, start);
        assert!(nothing.is_empty());
        assert!(take(&mut watch, &mut world, refused()));
        assert!(!take(&mut watch, &mut world, refused()), "nothing new");
        assert_eq!(watch.awaited_until(start), None);
        assert_eq!(watch.unread()["bgp"], "forbidden");
        let there = news("bgp", 1, there());
        assert!(take(&mut watch, &mut world, there));
        assert!(!take(&mut watch, &mut world, refused()));
        assert!(watch.unread().is_empty());
        assert_eq!(world.secrets.iter().count(), 1);
    }

    #[test]
    fn a_name_that_no_object_has_is_asked_of_nobody() {
        let (start, world) = (Instant::now(), World::default());
        for name in ["a,metadata.namespace=b", "A", "a b", "ä"] {
            let mut watch = unserved();
            assert!(watch.want(&named(&[(name, "a")]), &world, start).is_empty());
            assert_eq!(watch.awaited_until(start), None);
            assert!(watch.unread().is_empty());
        }
    }

    #[test]
    fn nothing_that_can_be_printed_shows_what_a_secret_holds() {
        let mut world = World::default();
        let change = Change::Secret(TableChange::Applied(secret("bgp", &["a"])));
        let shown = format!("{:?} {change:?}", news("bgp", 1, there()));
        world.apply(change);
        let shown = shown + &format!("{world:?}");
        assert!(shown.contains("bgp"));
        // As text, as octets and as base64.
        for held in ["octets", "111, 99", "b2N0"] {
            assert!(!shown.contains(held), "{shown}");
        }
    }
}

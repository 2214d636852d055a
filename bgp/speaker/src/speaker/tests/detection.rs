//! What the word of BFD does to sessions and routes; the process says what the test wants.

use std::path::Path;

use caracal_bfdd::proto::{
    Adopted, Applied, Message, Reason, Request, SessionEvent, SessionKey, Standing,
};
use caracal_bgp_core::bfd::{Diag, State};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{BfdConfig, OnBfdFailure};
use crate::handle::Clear;
use crate::status::now_ms;

type Word = Message<Option<Applied>>;

/// A process that runs every session that it is asked for.
pub(super) struct Process {
    said: mpsc::UnboundedSender<Word>,
    wanted: watch::Receiver<BTreeMap<SessionKey, u32>>,
    /// Changes so far.
    changes: std::cell::Cell<u64>,
    options: BfdOptions,
    task: JoinHandle<()>,
}

impl Process {
    /// Sessions are in this state when they are asked for.
    pub(super) fn start(directory: &Path, begins: State) -> Self {
        let socket = directory.join("bfd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (said, to_say) = mpsc::unbounded_channel();
        let (want, wanted) = watch::channel(BTreeMap::new());
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            converse(stream, begins, to_say, want).await;
        });
        let owner = "test".to_owned();
        Self {
            said,
            wanted,
            changes: 0.into(),
            options: BfdOptions { socket, owner },
            task,
        }
    }

    /// Ends without a word.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
        std::fs::remove_file(&self.options.socket).unwrap();
    }

    pub(super) fn options(&self) -> SpeakerOptions {
        SpeakerOptions {
            bfd: Some(self.options.clone()),
            api_socket: None,
        }
    }

    /// How often each session has been asked for.
    pub(super) fn wanted(&self) -> BTreeMap<SessionKey, u32> {
        self.wanted.borrow().clone()
    }

    /// All sessions are in this state now; a failure where one was up and is not.
    pub(super) fn say(&self, state: State, remote_c: bool) {
        self.changes.set(self.changes.get() + 1);
        let failure = state != State::Up;
        for key in self.wanted().into_keys() {
            let event = SessionEvent {
                key,
                from: if failure { State::Up } else { State::Down },
                failure,
                silence_us: failure.then_some(900_000),
                standing: standing(state, remote_c, self.changes.get()),
            };
            self.said.send(Word::Event(event)).unwrap();
        }
    }

    /// Of two changes nothing is told, but how all sessions stand after them, and which change was their
    /// latest failure.
    fn leave_out(&self, state: State, reason: Reason, failure: Option<u64>) {
        self.changes.set(self.changes.get() + 2);
        let now = Standing {
            reason,
            ..standing(state, true, self.changes.get())
        };
        let sessions = self.wanted().into_keys().map(|key| {
            let failure = failure.map(|number| SessionEvent {
                key: key.clone(),
                from: State::Up,
                failure: true,
                silence_us: None,
                standing: standing(State::Down, true, number),
            });
            Adopted {
                key,
                existed: true,
                standing: now,
                missed: failure.into_iter().collect(),
                missed_more: 0,
            }
        });
        self.said.send(Word::Lagged(sessions.collect())).unwrap();
    }
}

async fn converse(
    stream: UnixStream,
    begins: State,
    mut to_say: mpsc::UnboundedReceiver<Word>,
    want: watch::Sender<BTreeMap<SessionKey, u32>>,
) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    loop {
        let message = tokio::select! {
            Some(word) = to_say.recv() => word,
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                let keys = match serde_json::from_str(&line).unwrap() {
                    Request::Apply { sessions, .. } => {
                        let keys: Vec<_> = sessions.into_iter().map(|session| session.key).collect();
                        want.send_modify(|wanted| wanted.retain(|key, _| keys.contains(key)));
                        Some(keys)
                    }
                    Request::Add { session, .. } => Some(vec![session.key]),
                    Request::Remove { key, .. } => {
                        want.send_modify(|wanted| wanted.retain(|other, _| *other != key));
                        Some(Vec::new())
                    }
                    Request::Subscribe | Request::Sessions => None,
                };
                Word::Ok(keys.map(|keys| adopt(keys, begins, &want)))
            }
        };
        let line = serde_json::to_string(&message).unwrap() + "\n";
        if write.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn adopt(
    keys: Vec<SessionKey>,
    state: State,
    want: &watch::Sender<BTreeMap<SessionKey, u32>>,
) -> Applied {
    let adopted = keys.into_iter().map(|key| {
        want.send_modify(|wanted| *wanted.entry(key.clone()).or_default() += 1);
        Adopted {
            key,
            existed: false,
            standing: standing(state, true, 0),
            missed: Vec::new(),
            missed_more: 0,
        }
    });
    Applied {
        sessions: adopted.collect(),
        refused: Vec::new(),
    }
}

fn standing(state: State, remote_c: bool, transitions: u64) -> Standing {
    let (diag, reason) = match state {
        State::Up => (Diag::None, Reason::Heard),
        _ => (Diag::DetectionTimeExpired, Reason::DetectionTimeExpired),
    };
    Standing {
        state,
        diag,
        reason,
        remote_state: state,
        remote_diag: Diag::None,
        local_c: true,
        remote_c,
        since_unix_ms: now_ms(),
        age_us: 0,
        transitions,
    }
}

/// BFD that has to be up before there is a session.
pub(super) fn strict(on_failure: OnBfdFailure) -> BfdConfig {
    BfdConfig {
        transmit: Duration::from_millis(300),
        receive: Duration::from_millis(300),
        detect_multiplier: 3,
        multi_hop: None,
        strict: true,
        on_failure,
        password: None,
    }
}

/// Two speakers, of which the first watches its path to the second; its configuration too. Without BFD no
/// session comes back.
async fn watched(
    process: &Process,
    on_failure: OnBfdFailure,
) -> (SpeakerConfig, SpeakerHandle, SpeakerHandle) {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut a, &mut b);
    a.peers.get_mut(&name(2)).unwrap().bfd = Some(strict(on_failure));
    let config = a.clone();
    let a = Speaker::start(a, None, process.options()).await.unwrap();
    let b = start(b).await;
    reachable(&a, own(2, Family::Ipv4Unicast)).await;
    (config, a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_bfd_said_before_its_process_ended_proves_no_path() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path(), State::Up);
    let (_, a, _b) = watched(&process, OnBfdFailure::PreferFailover).await;
    let clear = || Clear::Hard {
        message: String::new(),
    };
    process.kill().await;
    let unknown = |peer: &PeerSnapshot| peer.bfd.is_none();
    until("nobody answers", || peer(&a, 2), unknown).await;
    assert_eq!(established(&a, 2).await.established_count, 1, "it goes on");
    a.clear(Some(name(2)), clear()).await.unwrap();
    awaits_path(&a, 2).await;
    let _process = Process::start(directory.path(), State::Up);
    assert_eq!(established(&a, 2).await.established_count, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_made_anew_finds_what_bfd_has_said() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path(), State::Up);
    let (mut config, a, _b) = watched(&process, OnBfdFailure::PreferFailover).await;
    // Who has another identifier has other peers.
    config.router_id = RouterId(77);
    a.apply(config).await.unwrap();
    let up = |peer: &PeerSnapshot| {
        let bfd = peer.bfd.as_ref().map(|bfd| bfd.state.as_str());
        (peer.state, bfd) == (SessionState::Established, Some("Up"))
    };
    until("proved, and shown", || peer(&a, 2), up).await;
    let asked: Vec<u32> = process.wanted().into_values().collect();
    assert_eq!(asked, [1], "the BFD session is left as it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_among_the_changes_that_bfd_left_out_ends_the_session_and_a_wish_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path(), State::Up);
    let (_, a, _b) = watched(&process, OnBfdFailure::PreferFailover).await;
    process.leave_out(State::Down, Reason::NeighborAdminDown, None);
    shown(&a, "Down").await;
    process.leave_out(State::Up, Reason::Heard, None);
    shown(&a, "Up").await;
    assert_eq!(established(&a, 2).await.established_count, 1, "it goes on");
    // By now the ends look for each other again.
    process.leave_out(State::Init, Reason::DetectionTimeExpired, None);
    awaits_path(&a, 2).await;
    let prefix = own(2, Family::Ipv4Unicast);
    until("the routes go too", || route(&a, prefix), Option::is_none).await;
    process.leave_out(State::Up, Reason::Heard, None);
    assert_eq!(established(&a, 2).await.established_count, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_was_over_before_bfd_told_of_it_ends_one_session() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path(), State::Up);
    let (_, a, _b) = watched(&process, OnBfdFailure::PreferFailover).await;
    process.leave_out(State::Up, Reason::Heard, Some(1));
    let again = |peer: &PeerSnapshot| {
        (peer.state, peer.established_count) == (SessionState::Established, 2)
    };
    until("another session", || peer(&a, 2), again).await;
    // The same failure as before.
    process.leave_out(State::Down, Reason::NeighborAdminDown, Some(1));
    shown(&a, "Down").await;
    assert_eq!(established(&a, 2).await.established_count, 2);
}

fn is_stale(route: &Option<RouteSnapshot>) -> bool {
    route.as_ref().is_some_and(|route| route.paths[0].stale)
}

/// Waits until the peer is back, and the session waits for BFD.
pub(super) async fn awaits_path(handle: &SpeakerHandle, other: u8) {
    let awaits = |peer: &PeerSnapshot| {
        let why = peer.why.as_ref().map(|why| why.reason);
        (peer.state, why) == (SessionState::OpenSent, Some(DownReason::AwaitsPath))
    };
    until("the session waits for BFD", || peer(handle, other), awaits).await;
}

/// Waits until the peer is shown with what BFD says.
async fn shown(handle: &SpeakerHandle, state: &str) {
    let told = |peer: &PeerSnapshot| peer.bfd.as_ref().is_some_and(|bfd| bfd.state == state);
    until("the word of BFD", || peer(handle, 2), told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_waits_for_bfd_whether_its_peer_does_or_not() {
    for both in [false, true] {
        let lab = Lab::new();
        let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
        lab.link(&mut a, &mut b);
        let bfd = Some(strict(OnBfdFailure::PreferFailover));
        a.peers.get_mut(&name(2)).unwrap().bfd = bfd.clone();
        b.peers.get_mut(&name(1)).unwrap().bfd = bfd.filter(|_| both);
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let processes = [0, 1].map(|at| Process::start(folders[at].path(), State::Down));
        let a = Speaker::start(a, None, processes[0].options())
            .await
            .unwrap();
        let b = Speaker::start(b, None, processes[1].options())
            .await
            .unwrap();
        awaits_path(&a, 2).await;
        if both {
            awaits_path(&b, 1).await;
            processes[1].say(State::Up, true);
            let goes_on = |peer: &PeerSnapshot| peer.state == SessionState::OpenConfirm;
            let seen = until("it waits for the other", || peer(&b, 1), goes_on).await;
            assert_eq!(seen.why, None);
        }
        processes[0].say(State::Up, true);
        let seen = established(&a, 2).await;
        assert_eq!(seen.established_count, 1);
        assert_eq!(seen.terms.unwrap().bfd_strict, both);
        assert_eq!(established(&b, 1).await.established_count, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_bfd_takes_the_routes_unless_it_may_be_a_restart_and_that_is_preferred() {
    for (remote_c, on_failure, kept) in [
        (false, OnBfdFailure::PreferFailover, false),
        (false, OnBfdFailure::PreferRestart, true),
        (true, OnBfdFailure::PreferFailover, false),
        (true, OnBfdFailure::PreferRestart, false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::start(directory.path(), State::Up);
        let (_, a, _b) = watched(&process, on_failure).await;
        process.say(State::Down, remote_c);
        awaits_path(&a, 2).await;
        let what = format!("C bit {remote_c}, {on_failure:?}");
        let prefix = own(2, Family::Ipv4Unicast);
        if kept {
            until(&what, || route(&a, prefix), is_stale).await;
        } else {
            until(&what, || route(&a, prefix), Option::is_none).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_bfd_takes_routes_that_had_outlived_their_session() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(directory.path(), State::Up);
    let (mut config, a, b) = watched(&process, OnBfdFailure::PreferRestart).await;
    let prefix = own(2, Family::Ipv4Unicast);
    b.shutdown(How::GracefulRestart).await;
    until("retained", || route(&a, prefix), is_stale).await;
    process.say(State::Down, false);
    shown(&a, "Down").await;
    process.say(State::Up, false);
    shown(&a, "Up").await;
    assert!(is_stale(&route(&a, prefix).await), "a restart is preferred");

    // From now on it is not; nothing else happens to the session by that.
    let bfd = config
        .peers
        .get_mut(&name(2))
        .unwrap()
        .bfd
        .as_mut()
        .unwrap();
    bfd.on_failure = OnBfdFailure::PreferFailover;
    a.apply(config).await.unwrap();
    assert!(
        is_stale(&route(&a, prefix).await),
        "nothing has failed since"
    );
    process.say(State::Down, false);
    gone(&a, prefix).await;
    assert_eq!(peer(&a, 2).await.established_count, 1);
    let asked: Vec<u32> = process.wanted().into_values().collect();
    assert_eq!(asked, [1], "the BFD session is left as it is");
}

//! For those who want sessions: says what is wanted, and is told what becomes of it.
//!
//! Owns the connection to the process, made anew whenever it ends, and the wishes, told anew each
//! time. Does not judge what is told.
//!
//! ```no_run
//! # async fn example() {
//! use caracal_bfdd::client::{Client, ClientEvent, ClientOptions};
//! use caracal_bfdd::proto::{SessionConfig, SessionKey};
//!
//! let (client, mut events) = Client::start(ClientOptions::new("/run/caracal/bfd.sock", "node"));
//! let key = SessionKey::single_hop(None, "10.0.0.1".parse().unwrap(), Some("eth0"));
//! client.apply([SessionConfig::new(key)]);
//! while let Some(event) = events.recv().await {
//!     match event {
//!         ClientEvent::Changed { event, .. } if event.failure => { /* the path is dead */ }
//!         _ => {}
//!     }
//! }
//! # }
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

use crate::proto::{
    Adopted, Applied, Message, Refused, Request, SessionConfig, SessionEvent, SessionKey, Standing,
};

/// Events that may wait for the reader. Beyond, the process is left to wait, which then tells how
/// things stand in their place.
const EVENTS: usize = 256;
/// The first wait before trying to connect again; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The process answers in milliseconds; one that does not for so long is as good as gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Up to so many changes are told one by one.
const FEW: usize = 8;

/// Where to connect, and as whom.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The socket of the process.
    pub socket: PathBuf,
    /// Our name. Sessions are found again by it after a restart, so it must be the same then.
    pub owner: String,
}

impl ClientOptions {
    /// Both.
    pub fn new(socket: impl Into<PathBuf>, owner: impl Into<String>) -> Self {
        Self {
            socket: socket.into(),
            owner: owner.into(),
        }
    }
}

/// What is told.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// The process answers; an [`ClientEvent::Adopted`] for each session follows.
    Connected,
    /// The process does not answer. Nothing is known about any session until it does again; they
    /// must not be taken for down, since they may well be up.
    Disconnected {
        /// Why, for people.
        why: String,
    },
    /// The process runs a session that was asked for, or was running it.
    Adopted {
        /// How it stands, and what was missed.
        session: Adopted,
        /// Since when it stands so.
        since: Instant,
    },
    /// A session's state has changed.
    Changed {
        /// How.
        event: SessionEvent,
        /// When.
        at: Instant,
    },
    /// A session cannot be, and will not be tried again before it is asked for in another way.
    Refused(Refused),
}

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wishes {
    sessions: BTreeMap<SessionKey, SessionConfig>,
    /// Whether that is all. Before [`Client::apply`] it is not: what a former life wanted stays.
    complete: bool,
}

/// Says what is wanted. When the last clone is dropped the connection ends, and the process keeps
/// the sessions for its hold time: that is how to restart. To end them, [`Self::apply`] nothing and
/// wait until it is [`Self::settled`].
#[derive(Clone, Debug)]
pub struct Client {
    wishes: watch::Sender<Wishes>,
    settled: watch::Receiver<Option<Wishes>>,
}

impl Client {
    /// Starts a task that connects, and connects again.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(options: ClientOptions) -> (Self, mpsc::Receiver<ClientEvent>) {
        let (wishes, wanted) = watch::channel(Wishes::default());
        let (settle, settled) = watch::channel(None);
        let (events, told) = mpsc::channel(EVENTS);
        let task = Task {
            options,
            wanted,
            settle,
            events,
            known: BTreeMap::new(),
            connected: false,
        };
        tokio::spawn(task.run());
        (Self { wishes, settled }, told)
    }

    /// These sessions and no others. Until this is called, sessions that a former life of this owner
    /// wanted are left alone, for the hold time: a client that has just started need not know yet
    /// what it wants.
    pub fn apply(&self, sessions: impl IntoIterator<Item = SessionConfig>) {
        self.wishes.send_replace(Wishes {
            sessions: sessions.into_iter().map(|s| (s.key.clone(), s)).collect(),
            complete: true,
        });
    }

    /// This session, too, or with these parameters from now on.
    pub fn add(&self, session: SessionConfig) {
        self.wishes.send_modify(|wishes| {
            wishes.sessions.insert(session.key.clone(), session);
        });
    }

    /// This session no longer.
    pub fn remove(&self, key: &SessionKey) {
        self.wishes.send_modify(|wishes| {
            wishes.sessions.remove(key);
        });
    }

    /// Waits until the process has taken what was wanted when this was called, or something newer.
    pub async fn settled(&self) {
        let wishes = self.wishes.borrow().clone();
        let mut settled = self.settled.clone();
        let same = |told: &Option<Wishes>| {
            told.as_ref()
                .is_some_and(|told| *told == wishes || *told == *self.wishes.borrow())
        };
        // The task ends when nobody is left to be told, and then nothing more will be taken.
        let _ = settled.wait_for(same).await;
    }
}

struct Task {
    options: ClientOptions,
    wanted: watch::Receiver<Wishes>,
    settle: watch::Sender<Option<Wishes>>,
    events: mpsc::Sender<ClientEvent>,
    /// The number of the last change told on this connection, by session: what is told twice is not
    /// passed on twice.
    known: BTreeMap<SessionKey, u64>,
    /// Whether the last word on the process was that it answers.
    connected: bool,
}

/// Why a connection ended.
enum End {
    /// Nobody is left who wants or hears anything.
    Unwanted,
    /// The process is gone, or does not make sense.
    Lost(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

impl Task {
    async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        let mut told = false;
        loop {
            let started = Instant::now();
            let End::Lost(why) = self.converse().await else {
                return;
            };
            self.settle.send_replace(None);
            self.known.clear();
            // Once for each time that it goes away, not for each attempt.
            if std::mem::take(&mut self.connected) || !told {
                told = true;
                let event = ClientEvent::Disconnected { why };
                if self.events.send(event).await.is_err() {
                    return;
                }
            }
            // One that ends at once each time must not be stormed.
            if started.elapsed() > PATIENCE {
                wait = FIRST_WAIT;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.events.closed() => return,
                () = gone(&mut self.wanted) => return,
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// One connection, from its beginning to its end.
    async fn converse(&mut self) -> End {
        let socket = &self.options.socket;
        let stream = match UnixStream::connect(socket).await {
            Ok(stream) => stream,
            Err(error) => return End::Lost(format!("{}: {error}", socket.display())),
        };
        let (read, write) = stream.into_split();
        let mut conversation = Conversation {
            lines: BufReader::new(read),
            line: Vec::new(),
            write,
            pending: Pending::default(),
            owner: self.options.owner.clone(),
        };
        match self.talk(&mut conversation).await {
            Ok(()) => End::Unwanted,
            Err(end) => end,
        }
    }

    async fn talk(&mut self, conversation: &mut Conversation) -> Result<(), End> {
        // Subscribed first, so that nothing falls between.
        conversation.ask(&Request::Subscribe, None).await?;
        let mut asked = self.wanted.borrow_and_update().clone();
        // To a process that may know of nothing, or of a former life.
        let nothing = Wishes::default();
        conversation.ask_for_difference(&nothing, &asked).await?;
        loop {
            let due = conversation.pending.due();
            tokio::select! {
                // What has come is read first: it may be us who have not listened.
                biased;
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let wanted = self.wanted.borrow_and_update().clone();
                    conversation.ask_for_difference(&asked, &wanted).await?;
                    if conversation.pending.due().is_none() {
                        self.settle.send_replace(Some(wanted.clone()));
                    }
                    self.known.retain(|key, _| wanted.sessions.contains_key(key));
                    asked = wanted;
                }
                message = conversation.next() => {
                    let message = message?;
                    if !self.connected && matches!(message, Message::Ok(_)) {
                        self.connected = true;
                        self.tell(ClientEvent::Connected).await?;
                    }
                    self.hear(conversation, message).await?;
                }
                () = overdue(due) => {
                    return Err(End::Lost(format!("no answer within {PATIENCE:?}")));
                }
                () = self.events.closed() => return Ok(()),
            }
        }
    }

    async fn hear(
        &mut self,
        conversation: &mut Conversation,
        message: Message<Value>,
    ) -> Result<(), End> {
        match message {
            Message::Ok(answer) => {
                let asked = conversation.pending.answered();
                let asked = asked.ok_or_else(|| End::Lost("an answer to no request".to_owned()))?;
                if !answer.is_null() {
                    let applied: Applied = serde_json::from_value(answer)
                        .map_err(|error| End::Lost(format!("answer not understood: {error}")))?;
                    for session in applied.sessions {
                        self.adopted(session).await?;
                    }
                    for refused in applied.refused {
                        self.tell(ClientEvent::Refused(refused)).await?;
                    }
                }
                if let Some(asked) = asked {
                    self.settle.send_replace(Some(asked));
                }
            }
            Message::Error(why) => return Err(End::Lost(format!("refused: {why}"))),
            Message::Event(event) => {
                // Other owners' sessions are told as well.
                if self.wanted.borrow().sessions.contains_key(&event.key) {
                    let number = event.standing.transitions;
                    self.known.insert(event.key.clone(), number);
                    let at = when(&event.standing);
                    self.tell(ClientEvent::Changed { event, at }).await?;
                }
            }
            Message::Lagged(sessions) => {
                for mut session in sessions {
                    let known = self.known.get(&session.key);
                    let news = known != Some(&session.standing.transitions);
                    if known.is_none() {
                        // It happened before the session was ours.
                        session.missed.clear();
                    }
                    if news && self.wanted.borrow().sessions.contains_key(&session.key) {
                        self.adopted(session).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn adopted(&mut self, mut session: Adopted) -> Result<(), End> {
        let number = session.standing.transitions;
        // Between the subscription and the wish, changes are told as events as well.
        if let Some(known) = self.known.insert(session.key.clone(), number) {
            session
                .missed
                .retain(|event| event.standing.transitions > known);
        }
        let since = when(&session.standing);
        self.tell(ClientEvent::Adopted { session, since }).await
    }

    async fn tell(&self, event: ClientEvent) -> Result<(), End> {
        self.events.send(event).await.map_err(|_| End::Unwanted)
    }
}

/// Completes when an answer is due; never, where none is.
async fn overdue(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Completes when nobody is left to want anything.
async fn gone(wanted: &mut watch::Receiver<Wishes>) {
    // What is wanted meanwhile is told with the next connection.
    while wanted.changed().await.is_ok() {}
}

fn when(standing: &Standing) -> Instant {
    let now = Instant::now();
    let age = Duration::from_micros(standing.age_us);
    now.checked_sub(age).unwrap_or(now)
}

struct Conversation {
    lines: BufReader<OwnedReadHalf>,
    /// What has come of the next line; kept when waiting for it is interrupted.
    line: Vec<u8>,
    write: OwnedWriteHalf,
    pending: Pending,
    owner: String,
}

/// Requests without an answer, the oldest first: when each was made, and the wishes that will have been taken
/// with the answer.
#[derive(Debug, Default)]
struct Pending(VecDeque<(Instant, Option<Wishes>)>);

impl Pending {
    fn asked(&mut self, now: Instant, then: Option<Wishes>) {
        self.0.push_back((now, then));
    }

    fn answered(&mut self) -> Option<Option<Wishes>> {
        self.0.pop_front().map(|(_, then)| then)
    }

    /// With the last answer to come, `wishes` will have been taken.
    fn complete_with(&mut self, wishes: &Wishes) {
        if let Some((_, then)) = self.0.back_mut() {
            *then = Some(wishes.clone());
        }
    }

    /// When the next answer has to be there; nothing that comes in its place changes that.
    fn due(&self) -> Option<Instant> {
        self.0.front().map(|(asked, _)| *asked + PATIENCE)
    }
}

impl Conversation {
    async fn ask(&mut self, request: &Request, then: Option<Wishes>) -> Result<(), End> {
        let mut line = serde_json::to_vec(request)
            .map_err(|error| End::Lost(format!("request not written: {error}")))?;
        line.push(b'\n');
        tokio::time::timeout(PATIENCE, self.write.write_all(&line))
            .await
            .map_err(|_| End::Lost(format!("no request taken within {PATIENCE:?}")))??;
        self.pending.asked(Instant::now(), then);
        Ok(())
    }

    /// Everything, and that it is all.
    async fn apply_all(&mut self, wishes: &Wishes) -> Result<(), End> {
        let request = Request::Apply {
            owner: self.owner.clone(),
            sessions: wishes.sessions.values().cloned().collect(),
        };
        self.ask(&request, Some(wishes.clone())).await
    }

    /// What is wanted and was not, or the other way round.
    async fn ask_for_difference(&mut self, asked: &Wishes, wanted: &Wishes) -> Result<(), End> {
        let (before, now) = (&asked.sessions, &wanted.sessions);
        let gone = before.keys().filter(|key| !now.contains_key(*key));
        let removals = gone.map(|key| Request::Remove {
            owner: self.owner.clone(),
            key: key.clone(),
        });
        let new = now
            .iter()
            .filter(|(key, config)| before.get(*key) != Some(config));
        let additions = new.map(|(_, session)| Request::Add {
            owner: self.owner.clone(),
            session: session.clone(),
        });
        let requests: Vec<Request> = removals.chain(additions).collect();
        if wanted.complete && (!asked.complete || requests.len() > FEW) {
            return self.apply_all(wanted).await;
        }
        for request in &requests {
            self.ask(request, None).await?;
        }
        // All is taken with the last answer to come.
        self.pending.complete_with(wanted);
        Ok(())
    }

    /// The next message. May be interrupted.
    async fn next(&mut self) -> Result<Message<Value>, End> {
        let count = self.lines.read_until(b'\n', &mut self.line).await?;
        if count == 0 || self.line.last() != Some(&b'\n') {
            return Err(End::Lost("the process closed the connection".to_owned()));
        }
        let line = std::mem::take(&mut self.line);
        serde_json::from_slice(&line)
            .map_err(|error| End::Lost(format!("message not understood: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_request_says_when_an_answer_is_due_whatever_comes_in_its_place() {
        let now = Instant::now();
        let later = now + PATIENCE / 2;
        let mut pending = Pending::default();
        assert_eq!(pending.due(), None);
        pending.asked(now, None);
        pending.asked(later, None);
        pending.complete_with(&Wishes::default());
        assert_eq!(pending.due(), Some(now + PATIENCE));
        assert_eq!(pending.answered(), Some(None));
        assert_eq!(pending.due(), Some(later + PATIENCE));
        assert_eq!(pending.answered(), Some(Some(Wishes::default())));
        assert_eq!((pending.due(), pending.answered()), (None, None));
    }
}

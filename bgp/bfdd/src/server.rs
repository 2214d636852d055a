//! The thread that talks to clients.
//!
//! Owns connections, and through the [`Registry`] what their owners want; writes the log. Reads and
//! writes without waiting, so a client that does neither keeps nobody else waiting.

mod client;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver as Reports, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde::Serialize;
use socket2::{Domain, SockAddr, Socket, Type};

use self::client::Client;
use crate::describe;
use crate::engine::{Command, Details, Report};
use crate::error::Error;
use crate::proto::{Applied, Message, Request, SessionEvent, SessionStatus, Snapshot, Standing};
use crate::registry::{Moment, Order, Registry};
use crate::wake::Wake;

/// Connections at a time. An agent has one or two, people have a few.
const MAX_CLIENTS: usize = 64;
/// Octets of a client's name.
const LONGEST_OWNER: usize = 64;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;

/// The socket, before anybody is served.
#[derive(Debug)]
pub(crate) struct Listener(UnixListener);

impl Listener {
    /// Binds `path` for our user alone. A socket that a former life left behind is replaced.
    pub(crate) fn bind(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Serve {
            path: path.to_owned(),
            source,
        };
        match UnixStream::connect(path) {
            Ok(_) => {
                let path = path.to_owned();
                return Err(Error::Served { path });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        bind(path).map(Self).map_err(failed)
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before it listens, so nobody gets in before this.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

pub(crate) struct Server {
    epoll: Epoll,
    listener: UnixListener,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    /// Whose connection speaks for an owner: the latest.
    holders: BTreeMap<String, u64>,
    registry: Registry,
    commands: SyncSender<Command>,
    engine: Wake,
    reports: Reports<Report>,
    woken: Wake,
    started: Instant,
}

impl Server {
    pub(crate) fn new(
        listener: Listener,
        hold: Duration,
        commands: SyncSender<Command>,
        engine: Wake,
        reports: Reports<Report>,
        woken: Wake,
    ) -> Result<Self, Error> {
        let failed = |source: nix::Error| Error::System {
            doing: "watch sockets",
            source: source.into(),
        };
        let Listener(listener) = listener;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let readable = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        epoll.add(&listener, readable(LISTENER)).map_err(failed)?;
        epoll.add(&woken, readable(WAKE)).map_err(failed)?;
        Ok(Self {
            epoll,
            listener,
            clients: BTreeMap::new(),
            next_client: 0,
            holders: BTreeMap::new(),
            registry: Registry::new(hold),
            commands,
            engine,
            reports,
            woken,
            started: Instant::now(),
        })
    }

    /// Serves until the engine has ended.
    pub(crate) fn run(mut self) {
        let mut ready = [EpollEvent::empty(); 32];
        loop {
            let count = self.epoll.wait(&mut ready, self.timeout()).unwrap_or(0);
            for event in &ready[..count] {
                match event.data() {
                    LISTENER => self.accept(),
                    WAKE => self.woken.clear(),
                    client => self.read(client),
                }
            }
            let engine_runs = self.take_reports();
            self.forget_wishes();
            self.serve();
            if !engine_runs {
                return;
            }
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let Some(due) = self.registry.poll_timeout() else {
            return EpollTimeout::NONE;
        };
        let wait = due.saturating_duration_since(Instant::now());
        EpollTimeout::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(EpollTimeout::MAX)
    }

    fn accept(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    return;
                }
            };
            if self.clients.len() >= MAX_CLIENTS {
                tracing::warn!(
                    limit = MAX_CLIENTS,
                    "a client is turned away: as many are connected as may be"
                );
                continue;
            }
            if let Err(error) = self.welcome(stream) {
                tracing::warn!(%error, "cannot serve a client");
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let number = self.next_client;
        self.next_client += 1;
        let interest = EpollFlags::EPOLLIN;
        self.epoll
            .add(stream.as_fd(), EpollEvent::new(interest, number))?;
        self.clients.insert(number, Client::new(stream, interest));
        Ok(())
    }

    fn read(&mut self, number: u64) {
        if let Some(client) = self.clients.get_mut(&number) {
            client.read();
        }
    }

    /// Answers what has been asked, writes what is to be said, and parts from those who left.
    fn serve(&mut self) {
        let numbers: Vec<u64> = self.clients.keys().copied().collect();
        for number in numbers {
            // What was written makes room for the answers to more requests.
            while self.answer_all(number) {
                self.write(number);
            }
            self.write(number);
        }
    }

    /// Answers the requests that it is time for; says whether there were any.
    fn answer_all(&mut self, number: u64) -> bool {
        let mut any = false;
        while let Some(line) = self.next_line(number) {
            any = true;
            let answer = self.answer(number, &line);
            if let (Some(answer), Some(client)) = (answer, self.clients.get_mut(&number)) {
                client.say(&answer);
            }
        }
        any
    }

    fn next_line(&mut self, number: u64) -> Option<Vec<u8>> {
        self.clients.get_mut(&number)?.next_line()
    }

    fn write(&mut self, number: u64) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        client.write();
        if client.has_caught_up() {
            let standings = self.registry.standings(Moment::now());
            client.say(&render(&Message::<()>::Lagged(standings)));
            client.write();
        }
        if client.is_over() {
            self.part(number);
            return;
        }
        if let Some(interest) = client.new_interest() {
            let mut event = EpollEvent::new(interest, number);
            if let Err(error) = self.epoll.modify(client.stream(), &mut event) {
                tracing::warn!(%error, "cannot watch a client");
                self.part(number);
            }
        }
    }

    fn part(&mut self, number: u64) {
        let Some(client) = self.clients.remove(&number) else {
            return;
        };
        // Closing it would do the same; an error means that it is not watched, as intended.
        let _ = self.epoll.delete(client.stream());
        let Some(owner) = client.owner() else {
            return;
        };
        if self.holders.get(owner) == Some(&number) {
            self.holders.remove(owner);
            self.registry.owner_left(Moment::now(), owner);
            tracing::info!(owner, "client left; its sessions go on");
        }
    }

    /// The answer to a request; `None` when it comes later.
    fn answer(&mut self, number: u64, line: &[u8]) -> Option<String> {
        let request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => return Some(refuse(&format!("cannot read the request: {error}"))),
        };
        let now = Moment::now();
        let mut orders = Vec::new();
        let applied = match request {
            Request::Apply { owner, sessions } => {
                if let Err(why) = self.take_hold(number, &owner) {
                    return Some(refuse(&why));
                }
                self.registry.apply(now, &owner, &sessions, &mut orders)
            }
            Request::Add { owner, session } => {
                if let Err(why) = self.take_hold(number, &owner) {
                    return Some(refuse(&why));
                }
                self.registry.add(now, &owner, &session, &mut orders)
            }
            Request::Remove { owner, key } => {
                if let Err(why) = self.take_hold(number, &owner) {
                    return Some(refuse(&why));
                }
                self.registry.remove(&owner, &key, &mut orders);
                Applied::default()
            }
            Request::Subscribe => {
                self.clients.get_mut(&number)?.subscribe();
                return Some(render(&Message::Ok(())));
            }
            Request::Sessions => {
                self.clients.get_mut(&number)?.expect_answer();
                self.command(Command::Describe { token: number });
                return None;
            }
        };
        for refused in &applied.refused {
            tracing::warn!(session = %refused.key, reason = refused.why, "session refused");
        }
        self.order(orders);
        Some(render(&Message::Ok(applied)))
    }

    /// This connection speaks for the owner from now on.
    fn take_hold(&mut self, number: u64, owner: &str) -> Result<(), String> {
        if owner.is_empty() || owner.len() > LONGEST_OWNER || owner.contains(char::is_control) {
            return Err(format!(
                "an owner's name has 1 to {LONGEST_OWNER} printable octets"
            ));
        }
        if let Some(client) = self.clients.get_mut(&number) {
            client.speak_for(owner)?;
        }
        let before = self.holders.insert(owner.to_owned(), number);
        if before != Some(number) {
            tracing::info!(owner, "client came");
        }
        Ok(())
    }

    fn forget_wishes(&mut self) {
        let mut orders = Vec::new();
        for (key, owner) in self.registry.handle_timeout(Moment::now(), &mut orders) {
            tracing::warn!(session = %key, owner, "owner has been away for too long");
        }
        self.order(orders);
    }

    fn order(&self, orders: Vec<Order>) {
        for order in &orders {
            match order {
                Order::Set(key, _) => tracing::debug!(session = %key, "session wanted"),
                Order::Remove(key) => tracing::info!(session = %key, "session no longer wanted"),
            }
        }
        if !orders.is_empty() {
            self.command(Command::Orders(orders));
        }
    }

    fn command(&self, command: Command) {
        // The engine takes commands at each turn, so there is room soon. If it has ended, so has
        // this thread with the next look at its reports.
        if self.commands.send(command).is_ok() {
            self.engine.wake();
        }
    }

    /// Says whether the engine still runs.
    fn take_reports(&mut self) -> bool {
        loop {
            match self.reports.try_recv() {
                Ok(report) => self.take_report(report),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn take_report(&mut self, report: Report) {
        let now = Moment::now();
        match report {
            Report::Changed { key, transition } => {
                if let Some(event) = self.registry.changed(now, &key, transition) {
                    log(&event);
                    self.tell(event);
                }
            }
            Report::Problem {
                key,
                problem: Some(why),
            } => tracing::warn!(session = %key, reason = why, "trouble with sending"),
            Report::Problem { key, problem: None } => {
                tracing::info!(session = %key, "sending works again");
            }
            Report::Gone { key } => self.registry.gone(now, &key),
            Report::Details {
                token,
                sessions,
                unmatched,
                scheduling,
            } => {
                let Some(client) = self.clients.get_mut(&token) else {
                    return;
                };
                let snapshot = Snapshot {
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    pid: std::process::id(),
                    started_unix_ms: now.unix_ms(self.started),
                    scheduling,
                    unmatched: unmatched
                        .into_iter()
                        .map(|(reason, count)| (reason.to_owned(), count))
                        .collect(),
                    sessions: describe_all(&self.registry, now, sessions),
                };
                client.say(&render(&Message::Ok(snapshot)));
                client.got_answer();
            }
        }
    }

    fn tell(&mut self, event: SessionEvent) {
        let line = render(&Message::<()>::Event(event));
        for client in self.clients.values_mut() {
            client.tell(&line);
        }
    }
}

fn describe_all(registry: &Registry, now: Moment, sessions: Vec<Details>) -> Vec<SessionStatus> {
    let mut described: Vec<_> = sessions
        .into_iter()
        .filter_map(|details| {
            let (owners, standing, history) = registry.describe(now, &details.key)?;
            Some(describe::status(details, owners, standing, history))
        })
        .collect();
    described.sort_by(|a, b| a.key.cmp(&b.key));
    described
}

fn log(event: &SessionEvent) {
    let SessionEvent {
        key,
        from,
        failure,
        silence_us,
        standing,
    } = event;
    let local = key.local.map(|local| local.to_string());
    let interface = key.interface.as_deref();
    let (peer, multihop) = (key.peer, key.multihop);
    let Standing {
        state,
        diag,
        remote_diag,
        remote_c,
        ..
    } = standing;
    if *failure {
        tracing::warn!(
            %peer, local, interface, multihop, %from, %state, %diag, %remote_diag, remote_c, silence_us,
            "session changed"
        );
    } else {
        tracing::info!(
            %peer, local, interface, multihop, %from, %state, %diag, %remote_diag, remote_c, silence_us,
            "session changed"
        );
    }
}

fn render<T: Serialize>(message: &Message<T>) -> String {
    serde_json::to_string(message)
        .unwrap_or_else(|error| refuse(&format!("cannot write the answer: {error}")))
}

fn refuse(why: &str) -> String {
    serde_json::json!({ "error": why }).to_string()
}

//! Listening sockets: where they are bound, the keys they hold, and what comes in.
//!
//! Owns sockets, their keys and filters, and the tasks that accept. Does not own which peer a
//! connection belongs to: it says where the connection came from ([`Source`]) and hands it on.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use caracal_bgp_core::types::{Family, Prefix};
use nix::errno::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::ao;
use super::auth::Auth;
use super::gate::{Floors, Gate};
use super::hops::FULL;
use super::keychain::Keychain;
use super::md5;
use super::transport::mark_as_control;
use crate::config::ListenConfig;
use crate::error::Error;

/// Connections that may wait to be accepted: thousands of peers dial at once when a reflector
/// comes back, and one whose SYN is dropped waits a second. The kernel cuts it to
/// `net.core.somaxconn`, 4096 by default.
const BACKLOG: i32 = 4096;
/// Connections handed on together.
const BATCH: usize = 64;
/// How long to wait when there is no descriptor for another connection: others close theirs.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Where a connection comes from: what a peer is known by before it has said a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The remote address; never an IPv4-mapped one.
    pub address: IpAddr,
    /// The interface, for link-local addresses, which mean nothing without it.
    pub ifindex: Option<u32>,
}

impl Source {
    /// The source of a connection from `remote`.
    pub fn of(remote: SocketAddr) -> Self {
        let ifindex = match remote {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() != 0 => {
                Some(v6.scope_id())
            }
            _ => None,
        };
        Self {
            address: remote.ip().to_canonical(),
            ifindex,
        }
    }

    /// Where to dial this peer.
    pub fn at(self, port: u16) -> SocketAddr {
        match (self.address, self.ifindex) {
            (IpAddr::V6(v6), Some(scope)) => SocketAddrV6::new(v6, port, 0, scope).into(),
            (address, _) => SocketAddr::new(address, port),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ifindex {
            Some(ifindex) => write!(f, "{}%{ifindex}", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// A connection that a peer, or a stranger, has made.
#[derive(Debug)]
pub struct Incoming {
    /// The connection, not yet readied: see [`super::Transport::adopt`].
    pub stream: TcpStream,
    /// Where it comes from.
    pub source: Source,
    /// Which of our addresses was dialled.
    pub local: IpAddr,
}

/// All listening sockets of a speaker.
#[derive(Debug)]
pub struct Listeners {
    config: ListenConfig,
    bound: Vec<Bound>,
}

/// What a socket demands of segments before it is known whose they are.
#[derive(Debug, Default)]
struct Guard {
    keys: BTreeMap<Prefix, Auth>,
    gate: Gate,
}

#[derive(Debug)]
struct Bound {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    guard: Guard,
    task: Option<JoinHandle<()>>,
}

impl Listeners {
    /// Binds every address of `config` and gives each socket its keys and floors before it listens,
    /// so that not even the first SYN is taken unsigned or from afar. Nothing is accepted before
    /// [`Listeners::serve`].
    ///
    /// Beside the sockets, what of `keys` could not be set: those peers cannot connect; and what of
    /// `floors`: those peers' hold from the adoption of a connection on
    /// ([`Error::is_late_security`]).
    ///
    /// # Errors
    /// [`Error::PortInUse`] and [`Error::Listen`]; nothing stays bound then.
    pub fn bind(
        config: &ListenConfig,
        keys: &Keychain,
        floors: &Floors,
    ) -> Result<(Self, Vec<Error>), Error> {
        let mut faults = Vec::new();
        let mut bound = Vec::new();
        for address in addresses(config) {
            match open(address, keys, floors, &mut faults) {
                Ok(socket) => bound.push(socket),
                // A kernel without IPv6 has no IPv6 peers either.
                Err(Error::Listen { source, .. })
                    if config.addrs.is_empty() && address.is_ipv6() && no_such_family(&source) => {}
                Err(error) => return Err(error),
            }
        }
        warn_of_short_queues();
        let config = config.clone();
        Ok((Self { config, bound }, faults))
    }

    /// What they were bound for.
    pub fn config(&self) -> &ListenConfig {
        &self.config
    }

    /// Where the speaker listens.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.bound.iter().map(|bound| bound.address)
    }

    /// Accepts connections from now on and hands them to `arrivals`, many at a time where many
    /// wait. While `arrivals` is full, connections wait in the kernel.
    pub fn serve(&mut self, arrivals: &mpsc::Sender<Vec<Incoming>>) {
        for bound in &mut self.bound {
            bound.serve(arrivals);
        }
    }

    /// Changes keys and floors to these. Sockets keep what does not differ, new keys are there
    /// before old ones go, and connections that are up keep theirs ([`super::KeyHandle::rekey`],
    /// [`super::Transport::rehop`]). What failed before is tried again.
    ///
    /// What could not be done is returned, as by [`Listeners::bind`].
    pub fn apply(&mut self, keys: &Keychain, floors: &Floors) -> Vec<Error> {
        let mut faults = Vec::new();
        for bound in &mut self.bound {
            let socket = Arc::clone(&bound.listener);
            let family = Family::of(bound.address.ip());
            faults.extend(bound.guard.apply(&*socket, family, keys, floors));
        }
        faults
    }

    /// Stops listening; the addresses are free when it returns.
    pub async fn close(mut self) {
        for bound in self.bound.drain(..) {
            if let Some(task) = &bound.task {
                task.abort();
            }
            bound.shut();
            if let Some(task) = bound.task {
                // It was cancelled, and with it its share of the socket is gone.
                let _ = task.await;
            }
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for bound in &self.bound {
            if let Some(task) = &bound.task {
                task.abort();
            }
            bound.shut();
        }
    }
}

impl Guard {
    /// Demands of what comes to `socket` what `keys` and `floors` ask for; what cannot be demanded.
    fn apply(
        &mut self,
        socket: &impl AsFd,
        family: Family,
        keys: &Keychain,
        floors: &Floors,
    ) -> Vec<Error> {
        let mut faults = Vec::new();
        install(socket, family, keys, &mut self.keys, &mut faults);
        let no_room = |fault: &Error| matches!(fault, Error::KeyRoom { .. });
        if self.gate.is_shut() && faults.iter().any(no_room) {
            // Both are charged to one account. Without its key a peer cannot connect at all, while
            // its floor still holds once it has.
            self.gate.open(socket);
            faults.clear();
            install(socket, family, keys, &mut self.keys, &mut faults);
        }
        faults.extend(self.gate.apply(socket, family, floors).err());
        faults
    }
}

impl Bound {
    /// Ends listening even where a process that is just being started has a copy of the descriptor,
    /// as it has until it runs its program.
    fn shut(&self) {
        if let Err(error) = SockRef::from(&*self.listener).shutdown(Shutdown::Read) {
            tracing::debug!(address = %self.address, %error, "cannot shut a listening socket");
        }
    }

    fn serve(&mut self, arrivals: &mpsc::Sender<Vec<Incoming>>) {
        let listener = Arc::clone(&self.listener);
        let task = tokio::spawn(accept_all(listener, self.address, arrivals.clone()));
        if let Some(former) = self.task.replace(task) {
            former.abort();
        }
    }
}

fn addresses(config: &ListenConfig) -> Vec<SocketAddr> {
    let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let addresses: &[IpAddr] = match config.addrs.as_slice() {
        [] => &any,
        chosen => chosen,
    };
    addresses
        .iter()
        .map(|address| SocketAddr::new(*address, config.port))
        .collect()
}

fn open(
    address: SocketAddr,
    keys: &Keychain,
    floors: &Floors,
    faults: &mut Vec<Error>,
) -> Result<Bound, Error> {
    let mut guard = Guard::default();
    let listener = bind(address).and_then(|socket| {
        let family = Family::of(address.ip());
        faults.extend(guard.apply(&socket, family, keys, floors));
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    });
    let listener = listener.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortInUse { address },
        _ => Error::Listen { address, source },
    })?;
    Ok(Bound {
        address,
        listener: Arc::new(listener),
        guard,
        task: None,
    })
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A speaker that restarts finds connections of its former life in TIME_WAIT.
    socket.set_reuse_address(true)?;
    // Answers to SYNs must reach peers with GTSM; connections get their own TTL when adopted.
    if address.is_ipv4() {
        socket.set_ttl_v4(FULL.into())?;
    } else {
        socket.set_unicast_hops_v6(FULL.into())?;
        // IPv4 has a listener of its own; peers then show with plain IPv4 addresses.
        socket.set_only_v6(true)?;
    }
    mark_as_control(&(&socket).into(), address.is_ipv4())?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Says so where the kernel cuts [`BACKLOG`], as it does without a word.
fn warn_of_short_queues() {
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
    // A kernel that does not tell is none that we can advise about.
    let limit = limit.ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(limit) = limit.filter(|limit| *limit < BACKLOG) {
        tracing::warn!(
            limit,
            "net.core.somaxconn is low: of more peers that dial at once, some wait a second"
        );
    }
}

fn no_such_family(error: &io::Error) -> bool {
    // EAFNOSUPPORT: no IPv6 in the kernel; EADDRNOTAVAIL: IPv6 disabled by sysctl.
    error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
        || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Brings the keys of one socket from `installed`, which is kept up to date, to `wanted`.
fn install(
    socket: &impl AsFd,
    family: Family,
    wanted: &Keychain,
    installed: &mut BTreeMap<Prefix, Auth>,
    faults: &mut Vec<Error>,
) {
    let wanted: BTreeMap<Prefix, &Auth> = wanted
        .keys()
        .filter(|(prefix, _)| prefix.family() == family)
        .collect();
    // A key of TCP-AO tolerates none with its numbers, and none of MD5, for overlapping addresses:
    // here the old ones go first. A SYN that comes between is refused when it is adopted.
    let clashes = |old: Prefix, auth: &Auth| {
        let clash = |(new, other): (&Prefix, &&Auth)| {
            matches!((auth, other), (Auth::Ao(_), _) | (_, Auth::Ao(_))) && new.overlaps(&old)
        };
        !wanted.contains_key(&old) && wanted.iter().any(clash)
    };
    installed
        .retain(|prefix, auth| !(clashes(*prefix, auth) && removed(socket, *prefix, auth, faults)));
    let mut full = false;
    for (prefix, auth) in &wanted {
        let old = installed.get(prefix);
        if old == Some(*auth) || full {
            continue;
        }
        match replace(socket, *prefix, old, auth) {
            Ok(()) => {
                installed.insert(*prefix, (*auth).clone());
            }
            Err(error) => {
                // One word for all keys that find no room, not a thousand.
                full = matches!(error, Error::KeyRoom { .. });
                faults.push(error);
            }
        }
    }
    installed.retain(|prefix, auth| {
        wanted.contains_key(prefix) || !removed(socket, *prefix, auth, faults)
    });
}

fn replace(
    socket: &impl AsFd,
    prefix: Prefix,
    old: Option<&Auth>,
    new: &Auth,
) -> Result<(), Error> {
    if let Some(old) = old {
        match (old, new) {
            // Set at once over the old one.
            (Auth::Md5(_), Auth::Md5(_)) => {}
            (Auth::Ao(old), Auth::Ao(new)) => {
                // A key's number must be free before it can mean something else.
                for key in old.keys().iter().filter(|key| !new.keys().contains(key)) {
                    ao::remove(socket, prefix, key.id)?;
                }
                for key in new.keys().iter().filter(|key| !old.keys().contains(key)) {
                    ao::add(socket, prefix, key, false)?;
                }
                return Ok(());
            }
            _ => remove(socket, prefix, old)?,
        }
    }
    match new {
        Auth::None => Ok(()),
        Auth::Md5(secret) => md5::set(socket, prefix, secret),
        Auth::Ao(keys) => keys
            .keys()
            .iter()
            .try_for_each(|key| ao::add(socket, prefix, key, false)),
    }
}

/// Whether the key is gone; if not, why is among `faults`.
fn removed(socket: &impl AsFd, prefix: Prefix, auth: &Auth, faults: &mut Vec<Error>) -> bool {
    let result = remove(socket, prefix, auth);
    let gone = result.is_ok();
    faults.extend(result.err());
    gone
}

fn remove(socket: &impl AsFd, prefix: Prefix, auth: &Auth) -> Result<(), Error> {
    match auth {
        Auth::None => Ok(()),
        Auth::Md5(_) => md5::remove(socket, prefix),
        Auth::Ao(keys) => keys
            .keys()
            .iter()
            .try_for_each(|key| ao::remove(socket, prefix, key.id)),
    }
}

async fn accept_all(
    listener: Arc<TcpListener>,
    address: SocketAddr,
    arrivals: mpsc::Sender<Vec<Incoming>>,
) {
    let mut troubled = false;
    loop {
        let (batch, trouble) = accept_some(&listener).await;
        if !batch.is_empty() && arrivals.send(batch).await.is_err() {
            return;
        }
        match trouble {
            None => troubled = false,
            Some(error) => {
                // Once, not ten times a second for as long as it lasts.
                if !std::mem::replace(&mut troubled, true) {
                    tracing::warn!(%address, %error, "cannot accept a connection");
                }
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

/// Waits for a connection and takes all that are there, up to [`BATCH`]; and what stopped it.
async fn accept_some(listener: &TcpListener) -> (Vec<Incoming>, Option<io::Error>) {
    let mut batch = Vec::new();
    let trouble = poll_fn(|context| {
        while batch.len() < BATCH {
            match listener.poll_accept(context) {
                Poll::Ready(Ok((stream, remote))) => batch.extend(incoming(stream, remote)),
                Poll::Ready(Err(error)) if of_the_connection(&error) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(error)),
                Poll::Pending if batch.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(None)
    });
    let trouble = trouble.await;
    (batch, trouble)
}

fn incoming(stream: TcpStream, remote: SocketAddr) -> Option<Incoming> {
    // A connection that is gone already needs no peer.
    let local = stream.local_addr().ok()?.ip().to_canonical();
    let source = Source::of(remote);
    Some(Incoming {
        stream,
        source,
        local,
    })
}

/// Errors of a connection that failed before it was accepted, as accept(2) reports them; the next
/// one may be sound.
fn of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted
    ) || [
        Errno::EPROTO,
        Errno::ENETDOWN,
        Errno::EHOSTDOWN,
        Errno::EHOSTUNREACH,
        Errno::ENETUNREACH,
        Errno::ENOPROTOOPT,
        Errno::EPERM,
    ]
    .iter()
    .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_sources_have_an_interface_and_others_have_none() {
        let scoped = |text: &str, scope| SocketAddrV6::new(text.parse().unwrap(), 179, 0, scope);
        for (remote, shown) in [
            (SocketAddr::from(([192, 0, 2, 1], 179)), "192.0.2.1"),
            (scoped("fe80::1", 7).into(), "fe80::1%7"),
            (scoped("2001:db8::1", 7).into(), "2001:db8::1"),
            (scoped("::ffff:192.0.2.1", 0).into(), "192.0.2.1"),
        ] {
            let source = Source::of(remote);
            assert_eq!(source.to_string(), shown);
            assert_eq!(Source::of(source.at(179)), source, "{shown}");
        }
    }

    #[tokio::test]
    async fn an_address_is_free_although_a_starting_process_has_a_copy_of_the_socket() {
        let config = |port| ListenConfig {
            addrs: vec![Ipv4Addr::LOCALHOST.into()],
            port,
        };
        let (listeners, _) =
            Listeners::bind(&config(0), &Keychain::default(), &Floors::default()).unwrap();
        let listener = &listeners.bound[0].listener;
        let port = listener.local_addr().unwrap().port();
        // What a child has between fork(2) and execve(2).
        let copy = listener.as_fd().try_clone_to_owned().unwrap();
        listeners.close().await;
        Listeners::bind(&config(port), &Keychain::default(), &Floors::default()).unwrap();
        drop(copy);
    }
}

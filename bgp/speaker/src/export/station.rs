//! The task of one monitoring station: connects, tells, and begins anew when it is cut off.
//!
//! Owns the connection and its back-off. Does not own what is told ([`super::stations`]). Nothing
//! waits for a station: while it does not read, its task does not ask the RIB thread for more.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use caracal_bgp_core::bmp::{Initiation, Message, TerminationReason, Wanted};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::{BmpRoutes, BmpStation};
use crate::export::Own;
use crate::export::stations::{Call, StationId};
use crate::rib_thread::{Input, RibHandle};
use crate::snapshot::StationSnapshot;
use crate::status::now_ms;

/// The first pause between two attempts to connect; each is twice as long as the one before.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest one: a station that comes back is found within this time (RFC 7854 §3.2 has twelve
/// minutes at the most).
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a connection has to last for the next pause to be short again.
const LASTING: Duration = Duration::from_secs(60);
/// How long to wait for a connection to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a station may read nothing while there is something for it.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to read the last word.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);
/// Pieces on their way to the task beside the one that it writes.
const OUTLET_DEPTH: usize = 1;

/// How a station is doing, for those who ask.
#[derive(Debug)]
pub(crate) struct StationBoard {
    address: SocketAddr,
    state: Mutex<State>,
    octets: AtomicU64,
}

#[derive(Debug)]
struct State {
    connected: bool,
    synchronised: bool,
    since_ms: u64,
    why: String,
    connections: u64,
}

impl StationBoard {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            state: Mutex::new(State {
                connected: false,
                synchronised: false,
                since_ms: now_ms(),
                why: String::new(),
                connections: 0,
            }),
            octets: AtomicU64::new(0),
        }
    }

    pub(crate) fn synchronised(&self, synchronised: bool) {
        self.change(|state| state.synchronised = synchronised);
    }

    fn connected(&self) {
        self.change(|state| {
            state.connected = true;
            state.synchronised = false;
            state.since_ms = now_ms();
            state.why.clear();
            state.connections += 1;
        });
    }

    fn failed(&self, why: &str) {
        self.change(|state| {
            if state.connected || state.why.is_empty() {
                state.since_ms = now_ms();
            }
            state.connected = false;
            state.synchronised = false;
            why.clone_into(&mut state.why);
        });
    }

    pub(crate) fn snapshot(&self) -> StationSnapshot {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        StationSnapshot {
            address: self.address,
            connected: state.connected,
            synchronised: state.synchronised,
            since_ms: state.since_ms,
            why: state.why.clone(),
            connections: state.connections,
            octets_sent: self.octets.load(Ordering::Relaxed),
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        // Plain data: what a task that died left is still worth showing.
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Starts the task; it ends when `stopped` turns true.
pub(super) fn spawn(
    station: BmpStation,
    own: Own,
    rib: RibHandle,
    stopped: watch::Receiver<bool>,
) -> (Arc<StationBoard>, JoinHandle<()>) {
    let board = Arc::new(StationBoard::new(station.address));
    let wants = |routes| station.routes.contains(&routes);
    let task = StationTask {
        address: station.address,
        wanted: Wanted {
            pre_policy: wants(BmpRoutes::PrePolicy),
            post_policy: wants(BmpRoutes::PostPolicy),
            loc_rib: wants(BmpRoutes::LocRib),
            adj_rib_out: wants(BmpRoutes::AdjRibOut),
        },
        report_interval: station.report_interval,
        own,
        rib,
        board: Arc::clone(&board),
        stopped,
    };
    (board, tokio::spawn(task.run()))
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the station closed the connection")]
    Closed,
    #[error("the station reads too slowly: what waits for it has grown too large")]
    Overrun,
    #[error("the station reads nothing: not one octet in {} s", WRITE_PATIENCE.as_secs())]
    Stuck,
    #[error("cannot connect in {} s", CONNECT_PATIENCE.as_secs())]
    NoAnswer,
    #[error("cannot connect: {0}")]
    Unreachable(#[source] io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    #[error("stopped")]
    Stopped,
}

struct StationTask {
    address: SocketAddr,
    wanted: Wanted,
    report_interval: Duration,
    own: Own,
    rib: RibHandle,
    board: Arc<StationBoard>,
    stopped: watch::Receiver<bool>,
}

impl StationTask {
    async fn run(mut self) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let began = tokio::time::Instant::now();
            let end = self.connect_and_tell().await;
            let station = self.address;
            if matches!(end, End::Stopped) {
                tracing::info!(%station, "the BMP station is told no more");
                return;
            }
            if began.elapsed() >= LASTING {
                pause = SHORTEST_PAUSE;
            }
            tracing::warn!(%station, reason = %end, retry = ?pause, "BMP station lost");
            self.board.failed(&end.to_string());
            tokio::select! {
                () = stop(&mut self.stopped) => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect_and_tell(&mut self) -> End {
        let connect = TcpStream::connect(self.address);
        let connected = tokio::select! {
            () = stop(&mut self.stopped) => return End::Stopped,
            connected = tokio::time::timeout(CONNECT_PATIENCE, connect) => connected,
        };
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return End::Unreachable(error),
            Err(_) => return End::NoAnswer,
        };
        // A station that vanished without a word is found out although there is nothing to tell it.
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(WRITE_PATIENCE)
            .with_interval(WRITE_PATIENCE / 6);
        if let Err(error) = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive) {
            return End::Broken(error);
        }
        tracing::info!(station = %self.address, "BMP station connected");
        self.board.connected();
        let id = next_id();
        let end = self.tell(id, stream).await;
        // A RIB that has ended has forgotten it.
        let _ = self.rib.0.send(Input::Station(Call::Leave(id))).await;
        end
    }

    /// Tells until the connection ends.
    async fn tell(&mut self, id: StationId, stream: TcpStream) -> End {
        let (mut read, mut write) = stream.into_split();
        let mut stopped = self.stopped.clone();
        // RFC 7854 §4.3: the first message.
        if let Err(end) = self.write(&mut write, &hello()).await {
            return end;
        }
        let (outlet, mut told) = mpsc::channel(OUTLET_DEPTH);
        let join = Call::Join {
            id,
            wanted: self.wanted,
            own: self.own,
            outlet,
            board: Arc::clone(&self.board),
        };
        if self.rib.0.send(Input::Station(join)).await.is_err() {
            return End::Stopped;
        }
        let mut reports = tokio::time::interval_at(
            tokio::time::Instant::now() + self.report_interval,
            self.report_interval,
        );
        reports.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut scrap = [0; 512];
        loop {
            tokio::select! {
                biased;
                () = stop(&mut stopped) => {
                    let word = farewell();
                    let farewell = self.write(&mut write, &word);
                    // One that reads nothing has seen the last of us all the same.
                    let _ = tokio::time::timeout(FAREWELL_PATIENCE, farewell).await;
                    let _ = write.shutdown().await;
                    return End::Stopped;
                }
                // RFC 7854 §3.2: a station says nothing; if it does nevertheless, that is left unread.
                heard = read.read(&mut scrap) => match heard {
                    Ok(0) => return End::Closed,
                    Ok(_) => {}
                    Err(error) => return End::Broken(error),
                },
                _ = reports.tick() => self.call(Call::Report(id)).await,
                octets = told.recv() => {
                    let Some(octets) = octets else {
                        return End::Overrun;
                    };
                    // The RIB prepares the next while this is on its way.
                    self.call(Call::Take(id)).await;
                    let written = tokio::select! {
                        written = self.write(&mut write, &octets) => written,
                        () = stop(&mut stopped) => {
                            // In the middle of a message there is no last word.
                            return End::Stopped;
                        }
                    };
                    if let Err(end) = written {
                        return end;
                    }
                }
            }
        }
    }

    async fn call(&self, call: Call) {
        // A RIB that has ended closes the outlet.
        let _ = self.rib.0.send(Input::Station(call)).await;
    }

    /// Writes all of it, unless nothing is taken for too long.
    async fn write(
        &self,
        socket: &mut tokio::net::tcp::OwnedWriteHalf,
        mut octets: &[u8],
    ) -> Result<(), End> {
        while !octets.is_empty() {
            let written = tokio::time::timeout(WRITE_PATIENCE, socket.write(octets)).await;
            let count = written.map_err(|_| End::Stuck)?.map_err(End::Broken)?;
            if count == 0 {
                return Err(End::Closed);
            }
            self.board.octets.fetch_add(count as u64, Ordering::Relaxed);
            octets = &octets[count..];
        }
        Ok(())
    }
}

/// Comes back when the task has to end; also when nobody is left who could say so.
pub(super) async fn stop(stopped: &mut watch::Receiver<bool>) {
    // An error means the same as the word.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn next_id() -> StationId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    StationId(NEXT.fetch_add(1, Ordering::Relaxed))
}

fn hello() -> Bytes {
    let name = nix::unistd::gethostname();
    encoded(&Message::Initiation(Initiation {
        system_description: concat!("Caracal BGP speaker ", env!("CARGO_PKG_VERSION")).to_owned(),
        system_name: name
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        text: String::new(),
    }))
}

fn farewell() -> Bytes {
    encoded(&Message::Termination {
        reason: TerminationReason::AdministrativelyClosed,
        text: String::new(),
    })
}

fn encoded(message: &Message) -> Bytes {
    let mut octets = BytesMut::new();
    message.encode(&mut octets);
    octets.freeze()
}

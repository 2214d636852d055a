//! One TCP connection: a task that reads and a task that writes.
//!
//! Owns octets in both directions: framing off the socket, and the order in which messages are
//! written. Does not own what messages mean. The two tasks share nothing with the RIB but its
//! channel, so that a busy RIB or a slow kernel never delays a keepalive.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use caracal_bgp_core::fsm::{CloseWhy, ConnId};
use caracal_bgp_core::rib::PeerId;
use caracal_bgp_core::wire::{self, Frame, MessageType, Notification};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinHandle;

use crate::rib_thread::RibHandle;
use crate::status::{Direction, MessageNote, PeerBoard};

/// Session messages that may wait for a socket: OPEN, NOTIFICATION and a few keepalives. When it
/// is full, nothing has left for minutes, and one keepalive more would change nothing.
const CONTROL_DEPTH: usize = 8;
/// Octets read at once from a peer that says little, and from one that says much: each read costs a turn of
/// every task on the way to the RIB, and each peer keeps a buffer of what it last needed.
const READ_SIZE: RangeInclusive<usize> = 4 * 1024..=16 * 1024;
/// How long a peer may take to read our last words before the socket is closed on it.
const LINGER: Duration = Duration::from_secs(1);

/// What a connection reports.
#[derive(Debug)]
pub(crate) enum ConnEvent {
    /// Whole messages came, and when.
    Frames(ConnId, Vec<Frame>, Instant),
    /// What came is no message.
    Malformed(ConnId, Notification),
    /// The connection ended.
    Closed(ConnId, CloseWhy),
    /// A dial ended.
    Dialled(io::Result<TcpStream>),
}

/// What the writer is told.
enum Control {
    Write(Bytes),
    /// From here on, routes of this session come by the channel.
    Established(PeerId, mpsc::Receiver<Bytes>),
    Finish,
}

/// A connection's tasks.
pub(crate) struct Connection {
    /// Our end.
    pub(crate) local: IpAddr,
    control: mpsc::Sender<Control>,
    written: Arc<AtomicU64>,
    written_seen: u64,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Connection {
    /// Starts both tasks; `max_len` is the longest message that we take.
    pub(crate) fn spawn(
        conn: ConnId,
        local: IpAddr,
        stream: TcpStream,
        max_len: usize,
        events: mpsc::Sender<ConnEvent>,
        rib: RibHandle,
        board: Arc<PeerBoard>,
    ) -> Self {
        let (read, write) = stream.into_split();
        let (control, controls) = mpsc::channel(CONTROL_DEPTH);
        let written = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            socket: write,
            written: Arc::clone(&written),
            board,
        };
        Self {
            local,
            control,
            written,
            written_seen: 0,
            reader: tokio::spawn(read_all(conn, read, max_len, events)),
            writer: tokio::spawn(writer.run(controls, rib)),
        }
    }

    /// Queues a message before all routes that are not yet on their way. False when the queue is
    /// full: the peer does not read.
    pub(crate) fn write(&self, octets: Bytes) -> bool {
        // A closed queue belongs to a writer that failed; the reader reports the connection.
        !matches!(
            self.control.try_send(Control::Write(octets)),
            Err(TrySendError::Full(_))
        )
    }

    /// Lets routes flow.
    pub(crate) fn established(&self, peer: PeerId, routes: mpsc::Receiver<Bytes>) -> bool {
        self.control
            .try_send(Control::Established(peer, routes))
            .is_ok()
    }

    /// Whether octets have reached the socket since the last call.
    pub(crate) fn wrote(&mut self) -> bool {
        let written = self.written.load(Ordering::Relaxed);
        std::mem::replace(&mut self.written_seen, written) != written
    }

    /// Flushes what was queued and closes, without waiting long for a peer that does not read.
    pub(crate) fn close(self) -> JoinHandle<()> {
        let Self {
            control,
            mut reader,
            mut writer,
            ..
        } = self;
        tokio::spawn(async move {
            let flushed = async {
                if control.send(Control::Finish).await.is_ok() {
                    let _ = (&mut writer).await;
                }
                // Closing a socket with unread octets resets the connection, and the peer would
                // never see our last words: read until it has closed its side.
                let _ = (&mut reader).await;
            };
            let _ = tokio::time::timeout(LINGER, flushed).await;
            writer.abort();
            reader.abort();
        })
    }
}

/// Frames messages off the socket. Waits when the session is behind: TCP then slows the peer.
async fn read_all(
    conn: ConnId,
    mut socket: OwnedReadHalf,
    max_len: usize,
    events: mpsc::Sender<ConnEvent>,
) {
    let mut buffer = BytesMut::new();
    let mut room = *READ_SIZE.start();
    loop {
        buffer.reserve(room);
        let closed = match (&mut socket).take(room as u64).read_buf(&mut buffer).await {
            Ok(0) => Some(CloseWhy::Eof),
            Ok(count) => {
                room = room_after(room, count);
                None
            }
            Err(error) => Some(close_why(&error)),
        };
        if let Some(why) = closed {
            let _ = events.send(ConnEvent::Closed(conn, why)).await;
            return;
        }
        let arrived = Instant::now();
        let (frames, malformed) = frame_all(&mut buffer, max_len);
        if !frames.is_empty() {
            let frames = ConnEvent::Frames(conn, frames, arrived);
            if events.send(frames).await.is_err() {
                return discard(socket).await;
            }
        }
        if let Some(notification) = malformed {
            let _ = events.send(ConnEvent::Malformed(conn, notification)).await;
            return discard(socket).await;
        }
    }
}

/// How much to read next, when `count` octets came of at most `room`.
fn room_after(room: usize, count: usize) -> usize {
    let wanted = if count >= room {
        room * 2
    } else if count < room / 4 {
        room / 2
    } else {
        room
    };
    wanted.clamp(*READ_SIZE.start(), *READ_SIZE.end())
}

/// The whole messages at the start of what was read, and what is wrong behind them.
fn frame_all(buffer: &mut BytesMut, max_len: usize) -> (Vec<Frame>, Option<Notification>) {
    let mut frames = Vec::new();
    loop {
        match wire::frame(buffer, max_len) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(notification) => return (frames, Some(notification)),
        }
    }
}

/// Reads until the peer closes, for [`Connection::close`].
async fn discard(mut socket: OwnedReadHalf) {
    let mut scrap = [0; 4096];
    while let Ok(1..) = socket.read(&mut scrap).await {}
}

/// An I/O error in the machine's words.
pub(crate) fn close_why(error: &io::Error) -> CloseWhy {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => CloseWhy::Reset,
        io::ErrorKind::ConnectionRefused => CloseWhy::Refused,
        io::ErrorKind::TimedOut => CloseWhy::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            CloseWhy::Unreachable(error.to_string())
        }
        _ => CloseWhy::Other(error.to_string()),
    }
}

struct Writer {
    socket: OwnedWriteHalf,
    written: Arc<AtomicU64>,
    board: Arc<PeerBoard>,
}

impl Writer {
    async fn run(mut self, mut controls: mpsc::Receiver<Control>, rib: RibHandle) {
        let mut session: Option<(PeerId, mpsc::Receiver<Bytes>)> = None;
        // Whose next routes the RIB had no room to be asked for.
        let mut unasked: Option<PeerId> = None;
        loop {
            let asked = async {
                match unasked {
                    Some(peer) => rib.pull(peer).await,
                    None => std::future::pending().await,
                }
            };
            let routes = async {
                match &mut session {
                    Some((peer, routes)) => routes.recv().await.map(|octets| (*peer, octets)),
                    None => std::future::pending().await,
                }
            };
            let written = tokio::select! {
                // Session messages go first, however many routes wait.
                biased;
                control = controls.recv() => match control {
                    Some(Control::Write(octets)) => self.write(&octets).await,
                    Some(Control::Established(peer, routes)) => {
                        session = Some((peer, routes));
                        Ok(())
                    }
                    Some(Control::Finish) | None => {
                        // Whatever became of the peer, this is the end of the connection.
                        let _ = self.socket.shutdown().await;
                        return;
                    }
                },
                () = asked => {
                    unasked = None;
                    Ok(())
                }
                routes = routes => match routes {
                    Some((peer, octets)) => {
                        self.note(&octets);
                        let mut write = std::pin::pin!(self.write(&octets));
                        tokio::select! {
                            biased;
                            // The RIB prepares the next while these are on their way.
                            () = rib.pull(peer) => write.await,
                            // One without room is not waited for here: session messages may come.
                            written = &mut write => {
                                unasked = Some(peer);
                                written
                            }
                        }
                    }
                    None => {
                        // The RIB has ended the session, or itself.
                        (session, unasked) = (None, None);
                        Ok(())
                    }
                }
            };
            if let Err(error) = written {
                // The reader sees the same end and reports it.
                tracing::debug!(%error, "write failed");
                return;
            }
        }
    }

    /// Counts the messages of a run and keeps a record of it.
    fn note(&self, octets: &[u8]) {
        let mut total = 0;
        let (mut refreshes, mut refresh_octets) = (0, 0);
        let mut rest = octets;
        while let Some((kind, length)) = wire::message_at(rest) {
            total += 1;
            if kind == MessageType::RouteRefresh {
                refreshes += 1;
                refresh_octets += length;
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        let counters = &self.board.counters;
        let updates = total - refreshes;
        let update_octets = octets.len() - refresh_octets;
        for (kind, messages, octets) in [
            (MessageType::Update, updates, update_octets),
            (MessageType::RouteRefresh, refreshes, refresh_octets),
        ] {
            if messages > 0 {
                counters.count(Direction::Sent, kind, messages, octets as u64);
            }
        }
        let messages = u32::try_from(total).unwrap_or(u32::MAX);
        let note = MessageNote::Routes(messages);
        self.board.message(Direction::Sent, octets.len(), note);
    }

    /// Writes all of `octets`, and counts what leaves as it leaves.
    async fn write(&mut self, mut octets: &[u8]) -> io::Result<()> {
        while !octets.is_empty() {
            let count = self.socket.write(octets).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.written.fetch_add(1, Ordering::Relaxed);
            octets = &octets[count..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use caracal_bgp_core::rib::PeerIndex;
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::*;
    use crate::config::PeerName;
    use crate::rib_thread::Input;
    use crate::status::Board;

    #[tokio::test]
    async fn session_messages_and_the_end_pass_while_the_rib_has_no_room_to_be_asked_for_routes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap());
        let (ours, theirs) = tokio::join!(ours, listener.accept());
        let (ours, (mut theirs, _)) = (ours.unwrap(), theirs.unwrap());
        let (inputs, mut rib) = mpsc::channel(1);
        let id = |index| PeerId {
            index: PeerIndex(index),
            generation: 1,
        };
        inputs.send(Input::Pull(id(7))).await.unwrap();
        let (events, _reports) = mpsc::channel(1);
        let board = Board::new(Arc::new(watch::channel(0).0));
        let connection = Connection::spawn(
            ConnId(0),
            ours.local_addr().unwrap().ip(),
            ours,
            4096,
            events,
            RibHandle(inputs),
            board.open(&PeerName::from("peer")),
        );
        let (outlet, routes) = mpsc::channel(1);
        assert!(connection.established(id(1), routes));
        let mut read = async |count: usize| {
            let mut octets = vec![0; count];
            let read = theirs.read_exact(&mut octets);
            let read = tokio::time::timeout(Duration::from_secs(10), read).await;
            read.expect("nothing was written").unwrap();
            octets
        };
        outlet.send(Bytes::from_static(b"routes")).await.unwrap();
        assert_eq!(read(6).await, b"routes");
        assert!(connection.write(Bytes::from_static(b"keepalive")));
        assert_eq!(read(9).await, b"keepalive");
        outlet.send(Bytes::from_static(b"more")).await.unwrap();
        assert_eq!(read(4).await, b"more");

        // Both have been taken; the RIB is asked as soon as it has room, and once for both.
        let mut asked = Vec::new();
        for _ in 0..2 {
            match rib.recv().await {
                Some(Input::Pull(peer)) => asked.push(peer),
                _ => panic!("no pull"),
            }
        }
        assert_eq!(asked, [id(7), id(1)]);
        outlet.send(Bytes::from_static(b"last")).await.unwrap();
        assert_eq!(read(4).await, b"last");
        assert!(matches!(rib.recv().await, Some(Input::Pull(peer)) if peer == id(1)));
        assert!(connection.write(Bytes::from_static(b"bye")));
        let closing = connection.close();
        assert_eq!(read(3).await, b"bye");
        drop(theirs);
        closing.await.unwrap();
        assert!(rib.try_recv().is_err(), "asked without need");
    }
}

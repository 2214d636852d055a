//! The local API: one Unix socket, one JSON object per line, one answer per request.
//!
//! Owns the protocol. Does not own the answers, which are the handle's.
//!
//! ```text
//! {"verb":"peers"}                                  -> {"ok": SpeakerSnapshot}
//! {"verb":"peer","peer":"tor1"}                     -> {"ok": PeerDetail}
//! {"verb":"routes","prefix":"10.0.0.0/8"}           -> {"ok": [RouteSnapshot]}   prefix optional
//! {"verb":"routes","view":"received","peer":"tor1"} -> the same; see [`RoutesView`]
//! {"verb":"explain","prefix":"10.244.1.7"}          -> {"ok": Explanation}
//! {"verb":"history","peer":"tor1"}                  -> {"ok": HistorySnapshot}
//! {"verb":"dump","what":"table"}                   -> MRT (RFC 6396); or "updates", from now on
//! {"verb":"clear","peer":"tor1","how":"in"}         -> {"ok": number of peers}   peer optional
//! anything else                                     -> {"error": "..."}
//! ```
//!
//! Routes come in pages: `{"part": [RouteSnapshot]}` on as many lines as it takes, and the last page
//! as `ok`. The speaker makes a page when the one before has been read; whoever has enough closes
//! the connection.
//!
//! A dump comes in parts: `{"part": DumpHeader}` on a line, and behind it as many octets of whole
//! records as the header says. `{"ok": DumpHeader}`, with none, follows when all of it has been sent;
//! `updates` end when the client closes the connection.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use caracal_bgp_core::types::Prefix;
use caracal_metrics::accept;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::config::PeerName;
use crate::error::Error;
use crate::handle::{Clear, Dump, DumpPart, Listing, RouteQuery, SpeakerHandle};

/// The longest request; the longest valid one is much shorter.
const MAX_REQUEST: u64 = 4096;
/// A client may take this long over one request or answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// A client may take this long over one page: a person may read it.
const READING: Duration = Duration::from_secs(600);
/// Connections at a time; more wait for others to close.
const CONNECTIONS: usize = 64;

/// A request, as it stands on the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// The speaker and its sessions.
    Peers,
    /// One session, and its routes that are rejected, by reason.
    Peer {
        /// What the configuration calls it.
        peer: String,
    },
    /// Routes, in the order of their prefixes.
    Routes {
        /// Which: the table where absent.
        #[serde(default, skip_serializing_if = "RoutesView::is_table")]
        view: RoutesView,
        /// Of which peer; every view but `table` and `rejected` needs one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        /// This and what lies inside it: `address/length`, or an address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<String>,
    },
    /// Why packets to `prefix` go where they go.
    Explain {
        /// `address/length`, or an address.
        prefix: String,
    },
    /// What happened last with a peer.
    History {
        /// What the configuration calls it.
        peer: String,
    },
    /// Octets in MRT format.
    Dump {
        /// Of what.
        what: Dump,
    },
    /// Clears one session, or all.
    Clear {
        /// What the configuration calls it; all where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        /// How.
        how: ClearHow,
        /// What the peer reads with `hard` (RFC 9003), at most 255 octets.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
}

/// What stands before a part of a dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpHeader {
    /// How many octets follow.
    pub octets: usize,
    /// How many messages are missing before them, as the client was too slow.
    pub lost: usize,
}

/// Which routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoutesView {
    /// Every prefix with all its paths.
    #[default]
    Table,
    /// Paths that must not be used, of one peer or of all.
    Rejected,
    /// What a peer has told.
    Received,
    /// What a peer has been told.
    Advertised,
    /// What others may be told and a peer is not, with the reason.
    Withheld,
}

impl RoutesView {
    fn is_table(&self) -> bool {
        *self == Self::Table
    }
}

/// How to clear a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClearHow {
    /// End it and start a new one.
    Hard,
    /// Have the peer tell its routes again (RFC 2918).
    In,
    /// Tell the peer all routes again.
    Out,
}

/// An answer, as it stands on the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response<T> {
    /// A page of it; more follows.
    Part(T),
    /// What was asked for, or its last page.
    Ok(T),
    /// Why there is no answer.
    Error(String),
}

/// Serves the API on `path` until the task is aborted. A socket that a former life left behind is
/// replaced.
pub(crate) fn serve(path: &Path, handle: SpeakerHandle) -> Result<JoinHandle<()>, Error> {
    let failed = |source| Error::Api {
        path: path.to_owned(),
        source,
    };
    let listener = bind(path).map_err(failed)?;
    Ok(tokio::spawn(async move {
        let converse = |stream| converse(stream, handle.clone());
        accept::serve(&listener, CONNECTIONS, "local API", converse).await;
    }))
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn converse(stream: UnixStream, handle: SpeakerHandle) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    loop {
        let mut line = String::new();
        let mut limited = (&mut lines).take(MAX_REQUEST);
        match tokio::time::timeout(PATIENCE, limited.read_line(&mut line)).await {
            Ok(Ok(1..)) => {}
            _ => return,
        }
        let request: Result<Request, _> = serde_json::from_str(line.trim());
        let sent = match request {
            Ok(Request::Routes { view, peer, prefix }) => {
                match query(view, peer.as_deref(), prefix.as_deref()) {
                    Ok(query) => list(query, &handle, &mut write).await,
                    Err(why) => send(&mut write, refuse(&why), PATIENCE).await,
                }
            }
            Ok(Request::Dump { what }) => dump(what, &handle, &mut lines, &mut write).await,
            Ok(request) => send(&mut write, answer(request, &handle).await, PATIENCE).await,
            Err(error) => {
                let why = format!("cannot read the request: {error}");
                send(&mut write, refuse(&why), PATIENCE).await
            }
        };
        if sent.is_none() {
            return;
        }
    }
}

/// Writes a line; nothing when the client is gone or does not read.
async fn send(write: &mut OwnedWriteHalf, mut line: String, patience: Duration) -> Option<()> {
    line.push('\n');
    let written = tokio::time::timeout(patience, write.write_all(line.as_bytes())).await;
    written.ok()?.ok()
}

fn query(view: RoutesView, peer: Option<&str>, prefix: Option<&str>) -> Result<RouteQuery, String> {
    let named = || {
        let name = peer.ok_or("this view needs a peer")?;
        Ok::<_, String>(PeerName(name.to_owned()))
    };
    let listing = match view {
        RoutesView::Table if peer.is_some() => return Err("this view is of no peer".to_owned()),
        RoutesView::Table => Listing::Table,
        RoutesView::Rejected => Listing::Rejected(peer.map(|name| PeerName(name.to_owned()))),
        RoutesView::Received => Listing::Received(named()?),
        RoutesView::Advertised => Listing::Advertised(named()?),
        RoutesView::Withheld => Listing::Withheld(named()?),
    };
    let prefix = prefix.map(str::parse::<Prefix>).transpose();
    let within = prefix.map_err(|error| error.to_string())?;
    Ok(RouteQuery { listing, within })
}

/// Sends a listing, page by page.
async fn list(query: RouteQuery, handle: &SpeakerHandle, write: &mut OwnedWriteHalf) -> Option<()> {
    let name = match &query.listing {
        Listing::Table | Listing::Rejected(None) => None,
        Listing::Rejected(Some(peer))
        | Listing::Received(peer)
        | Listing::Advertised(peer)
        | Listing::Withheld(peer) => Some(peer.0.clone()),
    };
    let mut pages = match handle.list(query).await {
        Ok(Some(pages)) => pages,
        Ok(None) => {
            let why = no_peer(name.as_deref().unwrap_or_default());
            return send(write, refuse(&why), PATIENCE).await;
        }
        Err(error) => return send(write, refuse(&error.to_string()), PATIENCE).await,
    };
    let mut last = pages.next().await.unwrap_or_default();
    while let Some(page) = pages.next().await {
        let page = std::mem::replace(&mut last, page);
        send(write, render(Response::Part, &page), READING).await?;
    }
    send(write, render(Response::Ok, &last), READING).await
}

/// Sends a dump, part by part.
async fn dump(
    what: Dump,
    handle: &SpeakerHandle,
    lines: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
) -> Option<()> {
    let mut stream = match handle.dump(what).await {
        Ok(stream) => stream,
        Err(error) => return send(write, refuse(&error.to_string()), PATIENCE).await,
    };
    loop {
        let part = tokio::select! {
            part = stream.next() => part,
            // Nothing is to be said meanwhile: the client has closed, or does not know better.
            _ = lines.fill_buf() => return None,
        };
        let (header, records) = match part {
            Ok(DumpPart::Records(records)) => {
                let octets = records.len();
                (DumpHeader { octets, lost: 0 }, records)
            }
            Ok(DumpPart::Lost(lost)) => (DumpHeader { octets: 0, lost }, Bytes::new()),
            Ok(DumpPart::End) => {
                let end = DumpHeader::default();
                return send(write, render(Response::Ok, &end), PATIENCE).await;
            }
            Err(error) => return send(write, refuse(&error.to_string()), PATIENCE).await,
        };
        send(write, render(Response::Part, &header), PATIENCE).await?;
        let written = tokio::time::timeout(PATIENCE, write.write_all(&records)).await;
        written.ok()?.ok()?;
    }
}

async fn answer(request: Request, handle: &SpeakerHandle) -> String {
    let outcome = match request {
        // Answered in pages, above.
        Request::Routes { .. } | Request::Dump { .. } => return refuse("it comes in parts"),
        Request::Peers => handle
            .snapshot()
            .await
            .map(|answer| render(Response::Ok, &answer)),
        Request::Peer { peer } => match handle.peer(PeerName(peer.clone())).await {
            Ok(None) => return refuse(&no_peer(&peer)),
            answer => answer.map(|answer| render(Response::Ok, &answer)),
        },
        Request::Explain { prefix } => match prefix.parse::<Prefix>() {
            Ok(prefix) => handle
                .explain(prefix)
                .await
                .map(|answer| render(Response::Ok, &answer)),
            Err(error) => return refuse(&error.to_string()),
        },
        Request::History { peer } => match handle.history(PeerName(peer.clone())).await {
            Ok(None) => return refuse(&no_peer(&peer)),
            answer => answer.map(|answer| render(Response::Ok, &answer)),
        },
        Request::Clear { peer, how, message } => {
            let clear = match how {
                ClearHow::In => Clear::In,
                ClearHow::Out => Clear::Out,
                // RFC 9003 §2: the length is one octet.
                ClearHow::Hard if message.len() > 255 => {
                    return refuse("the message has more than 255 octets");
                }
                ClearHow::Hard => Clear::Hard { message },
            };
            match (handle.clear(peer.clone().map(PeerName), clear).await, peer) {
                (Ok(0), Some(peer)) => return refuse(&no_peer(&peer)),
                (cleared, _) => cleared.map(|cleared| render(Response::Ok, &cleared)),
            }
        }
    };
    outcome.unwrap_or_else(|error| refuse(&error.to_string()))
}

fn no_peer(name: &str) -> String {
    format!("no peer is called {name:?}")
}

fn render<'a, T: Serialize>(place: fn(&'a T) -> Response<&'a T>, answer: &'a T) -> String {
    serde_json::to_string(&place(answer))
        .unwrap_or_else(|error| refuse(&format!("cannot write the answer: {error}")))
}

fn refuse(why: &str) -> String {
    serde_json::json!({ "error": why }).to_string()
}

//! The way to talk to a running speaker.
//!
//! Owns the requests that a speaker answers. Does not own the speaker: dropping every handle ends
//! it as [`How::GracefulRestart`] does.

use std::path::PathBuf;

use caracal_bgp_core::types::Prefix;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{PeerName, SpeakerConfig};
use crate::error::Error;
pub use crate::export::{Dump, DumpPart, DumpStream};
pub use crate::snapshot::{
    ErrorSnapshot, Explanation, FamilySnapshot, FibSnapshot, PathSnapshot, PeerDetail,
    PeerSnapshot, RejectedSnapshot, RouteSnapshot, SessionState, SpeakerSnapshot,
};
use crate::status::HistorySnapshot;

/// How many requests may wait; each is answered in well under a millisecond unless the RIB is busy.
pub(crate) const REQUEST_DEPTH: usize = 32;

/// What a speaker needs besides its configuration.
#[derive(Clone, Debug, Default)]
pub struct SpeakerOptions {
    /// Where to serve the local API, a Unix socket; `None` serves none.
    pub api_socket: Option<PathBuf>,
    /// The BFD process to ask; without one, no path is watched.
    pub bfd: Option<BfdOptions>,
}

/// The BFD process, and as whom it is asked.
#[derive(Clone, Debug)]
pub struct BfdOptions {
    /// Its socket. The process need not run yet.
    pub socket: PathBuf,
    /// Our name there: the same after a restart, so that sessions are found again as they are.
    pub owner: String,
}

/// How a speaker ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Sockets close without a NOTIFICATION, so that peers which agreed to graceful restart keep
    /// our routes until we are back (RFC 4724 §4.2). The FIB is left alone.
    GracefulRestart,
    /// Every session ends with Cease, Administrative Shutdown: peers drop our routes at once. The
    /// FIB is left alone, so that packets under way still find their route; the caller removes
    /// the routes when it likes.
    Cease {
        /// Shown at the peer (RFC 9003), at most 255 octets.
        message: String,
    },
}

/// What an operator may ask of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clear {
    /// End it and start a new one; the peer reads the message (RFC 9003), at most 255 octets. Also
    /// ends the time for which a peer is left alone for its prefix limit.
    Hard {
        /// May be empty.
        message: String,
    },
    /// Have the peer tell its routes again (RFC 2918).
    In,
    /// Tell the peer all routes again.
    Out,
}

/// Which routes to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteQuery {
    /// Which.
    pub listing: Listing,
    /// This prefix and everything more specific; `None` for all.
    pub within: Option<Prefix>,
}

/// What a listing is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// The table: every prefix with all its paths, as they are used.
    Table,
    /// Paths that must not be used, of all peers or of one.
    Rejected(Option<PeerName>),
    /// What a peer has told, as it told it.
    Received(PeerName),
    /// What a peer has been told and not had withdrawn, in the words that it read.
    Advertised(PeerName),
    /// What others may be told and a peer is not, with the reason in
    /// [`PathSnapshot::rejected`].
    Withheld(PeerName),
}

/// The pages of a listing, in the order of prefixes. Each is of the moment when it is asked for.
#[derive(Debug)]
pub struct Pages(pub(crate) mpsc::Receiver<Vec<RouteSnapshot>>);

impl Pages {
    /// The next page, never empty; `None` after the last one, or when the speaker has ended.
    pub async fn next(&mut self) -> Option<Vec<RouteSnapshot>> {
        self.0.recv().await
    }
}

/// Talks to a running speaker; cheap to clone.
#[derive(Clone, Debug)]
pub struct SpeakerHandle {
    requests: mpsc::Sender<Request>,
    changes: watch::Receiver<u64>,
}

/// What the supervisor is asked.
#[derive(Debug)]
pub(crate) enum Request {
    Apply(Box<SpeakerConfig>, oneshot::Sender<Result<(), Error>>),
    Snapshot(oneshot::Sender<SpeakerSnapshot>),
    List(RouteQuery, oneshot::Sender<Option<Pages>>),
    Peer(PeerName, oneshot::Sender<Option<PeerDetail>>),
    Rejected(oneshot::Sender<Vec<(PeerName, RejectedSnapshot)>>),
    Explain(Prefix, oneshot::Sender<Explanation>),
    History(PeerName, oneshot::Sender<Option<HistorySnapshot>>),
    Dump(Dump, oneshot::Sender<DumpStream>),
    Clear(Option<PeerName>, Clear, oneshot::Sender<usize>),
    Shutdown(How, oneshot::Sender<()>),
    /// Keeps the RIB thread busy.
    #[cfg(test)]
    WithRib(crate::rib_thread::Question, oneshot::Sender<()>),
    /// Reports as if they came from the links.
    #[cfg(test)]
    Found(Vec<crate::net::LinkReport>, oneshot::Sender<()>),
}

impl SpeakerHandle {
    pub(crate) fn new(requests: mpsc::Sender<Request>, changes: watch::Receiver<u64>) -> Self {
        Self { requests, changes }
    }

    /// Makes `config` the desired state. Only peers whose part changed are touched. Returns when
    /// the change has been handed out, not when sessions are up.
    ///
    /// # Errors
    /// [`Error::PortInUse`] or [`Error::Listen`] when a changed listener cannot be made (the rest
    /// is applied nevertheless); [`Error::Stopped`].
    pub async fn apply(&self, config: SpeakerConfig) -> Result<(), Error> {
        self.ask(|answer| Request::Apply(Box::new(config), answer))
            .await?
    }

    /// The speaker and its sessions at this moment.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn snapshot(&self) -> Result<SpeakerSnapshot, Error> {
        self.ask(Request::Snapshot).await
    }

    /// Lists routes, page by page, so that the RIB is never held up and nobody holds the whole
    /// answer; `None` when there is no peer of the name.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn list(&self, query: RouteQuery) -> Result<Option<Pages>, Error> {
        self.ask(|answer| Request::List(query, answer)).await
    }

    /// The table at once: all of it, or `within` and everything more specific. For tables that are
    /// known to be small, or small parts.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn routes(&self, within: Option<Prefix>) -> Result<Vec<RouteSnapshot>, Error> {
        let listing = Listing::Table;
        let mut pages = self.list(RouteQuery { listing, within }).await?;
        let mut routes = Vec::new();
        while let Some(pages) = &mut pages
            && let Some(page) = pages.next().await
        {
            routes.extend(page);
        }
        Ok(routes)
    }

    /// One peer and what becomes of its routes; `None` when there is no peer of the name.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn peer(&self, peer: PeerName) -> Result<Option<PeerDetail>, Error> {
        self.ask(|answer| Request::Peer(peer, answer)).await
    }

    /// What is rejected of all peers, by peer and reason, the most frequent first. Goes through the whole
    /// table and judges every rejected route again, a stretch at a time.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn rejected(&self) -> Result<Vec<(PeerName, RejectedSnapshot)>, Error> {
        self.ask(Request::Rejected).await
    }

    /// Why packets to `prefix` go where they go.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn explain(&self, prefix: Prefix) -> Result<Explanation, Error> {
        self.ask(|answer| Request::Explain(prefix, answer)).await
    }

    /// What happened last with `peer`; `None` when there is no peer of the name.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn history(&self, peer: PeerName) -> Result<Option<HistorySnapshot>, Error> {
        self.ask(|answer| Request::History(peer, answer)).await
    }

    /// The table, or messages from now on, in MRT format. A stream that nobody reads holds nothing up.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn dump(&self, what: Dump) -> Result<DumpStream, Error> {
        self.ask(|answer| Request::Dump(what, answer)).await
    }

    /// Clears `peer`, or every peer when there is no name; how many that were, none when no peer has
    /// the name.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn clear(&self, peer: Option<PeerName>, clear: Clear) -> Result<usize, Error> {
        self.ask(|answer| Request::Clear(peer, clear, answer)).await
    }

    /// A counter that grows whenever a session changes state, the RIB or FIB settles after changes, or
    /// there is a new configuration; wait on it, then take a new snapshot.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Ends the speaker. Returns when its sockets are closed and its threads have ended; a speaker
    /// that has already ended is no error.
    pub async fn shutdown(&self, how: How) {
        // Stopped means that what was asked for has happened.
        let _ = self.ask(|answer| Request::Shutdown(how, answer)).await;
    }

    #[cfg(test)]
    pub(crate) async fn with_rib(
        &self,
        task: impl FnOnce(&caracal_bgp_core::rib::Rib) + Send + 'static,
    ) {
        let task = crate::rib_thread::Question(Box::new(task));
        let _ = self.ask(|answer| Request::WithRib(task, answer)).await;
    }

    #[cfg(test)]
    pub(crate) async fn found(&self, reports: Vec<crate::net::LinkReport>) {
        let _ = self.ask(|answer| Request::Found(reports, answer)).await;
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.requests
            .send(request(answer))
            .await
            .map_err(|_| Error::Stopped)?;
        answered.await.map_err(|_| Error::Stopped)
    }
}

//! Who of the peers that ranges let in has left for good, so that others may have the place.
//!
//! Owns how long each may be away. Does not own the places, which are the ranges'.

use std::sync::atomic::Ordering;
use std::time::Duration;

use caracal_bgp_core::rib::PeerIndex;
use caracal_bgp_core::types::Family;

use crate::config::PeerName;
use crate::snapshot::SessionState;
use crate::speaker::peers::Peer;
use crate::speaker::{Arrival, Supervisor};
use crate::status::now_ms;

/// How long a peer that a range let in may be without a connection before it loses its place.
const ABSENCE: Duration = Duration::from_secs(5);
/// The same where sessions wait for BFD: the peer may wait likewise, and then hears of BFD again only while
/// it has its place. It is expected for as long as peers wait after a session that came to nothing, which is
/// two minutes (RFC 4271 §10, ConnectRetryTime) to five (BIRD).
const RETURN: Duration = Duration::from_secs(360);

/// What keeps a peer's place besides its connection and its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tie {
    /// Nothing.
    None,
    /// It may not come back yet: forgotten, it would come as somebody new, to whom nothing is forbidden.
    Barred,
    /// Its session waits for BFD.
    Path {
        /// It is.
        up: bool,
    },
}

/// Whether a peer that has been in this state for so long gives up its place.
fn is_away(state: SessionState, lasted: Duration, tie: Tie) -> bool {
    let idle = matches!(
        state,
        SessionState::Idle | SessionState::Active | SessionState::Connect
    );
    let patience = match tie {
        Tie::None => ABSENCE,
        // BFD says that it is there.
        Tie::Barred | Tie::Path { up: true } => return false,
        Tie::Path { up: false } => RETURN,
    };
    idle && lasted > patience
}

impl Supervisor {
    /// Looks for peers that ranges let in and that have been away for a while. Their routes may
    /// outlive their sessions, and so may they: the RIB says.
    pub(super) fn call_roll(&self) {
        let away: Vec<_> = self
            .peers
            .admitted()
            .filter(|(name, peer)| self.is_away(name, peer))
            .map(|(name, peer)| (peer.index, name.clone()))
            .collect();
        if away.is_empty() {
            return;
        }
        let (rib, intake) = (self.rib.clone(), self.intake.clone());
        tokio::spawn(async move {
            let absent = rib.query(move |rib| {
                let routes = |index: &PeerIndex| {
                    let received = Family::ALL.map(|family| rib.tally(*index, family).0);
                    received.into_iter().sum::<usize>()
                };
                let absent = away.into_iter().filter(|(index, _)| routes(index) == 0);
                absent.map(|(_, name)| name).collect::<Vec<_>>()
            });
            if let Some(absent) = absent.await {
                let _ = intake.send(Arrival::Absent(absent)).await;
            }
        });
    }

    /// Frees the places of peers that ranges let in, unless they are back.
    pub(super) async fn let_go(&mut self, names: Vec<PeerName>) {
        let away = |name: &PeerName| {
            let peer = self.peers.get(name);
            peer.is_some_and(|peer| peer.admitted.is_some() && self.is_away(name, peer))
        };
        let names: Vec<PeerName> = names.into_iter().filter(away).collect();
        if !names.is_empty() {
            self.remove_peers(&names).await;
            self.configure_rib().await;
            self.watch_paths().await;
        }
    }

    fn is_away(&self, name: &PeerName, peer: &Peer) -> bool {
        let status = self.board.status(name);
        let lasted = Duration::from_millis(now_ms().saturating_sub(status.since_ms));
        let tie = if peer.barred.load(Ordering::Acquire) {
            Tie::Barred
        } else if peer.config.waits_for_bfd() {
            let up = self.is_path_proved(name, peer);
            Tie::Path { up }
        } else {
            Tie::None
        };
        is_away(status.state, lasted, tie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_for_as_long_as_its_peer_may_be_expected() {
        let waits = Tie::Path { up: false };
        for (state, secs, tie, away) in [
            (SessionState::Established, 3600, Tie::None, false),
            (SessionState::OpenSent, 10, Tie::None, false),
            (SessionState::Active, 4, Tie::None, false),
            (SessionState::Active, 6, Tie::None, true),
            (SessionState::Idle, 6, Tie::None, true),
            (SessionState::Idle, 3600, Tie::Barred, false),
            // It may wait for BFD, as we do.
            (SessionState::Idle, 300, waits, false),
            (SessionState::Idle, 361, waits, true),
            (SessionState::Active, 3600, Tie::Path { up: true }, false),
            (SessionState::Established, 3600, waits, false),
        ] {
            let lasted = Duration::from_secs(secs);
            assert_eq!(
                is_away(state, lasted, tie),
                away,
                "{state:?} {secs} s {tie:?}"
            );
        }
    }
}

//! A speaker with scripted peers, and the means to say that something has *not* been told.

use std::net::Ipv4Addr;

use caracal_bgp_core::types::{Asn, Prefix};
use caracal_bgp_speaker::config::Origination;
use caracal_bgp_speaker::handle::{Listing, PathSnapshot, RouteQuery};
use caracal_bgp_speaker::{
    How, PeerConfig, PeerName, Speaker, SpeakerConfig, SpeakerHandle, SpeakerOptions,
};

use crate::common::{LOCAL, Lab, established, name, told, until};
use crate::scripted::{Peer, Script};

/// A running speaker of AS [`LOCAL`].
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) config: SpeakerConfig,
    pub(crate) speaker: SpeakerHandle,
    fences: u8,
}

impl Stage {
    /// With peers of these ASes, numbered from zero, and what `edit` makes of the configuration.
    pub(crate) async fn begin(asns: &[Asn], edit: impl FnOnce(&mut SpeakerConfig)) -> Self {
        let lab = Lab::new();
        let mut config = lab.config();
        for (number, asn) in asns.iter().enumerate() {
            lab.add(&mut config, number, *asn);
        }
        edit(&mut config);
        let options = SpeakerOptions::default();
        let speaker = Speaker::start(config.clone(), None, options).await.unwrap();
        Self {
            lab,
            config,
            speaker,
            fences: 0,
        }
    }

    /// A session with peer `number`, up on both sides.
    pub(crate) async fn establish(&self, number: usize, script: &Script) -> Peer {
        let peer = Peer::establish(self.lab.peer(number), self.lab.speaker(), script).await;
        established(&self.speaker, &name(number)).await;
        peer
    }

    /// A session with peer `number`, which offers nothing but what everybody offers.
    pub(crate) async fn plain(&self, number: usize) -> Peer {
        let asn = self.config.peers[&name(number)].peer_as;
        let caracal_bgp_speaker::config::PeerAs::Number(asn) = asn else {
            panic!("peer {number} has no AS number");
        };
        self.establish(number, &Script::of(asn, LOCAL)).await
    }

    /// Waits until the speaker has a path of peer `number` to `prefix`.
    pub(crate) async fn has(&self, number: usize, prefix: &str) -> PathSnapshot {
        let what = format!("{prefix} of {} in the table", name(number));
        let look = async || self.path(number, prefix).await;
        until(&what, look, Option::is_some).await.unwrap()
    }

    /// What peer `number` has told of `prefix`, as the speaker has it.
    pub(crate) async fn path(&self, number: usize, prefix: &str) -> Option<PathSnapshot> {
        let prefix: Prefix = prefix.parse().unwrap();
        let routes = told(&self.speaker, &name(number)).await;
        let mut routes = routes.into_iter().filter(|route| route.prefix == prefix);
        routes.next().map(|mut route| route.paths.remove(0))
    }

    /// Why peer `number` is not told of `prefix`; `None` where it is told, or there is nothing to tell.
    pub(crate) async fn withheld(&self, number: usize, prefix: &str) -> Option<String> {
        let prefix: Prefix = prefix.parse().unwrap();
        let query = RouteQuery {
            listing: Listing::Withheld(name(number)),
            within: Some(prefix),
        };
        let mut pages = self.speaker.list(query).await.unwrap().unwrap();
        let mut routes = pages.next().await?.into_iter();
        let mut route = routes.find(|route| route.prefix == prefix)?;
        route.paths.remove(0).rejected
    }

    /// Changes the configuration of a peer.
    pub(crate) async fn edit(&mut self, number: usize, edit: impl FnOnce(&mut PeerConfig)) {
        edit(self.config.peers.get_mut(&name(number)).unwrap());
        self.speaker.apply(self.config.clone()).await.unwrap();
    }

    /// Returns when the peers have heard whatever there was to hear of what the speaker's table holds.
    ///
    /// Two own routes are told, one after the other was heard: what goes out with the first need not be
    /// in the order of changes, but it has gone when the second one comes.
    pub(crate) async fn settle(&mut self, peers: &[&Peer]) {
        for _ in 0..2 {
            let fence = Prefix::v4(Ipv4Addr::new(10, 250, self.fences, 0), 24).unwrap();
            self.fences += 1;
            let own = Origination::default();
            self.config.originate.insert(fence, own);
            self.speaker.apply(self.config.clone()).await.unwrap();
            for peer in peers {
                peer.hears(fence).await;
            }
        }
    }

    pub(crate) async fn end(self) {
        self.speaker.shutdown(How::GracefulRestart).await;
    }
}

/// The configuration of peer `number`.
pub(crate) fn peer(config: &mut SpeakerConfig, number: usize) -> &mut PeerConfig {
    let name: PeerName = name(number);
    config.peers.get_mut(&name).unwrap()
}

//! Addresses that come and go at our end of a living session.

use std::net::SocketAddr;

use caracal_bgp_core::types::{Asn, Prefix, RouterId};
use caracal_bgp_speaker::config::{ListenConfig, Origination};
use caracal_bgp_speaker::{How, PeerConfig, PeerName, Speaker, SpeakerConfig, SpeakerOptions};

use crate::common::{LOCAL, until};
use crate::hosts::{PORT, add_address, hosts, link};
use crate::scripted::{Peer, Script};

const OTHER: Asn = Asn(65_001);

#[test]
fn an_address_that_comes_under_a_living_session_is_named_as_next_hop() {
    let Some([us, them]) = hosts("own") else {
        return;
    };
    link((&us, "e1"), (&them, "e1"));
    add_address(&us, "e1", "10.0.1.1/24");
    add_address(&them, "e1", "10.0.1.2/24");
    let ours = SocketAddr::new("10.0.1.1".parse().unwrap(), PORT);
    let theirs = SocketAddr::new("10.0.1.2".parse().unwrap(), PORT);
    let mut config = SpeakerConfig::new(LOCAL, RouterId(1));
    config.listen = Some(ListenConfig {
        addrs: vec![ours.ip()],
        port: PORT,
    });
    let passive = PeerConfig {
        passive: true,
        ..PeerConfig::new(theirs, OTHER)
    };
    config.peers.insert(PeerName::from("peer"), passive);
    let prefix: Prefix = "2001:db8:2::/48".parse().unwrap();
    config.originate.insert(prefix, Origination::default());
    let speaker = us.run(async || {
        let options = SpeakerOptions::default();
        Speaker::start(config, None, options).await.unwrap()
    });
    let script = Script::of(OTHER, LOCAL);
    let peer = them.run(async || Peer::establish(theirs.ip(), ours, &script).await);
    for address in ["2001:db8:1::1", "2001:db8:1::2"] {
        add_address(&us, "e1", &format!("{address}/64"));
        let expected = address.parse().unwrap();
        them.run(async || {
            let next_hop = async || {
                let table = peer.heard().table();
                table.get(&prefix).map(|told| told.next_hop.addr())
            };
            until("the next hop", next_hop, |told| *told == Some(expected)).await;
        });
        us.ip(&["addr", "del", &format!("{address}/64"), "dev", "e1"]);
    }
    us.run(async || speaker.shutdown(How::GracefulRestart).await);
}

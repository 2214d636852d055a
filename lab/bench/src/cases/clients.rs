//! A route reflector and its clients, which several cases share.

use std::sync::Arc;

use crate::digest::{Catalogue, Sender, Terms};
use crate::engine::Engine;
use crate::ledger::{Ledger, TableId, ViewId};
use crate::routes::Routes;
use crate::stage::{DAEMON_ASN, Scene, Stage};

/// A reflector with so many clients on one link.
pub(super) fn scene(clients: usize) -> Scene {
    Scene {
        asns: vec![DAEMON_ASN; clients],
        links: vec![clients],
        prober: false,
        reflector: true,
        kernel: false,
    }
}

/// Clients whose tables are watched.
pub(super) struct Clients {
    pub(super) engine: Engine,
    pub(super) routes: Arc<Routes>,
    pub(super) table: TableId,
    /// The receivers, in the order of their seats.
    pub(super) views: Vec<ViewId>,
}

impl Clients {
    /// Sessions for all seats. The first `silent` only send; the others receive, and where `all_send`, a
    /// receiver's place is its number as a sender as well.
    pub(super) fn new(
        stage: &mut Stage<'_>,
        routes: Routes,
        silent: usize,
        all_send: bool,
        mut also: impl FnMut(usize, &mut crate::session::PeerSpec),
    ) -> anyhow::Result<Self> {
        let senders = stage.seats.iter().map(|seat| Sender {
            next_hop: seat.local,
            router_id: seat.local.to_bits(),
        });
        let daemon = stage.arena.links[0].daemon;
        let catalogue = Catalogue::new(&routes, Terms::Reflector, daemon, senders.collect());
        let routes = Arc::new(routes);
        let mut ledger = Ledger::new(routes.clone(), catalogue);
        let table = ledger.add_table();
        let seats = stage.seats.iter().enumerate();
        let views: Vec<ViewId> = seats
            .skip(silent)
            .map(|(place, _)| ledger.add_view(table, all_send.then_some(place as u32)))
            .collect();
        let mut engine = Engine::new(ledger)?;
        for (place, seat) in stage.seats.iter().enumerate() {
            let mut session = seat.session();
            session.view = place.checked_sub(silent).map(|receiver| views[receiver]);
            also(place, &mut session);
            engine.add(session);
        }
        Ok(Self {
            engine,
            routes,
            table,
            views,
        })
    }
}

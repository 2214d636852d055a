//! What our end of a session is called in routes, and when that changes.
//!
//! Does not own what routes make of it: that is the RIB's.

use std::net::{IpAddr, SocketAddr};

use caracal_bgp_core::rib::{Ends, Event as RibEvent};

use crate::net::{Interface, Source};
use crate::rib_thread::Input;
use crate::session::Session;

impl Session {
    /// The ends of a session from `local` to `remote` as they are now, and the interface that it leaves by.
    pub(super) fn addresses(&self, local: IpAddr, remote: SocketAddr) -> (Ends, Option<Interface>) {
        let source = Source::of(remote);
        let table = self.setup.interfaces.current();
        let ignored = &self.setup.ignored_interfaces;
        table.ends(local, source.ifindex, source.address, ignored)
    }

    /// Tells the RIB where our end has got other addresses. It goes the way of the session itself: the RIB
    /// may not have heard of that yet, and what came first would be forgotten.
    pub(super) fn relocate(&mut self) {
        let Some(up) = &self.established else {
            return;
        };
        let (ends, interface) = self.addresses(up.local, up.remote);
        // An address that is gone for a moment takes the session with it, or comes back.
        if ends == up.ends || interface.is_none() {
            return;
        }
        tracing::info!(peer = %self.setup.name, "other addresses at our end");
        if let Some(up) = &mut self.established {
            up.ends = ends.clone();
        }
        let index = self.setup.index;
        let event = RibEvent::Relocated { index, ends };
        self.outbox.push_back(Input::Event(event));
    }
}

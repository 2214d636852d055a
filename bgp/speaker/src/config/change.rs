//! What it costs to go from one configuration to another.
//!
//! Owns the classification of every field. A new field does not compile before it is classified.

use std::collections::BTreeMap;

use caracal_bgp_core::types::Family;

use super::{
    AddPath, AddPathSend, Auth, Endpoint, GracefulRestartConfig, PeerConfig, SpeakerConfig,
};
use crate::config::Activation;

/// What a change costs: a set of the constants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Change(u8);

impl Change {
    /// Nothing differs.
    pub const NONE: Self = Self(0);
    /// The session has to be made anew: what was agreed in OPEN, or who is at its ends, differs.
    pub const NEW_SESSION: Self = Self(1);
    /// Routes of the peer are judged again: from what is retained, else after a ROUTE-REFRESH.
    pub const REFRESH_IN: Self = Self(1 << 1);
    /// What the peer is told is computed again; it hears the difference.
    pub const REEXPORT: Self = Self(1 << 2);
    /// The living session takes it over at once.
    pub const LIVE: Self = Self(1 << 3);
    /// Options of living sockets and of listeners change under the connection.
    pub const SOCKET: Self = Self(1 << 4);
    /// It is in force from the next session on; the present one stays as agreed.
    pub const NEXT_SESSION: Self = Self(1 << 5);

    /// Whether one of the costs of `costs` occurs.
    pub fn includes(self, costs: Self) -> bool {
        self.0 & costs.0 != 0
    }

    /// Whether no costs occur but those of `costs`.
    pub fn only(self, costs: Self) -> bool {
        self.0 & !costs.0 == 0
    }

    /// The costs of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn note(&mut self, cost: Self, differs: bool) {
        if differs {
            *self = self.and(cost);
        }
    }
}

impl PeerConfig {
    /// What it costs to go from `self` to `to`.
    pub fn change(&self, to: &Self) -> Change {
        // No `..`: who adds a field has to decide what its change costs.
        let Self {
            description,
            remote,
            local_address,
            peer_as,
            local_asn,
            activation,
            authentication,
            families,
            add_path,
            extended_next_hop,
            extended_messages,
            hold_time,
            keepalive_time,
            connect_retry,
            send_hold_time,
            passive,
            next_hop_mode,
            next_hop_v4,
            next_hop_v6,
            ttl,
            reachable_by,
            bfd,
            graceful_restart,
            restart_time,
            long_lived_stale_time,
            max_prefixes,
            allowed_local_as,
            as_override,
            private_as,
            role,
            role_strict,
            route_reflector_client,
            cluster_id,
            import,
            export,
            validate_origin,
            draining,
        } = self;
        let mut change = remote_change(remote, &to.remote)
            .and(activation_change(activation, &to.activation))
            .and(authentication_change(authentication, &to.authentication));
        let differences = [
            // Who is at the ends, and what was agreed in OPEN.
            (Change::NEW_SESSION, *local_address != to.local_address),
            (Change::NEW_SESSION, *peer_as != to.peer_as),
            (Change::NEW_SESSION, *local_asn != to.local_asn),
            (Change::NEW_SESSION, *families != to.families),
            (
                Change::NEW_SESSION,
                offered(add_path) != offered(&to.add_path),
            ),
            (
                Change::NEW_SESSION,
                *extended_next_hop != to.extended_next_hop,
            ),
            (
                Change::NEW_SESSION,
                *extended_messages != to.extended_messages,
            ),
            (
                Change::NEW_SESSION,
                *graceful_restart != to.graceful_restart,
            ),
            (Change::NEW_SESSION, *role != to.role),
            // Agreed in OPEN too, but not worth a session.
            (Change::NEXT_SESSION, *hold_time != to.hold_time),
            (Change::NEXT_SESSION, *restart_time != to.restart_time),
            (
                Change::NEXT_SESSION,
                *long_lived_stale_time != to.long_lived_stale_time,
            ),
            (Change::NEXT_SESSION, *role_strict != to.role_strict),
            (
                Change::NEXT_SESSION,
                self.waits_for_bfd() != to.waits_for_bfd(),
            ),
            // Ours alone.
            (Change::LIVE, *description != to.description),
            (Change::LIVE, *keepalive_time != to.keepalive_time),
            (Change::LIVE, *connect_retry != to.connect_retry),
            (Change::LIVE, *send_hold_time != to.send_hold_time),
            (Change::LIVE, *passive != to.passive),
            (Change::LIVE, *reachable_by != to.reachable_by),
            (Change::LIVE, *bfd != to.bfd),
            (Change::LIVE, *max_prefixes != to.max_prefixes),
            (Change::LIVE, *draining != to.draining),
            (Change::SOCKET, *ttl != to.ttl),
            (Change::REFRESH_IN, *import != to.import),
            (Change::REFRESH_IN, *validate_origin != to.validate_origin),
            (Change::REFRESH_IN, *allowed_local_as != to.allowed_local_as),
            (Change::REEXPORT, *export != to.export),
            (
                Change::REEXPORT,
                *add_path != to.add_path && offered(add_path) == offered(&to.add_path),
            ),
            (Change::REEXPORT, *next_hop_mode != to.next_hop_mode),
            (Change::REEXPORT, *next_hop_v4 != to.next_hop_v4),
            (Change::REEXPORT, *next_hop_v6 != to.next_hop_v6),
            (Change::REEXPORT, *as_override != to.as_override),
            (Change::REEXPORT, *private_as != to.private_as),
            // Its routes go elsewhere, and it hears of others.
            (
                Change::REFRESH_IN.and(Change::REEXPORT),
                *route_reflector_client != to.route_reflector_client,
            ),
            (
                Change::REFRESH_IN.and(Change::REEXPORT),
                *cluster_id != to.cluster_id,
            ),
        ];
        for (cost, differs) in differences {
            change.note(cost, differs);
        }
        change
    }

    /// Whether going from `self` to `to` needs a new session.
    pub fn needs_new_session(&self, to: &Self) -> bool {
        self.change(to).includes(Change::NEW_SESSION)
    }
}

/// What OPEN says of several paths to a prefix: whether there are any, not how many (RFC 7911 §4).
fn offered(add_path: &BTreeMap<Family, AddPath>) -> BTreeMap<Family, (bool, bool)> {
    let offers = add_path.iter().map(|(family, mode)| {
        let sends = mode.send != AddPathSend::None;
        (*family, (sends, mode.receive))
    });
    offers
        .filter(|(_, offer)| *offer != (false, false))
        .collect()
}

fn remote_change(from: &Endpoint, to: &Endpoint) -> Change {
    match (from, to) {
        _ if from == to => Change::NONE,
        // Sessions from prefixes that stay go on; the others end by themselves.
        (Endpoint::Range { .. }, Endpoint::Range { .. }) => Change::LIVE,
        _ => Change::NEW_SESSION,
    }
}

fn activation_change(from: &Activation, to: &Activation) -> Change {
    match (from, to) {
        _ if from == to => Change::NONE,
        (Activation::Run, _) | (_, Activation::Run) => Change::NEW_SESSION,
        // Down for another reason, or with another text for whoever asks.
        _ => Change::LIVE,
    }
}

fn authentication_change(from: &Auth, to: &Auth) -> Change {
    match (from, to) {
        (from, to) if from == to => Change::NONE,
        // What is under way fails its check and is sent again, until the peer has the new key too.
        (from, to) if from.changes_live(to) => Change::SOCKET,
        _ => Change::NEW_SESSION,
    }
}

impl SpeakerConfig {
    /// What it costs to go from `self` to `to`, for every session; peers themselves are not
    /// compared, see [`PeerConfig::change`].
    pub fn change(&self, to: &Self) -> Change {
        let Self {
            asn,
            router_id,
            cluster_id,
            listen,
            transit,
            maximum_paths,
            multipath_relax,
            graceful_restart,
            // Read at start only.
            restarting: _,
            peers: _,
            originate,
            protected,
            blocks,
            ignored_interfaces,
            bmp,
            mrt,
        } = self;
        let GracefulRestartConfig {
            restart_time,
            stale_time,
            selection_deferral,
            long_lived_stale_time,
        } = graceful_restart;
        let restart = &to.graceful_restart;
        let mut change = Change::NONE;
        let differences = [
            (Change::NEW_SESSION, *asn != to.asn),
            (Change::NEW_SESSION, *router_id != to.router_id),
            (Change::NEXT_SESSION, *restart_time != restart.restart_time),
            (
                Change::NEXT_SESSION,
                *long_lived_stale_time != restart.long_lived_stale_time,
            ),
            (Change::LIVE, *stale_time != restart.stale_time),
            (
                Change::LIVE,
                *selection_deferral != restart.selection_deferral,
            ),
            // Sessions that were accepted stay.
            (Change::LIVE, *listen != to.listen),
            (Change::LIVE, *maximum_paths != to.maximum_paths),
            (Change::LIVE, *multipath_relax != to.multipath_relax),
            (Change::LIVE, *originate != to.originate),
            (Change::LIVE, *bmp != to.bmp),
            (Change::LIVE, *mrt != to.mrt),
            (Change::REEXPORT, *transit != to.transit),
            // Sessions themselves look which addresses may be named when they come up.
            (
                Change::REEXPORT.and(Change::LIVE),
                *ignored_interfaces != to.ignored_interfaces,
            ),
            (Change::REFRESH_IN, *protected != to.protected),
            (Change::REFRESH_IN, *blocks != to.blocks),
            (
                Change::REFRESH_IN.and(Change::REEXPORT),
                *cluster_id != to.cluster_id,
            ),
        ];
        for (cost, differs) in differences {
            change.note(cost, differs);
        }
        change
    }
}

#[cfg(test)]
mod tests;

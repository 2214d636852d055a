//! What operators and limits do to a peer: start it, stop it, leave it alone for a while.

use std::time::Instant;

use super::Peer;
use crate::fsm::config::Config;
use crate::fsm::event::{Action, Admin, ConnId};
use crate::fsm::retention::final_word;
use crate::fsm::terms::Negotiated;
use crate::fsm::why::{DownWhy, IdleWhy};
use crate::types::Family;
use crate::wire::{Cease, Notification};

impl Peer {
    pub(super) fn admin(&mut self, now: Instant, wish: Admin, out: &mut Vec<Action>) {
        match wish {
            Admin::Up => {
                if self.idle.is_some() && !self.is_held() {
                    self.start(now, out);
                }
            }
            Admin::Down { text } => {
                let shutdown = Notification::cease(Cease::AdministrativeShutdown, &text);
                self.leave(
                    now,
                    IdleWhy::AdminDown { text },
                    &DownWhy::AdminDown,
                    &shutdown,
                    out,
                );
            }
            Admin::Deconfigure => {
                let gone = Notification::cease(Cease::PeerDeconfigured, "");
                let why = DownWhy::Deconfigured;
                self.leave(now, IdleWhy::Deconfigured, &why, &gone, out);
            }
            Admin::Restart => {
                self.stop(IdleWhy::Restarting, out);
                // RFC 4724 §4.2: a connection that ends without NOTIFICATION is one whose routes
                // the peer keeps, with or without the N bit.
                self.close_all(now, &DownWhy::LocalRestart, |_| None, out);
            }
            Admin::Clear { text } => {
                let reset = Notification::cease(Cease::AdministrativeReset, &text);
                let connected = !self.connections.is_empty();
                self.close_all(now, &DownWhy::AdminClear, |_| Some(reset.clone()), out);
                if self.idle.is_none() || self.is_held() {
                    self.start_again(now, connected, out);
                }
            }
        }
    }

    pub(super) fn configure(
        &mut self,
        now: Instant,
        config: Config,
        new_session: bool,
        out: &mut Vec<Action>,
    ) {
        let connected = !self.connections.is_empty();
        if new_session {
            let changed = Notification::cease(Cease::ConfigurationChange, "");
            let why = DownWhy::Reconfigured;
            self.close_all(now, &why, |_| Some(changed.clone()), out);
        }
        let another_chance = match self.idle {
            Some(IdleWhy::PrefixLimit { family, .. }) => {
                let limit = |config: &Config| config.prefix_limits[family.index()];
                new_session || limit(&config) != limit(&self.config)
            }
            _ => false,
        };
        self.backoff.set_longest(config.connect_retry);
        self.config = config;
        for connection in &mut self.connections {
            connection.repace(now, &self.config);
        }
        if new_session || self.config.passive {
            self.cancel_dial(out);
        }
        if new_session && self.idle.is_none() {
            self.start_again(now, connected, out);
        } else {
            self.ensure_dial(now, out);
        }
        if another_chance {
            self.start(now, out);
        }
        for (family, excess) in Family::ALL.into_iter().zip(self.early_excess) {
            if let Some((conn, limit)) = excess {
                self.prefix_limit_exceeded(now, conn, family, limit, out);
            }
        }
        self.early_excess = Default::default();
    }

    /// Ends the session that brought too many prefixes, and leaves the peer alone.
    pub(super) fn prefix_limit_exceeded(
        &mut self,
        now: Instant,
        conn: ConnId,
        family: Family,
        limit: u32,
        out: &mut Vec<Action>,
    ) {
        // The count may be one of a session that has ended meanwhile.
        if !self.find(conn).is_some_and(|found| found.is_established()) {
            return;
        }
        let configured = self.config.prefix_limits[family.index()];
        let Some(terms) = configured.filter(|terms| terms.limit == limit) else {
            self.early_excess[family.index()] = Some((conn, limit));
            return;
        };
        let until = terms.restart_after.map(|wait| now + wait);
        let idle = IdleWhy::PrefixLimit {
            family,
            limit,
            until,
        };
        // RFC 4486 §4. The peer is not to come back soon, so it has no use for our routes.
        let too_many = Notification::prefix_limit(family.into(), limit);
        let why = DownWhy::PrefixLimit { family, limit };
        self.leave(now, idle, &why, &too_many, out);
    }

    /// Ends whatever there is with the peer, so that neither side keeps routes of the other.
    fn leave(
        &mut self,
        now: Instant,
        idle: IdleWhy,
        why: &DownWhy,
        word: &Notification,
        out: &mut Vec<Action>,
    ) {
        let sessionless = self.negotiated().is_none();
        self.stop(idle, out);
        let word = |terms: Option<&Negotiated>| Some(final_word(word, terms));
        self.close_all(now, why, word, out);
        if sessionless {
            // Of an earlier session; nobody will refresh them.
            out.push(Action::DropRetained);
        }
    }

    /// Whether the peer is left alone because it sent more prefixes than it may.
    fn is_held(&self) -> bool {
        matches!(self.idle, Some(IdleWhy::PrefixLimit { .. }))
    }

    /// When a peer that is left alone gets another chance.
    pub(super) fn held_until(&self) -> Option<Instant> {
        match self.idle {
            Some(IdleWhy::PrefixLimit { until, .. }) => until,
            _ => None,
        }
    }

    /// Runs the peer from the beginning; where it was `connected` until now, not before it has had a moment
    /// to read why it is not any more: to a peer that is still busy with the old connection the new one is a
    /// collision.
    fn start_again(&mut self, now: Instant, connected: bool, out: &mut Vec<Action>) {
        if !connected {
            return self.start(now, out);
        }
        self.cancel_dial(out);
        self.backoff.reset();
        self.ensure_dial(now, out);
    }

    /// Runs the peer from the beginning.
    pub(super) fn start(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.idle = None;
        self.backoff.reset();
        self.dial_now(now, out);
    }

    fn stop(&mut self, why: IdleWhy, out: &mut Vec<Action>) {
        self.idle = Some(why);
        self.cancel_dial(out);
    }
}

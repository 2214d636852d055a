//! What the thread that owns a RIB does in the program: takes events from its queue, gives writers routes, and
//! talks to the FIB.

use std::time::Instant;

use caracal_bgp_core::fsm::Event;
use caracal_bgp_core::rib::{Action as RibAction, Event as RibEvent, FibAnswer, Rib};

use crate::fabric::index;
use crate::speaker::Up;
use crate::world::{Job, WireId, World};

impl World {
    /// Hands a RIB an event. UPDATEs join those of the same session that wait, as those of one read do.
    pub(crate) fn ask(&mut self, router: usize, event: RibEvent) {
        let speaker = &mut self.speakers[router];
        if speaker.rib.is_none() {
            return;
        }
        let event = match (speaker.inputs.back_mut(), event) {
            (
                Some(RibEvent::Updates { peer, updates }),
                RibEvent::Updates {
                    peer: next,
                    updates: more,
                },
            ) if *peer == next => return updates.extend(more),
            (_, event) => event,
        };
        speaker.inputs.push_back(event);
        self.rouse(router);
    }

    /// The RIB's thread gets to work in a while.
    pub(crate) fn rouse(&mut self, router: usize) {
        let thinks = self
            .random
            .micros(self.fabric.routers[router].program.thinks);
        self.rouse_at(router, self.now + thinks);
    }

    fn rouse_at(&mut self, router: usize, at: Instant) {
        let speaker = &mut self.speakers[router];
        if speaker.due.is_none_or(|due| at < due) {
            speaker.due = Some(at);
            let life = speaker.life;
            self.enqueue(at, Job::Rib(router, life));
        }
    }

    /// The RIB's thread: a burst of events, then peers.
    pub(crate) fn work(&mut self, router: usize, life: u64) {
        let now = self.now;
        let speaker = &mut self.speakers[router];
        if speaker.life != life || speaker.due.is_none_or(|due| due > now) {
            return;
        }
        speaker.due = None;
        if speaker.busy > now {
            let busy = speaker.busy;
            return self.rouse_at(router, busy);
        }
        let Some(rib) = &mut speaker.rib else {
            return;
        };
        let mut actions = Vec::new();
        let burst = self.fabric.routers[router].program.burst;
        for _ in 0..burst {
            let Some(event) = speaker.inputs.pop_front() else {
                break;
            };
            rib.handle(now, event, &mut actions);
        }
        if rib.poll_timeout().is_some_and(|at| at <= now) {
            rib.handle_timeout(now, &mut actions);
        }
        self.rib_acts(router, actions);
        self.serve(router);
        let speaker = &self.speakers[router];
        if !speaker.inputs.is_empty() || !speaker.ready.is_empty() {
            self.rouse(router);
        } else if let Some(at) = speaker.rib.as_ref().and_then(Rib::poll_timeout) {
            self.rouse_at(router, at.max(now));
        }
        // There is room again for what peers say.
        for side in self.fabric.sides(router) {
            let conns = self
                .living(side)
                .map(|it| it.conns.values().copied().collect());
            let conns: Vec<WireId> = conns.unwrap_or_default();
            conns.into_iter().for_each(|wire| self.read(wire, side.1));
        }
    }

    fn serve(&mut self, router: usize) {
        let budget = self.fabric.routers[router].program.pull_budget;
        for _ in 0..self.speakers[router].ready.len() {
            let speaker = &mut self.speakers[router];
            let Some(id) = speaker.ready.pop_front() else {
                return;
            };
            let mut sessions = speaker.sessions.iter();
            let found = sessions.find_map(|(side, session)| {
                let up = session.up.as_ref().filter(|up| up.id == id)?;
                Some((*side, *session.conns.get(&up.conn)?))
            });
            let Some((side, wire)) = found else {
                continue;
            };
            let Some(end) = self.wires.get_mut(&wire).map(|wire| &mut wire.ends[side.1]) else {
                continue;
            };
            // One that has not taken the last asks again when it has.
            if end.routes.is_none()
                && let Some(rib) = &mut speaker.rib
                && let Some(octets) = rib.pull(self.now, id, budget)
            {
                end.routes = Some(octets);
                self.stirred = self.now;
                self.write(wire, side.1);
            }
        }
    }

    pub(crate) fn rib_acts(&mut self, router: usize, actions: Vec<RibAction>) {
        for action in actions {
            match action {
                RibAction::Fib {
                    prefix,
                    forward,
                    seq,
                } => {
                    let program = &self.fabric.routers[router];
                    let refused = forward.is_some() && program.refused.contains(&prefix);
                    let at = self.now + self.random.micros(program.program.installs);
                    let failed = refused.then(|| "no room".to_owned());
                    let answer = FibAnswer {
                        prefix,
                        seq,
                        failed,
                    };
                    let speaker = &mut self.speakers[router];
                    speaker.answers.push((at, answer));
                    let life = speaker.life;
                    self.enqueue(at, Job::Kernel(router, life));
                }
                // Nobody follows these tables.
                RibAction::FibComplete | RibAction::Changed(_) | RibAction::Track { .. } => {}
                RibAction::RestartComplete => {
                    self.speakers[router].restarting = false;
                    for side in self.fabric.sides(router) {
                        self.tell(side, Event::RestartComplete);
                    }
                }
                RibAction::EgressReady { peer } => {
                    self.speakers[router].ready.push_back(peer);
                    self.rouse(router);
                }
                RibAction::PrefixLimit {
                    peer,
                    family,
                    count: _,
                    limits,
                    exceeded,
                } => {
                    let sides = self.fabric.sides(router);
                    let side = sides.into_iter().find(|side| index(*side) == peer.index);
                    let Some(side) = side.filter(|_| exceeded) else {
                        continue;
                    };
                    let up = self.living(side).and_then(|session| session.up.clone());
                    if let Some(Up { conn, .. }) = up.filter(|up| up.id == peer) {
                        let event = Event::PrefixLimitExceeded {
                            conn,
                            family,
                            limit: limits.limit,
                        };
                        self.tell(side, event);
                    }
                }
            }
        }
    }

    /// The kernel has done, or not done, what is due by now.
    pub(crate) fn answers(&mut self, router: usize, life: u64) {
        let now = self.now;
        let speaker = &mut self.speakers[router];
        if speaker.life != life {
            return;
        }
        let (due, later) = speaker.answers.drain(..).partition(|(at, _)| *at <= now);
        let due: Vec<(Instant, FibAnswer)> = due;
        speaker.answers = later;
        if !due.is_empty() {
            let answers = due.into_iter().map(|(_, answer)| answer).collect();
            self.ask(router, RibEvent::Answered(answers));
        }
    }
}

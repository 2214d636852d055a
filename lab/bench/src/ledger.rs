//! What receivers hold, compared with what they are to hold, prefix by prefix, as it comes in.
//!
//! Owns the proof of exactness. Every receiver has a path for every prefix of the case; the number of prefixes
//! where it differs from the expected one is kept up to date with each prefix that arrives, so that the end of
//! a case is known at the octet that brings it. Withdrawals, replacements and repetitions count as what they
//! are. Does not own sessions ([`crate::engine`]).

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use crate::digest::{Catalogue, Terms};
use crate::routes::{PathId, Routes};
use crate::wire::{Malformed, Nlri, update};

/// A table that any number of receivers are to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableId(usize);

/// A receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewId(usize);

/// What a receiver was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// UPDATE messages.
    pub updates: u64,
    /// Prefixes announced, repetitions included.
    pub announced: u64,
    /// Prefixes withdrawn.
    pub withdrawn: u64,
    /// Octets of UPDATEs, headers included.
    pub octets: u64,
}

/// All receivers of a case.
#[derive(Debug)]
pub struct Ledger {
    routes: Arc<Routes>,
    catalogue: Catalogue,
    tables: Vec<Vec<PathId>>,
    views: Vec<View>,
    /// Receivers that count and are not exact.
    inexact: usize,
    exact_since: Option<Instant>,
    fault: Option<String>,
}

#[derive(Debug)]
struct View {
    /// Its number among the senders, where it is one: it does not keep its own routes.
    sender: Option<u32>,
    table: TableId,
    held: Vec<PathId>,
    /// The prefix that it was told of last.
    last: u32,
    /// Prefixes for which it holds something else than it should.
    wrong: usize,
    /// Whether the case waits for it.
    counts: bool,
    received: Received,
}

impl Ledger {
    /// A ledger without receivers.
    pub fn new(routes: Arc<Routes>, catalogue: Catalogue) -> Self {
        Self {
            routes,
            catalogue,
            tables: Vec::new(),
            views: Vec::new(),
            inexact: 0,
            exact_since: Some(Instant::now()),
            fault: None,
        }
    }

    /// A ledger for sessions whose UPDATEs nobody looks at.
    pub fn blind() -> Self {
        let (routes, _) = Routes::draw(0, 1.0, 0);
        let terms = Terms::Reflector;
        let catalogue = Catalogue::new(&routes, terms, Ipv4Addr::UNSPECIFIED, Vec::new());
        Self::new(Arc::new(routes), catalogue)
    }

    /// A table in which there is nothing yet.
    pub fn add_table(&mut self) -> TableId {
        self.tables
            .push(vec![PathId::NONE; self.routes.prefixes.len()]);
        TableId(self.tables.len() - 1)
    }

    /// A receiver that is to hold `table`, without what it sends itself when it is the sender of that number.
    pub fn add_view(&mut self, table: TableId, sender: Option<u32>) -> ViewId {
        let held = vec![PathId::NONE; self.routes.prefixes.len()];
        self.views.push(View {
            sender,
            table,
            held,
            last: 0,
            wrong: 0,
            counts: true,
            received: Received::default(),
        });
        let id = ViewId(self.views.len() - 1);
        self.recount(id);
        id
    }

    /// Sets what the receivers of `table` are to hold.
    pub fn expect(&mut self, table: TableId, paths: Vec<PathId>) {
        assert_eq!(paths.len(), self.routes.prefixes.len());
        self.tables[table.0] = paths;
        for place in 0..self.views.len() {
            if self.views[place].table == table {
                self.recount(ViewId(place));
            }
        }
    }

    /// Changes what they are to hold for some prefixes.
    pub fn expect_change(&mut self, table: TableId, changes: &[(u32, PathId)]) {
        for (number, path) in changes {
            let place = *number as usize;
            let before = std::mem::replace(&mut self.tables[table.0][place], *path);
            for number in 0..self.views.len() {
                let view = &self.views[number];
                if view.table != table {
                    continue;
                }
                let was = view.held[place] != wanted(&self.catalogue, view.sender, before);
                let is = view.held[place] != wanted(&self.catalogue, view.sender, *path);
                self.adjust(number, was, is);
            }
        }
    }

    /// Whether the case waits for this receiver.
    pub fn count(&mut self, view: ViewId, counts: bool) {
        let before = self.open(view.0);
        self.views[view.0].counts = counts;
        self.settle(before, self.open(view.0));
    }

    /// Forgets what a receiver holds, as it does when its session ends.
    pub fn clear(&mut self, view: ViewId) {
        self.views[view.0].held.fill(PathId::NONE);
        self.recount(view);
    }

    /// Takes in the body of an UPDATE that `view` was sent.
    ///
    /// # Errors
    /// It cannot be read, or names a prefix that no sender has.
    pub fn update(&mut self, view: ViewId, body: &[u8]) -> Result<(), Malformed> {
        let parts = update(body)?;
        let received = &mut self.views[view.0].received;
        received.updates += 1;
        received.octets += (body.len() + crate::wire::HEADER) as u64;
        if !parts.withdrawn.is_empty() {
            let count = self.set(view, parts.withdrawn, PathId::NONE)?;
            self.views[view.0].received.withdrawn += count;
        }
        if !parts.announced.is_empty() {
            let mut path = self.catalogue.resolve(parts.attributes);
            let sender = self.views[view.0].sender;
            // A speaker drops what it sent itself: its AS is in the path (RFC 4271 §9), or it is the originator
            // (RFC 4456 §8). A daemon may send it or not.
            if sender.is_some() && self.catalogue.sender(path) == sender {
                path = PathId::NONE;
            }
            let count = self.set(view, parts.announced, path)?;
            self.views[view.0].received.announced += count;
        } else if let Some(code) = multiprotocol(parts.attributes) {
            self.fault.get_or_insert_with(|| {
                format!("a receiver was sent attribute {code} without having asked for its family")
            });
        }
        Ok(())
    }

    fn set(&mut self, view: ViewId, run: &[u8], path: PathId) -> Result<u64, Malformed> {
        let Self {
            routes,
            catalogue,
            tables,
            views,
            ..
        } = self;
        let held_by = &mut views[view.0];
        let before = held_by.wrong;
        let table = &tables[held_by.table.0];
        let mut count = 0;
        let mut last = held_by.last;
        for prefix in Nlri(run) {
            let prefix = prefix?;
            // Most daemons keep the order of the sender, or turn it round; a guess saves the look-up.
            let guess = |number: u32| {
                let found = routes.prefixes.get(number as usize) == Some(&prefix);
                found.then_some(number)
            };
            let number = guess(last.wrapping_add(1))
                .or_else(|| guess(last.wrapping_sub(1)))
                .or_else(|| routes.index.get(prefix));
            let Some(number) = number else {
                self.fault
                    .get_or_insert_with(|| format!("{prefix} was never sent"));
                return Err(Malformed("a prefix was never sent"));
            };
            last = number;
            let place = number as usize;
            let wanted = wanted(catalogue, held_by.sender, table[place]);
            let held = &mut held_by.held[place];
            held_by.wrong -= usize::from(*held != wanted);
            held_by.wrong += usize::from(path != wanted);
            *held = path;
            count += 1;
        }
        held_by.last = last;
        let after = held_by.wrong;
        if held_by.counts {
            self.settle(before > 0, after > 0);
        }
        Ok(count)
    }

    /// Whether every receiver that counts holds exactly its table.
    pub fn exact(&self) -> bool {
        self.inexact == 0
    }

    /// Since when that is so.
    pub fn exact_since(&self) -> Option<Instant> {
        self.exact_since
    }

    /// Whether one receiver holds exactly its table.
    pub fn view_exact(&self, view: ViewId) -> bool {
        self.views[view.0].wrong == 0
    }

    /// What all receivers were sent, added up.
    pub fn received(&self) -> Received {
        let mut sum = Received::default();
        for view in &self.views {
            sum.updates += view.received.updates;
            sum.announced += view.received.announced;
            sum.withdrawn += view.received.withdrawn;
            sum.octets += view.received.octets;
        }
        sum
    }

    /// What is missing to the end, in words.
    pub fn state(&self) -> String {
        let waited: Vec<&View> = self.views.iter().filter(|view| view.counts).collect();
        let exact = waited.iter().filter(|view| view.wrong == 0).count();
        let mut text = format!("{exact} of {} receivers exact", waited.len());
        if let Some(worst) = waited.iter().max_by_key(|view| view.wrong)
            && worst.wrong > 0
        {
            let table = &self.tables[worst.table.0];
            let (mut absent, mut stale, mut other, mut foreign) = (0_usize, 0_usize, 0_usize, 0);
            for (held, path) in worst.held.iter().zip(table) {
                let wanted = wanted(&self.catalogue, worst.sender, *path);
                match (*held, wanted) {
                    (held, wanted) if held == wanted => {}
                    (PathId::NONE, _) => absent += 1,
                    (_, PathId::NONE) => stale += 1,
                    (PathId::FOREIGN, _) => foreign += 1,
                    _ => other += 1,
                }
            }
            text += &format!(
                "; the worst lacks {absent} prefixes, has {stale} too many, {other} with the attributes \
                 of another path, {foreign} with attributes that nobody sent"
            );
        }
        if let Some(foreign) = self.catalogue.foreign() {
            text += &format!(" ({foreign})");
        }
        if let Some(fault) = &self.fault {
            text += &format!("; {fault}");
        }
        text
    }

    /// Something that a right daemon does not do, whatever the time.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    fn recount(&mut self, view: ViewId) {
        let before = self.open(view.0);
        let catalogue = &self.catalogue;
        let held_by = &mut self.views[view.0];
        let table = &self.tables[held_by.table.0];
        let wrong =
            |(held, path): &(&PathId, &PathId)| **held != wanted(catalogue, held_by.sender, **path);
        held_by.wrong = held_by.held.iter().zip(table).filter(wrong).count();
        self.settle(before, self.open(view.0));
    }

    /// One prefix of a receiver became right or wrong by a change of what it should hold.
    fn adjust(&mut self, view: usize, was_wrong: bool, is_wrong: bool) {
        let before = self.open(view);
        let wrong = &mut self.views[view].wrong;
        *wrong -= usize::from(was_wrong);
        *wrong += usize::from(is_wrong);
        self.settle(before, self.open(view));
    }

    fn open(&self, view: usize) -> bool {
        self.views[view].counts && self.views[view].wrong > 0
    }

    fn settle(&mut self, was_open: bool, is_open: bool) {
        self.inexact -= usize::from(was_open);
        self.inexact += usize::from(is_open);
        if self.inexact > 0 {
            self.exact_since = None;
        } else if self.exact_since.is_none() {
            self.exact_since = Some(Instant::now());
        }
    }
}

/// What a receiver keeps of a path that it is told: not its own.
#[inline]
fn wanted(catalogue: &Catalogue, sender: Option<u32>, path: PathId) -> PathId {
    if sender.is_some() && catalogue.sender(path) == sender {
        PathId::NONE
    } else {
        path
    }
}

/// The code of MP_REACH_NLRI or MP_UNREACH_NLRI, when it stands first: that is all there is in an UPDATE of
/// another family.
fn multiprotocol(attributes: &[u8]) -> Option<u8> {
    match attributes {
        [_, code @ (14 | 15), ..] => Some(*code),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

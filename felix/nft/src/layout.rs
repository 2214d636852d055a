//! The node's policy table: a [`Plan`] in one inet table, and kept there.
//!
//! Owns the table: what is in it, when it is read, when it is written, who may write it. Does not own
//! the plan, nor the task that calls it; calls block for as long as the kernel works, which is below a
//! millisecond for a delta.

mod class;
mod guard;
mod names;
mod render;
mod rules;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use caracal_policy::plan::{ClassId, IdentityId, Plan, PlanDelta};
use tracing::{debug, info, warn};

pub use guard::{Guard, Repair};

use crate::batch::{Batch, Op};
use crate::connection::Connection;
use crate::error::{Error, Failure};
use crate::model::{Change, Model};
use crate::monitor::Monitor;
use crate::object::{Ownership, Table, TableInfo};

/// What a [`Dataplane`] is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Name of the table.
    pub table: String,
    /// Own the table, so that no other program can change it, where the kernel can keep an owned
    /// table beyond the owner's life (6.9). Otherwise it is a plain table to be watched with [`Guard`].
    pub owner: bool,
    /// What the names of pod interfaces begin with; no other interface is judged. 1 to 15 bytes.
    pub interface_prefix: String,
}

/// How often a synchronisation that the kernel refuses is made again from a fresh read.
const SYNC_ATTEMPTS: u32 = 3;

/// What a call wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Operations in the transaction; 0 means that none was sent.
    pub writes: usize,
    /// Set elements added and removed by them.
    pub elements: usize,
    /// The table was made anew in the same transaction.
    pub rebuilt: bool,
}

/// Packets dropped since the table was made, other than by a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherDrops {
    /// From an address that the pod does not own.
    pub spoofed: u64,
    /// To or from an interface with the prefix that no endpoint has.
    pub unknown_interface: u64,
    /// To or from an endpoint whose labels are not known.
    pub isolated: u64,
    /// In no state that conntrack accepts.
    pub invalid: u64,
    /// TCP packets of connections that conntrack does not know, answered by a reset.
    pub midstream: u64,
}

/// The policy table of this network namespace.
pub struct Dataplane {
    connection: Connection,
    options: Options,
    ownership: Ownership,
    plan: Plan,
    /// What the kernel has as far as we know; `None` before the first read and after a refusal.
    model: Option<Model>,
    /// The table is ours by the kernel's notes, or is meant for everybody.
    adopted: bool,
    /// Identities that the table had when it was opened.
    inherited: BTreeMap<IpAddr, IdentityId>,
}

impl Dataplane {
    /// Opens the netlink socket in the network namespace of the calling thread. Reads but does not
    /// write.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`] or [`Error::Query`] where there is no nf_tables; [`Error::Owned`] if
    /// another live process owns the table; [`Error::Plan`] if the prefix cannot be one.
    pub fn open(options: Options) -> Result<Self, Error> {
        if options.interface_prefix.is_empty() || options.interface_prefix.len() > 15 {
            return Err(Error::Plan {
                why: format!("{:?} is no interface prefix", options.interface_prefix),
            });
        }
        let connection = Connection::open()?;
        let ownership = if options.owner {
            Ownership::Exclusive
        } else {
            Ownership::Shared
        };
        let mut dataplane = Self {
            connection,
            options,
            ownership,
            plan: Plan::default(),
            model: None,
            adopted: false,
            inherited: BTreeMap::new(),
        };
        let table = &dataplane.options.table;
        let tables = dataplane.connection.tables()?;
        if let Some(info) = tables.iter().find(|info| info.name == *table) {
            dataplane.check_owner(info)?;
            dataplane.inherited = dataplane.read_identities().unwrap_or_else(|error| {
                // Numbers are only labels: without them the first synchronisation writes more.
                warn!(table = info.name, %error, "cannot read the identities of an earlier process");
                BTreeMap::new()
            });
        }
        Ok(dataplane)
    }

    /// The identity of each address as an earlier process left it in the table, read by
    /// [`Self::open`]; empty where there was no table. For
    /// [`PolicyIndex::seed_ids`](caracal_policy::index::PolicyIndex::seed_ids).
    #[must_use]
    pub fn inherited_identities(&self) -> &BTreeMap<IpAddr, IdentityId> {
        &self.inherited
    }

    /// Whether the table is, or with the first write becomes, ours alone.
    #[must_use]
    pub fn exclusive(&self) -> bool {
        self.ownership == Ownership::Exclusive
    }

    /// Makes the table say `plan`: reads all of it and writes the difference in one transaction. If
    /// nothing differs nothing is written, and the ruleset's generation stays. A table that an earlier
    /// process left is then taken over with the next write only, or by [`Self::claim`], as that is a
    /// write too.
    ///
    /// # Errors
    ///
    /// Any; the kernel keeps what it had.
    pub fn sync(&mut self, plan: &Plan) -> Result<Stats, Error> {
        for _ in 1..SYNC_ATTEMPTS {
            match self.try_sync(plan) {
                Err(Error::Transaction { failures, .. }) if self.cannot_own(&failures) => {
                    warn!(
                        table = self.options.table,
                        "this kernel cannot keep an owned table (it takes Linux 6.9): the table is shared"
                    );
                    self.ownership = Ownership::Shared;
                }
                // Somebody else was faster between our read and our write.
                Err(error @ Error::Transaction { .. }) => {
                    debug!(%error, "a synchronisation was refused; reading the table again");
                }
                other => return other,
            }
        }
        self.try_sync(plan)
    }

    /// Takes over a table that an earlier process left, if [`Self::sync`] had no reason to write and so
    /// did not. True if there was something to do. One transaction that changes nothing but the owner;
    /// until then others can still delete the table, so either this or a [`Guard`] is needed.
    ///
    /// # Errors
    ///
    /// [`Error::Transaction`] if somebody else took it meanwhile.
    pub fn claim(&mut self) -> Result<bool, Error> {
        if self.adopted || self.model.is_none() {
            return Ok(false);
        }
        let table = self.table();
        self.commit(vec![table]).map(|_| true)
    }

    fn try_sync(&mut self, plan: &Plan) -> Result<Stats, Error> {
        let desired = render::render(plan, &self.options.interface_prefix)?;
        self.check(&Model::default(), &desired)?;
        let table = self.options.table.clone();
        let (operations, rebuilt) = match self.connection.read_table(&table)? {
            None => (self.create(&desired), false),
            Some((info, actual)) => {
                self.check_owner(&info)?;
                self.adopted = match self.ownership {
                    Ownership::Exclusive => info.owner == Some(self.connection.port()),
                    Ownership::Shared => true,
                };
                // The kernel does not let a plain table become persistent, so that is a new table.
                let convert = self.ownership == Ownership::Exclusive && !info.persistent;
                match actual.change(&actual.patch_to(desired.clone())) {
                    Change::Operations(operations) if !convert => {
                        (self.with_adoption(operations), false)
                    }
                    _ => {
                        let mut operations = vec![Op::DeleteTable];
                        operations.extend(self.create(&desired));
                        (operations, true)
                    }
                }
            }
        };
        self.model = None;
        let stats = Stats {
            rebuilt,
            ..self.commit(operations)?
        };
        self.plan = plan.clone();
        self.model = Some(desired);
        if stats.writes > 0 {
            info!(
                table,
                writes = stats.writes,
                elements = stats.elements,
                rebuilt,
                "policy table written"
            );
        }
        Ok(stats)
    }

    /// Carries `delta` out in one transaction: new classes are built, endpoints pointed at them, and
    /// old classes removed in the same instant for every packet. If the kernel's table is not what we
    /// left (a transaction was refused), it is read again and synchronised whole.
    ///
    /// # Errors
    ///
    /// Any; the kernel keeps what it had, and the caller may try again or call [`Self::sync`].
    pub fn apply(&mut self, delta: &PlanDelta) -> Result<Stats, Error> {
        if delta.is_empty() && self.model.is_some() {
            return Ok(Stats::default());
        }
        let Some(model) = &self.model else {
            return self.sync(&self.changed_plan(delta));
        };
        let patch = render::patch(&self.plan, delta, &self.options.interface_prefix)?;
        model.check(&patch).map_err(|why| Error::Plan { why })?;
        let Change::Operations(operations) = model.change(&patch) else {
            return self.sync(&self.changed_plan(delta));
        };
        let operations = self.with_adoption(operations);
        match self.commit(operations) {
            Ok(stats) => {
                if let Some(model) = &mut self.model {
                    model.apply(patch);
                }
                self.plan.apply(delta);
                Ok(stats)
            }
            Err(error @ Error::Transaction { .. }) => {
                debug!(%error, "a delta was refused; reading the table again");
                self.sync(&self.changed_plan(delta))
            }
            Err(error) => {
                self.model = None;
                Err(error)
            }
        }
    }

    /// Reads the table and writes what somebody else changed in it. Does nothing before the first
    /// [`Self::sync`].
    ///
    /// # Errors
    ///
    /// As [`Self::sync`].
    pub fn repair(&mut self) -> Result<Stats, Error> {
        if self.model.is_none() && self.plan == Plan::default() {
            return Ok(Stats::default());
        }
        self.sync(&self.plan.clone())
    }

    /// The plan that is in force.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Packets that each class dropped since it was first written.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] or [`Error::Socket`].
    pub fn drop_counters(&mut self) -> Result<BTreeMap<ClassId, u64>, Error> {
        let counters = self.connection.counters(&self.options.table)?;
        Ok(counters
            .into_iter()
            .filter_map(|value| {
                Some((names::class_of_counter(&value.counter.name)?, value.packets))
            })
            .collect())
    }

    /// Packets dropped for other reasons than a class.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] or [`Error::Socket`].
    pub fn other_drops(&mut self) -> Result<OtherDrops, Error> {
        let mut drops = OtherDrops::default();
        for value in self.connection.counters(&self.options.table)? {
            let field = match value.counter.name.as_str() {
                names::DROP_SPOOFED => &mut drops.spoofed,
                names::DROP_UNKNOWN => &mut drops.unknown_interface,
                names::DROP_ISOLATED => &mut drops.isolated,
                names::DROP_INVALID => &mut drops.invalid,
                names::DROP_MIDSTREAM => &mut drops.midstream,
                _ => continue,
            };
            *field = value.packets;
        }
        Ok(drops)
    }

    /// The ruleset's generation, see [`Connection::generation`].
    ///
    /// # Errors
    ///
    /// [`Error::Query`] or [`Error::Socket`].
    pub fn generation(&mut self) -> Result<u32, Error> {
        self.connection.generation()
    }

    /// A monitor of the table that leaves out what this dataplane does. To be opened before the first
    /// [`Self::sync`], so that no change falls between the two.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`].
    pub fn monitor(&self) -> Result<Monitor, Error> {
        Monitor::open(self.options.table.clone(), self.connection.port())
    }

    /// Deletes the table: nothing is judged any more.
    ///
    /// # Errors
    ///
    /// [`Error::Transaction`] if it is not there.
    pub fn remove(mut self) -> Result<(), Error> {
        self.commit(vec![Op::DeleteTable]).map(|_| ())
    }

    fn read_identities(&mut self) -> Result<BTreeMap<IpAddr, IdentityId>, Error> {
        let table = &self.options.table;
        let mut identities = BTreeMap::new();
        for set in self.connection.sets(table)? {
            if matches!(set.name.as_str(), names::ID4 | names::ID6) {
                let elements = self.connection.elements(table, &set)?;
                identities.extend(elements.iter().filter_map(render::identity));
            }
        }
        Ok(identities)
    }

    fn changed_plan(&self, delta: &PlanDelta) -> Plan {
        let mut plan = self.plan.clone();
        plan.apply(delta);
        plan
    }

    fn check(&self, actual: &Model, desired: &Model) -> Result<(), Error> {
        actual
            .check(&actual.patch_to(desired.clone()))
            .map_err(|why| Error::Plan { why })
    }

    /// Whether a transaction failed because the kernel does not know the flags of an owned table.
    fn cannot_own(&self, failures: &[Failure]) -> bool {
        let unknown_flag = |error: &io::Error| {
            matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
        };
        let table = self.table().to_string();
        self.ownership == Ownership::Exclusive
            && failures
                .iter()
                .any(|failure| failure.operation == table && unknown_flag(&failure.error))
    }

    fn check_owner(&self, info: &TableInfo) -> Result<(), Error> {
        match info.owner {
            Some(port) if port != self.connection.port() => Err(Error::Owned {
                table: info.name.clone(),
                port,
            }),
            _ => Ok(()),
        }
    }

    fn table(&self) -> Op {
        Op::AddTable(Table {
            name: self.options.table.clone(),
            ownership: self.ownership,
        })
    }

    fn create(&self, desired: &Model) -> Vec<Op> {
        let mut operations = vec![self.table()];
        operations.extend(desired.build());
        operations
    }

    fn with_adoption(&self, mut operations: Vec<Op>) -> Vec<Op> {
        if !operations.is_empty() && !self.adopted {
            operations.insert(0, self.table());
        }
        operations
    }

    fn commit(&mut self, operations: Vec<Op>) -> Result<Stats, Error> {
        let elements = operations.iter().map(|operation| match operation {
            Op::AddElements { elements, .. } | Op::DeleteElements { elements, .. } => {
                elements.len()
            }
            _ => 0,
        });
        let stats = Stats {
            writes: operations.len(),
            elements: elements.sum(),
            rebuilt: false,
        };
        let mut batch = Batch::new(self.options.table.clone());
        for operation in operations {
            batch.push(operation);
        }
        self.connection.commit(&batch)?;
        if stats.writes > 0 {
            self.adopted = true;
        }
        Ok(stats)
    }
}

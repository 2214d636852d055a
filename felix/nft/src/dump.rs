//! Reads back what the kernel has.
//!
//! Owns the queries and the joining of their answers to a consistent picture. Does not own decoding
//! of the objects.

use std::collections::BTreeMap;

use crate::batch::{
    MSG_GETCHAIN, MSG_GETGEN, MSG_GETOBJ, MSG_GETRULE, MSG_GETSET, MSG_GETSETELEM, MSG_GETTABLE,
    SUBSYSTEM_NFTABLES,
};
use crate::connection::Connection;
use crate::error::Error;
use crate::expr::Rule;
use crate::model::{ChainState, Model, SetState};
use crate::object::{Chain, CounterValue, TableInfo};
use crate::set::{ElementReader, Elements, Set, element_list, write_set_name};
use crate::wire::{Attributes, FAMILY_INET, Writer};

/// Attribute 1 names the table in every nf_tables message.
pub(crate) const ANY_TABLE: u16 = 1;
const GENERATION_ID: u16 = 1;
/// How often a table that changes while it is read is read again.
const ATTEMPTS: u32 = 16;

impl Connection {
    /// The ruleset's generation: one more after each transaction on any table of the namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] or [`Error::Socket`].
    pub fn generation(&mut self) -> Result<u32, Error> {
        let mut generation = None;
        self.query(
            "read the generation of the ruleset",
            message(MSG_GETGEN),
            0,
            false,
            &|_| {},
            &mut |answer| {
                if let Some(answer) = answer {
                    generation = answer.netfilter()?.1.u32(GENERATION_ID);
                }
                Ok(())
            },
        )?;
        generation.ok_or(Error::Malformed { what: "generation" })
    }

    /// Every inet table.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] or [`Error::Socket`].
    pub fn tables(&mut self) -> Result<Vec<TableInfo>, Error> {
        self.dump("read the tables", MSG_GETTABLE, &|_| {}, TableInfo::read)
    }

    /// The chains of a table.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] or [`Error::Socket`].
    pub fn chains(&mut self, table: &str) -> Result<Vec<Chain>, Error> {
        self.dump_of(table, "chains", MSG_GETCHAIN, Chain::read)
    }

    /// The rules of a table by chain, in order.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] or [`Error::Socket`].
    pub fn rules(&mut self, table: &str) -> Result<BTreeMap<String, Vec<Rule>>, Error> {
        let mut rules: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
        for (chain, rule) in self.dump_of(table, "rules", MSG_GETRULE, Rule::read)? {
            rules.entry(chain).or_default().push(rule);
        }
        Ok(rules)
    }

    /// The named sets and maps of a table, without their elements.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] or [`Error::Socket`].
    pub fn sets(&mut self, table: &str) -> Result<Vec<Set>, Error> {
        let sets = self.dump_of(table, "sets", MSG_GETSET, Set::read)?;
        Ok(sets.into_iter().flatten().collect())
    }

    /// The elements of a set.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] or [`Error::Socket`].
    pub fn elements(&mut self, table: &str, set: &Set) -> Result<Elements, Error> {
        let (mut elements, mut parts) = self.elements_once(table, set)?;
        // The kernel resumes a dump of several parts by the number of elements it has given. A hash
        // table that it grows meanwhile (by itself, after many were added) changes their order, so some
        // are missed, and no flag tells. Two equal reads in a row are taken for the truth.
        for _ in 0..ATTEMPTS {
            if parts < 2 {
                break;
            }
            let (again, parts_again) = self.elements_once(table, set)?;
            if again == elements {
                break;
            }
            (elements, parts) = (again, parts_again);
        }
        Ok(elements)
    }

    /// One dump of a set's elements, and in how many messages it came.
    fn elements_once(&mut self, table: &str, set: &Set) -> Result<(Elements, usize), Error> {
        let mut reader = ElementReader::default();
        let mut parts = 0;
        self.query(
            &format!("read the elements of set {} in table {table}", set.name),
            message(MSG_GETSETELEM),
            FAMILY_INET,
            true,
            &|w| write_set_name(table, &set.name, w),
            &mut |answer| match answer {
                None => {
                    (reader, parts) = (ElementReader::default(), 0);
                    Ok(())
                }
                Some(answer) => {
                    parts += 1;
                    match element_list(answer.netfilter()?.1) {
                        Some(list) => reader.read(list, set.interval),
                        None => Ok(()),
                    }
                }
            },
        )?;
        Ok((reader.finish(), parts))
    }

    /// The named counters of a table with their values.
    ///
    /// # Errors
    ///
    /// [`Error::Query`] or [`Error::Socket`].
    pub fn counters(&mut self, table: &str) -> Result<Vec<CounterValue>, Error> {
        let counters = self.dump_of(table, "counters", MSG_GETOBJ, CounterValue::read)?;
        Ok(counters.into_iter().flatten().collect())
    }

    /// All of a table as of one generation, `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Unstable`] if it never stands still; [`Error::Query`] or [`Error::Socket`].
    pub fn read_table(&mut self, table: &str) -> Result<Option<(TableInfo, Model)>, Error> {
        for _ in 0..ATTEMPTS {
            let before = self.generation()?;
            let read = self.read_parts(table);
            if self.generation()? == before {
                return read;
            }
        }
        Err(Error::Unstable {
            table: table.to_owned(),
            attempts: ATTEMPTS,
        })
    }

    fn read_parts(&mut self, table: &str) -> Result<Option<(TableInfo, Model)>, Error> {
        let Some(info) = self.tables()?.into_iter().find(|info| info.name == table) else {
            return Ok(None);
        };
        let mut model = Model::default();
        for set in self.sets(table)? {
            let elements = self.elements(table, &set)?;
            model
                .sets
                .insert(set.name.clone(), SetState { set, elements });
        }
        let mut rules = self.rules(table)?;
        for chain in self.chains(table)? {
            let rules = rules.remove(&chain.name).unwrap_or_default();
            model
                .chains
                .insert(chain.name.clone(), ChainState { chain, rules });
        }
        for value in self.counters(table)? {
            model
                .counters
                .insert(value.counter.name.clone(), value.counter);
        }
        Ok(Some((info, model)))
    }

    fn dump_of<T>(
        &mut self,
        table: &str,
        what: &str,
        kind: u16,
        read: fn(Attributes<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let what = format!("read the {what} of table {table}");
        // Kernels that do not filter a dump by table give all of them.
        let of_table = |attributes: Attributes<'_>| {
            (attributes.string(ANY_TABLE).as_deref() == Some(table))
                .then(|| read(attributes))
                .transpose()
        };
        let found = self.dump(&what, kind, &|w| w.string(ANY_TABLE, table), of_table)?;
        Ok(found.into_iter().flatten().collect())
    }

    fn dump<T>(
        &mut self,
        what: &str,
        kind: u16,
        body: &dyn Fn(&mut Writer),
        read: impl Fn(Attributes<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        self.query(
            what,
            message(kind),
            FAMILY_INET,
            true,
            body,
            &mut |answer| {
                match answer {
                    None => found.clear(),
                    Some(answer) => {
                        let (family, attributes) = answer.netfilter()?;
                        if family == FAMILY_INET {
                            found.push(read(attributes)?);
                        }
                    }
                }
                Ok(())
            },
        )?;
        Ok(found)
    }
}

fn message(kind: u16) -> u16 {
    (SUBSYSTEM_NFTABLES << 8) | kind
}

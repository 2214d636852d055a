//! A transaction: operations on one table that come into force together or not at all.
//!
//! Owns the operations, the checks that need no kernel, the encoding, and the way back from a sequence
//! number in an error to the operation it belongs to. Does not own the socket
//! ([`crate::connection`]).

#[cfg(test)]
mod tests;

use std::fmt;

use crate::error::Error;
use crate::expr::{Expr, Rule, Verdict};
use crate::object::{
    Chain, Counter, MAX_COMMENT_LEN, MAX_NAME_LEN, Table, write_chain_name, write_counter_name,
    write_table_name,
};
use crate::set::{
    Data, Element, Key, Set, entry_at, write_element, write_element_list, write_set_name,
};
use crate::wire::{FAMILY_ANY, FAMILY_INET, Header, Writer};

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates the table, or takes an orphaned persistent one over.
    AddTable(Table),
    /// Deletes the table and all that is in it.
    DeleteTable,
    /// Creates a chain.
    AddChain(Chain),
    /// Deletes a chain that nothing leads to any more, with its rules.
    DeleteChain(String),
    /// Removes all rules of a chain.
    FlushChain(String),
    /// Appends a rule to a chain.
    AddRule {
        /// The chain.
        chain: String,
        /// The rule.
        rule: Rule,
    },
    /// Creates a set or map.
    AddSet(Set),
    /// Deletes a set that no rule looks up any more.
    DeleteSet(String),
    /// Adds elements.
    AddElements {
        /// Name of the set.
        set: String,
        /// At least one.
        elements: Vec<Element>,
    },
    /// Removes elements, all of which must be there; their data is not looked at.
    DeleteElements {
        /// Name of the set.
        set: String,
        /// At least one.
        elements: Vec<Element>,
    },
    /// Creates a named counter.
    AddCounter(Counter),
    /// Deletes a named counter that no rule uses any more.
    DeleteCounter(String),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable(table) => write!(f, "add table {}", table.name),
            Self::DeleteTable => f.write_str("delete the table"),
            Self::AddChain(chain) => write!(f, "add chain {}", chain.name),
            Self::DeleteChain(chain) => write!(f, "delete chain {chain}"),
            Self::FlushChain(chain) => write!(f, "flush chain {chain}"),
            Self::AddRule { chain, rule } => {
                write!(f, "add rule to chain {chain}: {:?}", rule.expressions)
            }
            Self::AddSet(set) => write!(f, "add set {}", set.name),
            Self::DeleteSet(set) => write!(f, "delete set {set}"),
            Self::AddElements { set, elements } => {
                write!(f, "add {} elements to set {set}", elements.len())
            }
            Self::DeleteElements { set, elements } => {
                write!(f, "delete {} elements of set {set}", elements.len())
            }
            Self::AddCounter(counter) => write!(f, "add counter {}", counter.name),
            Self::DeleteCounter(counter) => write!(f, "delete counter {counter}"),
        }
    }
}

impl Op {
    /// Checks what the kernel would refuse, or worse, take for something else.
    fn check(&self) -> Result<(), String> {
        match self {
            Self::AddTable(table) => check_name(&table.name),
            Self::DeleteTable => Ok(()),
            Self::AddChain(chain) => check_name(&chain.name),
            Self::DeleteChain(name)
            | Self::FlushChain(name)
            | Self::DeleteSet(name)
            | Self::DeleteCounter(name) => check_name(name),
            Self::AddRule { chain, rule } => {
                check_name(chain)?;
                check_comment(rule.comment.as_deref())?;
                if rule.expressions.len() > MAX_EXPRESSIONS {
                    return Err(format!("a rule has at most {MAX_EXPRESSIONS} expressions"));
                }
                rule.expressions.iter().try_for_each(check_expression)
            }
            Self::AddSet(set) => {
                check_name(&set.name)?;
                if set
                    .key_len()
                    .is_none_or(|len| len == 0 || len > MAX_VALUE_LEN)
                {
                    return Err(format!("key type {:?} is unknown or too long", set.key));
                }
                if set.interval && set.key.len() != 1 {
                    return Err("intervals need a key of one field".to_owned());
                }
                Ok(())
            }
            Self::AddElements { set, elements } | Self::DeleteElements { set, elements } => {
                check_name(set)?;
                if elements.is_empty() {
                    // The kernel takes the deletion of no elements for "flush the set".
                    return Err("it names no element".to_owned());
                }
                elements.iter().try_for_each(check_element)
            }
            Self::AddCounter(counter) => {
                check_name(&counter.name)?;
                check_comment(counter.comment.as_deref())
            }
        }
    }
}

/// Expressions a rule may have (`NFT_RULE_MAXEXPRS`).
const MAX_EXPRESSIONS: usize = 128;
/// Bytes that a register value may have (`NFT_DATA_VALUE_MAXLEN`).
const MAX_VALUE_LEN: usize = 64;
/// Bytes that a log prefix may have (`NF_LOG_PREFIXLEN` less the NUL).
const MAX_LOG_PREFIX_LEN: usize = 127;

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME_LEN || name.contains('\0') {
        return Err(format!("{name:?} is no name of 1 to {MAX_NAME_LEN} bytes"));
    }
    Ok(())
}

fn check_comment(comment: Option<&str>) -> Result<(), String> {
    match comment {
        Some(text) if text.len() >= MAX_COMMENT_LEN || text.contains('\0') => Err(format!(
            "comment {text:?} is no text of up to {} bytes",
            MAX_COMMENT_LEN - 1
        )),
        _ => Ok(()),
    }
}

fn check_value(value: &[u8]) -> Result<(), String> {
    if value.is_empty() || value.len() > MAX_VALUE_LEN {
        return Err(format!(
            "a value has 1 to {MAX_VALUE_LEN} bytes, not {}",
            value.len()
        ));
    }
    Ok(())
}

fn check_verdict(verdict: &Verdict) -> Result<(), String> {
    match verdict {
        Verdict::Unknown(code) => Err(format!("verdict {code} is unknown")),
        verdict => verdict.chain().map_or(Ok(()), check_name),
    }
}

fn check_element(element: &Element) -> Result<(), String> {
    match &element.key {
        Key::CatchAll => {}
        Key::Value(value) => check_value(value)?,
        Key::Range { first, last } => {
            check_value(first)?;
            check_value(last)?;
        }
    }
    match &element.data {
        None => Ok(()),
        Some(Data::Value(value)) => check_value(value),
        Some(Data::Verdict(verdict)) => check_verdict(verdict),
    }
}

fn check_expression(expression: &Expr) -> Result<(), String> {
    match expression {
        Expr::Unknown { name } => Err(format!("expression {name:?} is unknown")),
        Expr::Bitwise { mask, xor, .. } => {
            check_value(mask)?;
            if mask.len() != xor.len() {
                return Err("mask and xor of a bitwise expression differ in length".to_owned());
            }
            Ok(())
        }
        Expr::Log { prefix, .. } if prefix.len() > MAX_LOG_PREFIX_LEN || prefix.contains('\0') => {
            Err(format!(
                "log prefix {prefix:?} is no text of up to {MAX_LOG_PREFIX_LEN} bytes"
            ))
        }
        Expr::Cmp { value, .. } | Expr::Immediate { value, .. } => check_value(value),
        Expr::Range { first, last, .. } => {
            check_value(first)?;
            check_value(last)
        }
        Expr::Verdict(verdict) => check_verdict(verdict),
        Expr::Lookup { set: name, .. } | Expr::CounterRef { name } => check_name(name),
        _ => Ok(()),
    }
}

/// Operations on one table, in order.
#[derive(Clone, Debug)]
pub struct Batch {
    table: String,
    operations: Vec<Op>,
}

/// Room for list entries in one element message: the list's length field has 16 bits.
const ELEMENT_CHUNK: usize = 60_000;

/// A batch as bytes, with what is needed to understand the answer.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// Sequence number of the message that begins the batch; errors of the commit itself carry it.
    pub(crate) begin: u32,
    /// Sequence number of the last operation, whose acknowledgement ends the answer.
    pub(crate) last: u32,
    /// Where each operation message lies in `bytes`, by sequence number from `begin + 1` on.
    spans: Vec<Span>,
}

struct Span {
    operation: usize,
    /// Index within the operation of the first element of this message.
    first_element: usize,
    start: usize,
    end: usize,
    /// Which list entries belong to which element: entry index of each element's first entry.
    entries: Vec<usize>,
}

impl Batch {
    /// A batch for `table` that does nothing yet.
    #[must_use]
    pub fn new(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            operations: Vec::new(),
        }
    }

    /// Appends an operation.
    pub fn push(&mut self, operation: Op) {
        self.operations.push(operation);
    }

    /// The table it is for.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The operations so far.
    #[must_use]
    pub fn operations(&self) -> &[Op] {
        &self.operations
    }

    /// True if committing it would do nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// Encodes the batch with sequence numbers from `begin` on. The batch must not be empty.
    pub(crate) fn encode(&self, begin: u32) -> Result<Encoded, Error> {
        for operation in &self.operations {
            operation.check().map_err(|why| Error::Invalid {
                operation: operation.to_string(),
                why,
            })?;
        }
        let mut encoder = Encoder {
            table: &self.table,
            writer: Writer::default(),
            sequence: begin,
            spans: Vec::new(),
        };
        encoder.frame(BATCH_BEGIN);
        let mut messages: Vec<(usize, Part)> = Vec::new();
        for (index, operation) in self.operations.iter().enumerate() {
            match operation {
                Op::AddElements { elements, .. } | Op::DeleteElements { elements, .. } => {
                    let delete = matches!(operation, Op::DeleteElements { .. });
                    for (first, entries, bytes) in chunks(elements, delete) {
                        messages.push((
                            index,
                            Part::Elements {
                                first,
                                entries,
                                bytes,
                            },
                        ));
                    }
                }
                _ => messages.push((index, Part::Whole)),
            }
        }
        let last = messages.len().saturating_sub(1);
        for (position, (index, part)) in messages.into_iter().enumerate() {
            // Acknowledge the last operation alone: one answer per message overflows the receive
            // buffer at some hundred messages although the commit succeeded. Kernels before 6.10 do
            // not acknowledge BATCH_END. Refusals are reported whether or not asked for.
            let acknowledge = position == last;
            encoder.operation(index, &self.operations[index], part, acknowledge);
        }
        let last = encoder.sequence;
        encoder.frame(BATCH_END);
        Ok(Encoded {
            bytes: encoder.writer.into_bytes(),
            begin,
            last,
            spans: encoder.spans,
        })
    }

    /// Names the operation behind the message `sequence`, down to the element at `offset` if known.
    pub(crate) fn describe(&self, encoded: &Encoded, sequence: u32, offset: Option<u32>) -> String {
        let span = sequence
            .checked_sub(encoded.begin + 1)
            .and_then(|index| encoded.spans.get(index as usize));
        let Some(span) = span else {
            return "commit".to_owned();
        };
        let operation = &self.operations[span.operation];
        let (Op::AddElements { set, elements } | Op::DeleteElements { set, elements }) = operation
        else {
            return operation.to_string();
        };
        let element = offset
            .and_then(|offset| entry_at(&encoded.bytes[span.start..span.end], offset as usize))
            .and_then(|entry| span.entries.iter().rposition(|first| *first <= entry))
            .and_then(|index| elements.get(span.first_element + index));
        match element {
            Some(element) => {
                let verb = match operation {
                    Op::AddElements { .. } => "add",
                    _ => "delete",
                };
                format!("{verb} element {:?} of set {set}", element.key)
            }
            None => operation.to_string(),
        }
    }
}

/// What one message carries of an operation.
enum Part {
    Whole,
    Elements {
        first: usize,
        entries: Vec<usize>,
        bytes: Vec<u8>,
    },
}

/// Cuts elements into runs that fit one message: (index of the first element, entry index of each
/// element, encoded entries).
fn chunks(elements: &[Element], delete: bool) -> Vec<(usize, Vec<usize>, Vec<u8>)> {
    let mut chunks = Vec::new();
    let mut writer = Writer::default();
    let (mut first, mut entries, mut next_entry) = (0, Vec::new(), 0);
    for (index, element) in elements.iter().enumerate() {
        if writer.len() > ELEMENT_CHUNK {
            let full = std::mem::take(&mut writer).into_bytes();
            chunks.push((first, std::mem::take(&mut entries), full));
            (first, next_entry) = (index, 0);
        }
        entries.push(next_entry);
        let data = element.data.as_ref().filter(|_| !delete);
        next_entry += write_element(&element.key, data, &mut writer);
    }
    chunks.push((first, entries, writer.into_bytes()));
    chunks
}

struct Encoder<'a> {
    table: &'a str,
    writer: Writer,
    sequence: u32,
    spans: Vec<Span>,
}

impl Encoder<'_> {
    fn frame(&mut self, kind: u16) {
        if kind == BATCH_END {
            self.sequence += 1;
        }
        let header = Header {
            kind,
            flags: FLAG_REQUEST,
            sequence: self.sequence,
        };
        self.writer
            .message(header, FAMILY_ANY, SUBSYSTEM_NFTABLES, |_| {});
    }

    fn operation(&mut self, index: usize, operation: &Op, part: Part, acknowledge: bool) {
        self.sequence += 1;
        let (message, mut flags) = kind(operation);
        flags |= FLAG_REQUEST;
        if acknowledge {
            flags |= FLAG_ACK;
        }
        let header = Header {
            kind: (SUBSYSTEM_NFTABLES << 8) | message,
            flags,
            sequence: self.sequence,
        };
        let start = self.writer.len();
        let (table, sequence) = (self.table, self.sequence);
        let (mut first_element, mut entry_index) = (0, Vec::new());
        self.writer
            .message(header, FAMILY_INET, 0, |w| match (part, operation) {
                (
                    Part::Elements {
                        first,
                        entries,
                        bytes,
                    },
                    Op::AddElements { set, .. } | Op::DeleteElements { set, .. },
                ) => {
                    (first_element, entry_index) = (first, entries);
                    write_element_list(table, set, &bytes, w);
                }
                (_, operation) => write_body(operation, table, sequence, w),
            });
        self.spans.push(Span {
            operation: index,
            first_element,
            start,
            end: self.writer.len(),
            entries: entry_index,
        });
    }
}

fn write_body(operation: &Op, table: &str, sequence: u32, w: &mut Writer) {
    match operation {
        Op::AddTable(table) => table.write(w),
        Op::DeleteTable => write_table_name(table, w),
        Op::AddChain(chain) => chain.write(table, w),
        Op::DeleteChain(chain) => write_chain_name(table, chain, w),
        Op::FlushChain(chain) => crate::expr::write_rule_chain(table, chain, w),
        Op::AddRule { chain, rule } => rule.write(table, chain, w),
        // The set's ID only has to be unique within the transaction.
        Op::AddSet(set) => set.write(table, sequence, w),
        Op::DeleteSet(set) => write_set_name(table, set, w),
        Op::AddCounter(counter) => counter.write(table, w),
        Op::DeleteCounter(counter) => write_counter_name(table, counter, w),
        Op::AddElements { set, .. } | Op::DeleteElements { set, .. } => {
            write_element_list(table, set, &[], w);
        }
    }
}

/// Message type and flags of an operation.
fn kind(operation: &Op) -> (u16, u16) {
    match operation {
        Op::AddTable(_) => (MSG_NEWTABLE, FLAG_CREATE),
        Op::DeleteTable => (MSG_DELTABLE, 0),
        Op::AddChain(_) => (MSG_NEWCHAIN, FLAG_CREATE | FLAG_EXCL),
        Op::DeleteChain(_) => (MSG_DELCHAIN, 0),
        Op::FlushChain(_) => (MSG_DELRULE, 0),
        Op::AddRule { .. } => (MSG_NEWRULE, FLAG_CREATE | FLAG_APPEND),
        Op::AddSet(_) => (MSG_NEWSET, FLAG_CREATE | FLAG_EXCL),
        Op::DeleteSet(_) => (MSG_DELSET, 0),
        // Exclusive: a key that is already there with other data must not pass silently.
        Op::AddElements { .. } => (MSG_NEWSETELEM, FLAG_CREATE | FLAG_EXCL),
        Op::DeleteElements { .. } => (MSG_DELSETELEM, 0),
        Op::AddCounter(_) => (MSG_NEWOBJ, FLAG_CREATE | FLAG_EXCL),
        Op::DeleteCounter(_) => (MSG_DELOBJ, 0),
    }
}

/// `NFNL_SUBSYS_NFTABLES`.
pub(crate) const SUBSYSTEM_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

pub(crate) const MSG_NEWTABLE: u16 = 0;
pub(crate) const MSG_GETTABLE: u16 = 1;
pub(crate) const MSG_DELTABLE: u16 = 2;
pub(crate) const MSG_NEWCHAIN: u16 = 3;
pub(crate) const MSG_GETCHAIN: u16 = 4;
pub(crate) const MSG_DELCHAIN: u16 = 5;
pub(crate) const MSG_NEWRULE: u16 = 6;
pub(crate) const MSG_GETRULE: u16 = 7;
pub(crate) const MSG_DELRULE: u16 = 8;
pub(crate) const MSG_NEWSET: u16 = 9;
pub(crate) const MSG_GETSET: u16 = 10;
pub(crate) const MSG_DELSET: u16 = 11;
pub(crate) const MSG_NEWSETELEM: u16 = 12;
pub(crate) const MSG_GETSETELEM: u16 = 13;
pub(crate) const MSG_DELSETELEM: u16 = 14;
pub(crate) const MSG_NEWGEN: u16 = 15;
pub(crate) const MSG_GETGEN: u16 = 16;
pub(crate) const MSG_NEWOBJ: u16 = 18;
pub(crate) const MSG_GETOBJ: u16 = 19;
pub(crate) const MSG_DELOBJ: u16 = 20;

pub(crate) const FLAG_REQUEST: u16 = 0x1;
pub(crate) const FLAG_ACK: u16 = 0x4;
/// `NLM_F_DUMP`.
pub(crate) const FLAG_DUMP: u16 = 0x300;
const FLAG_EXCL: u16 = 0x200;
const FLAG_CREATE: u16 = 0x400;
const FLAG_APPEND: u16 = 0x800;

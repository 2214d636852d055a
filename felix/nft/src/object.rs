//! The objects of a table: table, chains, sets and maps, counters; their bytes and back.
//!
//! Owns what each object is and its attributes in `linux/netfilter/nf_tables.h`. Does not own
//! expressions ([`crate::expr`]) nor transactions ([`crate::batch`]).

use crate::error::Error;
use crate::wire::{Attributes, Writer};

/// Longest name of a table, chain, set or counter (`NFT_NAME_MAXLEN` less the NUL).
pub const MAX_NAME_LEN: usize = 255;
/// Longest comment that `nft` writes and reads (`NFTNL_UDATA_COMMENT_MAXLEN`).
pub const MAX_COMMENT_LEN: usize = 128;

/// A table of family `inet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Name, unique in the family.
    pub name: String,
    /// Who may change it and what becomes of it when the writer's socket closes.
    pub ownership: Ownership,
}

/// Owner and persist flags. Owner without persist is left out on purpose: such a table vanishes with
/// its process, and with it every policy (fails open).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Anybody with CAP_NET_ADMIN may change it.
    Shared,
    /// Only the socket that made it may change it; it stays when that socket closes (Linux 6.9).
    Exclusive,
}

impl Ownership {
    const OWNER: u32 = 0x2;
    const PERSIST: u32 = 0x4;

    fn flags(self) -> u32 {
        match self {
            Self::Shared => 0,
            Self::Exclusive => Self::OWNER | Self::PERSIST,
        }
    }
}

/// A table as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Name.
    pub name: String,
    /// Survives the end of its owner.
    pub persistent: bool,
    /// Netlink port of its live owner.
    pub owner: Option<u32>,
}

/// A chain: regular, or attached to a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Name, unique in the table.
    pub name: String,
    /// Where it is attached, for a base chain.
    pub base: Option<BaseChain>,
}

/// What makes a chain a base chain. Always of type `filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Netfilter hook.
    pub hook: Hook,
    /// Order among chains of the hook, lowest first; 0 is `filter`.
    pub priority: i32,
    /// Verdict for packets that reach its end.
    pub policy: Policy,
}

/// Netfilter hooks of family inet (`enum nf_inet_hooks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To a local socket.
    Input,
    /// Passing through.
    Forward,
    /// From a local socket.
    Output,
    /// After routing.
    Postrouting,
    /// One this crate does not know.
    Unknown(u32),
}

impl Hook {
    fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
            Self::Unknown(n) => n,
        }
    }

    fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Prerouting,
            1 => Self::Input,
            2 => Self::Forward,
            3 => Self::Output,
            4 => Self::Postrouting,
            n => Self::Unknown(n),
        }
    }
}

/// Default verdict of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Let pass.
    Accept,
    /// Discard.
    Drop,
}

/// A named counter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counter {
    /// Name, unique among the table's objects.
    pub name: String,
    /// Shown by `nft list`.
    pub comment: Option<String>,
}

/// What a named counter has counted since it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterValue {
    /// The counter.
    pub counter: Counter,
    /// Packets.
    pub packets: u64,
    /// Bytes, network header included.
    pub bytes: u64,
}

mod attribute {
    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const TABLE_FLAGS: u16 = 2;
    pub(super) const TABLE_OWNER: u16 = 7;

    pub(super) const CHAIN_TABLE: u16 = 1;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const CHAIN_POLICY: u16 = 5;
    pub(super) const CHAIN_TYPE: u16 = 7;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;

    pub(super) const OBJECT_TABLE: u16 = 1;
    pub(super) const OBJECT_NAME: u16 = 2;
    pub(super) const OBJECT_TYPE: u16 = 3;
    pub(super) const OBJECT_DATA: u16 = 4;
    pub(super) const OBJECT_USERDATA: u16 = 8;
    pub(super) const COUNTER_BYTES: u16 = 1;
    pub(super) const COUNTER_PACKETS: u16 = 2;
}
use attribute as a;

/// `NFT_OBJECT_COUNTER`.
pub(crate) const OBJECT_COUNTER: u32 = 1;

impl Table {
    pub(crate) fn write(&self, w: &mut Writer) {
        w.string(a::TABLE_NAME, &self.name);
        w.u32(a::TABLE_FLAGS, self.ownership.flags());
    }
}

impl TableInfo {
    pub(crate) fn read(attributes: Attributes<'_>) -> Result<Self, Error> {
        Ok(Self {
            name: attributes
                .string(a::TABLE_NAME)
                .ok_or(Error::Malformed { what: "table" })?,
            persistent: attributes.u32(a::TABLE_FLAGS).unwrap_or(0) & Ownership::PERSIST != 0,
            owner: attributes.u32(a::TABLE_OWNER),
        })
    }
}

pub(crate) fn write_table_name(table: &str, w: &mut Writer) {
    w.string(a::TABLE_NAME, table);
}

impl Chain {
    pub(crate) fn write(&self, table: &str, w: &mut Writer) {
        write_chain_name(table, &self.name, w);
        if let Some(base) = self.base {
            w.nest(a::CHAIN_HOOK, |w| {
                w.u32(a::HOOK_NUMBER, base.hook.number());
                w.bytes(a::HOOK_PRIORITY, &base.priority.to_be_bytes());
            });
            w.u32(
                a::CHAIN_POLICY,
                match base.policy {
                    Policy::Drop => 0,
                    Policy::Accept => 1,
                },
            );
            w.string(a::CHAIN_TYPE, "filter");
        }
    }

    pub(crate) fn read(attributes: Attributes<'_>) -> Result<Self, Error> {
        let malformed = Error::Malformed { what: "chain" };
        let base = attributes.nested(a::CHAIN_HOOK).map(|hook| BaseChain {
            hook: Hook::from_number(hook.u32(a::HOOK_NUMBER).unwrap_or(u32::MAX)),
            priority: hook.u32(a::HOOK_PRIORITY).unwrap_or(0).cast_signed(),
            policy: match attributes.u32(a::CHAIN_POLICY) {
                Some(0) => Policy::Drop,
                _ => Policy::Accept,
            },
        });
        Ok(Self {
            name: attributes.string(a::CHAIN_NAME).ok_or(malformed)?,
            base,
        })
    }
}

pub(crate) fn write_chain_name(table: &str, chain: &str, w: &mut Writer) {
    w.string(a::CHAIN_TABLE, table);
    w.string(a::CHAIN_NAME, chain);
}

impl Counter {
    pub(crate) fn write(&self, table: &str, w: &mut Writer) {
        write_counter_name(table, &self.name, w);
        w.nest(a::OBJECT_DATA, |w| {
            w.u64(a::COUNTER_BYTES, 0);
            w.u64(a::COUNTER_PACKETS, 0);
        });
        if let Some(comment) = &self.comment {
            w.bytes(a::OBJECT_USERDATA, &userdata::comment(comment));
        }
    }
}

impl CounterValue {
    /// `None` for an object that is not a counter.
    pub(crate) fn read(attributes: Attributes<'_>) -> Result<Option<Self>, Error> {
        if attributes.u32(a::OBJECT_TYPE) != Some(OBJECT_COUNTER) {
            return Ok(None);
        }
        let malformed = || Error::Malformed { what: "counter" };
        let data = attributes.nested(a::OBJECT_DATA).ok_or_else(malformed)?;
        Ok(Some(Self {
            counter: Counter {
                name: attributes.string(a::OBJECT_NAME).ok_or_else(malformed)?,
                comment: attributes
                    .get(a::OBJECT_USERDATA)
                    .and_then(userdata::read_comment),
            },
            packets: data.u64(a::COUNTER_PACKETS).ok_or_else(malformed)?,
            bytes: data.u64(a::COUNTER_BYTES).ok_or_else(malformed)?,
        }))
    }
}

pub(crate) fn write_counter_name(table: &str, counter: &str, w: &mut Writer) {
    w.string(a::OBJECT_TABLE, table);
    w.string(a::OBJECT_NAME, counter);
    w.u32(a::OBJECT_TYPE, OBJECT_COUNTER);
}

/// The user data that `nft` keeps beside objects: type, length, value, one byte each for the first
/// two (`libnftnl/udata.h`). The kernel stores it unread.
pub(crate) mod userdata {
    use super::MAX_COMMENT_LEN;

    /// `NFTNL_UDATA_RULE_COMMENT` and `NFTNL_UDATA_OBJ_COMMENT`.
    const COMMENT: u8 = 0;
    const SET_KEY_BYTE_ORDER: u8 = 0;
    const SET_DATA_BYTE_ORDER: u8 = 1;

    pub(crate) fn comment(text: &str) -> Vec<u8> {
        let length = text.len().min(MAX_COMMENT_LEN - 1);
        let length = text.floor_char_boundary(length);
        let mut bytes = vec![COMMENT, u8::try_from(length + 1).unwrap_or(u8::MAX)];
        bytes.extend_from_slice(&text.as_bytes()[..length]);
        bytes.push(0);
        bytes
    }

    pub(crate) fn read_comment(bytes: &[u8]) -> Option<String> {
        find(bytes, COMMENT).map(crate::wire::text)
    }

    pub(crate) fn byte_orders(key: u32, data: Option<u32>) -> Vec<u8> {
        let mut bytes = vec![SET_KEY_BYTE_ORDER, 4];
        bytes.extend_from_slice(&key.to_ne_bytes());
        if let Some(data) = data {
            bytes.extend_from_slice(&[SET_DATA_BYTE_ORDER, 4]);
            bytes.extend_from_slice(&data.to_ne_bytes());
        }
        bytes
    }

    fn find(mut bytes: &[u8], wanted: u8) -> Option<&[u8]> {
        loop {
            let [kind, length, rest @ ..] = bytes else {
                return None;
            };
            let value = rest.get(..usize::from(*length))?;
            if *kind == wanted {
                return Some(value);
            }
            bytes = &rest[usize::from(*length)..];
        }
    }
}

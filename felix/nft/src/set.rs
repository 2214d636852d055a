//! Sets and maps: their types, keys and elements; their bytes and back.
//!
//! Owns the translation between an element and its netlink form: an interval is one [`Key::Range`]
//! here and a start and an end element there. Does not own which sets exist.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::Error;
use crate::expr::Verdict;
use crate::object::userdata;
use crate::wire::{ATTRIBUTE_HEADER_LEN, Attributes, Writer};

/// A named set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Name, unique among the sets of the table.
    pub name: String,
    /// Type of the key, field by field; more than one makes a concatenation.
    pub key: Vec<DataType>,
    /// What a map maps to; `None` for a set.
    pub data: Option<MapData>,
    /// Elements are ranges. Only for keys of one field: concatenated ranges cost the kernel about
    /// 10 µs per element and transaction, so this crate does not offer them.
    pub interval: bool,
}

/// What a map maps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapData {
    /// A verdict.
    Verdict,
    /// A value.
    Value(DataType),
}

/// Types that `nft` knows by number (its `enum datatypes`); the kernel only stores them, but `nft
/// list` needs them to print an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// IPv4 address, 4 bytes.
    Ipv4Addr,
    /// IPv6 address, 16 bytes.
    Ipv6Addr,
    /// IP protocol number, 1 byte.
    InetProto,
    /// Port, 2 bytes in network order.
    InetService,
    /// Packet mark, 4 bytes in host order.
    Mark,
    /// Connection state bits, 4 bytes in host order.
    CtState,
    /// ICMPv6 type, 1 byte.
    Icmpv6Type,
    /// Interface name, 16 bytes padded with NUL.
    IfName,
    /// Another one.
    Unknown(u8),
}

/// `NFT_REG32_SIZE`: fields of a concatenation are padded to this.
pub(crate) const FIELD_ALIGNMENT: usize = 4;

const BYTE_ORDER_INVALID: u32 = 0;
const BYTE_ORDER_HOST: u32 = 1;
const BYTE_ORDER_BIG: u32 = 2;
/// `nft` packs the types of a concatenation into one number, this many bits each, first field highest.
const TYPE_BITS: u32 = 6;

impl DataType {
    fn number(self) -> u32 {
        match self {
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Mark => 19,
            Self::CtState => 26,
            Self::Icmpv6Type => 29,
            Self::IfName => 41,
            Self::Unknown(n) => u32::from(n),
        }
    }

    fn from_number(number: u32) -> Self {
        match number {
            7 => Self::Ipv4Addr,
            8 => Self::Ipv6Addr,
            12 => Self::InetProto,
            13 => Self::InetService,
            19 => Self::Mark,
            26 => Self::CtState,
            29 => Self::Icmpv6Type,
            41 => Self::IfName,
            n => Self::Unknown(u8::try_from(n).unwrap_or(u8::MAX)),
        }
    }

    /// Length of a value in bytes; `None` for a type this crate does not know.
    #[must_use]
    pub fn width(self) -> Option<usize> {
        match self {
            Self::InetProto | Self::Icmpv6Type => Some(1),
            Self::InetService => Some(2),
            Self::Ipv4Addr | Self::Mark | Self::CtState => Some(4),
            Self::Ipv6Addr | Self::IfName => Some(16),
            Self::Unknown(_) => None,
        }
    }

    fn byte_order(self) -> u32 {
        match self {
            Self::Mark | Self::CtState | Self::IfName => BYTE_ORDER_HOST,
            Self::Unknown(_) => BYTE_ORDER_INVALID,
            _ => BYTE_ORDER_BIG,
        }
    }
}

impl Set {
    /// Length of a key in bytes, fields of a concatenation padded; `None` if a type is unknown.
    #[must_use]
    pub fn key_len(&self) -> Option<usize> {
        match self.key.as_slice() {
            [only] => only.width(),
            fields => fields
                .iter()
                .map(|field| field.width().map(|n| n.next_multiple_of(FIELD_ALIGNMENT)))
                .sum(),
        }
    }

    /// Checks that `key` and `data` fit this set.
    ///
    /// # Errors
    ///
    /// What does not fit, as a sentence.
    pub fn check(&self, key: &Key, data: Option<&Data>) -> Result<(), String> {
        let fits = |value: &[u8]| self.key_len() == Some(value.len());
        match key {
            Key::Value(value) if self.interval => {
                return Err(format!(
                    "{value:02x?} is no range, as an interval set needs"
                ));
            }
            Key::Range { .. } if !self.interval => {
                return Err("a range does not fit a set without intervals".to_owned());
            }
            Key::Value(value) if !fits(value) => {
                return Err(format!("key {value:02x?} is not as long as the set's type"));
            }
            Key::Range { first, last } if !fits(first) || !fits(last) || first > last => {
                return Err(format!("range {first:02x?} to {last:02x?} is malformed"));
            }
            _ => {}
        }
        match (self.data, data) {
            (None, None) | (Some(MapData::Verdict), Some(Data::Verdict(_))) => Ok(()),
            (Some(MapData::Value(kind)), Some(Data::Value(value)))
                if kind.width() == Some(value.len()) =>
            {
                Ok(())
            }
            _ => Err(format!(
                "data {data:?} does not fit the set's type {:?}",
                self.data
            )),
        }
    }

    pub(crate) fn write(&self, table: &str, id: u32, w: &mut Writer) {
        write_set_name(table, &self.name, w);
        let mut flags = 0;
        if self.interval {
            flags |= FLAG_INTERVAL;
        }
        if self.data.is_some() {
            flags |= FLAG_MAP;
        }
        w.u32(a::SET_FLAGS, flags);
        let number = self
            .key
            .iter()
            .fold(0, |sum, field| (sum << TYPE_BITS) | field.number());
        w.u32(a::SET_KEY_TYPE, number);
        w.u32(a::SET_KEY_LEN, short_len(self.key_len()));
        let data_order = match self.data {
            None => None,
            Some(MapData::Verdict) => {
                w.u32(a::SET_DATA_TYPE, DATA_TYPE_VERDICT);
                w.u32(a::SET_DATA_LEN, VERDICT_LEN);
                Some(BYTE_ORDER_INVALID)
            }
            Some(MapData::Value(kind)) => {
                w.u32(a::SET_DATA_TYPE, kind.number());
                w.u32(a::SET_DATA_LEN, short_len(kind.width()));
                Some(kind.byte_order())
            }
        };
        w.u32(a::SET_ID, id);
        let key_order = match self.key.as_slice() {
            [only] => only.byte_order(),
            _ => BYTE_ORDER_INVALID,
        };
        w.bytes(
            a::SET_USERDATA,
            &userdata::byte_orders(key_order, data_order),
        );
    }

    /// `None` for an anonymous set, which belongs to the rule that uses it.
    pub(crate) fn read(attributes: Attributes<'_>) -> Result<Option<Self>, Error> {
        let malformed = || Error::Malformed { what: "set" };
        let flags = attributes.u32(a::SET_FLAGS).unwrap_or(0);
        if flags & FLAG_ANONYMOUS != 0 {
            return Ok(None);
        }
        let mut number = attributes.u32(a::SET_KEY_TYPE).ok_or_else(malformed)?;
        let mut key = Vec::new();
        loop {
            key.insert(0, DataType::from_number(number & ((1 << TYPE_BITS) - 1)));
            number >>= TYPE_BITS;
            if number == 0 {
                break;
            }
        }
        let data = (flags & FLAG_MAP != 0).then(|| match attributes.u32(a::SET_DATA_TYPE) {
            Some(DATA_TYPE_VERDICT) => MapData::Verdict,
            other => MapData::Value(DataType::from_number(other.unwrap_or(u32::MAX))),
        });
        Ok(Some(Self {
            name: attributes.string(a::SET_NAME).ok_or_else(malformed)?,
            key,
            data,
            interval: flags & FLAG_INTERVAL != 0,
        }))
    }
}

fn short_len(len: Option<usize>) -> u32 {
    // Unknown types only come from reading; 0 makes the kernel refuse one that is written back.
    len.and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

/// The key of an element.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Matches whatever no other element of the set matches (Linux 5.13).
    CatchAll,
    /// One value.
    Value(Vec<u8>),
    /// All values from `first` to `last`, both included, compared as big-endian numbers.
    Range {
        /// Lowest value.
        first: Vec<u8>,
        /// Highest value.
        last: Vec<u8>,
    },
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CatchAll => f.write_str("*"),
            Self::Value(value) => hex(value, f),
            Self::Range { first, last } => {
                hex(first, f)?;
                f.write_str("-")?;
                hex(last, f)
            }
        }
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// What an element of a map maps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// A value, as long as the map's type.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// One element. In a set, `data` is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// What it matches.
    pub key: Key,
    /// What it maps to.
    pub data: Option<Data>,
}

/// The elements of one set by key.
pub type Elements = BTreeMap<Key, Option<Data>>;

/// Writes the netlink form of one element and returns how many list entries it takes: a range may
/// take two.
pub(crate) fn write_element(key: &Key, data: Option<&Data>, w: &mut Writer) -> usize {
    match key {
        Key::CatchAll => write_entry(None, ELEMENT_CATCH_ALL, data, w),
        Key::Value(value) => write_entry(Some(value), 0, data, w),
        Key::Range { first, last } => {
            write_entry(Some(first), 0, data, w);
            // The end element is the first value behind the range. A range that runs to the highest
            // value has none: the kernel takes the next start, or nothing, as its end.
            if let Some(end) = successor(last) {
                write_entry(Some(&end), ELEMENT_INTERVAL_END, None, w);
                return 2;
            }
        }
    }
    1
}

fn write_entry(value: Option<&[u8]>, flags: u32, data: Option<&Data>, w: &mut Writer) {
    w.nest(a::LIST_ELEMENT, |w| {
        if flags != 0 {
            w.u32(a::ELEMENT_FLAGS, flags);
        }
        if let Some(value) = value {
            w.nest(a::ELEMENT_KEY, |w| w.bytes(a::DATA_VALUE, value));
        }
        if let Some(data) = data {
            w.nest(a::ELEMENT_DATA, |w| write_data(data, w));
        }
    });
}

pub(crate) fn write_data(data: &Data, w: &mut Writer) {
    match data {
        Data::Value(value) => w.bytes(a::DATA_VALUE, value),
        Data::Verdict(verdict) => w.nest(a::DATA_VERDICT, |w| verdict.write(w)),
    }
}

pub(crate) fn read_data(attributes: Attributes<'_>) -> Option<Data> {
    if let Some(value) = attributes.get(a::DATA_VALUE) {
        return Some(Data::Value(value.to_vec()));
    }
    let verdict = attributes.nested(a::DATA_VERDICT)?;
    Some(Data::Verdict(Verdict::read(verdict)?))
}

/// Collects the list entries of a set's dump and joins starts and ends to ranges.
#[derive(Default)]
pub(crate) struct ElementReader {
    elements: Elements,
    /// Starts and ends of an interval set. At one value an end sorts before a start, as for two
    /// ranges that touch.
    bounds: BTreeMap<(Vec<u8>, Bound), Option<Data>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    End,
    Start,
}

impl ElementReader {
    pub(crate) fn read(&mut self, list: Attributes<'_>, interval: bool) -> Result<(), Error> {
        for (_, entry) in list {
            let entry = Attributes(entry);
            let flags = entry.u32(a::ELEMENT_FLAGS).unwrap_or(0);
            let data = entry.nested(a::ELEMENT_DATA).and_then(read_data);
            if flags & ELEMENT_CATCH_ALL != 0 {
                self.elements.insert(Key::CatchAll, data);
                continue;
            }
            let value = entry
                .nested(a::ELEMENT_KEY)
                .and_then(|key| key.get(a::DATA_VALUE))
                .ok_or(Error::Malformed {
                    what: "set element",
                })?
                .to_vec();
            if !interval {
                self.elements.insert(Key::Value(value), data);
            } else if flags & ELEMENT_INTERVAL_END != 0 {
                self.bounds.insert((value, Bound::End), None);
            } else {
                self.bounds.insert((value, Bound::Start), data);
            }
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Elements {
        let mut open: Option<(Vec<u8>, Option<Data>)> = None;
        for ((value, bound), data) in self.bounds {
            if let Some((first, data)) = open.take()
                && let Some(last) = predecessor(&value)
            {
                self.elements.insert(Key::Range { first, last }, data);
            }
            if bound == Bound::Start {
                open = Some((value, data));
            }
        }
        if let Some((first, data)) = open {
            let last = vec![u8::MAX; first.len()];
            self.elements.insert(Key::Range { first, last }, data);
        }
        self.elements
    }
}

/// The next big-endian number, or `None` after the highest.
fn successor(value: &[u8]) -> Option<Vec<u8>> {
    let mut next = value.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carry) = byte.overflowing_add(1);
        *byte = sum;
        if !carry {
            return Some(next);
        }
    }
    None
}

/// The previous big-endian number, or `None` before zero.
fn predecessor(value: &[u8]) -> Option<Vec<u8>> {
    let mut previous = value.to_vec();
    for byte in previous.iter_mut().rev() {
        let (difference, borrow) = byte.overflowing_sub(1);
        *byte = difference;
        if !borrow {
            return Some(previous);
        }
    }
    None
}

pub(crate) fn write_set_name(table: &str, set: &str, w: &mut Writer) {
    w.string(a::SET_TABLE, table);
    w.string(a::SET_NAME, set);
}

/// Writes an element message's body around entries that [`write_element`] made.
pub(crate) fn write_element_list(table: &str, set: &str, entries: &[u8], w: &mut Writer) {
    w.string(a::LIST_TABLE, table);
    w.string(a::LIST_SET, set);
    w.nest(a::LIST_ELEMENTS, |w| w.raw(entries));
}

pub(crate) fn element_list(attributes: Attributes<'_>) -> Option<Attributes<'_>> {
    attributes.nested(a::LIST_ELEMENTS)
}

/// Which list entry of a message (from its `nlmsghdr` on) lies at `offset`, counted from 0. The
/// kernel points at the entry it refuses.
pub(crate) fn entry_at(message: &[u8], offset: usize) -> Option<usize> {
    let body_start = crate::wire::HEADER_LEN + crate::wire::NFGEN_LEN;
    let mut position = body_start;
    for (kind, value) in Attributes(message.get(body_start..)?) {
        let end = position + ATTRIBUTE_HEADER_LEN + value.len();
        if kind == a::LIST_ELEMENTS {
            let mut entry_start = position + ATTRIBUTE_HEADER_LEN;
            for (index, (_, entry)) in Attributes(value).enumerate() {
                let entry_end = entry_start + ATTRIBUTE_HEADER_LEN + entry.len();
                if (entry_start..entry_end).contains(&offset) {
                    return Some(index);
                }
                entry_start = entry_end.next_multiple_of(4);
            }
        }
        position = end.next_multiple_of(4);
    }
    None
}

mod attribute {
    pub(super) const SET_TABLE: u16 = 1;
    pub(super) const SET_NAME: u16 = 2;
    pub(super) const SET_FLAGS: u16 = 3;
    pub(super) const SET_KEY_TYPE: u16 = 4;
    pub(super) const SET_KEY_LEN: u16 = 5;
    pub(super) const SET_DATA_TYPE: u16 = 6;
    pub(super) const SET_DATA_LEN: u16 = 7;
    pub(super) const SET_ID: u16 = 10;
    pub(super) const SET_USERDATA: u16 = 13;

    pub(super) const LIST_TABLE: u16 = 1;
    pub(super) const LIST_SET: u16 = 2;
    pub(super) const LIST_ELEMENTS: u16 = 3;
    pub(super) const LIST_ELEMENT: u16 = 1;

    pub(super) const ELEMENT_KEY: u16 = 1;
    pub(super) const ELEMENT_DATA: u16 = 2;
    pub(super) const ELEMENT_FLAGS: u16 = 3;

    pub(super) const DATA_VALUE: u16 = 1;
    pub(super) const DATA_VERDICT: u16 = 2;
}
use attribute as a;

const FLAG_ANONYMOUS: u32 = 0x1;
const FLAG_INTERVAL: u32 = 0x4;
const FLAG_MAP: u32 = 0x8;

const ELEMENT_INTERVAL_END: u32 = 0x1;
const ELEMENT_CATCH_ALL: u32 = 0x2;

/// `NFT_DATA_VERDICT`.
const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;
/// `sizeof(struct nft_verdict)`, which the kernel fills in itself; `nft` sends it all the same.
const VERDICT_LEN: u32 = 16;

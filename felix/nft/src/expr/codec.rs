//! Netlink form of rules, expressions and verdicts.

use super::{
    CmpOp, CtKey, Expr, LogTarget, LookupResult, MetaKey, PayloadBase, RateUnit, Register, Reject,
    Rule, Verdict,
};
use crate::error::Error;
use crate::object::{OBJECT_COUNTER, userdata};
use crate::set::{Data, read_data, write_data};
use crate::wire::{Attributes, Writer};

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// `NFT_REG_VERDICT`.
const REGISTER_VERDICT: u32 = 0;
/// `NFT_REG32_00`.
const REGISTER_32_FIRST: u32 = 8;

pub(crate) fn write_rule_chain(table: &str, chain: &str, w: &mut Writer) {
    w.string(RULE_TABLE, table);
    w.string(RULE_CHAIN, chain);
}

impl Rule {
    pub(crate) fn write(&self, table: &str, chain: &str, w: &mut Writer) {
        write_rule_chain(table, chain, w);
        w.nest(RULE_EXPRESSIONS, |w| {
            for expression in &self.expressions {
                w.nest(LIST_ELEMENT, |w| expression.write(w));
            }
        });
        if let Some(comment) = &self.comment {
            w.bytes(RULE_USERDATA, &userdata::comment(comment));
        }
    }

    /// The chain a rule is in, and the rule.
    pub(crate) fn read(attributes: Attributes<'_>) -> Result<(String, Self), Error> {
        let malformed = || Error::Malformed { what: "rule" };
        let chain = attributes.string(RULE_CHAIN).ok_or_else(malformed)?;
        let expressions = attributes
            .nested(RULE_EXPRESSIONS)
            .into_iter()
            .flatten()
            .map(|(_, entry)| Expr::read(Attributes(entry)).ok_or_else(malformed))
            .collect::<Result<_, _>>()?;
        let comment = attributes
            .get(RULE_USERDATA)
            .and_then(userdata::read_comment);
        Ok((
            chain,
            Self {
                expressions,
                comment,
            },
        ))
    }
}

impl Verdict {
    fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Continue => -1,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
            Self::Unknown(code) => *code,
        }
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.u32(VERDICT_CODE, self.code().cast_unsigned());
        if let Some(chain) = self.chain() {
            w.string(VERDICT_CHAIN, chain);
        }
    }

    pub(crate) fn read(attributes: Attributes<'_>) -> Option<Self> {
        let chain = || attributes.string(VERDICT_CHAIN);
        Some(match attributes.u32(VERDICT_CODE)?.cast_signed() {
            0 => Self::Drop,
            1 => Self::Accept,
            -1 => Self::Continue,
            -3 => Self::Jump(chain()?),
            -4 => Self::Goto(chain()?),
            -5 => Self::Return,
            code => Self::Unknown(code),
        })
    }
}

impl Register {
    fn number(self) -> u32 {
        REGISTER_32_FIRST + u32::from(self.0)
    }

    /// The kernel reports a register on a 16-byte boundary by its 128-bit name (1 to 4).
    fn read(attributes: Attributes<'_>, kind: u16) -> Option<Self> {
        match attributes.u32(kind)? {
            n @ 1..=4 => u8::try_from((n - 1) * 4).ok().map(Self),
            n @ REGISTER_32_FIRST..24 => u8::try_from(n - REGISTER_32_FIRST).ok().map(Self),
            _ => None,
        }
    }
}

fn value(attributes: Attributes<'_>, kind: u16) -> Option<Vec<u8>> {
    match read_data(attributes.nested(kind)?)? {
        Data::Value(value) => Some(value),
        Data::Verdict(_) => None,
    }
}

fn write_value(kind: u16, bytes: &[u8], w: &mut Writer) {
    w.nest(kind, |w| write_data(&Data::Value(bytes.to_vec()), w));
}

impl Expr {
    fn name(&self) -> &str {
        match self {
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Ct { .. } | Self::SetCt { .. } => "ct",
            Self::Payload { .. } => "payload",
            Self::Cmp { .. } => "cmp",
            Self::Range { .. } => "range",
            Self::Bitwise { .. } => "bitwise",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Lookup { .. } => "lookup",
            Self::Counter { .. } => "counter",
            Self::CounterRef { .. } => "objref",
            Self::Limit { .. } => "limit",
            Self::Log { .. } => "log",
            Self::Reject(_) => "reject",
            Self::Unknown { name } => name,
        }
    }

    fn write(&self, w: &mut Writer) {
        w.string(EXPR_NAME, self.name());
        w.nest(EXPR_DATA, |w| self.write_data(w));
    }

    fn write_data(&self, w: &mut Writer) {
        match self {
            Self::Meta { key, to } => {
                w.u32(meta::DREG, to.number());
                w.u32(meta::KEY, key.number());
            }
            Self::SetMeta { key, from } => {
                w.u32(meta::KEY, key.number());
                w.u32(meta::SREG, from.number());
            }
            Self::Ct { key, to } => {
                w.u32(ct::DREG, to.number());
                w.u32(ct::KEY, key.number());
            }
            Self::SetCt { key, from } => {
                w.u32(ct::KEY, key.number());
                w.u32(ct::SREG, from.number());
            }
            Self::Payload {
                base,
                offset,
                len,
                to,
            } => {
                w.u32(payload::DREG, to.number());
                w.u32(payload::BASE, base.number());
                w.u32(payload::OFFSET, *offset);
                w.u32(payload::LEN, *len);
            }
            Self::Cmp { from, op, value } => {
                w.u32(cmp::SREG, from.number());
                w.u32(cmp::OP, op.number());
                write_value(cmp::DATA, value, w);
            }
            Self::Range {
                from,
                inverted,
                first,
                last,
            } => {
                w.u32(range::SREG, from.number());
                w.u32(range::OP, u32::from(*inverted));
                write_value(range::FROM, first, w);
                write_value(range::TO, last, w);
            }
            Self::Bitwise {
                from,
                to,
                mask,
                xor,
            } => {
                w.u32(bitwise::SREG, from.number());
                w.u32(bitwise::DREG, to.number());
                w.u32(bitwise::LEN, u32::try_from(mask.len()).unwrap_or(0));
                write_value(bitwise::MASK, mask, w);
                write_value(bitwise::XOR, xor, w);
            }
            Self::Immediate { to, value } => {
                w.u32(immediate::DREG, to.number());
                write_value(immediate::DATA, value, w);
            }
            Self::Verdict(verdict) => {
                w.u32(immediate::DREG, REGISTER_VERDICT);
                w.nest(immediate::DATA, |w| {
                    write_data(&Data::Verdict(verdict.clone()), w);
                });
            }
            Self::Lookup { set, from, result } => {
                w.string(lookup::SET, set);
                w.u32(lookup::SREG, from.number());
                match result {
                    LookupResult::Membership { inverted: false } => {}
                    LookupResult::Membership { inverted: true } => {
                        w.u32(lookup::FLAGS, lookup::INVERTED);
                    }
                    LookupResult::Verdict => w.u32(lookup::DREG, REGISTER_VERDICT),
                    LookupResult::Value(to) => w.u32(lookup::DREG, to.number()),
                }
            }
            Self::Counter { packets, bytes } => {
                w.u64(counter::BYTES, *bytes);
                w.u64(counter::PACKETS, *packets);
            }
            Self::CounterRef { name } => {
                w.u32(objref::TYPE, OBJECT_COUNTER);
                w.string(objref::NAME, name);
            }
            Self::Limit {
                rate,
                unit,
                burst,
                over,
            } => {
                w.u64(limit::RATE, *rate);
                w.u64(limit::UNIT, unit.seconds());
                w.u32(limit::BURST, *burst);
                w.u32(limit::TYPE, limit::PACKETS);
                w.u32(limit::FLAGS, u32::from(*over));
            }
            Self::Log { prefix, target } => {
                match target {
                    LogTarget::Group(group) => w.u16(log::GROUP, *group),
                    LogTarget::Kernel { level } => w.u32(log::LEVEL, *level),
                }
                w.string(log::PREFIX, prefix);
            }
            Self::Reject(reject) => {
                let (kind, code) = reject.numbers();
                w.u32(reject::TYPE, kind);
                w.bytes(reject::CODE, &[code]);
            }
            // Refused before a transaction is encoded.
            Self::Unknown { .. } => {}
        }
    }

    /// `None` only if it cannot even be named; what is strange inside becomes `Unknown`.
    fn read(attributes: Attributes<'_>) -> Option<Self> {
        let name = attributes.string(EXPR_NAME)?;
        let data = attributes.nested(EXPR_DATA).unwrap_or(Attributes(&[]));
        Some(Self::read_data(&name, data).unwrap_or(Self::Unknown { name }))
    }

    fn read_data(name: &str, d: Attributes<'_>) -> Option<Self> {
        Some(match name {
            "meta" => {
                let key = MetaKey::from_number(d.u32(meta::KEY)?);
                match Register::read(d, meta::DREG) {
                    Some(to) => Self::Meta { key, to },
                    None => Self::SetMeta {
                        key,
                        from: Register::read(d, meta::SREG)?,
                    },
                }
            }
            "ct" => {
                let key = CtKey::from_number(d.u32(ct::KEY)?);
                match Register::read(d, ct::DREG) {
                    Some(to) => Self::Ct { key, to },
                    None => Self::SetCt {
                        key,
                        from: Register::read(d, ct::SREG)?,
                    },
                }
            }
            "payload" => Self::Payload {
                to: Register::read(d, payload::DREG)?,
                base: PayloadBase::from_number(d.u32(payload::BASE)?),
                offset: d.u32(payload::OFFSET)?,
                len: d.u32(payload::LEN)?,
            },
            "cmp" => Self::Cmp {
                from: Register::read(d, cmp::SREG)?,
                op: CmpOp::from_number(d.u32(cmp::OP)?),
                value: value(d, cmp::DATA)?,
            },
            "range" => Self::Range {
                from: Register::read(d, range::SREG)?,
                inverted: d.u32(range::OP)? != 0,
                first: value(d, range::FROM)?,
                last: value(d, range::TO)?,
            },
            // Shifts, and the boolean operations of newer kernels, have no mask.
            "bitwise" => Self::Bitwise {
                from: Register::read(d, bitwise::SREG)?,
                to: Register::read(d, bitwise::DREG)?,
                mask: value(d, bitwise::MASK)?,
                xor: value(d, bitwise::XOR)?,
            },
            "immediate" => match read_data(d.nested(immediate::DATA)?)? {
                Data::Verdict(verdict) => Self::Verdict(verdict),
                Data::Value(value) => Self::Immediate {
                    to: Register::read(d, immediate::DREG)?,
                    value,
                },
            },
            "lookup" => Self::Lookup {
                set: d.string(lookup::SET)?,
                from: Register::read(d, lookup::SREG)?,
                result: match d.u32(lookup::DREG) {
                    None => LookupResult::Membership {
                        inverted: d.u32(lookup::FLAGS).unwrap_or(0) & lookup::INVERTED != 0,
                    },
                    Some(REGISTER_VERDICT) => LookupResult::Verdict,
                    Some(_) => LookupResult::Value(Register::read(d, lookup::DREG)?),
                },
            },
            "counter" => Self::Counter {
                packets: d.u64(counter::PACKETS)?,
                bytes: d.u64(counter::BYTES)?,
            },
            "objref" if d.u32(objref::TYPE) == Some(OBJECT_COUNTER) => Self::CounterRef {
                name: d.string(objref::NAME)?,
            },
            "limit" if d.u32(limit::TYPE).unwrap_or(0) == limit::PACKETS => Self::Limit {
                rate: d.u64(limit::RATE)?,
                unit: RateUnit::from_seconds(d.u64(limit::UNIT)?),
                burst: d.u32(limit::BURST)?,
                over: d.u32(limit::FLAGS).unwrap_or(0) != 0,
            },
            "log" => Self::Log {
                prefix: d.string(log::PREFIX).unwrap_or_default(),
                target: match d.u16(log::GROUP) {
                    Some(group) => LogTarget::Group(group),
                    None => LogTarget::Kernel {
                        level: d.u32(log::LEVEL)?,
                    },
                },
            },
            "reject" => Self::Reject(Reject::from_numbers(
                d.u32(reject::TYPE)?,
                d.get(reject::CODE)
                    .and_then(|v| v.first().copied())
                    .unwrap_or(0),
            )),
            _ => return None,
        })
    }
}

impl MetaKey {
    fn number(self) -> u32 {
        match self {
            Self::Mark => 3,
            Self::IifName => 6,
            Self::OifName => 7,
            Self::NfProto => 15,
            Self::L4Proto => 16,
            Self::Unknown(n) => n,
        }
    }

    fn from_number(number: u32) -> Self {
        match number {
            3 => Self::Mark,
            6 => Self::IifName,
            7 => Self::OifName,
            15 => Self::NfProto,
            16 => Self::L4Proto,
            n => Self::Unknown(n),
        }
    }
}

impl CtKey {
    fn number(self) -> u32 {
        match self {
            Self::State => 0,
            Self::Mark => 3,
            Self::Unknown(n) => n,
        }
    }

    fn from_number(number: u32) -> Self {
        match number {
            0 => Self::State,
            3 => Self::Mark,
            n => Self::Unknown(n),
        }
    }
}

impl PayloadBase {
    fn number(self) -> u32 {
        match self {
            Self::Link => 0,
            Self::Network => 1,
            Self::Transport => 2,
            Self::Unknown(n) => n,
        }
    }

    fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Link,
            1 => Self::Network,
            2 => Self::Transport,
            n => Self::Unknown(n),
        }
    }
}

impl CmpOp {
    fn number(self) -> u32 {
        match self {
            Self::Eq => 0,
            Self::Neq => 1,
            Self::Lt => 2,
            Self::Lte => 3,
            Self::Gt => 4,
            Self::Gte => 5,
            Self::Unknown(n) => n,
        }
    }

    fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Eq,
            1 => Self::Neq,
            2 => Self::Lt,
            3 => Self::Lte,
            4 => Self::Gt,
            5 => Self::Gte,
            n => Self::Unknown(n),
        }
    }
}

impl RateUnit {
    fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Seconds(n) => n,
        }
    }

    fn from_seconds(seconds: u64) -> Self {
        match seconds {
            1 => Self::Second,
            60 => Self::Minute,
            3600 => Self::Hour,
            n => Self::Seconds(n),
        }
    }
}

impl Reject {
    const ICMPX: u32 = 2;
    const TCP_RESET: u32 = 1;
    const ICMPX_ADMIN_PROHIBITED: u8 = 3;

    fn numbers(self) -> (u32, u8) {
        match self {
            Self::TcpReset => (Self::TCP_RESET, 0),
            Self::AdminProhibited => (Self::ICMPX, Self::ICMPX_ADMIN_PROHIBITED),
            Self::Unknown { kind, code } => (kind, code),
        }
    }

    fn from_numbers(kind: u32, code: u8) -> Self {
        match (kind, code) {
            (Self::TCP_RESET, _) => Self::TcpReset,
            (Self::ICMPX, Self::ICMPX_ADMIN_PROHIBITED) => Self::AdminProhibited,
            (kind, code) => Self::Unknown { kind, code },
        }
    }
}

mod meta {
    pub(super) const DREG: u16 = 1;
    pub(super) const KEY: u16 = 2;
    pub(super) const SREG: u16 = 3;
}
mod ct {
    pub(super) const DREG: u16 = 1;
    pub(super) const KEY: u16 = 2;
    pub(super) const SREG: u16 = 4;
}
mod payload {
    pub(super) const DREG: u16 = 1;
    pub(super) const BASE: u16 = 2;
    pub(super) const OFFSET: u16 = 3;
    pub(super) const LEN: u16 = 4;
}
mod cmp {
    pub(super) const SREG: u16 = 1;
    pub(super) const OP: u16 = 2;
    pub(super) const DATA: u16 = 3;
}
mod range {
    pub(super) const SREG: u16 = 1;
    pub(super) const OP: u16 = 2;
    pub(super) const FROM: u16 = 3;
    pub(super) const TO: u16 = 4;
}
mod bitwise {
    pub(super) const SREG: u16 = 1;
    pub(super) const DREG: u16 = 2;
    pub(super) const LEN: u16 = 3;
    pub(super) const MASK: u16 = 4;
    pub(super) const XOR: u16 = 5;
}
mod immediate {
    pub(super) const DREG: u16 = 1;
    pub(super) const DATA: u16 = 2;
}
mod lookup {
    pub(super) const SET: u16 = 1;
    pub(super) const SREG: u16 = 2;
    pub(super) const DREG: u16 = 3;
    pub(super) const FLAGS: u16 = 5;
    pub(super) const INVERTED: u32 = 1;
}
mod counter {
    pub(super) const BYTES: u16 = 1;
    pub(super) const PACKETS: u16 = 2;
}
mod objref {
    pub(super) const TYPE: u16 = 1;
    pub(super) const NAME: u16 = 2;
}
mod limit {
    pub(super) const RATE: u16 = 1;
    pub(super) const UNIT: u16 = 2;
    pub(super) const BURST: u16 = 3;
    pub(super) const TYPE: u16 = 4;
    pub(super) const FLAGS: u16 = 5;
    pub(super) const PACKETS: u32 = 0;
}
mod log {
    pub(super) const GROUP: u16 = 1;
    pub(super) const PREFIX: u16 = 2;
    pub(super) const LEVEL: u16 = 5;
}
mod reject {
    pub(super) const TYPE: u16 = 1;
    pub(super) const CODE: u16 = 2;
}

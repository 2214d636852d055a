//! Rules and their expressions, only such as `nft list ruleset` can print; their bytes and back.
//!
//! Owns the expressions' attributes in `linux/netfilter/nf_tables.h`. Does not own what rules mean
//! together.

mod codec;

use std::fmt;

pub(crate) use codec::write_rule_chain;

/// A rule: its expressions run left to right until one does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub expressions: Vec<Expr>,
    /// Shown by `nft list`; at most 127 bytes.
    pub comment: Option<String>,
}

/// A 32-bit register, 0 to 15. Values longer than 4 bytes take the registers that follow, which is how
/// a concatenation is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u8);

impl Register {
    /// The first one.
    pub const FIRST: Self = Self(0);

    /// The register `words` 32-bit words on.
    ///
    /// # Panics
    ///
    /// Behind the sixteenth register: a concatenation longer than 64 bytes is a mistake in the code
    /// that composes the rule.
    #[must_use]
    pub const fn plus(self, words: u8) -> Self {
        assert!(self.0 + words < 16, "nf_tables has 16 registers");
        Self(self.0 + words)
    }
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Discard it.
    Drop,
    /// Let it pass this base chain.
    Accept,
    /// Go on with the next rule.
    Continue,
    /// Leave this chain for the one that jumped here.
    Return,
    /// Run that chain, then come back.
    Jump(String),
    /// Run that chain instead of the rest of this one.
    Goto(String),
    /// A code this crate does not know.
    Unknown(i32),
}

impl Verdict {
    /// The chain it leads to.
    #[must_use]
    pub fn chain(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

/// Packet metadata (`enum nft_meta_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKey {
    /// Packet mark, 4 bytes in host order.
    Mark,
    /// Input interface name, 16 bytes.
    IifName,
    /// Output interface name, 16 bytes.
    OifName,
    /// Network family, 1 byte: 2 for IPv4, 10 for IPv6.
    NfProto,
    /// Transport protocol, 1 byte, behind any IPv6 extension headers.
    L4Proto,
    /// Another one.
    Unknown(u32),
}

/// Conntrack keys (`enum nft_ct_keys`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtKey {
    /// State bits, 4 bytes in host order, see [`ct_state`].
    State,
    /// Connection mark, 4 bytes in host order.
    Mark,
    /// Another one.
    Unknown(u32),
}

/// Bits of [`CtKey::State`] (`NF_CT_STATE_BIT`).
pub mod ct_state {
    /// Belongs to no connection and can start none.
    pub const INVALID: u32 = 1;
    /// Belongs to a connection that has seen packets both ways.
    pub const ESTABLISHED: u32 = 2;
    /// Starts a connection that another one expects, or is an ICMP error about one.
    pub const RELATED: u32 = 4;
    /// Starts a connection.
    pub const NEW: u32 = 8;
    /// Exempt from tracking.
    pub const UNTRACKED: u32 = 64;
}

/// Where a payload offset counts from (`enum nft_payload_bases`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    /// Link-layer header.
    Link,
    /// IP header.
    Network,
    /// Header after IP and its extensions.
    Transport,
    /// Another one.
    Unknown(u32),
}

/// Comparisons (`enum nft_cmp_ops`); bytes compare as in `memcmp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmpOp {
    /// Equal.
    Eq,
    /// Not equal.
    Neq,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Another one.
    Unknown(u32),
}

/// Where a lookup's result goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// Only whether the key is in the set decides; `inverted` means it must not be.
    Membership {
        /// Match if the key is absent.
        inverted: bool,
    },
    /// The map's verdict is carried out.
    Verdict,
    /// The map's value is loaded.
    Value(Register),
}

/// Unit of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateUnit {
    /// Per second.
    Second,
    /// Per minute.
    Minute,
    /// Per hour.
    Hour,
    /// Per so many seconds.
    Seconds(u64),
}

/// Who a log message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// The kernel's log, at this syslog level (4 is warning).
    Kernel {
        /// Syslog level.
        level: u32,
    },
    /// Listeners of an NFLOG group.
    Group(u16),
}

/// How a packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// A TCP reset.
    TcpReset,
    /// "Administratively prohibited" of the packet's family.
    AdminProhibited,
    /// Another type and code.
    Unknown {
        /// `enum nft_reject_types`.
        kind: u32,
        /// Its code.
        code: u8,
    },
}

/// One expression.
#[derive(Clone, PartialEq, Eq)]
pub enum Expr {
    /// Loads metadata.
    Meta {
        /// Which.
        key: MetaKey,
        /// Where to.
        to: Register,
    },
    /// Sets metadata.
    SetMeta {
        /// Which.
        key: MetaKey,
        /// From where.
        from: Register,
    },
    /// Loads a connection's property.
    Ct {
        /// Which.
        key: CtKey,
        /// Where to.
        to: Register,
    },
    /// Sets a connection's property.
    SetCt {
        /// Which.
        key: CtKey,
        /// From where.
        from: Register,
    },
    /// Loads bytes of the packet; does not match if it is too short.
    Payload {
        /// Which header.
        base: PayloadBase,
        /// First byte.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// Where to.
        to: Register,
    },
    /// Compares a register with a constant.
    Cmp {
        /// The register.
        from: Register,
        /// How.
        op: CmpOp,
        /// The constant; may be a prefix, as for `iifname "cali*"`.
        value: Vec<u8>,
    },
    /// Matches if a register is inside (or outside) a range of constants.
    Range {
        /// The register.
        from: Register,
        /// Match outside instead.
        inverted: bool,
        /// Lowest.
        first: Vec<u8>,
        /// Highest.
        last: Vec<u8>,
    },
    /// Register = (register & mask) ^ xor.
    Bitwise {
        /// Operand.
        from: Register,
        /// Result.
        to: Register,
        /// Kept bits.
        mask: Vec<u8>,
        /// Flipped bits.
        xor: Vec<u8>,
    },
    /// Loads a constant.
    Immediate {
        /// Where to.
        to: Register,
        /// The constant.
        value: Vec<u8>,
    },
    /// Ends the rule with a verdict.
    Verdict(Verdict),
    /// Looks a key up in a set or map.
    Lookup {
        /// Name of the set.
        set: String,
        /// First register of the key.
        from: Register,
        /// What becomes of the answer.
        result: LookupResult,
    },
    /// Counts, in the rule itself. The kernel reports running values, so rules that are compared with
    /// what was written use [`Expr::CounterRef`].
    Counter {
        /// Packets so far.
        packets: u64,
        /// Bytes so far.
        bytes: u64,
    },
    /// Counts in a named counter.
    CounterRef {
        /// Name of the counter.
        name: String,
    },
    /// Matches while the rate is not exceeded.
    Limit {
        /// Packets per unit.
        rate: u64,
        /// The unit.
        unit: RateUnit,
        /// Packets above it that pass at once.
        burst: u32,
        /// Match what exceeds it instead.
        over: bool,
    },
    /// Logs the packet.
    Log {
        /// Starts the message; at most 127 bytes.
        prefix: String,
        /// Where to.
        target: LogTarget,
    },
    /// Refuses the packet with an answer.
    Reject(Reject),
    /// An expression this crate does not know: never written, never equal to one that is.
    Unknown {
        /// Its name.
        name: String,
    },
}

impl Expr {
    /// The set it looks up.
    #[must_use]
    pub fn set(&self) -> Option<&str> {
        match self {
            Self::Lookup { set, .. } => Some(set),
            _ => None,
        }
    }
}

impl fmt::Debug for Expr {
    /// One short line per expression, close to `nft --debug=netlink`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta { key, to } => write!(f, "meta {key:?} => {}", to.0),
            Self::SetMeta { key, from } => write!(f, "meta set {key:?} with {}", from.0),
            Self::Ct { key, to } => write!(f, "ct {key:?} => {}", to.0),
            Self::SetCt { key, from } => write!(f, "ct set {key:?} with {}", from.0),
            Self::Payload {
                base,
                offset,
                len,
                to,
            } => write!(f, "payload {len}@{base:?}+{offset} => {}", to.0),
            Self::Cmp { from, op, value } => write!(f, "cmp {op:?} {} {value:02x?}", from.0),
            Self::Range {
                from,
                inverted,
                first,
                last,
            } => write!(
                f,
                "range {}{} {first:02x?} {last:02x?}",
                if *inverted { "not " } else { "" },
                from.0
            ),
            Self::Bitwise {
                from,
                to,
                mask,
                xor,
            } => write!(
                f,
                "bitwise {} = {} & {mask:02x?} ^ {xor:02x?}",
                to.0, from.0
            ),
            Self::Immediate { to, value } => write!(f, "immediate {} {value:02x?}", to.0),
            Self::Verdict(verdict) => write!(f, "{verdict:?}"),
            Self::Lookup { set, from, result } => {
                write!(f, "lookup {} in {set} {result:?}", from.0)
            }
            Self::Counter { packets, bytes } => write!(f, "counter {packets} {bytes}"),
            Self::CounterRef { name } => write!(f, "counter {name:?}"),
            Self::Limit {
                rate,
                unit,
                burst,
                over,
            } => write!(f, "limit {rate}/{unit:?} burst {burst} over {over}"),
            Self::Log { prefix, target } => write!(f, "log {prefix:?} {target:?}"),
            Self::Reject(reject) => write!(f, "reject {reject:?}"),
            Self::Unknown { name } => write!(f, "unknown {name:?}"),
        }
    }
}

//! What can be wrong with input from outside.

/// Why a pool or a log cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A pool without a subnet has no blocks.
    #[error("a pool needs at least one subnet")]
    NoSubnet,
    /// A subnet without an address of either family.
    #[error("subnet {subnet} has neither an IPv4 nor an IPv6 prefix")]
    NoFamily {
        /// Position in the pool, from 0.
        subnet: usize,
    },
    /// The families of a subnet, or of two subnets, do not go together.
    #[error("subnet {subnet} differs in families or host bits from what the pool needs")]
    MismatchedFamilies {
        /// Position in the pool, from 0.
        subnet: usize,
    },
    /// A subnet smaller than a block, or with more blocks than an index counts.
    #[error(
        "subnet {subnet} with {host_bits} host bits does not divide into blocks of {block_bits} bits"
    )]
    SubnetSize {
        /// Position in the pool, from 0.
        subnet: usize,
        /// Bits below the prefix.
        host_bits: u8,
        /// Bits of a block.
        block_bits: u8,
    },
    /// A prefix has bits below its length.
    #[error("subnet {subnet} has host bits that are not zero")]
    HostBits {
        /// Position in the pool, from 0.
        subnet: usize,
    },
    /// A record before the last is damaged: what it said is lost, so nothing after it can be
    /// trusted to be all there was.
    #[error("write-ahead log: record {record} is damaged and is not the last one")]
    DamagedLog {
        /// Number of the record, from 1.
        record: usize,
    },
    /// The log was written by another version.
    #[error("write-ahead log: unknown format {found:?}, this build reads {expected:?}")]
    UnknownLogFormat {
        /// First line of the log.
        found: String,
        /// First line that this build writes.
        expected: &'static str,
    },
}

//! What can go wrong, said as what we were doing to what.

use std::fmt;
use std::io;

use thiserror::Error;

/// Everything that this crate can fail with.
#[derive(Debug, Error)]
pub enum Error {
    /// A system call on the netlink socket failed.
    #[error("cannot {action}")]
    Socket {
        /// What we were doing, as a verb phrase.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a transaction; none of it is in force.
    #[error("cannot commit the transaction on table {table}: {}", Listed(.failures))]
    Transaction {
        /// The table it was for.
        table: String,
        /// Every operation that was refused, in the order of the transaction; never empty.
        failures: Vec<Failure>,
    },
    /// The transaction would be refused or mean something else than intended, so it was not sent.
    #[error("cannot send {operation}: {why}")]
    Invalid {
        /// The operation, as the transaction names it.
        operation: String,
        /// Which rule it breaks.
        why: String,
    },
    /// The kernel refused a request outside a transaction.
    #[error("cannot {what}")]
    Query {
        /// What we asked for, as a verb phrase.
        what: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer does not parse.
    #[error("cannot understand the kernel's {what}")]
    Malformed {
        /// The part that did not parse.
        what: &'static str,
    },
    /// The ruleset changed under every attempt to read it.
    #[error("cannot read table {table}: it changed during each of {attempts} attempts")]
    Unstable {
        /// The table.
        table: String,
        /// How often we tried.
        attempts: u32,
    },
    /// Another live socket owns the table.
    #[error(
        "cannot use table {table}: it is owned by netlink port {port}; is another agent running?"
    )]
    Owned {
        /// The table.
        table: String,
        /// Netlink port of the owner.
        port: u32,
    },
    /// A plan contradicts itself or the interface names it may use.
    #[error("cannot render the plan: {why}")]
    Plan {
        /// What is wrong with it.
        why: String,
    },
}

/// One operation that the kernel refused.
#[derive(Debug)]
pub struct Failure {
    /// What was to be done to what.
    pub operation: String,
    /// The kernel's error number.
    pub error: io::Error,
    /// The kernel's words, where it had any (extended acknowledgement).
    pub message: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.error)?;
        match &self.message {
            Some(message) => write!(f, " ({message})"),
            None => Ok(()),
        }
    }
}

struct Listed<'a>(&'a [Failure]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("no operation is to blame"),
            [only] => only.fmt(f),
            [first, rest @ ..] => write!(f, "{first}, and {} more", rest.len()),
        }
    }
}

//! Errors as the specification prints them: one JSON object on standard output.

use serde::{Deserialize, Serialize};

/// The specification's error codes (SPEC.md, "Error"). Codes from 100 on are a plugin's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub enum ErrorCode {
    /// 1: the configuration asks for a version that we do not speak.
    IncompatibleVersion,
    /// 2: the configuration has a key that we do not support.
    UnsupportedField,
    /// 3: the container is unknown or gone; the runtime need not clean up.
    UnknownContainer,
    /// 4: an environment variable is missing or makes no sense.
    InvalidEnvironment,
    /// 5: reading or writing failed.
    Io,
    /// 6: something that should be JSON is not.
    Decode,
    /// 7: the network configuration makes no sense.
    InvalidConfig,
    /// 11: a passing condition; the runtime should call again.
    TryAgainLater,
    /// 50 (STATUS): the plugin cannot serve ADD now.
    NotAvailable,
    /// 51 (STATUS): as 50, and existing containers may have limited connectivity.
    LimitedConnectivity,
    /// 100: CHECK found a difference between the recorded and the real state.
    StateDiffers,
    /// Any other number, kept as it is.
    Other(u32),
}

impl From<u32> for ErrorCode {
    fn from(code: u32) -> ErrorCode {
        match code {
            1 => ErrorCode::IncompatibleVersion,
            2 => ErrorCode::UnsupportedField,
            3 => ErrorCode::UnknownContainer,
            4 => ErrorCode::InvalidEnvironment,
            5 => ErrorCode::Io,
            6 => ErrorCode::Decode,
            7 => ErrorCode::InvalidConfig,
            11 => ErrorCode::TryAgainLater,
            50 => ErrorCode::NotAvailable,
            51 => ErrorCode::LimitedConnectivity,
            100 => ErrorCode::StateDiffers,
            other => ErrorCode::Other(other),
        }
    }
}

impl From<ErrorCode> for u32 {
    fn from(code: ErrorCode) -> u32 {
        match code {
            ErrorCode::IncompatibleVersion => 1,
            ErrorCode::UnsupportedField => 2,
            ErrorCode::UnknownContainer => 3,
            ErrorCode::InvalidEnvironment => 4,
            ErrorCode::Io => 5,
            ErrorCode::Decode => 6,
            ErrorCode::InvalidConfig => 7,
            ErrorCode::TryAgainLater => 11,
            ErrorCode::NotAvailable => 50,
            ErrorCode::LimitedConnectivity => 51,
            ErrorCode::StateDiffers => 100,
            ErrorCode::Other(other) => other,
        }
    }
}

/// A refusal, with what a person needs to see why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct CniError {
    /// What kind of refusal.
    pub code: ErrorCode,
    /// One short sentence.
    pub msg: String,
    /// The cause, empty where the sentence says it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl CniError {
    /// A refusal without details.
    pub fn new(code: ErrorCode, msg: impl Into<String>) -> CniError {
        CniError {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// The same refusal with its cause.
    pub fn because(mut self, details: impl ToString) -> CniError {
        self.details = details.to_string();
        self
    }
}

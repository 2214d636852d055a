//! The plugin's behaviour: from (environment, standard input) to (standard output, exit status).

use std::error::Error as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{self, ClientError, Patience};
use crate::config::{Environment, NetworkConfig};
use crate::error::{CniError, ErrorCode};
use crate::protocol::{Attachment, Call, Outcome};
use crate::tombstone;
use crate::version::SpecVersion;

/// ADD and CHECK outlast a restart of the agent, and end well before the runtime's own two minutes.
const PATIENT: Patience = Patience {
    connect: Duration::from_secs(10),
    answer: Duration::from_secs(30),
};

/// DEL has a fallback, so a dead agent must not hold a node's pods in Terminating for long.
const DEL_PATIENCE: Patience = Patience {
    connect: Duration::from_secs(2),
    answer: Duration::from_secs(30),
};

/// STATUS is polled: the answer "not now" is as good as any.
const STATUS_PATIENCE: Patience = Patience {
    connect: Duration::from_secs(1),
    answer: Duration::from_secs(5),
};

/// What the plugin process prints and how it exits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Standard output; empty where the verb has none.
    pub stdout: String,
    /// 0 for success, 1 for an error object on standard output.
    pub status: u8,
}

/// Runs one call.
pub fn run(environment: &Environment, stdin: &[u8]) -> Exit {
    // VERSION comes first: it is asked with nothing but a version on standard input, or nothing.
    if environment.command == "VERSION" {
        return Exit {
            stdout: supported_versions(stdin).to_string(),
            status: 0,
        };
    }
    let version = NetworkConfig::parse(stdin)
        .and_then(|config| config.version())
        .unwrap_or(SpecVersion::LATEST);
    match serve(environment, stdin) {
        Ok(stdout) => Exit {
            stdout: stdout.map(|v| v.to_string()).unwrap_or_default(),
            status: 0,
        },
        Err(error) => {
            let mut object = json!(error);
            object["cniVersion"] = version.as_str().into();
            Exit {
                stdout: object.to_string(),
                status: 1,
            }
        }
    }
}

fn supported_versions(stdin: &[u8]) -> Value {
    let asked = serde_json::from_slice::<Value>(stdin)
        .ok()
        .and_then(|value| {
            value
                .get("cniVersion")?
                .as_str()
                .and_then(SpecVersion::parse)
        })
        .unwrap_or(SpecVersion::LATEST);
    json!({ "cniVersion": asked.as_str(), "supportedVersions": SpecVersion::ALL })
}

fn serve(environment: &Environment, stdin: &[u8]) -> Result<Option<Value>, CniError> {
    let config = NetworkConfig::parse(stdin)?;
    let version = config.version()?;
    match environment.command.as_str() {
        "ADD" => {
            let call = Call::Add {
                attachment: wired(environment)?,
            };
            match ask(&config, &call, PATIENT, ErrorCode::TryAgainLater)? {
                Outcome::Added(result) => Ok(Some(result.render(version))),
                other => Err(unexpected(&other)),
            }
        }
        "DEL" => delete(environment, &config).map(|()| None),
        "CHECK" => {
            let previous = config
                .prev_result
                .clone()
                .ok_or_else(|| CniError::new(ErrorCode::InvalidConfig, "CHECK needs prevResult"))?;
            let call = Call::Check {
                attachment: wired(environment)?,
                previous,
            };
            done(ask(&config, &call, PATIENT, ErrorCode::TryAgainLater)?)
        }
        "STATUS" => done(ask(
            &config,
            &Call::Status,
            STATUS_PATIENCE,
            ErrorCode::NotAvailable,
        )?),
        "GC" => match config.valid() {
            Some(valid) => {
                let call = Call::Gc {
                    valid: valid.to_vec(),
                };
                done(ask(&config, &call, PATIENT, ErrorCode::TryAgainLater)?)
            }
            None => Err(CniError::new(
                ErrorCode::InvalidConfig,
                "GC needs cni.dev/valid-attachments",
            )),
        },
        other => Err(CniError::new(
            ErrorCode::InvalidEnvironment,
            "CNI_COMMAND is not a verb of the specification",
        )
        .because(format!("{other:?}"))),
    }
}

fn wired(environment: &Environment) -> Result<Attachment, CniError> {
    Ok(Attachment {
        key: environment.key()?,
        netns: Some(environment.required_netns()?),
        pod: environment.pod(),
    })
}

fn delete(environment: &Environment, config: &NetworkConfig) -> Result<(), CniError> {
    let attachment = Attachment {
        key: environment.key()?,
        netns: environment.required_netns().ok(),
        pod: environment.pod(),
    };
    let call = Call::Del {
        attachment: attachment.clone(),
    };
    match client::ask(&config.socket, &call, DEL_PATIENCE) {
        Ok(outcome) => done(outcome).map(|_| ()),
        Err(error @ ClientError::Unreachable { .. }) => {
            let directory = tombstone::directory(&config.socket);
            tombstone::write(&directory, &attachment).map_err(|cause| {
                refusal(ErrorCode::TryAgainLater, &error).because(format!(
                    "{error}; tombstone in {}: {cause}",
                    directory.display()
                ))
            })
        }
        Err(error) => Err(refusal(ErrorCode::TryAgainLater, &error)),
    }
}

fn ask(
    config: &NetworkConfig,
    call: &Call,
    patience: Patience,
    unreachable: ErrorCode,
) -> Result<Outcome, CniError> {
    client::ask(&config.socket, call, patience).map_err(|error| refusal(unreachable, &error))
}

fn refusal(code: ErrorCode, error: &ClientError) -> CniError {
    let msg = match error {
        ClientError::Unreachable { .. } | ClientError::Late { .. } => "try again later",
        ClientError::Foreign { .. } => "the plugin and the agent do not match",
    };
    let cause = error
        .source()
        .map(|source| format!(": {source}"))
        .unwrap_or_default();
    CniError::new(code, msg).because(format!("{error}{cause}"))
}

fn done(outcome: Outcome) -> Result<Option<Value>, CniError> {
    match outcome {
        Outcome::Done => Ok(None),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(outcome: &Outcome) -> CniError {
    match outcome {
        Outcome::Failed(error) => error.clone(),
        other => CniError::new(ErrorCode::Decode, "the agent answered another verb")
            .because(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests;

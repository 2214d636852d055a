//! What the numbers were measured on.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

use crate::net::netns::cores;

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Cores that the bench may use.
    pub cores: usize,
    /// Memory in gibibytes.
    pub memory: f64,
    /// Kernel release.
    pub kernel: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
        };
        let kibibytes = field("/proc/meminfo", "MemTotal");
        let kibibytes = kibibytes.split_whitespace().next();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: field("/proc/cpuinfo", "model name"),
            cores: cores().len(),
            memory: kibibytes.and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0 / 1024.0,
            kernel: kernel.trim().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cores of {}, {:.0} GiB, Linux {}",
            self.cores, self.processor, self.memory, self.kernel
        )
    }
}

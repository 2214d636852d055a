//! What the numbers were measured on.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::net::netns::cores;

/// The machine and the day.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Cores that the bench may use.
    pub cores: usize,
    /// Memory in gibibytes.
    pub memory: f64,
    /// Kernel release.
    pub kernel: String,
    /// The day, as YYYY-MM-DD in UTC.
    pub day: String,
}

impl Machine {
    /// This one, now.
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
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            processor: field("/proc/cpuinfo", "model name"),
            cores: cores().len(),
            memory: kibibytes.and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0 / 1024.0,
            kernel: kernel.trim().to_owned(),
            day: day(seconds.map_or(0, |since| since.as_secs() / 86_400)),
        }
    }
}

/// The date of a day since 1970-01-01: years are counted from March, so that the leap day comes last.
fn day(since: u64) -> String {
    let days = since + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        const CASES: &[(u64, &str)] = &[
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_788, "2026-12-01"),
        ];
        for (since, date) in CASES {
            assert_eq!(day(*since), *date);
        }
    }
}

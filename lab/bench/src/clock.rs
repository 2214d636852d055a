//! The time of day and the date, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// Today, as YYYY-MM-DD.
pub fn today() -> String {
    day(now() / DAY)
}

/// The time of day, as HH:MM:SS.
pub fn time() -> String {
    let of_day = now() % DAY;
    format!(
        "{:02}:{:02}:{:02}",
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// So many seconds as people say it.
pub fn span(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match minutes {
        _ if seconds < 100.0 => format!("{seconds:.0} s"),
        0..100 => format!("{minutes} min"),
        _ => format!("{} h {:02} min", minutes / 60, minutes % 60),
    }
}

/// Seconds since 1970-01-01; none on a clock that stands before it.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
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

    #[test]
    fn spans_are_told_in_what_fits() {
        const CASES: &[(f64, &str)] = &[
            (0.4, "0 s"),
            (99.0, "99 s"),
            (170.0, "3 min"),
            (5_940.0, "99 min"),
            (13_500.0, "3 h 45 min"),
        ];
        for (seconds, text) in CASES {
            assert_eq!(span(*seconds), *text);
        }
    }
}

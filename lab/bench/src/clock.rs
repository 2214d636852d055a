//! The time of day and the date, in UTC.

use jiff::Timestamp;

/// Today, as YYYY-MM-DD.
pub fn today() -> String {
    Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// The time of day, as HH:MM:SS.
pub fn time() -> String {
    Timestamp::now().strftime("%H:%M:%S").to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

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

//! What a run yields, and what several runs come to.
//!
//! Owns values, medians and verdicts. Does not own how they are obtained ([`crate::cases`]) or shown
//! ([`crate::report`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::daemons::Daemon;

/// Something that is measured in every run of a case.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Metric {
    /// Name in JSON.
    pub key: &'static str,
    /// Name for people.
    pub label: &'static str,
    /// Unit.
    pub unit: Unit,
}

/// Unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Thousandths of a second.
    Milliseconds,
    /// 1,048,576 octets.
    Mebibytes,
    /// A number of things.
    Count,
    /// A share of one, or things per thing.
    Ratio,
    /// Hundredths of a processor core.
    PercentOfCore,
}

impl Unit {
    /// How it is written behind a number.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Mebibytes => "MiB",
            Self::Count | Self::Ratio => "",
            Self::PercentOfCore => "%",
        }
    }

    /// `number` as people read it.
    pub fn show(self, number: f64) -> String {
        match self {
            Self::Count => format!("{number:.0}"),
            Self::PercentOfCore => format!("{number:.3}"),
            _ if number >= 100.0 => format!("{number:.0}"),
            _ if number >= 10.0 => format!("{number:.1}"),
            Self::Ratio | Self::Milliseconds | Self::Mebibytes => format!("{number:.2}"),
            Self::Seconds => format!("{number:.3}"),
        }
    }
}

/// One measured value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// In the metric's unit.
    Number(f64),
    /// The end was not reached within so many seconds.
    NotIn(f64),
}

/// What one run of one daemon yields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// By the key of the metric.
    pub values: BTreeMap<String, Value>,
    /// What a reader of the numbers should know.
    pub notes: Vec<String>,
}

impl Sample {
    /// Records a number.
    pub fn number(&mut self, key: &'static str, number: f64) {
        self.values.insert(key.to_owned(), Value::Number(number));
    }

    /// Records that the end was not reached.
    pub fn not_in(&mut self, key: &'static str, seconds: f64) {
        self.values.insert(key.to_owned(), Value::NotIn(seconds));
    }

    /// Adds a remark once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// The first value that is no number: JSON has no infinity, and no reader could do anything with it.
    pub fn unsound(&self) -> Option<&str> {
        let mut values = self.values.iter();
        let unsound = values.find(|(_, value)| match value {
            Value::Number(number) | Value::NotIn(number) => !number.is_finite(),
        });
        unsound.map(|(key, _)| key.as_str())
    }

    /// Whether some end was not reached.
    pub fn incomplete(&self) -> bool {
        self.values
            .values()
            .any(|value| matches!(value, Value::NotIn(_)))
    }
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was measured, be it that the end was not reached.
    Measured(Sample),
    /// The daemon cannot do it, or is not here.
    NotApplicable(String),
    /// The daemon ended or said something impossible.
    Failed(String),
}

/// All rounds of one daemon in one case and placement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// In the order of the rounds.
    pub rounds: Vec<Outcome>,
}

/// What a series comes to for one metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Summary {
    /// Median, lowest and highest of the rounds that reached the end; the median counts the others as longer
    /// than any of them.
    Median {
        /// The one in the middle.
        median: f64,
        /// The lowest.
        low: f64,
        /// The highest.
        high: f64,
    },
    /// In half of the rounds or more, the end was not reached within so many seconds.
    NotIn(f64),
    /// Nothing was measured.
    Nothing,
}

impl Series {
    /// The value of `key` over all rounds.
    pub fn summary(&self, key: &str) -> Summary {
        let mut numbers = Vec::new();
        let mut missed = Vec::new();
        for outcome in &self.rounds {
            if let Outcome::Measured(sample) = outcome {
                match sample.values.get(key) {
                    Some(Value::Number(number)) => numbers.push(*number),
                    Some(Value::NotIn(limit)) => missed.push(*limit),
                    None => {}
                }
            }
        }
        numbers.sort_by(f64::total_cmp);
        let all = numbers.len() + missed.len();
        // The median of an even number of rounds is the mean of the two in the middle; both must be numbers.
        match (numbers.first(), numbers.last()) {
            (Some(low), Some(high)) if numbers.len() > all / 2 => Summary::Median {
                median: (numbers[(all - 1) / 2] + numbers[all / 2]) / 2.0,
                low: *low,
                high: *high,
            },
            _ => match missed.iter().copied().reduce(f64::max) {
                Some(limit) => Summary::NotIn(limit),
                None => Summary::Nothing,
            },
        }
    }

    /// Why nothing was measured, when that is so.
    pub fn reason(&self) -> Option<String> {
        let mut reason = None;
        for outcome in &self.rounds {
            match outcome {
                Outcome::Measured(_) => return None,
                Outcome::NotApplicable(text) => reason = Some(format!("n/a ({text})")),
                Outcome::Failed(text) => reason = Some(format!("failed ({text})")),
            }
        }
        reason
    }

    /// The remarks of all rounds, each once, and the failures of single rounds.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = Vec::new();
        for (round, outcome) in self.rounds.iter().enumerate() {
            match outcome {
                Outcome::Measured(sample) => {
                    for note in &sample.notes {
                        if !notes.contains(note) {
                            notes.push(note.clone());
                        }
                    }
                }
                Outcome::Failed(text) if self.reason().is_none() => {
                    notes.push(format!("round {} failed: {text}", round + 1));
                }
                _ => {}
            }
        }
        notes
    }
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Target {
    /// The metric that it is about.
    pub metric: &'static str,
    /// How far it may go.
    pub bound: Bound,
}

/// The limit of a target.
#[derive(Clone, Copy, Debug, Serialize)]
pub enum Bound {
    /// A multiple of what another daemon takes.
    Ratio {
        /// The other.
        to: Daemon,
        /// The multiple.
        at_most: f64,
    },
    /// A number in the metric's unit.
    AtMost(f64),
}

/// Whether a target is reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Verdict {
    /// It is; with the ratio or the number.
    Reached(String),
    /// It is not.
    Missed(String),
    /// It cannot be said, and why.
    Unknown(String),
}

impl Target {
    /// Compares our series with that of the daemon named.
    pub fn judge(&self, metric: &Metric, ours: &Series, theirs: Option<&Series>) -> Verdict {
        let verdict = |reached: bool, text: String| {
            if reached {
                Verdict::Reached(text)
            } else {
                Verdict::Missed(text)
            }
        };
        let own = match ours.summary(self.metric) {
            Summary::Median { median, .. } => median,
            Summary::NotIn(limit) => return Verdict::Missed(format!("not in {limit:.0} s")),
            Summary::Nothing => {
                let reason = ours.reason();
                return Verdict::Unknown(reason.unwrap_or_else(|| "not measured".into()));
            }
        };
        match self.bound {
            Bound::AtMost(limit) => verdict(
                own <= limit,
                format!("{} {}", metric.unit.show(own), metric.unit.symbol())
                    .trim()
                    .to_owned(),
            ),
            Bound::Ratio { to, at_most } => {
                match theirs.map(|series| series.summary(self.metric)) {
                    Some(Summary::Median { median, .. }) if median > 0.0 => {
                        verdict(own / median <= at_most, format!("{:.2}", own / median))
                    }
                    // The peer takes longer than its limit, so the true ratio is smaller than this one.
                    Some(Summary::NotIn(limit)) => {
                        let ratio = own / limit;
                        let text = format!("< {ratio:.2} ({} not in {limit:.0} s)", to.title());
                        if ratio <= at_most {
                            Verdict::Reached(text)
                        } else {
                            Verdict::Unknown(text)
                        }
                    }
                    _ => Verdict::Unknown(format!("{} was not measured", to.title())),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Metric = Metric {
        key: "time",
        label: "time",
        unit: Unit::Seconds,
    };

    fn series(values: &[Value]) -> Series {
        let sample = |value: &Value| {
            Outcome::Measured(Sample {
                values: BTreeMap::from([("time".to_owned(), *value)]),
                notes: Vec::new(),
            })
        };
        Series {
            rounds: values.iter().map(sample).collect(),
        }
    }

    #[test]
    fn rounds_that_did_not_end_count_as_longer_than_all_others() {
        use Value::{NotIn, Number};
        let median = |median, low, high| Summary::Median { median, low, high };
        let cases: &[(&[Value], Summary)] = &[
            (
                &[Number(3.0), Number(1.0), Number(2.0)],
                median(2.0, 1.0, 3.0),
            ),
            (&[Number(1.0), Number(3.0)], median(2.0, 1.0, 3.0)),
            (
                &[NotIn(9.0), Number(1.0), Number(2.0)],
                median(2.0, 1.0, 2.0),
            ),
            (&[NotIn(9.0), Number(1.0)], Summary::NotIn(9.0)),
            (&[NotIn(9.0), NotIn(9.0), Number(2.0)], Summary::NotIn(9.0)),
            (&[], Summary::Nothing),
        ];
        for (values, summary) in cases {
            assert_eq!(series(values).summary("time"), *summary, "{values:?}");
        }
    }

    #[test]
    fn verdicts_say_by_how_much() {
        use Value::{NotIn, Number};
        let ratio = Target {
            metric: "time",
            bound: Bound::Ratio {
                to: Daemon::Bird,
                at_most: 0.8,
            },
        };
        let absolute = Target {
            metric: "time",
            bound: Bound::AtMost(1.5),
        };
        let ours = series(&[Number(1.0)]);
        let judge =
            |target: &Target, theirs: &[Value]| target.judge(&TIME, &ours, Some(&series(theirs)));
        assert_eq!(
            judge(&ratio, &[Number(2.0)]),
            Verdict::Reached("0.50".into())
        );
        assert_eq!(
            judge(&ratio, &[Number(1.0)]),
            Verdict::Missed("1.00".into())
        );
        assert_eq!(
            judge(&ratio, &[NotIn(10.0)]),
            Verdict::Reached("< 0.10 (BIRD not in 10 s)".into())
        );
        assert!(matches!(judge(&ratio, &[NotIn(1.0)]), Verdict::Unknown(_)));
        assert!(matches!(judge(&ratio, &[]), Verdict::Unknown(_)));
        assert_eq!(judge(&absolute, &[]), Verdict::Reached("1.000 s".into()));
        let late = series(&[NotIn(60.0)]);
        assert_eq!(
            absolute.judge(&TIME, &late, None),
            Verdict::Missed("not in 60 s".into())
        );
    }
}

//! The measurements that a page is made from, kept beside it.
//!
//! Owns the file: what may stand in it, reading it, and writing it so that it is whole at any time. Does not own
//! how it is shown ([`crate::report`]).

mod folded;

use std::collections::{BTreeMap, HashSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::cases::{ALL, Case};
use crate::daemons::Daemon;
use crate::measure::{Bound, Metric, Outcome, Series, Summary, Target, Verdict};
use crate::options::Placement;
use crate::setting::Setting;

/// What was measured of one case, at one go.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// The case.
    pub case: &'static Case,
    /// With what.
    pub setting: Setting,
    /// How long all of it took, in seconds.
    pub seconds: f64,
    /// The rounds of each daemon, by where daemon and generator ran.
    pub placements: BTreeMap<Placement, BTreeMap<Daemon, Series>>,
}

impl CaseResult {
    /// The rounds of a daemon.
    pub fn series(&self, placement: Placement, daemon: Daemon) -> Option<&Series> {
        self.placements.get(&placement)?.get(&daemon)
    }

    /// The verdict on a target.
    pub fn judge(&self, placement: Placement, target: &Target) -> Verdict {
        let Some(ours) = self.series(placement, Daemon::Caracal) else {
            return Verdict::Unknown("ours was not measured".into());
        };
        let theirs = match target.bound {
            Bound::Ratio { to, .. } => self.series(placement, to),
            Bound::AtMost(_) => None,
        };
        target.judge(self.case.metric(target.metric), ours, theirs)
    }

    /// What we are judged by and take hardly longer for than the generator alone.
    pub fn close_to_generator(&self, placement: Placement) -> Vec<&'static Metric> {
        let median = |daemon, key: &str| match self.series(placement, daemon)?.summary(key) {
            Summary::Median { median, .. } => Some(median),
            Summary::NotIn(_) | Summary::Nothing => None,
        };
        let is_close = |key: &str| {
            let alone = median(Daemon::Direct, key)?;
            Some(median(Daemon::Caracal, key)? < CLOSE_TO_GENERATOR * alone)
        };
        let targets = self.case.targets.iter().map(|target| target.metric);
        let close = targets.filter(|key| is_close(key) == Some(true));
        close.map(|key| self.case.metric(key)).collect()
    }
}

/// Below so many times what the generator needs for itself, a time says as much of it as of the daemon.
const CLOSE_TO_GENERATOR: f64 = 1.5;

/// Results by case, each case at most once, in the order of [`ALL`].
#[derive(Clone, Debug, Default)]
pub struct Book {
    results: Vec<CaseResult>,
}

/// As it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    results: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    case: String,
    /// Says how much of what was measured; when it changes, the numbers are another case's.
    title: String,
    measured_with: Setting,
    seconds: f64,
    placements: BTreeMap<Placement, BTreeMap<Daemon, Series>>,
}

impl Book {
    /// The file of the page's data.
    pub fn beside(page: &Path) -> PathBuf {
        page.with_extension("json")
    }

    /// All results.
    pub fn results(&self) -> &[CaseResult] {
        &self.results
    }

    /// What was measured of a case.
    pub fn get(&self, case: &Case) -> Option<&CaseResult> {
        self.results
            .iter()
            .find(|result| result.case.name == case.name)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or holds what its case does not know; each such thing is a line.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let (book, faults) = Self::sift(&text, file)?;
        if faults.is_empty() {
            return Ok(book);
        }
        let lines: Vec<String> = faults.into_iter().map(|fault| fault.text).collect();
        bail!("{}:\n  {}", file.display(), lines.join("\n  "))
    }

    /// Reads a file in which the results of `renewed` are about to be replaced, or begins one. What is wrong with
    /// those results does not matter, and where every case is renewed, neither do results of cases that are no
    /// more: they are left out, and said in the lines that come with the book.
    ///
    /// # Errors
    /// As [`Book::read`], for what stays.
    pub fn open(file: &Path, renewed: &[&Case]) -> anyhow::Result<(Self, Vec<String>)> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok((Self::default(), Vec::new()));
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        let (book, faults) = Self::sift(&text, file)?;
        let all = renewed.len() == ALL.len();
        let (left_out, stay): (Vec<Fault>, Vec<Fault>) = faults
            .into_iter()
            .partition(|fault| all || renewed.iter().any(|case| case.name == fault.case));
        let texts = |faults: Vec<Fault>| faults.into_iter().map(|fault| fault.text);
        if stay.is_empty() {
            return Ok((book, texts(left_out).collect()));
        }
        let lines: Vec<String> = texts(stay).collect();
        bail!("{}:\n  {}", file.display(), lines.join("\n  "))
    }

    /// The results that can be understood, and what is wrong with the others.
    fn sift(text: &str, file: &Path) -> anyhow::Result<(Self, Vec<Fault>)> {
        let stored: Stored = serde_json::from_str(text)
            .with_context(|| format!("{} is not what the bench writes", file.display()))?;
        let mut book = Self::default();
        let mut faults = Vec::new();
        let mut seen = HashSet::new();
        for entry in stored.results {
            let case = entry.case.clone();
            let understood = if seen.insert(case.clone()) {
                entry.understand()
            } else {
                Err(format!("{case} stands there twice"))
            };
            match understood {
                Ok(result) => book.insert(result),
                Err(text) => faults.push(Fault { case, text }),
            }
        }
        Ok((book, faults))
    }

    /// Replaces what there is of a case.
    ///
    /// # Errors
    /// A daemon or a placement is missing, or something was measured that the case does not know.
    pub fn put(&mut self, result: CaseResult) -> anyhow::Result<()> {
        complete(&result)?;
        // What could not be read again must not be written.
        let result = Entry::of(&result)
            .understand()
            .map_err(anyhow::Error::msg)?;
        self.insert(result);
        Ok(())
    }

    fn insert(&mut self, result: CaseResult) {
        let name = result.case.name;
        self.results.retain(|other| other.case.name != name);
        self.results.push(result);
        let place = |case: &Case| ALL.iter().position(|known| known.name == case.name);
        self.results.sort_by_key(|result| place(result.case));
    }

    /// The text of the file: indented down to the rounds, each of which is a line.
    ///
    /// # Errors
    /// None that is known.
    pub fn text(&self) -> anyhow::Result<String> {
        let stored = Stored {
            results: self.results.iter().map(Entry::of).collect(),
        };
        folded::write(&stored)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written; then the old one is still there.
    pub fn save(&self, file: &Path) -> anyhow::Result<()> {
        write(file, &self.text()?)
    }
}

/// Something in a file that cannot be used.
#[derive(Debug)]
struct Fault {
    case: String,
    text: String,
}

impl Entry {
    fn of(result: &CaseResult) -> Self {
        Self {
            case: result.case.name.to_owned(),
            title: result.case.title.to_owned(),
            measured_with: result.setting.clone(),
            seconds: result.seconds,
            placements: result.placements.clone(),
        }
    }

    /// The result, or why the case cannot have it.
    fn understand(self) -> Result<CaseResult, String> {
        let name = &self.case;
        let Some(case) = ALL.iter().find(|case| case.name == name) else {
            return Err(format!(
                "there is no case {name} (any more): take its results out, or give them its new name"
            ));
        };
        let again = format!("measure it again: --cases {name}");
        if self.title != case.title {
            return Err(format!(
                "{name} was measured as \"{}\" and is \"{}\" now; {again}",
                self.title, case.title
            ));
        }
        for (placement, daemons) in &self.placements {
            let place = placement.name();
            for (daemon, series) in daemons {
                for outcome in &series.rounds {
                    let Outcome::Measured(sample) = outcome else {
                        continue;
                    };
                    let known = |key: &str| case.metrics.iter().any(|metric| metric.key == key);
                    if let Some(key) = sample.values.keys().find(|key| !known(key)) {
                        return Err(format!(
                            "{name} does not measure {key} (any more), which {daemon} has, {place}; {again}"
                        ));
                    }
                }
            }
        }
        Ok(CaseResult {
            case,
            setting: self.measured_with,
            seconds: self.seconds,
            placements: self.placements,
        })
    }
}

/// Fails when something of a case is missing: every daemon must appear in every placement, be it as "n/a".
fn complete(result: &CaseResult) -> anyhow::Result<()> {
    for placement in Placement::ALL {
        for daemon in Daemon::ALL {
            let series = result.series(placement, daemon);
            if series.is_none_or(|series| series.rounds.is_empty()) {
                bail!(
                    "{}: nothing of {daemon}, {}",
                    result.case.name,
                    placement.name()
                );
            }
        }
    }
    Ok(())
}

/// Writes a file whole or not at all; one that is replaced keeps its owner and its mode.
///
/// # Errors
/// It cannot be written.
pub fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let replace = || -> anyhow::Result<()> {
        let folder = match file.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let mut fresh = tempfile::Builder::new()
            .prefix(".caracal-bench-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)?;
        fresh.write_all(text.as_bytes())?;
        if let Ok(old) = std::fs::metadata(file) {
            use std::os::unix::fs::{MetadataExt, fchown};
            fresh.as_file().set_permissions(old.permissions())?;
            fchown(fresh.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        fresh.as_file().sync_all()?;
        fresh.persist(file)?;
        Ok(())
    };
    replace().with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
pub(crate) use tests::example;

#[cfg(test)]
mod tests;

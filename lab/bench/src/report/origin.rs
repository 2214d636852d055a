//! Where the numbers on the page come from: what all cases share stands at its head once, the rest with each case.

use std::collections::BTreeMap;

use super::page::escape;
use crate::book::Book;
use crate::daemons::Daemon;
use crate::setting::Setting;
use crate::source::Source;

/// The settings of all cases on a page.
pub(super) struct Origins<'a> {
    /// With the names of their cases.
    all: Vec<(&'static str, &'a Setting)>,
}

impl<'a> Origins<'a> {
    pub(super) fn of(book: &'a Book) -> Self {
        let all = book.results().iter();
        Self {
            all: all
                .map(|result| (result.case.name, &result.setting))
                .collect(),
        }
    }

    /// What all say alike; `None` when they do not, or there are none.
    fn shared(&self, of: impl Fn(&Setting) -> String) -> Option<String> {
        let (_, first) = self.all.first()?;
        let first = of(first);
        let alike = self.all.iter().all(|(_, setting)| of(setting) == first);
        alike.then_some(first)
    }

    /// For the head: when, on what, how often.
    pub(super) fn head(&self) -> String {
        let days = self.all.iter().map(|(_, setting)| &setting.day);
        let (Some(first), Some(last)) = (days.clone().min(), days.max()) else {
            return "Nothing was measured yet.".to_owned();
        };
        let mut text = if first == last {
            format!("Measured on {}", escape(first))
        } else {
            format!("Measured from {} to {}", escape(first), escape(last))
        };
        match self.shared(machine) {
            Some(machine) => text += &format!(", on {}.", escape(&machine)),
            None => text += ".",
        }
        match self.shared(rounds) {
            Some(rounds) => text += &format!(" {}.", escape(&rounds)),
            None => text += " Not all cases were run equally often; each says how often.",
        }
        if self.shared(machine).is_none() {
            text += "\n\n**Not all cases were measured on the same machine: compare within a case only.**\n";
            let mut machines: BTreeMap<String, Vec<&str>> = BTreeMap::new();
            for (case, setting) in &self.all {
                machines.entry(machine(setting)).or_default().push(case);
            }
            for (machine, cases) in machines {
                text += &format!("\n- {}: {}", escape(&machine), cases.join(", "));
            }
        }
        text
    }

    /// A daemon's version, for the table of daemons.
    pub(super) fn version(&self, daemon: Daemon) -> String {
        if self.all.is_empty() {
            return "not measured yet".to_owned();
        }
        self.shared(|setting| version(setting, daemon))
            .unwrap_or_else(|| "differs, see the cases".to_owned())
    }

    /// The cores of daemon and generator where they are pinned.
    pub(super) fn cores(&self) -> (String, String) {
        let core = |of: fn(&Setting) -> usize, else_: &str| {
            self.shared(|setting| format!("core {}", of(setting)))
                .unwrap_or_else(|| else_.to_owned())
        };
        (
            core(|setting| setting.daemon_core, "one core"),
            core(|setting| setting.generator_core, "another"),
        )
    }

    /// Prefixes for each set of attributes.
    pub(super) fn per_path(&self) -> String {
        self.shared(|setting| format!("about {}", setting.prefixes_per_path))
            .unwrap_or_else(|| "several".to_owned())
    }

    /// For a case: when, with which of our commits, how often; and whatever else is not the same for all cases.
    pub(super) fn line(&self, setting: &Setting) -> String {
        let mut parts = vec![
            format!("Caracal {}", version(setting, Daemon::Caracal)),
            rounds(setting),
        ];
        if self.shared(machine).is_none() {
            parts.push(machine(setting));
        }
        for daemon in Daemon::ALL {
            let ours = matches!(daemon, Daemon::Caracal | Daemon::Direct);
            if !ours && self.shared(|other| version(other, daemon)).is_none() {
                parts.push(format!("{} {}", daemon.title(), version(setting, daemon)));
            }
        }
        for of in [per_path, cores] {
            if self.shared(of).is_none() {
                parts.push(of(setting));
            }
        }
        escape(&format!(
            "Measured on {}: {}.",
            setting.day,
            parts.join("; ")
        ))
    }
}

fn machine(setting: &Setting) -> String {
    setting.machine.to_string()
}

fn rounds(setting: &Setting) -> String {
    match setting.rounds {
        1 => "1 round".to_owned(),
        rounds => format!("{rounds} rounds"),
    }
}

fn per_path(setting: &Setting) -> String {
    format!(
        "about {} prefixes for each set of attributes",
        setting.prefixes_per_path
    )
}

fn cores(setting: &Setting) -> String {
    format!(
        "pinned to core {}, the generator to core {}",
        setting.daemon_core, setting.generator_core
    )
}

/// A daemon's version, ours with what it was made from.
fn version(setting: &Setting, daemon: Daemon) -> String {
    let version = match setting.versions.get(&daemon) {
        Some(Ok(version)) => version.clone(),
        Some(Err(reason)) => return format!("none: {reason}"),
        None => return "not measured yet".to_owned(),
    };
    match (&setting.source, daemon) {
        (Source::Commit { name, changed }, Daemon::Caracal) => {
            let changed = if *changed {
                ", with changes that were not committed"
            } else {
                ""
            };
            format!("{version} (commit {name}{changed})")
        }
        (Source::Unknown(reason), Daemon::Caracal) => {
            format!("{version} (commit unknown: {reason})")
        }
        _ => version,
    }
}

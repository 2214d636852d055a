//! Which sources our binary was made from, as far as that can be known.
//!
//! Owns the questions to cargo's notes and to git. A commit is named only where it is the binary's: cargo notes
//! beside a binary the files that it was made from, and none of them may have changed since.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What a binary was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A commit.
    Commit {
        /// As `git describe` says it.
        name: String,
        /// Whether files of the tree differed from it.
        changed: bool,
    },
    /// Why that cannot be said.
    Unknown(String),
}

impl Source {
    /// That of `binary`. Changes of the files `own`, which the bench itself writes, do not count.
    pub fn of(binary: &Path, own: &[PathBuf]) -> Self {
        commit(binary, own).unwrap_or_else(Self::Unknown)
    }
}

/// Tells a binary from the one that takes its place: its size and when it was written.
pub fn stamp(binary: &Path) -> Option<(u64, SystemTime)> {
    let metadata = fs::metadata(binary).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

fn commit(binary: &Path, own: &[PathBuf]) -> Result<Source, String> {
    let (_, made) = stamp(binary).ok_or("there is no binary")?;
    let notes = fs::read_to_string(binary.with_extension("d"))
        .map_err(|_| "cargo has left no notes beside the binary")?;
    let sources = sources(&notes);
    let main = sources
        .iter()
        .find(|source| source.ends_with("src/main.rs"));
    let folder = main.and_then(|main| main.parent());
    let folder = folder.ok_or("cargo's notes name no src/main.rs")?;
    let top = git(folder, &["rev-parse", "--show-toplevel"])?;
    let top = Path::new(&top);
    // Manifests are not in the notes, and cargo does not build again for every change of theirs. That they were
    // heeded is left to whoever builds before measuring, as `make bench` does.
    for source in &sources {
        let name = source.strip_prefix(top).unwrap_or(source).display();
        match stamp(source) {
            None => return Err(format!("{name} is not there any more")),
            Some((_, written)) if written > made => {
                return Err(format!("{name} is newer than the binary"));
            }
            Some(_) => {}
        }
    }
    let name = git(top, &["describe", "--always", "--abbrev=12"])?;
    let mut status = vec![
        "status".to_owned(),
        "--porcelain".to_owned(),
        "--untracked-files=no".to_owned(),
        "--".to_owned(),
        ".".to_owned(),
    ];
    for file in own {
        // What lies elsewhere is not in this tree.
        if let Some(file) = within(top, file) {
            status.push(format!(":(top,exclude,literal){}", file.display()));
        }
    }
    let status: Vec<&str> = status.iter().map(String::as_str).collect();
    let changed = !git(top, &status)?.is_empty();
    Ok(Source::Commit { name, changed })
}

/// The files of a rule as make knows it, "target: file file"; a blank in a name has a backslash before it.
fn sources(notes: &str) -> Vec<PathBuf> {
    let rule = notes.lines().next().unwrap_or_default();
    let Some((_, files)) = rule.split_once(": ") else {
        return Vec::new();
    };
    let files = files.replace("\\ ", "\0");
    let files = files.split_whitespace();
    files
        .map(|file| PathBuf::from(file.replace('\0', " ")))
        .collect()
}

/// `file` as seen from `top`, where it lies within.
fn within(top: &Path, file: &Path) -> Option<PathBuf> {
    let top = fs::canonicalize(top).ok()?;
    let file = std::path::absolute(file).ok()?;
    // The file itself need not exist yet.
    let folder = fs::canonicalize(file.parent()?).ok()?;
    let folder = folder.strip_prefix(top).ok()?;
    Some(folder.join(file.file_name()?))
}

/// What git says in `folder`. The bench runs as root in a tree that may be somebody else's, which git would refuse
/// to look at.
fn git(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        // A hook that builds would have them lead elsewhere.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false"])
        // It would refresh its index, which root would then own.
        .args(["--no-optional-locks", "-C"])
        .arg(folder)
        .args(arguments)
        .output()
        .map_err(|error| format!("git does not run: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "git {}: {}",
            arguments.first().unwrap_or(&""),
            said.lines().next().unwrap_or("failed").trim()
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A tree with one commit, and a binary that cargo made from it.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Option<Self> {
            let tree = Self(tempfile::tempdir().unwrap());
            for (file, text) in [
                ("src/main.rs", "fn main() {}"),
                ("Cargo.toml", ""),
                ("Cargo.lock", ""),
                ("docs/page.md", "page"),
            ] {
                let file = tree.path(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            if let Err(reason) = git(tree.0.path(), &["init", "--quiet"]) {
                caracal_skip::missing!("{reason}");
                return None;
            }
            git(tree.0.path(), &["add", "."]).unwrap();
            let who = ["-c", "user.name=a", "-c", "user.email=a@example.net"];
            let commit = ["commit", "--quiet", "--no-gpg-sign", "-m", "first"];
            git(tree.0.path(), &[&who[..], &commit[..]].concat()).unwrap();
            fs::write(tree.path("caracal"), "binary").unwrap();
            tree.note("caracal.d", "src/main.rs");
            Some(tree)
        }

        fn path(&self, file: &str) -> PathBuf {
            self.0.path().join(file)
        }

        fn note(&self, file: &str, source: &str) {
            let rule = format!(
                "{}: {}\n",
                self.path("caracal").display(),
                self.path(source).display()
            );
            fs::write(self.path(file), rule).unwrap();
        }

        /// Changes a file, and leaves it as old as it was.
        fn change(&self, file: &str) {
            let old = fs::metadata(self.path(file)).unwrap().modified().unwrap();
            fs::write(self.path(file), "something else").unwrap();
            let file = fs::File::options().append(true).open(self.path(file));
            // Git looks at the size as well.
            file.unwrap().set_modified(old).unwrap();
        }

        fn source(&self) -> Source {
            Source::of(&self.path("caracal"), &[self.path("docs/page.md")])
        }
    }

    #[test]
    fn a_commit_is_named_and_changes_but_those_of_the_page_are_told() {
        let Some(tree) = Tree::new() else { return };
        let Source::Commit { name, changed } = tree.source() else {
            panic!("{:?}", tree.source());
        };
        assert_eq!(name.len(), 12, "{name}");
        assert!(!changed);
        tree.change("docs/page.md");
        assert!(matches!(
            tree.source(),
            Source::Commit { changed: false, .. }
        ));
        tree.change("Cargo.toml");
        assert_eq!(
            tree.source(),
            Source::Commit {
                name,
                changed: true
            }
        );
    }

    #[test]
    fn no_commit_is_named_for_a_binary_that_may_be_of_another() {
        let Some(tree) = Tree::new() else { return };
        let unknown = |expected: &str| match tree.source() {
            Source::Unknown(reason) => assert!(reason.contains(expected), "{reason}"),
            commit @ Source::Commit { .. } => panic!("{commit:?} instead of {expected}"),
        };
        let later = SystemTime::now() + Duration::from_secs(10);
        let main = fs::File::options()
            .append(true)
            .open(tree.path("src/main.rs"));
        main.unwrap().set_modified(later).unwrap();
        unknown("src/main.rs is newer than the binary");
        fs::remove_file(tree.path("src/main.rs")).unwrap();
        unknown("src/main.rs is not there any more");
        tree.note("caracal.d", "src/lib.rs");
        unknown("no src/main.rs");
        fs::remove_file(tree.path("caracal.d")).unwrap();
        unknown("no notes");
        fs::remove_file(tree.path("caracal")).unwrap();
        unknown("there is no binary");
    }

    #[test]
    fn names_in_notes_may_have_blanks() {
        let files = sources("/a b/x: /a\\ b/src/main.rs /c/d.rs\n\n/other: /e\n");
        assert_eq!(files, ["/a b/src/main.rs", "/c/d.rs"].map(PathBuf::from));
    }
}

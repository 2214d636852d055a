//! What can be wrong with a topology file or its sidecar.

use serde_saphyr::Location;

/// A defect in a topology file or sidecar, with the place where a person has to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}{}", hint.as_deref().map(|h| format!("\nhint: {h}")).unwrap_or_default())]
pub struct Error {
    /// The file's name as the caller gave it.
    pub file: String,
    /// Line, counted from 1; 0 when the defect has no one place.
    pub line: u64,
    /// What was found and what was expected, without a period.
    pub message: String,
    /// What to do about it, where that can be said.
    pub hint: Option<String>,
}

impl Error {
    pub(crate) fn at(file: &str, location: Location, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: location.line(),
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn in_file(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: 0,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Takes the first line of the parser's own message; the rest is a rendering of the source.
    pub(crate) fn yaml(file: &str, error: &serde_saphyr::Error) -> Self {
        let bare = error.without_snippet().to_string();
        let message = bare.lines().next().unwrap_or("not valid YAML").to_owned();
        let message = match message.find(" at line ") {
            Some(end) => message[..end].to_owned(),
            None => message,
        };
        let line = error.location().map_or(0, |l| l.line());
        Self {
            file: file.into(),
            line,
            message,
            hint: None,
        }
    }
}

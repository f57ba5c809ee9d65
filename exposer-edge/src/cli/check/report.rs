//! The rows of a report.

use serde::Serialize;

use crate::config::DatapathChoice;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// The edge works, but not as well as it could.
    Warn,
    /// The edge does not work until this is mended.
    Fail,
}

impl State {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    /// Its stable name.
    pub check: &'static str,
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do, if anything.
    pub remedy: Option<String>,
}

impl Row {
    /// A row that says nothing yet.
    pub(super) const fn new(check: &'static str) -> Self {
        Self {
            check,
            state: State::Ok,
            found: String::new(),
            remedy: None,
        }
    }

    pub(super) fn ok(self, found: impl Into<String>) -> Self {
        Self {
            found: found.into(),
            ..self
        }
    }

    pub(super) fn warn(self, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        self.with(State::Warn, found, remedy)
    }

    pub(super) fn fail(self, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        self.with(State::Fail, found, remedy)
    }

    /// Something that the kernel path alone needs: how bad it is depends on whether that path is wanted.
    pub(super) fn kernel_path_lacks(
        self,
        choice: DatapathChoice,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        match choice {
            DatapathChoice::Kernel => self.fail(found, remedy),
            DatapathChoice::Auto => {
                let remedy = format!("userspace serves instead; for the kernel path: {}", remedy.into());
                self.warn(found, remedy)
            }
            DatapathChoice::Userspace => {
                self.ok(format!("{}; not needed for --datapath userspace", found.into()))
            }
        }
    }

    fn with(self, state: State, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            state,
            found: found.into(),
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// All checks.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Whether no row failed.
    pub works: bool,
    pub rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(rows: Vec<Row>) -> Self {
        Self {
            works: rows.iter().all(|row| row.state != State::Fail),
            rows,
        }
    }
}

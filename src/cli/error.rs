//! Why a command did not do what it was asked, with its exit code. Everything that goes wrong below ends here.

use super::exit::Exit;
use crate::driver::DriverError;
use crate::journal::{AppendError, JournalError, LeaseError, SealError};
use crate::plan::PlanError;
use crate::spec::problem::Problems;

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// It was not given as it should be, or cannot be done now.
    #[error("{0}")]
    Usage(String),
    /// Files are wrong; every problem of every file.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<Problems>),
    /// A runbook or site that is wrong in another way.
    #[error("{0}")]
    Invalid(String),
    /// The store failed.
    #[error("{0}")]
    Store(String),
    /// A file of the user's cannot be read or written.
    #[error("`{path}` cannot be {verb}: {reason}")]
    File {
        /// Which.
        path: String,
        /// `read` or `written`.
        verb: &'static str,
        /// Why.
        reason: String,
    },
    /// The lab or a run in it failed.
    #[error("{0}")]
    Lab(String),
    /// Whoever read the output is gone; nothing more can be said.
    #[error("the output was closed")]
    Closed,
}

impl CliError {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::File { .. } => Exit::USAGE,
            Self::Problems(_) | Self::Invalid(_) => Exit::INVALID,
            Self::Store(_) => Exit::BUG,
            Self::Lab(_) => Exit::FAILED,
            Self::Closed => Exit::SUCCEEDED,
        }
    }

    /// A file that could not be read.
    pub fn unreadable(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::File { path: path.display().to_string(), verb: "read", reason: error.to_string().to_lowercase() }
    }

    /// A file that could not be written.
    pub fn unwritable(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::File { path: path.display().to_string(), verb: "written", reason: error.to_string().to_lowercase() }
    }
}

/// An error and everything behind it, in one line.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

impl From<PlanError> for CliError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::NoFile { .. } | PlanError::Params(_) => Self::Usage(error.to_string()),
            PlanError::Problems(problems) => Self::Problems(vec![problems]),
            PlanError::Value(_) => Self::Invalid(error.to_string()),
        }
    }
}

impl From<SealError> for CliError {
    fn from(error: SealError) -> Self {
        Self::Usage(whole(&error))
    }
}

impl From<JournalError> for CliError {
    fn from(error: JournalError) -> Self {
        match &error {
            JournalError::UnknownRun(_)
            | JournalError::Ambiguous { .. }
            | JournalError::Pruned { .. }
            | JournalError::Address { .. }
            | JournalError::NotAJournal { .. } => Self::Usage(whole(&error)),
            JournalError::Newer { .. }
            | JournalError::Corrupt { .. }
            | JournalError::CutOff { .. }
            | JournalError::Full { .. }
            | JournalError::Unreachable { .. }
            | JournalError::Server { .. }
            | JournalError::Busy { .. }
            | JournalError::Make { .. }
            | JournalError::Write { .. }
            | JournalError::Store { .. }
            | JournalError::Broken { .. }
            | JournalError::TooLong { .. }
            | JournalError::Unsealed { .. }
            | JournalError::Transcript { .. } => Self::Store(whole(&error)),
        }
    }
}

impl From<DriverError> for CliError {
    fn from(error: DriverError) -> Self {
        match error {
            DriverError::Journal(error)
            | DriverError::Append(AppendError::Store(error))
            | DriverError::Lease(LeaseError::Store(error)) => error.into(),
            DriverError::Plan(error) => error.into(),
            DriverError::Milestone { .. } | DriverError::Digest { .. } | DriverError::Unsigned(_) => {
                Self::Invalid(error.to_string())
            }
            DriverError::Append(_) | DriverError::Lease(_) | DriverError::Refused(_) | DriverError::Over { .. } => {
                Self::Usage(whole(&error))
            }
            DriverError::Broken(_) | DriverError::Identity(_) | DriverError::Crashed => Self::Store(whole(&error)),
        }
    }
}

impl From<crate::lab::LabError> for CliError {
    fn from(error: crate::lab::LabError) -> Self {
        Self::Lab(error.to_string())
    }
}

impl From<super::demo::DemoError> for CliError {
    fn from(error: super::demo::DemoError) -> Self {
        use super::demo::DemoError;
        match error {
            DemoError::Driver(error) => error.into(),
            DemoError::Plan(error) => error.into(),
            DemoError::Journal(error) => error.into(),
            DemoError::Seal(error) => error.into(),
            other @ (DemoError::Lab(_) | DemoError::Io(_) | DemoError::Unsuccessful { .. } | DemoError::Display(_)) => {
                Self::Lab(other.to_string())
            }
        }
    }
}

//! Exit codes. Scripts may rely on them; `docs/reference/exit-codes.md` says the same.

use crate::event::Outcome;

/// What the process says when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// Done as asked; for a run: it succeeded.
    pub const SUCCEEDED: Self = Self(0);
    /// A bug of Piton, or its store failed.
    pub const BUG: Self = Self(1);
    /// The command cannot be done as it was given.
    pub const USAGE: Self = Self(2);
    /// The runbook or the site is not valid, or a milestone is missing.
    pub const INVALID: Self = Self(3);
    /// The run failed; what could be undone was undone if the runbook says so.
    pub const FAILED: Self = Self(4);
    /// The run is stuck: a person must decide.
    pub const STUCK: Self = Self(5);
    /// The run waits for a person's answer.
    pub const WAITING: Self = Self(6);
    /// The run was cancelled.
    pub const CANCELLED: Self = Self(130);

    /// The exit code of a run.
    pub fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::SUCCEEDED,
            Outcome::Failed | Outcome::RolledBack => Self::FAILED,
            Outcome::Stuck => Self::STUCK,
            Outcome::Waiting => Self::WAITING,
            Outcome::Cancelled => Self::CANCELLED,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

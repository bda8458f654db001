//! What people answer. Part of the events that the journal keeps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Outputs;

/// Why people are told that a step waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// They are asked for the first time.
    Asked,
    /// They have not answered for a while.
    Reminded,
    /// Nobody answered in time, and others are asked as well.
    Escalated,
}

/// What a person answered to a waiting or doubtful step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Approved; counts towards the quorum once per person.
    Approved {
        /// A remark.
        comment: Option<String>,
    },
    /// The approval that the same person gave to this question is taken back.
    Withdrawn {
        /// Why.
        comment: Option<String>,
    },
    /// Refused; the step fails.
    Rejected {
        /// Why.
        comment: Option<String>,
    },
    /// Work done by hand is reported done.
    Completed {
        /// The filled-in form.
        form: Outputs,
        /// Evidence files by name: SHA-256 of their content.
        evidence: BTreeMap<String, String>,
        /// A remark.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
    /// An attempt in doubt did run to its end.
    Ran {
        /// How that person knows.
        reason: String,
        /// What it came to, as far as later steps use it.
        #[serde(default, skip_serializing_if = "Outputs::is_empty")]
        outputs: Outputs,
    },
    /// An attempt in doubt changed nothing; it may run again.
    NotRan {
        /// How that person knows.
        reason: String,
    },
    /// What a failed undo should have done was done by hand; the rollback goes on.
    Undone {
        /// What was done.
        reason: String,
    },
    /// A step whose undo failed stays as it is; the rollback goes on without it. A deviation.
    Left {
        /// Why that is acceptable.
        reason: String,
    },
}

impl Answer {
    /// Its word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Approved { .. } => "approved",
            Self::Withdrawn { .. } => "withdrawn",
            Self::Rejected { .. } => "rejected",
            Self::Completed { .. } => "completed",
            Self::Ran { .. } => "ran",
            Self::NotRan { .. } => "not_ran",
            Self::Undone { .. } => "undone",
            Self::Left { .. } => "left",
        }
    }
}

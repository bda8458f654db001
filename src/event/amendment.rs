//! What an amendment changed, step by step. Part of the events that the journal keeps.

use serde::{Deserialize, Serialize};

use crate::ids::StepId;

/// How a step differs between two versions of a runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Not at all; of a step that has begun, its inputs neither.
    Same,
    /// Only in when and how it may run: needs, retries, time, locks and the like.
    Rules,
    /// Only in its undo.
    Undo,
    /// Written alike, but its arguments have other values now.
    Inputs,
    /// In its work: action, arguments, condition, postcondition, outputs or the files that it uses.
    Changed,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is the same under another name.
    Renamed {
        /// Its old name.
        from: StepId,
    },
}

impl Change {
    /// The word of the change.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Rules => "rules",
            Self::Undo => "undo",
            Self::Inputs => "inputs",
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Renamed { .. } => "renamed",
        }
    }
}

/// What a person decided about a step of a runbook that was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// What was done stays as it is.
    Keep,
    /// It is done again, after its undo if it has one.
    Redo,
}

/// One step of an amendment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepAmended {
    /// Which: its new name, or the old one if it is gone.
    pub step: StepId,
    /// How it changed.
    pub change: Change,
    /// What was decided about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
}

//! What a person wants against the runbook, and what others say to it. Part of the events that the journal keeps.

use serde::{Deserialize, Serialize};

use super::{Outputs, StepAmended};

/// What a person wants against the runbook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Departure {
    /// A step is passed over.
    Skip,
    /// A step that was passed over starts, although its condition is false or what it needs did not end as needed.
    Force,
    /// A step counts as done, although no attempt of it succeeded.
    Done {
        /// What it came to, as far as later steps use it.
        #[serde(default, skip_serializing_if = "Outputs::is_empty")]
        outputs: Outputs,
    },
    /// A step whose undo failed stays as it is; the rollback goes on without it.
    Leave,
    /// More is allowed than the runbook allows.
    Extend(Budget),
    /// The run goes on with another plan.
    Amend {
        /// Digest of that plan.
        digest: String,
        /// Every step that changed or about which something is decided.
        steps: Vec<StepAmended>,
    },
}

/// Something that the runbook limits, and how much of it is wanted in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// The time of the whole run.
    Run {
        /// In milliseconds.
        ms: i64,
    },
    /// The time of each attempt of the step, the one at work included.
    Timeout {
        /// In milliseconds.
        ms: i64,
    },
    /// Attempts of the step.
    Attempts {
        /// The first included.
        count: u32,
    },
    /// The time of a window.
    Window {
        /// Its name.
        name: String,
        /// In milliseconds.
        ms: i64,
    },
}

impl Departure {
    /// Its word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Skip => "skip_requested",
            Self::Force => "force_requested",
            Self::Done { .. } => "done_requested",
            Self::Leave => "leave_requested",
            Self::Extend(_) => "extension_requested",
            Self::Amend { .. } => "amendment_requested",
        }
    }
}

/// What a person says to a deviation that another one wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// Agrees; counts once per person.
    Agreed {
        /// A remark.
        comment: Option<String>,
    },
    /// Takes the own consent back; of whoever wanted it, that is the end of it.
    Retracted {
        /// Why.
        comment: Option<String>,
    },
    /// Says no, which is the end of it.
    Denied {
        /// Why.
        comment: Option<String>,
    },
}

impl Consent {
    /// Its word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Agreed { .. } => "agreed",
            Self::Retracted { .. } => "retracted",
            Self::Denied { .. } => "denied",
        }
    }
}

//! The facts of a run, in the past tense. The journal stores them, the scheduler folds them, reports read them.
//!
//! An event never says what should happen next; that is the scheduler's business. Every event is small and of a
//! size that does not grow with the run. `docs/design/events.md` describes each one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{Actor, Milestone, RunId, StepId};

mod amendment;
mod answer;
mod departure;
mod kinds;
mod locks;
mod record;
mod signed;

pub use amendment::{Change, Choice, StepAmended};
pub use answer::{Answer, Occasion};
pub use departure::{Budget, Consent, Departure};
pub use kinds::{KINDS, is_kind};
pub use locks::{LockChange, LockGuard};
pub use record::Record;
pub use signed::{FileSigner, Signed, SignedFiles};

/// Named results of a step.
pub type Outputs = BTreeMap<String, Value>;

/// Whether an attempt that did not succeed may have changed the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing was changed, for certain.
    None,
    /// Something may have been changed.
    Unknown,
}

/// A stream that a command prints on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its name in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Stdout => "standard output",
            Self::Stderr => "standard error",
        }
    }
}

/// What the command of an attempt said on one stream. Its text is kept beside the events; `docs/design/outputs.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcript {
    /// Where it said it.
    pub stream: Stream,
    /// Bytes that it printed in all.
    pub bytes: u64,
    /// SHA-256, in hex, of what is kept of them: without secrets, and without the middle if they were many.
    pub digest: String,
    /// Bytes that are kept.
    pub kept: u64,
    /// What was left out of the middle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
}

/// A place where something was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// How many of the kept bytes stand before it.
    pub at: u64,
    /// How many bytes were left out.
    pub bytes: u64,
}

/// What an action found out about an attempt whose result is unknown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The attempt had done its work; these are its outputs.
    Done(Outputs),
    /// The attempt had changed nothing.
    NotDone,
    /// It cannot be told.
    Unknown,
}

/// Why a step was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SkipReason {
    /// Its `when` was false.
    When,
    /// A step it needs did not end as needed.
    Need(StepId),
    /// A person skipped it.
    Person {
        /// Who.
        by: Actor,
        /// Why, in that person's words.
        reason: String,
        /// True when the runbook did not mark the step as optional.
        deviation: bool,
    },
}

/// What a waiting step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitKind {
    /// An approval by one or more people.
    Approval,
    /// Work done by hand.
    Manual,
}

/// How a run ended, or why it rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every step that had to succeed did.
    Succeeded,
    /// A step failed and nothing was rolled back.
    Failed,
    /// Everything that could be undone was, after a failure or because a person asked for it.
    RolledBack,
    /// A person must decide before anything else happens.
    Stuck,
    /// Cancelled by a person; resumable.
    Cancelled,
    /// Waits for a person's answer; resumable.
    Waiting,
}

impl Outcome {
    /// Whether the run is over for good (it can not be resumed).
    pub fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::RolledBack => true,
            Self::Failed | Self::Stuck | Self::Cancelled | Self::Waiting => false,
        }
    }
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The run exists; always the first event.
    RunStarted {
        /// Name of the runbook.
        runbook: String,
        /// Its version.
        version: String,
        /// Digest of the plan.
        digest: String,
        /// Name of the site.
        site: String,
        /// Who started it.
        #[serde(with = "crate::ids::whole")]
        by: Actor,
        /// Parameters as given or defaulted; secrets by reference only.
        params: BTreeMap<String, Value>,
        /// Version of Piton.
        piton: String,
        /// Everything needed to build the same plan again: paths and texts of runbook, site and files.
        source: Value,
        /// The run and step that started this one, for the `runbook` action.
        parent: Option<(RunId, StepId)>,
        /// The public key that seals what its driver records from here on (`ssh-ed25519 AAAA...`); none where sealing is off.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sealed_by: Option<String>,
        /// Who signed runbook and site, if anybody did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signed: Option<Box<Signed>>,
    },
    /// A driver took the run up again; attempts without a result are in doubt from here on, but for those it holds.
    RunResumed {
        /// Who.
        #[serde(with = "crate::ids::whole")]
        by: Actor,
        /// Where: host and process.
        driver: String,
        /// Steps whose attempts go on under this driver: what they started is still held, or was never started.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        held: Vec<StepId>,
        /// The public key that seals what its driver records from here on (`ssh-ed25519 AAAA...`); none where sealing is off.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sealed_by: Option<String>,
    },
    /// A person had the run go on with another version of its runbook, site or parameters.
    RunAmended {
        /// Who.
        #[serde(with = "crate::ids::whole")]
        by: Actor,
        /// Why.
        reason: String,
        /// Version of the new runbook.
        version: String,
        /// Digest of the plan before.
        was: String,
        /// Digest of the plan from here on.
        digest: String,
        /// Parameters from here on.
        params: BTreeMap<String, Value>,
        /// Everything needed to build the new plan again.
        source: Value,
        /// Steps that changed or about which something was decided; all others are the same.
        steps: Vec<StepAmended>,
        /// Steps whose approvals are void, because what they approved is not what is done now; people are asked again.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        voids: Vec<StepId>,
        /// Who signed runbook and site, if anybody did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signed: Option<Box<Signed>>,
    },
    /// A step was passed over.
    StepSkipped {
        /// Which.
        step: StepId,
        /// Why.
        reason: SkipReason,
    },
    /// An attempt is about to act. Recorded before the action runs.
    AttemptStarted {
        /// Which step.
        step: StepId,
        /// Counts from 1 through all attempts of the step in this run.
        attempt: u32,
        /// What the action saw before the first change; needed to undo and to probe. Null for none.
        before: Value,
        /// The rendered inputs (never a secret).
        input: Value,
    },
    /// An attempt did its work and its `verify` held.
    AttemptSucceeded {
        /// Which step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
        /// Named results.
        outputs: Outputs,
        /// What its command said, if it said anything.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        said: Vec<Transcript>,
    },
    /// An attempt failed.
    AttemptFailed {
        /// Which step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
        /// What went wrong, for people.
        error: String,
        /// Whether the world may have changed.
        effect: Effect,
        /// Whether trying again can help at all.
        retryable: bool,
        /// What its command said, if it said anything.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        said: Vec<Transcript>,
    },
    /// The state of an attempt in doubt was looked up in the world.
    AttemptProbed {
        /// Which step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
        /// What was found.
        finding: Finding,
    },
    /// A step waits for people.
    StepWaiting {
        /// Which step.
        step: StepId,
        /// For what.
        wait: WaitKind,
        /// The rendered prompt or instructions.
        prompt: String,
        /// When the wait is over without an answer.
        expires_at: Option<Timestamp>,
        /// Digest of the rendered inputs; an answer to a question that has one must come in time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<String>,
    },
    /// People were asked to undo a step by hand.
    UndoWaiting {
        /// Which step.
        step: StepId,
        /// The rendered instructions.
        prompt: String,
        /// When the wait is over without an answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
        /// Digest of the rendered inputs.
        input: String,
    },
    /// A person handed work by hand over to somebody.
    StepAssigned {
        /// Which step.
        step: StepId,
        /// Who handed it over.
        #[serde(with = "crate::ids::whole")]
        by: Actor,
        /// To whom.
        to: Actor,
        /// Why.
        reason: String,
    },
    /// A person answered.
    StepAnswered {
        /// Which step.
        step: StepId,
        /// Who.
        #[serde(with = "crate::ids::whole")]
        by: Actor,
        /// What.
        answer: Answer,
    },
    /// A person said something that could not be taken; nothing else came of it.
    WordRefused {
        /// About which step, if about one.
        step: Option<StepId>,
        /// Who, as far as it is known: the name may be another's.
        #[serde(with = "crate::ids::whole")]
        by: Actor,
        /// What it would have been: `approved`, `skip_requested` and so on.
        word: String,
        /// Why it was refused.
        why: String,
    },
    /// A wait for people passed its expiry.
    StepExpired {
        /// Which step.
        step: StepId,
    },
    /// People were told that a step waits for them, or should have been.
    PeopleTold {
        /// Which step.
        step: StepId,
        /// Why then.
        occasion: Occasion,
        /// Whether there was a way to tell them.
        sent: bool,
        /// Why it did not get through, if it did not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A person asked to pass over a step before it ran.
    SkipRequested {
        /// Which step.
        step: StepId,
        /// Who.
        #[serde(with = "crate::ids::whole")]
        by: Actor,
        /// Why.
        reason: String,
    },
    /// A person wants something against the runbook. It is done at once, or once enough people agree.
    DeviationRequested {
        /// About which step; none when it is about the run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepId>,
        /// Who.
        #[serde(with = "crate::ids::whole")]
        by: Actor,
        /// What.
        what: Departure,
        /// Why.
        reason: String,
    },
    /// A person said something about a deviation that another one wants.
    DeviationAnswered {
        /// About which step; none when it is about the run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepId>,
        /// Who.
        #[serde(with = "crate::ids::whole")]
        by: Actor,
        /// What.
        answer: Consent,
    },
    /// A person asked to end the run.
    CancelRequested {
        /// Who.
        #[serde(with = "crate::ids::whole")]
        by: Actor,
        /// Why, if said.
        reason: Option<String>,
    },
    /// The run worked longer than it may; what runs is stopped.
    RunTimedOut,
    /// A secret that was fetched is too short: it is hidden as it is, but not in base64, hex and other encodings.
    SecretTooShort {
        /// Its name on the site, or that of the parameter.
        name: String,
    },
    /// A person had a run turned back that had ended or rested.
    RollbackRequested {
        /// Who.
        #[serde(with = "crate::ids::whole")]
        by: Actor,
        /// Why.
        reason: String,
        /// The driver that does it: host and process.
        driver: String,
        /// The public key that seals what its driver records from here on (`ssh-ed25519 AAAA...`); none where sealing is off.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sealed_by: Option<String>,
    },
    /// The run turned back.
    RollbackStarted {
        /// Why.
        reason: String,
    },
    /// An undo is about to act. Recorded before it runs.
    UndoStarted {
        /// Which step.
        step: StepId,
        /// Counts from 1.
        attempt: u32,
    },
    /// An undo did its work.
    UndoSucceeded {
        /// Which step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
        /// What its command said, if it said anything.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        said: Vec<Transcript>,
    },
    /// An undo failed.
    UndoFailed {
        /// Which step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
        /// What went wrong.
        error: String,
        /// Whether trying again can help at all.
        retryable: bool,
        /// What its command said, if it said anything.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        said: Vec<Transcript>,
    },
    /// The run ended or rests.
    RunFinished {
        /// How.
        outcome: Outcome,
        /// Milestones that this run established (only with `succeeded`).
        milestones: Vec<Milestone>,
        /// Milestones that it took back: with `succeeded` those of others, with `rolled_back` its own.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        revoked: Vec<Milestone>,
        /// What remains or why, for people.
        note: Option<String>,
    },
}

impl Event {
    /// The name of the kind as it stands in the journal.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RunStarted { .. } => "run_started",
            Self::RunResumed { .. } => "run_resumed",
            Self::RunAmended { .. } => "run_amended",
            Self::StepSkipped { .. } => "step_skipped",
            Self::AttemptStarted { .. } => "attempt_started",
            Self::AttemptSucceeded { .. } => "attempt_succeeded",
            Self::AttemptFailed { .. } => "attempt_failed",
            Self::AttemptProbed { .. } => "attempt_probed",
            Self::StepWaiting { .. } => "step_waiting",
            Self::UndoWaiting { .. } => "undo_waiting",
            Self::StepAssigned { .. } => "step_assigned",
            Self::StepAnswered { .. } => "step_answered",
            Self::WordRefused { .. } => "word_refused",
            Self::StepExpired { .. } => "step_expired",
            Self::PeopleTold { .. } => "people_told",
            Self::SkipRequested { .. } => "skip_requested",
            Self::DeviationRequested { .. } => "deviation_requested",
            Self::DeviationAnswered { .. } => "deviation_answered",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::RunTimedOut => "run_timed_out",
            Self::SecretTooShort { .. } => "secret_too_short",
            Self::RollbackRequested { .. } => "rollback_requested",
            Self::RollbackStarted { .. } => "rollback_started",
            Self::UndoStarted { .. } => "undo_started",
            Self::UndoSucceeded { .. } => "undo_succeeded",
            Self::UndoFailed { .. } => "undo_failed",
            Self::RunFinished { .. } => "run_finished",
        }
    }

    /// What the command of the attempt or undo that ended with it said.
    pub fn said(&self) -> &[Transcript] {
        match self {
            Self::AttemptSucceeded { said, .. }
            | Self::AttemptFailed { said, .. }
            | Self::UndoSucceeded { said, .. }
            | Self::UndoFailed { said, .. } => said,
            _ => &[],
        }
    }

    /// The person whose word it is, if it is one that can be signed.
    pub fn by(&self) -> Option<&Actor> {
        match self {
            Self::StepAnswered { by, .. }
            | Self::StepAssigned { by, .. }
            | Self::SkipRequested { by, .. }
            | Self::DeviationRequested { by, .. }
            | Self::DeviationAnswered { by, .. }
            | Self::CancelRequested { by, .. }
            | Self::RollbackRequested { by, .. }
            | Self::RunAmended { by, .. } => Some(by),
            _ => None,
        }
    }

    /// What a person says with it, in one word: `approved`, `skip_requested`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::StepAnswered { answer, .. } => answer.word(),
            Self::DeviationRequested { what, .. } => what.word(),
            Self::DeviationAnswered { answer, .. } => answer.word(),
            _ => self.kind(),
        }
    }

    /// The step that the event is about, if it is about one.
    pub fn step(&self) -> Option<&StepId> {
        match self {
            Self::StepSkipped { step, .. }
            | Self::AttemptStarted { step, .. }
            | Self::AttemptSucceeded { step, .. }
            | Self::AttemptFailed { step, .. }
            | Self::AttemptProbed { step, .. }
            | Self::StepWaiting { step, .. }
            | Self::UndoWaiting { step, .. }
            | Self::StepAssigned { step, .. }
            | Self::StepAnswered { step, .. }
            | Self::StepExpired { step }
            | Self::PeopleTold { step, .. }
            | Self::SkipRequested { step, .. }
            | Self::UndoStarted { step, .. }
            | Self::UndoSucceeded { step, .. }
            | Self::UndoFailed { step, .. } => Some(step),
            Self::WordRefused { step, .. }
            | Self::DeviationRequested { step, .. }
            | Self::DeviationAnswered { step, .. } => step.as_ref(),
            Self::RunStarted { .. }
            | Self::RunResumed { .. }
            | Self::RunAmended { .. }
            | Self::CancelRequested { .. }
            | Self::RunTimedOut
            | Self::SecretTooShort { .. }
            | Self::RollbackRequested { .. }
            | Self::RollbackStarted { .. }
            | Self::RunFinished { .. } => None,
        }
    }
}

//! The scheduler: what should happen next, as a pure function of what has happened.
//!
//! Events in, commands out. It has no clock, no randomness, no I/O and no tasks: the driver asks [`State::poll`],
//! does what the commands say, records the fact through the journal and hands it back to [`State::apply`].
//! Refused: every event that cannot be true after the events before it. `docs/design/scheduler.md` states the rules.

mod amend;
#[cfg(test)]
mod amend_tests;
mod apply;
mod by_hand;
mod departures;
#[cfg(test)]
mod deviation_tests;
mod deviations;
mod form;
mod kept;
mod mutant;
mod people;
#[cfg(test)]
mod people_tests;
mod poll;
mod progress;
mod refusal;
mod reminders;
mod resume;
mod rollback;
mod signed;
mod state;
#[cfg(test)]
mod tests;
mod view;
mod voids;
mod workflow;

pub use deviations::{Deviation, Override, Proposal};
pub use form::{FieldKind, FieldRule};
pub use mutant::Mutant;
pub use refusal::IllegalEvent;
pub use rollback::WayBack;
pub use state::{State, StepState};
pub use view::StepView;
pub use workflow::{
    DeviationRule, Escalation, Idempotent, Need, NeedOutcome, OnFailure, Phase, Retry, RunRule, SignRule, StepRule,
    WaitRule, Workflow, WorkflowError,
};

use crate::event::{Event, Occasion};
use crate::ids::StepId;

/// What the driver should do now. Asking twice gives the same commands until an event arrives, so the driver keeps
/// track of those it is already busy with.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a handful live at a time, and a boxed fact is awkward to match")]
pub enum Command {
    /// Record `AttemptStarted`, then run the action.
    Start {
        /// Which step.
        step: StepId,
        /// Which attempt, from 1.
        attempt: u32,
        /// Whether `when` must be evaluated first; if it is false, `StepSkipped` is recorded instead.
        check_when: bool,
    },
    /// Render the prompt and record `StepWaiting`.
    OpenWait {
        /// Which step.
        step: StepId,
        /// As for `Start`.
        check_when: bool,
        /// After how many milliseconds the wait expires.
        expires_ms: Option<i64>,
    },
    /// Tell people that they are waited for, then record `PeopleTold`.
    Tell {
        /// Which step waits.
        step: StepId,
        /// Why now.
        occasion: Occasion,
    },
    /// Look up what an attempt in doubt did and record `AttemptProbed`.
    Probe {
        /// Which step.
        step: StepId,
        /// Which attempt.
        attempt: u32,
    },
    /// Record `UndoStarted`, then undo.
    Undo {
        /// Which step.
        step: StepId,
        /// Which attempt at undoing, from 1.
        attempt: u32,
    },
    /// Stop every running attempt and undo; each then fails with an unknown effect.
    CancelAttempts,
    /// Render the instructions of an undo by hand and record `UndoWaiting`.
    OpenUndoWait {
        /// Which step.
        step: StepId,
        /// After how many milliseconds the wait expires.
        expires_ms: Option<i64>,
    },
    /// Record this fact; nothing has to be done for it.
    Record(Event),
}

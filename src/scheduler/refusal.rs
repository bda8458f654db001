//! Why an event cannot be true after the events before it, in a person's words. Made by the rules of `State`.

use crate::event::Outcome;
use crate::ids::{Actor, Level, StepId};

/// An event that cannot be true after the events before it; the state did not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IllegalEvent {
    /// Something comes before the start, or the start comes twice.
    #[error("`{kind}` cannot be recorded: a run starts once and with `run_started`")]
    NotFirst {
        /// Kind of the event.
        kind: &'static str,
    },
    /// The run has ended or rests.
    #[error("`{kind}` cannot be recorded: the run is {outcome:?}; resume it first if it can be resumed")]
    Finished {
        /// Kind of the event.
        kind: &'static str,
        /// How it ended.
        outcome: Outcome,
    },
    /// No such step.
    #[error("step `{0}` is not in this run")]
    UnknownStep(StepId),
    /// The step is not in a state in which this can happen.
    #[error("step `{step}` {why}")]
    Step {
        /// Which.
        step: StepId,
        /// What is in the way, as the end of a sentence.
        why: String,
    },
    /// A person may not give this answer.
    #[error("`{by}` cannot answer step `{step}`: {why}")]
    Answer {
        /// Which step.
        step: StepId,
        /// Who.
        by: Actor,
        /// Why not.
        why: &'static str,
    },
    /// A person may have no voice in a deviation.
    #[error("the word of `{by}` about {} is not taken: {why}", about(step.as_ref()))]
    Voice {
        /// About which step; none when it is about the run.
        step: Option<StepId>,
        /// Who.
        by: Actor,
        /// Why not.
        why: &'static str,
    },
    /// It is not known well enough who it is.
    #[error("`{by}` is known by {} only, and {what} wants {}", known(*.is), wanted(*.needed))]
    Identity {
        /// Who.
        by: Actor,
        /// What it is about: a step or the run.
        what: String,
        /// How that is known.
        is: Level,
        /// How it must be.
        needed: Level,
    },
    /// Too few people signed what it would go by.
    #[error("the {what} is not signed as the site asks for it: {why}")]
    Unsigned {
        /// `runbook` or `site`.
        what: &'static str,
        /// What is missing.
        why: String,
    },
    /// The run as a whole is not at this point.
    #[error("`{kind}` cannot be recorded: {why}")]
    Run {
        /// Kind of the event.
        kind: &'static str,
        /// Why not.
        why: &'static str,
    },
}

fn about(step: Option<&StepId>) -> String {
    step.map_or_else(|| "the run".to_owned(), |step| format!("step `{step}`"))
}

fn known(level: Level) -> &'static str {
    match level {
        Level::Claimed => "a name that was given",
        Level::Local => "an account of the operating system",
        Level::Ssh => "a signature",
    }
}

fn wanted(level: Level) -> &'static str {
    match level {
        Level::Claimed => "a name",
        Level::Local => "the account of the operating system: leave out `--as`",
        Level::Ssh => "a signature: add `--sign KEY`",
    }
}

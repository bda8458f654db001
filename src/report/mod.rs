//! Reports: what people and programs read about runs. Live lists, plain lines, JSON lines, tables, audits, graphs.
//!
//! Everything is made from the same facts ([`Fact`]): the live terminal, the plain lines and the JSON lines of a run
//! show one stream in three forms. Nothing here prints, decides or reads a clock; a report can never slow or fail a
//! run. Called by `driver`'s observers, `cli` and `web`.

pub mod audit;
pub mod back;
pub mod deviations;
pub mod diff;
pub mod document;
pub mod exports;
pub mod graph;
pub mod lines;
pub mod live;
pub mod logs;
pub mod markdown;
pub mod page;
pub mod people;
pub mod plain;
pub mod plan;
pub mod pruned;
pub mod signed;
pub mod status;
pub mod terminal;
pub mod windows;
pub mod words;

use crate::action::Progress;
use crate::event::{Outcome, Record};
use crate::ids::{RunId, StepId};
use crate::plan::Plan;
use crate::scheduler::State;

/// One piece of news about a run.
#[derive(Debug, Clone)]
pub enum Fact {
    /// A record became durable. The first one of a run comes with the state behind it.
    Recorded {
        /// The record.
        record: Box<Record>,
        /// The state behind it, for the first record of a run only.
        state: Option<std::sync::Arc<State>>,
    },
    /// A step told how far it has come.
    Progress {
        /// Of which run: the watched one, or one that a step of it started.
        run: RunId,
        /// Which step.
        step: StepId,
        /// How far.
        progress: Progress,
    },
    /// A person asked to stop.
    Notice {
        /// What that means.
        text: String,
        /// Whether it was typed, so that the terminal has echoed it.
        typed: bool,
    },
    /// The run ended or rests.
    Ended {
        /// How.
        outcome: Outcome,
        /// What remains or why.
        note: Option<String>,
    },
}

/// What a report of one run is about.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The run.
    pub run: RunId,
    /// Its plan.
    pub plan: std::sync::Arc<Plan>,
}

//! Windows: measured time between the start of one step and the success of another.
//!
//! A window opens when the first attempt of its `opens` step starts and closes when its `closes` step has succeeded.
//! If that was before, the window is 0. If the `opens` step was undone first, the way back closed it.

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::words;
use crate::plan::Plan;
use crate::scheduler::{State, StepState, StepView};

/// How far a window has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Its first step has not started.
    NotOpened,
    /// It counts.
    Open,
    /// It is over; so many milliseconds.
    Closed(i64),
    /// The step that opened it was undone after so many milliseconds.
    WentBack(i64),
}

/// One window of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// The step that opens it.
    pub opens: String,
    /// The step that closes it.
    pub closes: String,
    /// How long it may be, in milliseconds.
    pub budget_ms: Option<i64>,
    /// How long the runbook lets it be, if people extended that.
    pub was_ms: Option<i64>,
    /// When it opened.
    pub opened_at: Option<Timestamp>,
    /// When it closed.
    pub closed_at: Option<Timestamp>,
    /// How far it has come.
    pub progress: Progress,
}

impl Measured {
    /// How long it is, or was so far, in milliseconds.
    pub fn length_ms(&self, now: Timestamp) -> Option<i64> {
        match self.progress {
            Progress::NotOpened => None,
            Progress::Open => self.opened_at.map(|at| words::between(at, now).max(0)),
            Progress::Closed(ms) | Progress::WentBack(ms) => Some(ms),
        }
    }

    /// Whether it is, or was, longer than it may be.
    pub fn is_over_budget(&self, now: Timestamp) -> bool {
        self.length_ms(now).zip(self.budget_ms).is_some_and(|(length, budget)| length > budget)
    }

    /// In a few words.
    pub fn words(&self, now: Timestamp) -> String {
        let was = self.was_ms.map(|ms| format!(" (extended from {})", words::duration(ms))).unwrap_or_default();
        let budget = self.budget_ms.map(|ms| format!(" of at most {}{was}", words::duration(ms))).unwrap_or_default();
        let over = if self.is_over_budget(now) { ", over budget" } else { "" };
        let length = words::duration(self.length_ms(now).unwrap_or(0));
        match self.progress {
            Progress::NotOpened => format!("not opened yet{}", budget.replacen(" of", ":", 1)),
            Progress::Open => format!("open for {length}{budget}{over}"),
            Progress::Closed(_) => format!("{length}{budget}{over}"),
            Progress::WentBack(_) => format!("{length}{budget}{over}, until `{}` was undone", self.opens),
        }
    }

    /// The machine form; lengths in milliseconds.
    pub fn to_json(&self, now: Timestamp) -> Json {
        json!({
            "name": self.name, "opens": self.opens, "closes": self.closes, "budget_ms": self.budget_ms,
            "budget_was_ms": self.was_ms,
            "opened_at": self.opened_at, "closed_at": self.closed_at, "measured_ms": self.length_ms(now),
            "state": match self.progress {
                Progress::NotOpened => "not_opened",
                Progress::Open => "open",
                Progress::Closed(_) => "closed",
                Progress::WentBack(_) => "went_back",
            },
            "over_budget": self.is_over_budget(now),
        })
    }
}

/// Every window of a plan as the state has it.
pub fn measure(plan: &Plan, state: &State) -> Vec<Measured> {
    plan.windows
        .iter()
        .map(|window| {
            let views = |declared: &str| -> Vec<StepView<'_>> {
                plan.instances(declared).into_iter().filter_map(|step| state.step(&step.id)).collect()
            };
            let (opens, closes) = (views(&window.opens.value), views(&window.closes.value));
            let opened_at = opens.iter().filter_map(StepView::started_at).min();
            let closed_at = latest(&closes, StepState::Succeeded);
            let back_at = latest(&opens, StepState::Undone);
            let progress = match (opened_at, closed_at, back_at) {
                (None, ..) => Progress::NotOpened,
                (Some(from), Some(to), _) => Progress::Closed(words::between(from, to).max(0)),
                (Some(from), None, Some(back)) => Progress::WentBack(words::between(from, back).max(0)),
                (Some(_), None, None) => Progress::Open,
            };
            let declared = window.budget.map(|budget| i64::try_from(budget.0).unwrap_or(i64::MAX));
            let budget_ms = declared.and(state.window_ms(&window.name)).or(declared);
            Measured {
                name: window.name.clone(),
                opens: window.opens.value.clone(),
                closes: window.closes.value.clone(),
                budget_ms,
                was_ms: declared.filter(|_| declared != budget_ms),
                opened_at,
                closed_at,
                progress,
            }
        })
        .collect()
}

/// When the last of the steps came to `wanted`, if all of them did.
fn latest(steps: &[StepView<'_>], wanted: StepState) -> Option<Timestamp> {
    let all = !steps.is_empty() && steps.iter().all(|step| step.state() == wanted);
    if all { steps.iter().filter_map(StepView::finished_at).max() } else { None }
}

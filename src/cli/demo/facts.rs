//! What a run of the lab's runbooks did, taken from its journal: the facts that the invariants are measured against.

use serde_json::Value as Json;

use crate::event::Record;
use crate::ids::StepId;
use crate::lab::invariants::{CopiedRange, Held, RunFacts, Span, Watermark};
use crate::lab::loss::Loss;
use crate::plan::Plan;
use crate::scheduler::{State, StepView};
use crate::spec::actions::ActionKind;

/// Reads facts out of the state of a run.
pub(super) struct Facts<'s> {
    plan: &'s Plan,
    state: &'s State,
    records: &'s [Record],
}

impl<'s> Facts<'s> {
    pub(super) fn new(plan: &'s Plan, state: &'s State, records: &'s [Record]) -> Self {
        Self { plan, state, records }
    }

    fn step(&self, id: &str) -> Option<StepView<'s>> {
        self.state.step(&StepId::from(id))
    }

    fn number(&self, id: &str, output: &str) -> Option<i64> {
        self.step(id)?.outputs().get(output).and_then(Json::as_i64)
    }

    fn span(&self, first: &str, last: &str) -> Option<Span> {
        let from = self.step(first)?.started_at()?;
        let to = self.step(last)?.finished_at()?;
        Some(Span { from_ms: from.as_millisecond(), to_ms: to.as_millisecond() })
    }

    /// The three figures that a step printed.
    pub(super) fn loss(&self, id: &str) -> Option<Loss> {
        Some(Loss {
            missing: self.number(id, "missing")?,
            partial: self.number(id, "partial")?,
            overwritten: self.number(id, "overwritten")?,
        })
    }

    /// Rows that all copies and passes together wrote.
    pub(super) fn rows_moved(&self) -> i64 {
        let is_pass = |view: &StepView<'_>| {
            self.plan.step(&view.rule().id).is_some_and(|step| step.action.kind == ActionKind::Exec)
        };
        // The vendor's utility reports what its passes moved; its steps are commands.
        let of = |view: StepView<'_>| {
            let outputs = view.outputs();
            let number = |name: &str| outputs.get(name).and_then(Json::as_i64);
            match (number("inserted"), number("updated")) {
                (Some(inserted), Some(updated)) => inserted + updated,
                _ if is_pass(&view) => number("rows").unwrap_or(0) + number("performance_rows").unwrap_or(0),
                _ => 0,
            }
        };
        self.state.steps().map(of).sum()
    }

    fn held(&self, ended_ms: i64) -> Vec<Held> {
        let stops = ["stop-65", "stop-65-collector", "step-1", "step-7"];
        let mut held = Vec::new();
        for view in stops.iter().filter_map(|id| self.step(id)) {
            let Some(finished) = view.finished_at() else { continue };
            let services = view.outputs().get("services").and_then(Json::as_array).cloned().unwrap_or_default();
            let span = Span { from_ms: finished.as_millisecond(), to_ms: ended_ms };
            held.extend(services.iter().filter_map(Json::as_str).map(|name| Held { service: name.to_owned(), span }));
        }
        held
    }

    /// Everything that only the run knows.
    pub(super) fn all(&self, milestone: bool, ended_ms: i64) -> RunFacts {
        let boundary = self.number("boundary", "at");
        let marks: Vec<i64> =
            ["mark1", "mark2", "mark3"].iter().filter_map(|id| self.number(id, "watermark")).collect();
        let mut copied = Vec::new();
        let mut from = None;
        for to in marks.iter().copied().chain(boundary) {
            copied.push(CopiedRange { from, to });
            from = Some(to);
        }
        let watermarks = ["progress", "mark1", "mark2", "mark3"].iter().filter_map(|id| {
            let read = self.step(id)?.finished_at()?;
            Some(Watermark { at: self.number(id, "watermark")?, read_ms: read.as_millisecond() })
        });
        let repeat = self.number("again", "inserted").zip(self.number("again", "updated"));
        RunFacts {
            started_ms: self.records.first().map_or(0, |record| record.at.as_millisecond()),
            ended_ms,
            boundary,
            config_pass: self.span("config", "config").or_else(|| self.span("step-5", "step-5")),
            performance_pass: self.span("delta", "again").or_else(|| self.span("step-11", "step-11")),
            perf_rows_after_config_pass: self.step("still_empty").and_then(|view| view.finished_at()).map(|_| 0),
            copied,
            watermarks: watermarks.collect(),
            repeat_changed_rows: repeat.map(|(inserted, updated)| inserted + updated),
            milestone,
            predicted: self.loss("predict"),
            held: self.held(self.records.last().map_or(ended_ms, |record| record.at.as_millisecond())),
        }
    }
}

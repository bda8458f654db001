//! The audit of a run for people: who did what, when, what it was before and after, every interruption, decision and
//! deviation. The machine form is the journal itself, one object for each event ([`super::lines`]).

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde_json::Value as Json;

use super::live::Watch;
use super::status::Run;
use super::words::{self, Paint};
use super::{Fact, Subject};
use super::{diff, plain, signed};
use crate::event::{Answer, Departure, Effect, Event, Outputs, Record};
use crate::ids::StepId;
use crate::scheduler::State;
use crate::spec::actions::ActionKind;

/// One record of a run, told.
pub struct Entry<'a> {
    /// The record.
    pub record: &'a Record,
    /// The time between the record before and this one, if nobody drove the run meanwhile.
    pub pause: Option<Pause>,
    /// The record in words.
    pub line: plain::Line,
    /// What belongs under it: arguments, what was there before and after, hashes of evidence.
    pub details: Vec<String>,
}

/// A time in which nobody drove a run.
pub struct Pause {
    /// Whether it rested; otherwise its driver was interrupted.
    pub rested: bool,
    /// In words.
    pub text: String,
}

/// Every record of a run. `stages` are the states right behind each amendment, with the place of its record, and one at place 0.
pub fn entries<'a>(run: Run<'a>, stages: &[(u64, State)]) -> Vec<Entry<'a>> {
    let subject = Subject { run: run.run.clone(), plan: std::sync::Arc::new(run.plan.clone()) };
    let mut watch = Watch::new(subject);
    let mut befores: BTreeMap<StepId, Json> = BTreeMap::new();
    let mut entries = Vec::with_capacity(run.records.len());
    let mut previous: Option<&Record> = None;
    for record in run.records {
        let fact = |state| Fact::Recorded { record: Box::new(record.clone()), state };
        if previous.is_none() {
            let untouched = stages.first().map(|(_, state)| std::sync::Arc::new(State::new(state.workflow().clone())));
            watch.take(&fact(untouched));
        }
        let amended = matches!(record.event, Event::RunAmended { .. });
        let state = stages.iter().find(|(seq, _)| amended && *seq == record.seq).map(|(_, state)| state.clone());
        watch.take(&fact(state.map(std::sync::Arc::new)));
        let pause = match (&record.event, previous) {
            (Event::RunResumed { driver, .. } | Event::RollbackRequested { driver, .. }, Some(before)) => {
                Some(pause(before, record, driver))
            }
            _ => None,
        };
        if let Event::AttemptStarted { step, before, .. } = &record.event {
            befores.entry(step.clone()).or_insert_with(|| before.clone());
        }
        let (line, details) = (plain::line(&watch, record), details(run, record, &befores));
        entries.push(Entry { record, pause, line, details });
        previous = Some(record);
    }
    entries
}

/// The timeline, with `stages` as [`entries`] takes them.
pub fn to_text(run: Run<'_>, stages: &[(u64, State)], zone: &TimeZone, paint: Paint) -> String {
    let mut lines = vec![paint.bold(&format!("audit of run {}", run.run))];
    for Entry { record, pause, line, details } in entries(run, stages) {
        lines.extend(pause.map(|pause| paint.warn(&format!("       -- {} --", pause.text))));
        let text = line.state.map_or_else(|| line.text.clone(), |state| paint.state(state, &line.text));
        let who = words::pad(&line.who, 20);
        lines.push(format!("{:>5}  {}  {who}  {text}", record.seq, words::day_and_clock(record.at, zone)));
        lines.extend(details.into_iter().map(|detail| format!("{}{detail}", " ".repeat(28))));
    }
    lines.push(String::new());
    let count = run.state.deviations().len();
    lines.push(match count {
        0 => "no deviations".to_owned(),
        _ => paint.warn(&format!("{count} deviation(s) from what the runbook says")),
    });
    lines.push(String::new());
    lines.join("\n")
}

fn pause(before: &Record, record: &Record, driver: &str) -> Pause {
    let gap = words::duration(words::between(before.at, record.at));
    let rested = matches!(
        before.event,
        Event::RunFinished { .. }
            | Event::StepAnswered { .. }
            | Event::StepAssigned { .. }
            | Event::SkipRequested { .. }
            | Event::DeviationRequested { .. }
            | Event::DeviationAnswered { .. }
            | Event::WordRefused { .. }
    );
    let what = if rested { "rested for" } else { "was interrupted; nothing was recorded for" };
    Pause { rested, text: format!("the run {what} {gap}; taken up again by {driver}") }
}

fn details(run: Run<'_>, record: &Record, befores: &BTreeMap<StepId, Json>) -> Vec<String> {
    match &record.event {
        Event::RunStarted { digest, params, piton, signed, .. } => {
            let mut lines = vec![format!("plan {digest}, piton {piton}")];
            lines.extend(signed::lines(signed.as_deref()));
            lines.extend(params.iter().map(|(name, value)| format!("param {name} = {}", words::short(value, 120))));
            lines
        }
        Event::RunAmended { was, digest, params, steps, voids, signed, .. } => {
            let mut lines = vec![format!("plan {was} -> {digest}")];
            lines.extend(signed::lines(signed.as_deref()));
            lines.extend(params.iter().map(|(name, value)| format!("param {name} = {}", words::short(value, 120))));
            lines.extend(steps.iter().map(diff::entry));
            lines.extend(
                voids.iter().map(|step| format!("what was approved at {step} is void; people are asked again")),
            );
            lines
        }
        Event::AttemptStarted { step, input, before, .. } => {
            let key = run.plan.step(step).map_or("", |step| step.action.kind.key());
            let mut lines = vec![format!("{key} {}", words::short(input, 160))];
            if !before.is_null() {
                lines.push(format!("before: {}", words::short(before, 160)));
            }
            lines
        }
        Event::AttemptSucceeded { step, outputs, .. } => {
            let kind = run.plan.step(step).map(|step| step.action.kind);
            change(kind, befores.get(step), outputs).into_iter().collect()
        }
        Event::AttemptFailed { effect: Effect::Unknown, .. } => vec!["it may have changed something".to_owned()],
        Event::StepAnswered { answer: Answer::Completed { evidence, .. }, .. } => {
            evidence.iter().map(|(name, hash)| format!("evidence {name}: sha256 {hash}")).collect()
        }
        Event::DeviationRequested { what: Departure::Amend { steps, .. }, .. } => {
            steps.iter().map(diff::entry).collect()
        }
        Event::UndoSucceeded { step, .. } => match befores.get(step) {
            Some(before) if !before.is_null() => vec![format!("back to: {}", words::short(before, 160))],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// What an option or a service was and is.
fn change(kind: Option<ActionKind>, before: Option<&Json>, outputs: &Outputs) -> Option<String> {
    let of = |name: &str| {
        outputs.get(name).map(|value| if value.is_null() { "absent".into() } else { words::short(value, 60) })
    };
    match kind? {
        ActionKind::OptionSet | ActionKind::OptionUnset => Some(format!("{} -> {}", of("old")?, of("new")?)),
        ActionKind::ServiceStart | ActionKind::ServiceStop | ActionKind::ServiceRestart => {
            let before =
                before.filter(|before| !before.is_null()).map_or("unknown".to_owned(), |b| words::short(b, 120));
            Some(format!("{before} -> changed: {}", of("changed")?))
        }
        _ => None,
    }
}

//! What a report says of steps: rows that they copied, what they checked and changed, and each one by itself.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value as Json;

use super::content::{Sources, VALUE_CHARS_MAX, Word, state_word};
use crate::event::{Event, Outputs, Record};
use crate::plan::PlanStep;
use crate::report::status::Run;
use crate::report::{plain, words};
use crate::scheduler::{StepState, StepView};
use crate::spec::actions::ActionKind;

/// An option or services that a step changed.
#[derive(Debug, Serialize)]
pub(super) struct ChangeWords {
    at: String,
    step: String,
    what: String,
    before: String,
    after: String,
    is_undone: bool,
}

/// Rows that a step copied.
#[derive(Debug, Serialize)]
pub(super) struct MoveWords {
    step: String,
    what: String,
    range: Option<String>,
    rows: Json,
    pub(super) inserted: Json,
    pub(super) updated: Json,
    unchanged: Json,
    skipped: Json,
    state: Word,
}

/// What a step looked at, and what it found.
#[derive(Debug, Serialize)]
pub(super) struct CheckWords {
    step: String,
    name: Option<String>,
    what: String,
    result: String,
    state: Word,
}

/// One step of the run.
#[derive(Debug, Serialize)]
pub(super) struct StepWords {
    id: String,
    name: Option<String>,
    action: String,
    needs: Option<String>,
    state: Word,
    attempts: u32,
    started_at: Option<String>,
    length: Option<String>,
    result: String,
}

/// Steps of one kind of action that have started, as the plan has them.
fn begun<'a>(sources: &Sources<'a>) -> impl Iterator<Item = (&'a PlanStep, StepView<'a>)> + use<'a> {
    let Run { plan, state, .. } = sources.run;
    let begun = state.steps().filter(|view| view.started_at().is_some());
    begun.filter_map(|view| plan.step(&view.rule().id).map(|step| (step, view)))
}

fn word_of(outputs: &Outputs, name: &str) -> String {
    match outputs.get(name) {
        None | Some(Json::Null) => "absent".to_owned(),
        Some(Json::Array(items)) if items.is_empty() => "none".to_owned(),
        Some(Json::Array(items)) => items.iter().map(|item| words::short(item, 80)).collect::<Vec<_>>().join(", "),
        Some(value) => words::short(value, VALUE_CHARS_MAX),
    }
}

/// The rendered input of a step's latest attempt.
fn input_of<'a>(records: &'a [Record], step: &PlanStep) -> Option<&'a Json> {
    records.iter().rev().find_map(|record| match &record.event {
        Event::AttemptStarted { step: of, input, .. } if *of == step.id => Some(input),
        _ => None,
    })
}

fn text_at(input: Option<&Json>, name: &str) -> Option<String> {
    input.and_then(|input| input.get(name)).map(|value| words::short(value, 120))
}

/// Whether the services that a step changed were up before.
fn services_before(view: &StepView<'_>, outputs: &Outputs) -> String {
    let image = view.before().unwrap_or_default();
    let changed = outputs.get("changed").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
    let was = |name: &str| match image.pointer(&format!("/services/{name}/status")) {
        Some(status) if status.get("running").is_some() => "up",
        Some(status) if status.get("stopped").is_some() => "down",
        _ => "unknown",
    };
    let each: Vec<(&str, &str)> = changed.map(|name| (name, was(name))).collect();
    match each.as_slice() {
        [] => "as they are".to_owned(),
        [(_, first), rest @ ..] if rest.iter().all(|(_, other)| other == first) => (*first).to_owned(),
        _ => each.iter().map(|(name, was)| format!("{name} {was}")).collect::<Vec<_>>().join(", "),
    }
}

/// Options and services: what they were and what they are.
pub(super) fn changes(sources: &Sources<'_>) -> Vec<ChangeWords> {
    let mut changes = Vec::new();
    for (step, view) in begun(sources) {
        let (outputs, input) = (view.outputs(), input_of(sources.run.records, step));
        let (what, before, after) = match step.action.kind {
            ActionKind::OptionSet | ActionKind::OptionUnset if outputs.contains_key("new") => {
                let name = text_at(input, "name").unwrap_or_default();
                (format!("option {name}"), word_of(&outputs, "old"), word_of(&outputs, "new"))
            }
            ActionKind::ServiceStart | ActionKind::ServiceStop | ActionKind::ServiceRestart
                if outputs.contains_key("changed") =>
            {
                let after = if step.action.kind == ActionKind::ServiceStop { "down" } else { "up" };
                (
                    format!("services: {}", word_of(&outputs, "changed")),
                    services_before(&view, &outputs),
                    after.to_owned(),
                )
            }
            _ => continue,
        };
        changes.push(ChangeWords {
            at: view.finished_at().map(|at| words::day_and_clock(at, sources.zone)).unwrap_or_default(),
            step: step.id.to_string(),
            what,
            before,
            after,
            is_undone: view.state() == StepState::Undone,
        });
    }
    changes
}

/// Seconds since the epoch that may be meant as a moment: of 2001 to 2100. Smaller ones are ids.
const SECONDS: std::ops::Range<i64> = 1_000_000_000..4_102_444_800;

/// A moment of a range, which may be written in seconds since the epoch, as people read it. The number stays: it may be an id.
fn moment(text: String, zone: &TimeZone) -> String {
    let seconds = text.parse().ok().filter(|seconds| SECONDS.contains(seconds));
    let at = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    match at {
        Some(at) => format!("{} ({text})", words::day_and_clock(at, zone)),
        None => text,
    }
}

/// From where to where rows were copied, in words.
fn range_of(input: Option<&Json>, zone: &TimeZone) -> Option<String> {
    let range = input?.get("range");
    let end = |name: &str| text_at(range, name).map(|text| moment(text, zone));
    let range = match (end("from"), end("to")) {
        (Some(from), Some(to)) => Some(format!("from {from} to {to}")),
        (Some(from), None) => Some(format!("from {from} on")),
        (None, Some(to)) => Some(format!("up to {to}")),
        (None, None) => None,
    };
    let split = text_at(input, "at").map(|at| format!("split at {}", moment(at, zone)));
    let parts: Vec<String> = [range, split].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Rows that were copied.
pub(super) fn moves(sources: &Sources<'_>) -> Vec<MoveWords> {
    let copies = begun(sources).filter(|(step, _)| step.action.kind == ActionKind::DbCopy);
    let one = |(step, view): (&PlanStep, StepView<'_>)| {
        let (outputs, input) = (view.outputs(), input_of(sources.run.records, step));
        let of = |name: &str| outputs.get(name).cloned().unwrap_or(Json::Null);
        let place = |name: &str| text_at(input, name).unwrap_or_else(|| "?".to_owned());
        let tables = text_at(input, "tables").map(|tables| format!(", {tables}")).unwrap_or_default();
        let policy = text_at(input, "policy").map(|policy| format!(", {policy}")).unwrap_or_default();
        MoveWords {
            step: step.id.to_string(),
            what: format!("{} to {}{tables}{policy}", place("from"), place("to")),
            range: range_of(input, sources.zone),
            rows: of("rows"),
            inserted: of("inserted"),
            updated: of("updated"),
            unchanged: of("unchanged"),
            skipped: of("skipped"),
            state: state_word(view.state()),
        }
    };
    copies.map(one).collect()
}

/// An action with its rendered input, in a line.
fn input_words(step: &PlanStep, input: Option<&Json>) -> String {
    let mut words = step.action.kind.key().to_owned();
    for (name, value) in input.and_then(Json::as_object).into_iter().flatten() {
        let _ = write!(words, " {name}: {},", words::short(value, 80));
    }
    words::cut(words.trim_end_matches(','), VALUE_CHARS_MAX)
}

/// What was looked at, and what was found.
pub(super) fn checks(sources: &Sources<'_>) -> Vec<CheckWords> {
    let looks = begun(sources).filter(|(step, _)| step.action.kind.is_check() || step.verify.is_some());
    let one = |(step, view): (&PlanStep, StepView<'_>)| {
        let own = step.action.kind.is_check().then(|| input_words(step, input_of(sources.run.records, step)));
        let verify = step.verify.as_ref().map(|verify| format!("afterwards {} held", verify.kind.key()));
        CheckWords {
            step: step.id.to_string(),
            name: step.name.as_deref().map(str::to_owned),
            what: [own, verify].into_iter().flatten().collect::<Vec<_>>().join("; "),
            result: result(&view, sources.zone),
            state: state_word(view.state()),
        }
    };
    looks.map(one).collect()
}

/// Results that say when, in seconds since the epoch where a collector counts like that.
const MOMENTS: [&str; 2] = ["at", "watermark"];

fn result(view: &StepView<'_>, zone: &TimeZone) -> String {
    match (view.skip_reason(), view.error()) {
        (Some(reason), _) => plain::skipped(reason).trim_start_matches("skipped: ").to_owned(),
        (None, Some(error)) if view.state() != StepState::Succeeded => words::cut(error, VALUE_CHARS_MAX),
        _ => {
            let mut outputs = view.outputs();
            for name in MOMENTS {
                if let Some(at) = outputs.get_mut(name).filter(|at| at.is_i64()) {
                    *at = moment(at.to_string(), zone).into();
                }
            }
            words::outputs(&outputs)
        }
    }
}

/// One step.
pub(super) fn step(sources: &Sources<'_>, view: &StepView<'_>) -> StepWords {
    let planned = sources.run.plan.step(&view.rule().id);
    let to = view.finished_at();
    let retired = view.rule().retired.then(|| "no longer in the runbook; kept for the way back".to_owned());
    StepWords {
        id: view.rule().id.to_string(),
        name: planned.and_then(|step| step.name.as_deref().map(str::to_owned)),
        action: planned.map(|step| step.action.kind.key().to_owned()).unwrap_or_default(),
        needs: planned.filter(|step| !step.needs.is_empty()).map(needs_words),
        state: state_word(view.state()),
        attempts: view.attempts(),
        started_at: view.started_at().map(|at| words::clock(at, sources.zone)),
        length: view.started_at().zip(to).map(|(from, to)| words::duration(words::between(from, to))),
        result: retired.unwrap_or_else(|| result(view, sources.zone)),
    }
}

fn needs_words(step: &PlanStep) -> String {
    const SHOWN: usize = 12;
    let names: Vec<&str> = step.needs.iter().take(SHOWN).map(|(need, _)| need.as_str()).collect();
    let more = step.needs.len() - names.len();
    format!("after {}{}", names.join(", "), if more > 0 { format!(" and {more} more") } else { String::new() })
}

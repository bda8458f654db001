//! One run as it stands: a table for people, one object for programs.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value as Json, json};

use super::words::{self, Paint};
use super::{deviations, people, plain, signed, windows};
use crate::event::{Event, Record};
use crate::ids::RunId;
use crate::plan::Plan;
use crate::scheduler::{State, StepState, StepView};

/// A run as the journal tells it.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// Its id.
    pub run: &'a RunId,
    /// Its plan.
    pub plan: &'a Plan,
    /// Its state.
    pub state: &'a State,
    /// Its records.
    pub records: &'a [Record],
}

/// What a run that a step of this one started asks of people.
pub type Below = (RunId, people::Ask);

/// The machine form: `run, runbook, version, digest, site, outcome, steps` and more; `outcome` is null while it is open.
pub fn to_json(run: Run<'_>, below: &[Below], now: Timestamp) -> Json {
    let Run { run: id, plan, state, records } = run;
    let started = records.first();
    let by = started.and_then(|record| match &record.event {
        Event::RunStarted { by, .. } => Some(by.clone()),
        _ => None,
    });
    let steps: Vec<Json> = state
        .steps()
        .map(|view| {
            json!({
                "id": view.rule().id, "state": view.state(), "attempts": view.attempts(),
                "started_at": view.started_at(), "finished_at": view.finished_at(),
                "outputs": view.outputs(), "error": view.error(),
                "name": plan.step(&view.rule().id).and_then(|step| step.name.clone()),
                "removed": view.rule().retired, "skipped": view.skip_reason(), "retry_at": view.retry_at(),
            })
        })
        .collect();
    let deviations: Vec<Json> = state
        .deviations()
        .iter()
        .map(|d| {
            let (budget, was) = d.extended.clone().unzip();
            json!({
                "what": d.what, "step": d.step, "by": d.by, "agreed": d.agreed, "reason": d.reason, "at": d.at,
                "budget": budget, "was": was,
            })
        })
        .collect();
    let of_run = |run: &RunId, ask: &people::Ask| {
        let mut ask = ask.to_json();
        ask["run"] = json!(run);
        ask
    };
    let own = people::asks(state, id, now);
    let waiting_for = own.iter().map(|ask| of_run(id, ask));
    let below = below.iter().map(|(run, ask)| of_run(run, ask));
    json!({
        "run": id, "runbook": plan.name, "version": plan.version, "digest": plan.digest,
        "site": plan.site.site.name, "outcome": state.outcome(), "note": state.note(),
        "by": by, "started_at": state.started_at(), "finished_at": state.finished_at(), "params": plan.params,
        "steps": steps,
        "windows": windows::measure(plan, state).iter().map(|window| window.to_json(now)).collect::<Vec<_>>(),
        "deviations": deviations, "signed": signed::to_json(signed::of_records(records)),
        "waiting_for": waiting_for.chain(below).collect::<Vec<_>>(),
    })
}

/// How long a step took, or takes so far.
fn length(view: &StepView<'_>, now: Timestamp) -> String {
    let Some(from) = view.started_at() else { return String::new() };
    let to = match view.state() {
        StepState::Running | StepState::Waiting | StepState::Undoing => now,
        StepState::Pending
        | StepState::Ready
        | StepState::Succeeded
        | StepState::Failed
        | StepState::Skipped
        | StepState::InDoubt
        | StepState::Undone => match view.finished_at() {
            Some(at) => at,
            None => return String::new(),
        },
    };
    words::duration(words::between(from, to))
}

/// What there is to say about a step beside its state.
fn remark(view: &StepView<'_>) -> String {
    if view.rule().retired {
        return "is no longer in the runbook; kept for the way back".to_owned();
    }
    if let Some(reason) = view.skip_reason() {
        return plain::skipped(reason).trim_start_matches("skipped: ").to_owned();
    }
    match view.error() {
        Some(error) if view.state() != StepState::Succeeded => words::cut(error, 160),
        _ => words::outputs(&view.outputs()),
    }
}

/// The table for people.
pub fn to_text(run: Run<'_>, below: &[Below], now: Timestamp, zone: &TimeZone, paint: Paint) -> String {
    let Run { run: id, plan, state, .. } = run;
    let mut lines = vec![head(run, now, zone, paint), String::new()];
    for deviation in state.deviations() {
        lines.push(paint.warn(&format!(
            "{} (at {})",
            deviations::deviation(deviation),
            words::day_and_clock(deviation.at, zone)
        )));
    }
    if !state.deviations().is_empty() {
        lines.push(String::new());
    }
    let id_width = state.steps().map(|view| view.rule().id.as_str().chars().count()).max().unwrap_or(4).min(44);
    for view in state.steps() {
        let (step, word) = (view.rule().id.as_str(), words::state(view.state()));
        let tries = if view.attempts() > 1 { format!("x{}", view.attempts()) } else { String::new() };
        let row = format!(
            "{} {}  {}  {:>8} {:>4}  {}",
            paint.state(view.state(), words::mark(view.state())),
            words::pad(step, id_width),
            paint.state(view.state(), &words::pad(&words::for_people(word), 9)),
            length(&view, now),
            tries,
            remark(&view),
        );
        lines.push(row.trim_end().to_owned());
    }
    let measured = windows::measure(plan, state);
    if !measured.is_empty() {
        lines.push(String::new());
    }
    for window in measured {
        let text = format!("window {}: {}", window.name, window.words(now));
        lines.push(if window.is_over_budget(now) { paint.bad(&text) } else { text });
    }
    for ask in people::asks(state, id, now) {
        lines.extend(asked(&ask.about(), &ask, now, zone, paint));
    }
    for (run, ask) in below {
        lines.extend(asked(&format!("{} of run {run}", ask.about()), ask, now, zone, paint));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// One question: who is asked, what, and the commands to answer with.
fn asked(about: &str, ask: &people::Ask, now: Timestamp, zone: &TimeZone, paint: Paint) -> Vec<String> {
    let what = if ask.is_undo { "waits to be undone by" } else { "waits for" };
    let mut lines = vec![String::new(), paint.warn(&format!("{about} {what} {}", ask.whom()))];
    lines.extend(ask.lines(paint).iter().map(|line| format!("    {line}").trim_end().to_owned()));
    lines.extend(ask.details(now, zone).into_iter().map(|line| format!("    {line}")));
    lines.extend(ask.commands.iter().map(|command| format!("  {}", paint.bold(command))));
    lines
}

fn head(run: Run<'_>, now: Timestamp, zone: &TimeZone, paint: Paint) -> String {
    let Run { run: id, plan, state, records } = run;
    let by = records.first().map(|record| &record.event);
    let by = match by {
        Some(Event::RunStarted { by, .. }) => format!(", started by {by}"),
        _ => String::new(),
    };
    let outcome = state.outcome().map_or("is under way, or its driver was interrupted", words::outcome_sentence);
    let from = state.started_at();
    let at = from.map(|at| format!(" at {}", words::day_and_clock(at, zone))).unwrap_or_default();
    let total = from
        .map(|from| words::duration(words::between(from, state.finished_at().unwrap_or(now))))
        .map(|text| format!(" ({text})"))
        .unwrap_or_default();
    let signed: Vec<String> =
        std::iter::once(String::new()).chain(signed::lines(signed::of_records(records))).collect();
    let signed = signed.join("\n");
    let note = state.note().map(|note| format!("\n{note}")).unwrap_or_default();
    format!(
        "{}  {} {} on {}{by}{at}\n{}{total}{note}{signed}",
        paint.bold(&format!("run {id}")),
        plan.name,
        plan.version,
        plan.site.site.name,
        paint.bold(outcome),
    )
}

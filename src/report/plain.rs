//! Lines of a run for logs and pipes: `HH:MM:SS  step  what happened`. Stable and made to be searched.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::Write as _;

use super::live::Watch;
use super::words::{self, Paint};
use super::{deviations, diff, people, windows};
use crate::event::{Answer, Effect, Event, Finding, Occasion, Outcome, Outputs, Record, SkipReason};
use crate::ids::{RunId, StepId};
use crate::scheduler::{State, StepState};

/// One event in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The step, or `run`.
    pub who: String,
    /// What happened.
    pub text: String,
    /// The state that it brought, for the colour.
    pub state: Option<StepState>,
    /// Whether it only says that something began.
    pub begins: bool,
    /// Further lines: what to do now.
    pub more: Vec<String>,
}

impl Line {
    fn new(who: String, state: Option<StepState>, text: impl Into<String>) -> Self {
        Self { who, text: text.into(), state, begins: false, more: Vec::new() }
    }

    fn begins(mut self) -> Self {
        self.begins = true;
        self
    }

    /// The line as it is printed.
    pub fn print(&self, at: Timestamp, zone: &TimeZone, paint: Paint) -> String {
        let text = self.state.map_or_else(|| self.text.clone(), |state| paint.state(state, &self.text));
        let mut out = format!("{}  {}  {text}", words::clock(at, zone), words::pad(&self.who, 20));
        for more in &self.more {
            let _ = write!(out, "\n          {} {more}", " ".repeat(20));
        }
        out
    }
}

/// What is going on with a step, in words.
pub fn note(watch: &Watch, run: &RunId, step: &StepId, what: &str) -> Line {
    Line::new(watch.label(run, step.as_str()), None, what)
}

/// What a record means, in words, with the state behind it.
pub fn line(watch: &Watch, record: &Record) -> Line {
    let state = watch.state_of(&record.run);
    let who = record.event.step().map_or("run", StepId::as_str);
    let who = watch.label(&record.run, who);
    match &record.event {
        Event::RunStarted { .. }
        | Event::RunResumed { .. }
        | Event::CancelRequested { .. }
        | Event::RunTimedOut
        | Event::SecretTooShort { .. }
        | Event::RunAmended { .. }
        | Event::RollbackRequested { .. }
        | Event::RollbackStarted { .. }
        | Event::RunFinished { .. } => run_line(who, &record.event),
        Event::StepWaiting { step, prompt, .. } | Event::UndoWaiting { step, prompt, .. } => {
            let ask =
                state.and_then(|state| state.step(step)).and_then(|view| people::ask(&view, &record.run, record.at));
            let whom = ask.as_ref().map_or_else(|| "a person".to_owned(), people::Ask::whom);
            let what =
                if matches!(record.event, Event::UndoWaiting { .. }) { "waits to be undone by" } else { "waits for" };
            let prompt = ask.as_ref().map_or_else(|| words::cut(prompt, 200), |ask| ask.line(200));
            let text = format!("{what} {whom}: {prompt}");
            let mut line = Line::new(who, Some(StepState::Waiting), text);
            line.more = ask.map(|ask| ask.commands).unwrap_or_default();
            line
        }
        Event::StepSkipped { .. }
        | Event::AttemptStarted { .. }
        | Event::AttemptSucceeded { .. }
        | Event::AttemptFailed { .. }
        | Event::AttemptProbed { .. }
        | Event::StepAnswered { .. }
        | Event::StepAssigned { .. }
        | Event::StepExpired { .. }
        | Event::PeopleTold { .. }
        | Event::SkipRequested { .. }
        | Event::DeviationRequested { .. }
        | Event::DeviationAnswered { .. }
        | Event::WordRefused { .. }
        | Event::UndoStarted { .. }
        | Event::UndoSucceeded { .. }
        | Event::UndoFailed { .. } => step_line(who, record, state),
    }
}

fn run_line(who: String, event: &Event) -> Line {
    match event {
        Event::RunStarted { runbook, version, site, by, .. } => {
            Line::new(who, None, format!("started: {runbook} {version} on {site}, by {by}")).begins()
        }
        Event::RunResumed { by, held, .. } => Line::new(who, None, format!("resumed by {by}{}", goes_on(held))),
        Event::CancelRequested { by, reason } => {
            let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            Line::new(who, Some(StepState::Waiting), format!("{by} asked to cancel{reason}"))
        }
        Event::SecretTooShort { name } => {
            let text = format!(
                "secret `{name}` has fewer than 4 characters: it is hidden as it is, but not in base64, hex and other \
                 encodings; use a longer one"
            );
            Line::new(who, Some(StepState::Waiting), text)
        }
        Event::RunTimedOut => Line::new(who, Some(StepState::Failed), "took longer than it may; what runs is stopped"),
        Event::RunAmended { by, reason, version, steps, voids, .. } => {
            let text = format!("{by} has it go on with version {version}: {}", words::cut(reason, 300));
            let mut line = Line::new(who, Some(StepState::Waiting), text);
            line.more = steps.iter().map(diff::entry).collect();
            line.more
                .extend(voids.iter().map(|step| format!("{step}: what was approved is void; people are asked again")));
            line
        }
        Event::RollbackRequested { by, reason, .. } => {
            let text = format!("{by} has the run rolled back: {}", words::cut(reason, 300));
            Line::new(who, Some(StepState::Failed), text)
        }
        Event::RollbackStarted { reason } => {
            Line::new(who, Some(StepState::Failed), format!("turns back: {}", words::cut(reason, 300)))
        }
        Event::RunFinished { outcome, note, milestones, revoked } => {
            let state = match outcome {
                Outcome::Succeeded => StepState::Succeeded,
                Outcome::Failed | Outcome::RolledBack => StepState::Failed,
                Outcome::Stuck | Outcome::Waiting | Outcome::Cancelled => StepState::Waiting,
            };
            let note = note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
            let mut line = Line::new(who, Some(state), format!("{}{note}", words::outcome_sentence(*outcome)));
            line.more = milestones.iter().map(|milestone| format!("established {milestone}")).collect();
            line.more.extend(revoked.iter().map(|milestone| format!("took back {milestone}")));
            line
        }
        _ => Line::new(who, None, words::for_people(event.kind())),
    }
}

/// How long the latest of a step took, as ` in 1.2s`.
fn took(state: Option<&State>, step: &StepId, at: Timestamp) -> String {
    let started = state.and_then(|state| state.step(step)).and_then(|view| view.started_at());
    started.map(|from| format!(" in {}", words::duration(words::between(from, at)))).unwrap_or_default()
}

fn results(outputs: &Outputs) -> String {
    let shown = words::outputs(outputs);
    if shown.is_empty() { String::new() } else { format!(" ({shown})") }
}

fn numbered(attempt: u32) -> String {
    if attempt > 1 { format!(" (attempt {attempt})") } else { String::new() }
}

fn step_line(who: String, record: &Record, state: Option<&State>) -> Line {
    let line = |state, text: String| Line::new(who.clone(), Some(state), text);
    match &record.event {
        Event::StepSkipped { reason, .. } => line(StepState::Skipped, skipped(reason)),
        Event::AttemptStarted { attempt, .. } => {
            line(StepState::Running, format!("started{}", numbered(*attempt))).begins()
        }
        Event::AttemptSucceeded { step, outputs, .. } => {
            line(StepState::Succeeded, format!("succeeded{}{}", took(state, step, record.at), results(outputs)))
        }
        Event::AttemptFailed { step, attempt, error, effect, .. } => {
            let view = state.and_then(|state| state.step(step));
            let after = match view.map(|view| (view.state(), view.retry_at())) {
                Some((StepState::Ready, Some(at))) => {
                    format!("; tries again in {}", words::duration(words::between(record.at, at)))
                }
                Some((StepState::InDoubt, _)) => "; a person must say what it did".to_owned(),
                _ if *effect == Effect::Unknown => "; it may have changed something".to_owned(),
                _ => String::new(),
            };
            line(StepState::Failed, format!("failed{}: {}{after}", numbered(*attempt), words::cut(error, 400)))
        }
        Event::AttemptProbed { finding, .. } => line(StepState::InDoubt, found(finding).to_owned()),
        Event::StepAnswered { by, answer, .. } => {
            let (state, text) = answered(answer);
            line(state, format!("{text} by {by}{}", people::known(by)))
        }
        Event::StepAssigned { by, to, reason, .. } => {
            line(StepState::Waiting, format!("handed over to {to} by {by}{}: {reason}", people::known(by)))
        }
        Event::WordRefused { by, word, why, .. } => {
            let word = words::for_people(word);
            line(StepState::Failed, format!("REFUSED: \"{word}\" by {by}{}: {why}", people::known(by)))
        }
        Event::StepExpired { .. } => line(StepState::Failed, "nobody answered in time".to_owned()),
        Event::PeopleTold { occasion, sent, error, .. } => {
            line(StepState::Waiting, told(*occasion, *sent, error.as_deref()))
        }
        Event::SkipRequested { by, reason, .. } => {
            line(StepState::Skipped, format!("{by} asked to skip it: {reason}")).begins()
        }
        Event::DeviationRequested { by, what, reason, .. } => {
            let text = format!("{by}{} {}: {reason}", people::known(by), deviations::wanted(what));
            line(StepState::Waiting, text)
        }
        Event::DeviationAnswered { by, answer, .. } => {
            let (state, text) = deviations::consent(answer);
            line(state, format!("{text} by {by}{}", people::known(by)))
        }
        Event::UndoStarted { attempt, .. } => {
            line(StepState::Undoing, format!("undo started{}", numbered(*attempt))).begins()
        }
        Event::UndoSucceeded { .. } => line(StepState::Undone, "undone".to_owned()),
        Event::UndoFailed { error, .. } => line(StepState::Failed, format!("undo failed: {}", words::cut(error, 400))),
        _ => Line::new(who, None, words::for_people(record.event.kind())),
    }
}

/// That people were told, in words.
fn told(occasion: Occasion, sent: bool, error: Option<&str>) -> String {
    let what = match occasion {
        Occasion::Asked => "told people that they are asked",
        Occasion::Reminded => "reminded people that they are asked",
        Occasion::Escalated => "nobody answered in time: others are asked as well",
    };
    match (sent, error) {
        (_, Some(error)) => format!("{what}; it did not get through: {}", words::cut(error, 200)),
        (true, None) => what.to_owned(),
        (false, None) => format!("{what}; no message was sent, since neither the step nor the site has a `notify`"),
    }
}

/// A skip in words.
pub fn skipped(reason: &SkipReason) -> String {
    match reason {
        SkipReason::When => "skipped: its condition is false".to_owned(),
        SkipReason::Need(need) => format!("skipped: `{need}` did not end as needed"),
        SkipReason::Person { by, reason, deviation: false } => format!("skipped by {by}: {reason}"),
        SkipReason::Person { by, reason, deviation: true } => format!("DEVIATION: skipped by {by}: {reason}"),
    }
}

/// Steps whose attempts go on although their driver is gone, in words.
pub fn goes_on(held: &[StepId]) -> String {
    let names: Vec<String> = held.iter().take(5).map(|step| format!("`{step}`")).collect();
    match held.len() {
        0 => String::new(),
        count if count > names.len() => format!("; {count} steps go on, {} among them", names.join(", ")),
        _ => format!("; {} went on meanwhile", names.join(", ")),
    }
}

/// A finding in words.
pub fn found(finding: &Finding) -> &'static str {
    match finding {
        Finding::Done(_) => "looked up: the interrupted attempt had done its work",
        Finding::NotDone => "looked up: the interrupted attempt had changed nothing",
        Finding::Unknown => "looked up: it cannot be told what the interrupted attempt did",
    }
}

/// An answer in words and the state that it brings.
pub fn answered(answer: &Answer) -> (StepState, String) {
    let with = |what: &str, why: &Option<String>| match why {
        Some(why) => format!("{what} (\"{why}\")"),
        None => what.to_owned(),
    };
    match answer {
        Answer::Approved { comment } => (StepState::Succeeded, with("approved", comment)),
        Answer::Withdrawn { comment } => (StepState::Waiting, with("approval taken back", comment)),
        Answer::Rejected { comment } => (StepState::Failed, with("rejected", comment)),
        Answer::Completed { form, evidence, comment } => {
            let files =
                if evidence.is_empty() { String::new() } else { format!(", {} evidence file(s)", evidence.len()) };
            (StepState::Succeeded, with(&format!("reported done{}{files}", results(form)), comment))
        }
        Answer::Ran { reason, outputs } => {
            (StepState::Succeeded, format!("declared done (\"{reason}\"){}", results(outputs)))
        }
        Answer::NotRan { reason } => (StepState::Ready, format!("declared not run (\"{reason}\")")),
        Answer::Undone { reason } => (StepState::Undone, format!("declared undone by hand (\"{reason}\")")),
        Answer::Left { reason } => (StepState::Failed, format!("DEVIATION: left as it is (\"{reason}\")")),
    }
}

/// What is left to say when a run ends or rests: windows, deviations, questions and what to do next.
pub fn closing(watch: &Watch, now: Timestamp, outcome: Outcome, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(state) = watch.state() else { return lines };
    let run = &watch.subject.run;
    for window in windows::measure(&watch.subject.plan, state) {
        let text = format!("window {}: {}", window.name, window.words(now));
        lines.push(if window.is_over_budget(now) { paint.bad(&text) } else { text });
    }
    for deviation in state.deviations() {
        lines.push(paint.warn(&deviations::deviation(deviation)));
    }
    let asks = people::asks(state, run, now);
    for ask in &asks {
        lines.push(paint.warn(&format!("{} waits for {}: {}", ask.about(), ask.whom(), ask.line(300))));
        lines.extend(ask.commands.iter().map(|command| format!("    {command}")));
    }
    match outcome {
        Outcome::Waiting | Outcome::Stuck | Outcome::Failed => {
            let then = if asks.is_empty() { "when the cause is mended" } else { "then" };
            lines.push(format!("{then}: piton resume {run}"));
        }
        Outcome::Cancelled => lines.push(format!("to go on: piton resume {run}")),
        Outcome::Succeeded | Outcome::RolledBack => {}
    }
    lines
}

//! A person's word about a run: recorded if it can be true, with what to do next.

use serde_json::json;

use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::place::Place;
use super::voice::{Spoken, Voice};
use crate::driver::Told;
use crate::event::{Event, Record};
use crate::ids::{Actor, RunId, StepId};
use crate::report::lines;
use crate::report::people::AskKind;
use crate::spec::problem::did_you_mean;

/// The step that a person means.
pub(super) fn step_of(told: &Told, name: &str) -> Result<StepId, CliError> {
    let id = StepId::new(name);
    // A step that an amendment took out may still have to be undone.
    if told.state.step(&id).is_some() {
        return Ok(id);
    }
    let known: Vec<&str> = told.state.steps().map(|view| view.rule().id.as_str()).collect();
    let help = did_you_mean(name, known.iter().copied()).map(|help| format!("; {help}")).unwrap_or_default();
    Err(CliError::Usage(format!("this run has no step `{name}`{help}")))
}

/// Whether no driver works on the run: it came to rest after it was last started or resumed.
pub(super) fn is_at_rest(records: &[Record]) -> bool {
    let mut at_rest = false;
    for record in records {
        if matches!(record.event, Event::RunFinished { .. }) {
            at_rest = true;
        } else if matches!(record.event, Event::RunResumed { .. } | Event::RollbackRequested { .. }) {
            at_rest = false;
        }
    }
    at_rest
}

/// Says the word as whoever it is, or prints what has to be signed for it.
pub(super) async fn speak(
    place: &Place,
    (run, told): (&RunId, &Told),
    voice: &Voice,
    word: impl Fn(Actor) -> Event,
    out: Out,
) -> Result<Exit, CliError> {
    match voice.speak(run, told, word)? {
        Spoken::Word(event) => say(place, run, told, *event, out).await,
        Spoken::Statement(text) => {
            out.text(&text)?;
            Ok(Exit::SUCCEEDED)
        }
    }
}

/// Records the word and says what comes next.
pub(super) async fn say(place: &Place, run: &RunId, told: &Told, event: Event, out: Out) -> Result<Exit, CliError> {
    let record = crate::driver::say(&place.journal, run, &event).await?;
    if out.json {
        out.json_line(&json!({ "run": run, "recorded": lines::event(&record) }))?;
        return Ok(Exit::SUCCEEDED);
    }
    out.line(format!("recorded in run {run}"))?;
    let after = crate::driver::read(&place.journal, run).await?;
    let left = crate::report::people::asks(&after.state, run, crate::config::now());
    for ask in &left {
        out.line(format!("{} still waits for {}", ask.about(), ask.whom()))?;
        if ask.kind == AskKind::Deviation {
            out.line(format!("    {}", ask.commands.first().map_or("", String::as_str)))?;
        }
    }
    if is_at_rest(&told.records) {
        if left.is_empty() {
            out.line(format!("go on with: piton resume {run}"))?;
        }
    } else {
        out.line(format!("the driver of this run goes on by itself; if it was interrupted: piton resume {run}"))?;
    }
    Ok(Exit::SUCCEEDED)
}

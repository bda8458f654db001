//! `piton cancel`: ends a run. A driver at work is told; a run at rest is closed here, and its locks are freed.

use clap::Args;
use serde_json::json;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::voice::{Spoken, Voice};
use super::word;
use crate::driver::{self, Options};
use crate::event::{Event, Outcome};
use crate::report::words;

/// Arguments of `piton cancel`.
#[derive(Debug, Args)]
#[command(after_help = "What runs is finished first; cancel a second time to stop it at once. Nothing is undone; a\n\
    cancelled run frees its locks and can be resumed.")]
pub struct Cancel {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// Why; kept for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    voice: Voice,
}

pub(super) async fn run(global: &Global, args: Cancel, out: Out) -> Result<Exit, CliError> {
    let place = global.driven_store().await?;
    let (run, told) = place.told(&args.run).await?;
    let word = |by| Event::CancelRequested { by, reason: args.reason.clone() };
    let event = match args.voice.speak(&run, &told, word)? {
        Spoken::Word(event) => *event,
        Spoken::Statement(text) => return out.text(&text).map(|()| Exit::SUCCEEDED),
    };
    let by = event.by().expect("a person cancels").unsigned();
    if !word::is_at_rest(&told.records) || told.state.outcome().is_some_and(Outcome::is_final) {
        return word::say(&place, &run, &told, event, out).await;
    }
    if told.state.outcome() == Some(Outcome::Cancelled) {
        return Err(CliError::Usage(format!("run `{run}` is cancelled already")));
    }
    // Nobody drives it: it is opened, told, and closed again at once, so that nothing starts in between.
    if told.state.outcome().is_some() {
        let sealed_by = place.journal.sealed_by();
        let opened = Event::RunResumed { by: by.clone(), driver: "piton cancel".into(), held: Vec::new(), sealed_by };
        driver::say(&place.journal, &run, &opened).await?;
    }
    driver::say(&place.journal, &run, &event).await?;
    let ended = driver::resume(&place.journal, run.clone(), Options::new(by, place.state_dir.clone())).await?;
    if out.json {
        out.json_line(&json!({ "run": run, "outcome": ended.outcome, "note": ended.note }))?;
    } else {
        out.line(format!("run {run} {}", words::outcome_sentence(ended.outcome)))?;
    }
    Ok(Exit::SUCCEEDED)
}

//! `piton skip`: a person passes over a step.

use clap::Args;

use super::Global;
use super::decide::reason_of;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::voice::Voice;
use super::word;
use crate::event::Event;

/// Arguments of `piton skip`.
#[derive(Debug, Args)]
#[command(
    after_help = "Skipping a step that the runbook does not mark as optional is a deviation: it marks the run for ever."
)]
pub struct Skip {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// A step that has not started
    step: String,
    /// Why; kept for the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    voice: Voice,
}

pub(super) async fn run(global: &Global, args: Skip, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let step = word::step_of(&told, &args.step)?;
    let reason = reason_of(&args.reason)?;
    match told.plan.step(&step).and_then(|step| step.optional.as_ref()) {
        Some(optional) => out.note(&format!("consequence: {}", optional.consequence)),
        None => out.note(&format!("`{step}` is not optional: this is a deviation and stays in the record of the run")),
    }
    let word = |by| Event::SkipRequested { step: step.clone(), by, reason: reason.clone() };
    word::speak(&place, (&run, &told), &args.voice, word, out).await
}

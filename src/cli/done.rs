//! `piton done`: declares a step done that has not started or has failed.

use clap::Args;

use super::Global;
use super::decide::{outputs_of, reason_of};
use super::deviate;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::voice::Voice;
use super::word;
use crate::event::Departure;

/// Arguments of `piton done`.
#[derive(Debug, Args)]
#[command(
    after_help = "For work that was done outside of the run. What the step undoes is undone by its `undo` if the run turns back; an\n\
    automatic one that never saw what was there before asks a person. This is a deviation: it marks the run for ever, and\n\
    the runbook may want more people to agree to it. For a step in doubt: `piton decide`."
)]
pub struct Done {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// A step that has not started, was passed over, or failed
    step: String,
    /// An output that it would have given, JSON or else text; may be given many times
    #[arg(long, value_name = "NAME=VALUE")]
    output: Vec<String>,
    /// How it was done; kept for the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    voice: Voice,
}

pub(super) async fn run(global: &Global, args: Done, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let (step, reason) = (word::step_of(&told, &args.step)?, reason_of(&args.reason)?);
    let what = Departure::Done { outputs: outputs_of(&told.plan, &step, &args.output)? };
    deviate::want(&place, (&run, &told), &args.voice, (Some(step), what, reason), out).await
}

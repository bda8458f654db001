//! `piton assign`: hands work by hand over to somebody.

use clap::Args;

use super::Global;
use super::decide::reason_of;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::voice::Voice;
use super::word;
use crate::event::Event;
use crate::ids::Actor;

/// Arguments of `piton assign`.
#[derive(Debug, Args)]
#[command(
    after_help = "Whoever may answer the step may hand it over, also to themselves; from then on only that person reports it done."
)]
pub struct Assign {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// A step that waits for work by hand
    step: String,
    /// Who is to do it from now on
    #[arg(long, value_name = "NAME")]
    to: String,
    /// Why; kept for the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    voice: Voice,
}

pub(super) async fn run(global: &Global, args: Assign, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let (step, reason, to) = (word::step_of(&told, &args.step)?, reason_of(&args.reason)?, Actor::new(&args.to));
    let word = |by| Event::StepAssigned { step: step.clone(), by, to: to.clone(), reason: reason.clone() };
    word::speak(&place, (&run, &told), &args.voice, word, out).await
}

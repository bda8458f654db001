//! `piton force`: has a step start that was passed over.

use clap::Args;

use super::Global;
use super::decide::reason_of;
use super::deviate;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::voice::Voice;
use super::word;
use crate::event::Departure;

/// Arguments of `piton force`.
#[derive(Debug, Args)]
#[command(
    after_help = "It starts once all that it needs has ended, however that ended; its condition is not asked. This is a deviation: it\n\
    marks the run for ever, and the runbook may want more people to agree to it."
)]
pub struct Force {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// A step that was passed over, for its condition or for what it needs
    step: String,
    /// Why; kept for the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    voice: Voice,
}

pub(super) async fn run(global: &Global, args: Force, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let wanted = (Some(word::step_of(&told, &args.step)?), Departure::Force, reason_of(&args.reason)?);
    deviate::want(&place, (&run, &told), &args.voice, wanted, out).await
}

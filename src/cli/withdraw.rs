//! `piton withdraw`: takes an approval back before enough people have given theirs.

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::voice::Voice;
use super::word;
use crate::event::{Answer, Event};

/// Arguments of `piton withdraw`.
#[derive(Debug, Args)]
#[command(after_help = "Once the step has as many approvals as it wants, they are used and cannot be taken back.")]
pub struct Withdraw {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// The step that waits
    step: String,
    /// Why; kept with the answer
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    #[command(flatten)]
    voice: Voice,
}

pub(super) async fn run(global: &Global, args: Withdraw, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let step = word::step_of(&told, &args.step)?;
    let answer = Answer::Withdrawn { comment: args.comment };
    let word = |by| Event::StepAnswered { step: step.clone(), by, answer: answer.clone() };
    word::speak(&place, (&run, &told), &args.voice, word, out).await
}

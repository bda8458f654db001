//! `piton approve`: a person's yes or no to a step that waits for it.

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::voice::Voice;
use super::word;
use crate::event::{Answer, Event};

/// Arguments of `piton approve`.
#[derive(Debug, Args)]
pub struct Approve {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// The step that waits
    step: String,
    /// Say no; the step fails
    #[arg(long)]
    reject: bool,
    /// A remark that is kept with the answer
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    #[command(flatten)]
    voice: Voice,
}

pub(super) async fn run(global: &Global, args: Approve, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let comment = args.comment;
    let answer = if args.reject { Answer::Rejected { comment } } else { Answer::Approved { comment } };
    let step = word::step_of(&told, &args.step)?;
    let word = |by| Event::StepAnswered { step: step.clone(), by, answer: answer.clone() };
    word::speak(&place, (&run, &told), &args.voice, word, out).await
}

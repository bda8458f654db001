//! `piton approve`: a person's yes or no to a step that waits for it.

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
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
    /// Who answers [default: the user of this process]
    #[arg(long = "as", value_name = "NAME")]
    by: Option<String>,
}

pub(super) async fn run(global: &Global, args: Approve, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let comment = args.comment;
    let answer = if args.reject { Answer::Rejected { comment } } else { Answer::Approved { comment } };
    let step = word::step_of(&told, &args.step)?;
    let event = Event::StepAnswered { step, by: crate::config::actor(args.by.as_deref()), answer };
    word::say(&place, &run, &told, event, out).await
}

//! `piton agree`: a person's yes or no to a deviation that another one wants.

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::voice::Voice;
use super::word;
use crate::event::{Consent, Event};

/// Arguments of `piton agree`.
#[derive(Debug, Args)]
#[command(
    after_help = "`piton approvals` lists what is wanted. What the driver records about the step meanwhile, another plan, and the\n\
    end of its time put an end to it; then it must be proposed again."
)]
pub struct Agree {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// The step that it is about; left out for what is about the run
    step: Option<String>,
    /// Say no, which is the end of it
    #[arg(long)]
    deny: bool,
    /// Take the own consent back; of whoever wanted it, that is the end of it
    #[arg(long, conflicts_with = "deny")]
    retract: bool,
    /// A remark that is kept with the answer
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    #[command(flatten)]
    voice: Voice,
}

pub(super) async fn run(global: &Global, args: Agree, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let step = args.step.as_deref().map(|step| word::step_of(&told, step)).transpose()?;
    let comment = args.comment;
    let answer = match (args.deny, args.retract) {
        (true, _) => Consent::Denied { comment },
        (_, true) => Consent::Retracted { comment },
        _ => Consent::Agreed { comment },
    };
    let word = |by| Event::DeviationAnswered { step: step.clone(), by, answer: answer.clone() };
    word::speak(&place, (&run, &told), &args.voice, word, out).await
}

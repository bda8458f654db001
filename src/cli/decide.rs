//! `piton decide`: a person's word on an attempt whose result is unknown, or on an undo that failed.

use clap::Args;
use serde_json::Value as Json;

use super::Global;
use super::deviate;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::voice::Voice;
use super::word;
use crate::event::{Answer, Departure, Event, Outputs};
use crate::ids::StepId;
use crate::plan::Plan;
use crate::spec::problem::did_you_mean;

/// Arguments of `piton decide`.
#[derive(Debug, Args)]
#[command(
    after_help = "Look at the system first. --ran: the step counts as succeeded. --not-ran: it may run again.\n\
    For a step whose undo failed: --undone if you undid it by hand, --leave to let it stay (a deviation).",
    group = clap::ArgGroup::new("word").required(true)
)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag; the group lets a person give one")]
pub struct Decide {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// The step in doubt, or whose undo failed
    step: String,
    /// The attempt did all of its work
    #[arg(long, group = "word")]
    ran: bool,
    /// The attempt changed nothing
    #[arg(long, group = "word")]
    not_ran: bool,
    /// What its undo should have done was done by hand
    #[arg(long, group = "word")]
    undone: bool,
    /// It stays as it is; the rollback goes on without it
    #[arg(long, group = "word")]
    leave: bool,
    /// An output that the attempt gave, JSON or else text; may be given many times
    #[arg(long, value_name = "NAME=VALUE", conflicts_with_all = ["not_ran", "undone", "leave"])]
    output: Vec<String>,
    /// How you know; kept for the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    voice: Voice,
}

pub(super) async fn run(global: &Global, args: Decide, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let reason = reason_of(&args.reason)?;
    let step = word::step_of(&told, &args.step)?;
    let answer = match (args.ran, args.undone, args.leave) {
        (true, ..) => Answer::Ran { reason, outputs: outputs_of(&told.plan, &step, &args.output)? },
        (_, true, _) => Answer::Undone { reason },
        (_, _, true) if told.state.step(&step).is_some_and(|view| view.rule().deviations.is_some()) => {
            return deviate::want(&place, (&run, &told), &args.voice, (Some(step), Departure::Leave, reason), out)
                .await;
        }
        (_, _, true) => Answer::Left { reason },
        _ => Answer::NotRan { reason },
    };
    let word = |by| Event::StepAnswered { step: step.clone(), by, answer: answer.clone() };
    word::speak(&place, (&run, &told), &args.voice, word, out).await
}

/// What a person says that the attempt gave; all mistakes at once. What other steps use may not be left out.
pub(super) fn outputs_of(plan: &Plan, step: &StepId, given: &[String]) -> Result<Outputs, CliError> {
    let gone =
        || CliError::Usage(format!("the runbook of this run has no step `{step}` any more; it can only be undone"));
    let planned = plan.step(step).ok_or_else(gone)?;
    let known = crate::plan::output_names(planned.outputs.keys(), &planned.action);
    let (mut outputs, mut wrong) = (Outputs::new(), Vec::new());
    for text in given {
        let Some((name, value)) = text.split_once('=') else {
            wrong.push(format!("`--output {text}` has no value; write `--output name=value`"));
            continue;
        };
        if known.iter().any(|known| known == name) {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Json::String(value.to_owned()));
            outputs.insert(name.to_owned(), value);
        } else {
            let help = did_you_mean(name, known.iter().map(String::as_str));
            let help = help.map(|help| format!("; {help}")).unwrap_or_default();
            wrong.push(format!("step `{step}` has no output `{name}`{help}"));
        }
    }
    let used = crate::driver::used_outputs(plan, step);
    for name in used.iter().filter(|name| known.contains(name) && !outputs.contains_key(*name)) {
        wrong.push(format!("other steps use output `{name}` of `{step}`; add `--output {name}=VALUE`"));
    }
    if wrong.is_empty() { Ok(outputs) } else { Err(CliError::Usage(wrong.join("\n"))) }
}

/// A reason with something in it.
pub(super) fn reason_of(text: &str) -> Result<String, CliError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(CliError::Usage("the reason is empty; say how you know, it is kept for the audit".into()));
    }
    Ok(text.to_owned())
}

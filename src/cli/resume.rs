//! `piton resume`: takes a run up again.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::Global;
use super::decide::reason_of;
use super::error::CliError;
use super::exit::Exit;
use super::fault;
use super::out::{Out, person_at_keyboard};
use super::run::announce;
use super::voice::{Spoken, Voice};
use super::watch::watch;
use super::word;
use crate::driver::{self, Choices, DriverError, Options, Told};
use crate::event::{Departure, Event};
use crate::ids::{Actor, RunId, StepId};
use crate::plan::Plan;
use crate::report::{Subject, diff};

/// Arguments of `piton resume`.
#[derive(Debug, Args)]
#[command(
    after_help = "Runbook, site and parameters are those that the run was started with, whatever the files say now, unless\n\
    --runbook names a new version: what changed is shown first (see `piton diff`), and wants a confirmation.\n\
    Steps that were interrupted are looked up in the world, run again if that is safe, or a person is asked."
)]
pub struct Resume {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// Go on with this version of the runbook, and with `--site` and `--param` if they are given
    #[arg(long, value_name = "FILE", requires = "reason")]
    runbook: Option<PathBuf>,
    /// A changed step that is done stays as it was done
    #[arg(long, value_name = "STEP", requires = "reason")]
    keep: Vec<String>,
    /// A step is done again, after its undo if it has one
    #[arg(long, value_name = "STEP", requires = "reason")]
    redo: Vec<String>,
    /// This step and everything done that needs it is done again
    #[arg(long, value_name = "STEP", requires = "reason")]
    from: Option<String>,
    /// Why the runbook was changed or steps are done again; kept for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Keep waiting for answers of people instead of ending with exit code 6
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    voice: Voice,
}

pub(super) async fn run(global: &Global, args: &Resume, out: Out) -> Result<Exit, CliError> {
    let place = global.driven_store().await?;
    let (run, told) = place.told(&args.run).await?;
    let mut options = Options::new(crate::config::actor(args.voice.by.as_deref()), place.state_dir.clone());
    options.site_signers = global.site_signers();
    options.wait = args.wait;
    options.commands = place.commands();
    let amended = match &args.reason {
        Some(reason) => Some(amend(global, args, (&run, &told), &options, reason, out)?),
        None => None,
    };
    let amended = match amended {
        Some(Some((plan, event))) => {
            let word = |by| said_by(&told, &event, by);
            match args.voice.speak(&run, &told, word)? {
                Spoken::Word(event) if !matches!(*event, Event::RunAmended { .. }) => {
                    word::say(&place, &run, &told, *event, out).await?;
                    return Ok(Exit::WAITING);
                }
                Spoken::Word(event) => Some(Some((plan, *event))),
                Spoken::Statement(text) => {
                    out.text(&text)?;
                    return Ok(Exit::SUCCEEDED);
                }
            }
        }
        other => other,
    };
    if let Some(None) = amended {
        out.note("nothing was changed and the run was not resumed");
        return Ok(Exit::CANCELLED);
    }
    let amended = amended.flatten();
    let (hooks, fault) = fault::of_environment()?;
    options.hooks = hooks;
    announce(out, &run, fault.as_deref());
    let watched = watch(
        out,
        Subject {
            run: run.clone(),
            plan: Arc::new(amended.as_ref().map_or_else(|| told.plan.clone(), |(plan, _)| plan.clone())),
        },
    );
    options.observer = Arc::clone(&watched.observer);
    options.stop = watched.stop.clone();
    options.stop_now = watched.stop_now.clone();
    let result = match amended {
        Some((plan, event)) => driver::resume_amended(&place.journal, run.clone(), plan, event, options).await,
        None => driver::resume(&place.journal, run.clone(), options).await,
    };
    watched.close(out, (&run, &place.journal), result).await
}

/// The same amendment, said by somebody; only proposed if the runbook wants more people to agree to it.
fn said_by(told: &Told, event: &Event, who: Actor) -> Event {
    let mut event = event.clone();
    if let Event::RunAmended { by, digest, steps, reason, .. } = &mut event {
        if !told.state.may_amend(&who, digest, steps) {
            let what = Departure::Amend { digest: digest.clone(), steps: steps.clone() };
            return Event::DeviationRequested { step: None, by: who, what, reason: reason.clone() };
        }
        *by = who;
    }
    event
}

/// The new plan and the fact of the amendment, once a person has seen and confirmed it; nothing if not.
fn amend(
    global: &Global,
    args: &Resume,
    (run, told): (&RunId, &Told),
    options: &Options,
    reason: &str,
    out: Out,
) -> Result<Option<(Plan, Event)>, CliError> {
    let reason = reason_of(reason)?;
    if args.runbook.is_none() && args.redo.is_empty() && args.from.is_none() {
        let message = "`--reason` is for `--runbook`, `--redo` or `--from`; a plain resume needs none";
        return Err(CliError::Usage(message.into()));
    }
    let plan = match &args.runbook {
        Some(runbook) => global.plan_for_run(runbook, told)?,
        None => told.plan.clone(),
    };
    let diffs = driver::compare(run, told, &plan)?;
    let steps = |names: &[String]| names.iter().map(StepId::new).collect();
    let choices =
        Choices { keep: steps(&args.keep), redo: steps(&args.redo), from: args.from.as_deref().map(StepId::new) };
    let event = driver::amendment(told, &plan, &diffs, &choices, (options, &reason))?;
    if !out.json && !args.voice.only_prints() {
        out.text(&diff::to_text(run, told, &plan, &diffs, out.paint))?;
    }
    // Who is not known well enough is refused by the driver, so that it is on record.
    let alone = match &event {
        Event::RunAmended { digest, steps, .. } => told.state.may_amend(&options.by, digest, steps),
        _ => true,
    };
    if !args.voice.is_signed() && told.state.knows(&options.by) && alone {
        match driver::may_amend(told, &plan, &event, options) {
            Err(DriverError::Unsigned(_)) => {}
            other => other?,
        }
    }
    if !global.yes && !args.voice.only_prints() {
        if out.json || !out.terminal || !person_at_keyboard() {
            return Err(CliError::Usage("going on with a changed runbook wants a confirmation; add `--yes`".into()));
        }
        if !out.confirm(&format!("Go on with run {run} like this?")) {
            return Ok(None);
        }
    }
    Ok(Some((plan, event)))
}

//! `piton run`: starts a run, prints its id first, follows it to its end.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::fault;
use super::out::{Out, person_at_keyboard};
use super::watch::watch;
use crate::driver::{self, Options};
use crate::ids::RunId;
use crate::report::{Subject, lines};

/// Arguments of `piton run`.
#[derive(Debug, Args)]
#[command(
    after_help = "The first line is the run's id. Ctrl-C finishes what runs and stops; a second one stops it at once.\n\
    A run that stopped goes on with `piton resume`. On a terminal, you are asked before it starts unless --yes is given."
)]
pub struct Run {
    /// The runbook
    runbook: PathBuf,
    /// The id of the run [default: the day and six random characters]
    #[arg(long = "run-id", value_name = "ID")]
    id: Option<String>,
    /// Keep waiting for answers of people instead of ending with exit code 6
    #[arg(long)]
    wait: bool,
    /// Who starts it [default: the user of this process]
    #[arg(long = "as", value_name = "NAME")]
    by: Option<String>,
}

pub(super) async fn run(global: &Global, args: Run, out: Out) -> Result<Exit, CliError> {
    let plan = Arc::new(global.load_plan(&args.runbook)?);
    let run = match args.id {
        Some(id) => checked_id(id)?,
        None => RunId::fresh(crate::config::now(), &mut |bound| fastrand::usize(..bound)),
    };
    let vouched = driver::vouch_files(&plan, &global.plain_options(&args.runbook))?;
    vouched.notes.iter().for_each(|why| out.note(&format!("{} {why}", out.error_paint.warn("warning:"))));
    if !global.yes && !out.json && out.terminal && person_at_keyboard() {
        let question = format!(
            "Start {} {} ({} steps) on site {}?",
            plan.name,
            plan.version,
            plan.steps.len(),
            plan.site.site.name
        );
        if !out.confirm(&question) {
            out.note("not started");
            return Ok(Exit::CANCELLED);
        }
    }
    let place = global.make_store(&args.runbook).await?;
    let mut options = Options::new(crate::config::actor(args.by.as_deref()), place.state_dir.clone());
    options.site_signers = global.site_signers();
    options.wait = args.wait;
    options.commands = place.commands();
    let (hooks, fault) = fault::of_environment()?;
    options.hooks = hooks;
    announce(out, &run, fault.as_deref());
    let watched = watch(out, Subject { run: run.clone(), plan: Arc::clone(&plan) });
    options.observer = Arc::clone(&watched.observer);
    options.stop = watched.stop.clone();
    options.stop_now = watched.stop_now.clone();
    let result = driver::start(plan, &place.journal, run.clone(), options).await;
    watched.close(out, (&run, &place.journal), result).await
}

/// Prints the id of the run, for scripts to read; a reader that is gone does not end the run. Names a fault that is set.
pub(super) fn announce(out: Out, run: &RunId, fault: Option<&str>) {
    let _ = if out.json {
        let mut line = lines::first(run);
        if let Some(fault) = fault {
            line["fault"] = fault.into();
        }
        out.json_line(&line)
    } else {
        let fault = fault.map(|fault| format!(" (a fault is set: {fault})")).unwrap_or_default();
        out.line(format!("run {run}{fault}"))
    };
}

fn checked_id(id: String) -> Result<RunId, CliError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if id.is_empty() || id.len() > 100 || id == "last" || !id.chars().all(legal) || id.starts_with('-') {
        let message = format!("`{id}` is no run id; take letters, digits, `-`, `_` and `.` (and not the word `last`)");
        return Err(CliError::Usage(message));
    }
    Ok(RunId::new(id))
}

//! `piton diff`: a run beside a changed runbook, without touching either.

use std::path::PathBuf;

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::driver::{self, StepDiff};
use crate::report::diff;

/// Arguments of `piton diff`.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is recorded. Exit code 0: `piton resume --runbook` can go on with it; 5: a person must decide first\n\
    about steps that were changed and are done already."
)]
pub struct Diff {
    /// The run: its id, the unique beginning of it, or `last`
    #[arg(default_value = "last")]
    run: String,
    /// The changed runbook [default: the file that the run goes by, as it is now]
    #[arg(long, value_name = "FILE")]
    runbook: Option<PathBuf>,
}

pub(super) async fn run(global: &Global, args: &Diff, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let runbook = args.runbook.clone().unwrap_or_else(|| PathBuf::from(&told.plan.source.name));
    let plan = global.plan_for_run(&runbook, &told)?;
    let diffs = driver::compare(&run, &told, &plan)?;
    if out.json {
        out.json_pretty(&diff::to_json(&run, &told, &plan, &diffs))?;
    } else {
        out.text(&diff::to_text(&run, &told, &plan, &diffs, out.paint))?;
    }
    Ok(if diffs.iter().any(StepDiff::wants_a_choice) { Exit::STUCK } else { Exit::SUCCEEDED })
}

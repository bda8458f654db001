//! `piton plan`: what a run would do.

use std::path::PathBuf;

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::driver;
use crate::report::plan;

/// Arguments of `piton plan`.
#[derive(Debug, Args)]
#[command(after_help = "Nothing is done and nothing is recorded. Two plans with the same digest do the same.")]
pub struct PlanArgs {
    /// The runbook
    runbook: PathBuf,
    /// Do not look at the site: say what each step does, not what it would change
    #[arg(long)]
    offline: bool,
}

pub(super) async fn run(global: &Global, args: &PlanArgs, out: Out) -> Result<Exit, CliError> {
    let made = global.load_plan(&args.runbook)?;
    let previews = if args.offline {
        plan::Previews::new()
    } else {
        driver::preview(&made, &crate::config::actor(None), global.state_dir(&args.runbook)).await?
    };
    if out.json {
        out.json_pretty(&plan::to_json(&made, &previews))?;
    } else {
        out.text(&plan::to_text(&made, &previews, out.paint))?;
    }
    Ok(Exit::SUCCEEDED)
}

//! `piton plan`: what a run would do.

use std::path::PathBuf;

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::driver;
use crate::report::{plan, signed};

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
    let options = global.plain_options(&args.runbook);
    let vouched = driver::vouch_files(&made, &options)?;
    vouched.notes.iter().for_each(|why| out.note(&format!("{} {why}", out.error_paint.warn("warning:"))));
    let previews = if args.offline {
        plan::Previews::new()
    } else {
        driver::preview(&made, &crate::config::actor(None), global.state_dir(&args.runbook)).await?
    };
    let signed_by = vouched.signed.as_deref();
    if out.json {
        let mut json = plan::to_json(&made, &previews);
        json["signed"] = signed::to_json(signed_by);
        out.json_pretty(&json)?;
    } else {
        out.text(&plan::to_text(&made, &previews, out.paint))?;
        signed::lines(signed_by).iter().try_for_each(|line| out.line(line))?;
    }
    Ok(Exit::SUCCEEDED)
}

//! `piton resume`: takes a run up again.

use std::sync::Arc;

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::fault;
use super::out::Out;
use super::run::announce;
use super::watch::watch;
use crate::driver::{self, Options};
use crate::report::Subject;

/// Arguments of `piton resume`.
#[derive(Debug, Args)]
#[command(
    after_help = "Runbook, site and parameters are those that the run was started with, whatever the files say now.\n\
    Steps that were interrupted are looked up in the world, run again if that is safe, or a person is asked."
)]
pub struct Resume {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// Keep waiting for answers of people instead of ending with exit code 6
    #[arg(long)]
    wait: bool,
    /// Who resumes it [default: the user of this process]
    #[arg(long = "as", value_name = "NAME")]
    by: Option<String>,
}

pub(super) async fn run(global: &Global, args: &Resume, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let mut options = Options::new(crate::config::actor(args.by.as_deref()), place.state_dir.clone());
    options.wait = args.wait;
    options.commands = place.commands();
    let (hooks, fault) = fault::of_environment()?;
    options.hooks = hooks;
    announce(out, &run, fault.as_deref());
    let watched = watch(out, Subject { run: run.clone(), plan: Arc::new(told.plan) });
    options.observer = Arc::clone(&watched.observer);
    options.stop = watched.stop.clone();
    options.stop_now = watched.stop_now.clone();
    let result = driver::resume(&place.journal, run.clone(), options).await;
    watched.close(out, &run, result).await
}

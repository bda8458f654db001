//! `piton rollback`: undoes a run that has ended or rests.

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
use crate::driver::{self, Options};
use crate::event::{Event, Outcome};
use crate::report::{Subject, back};

/// Arguments of `piton rollback`.
#[derive(Debug, Args)]
#[command(
    after_help = "What succeeded is undone, the last first, and what may have happened as well. It stops at a point of no\n\
    return. The run's milestones are taken back once everything is undone. Exit code 0: rolled back; 5: stuck, `piton\n\
    resume` tries again. If it is interrupted, `piton resume` goes on."
)]
pub struct Rollback {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// Why; kept for the audit
    #[arg(long, value_name = "TEXT", required_unless_present = "plan")]
    reason: Option<String>,
    /// Only show what would be undone, in which order, and what would stay
    #[arg(long)]
    plan: bool,
    /// Do it although later runs on the site stand on this one
    #[arg(long)]
    despite_later_runs: bool,
    #[command(flatten)]
    voice: Voice,
}

pub(super) async fn run(global: &Global, args: Rollback, out: Out) -> Result<Exit, CliError> {
    let place = global.driven_store().await?;
    let (run, told) = place.told(&args.run).await?;
    if told.state.outcome() == Some(Outcome::RolledBack) {
        return Err(CliError::Usage(format!("run `{run}` is rolled back already")));
    }
    let by = crate::config::actor(args.voice.by.as_deref());
    let mut options = Options::new(by, place.state_dir.clone());
    options.commands = place.commands();
    let way = driver::may_turn_back(&told, &options)?.way_back();
    let later = driver::later_runs(&place.journal, &run, &told).await?;
    let revoked = if told.state.is_established() { told.plan.achieves.as_slice() } else { &[] };
    let shown = back::Back { run: &run, plan: &told.plan, way: &way, revoked, later: &later };
    if args.plan && out.json {
        out.json_pretty(&back::to_json(shown))?;
        return Ok(Exit::SUCCEEDED);
    }
    if !out.json && !args.voice.only_prints() {
        out.text(&back::to_text(shown, out.paint))?;
    }
    if args.plan {
        return Ok(Exit::SUCCEEDED);
    }
    let reason = reason_of(args.reason.as_deref().unwrap_or_default())?;
    let word = |by| Event::RollbackRequested { by, reason: reason.clone(), driver: String::new(), sealed_by: None };
    match args.voice.speak(&run, &told, word)? {
        Spoken::Word(event) => options.by = event.by().expect("a person wants it").clone(),
        Spoken::Statement(text) => {
            out.text(&text)?;
            return Ok(Exit::SUCCEEDED);
        }
    }
    if !later.is_empty() && !args.despite_later_runs {
        let why: Vec<_> = later.iter().map(back::stands_on).collect();
        let message = format!("{}; roll that back first, or add `--despite-later-runs`", why.join("; "));
        return Err(CliError::Usage(message));
    }
    if !way.is_open() {
        return Err(CliError::Usage(format!("nothing of what run `{run}` did can be undone")));
    }
    if !global.yes {
        let may_ask = !out.json && out.terminal && person_at_keyboard();
        if !may_ask {
            return Err(CliError::Usage("a rollback wants a confirmation; add `--yes`".into()));
        }
        if !out.confirm(&format!("Undo {} step(s) of run {run}?", way.undo.len())) {
            out.note("nothing was undone");
            return Ok(Exit::CANCELLED);
        }
    }
    let (hooks, fault) = fault::of_environment()?;
    options.hooks = hooks;
    announce(out, &run, fault.as_deref());
    let watched = watch(out, Subject { run: run.clone(), plan: Arc::new(told.plan) });
    options.observer = Arc::clone(&watched.observer);
    options.stop = watched.stop.clone();
    options.stop_now = watched.stop_now.clone();
    let result = driver::rollback(&place.journal, run.clone(), reason, options).await;
    let rolled_back = matches!(&result, Ok(ended) if ended.outcome == Outcome::RolledBack);
    let exit = watched.close(out, (&run, &place.journal), result).await?;
    Ok(if rolled_back { Exit::SUCCEEDED } else { exit })
}

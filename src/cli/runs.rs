//! `piton runs`: which runs there are.

use clap::Args;
use serde_json::{Value as Json, json};

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::event::Outcome;
use crate::ids::RunId;
use crate::journal::RunFilter;
use crate::report::words;
use crate::scheduler::StepState;

/// Arguments of `piton runs`.
#[derive(Debug, Args)]
pub struct Runs {
    /// Only runs of this runbook
    #[arg(long, value_name = "NAME")]
    runbook: Option<String>,
    /// Only runs on this site (by its name)
    #[arg(long, value_name = "NAME")]
    on: Option<String>,
    /// Only runs that are not over for good
    #[arg(long)]
    open: bool,
    /// At most this many
    #[arg(long, short = 'n', default_value_t = 50, value_name = "COUNT")]
    limit: u32,
}

pub(super) async fn run(global: &Global, args: Runs, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let filter =
        RunFilter { runbook: args.runbook, site: args.on, family: None, open_only: args.open, limit: Some(args.limit) };
    let runs = place.journal.runs(&filter).await?;
    let pruned = place.journal.pruned_runs().await?;
    let pruned = |run: &RunId| pruned.get(run).map(Vec::as_slice).unwrap_or_default();
    if out.json {
        let rows: Vec<Json> = runs
            .iter()
            .map(|run| {
                json!({
                    "run": run.run, "runbook": run.runbook, "version": run.version, "site": run.site, "by": run.by,
                    "started_at": run.started_at, "last_at": run.last_at, "outcome": run.outcome,
                    "pruned": pruned(&run.run),
                })
            })
            .collect();
        out.json_pretty(&Json::Array(rows))?;
        return Ok(Exit::SUCCEEDED);
    }
    if runs.is_empty() {
        out.line("no runs")?;
    }
    let zone = jiff::tz::TimeZone::system();
    let widest = runs.iter().map(|run| run.run.as_str().chars().count()).max().unwrap_or(0);
    for run in runs {
        let word = run.outcome.map_or("open", words::outcome);
        let state = match run.outcome {
            Some(Outcome::Succeeded) => StepState::Succeeded,
            Some(Outcome::Failed | Outcome::RolledBack) => StepState::Failed,
            Some(Outcome::Stuck) => StepState::InDoubt,
            Some(Outcome::Waiting | Outcome::Cancelled) => StepState::Waiting,
            None => StepState::Running,
        };
        let gone = pruned(&run.run).first().map(|gone| {
            let day = gone.at.to_zoned(zone.clone()).date();
            format!("; {} by {} on {day}", gone.what.went(), gone.by)
        });
        out.line(format!(
            "{}  {}  {}  {:>7}  {} {} on {}, by {}{}",
            words::pad(run.run.as_str(), widest),
            words::day_and_clock(run.started_at, &zone),
            out.paint.state(state, &words::pad(&words::for_people(word), 11)),
            words::duration(words::between(run.started_at, run.last_at)),
            run.runbook,
            run.version,
            run.site,
            run.by,
            gone.unwrap_or_default(),
        ))?;
    }
    Ok(Exit::SUCCEEDED)
}

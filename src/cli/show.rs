//! `piton show`: one run as it stands.

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::place::Place;
use crate::ids::RunId;
use crate::journal::RunFilter;
use crate::report::{people, pruned, status};

/// Arguments of `piton show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The run: its id, the unique beginning of it, or `last`
    #[arg(default_value = "last")]
    run: String,
}

pub(super) async fn run(global: &Global, args: &Show, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let run = place.find(&args.run).await?;
    if place.remembered(&run, out).await?.is_some() {
        if let Some(grave) = place.journal.grave(&run).await?.filter(|_| out.json) {
            out.json_pretty(&pruned::run_json(&grave, &place.journal.pruned(&run).await?))?;
        }
        return Ok(Exit::SUCCEEDED);
    }
    let told = crate::driver::read(&place.journal, &run).await?;
    let view = status::Run { run: &run, plan: &told.plan, state: &told.state, records: &told.records };
    let now = crate::config::now();
    let below = below(&place, &run, now).await?;
    if out.json {
        out.json_pretty(&status::to_json(view, &below, now))?;
    } else {
        out.text(&status::to_text(view, &below, now, &jiff::tz::TimeZone::system(), out.paint))?;
    }
    Ok(Exit::SUCCEEDED)
}

/// What the runs ask of people that steps of this one started, and so on.
async fn below(place: &Place, run: &RunId, now: jiff::Timestamp) -> Result<Vec<status::Below>, CliError> {
    let family = RunFilter { family: Some(run.clone()), open_only: true, ..RunFilter::default() };
    let mut below = Vec::new();
    for summary in place.journal.runs(&family).await?.into_iter().rev().filter(|summary| summary.run != *run) {
        let told = crate::driver::read(&place.journal, &summary.run).await?;
        let asks = people::asks(&told.state, &summary.run, now);
        below.extend(asks.into_iter().map(|ask| (summary.run.clone(), ask)));
    }
    Ok(below)
}

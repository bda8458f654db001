//! `piton show`: one run as it stands.

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::report::{pruned, status};

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
        if let Some(grave) = place.journal.graves().await?.get(&run).filter(|_| out.json) {
            out.json_pretty(&pruned::run_json(grave, &place.journal.pruned(&run).await?))?;
        }
        return Ok(Exit::SUCCEEDED);
    }
    let told = crate::driver::read(&place.journal, &run).await?;
    let view = status::Run { run: &run, plan: &told.plan, state: &told.state, records: &told.records };
    let now = crate::config::now();
    if out.json {
        out.json_pretty(&status::to_json(view, now))?;
    } else {
        out.text(&status::to_text(view, now, &jiff::tz::TimeZone::system(), out.paint))?;
    }
    Ok(Exit::SUCCEEDED)
}

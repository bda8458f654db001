//! `piton show`: one run as it stands.

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::report::status;

/// Arguments of `piton show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The run: its id, the unique beginning of it, or `last`
    #[arg(default_value = "last")]
    run: String,
}

pub(super) async fn run(global: &Global, args: &Show, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let view = status::Run { run: &run, plan: &told.plan, state: &told.state, records: &told.records };
    let now = crate::config::now();
    if out.json {
        out.json_pretty(&status::to_json(view, now))?;
    } else {
        out.text(&status::to_text(view, now, &jiff::tz::TimeZone::system(), out.paint))?;
    }
    Ok(Exit::SUCCEEDED)
}

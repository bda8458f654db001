//! `piton audit`: who did what when, or whether the record was changed.

use clap::Args;
use serde_json::json;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::journal::Verified;
use crate::report::{audit, lines, status};

/// Arguments of `piton audit`.
#[derive(Debug, Args)]
#[command(after_help = "Note the hash that --verify prints elsewhere: it also proves later that nothing was cut off.")]
pub struct Audit {
    /// The run: its id, the unique beginning of it, or `last`
    #[arg(default_value = "last")]
    run: String,
    /// Recompute the hash chain instead: exit code 1 if a record is not as it was written
    #[arg(long)]
    verify: bool,
}

pub(super) async fn run(global: &Global, args: &Audit, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    if args.verify {
        let run = place.find(&args.run).await?;
        return match place.journal.verify(&run).await? {
            Verified::Intact { records, hash } => {
                if out.json {
                    out.json_line(&json!({ "run": run, "intact": true, "records": records, "hash": hash }))?;
                } else {
                    out.line(format!("run {run}: {records} records, all as they were written; last hash {hash}"))?;
                }
                Ok(Exit::SUCCEEDED)
            }
            Verified::Bad { seq, why } => {
                if out.json {
                    out.json_line(&json!({ "run": run, "intact": false, "seq": seq, "why": why }))?;
                }
                Err(CliError::Store(format!("record {seq} of run {run} is not as it was written: {why}")))
            }
        };
    }
    if out.json {
        let run = place.find(&args.run).await?;
        for record in place.journal.read(&run, 1).await? {
            out.json_line(&lines::event(&record))?;
        }
        return Ok(Exit::SUCCEEDED);
    }
    let (run, told) = place.told(&args.run).await?;
    let view = status::Run { run: &run, plan: &told.plan, state: &told.state, records: &told.records };
    out.text(&audit::to_text(view, &crate::driver::stages(&told.records)?, &jiff::tz::TimeZone::system(), out.paint))?;
    Ok(Exit::SUCCEEDED)
}

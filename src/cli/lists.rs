//! `piton locks` and `piton milestones`: what runs hold and what they have established.

use serde_json::{Value as Json, json};

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::journal::RunFilter;
use crate::report::words;

pub(super) async fn locks(global: &Global, out: Out) -> Result<Exit, CliError> {
    let locks = global.store().await?.journal.locks().await?;
    if out.json {
        let rows = locks.iter().map(|(lock, run, since)| json!({ "lock": lock, "run": run, "since": since }));
        out.json_pretty(&rows.collect::<Json>())?;
        return Ok(Exit::SUCCEEDED);
    }
    if locks.is_empty() {
        out.line("no locks are held")?;
    }
    let zone = jiff::tz::TimeZone::system();
    for (lock, run, since) in locks {
        out.line(format!("{lock}  held by run {run} since {}", words::day_and_clock(since, &zone)))?;
    }
    Ok(Exit::SUCCEEDED)
}

pub(super) async fn milestones(global: &Global, out: Out) -> Result<Exit, CliError> {
    let journal = global.store().await?.journal;
    let mut sites: Vec<String> = if global.site.is_some() {
        vec![global.load_site()?.site.name.clone()]
    } else {
        journal.runs(&RunFilter::default()).await?.into_iter().map(|run| run.site).collect()
    };
    sites.sort();
    sites.dedup();
    let mut rows = Vec::new();
    for site in sites {
        for (milestone, run, at) in journal.milestones(&site).await? {
            rows.push((site.clone(), milestone, run, at));
        }
    }
    if out.json {
        let rows = rows
            .iter()
            .map(|(site, milestone, run, at)| json!({ "site": site, "milestone": milestone, "run": run, "at": at }));
        out.json_pretty(&rows.collect::<Json>())?;
        return Ok(Exit::SUCCEEDED);
    }
    if rows.is_empty() {
        out.line("no milestones are established")?;
    }
    let zone = jiff::tz::TimeZone::system();
    for (site, milestone, run, at) in rows {
        out.line(format!("{site}  {milestone}  by run {run} at {}", words::day_and_clock(at, &zone)))?;
    }
    Ok(Exit::SUCCEEDED)
}

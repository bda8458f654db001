//! `piton locks` and `piton milestones`: what runs hold and what they have established.

use serde_json::{Value as Json, json};

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::journal::RunFilter;
use crate::report::words;

pub(super) async fn locks(global: &Global, out: Out) -> Result<Exit, CliError> {
    let table = global.store().await?.journal.locks().await?;
    if out.json {
        let rows = table.held.iter().map(|held| {
            let waiters: Vec<Json> = table
                .waiting
                .iter()
                .filter(|waiter| waiter.name == held.name)
                .map(|waiter| json!({ "run": waiter.run, "step": waiter.step, "since": waiter.since }))
                .collect();
            json!({
                "lock": held.name, "run": held.run, "step": held.step, "since": held.since, "fence": held.fence,
                "lease_until": table.driven_until.get(&held.run), "stays": held.stays, "waiters": waiters,
            })
        });
        out.json_pretty(&rows.collect::<Json>())?;
        return Ok(Exit::SUCCEEDED);
    }
    if table.held.is_empty() {
        out.line("no locks are held")?;
    }
    let zone = jiff::tz::TimeZone::system();
    for held in &table.held {
        let step = held.step.as_ref().map(|step| format!(", step {step},")).unwrap_or_default();
        let left = match (table.is_driven(&held.run), held.stays, &held.step) {
            (true, _, _) => "",
            (false, true, None) => "; no driver works on the run: resume or cancel it",
            (false, true, Some(_)) => {
                "; in doubt, and held until the run goes on or `piton decide` says what became of it"
            }
            (false, false, _) => "; its driver is gone, so whoever asks next gets it",
        };
        out.line(format!(
            "{}  held by run {}{step} since {} (fence {}){left}",
            held.name,
            held.run,
            words::day_and_clock(held.since, &zone),
            held.fence
        ))?;
        for waiter in table.waiting.iter().filter(|waiter| waiter.name == held.name) {
            let gone = if table.is_driven(&waiter.run) { "" } else { " (its driver is gone)" };
            let since = words::day_and_clock(waiter.since, &zone);
            out.line(format!("    run {}, step {}, waits since {since}{gone}", waiter.run, waiter.step))?;
        }
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

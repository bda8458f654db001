//! `piton approvals`: what waits for whom, over all runs.

use clap::Args;
use serde_json::json;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use crate::ids::Actor;
use crate::journal::RunFilter;
use crate::report::{people, words};

/// Arguments of `piton approvals`.
#[derive(Debug, Args)]
pub struct Approvals {
    /// Only what this person may answer and has not
    #[arg(long = "for", value_name = "NAME")]
    person: Option<String>,
}

pub(super) async fn run(global: &Global, args: &Approvals, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (now, zone) = (crate::config::now(), jiff::tz::TimeZone::system());
    let person = args.person.as_ref().map(Actor::new);
    let mut found = 0;
    for summary in place.journal.runs(&RunFilter { open_only: true, ..RunFilter::default() }).await? {
        let told = crate::driver::read(&place.journal, &summary.run).await?;
        for ask in people::asks(&told.state, &summary.run, now) {
            if person.as_ref().is_some_and(|person| !ask.is_open_to(person)) {
                continue;
            }
            found += 1;
            if out.json {
                let mut line = ask.to_json();
                line["run"] = json!(summary.run);
                line["runbook"] = json!(summary.runbook);
                line["site"] = json!(told.plan.site.site.name);
                line["digest"] = json!(told.plan.digest);
                out.json_line(&line)?;
                continue;
            }
            let age = ask.since.map_or_else(String::new, |since| words::duration(words::between(since, now)));
            let expires = ask.expires_at.map_or_else(String::new, |at| match words::between(now, at) {
                left if at > now => format!("; expires in {}", words::duration(left)),
                _ => "; expired".to_owned(),
            });
            let step = ask.step.as_ref().map_or("the run", |step| step.as_str());
            out.line(format!("{}  {step}  waits {age} for {}{expires}", summary.run, ask.whom()))?;
            out.line(format!("    {}", ask.line(160)))?;
            for line in ask.details(now, &zone) {
                out.line(format!("    {line}"))?;
            }
            for command in &ask.commands {
                out.line(format!("    {command}"))?;
            }
        }
    }
    if found == 0 && !out.json {
        out.line("nothing waits for a person")?;
    }
    Ok(Exit::SUCCEEDED)
}

//! What was pruned, and what is to be: for people and for programs.

use jiff::tz::TimeZone;
use serde_json::{Value as Json, json};

use super::words::{self, Paint};
use crate::journal::{Choice, Chosen, Inscription, Left, PrunedRun, RunSummary};

/// A tombstone in one line.
pub fn tombstone(text: &Inscription, zone: &TimeZone) -> String {
    let Inscription { number, run, what, at, by, reason, rule, .. } = text;
    let rule = if rule.is_empty() { String::new() } else { format!(" [{rule}]") };
    let at = words::day_and_clock(*at, zone);
    format!("{number:>5}  {at}  run {run}: {}, by {by}: {reason}{rule}", what.words())
}

/// What was pruned, in a sentence.
pub fn sentence(pruned: &PrunedRun, zone: &TimeZone) -> String {
    let PrunedRun { tombstone, what, at, by, reason, .. } = pruned;
    let at = words::day_and_clock(*at, zone);
    format!("{} by {by} at {at}: {reason} (tombstone {tombstone})", what.went())
}

/// A run that can no longer be read back, as it is remembered.
pub fn run(grave: &Inscription, pruned: &[PrunedRun], zone: &TimeZone, paint: Paint) -> String {
    let summary = &grave.summary;
    let outcome = summary.outcome.map_or("was open", words::outcome_sentence);
    let took = words::duration(words::between(summary.started_at, summary.last_at));
    let mut lines = vec![
        format!(
            "{}  {} {} on {}, started by {} at {}",
            paint.bold(&format!("run {}", grave.run)),
            summary.runbook,
            summary.version,
            summary.site,
            summary.by,
            words::day_and_clock(summary.started_at, zone),
        ),
        format!("{} ({took})", paint.bold(outcome)),
        format!("plan {}; it had {} records, the latest with hash {}", summary.digest, grave.records, grave.head.hash),
    ];
    lines.extend(pruned.iter().map(|one| paint.warn(&sentence(one, zone))));
    lines.push(String::new());
    lines.join("\n")
}

/// The same for programs.
pub fn run_json(grave: &Inscription, pruned: &[PrunedRun]) -> Json {
    let summary = &grave.summary;
    json!({
        "run": grave.run, "runbook": summary.runbook, "version": summary.version, "digest": summary.digest,
        "site": summary.site, "outcome": summary.outcome, "by": summary.by, "started_at": summary.started_at,
        "finished_at": summary.last_at, "records": grave.records, "hash": grave.head.hash, "pruned": pruned,
    })
}

/// What is left of the records.
pub fn left(left: &[Left], zone: &TimeZone) -> String {
    let mut lines = Vec::new();
    for Left { seq, at, kind, record, .. } in left {
        let about = match record {
            Some(record) => record.event.step().map(|step| format!("  {step}")).unwrap_or_default(),
            None => "  (its content was pruned)".to_owned(),
        };
        lines.push(format!("{seq:>5}  {}  {}{about}", words::day_and_clock(*at, zone), words::for_people(kind)));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// What would be pruned, and what is old enough and stays.
pub fn plan(chosen: &Chosen, runs: &[RunSummary], zone: &TimeZone, paint: Paint) -> String {
    let widest = runs.iter().map(|run| run.run.as_str().chars().count()).max().unwrap_or(0);
    let of = |id: &crate::ids::RunId| runs.iter().find(|run| run.run == *id);
    let described = |id: &crate::ids::RunId| {
        let about = of(id).map(|run| {
            let outcome = run.outcome.map_or("open", words::outcome);
            let last = words::day_and_clock(run.last_at, zone);
            format!("{last}  {} {} on {}, {}", run.runbook, run.version, run.site, words::for_people(outcome))
        });
        format!("{}  {}", words::pad(id.as_str(), widest), about.unwrap_or_default())
    };
    let mut lines = Vec::new();
    if chosen.families.is_empty() {
        lines.push("nothing is to be pruned".to_owned());
    } else {
        lines.push(paint.bold("to be pruned, for good:"));
    }
    for Choice { run, what, kinds, .. } in chosen.families.iter().flatten() {
        let kinds = if kinds.is_empty() { String::new() } else { format!(" of the kinds {}", kinds.join(", ")) };
        lines.push(format!("  {}: {}{kinds}", described(run), what.words()));
    }
    if !chosen.kept.is_empty() {
        lines.push(paint.bold("old enough, but stays:"));
    }
    for kept in &chosen.kept {
        lines.push(format!("  {}: {}", described(&kept.run), kept.why));
    }
    lines.push(String::new());
    lines.join("\n")
}

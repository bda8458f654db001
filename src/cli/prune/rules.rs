//! What a person wants pruned: from options or from a policy file, as rules.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::super::error::CliError;
use super::super::place::Place;
use super::Prune;
use crate::event;
use crate::ids::RunId;
use crate::journal::{JournalError, Rule, What};
use crate::spec::retention::{self, PruneWord, RetentionRule};
use crate::spec::values::Millis;

/// What a person wants.
pub(super) struct Wish {
    /// What goes.
    pub(super) rules: Vec<Rule>,
    /// Runs that are left whatever the rules say.
    pub(super) except: BTreeSet<RunId>,
    /// What the policy excepts and this store does not have.
    pub(super) unknown: Vec<String>,
}

/// The rules of the policy or of the options, and the runs that are left whatever they say.
pub(super) async fn rules(place: &Place, args: &Prune, now: Timestamp) -> Result<Wish, CliError> {
    let mut except = BTreeSet::new();
    for run in &args.except {
        except.insert(place.find(run).await?);
    }
    if let Some(path) = &args.policy {
        let policy =
            retention::read(&crate::plan::read_source(path)?).map_err(|found| CliError::Problems(vec![found]))?;
        let mut unknown = Vec::new();
        for run in policy.except {
            match excepted(place, &run).await? {
                Some(run) => drop(except.insert(run)),
                None => unknown.push(run),
            }
        }
        let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into());
        let rules =
            (1..).zip(&policy.rules).map(|(number, rule)| of_policy(&format!("{name}, rule {number}"), rule, now));
        return Ok(Wish { rules: rules.collect::<Result<_, _>>()?, except, unknown });
    }
    let before = before(args, now)?;
    if before.is_none() && args.run.is_empty() {
        let why = "say what to prune: `--policy FILE`, `--older-than AGE`, `--before DATE` or `--run RUN`";
        return Err(CliError::Usage(why.into()));
    }
    if let Some(kind) = args.kind.iter().find(|kind| !event::is_kind(kind)) {
        let known = crate::spec::problem::one_of(kind, &event::KINDS);
        return Err(CliError::Usage(format!("`{kind}` is no kind of record; {known}")));
    }
    let mut runs = Vec::new();
    for run in &args.run {
        runs.push(place.find(run).await?);
    }
    let rule = Rule {
        name: said(args),
        prune: args.what.what(),
        before,
        runs,
        runbooks: args.runbook.clone(),
        sites: args.on.clone(),
        keep_last: args.keep_last,
        failed: args.with_failed,
        kinds: args.kind.clone(),
    };
    Ok(Wish { rules: vec![rule], except, unknown: Vec::new() })
}

/// The run that a policy excepts; none where this store does not have it, since a policy may serve several stores.
async fn excepted(place: &Place, run: &str) -> Result<Option<RunId>, CliError> {
    if run == "last" {
        return place.find(run).await.map(Some);
    }
    match place.journal.find_run(run).await {
        Ok(run) => Ok(Some(run)),
        Err(JournalError::UnknownRun(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn of_policy(name: &str, rule: &RetentionRule, now: Timestamp) -> Result<Rule, CliError> {
    let prune = match rule.prune {
        PruneWord::Transcripts => What::Transcripts,
        PruneWord::Evidence => What::Evidence,
        PruneWord::Contents => What::Contents,
        PruneWord::Run => What::Run,
    };
    Ok(Rule {
        name: name.to_owned(),
        prune,
        before: Some(ago(now, rule.older_than)?),
        runs: Vec::new(),
        runbooks: rule.runbooks.clone(),
        sites: rule.sites.clone(),
        keep_last: rule.keep_last,
        failed: rule.failed,
        kinds: rule.kinds.iter().map(|kind| kind.value.clone()).collect(),
    })
}

fn ago(now: Timestamp, age: Millis) -> Result<Timestamp, CliError> {
    let too_long = |_| CliError::Usage("no run can be that old".into());
    now.checked_sub(age.duration()).map_err(too_long)
}

fn before(args: &Prune, now: Timestamp) -> Result<Option<Timestamp>, CliError> {
    if let Some(text) = &args.older_than {
        let age = Millis::parse(text).filter(|age| age.0 > 0);
        let age = age.ok_or_else(|| CliError::Usage(format!("`{text}` is no age; write one like `400d` or `12w`")))?;
        return Ok(Some(ago(now, age)?));
    }
    let Some(text) = &args.before else { return Ok(None) };
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Some(at));
    }
    let day = text.parse::<jiff::civil::Date>().and_then(|day| day.to_zoned(jiff::tz::TimeZone::system()));
    let wrong =
        |_| CliError::Usage(format!("`{text}` is no day; write one like `2026-01-31`, or a time with its zone"));
    Ok(Some(day.map_err(wrong)?.timestamp()))
}

/// The options as they stand on a tombstone.
fn said(args: &Prune) -> String {
    let mut said = Vec::new();
    said.extend(args.older_than.iter().map(|age| format!("--older-than {age}")));
    said.extend(args.before.iter().map(|day| format!("--before {day}")));
    said.extend(args.run.iter().map(|run| format!("--run {run}")));
    said.extend(args.runbook.iter().map(|name| format!("--runbook {name}")));
    said.extend(args.on.iter().map(|name| format!("--on {name}")));
    said.extend((args.keep_last > 0).then(|| format!("--keep-last {}", args.keep_last)));
    said.extend(args.with_failed.then(|| "--with-failed".to_owned()));
    said.extend(match args.what.what() {
        What::Run => None,
        what => Some(format!("--{}-only", what.word())),
    });
    said.extend(args.kind.iter().map(|kind| format!("--kind {kind}")));
    said.join(" ")
}

//! `piton audit prune`: takes away of runs that are over what nobody may keep, and leaves tombstones. `piton audit tombstones`
//! lists them.
//!
//! What may go is chosen and carried out by `journal`; here a person sees it first, says why, and confirms.

mod orders;
mod rules;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};

use super::Global;
use super::decide::reason_of;
use super::error::CliError;
use super::exit::Exit;
use super::out::{Out, person_at_keyboard};
use super::place::Place;
use crate::ids::RunId;
use crate::journal::{Chosen, Facts, Owner, Pruner, SealKey, Tidied, Tombstone, What, choose};
use crate::report::pruned;
use rules::Wish;

/// How old a file of evidence must be to be swept away.
const SETTLED: std::time::Duration = std::time::Duration::from_mins(10);

/// Arguments of `piton audit prune`.
#[derive(Debug, Args)]
#[command(
    after_help = "Never pruned: a run that is open, waits or is stuck, that a driver has, that holds a lock, whose milestones stand or are \
    required by a run that is not over, without the runs that it started, or whose record is not as it was written."
)]
pub struct Prune {
    /// Rules from this file instead of options
    #[arg(long, value_name = "FILE", conflicts_with_all = ["older_than", "before", "run", "runbook", "on", "keep_last", "with_failed", "kind"])]
    policy: Option<PathBuf>,
    /// Runs whose latest record is older than this, such as `400d`
    #[arg(long, value_name = "AGE", conflicts_with = "before")]
    older_than: Option<String>,
    /// Runs whose latest record was made before this day or time
    #[arg(long, value_name = "DATE")]
    before: Option<String>,
    /// Only this run; may be given many times
    #[arg(long, value_name = "RUN")]
    run: Vec<String>,
    /// Only runs of this runbook; may be given many times
    #[arg(long, value_name = "NAME")]
    runbook: Vec<String>,
    /// Only runs on this site (by its name); may be given many times
    #[arg(long, value_name = "NAME")]
    on: Vec<String>,
    /// Leave the latest runs of each runbook on each site
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    keep_last: u32,
    /// Also runs that rest failed or cancelled: they cannot be resumed afterwards
    #[arg(long)]
    with_failed: bool,
    /// Leave this run whatever the rules say; may be given many times
    #[arg(long, value_name = "RUN")]
    except: Vec<String>,
    #[command(flatten)]
    what: WhatToPrune,
    /// Of --contents-only, only records of this kind; may be given many times
    #[arg(long, value_name = "KIND", requires = "contents_only")]
    kind: Vec<String>,
    /// Why; kept on every tombstone
    #[arg(long, value_name = "TEXT", required_unless_present = "plan")]
    reason: Option<String>,
    /// Who says it: a claim [default: the user of this process]
    #[arg(long = "as", value_name = "NAME")]
    by: Option<String>,
    /// Only show what would be pruned, and what stays and why
    #[arg(long)]
    plan: bool,
    /// Do not rewrite the file at the end: what was pruned is overwritten where it lay, but fragments may stay readable
    #[arg(long)]
    no_rewrite: bool,
}

/// What is pruned; whole runs when nothing is said.
#[derive(Debug, Args)]
#[group(multiple = false, conflicts_with = "policy")]
struct WhatToPrune {
    /// Only what commands said
    #[arg(long)]
    transcripts_only: bool,
    /// Only files that people handed in
    #[arg(long)]
    evidence_only: bool,
    /// Transcripts, evidence and the payload of records; place, time, kind and hash of each stay
    #[arg(long)]
    contents_only: bool,
}

impl WhatToPrune {
    fn what(&self) -> What {
        match (self.transcripts_only, self.evidence_only, self.contents_only) {
            (true, _, _) => What::Transcripts,
            (_, true, _) => What::Evidence,
            (_, _, true) => What::Contents,
            (false, false, false) => What::Run,
        }
    }
}

/// Arguments of `piton audit tombstones`.
#[derive(Debug, Args)]
pub struct Tombstones {
    /// Only of this run
    run: Option<String>,
}

pub(super) async fn tombstones(global: &Global, args: &Tombstones, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let stones = match &args.run {
        Some(run) => place.journal.tombstones_of(&place.find(run).await?).await?,
        None => place.journal.tombstones().await?,
    };
    let zone = jiff::tz::TimeZone::system();
    for Tombstone { number, run, body, key, signature } in &stones {
        if out.json {
            let text: Json = serde_json::from_str(body).unwrap_or(Json::Null);
            out.json_line(
                &json!({ "number": number, "run": run, "text": text, "body": body, "key": key, "signature": signature }),
            )?;
            continue;
        }
        let told = serde_json::from_str(body).map(|text| pruned::tombstone(&text, &zone));
        out.line(told.unwrap_or_else(|error| format!("{number:>5}  run {run}: it cannot be read ({error})")))?;
    }
    if stones.is_empty() && !out.json {
        out.line("nothing was pruned")?;
    }
    Ok(Exit::SUCCEEDED)
}

pub(super) async fn run(global: &Global, args: &Prune, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let now = crate::config::now();
    let Wish { rules, except, unknown } = rules::rules(&place, args, now).await?;
    for run in &unknown {
        let warning = out.error_paint.warn("warning:");
        out.note(&format!("{warning} the policy excepts `{run}`, but there is no such run in `{}`", place.store));
    }
    let facts = orders::facts(&place, except).await?;
    let mut chosen = choose(&rules, &facts);
    let orders = orders::orders(&place, &mut chosen).await?;
    show(out, &chosen, &facts, &unknown)?;
    if args.plan {
        return Ok(Exit::SUCCEEDED);
    }
    let reason = reason_of(args.reason.as_deref().unwrap_or_default())?;
    let Some(path) = place.seal_key() else {
        let why = "nothing seals this store, so nobody could tell a tombstone from a theft; it is not pruned";
        return Err(CliError::Usage(why.into()));
    };
    let key = SealKey::open(&path)?;
    hold(&place).await?;
    if !orders.is_empty() && !global.yes {
        if out.json || !out.terminal || !person_at_keyboard() {
            return Err(CliError::Usage("what is pruned is gone for good; look at `--plan`, then add `--yes`".into()));
        }
        if !out.confirm(&format!("Prune {}? It is gone for good.", counted(&chosen))) {
            out.note("nothing was pruned");
            return Ok(Exit::CANCELLED);
        }
    }
    let owner = Owner::this_process().map_err(|error| CliError::Store(error.to_string()))?;
    let pruner = Pruner { by: crate::config::actor(args.by.as_deref()), reason, at: now, key: &key, owner };
    let done = place.journal.prune(&orders, &pruner).await?;
    let mut exit = Exit::SUCCEEDED;
    for family in &done {
        match family {
            Ok(stones) => tell(out, stones)?,
            Err(why) => {
                out.note(&format!("not pruned: {why}"));
                exit = Exit::USAGE;
            }
        }
    }
    sweep_evidence(&place).await?;
    tidy(&place, args, out).await?;
    Ok(exit)
}

/// Refuses to prune where a tombstone is not as it was put there: files go by what tombstones say.
async fn hold(place: &Place) -> Result<(), CliError> {
    let proof = place.journal.prove_tombstones(&place.own_key()?, &[]).await?;
    let Some(wrong) = proof.wrong.first() else { return Ok(()) };
    let number = wrong.seq.unwrap_or(0);
    let why = format!(
        "tombstone {number}: {}; nothing is pruned until `piton audit verify --all` finds nothing wrong",
        wrong.what
    );
    Err(CliError::Store(why))
}

/// Sees to the bytes, and says so where some may still be readable.
async fn tidy(place: &Place, args: &Prune, out: Out) -> Result<(), CliError> {
    let left = match place.journal.tidy(!args.no_rewrite).await? {
        Tidied::Gone => return Ok(()),
        Tidied::Fragments => "the file was not rewritten, so fragments of what was pruned may stay readable in it",
        Tidied::Busy => "another process has the store open, so the file still holds bytes that were pruned",
        Tidied::Driven => {
            "a driver is at work and the file is large, so it was not rewritten and may still hold what was pruned"
        }
        Tidied::Server => {
            out.note(
                "when the server overwrites what was pruned, in its tables, its log and its standbys, is up to it",
            );
            return Ok(());
        }
    };
    out.note(&format!("warning: {left}; `piton audit prune` does it another time"));
    Ok(())
}

/// What was pruned, a line for each tombstone.
fn tell(out: Out, stones: &[Tombstone]) -> Result<(), CliError> {
    for stone in stones {
        let text = stone.read().map_err(CliError::Store)?;
        if out.json {
            out.json_line(&json!({ "pruned": text.run, "what": text.what, "tombstone": text.number }))?;
        } else {
            out.line(format!("pruned {} of run {} (tombstone {})", text.what.words(), text.run, text.number))?;
        }
    }
    Ok(())
}

fn counted(chosen: &Chosen) -> String {
    let runs: BTreeSet<&RunId> = chosen.families.iter().flatten().map(|choice| &choice.run).collect();
    format!("{} run(s)", runs.len())
}

/// What goes and what stays; `unknown`: what is excepted and not there.
fn show(out: Out, chosen: &Chosen, facts: &Facts, unknown: &[String]) -> Result<(), CliError> {
    if out.json {
        let goes: Vec<Json> = chosen
            .families
            .iter()
            .flatten()
            .map(
                |choice| json!({ "run": choice.run, "prune": choice.what, "kinds": choice.kinds, "rule": choice.rule }),
            )
            .collect();
        let stays: Vec<Json> =
            chosen.kept.iter().map(|kept| json!({ "run": kept.run, "prune": kept.what, "why": kept.why })).collect();
        let runs = facts.runs.len();
        return out.json_line(&json!({ "prune": goes, "stays": stays, "unknown": unknown, "runs": runs }));
    }
    let zone = jiff::tz::TimeZone::system();
    out.text(&pruned::plan(chosen, &facts.runs, &zone, out.paint))?;
    if unknown.is_empty() {
        return Ok(());
    }
    out.line(out.paint.bold("excepted, but no run of this store:"))?;
    unknown.iter().try_for_each(|run| out.line(format!("  {run}")))
}

/// Removes files of evidence that tombstones name and no run names any more, here and left over from a crash. Young files stay: a
/// file that is handed in is kept first and recorded then.
async fn sweep_evidence(place: &Place) -> Result<(), CliError> {
    let folder = place.state_dir.join("evidence");
    let names = std::fs::read_dir(&folder).into_iter().flatten().flatten().filter(is_settled);
    let there: BTreeSet<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    for hash in place.journal.evidence_gone(&there, &place.own_key()?).await? {
        let path = folder.join(&hash);
        match std::fs::remove_file(&path) {
            // Somebody else who prunes was faster.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(CliError::unwritable(&path, &error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether a file is old enough that whoever handed it in has recorded it.
fn is_settled(entry: &std::fs::DirEntry) -> bool {
    let changed = entry.metadata().and_then(|meta| meta.modified());
    let now = std::time::SystemTime::from(crate::config::now());
    changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age >= SETTLED))
}

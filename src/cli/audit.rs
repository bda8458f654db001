//! `piton audit`: who did what when, and whether that record can be relied on.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::place::Place;
use super::prune;
use crate::event::Record;
use crate::identity::Signers;
use crate::ids::RunId;
use crate::journal::{
    Anchored, Left, NotedTombstones, Proof, RunFilter, SealKey, TombstoneProof, Trust, Wrong, bundle_records,
    judge_bundle, trusted_keys,
};
use crate::report::{audit, exports, lines, pruned, status};

/// Arguments of `piton audit`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Audit {
    /// The run: its id, the unique beginning of it, or `last`
    #[arg(default_value = "last")]
    run: String,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What else the audit can do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Check that the record of a run was not changed; exit code 1 names the first record that was
    #[command(
        after_help = "What was cut off together with its seals, or put back from an older copy, is seen only with --anchor."
    )]
    Verify(Verify),
    /// Print how far runs have come, to keep where nobody of the store's can write
    Head(Which),
    /// Write a run as one file that can be verified without the store
    Export(Export),
    /// Take away of runs that are over what nobody may keep, and leave signed tombstones that say so
    Prune(prune::Prune),
    /// List what was pruned, when, by whom and why
    Tombstones(prune::Tombstones),
}

#[derive(Debug, Args)]
struct Which {
    /// The run: its id, the unique beginning of it, or `last`
    #[arg(default_value = "last", conflicts_with = "all")]
    run: String,
    /// Every run of the store
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    which: Which,
    /// A public key, or a file of allowed signers, that alone may have sealed [default: the key beside a store that is a file]
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Lines of `piton audit head` that were kept elsewhere
    #[arg(long, value_name = "FILE")]
    anchor: Vec<PathBuf>,
    /// Judge this bundle instead of the store
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    bundle: Option<PathBuf>,
    /// Judge signatures of people by this allowed-signers file [default: the keys that the run went by]
    #[arg(long, value_name = "FILE")]
    signers: Option<PathBuf>,
    /// Also judge a bundle that was written without a key
    #[arg(long, requires = "bundle")]
    unsigned: bool,
}

#[derive(Debug, Args)]
struct Export {
    /// The run: its id, the unique beginning of it, or `last`
    #[arg(default_value = "last")]
    run: String,
    /// The file to write; it must not exist [default: standard output]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// What to write; only a bundle proves itself
    #[arg(long, value_enum, default_value_t = Format::Bundle)]
    format: Format,
}

/// Forms of a run for others to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Records, seals and what commands said, signed as a whole
    Bundle,
    /// A table of the records, for spreadsheets
    Csv,
    /// One `CloudEvents` object for each record, for collectors of events
    Cloudevents,
}

pub(super) async fn run(global: &Global, args: &Audit, out: Out) -> Result<Exit, CliError> {
    match &args.command {
        None => tell(global, &args.run, out).await,
        Some(Command::Verify(args)) => verify(global, args, out).await,
        Some(Command::Head(which)) => head(global, which, out).await,
        Some(Command::Export(args)) => export(global, args, out).await,
        Some(Command::Prune(args)) => prune::run(global, args, out).await,
        Some(Command::Tombstones(args)) => prune::tombstones(global, args, out).await,
    }
}

async fn tell(global: &Global, run: &str, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let run = place.find(run).await?;
    if let Some(left) = place.remembered(&run, out).await? {
        return tell_left(&run, &left, out);
    }
    if out.json {
        for record in place.journal.read(&run, 1).await? {
            out.json_line(&lines::event(&record))?;
        }
        return Ok(Exit::SUCCEEDED);
    }
    let told = crate::driver::read(&place.journal, &run).await?;
    let view = status::Run { run: &run, plan: &told.plan, state: &told.state, records: &told.records };
    out.text(&audit::to_text(view, &crate::driver::stages(&told.records)?, &jiff::tz::TimeZone::system(), out.paint))?;
    Ok(Exit::SUCCEEDED)
}

/// The records of which something is left.
fn tell_left(run: &RunId, left: &[Left], out: Out) -> Result<Exit, CliError> {
    if !out.json {
        out.text(&pruned::left(left, &jiff::tz::TimeZone::system()))?;
        return Ok(Exit::SUCCEEDED);
    }
    for Left { seq, at, kind, hash, record } in left {
        let line = record.as_ref().map_or_else(
            || json!({ "run": run, "seq": seq, "at": at, "kind": kind, "hash": hash, "pruned": true }),
            lines::event,
        );
        out.json_line(&line)?;
    }
    Ok(Exit::SUCCEEDED)
}

async fn runs(place: &Place, which: &Which) -> Result<Vec<RunId>, CliError> {
    if !which.all {
        return Ok(vec![place.find(&which.run).await?]);
    }
    let mut runs: Vec<RunId> =
        place.journal.runs(&RunFilter::default()).await?.into_iter().map(|summary| summary.run).collect();
    runs.reverse();
    Ok(runs)
}

async fn head(global: &Global, which: &Which, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    for run in runs(&place, which).await? {
        out.json_line(&json!(place.journal.anchored(&run).await?))?;
    }
    let proof = place.journal.prove_tombstones(&[], &[]).await?;
    if which.all && proof.tombstones > 0 {
        out.json_line(&json!(NotedTombstones { tombstones: proof.tombstones, hash: proof.hash }))?;
    }
    Ok(Exit::SUCCEEDED)
}

async fn export(global: &Global, args: &Export, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let run = place.find(&args.run).await?;
    let (text, note) = match args.format {
        Format::Bundle => {
            let path = place.seal_key().filter(|path| path.exists());
            let key = path.map(|path| SealKey::open(&path)).transpose()?;
            let (text, _) = place.journal.export(&run, key.as_ref(), crate::config::now()).await?;
            let unsigned = ", without a signature: the key of the store is not here";
            (text, if key.is_some() { ", signed" } else { unsigned })
        }
        Format::Csv => {
            let told = crate::driver::read(&place.journal, &run).await?;
            let view = status::Run { run: &run, plan: &told.plan, state: &told.state, records: &told.records };
            (exports::to_csv(&audit::entries(view, &crate::driver::stages(&told.records)?)), "")
        }
        Format::Cloudevents => (exports::to_cloud_events(&place.journal.read(&run, 1).await?), ""),
    };
    match &args.to {
        None => out.text(&text)?,
        Some(path) => {
            write_new(path, &text).map_err(|error| CliError::unwritable(path, &error))?;
            out.line(format!("run {run} is written to {}{note}", path.display()))?;
        }
    }
    Ok(Exit::SUCCEEDED)
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::options().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| CliError::unreadable(path, &error))
}

async fn verify(global: &Global, args: &Verify, out: Out) -> Result<Exit, CliError> {
    let mut keys = Vec::new();
    for path in &args.key {
        let bad = |why| CliError::Usage(format!("`{}` holds no public keys: {why}", path.display()));
        keys.extend(trusted_keys(&read(path)?).map_err(bad)?);
    }
    if !args.key.is_empty() && keys.is_empty() {
        return Err(CliError::Usage("the files of `--key` hold no public key".into()));
    }
    let signers = args.signers.as_deref().map(signers_of).transpose()?;
    let (mut anchors, mut noted) = (Vec::new(), Vec::new());
    for path in &args.anchor {
        anchors_of(path, &mut anchors, &mut noted)?;
    }
    if let Some(path) = &args.bundle {
        let trust = Trust { keys: &keys, anchors: &anchors };
        let bytes = std::fs::read(path).map_err(|error| CliError::unreadable(path, &error))?;
        let proof = judge_bundle(&bytes, trust, args.unsigned)
            .map_err(|error| CliError::Store(format!("{}: {error}", path.display())))?;
        let records = if proof.holds() { bundle_records(&bytes).unwrap_or_default() } else { Vec::new() };
        let judged_proof = with_people(proof, &records, signers.as_ref())?;
        return judged(&[judged_proof], None, keys.is_empty(), out);
    }
    let place = global.store().await?;
    if keys.is_empty() {
        keys = place.own_key()?;
    }
    let mut wanted = runs(&place, &args.which).await?;
    if args.which.all {
        // Those as well of which nothing is left but what names them.
        let stones = place.journal.tombstones().await?;
        for run in anchors.iter().map(|anchor| &anchor.run).chain(stones.iter().map(|stone| &stone.run)) {
            if !wanted.contains(run) {
                wanted.push(run.clone());
            }
        }
    }
    let mut proofs = Vec::new();
    for run in wanted {
        let proof = place.journal.prove(&run, Trust { keys: &keys, anchors: &anchors }).await?;
        let readable = proof.holds() && !proof.is_grave();
        let records = if readable { place.journal.read(&run, 1).await? } else { Vec::new() };
        proofs.push(with_people(proof, &records, signers.as_ref())?);
    }
    let stones = place.journal.prove_tombstones(&keys, &noted).await?;
    judged(&proofs, Some((stones, args.which.all)), keys.is_empty(), out)
}

/// A proof, and how many words of people and lists of files of the run are signed.
pub(super) type Judged = (Proof, usize, usize);

/// The proof, with what people said in the run judged again, and how many of them signed it.
pub(super) fn with_people(mut proof: Proof, records: &[Record], signers: Option<&Signers>) -> Result<Judged, CliError> {
    let words = crate::driver::words(&proof.run, records, signers)?;
    for (seq, what) in words.wrong {
        proof.add(seq, what);
    }
    Ok((proof, words.signed, words.signed_files))
}

fn signers_of(path: &Path) -> Result<Signers, CliError> {
    let mut signers = Signers::default();
    let bad = |error| CliError::Usage(format!("`{}`: {error}", path.display()));
    signers.add_file(&read(path)?).map_err(bad)?;
    Ok(signers)
}

/// Lines of `audit head`: about runs, and about tombstones.
fn anchors_of(path: &Path, runs: &mut Vec<Anchored>, stones: &mut Vec<NotedTombstones>) -> Result<(), CliError> {
    for (number, line) in (1..).zip(read(path)?.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        if let Ok(noted) = serde_json::from_str(line) {
            stones.push(noted);
            continue;
        }
        let wrong = |error| CliError::Usage(format!("`{}`, line {number}: {error}", path.display()));
        runs.push(serde_json::from_str(line).map_err(wrong)?);
    }
    Ok(())
}

/// Says what was found; an error if anything is wrong.
fn judged(
    proofs: &[Judged],
    stones: Option<(TombstoneProof, bool)>,
    any_key: bool,
    out: Out,
) -> Result<Exit, CliError> {
    let mut wrong = Vec::new();
    for (proof, signed, files) in proofs {
        let run = &proof.run;
        if out.json {
            out.json_line(&json!({
                "run": run, "intact": proof.holds(), "records": proof.records, "hash": proof.hash, "sealed": proof.sealed,
                "keys": proof.keys, "wrong": proof.wrong, "signed_words": signed, "signed_files": files,
                "pruned": proof.pruned, "uncompared": proof.uncompared,
            }))?;
        }
        for found in &proof.wrong {
            wrong.push(match found.seq {
                Some(seq) => format!("record {seq} of run {run}: {}", found.what),
                None => format!("run {run}: {}", found.what),
            });
        }
        if proof.holds() && !out.json {
            out.line(format!(
                "run {run}: {} records, all as they were {}; last hash {}",
                proof.records,
                if proof.is_grave() { "left" } else { "written" },
                proof.hash
            ))?;
            out.line(format!("  {}", covered(proof, any_key)))?;
            for pruned in &proof.pruned {
                out.line(format!("  {pruned}"))?;
            }
            if proof.uncompared > 0 {
                let count = proof.uncompared;
                out.line(format!("  {count} of its records that were noted elsewhere cannot be compared any more"))?;
            }
            if *signed > 0 {
                out.line(format!("  signed words of people: {signed}, each by a key of theirs"))?;
            }
            if *files > 0 {
                out.line(format!("  signed lists of what it went by: {files}, each as it was used"))?;
            }
        }
    }
    if let Some((stones, all)) = stones {
        if all && stones.tombstones > 0 {
            tell_tombstones(&stones, any_key, out)?;
        }
        let told = |wrong: &Wrong| format!("tombstone {}: {}", wrong.seq.unwrap_or(0), wrong.what);
        wrong.extend(stones.wrong.iter().map(told));
    }
    if wrong.is_empty() { Ok(Exit::SUCCEEDED) } else { Err(CliError::Store(wrong.join("\n"))) }
}

/// How many tombstones there are, and whose.
fn tell_tombstones(stones: &TombstoneProof, any_key: bool, out: Out) -> Result<(), CliError> {
    if out.json {
        out.json_line(&json!({
            "tombstones": stones.tombstones, "intact": stones.wrong.is_empty(), "hash": stones.hash, "wrong": stones.wrong,
        }))?;
    } else if stones.wrong.is_empty() {
        let whose =
            if any_key { "by keys which nothing vouches for: name them with --key" } else { "as they should be" };
        out.line(format!("{} tombstones, sealed {whose}; last hash {}", stones.tombstones, stones.hash))?;
    }
    Ok(())
}

/// What the seals of a run say.
fn covered(proof: &Proof, any_key: bool) -> String {
    if proof.sealed == 0 {
        return "no seal covers them yet: whoever could write the store could have written them".to_owned();
    }
    let keys: Vec<&str> = proof.keys.iter().map(String::as_str).collect();
    let whose = if any_key { "which nothing vouches for: name it with --key" } else { "as it should be" };
    let rest = match proof.records.saturating_sub(proof.sealed) {
        0 => String::new(),
        more => format!("; the last {more} are not sealed yet"),
    };
    format!("sealed up to record {} by {}, {whose}{rest}", proof.sealed, keys.join(", "))
}

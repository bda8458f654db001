//! `piton audit`: who did what when, and whether that record can be relied on.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::place::Place;
use crate::event::Record;
use crate::identity::Signers;
use crate::ids::RunId;
use crate::journal::{Anchored, Proof, RunFilter, SealKey, Trust, bundle_records, judge_bundle, trusted_keys};
use crate::report::{audit, exports, lines, status};

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
    }
}

async fn tell(global: &Global, run: &str, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    if out.json {
        let run = place.find(run).await?;
        for record in place.journal.read(&run, 1).await? {
            out.json_line(&lines::event(&record))?;
        }
        return Ok(Exit::SUCCEEDED);
    }
    let (run, told) = place.told(run).await?;
    let view = status::Run { run: &run, plan: &told.plan, state: &told.state, records: &told.records };
    out.text(&audit::to_text(view, &crate::driver::stages(&told.records)?, &jiff::tz::TimeZone::system(), out.paint))?;
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
    let mut anchors = Vec::new();
    for path in &args.anchor {
        anchors.extend(anchors_of(path)?);
    }
    if let Some(path) = &args.bundle {
        let trust = Trust { keys: &keys, anchors: &anchors };
        let bytes = std::fs::read(path).map_err(|error| CliError::unreadable(path, &error))?;
        let proof = judge_bundle(&bytes, trust, args.unsigned)
            .map_err(|error| CliError::Store(format!("{}: {error}", path.display())))?;
        let records = if proof.holds() { bundle_records(&bytes).unwrap_or_default() } else { Vec::new() };
        let judged_proof = with_people(proof, &records, signers.as_ref())?;
        return judged(&[judged_proof], keys.is_empty(), out);
    }
    let place = global.store().await?;
    if keys.is_empty() {
        keys = place.own_key()?;
    }
    let mut wanted = runs(&place, &args.which).await?;
    if args.which.all {
        for anchor in &anchors {
            if !wanted.contains(&anchor.run) {
                wanted.push(anchor.run.clone());
            }
        }
    }
    let mut proofs = Vec::new();
    for run in wanted {
        let proof = place.journal.prove(&run, Trust { keys: &keys, anchors: &anchors }).await?;
        let records = if proof.holds() { place.journal.read(&run, 1).await? } else { Vec::new() };
        proofs.push(with_people(proof, &records, signers.as_ref())?);
    }
    judged(&proofs, keys.is_empty(), out)
}

/// A proof, and how many words of people and lists of files of the run are signed.
type Judged = (Proof, usize, usize);

/// The proof, with what people said in the run judged again, and how many of them signed it.
fn with_people(mut proof: Proof, records: &[Record], signers: Option<&Signers>) -> Result<Judged, CliError> {
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

fn anchors_of(path: &Path) -> Result<Vec<Anchored>, CliError> {
    let text = read(path)?;
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|error| CliError::Usage(format!("`{}`, line {number}: {error}", path.display())))
    };
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()).map(line).collect()
}

/// Says what was found; an error if anything is wrong.
fn judged(proofs: &[Judged], any_key: bool, out: Out) -> Result<Exit, CliError> {
    let mut wrong = Vec::new();
    for (proof, signed, files) in proofs {
        let run = &proof.run;
        if out.json {
            out.json_line(&json!({
                "run": run, "intact": proof.holds(), "records": proof.records, "hash": proof.hash, "sealed": proof.sealed,
                "keys": proof.keys, "wrong": proof.wrong, "signed_words": signed, "signed_files": files,
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
                "run {run}: {} records, all as they were written; last hash {}",
                proof.records, proof.hash
            ))?;
            out.line(format!("  {}", covered(proof, any_key)))?;
            if *signed > 0 {
                out.line(format!("  signed words of people: {signed}, each by a key of theirs"))?;
            }
            if *files > 0 {
                out.line(format!("  signed lists of what it went by: {files}, each as it was used"))?;
            }
        }
    }
    if wrong.is_empty() { Ok(Exit::SUCCEEDED) } else { Err(CliError::Store(wrong.join("\n"))) }
}

/// What the seals of a run say.
fn covered(proof: &Proof, any_key: bool) -> String {
    if proof.sealed == 0 {
        return "no seal covers them yet: whoever could write the store could have written them".to_owned();
    }
    let keys: Vec<&str> = proof.keys.iter().map(String::as_str).collect();
    let whose = if any_key { "which nothing vouches for: name it with --key" } else { "as it should be" };
    let rest = match proof.records - proof.sealed {
        0 => String::new(),
        more => format!("; the last {more} are not sealed yet"),
    };
    format!("sealed up to record {} by {}, {whose}{rest}", proof.sealed, keys.join(", "))
}

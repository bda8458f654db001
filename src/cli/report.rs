//! `piton report`: a run as a page for people, with the bundle that proves it beside it.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::place::Place;
use crate::driver::Told;
use crate::ids::RunId;
use crate::journal::{Journal, Proof, RunFilter, RunSummary, SealKey, Trust};
use crate::plan::sha256_hex;
use crate::report::document::{self, Content, Said, Sources};
use crate::report::{logs, status};

/// The page in the folder of a report.
const PAGE: &str = "report.html";
/// The bundle beside it.
const BUNDLE: &str = "bundle.jsonl";
/// Bytes of what a command said that stand on the page; the bundle has all that is kept.
const SAID_MAX: usize = 64 * 1024;
/// How often a run that is being driven is read again until page and bundle are of the same moment.
const LOOKS_MAX: u32 = 20;

/// Arguments of `piton report`.
#[derive(Debug, Args)]
#[command(
    after_help = "The folder holds `report.html`, which needs nothing else, and `bundle.jsonl`, which `piton audit verify --bundle` judges \
    without the store. Exit code 1 says that the record of the run was changed; the page says so as well, and there is no bundle."
)]
pub struct Report {
    /// The run: its id, the unique beginning of it, or `last`
    #[arg(default_value = "last")]
    run: String,
    /// The folder to make; it must not exist [default: `report-` and the id of the run]
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
    /// A Handlebars template to make the page from, instead of Piton's own
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Print Piton's own template, to start one from
    #[arg(long, conflicts_with_all = ["to", "template"])]
    print_template: bool,
}

pub(super) async fn run(global: &Global, args: &Report, out: Out) -> Result<Exit, CliError> {
    if args.print_template {
        out.text(document::TEMPLATE)?;
        return Ok(Exit::SUCCEEDED);
    }
    let template = match &args.template {
        Some(path) => std::fs::read_to_string(path).map_err(|error| CliError::unreadable(path, &error))?,
        None => document::TEMPLATE.to_owned(),
    };
    let place = global.store().await?;
    let run = place.find(&args.run).await?;
    let folder = args.to.clone().unwrap_or_else(|| PathBuf::from(format!("report-{run}")));
    if folder.exists() {
        let message = format!("`{}` is there already; remove it, or name another folder with `--to`", folder.display());
        return Err(CliError::Usage(message));
    }
    let found = Found::of(&place, &run).await?;
    let name = args.template.as_deref().unwrap_or(Path::new(PAGE));
    let page = found.page(&run, &template, name)?;
    let bundle = found.bundle.as_deref();
    write(&folder, &page, bundle).map_err(|error| CliError::unwritable(&folder, &error))?;
    if out.json {
        let bundle = bundle.map(|_| folder.join(BUNDLE));
        out.json_line(
            &json!({ "run": run, "report": folder.join(PAGE), "bundle": bundle, "intact": found.proof.holds() }),
        )?;
    } else {
        out.line(format!("run {run} is told in {}", folder.join(PAGE).display()))?;
    }
    if let Some(wrong) = found.proof.wrong.first() {
        return Err(CliError::Store(format!("the record of run {run} is not as it was written: {wrong}")));
    }
    Ok(Exit::SUCCEEDED)
}

/// Page and bundle in a new folder, which is there as a whole or not at all.
fn write(folder: &Path, page: &str, bundle: Option<&str>) -> std::io::Result<()> {
    let parent = crate::config::folder_of(folder);
    std::fs::create_dir_all(parent)?;
    let draft = tempfile::Builder::new().prefix(".report-").tempdir_in(parent)?;
    std::fs::write(draft.path().join(PAGE), page)?;
    if let Some(bundle) = bundle {
        std::fs::write(draft.path().join(BUNDLE), bundle)?;
    }
    std::fs::rename(draft.path(), folder)?;
    // What it was is not there any more, so nothing is removed.
    let _ = draft.keep();
    Ok(())
}

/// Everything that a report is made from, of one moment.
struct Found {
    told: Told,
    proof: Proof,
    /// None when the record is not as it was written.
    bundle: Option<String>,
    children: Vec<RunSummary>,
    said: Vec<Said>,
}

impl Found {
    async fn of(place: &Place, run: &RunId) -> Result<Self, CliError> {
        let path = place.seal_key().filter(|path| path.exists());
        let key = path.map(|path| SealKey::open(&path)).transpose()?;
        let (journal, keys) = (&place.journal, place.own_key()?);
        for _ in 0..LOOKS_MAX {
            let told = crate::driver::read(journal, run).await?;
            let proof = journal.prove(run, Trust { keys: &keys, anchors: &[] }).await?;
            let mut bundle = None;
            if proof.holds() {
                let (text, of) = journal.export(run, key.as_ref(), crate::config::now()).await?;
                if told.records.last().is_none_or(|last| last.hash != of.hash || last.hash != proof.hash) {
                    continue;
                }
                bundle = Some(text);
            }
            let (children, said) = (children(journal, run).await?, said(journal, run, &told).await?);
            return Ok(Self { told, proof, bundle, children, said });
        }
        let message = format!("run `{run}` records faster than it can be read; ask again when it rests or ended");
        Err(CliError::Usage(message))
    }

    /// The page from a template; `name` is where that came from.
    fn page(&self, run: &RunId, template: &str, name: &Path) -> Result<String, CliError> {
        let Told { plan, state, records } = &self.told;
        let digest = self.bundle.as_ref().map(|bundle| sha256_hex(bundle.as_bytes()));
        let content = Content::of(&Sources {
            run: status::Run { run, plan, state, records },
            stages: &crate::driver::stages(records)?,
            proof: &self.proof,
            children: &self.children,
            said: &self.said,
            bundle: digest.as_deref().map(|digest| (BUNDLE, digest)),
            now: crate::config::now(),
            zone: &jiff::tz::TimeZone::system(),
        });
        document::render(template, &content).map_err(|error| CliError::Usage(format!("`{}`: {error}", name.display())))
    }
}

async fn children(journal: &Journal, run: &RunId) -> Result<Vec<RunSummary>, CliError> {
    let family = RunFilter { family: Some(run.clone()), ..RunFilter::default() };
    let mut runs = journal.runs(&family).await?;
    runs.retain(|summary| summary.run != *run);
    runs.reverse();
    Ok(runs)
}

/// What the commands of the run said, the beginning of it.
async fn said(journal: &Journal, run: &RunId, told: &Told) -> Result<Vec<Said>, CliError> {
    let pruned = journal.pruned(run).await?;
    let mut all = Vec::new();
    for entry in logs::entries(&told.records) {
        let kept = journal.transcript(entry.said).await;
        let (text, mut left_out) = match &kept {
            Ok(kept) => (entry.text(kept), None),
            Err(error) => {
                let gone = super::logs::taken(&pruned, &entry).map(ToString::to_string);
                (Vec::new(), Some(gone.unwrap_or_else(|| error.to_string())))
            }
        };
        let shown = &text[..text.len().min(SAID_MAX)];
        if shown.len() < text.len() {
            left_out = Some(format!("{} more bytes are in the bundle", text.len() - shown.len()));
        }
        all.push(Said {
            seq: entry.record.seq,
            step: entry.step.to_string(),
            stream: entry.said.stream.words().to_owned(),
            digest: entry.said.digest.clone(),
            bytes: entry.said.bytes,
            text: String::from_utf8_lossy(shown).into_owned(),
            left_out,
        });
    }
    Ok(all)
}

//! Anchors: when a run ends or rests, places outside of the store are told how far it came.
//!
//! Refuses nothing: a place that cannot be told does not change how the run ended, but who runs it is warned. The lines are those of
//! `piton audit head`. Called by the commands that drive runs.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::out::Out;
use crate::action::mask::Masker;
use crate::action::process::{self, CommandLine};
use crate::ids::RunId;
use crate::journal::{Journal, RunFilter};
use crate::site::{AnchorSite, LoadedSite};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells every anchor of the site how far a run and the runs that it started came.
pub(super) async fn tell(site: &LoadedSite, journal: &Journal, run: &RunId, out: Out) {
    if site.site.anchors.is_empty() {
        return;
    }
    let lines = match lines(journal, run).await {
        Ok(lines) => lines,
        Err(error) => return out.note(&format!("warning: no anchor was told how far run {run} came: {error}")),
    };
    for anchor in &site.site.anchors {
        if let Err((place, why)) = one(anchor, &site.base, &lines).await {
            out.note(&format!(
                "warning: the anchor `{place}` was not told how far run {run} came: {why}; tell it with `piton audit head {run}`"
            ));
        }
    }
}

/// The head of a run and of its children, a line each.
async fn lines(journal: &Journal, run: &RunId) -> Result<String, crate::journal::JournalError> {
    let family = RunFilter { family: Some(run.clone()), ..RunFilter::default() };
    let mut lines = String::new();
    for summary in journal.runs(&family).await?.into_iter().rev() {
        lines.push_str(&json!(journal.anchored(&summary.run).await?).to_string());
        lines.push('\n');
    }
    Ok(lines)
}

async fn one(anchor: &AnchorSite, base: &Path, lines: &str) -> Result<(), (String, String)> {
    match (&anchor.file, &anchor.command) {
        (Some(file), _) => append(&base.join(file), lines).map_err(|error| (file.clone(), error.to_string())),
        (None, Some(argv)) => {
            let line = CommandLine { stdin: Some(lines.into()), ..CommandLine::new(argv, base) };
            hand_over(&line).await.map_err(|why| (argv.join(" "), why))
        }
        (None, None) => Ok(()),
    }
}

fn append(path: &Path, lines: &str) -> std::io::Result<()> {
    let mut file = std::fs::File::options().append(true).create(true).open(path)?;
    file.write_all(lines.as_bytes())?;
    file.sync_all()
}

async fn hand_over(line: &CommandLine) -> Result<(), String> {
    let cancel = CancellationToken::new();
    let late = cancel.clone();
    let timer = tokio::spawn(async move {
        tokio::time::sleep(PATIENCE).await;
        late.cancel();
    });
    let ended = process::run(line, &cancel, &Masker::default()).await;
    timer.abort();
    match ended {
        Ok(finished) if finished.status.success() => Ok(()),
        Ok(finished) => Err(finished.describe()),
        Err(error) => Err(error.to_string()),
    }
}

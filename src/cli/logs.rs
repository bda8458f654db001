//! `piton logs`: what the commands of a run said.

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::place::Place;
use crate::event::Stream;
use crate::ids::{RunId, StepId};
use crate::journal::{JournalError, PrunedRun};
use crate::report::logs::{self, Entry};
use crate::report::pruned;

/// Arguments of `piton logs`.
#[derive(Debug, Args)]
#[command(
    after_help = "What a command says is on record when it has ended: the first and the last 64 KiB of each stream, \
    without secrets. With STEP and one of --stdout and --stderr, nothing else is printed."
)]
pub struct Logs {
    /// The run: its id, the unique beginning of it, or `last`
    #[arg(default_value = "last")]
    run: String,
    /// Only of this step
    step: Option<String>,
    /// Only of this attempt, counted from 1
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Only standard output
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,
    /// Only standard error
    #[arg(long)]
    stderr: bool,
}

impl Logs {
    fn stream(&self) -> Option<Stream> {
        match (self.stdout, self.stderr) {
            (true, _) => Some(Stream::Stdout),
            (false, true) => Some(Stream::Stderr),
            (false, false) => None,
        }
    }

    fn wants(&self, entry: &Entry<'_>) -> bool {
        self.step.as_ref().is_none_or(|step| step == entry.step.as_str())
            && self.attempt.is_none_or(|attempt| attempt == entry.attempt)
            && self.stream().is_none_or(|stream| stream == entry.said.stream)
    }

    /// Whether it is clear without headings what is printed.
    fn is_one_text(&self) -> bool {
        self.step.is_some() && self.stream().is_some()
    }
}

pub(super) async fn run(global: &Global, args: &Logs, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let run = place.find(&args.run).await?;
    let records = place.journal.read(&run, 1).await?;
    let pruned = place.journal.pruned(&run).await?;
    let mut said_something = false;
    for entry in logs::entries(&records).filter(|entry| args.wants(entry)) {
        let kept = match place.journal.transcript(entry.said).await {
            Err(JournalError::Transcript { .. }) if let Some(gone) = taken(&pruned, &entry) => {
                say_gone(&entry, gone, out)?;
                said_something = true;
                continue;
            }
            kept => kept?,
        };
        if out.json {
            out.json_line(&entry.to_json(&kept))?;
        } else {
            if !args.is_one_text() {
                out.line(out.paint.bold(&format!("== {} ==", entry.heading())))?;
            }
            let mut text = entry.text(&kept);
            if !args.is_one_text() && text.last() != Some(&b'\n') {
                text.push(b'\n');
            }
            out.foreign(&text)?;
        }
        said_something = true;
    }
    if !said_something {
        nothing(&place, &run, args, out).await?;
    }
    Ok(Exit::SUCCEEDED)
}

/// What took away the texts that a record names.
pub(super) fn taken<'p>(pruned: &'p [PrunedRun], entry: &Entry<'_>) -> Option<&'p PrunedRun> {
    pruned.iter().find(|one| one.what.takes_texts() && one.until >= entry.record.seq)
}

/// Says who took a text away; not where only the text is wanted.
fn say_gone(entry: &Entry<'_>, gone: &PrunedRun, out: Out) -> Result<(), CliError> {
    if out.json {
        let mut line = entry.to_json(&[]);
        line["pruned"] = serde_json::json!(gone);
        return out.json_line(&line);
    }
    let zone = jiff::tz::TimeZone::system();
    out.note(&format!("{}: {}", entry.heading(), pruned::sentence(gone, &zone)));
    Ok(())
}

/// Says that there is nothing, or that the step is not of this run.
async fn nothing(place: &Place, run: &RunId, args: &Logs, out: Out) -> Result<(), CliError> {
    if let Some(step) = &args.step {
        let told = crate::driver::read(&place.journal, run).await?;
        if told.plan.step(&StepId::new(step)).is_none() {
            return Err(CliError::Usage(format!("run `{run}` has no step `{step}`; see `piton show {run}`")));
        }
    }
    if !out.json {
        out.note("nothing that a command said is on record");
    }
    Ok(())
}

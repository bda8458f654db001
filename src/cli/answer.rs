//! `piton answer`: reports manual work done, with its form filled in and evidence kept by its hash.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Global;
use super::error::CliError;
use super::exit::Exit;
use super::out::Out;
use super::voice::{Spoken, Voice};
use super::word;
use crate::action::durable;
use crate::config::rights::own_folder;
use crate::event::{Answer, Event, Outputs, WaitKind};
use crate::plan::sha256_hex;
use crate::scheduler::{StepView, WaitRule};
use crate::spec::problem::did_you_mean;

/// Largest file taken as evidence, in bytes.
const EVIDENCE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Evidence is for the eyes of who keeps the store.
const EVIDENCE_MODE: u32 = 0o600;

/// Arguments of `piton answer`.
#[derive(Debug, Args)]
pub struct AnswerArgs {
    /// The run: its id, the unique beginning of it, or `last`
    run: String,
    /// The step that was done by hand
    step: String,
    /// A field of the step's form; may be given many times
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// A file that proves it; a copy is kept by its SHA-256; may be given many times
    #[arg(long, value_name = "FILE")]
    evidence: Vec<PathBuf>,
    /// A remark that is kept with the answer
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    #[command(flatten)]
    voice: Voice,
}

pub(super) async fn run(global: &Global, args: &AnswerArgs, out: Out) -> Result<Exit, CliError> {
    let place = global.store().await?;
    let (run, told) = place.told(&args.run).await?;
    let step = word::step_of(&told, &args.step)?;
    let view = told.state.step(&step);
    let by_hand = view.as_ref().and_then(StepView::question).filter(|rule| rule.kind == WaitKind::Manual);
    let Some(rule) = by_hand else {
        let message = format!("step `{step}` is not done by hand; approvals are answered with `piton approve`");
        return Err(CliError::Usage(message));
    };
    let form = fill_in(rule, &args.set)?;
    if rule.wants_evidence && args.evidence.is_empty() {
        return Err(CliError::Usage(format!("step `{step}` wants evidence; add `--evidence FILE`")));
    }
    let contents = args.evidence.iter().map(|path| read_evidence(path)).collect::<Result<Vec<_>, _>>()?;
    let mut evidence = BTreeMap::new();
    for (name, hash, _) in &contents {
        if evidence.insert(name.clone(), hash.clone()).is_some_and(|other| other != *hash) {
            return Err(CliError::Usage(format!("two files of evidence are called `{name}`; rename one")));
        }
    }
    let answer = Answer::Completed { form, evidence, comment: args.comment.clone() };
    let word = |by| Event::StepAnswered { step: step.clone(), by, answer: answer.clone() };
    let event = match args.voice.speak(&run, &told, word)? {
        Spoken::Word(event) => *event,
        Spoken::Statement(text) => return out.text(&text).map(|()| Exit::SUCCEEDED),
    };
    // Nothing is kept for an answer that cannot be given.
    if told.state.after(&event, crate::config::now()).is_err() {
        return word::say(&place, &run, &told, event, out).await;
    }
    for (_, hash, content) in &contents {
        keep(&place.state_dir.join("evidence"), hash, content)?;
    }
    word::say(&place, &run, &told, event, out).await
}

/// The form with every field in its type; all mistakes at once.
fn fill_in(rule: &WaitRule, given: &[String]) -> Result<Outputs, CliError> {
    let mut form = Outputs::new();
    let mut wrong = Vec::new();
    for text in given {
        let Some((name, value)) = text.split_once('=') else {
            wrong.push(format!("`--set {text}` has no value; write `--set field=value`"));
            continue;
        };
        if let Some(field) = rule.form.iter().find(|field| field.name == name) {
            let value = field.read(value);
            if let Err(why) = field.check(&value) {
                wrong.push(format!("field `{name}`: {why}"));
            }
            form.insert(name.to_owned(), value);
        } else {
            let help = did_you_mean(name, rule.form.iter().map(|field| field.name.as_str()));
            let help = help.map(|help| format!("; {help}")).unwrap_or_default();
            wrong.push(format!("the form has no field `{name}`{help}"));
        }
    }
    for field in rule.form.iter().filter(|field| !field.optional && !form.contains_key(&field.name)) {
        let what = field.description.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
        let (name, kind) = (&field.name, field.word().to_uppercase());
        wrong.push(format!("field `{name}`{what} is missing; add `--set {name}={kind}`"));
    }
    if wrong.is_empty() { Ok(form) } else { Err(CliError::Usage(wrong.join("\n"))) }
}

/// Name, hash and content of a file.
fn read_evidence(path: &Path) -> Result<(String, String, Vec<u8>), CliError> {
    let size = std::fs::metadata(path).map_err(|error| CliError::unreadable(path, &error))?.len();
    if size > EVIDENCE_BYTES_MAX {
        let message = format!("`{}` is larger than 256 MiB; hand in a part of it, or its checksum", path.display());
        return Err(CliError::Usage(message));
    }
    let content = std::fs::read(path).map_err(|error| CliError::unreadable(path, &error))?;
    let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    Ok((name, sha256_hex(&content), content))
}

/// Keeps a copy by its hash; whole or not at all.
fn keep(folder: &Path, hash: &str, content: &[u8]) -> Result<(), CliError> {
    let target = folder.join(hash);
    let kept = own_folder(folder).and_then(|()| durable::replace(&target, content, Some(EVIDENCE_MODE)));
    kept.map_err(|error| CliError::unwritable(&target, &error))
}

//! Whether a word is that of the person it names: what was signed, by whom, judged by the keys that the run goes by.
//!
//! Called for every word before it is recorded, and again by `piton audit verify`. `docs/design/identity.md`.

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::{DriverError, outside};
use crate::event::{Event, Record};
use crate::identity::{self, IdentityError, Signers, Statement};
use crate::ids::{Actor, How, RunId, StepId};

/// The text that has to be signed for `event`, said by `name` behind `records`; nothing for what people do not say.
pub fn statement(run: &RunId, records: &[Record], event: &Event, name: &Actor) -> Option<String> {
    event.by()?;
    let request = request(records, event)?;
    let input = match &request.event {
        Event::StepWaiting { input, .. } => input.as_deref().unwrap_or_default(),
        Event::UndoWaiting { input, .. } => input,
        _ => "",
    };
    // Whatever the same person said about it already makes the next word another one: no signature serves twice.
    let said = |record: &&Record| {
        record.seq > request.seq && record.event.by() == Some(name) && record.event.step() == event.step()
    };
    let plan = records.iter().rev().find_map(|record| match &record.event {
        Event::RunStarted { digest, .. } | Event::RunAmended { digest, .. } => Some(digest.as_str()),
        _ => None,
    });
    let statement = Statement {
        run,
        step: event.step().map_or("", StepId::as_str),
        request: &request.hash,
        again: records.iter().filter(said).count(),
        plan: plan.unwrap_or_default(),
        input,
        word: event.word(),
        says: &crate::plan::digest(&says(event)),
        name: name.as_str(),
    };
    Some(statement.text())
}

/// The record that asked, or that put in question what is decided: what somebody proposed, or the driver's latest about the
/// step or the run.
fn request<'r>(records: &'r [Record], event: &Event) -> Option<&'r Record> {
    let step = event.step();
    let proposes = |record: &&Record| {
        matches!(record.event, Event::DeviationRequested { .. } | Event::SkipRequested { .. })
            && record.event.step() == step
    };
    let about = |record: &&Record| match step {
        _ if matches!(event, Event::DeviationAnswered { .. }) => proposes(record),
        // To be told of it again changes nothing about it.
        Some(_) if matches!(record.event, Event::PeopleTold { .. }) => false,
        Some(step) => record.generation > 0 && record.event.step() == Some(step),
        None => matches!(
            record.event,
            Event::RunStarted { .. }
                | Event::RunAmended { .. }
                | Event::RollbackRequested { .. }
                | Event::RunFinished { .. }
        ),
    };
    records.iter().rev().find(about).or_else(|| records.first())
}

/// All that is said with the word.
fn says(event: &Event) -> Json {
    match event {
        Event::StepAnswered { answer, .. } => json!(answer),
        Event::SkipRequested { reason, .. } | Event::RollbackRequested { reason, .. } => json!({ "reason": reason }),
        Event::CancelRequested { reason, .. } => json!({ "reason": reason }),
        Event::DeviationRequested { what, reason, .. } => json!({ "what": what, "reason": reason }),
        Event::DeviationAnswered { answer, .. } => json!(answer),
        Event::StepAssigned { to, reason, .. } => json!({ "to": to, "reason": reason }),
        Event::RunAmended { reason, digest, steps, .. } => {
            json!({ "reason": reason, "digest": digest, "steps": steps })
        }
        _ => Json::Null,
    }
}

/// Whether `event`, said behind `records` at `at`, is signed as it says. One without a signature is let through: whether
/// that is enough is the scheduler's rule.
///
/// # Errors
/// Why it is not.
pub fn vouch(
    run: &RunId,
    records: &[Record],
    event: &Event,
    (signers, at): (&Signers, Timestamp),
) -> Result<(), IdentityError> {
    let Some(by) = event.by() else { return Ok(()) };
    let Some(How::Ssh { signature, key, fingerprint, .. }) = by.how() else { return Ok(()) };
    let signed = identity::Signed::read(signature)?;
    if signed.key != *key || signed.fingerprint != *fingerprint {
        return Err(IdentityError::Bad);
    }
    let text = statement(run, records, event, by).ok_or(IdentityError::Bad)?;
    identity::verify(signers, by.as_str(), &text, signature, at)
}

/// What people said in a run, judged again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// How many words are signed.
    pub signed: usize,
    /// How many lists of files that the run went by are signed.
    pub signed_files: usize,
    /// What is wrong, with the place of the record if it is one.
    pub wrong: Vec<(Option<u64>, String)>,
}

/// Judges again, by `signers` or by the keys that the run itself went by, whether signed words are those of whom they
/// name, and whether everybody was known well enough for what they said.
///
/// # Errors
/// When the plan that the run went by cannot be read.
pub fn words(run: &RunId, records: &[Record], signers: Option<&Signers>) -> Result<Words, DriverError> {
    let (mut own, mut words) = (None, Words::default());
    for (place, record) in records.iter().enumerate() {
        if let Some(by) = record.event.by().filter(|by| matches!(by.how(), Some(How::Ssh { .. }))) {
            words.signed += 1;
            let keys = match (signers, &own) {
                (Some(keys), _) | (None, Some(keys)) => keys,
                (None, None) => own.insert(keys_before(&records[..place])?),
            };
            if let Err(error) = vouch(run, &records[..place], &record.event, (keys, record.at)) {
                words.wrong.push((Some(record.seq), format!("it is not the word of `{by}`: {error}")));
            }
        }
        if matches!(record.event, Event::RunAmended { .. }) {
            own = None;
        }
    }
    let (count, wrong) = super::signed::again(records, signers)?;
    words.signed_files = count;
    words.wrong.extend(wrong.into_iter().map(|(seq, why)| (Some(seq), why)));
    // Records of earlier versions do not say how anybody is known.
    let is_known = |record: &Record| matches!(&record.event, Event::RunStarted { by, .. } if by.how().is_some());
    if records.first().is_some_and(is_known)
        && let Err(DriverError::Broken(why)) = outside::stages(records)
    {
        words.wrong.push((None, format!("its records cannot all be true: {why}")));
    }
    Ok(words)
}

/// The keys that the run went by behind these records.
fn keys_before(records: &[Record]) -> Result<Signers, DriverError> {
    outside::plan_of(records)?.site.keys().map_err(|error| DriverError::Broken(error.to_string()))
}

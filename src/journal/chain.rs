//! The hash chain: how a record is hashed, and how a chain is checked.
//!
//! A hash covers everything that a record says and the hash before it, so that nothing can be changed, dropped or put
//! in between without every later hash being wrong. `docs/design/journal.md` shows how to recompute it by hand.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Append, AppendError, JournalError};
use crate::event::{Event, Record};
use crate::ids::RunId;

/// What stands in the place of the hash before the first record.
pub(super) const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A record as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) at_ms: i64,
    pub(super) generation: u64,
    pub(super) kind: String,
    pub(super) payload: String,
    pub(super) hash: String,
}

/// What a payload holds that names what commands said; most do not and need not be read. Payloads are compact JSON.
pub(super) const NAMES_TEXTS: &str = "\"said\":[";
/// What one holds that names evidence.
pub(super) const NAMES_EVIDENCE: &str = "\"evidence\":{\"";

impl Row {
    /// Whether what commands said is named here.
    pub(super) fn names_texts(&self) -> bool {
        self.payload.contains(NAMES_TEXTS)
    }
}

/// SHA-256 in hex over the eight lines that `docs/design/journal.md` names.
fn digest(prev_hash: &str, run: &RunId, row: &Row) -> String {
    let (seq, at_ms, generation) = (row.seq.to_string(), row.at_ms.to_string(), row.generation.to_string());
    let mut hasher = Sha256::new();
    for line in ["piton-journal-v1", prev_hash, run.as_str(), &seq, &at_ms, &generation, &row.kind] {
        hasher.update(line);
        hasher.update("\n");
    }
    hasher.update(&row.payload);
    hex::encode(hasher.finalize())
}

/// The next record of a chain, as stored and as told.
pub(super) fn link(
    run: &RunId,
    (seq, prev_hash): (u64, &str),
    at: Timestamp,
    generation: u64,
    event: &Event,
) -> Result<(Row, Record), JournalError> {
    let row = row(run, (seq, prev_hash), at, generation, event)?;
    let record =
        Record { run: run.clone(), seq, at: kept(at), generation, event: event.clone(), hash: row.hash.clone() };
    Ok((row, record))
}

/// The next record of a chain, as stored.
fn row(
    run: &RunId,
    (seq, prev_hash): (u64, &str),
    at: Timestamp,
    generation: u64,
    event: &Event,
) -> Result<Row, JournalError> {
    let payload = serde_json::to_string(event).map_err(|why| broken(run, seq, &why))?;
    let kind = event.kind().to_owned();
    let mut row = Row { seq, at_ms: at.as_millisecond(), generation, kind, payload, hash: String::new() };
    row.hash = digest(prev_hash, run, &row);
    Ok(row)
}

/// A time as it will be read back: to the millisecond.
fn kept(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}

/// The records of an append behind the one with `prev_hash`, as stored.
pub(super) fn rows(append: &Append<'_>, prev_hash: &str) -> Result<Vec<Row>, JournalError> {
    let mut rows: Vec<Row> = Vec::with_capacity(append.events.len());
    for (seq, event) in (append.expected_seq + 1..).zip(append.events) {
        let prev_hash = rows.last().map_or(prev_hash, |row| &row.hash);
        rows.push(row(append.run, (seq, prev_hash), append.at, append.generation.unwrap_or(0), event)?);
    }
    Ok(rows)
}

/// The records of an append, as told; their hashes are those of their rows.
pub(super) fn told(append: &Append<'_>, hashes: Vec<String>) -> Vec<Record> {
    let (at, generation) = (kept(append.at), append.generation.unwrap_or(0));
    let told = (append.expected_seq + 1..).zip(append.events).zip(hashes);
    told.map(|((seq, event), hash)| Record { run: append.run.clone(), seq, at, generation, event: event.clone(), hash })
        .collect()
}

/// The records of an append behind the one with `prev_hash`, as stored and as told.
pub(super) fn links(append: &Append<'_>, prev_hash: &str) -> Result<(Vec<Row>, Vec<Record>), JournalError> {
    let rows = rows(append, prev_hash)?;
    let hashes = rows.iter().map(|row| row.hash.clone()).collect();
    Ok((rows, told(append, hashes)))
}

/// What a stored row says.
pub(super) fn record(run: &RunId, row: Row) -> Result<Record, JournalError> {
    let event = event(run, &row)?;
    let at = Timestamp::from_millisecond(row.at_ms).map_err(|why| broken(run, row.seq, &why))?;
    Ok(Record { run: run.clone(), seq: row.seq, at, generation: row.generation, event, hash: row.hash })
}

/// Only the event of it.
pub(super) fn event(run: &RunId, row: &Row) -> Result<Event, JournalError> {
    serde_json::from_str(&row.payload).map_err(|why| broken(run, row.seq, &why))
}

fn broken(run: &RunId, seq: u64, why: &dyn std::error::Error) -> JournalError {
    JournalError::Broken { run: run.clone(), seq, why: why.to_string() }
}

/// What of a chain was pruned and is not to be recomputed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pruned {
    /// The first record of which anything stayed.
    pub(super) from: u64,
    /// Up to which record the payload may be gone.
    pub(super) until: u64,
}

/// Recomputes a chain from its first record; gives the place of the first that is not as it was written, and why.
pub(super) fn verify(run: &RunId, rows: &[Row], pruned: Pruned) -> Result<(), (u64, &'static str)> {
    let mut prev_hash = FIRST;
    for (place, row) in (pruned.from..).zip(rows.iter().filter(|row| row.seq >= pruned.from)) {
        if row.seq != place {
            return Err((place, "the record is missing"));
        }
        if row.payload.is_empty() && row.seq <= pruned.until {
            prev_hash = &row.hash;
            continue;
        }
        if row.hash != digest(prev_hash, run, row) {
            return Err((place, "its content and the record before it do not match its hash"));
        }
        match event(run, row) {
            Err(_) => return Err((place, "its content cannot be read")),
            Ok(event) if event.kind() != row.kind => return Err((place, "its kind is not the kind of its content")),
            Ok(_) => prev_hash = &row.hash,
        }
    }
    Ok(())
}

/// The records of `rows`, which must follow `from_seq` without gaps.
pub(super) fn records(run: &RunId, from_seq: u64, rows: Vec<Row>) -> Result<Vec<Record>, JournalError> {
    let mut out = Vec::with_capacity(rows.len());
    for (place, row) in (from_seq.max(1)..).zip(rows) {
        if row.seq != place {
            let why = format!("the record is missing; the next one is {}", row.seq);
            return Err(JournalError::Broken { run: run.clone(), seq: place, why });
        }
        out.push(record(run, row)?);
    }
    Ok(out)
}

/// The records that are there already, if they say what `append` wants to say at the same place; else a conflict.
pub(super) fn same_again(append: &Append<'_>, head: u64, mut behind: Vec<Row>) -> Result<Vec<Record>, AppendError> {
    let conflict = AppendError::Conflict { actual_seq: head };
    if head < append.expected_seq || behind.len() < append.events.len() || append.events.is_empty() {
        return Err(conflict);
    }
    behind.truncate(append.events.len());
    let there = records(append.run, append.expected_seq + 1, behind)?;
    let same = |(record, event): (&Record, &Event)| {
        record.event == *event && record.generation == append.generation.unwrap_or(0)
    };
    if there.iter().zip(append.events).all(same) { Ok(there) } else { Err(conflict) }
}

//! How facts get into the file: one statement for the common case, one transaction for the rest.
//!
//! A step's start or end is a single `INSERT` that is its own transaction and checks in itself that the lease is still
//! the caller's and that the record before is the one the caller knows. If it inserts nothing, or the append also
//! changes locks or the index of runs, or brings what commands said, the slow way finds out why, or does it all.

use std::sync::LazyLock;

use sqlx::SqliteConnection;

use super::{Sqlite, head, lease, parse_outcome, rows};
use crate::event::{Event, LockChange, Record};
use crate::ids::RunId;
use crate::journal::chain::{self, Row};
use crate::journal::seal::{self, Seal};
use crate::journal::{Append, AppendError, JournalError, TranscriptText, changes_index, outcome_after, outcome_text};

/// Most facts in the one-statement form; each number of facts is a prepared statement of its own.
const AT_ONCE: usize = 32;

/// The longest run that its share of the numbers allows.
const SEQ_MAX: u64 = u32::MAX as u64;

/// `GUARDED[n - 1]` inserts `n` records if the lease and the record before are as told. One parameter more than
/// [`insert_text`]: the hash of the record before.
static GUARDED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let guarded = |records| {
        let hash = FIRST_OF_RECORDS + records * 3;
        let guard = format!(
            " AND r.pruned IS NULL
             AND EXISTS (SELECT 1 FROM events WHERE id = r.number * 4294967296 + ?2 AND hash = ?{hash})
             AND (?4 = 0 OR EXISTS (SELECT 1 FROM leases WHERE run = ?1 AND generation = ?4 AND owner IS NOT NULL))"
        );
        insert_text(records) + &guard
    };
    (1..=AT_ONCE).map(guarded).collect()
});

/// The same without conditions, for use inside a transaction that has looked.
static PLAIN: LazyLock<Vec<String>> = LazyLock::new(|| (1..=AT_ONCE).map(insert_text).collect());

/// Number of the first parameter that is of a record.
pub(super) const FIRST_OF_RECORDS: usize = 5;

/// Parameters: 1 run, 2 place of the record before, 3 time, 4 generation, then kind, payload and hash of each record.
fn insert_text(records: usize) -> String {
    let line = |number: usize| {
        let first = FIRST_OF_RECORDS + number * 3;
        format!("({}, ?{first}, ?{}, ?{})", number + 1, first + 1, first + 2)
    };
    let lines: Vec<String> = (0..records).map(line).collect();
    format!(
        "INSERT INTO events SELECT r.number * 4294967296 + ?2 + column1, ?3, ?4, column2, column3, column4
         FROM runs r, (VALUES {}) WHERE r.run = ?1",
        lines.join(", ")
    )
}

impl Sqlite {
    pub(in crate::journal) async fn append(
        &self,
        append: Append<'_>,
        locks: &LockChange,
    ) -> Result<Vec<Record>, AppendError> {
        let Append { run, expected_seq, generation, at, events, texts } = append;
        if expected_seq.saturating_add(events.len() as u64) > SEQ_MAX {
            return Err(JournalError::TooLong { run: run.clone() }.into());
        }
        if let Some(records) = self.append_at_once(append, locks).await? {
            return Ok(records);
        }
        let fault = |error| self.fault(error);
        let mut writer = self.writer().await?;
        let mut tx = self.begin(&mut writer).await?;
        if let Some(mine) = generation {
            let current = lease(&mut tx, run).await.map_err(fault)?;
            if current.as_ref().is_none_or(|lease| lease.generation != mine || lease.owner.is_none()) {
                return Err(AppendError::Fenced { generation: current.map_or(0, |lease| lease.generation) });
            }
        }
        let unknown = || JournalError::UnknownRun(run.to_string());
        let (seq, prev_hash) = head(&mut tx, run).await.map_err(fault)?.ok_or_else(unknown)?;
        if is_pruned(&mut tx, run).await.map_err(fault)? {
            return Err(AppendError::Pruned { run: run.clone() });
        }
        if seq != expected_seq {
            let behind = rows(&mut tx, run, expected_seq + 1).await.map_err(fault)?;
            return chain::same_again(&append, seq, behind);
        }
        let (new, records) = chain::links(&append, &prev_hash)?;
        insert(&mut tx, run, new).await.map_err(fault)?;
        if let Some(seal) = seal::due(self.sealer.as_ref(), &append).and_then(|key| key.seal(&records)) {
            insert_seal(&mut tx, run, &seal).await.map_err(fault)?;
        }
        keep(&mut tx, texts).await.map_err(fault)?;
        if changes_index(events) {
            index(&mut tx, run, events).await.map_err(fault)?;
        }
        self.change_locks(&mut tx, run, at, locks).await?;
        tx.commit().await.map_err(fault)?;
        if self.room.is_short() {
            self.room.make(&mut writer).await;
        }
        drop(writer);
        self.came_to(run, &records);
        if generation.is_none() || locks.frees() {
            self.bell.ring();
        }
        Ok(records)
    }

    /// The common case in one statement; `None` if it is not that case or the statement's conditions do not hold.
    async fn append_at_once(&self, append: Append<'_>, locks: &LockChange) -> Result<Option<Vec<Record>>, AppendError> {
        let Append { run, expected_seq, generation, events, .. } = append;
        // Generation 0 is nobody's lease and would pass as a person's word.
        let plain = *locks == LockChange::default()
            && (1..=AT_ONCE).contains(&events.len())
            && generation != Some(0)
            && append.texts.is_empty()
            && !changes_index(events)
            && seal::due(self.sealer.as_ref(), &append).is_none();
        let Some(prev_hash) = self.heads.get(run, expected_seq).filter(|_| plain) else { return Ok(None) };
        let new = chain::rows(&append, &prev_hash)?;
        let hashes: Vec<String> = new.iter().map(|row| row.hash.clone()).collect();
        // What is told of the records can be made while they are on their way to the disk.
        let told = || (chain::told(&append, hashes), self.room.is_short());
        let quick = self.quick.insert(&GUARDED[new.len() - 1], run, &new, &prev_hash);
        let (inserted, (records, is_short)) = if let Some(inserted) = quick {
            (Ok(inserted as u64), told())
        } else {
            let mut writer = self.writer().await?;
            let inserting = insert_rows(&mut writer, &GUARDED, run, new, Some(prev_hash));
            futures_util::future::join(inserting, async { told() }).await
        };
        match inserted {
            Ok(0) => Ok(None),
            Ok(_) => {
                self.came_to(run, &records);
                if generation.is_none() {
                    self.bell.ring();
                }
                // The append is on the disk, whatever comes of the room for the next ones.
                if is_short && let Ok(mut writer) = self.writer().await {
                    self.room.make(&mut writer).await;
                }
                Ok(Some(records))
            }
            Err(error) if error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation) => {
                Ok(None)
            }
            Err(error) => Err(self.fault(error).into()),
        }
    }

    /// Notes how far a run has come, for the next append and for whoever asks whether the end is still there.
    pub(super) fn came_to(&self, run: &RunId, records: &[Record]) {
        self.heads.came_to(run, records);
        self.anchor.note(run, records);
    }
}

/// Whether the run can no longer be read back.
async fn is_pruned(conn: &mut SqliteConnection, run: &RunId) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pruned IS NOT NULL FROM runs WHERE run = ?").bind(run.as_str()).fetch_one(conn).await
}

/// Inserts records that follow each other and gives their number. They are handed over: a plan may be megabytes long.
async fn insert_rows(
    conn: &mut SqliteConnection,
    texts: &'static [String],
    run: &RunId,
    new: Vec<Row>,
    prev_hash: Option<String>,
) -> Result<u64, sqlx::Error> {
    let Some(first) = new.first() else { return Ok(0) };
    let mut query = sqlx::query(texts[new.len() - 1].as_str())
        .bind(run.as_str())
        .bind(first.seq.cast_signed() - 1)
        .bind(first.at_ms)
        .bind(first.generation.cast_signed());
    for row in new {
        query = query.bind(row.kind).bind(row.payload).bind(row.hash);
    }
    if let Some(prev_hash) = prev_hash {
        query = query.bind(prev_hash);
    }
    Ok(query.execute(conn).await?.rows_affected())
}

/// Inserts any number of records inside a transaction.
pub(super) async fn insert(conn: &mut SqliteConnection, run: &RunId, mut new: Vec<Row>) -> Result<(), sqlx::Error> {
    while !new.is_empty() {
        let more = new.split_off(new.len().min(AT_ONCE));
        insert_rows(conn, &PLAIN, run, new, None).await?;
        new = more;
    }
    Ok(())
}

async fn insert_seal(conn: &mut SqliteConnection, run: &RunId, seal: &Seal) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO seals VALUES (?, ?, ?, ?, ?, ?)")
        .bind(run.as_str())
        .bind(seal.seq.cast_signed())
        .bind(&seal.hash)
        .bind(seal.at_ms)
        .bind(&seal.key)
        .bind(&seal.signature)
        .execute(conn)
        .await?;
    Ok(())
}

/// Stores what commands said, unless it is there.
async fn keep(conn: &mut SqliteConnection, texts: &[TranscriptText]) -> Result<(), sqlx::Error> {
    for text in texts {
        sqlx::query("INSERT INTO transcripts VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(text.digest())
            .bind(text.bytes())
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Keeps the index of runs in step with what is recorded.
async fn index(conn: &mut SqliteConnection, run: &RunId, events: &[Event]) -> Result<(), sqlx::Error> {
    let before: Option<String> = sqlx::query_scalar("SELECT outcome FROM runs WHERE run = ?")
        .bind(run.as_str())
        .fetch_optional(&mut *conn)
        .await?
        .flatten();
    let before = before.map(|text| parse_outcome(&text)).transpose()?;
    let after = events.iter().fold(before, outcome_after);
    if after != before {
        sqlx::query("UPDATE runs SET outcome = ? WHERE run = ?")
            .bind(after.map(outcome_text))
            .bind(run.as_str())
            .execute(conn)
            .await?;
    }
    Ok(())
}

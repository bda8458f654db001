//! How facts get to the server: one statement for the common case, one transaction for the rest.
//!
//! The one statement checks the lease (and keeps its row from being taken over until the commit), checks the record
//! before, and inserts all records. A place that is taken is refused by the primary key, and nothing is inserted.

use std::sync::LazyLock;

use jiff::Timestamp;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use super::{CHANNEL, Postgres, lasting, rows};
use crate::event::{Event, LockChange, Record};
use crate::ids::{LockName, RunId};
use crate::journal::chain::{self, FIRST, Row};
use crate::journal::seal::{self, Seal, SealKey};
use crate::journal::{
    Append, AppendError, JournalError, RunSummary, TranscriptText, changes_index, outcome_after, outcome_text,
    parse_outcome,
};

/// Parameters: 1 run, 2 place of the record before, 3 time, 4 generation (0: a person's word), then arrays of kinds,
/// payloads and hashes.
const INSERT: &str = "INSERT INTO piton.events (run, seq, at_ms, generation, kind, payload, hash)
    SELECT $1, $2 + new.n, $3, $4, new.kind, new.payload, new.hash
    FROM unnest($5::text[], $6::text[], $7::text[]) WITH ORDINALITY AS new(kind, payload, hash, n)";

const GUARDED: &str = "WITH lease AS (
        SELECT 1 FROM piton.leases WHERE run = $1 AND generation = $4 AND owner IS NOT NULL FOR SHARE
    ), open AS (
        SELECT 1 FROM piton.runs WHERE run = $1 AND pruned IS NULL FOR KEY SHARE
    ), added AS (
        INSERT INTO piton.events (run, seq, at_ms, generation, kind, payload, hash)
        SELECT $1, $2 + new.n, $3, $4, new.kind, new.payload, new.hash
        FROM unnest($5::text[], $6::text[], $7::text[]) WITH ORDINALITY AS new(kind, payload, hash, n)
        WHERE EXISTS (SELECT 1 FROM piton.events e WHERE e.run = $1 AND e.seq = $2 AND e.hash = $8)
          AND ($4 = 0 OR EXISTS (SELECT 1 FROM lease))
          AND ($4 <> 0 OR EXISTS (SELECT 1 FROM open))
        RETURNING 1
    )
    SELECT count(*), CASE WHEN count(*) > 0 AND $4 = 0 THEN pg_notify('piton', $1)::text END FROM added";

/// [`GUARDED`] with what commands said, which is stored if the records were; in one order, so that two drivers with the
/// same texts wait for each other and not in a circle.
static SPEAKING: LazyLock<String> = LazyLock::new(|| {
    let kept = ", kept AS (
        INSERT INTO piton.transcripts (digest, bytes)
        SELECT * FROM unnest($9::text[], $10::bytea[]) AS new(digest, bytes) WHERE EXISTS (SELECT 1 FROM added)
        ORDER BY digest ON CONFLICT DO NOTHING
    )
    SELECT count(*), ";
    GUARDED.replacen("\n    SELECT count(*), ", kept, 1)
});

/// What an append came to, apart from the server's own failures.
type Answer<T> = Result<Result<T, AppendError>, sqlx::Error>;

/// A failure of the journal itself, as an answer.
macro_rules! answered {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Ok(Err(error.into())),
        }
    };
}

impl Postgres {
    pub(in crate::journal) async fn create(
        &self,
        run: &RunId,
        at: Timestamp,
        started: &Event,
        locks: &[LockName],
    ) -> Result<Record, AppendError> {
        let (row, record) = chain::link(run, (1, FIRST), at, 0, started)?;
        let mut first_time = true;
        let answer: Result<Result<(), AppendError>, JournalError> = lasting!(self, conn => {
            let again = !std::mem::take(&mut first_time);
            create(conn, (&row, &record), locks, again)
        });
        answer??;
        self.heads.came_to(run, std::slice::from_ref(&record));
        Ok(record)
    }

    pub(in crate::journal) async fn append(
        &self,
        append: Append<'_>,
        locks: &LockChange,
    ) -> Result<Vec<Record>, AppendError> {
        // Generation 0 is nobody's lease and would pass as a person's word.
        let plain = *locks == LockChange::default()
            && !append.events.is_empty()
            && append.generation != Some(0)
            && !changes_index(append.events)
            && seal::due(self.sealer.as_ref(), &append).is_none();
        let prev_hash = self.heads.get(append.run, append.expected_seq).filter(|_| plain);
        if let Some(prev_hash) = prev_hash {
            let (new, records) = chain::links(&append, &prev_hash)?;
            let added: Result<bool, JournalError> =
                lasting!(self, conn => append_at_once(conn, append.run, (&prev_hash, &new), append.texts));
            if added? {
                self.heads.came_to(append.run, &records);
                return Ok(records);
            }
        }
        let answer: Result<Result<Vec<Record>, AppendError>, JournalError> =
            lasting!(self, conn => append_closely(conn, append, locks, self.sealer.as_ref()));
        let records = answer??;
        self.heads.came_to(append.run, &records);
        Ok(records)
    }
}

fn is_taken<T>(result: &Result<T, sqlx::Error>) -> bool {
    let error = result.as_ref().err().and_then(sqlx::Error::as_database_error);
    error.is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// The common case; false if its conditions do not hold.
async fn append_at_once(
    conn: &mut PgConnection,
    run: &RunId,
    (prev_hash, new): (&str, &[Row]),
    texts: &[TranscriptText],
) -> Result<bool, sqlx::Error> {
    let result = if texts.is_empty() {
        bind(GUARDED, run, new).bind(prev_hash).fetch_one(conn).await
    } else {
        let (digests, bytes) = columns(texts);
        bind(SPEAKING.as_str(), run, new).bind(prev_hash).bind(digests).bind(bytes).fetch_one(conn).await
    };
    if is_taken(&result) {
        return Ok(false);
    }
    Ok(result?.try_get::<i64, _>(0)? > 0)
}

fn bind<'q>(
    text: &'static str,
    run: &'q RunId,
    new: &'q [Row],
) -> sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments> {
    let column = |part: fn(&Row) -> &str| new.iter().map(part).collect::<Vec<&str>>();
    let (seq, at_ms, generation) = new.first().map_or((1, 0, 0), |row| (row.seq, row.at_ms, row.generation));
    sqlx::query(text)
        .bind(run.as_str())
        .bind(seq.cast_signed() - 1)
        .bind(at_ms)
        .bind(generation.cast_signed())
        .bind(column(|row| &row.kind))
        .bind(column(|row| &row.payload))
        .bind(column(|row| &row.hash))
}

/// Looks at everything in one transaction. A place that somebody else takes meanwhile is looked at once more.
async fn append_closely(
    conn: &mut PgConnection,
    append: Append<'_>,
    locks: &LockChange,
    sealer: Option<&SealKey>,
) -> Answer<Vec<Record>> {
    let first = append_in_transaction(conn, append, locks, sealer).await;
    if is_taken(&first) { append_in_transaction(conn, append, locks, sealer).await } else { first }
}

async fn append_in_transaction(
    conn: &mut PgConnection,
    append: Append<'_>,
    locks: &LockChange,
    sealer: Option<&SealKey>,
) -> Answer<Vec<Record>> {
    let mut tx = conn.begin().await?;
    let answer = look_and_append(&mut tx, append, locks, sealer).await?;
    // Told at once: until the server hears of the end, rows stay locked.
    if answer.is_ok() {
        tx.commit().await?;
    } else {
        tx.rollback().await?;
    }
    Ok(answer)
}

async fn look_and_append(
    tx: &mut PgConnection,
    append: Append<'_>,
    locks: &LockChange,
    sealer: Option<&SealKey>,
) -> Answer<Vec<Record>> {
    let Append { run, expected_seq, generation, at, events, texts } = append;
    if let Some(mine) = generation {
        let current: Option<(i64, bool)> =
            sqlx::query_as("SELECT generation, owner IS NOT NULL FROM piton.leases WHERE run = $1 FOR SHARE")
                .bind(run.as_str())
                .fetch_optional(&mut *tx)
                .await?;
        let current = current.map(|(generation, owned)| (generation.cast_unsigned(), owned));
        if current != Some((mine, true)) {
            return Ok(Err(AppendError::Fenced { generation: current.map_or(0, |(generation, _)| generation) }));
        }
    }
    let head: Option<(i64, String)> =
        sqlx::query_as("SELECT seq, hash FROM piton.events WHERE run = $1 ORDER BY seq DESC LIMIT 1")
            .bind(run.as_str())
            .fetch_optional(&mut *tx)
            .await?;
    let Some((seq, prev_hash)) = head.map(|(seq, hash)| (seq.cast_unsigned(), hash)) else {
        return Ok(Err(JournalError::UnknownRun(run.to_string()).into()));
    };
    // Who prunes has this line for itself. A stronger lock would be in the way of others who record and then change the line.
    let pruned: Option<bool> =
        sqlx::query_scalar("SELECT pruned IS NOT NULL FROM piton.runs WHERE run = $1 FOR KEY SHARE")
            .bind(run.as_str())
            .fetch_optional(&mut *tx)
            .await?;
    if pruned == Some(true) {
        return Ok(Err(AppendError::Pruned { run: run.clone() }));
    }
    if seq != expected_seq {
        let behind = rows(tx, run, expected_seq + 1).await?;
        return Ok(chain::same_again(&append, seq, behind));
    }
    let (new, records) = answered!(chain::links(&append, &prev_hash));
    if !new.is_empty() {
        bind(INSERT, run, &new).execute(&mut *tx).await?;
    }
    if let Some(seal) = seal::due(sealer, &append).and_then(|key| key.seal(&records)) {
        insert_seal(tx, run, &seal).await?;
    }
    if !texts.is_empty() {
        keep(tx, texts).await?;
    }
    if changes_index(events) {
        index(tx, run, events).await?;
    }
    answered!(super::locks::change(tx, run, at, locks).await?);
    if generation.is_none() || locks.frees() {
        sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(run.as_str()).execute(&mut *tx).await?;
    }
    Ok(Ok(records))
}

async fn insert_seal(tx: &mut PgConnection, run: &RunId, seal: &Seal) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO piton.seals VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(run.as_str())
        .bind(seal.seq.cast_signed())
        .bind(&seal.hash)
        .bind(seal.at_ms)
        .bind(&seal.key)
        .bind(&seal.signature)
        .execute(tx)
        .await?;
    Ok(())
}

fn columns(texts: &[TranscriptText]) -> (Vec<&str>, Vec<&[u8]>) {
    texts.iter().map(|text| (text.digest(), text.bytes())).unzip()
}

/// Stores what commands said, unless it is there.
async fn keep(tx: &mut PgConnection, texts: &[TranscriptText]) -> Result<(), sqlx::Error> {
    let (digests, bytes) = columns(texts);
    sqlx::query(
        "INSERT INTO piton.transcripts (digest, bytes)
         SELECT * FROM unnest($1::text[], $2::bytea[]) AS new(digest, bytes) ORDER BY digest ON CONFLICT DO NOTHING",
    )
    .bind(digests)
    .bind(bytes)
    .execute(tx)
    .await?;
    Ok(())
}

/// Records the first fact of a run. Done `again` after a lost answer, it may find its own record.
async fn create(
    conn: &mut PgConnection,
    (row, record): (&Row, &Record),
    locks: &[LockName],
    again: bool,
) -> Answer<()> {
    let run = &record.run;
    let mut tx = conn.begin().await?;
    let inserted = bind(INSERT, run, std::slice::from_ref(row)).execute(&mut *tx).await;
    if is_taken(&inserted) {
        tx.rollback().await?;
        let there: Option<String> = sqlx::query_scalar("SELECT hash FROM piton.events WHERE run = $1 AND seq = 1")
            .bind(run.as_str())
            .fetch_optional(conn)
            .await?;
        let mine = again && there.is_some_and(|hash| hash == row.hash);
        return Ok(if mine { Ok(()) } else { Err(AppendError::Exists { run: run.clone() }) });
    }
    inserted?;
    if let Some(summary) = RunSummary::first(record) {
        let listed = sqlx::query(
            "INSERT INTO piton.runs (run, runbook, version, site, started_by, started_ms) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(run.as_str())
        .bind(summary.runbook)
        .bind(summary.version)
        .bind(summary.site)
        .bind(summary.by.as_str().to_owned())
        .bind(row.at_ms)
        .execute(&mut *tx)
        .await;
        // Of a run that was pruned the first record is gone, its line stays.
        if is_taken(&listed) {
            tx.rollback().await?;
            return Ok(Err(AppendError::Exists { run: run.clone() }));
        }
        listed?;
    }
    let locks = LockChange { take: locks.to_vec(), ..LockChange::default() };
    let answer = super::locks::change(&mut tx, run, record.at, &locks).await?;
    if answer.is_ok() {
        tx.commit().await?;
    } else {
        tx.rollback().await?;
    }
    Ok(answer)
}

/// Keeps the index of runs in step with what is recorded.
async fn index(conn: &mut PgConnection, run: &RunId, events: &[Event]) -> Result<(), sqlx::Error> {
    let before: Option<String> = sqlx::query_scalar("SELECT outcome FROM piton.runs WHERE run = $1")
        .bind(run.as_str())
        .fetch_optional(&mut *conn)
        .await?
        .flatten();
    let before =
        before.map(|text| parse_outcome(&text)).transpose().map_err(|error| super::decode("outcome", error))?;
    let after = events.iter().fold(before, outcome_after);
    if after != before {
        sqlx::query("UPDATE piton.runs SET outcome = $2 WHERE run = $1")
            .bind(run.as_str())
            .bind(after.map(outcome_text))
            .execute(conn)
            .await?;
    }
    Ok(())
}

//! A store in one SQLite file: write-ahead log, every commit synced, one writer and a few readers.
//!
//! Every change is one transaction that takes the write lock first, so two processes never interleave. What this process
//! remembers of a run is only a hint that each statement checks: what counts is what the file says.

mod anchor;
mod append;
#[cfg(test)]
mod full_tests;
mod locks;
mod prune;
mod quick;
mod room;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Connection, Row as _, SqliteConnection};

use anchor::Anchor;
use quick::Quick;
use room::Room;

use super::chain::{self, FIRST, Row};
use super::heads::Heads;
use super::lease::{Lease, LeaseError, Owner};
use super::proof::Evidence;
use super::seal::{Seal, SealKey};
use super::watch::{Bell, Watch};
use super::{AppendError, Head, JournalError, RunFilter, RunSummary, parse_outcome as outcome_of};
use crate::config::folder_of;
use crate::config::rights::own_folder;
use crate::event::{Event, LockChange, Outcome, Record};
use crate::ids::{LockName, RunId};

/// `PITN`, in the header of every journal file.
const APPLICATION_ID: i64 = 0x5049_544e;
/// The scripts that lead from each version to the next; their number is the latest version.
const MIGRATIONS: [&str; 7] = [
    include_str!("../migrations/sqlite/0001.sql"),
    include_str!("../migrations/sqlite/0002.sql"),
    include_str!("../migrations/sqlite/0003.sql"),
    include_str!("../migrations/sqlite/0004.sql"),
    include_str!("../migrations/sqlite/0005.sql"),
    include_str!("../migrations/sqlite/0006.sql"),
    include_str!("../migrations/sqlite/0007.sql"),
];
/// What makes a record, in the order that `row` takes it. One column: each one of its own costs as much as reading the
/// rest of the record, and only the last part can hold a space.
const ROW: &str = "(e.id & 4294967295) || ' ' || e.at_ms || ' ' || e.generation || ' ' || e.kind || ' ' || e.hash || ' ' || e.payload";
/// The records of run `?1` from place `?2` on.
const OF_RUN: &str = "events e WHERE e.id >= (SELECT number FROM runs WHERE run = ?1) * 4294967296 + ?2
    AND e.id < ((SELECT number FROM runs WHERE run = ?1) + 1) * 4294967296";
static ROWS: LazyLock<String> = LazyLock::new(|| format!("SELECT {ROW} FROM {OF_RUN} ORDER BY e.id"));
static LATEST: LazyLock<String> =
    LazyLock::new(|| format!("SELECT e.id & 4294967295, e.hash FROM {OF_RUN} ORDER BY e.id DESC LIMIT 1"));
static HEAD: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT coalesce((SELECT e.id & 4294967295 FROM {OF_RUN} ORDER BY e.id DESC LIMIT 1), 0),
                coalesce((SELECT generation FROM leases WHERE run = ?1), 0)"
    )
});
const READERS_MAX: u32 = 4;
/// Records that a reader may be ahead of who asked for them; a long run is read many times faster than record by record.
const ROWS_AHEAD: usize = 1000;
/// How often to look for what other processes recorded.
const TICK: Duration = Duration::from_millis(250);
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// Journals in one SQLite file; clones share its connections.
#[derive(Debug, Clone)]
pub struct Sqlite {
    path: Arc<PathBuf>,
    writer: Arc<tokio::sync::Mutex<SqliteConnection>>,
    quick: Arc<Quick>,
    readers: SqlitePool,
    heads: Heads,
    anchor: Anchor,
    room: Arc<Room>,
    bell: Bell,
    pub(super) sealer: Option<SealKey>,
}

impl Sqlite {
    pub(super) async fn open(path: &Path) -> Result<Self, JournalError> {
        make_file(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY_WAIT)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .row_buffer_size(ROWS_AHEAD);
        let fault = |error| fault(path, error);
        let anchor = Anchor::open(path).map_err(|source| JournalError::Make { path: anchor::path_of(path), source })?;
        // Read before the journal: what is noted here was durable there.
        let mark = anchor.latest().map_err(|source| JournalError::Make { path: anchor::path_of(path), source })?;
        // It looks before it changes anything, the journal mode included.
        let mut writer = SqliteConnection::connect_with(&plain(path)).await.map_err(fault)?;
        migrate(&mut writer, path, mark.as_ref()).await?;
        if let Some(mark) = mark {
            let there = rows(&mut writer, &mark.run, mark.seq).await.map_err(fault)?;
            if !mark.is_among(&there) {
                let come = head(&mut writer, &mark.run).await.map_err(fault)?.map_or(0, |(seq, _)| seq);
                return Err(cut_off(path, &mark, come));
            }
        }
        write_ahead(&mut writer).await.map_err(fault)?;
        // A file needs no ping before each use.
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .test_before_acquire(false)
            .connect_lazy_with(options.read_only(true));
        let writer = Arc::new(tokio::sync::Mutex::new(writer));
        let (path, room) = (Arc::new(path.to_owned()), Arc::new(Room::of(path)));
        let quick = Arc::new(Quick::of(Arc::clone(&path)));
        let (heads, bell) = (Heads::default(), Bell::default());
        Ok(Self { path, writer, quick, readers, heads, anchor, room, bell, sealer: None })
    }

    fn fault(&self, error: sqlx::Error) -> JournalError {
        fault(&self.path, error)
    }

    pub(super) fn watch(&self) -> Watch {
        self.bell.watch(TICK)
    }

    /// The connection that writes, for one change at a time.
    async fn writer(&self) -> Result<tokio::sync::MutexGuard<'_, SqliteConnection>, JournalError> {
        let mut writer = self.writer.lock().await;
        if writer.is_in_transaction() {
            // A transaction that was let go may only now be taken back.
            let _ = writer.ping().await;
        }
        if writer.is_in_transaction() {
            // SQLite gave it up by itself, because the disk was full, and sqlx counts it as open: it would refuse every other one.
            *writer = connect(&self.path).await.map_err(|error| self.fault(error))?;
        }
        Ok(writer)
    }

    async fn begin<'c>(
        &self,
        writer: &'c mut SqliteConnection,
    ) -> Result<sqlx::Transaction<'c, sqlx::Sqlite>, JournalError> {
        writer.begin_with("BEGIN IMMEDIATE").await.map_err(|error| self.fault(error))
    }

    pub(super) async fn create(
        &self,
        run: &RunId,
        at: Timestamp,
        started: &Event,
        locks: &[LockName],
    ) -> Result<Record, AppendError> {
        let fault = |error| self.fault(error);
        let mut writer = self.writer().await?;
        let mut tx = self.begin(&mut writer).await?;
        if head(&mut tx, run).await.map_err(fault)?.is_some() {
            return Err(AppendError::Exists { run: run.clone() });
        }
        let (row, record) = chain::link(run, (1, FIRST), at, 0, started)?;
        if let Some(summary) = RunSummary::first(&record) {
            sqlx::query("INSERT INTO runs VALUES (NULL, ?, ?, ?, ?, ?, ?, NULL, NULL)")
                .bind(run.as_str())
                .bind(summary.runbook)
                .bind(summary.version)
                .bind(summary.site)
                .bind(summary.by.as_str().to_owned())
                .bind(row.at_ms)
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
        }
        append::insert(&mut tx, run, vec![row]).await.map_err(fault)?;
        let locks = LockChange { take: locks.to_vec(), ..LockChange::default() };
        self.change_locks(&mut tx, run, at, &locks).await?;
        tx.commit().await.map_err(fault)?;
        self.came_to(run, std::slice::from_ref(&record));
        Ok(record)
    }

    pub(super) async fn rows(&self, run: &RunId, from_seq: u64) -> Result<Vec<Row>, JournalError> {
        let fault = |error| self.fault(error);
        // Looked at first: what is noted here was durable before.
        let mark = self.anchor.of(run).filter(|_| from_seq <= 1);
        let mut reader = self.readers.acquire().await.map_err(fault)?;
        let rows = rows(&mut reader, run, from_seq).await.map_err(fault)?;
        match mark {
            Some(mark) if !mark.is_among(&rows) => {
                Err(cut_off(&self.path, &mark, rows.last().map_or(0, |row| row.seq)))
            }
            _ => Ok(rows),
        }
    }

    pub(super) async fn evidence(&self, run: &RunId) -> Result<Evidence, JournalError> {
        let mark = self.anchor.of(run);
        let mut found = self.evidence_in(run).await.map_err(|error| self.fault(error))?;
        found.lost = mark.filter(|mark| !mark.is_among(&found.rows)).map(|mark| mark.seq);
        Ok(found)
    }

    /// In one transaction: a driver may be recording.
    async fn evidence_in(&self, run: &RunId) -> Result<Evidence, sqlx::Error> {
        let mut tx = self.readers.begin().await?;
        let rows = rows(&mut tx, run, 1).await?;
        let seals: Vec<(i64, String, i64, String, String)> =
            sqlx::query_as("SELECT seq, hash, at_ms, key, signature FROM seals WHERE run = ? ORDER BY seq")
                .bind(run.as_str())
                .fetch_all(&mut *tx)
                .await?;
        let one = format!("{SUMMARY} WHERE run = ?");
        let listed = sqlx::query(sqlx::AssertSqlSafe(one)).bind(run.as_str()).fetch_optional(&mut *tx).await?;
        let stones = prune::of_run(&mut tx, Some(run)).await?;
        tx.commit().await?;
        let seals = seals.into_iter().map(Seal::from).collect();
        Ok(Evidence { rows, seals, listed: listed.as_ref().map(summary).transpose()?, stones, lost: None })
    }

    pub(super) async fn transcript(&self, digest: &str) -> Result<Option<Vec<u8>>, JournalError> {
        sqlx::query_scalar("SELECT bytes FROM transcripts WHERE digest = ?")
            .bind(digest)
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| self.fault(error))
    }

    pub(super) async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, JournalError> {
        let text = format!(
            "{SUMMARY}
             WHERE (?1 IS NULL OR runbook = ?1) AND (?2 IS NULL OR site = ?2)
               AND (NOT ?3 OR (pruned IS NULL AND (outcome IS NULL OR outcome NOT IN ('succeeded', 'rolled_back'))))
               AND (?5 IS NULL OR run = ?5 OR substr(run, 1, length(?5) + 1) = ?5 || '.')
             ORDER BY started_ms DESC, run DESC LIMIT ?4"
        );
        let found = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(filter.runbook.as_deref())
            .bind(filter.site.as_deref())
            .bind(filter.open_only)
            .bind(filter.limit.map_or(-1, i64::from))
            .bind(filter.family.as_ref().map(RunId::as_str))
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.fault(error))?;
        found.iter().map(summary).collect::<Result<_, _>>().map_err(|error| self.fault(error))
    }

    pub(super) async fn head(&self, run: &RunId) -> Result<Head, JournalError> {
        let found: (i64, i64) = sqlx::query_as(HEAD.as_str())
            .bind(run.as_str())
            .bind(1)
            .fetch_one(&self.readers)
            .await
            .map_err(|error| self.fault(error))?;
        Ok(Head { seq: found.0.cast_unsigned(), generation: found.1.cast_unsigned() })
    }

    pub(super) async fn claim(
        &self,
        run: &RunId,
        owner: &Owner,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<u64, LeaseError> {
        let fault = |error| self.fault(error);
        let mut writer = self.writer().await?;
        let mut tx = self.begin(&mut writer).await?;
        let current = lease(&mut tx, run).await.map_err(fault)?;
        if let Some(held) = current.as_ref().filter(|lease| !lease.is_free(owner, now))
            && let Some(holder) = &held.owner
        {
            return Err(LeaseError::Held { owner: holder.clone(), until: held.until });
        }
        let generation = current.map_or(0, |lease| lease.generation) + 1;
        let name = serde_json::to_string(owner).map_err(|error| fault(sqlx::Error::Encode(error.into())))?;
        sqlx::query(
            "INSERT INTO leases VALUES (?1, ?2, ?3, ?4) ON CONFLICT (run)
             DO UPDATE SET generation = ?2, owner = ?3, until_ms = ?4",
        )
        .bind(run.as_str())
        .bind(generation.cast_signed())
        .bind(name)
        .bind(until.as_millisecond())
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(generation)
    }

    pub(super) async fn renew(&self, run: &RunId, generation: u64, until: Timestamp) -> Result<(), LeaseError> {
        let fault = |error| self.fault(error);
        let mut writer = self.writer().await?;
        let mut tx = self.begin(&mut writer).await?;
        let current = lease(&mut tx, run).await.map_err(fault)?;
        if current.as_ref().is_none_or(|lease| lease.generation != generation || lease.owner.is_none()) {
            return Err(LeaseError::Lost { generation: current.map_or(0, |lease| lease.generation) });
        }
        sqlx::query("UPDATE leases SET until_ms = ? WHERE run = ?")
            .bind(until.as_millisecond())
            .bind(run.as_str())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
        tx.commit().await.map_err(fault)?;
        Ok(())
    }

    pub(super) async fn release(&self, run: &RunId, generation: u64) -> Result<(), LeaseError> {
        sqlx::query("UPDATE leases SET owner = NULL WHERE run = ? AND generation = ?")
            .bind(run.as_str())
            .bind(generation.cast_signed())
            .execute(&mut *self.writer().await?)
            .await
            .map_err(|error| self.fault(error))?;
        Ok(())
    }

    pub(super) async fn ends(&self, site: &str) -> Result<Vec<Record>, JournalError> {
        let text = format!(
            "SELECT r.run, {ROW} FROM events e JOIN runs r ON r.number = e.id >> 32
             WHERE e.kind = 'run_finished' AND e.payload <> '' AND r.site = ? ORDER BY e.at_ms, r.run, e.id"
        );
        let found = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(site)
            .fetch_all(&self.readers)
            .await
            .map_err(|error| self.fault(error))?;
        let mut ends = Vec::with_capacity(found.len());
        for line in &found {
            let run: String = line.try_get(0).map_err(|error| self.fault(error))?;
            let row = row(line, 1).map_err(|error| self.fault(error))?;
            ends.push(chain::record(&RunId::new(run), row)?);
        }
        Ok(ends)
    }
}

/// Switches the file to its write-ahead log, every commit synced. Of two processes that switch at once, SQLite refuses
/// one without letting it wait.
async fn write_ahead(writer: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let since = tokio::time::Instant::now();
    loop {
        let pragmas = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON";
        match sqlx::raw_sql(pragmas).execute(&mut *writer).await {
            Err(error) if primary_code(&error) == Some(5) && since.elapsed() < BUSY_WAIT => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            switched => return switched.map(drop),
        }
    }
}

fn plain(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_WAIT)
}

/// A connection that writes to a journal which is there.
async fn connect(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let mut writer = SqliteConnection::connect_with(&plain(path)).await?;
    write_ahead(&mut writer).await?;
    Ok(writer)
}

fn cut_off(path: &Path, mark: &anchor::Mark, come: u64) -> JournalError {
    JournalError::CutOff { path: path.to_owned(), run: mark.run.clone(), known_seq: mark.seq, come }
}

/// Makes the folder and an empty file that only its owner may read.
fn make_file(path: &Path) -> Result<(), JournalError> {
    let fault = |source| JournalError::Make { path: path.to_owned(), source };
    if path.exists() {
        return Ok(());
    }
    own_folder(folder_of(path)).map_err(fault)?;
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(fault(error)),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Brings the tables up to date; refuses a file that is not ours, or newer.
async fn migrate(conn: &mut SqliteConnection, path: &Path, mark: Option<&anchor::Mark>) -> Result<(), JournalError> {
    let fault = |error| fault(path, error);
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(fault)?;
    let id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *tx).await.map_err(fault)?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *tx).await.map_err(fault)?;
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *tx).await.map_err(fault)?;
    if id != APPLICATION_ID && (id != 0 || tables > 0) {
        return Err(JournalError::NotAJournal { store: path.display().to_string() });
    }
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(JournalError::Newer { store: path.display().to_string(), found, known });
    }
    if let Some(mark) = mark.filter(|_| tables == 0) {
        return Err(cut_off(path, mark, 0));
    }
    if found == known {
        return Ok(());
    }
    for script in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        sqlx::raw_sql(*script).execute(&mut *tx).await.map_err(fault)?;
    }
    let marks = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {known};");
    sqlx::raw_sql(sqlx::AssertSqlSafe(marks)).execute(&mut *tx).await.map_err(fault)?;
    tx.commit().await.map_err(fault)
}

/// Tells apart what people can do something about. The codes are SQLite's primary result codes.
fn fault(path: &Path, error: sqlx::Error) -> JournalError {
    let path = path.to_owned();
    let code = extended_code(&error);
    // `SQLITE_IOERR_WRITE`, `_FSYNC`, `_TRUNCATE` and `_SHMSIZE`: what a quota or a limit on the size of files gives.
    if matches!(code, Some(778 | 1034 | 1546 | 4874)) {
        return JournalError::Write { path, source: error };
    }
    match code.map(|code| code & 0xff) {
        Some(5 | 6) => JournalError::Busy { path },
        Some(11) => JournalError::Corrupt { path, source: error },
        Some(13) => JournalError::Full { store: path.display().to_string() },
        Some(26) => JournalError::NotAJournal { store: path.display().to_string() },
        _ => JournalError::Store { path, source: error },
    }
}

fn extended_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).and_then(|code| code.parse().ok())
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    extended_code(error).map(|code| code & 0xff)
}

async fn head(conn: &mut SqliteConnection, run: &RunId) -> Result<Option<(u64, String)>, sqlx::Error> {
    let found: Option<(i64, String)> =
        sqlx::query_as(LATEST.as_str()).bind(run.as_str()).bind(1).fetch_optional(conn).await?;
    Ok(found.map(|(seq, hash)| (seq.cast_unsigned(), hash)))
}

async fn rows(conn: &mut SqliteConnection, run: &RunId, from_seq: u64) -> Result<Vec<Row>, sqlx::Error> {
    let query = sqlx::query(ROWS.as_str()).bind(run.as_str()).bind(from_seq.cast_signed());
    query.fetch(conn).map(|line| line.and_then(|line| row(&line, 0))).try_collect().await
}

async fn lease(conn: &mut SqliteConnection, run: &RunId) -> Result<Option<Lease>, sqlx::Error> {
    let found: Option<(i64, Option<String>, i64)> =
        sqlx::query_as("SELECT generation, owner, until_ms FROM leases WHERE run = ?")
            .bind(run.as_str())
            .fetch_optional(conn)
            .await?;
    let Some((generation, owner, until_ms)) = found else { return Ok(None) };
    let owner = owner.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| decode("owner", error))?;
    Ok(Some(Lease { generation: generation.cast_unsigned(), owner, until: time(until_ms)? }))
}

fn decode(column: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: source.into() }
}

fn time(ms: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_millisecond(ms).map_err(|error| decode("time", error))
}

fn parse_outcome(text: &str) -> Result<Outcome, sqlx::Error> {
    outcome_of(text).map_err(|error| decode("outcome", error))
}

/// A record, from the column of [`ROW`].
fn row(line: &SqliteRow, column: usize) -> Result<Row, sqlx::Error> {
    let wrong = |error: std::num::ParseIntError| decode("seq, at_ms, generation", error);
    let mut parts = line.try_get::<&str, _>(column)?.splitn(6, ' ');
    let mut next = || parts.next().unwrap_or_default();
    Ok(Row {
        seq: next().parse().map_err(wrong)?,
        at_ms: next().parse().map_err(wrong)?,
        generation: next().parse().map_err(wrong)?,
        kind: next().to_owned(),
        hash: next().to_owned(),
        payload: next().to_owned(),
    })
}

/// The columns that make a line of the list of runs.
const SUMMARY: &str = "SELECT run, runbook, version, site, started_by, started_ms, outcome, pruned,
        (SELECT at_ms FROM events WHERE id < (runs.number + 1) * 4294967296 ORDER BY id DESC LIMIT 1) AS last_ms
    FROM runs";

fn summary(line: &SqliteRow) -> Result<RunSummary, sqlx::Error> {
    Ok(RunSummary {
        run: RunId::new(line.try_get::<String, _>("run")?),
        runbook: line.try_get("runbook")?,
        version: line.try_get("version")?,
        site: line.try_get("site")?,
        by: line.try_get::<&str, _>("started_by")?.into(),
        started_at: time(line.try_get("started_ms")?)?,
        last_at: time(line.try_get("last_ms")?)?,
        outcome: line.try_get::<Option<&str>, _>("outcome")?.map(parse_outcome).transpose()?,
        pruned: line.try_get::<Option<i64>, _>("pruned")?.map(i64::cast_unsigned),
    })
}

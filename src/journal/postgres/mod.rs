//! A store on a PostgreSQL server, shared by drivers on many machines: its own schema `piton`, nothing else touched.
//!
//! The time of a lease is the server's, so that hosts with other clocks agree on whose it is. Work that the loss of the
//! connection left without an answer is done again; an append that had reached the server is recognised.

pub(super) mod address;
mod append;
mod lease;
mod line;
mod listen;
mod locks;
mod open;
mod prune;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection as _, Row as _};

use super::chain::{self, Row};
use super::heads::Heads;
use super::proof::Evidence;
use super::seal::{Seal, SealKey};
use super::watch::Bell;
use super::{Head, JournalError, RunFilter, RunSummary, parse_outcome};
use crate::event::Record;
use crate::ids::RunId;
use line::Line;

/// Channel of `NOTIFY`; the payload is the run that others recorded something about.
const CHANNEL: &str = "piton";

/// Does a piece of work on the connection, and again when the connection is lost on the way.
macro_rules! lasting {
    ($self:ident, $conn:ident => $work:expr) => {{
        let mut tries = $crate::journal::postgres::line::Tries::default();
        loop {
            let failed = match $self.line.hold().await {
                Ok(mut held) => {
                    let $conn = held.connection();
                    match $crate::journal::postgres::line::bounded($work).await {
                        Ok(done) => {
                            held.give_back();
                            break Ok(done);
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if let Err(fault) = $self.line.again(&mut tries, failed).await {
                break Err(fault);
            }
        }
    }};
}
use lasting;

/// Journals in a schema of a PostgreSQL database; clones share the connection.
#[derive(Clone)]
pub struct Postgres {
    line: Arc<Line>,
    bell: Bell,
    listener: Arc<OnceLock<listen::Listener>>,
    heads: Heads,
    pub(super) sealer: Option<SealKey>,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("store", &self.line.store).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Opens the store at `url`; an append that lost its connection is repeated for `patience`.
    pub(super) async fn open(url: &str, patience: Duration) -> Result<Self, JournalError> {
        let options = address::options(url)?;
        let line = Arc::new(Line::new(options, address::shown(url), patience));
        let mut held = line.hold().await.map_err(|error| line.fault(error))?;
        open::migrate(held.connection(), &line).await?;
        held.give_back();
        Ok(Self { line, bell: Bell::default(), listener: Arc::default(), heads: Heads::default(), sealer: None })
    }

    pub(super) async fn rows(&self, run: &RunId, from_seq: u64) -> Result<Vec<Row>, JournalError> {
        lasting!(self, conn => rows(conn, run, from_seq))
    }

    pub(super) async fn evidence(&self, run: &RunId) -> Result<Evidence, JournalError> {
        lasting!(self, conn => evidence(conn, run))
    }

    pub(super) async fn transcript(&self, digest: &str) -> Result<Option<Vec<u8>>, JournalError> {
        lasting!(self, conn => sqlx::query_scalar("SELECT bytes FROM piton.transcripts WHERE digest = $1")
            .bind(digest)
            .fetch_optional(conn))
    }

    pub(super) async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, JournalError> {
        lasting!(self, conn => runs(conn, filter))
    }

    pub(super) async fn head(&self, run: &RunId) -> Result<Head, JournalError> {
        let found: (i64, i64) = lasting!(self, conn => sqlx::query_as(
            "SELECT coalesce((SELECT max(seq) FROM piton.events WHERE run = $1), 0),
                    coalesce((SELECT generation FROM piton.leases WHERE run = $1), 0)",
        )
        .bind(run.as_str())
        .fetch_one(conn))?;
        Ok(Head { seq: found.0.cast_unsigned(), generation: found.1.cast_unsigned() })
    }

    pub(super) async fn ends(&self, site: &str) -> Result<Vec<Record>, JournalError> {
        let found = lasting!(self, conn => sqlx::query(
            "SELECT e.* FROM piton.events e JOIN piton.runs r ON r.run = e.run
             WHERE e.kind = 'run_finished' AND e.payload <> '' AND r.site = $1 ORDER BY e.at_ms, e.run, e.seq",
        )
        .bind(site)
        .fetch_all(conn))?;
        let mut ends = Vec::with_capacity(found.len());
        for line in &found {
            let fault = |error| self.line.fault(error);
            let run: String = line.try_get("run").map_err(fault)?;
            ends.push(chain::record(&RunId::new(run), row(line).map_err(fault)?)?);
        }
        Ok(ends)
    }
}

async fn rows(conn: &mut PgConnection, run: &RunId, from_seq: u64) -> Result<Vec<Row>, sqlx::Error> {
    let found = sqlx::query("SELECT * FROM piton.events WHERE run = $1 AND seq >= $2 ORDER BY seq")
        .bind(run.as_str())
        .bind(from_seq.cast_signed())
        .fetch_all(conn)
        .await?;
    found.iter().map(row).collect()
}

/// Everything of one moment: a driver may be recording.
async fn evidence(conn: &mut PgConnection, run: &RunId) -> Result<Evidence, sqlx::Error> {
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    let rows = rows(&mut tx, run, 1).await?;
    let seals: Vec<(i64, String, i64, String, String)> =
        sqlx::query_as("SELECT seq, hash, at_ms, key, signature FROM piton.seals WHERE run = $1 ORDER BY seq")
            .bind(run.as_str())
            .fetch_all(&mut *tx)
            .await?;
    let one = format!("{SUMMARY} WHERE run = $1");
    let listed = sqlx::query(sqlx::AssertSqlSafe(one)).bind(run.as_str()).fetch_optional(&mut *tx).await?;
    let stones = prune::of_run(&mut tx, Some(run)).await?;
    tx.commit().await?;
    let seals = seals.into_iter().map(Seal::from).collect();
    Ok(Evidence { rows, seals, listed: listed.as_ref().map(summary).transpose()?, stones, lost: None })
}

/// The columns that make a line of the list of runs.
const SUMMARY: &str = "SELECT run, runbook, version, site, started_by, started_ms, outcome, pruned,
        (SELECT at_ms FROM piton.events e WHERE e.run = r.run ORDER BY seq DESC LIMIT 1) AS last_ms
    FROM piton.runs r";

async fn runs(conn: &mut PgConnection, filter: &RunFilter) -> Result<Vec<RunSummary>, sqlx::Error> {
    let text = format!(
        "{SUMMARY}
         WHERE ($1::text IS NULL OR runbook = $1) AND ($2::text IS NULL OR site = $2)
           AND (NOT $3 OR (pruned IS NULL AND (outcome IS NULL OR outcome NOT IN ('succeeded', 'rolled_back'))))
           AND ($5::text IS NULL OR run = $5 OR starts_with(run, $5 || '.'))
         ORDER BY started_ms DESC, run DESC LIMIT $4"
    );
    let found = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(filter.runbook.as_deref())
        .bind(filter.site.as_deref())
        .bind(filter.open_only)
        .bind(filter.limit.map(i64::from))
        .bind(filter.family.as_ref().map(RunId::as_str))
        .fetch_all(conn)
        .await?;
    found.iter().map(summary).collect()
}

fn decode(column: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: source.into() }
}

fn time(ms: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_millisecond(ms).map_err(|error| decode("time", error))
}

fn row(line: &PgRow) -> Result<Row, sqlx::Error> {
    Ok(Row {
        seq: line.try_get::<i64, _>("seq")?.cast_unsigned(),
        at_ms: line.try_get("at_ms")?,
        generation: line.try_get::<i64, _>("generation")?.cast_unsigned(),
        kind: line.try_get("kind")?,
        payload: line.try_get("payload")?,
        hash: line.try_get("hash")?,
    })
}

fn summary(line: &PgRow) -> Result<RunSummary, sqlx::Error> {
    let outcome: Option<&str> = line.try_get("outcome")?;
    Ok(RunSummary {
        run: RunId::new(line.try_get::<String, _>("run")?),
        runbook: line.try_get("runbook")?,
        version: line.try_get("version")?,
        site: line.try_get("site")?,
        by: line.try_get::<&str, _>("started_by")?.into(),
        started_at: time(line.try_get("started_ms")?)?,
        last_at: time(line.try_get("last_ms")?)?,
        outcome: outcome.map(parse_outcome).transpose().map_err(|error| decode("outcome", error))?,
        pruned: line.try_get::<Option<i64>, _>("pruned")?.map(i64::cast_unsigned),
    })
}

//! Locks on the server: the table that `journal::locks` judges, and what it decided, in one transaction.

use jiff::Timestamp;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::{CHANNEL, Postgres, lasting};
use crate::event::LockChange;
use crate::ids::{LockName, RunId, StepId};
use crate::journal::locks::{LockAnswer, LockAsk, LockTable, table};
use crate::journal::{AppendError, JournalError};

/// Key of the advisory lock under which locks are taken, so that each taking sees the one before.
const TAKING: i64 = 0x5049_544e_0001;

/// What was asked of locks came to, apart from the server's own failures.
type Answer<T> = Result<Result<T, AppendError>, sqlx::Error>;

impl Postgres {
    pub(in crate::journal) async fn locks(&self) -> Result<LockTable, JournalError> {
        lasting!(self, conn => load(conn))
    }

    pub(in crate::journal) async fn ask_locks(&self, ask: LockAsk<'_>) -> Result<LockAnswer, AppendError> {
        let answer: Result<Result<LockAnswer, AppendError>, JournalError> = lasting!(self, conn => answer(conn, ask));
        answer?
    }

    pub(in crate::journal) async fn stop_waiting(&self, run: &RunId, step: &StepId) -> Result<(), JournalError> {
        lasting!(self, conn => async {
            forget(conn, run, Some(step)).await?;
            sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(run.as_str()).execute(conn).await?;
            Ok(())
        })
    }
}

async fn answer(conn: &mut PgConnection, ask: LockAsk<'_>) -> Answer<LockAnswer> {
    let mut tx = conn.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(TAKING).execute(&mut *tx).await?;
    let current: Option<(i64, bool)> =
        sqlx::query_as("SELECT generation, owner IS NOT NULL FROM piton.leases WHERE run = $1 FOR SHARE")
            .bind(ask.run.as_str())
            .fetch_optional(&mut *tx)
            .await?;
    let current = current.map(|(generation, owned)| (generation.cast_unsigned(), owned));
    if current != Some((ask.generation, true)) {
        tx.rollback().await?;
        return Ok(Err(AppendError::Fenced { generation: current.map_or(0, |(generation, _)| generation) }));
    }
    let table = load(&mut tx).await?;
    let answer = table.decide(&ask);
    match answer {
        LockAnswer::Taken => {
            let own = |lock: &&LockName| !table.is_of_run(lock, ask.run);
            for lock in ask.locks.iter().filter(own) {
                take(&mut tx, lock, (ask.run, Some(ask.step)), ask.at).await?;
            }
            forget(&mut tx, ask.run, Some(ask.step)).await?;
        }
        LockAnswer::Waits { .. } => {
            let ticket = table.next_ticket().cast_signed();
            for lock in ask.locks {
                sqlx::query("INSERT INTO piton.lock_waiters VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING")
                    .bind(ask.run.as_str())
                    .bind(ask.step.as_str())
                    .bind(lock.as_str())
                    .bind(ask.at.as_millisecond())
                    .bind(ticket)
                    .execute(&mut *tx)
                    .await?;
            }
        }
        LockAnswer::Never { .. } => forget(&mut tx, ask.run, Some(ask.step)).await?,
    }
    tx.commit().await?;
    Ok(Ok(answer))
}

/// Does what an append changes about locks.
pub(super) async fn change(conn: &mut PgConnection, run: &RunId, at: Timestamp, locks: &LockChange) -> Answer<()> {
    if locks.free_all {
        sqlx::query("UPDATE piton.locks SET run = NULL WHERE run = $1 AND step IS NULL")
            .bind(run.as_str())
            .execute(&mut *conn)
            .await?;
        forget(conn, run, None).await?;
    }
    for step in &locks.free {
        sqlx::query("UPDATE piton.locks SET run = NULL, step = NULL WHERE run = $1 AND step = $2")
            .bind(run.as_str())
            .bind(step.as_str())
            .execute(&mut *conn)
            .await?;
    }
    for guard in &locks.guard {
        let there = sqlx::query("UPDATE piton.locks SET stays = $3 WHERE run = $1 AND step = $2")
            .bind(run.as_str())
            .bind(guard.step.as_str())
            .bind(guard.stays)
            .execute(&mut *conn)
            .await?;
        if there.rows_affected() < guard.locks {
            return Ok(Err(AppendError::LockLost { step: guard.step.clone() }));
        }
    }
    if locks.take.is_empty() {
        return Ok(Ok(()));
    }
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(TAKING).execute(&mut *conn).await?;
    let table = load(conn).await?;
    if let Some((lock, by_run)) = table.held_by_others(run, &locks.take) {
        return Ok(Err(AppendError::LockHeld { lock, by_run }));
    }
    for lock in locks.take.iter().filter(|lock| !table.is_of_run(lock, run)) {
        take(conn, lock, (run, None), at).await?;
    }
    Ok(Ok(()))
}

async fn take(
    conn: &mut PgConnection,
    lock: &LockName,
    (run, step): (&RunId, Option<&StepId>),
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO piton.locks AS l (name, fence, run, step, since_ms, stays) VALUES ($1, 1, $2, $3, $4, $5)
         ON CONFLICT (name) DO UPDATE SET fence = l.fence + 1, run = $2, step = $3, since_ms = $4, stays = $5",
    )
    .bind(lock.as_str())
    .bind(run.as_str())
    .bind(step.map(StepId::as_str))
    .bind(at.as_millisecond())
    .bind(step.is_none())
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes a step, or every step of a run, out of all lines.
async fn forget(conn: &mut PgConnection, run: &RunId, step: Option<&StepId>) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM piton.lock_waiters WHERE run = $1 AND ($2::text IS NULL OR step = $2)")
        .bind(run.as_str())
        .bind(step.map(StepId::as_str))
        .execute(conn)
        .await?;
    Ok(())
}

async fn load(conn: &mut PgConnection) -> Result<LockTable, sqlx::Error> {
    let held: Vec<(String, String, Option<String>, i64, i64, bool)> = sqlx::query_as(
        "SELECT name, run, step, since_ms, fence, stays FROM piton.locks WHERE run IS NOT NULL ORDER BY name",
    )
    .fetch_all(&mut *conn)
    .await?;
    let waiting: Vec<(String, String, String, i64, i64)> =
        sqlx::query_as("SELECT name, run, step, since_ms, ticket FROM piton.lock_waiters ORDER BY ticket, name")
            .fetch_all(&mut *conn)
            .await?;
    let leases: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT run, owner, until_ms FROM piton.leases WHERE owner IS NOT NULL
         AND run IN (SELECT run FROM piton.locks UNION SELECT run FROM piton.lock_waiters)",
    )
    .fetch_all(&mut *conn)
    .await?;
    let now_ms: i64 =
        sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").fetch_one(conn).await?;
    table(held, waiting, leases, super::time(now_ms)?)
}

//! Locks in the file: the table that `journal::locks` judges, and what it decided, in one transaction.

use jiff::Timestamp;
use sqlx::SqliteConnection;

use super::{Sqlite, lease};
use crate::event::LockChange;
use crate::ids::{LockName, RunId, StepId};
use crate::journal::locks::{LockAnswer, LockAsk, LockTable, table};
use crate::journal::{AppendError, JournalError};

impl Sqlite {
    pub(in crate::journal) async fn locks(&self, now: Timestamp) -> Result<LockTable, JournalError> {
        let fault = |error| self.fault(error);
        let mut reader = self.readers.acquire().await.map_err(fault)?;
        load(&mut reader, now).await.map_err(fault)
    }

    pub(in crate::journal) async fn ask_locks(&self, ask: LockAsk<'_>) -> Result<LockAnswer, AppendError> {
        let fault = |error| self.fault(error);
        let mut writer = self.writer().await?;
        let mut tx = self.begin(&mut writer).await?;
        let current = lease(&mut tx, ask.run).await.map_err(fault)?;
        if current.as_ref().is_none_or(|lease| lease.generation != ask.generation || lease.owner.is_none()) {
            return Err(AppendError::Fenced { generation: current.map_or(0, |lease| lease.generation) });
        }
        let table = load(&mut tx, ask.at).await.map_err(fault)?;
        let answer = table.decide(&ask);
        match answer {
            LockAnswer::Taken => {
                let own = |lock: &&LockName| !table.is_of_run(lock, ask.run);
                for lock in ask.locks.iter().filter(own) {
                    take(&mut tx, lock, (ask.run, Some(ask.step)), ask.at).await.map_err(fault)?;
                }
                forget(&mut tx, ask.run, Some(ask.step)).await.map_err(fault)?;
            }
            LockAnswer::Waits { .. } => {
                let ticket = table.next_ticket().cast_signed();
                for lock in ask.locks {
                    sqlx::query("INSERT INTO lock_waiters VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
                        .bind(ask.run.as_str())
                        .bind(ask.step.as_str())
                        .bind(lock.as_str())
                        .bind(ask.at.as_millisecond())
                        .bind(ticket)
                        .execute(&mut *tx)
                        .await
                        .map_err(fault)?;
                }
            }
            LockAnswer::Never { .. } => forget(&mut tx, ask.run, Some(ask.step)).await.map_err(fault)?,
        }
        tx.commit().await.map_err(fault)?;
        Ok(answer)
    }

    pub(in crate::journal) async fn stop_waiting(&self, run: &RunId, step: &StepId) -> Result<(), JournalError> {
        let mut writer = self.writer().await?;
        forget(&mut writer, run, Some(step)).await.map_err(|error| self.fault(error))?;
        drop(writer);
        self.bell.ring();
        Ok(())
    }

    /// Does what an append changes about locks.
    pub(super) async fn change_locks(
        &self,
        tx: &mut SqliteConnection,
        run: &RunId,
        at: Timestamp,
        locks: &LockChange,
    ) -> Result<(), AppendError> {
        let fault = |error| self.fault(error);
        if locks.free_all {
            sqlx::query("UPDATE locks SET run = NULL WHERE run = ? AND step IS NULL")
                .bind(run.as_str())
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
            forget(tx, run, None).await.map_err(fault)?;
        }
        for step in &locks.free {
            sqlx::query("UPDATE locks SET run = NULL, step = NULL WHERE run = ? AND step = ?")
                .bind(run.as_str())
                .bind(step.as_str())
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
        }
        for guard in &locks.guard {
            let there = sqlx::query("UPDATE locks SET stays = ? WHERE run = ? AND step = ?")
                .bind(guard.stays)
                .bind(run.as_str())
                .bind(guard.step.as_str())
                .execute(&mut *tx)
                .await
                .map_err(fault)?;
            if there.rows_affected() < guard.locks {
                return Err(AppendError::LockLost { step: guard.step.clone() });
            }
        }
        if locks.take.is_empty() {
            return Ok(());
        }
        let table = load(tx, at).await.map_err(fault)?;
        if let Some((lock, by_run)) = table.held_by_others(run, &locks.take) {
            return Err(AppendError::LockHeld { lock, by_run });
        }
        for lock in locks.take.iter().filter(|lock| !table.is_of_run(lock, run)) {
            take(tx, lock, (run, None), at).await.map_err(fault)?;
        }
        Ok(())
    }
}

async fn take(
    conn: &mut SqliteConnection,
    lock: &LockName,
    (run, step): (&RunId, Option<&StepId>),
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO locks VALUES (?1, 1, ?2, ?3, ?4, ?5) ON CONFLICT (name)
         DO UPDATE SET fence = fence + 1, run = ?2, step = ?3, since_ms = ?4, stays = ?5",
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
async fn forget(conn: &mut SqliteConnection, run: &RunId, step: Option<&StepId>) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM lock_waiters WHERE run = ?1 AND (?2 IS NULL OR step = ?2)")
        .bind(run.as_str())
        .bind(step.map(StepId::as_str))
        .execute(conn)
        .await?;
    Ok(())
}

async fn load(conn: &mut SqliteConnection, now: Timestamp) -> Result<LockTable, sqlx::Error> {
    let held: Vec<(String, String, Option<String>, i64, i64, bool)> =
        sqlx::query_as("SELECT name, run, step, since_ms, fence, stays FROM locks WHERE run IS NOT NULL ORDER BY name")
            .fetch_all(&mut *conn)
            .await?;
    let waiting: Vec<(String, String, String, i64, i64)> =
        sqlx::query_as("SELECT name, run, step, since_ms, ticket FROM lock_waiters ORDER BY ticket, name")
            .fetch_all(&mut *conn)
            .await?;
    let leases: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT run, owner, until_ms FROM leases WHERE owner IS NOT NULL
         AND run IN (SELECT run FROM locks UNION SELECT run FROM lock_waiters)",
    )
    .fetch_all(conn)
    .await?;
    table(held, waiting, leases, now)
}

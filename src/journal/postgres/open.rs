//! Making and checking the schema: versions, one at a time, by one process at a time; refuses what is not ours.

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use super::line::Line;
use crate::journal::JournalError;

/// The scripts that lead from each version to the next; their number is the latest version.
const MIGRATIONS: [&str; 6] = [
    include_str!("../migrations/postgres/0001.sql"),
    include_str!("../migrations/postgres/0002.sql"),
    include_str!("../migrations/postgres/0003.sql"),
    include_str!("../migrations/postgres/0004.sql"),
    include_str!("../migrations/postgres/0005.sql"),
    include_str!("../migrations/postgres/0006.sql"),
];
/// Key of the advisory lock under which the schema is changed: `PITN`.
const MIGRATION_LOCK: i64 = 0x5049_544e;

/// What is there.
#[derive(Clone, Copy)]
enum Found {
    Nothing,
    Version(i64),
    SomebodyElses,
}

/// Brings the schema up to date; refuses one that is not ours, or newer.
pub(super) async fn migrate(conn: &mut PgConnection, line: &Line) -> Result<(), JournalError> {
    let fault = |error| line.fault(error);
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if judge(look(conn).await.map_err(fault)?, known, line)? == known {
        return Ok(());
    }
    let mut tx = conn.begin().await.map_err(fault)?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(&mut *tx).await.map_err(fault)?;
    // Another process may have done it while this one waited.
    let found = judge(look(&mut tx).await.map_err(fault)?, known, line)?;
    if found == 0 {
        let first = "CREATE SCHEMA IF NOT EXISTS piton;
            CREATE TABLE piton.version (one boolean PRIMARY KEY DEFAULT true CHECK (one), version bigint NOT NULL)";
        sqlx::raw_sql(first).execute(&mut *tx).await.map_err(fault)?;
    }
    for script in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        sqlx::raw_sql(*script).execute(&mut *tx).await.map_err(fault)?;
    }
    sqlx::query(
        "INSERT INTO piton.version (version) VALUES ($1) ON CONFLICT (one) DO UPDATE SET version = excluded.version",
    )
    .bind(known)
    .execute(&mut *tx)
    .await
    .map_err(fault)?;
    tx.commit().await.map_err(fault)
}

/// The version that is there (0 for none), if it can be used.
fn judge(found: Found, known: i64, line: &Line) -> Result<i64, JournalError> {
    match found {
        Found::Nothing => Ok(0),
        Found::Version(found) if found > known => Err(JournalError::Newer { store: line.store.clone(), found, known }),
        Found::Version(found) => Ok(found),
        Found::SomebodyElses => Err(JournalError::NotAJournal { store: line.store.clone() }),
    }
}

async fn look(conn: &mut PgConnection) -> Result<Found, sqlx::Error> {
    let (versioned, relations): (bool, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE c.relname = 'version') > 0, count(*)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'piton'",
    )
    .fetch_one(&mut *conn)
    .await?;
    if !versioned {
        return Ok(if relations == 0 { Found::Nothing } else { Found::SomebodyElses });
    }
    let version: Result<Option<i64>, sqlx::Error> =
        sqlx::query_scalar("SELECT version FROM piton.version").fetch_optional(conn).await;
    match version {
        Ok(Some(version)) => Ok(Found::Version(version)),
        // Another kind of `version`: no such column (42703), or one of another type.
        Err(error) if error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("42703")) => {
            Ok(Found::SomebodyElses)
        }
        Ok(None) | Err(sqlx::Error::ColumnDecode { .. }) => Ok(Found::SomebodyElses),
        Err(error) => Err(error),
    }
}

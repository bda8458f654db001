//! A restore into an empty schema of MariaDB or MySQL, which cannot take back what its statements commit: a table marks the schema as half
//! restored, and whatever is beside the mark goes away before the next try.
//!
//! The mark says whose restore it is, and its rows are the sessions that worked at it. Refuses to empty a schema without that mark.

use std::time::Duration;

use crate::transfer::database::Database;
use crate::transfer::engine::Engine;
use crate::transfer::error::TransferError;
use crate::transfer::schema::{one, text};
use crate::transfer::session::Session;

/// The table that marks a schema as half restored.
pub const MARK: &str = "piton_restore";

/// How long a session that was ended may still take.
const END_PATIENCE: u32 = 600;
const END_PAUSE: Duration = Duration::from_millis(50);

/// The mark of a half restored schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreMark {
    /// Whose restore it is.
    pub token: String,
}

/// The mark of the schema, if it has one.
pub async fn restore_mark(database: &Database) -> Result<Option<RestoreMark>, TransferError> {
    let sql = "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";
    let rows = Session::open(database).await?.rows(sql, one(MARK)).await?;
    Ok(rows.first().and_then(|row| row.first()).map(|token| RestoreMark { token: text(token) }))
}

/// Marks the schema; the token is letters and digits.
pub async fn mark_restore(database: &Database, token: &str) -> Result<(), TransferError> {
    if !token.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(TransferError::request("the token of a restore is letters and digits"));
    }
    let sql = format!("CREATE TABLE `{MARK}` (session BIGINT UNSIGNED NOT NULL) COMMENT = '{token}'");
    Session::open(database).await?.run(&sql, Vec::new()).await.map(drop)
}

/// Takes the mark away: the restore is whole, or nothing is left of it.
pub async fn unmark_restore(database: &Database) -> Result<(), TransferError> {
    Session::open(database).await?.run(&format!("DROP TABLE IF EXISTS `{MARK}`"), Vec::new()).await.map(drop)
}

/// Ends what still works at the marked restore of this token and drops everything beside the mark.
pub async fn clear_marked(database: &Database, token: &str) -> Result<(), TransferError> {
    if restore_mark(database).await?.is_none_or(|mark| mark.token != token) {
        return Err(TransferError::request("the schema is not marked as half restored by this step"));
    }
    let mut session = Session::open(database).await?;
    end_sessions(&mut session).await?;
    session.run("SET SESSION foreign_key_checks = 0", Vec::new()).await?;
    let sql = "SELECT CASE TABLE_TYPE WHEN 'VIEW' THEN 'VIEW' WHEN 'SEQUENCE' THEN 'SEQUENCE' ELSE 'TABLE' END, TABLE_NAME \
               FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME <> ? \
               UNION ALL SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE() \
               UNION ALL SELECT 'EVENT', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()";
    for row in session.rows(sql, one(MARK)).await? {
        let [kind, name, ..] = row.as_slice() else { continue };
        let sql = format!("DROP {} IF EXISTS {}", text(kind), Engine::Mariadb.quote(&text(name)));
        session.run(&sql, Vec::new()).await?;
    }
    session.run(&format!("TRUNCATE TABLE `{MARK}`"), Vec::new()).await.map(drop)
}

/// Ends the sessions that the mark names, and waits until they are gone.
async fn end_sessions(session: &mut Session) -> Result<(), TransferError> {
    let sql = format!("SELECT m.session FROM `{MARK}` m JOIN information_schema.PROCESSLIST p ON p.ID = m.session");
    for _ in 0..END_PATIENCE {
        let alive = session.rows(&sql, Vec::new()).await?;
        if alive.is_empty() {
            return Ok(());
        }
        for row in alive {
            let number = row.first().map(text).unwrap_or_default();
            match session.run(&format!("KILL CONNECTION {number}"), Vec::new()).await {
                Err(TransferError::Sql { code: Some(code), .. }) if code == "1094" => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        tokio::time::sleep(END_PAUSE).await;
    }
    Err(TransferError::request("a session of the earlier restore does not end; see `SHOW PROCESSLIST`"))
}

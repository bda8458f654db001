//! How long the sessions of a copy or a comparison let a statement run and wait for a lock: set in the engines, named when they are reached.
//!
//! What a limit cuts off is undone by the engine, so nothing is half applied. Refuses nothing itself. SQLite, which runs within this process, knows
//! the second limit only. Used by `copy`, `overlap` and `compare`.

use std::fmt::Write as _;
use std::time::Duration;

use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;
use super::session::Session;

/// The limits; what is left out stays as the server has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Longest time for one statement.
    pub statement: Option<Duration>,
    /// Longest wait for a lock of somebody else.
    pub lock: Option<Duration>,
}

/// Whole seconds, as MariaDB counts locks; never 0, which means not to wait at all.
fn seconds(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1)
}

impl Limits {
    fn is_unset(&self) -> bool {
        *self == Self::default()
    }

    /// A session with these limits; with `waits` the server does not end it for having nothing to do for a while.
    pub(super) async fn open(&self, database: &Database, waits: bool) -> Result<Session, TransferError> {
        let mut session = Session::open(database).await?;
        if !self.is_unset() || waits {
            self.set(&mut session).await?;
        }
        Ok(session)
    }

    /// Sets these limits for the session from here on, also where they were lifted.
    pub(super) async fn set(&self, session: &mut Session) -> Result<(), TransferError> {
        let sql = match session.engine() {
            Engine::Postgres => Some(self.postgres()),
            Engine::Mariadb => Some(self.mariadb()),
            Engine::Sqlite => self.lock.map(|limit| format!("PRAGMA busy_timeout = {}", limit.as_millis())),
        };
        if let Some(sql) = sql {
            session.run(&sql, Vec::new()).await?;
        }
        Ok(())
    }

    fn postgres(&self) -> String {
        let mut set = vec![("idle_in_transaction_session_timeout", 0)];
        set.extend(self.statement.map(|limit| ("statement_timeout", limit.as_millis())));
        set.extend(self.lock.map(|limit| ("lock_timeout", limit.as_millis())));
        let set: Vec<String> =
            set.into_iter().map(|(name, ms)| format!("set_config('{name}', '{ms}', false)")).collect();
        format!("SELECT {}", set.join(", "))
    }

    fn mariadb(&self) -> String {
        // A year, which is the most. Each engine runs its own comment only.
        let mut set = "SET SESSION wait_timeout = 31536000 /*M!100300 , idle_transaction_timeout = 0, \
                       idle_readonly_transaction_timeout = 0, idle_write_transaction_timeout = 0 */"
            .to_owned();
        let (seconds_most, ms_most) = self.statement.map(|limit| limit.as_millis()).map_or_else(
            || ("DEFAULT".to_owned(), "DEFAULT".to_owned()),
            |ms| (format!("{}.{:03}", ms / 1_000, ms % 1_000), ms.to_string()),
        );
        let _ = write!(set, " /*M!100101 , max_statement_time = {seconds_most} */");
        let _ = write!(set, " /*!50708 , max_execution_time = {ms_most} */");
        if let Some(limit) = self.lock.map(seconds) {
            let _ = write!(set, " , lock_wait_timeout = {limit}, innodb_lock_wait_timeout = {limit}");
        }
        set
    }

    /// Lifts the limit of statements for what takes as long as it takes: indexes, one stream of a whole table. PostgreSQL
    /// forgets that with the open transaction; a session of MariaDB keeps it until `set`.
    pub(super) async fn lift(&self, session: &mut Session) -> Result<(), TransferError> {
        let sql = match session.engine() {
            Engine::Postgres if self.statement.is_some() => "SET LOCAL statement_timeout = 0",
            // A client that takes nothing for a while, for its target is slow or it is throttled, is not dead.
            Engine::Mariadb => {
                "SET SESSION net_write_timeout = 86400 /*M!100101 , max_statement_time = 0 */ /*!50708 , max_execution_time = 0 */"
            }
            Engine::Postgres | Engine::Sqlite => return Ok(()),
        };
        session.run(sql, Vec::new()).await.map(drop)
    }

    /// Says which limit it was, and where; other errors stay as they are.
    pub(super) fn name(&self, error: TransferError, place: &str) -> TransferError {
        let Some((limit, Some(after))) = self.which(&error) else { return error };
        TransferError::Limit { place: place.to_owned(), limit, after, why: error.to_string() }
    }

    /// Whether it is one of these limits that was reached.
    pub(super) fn is_reached(&self, error: &TransferError) -> bool {
        matches!(self.which(error), Some((_, Some(_))))
    }

    fn which(&self, error: &TransferError) -> Option<(&'static str, Option<Duration>)> {
        match error {
            TransferError::Timeout { effect_unknown: false, .. } => Some(("statement_timeout", self.statement)),
            TransferError::Sql { engine, code: Some(code), .. } => match (engine, code.as_str()) {
                (Engine::Postgres, "57014") | (Engine::Mariadb, "1969" | "3024") => {
                    Some(("statement_timeout", self.statement))
                }
                _ => error.is_lock_wait().then_some(("lock_timeout", self.lock)),
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_set_and_named() {
        let (half, none) = (Duration::from_millis(1_500), Limits::default());
        let limits = Limits { statement: Some(half), lock: Some(half) };
        let set = limits.mariadb();
        assert!(set.contains("max_statement_time = 1.500 ") && set.contains("innodb_lock_wait_timeout = 2"), "{set}");
        assert!(limits.postgres().contains("set_config('lock_timeout', '1500', false)"));
        assert!(!none.postgres().contains("statement_timeout"));
        let error = |code: &str| TransferError::Sql {
            engine: Engine::Postgres,
            message: "m".to_owned(),
            code: Some(code.to_owned()),
            position: None,
            effect_unknown: false,
        };
        let named = limits.name(error("55P03"), "`t`").to_string();
        assert!(named.contains("`t`") && named.contains("lock_timeout") && named.contains("1.5s"), "{named}");
        assert!(matches!(none.name(error("55P03"), "`t`"), TransferError::Sql { .. }));
        assert!(matches!(limits.name(error("23505"), "`t`"), TransferError::Sql { .. }));
    }
}

//! Which sessions of a server belong to this process, so that nobody ends them by mistake.
//!
//! PostgreSQL shows a session's application to everybody, so ours carry a mark in it. MariaDB shows nothing that a session can choose, so the
//! numbers that it gave to ours are kept. Written by `database` when a connection opens, read by `activity`.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The application of the journal's sessions, of whichever process.
pub(super) const JOURNAL: &str = "piton";

/// Server and number of every session on MariaDB that this process opened. Numbers do not come again while a server runs.
static NUMBERS: Mutex<BTreeSet<(String, u64)>> = Mutex::new(BTreeSet::new());

/// The application of this process's sessions on PostgreSQL: `piton` with a mark of its own.
pub(super) fn application() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("piton {:016x}", fastrand::u64(..)))
}

/// Reads what identifies a MariaDB server, and the number of the session that asks.
pub(super) const MARIADB_SESSION: &str =
    "SELECT CONCAT_WS(':', @@hostname, @@port, @@datadir), CAST(CONNECTION_ID() AS UNSIGNED)";

fn numbers() -> MutexGuard<'static, BTreeSet<(String, u64)>> {
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a session of MariaDB as ours.
pub(super) fn opened(server: &str, number: u64) {
    numbers().insert((server.to_owned(), number));
}

/// Whether this process opened the session of that number.
pub(super) fn is_own(server: &str, number: u64) -> bool {
    numbers().contains(&(server.to_owned(), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_ours_on_the_server_that_gave_it_only() {
        opened("here:3306:/data", 7_001);
        assert!(is_own("here:3306:/data", 7_001));
        assert!(!is_own("there:3306:/data", 7_001) && !is_own("here:3306:/data", 7_002));
    }

    #[test]
    fn the_mark_stays_the_same_and_is_not_the_journals() {
        assert_eq!(application(), application());
        assert_ne!(application(), JOURNAL);
    }
}

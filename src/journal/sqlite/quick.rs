//! The one-statement append on the caller's own thread, for runs that append again and again.
//!
//! sqlx hands each statement to a thread and its end back, which on a sleeping processor takes about as long as half a sync to the disk. Only
//! where a driver has its thread to itself, as in the program: it has nothing to do before the append is on the disk. Never waits for a
//! lock and never tells a failure apart: what did not go in is left to the ordinary way, which looks what stands there. So nothing here
//! decides what counts. Used by `append`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::append::FIRST_OF_RECORDS;
use crate::ids::RunId;
use crate::journal::chain::Row;

/// Appends of this process before a connection of its own is worth its start.
const FIRST: u32 = 8;

/// A connection that is made when it pays.
#[derive(Debug)]
pub(super) struct Quick {
    path: Arc<PathBuf>,
    appends: AtomicU32,
    connection: Mutex<Option<Connection>>,
}

impl Quick {
    /// For the store at `path`, which is there.
    pub(super) fn of(path: Arc<PathBuf>) -> Self {
        Self { path, appends: AtomicU32::new(0), connection: Mutex::default() }
    }

    /// Runs the guarded statement `text`, which is its own transaction, and gives how many records it inserted; none where the ordinary way
    /// has to be taken.
    pub(super) fn insert(&self, text: &str, run: &RunId, new: &[Row], prev_hash: &str) -> Option<usize> {
        if self.appends.fetch_add(1, Ordering::Relaxed) < FIRST {
            return None;
        }
        // A thread that has the tasks of others does not wait for the disk.
        if !Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::CurrentThread) {
            return None;
        }
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let inserted = match &mut *connection {
            Some(connection) => insert(connection, text, run, new, prev_hash),
            none => self.open().and_then(|opened| insert(none.insert(opened), text, run, new, prev_hash)),
        };
        inserted.inspect_err(|error| tracing::debug!(%error, "the append goes the ordinary way")).ok()
    }

    fn open(&self) -> Result<Connection, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.path.as_path(), flags)?;
        connection.busy_timeout(Duration::ZERO)?;
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON")?;
        Ok(connection)
    }
}

fn insert(
    connection: &Connection,
    text: &str,
    run: &RunId,
    new: &[Row],
    prev_hash: &str,
) -> Result<usize, rusqlite::Error> {
    let Some(first) = new.first() else { return Ok(0) };
    let mut statement = connection.prepare_cached(text)?;
    statement.raw_bind_parameter(1, run.as_str())?;
    statement.raw_bind_parameter(2, first.seq.cast_signed() - 1)?;
    statement.raw_bind_parameter(3, first.at_ms)?;
    statement.raw_bind_parameter(4, first.generation.cast_signed())?;
    let values = new.iter().flat_map(|row| [&row.kind, &row.payload, &row.hash]).map(String::as_str);
    for (place, value) in values.chain([prev_hash]).enumerate() {
        statement.raw_bind_parameter(FIRST_OF_RECORDS + place, value)?;
    }
    statement.raw_execute()
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use sqlx::Connection as _;

    use super::super::{Sqlite, connect};
    use super::*;
    use crate::event::{Event, LockChange};
    use crate::journal::lease::Owner;
    use crate::journal::{Append, AppendError, Journal, Trust};

    struct Store {
        sqlite: Sqlite,
        run: RunId,
        seq: u64,
        generation: u64,
        folder: tempfile::TempDir,
    }

    impl Store {
        /// A run whose next append is a quick one.
        async fn warm() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let sqlite = Sqlite::open(&folder.path().join("piton.db")).await.expect("opens");
            let (run, at) = (RunId::new("r"), Timestamp::UNIX_EPOCH);
            sqlite.create(&run, at, &crate::journal::tests::started("local"), &[]).await.expect("is new");
            let until = at + SignedDuration::from_hours(1);
            let owner = Owner::this_process().expect("is known");
            let generation = sqlite.claim(&run, &owner, at, until).await.expect("is free");
            let mut store = Self { sqlite, run, seq: 1, generation, folder };
            for _ in 0..FIRST {
                store.append().await.expect("is recorded");
            }
            assert!(!store.is_quick(), "a short run pays for no second connection");
            store
        }

        async fn append(&mut self) -> Result<(), AppendError> {
            let events =
                [Event::CancelRequested { by: "ann".into(), reason: None }, crate::journal::tests::skipped("a")];
            let (run, expected_seq) = (&self.run, self.seq);
            let generation = Some(self.generation);
            let append =
                Append { run, expected_seq, generation, at: Timestamp::UNIX_EPOCH, events: &events, texts: &[] };
            let records = self.sqlite.append(append, &LockChange::default()).await?;
            self.seq += records.len() as u64;
            Ok(())
        }

        fn is_quick(&self) -> bool {
            self.sqlite.quick.connection.lock().expect("is whole").is_some()
        }
    }

    #[tokio::test]
    async fn what_went_in_on_either_way_is_one_chain() {
        let mut store = Store::warm().await;
        for _ in 0..50 {
            store.append().await.expect("is recorded");
        }
        assert!(store.is_quick());
        let proof = Journal::Sqlite(store.sqlite.clone()).prove(&store.run, Trust::default()).await;
        let proof = proof.expect("reads");
        assert!(proof.wrong.is_empty(), "{proof:?}");
        assert_eq!(store.sqlite.rows(&store.run, 1).await.expect("reads").len() as u64, store.seq);
    }

    #[tokio::test]
    async fn a_lease_that_is_lost_and_a_place_that_is_taken_are_still_found_out() {
        let mut store = Store::warm().await;
        store.append().await.expect("is recorded");
        let was = store.seq;
        store.append().await.expect("is recorded");
        store.seq = was;
        store.append().await.expect("the same again is the same");
        store.generation += 1;
        let error = store.append().await.expect_err("nobody has that lease");
        assert!(matches!(error, AppendError::Fenced { generation } if generation + 1 == store.generation), "{error}");
        assert!(store.is_quick());
    }

    #[tokio::test]
    async fn a_lock_of_somebody_else_is_waited_for_without_the_thread() {
        let mut store = Store::warm().await;
        store.append().await.expect("is recorded");
        let mut other = connect(&store.folder.path().join("piton.db")).await.expect("opens");
        let held = other.begin_with("BEGIN IMMEDIATE").await.expect("takes the lock");
        let pause = Duration::from_millis(200);
        let let_go = async {
            // On the same thread as the append.
            tokio::time::sleep(pause).await;
            held.rollback().await.expect("lets go");
        };
        let started = std::time::Instant::now();
        let (appended, ()) = tokio::join!(store.append(), let_go);
        appended.expect("is recorded");
        assert!(started.elapsed() >= pause);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_thread_with_tasks_of_others_does_not_wait_for_the_disk() {
        let mut store = Store::warm().await;
        store.append().await.expect("is recorded");
        assert!(!store.is_quick());
    }
}

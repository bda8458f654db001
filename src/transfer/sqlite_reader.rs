//! A second connection to the file of a SQLite source: it sees what a session sees and hands over whole tables row by row, nothing copied.
//!
//! Through sqlx each row passes from a thread of its own as a list of values, which takes several times as long as SQLite does. Reads only. Refuses
//! what has no file, or a file that changes faster than two connections can agree on one state of it. Used by `copy`.

use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::types::{Value as Bind, ValueRef};
use rusqlite::{Connection, InterruptHandle, OpenFlags, Row};

use super::database::{Database, SQLITE_BUSY_TIMEOUT};
use super::engine::Engine;
use super::error::TransferError;
use super::session::{Arg, Begin, Session};
use super::value::Value;

/// How often two connections try to agree.
const TRIES: usize = 20;
/// Another number where another connection has changed the file since the same was asked last (<https://sqlite.org/pragma.html#pragma_data_version>).
const VERSION: &str = "PRAGMA data_version";

/// The connection, within its one transaction.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Connection,
}

impl Reader {
    /// Begins the snapshot of `session`, which belongs to the first database; with it a reader of the same state, where that is SQLite and rows
    /// can be encoded for the second.
    pub(super) async fn begin(
        session: &mut Session,
        (from, to): (&Database, &Database),
    ) -> Result<Option<Self>, TransferError> {
        if let (Database::Sqlite(pool), Engine::Postgres) = (from, to.engine()) {
            return Self::agree(session, pool.connect_options().get_filename()).await;
        }
        session.begin(Begin::Snapshot).await?;
        Ok(None)
    }

    /// Begins both at one state of the file at `path`; the session alone, where that cannot be.
    async fn agree(session: &mut Session, path: &Path) -> Result<Option<Self>, TransferError> {
        for _ in 0..TRIES {
            let before = session.number(VERSION, Vec::new()).await?;
            let path = path.to_path_buf();
            let opened = tokio::task::spawn_blocking(move || Self::open(&path)).await;
            let Ok(Ok(reader)) = opened else { break };
            session.begin(Begin::Snapshot).await?;
            // What nobody changed in between is one state.
            if session.number(VERSION, Vec::new()).await? == before {
                return Ok(Some(reader));
            }
            session.rollback().await?;
        }
        session.begin(Begin::Snapshot).await?;
        Ok(None)
    }

    fn open(path: &Path) -> Result<Self, rusqlite::Error> {
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(SQLITE_BUSY_TIMEOUT)?;
        connection.execute_batch("BEGIN")?;
        // A transaction sees the state of its first statement.
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
        Ok(Self { connection })
    }

    /// Ends from elsewhere what the reader is at.
    pub(super) fn interrupt(&self) -> InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    /// Hands every row to `take` until there are no more or it has enough. Blocks its thread.
    pub(super) fn each_row(
        &self,
        sql: &str,
        args: Vec<Arg>,
        mut take: impl FnMut(&Row<'_>) -> Result<ControlFlow<()>, TransferError>,
    ) -> Result<(), TransferError> {
        let mut statement = self.connection.prepare(sql).map_err(|error| wrong(&error))?;
        let binds = args.into_iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let mut rows = statement.query(rusqlite::params_from_iter(binds)).map_err(|error| wrong(&error))?;
        while let Some(row) = rows.next().map_err(|error| wrong(&error))? {
            if take(row)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The values of a row, of which there are `width`.
pub(super) fn values(row: &Row<'_>, width: usize) -> Result<Vec<Value>, TransferError> {
    (0..width).map(|place| row.get_ref(place).map(value).map_err(|error| wrong(&error))).collect()
}

/// A value of one's own.
pub(super) fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(bytes) => {
            str::from_utf8(bytes).map_or_else(|_| Value::BadText(bytes.to_vec()), |text| Value::Text(text.to_owned()))
        }
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

fn bind(arg: Arg) -> Result<Bind, TransferError> {
    let Arg::One(value) = arg else { return Err(TransferError::statement("SQLite takes no column arguments")) };
    Ok(match value {
        Value::Null => Bind::Null,
        Value::Int(number) => Bind::Integer(number),
        Value::Real(number) => Bind::Real(number),
        Value::UInt(number) => Bind::Text(number.to_string()),
        Value::Text(text) => Bind::Text(text),
        Value::Blob(bytes) => Bind::Blob(bytes),
        Value::BadText(_) => return Err(TransferError::statement("a text that is not UTF-8 cannot be bound")),
    })
}

/// The same error as sqlx would have made of it; what only reads leaves no effect in doubt.
fn wrong(error: &rusqlite::Error) -> TransferError {
    TransferError::Sql {
        engine: Engine::Sqlite,
        message: match error {
            rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
            other => other.to_string(),
        },
        code: error.sqlite_error().map(|error| error.extended_code.to_string()),
        position: None,
        effect_unknown: false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::database::ConnectOptions;
    use super::*;

    async fn open(url: &str) -> Database {
        Database::connect(url, ConnectOptions { create: true, ..Default::default() }).await.expect("opens")
    }

    async fn count(session: &mut Session) -> i64 {
        session.number("SELECT count(*) FROM t", Vec::new()).await.expect("reads").expect("is a number")
    }

    fn count_by(reader: &Reader) -> i64 {
        let mut found = None;
        let take = |row: &Row<'_>| {
            found = values(row, 1)?.first().and_then(Value::as_integer);
            Ok(ControlFlow::Continue(()))
        };
        reader.each_row("SELECT count(*) FROM t", Vec::new(), take).expect("reads");
        found.expect("is a number")
    }

    #[tokio::test]
    async fn both_connections_see_one_state_while_another_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.db");
        let file = path.clone();
        let database = open(&format!("sqlite://{}", path.display())).await;
        let mut session = Session::open(&database).await.expect("opens");
        session.run("CREATE TABLE t (a)", Vec::new()).await.expect("makes it");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let writer = std::thread::spawn(move || {
            let connection = Connection::open(&path).expect("opens");
            connection.busy_timeout(SQLITE_BUSY_TIMEOUT).expect("is set");
            connection.execute_batch("PRAGMA synchronous = OFF").expect("is set");
            let mut written = 0;
            while !stopped.load(Ordering::Relaxed) {
                written += connection.execute("INSERT INTO t VALUES (1)", []).expect("writes");
                // Some of the tries shall succeed.
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
            written
        });
        let mut agreed = 0;
        for _ in 0..60 {
            let mut session = Session::open(&database).await.expect("opens");
            let reader = Reader::agree(&mut session, &file).await.expect("begins");
            let before = count(&mut session).await;
            if let Some(reader) = reader {
                agreed += 1;
                assert_eq!(count_by(&reader), before);
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                assert_eq!((count_by(&reader), count(&mut session).await), (before, before), "and goes on seeing it");
            }
        }
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().expect("ends");
        assert!(agreed > 0 && written > 60, "{agreed} of 60, {written} rows");
    }

    #[tokio::test]
    async fn what_has_no_file_is_read_by_the_session_alone() {
        let database = open("sqlite::memory:").await;
        let mut session = Session::open(&database).await.expect("opens");
        session.run("CREATE TABLE t (a)", Vec::new()).await.expect("makes it");
        let Database::Sqlite(pool) = &database else { panic!("it is SQLite") };
        let name = pool.connect_options().get_filename().to_path_buf();
        assert!(Reader::agree(&mut session, &name).await.expect("begins").is_none());
        assert_eq!(count(&mut session).await, 0);
        session.commit().await.expect("there is a transaction");
    }

    #[test]
    fn a_value_comes_as_it_is_stored_and_an_interrupt_ends_the_statement() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.db");
        Connection::open(&path).expect("opens").execute_batch("CREATE TABLE t (a)").expect("makes it");
        let reader = Reader::open(&path).expect("opens");
        let sql = "SELECT NULL, ?1, 1.5, 'x', x'00ff', CAST(x'ff' AS TEXT)";
        let mut found = Vec::new();
        let take = |row: &Row<'_>| {
            found = values(row, 6)?;
            Ok(ControlFlow::Break(()))
        };
        reader.each_row(sql, vec![Arg::One(Value::Int(i64::MIN))], take).expect("reads");
        let (text, bytes, broken) = (Value::Text("x".to_owned()), Value::Blob(vec![0, 255]), Value::BadText(vec![255]));
        assert_eq!(found, [Value::Null, Value::Int(i64::MIN), Value::Real(1.5), text, bytes, broken]);
        let handle = reader.interrupt();
        let endless = "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT n FROM n";
        let take = |row: &Row<'_>| {
            if values(row, 1)?.first().and_then(Value::as_integer) == Some(1_000) {
                handle.interrupt();
            }
            Ok(ControlFlow::Continue(()))
        };
        let error = reader.each_row(endless, Vec::new(), take).expect_err("is ended");
        assert!(error.is_interrupt(), "{error}");
        let error =
            reader.each_row("SELECT b FROM t", Vec::new(), |_| Ok(ControlFlow::Continue(()))).expect_err("none");
        assert!(error.to_string().contains("no such column: b"), "{error}");
    }
}

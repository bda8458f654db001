//! The line to the server: one connection, made again when it was lost, and what is done while it is away.
//!
//! Work that was cut off is repeated on a new connection for as long as the store's patience lasts; every piece of
//! work is written so that doing it twice is the same as doing it once.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Row as _};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::journal::JournalError;

/// Longest time for one piece of work before its connection is taken for dead.
const WORK_MAX: Duration = Duration::from_secs(15);
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The one connection of a store in this process.
pub(super) struct Line {
    options: PgConnectOptions,
    /// The address without its password.
    pub(super) store: String,
    patience: Duration,
    connection: Mutex<Option<PgConnection>>,
}

/// The connection while a piece of work has it. Dropped before it is given back, it is closed: nobody knows its state.
pub(super) struct Held<'l> {
    place: MutexGuard<'l, Option<PgConnection>>,
    connection: PgConnection,
}

impl Held<'_> {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Gives the connection back for the next piece of work.
    pub(super) fn give_back(self) {
        let Self { mut place, connection } = self;
        *place = Some(connection);
    }
}

/// How long one piece of work has been tried.
#[derive(Default)]
pub(super) struct Tries {
    since: Option<Instant>,
    pause: Duration,
}

impl Line {
    pub(super) fn new(options: PgConnectOptions, store: String, patience: Duration) -> Self {
        Self { options, store, patience, connection: Mutex::new(None) }
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// The connection; a new one if there is none.
    pub(super) async fn hold(&self) -> Result<Held<'_>, sqlx::Error> {
        let mut place = self.connection.lock().await;
        let connection = match place.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Held { place, connection })
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let connecting = async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            // An append must be on disk when it is acknowledged, whatever the database's default is.
            let row = sqlx::query(
                "SELECT pg_is_in_recovery(), CASE current_setting('synchronous_commit')
                     WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END",
            )
            .fetch_one(&mut connection)
            .await?;
            if row.try_get(0)? {
                return Err(sqlx::Error::Io(std::io::Error::other("the server is a standby and takes no writes")));
            }
            Ok(connection)
        };
        tokio::time::timeout(WORK_MAX, connecting).await.map_err(|_| slow("no answer to a connection"))?
    }

    /// Waits a moment before the work is done again; gives the error if it cannot help or took too long.
    pub(super) async fn again(&self, tries: &mut Tries, error: sqlx::Error) -> Result<(), JournalError> {
        if !is_passing(&error) {
            return Err(self.fault(error));
        }
        let since = *tries.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.patience {
            return Err(JournalError::Unreachable { store: self.store.clone(), source: error });
        }
        if tries.pause.is_zero() {
            tracing::warn!(store = %self.store, %error, "the line to the store was lost; trying again");
        }
        tries.pause = (tries.pause * 2).clamp(PAUSE_FIRST, PAUSE_MAX);
        tokio::time::sleep(tries.pause).await;
        Ok(())
    }

    /// Tells apart what people can do something about.
    pub(super) fn fault(&self, error: sqlx::Error) -> JournalError {
        let store = self.store.clone();
        match code(&error).as_deref() {
            Some("53100") => JournalError::Full { store },
            None if is_passing(&error) => JournalError::Unreachable { store, source: error },
            Some(_) | None => JournalError::Server { store, source: error },
        }
    }
}

/// Runs a piece of work, bounded in time.
pub(super) async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(WORK_MAX, work).await.map_err(|_| slow("no answer to a statement"))?
}

fn slow(what: &str) -> sqlx::Error {
    let text = format!("{what} within {} seconds", WORK_MAX.as_secs());
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(std::borrow::Cow::into_owned)
}

/// Whether the same work can succeed later by itself: the connection broke, the server stops, starts or has no room for
/// another connection, or two transactions stood in each other's way. The codes are PostgreSQL's SQLSTATEs.
fn is_passing(error: &sqlx::Error) -> bool {
    if let Some(code) = code(error) {
        return code.starts_with("08")
            || matches!(
                &*code,
                "57P01" | "57P02" | "57P03" | "53300" | "40001" | "40P01" | "55P03" | "25P03" | "25006"
            );
    }
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed)
}

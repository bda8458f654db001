//! Opens databases by address and hands out sessions; the only place that knows the drivers' pools.
//!
//! Refuses engines that are not spoken here. Used by every other file of this module and by the database actions.

use std::time::Duration;

use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};

use super::engine::Engine;
use super::error::TransferError;
use super::{mariadb, own, postgres, sqlite};

/// How long a SQLite writer waits for another process's lock.
pub const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Enough for a copy of eight tables at the same time, whose streams are connections of their own.
const CONNECTIONS_MAX: u32 = 16;

/// How to open a database.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// Longest time for one statement, enforced by the server (`statement_timeout`, `max_statement_time`, on MySQL
    /// `max_execution_time`); SQLite has no such setting of its own, there the timeout of the single call counts.
    pub statement_timeout: Option<Duration>,
    /// Refuses every write through this handle.
    pub read_only: bool,
    /// Creates the SQLite file where it does not exist; no meaning for servers.
    pub create: bool,
}

/// An open database; clones share one pool.
#[derive(Clone, Debug)]
pub enum Database {
    /// A SQLite file.
    Sqlite(SqlitePool),
    /// A PostgreSQL server's database.
    Postgres(PgPool),
    /// A MariaDB or MySQL server's database.
    Mariadb(MySqlPool),
}

impl Database {
    /// Opens `url` (`sqlite:///abs/path.db`, `sqlite:rel.db`, `postgres://...`, `mysql://...`, `mariadb://...`) and proves it with one connection.
    pub async fn connect(url: &str, options: ConnectOptions) -> Result<Self, TransferError> {
        let address = without_password(url);
        let bad = |why: String| TransferError::Address { url: address.clone(), why };
        let lost = |source| TransferError::Connect { address: address.clone(), source };
        match url.split(':').next() {
            Some("sqlite") => {
                let opened = sqlite::options(url, &options).map_err(|e| bad(e.to_string()))?;
                let pool = SqlitePoolOptions::new()
                    .max_connections(CONNECTIONS_MAX)
                    .acquire_timeout(CONNECT_TIMEOUT)
                    .connect_with(opened)
                    .await
                    .map_err(lost)?;
                Ok(Self::Sqlite(pool))
            }
            Some("postgres" | "postgresql") => {
                let opened = postgres::options(url, &options).map_err(|e| bad(e.to_string()))?;
                let pool = PgPoolOptions::new()
                    .max_connections(CONNECTIONS_MAX)
                    .acquire_timeout(CONNECT_TIMEOUT)
                    .connect_with(opened)
                    .await
                    .map_err(lost)?;
                Ok(Self::Postgres(pool))
            }
            Some("mysql" | "mariadb") => {
                let opened = mariadb::options(url).map_err(|e| bad(e.to_string()))?;
                let settings = mariadb::settings(&options);
                let pool = MySqlPoolOptions::new()
                    .max_connections(CONNECTIONS_MAX)
                    .acquire_timeout(CONNECT_TIMEOUT)
                    .after_connect(move |connection, _| {
                        let settings = settings.clone();
                        Box::pin(async move {
                            for sql in settings {
                                sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await?;
                            }
                            let (server, number): (String, u64) =
                                sqlx::query_as(own::MARIADB_SESSION).fetch_one(connection).await?;
                            own::opened(&server, number);
                            Ok(())
                        })
                    })
                    .connect_with(opened)
                    .await
                    .map_err(lost)?;
                Ok(Self::Mariadb(pool))
            }
            Some(_) | None => Err(bad("the engine is not one of sqlite, postgres, mysql, mariadb".to_owned())),
        }
    }

    /// The engine behind this handle.
    pub fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
            Self::Mariadb(_) => Engine::Mariadb,
        }
    }

    /// Ends every connection and waits for them.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
            Self::Mariadb(pool) => pool.close().await,
        }
    }
}

/// The address as it may be shown: `postgres://user:***@host/db`.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let Some((user, host)) = rest.rsplit_once('@') else { return url.to_owned() };
    match user.split_once(':') {
        Some((name, _)) => format!("{scheme}://{name}:***@{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_address_has_no_password() {
        assert_eq!(without_password("postgres://wfm:s@cret@db/wfm"), "postgres://wfm:***@db/wfm");
        assert_eq!(without_password("sqlite:rel.db"), "sqlite:rel.db");
    }

    #[tokio::test]
    async fn an_unknown_engine_is_refused_by_name() {
        let error = Database::connect("oracle://x", ConnectOptions::default()).await.expect_err("not spoken");
        assert!(matches!(error, TransferError::Address { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_missing_file_is_a_connect_error_unless_created() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let url = format!("sqlite://{}", folder.path().join("a.db").display());
        let error = Database::connect(&url, ConnectOptions::default()).await.expect_err("no such file");
        assert!(matches!(error, TransferError::Connect { .. }), "{error}");
        let made =
            Database::connect(&url, ConnectOptions { create: true, ..Default::default() }).await.expect("created");
        assert_eq!(made.engine(), Engine::Sqlite);
        made.close().await;
    }
}

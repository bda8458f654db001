//! One connection with a transaction of its own, speaking rows of [`Value`]s to every engine.
//!
//! Refuses to go back into the pool: whatever is dropped half-way is closed, so the engine rolls back. Used by the files that read and
//! write tables; statements of the user go through `statement`.

use futures_util::TryStreamExt;
use sqlx::AssertSqlSafe;
use sqlx::mysql::MySql;
use sqlx::pool::PoolConnection;
use sqlx::postgres::Postgres;
use sqlx::sqlite::Sqlite;

use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;
use super::value::Value;
use super::{mariadb, postgres, sqlite};

/// What a statement is given.
#[derive(Debug, Clone)]
pub(super) enum Arg {
    /// One value; PostgreSQL gets it as text and casts.
    One(Value),
    /// A whole column for `unnest`, PostgreSQL only.
    Column(Vec<Option<String>>),
}

/// How a transaction is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// Takes the write lock at once where the engine has one.
    Write,
    /// Reads one state of the database until the end.
    Snapshot,
}

/// A connection that is used by one task.
#[derive(Debug)]
pub(super) enum Session {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
    Mariadb(PoolConnection<MySql>),
}

impl Session {
    pub(super) async fn open(database: &Database) -> Result<Self, TransferError> {
        let engine = database.engine();
        let lost = |source| TransferError::Connect { address: engine.to_string(), source };
        Ok(match database {
            Database::Sqlite(pool) => {
                let mut connection = pool.acquire().await.map_err(lost)?;
                connection.close_on_drop();
                Self::Sqlite(connection)
            }
            Database::Postgres(pool) => {
                let mut connection = pool.acquire().await.map_err(lost)?;
                connection.close_on_drop();
                Self::Postgres(connection)
            }
            Database::Mariadb(pool) => {
                let mut connection = pool.acquire().await.map_err(lost)?;
                connection.close_on_drop();
                Self::Mariadb(connection)
            }
        })
    }

    pub(super) fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
            Self::Mariadb(_) => Engine::Mariadb,
        }
    }

    pub(super) async fn begin(&mut self, mode: Begin) -> Result<(), TransferError> {
        for sql in self.engine().begin(mode) {
            self.run(sql, Vec::new()).await?;
        }
        Ok(())
    }

    /// Commits; a connection that breaks here leaves the effect unknown.
    pub(super) async fn commit(&mut self) -> Result<(), TransferError> {
        self.run("COMMIT", Vec::new()).await.map(drop)
    }

    pub(super) async fn rollback(&mut self) -> Result<(), TransferError> {
        self.run("ROLLBACK", Vec::new()).await.map(drop)
    }

    /// Runs one statement and returns the number of rows it touched.
    pub(super) async fn run(&mut self, sql: &str, args: Vec<Arg>) -> Result<u64, TransferError> {
        let engine = self.engine();
        let text = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => sqlx::query_with(text, sqlite::arguments(args)?)
                .execute(&mut **connection)
                .await
                .map(|done| done.rows_affected()),
            Self::Postgres(connection) => sqlx::query_with(text, postgres::arguments(args)?)
                .execute(&mut **connection)
                .await
                .map(|done| done.rows_affected()),
            // Not every statement of MySQL can be prepared.
            Self::Mariadb(connection) if args.is_empty() => {
                sqlx::raw_sql(text).execute(&mut **connection).await.map(|done| done.rows_affected())
            }
            Self::Mariadb(connection) => sqlx::query_with(text, mariadb::arguments(args)?)
                .execute(&mut **connection)
                .await
                .map(|done| done.rows_affected()),
        }
        .map_err(|error| TransferError::sql(engine, &error))
    }

    /// Reads every row; on PostgreSQL each column must have been cast to text.
    pub(super) async fn rows(&mut self, sql: &str, args: Vec<Arg>) -> Result<Vec<Vec<Value>>, TransferError> {
        let mut all = Vec::new();
        self.each_row(sql, args, |row| {
            all.push(row);
            Ok(())
        })
        .await?;
        Ok(all)
    }

    /// Hands every row to `take` as it arrives.
    pub(super) async fn each_row(
        &mut self,
        sql: &str,
        args: Vec<Arg>,
        mut take: impl FnMut(Vec<Value>) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let engine = self.engine();
        let wrong = |error: sqlx::Error| TransferError::sql(engine, &error);
        let text = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => {
                let mut stream = sqlx::query_with(text, sqlite::arguments(args)?).fetch(&mut **connection);
                while let Some(row) = stream.try_next().await.map_err(wrong)? {
                    take(sqlite::row(&row).map_err(wrong)?)?;
                }
            }
            Self::Postgres(connection) => {
                let mut stream = sqlx::query_with(text, postgres::arguments(args)?).fetch(&mut **connection);
                while let Some(row) = stream.try_next().await.map_err(wrong)? {
                    take(postgres::row(&row).map_err(wrong)?)?;
                }
            }
            Self::Mariadb(connection) => {
                let mut stream = sqlx::query_with(text, mariadb::arguments(args)?).fetch(&mut **connection);
                while let Some(row) = stream.try_next().await.map_err(wrong)? {
                    take(mariadb::row(&row).map_err(wrong)?)?;
                }
            }
        }
        Ok(())
    }

    /// The one number of a one-row answer; `None` for NULL or no row.
    pub(super) async fn number(&mut self, sql: &str, args: Vec<Arg>) -> Result<Option<i64>, TransferError> {
        let rows = self.rows(sql, args).await?;
        Ok(rows.first().and_then(|row| row.first()).and_then(Value::as_integer))
    }
}

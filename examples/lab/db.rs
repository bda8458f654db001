//! One connection to the databases of a lab, whichever engine they are on.
//!
//! Every statement of the lab names its tables as `wfm65.x`, `wfm76.x`, `truth.x` or `genesys.x`: attached files on SQLite,
//! schemas on PostgreSQL. The statements are the lab's own constants; values are bound or plain integers.

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Connection, Row, TypeInfo, Value, ValueRef};

use super::error::LabError;
use super::settings::{Database, Engine, Lab};

/// A value that goes into or comes out of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arg {
    /// SQL null (bound as text).
    Null,
    /// Any integer.
    Int(i64),
    /// Any text.
    Text(String),
}

impl Arg {
    /// The integer, if it is one.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Null | Self::Text(_) => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Int(_) => None,
        }
    }
}

impl From<i64> for Arg {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl From<&str> for Arg {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Option<&str>> for Arg {
    fn from(text: Option<&str>) -> Self {
        text.map_or(Self::Null, Self::from)
    }
}

/// An open connection.
#[derive(Debug)]
pub enum LabDb {
    /// All four files attached to an empty database in memory.
    Sqlite(Box<sqlx::SqliteConnection>),
    /// The PostgreSQL database that holds the four schemas.
    Postgres(Box<sqlx::PgConnection>),
}

impl LabDb {
    /// Opens all databases of `lab`; `application` is the name that a session list shows.
    pub async fn open(lab: &Lab, application: &str) -> Result<Self, LabError> {
        match lab.options.engine {
            Engine::Sqlite => {
                let options =
                    SqliteConnectOptions::new().filename(":memory:").busy_timeout(std::time::Duration::from_mins(1));
                let connection = options.connect().await.map_err(LabError::sql("connect"))?;
                let mut db = Self::Sqlite(Box::new(connection));
                for database in Database::ALL {
                    let path = lab.sqlite_file(database).display().to_string();
                    let name = database.name();
                    db.execute(&format!("ATTACH DATABASE $1 AS {name}"), &[Arg::Text(path)]).await?;
                    db.batch(&format!("PRAGMA {name}.synchronous = NORMAL")).await?;
                }
                Ok(db)
            }
            Engine::Postgres => {
                let url = lab.options.postgres_url.as_deref().unwrap_or_default();
                let options: PgConnectOptions = url.parse().map_err(LabError::sql("connect"))?;
                let options = options.application_name(application);
                let connection = options.connect().await.map_err(LabError::sql("connect"))?;
                Ok(Self::Postgres(Box::new(connection)))
            }
        }
    }

    /// Creates an empty database of the lab and applies `schemas` in it. Refuses one that is there already.
    pub(super) async fn build(lab: &Lab, database: Database, schemas: &[&str]) -> Result<(), LabError> {
        let mut db = match lab.options.engine {
            Engine::Sqlite => {
                let path = lab.sqlite_file(database);
                if path.exists() {
                    return Err(LabError::Options(format!(
                        "`{}` exists already; give the lab a fresh directory",
                        path.display()
                    )));
                }
                let options = SqliteConnectOptions::new()
                    .filename(&path)
                    .create_if_missing(true)
                    .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
                Self::Sqlite(Box::new(options.connect().await.map_err(LabError::sql("connect"))?))
            }
            Engine::Postgres => {
                let mut db = Self::open(lab, "piton-lab-create").await?;
                let name = database.name();
                db.batch(&format!("CREATE SCHEMA {name}; SET search_path TO {name}")).await?;
                db
            }
        };
        for schema in schemas {
            db.batch(schema).await?;
        }
        db.close().await
    }

    /// Runs a text of one or more statements that bind nothing.
    pub async fn batch(&mut self, sql: &str) -> Result<(), LabError> {
        let text = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Sqlite(db) => text.execute(&mut **db).await.map(|_| ()),
            Self::Postgres(db) => text.execute(&mut **db).await.map(|_| ()),
        }
        .map_err(LabError::sql(sql))
    }

    /// Runs one statement and returns how many rows it changed. Parameters are `$1`, `$2`, ...
    pub async fn execute(&mut self, sql: &str, args: &[Arg]) -> Result<u64, LabError> {
        match self {
            Self::Sqlite(db) => bound(sql, args).execute(&mut **db).await.map(|done| done.rows_affected()),
            Self::Postgres(db) => bound(sql, args).execute(&mut **db).await.map(|done| done.rows_affected()),
        }
        .map_err(LabError::sql(sql))
    }

    /// Runs one query and returns its rows. Columns must be integers or text.
    pub async fn rows(&mut self, sql: &str, args: &[Arg]) -> Result<Vec<Vec<Arg>>, LabError> {
        match self {
            Self::Sqlite(db) => {
                let rows = bound(sql, args).fetch_all(&mut **db).await.map_err(LabError::sql(sql))?;
                rows.iter().map(|row| sqlite_row(sql, row)).collect()
            }
            Self::Postgres(db) => {
                let rows = bound(sql, args).fetch_all(&mut **db).await.map_err(LabError::sql(sql))?;
                rows.iter().map(|row| postgres_row(sql, row)).collect()
            }
        }
    }

    /// The first column of the first row as an integer; null and no row are 0.
    pub async fn number(&mut self, sql: &str, args: &[Arg]) -> Result<i64, LabError> {
        let rows = self.rows(sql, args).await?;
        Ok(rows.first().and_then(|row| row.first()).and_then(Arg::int).unwrap_or(0))
    }

    /// Ends the session in good order.
    pub async fn close(self) -> Result<(), LabError> {
        match self {
            Self::Sqlite(db) => db.close().await,
            Self::Postgres(db) => db.close().await,
        }
        .map_err(LabError::sql("close"))
    }
}

/// A statement with its values bound, for either engine.
fn bound<DB: sqlx::Database>(sql: &str, args: &[Arg]) -> sqlx::query::Query<'static, DB, DB::Arguments>
where
    for<'v> Option<String>: sqlx::Encode<'v, DB> + sqlx::Type<DB>,
    for<'v> String: sqlx::Encode<'v, DB> + sqlx::Type<DB>,
    for<'v> i64: sqlx::Encode<'v, DB> + sqlx::Type<DB>,
{
    args.iter().fold(sqlx::query(AssertSqlSafe(sql.to_owned())), |query, arg| match arg {
        Arg::Null => query.bind(None::<String>),
        Arg::Int(n) => query.bind(*n),
        Arg::Text(text) => query.bind(text.clone()),
    })
}

fn sqlite_row(sql: &str, row: &SqliteRow) -> Result<Vec<Arg>, LabError> {
    (0..row.columns().len())
        .map(|at| {
            let value = row.try_get_raw(at).map_err(LabError::sql(sql))?.to_owned();
            match value.type_info().name() {
                _ if value.is_null() => Ok(Arg::Null),
                "INTEGER" => row.try_get(at).map(Arg::Int).map_err(LabError::sql(sql)),
                "TEXT" => row.try_get(at).map(Arg::Text).map_err(LabError::sql(sql)),
                other => Err(LabError::shape(sql, format!("column `{}` is {other}", row.column(at).name()))),
            }
        })
        .collect()
}

fn postgres_row(sql: &str, row: &PgRow) -> Result<Vec<Arg>, LabError> {
    (0..row.columns().len())
        .map(|at| {
            let value = row.try_get_raw(at).map_err(LabError::sql(sql))?;
            if value.is_null() {
                return Ok(Arg::Null);
            }
            match value.type_info().name() {
                "INT8" => row.try_get(at).map(Arg::Int).map_err(LabError::sql(sql)),
                "INT4" => row.try_get::<i32, _>(at).map(|n| Arg::Int(n.into())).map_err(LabError::sql(sql)),
                "TEXT" | "VARCHAR" => row.try_get(at).map(Arg::Text).map_err(LabError::sql(sql)),
                other => Err(LabError::shape(sql, format!("column `{}` is {other}", row.column(at).name()))),
            }
        })
        .collect()
}

//! Options in an SQL table with the columns `object`, `section`, `name`, `value`, and their history in another.
//!
//! The change and its history row are one transaction. A row whose value is NULL counts as absent. Used by `option`.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

use super::super::databases::Databases;
use super::{OptionName, OptionStore, StoreError};
use crate::site::SqlStore;
use crate::transfer::Database;

/// The options in one table.
pub(crate) struct SqlTable {
    databases: Databases,
    database: String,
    table: String,
    history: Option<String>,
}

const AT: &str = "object = $1 AND section = $2 AND name = $3";
/// The same behind a parameter that comes first.
const AT_2: &str = "object = $2 AND section = $3 AND name = $4";

/// Changes the value in a transaction of any engine; the statements are the same text but for the spelling of `$spell`.
///
/// `$lock` keeps the row, or the place where it would be, from changing.
macro_rules! change {
    ($self:ident, $tx:ident, $at:ident, $expected:ident, $new:ident, $who:ident, $spell:path, $lock:literal) => {{
        let find = $spell(&format!("SELECT value FROM {} WHERE {AT}{}", $self.table, $lock));
        let row = sqlx::query(AssertSqlSafe(find))
            .bind(&$at.object)
            .bind(&$at.section)
            .bind(&$at.name)
            .fetch_optional(&mut *$tx)
            .await
            .map_err(|error| $self.unreachable(&error))?;
        let found: Option<String> = match &row {
            Some(row) => row.try_get(0).map_err(|error| $self.unreachable(&error))?,
            None => None,
        };
        if found.as_deref() != $expected {
            return Err(StoreError::LostUpdate { found });
        }
        let statement = match ($new, &row) {
            (None, _) => format!("DELETE FROM {} WHERE $1 IS NULL AND {AT_2}", $self.table),
            (Some(_), Some(_)) => format!("UPDATE {} SET value = $1 WHERE {AT_2}", $self.table),
            (Some(_), None) => {
                format!("INSERT INTO {} (value, object, section, name) VALUES ($1, $2, $3, $4)", $self.table)
            }
        };
        let query = sqlx::query(AssertSqlSafe($spell(&statement)));
        let query = query.bind($new).bind(&$at.object).bind(&$at.section).bind(&$at.name);
        query.execute(&mut *$tx).await.map_err(|error| $self.unreachable(&error))?;
        if let Some(history) = &$self.history {
            let note = format!(
                "INSERT INTO {history} (at, who, object, section, name, old_value, new_value) VALUES ($1, $2, $3, $4, $5, $6, $7)"
            );
            sqlx::query(AssertSqlSafe($spell(&note)))
                .bind(crate::config::now().to_string())
                .bind($who)
                .bind(&$at.object)
                .bind(&$at.section)
                .bind(&$at.name)
                .bind(found.as_deref())
                .bind($new)
                .execute(&mut *$tx)
                .await
                .map_err(|error| $self.unreachable(&error))?;
        }
        $tx.commit().await.map_err(|error| StoreError::Unknown($self.say(&error)))
    }};
}

impl SqlTable {
    pub(crate) fn new(databases: &Databases, store: &SqlStore) -> Self {
        Self {
            databases: databases.clone(),
            database: store.database.value.clone(),
            table: quoted(&store.table),
            history: store.history.as_deref().map(quoted),
        }
    }

    fn say(&self, error: &dyn std::fmt::Display) -> String {
        format!("option table {} of `{}`: {error}", self.table, self.database)
    }

    fn unreachable(&self, error: &sqlx::Error) -> StoreError {
        StoreError::Unreachable(self.say(error))
    }

    async fn open(&self) -> Result<Database, StoreError> {
        self.databases.get(&self.database).await.map_err(|failure| StoreError::Unreachable(failure.error))
    }

    /// One row of text columns, if there is one.
    async fn row(&self, sql: String, at: &OptionName) -> Result<Option<Vec<Option<String>>>, StoreError> {
        macro_rules! fetch {
            ($pool:expr, $spell:path) => {{
                let query = sqlx::query(AssertSqlSafe($spell(&sql))).bind(&at.object).bind(&at.section).bind(&at.name);
                let row = query.fetch_optional($pool).await.map_err(|error| self.unreachable(&error))?;
                let Some(row) = row else { return Ok(None) };
                let columns: Result<Vec<_>, _> = (0..row.len()).map(|column| row.try_get(column)).collect();
                columns.map(Some).map_err(|error| self.unreachable(&error))
            }};
        }
        match &self.open().await? {
            Database::Sqlite(pool) => fetch!(pool, as_it_stands),
            Database::Postgres(pool) => fetch!(pool, as_it_stands),
            Database::Mariadb(pool) => fetch!(pool, for_mariadb),
        }
    }
}

#[async_trait]
impl OptionStore for SqlTable {
    async fn get(&self, at: &OptionName) -> Result<Option<String>, StoreError> {
        let sql = format!("SELECT value FROM {} WHERE {AT}", self.table);
        let row = self.row(sql, at).await?;
        Ok(row.and_then(|mut columns| columns.pop().flatten()))
    }

    async fn replace(
        &self,
        at: &OptionName,
        expected: Option<&str>,
        new: Option<&str>,
        who: &str,
    ) -> Result<(), StoreError> {
        match self.open().await? {
            Database::Sqlite(pool) => {
                let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(|error| self.unreachable(&error))?;
                change!(self, tx, at, expected, new, who, as_it_stands, "")
            }
            Database::Postgres(pool) => {
                let mut tx = pool.begin().await.map_err(|error| self.unreachable(&error))?;
                // A row that is absent cannot be locked; options change rarely enough to lock the table.
                let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", self.table);
                sqlx::query(AssertSqlSafe(lock)).execute(&mut *tx).await.map_err(|error| self.unreachable(&error))?;
                change!(self, tx, at, expected, new, who, as_it_stands, "")
            }
            Database::Mariadb(pool) => {
                let mut connection = pool.acquire().await.map_err(|error| self.unreachable(&error))?;
                // At this level, the server's default, a locking read also locks the gap where an absent row would be.
                sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    .execute(&mut *connection)
                    .await
                    .map_err(|error| self.unreachable(&error))?;
                let mut tx = connection.begin().await.map_err(|error| self.unreachable(&error))?;
                change!(self, tx, at, expected, new, who, for_mariadb, " FOR UPDATE")
            }
        }
    }

    async fn last_change(&self, at: &OptionName) -> Option<String> {
        let history = self.history.as_ref()?;
        let sql = format!("SELECT who, at FROM {history} WHERE {AT} ORDER BY at DESC LIMIT 1");
        let columns = self.row(sql, at).await.ok().flatten()?;
        let mut columns = columns.into_iter().flatten();
        Some(format!("last changed by {} at {}", columns.next()?, columns.next()?))
    }
}

fn as_it_stands(sql: &str) -> String {
    sql.to_owned()
}

/// The statements of this file in MariaDB's spelling: their parameters stand in order, and nothing else holds a `"` or a `$`.
fn for_mariadb(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut letters = sql.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => text.push('`'),
            '$' if letters.peek().is_some_and(char::is_ascii_digit) => {
                letters.next();
                text.push('?');
            }
            other => text.push(other),
        }
    }
    text
}

/// A table name as an identifier; `schema.table` is two of them.
fn quoted(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    parts.join(".")
}

//! Options in an SQL table with the columns `object`, `section`, `name`, `value`, and their history in another.
//!
//! The change and its history row are one transaction. A row whose value is NULL counts as absent. Used by `option`.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Row as _};

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

/// Changes the value in a transaction of either engine; the statements are the same text.
macro_rules! change {
    ($self:ident, $tx:ident, $at:ident, $expected:ident, $new:ident, $who:ident) => {{
        let find = format!("SELECT value FROM {} WHERE {AT}", $self.table);
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
            (None, _) => format!("DELETE FROM {} WHERE {AT}", $self.table),
            (Some(_), Some(_)) => format!("UPDATE {} SET value = $4 WHERE {AT}", $self.table),
            (Some(_), None) => {
                format!("INSERT INTO {} (object, section, name, value) VALUES ($1, $2, $3, $4)", $self.table)
            }
        };
        let mut query = sqlx::query(AssertSqlSafe(statement)).bind(&$at.object).bind(&$at.section).bind(&$at.name);
        if let Some(value) = $new {
            query = query.bind(value);
        }
        query.execute(&mut *$tx).await.map_err(|error| $self.unreachable(&error))?;
        if let Some(history) = &$self.history {
            let note = format!(
                "INSERT INTO {history} (at, who, object, section, name, old_value, new_value) VALUES ($1, $2, $3, $4, $5, $6, $7)"
            );
            sqlx::query(AssertSqlSafe(note))
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
    async fn row(&self, sql: String, at: &OptionName) -> Result<Option<Vec<Option<String>>>, sqlx::Error> {
        macro_rules! fetch {
            ($pool:expr) => {{
                let query = sqlx::query(AssertSqlSafe(sql)).bind(&at.object).bind(&at.section).bind(&at.name);
                let Some(row) = query.fetch_optional($pool).await? else { return Ok(None) };
                (0..row.len()).map(|column| row.try_get(column)).collect::<Result<Vec<_>, _>>().map(Some)
            }};
        }
        let database = self.open().await.map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
        match &database {
            Database::Sqlite(pool) => fetch!(pool),
            Database::Postgres(pool) => fetch!(pool),
        }
    }
}

#[async_trait]
impl OptionStore for SqlTable {
    async fn get(&self, at: &OptionName) -> Result<Option<String>, StoreError> {
        let sql = format!("SELECT value FROM {} WHERE {AT}", self.table);
        let row = self.row(sql, at).await.map_err(|error| self.unreachable(&error))?;
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
                change!(self, tx, at, expected, new, who)
            }
            Database::Postgres(pool) => {
                let mut tx = pool.begin().await.map_err(|error| self.unreachable(&error))?;
                // A row that is absent cannot be locked; options change rarely enough to lock the table.
                let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", self.table);
                sqlx::query(AssertSqlSafe(lock)).execute(&mut *tx).await.map_err(|error| self.unreachable(&error))?;
                change!(self, tx, at, expected, new, who)
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

/// A table name as an identifier; `schema.table` is two of them.
fn quoted(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    parts.join(".")
}

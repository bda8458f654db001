//! What a database says about its tables: columns with their kinds, defaults and unique keys.
//!
//! Refuses tables that do not exist. Used by `plan`, which holds a mapping against two of these.

use super::engine::Engine;
use super::error::TransferError;
use super::mariadb_value::Members;
use super::session::{Arg, Session};
use super::value::{Kind, Value};
use super::{mariadb, postgres, sqlite};

/// One column of a real table.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The type to cast a parameter to; PostgreSQL always, MariaDB where a plain one would be compared otherwise.
    pub(super) cast: String,
    pub(super) not_null: bool,
    /// The default as an SQL expression.
    pub(super) default: Option<String>,
    /// Computed by the engine; never written.
    pub(super) generated: bool,
    /// Numbered by the engine where nothing is given.
    pub(super) numbered: bool,
    /// What an `ENUM` or `SET` of MariaDB can hold.
    pub(super) members: Option<Members>,
}

/// One real table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) engine: Engine,
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    pub(super) primary_key: Vec<String>,
    /// Sets of columns that are unique, the primary key included.
    pub(super) unique: Vec<Vec<String>>,
    /// False where the engine cannot take back what was written (MyISAM and its like).
    pub(super) transactional: bool,
}

impl Table {
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub(super) fn require(&self, name: &str) -> Result<&Column, TransferError> {
        self.column(name)
            .ok_or_else(|| TransferError::UnknownColumn { table: self.name.clone(), column: name.to_owned() })
    }

    /// The table's name as it stands in SQL.
    pub(super) fn quoted(&self) -> String {
        self.engine.quote_table(&self.name)
    }

    /// Whether some unique key is exactly these columns, in any order.
    pub(super) fn is_unique(&self, columns: &[String]) -> bool {
        let mut wanted = columns.to_vec();
        wanted.sort();
        self.unique.iter().any(|key| {
            let mut key = key.clone();
            key.sort();
            key == wanted
        })
    }
}

pub(super) fn text(value: &Value) -> String {
    value.to_text().unwrap_or_default()
}

pub(super) fn one(name: &str) -> Vec<Arg> {
    vec![Arg::One(Value::Text(name.to_owned()))]
}

/// Describes one table or view.
pub(super) async fn describe(session: &mut Session, name: &str) -> Result<Table, TransferError> {
    let engine = session.engine();
    let table = match engine {
        Engine::Sqlite => sqlite::describe(session, name).await?,
        Engine::Postgres => postgres::describe(session, name).await?,
        Engine::Mariadb => mariadb::describe(session, name).await?,
    };
    if table.columns.is_empty() {
        return Err(TransferError::UnknownTable { engine, table: name.to_owned() });
    }
    Ok(table)
}

/// The names of every ordinary table, engine catalogues and our own bookkeeping left out.
pub(super) async fn tables(session: &mut Session) -> Result<Vec<String>, TransferError> {
    let rows = session.rows(session.engine().tables(), Vec::new()).await?;
    let own = [super::checkpoint::TABLE, super::copy::INDEX_TABLE, "_sqlx_migrations", super::mariadb_migrate::STEPS];
    Ok(rows.iter().filter_map(|row| row.first().map(text)).filter(|name| !own.contains(&name.as_str())).collect())
}

/// Gathers `(group, member)` rows that are sorted by group.
pub(super) fn groups(rows: &[Vec<Value>]) -> Vec<Vec<String>> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        let [group, member, ..] = row.as_slice() else { continue };
        let (group, member) = (text(group), text(member));
        match found.last_mut() {
            Some((last, members)) if *last == group => members.push(member),
            _ => found.push((group, vec![member])),
        }
    }
    found.into_iter().map(|(_, members)| members).collect()
}

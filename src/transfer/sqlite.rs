//! SQLite's own ways: how a file is opened, what goes in and comes out of a statement, what a table looks like.
//!
//! Refuses text that is not UTF-8 as a bind. Used by the files of this module that speak to every engine.

use std::str::FromStr;

use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Column as _, Executor, Row, Statement as _, TypeInfo, ValueRef};

use super::database::{ConnectOptions, SQLITE_BUSY_TIMEOUT};
use super::engine::Engine;
use super::error::TransferError;
use super::schema::{Column, Table, groups, one, text};
use super::session::{Arg, Session};
use super::sql_text::SqlStatement;
use super::statement::{Binds, Rows, collect, distinct_columns};
use super::value::{Affinity, Kind, Value};

pub(super) fn options(url: &str, options: &ConnectOptions) -> Result<SqliteConnectOptions, sqlx::Error> {
    let opened = SqliteConnectOptions::from_str(url)?
        .read_only(options.read_only)
        .create_if_missing(options.create && !options.read_only)
        .busy_timeout(SQLITE_BUSY_TIMEOUT)
        .foreign_keys(true)
        .row_buffer_size(1_000);
    if options.read_only {
        return Ok(opened);
    }
    Ok(opened.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full))
}

pub(super) fn arguments(args: Vec<Arg>) -> Result<SqliteArguments, TransferError> {
    use sqlx::Arguments;
    let mut bound = SqliteArguments::default();
    for arg in args {
        let Arg::One(value) = arg else { return Err(TransferError::statement("SQLite takes no column arguments")) };
        match value {
            Value::Null => bound.add(Option::<i64>::None),
            Value::Int(number) => bound.add(number),
            Value::Real(number) => bound.add(number),
            // Beyond SQLite's numbers; only a comparison with text can meet it.
            Value::UInt(number) => bound.add(number.to_string()),
            Value::Text(text) => bound.add(text),
            Value::Blob(bytes) => bound.add(bytes),
            Value::BadText(_) => return Err(TransferError::statement("a text that is not UTF-8 cannot be bound")),
        }
        .map_err(|error| TransferError::statement(error.to_string()))?;
    }
    Ok(bound)
}

pub(super) fn row(row: &SqliteRow) -> Result<Vec<Value>, sqlx::Error> {
    (0..row.len())
        .map(|i| {
            let raw = row.try_get_raw(i)?;
            if raw.is_null() {
                return Ok(Value::Null);
            }
            Ok(match raw.type_info().name() {
                "INTEGER" => Value::Int(row.try_get_unchecked(i)?),
                "REAL" => Value::Real(row.try_get_unchecked(i)?),
                "TEXT" => {
                    let bytes: Vec<u8> = row.try_get_unchecked(i)?;
                    String::from_utf8(bytes).map_or_else(|e| Value::BadText(e.into_bytes()), Value::Text)
                }
                _ => Value::Blob(row.try_get_unchecked(i)?),
            })
        })
        .collect()
}

/// Describes one table or view.
pub(super) async fn describe(session: &mut Session, name: &str) -> Result<Table, TransferError> {
    let bare = name.rsplit('.').next().unwrap_or(name);
    let sql = "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid";
    let mut columns = Vec::new();
    let mut key: Vec<(i64, String)> = Vec::new();
    for row in session.rows(sql, one(bare)).await? {
        let [column, declared, not_null, default, position, hidden] = row.as_slice() else { continue };
        let column = text(column);
        let position = position.as_integer().unwrap_or(0);
        if position > 0 {
            key.push((position, column.clone()));
        }
        columns.push(Column {
            name: column,
            kind: Kind::Sqlite(Affinity::of(&text(declared))),
            cast: String::new(),
            not_null: not_null.as_integer() == Some(1),
            default: default.to_text(),
            generated: hidden.as_integer().unwrap_or(0) > 1,
            numbered: false,
            members: None,
        });
    }
    key.sort();
    let primary_key: Vec<String> = key.into_iter().map(|(_, column)| column).collect();
    let mut unique = Vec::new();
    if !primary_key.is_empty() {
        unique.push(primary_key.clone());
    }
    let sql = "SELECT i.name, c.name FROM pragma_index_list(?1) i JOIN pragma_index_info(i.name) c \
               WHERE i.\"unique\" = 1 AND i.partial = 0 ORDER BY i.name, c.seqno";
    unique.extend(groups(&session.rows(sql, one(bare)).await?));
    Ok(Table { engine: Engine::Sqlite, name: name.to_owned(), columns, primary_key, unique, transactional: true })
}

/// Runs a query of the user.
pub(super) async fn query(
    session: &mut Session,
    statement: &SqlStatement,
    binds: &Binds,
    keep: usize,
) -> Result<Rows, TransferError> {
    let text = statement.render("", "", |i| format!("?{}", i + 1)).text;
    let Session::Sqlite(connection) = session else {
        return Err(TransferError::statement("not a SQLite session"));
    };
    let prepared = (&mut **connection)
        .prepare(sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(text.clone())))
        .await
        .map_err(|error| TransferError::sql(Engine::Sqlite, &error))?;
    let columns: Vec<String> = prepared.columns().iter().map(|c| c.name().to_owned()).collect();
    drop(prepared);
    let columns = distinct_columns(columns)?;
    collect(session, &text, arguments_of(statement, binds), columns, keep, |_, value| {
        if let Value::BadText(_) = value {
            return Err(TransferError::statement("the result holds text that is not valid UTF-8"));
        }
        Ok(value.to_json())
    })
    .await
}

/// The binds of a statement in the order of its names.
pub(super) fn arguments_of(statement: &SqlStatement, binds: &Binds) -> Vec<Arg> {
    statement.names().iter().map(|name| Arg::One(Value::from_json(&binds[name]))).collect()
}

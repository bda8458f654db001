//! Statements of the user on PostgreSQL: every parameter travels as text and is cast by the engine's own input function.
//!
//! Refuses binds that cannot become the parameter's type. Called by `statement`.

use serde_json::Value as Json;
use sqlx::{AssertSqlSafe, Column as _, Either, Executor, Statement as _};

use super::engine::Engine;
use super::error::TransferError;
use super::session::{Arg, Session};
use super::sql_text::{Rewritten, SqlStatement};
use super::statement::{Binds, Rows, collect, distinct_columns, number_json};
use super::value::Value;

/// What PostgreSQL says about a statement: the parameters' types and the columns.
pub(super) struct Described {
    types: Vec<String>,
    pub(super) args: Vec<Arg>,
    columns: Vec<(String, u32)>,
}

impl Described {
    /// Every parameter travels as text and is cast by the engine's own input function.
    pub(super) fn parameter(&self, index: usize) -> String {
        format!("(${}::text)::{}", index + 1, self.types[index])
    }
}

pub(super) async fn describe(
    session: &mut Session,
    statement: &SqlStatement,
    binds: &Binds,
    must_return: bool,
) -> Result<Described, TransferError> {
    let text = statement.render("", "", |i| format!("${}", i + 1));
    let names = statement.names();
    let (oids, columns) = {
        let Session::Postgres(connection) = &mut *session else {
            return Err(TransferError::statement("not a PostgreSQL session"));
        };
        let prepared = (&mut **connection)
            .prepare(sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(text.text.clone())))
            .await
            .map_err(|error| at_caller(TransferError::sql(Engine::Postgres, &error), &text))?;
        let oids: Vec<u32> = match prepared.parameters() {
            Some(Either::Left(types)) => types.iter().map(|t| t.oid().map_or(0, |oid| oid.0)).collect(),
            Some(Either::Right(_)) | None => Vec::new(),
        };
        let columns: Vec<(String, u32)> = prepared
            .columns()
            .iter()
            .map(|c| (c.name().to_owned(), c.type_info().oid().map_or(0, |oid| oid.0)))
            .collect();
        (oids, columns)
    };
    if must_return && columns.is_empty() {
        return Err(TransferError::statement("the statement returns no rows; use `db.execute` for changes"));
    }
    let mut types = Vec::new();
    let mut args = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let oid = oids.get(i).copied().unwrap_or(0);
        let sql = format!("SELECT format_type({oid}::oid, -1), typcategory::text FROM pg_type WHERE oid = {oid}");
        let known = session.rows(&sql, Vec::new()).await?;
        let Some([Value::Text(to), Value::Text(category)]) = known.first().map(Vec::as_slice) else {
            return Err(TransferError::BindType {
                name: name.clone(),
                to: format!("type {oid}"),
                why: "the engine does not know the type".to_owned(),
            });
        };
        args.push(Arg::One(bind_text(name, &binds[name], to, category)?));
        types.push(to.clone());
    }
    Ok(Described { types, args, columns })
}

/// The text form of a bind for a parameter of type `to`; the engine's input function has the last word on it.
fn bind_text(name: &str, given: &Json, to: &str, category: &str) -> Result<Value, TransferError> {
    let wrong = |why: &str| TransferError::BindType { name: name.to_owned(), to: to.to_owned(), why: why.to_owned() };
    let is_json = to == "json" || to == "jsonb";
    if is_json && !given.is_null() {
        let text = given.to_string();
        return if text.contains("\\u0000") { Err(wrong("it holds a NUL character")) } else { Ok(Value::Text(text)) };
    }
    Ok(match given {
        Json::Null => Value::Null,
        Json::Bool(flag) if matches!(category, "B" | "S") => Value::Text(flag.to_string()),
        Json::Bool(_) => return Err(wrong("a truth value is given")),
        Json::Number(number) if matches!(category, "N" | "S") => Value::Text(number.to_string()),
        Json::Number(_) => return Err(wrong("a number is given")),
        Json::String(text) if text.contains('\0') => return Err(wrong("it holds a NUL character")),
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) if category == "A" => Value::Text(array_text(items).ok_or_else(|| wrong("nested values"))?),
        Json::Array(_) => return Err(wrong("a list is given")),
        Json::Object(_) => return Err(wrong("a map is given")),
    })
}

/// PostgreSQL's array literal (its manual, section 8.15.2).
fn array_text(items: &[Json]) -> Option<String> {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let parts: Option<Vec<String>> = items
        .iter()
        .map(|item| match item {
            Json::Null => Some("NULL".to_owned()),
            Json::Bool(flag) => Some(flag.to_string()),
            Json::Number(number) => Some(number.to_string()),
            Json::String(text) => Some(quoted(text)),
            Json::Array(_) | Json::Object(_) => None,
        })
        .collect();
    Some(format!("{{{}}}", parts?.join(",")))
}

pub(super) fn at_caller(error: TransferError, text: &Rewritten) -> TransferError {
    let mut error = error;
    if let TransferError::Sql { position, .. } = &mut error {
        *position = position.and_then(|at| text.original(at));
    }
    error
}

/// Runs a query of the user.
pub(super) async fn query(
    session: &mut Session,
    statement: &SqlStatement,
    binds: &Binds,
    keep: usize,
) -> Result<Rows, TransferError> {
    let described = describe(session, statement, binds, true).await?;
    let columns = distinct_columns(described.columns.iter().map(|(name, _)| name.clone()).collect())?;
    let names: Vec<String> = (0..columns.len()).map(|i| format!("c{i}")).collect();
    let wrapped = matches!(statement.verb(), "SELECT" | "VALUES" | "WITH" | "TABLE" | "INSERT" | "UPDATE" | "DELETE");
    let text = if wrapped && !columns.is_empty() {
        let shown: Vec<String> = described
            .columns
            .iter()
            .zip(&names)
            .map(|((_, oid), name)| match *oid {
                oid if is_number(oid) => format!("q.{name}::text"),
                _ => format!("to_jsonb(q.{name})::text"),
            })
            .collect();
        let prefix = format!("WITH q({}) AS (", names.join(", "));
        let suffix = format!("\n) SELECT {} FROM q", shown.join(", "));
        statement.render(&prefix, &suffix, |i| described.parameter(i))
    } else {
        statement.render("", "", |i| described.parameter(i))
    };
    let oids: Vec<u32> = described.columns.iter().map(|(_, oid)| *oid).collect();
    collect(session, &text.text, described.args, columns, keep, |i, value| {
        let Value::Text(found) = value else { return Ok(Json::Null) };
        Ok(match oids[i] {
            oid if is_number(oid) => number_json(&found),
            _ if wrapped => serde_json::from_str(&found).unwrap_or(Json::String(found)),
            _ => Json::String(found),
        })
    })
    .await
    .map_err(|error| at_caller(error, &text))
}

/// `int2 int4 int8 oid float4 float8 numeric` by their fixed object ids (pg_type.dat).
fn is_number(oid: u32) -> bool {
    matches!(oid, 20 | 21 | 23 | 26 | 700 | 701 | 1700)
}

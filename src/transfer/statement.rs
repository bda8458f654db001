//! Statements of the user: queries, changes and assertions with named parameters.
//!
//! Values are always bound, never pasted into the text. Refuses missing and unused binds, several statements where one is meant, and
//! transaction control inside of a change. A timeout interrupts the statement in the engine. Called by the `db.*` actions.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use sqlx::{AssertSqlSafe, Column as _, Either, Executor, Statement as _};

use super::database::{Database, Engine};
use super::error::TransferError;
use super::session::{Arg, Begin, Session};
use super::sql_text::{self, SqlStatement};
use super::value::{Value, decimal, real_text};

/// Named values for the `:names` of a statement.
pub type Binds = BTreeMap<String, Json>;

/// How long a statement may take and how many rows are kept.
#[derive(Debug, Clone, Copy)]
pub struct StatementOptions {
    /// Interrupts the statement after this long; `None` waits for ever.
    pub timeout: Option<Duration>,
    /// Rows beyond this number are counted but not kept.
    pub keep_rows: usize,
}

impl Default for StatementOptions {
    fn default() -> Self {
        Self { timeout: None, keep_rows: 10_000 }
    }
}

/// What a query returned.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Column names in order.
    pub columns: Vec<String>,
    /// The first rows, each a map from column to value; at most `keep_rows`.
    pub rows: Vec<serde_json::Map<String, Json>>,
    /// How many rows there were in all.
    pub counted: u64,
}

/// What an assertion wants of its query.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Expect {
    /// The query finds nothing; what it finds is the evidence against.
    #[default]
    NoRows,
    /// The query finds exactly so many rows.
    Rows(u64),
    /// The first column of the first row equals this.
    Value(Json),
}

/// The answer to an assertion.
#[derive(Debug, Clone, PartialEq)]
pub struct AssertOutcome {
    /// Whether the expectation was met.
    pub holds: bool,
    /// The first rows that were found.
    pub evidence: Rows,
    /// How many rows were found in all.
    pub counted: u64,
}

/// Runs one statement that returns rows. The statement is committed if it changes something (`INSERT .. RETURNING`).
pub async fn query(
    database: &Database,
    sql: &str,
    binds: &Binds,
    options: StatementOptions,
) -> Result<Rows, TransferError> {
    let statement = one_statement(sql, database.engine())?;
    check_binds(std::slice::from_ref(&statement), binds)?;
    let mut session = Session::open(database).await?;
    let reads = matches!(statement.verb(), "SELECT" | "VALUES" | "WITH" | "TABLE" | "EXPLAIN" | "PRAGMA" | "SHOW");
    let begin = match database.engine() {
        Engine::Sqlite if reads => Begin::Snapshot,
        Engine::Sqlite | Engine::Postgres => Begin::Write,
    };
    let transaction = statement.verb() != "PRAGMA";
    let guard = Interrupt::arm(database, &mut session, options.timeout).await?;
    let rows = guard
        .watch(async {
            if transaction {
                session.begin(begin).await?;
            }
            match &mut session {
                Session::Sqlite(_) => query_sqlite(&mut session, &statement, binds, options.keep_rows).await,
                Session::Postgres(_) => query_postgres(&mut session, &statement, binds, options.keep_rows).await,
            }
        })
        .await?;
    if transaction {
        guard.watch_commit(session.commit(), reads).await?;
    }
    Ok(rows)
}

/// Runs one or several statements, parted by `;`, in one transaction and returns the number of affected rows in all.
pub async fn execute(
    database: &Database,
    sql: &str,
    binds: &Binds,
    options: StatementOptions,
) -> Result<u64, TransferError> {
    let statements = sql_text::split(sql, database.engine())?;
    if statements.is_empty() {
        return Err(TransferError::statement("the text holds no statement"));
    }
    for statement in &statements {
        let control = ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE"];
        if control.contains(&statement.verb()) {
            return Err(TransferError::statement(format!(
                "`{}` is not allowed here: the whole text runs in one transaction of its own",
                statement.verb()
            )));
        }
    }
    check_binds(&statements, binds)?;
    let mut session = Session::open(database).await?;
    let guard = Interrupt::arm(database, &mut session, options.timeout).await?;
    let affected = guard
        .watch(async {
            session.begin(Begin::Write).await?;
            let mut affected = 0;
            for statement in &statements {
                affected += execute_one(&mut session, statement, binds).await?;
            }
            Ok(affected)
        })
        .await?;
    guard.watch_commit(session.commit(), false).await?;
    Ok(affected)
}

/// Runs a query and judges what it found; `options.keep_rows` limits the evidence.
pub async fn assert(
    database: &Database,
    sql: &str,
    binds: &Binds,
    expect: &Expect,
    options: StatementOptions,
) -> Result<AssertOutcome, TransferError> {
    let keep_rows = options.keep_rows.max(1);
    let evidence = query(database, sql, binds, StatementOptions { keep_rows, ..options }).await?;
    let counted = evidence.counted;
    let holds = match expect {
        Expect::NoRows => counted == 0,
        Expect::Rows(wanted) => counted == *wanted,
        Expect::Value(wanted) => {
            let found = evidence.rows.first().and_then(|row| row.values().next());
            found.is_some_and(|found| same_json(found, wanted))
        }
    };
    Ok(AssertOutcome { holds, evidence, counted })
}

/// Numbers are equal by value (`1` and `1.0`), everything else by form.
fn same_json(found: &Json, wanted: &Json) -> bool {
    let number = |value: &Json| match value {
        Json::Number(number) => decimal(&number.to_string()),
        Json::String(text) => decimal(text),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    };
    if found == wanted {
        return true;
    }
    let boolean = |value: &Json| value.as_bool().map(|b| if b { "1".to_owned() } else { "0".to_owned() });
    match (number(found), number(wanted)) {
        (Some(a), Some(b)) => (found.is_number() || wanted.is_number()) && a == b,
        // SQLite has no truth values of its own.
        (Some(a), None) => found.is_number() && boolean(wanted) == Some(a),
        (None, Some(_) | None) => false,
    }
}

fn one_statement(sql: &str, engine: Engine) -> Result<SqlStatement, TransferError> {
    let mut statements = sql_text::split(sql, engine)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        (Some(_), false) => Err(TransferError::statement("a query is one statement; this text holds several")),
        (None, _) => Err(TransferError::statement("the text holds no statement")),
    }
}

fn check_binds(statements: &[SqlStatement], binds: &Binds) -> Result<(), TransferError> {
    let wanted: BTreeSet<String> = statements.iter().flat_map(SqlStatement::names).collect();
    let missing: Vec<String> = wanted.iter().filter(|name| !binds.contains_key(*name)).cloned().collect();
    let unused: Vec<String> = binds.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
    if missing.is_empty() && unused.is_empty() { Ok(()) } else { Err(TransferError::Binds { missing, unused }) }
}

fn sqlite_args(statement: &SqlStatement, binds: &Binds) -> Vec<Arg> {
    statement.names().iter().map(|name| Arg::One(Value::from_json(&binds[name]))).collect()
}

async fn execute_one(session: &mut Session, statement: &SqlStatement, binds: &Binds) -> Result<u64, TransferError> {
    match session.engine() {
        Engine::Sqlite => {
            let text = statement.render("", "", |i| format!("?{}", i + 1));
            session.run(&text.text, sqlite_args(statement, binds)).await
        }
        Engine::Postgres => {
            let described = describe_postgres(session, statement, binds, false).await?;
            let text = statement.render("", "", |i| described.parameter(i));
            session.run(&text.text, described.args).await.map_err(|error| at_caller(error, &text))
        }
    }
}

async fn query_sqlite(
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
    collect(session, &text, sqlite_args(statement, binds), columns, keep, |_, value| {
        if let Value::BadText(_) = value {
            return Err(TransferError::statement("the result holds text that is not valid UTF-8"));
        }
        Ok(value.to_json())
    })
    .await
}

async fn query_postgres(
    session: &mut Session,
    statement: &SqlStatement,
    binds: &Binds,
    keep: usize,
) -> Result<Rows, TransferError> {
    let described = describe_postgres(session, statement, binds, true).await?;
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

async fn collect(
    session: &mut Session,
    sql: &str,
    args: Vec<Arg>,
    columns: Vec<String>,
    keep: usize,
    show: impl Fn(usize, Value) -> Result<Json, TransferError>,
) -> Result<Rows, TransferError> {
    let mut found = Rows { columns, rows: Vec::new(), counted: 0 };
    session
        .each_row(sql, args, |row| {
            found.counted += 1;
            if found.rows.len() < keep {
                let mut shown = serde_json::Map::new();
                for (i, value) in row.into_iter().enumerate() {
                    shown.insert(found.columns[i].clone(), show(i, value)?);
                }
                found.rows.push(shown);
            }
            Ok(())
        })
        .await?;
    Ok(found)
}

fn distinct_columns(columns: Vec<String>) -> Result<Vec<String>, TransferError> {
    let mut seen = BTreeSet::new();
    match columns.iter().find(|name| !seen.insert((*name).clone())) {
        Some(twice) => Err(TransferError::statement(format!("column `{twice}` appears twice: rename one with AS"))),
        None => Ok(columns),
    }
}

/// `int2 int4 int8 oid float4 float8 numeric` by their fixed object ids (pg_type.dat).
fn is_number(oid: u32) -> bool {
    matches!(oid, 20 | 21 | 23 | 26 | 700 | 701 | 1700)
}

/// A JSON number where JSON's numbers hold it exactly, else the digits as a string.
fn number_json(text: &str) -> Json {
    if let Ok(whole) = text.parse::<i64>() {
        return whole.into();
    }
    let exact = decimal(text);
    match text.parse::<f64>() {
        Ok(real) if real.is_finite() && exact.is_some() && decimal(&real_text(real)) == exact => real.into(),
        Ok(_) | Err(_) => Json::String(text.to_owned()),
    }
}

/// What PostgreSQL says about a statement: the parameters' types and the columns.
struct Described {
    types: Vec<String>,
    args: Vec<Arg>,
    columns: Vec<(String, u32)>,
}

impl Described {
    /// Every parameter travels as text and is cast by the engine's own input function.
    fn parameter(&self, index: usize) -> String {
        format!("(${}::text)::{}", index + 1, self.types[index])
    }
}

async fn describe_postgres(
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

fn at_caller(error: TransferError, text: &sql_text::Rewritten) -> TransferError {
    let mut error = error;
    if let TransferError::Sql { position, .. } = &mut error {
        *position = position.and_then(|at| text.original(at));
    }
    error
}

/// Stops a statement inside of the engine when time is up.
struct Interrupt {
    limit: Option<Duration>,
    backend: Option<(Database, i64)>,
}

/// How long a cancelled statement may take to admit it.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

impl Interrupt {
    async fn arm(database: &Database, session: &mut Session, limit: Option<Duration>) -> Result<Self, TransferError> {
        let Some(limit) = limit else { return Ok(Self { limit: None, backend: None }) };
        let backend = match session {
            Session::Sqlite(connection) => {
                let deadline = Instant::now() + limit;
                let mut handle =
                    connection.lock_handle().await.map_err(|error| TransferError::sql(Engine::Sqlite, &error))?;
                handle.set_progress_handler(1_000, move || Instant::now() < deadline);
                None
            }
            Session::Postgres(_) => {
                let pid = session.number("SELECT pg_backend_pid()::text", Vec::new()).await?;
                pid.map(|pid| (database.clone(), pid))
            }
        };
        Ok(Self { limit: Some(limit), backend })
    }

    /// Runs the part before the commit: if the engine confirms the interruption, nothing was changed.
    async fn watch<T>(&self, work: impl Future<Output = Result<T, TransferError>>) -> Result<T, TransferError> {
        let Some(limit) = self.limit else { return work.await.map_err(|e| self.settle(e)) };
        let mut work = std::pin::pin!(work);
        if let Ok(done) = tokio::time::timeout(limit, &mut work).await {
            return done.map_err(|e| self.settle(e));
        }
        if let Some((database, pid)) = &self.backend {
            cancel_backend(database, *pid).await;
        }
        match tokio::time::timeout(CANCEL_GRACE, &mut work).await {
            Ok(done) => done.map_err(|e| self.settle(e)),
            Err(_) => Err(TransferError::Timeout { after: limit, effect_unknown: true }),
        }
    }

    async fn watch_commit(
        &self,
        commit: impl Future<Output = Result<(), TransferError>>,
        reads: bool,
    ) -> Result<(), TransferError> {
        let done = match self.limit {
            Some(limit) => match tokio::time::timeout(limit + CANCEL_GRACE, commit).await {
                Ok(done) => done,
                Err(_) => return Err(TransferError::Timeout { after: limit, effect_unknown: !reads }),
            },
            None => commit.await,
        };
        done.map_err(|e| self.settle(e))
    }

    fn settle(&self, error: TransferError) -> TransferError {
        if error.is_interrupt() {
            return TransferError::Timeout { after: self.limit.unwrap_or_default(), effect_unknown: false };
        }
        error
    }
}

/// Asks the server, over another connection, to cancel what the backend does; a failure only means that we wait for the grace period.
async fn cancel_backend(database: &Database, pid: i64) {
    let asked = async {
        let mut other = Session::open(database).await?;
        other.rows(&format!("SELECT pg_cancel_backend({pid})::text"), Vec::new()).await
    };
    if let Ok(Err(error)) = tokio::time::timeout(CANCEL_GRACE, asked).await {
        tracing::warn!(%error, pid, "the statement could not be cancelled");
    }
}

//! Statements of the user: queries, changes and assertions with named parameters.
//!
//! Values are always bound, never pasted into the text. Refuses missing and unused binds, several statements where one is meant, and
//! transaction control inside of a change. A timeout interrupts the statement in the engine. Called by the `db.*` actions.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;
use super::session::{Arg, Begin, Session};
use super::sql_text::{self, SqlStatement};
use super::value::{Value, decimal, real_text};
use super::{mariadb_statement, postgres_statement, sqlite};

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
    let reads =
        matches!(statement.verb(), "SELECT" | "VALUES" | "WITH" | "TABLE" | "EXPLAIN" | "PRAGMA" | "SHOW" | "DESCRIBE");
    let begin = match database.engine() {
        Engine::Sqlite if reads => Begin::Snapshot,
        Engine::Sqlite | Engine::Postgres | Engine::Mariadb => Begin::Write,
    };
    let transaction = statement.verb() != "PRAGMA";
    let guard = Interrupt::arm(database, &mut session, options.timeout).await?;
    let rows = guard
        .watch(async {
            if transaction {
                session.begin(begin).await?;
            }
            match &mut session {
                Session::Sqlite(_) => sqlite::query(&mut session, &statement, binds, options.keep_rows).await,
                Session::Postgres(_) => {
                    postgres_statement::query(&mut session, &statement, binds, options.keep_rows).await
                }
                Session::Mariadb(_) => {
                    mariadb_statement::query(&mut session, &statement, binds, options.keep_rows).await
                }
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
    if database.engine() == Engine::Mariadb {
        statements.iter().try_for_each(mariadb_statement::refuse_control)?;
    }
    check_binds(&statements, binds)?;
    let mut session = Session::open(database).await?;
    let guard = Interrupt::arm(database, &mut session, options.timeout).await?;
    let affected = guard
        .watch(async {
            session.begin(Begin::Write).await?;
            if session.engine() == Engine::Mariadb {
                return mariadb_statement::execute(&mut session, &statements, binds).await;
            }
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

async fn execute_one(session: &mut Session, statement: &SqlStatement, binds: &Binds) -> Result<u64, TransferError> {
    match session.engine() {
        Engine::Sqlite => {
            let text = statement.render("", "", |i| format!("?{}", i + 1));
            session.run(&text.text, sqlite::arguments_of(statement, binds)).await
        }
        Engine::Mariadb => mariadb_statement::execute(session, std::slice::from_ref(statement), binds).await,
        Engine::Postgres => {
            let described = postgres_statement::describe(session, statement, binds, false).await?;
            let text = statement.render("", "", |i| described.parameter(i));
            session.run(&text.text, described.args).await.map_err(|error| postgres_statement::at_caller(error, &text))
        }
    }
}

pub(super) async fn collect(
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

pub(super) fn distinct_columns(columns: Vec<String>) -> Result<Vec<String>, TransferError> {
    let mut seen = BTreeSet::new();
    match columns.iter().find(|name| !seen.insert((*name).clone())) {
        Some(twice) => Err(TransferError::statement(format!("column `{twice}` appears twice: rename one with AS"))),
        None => Ok(columns),
    }
}

/// A JSON number where JSON's numbers hold it exactly, else the digits as a string.
pub(super) fn number_json(text: &str) -> Json {
    if let Ok(whole) = text.parse::<i64>() {
        return whole.into();
    }
    let exact = decimal(text);
    match text.parse::<f64>() {
        Ok(real) if real.is_finite() && exact.is_some() && decimal(&real_text(real)) == exact => real.into(),
        Ok(_) | Err(_) => Json::String(text.to_owned()),
    }
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
            Session::Mariadb(_) => {
                let id = session.number("SELECT CONNECTION_ID()", Vec::new()).await?;
                id.map(|id| (database.clone(), id))
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
        match other.engine() {
            Engine::Mariadb => other.run(&format!("KILL QUERY {pid}"), Vec::new()).await.map(drop),
            Engine::Postgres | Engine::Sqlite => {
                other.rows(&format!("SELECT pg_cancel_backend({pid})::text"), Vec::new()).await.map(drop)
            }
        }
    };
    if let Ok(Err(error)) = tokio::time::timeout(CANCEL_GRACE, asked).await {
        tracing::warn!(%error, pid, "the statement could not be cancelled");
    }
}

//! `db.query`, `db.assert`, `db.execute`, `db.migrate`: SQL of the author's, with bound values only.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Action, Context, Failure, Preview};
use crate::event::{Effect, Outputs};
use crate::spec::actions::{DbAssert, DbMigrate, DbSql, Expect};
use crate::spec::values::Millis;
use crate::transfer::{self, Limits, StatementOptions, TransferError};

/// Most rows that an output or an evidence keeps.
const ROWS_KEPT: usize = 1_000;
/// Rows that an error message shows.
const ROWS_SHOWN: usize = 5;

/// A query: only looks.
pub struct Query(pub DbSql);

/// A statement that changes something.
pub struct Execute(pub DbSql);

/// What a database error says about the world.
pub fn failure(error: &TransferError) -> Failure {
    let effect = if error.effect_unknown() { Effect::Unknown } else { Effect::None };
    Failure { error: error.to_string(), effect, retryable: true }
}

/// How long the statements of a copy or comparison may take and wait.
pub(super) fn limits(statement: Option<Millis>, lock: Option<Millis>) -> Limits {
    Limits { statement: statement.map(Millis::duration), lock: lock.map(Millis::duration) }
}

/// The SQL itself: the text of a file that was read when the plan was made, or the text as it stands.
pub fn sql_text<'a>(cx: &'a Context, sql: &'a str) -> &'a str {
    cx.files.get(sql).map_or(sql, String::as_str)
}

fn options(keep_rows: usize) -> StatementOptions {
    StatementOptions { keep_rows, ..StatementOptions::default() }
}

/// Runs `work` unless the attempt is cancelled; its own timeout really cancels the statement.
async fn unless_cancelled<T>(
    cx: &Context,
    effect: Effect,
    work: impl Future<Output = Result<T, TransferError>>,
) -> Result<T, Failure> {
    tokio::select! {
        result = work => result.map_err(|error| failure(&error)),
        () = cx.cancel.cancelled() => Err(Failure { error: "the statement was cancelled".into(), effect, retryable: true }),
    }
}

#[async_trait]
impl Action for Query {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let database = cx.databases.get(&self.0.database).await?;
        let sql = sql_text(cx, &self.0.sql);
        let work = transfer::query(&database, sql, &self.0.bind, options(ROWS_KEPT));
        let rows = unless_cancelled(cx, Effect::None, work).await?;
        let first = rows.rows.first().cloned().map_or(Value::Null, Value::Object);
        Ok(Outputs::from([
            ("rows".to_owned(), json!(rows.rows)),
            ("row".to_owned(), first),
            ("count".to_owned(), rows.counted.into()),
        ]))
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::NoChange(format!("reads from `{}`", self.0.database))
    }
}

#[async_trait]
impl Action for Execute {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let database = cx.databases.get(&self.0.database).await?;
        let sql = sql_text(cx, &self.0.sql);
        let work = transfer::execute(&database, sql, &self.0.bind, options(0));
        let affected = unless_cancelled(cx, Effect::Unknown, work).await?;
        Ok(Outputs::from([("rows_affected".to_owned(), affected.into())]))
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::Unknown(format!("executes SQL on `{}`", self.0.database))
    }
}

#[async_trait]
impl Action for DbAssert {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let database = cx.databases.get(&self.database).await?;
        let expect = match &self.expect {
            Expect::NoRows => transfer::Expect::NoRows,
            Expect::That(that) => match (&that.rows, &that.value) {
                (Some(rows), _) => transfer::Expect::Rows(*rows),
                (None, Some(value)) => transfer::Expect::Value(value.clone()),
                (None, None) => transfer::Expect::NoRows,
            },
        };
        let sql = sql_text(cx, &self.sql);
        let work = transfer::assert(&database, sql, &self.bind, &expect, options(ROWS_SHOWN));
        let outcome = unless_cancelled(cx, Effect::None, work).await?;
        if outcome.holds {
            return Ok(Outputs::from([("count".to_owned(), outcome.counted.into())]));
        }
        let wanted = match &expect {
            transfer::Expect::NoRows => "no rows".to_owned(),
            transfer::Expect::Rows(rows) => format!("{rows} rows"),
            transfer::Expect::Value(value) => format!("the value `{value}`"),
        };
        let rows: Vec<String> = outcome.evidence.rows.iter().map(|row| json!(row).to_string()).collect();
        let found = if rows.is_empty() { "none".to_owned() } else { rows.join(", ") };
        let error = format!("expected {wanted}, found {} row(s): {found}", outcome.counted);
        Err(Failure::harmless(error))
    }

    async fn preview(&self, cx: &Context) -> Preview {
        match self.run(cx, &Value::Null).await {
            Ok(_) => Preview::NoChange("holds now".into()),
            Err(failure) => Preview::Unknown(format!("does not hold now: {}", failure.error)),
        }
    }
}

#[async_trait]
impl Action for DbMigrate {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let database = cx.databases.get(&self.database).await?;
        let migrations = cx.migrations(&self.folder)?;
        let applied = unless_cancelled(cx, Effect::Unknown, transfer::apply(&database, &migrations)).await?;
        Ok(Outputs::from([("applied".to_owned(), json!(applied))]))
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::Unknown(format!("applies what is missing of `{}` to `{}`", self.folder, self.database))
    }
}

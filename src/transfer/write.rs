//! Finds and changes the rows of one planned table by key: look-ups, inserts, updates; each engine has its own way.
//!
//! Writes in the caller's transaction only. Used by `copy`, `overlap` and `compare`.

use super::engine::Engine;
use super::error::TransferError;
use super::plan::TablePlan;
use super::rows::MappedRow;
use super::schema::{Column, Table};
use super::session::Session;
use super::value::Value;
use super::{mariadb_rows, postgres_copy, postgres_rows, sqlite_rows};

/// What an update does to the row that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Sets the mapped columns; with `reset` the target-only ones go back to their defaults.
    Overwrite { reset: bool },
    /// Adds the additive columns and leaves everything else.
    Add,
}

/// Finds rows of `table` by key; the answer has one entry per key, `None` where there is no such row.
///
/// `lock` keeps the found rows from changing until the transaction ends (SQLite's writers are alone anyway).
pub(super) async fn find(
    session: &mut Session,
    table: &Table,
    key: &[Column],
    keys: &[Vec<Value>],
    columns: &[Column],
    lock: bool,
) -> Result<Vec<Option<Vec<Value>>>, TransferError> {
    match session.engine() {
        Engine::Sqlite => sqlite_rows::find(session, table, key, keys, columns).await,
        Engine::Postgres => postgres_rows::find(session, table, key, keys, columns, lock).await,
        Engine::Mariadb => mariadb_rows::find(session, table, key, keys, columns, lock).await,
    }
}

/// Puts the rows of an answer, which begin with their key's position from 1, where they belong.
pub(super) fn place(found: &mut [Option<Vec<Value>>], first: usize, mut row: Vec<Value>) {
    let values = row.split_off(1);
    let position = row[0].as_integer().and_then(|o| usize::try_from(o).ok()).unwrap_or(0);
    if let Some(slot) = found.get_mut(first + position.saturating_sub(1)) {
        *slot = Some(values);
    }
}

/// Inserts rows that are expected to be new; returns how many really were.
///
/// A key that another writer inserted in between is left out, or the engine's error.
pub(super) async fn insert(session: &mut Session, plan: &TablePlan, rows: &[Vec<Value>]) -> Result<u64, TransferError> {
    if rows.is_empty() {
        return Ok(0);
    }
    match session.engine() {
        Engine::Sqlite => sqlite_rows::insert(session, plan, rows).await,
        Engine::Postgres => postgres_rows::insert(session, plan, rows).await,
        Engine::Mariadb => mariadb_rows::insert(session, plan, rows).await,
    }
}

/// Inserts rows of which the target holds none, by the engine's fastest statement; returns how many there were.
///
/// A key that is there after all is left out, or the engine's error.
pub(super) async fn load(session: &mut Session, plan: &TablePlan, rows: &[MappedRow]) -> Result<u64, TransferError> {
    if rows.is_empty() {
        return Ok(0);
    }
    if session.engine() == Engine::Postgres {
        return postgres_copy::load(session, plan, rows).await;
    }
    let rows: Vec<Vec<Value>> = rows.iter().map(|row| row.values.clone()).collect();
    insert(session, plan, &rows).await
}

/// Updates rows that exist, by key; returns how many were found.
pub(super) async fn update(
    session: &mut Session,
    plan: &TablePlan,
    rows: &[Vec<Value>],
    change: Change,
) -> Result<u64, TransferError> {
    let nothing = match change {
        Change::Add => plan.additive.is_empty(),
        Change::Overwrite { reset } => plan.columns.len() == plan.key.len() && (!reset || plan.target_only.is_empty()),
    };
    if nothing || rows.is_empty() {
        return Ok(0);
    }
    match session.engine() {
        Engine::Sqlite => sqlite_rows::update(session, plan, rows, change).await,
        Engine::Postgres => postgres_rows::update(session, plan, rows, change).await,
        Engine::Mariadb => mariadb_rows::update(session, plan, rows, change).await,
    }
}

/// `SET` clauses of an update: the row is called `t`, the new values `u.c0`, `u.c1` ..; `given` renders one of those.
///
/// `set_to` is the column's name on the left side, `default` what resets a column that only the target has.
pub(super) fn assignments(
    plan: &TablePlan,
    change: Change,
    given: impl Fn(usize) -> String,
    set_to: impl Fn(&Column) -> String,
    default: impl Fn(&Column) -> String,
) -> Vec<String> {
    match change {
        Change::Add => plan
            .additive
            .iter()
            .map(|i| {
                let column = &plan.columns[*i].target;
                let (left, new) = (set_to(column), given(*i));
                let held = format!("t.{}", plan.target.engine.quote(&column.name));
                format!(
                    "{left} = CASE WHEN {held} IS NULL THEN {new} WHEN {new} IS NULL THEN {held} ELSE {held} + {new} END"
                )
            })
            .collect(),
        Change::Overwrite { reset } => {
            let mapped = (0..plan.columns.len())
                .filter(|i| !plan.key.contains(i))
                .map(|i| format!("{} = {}", set_to(&plan.columns[i].target), given(i)));
            let others =
                plan.target_only.iter().filter(|_| reset).map(|c| format!("{} = {}", set_to(c), default(c)));
            mapped.chain(others).collect()
        }
    }
}

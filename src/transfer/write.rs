//! Finds and changes the rows of one planned table by key: look-ups, inserts, updates, on every engine.
//!
//! Writes in the caller's transaction only. Used by `copy`, `overlap` and `compare`.

use super::engine::Engine;
use super::error::TransferError;
use super::plan::TablePlan;
use super::schema::{Column, Table};
use super::session::{Arg, Session};
use super::value::Value;

/// Finds rows of `table` by key; the answer has one entry per key, `None` where there is no such row.
///
/// `lock` keeps the found rows from changing until the transaction ends (PostgreSQL; SQLite's writers are alone anyway).
pub(super) async fn find(
    session: &mut Session,
    table: &Table,
    key: &[Column],
    keys: &[Vec<Value>],
    columns: &[Column],
    lock: bool,
) -> Result<Vec<Option<Vec<Value>>>, TransferError> {
    let mut found: Vec<Option<Vec<Value>>> = vec![None; keys.len()];
    let engine = session.engine();
    let shown: String =
        columns.iter().fold(String::new(), |all, c| all + ", " + &engine.read(&format!("t.{}", engine.quote(&c.name))));
    let batch = match engine {
        Engine::Sqlite => SQLITE_BINDS_MAX / (key.len() + 1),
        Engine::Postgres => keys.len().max(1),
    };
    for (number, part) in keys.chunks(batch).enumerate() {
        let (list, args) = key_list(engine, key, part);
        let joined: Vec<String> = key
            .iter()
            .enumerate()
            .map(|(i, c)| format!("t.{} = {}", engine.quote(&c.name), engine.cast(&format!("u.k{i}"), &c.cast)))
            .collect();
        let lock = if lock && engine == Engine::Postgres { " FOR UPDATE OF t" } else { "" };
        let (table, joined) = (table.quoted(), joined.join(" AND "));
        let sql = match engine {
            Engine::Sqlite => format!("WITH {list} SELECT u.o{shown} FROM u CROSS JOIN {table} AS t ON {joined}"),
            Engine::Postgres => format!("SELECT u.o::text{shown} FROM {list} JOIN {table} AS t ON {joined}{lock}"),
        };
        session
            .each_row(&sql, args, |mut row| {
                let values = row.split_off(1);
                let position = row[0].as_integer().and_then(|o| usize::try_from(o).ok()).unwrap_or(0);
                if let Some(slot) = found.get_mut(number * batch + position.saturating_sub(1)) {
                    *slot = Some(values);
                }
                Ok(())
            })
            .await?;
    }
    Ok(found)
}

/// Stays below SQLite's SQLITE_MAX_VARIABLE_NUMBER (32,766).
const SQLITE_BINDS_MAX: usize = 30_000;
/// Rows of one SQLite statement; larger ones gain nothing.
const SQLITE_ROWS_MAX: usize = 1_000;

/// `u(o, k0, k1, ..)`: the keys with their position from 1.
fn key_list(engine: Engine, key: &[Column], keys: &[Vec<Value>]) -> (String, Vec<Arg>) {
    let names: Vec<String> = (0..key.len()).map(|i| format!("k{i}")).collect();
    match engine {
        Engine::Sqlite => {
            let numbered = keys.iter().enumerate().map(|(i, values)| {
                let position = i64::try_from(i + 1).expect("a chunk is far smaller than i64");
                std::iter::once(Value::Int(position)).chain(values.iter().cloned())
            });
            let (list, args) = sqlite_values(key.len() + 1, numbered);
            (format!("u(o, {}) AS (VALUES {list})", names.join(", ")), args)
        }
        Engine::Postgres => {
            let (list, args) = postgres_columns(key.len(), keys);
            (format!("unnest({list}) WITH ORDINALITY AS u({}, o)", names.join(", ")), args)
        }
    }
}

fn sqlite_values<R: IntoIterator<Item = Value>>(width: usize, rows: impl Iterator<Item = R>) -> (String, Vec<Arg>) {
    let args: Vec<Arg> = rows.flatten().map(Arg::One).collect();
    let row = format!("({})", vec!["?"; width].join(", "));
    (vec![row; args.len() / width].join(", "), args)
}

fn postgres_columns(width: usize, rows: &[Vec<Value>]) -> (String, Vec<Arg>) {
    let args = (0..width).map(|i| Arg::Column(rows.iter().map(|row| row[i].to_text()).collect())).collect();
    let list: Vec<String> = (1..=width).map(|i| format!("${i}::text[]")).collect();
    (list.join(", "), args)
}

/// Inserts rows that are expected to be new; returns how many really were.
pub(super) async fn insert(session: &mut Session, plan: &TablePlan, rows: &[Vec<Value>]) -> Result<u64, TransferError> {
    let engine = session.engine();
    let names: Vec<String> = plan.columns.iter().map(|c| engine.quote(&c.target.name)).collect();
    let key: Vec<String> = plan.key.iter().map(|i| engine.quote(&plan.columns[*i].target.name)).collect();
    let head = format!("INSERT INTO {} ({})", plan.target.quoted(), names.join(", "));
    let tail = format!("ON CONFLICT ({}) DO NOTHING", key.join(", "));
    let width = plan.columns.len();
    let mut inserted = 0;
    match engine {
        Engine::Sqlite => {
            for part in rows.chunks((SQLITE_BINDS_MAX / width).clamp(1, SQLITE_ROWS_MAX)) {
                let (list, args) = sqlite_values(width, part.iter().cloned());
                inserted += session.run(&format!("{head} VALUES {list} {tail}"), args).await?;
            }
        }
        Engine::Postgres if !rows.is_empty() => {
            let (list, args) = postgres_columns(width, rows);
            let aliases: Vec<String> = (0..width).map(|i| format!("c{i}")).collect();
            let shown: Vec<String> =
                plan.columns.iter().enumerate().map(|(i, c)| format!("u.c{i}::{}", c.target.cast)).collect();
            let sql = format!(
                "{head} OVERRIDING SYSTEM VALUE SELECT {} FROM unnest({list}) AS u({}) {tail}",
                shown.join(", "),
                aliases.join(", ")
            );
            inserted = session.run(&sql, args).await?;
        }
        Engine::Postgres => {}
    }
    Ok(inserted)
}

/// What an update does to the row that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Sets the mapped columns; with `reset` the target-only ones go back to their defaults.
    Overwrite { reset: bool },
    /// Adds the additive columns and leaves everything else.
    Add,
}

/// Updates rows that exist, by key; returns how many were found.
pub(super) async fn update(
    session: &mut Session,
    plan: &TablePlan,
    rows: &[Vec<Value>],
    change: Change,
) -> Result<u64, TransferError> {
    let engine = session.engine();
    let width = plan.columns.len();
    let sets = assignments(engine, plan, change);
    if sets.is_empty() || rows.is_empty() {
        return Ok(0);
    }
    let on: Vec<String> = plan
        .key
        .iter()
        .map(|i| {
            let target = &plan.columns[*i].target;
            format!("t.{} = {}", engine.quote(&target.name), engine.cast(&format!("u.c{i}"), &target.cast))
        })
        .collect();
    let aliases = (0..width).map(|i| format!("c{i}")).collect::<Vec<_>>().join(", ");
    let (table, sets, on) = (plan.target.quoted(), sets.join(", "), on.join(" AND "));
    let batch = match engine {
        Engine::Sqlite => (SQLITE_BINDS_MAX / width).clamp(1, SQLITE_ROWS_MAX),
        Engine::Postgres => rows.len(),
    };
    let mut updated = 0;
    for part in rows.chunks(batch) {
        let (sql, args) = match engine {
            Engine::Sqlite => {
                let (list, args) = sqlite_values(width, part.iter().cloned());
                let sql =
                    format!("WITH u({aliases}) AS (VALUES {list}) UPDATE {table} AS t SET {sets} FROM u WHERE {on}");
                (sql, args)
            }
            Engine::Postgres => {
                let (list, args) = postgres_columns(width, part);
                (format!("UPDATE {table} AS t SET {sets} FROM unnest({list}) AS u({aliases}) WHERE {on}"), args)
            }
        };
        updated += session.run(&sql, args).await?;
    }
    Ok(updated)
}

fn assignments(engine: Engine, plan: &TablePlan, change: Change) -> Vec<String> {
    let given = |i: usize| engine.cast(&format!("u.c{i}"), &plan.columns[i].target.cast);
    match change {
        Change::Add => plan
            .additive
            .iter()
            .map(|i| {
                let name = engine.quote(&plan.columns[*i].target.name);
                let new = given(*i);
                format!("{name} = CASE WHEN t.{name} IS NULL THEN {new} WHEN {new} IS NULL THEN t.{name} ELSE t.{name} + {new} END")
            })
            .collect(),
        Change::Overwrite { reset } => {
            let mapped = (0..plan.columns.len())
                .filter(|i| !plan.key.contains(i))
                .map(|i| format!("{} = {}", engine.quote(&plan.columns[i].target.name), given(i)));
            let others = plan.target_only.iter().filter(|_| reset).map(|column| {
                let default = match engine {
                    Engine::Sqlite => format!("({})", column.default.as_deref().unwrap_or("NULL")),
                    Engine::Postgres => "DEFAULT".to_owned(),
                };
                format!("{} = {default}", engine.quote(&column.name))
            });
            mapped.chain(others).collect()
        }
    }
}

//! Finds, inserts and updates rows of a planned table on SQLite, many to a statement. Called by `write`.

use super::engine::Engine;
use super::error::TransferError;
use super::plan::TablePlan;
use super::schema::{Column, Table};
use super::session::{Arg, Session};
use super::value::Value;
use super::write::{Change, assignments, place};

/// Stays below SQLITE_MAX_VARIABLE_NUMBER (32,766).
const BINDS_MAX: usize = 30_000;
/// Rows of one statement; larger ones gain nothing.
const ROWS_MAX: usize = 1_000;

fn quote(name: &str) -> String {
    Engine::Sqlite.quote(name)
}

fn values<R: IntoIterator<Item = Value>>(width: usize, rows: impl Iterator<Item = R>) -> (String, Vec<Arg>) {
    let args: Vec<Arg> = rows.flatten().map(Arg::One).collect();
    let row = format!("({})", vec!["?"; width].join(", "));
    (vec![row; args.len() / width].join(", "), args)
}

/// Finds rows by key.
pub(super) async fn find(
    session: &mut Session,
    table: &Table,
    key: &[Column],
    keys: &[Vec<Value>],
    columns: &[Column],
) -> Result<Vec<Option<Vec<Value>>>, TransferError> {
    let mut found: Vec<Option<Vec<Value>>> = vec![None; keys.len()];
    let shown: String = columns.iter().fold(String::new(), |all, c| all + ", t." + &quote(&c.name));
    let names: Vec<String> = (0..key.len()).map(|i| format!("k{i}")).collect();
    let joined: Vec<String> = key.iter().enumerate().map(|(i, c)| format!("t.{} = u.k{i}", quote(&c.name))).collect();
    let batch = BINDS_MAX / (key.len() + 1);
    for (number, part) in keys.chunks(batch).enumerate() {
        let numbered = part.iter().enumerate().map(|(i, values)| {
            let position = i64::try_from(i + 1).expect("a chunk is far smaller than i64");
            std::iter::once(Value::Int(position)).chain(values.iter().cloned())
        });
        let (list, args) = values(key.len() + 1, numbered);
        let sql = format!(
            "WITH u(o, {}) AS (VALUES {list}) SELECT u.o{shown} FROM u CROSS JOIN {} AS t ON {}",
            names.join(", "),
            table.quoted(),
            joined.join(" AND ")
        );
        session
            .each_row(&sql, args, |row| {
                place(&mut found, number * batch, row);
                Ok(())
            })
            .await?;
    }
    Ok(found)
}

/// Inserts rows; those whose key is there are left out.
pub(super) async fn insert(session: &mut Session, plan: &TablePlan, rows: &[Vec<Value>]) -> Result<u64, TransferError> {
    let names: Vec<String> = plan.columns.iter().map(|c| quote(&c.target.name)).collect();
    let key: Vec<String> = plan.key.iter().map(|i| quote(&plan.columns[*i].target.name)).collect();
    // Without a unique key there is nothing to be in conflict with.
    let conflict = if plan.is_unique { format!(" ON CONFLICT ({}) DO NOTHING", key.join(", ")) } else { String::new() };
    let width = plan.columns.len();
    let mut inserted = 0;
    for part in rows.chunks((BINDS_MAX / width).clamp(1, ROWS_MAX)) {
        let (list, args) = values(width, part.iter().cloned());
        let sql = format!("INSERT INTO {} ({}) VALUES {list}{conflict}", plan.target.quoted(), names.join(", "));
        inserted += session.run(&sql, args).await?;
    }
    Ok(inserted)
}

/// Updates rows by key.
pub(super) async fn update(
    session: &mut Session,
    plan: &TablePlan,
    rows: &[Vec<Value>],
    change: Change,
) -> Result<u64, TransferError> {
    let width = plan.columns.len();
    let default = |column: &Column| format!("({})", column.default.as_deref().unwrap_or("NULL"));
    let sets = assignments(plan, change, |i| format!("u.c{i}"), |c| quote(&c.name), default).join(", ");
    let on: Vec<String> =
        plan.key.iter().map(|i| format!("t.{} = u.c{i}", quote(&plan.columns[*i].target.name))).collect();
    let aliases: Vec<String> = (0..width).map(|i| format!("c{i}")).collect();
    let mut updated = 0;
    for part in rows.chunks((BINDS_MAX / width).clamp(1, ROWS_MAX)) {
        let (list, args) = values(width, part.iter().cloned());
        let sql = format!(
            "WITH u({}) AS (VALUES {list}) UPDATE {} AS t SET {sets} FROM u WHERE {}",
            aliases.join(", "),
            plan.target.quoted(),
            on.join(" AND ")
        );
        updated += session.run(&sql, args).await?;
    }
    Ok(updated)
}

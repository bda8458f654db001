//! Finds, inserts and updates rows of a planned table on PostgreSQL: whole columns as arrays, `unnest`ed there. Called by `write`.

use super::engine::Engine;
use super::error::TransferError;
use super::plan::TablePlan;
use super::schema::{Column, Table};
use super::session::{Arg, Session};
use super::value::Value;
use super::write::{Change, assignments, place};

const OWN: Engine = Engine::Postgres;

fn columns_of(width: usize, rows: &[Vec<Value>]) -> (String, Vec<Arg>) {
    let args = (0..width).map(|i| Arg::Column(rows.iter().map(|row| row[i].to_text()).collect())).collect();
    let list: Vec<String> = (1..=width).map(|i| format!("${i}::text[]")).collect();
    (list.join(", "), args)
}

fn aliases(letter: char, width: usize) -> String {
    (0..width).map(|i| format!("{letter}{i}")).collect::<Vec<_>>().join(", ")
}

/// Finds rows by key; `lock` keeps them from changing until the transaction ends.
pub(super) async fn find(
    session: &mut Session,
    table: &Table,
    key: &[Column],
    keys: &[Vec<Value>],
    columns: &[Column],
    lock: bool,
) -> Result<Vec<Option<Vec<Value>>>, TransferError> {
    let mut found: Vec<Option<Vec<Value>>> = vec![None; keys.len()];
    if keys.is_empty() {
        return Ok(found);
    }
    let shown: String =
        columns.iter().fold(String::new(), |all, c| all + ", " + &OWN.read(&format!("t.{}", OWN.quote(&c.name))));
    let joined: Vec<String> = key
        .iter()
        .enumerate()
        .map(|(i, c)| format!("t.{} = {}", OWN.quote(&c.name), OWN.cast(&format!("u.k{i}"), &c.cast)))
        .collect();
    let (list, args) = columns_of(key.len(), keys);
    let sql = format!(
        "SELECT u.o::text{shown} FROM unnest({list}) WITH ORDINALITY AS u({}, o) JOIN {} AS t ON {}{}",
        aliases('k', key.len()),
        table.quoted(),
        joined.join(" AND "),
        if lock { " FOR UPDATE OF t" } else { "" }
    );
    session
        .each_row(&sql, args, |row| {
            place(&mut found, 0, row);
            Ok(())
        })
        .await?;
    Ok(found)
}

/// Inserts rows; those whose key is there are left out.
pub(super) async fn insert(session: &mut Session, plan: &TablePlan, rows: &[Vec<Value>]) -> Result<u64, TransferError> {
    let names: Vec<String> = plan.columns.iter().map(|c| OWN.quote(&c.target.name)).collect();
    let key: Vec<String> = plan.key.iter().map(|i| OWN.quote(&plan.columns[*i].target.name)).collect();
    // Without a unique key there is nothing to be in conflict with.
    let conflict = if plan.is_unique { format!(" ON CONFLICT ({}) DO NOTHING", key.join(", ")) } else { String::new() };
    let width = plan.columns.len();
    let (list, args) = columns_of(width, rows);
    let shown: Vec<String> =
        plan.columns.iter().enumerate().map(|(i, c)| OWN.cast(&format!("u.c{i}"), &c.target.cast)).collect();
    let sql = format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM unnest({list}) AS u({}){conflict}",
        plan.target.quoted(),
        names.join(", "),
        shown.join(", "),
        aliases('c', width)
    );
    session.run(&sql, args).await
}

/// Updates rows by key.
pub(super) async fn update(
    session: &mut Session,
    plan: &TablePlan,
    rows: &[Vec<Value>],
    change: Change,
) -> Result<u64, TransferError> {
    let width = plan.columns.len();
    let given = |i: usize| OWN.cast(&format!("u.c{i}"), &plan.columns[i].target.cast);
    let sets = assignments(plan, change, given, |c| OWN.quote(&c.name), |_| "DEFAULT".to_owned());
    let on: Vec<String> =
        plan.key.iter().map(|i| format!("t.{} = {}", OWN.quote(&plan.columns[*i].target.name), given(*i))).collect();
    let (list, args) = columns_of(width, rows);
    let sql = format!(
        "UPDATE {} AS t SET {} FROM unnest({list}) AS u({}) WHERE {}",
        plan.target.quoted(),
        sets.join(", "),
        aliases('c', width),
        on.join(" AND ")
    );
    session.run(&sql, args).await
}

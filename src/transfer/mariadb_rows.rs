//! Finds, inserts and updates rows of a planned table on MariaDB, many to a statement.
//!
//! Refuses a statement after which the engine has a warning about a value: it would have changed one. Called by `write`.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, Row};

use super::engine::Engine;
use super::error::TransferError;
use super::plan::TablePlan;
use super::rows;
use super::schema::{Column, Table};
use super::session::{Arg, Session};
use super::value::{Value, canonical};
use super::write::{Change, assignments};

/// Stays below the 65,535 parameters of one statement.
const BINDS_MAX: usize = 60_000;
/// Rows of one INSERT; larger ones gain nothing.
const ROWS_MAX: usize = 1_000;
/// Bytes of one INSERT, well below the default `max_allowed_packet` of 16 MiB.
const BYTES_MAX: usize = 4 << 20;
/// Keys of one look-up: below the number from which the engine makes a subquery of the list.
const KEYS_MAX: usize = 500;
/// Holds the new values while rows are updated.
const STAGE: &str = "`piton_stage`";

fn quote(name: &str) -> String {
    Engine::Mariadb.quote(name)
}

/// `(?, ?), (?, ?)`.
fn value_list(width: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; width].join(", "));
    vec![row; rows].join(", ")
}

fn args<'a>(rows: impl Iterator<Item = &'a Vec<Value>>) -> Vec<Arg> {
    rows.flatten().cloned().map(Arg::One).collect()
}

/// Statistics of a table that is being filled are wrong; a scan would be slow, and would lock whatever it meets.
fn forced<'a>(table: &Table, key: impl ExactSizeIterator<Item = &'a String>) -> &'static str {
    let mut key = key;
    let is_primary = key.len() == table.primary_key.len() && key.all(|name| table.primary_key.contains(name));
    if is_primary { " FORCE INDEX (PRIMARY)" } else { "" }
}

/// Finds rows by key. A row whose key is only the same to the column's collation is not found.
pub(super) async fn find(
    session: &mut Session,
    table: &Table,
    key: &[Column],
    keys: &[Vec<Value>],
    columns: &[Column],
    lock: bool,
) -> Result<Vec<Option<Vec<Value>>>, TransferError> {
    let mut found: Vec<Option<Vec<Value>>> = vec![None; keys.len()];
    let form = |values: &[Value]| -> Vec<String> {
        values.iter().zip(key).map(|(value, column)| canonical(value, column.kind)).collect()
    };
    let shown: Vec<String> = key.iter().chain(columns).map(|c| format!("t.{}", quote(&c.name))).collect();
    let names: Vec<String> = key.iter().map(|c| format!("t.{}", quote(&c.name))).collect();
    let marks: Vec<String> = key.iter().map(|c| Engine::Mariadb.parameter(0, &c.cast)).collect();
    let lock = if lock { " FOR UPDATE" } else { "" };
    let index = forced(table, key.iter().map(|c| &c.name));
    for (number, part) in keys.chunks(KEYS_MAX).enumerate() {
        let mut places: HashMap<Vec<String>, Vec<usize>> = HashMap::new();
        for (i, values) in part.iter().enumerate() {
            places.entry(form(values)).or_default().push(number * KEYS_MAX + i);
        }
        let list = vec![format!("({})", marks.join(", ")); part.len()].join(", ");
        let sql = format!(
            "SELECT {} FROM {} AS t{index} WHERE ({}) IN ({list}){lock}",
            shown.join(", "),
            table.quoted(),
            names.join(", ")
        );
        session
            .each_row(&sql, args(part.iter()), |mut row| {
                let values = row.split_off(key.len());
                for place in places.get(&form(&row)).into_iter().flatten() {
                    found[*place] = Some(values.clone());
                }
                Ok(())
            })
            .await?;
    }
    Ok(found)
}

/// Inserts rows that are expected to be new; a key that is there is the engine's error.
pub(super) async fn insert(session: &mut Session, plan: &TablePlan, rows: &[Vec<Value>]) -> Result<u64, TransferError> {
    let names: Vec<String> = plan.columns.iter().map(|c| quote(&c.target.name)).collect();
    let head = format!("INSERT INTO {} ({}) VALUES ", plan.target.quoted(), names.join(", "));
    insert_into(session, plan, &head, rows).await
}

async fn insert_into(
    session: &mut Session,
    plan: &TablePlan,
    head: &str,
    rows: &[Vec<Value>],
) -> Result<u64, TransferError> {
    let width = plan.columns.len();
    let most = (BINDS_MAX / width).clamp(1, ROWS_MAX);
    let mut inserted = 0;
    let mut rest = rows;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(most).take_while(|row| {
            bytes += row.iter().map(Value::size).sum::<usize>();
            bytes <= BYTES_MAX
        });
        let (part, later) = rest.split_at(fits.count().max(1));
        rest = later;
        let sql = format!("{head}{}", value_list(width, part.len()));
        inserted += session.run(&sql, args(part.iter())).await.map_err(|error| at_row(plan, part, error))?;
        refuse_warnings(session, plan, part).await?;
    }
    Ok(inserted)
}

/// Updates rows that exist, by key: the new values go to a temporary table of the same types, then one statement joins it.
pub(super) async fn update(
    session: &mut Session,
    plan: &TablePlan,
    rows: &[Vec<Value>],
    change: Change,
) -> Result<u64, TransferError> {
    let left = |column: &Column| format!("t.{}", quote(&column.name));
    let sets = assignments(plan, change, |i| format!("u.c{i}"), left, |_| "DEFAULT".to_owned());
    let table = plan.target.quoted();
    let staged: Vec<String> =
        plan.columns.iter().enumerate().map(|(i, c)| format!("{} AS c{i}", quote(&c.target.name))).collect();
    let names: Vec<String> = (0..plan.columns.len()).map(|i| format!("c{i}")).collect();
    let on: Vec<String> =
        plan.key.iter().map(|i| format!("t.{} = u.c{i}", quote(&plan.columns[*i].target.name))).collect();
    // Neither of these two ends the transaction: the table is temporary.
    session.run(&format!("DROP TEMPORARY TABLE IF EXISTS {STAGE}"), Vec::new()).await?;
    let create =
        format!("CREATE TEMPORARY TABLE {STAGE} ENGINE=InnoDB AS SELECT {} FROM {table} LIMIT 0", staged.join(", "));
    session.run(&create, Vec::new()).await?;
    insert_into(session, plan, &format!("INSERT INTO {STAGE} ({}) VALUES ", names.join(", ")), rows).await?;
    let index = forced(&plan.target, plan.key.iter().map(|i| &plan.columns[*i].target.name));
    let sql = format!(
        "UPDATE {STAGE} AS u STRAIGHT_JOIN {table} AS t{index} ON {} SET {}",
        on.join(" AND "),
        sets.join(", ")
    );
    let updated = session.run(&sql, Vec::new()).await?;
    refuse_warnings(session, plan, &[]).await?;
    session.run(&format!("DROP TEMPORARY TABLE {STAGE}"), Vec::new()).await?;
    Ok(updated)
}

/// Error numbers that mean: a value is not what the column can hold.
fn is_about_a_value(number: u16) -> bool {
    matches!(number, 1264 | 1265 | 1292 | 1300 | 1366 | 1367 | 1406 | 1411 | 1441 | 1690 | 3140)
}

/// Names the row and the column behind `Data too long for column 'name' at row 3`.
fn at_row(plan: &TablePlan, rows: &[Vec<Value>], error: TransferError) -> TransferError {
    let TransferError::Sql { code: Some(code), message, .. } = &error else { return error };
    if !code.parse().is_ok_and(is_about_a_value) {
        return error;
    }
    named(plan, rows, message).unwrap_or(error)
}

fn named(plan: &TablePlan, rows: &[Vec<Value>], message: &str) -> Option<TransferError> {
    let (said, number) = message.rsplit_once(" at row ")?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    let row = rows.get(digits.parse::<usize>().ok()?.checked_sub(1)?)?;
    let quoted = said.trim_end_matches(['\'', '`']);
    let name = quoted.rsplit(['\'', '`', '.']).next()?;
    // In the staging table the columns are called by their places.
    let place =
        plan.columns.iter().position(|c| c.target.name == name).or_else(|| name.strip_prefix('c')?.parse().ok())?;
    let column = plan.columns.get(place)?.target.name.clone();
    Some(rows::misfit(plan, &plan.key_of(row), &column, message.to_owned()))
}

/// Strict mode lets some changes of values pass with a warning; here they are errors too.
async fn refuse_warnings(session: &mut Session, plan: &TablePlan, rows: &[Vec<Value>]) -> Result<(), TransferError> {
    let Session::Mariadb(connection) = session else {
        return Err(TransferError::statement("not a MariaDB session"));
    };
    let wrong = |error: sqlx::Error| TransferError::sql(Engine::Mariadb, &error);
    let warnings =
        sqlx::raw_sql(AssertSqlSafe("SHOW WARNINGS LIMIT 100".to_owned())).fetch_all(&mut **connection).await;
    for warning in warnings.map_err(wrong)? {
        let number: u32 = warning.try_get_unchecked(1).map_err(wrong)?;
        let message: String = warning.try_get_unchecked(2).map_err(wrong)?;
        if u16::try_from(number).is_ok_and(is_about_a_value) {
            let table = &plan.target.name;
            return Err(named(plan, rows, &message).unwrap_or_else(|| {
                TransferError::request(format!("MariaDB would change a value of `{table}`: {message}"))
            }));
        }
    }
    Ok(())
}

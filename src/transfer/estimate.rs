//! How many rows a table has and how long they are, by what an engine knows without reading it.
//!
//! The planner's statistics on PostgreSQL and MariaDB; on SQLite those of `ANALYZE`, else the highest rowid. Refuses to call any of it
//! exact. Used by `copy`, for the time that is left, and by `forecast`.

use super::engine::Engine;
use super::error::TransferError;
use super::plan::{From, TablePlan};
use super::rows::{Params, Range, range_sql, time_of, where_sql};
use super::schema::{one, text};
use super::session::Session;
use super::value::Value;

/// Rows of SQLite that say how long rows are.
const ROWS_MEASURED: u32 = 1_000;

/// What is thought of the rows of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Estimate {
    /// How many; none where the engine has no idea.
    pub(super) rows: Option<u64>,
    /// Bytes of one.
    pub(super) row_bytes: Option<u64>,
}

fn number(value: Option<&Value>) -> Option<u64> {
    value.and_then(Value::as_integer).and_then(|number| u64::try_from(number).ok())
}

/// Asks for the source's rows of a range; reads no table.
pub(super) async fn estimate(source: &mut Session, plan: &TablePlan, range: Range) -> Result<Estimate, TransferError> {
    match source.engine() {
        Engine::Postgres => {
            let rows = explain(source, plan, range, &shown(plan).join(", ")).await?;
            let line = rows.first().and_then(|row| row.first()).map(text).unwrap_or_default();
            Ok(Estimate { rows: behind(&line, "rows="), row_bytes: behind(&line, "width=") })
        }
        Engine::Mariadb => {
            // Who may read a view may not always have it explained.
            let rows = match explain(source, plan, range, "1").await {
                Err(TransferError::Sql { effect_unknown: false, .. }) => return Ok(Estimate::default()),
                other => other?,
            };
            let sql = "SELECT AVG_ROW_LENGTH FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?";
            let known = source.rows(sql, one(&plan.source.name)).await?;
            let rows = rows.first().map_or(&[][..], Vec::as_slice);
            // MariaDB ends with `rows, Extra`, MySQL with `rows, filtered, Extra`.
            let place = if rows.len() > 10 { rows.len() - 3 } else { rows.len().saturating_sub(2) };
            Ok(Estimate {
                rows: number(rows.get(place)),
                row_bytes: number(known.first().and_then(|row| row.first())).filter(|length| *length > 0),
            })
        }
        Engine::Sqlite => Ok(Estimate {
            rows: if range == Range::default() { sqlite_rows(source, &plan.source.name).await? } else { None },
            row_bytes: None,
        }),
    }
}

/// The expressions that are read.
fn shown(plan: &TablePlan) -> Vec<&str> {
    let sources = plan.columns.iter().filter_map(|column| match &column.from {
        From::Source(sql, _) => Some(sql.as_str()),
        From::Constant(_) => None,
    });
    sources.collect()
}

async fn explain(
    source: &mut Session,
    plan: &TablePlan,
    range: Range,
    shown: &str,
) -> Result<Vec<Vec<Value>>, TransferError> {
    let mut params = Params::new(source.engine());
    let mut clauses = Vec::new();
    if let Some((time, _)) = time_of(plan, range)? {
        range_sql(&mut params, time, range, &mut clauses);
    }
    let sql = format!("EXPLAIN SELECT {shown} FROM {}{}", plan.source.quoted(), where_sql(&clauses));
    source.rows(&sql, params.args).await
}

/// The number behind a word of a plan.
fn behind(line: &str, word: &str) -> Option<u64> {
    let (_, rest) = line.split_once(word)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

async fn sqlite_rows(source: &mut Session, table: &str) -> Result<Option<u64>, TransferError> {
    if source.number(&Engine::Sqlite.has_table("sqlite_stat1"), Vec::new()).await? == Some(1) {
        let known = source.rows("SELECT stat FROM sqlite_stat1 WHERE tbl = ?1 LIMIT 1", one(table)).await?;
        if let Some(stat) = known.first().and_then(|row| row.first()) {
            return Ok(text(stat).split(' ').next().and_then(|rows| rows.parse().ok()));
        }
    }
    let sql = format!("SELECT max(_rowid_) FROM {}", Engine::Sqlite.quote_table(table));
    // A table without row numbers does not say.
    Ok(source.number(&sql, Vec::new()).await.ok().flatten().and_then(|rows| u64::try_from(rows).ok()))
}

/// Bytes of one row by the first rows of SQLite, which keeps no statistics of that.
pub(super) async fn measure(source: &mut Session, plan: &TablePlan) -> Result<Option<u64>, TransferError> {
    if source.engine() != Engine::Sqlite {
        return Ok(None);
    }
    let lengths: Vec<String> =
        shown(plan).iter().map(|sql| format!("coalesce(length(CAST({sql} AS BLOB)), 0)")).collect();
    let sql = format!(
        "SELECT CAST(avg(bytes) AS INTEGER) FROM (SELECT {} AS bytes FROM {} LIMIT {ROWS_MEASURED})",
        if lengths.is_empty() { "0".to_owned() } else { lengths.join(" + ") },
        plan.source.quoted()
    );
    Ok(source.number(&sql, Vec::new()).await?.and_then(|bytes| u64::try_from(bytes).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_rows_and_width() {
        let line = "Seq Scan on perf  (cost=0.00..155.00 rows=10000 width=61)";
        assert_eq!((behind(line, "rows="), behind(line, "width=")), (Some(10_000), Some(61)));
        assert_eq!(behind("Result", "rows="), None);
    }
}

//! `db.copy`: rows from one database to another, exactly once.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::db::{failure, limits, sql_text};
use super::{Action, Context, Failure, Preview, Progress, size};
use crate::event::Outputs;
use crate::spec::actions::{self, BuildIndexes, DbCopy, MergePolicy, TimeRange};
use crate::transfer::{
    self, CopyRequest, Database, Held, Indexes, Mapping, PauseWhile, Policy, Range, TableForecast, Throttle,
};

/// The mapping as it was when the plan was made.
pub(super) fn mapping(cx: &Context, path: &str) -> Result<Mapping, Failure> {
    let text = cx.text(path)?;
    Mapping::from_yaml(&text).map_err(|error| Failure::permanent(format!("mapping `{path}`: {error}")))
}

/// A range of a runbook.
pub(super) fn range(range: Option<&TimeRange>) -> Range {
    range.map_or_else(Range::default, |range| Range { from: range.from, to: range.to })
}

/// How a copy from `source` holds back.
async fn throttle(cx: &Context, asked: Option<&actions::Throttle>, source: &Database) -> Result<Throttle, Failure> {
    let Some(asked) = asked else { return Ok(Throttle::default()) };
    let pause_while = match &asked.pause_while {
        None => None,
        Some(pause) => Some(PauseWhile {
            database: match &pause.database {
                Some(name) => cx.databases.get(name).await?,
                None => source.clone(),
            },
            sql: sql_text(cx, &pause.sql).to_owned(),
            binds: pause.bind.clone(),
            every: pause.every.duration(),
        }),
    };
    let (rows_per_second, bytes_per_second) = (asked.rows_per_second, asked.bytes_per_second);
    Ok(Throttle { rows_per_second, bytes_per_second, pause_while })
}

/// The name of what is done, which says so when nothing is.
fn what(seen: &transfer::CopyProgress) -> String {
    if seen.waits { format!("{} (waits: `pause_while` holds)", seen.table) } else { seen.table.clone() }
}

impl DbCopy {
    fn request(&self, cx: &Context) -> Result<CopyRequest, Failure> {
        let policy = match (self.policy, self.at) {
            (MergePolicy::SourceWins, _) => Policy::SourceWins { replace_row: true },
            (MergePolicy::Fill, _) => Policy::Fill,
            (MergePolicy::SplitAt, Some(at)) => Policy::SplitAt { at },
            (MergePolicy::SplitAt, None) => return Err(Failure::permanent("`split_at` needs `at`")),
            (MergePolicy::Fail, _) => Policy::Fail,
            (MergePolicy::BestCoverage, _) => Policy::BestCoverage,
            (MergePolicy::MergeAdditive, _) => Policy::MergeAdditive,
        };
        Ok(CopyRequest {
            range: range(self.range.as_ref()),
            chunk_rows: self.chunk_rows.map_or(0, |rows| usize::try_from(rows).unwrap_or(usize::MAX)),
            parallel: self.parallel.map_or(0, |most| usize::try_from(most).unwrap_or(usize::MAX)),
            indexes: match self.indexes {
                BuildIndexes::Keep => Indexes::Keep,
                BuildIndexes::After => Indexes::After,
            },
            limits: limits(self.statement_timeout, self.lock_timeout),
            hook: cx.chunks.clone(),
            timestep: self.timestep.and_then(|seconds| i64::try_from(seconds).ok()),
            ..CopyRequest::new(mapping(cx, &self.map)?, &self.tables, policy, token(cx))
        })
    }
}

/// The identity of a copy: one step of one run, the same through every resume.
pub(super) fn token(cx: &Context) -> String {
    format!("{}/{}", cx.run, cx.step)
}

#[async_trait]
impl Action for DbCopy {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let (from, to) = (cx.databases.get(&self.from).await?, cx.databases.get(&self.to).await?);
        let throttle = throttle(cx, self.throttle.as_ref(), &from).await?;
        let request = CopyRequest { throttle, ..self.request(cx)? };
        let sink = cx.progress.clone();
        let progress = move |seen: transfer::CopyProgress| {
            sink(Progress {
                what: what(&seen),
                done: seen.rows_done,
                total: (seen.rows_total > 0).then_some(seen.rows_total),
                is_estimate: !seen.is_counted,
                per_second: if seen.waits { 0.0 } else { seen.rows_per_second },
                bytes_per_second: Some(seen.bytes_per_second).filter(|_| !seen.waits),
                left: seen.left,
            });
        };
        let started = std::time::Instant::now();
        let report =
            transfer::copy(&from, &to, &request, &progress, &cx.cancel).await.map_err(|error| failure(&error))?;
        let sum = |of: fn(&transfer::TableReport) -> u64| report.tables.iter().map(of).sum::<u64>();
        Ok(Outputs::from([
            ("rows".to_owned(), (sum(|table| table.read) + sum(|table| table.skipped)).into()),
            ("inserted".to_owned(), sum(|table| table.all.inserted).into()),
            ("updated".to_owned(), sum(|table| table.all.updated).into()),
            ("unchanged".to_owned(), sum(|table| table.all.unchanged + table.all.kept).into()),
            ("skipped".to_owned(), sum(|table| table.skipped).into()),
            ("tables".to_owned(), report.tables.len().into()),
            ("seconds".to_owned(), json!(started.elapsed().as_secs_f64())),
        ]))
    }

    async fn undone(&self, cx: &Context) -> Result<(), Failure> {
        let to = cx.databases.get(&self.to).await?;
        super::db_compare::forget(cx);
        transfer::forget(&to, &token(cx)).await.map_err(|error| failure(&error))
    }

    async fn preview(&self, cx: &Context) -> Preview {
        let forecast = async {
            let (from, to) = (cx.databases.get(&self.from).await?, cx.databases.get(&self.to).await?);
            transfer::forecast(&from, &to, &self.request(cx)?).await.map_err(|error| failure(&error))
        };
        match forecast.await {
            Ok(tables) => Preview::WillChange(foretold(&tables)),
            Err(failure) => Preview::Unknown(failure.error),
        }
    }
}

/// Tables that a preview names.
const NAMED: usize = 20;

/// `about 5000000 rows (about 290.0 MB)`.
fn amount(rows: u64, is_exact: bool, bytes: Option<u64>) -> String {
    let size = bytes.map(|bytes| format!(" (about {})", size::words(bytes))).unwrap_or_default();
    format!("{}{rows} rows{size}", if is_exact { "" } else { "about " })
}

/// What a copy would do, in words.
fn foretold(tables: &[TableForecast]) -> String {
    let rows = tables.iter().map(|table| table.rows).sum();
    let is_exact = tables.iter().all(|table| table.is_exact);
    let forbidden: u64 = tables.iter().map(|table| table.forbidden).sum();
    if forbidden > 0 {
        return format!("would abort: {forbidden} of {} may not be written", amount(rows, is_exact, None));
    }
    let bytes = tables.iter().map(|table| table.bytes).sum();
    let amount_of_all = amount(rows, is_exact, bytes);
    let common = tables.iter().map(|table| match table.held {
        Held::Nothing => Some(0),
        Held::Keys(keys) => Some(keys),
        Held::Unknown => None,
    });
    let held = match common.sum::<Option<u64>>() {
        Some(common) => format!("the target has {common} of their keys already"),
        None => "the target holds rows that were not compared now".to_owned(),
    };
    let named = tables.iter().take(if tables.len() > 1 { NAMED } else { 0 });
    let mut named: Vec<String> =
        named.map(|table| format!("`{}` {}", table.table, amount(table.rows, table.is_exact, table.bytes))).collect();
    if tables.len() > NAMED {
        named.push(format!("{} more tables", tables.len() - NAMED));
    }
    let named = if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) };
    format!("copies {amount_of_all}; {held}{named}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_says_what_was_counted_and_what_is_a_guess() {
        let small = TableForecast {
            table: "a".to_owned(),
            rows: 3,
            is_exact: true,
            bytes: Some(60),
            held: Held::Keys(2),
            forbidden: 0,
        };
        assert_eq!(
            foretold(std::slice::from_ref(&small)),
            "copies 3 rows (about 60 B); the target has 2 of their keys already"
        );
        let large = TableForecast {
            table: "b".to_owned(),
            rows: 5_000_000,
            is_exact: false,
            bytes: Some(290_000_000),
            held: Held::Unknown,
            ..small.clone()
        };
        assert_eq!(
            foretold(&[small.clone(), large]),
            "copies about 5000003 rows (about 290.0 MB); the target holds rows that were not compared now: \
             `a` 3 rows (about 60 B), `b` about 5000000 rows (about 290.0 MB)"
        );
        assert_eq!(foretold(&[TableForecast { forbidden: 2, ..small }]), "would abort: 2 of 3 rows may not be written");
    }
}

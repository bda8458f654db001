//! `db.watermark` and `db.gaps`: how far a time series is closed, and where it has holes. Both only look.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::db::{failure, sql_text};
use super::{Action, Context, Failure, Preview};
use crate::event::Outputs;
use crate::spec::actions::{DbGaps, DbWatermark};
use crate::spec::values::Millis;
use crate::transfer::{self, Database, Series};

/// Entities that an error message names.
const NAMED: usize = 5;

/// Whole seconds of a timestep.
fn seconds(timestep: Millis) -> Result<i64, Failure> {
    match i64::try_from(timestep.0 / 1_000) {
        Ok(seconds) if seconds > 0 && timestep.0.is_multiple_of(1_000) => Ok(seconds),
        _ => Err(Failure::permanent(format!("a timestep is a whole number of seconds, not {timestep}"))),
    }
}

/// The time series of a table, its time column and its entity column.
fn series(names: [&str; 3], active: Option<String>, timestep: Millis) -> Result<Series, Failure> {
    let [table, time, entity] = names.map(str::to_owned);
    Ok(Series { table, time, entity, active, timestep: seconds(timestep)? })
}

#[async_trait]
impl Action for DbWatermark {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let database = cx.databases.get(&self.database).await?;
        let active = self.active.as_deref().map(|sql| sql_text(cx, sql).to_owned());
        let series = series([&self.table, &self.time, &self.entity], active, self.timestep)?;
        let now = crate::config::now().as_second();
        let found = transfer::watermark(&database, &series, now).await.map_err(|error| failure(&error))?;
        let Some(watermark) = found.watermark else {
            return Err(Failure::harmless(format!(
                "`{}` has no watermark yet: some active entity has no row",
                self.table
            )));
        };
        let lagging: Vec<Value> = found.lagging.iter().map(|entity| entity.entity.clone()).collect();
        Ok(Outputs::from([("watermark".to_owned(), watermark.into()), ("lagging".to_owned(), json!(lagging))]))
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::NoChange(format!("reads how far `{}` is closed", self.table))
    }
}

fn no_gaps() -> Outputs {
    Outputs::from([("gaps".to_owned(), 0.into())])
}

/// The first and the last timestep that the table holds.
async fn span(database: &Database, series: &Series) -> Result<Option<(i64, i64)>, Failure> {
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (time, table) = (quote(&series.time), quote(&series.table));
    let sql = format!("SELECT MIN({time}) AS first, MAX({time}) AS last FROM {table}");
    let found = transfer::query(database, &sql, &transfer::Binds::new(), transfer::StatementOptions::default()).await;
    let rows = found.map_err(|error| failure(&error))?;
    let number = |name: &str| rows.rows.first().and_then(|row| row.get(name)).and_then(Value::as_i64);
    Ok(number("first").zip(number("last")))
}

#[async_trait]
impl Action for DbGaps {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let database = cx.databases.get(&self.database).await?;
        let series = series([&self.table, &self.time, &self.entity], None, self.timestep)?;
        let (from, to) = match (self.from, self.to) {
            (Some(from), Some(to)) => (from, to),
            (from, to) => {
                let Some((first, last)) = span(&database, &series).await? else { return Ok(no_gaps()) };
                (from.unwrap_or(first), to.unwrap_or(last + series.timestep))
            }
        };
        let gaps = transfer::gaps(&database, &series, from, to, NAMED).await.map_err(|error| failure(&error))?;
        if gaps.missing > 0 && !self.report {
            let named: Vec<String> = gaps
                .entities
                .iter()
                .take(NAMED)
                .map(|e| format!("{} lacks {} from {:?}", e.entity, e.missing, e.first))
                .collect();
            let error = format!("{} timesteps of `{}` have no row: {}", gaps.missing, self.table, named.join("; "));
            return Err(Failure::harmless(error));
        }
        Ok(Outputs::from([("gaps".to_owned(), gaps.missing.into())]))
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::NoChange(format!("looks for timesteps of `{}` without a row", self.table))
    }
}

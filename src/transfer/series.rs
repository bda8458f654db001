//! Time series: the watermark up to which every entity is complete, and the gaps before it.
//!
//! A bucket is `[k*step, (k+1)*step)`, named by its first second; a row belongs to the bucket of its time. Refuses a step of 0.
//! Watermarks are observed in the rows, never taken from the clock; the clock only keeps open buckets out.
//! Called by the `db.watermark` and `db.gaps` actions.

use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;
use super::schema;
use super::session::{Arg, Session};
use super::value::Value;

/// A table that holds one row per entity and bucket.
#[derive(Debug, Clone)]
pub struct Series {
    /// The table.
    pub table: String,
    /// Its time column: the first second of the bucket.
    pub time: String,
    /// Its entity column.
    pub entity: String,
    /// SQL that yields the entities that must be complete, in its first column; default: every entity that has a row.
    pub active: Option<String>,
    /// Seconds of one bucket.
    pub timestep: i64,
}

/// An entity that holds the watermark back.
#[derive(Debug, Clone, PartialEq)]
pub struct Lagging {
    /// The entity.
    pub entity: serde_json::Value,
    /// Its last closed bucket; `None` where it has no row at all.
    pub last_bucket: Option<i64>,
}

/// How far every active entity is complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Watermark {
    /// The greatest bucket start W for which every active entity has its row of bucket `W - timestep`; the range `t < W` is closed.
    /// `None` where there is none, or no entity. Gaps further back are [`gaps`]' business.
    pub watermark: Option<i64>,
    /// The newest closed bucket of any entity.
    pub highest_closed_bucket: Option<i64>,
    /// How many entities are active.
    pub entities: u64,
    /// Entities whose last closed bucket is before the newest one, the furthest behind first.
    pub lagging: Vec<Lagging>,
}

/// The missing buckets of one entity.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityGaps {
    /// The entity.
    pub entity: serde_json::Value,
    /// How many buckets are missing.
    pub missing: u64,
    /// The first of them.
    pub first: Vec<i64>,
}

/// The gaps of a series.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gaps {
    /// How many buckets are missing in all.
    pub missing: u64,
    /// Entities with gaps, in the engine's order.
    pub entities: Vec<EntityGaps>,
}

impl Series {
    fn check(&self) -> Result<(), TransferError> {
        if self.timestep > 0 {
            return Ok(());
        }
        Err(TransferError::request(format!("the timestep of `{}` must be above 0 seconds", self.table)))
    }

    /// `e(entity)`: who must be complete. The column names itself after whatever the SQL calls it.
    fn entities(&self, engine: Engine) -> String {
        let (table, entity) = (engine.quote_table(&self.table), engine.quote(&self.entity));
        match &self.active {
            Some(sql) => format!("e(entity) AS ({}\n)", sql.trim().trim_end_matches(';')),
            None => format!("e(entity) AS (SELECT DISTINCT {entity} FROM {table})"),
        }
    }
}

fn int(value: i64) -> Arg {
    Arg::One(Value::Int(value))
}

/// Observes how far every active entity has come; buckets that are still open at `now` (seconds since the epoch) do not count.
pub async fn watermark(database: &Database, series: &Series, now: i64) -> Result<Watermark, TransferError> {
    series.check()?;
    let mut session = Session::open(database).await?;
    let table = schema::describe(&mut session, &series.table).await?;
    let engine = session.engine();
    let time = engine.quote(&table.require(&series.time)?.name);
    let entity = engine.quote(&table.require(&series.entity)?.name);
    let open_bucket = now.div_euclid(series.timestep) * series.timestep;
    let sql = format!(
        "WITH {} SELECT {}, {} FROM e LEFT JOIN {} AS p ON p.{entity} = e.entity AND p.{time} < {} \
         GROUP BY e.entity ORDER BY max(p.{time}) IS NOT NULL, max(p.{time}), e.entity",
        series.entities(engine),
        engine.read("e.entity"),
        engine.read(&format!("max(p.{time})")),
        table.quoted(),
        engine.integer_parameter(1)
    );
    let mut last = Vec::new();
    for row in session.rows(&sql, vec![int(open_bucket)]).await? {
        let [entity, time] = row.as_slice() else { continue };
        let bucket = time.as_integer().map(|time| time.div_euclid(series.timestep) * series.timestep);
        last.push(Lagging { entity: entity_json(entity), last_bucket: bucket });
    }
    let highest = last.iter().filter_map(|entity| entity.last_bucket).max();
    let lowest = last.first().and_then(|entity| entity.last_bucket);
    let complete = match lowest {
        Some(lowest) => last_complete(&mut session, series, &table.quoted(), last.len(), lowest).await?,
        None => None,
    };
    Ok(Watermark {
        watermark: complete.map(|bucket| bucket + series.timestep),
        highest_closed_bucket: highest,
        entities: u64::try_from(last.len()).unwrap_or(u64::MAX),
        lagging: last
            .into_iter()
            .filter(|entity| entity.last_bucket < highest || entity.last_bucket.is_none())
            .collect(),
    })
}

/// The last bucket, `newest` or before, that holds a row of every entity; looks back window by window.
async fn last_complete(
    session: &mut Session,
    series: &Series,
    table: &str,
    entities: usize,
    newest: i64,
) -> Result<Option<i64>, TransferError> {
    let engine = session.engine();
    let (time, entity, step) = (engine.quote(&series.time), engine.quote(&series.entity), series.timestep);
    let bucket = engine.divide(&format!("p.{time}"), step);
    let wanted = i64::try_from(entities).unwrap_or(i64::MAX);
    let oldest_sql = format!("SELECT {} FROM {table}", engine.read(&format!("min({time})")));
    let Some(oldest) = session.number(&oldest_sql, Vec::new()).await? else { return Ok(None) };
    let sql = format!(
        "WITH {} SELECT {} FROM (SELECT {bucket} AS bucket FROM {table} AS p JOIN e ON e.entity = p.{entity} \
         WHERE p.{time} >= {} AND p.{time} < {} GROUP BY {bucket} HAVING count(DISTINCT p.{entity}) = {}) AS b",
        series.entities(engine),
        engine.read("max(b.bucket)"),
        engine.integer_parameter(1),
        engine.integer_parameter(2),
        engine.integer_parameter(3)
    );
    let mut end = newest + step;
    while end > oldest {
        let start = end - WINDOW_BUCKETS * step;
        if let Some(bucket) = session.number(&sql, vec![int(start), int(end), int(wanted)]).await? {
            return Ok(Some(bucket * step));
        }
        end = start;
    }
    Ok(None)
}

/// Buckets of one look back.
const WINDOW_BUCKETS: i64 = 672;

/// Entities come as text from PostgreSQL; whole numbers are shown as such on both engines.
fn entity_json(value: &Value) -> serde_json::Value {
    value.as_integer().map_or_else(|| value.to_json(), Into::into)
}

/// Finds, for every active entity, the buckets of `[from, to)` without a row; at most `limit` are named per entity.
pub async fn gaps(
    database: &Database,
    series: &Series,
    from: i64,
    to: i64,
    limit: usize,
) -> Result<Gaps, TransferError> {
    series.check()?;
    let step = series.timestep;
    if from.rem_euclid(step) != 0 || to.rem_euclid(step) != 0 {
        return Err(TransferError::request(format!("[{from}, {to}) does not begin and end on a bucket of {step} s")));
    }
    let mut session = Session::open(database).await?;
    let table = schema::describe(&mut session, &series.table).await?;
    let engine = session.engine();
    let time = engine.quote(&table.require(&series.time)?.name);
    let entity = engine.quote(&table.require(&series.entity)?.name);
    let sql = format!(
        "WITH {} SELECT {}, {} FROM e LEFT JOIN {} AS p ON p.{entity} = e.entity \
         AND p.{time} >= {} AND p.{time} < {} ORDER BY e.entity, p.{time}",
        series.entities(engine),
        engine.read("e.entity"),
        engine.read(&format!("p.{time}")),
        table.quoted(),
        engine.integer_parameter(1),
        engine.integer_parameter(2)
    );
    let mut found = Gaps::default();
    let mut walk: Option<(Value, i64, EntityGaps)> = None;
    session
        .each_row(&sql, vec![int(from), int(to)], |row| {
            let [entity, time] = row.as_slice() else { return Ok(()) };
            if walk.as_ref().is_none_or(|(current, ..)| current != entity) {
                finish(&mut found, walk.take(), to, step, limit);
                let gaps = EntityGaps { entity: entity_json(entity), missing: 0, first: Vec::new() };
                walk = Some((entity.clone(), from, gaps));
            }
            if let (Some((_, next, gaps)), Some(time)) = (walk.as_mut(), time.as_integer()) {
                let bucket = time.div_euclid(step) * step;
                skip(gaps, *next, bucket, step, limit);
                *next = (bucket + step).max(*next);
            }
            Ok(())
        })
        .await?;
    finish(&mut found, walk.take(), to, step, limit);
    Ok(found)
}

/// Notes the buckets of `[next, bucket)`.
fn skip(gaps: &mut EntityGaps, next: i64, bucket: i64, step: i64, limit: usize) {
    if bucket <= next {
        return;
    }
    gaps.missing += u64::try_from((bucket - next) / step).unwrap_or(0);
    let mut at = next;
    while at < bucket && gaps.first.len() < limit {
        gaps.first.push(at);
        at += step;
    }
}

fn finish(found: &mut Gaps, walk: Option<(Value, i64, EntityGaps)>, to: i64, step: i64, limit: usize) {
    let Some((_, next, mut gaps)) = walk else { return };
    skip(&mut gaps, next, to, step, limit);
    if gaps.missing > 0 {
        found.missing += gaps.missing;
        found.entities.push(gaps);
    }
}

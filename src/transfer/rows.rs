//! Reads the rows of one planned table: chunks by key, look-ups, counts, on every engine.
//!
//! Refuses rows whose values the target cannot hold and rows without a full key. Used by `copy`, `overlap` and `compare`.

use std::collections::HashMap;

use super::engine::Engine;
use super::error::TransferError;
use super::plan::{From, TablePlan};
use super::schema::{Column, Table};
use super::session::{Arg, Session};
use super::value::{Kind, Value, convert};

/// A half-open range over the time column: `from <= t < to`, whole seconds since the epoch; an open end is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// First second that is in.
    pub from: Option<i64>,
    /// First second that is out again.
    pub to: Option<i64>,
}

/// A row as it will stand in the target.
#[derive(Debug, Clone)]
pub(super) struct MappedRow {
    /// The source's own key, for the keyset and the checkpoint.
    pub(super) source_key: Vec<Value>,
    /// One value per planned column.
    pub(super) values: Vec<Value>,
}

/// Key maps by target column: the source's value to the target's.
pub(super) type Lookups = HashMap<String, HashMap<String, Value>>;

/// Parameters and their text, per engine.
pub(super) struct Params {
    engine: Engine,
    pub(super) args: Vec<Arg>,
}

impl Params {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, args: Vec::new() }
    }

    pub(super) fn engine(&self) -> Engine {
        self.engine
    }

    /// A whole number of ours, compared with a column.
    fn integer(&mut self, number: i64) -> String {
        self.args.push(Arg::One(Value::Int(number)));
        self.engine.integer_parameter(self.args.len())
    }

    pub(super) fn bind(&mut self, value: Value, cast: &str) -> String {
        self.args.push(Arg::One(value));
        self.engine.parameter(self.args.len(), cast)
    }
}

pub(super) fn range_sql(params: &mut Params, time: &Column, range: Range, clauses: &mut Vec<String>) {
    let name = params.engine.quote(&time.name);
    for (bound, compare) in [(range.from, ">="), (range.to, "<")] {
        if let Some(bound) = bound {
            let bound = params.integer(bound);
            let bound = match (params.engine, time.kind) {
                (Engine::Postgres, Kind::Instant) => format!("to_timestamp({bound})"),
                (Engine::Sqlite | Engine::Postgres | Engine::Mariadb, _) => bound,
            };
            clauses.push(format!("{name} {compare} {bound}"));
        }
    }
}

/// The time column, or why a range cannot be taken.
pub(super) fn time_of(plan: &TablePlan, range: Range) -> Result<Option<&(Column, Column)>, TransferError> {
    if plan.time.is_none() && range != Range::default() {
        return Err(TransferError::request(format!(
            "`{}` has no `time` column in the mapping, so no range can be taken of it",
            plan.source.name
        )));
    }
    Ok(plan.time.as_ref())
}

pub(super) fn where_sql(clauses: &[String]) -> String {
    if clauses.is_empty() { String::new() } else { format!(" WHERE {}", clauses.join(" AND ")) }
}

/// Which side of a plan is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Target,
}

/// Counts the rows of one side within a range.
pub(super) async fn count(
    session: &mut Session,
    plan: &TablePlan,
    side: Side,
    range: Range,
) -> Result<u64, TransferError> {
    let (filter, args) = range_filter(session.engine(), plan, side, range)?;
    let table = if side == Side::Source { &plan.source } else { &plan.target };
    let sql = format!("SELECT {} FROM {}{filter}", session.engine().read("count(*)"), table.quoted());
    let counted = session.number(&sql, args).await?.unwrap_or(0);
    Ok(u64::try_from(counted).unwrap_or(0))
}

/// The `WHERE` clause and its parameters that take a range of one side.
pub(super) fn range_filter(
    engine: Engine,
    plan: &TablePlan,
    side: Side,
    range: Range,
) -> Result<(String, Vec<Arg>), TransferError> {
    let mut params = Params::new(engine);
    let mut clauses = Vec::new();
    if let Some((source, target)) = time_of(plan, range)? {
        range_sql(&mut params, if side == Side::Source { source } else { target }, range, &mut clauses);
    }
    Ok((where_sql(&clauses), params.args))
}

/// Refuses source rows that a keyset walk would lose: keys with NULL and keys that are not unique.
pub(super) async fn check_keys(session: &mut Session, plan: &TablePlan) -> Result<(), TransferError> {
    let table = plan.source.quoted();
    let engine = session.engine();
    let problem =
        |problem: String| TransferError::Mapping { mapping: plan.source.name.clone(), problems: vec![problem] };
    for column in plan.source_key.iter().filter(|column| !column.not_null) {
        let sql =
            format!("SELECT {} FROM {table} WHERE {} IS NULL", engine.read("count(*)"), engine.quote(&column.name));
        let nulls = session.number(&sql, Vec::new()).await?.unwrap_or(0);
        if nulls > 0 {
            return Err(problem(format!("{nulls} rows have NULL in the key column `{}`", column.name)));
        }
    }
    let names: Vec<String> = plan.source_key.iter().map(|column| column.name.clone()).collect();
    if !plan.source.is_unique(&names) {
        let list = names.iter().map(|name| engine.quote(name)).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT {} FROM (SELECT {list} FROM {table} GROUP BY {list} HAVING count(*) > 1 LIMIT 1) AS d",
            engine.read("count(*)")
        );
        if session.number(&sql, Vec::new()).await? != Some(0) {
            return Err(problem(format!("the key {names:?} is not unique in the source")));
        }
    }
    Ok(())
}

/// Loads every key map of a plan and proves it injective and, over the source rows in range, total.
pub(super) async fn load_lookups(
    source: &mut Session,
    target: &mut Session,
    plan: &TablePlan,
    range: Range,
) -> Result<Lookups, TransferError> {
    let mut lookups = Lookups::new();
    for column in &plan.columns {
        let Some(lookup) = &column.lookup else { continue };
        let wrong = |why: String| TransferError::Lookup {
            table: lookup.table.clone(),
            column: column.target.name.clone(),
            why,
        };
        let table = super::schema::describe(target, &lookup.table).await?;
        let (from, to) = (table.require(&lookup.from)?, table.require(&lookup.to)?);
        let engine = target.engine();
        let sql = format!(
            "SELECT {}, {} FROM {}",
            engine.read(&engine.quote(&from.name)),
            engine.read(&engine.quote(&to.name)),
            table.quoted()
        );
        let mut map = HashMap::new();
        let mut images = HashMap::new();
        for row in target.rows(&sql, Vec::new()).await? {
            let [old, new] = row.as_slice() else { continue };
            let (Some(old), Some(image)) = (old.to_text(), new.to_text()) else {
                return Err(wrong("it holds NULL".to_owned()));
            };
            if let Some(other) = images.insert(image.clone(), old.clone()) {
                return Err(wrong(format!("not injective: `{other}` and `{old}` both become `{image}`")));
            }
            let new = convert(new.clone(), Some(to.kind), column.target.kind).map_err(wrong)?;
            if map.insert(old.clone(), new).is_some() {
                return Err(wrong(format!("`{old}` is mapped twice")));
            }
        }
        let missing = unmapped(source, plan, range, &column.from, &map).await?;
        if !missing.is_empty() {
            return Err(wrong(format!("not total: no entry for {missing:?}")));
        }
        lookups.insert(column.target.name.clone(), map);
    }
    Ok(lookups)
}

async fn unmapped(
    source: &mut Session,
    plan: &TablePlan,
    range: Range,
    from: &From,
    map: &HashMap<String, Value>,
) -> Result<Vec<String>, TransferError> {
    let From::Source(sql, _) = from else { return Ok(Vec::new()) };
    let mut params = Params::new(source.engine());
    let mut clauses = vec![format!("{sql} IS NOT NULL")];
    if let Some((time, _)) = time_of(plan, range)? {
        range_sql(&mut params, time, range, &mut clauses);
    }
    let shown = source.engine().read(sql);
    let sql = format!("SELECT DISTINCT {shown} FROM {}{}", plan.source.quoted(), where_sql(&clauses));
    let mut missing = Vec::new();
    source
        .each_row(&sql, params.args, |row| {
            let value = row.first().and_then(Value::to_text).unwrap_or_default();
            if missing.len() < 10 && !map.contains_key(&value) {
                missing.push(value);
            }
            Ok(())
        })
        .await?;
    Ok(missing)
}

/// Reads the next chunk of source rows in key order and maps it.
pub(super) async fn read_chunk(
    session: &mut Session,
    plan: &TablePlan,
    lookups: &Lookups,
    after: Option<&[Value]>,
    range: Range,
    limit: usize,
) -> Result<Vec<MappedRow>, TransferError> {
    read_chunk_where(session, plan, lookups, after, range, limit, None).await
}

/// Reads the next chunk of those source rows for which `more` holds.
pub(super) async fn read_chunk_where(
    session: &mut Session,
    plan: &TablePlan,
    lookups: &Lookups,
    after: Option<&[Value]>,
    range: Range,
    limit: usize,
    more: Option<&str>,
) -> Result<Vec<MappedRow>, TransferError> {
    let engine = session.engine();
    let mut params = Params::new(engine);
    let keys: Vec<String> = plan.source_key.iter().map(|column| engine.quote(&column.name)).collect();
    let mut clauses = keyset_sql(&mut params, &plan.source_key, after);
    if let Some((time, _)) = time_of(plan, range)? {
        range_sql(&mut params, time, range, &mut clauses);
    }
    clauses.extend(more.map(str::to_owned));
    let mut shown: Vec<String> = keys.iter().map(|key| engine.read(key)).collect();
    shown.extend(plan.columns.iter().filter_map(|column| match &column.from {
        From::Source(sql, _) => Some(engine.read(sql)),
        From::Constant(_) => None,
    }));
    let sql = format!(
        "SELECT {} FROM {}{} ORDER BY {} LIMIT {limit}",
        shown.join(", "),
        plan.source.quoted(),
        where_sql(&clauses),
        order_sql(&plan.source, &plan.source_key)
    );
    let mut rows = Vec::new();
    session
        .each_row(&sql, params.args, |mut row| {
            let rest = row.split_off(keys.len());
            let values = map_row(plan, lookups, &row, rest)?;
            rows.push(MappedRow { source_key: row, values });
            Ok(())
        })
        .await?;
    Ok(rows)
}

/// `(k1, k2) > (.., ..)`, or nothing for the first chunk.
pub(super) fn keyset_sql(params: &mut Params, key: &[Column], after: Option<&[Value]>) -> Vec<String> {
    let Some(after) = after else { return Vec::new() };
    let names: Vec<String> = key.iter().map(|column| params.engine.quote(&column.name)).collect();
    let bounds: Vec<String> =
        key.iter().zip(after).map(|(column, value)| params.bind(value.clone(), &column.cast)).collect();
    vec![format!("({}) > ({})", names.join(", "), bounds.join(", "))]
}

/// The key columns, qualified: a bare name would mean the output column, which PostgreSQL reads as text and would sort as text.
pub(super) fn order_sql(table: &Table, key: &[Column]) -> String {
    key.iter()
        .map(|column| format!("{}.{}", table.quoted(), table.engine.quote(&column.name)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// `k1=1, k2=2` for messages.
fn key_text(plan: &TablePlan, source_key: &[Value]) -> String {
    let show = |value: &Value| value.to_text().unwrap_or_else(|| "NULL".to_owned());
    let parts: Vec<String> =
        plan.source_key.iter().zip(source_key).map(|(c, v)| format!("{}={}", c.name, show(v))).collect();
    parts.join(", ")
}

pub(super) fn misfit(plan: &TablePlan, source_key: &[Value], column: &str, why: String) -> TransferError {
    TransferError::Misfit {
        table: plan.source.name.clone(),
        key: key_text(plan, source_key),
        column: column.to_owned(),
        why,
    }
}

/// Makes of what was read the row that the target will hold.
pub(super) fn map_row(
    plan: &TablePlan,
    lookups: &Lookups,
    source_key: &[Value],
    read: Vec<Value>,
) -> Result<Vec<Value>, TransferError> {
    let mut read = read.into_iter();
    let mut values = Vec::with_capacity(plan.columns.len());
    for column in &plan.columns {
        let wrong = |why: String| misfit(plan, source_key, &column.target.name, why);
        let (value, kind) = match &column.from {
            From::Source(_, kind) => (read.next().unwrap_or(Value::Null), *kind),
            From::Constant(value) => (value.clone(), None),
        };
        let value = match (lookups.get(&column.target.name), value.to_text()) {
            (Some(map), Some(old)) => {
                map.get(&old).cloned().ok_or_else(|| wrong(format!("the key map has no entry for `{old}`")))?
            }
            (Some(_) | None, _) => convert(value, kind, column.target.kind).map_err(wrong)?,
        };
        if let Some(members) = &column.target.members {
            members.check(&value).map_err(wrong)?;
        }
        if value == Value::Null && column.target.not_null {
            return Err(wrong("NULL is not allowed".to_owned()));
        }
        values.push(value);
    }
    Ok(values)
}

/// Reads the next chunk of target keys in key order, with every planned column.
pub(super) async fn read_target_chunk(
    session: &mut Session,
    plan: &TablePlan,
    after: Option<&[Value]>,
    range: Range,
    limit: usize,
) -> Result<Vec<Vec<Value>>, TransferError> {
    let engine = session.engine();
    let mut params = Params::new(engine);
    let key = plan.target_key();
    let mut clauses = keyset_sql(&mut params, &key, after);
    if let Some((_, time)) = time_of(plan, range)? {
        range_sql(&mut params, time, range, &mut clauses);
    }
    let shown: Vec<String> = plan.columns.iter().map(|c| engine.read(&engine.quote(&c.target.name))).collect();
    let sql = format!(
        "SELECT {} FROM {}{} ORDER BY {} LIMIT {limit}",
        shown.join(", "),
        plan.target.quoted(),
        where_sql(&clauses),
        order_sql(&plan.target, &key)
    );
    session.rows(&sql, params.args).await
}

impl TablePlan {
    /// The target's key columns in the order of the source's.
    pub(super) fn target_key(&self) -> Vec<Column> {
        self.key.iter().map(|i| self.columns[*i].target.clone()).collect()
    }

    /// Every planned target column.
    pub(super) fn target_columns(&self) -> Vec<Column> {
        self.columns.iter().map(|plan| plan.target.clone()).collect()
    }
}

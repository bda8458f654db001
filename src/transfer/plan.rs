//! Holds a mapping against two real databases and makes of each table a [`TablePlan`]: what is read, what is written, by which key.
//!
//! Refuses unmapped columns that are not ignored, keys that are not unique, columns that do not exist; every problem is named at once.
//! Used by `copy`, `overlap` and `compare`; [`check`] is called by preflights.

use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;
use super::mapping::{Lookup, Mapping, TableMapping};
use super::mariadb_value::MariaKind;
use super::schema::{self, Column, Table};
use super::session::Session;
use super::value::{Kind, Value};
use super::{mariadb, postgres};

/// Where a target column's value comes from.
#[derive(Debug, Clone)]
pub(super) enum From {
    /// An SQL expression over the source row, with its kind where it is known.
    Source(String, Option<Kind>),
    /// The same value for every row.
    Constant(Value),
}

/// One target column that is written.
#[derive(Debug, Clone)]
pub(super) struct ColumnPlan {
    pub(super) target: Column,
    pub(super) from: From,
    pub(super) lookup: Option<Lookup>,
}

/// Everything that is needed to move one table.
#[derive(Debug, Clone)]
pub(super) struct TablePlan {
    pub(super) source: Table,
    pub(super) target: Table,
    pub(super) columns: Vec<ColumnPlan>,
    /// The source's key columns.
    pub(super) source_key: Vec<Column>,
    /// For each key column the index of its target column in `columns`.
    pub(super) key: Vec<usize>,
    /// The source's time column and the target column that it becomes.
    pub(super) time: Option<(Column, Column)>,
    pub(super) timestep: Option<i64>,
    pub(super) coverage: Option<usize>,
    pub(super) additive: Vec<usize>,
    /// Target columns that the mapping does not fill, without those that number or identify the row.
    pub(super) target_only: Vec<Column>,
    /// Whether the target holds no key twice.
    pub(super) is_unique: bool,
}

/// Checks a mapping against both databases: every table on either side is in a set or ignored, every column is mapped or ignored.
pub async fn check(from: &Database, to: &Database, mapping: &Mapping) -> Result<(), TransferError> {
    mapping.validate()?;
    let mut source = Session::open(from).await?;
    let mut target = Session::open(to).await?;
    let mut problems = Vec::new();
    let mut targets = Vec::new();
    let placed: Vec<&String> = mapping.sets.values().flatten().collect();
    for name in &placed {
        let table = mapping.table(name);
        targets.push(table.target(name));
        targets.extend(table.lookup.values().map(|lookup| lookup.table.clone()));
        let Err(error) = plan_table(&mut source, &mut target, mapping, name).await else { continue };
        let unfit = matches!(error, TransferError::UnknownTable { .. } | TransferError::UnknownColumn { .. })
            || matches!(error, TransferError::Sql { effect_unknown: false, .. });
        if let TransferError::Mapping { problems: found, .. } = error {
            problems.extend(found);
        } else if unfit {
            problems.push(error.to_string());
        } else {
            return Err(error);
        }
    }
    for name in schema::tables(&mut source).await? {
        if !placed.contains(&&name) && !mapping.ignore.source.contains(&name) {
            problems.push(format!("source table `{name}` is in no set and not ignored"));
        }
    }
    for name in schema::tables(&mut target).await? {
        if !targets.contains(&name) && !mapping.ignore.target.contains(&name) {
            problems.push(format!("target table `{name}` is in no set and not ignored"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(TransferError::Mapping { mapping: mapping.name.clone(), problems }) }
}

/// Plans every table of a set, in copy order; each needs a unique key in the target.
pub(super) async fn plan_set(
    source: &mut Session,
    target: &mut Session,
    mapping: &Mapping,
    set: &str,
) -> Result<Vec<TablePlan>, TransferError> {
    let plans = plan_load(source, target, mapping, set).await?;
    for plan in &plans {
        plan.require_unique(&mapping.name)?;
    }
    Ok(plans)
}

/// Plans every table of a set, in copy order; an empty target may be loaded without a unique key.
pub(super) async fn plan_load(
    source: &mut Session,
    target: &mut Session,
    mapping: &Mapping,
    set: &str,
) -> Result<Vec<TablePlan>, TransferError> {
    mapping.validate()?;
    let mut plans = Vec::new();
    for name in mapping.set(set)? {
        plans.push(plan_any(source, target, mapping, name).await?);
    }
    Ok(plans)
}

/// Plans one table.
pub(super) async fn plan_table(
    source: &mut Session,
    target: &mut Session,
    mapping: &Mapping,
    name: &str,
) -> Result<TablePlan, TransferError> {
    let plan = plan_any(source, target, mapping, name).await?;
    plan.require_unique(&mapping.name)?;
    Ok(plan)
}

async fn plan_any(
    source_session: &mut Session,
    target_session: &mut Session,
    mapping: &Mapping,
    name: &str,
) -> Result<TablePlan, TransferError> {
    let table = mapping.table(name);
    let source = schema::describe(source_session, name).await?;
    let target = schema::describe(target_session, &table.target(name)).await?;
    let mut problems = Vec::new();
    let columns = plan_columns(source_session, &source, &target, &table, &mut problems).await?;
    let find = |column: &str, problems: &mut Vec<String>, what: &str| {
        let found = columns.iter().position(|plan| plan.target.name == column);
        if found.is_none() {
            problems.push(format!("`{name}`: {what} `{column}` is no target column that is filled"));
        }
        found
    };
    let coverage = table.coverage.as_deref().and_then(|column| find(column, &mut problems, "coverage column"));
    let additive = table.additive.iter().filter_map(|c| find(c, &mut problems, "additive column")).collect();
    for column in table.lookup.keys() {
        find(column, &mut problems, "lookup column");
    }
    let key_names = if table.key.is_empty() { source.primary_key.clone() } else { table.key.clone() };
    let (source_key, key) = plan_key(&source, &columns, &key_names, &mut problems)?;
    let time = match &table.time {
        None => None,
        Some(time) => {
            let column = source.require(time)?.clone();
            let becomes = columns.iter().find(|plan| is_column(&plan.from, &source, time));
            if becomes.is_none() {
                problems.push(format!("`{name}`: the time column `{time}` is not mapped to a target column"));
            }
            becomes.map(|plan| (column, plan.target.clone()))
        }
    };
    let target_only = target
        .columns
        .iter()
        .filter(|column| !column.generated && !column.numbered && !target.primary_key.contains(&column.name))
        .filter(|column| !columns.iter().any(|plan| plan.target.name == column.name))
        .cloned()
        .collect();
    if !problems.is_empty() {
        return Err(TransferError::Mapping { mapping: mapping.name.clone(), problems });
    }
    let timestep = table.timestep;
    let key_names: Vec<String> = key.iter().map(|index| columns[*index].target.name.clone()).collect();
    let is_unique = target.is_unique(&key_names);
    Ok(TablePlan {
        source,
        target,
        columns,
        source_key,
        key,
        time,
        timestep,
        coverage,
        additive,
        target_only,
        is_unique,
    })
}

/// True where the value is one plain source column of this name.
fn is_column(from: &From, source: &Table, name: &str) -> bool {
    matches!(from, From::Source(sql, _) if *sql == source.engine.quote(name))
}

async fn plan_columns(
    session: &mut Session,
    source: &Table,
    target: &Table,
    table: &TableMapping,
    problems: &mut Vec<String>,
) -> Result<Vec<ColumnPlan>, TransferError> {
    let name = &source.name;
    let mut columns = Vec::new();
    let mut used = Vec::new();
    for column in &target.columns {
        let mapped = match &table.columns {
            Some(columns) => columns.get(&column.name).cloned(),
            None => source.column(&column.name).map(|c| c.name.clone()).filter(|c| !table.ignore.source.contains(c)),
        };
        let from = if let Some(literal) = table.constants.get(&column.name) {
            From::Constant(Value::from_json(literal))
        } else if let Some(expression) = table.expressions.get(&column.name) {
            From::Source(format!("({expression})"), expression_kind(session, source, expression).await?)
        } else if let Some(mapped) = mapped.filter(|_| !table.ignore.target.contains(&column.name)) {
            let Some(found) = source.column(&mapped) else {
                problems.push(format!("`{name}` has no column `{mapped}`"));
                continue;
            };
            used.push(mapped.clone());
            From::Source(source.engine.quote(&mapped), Some(found.kind))
        } else {
            if !table.ignore.target.contains(&column.name) && !column.generated {
                problems.push(format!("target column `{}.{}` is neither filled nor ignored", target.name, column.name));
            }
            continue;
        };
        if column.generated {
            problems.push(format!("target column `{}.{}` is computed by the engine", target.name, column.name));
        }
        columns.push(ColumnPlan { target: column.clone(), from, lookup: table.lookup.get(&column.name).cloned() });
    }
    for column in &source.columns {
        let word = |c: char| !c.is_alphanumeric() && c != '_';
        let read = table.expressions.values().any(|sql| sql.split(word).any(|part| part == column.name));
        if !used.contains(&column.name) && !read && !table.ignore.source.contains(&column.name) {
            problems.push(format!("source column `{name}.{}` is neither read nor ignored", column.name));
        }
    }
    let named =
        table.columns.iter().flat_map(|c| c.keys()).chain(table.constants.keys()).chain(table.expressions.keys());
    for column in named {
        if target.column(column).is_none() {
            problems.push(format!("`{}` has no column `{column}`", target.name));
        }
    }
    Ok(columns)
}

async fn expression_kind(
    session: &mut Session,
    source: &Table,
    expression: &str,
) -> Result<Option<Kind>, TransferError> {
    match session.engine() {
        Engine::Sqlite => {
            session.rows(&format!("SELECT ({expression}) FROM {} LIMIT 0", source.quoted()), Vec::new()).await?;
            Ok(None)
        }
        Engine::Mariadb => mariadb::expression_kind(session, source, expression).await,
        Engine::Postgres => {
            let sql = format!(
                "SELECT typname::text FROM pg_type WHERE oid = pg_typeof((SELECT ({expression}) FROM {} LIMIT 1))::oid",
                source.quoted()
            );
            let rows = session.rows(&sql, Vec::new()).await?;
            let base = rows.first().and_then(|row| row.first()).and_then(Value::to_text);
            Ok(base.map(|base| postgres::kind(&base, -1)))
        }
    }
}

fn plan_key(
    source: &Table,
    columns: &[ColumnPlan],
    names: &[String],
    problems: &mut Vec<String>,
) -> Result<(Vec<Column>, Vec<usize>), TransferError> {
    if names.is_empty() {
        problems.push(format!("`{}` has no primary key and the mapping names no `key`", source.name));
    }
    let mut source_key = Vec::new();
    let mut key = Vec::new();
    for name in names {
        source_key.push(source.require(name)?.clone());
        match columns.iter().position(|plan| is_column(&plan.from, source, name)) {
            Some(index) => key.push(index),
            None => {
                problems.push(format!("`{}`: the key column `{name}` is not mapped to a target column", source.name));
            }
        }
    }
    let approximate = source_key.iter().chain(key.iter().map(|index| &columns[*index].target));
    for column in approximate.filter(|column| matches!(column.kind, Kind::Maria(MariaKind::Float(_)))) {
        problems
            .push(format!("the key column `{}` is a FLOAT, which MariaDB compares with nothing exactly", column.name));
    }
    Ok((source_key, key))
}

impl TablePlan {
    /// Refuses a target that could hold a key twice.
    pub(super) fn require_unique(&self, mapping: &str) -> Result<(), TransferError> {
        if self.is_unique {
            return Ok(());
        }
        let names: Vec<&str> = self.key.iter().map(|index| self.columns[*index].target.name.as_str()).collect();
        let problems = vec![format!("`{}` has no unique key over {names:?}", self.target.name)];
        Err(TransferError::Mapping { mapping: mapping.to_owned(), problems })
    }

    /// The target column that holds the row's time.
    pub(super) fn time_index(&self) -> Option<usize> {
        let (_, target) = self.time.as_ref()?;
        self.columns.iter().position(|plan| plan.target.name == target.name)
    }

    /// The key of a mapped row.
    pub(super) fn key_of(&self, row: &[Value]) -> Vec<Value> {
        self.key.iter().map(|index| row[*index].clone()).collect()
    }

    /// The key of a row by the target's names, for reports.
    pub(super) fn key_json(&self, key: &[Value]) -> serde_json::Map<String, serde_json::Value> {
        self.key.iter().zip(key).map(|(i, value)| (self.columns[*i].target.name.clone(), value.to_json())).collect()
    }
}

//! Foretells what a copy would do to rows that the target already holds, without writing anything.
//!
//! Called by preflights and by `copy` as its guard.

use std::fmt;

use super::checkpoint::TableCheckpoint;
use super::copy::CopyRequest;
use super::database::Database;
use super::error::TransferError;
use super::plan::{TablePlan, plan_set};
use super::policy::{Policy, RowEffect, effect};
use super::rows::{self, Lookups, Range};
use super::schema::Column;
use super::session::{Begin, Session};
use super::value::Value;
use super::write;

/// How many keys a report names.
pub const KEYS_SHOWN: usize = 10;

/// The overlap of one table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableOverlap {
    /// The source table.
    pub table: String,
    /// Source rows that were looked at.
    pub selected: u64,
    /// Source rows whose key the target holds.
    pub common: u64,
    /// Rows that the policy would insert.
    pub insert: u64,
    /// Rows that it would overwrite or add to.
    pub update: u64,
    /// Rows that differ and stay as the target has them.
    pub keep: u64,
    /// Rows that are equal already.
    pub unchanged: u64,
    /// Rows that the policy forbids: common keys under `fail`, rows at or after the split under `split_at`.
    pub forbidden: u64,
    /// The first common or forbidden keys, by target column.
    pub first_keys: Vec<serde_json::Map<String, serde_json::Value>>,
}

/// The overlap of a table set.
#[derive(Debug, Clone, PartialEq)]
pub struct OverlapReport {
    /// The policy by name.
    pub policy: &'static str,
    /// One entry per table, in copy order.
    pub tables: Vec<TableOverlap>,
}

impl OverlapReport {
    /// Rows that the policy forbids.
    pub fn forbidden(&self) -> u64 {
        self.tables.iter().map(|table| table.forbidden).sum()
    }

    /// Source rows whose key the target holds.
    pub fn common(&self) -> u64 {
        self.tables.iter().map(|table| table.common).sum()
    }
}

impl fmt::Display for OverlapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy `{}` forbids {} rows", self.policy, self.forbidden())?;
        for table in self.tables.iter().filter(|table| table.forbidden > 0) {
            let first = table.first_keys.first().map(|key| serde_json::Value::Object(key.clone()).to_string());
            write!(f, "; `{}`: {}, first {}", table.table, table.forbidden, first.unwrap_or_default())?;
        }
        Ok(())
    }
}

/// Reports, table by table, what `request` would do; nothing is written.
pub async fn overlap(from: &Database, to: &Database, request: &CopyRequest) -> Result<OverlapReport, TransferError> {
    let mut source = request.open(from).await?;
    let mut target = request.open(to).await?;
    source.begin(Begin::Snapshot).await?;
    target.begin(Begin::Snapshot).await?;
    let plans = plan_set(&mut source, &mut target, &request.mapping, &request.set).await?;
    let mut report = OverlapReport { policy: request.policy.name(), tables: Vec::new() };
    for plan in &plans {
        let lookups = rows::load_lookups(&mut source, &mut target, plan, request.range).await?;
        report.tables.push(table_overlap(&mut source, &mut target, plan, &lookups, request, None).await?);
    }
    Ok(report)
}

/// The columns that judging a row needs: the planned ones, then the target's own.
pub(super) fn judged_columns(plan: &TablePlan) -> Vec<Column> {
    plan.target_columns().into_iter().chain(plan.target_only.iter().cloned()).collect()
}

/// Judges every selected row after `after`.
pub(super) async fn table_overlap(
    source: &mut Session,
    target: &mut Session,
    plan: &TablePlan,
    lookups: &Lookups,
    request: &CopyRequest,
    after: Option<Vec<Value>>,
) -> Result<TableOverlap, TransferError> {
    let mut report = TableOverlap { table: plan.source.name.clone(), ..TableOverlap::default() };
    let mut after = after;
    let columns = judged_columns(plan);
    loop {
        let chunk =
            rows::read_chunk(source, plan, lookups, after.as_deref(), request.range, request.chunk_rows()).await?;
        let Some(last) = chunk.last() else { return Ok(report) };
        after = Some(last.source_key.clone());
        let keys: Vec<Vec<Value>> = chunk.iter().map(|row| plan.key_of(&row.values)).collect();
        let existing = write::find(target, &plan.target, &plan.target_key(), &keys, &columns, false).await?;
        for ((row, key), existing) in chunk.iter().zip(&keys).zip(&existing) {
            let judged = effect(request.policy, plan, existing.as_deref(), &row.values);
            report.selected += 1;
            report.common += u64::from(existing.is_some());
            *match judged {
                RowEffect::Insert => &mut report.insert,
                RowEffect::Overwrite | RowEffect::Add => &mut report.update,
                RowEffect::Keep => &mut report.keep,
                RowEffect::Unchanged => &mut report.unchanged,
                RowEffect::Forbidden => &mut report.forbidden,
            } += 1;
            let named = existing.is_some() || judged == RowEffect::Forbidden;
            if named && report.first_keys.len() < KEYS_SHOWN {
                report.first_keys.push(plan.key_json(key));
            }
        }
    }
}

/// Aborts, before anything is written, where the policy forbids a selected row.
pub(super) async fn guard(
    source: &mut Session,
    target: &mut Session,
    plan: &TablePlan,
    lookups: &Lookups,
    request: &CopyRequest,
    state: &TableCheckpoint,
) -> Result<(), TransferError> {
    let found = match request.policy {
        Policy::SplitAt { at } => split_overlap(source, plan, lookups, request, at).await?,
        Policy::Fail => {
            // What an empty target holds since then is the copy's own; another writer's key is met when it is written.
            if state.began_empty {
                return Ok(());
            }
            table_overlap(source, target, plan, lookups, request, state.last_key.clone()).await?
        }
        Policy::SourceWins { .. } | Policy::Fill | Policy::BestCoverage | Policy::MergeAdditive => return Ok(()),
    };
    if found.forbidden == 0 {
        return Ok(());
    }
    Err(TransferError::Overlap(Box::new(OverlapReport { policy: request.policy.name(), tables: vec![found] })))
}

/// Source rows at or after the split, cheaply: only those are read.
async fn split_overlap(
    source: &mut Session,
    plan: &TablePlan,
    lookups: &Lookups,
    request: &CopyRequest,
    at: i64,
) -> Result<TableOverlap, TransferError> {
    let late = Range { from: Some(request.range.from.map_or(at, |from| from.max(at))), to: request.range.to };
    let forbidden = rows::count(source, plan, rows::Side::Source, late).await?;
    let mut report = TableOverlap { table: plan.source.name.clone(), forbidden, ..TableOverlap::default() };
    if forbidden > 0 {
        let first = rows::read_chunk(source, plan, lookups, None, late, KEYS_SHOWN).await?;
        report.first_keys = first.iter().map(|row| plan.key_json(&plan.key_of(&row.values))).collect();
    }
    Ok(report)
}

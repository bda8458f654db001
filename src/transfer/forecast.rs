//! Foretells how much a copy would move and whether it would be refused, table by table, without writing anything.
//!
//! Counts and compares where that is a matter of a second; beyond that it says what the engine's planner thinks, and says so. Called by the
//! preview of the `db.copy` action.

use super::checkpoint;
use super::copy::{self, CopyRequest, check_request};
use super::database::Database;
use super::error::TransferError;
use super::estimate;
use super::overlap::{guard, table_overlap};
use super::plan::{TablePlan, plan_load};
use super::rows::{self, Side};
use super::session::{Begin, Session};

/// Most rows that are counted one by one.
pub const COUNTED_MAX: u64 = 1_000_000;
/// Most rows that are held against the target.
pub const COMPARED_MAX: u64 = 100_000;

/// What the target has of the rows that would be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// None of them.
    Nothing,
    /// So many of their keys.
    Keys(u64),
    /// It has rows; they are too many to be compared now.
    Unknown,
}

/// What would be copied of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableForecast {
    /// The source table.
    pub table: String,
    /// Rows in range.
    pub rows: u64,
    /// Whether they were counted.
    pub is_exact: bool,
    /// Their bytes, always an estimate.
    pub bytes: Option<u64>,
    /// What the target has of them.
    pub held: Held,
    /// Rows that the policy forbids, as far as that was looked at.
    pub forbidden: u64,
}

/// Looks at every table of the set.
pub async fn forecast(
    from: &Database,
    to: &Database,
    request: &CopyRequest,
) -> Result<Vec<TableForecast>, TransferError> {
    let mut source = request.open(from).await?;
    let mut target = request.open(to).await?;
    source.begin(Begin::Snapshot).await?;
    target.begin(Begin::Snapshot).await?;
    let plans = plan_load(&mut source, &mut target, &request.mapping, &request.set).await?;
    let mut tables = Vec::new();
    for plan in &plans {
        check_request(plan, request)?;
        let seen = one_table(&mut source, &mut target, plan, request).await;
        tables.push(seen.map_err(|error| request.limits.name(error, &format!("`{}`", plan.source.name)))?);
    }
    Ok(tables)
}

async fn one_table(
    source: &mut Session,
    target: &mut Session,
    plan: &TablePlan,
    request: &CopyRequest,
) -> Result<TableForecast, TransferError> {
    let thought = estimate::estimate(source, plan, request.range).await?;
    let row_bytes = match thought.row_bytes {
        Some(bytes) => Some(bytes),
        None => estimate::measure(source, plan).await?,
    };
    let (rows, is_exact) = match thought.rows {
        Some(rows) if rows > COUNTED_MAX => (rows, false),
        // A thought of few rows may be an old one; the count is cheap or was worth it.
        Some(_) | None => (rows::count(source, plan, Side::Source, request.range).await?, true),
    };
    let mut seen = TableForecast {
        table: plan.source.name.clone(),
        rows,
        is_exact,
        bytes: row_bytes.map(|bytes| bytes.saturating_mul(rows)),
        held: Held::Unknown,
        forbidden: 0,
    };
    if copy::is_empty(target, plan, request.selected()).await? {
        let state = checkpoint::TableCheckpoint { began_empty: true, ..copy::fresh(plan, String::new()) };
        seen.held = Held::Nothing;
        match guard(source, target, plan, &rows::Lookups::default(), request, &state).await {
            Err(TransferError::Overlap(found)) => seen.forbidden = found.forbidden(),
            other => other?,
        }
        return Ok(seen);
    }
    plan.require_unique(&request.mapping.name)?;
    if rows <= COMPARED_MAX {
        let lookups = rows::load_lookups(source, target, plan, request.range).await?;
        let found = table_overlap(source, target, plan, &lookups, request, None).await?;
        (seen.held, seen.forbidden) = (Held::Keys(found.common), found.forbidden);
    }
    Ok(seen)
}

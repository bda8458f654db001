//! Copies a table set from one database into another: chunk by chunk, exactly once, resumable.
//!
//! **Reads**: one snapshot of the source for the whole call (SQLite: one read transaction; PostgreSQL: REPEATABLE READ; MariaDB: WITH
//! CONSISTENT SNAPSHOT, which tables without transactions take no part in), all tables included; a resume takes a new snapshot, so what is to be copied over several calls should be closed (a range of the past) or at rest.
//! **Writes**: each chunk and its row in `piton_checkpoint` are one transaction of the target.
//!
//! Refuses what the policy forbids before anything is written. Called by the `db.copy` action.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::checkpoint::{self, Counts, TableCheckpoint};
use super::chunk_hook::{ChunkHook, ChunkMoment};
use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;
use super::mapping::Mapping;
use super::overlap::{OverlapReport, TableOverlap, guard, judged_columns};
use super::plan::{TablePlan, plan_set};
use super::policy::{Policy, RowEffect, additive_overflow, effect};
use super::postgres;
use super::rows::{self, Lookups, MappedRow, Range, Side};
use super::session::{Arg, Begin, Session};
use super::value::{Kind, Value};
use super::write::{self, Change};

/// Rows of a chunk where the caller names none.
pub const CHUNK_ROWS_DEFAULT: usize = 5_000;
/// How often a chunk is tried again when another writer got in between.
const CHUNK_ATTEMPTS: u32 = 5;

/// What is to be copied.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    /// The mapping.
    pub mapping: Mapping,
    /// The table set.
    pub set: String,
    /// Which rows, by the time column; the default is all.
    pub range: Range,
    /// Who wins.
    pub policy: Policy,
    /// Rows of a chunk; 0 means [`CHUNK_ROWS_DEFAULT`]. Memory is bounded by it.
    pub chunk_rows: usize,
    /// The identity of this copy: the same for every resume, another for every new copy.
    pub token: String,
    /// Seconds of one bucket, instead of the mapping's.
    pub timestep: Option<i64>,
    /// Throttle; `None` is full speed.
    pub rows_per_second_max: Option<u32>,
    /// What is awaited at the moments of each chunk.
    pub hook: ChunkHook,
}

impl CopyRequest {
    /// A copy of the whole set with nothing special.
    pub fn new(mapping: Mapping, set: impl Into<String>, policy: Policy, token: impl Into<String>) -> Self {
        Self {
            mapping,
            set: set.into(),
            range: Range::default(),
            policy,
            chunk_rows: 0,
            token: token.into(),
            timestep: None,
            rows_per_second_max: None,
            hook: ChunkHook::default(),
        }
    }

    pub(super) fn chunk_rows(&self) -> usize {
        if self.chunk_rows == 0 { CHUNK_ROWS_DEFAULT } else { self.chunk_rows }
    }
}

/// A sign of life, after every chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyProgress {
    /// The source table.
    pub table: String,
    /// Its rows that are committed, earlier calls included.
    pub rows_done: u64,
    /// Its rows in range when this call began.
    pub rows_total: u64,
    /// Rows per second of this call, over this table.
    pub rows_per_second: f64,
}

/// The account of one table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableReport {
    /// The source table.
    pub table: String,
    /// Source rows read by this call.
    pub read: u64,
    /// Rows inserted.
    pub inserted: u64,
    /// Rows overwritten or added to.
    pub updated: u64,
    /// Rows that were equal already.
    pub unchanged: u64,
    /// Rows that differ and stay as the target had them.
    pub kept: u64,
    /// Rows that an earlier call under this token had committed.
    pub skipped: u64,
    /// What became of all rows, earlier calls included.
    pub all: Counts,
    /// Time of this call.
    pub elapsed: Duration,
}

impl TableReport {
    /// Rows read per second.
    pub fn rows_per_second(&self) -> f64 {
        per_second(self.read, self.elapsed)
    }
}

/// The account of a copy.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CopyReport {
    /// One entry per table, in copy order.
    pub tables: Vec<TableReport>,
}

impl CopyReport {
    /// Rows that this call changed in the target.
    pub fn changed(&self) -> u64 {
        self.tables.iter().map(|table| table.inserted + table.updated).sum()
    }
}

fn per_second(rows: u64, elapsed: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rows = rows as f64;
    if elapsed.is_zero() { 0.0 } else { rows / elapsed.as_secs_f64() }
}

/// Copies; see the head of this file. A finished token copies nothing. Cancellation takes effect between two chunks.
pub async fn copy(
    from: &Database,
    to: &Database,
    request: &CopyRequest,
    progress: &(dyn Fn(CopyProgress) + Sync),
    cancel: &CancellationToken,
) -> Result<CopyReport, TransferError> {
    let mut source = Session::open(from).await?;
    let mut target = Session::open(to).await?;
    source.begin(Begin::Snapshot).await?;
    let plans = plan_set(&mut source, &mut target, &request.mapping, &request.set).await?;
    for plan in &plans {
        check_request(plan, request)?;
        rows::check_keys(&mut source, plan).await?;
    }
    checkpoint::prepare(&mut target).await?;
    let known = checkpoint::load(&mut target, &request.token).await?;
    let asked = asked(request);
    let state_of = |plan: &TablePlan| {
        let known = known.iter().find(|state| state.table == plan.source.name);
        known.map_or_else(
            || fresh(plan, asked.clone()),
            // A row of an older version does not say what was asked for; from here on it does.
            |state| TableCheckpoint { asked: asked.clone(), ..state.clone() },
        )
    };
    if let Some(other) = known.iter().find(|state| !state.asked.is_empty() && state.asked != asked) {
        return Err(TransferError::request(format!(
            "the copy `{}` began with {} and is now asked for {asked}: what it copied cannot be told apart; undo it first, \
             or give the new copy a step of its own",
            request.token, other.asked
        )));
    }
    let mut work = Vec::new();
    for plan in plans {
        let state = state_of(&plan);
        let mut lookups = Lookups::default();
        if !state.done {
            lookups = rows::load_lookups(&mut source, &mut target, &plan, request.range).await?;
            guard(&mut source, &mut target, &plan, &lookups, request, state.last_key.clone()).await?;
        }
        work.push((plan, lookups, state));
    }
    let mut report = CopyReport::default();
    for (plan, lookups, state) in work {
        let mut table = TableCopy {
            request,
            plan: &plan,
            lookups: &lookups,
            report: TableReport {
                table: plan.source.name.clone(),
                skipped: state.rows,
                all: state.counts,
                ..TableReport::default()
            },
            state,
            started: Instant::now(),
            total: 0,
        };
        table.run(&mut source, &mut target, progress, cancel).await?;
        report.tables.push(table.report);
    }
    Ok(report)
}

/// What a copy under one token may not change between two calls, in words.
fn asked(request: &CopyRequest) -> String {
    let bound = |bound: Option<i64>| bound.map_or_else(|| "open".to_owned(), |bound| bound.to_string());
    let policy = match request.policy {
        Policy::SplitAt { at } => format!("split_at {at}"),
        Policy::SourceWins { replace_row: false } => "source_wins of its own columns".to_owned(),
        other => other.name().to_owned(),
    };
    let (from, to) = (bound(request.range.from), bound(request.range.to));
    format!("set `{}`, range {from} to {to}, policy {policy}", request.set)
}

fn fresh(plan: &TablePlan, asked: String) -> TableCheckpoint {
    TableCheckpoint {
        table: plan.source.name.clone(),
        last_key: None,
        rows: 0,
        chunk_no: 0,
        counts: Counts::default(),
        asked,
        done: false,
        updated_at: String::new(),
    }
}

/// What can be judged from the plan alone.
fn check_request(plan: &TablePlan, request: &CopyRequest) -> Result<(), TransferError> {
    let table = &plan.source.name;
    if !plan.target.transactional {
        return Err(TransferError::request(format!(
            "`{}` cannot be copied into exactly once: its storage engine has no transactions; ALTER TABLE .. ENGINE=InnoDB first",
            plan.target.name
        )));
    }
    let split = match request.policy {
        Policy::SplitAt { at } if plan.time.is_none() => {
            return Err(TransferError::request(format!("`split_at({at})` needs a `time` column for `{table}`")));
        }
        Policy::SplitAt { at } => Some(at),
        Policy::BestCoverage if plan.coverage.is_none() => {
            return Err(TransferError::request(format!("`best_coverage` needs a `coverage` column for `{table}`")));
        }
        Policy::MergeAdditive if plan.additive.is_empty() => {
            return Err(TransferError::request(format!("`merge_additive` needs `additive` columns for `{table}`")));
        }
        Policy::SourceWins { .. } | Policy::Fill | Policy::Fail | Policy::BestCoverage | Policy::MergeAdditive => None,
    };
    let Some(step) = request.timestep.or(plan.timestep).filter(|step| *step > 0) else { return Ok(()) };
    for bound in [request.range.from, request.range.to, split].into_iter().flatten() {
        if bound.rem_euclid(step) != 0 {
            return Err(TransferError::request(format!(
                "{bound} cuts a bucket of `{table}` in two: it is no multiple of {step} s"
            )));
        }
    }
    Ok(())
}

/// One table under way.
struct TableCopy<'a> {
    request: &'a CopyRequest,
    plan: &'a TablePlan,
    lookups: &'a Lookups,
    report: TableReport,
    state: TableCheckpoint,
    started: Instant,
    total: u64,
}

/// The rows of a chunk, sorted by what happens to them.
#[derive(Default)]
struct Sorted {
    insert: Vec<Vec<Value>>,
    overwrite: Vec<Vec<Value>>,
    add: Vec<Vec<Value>>,
    unchanged: u64,
    kept: u64,
}

impl TableCopy<'_> {
    async fn run(
        &mut self,
        source: &mut Session,
        target: &mut Session,
        progress: &(dyn Fn(CopyProgress) + Sync),
        cancel: &CancellationToken,
    ) -> Result<(), TransferError> {
        if self.state.done {
            return Ok(());
        }
        self.total = rows::count(source, self.plan, Side::Source, self.request.range).await?;
        loop {
            if cancel.is_cancelled() {
                let table = self.state.table.clone();
                return Err(TransferError::Cancelled { table, rows: self.state.rows });
            }
            self.request.hook.at(ChunkMoment::BeforeRead).await;
            let after = self.state.last_key.as_deref();
            let limit = self.request.chunk_rows();
            let chunk = rows::read_chunk(source, self.plan, self.lookups, after, self.request.range, limit).await?;
            let last = chunk.len() < limit;
            if last {
                self.prove_whole(chunk.len())?;
            }
            self.write(target, &chunk, last).await?;
            self.report.read += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            self.report.elapsed = self.started.elapsed();
            progress(CopyProgress {
                table: self.state.table.clone(),
                rows_done: self.state.rows,
                rows_total: self.total,
                rows_per_second: self.report.rows_per_second(),
            });
            if last {
                return Ok(());
            }
            self.throttle(cancel).await;
        }
    }

    /// A walk within one snapshot must meet every counted row; a resumed one has seen another snapshot before.
    fn prove_whole(&self, rest: usize) -> Result<(), TransferError> {
        let read = self.report.read + u64::try_from(rest).unwrap_or(u64::MAX);
        if self.report.skipped > 0 || read == self.total {
            return Ok(());
        }
        Err(TransferError::request(format!(
            "`{}` has {} rows in range but a walk by its key met {read}: the engine sorts and compares the key differently",
            self.state.table, self.total
        )))
    }

    /// Sleeps until the rows so far are no more than the throttle allows.
    async fn throttle(&self, cancel: &CancellationToken) {
        let Some(limit) = self.request.rows_per_second_max.filter(|limit| *limit > 0) else { return };
        let due = Duration::from_millis(self.report.read.saturating_mul(1_000) / u64::from(limit));
        let pause = due.saturating_sub(self.started.elapsed());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => {}
        }
    }

    /// Writes a chunk and moves the checkpoint, in one transaction.
    async fn write(&mut self, target: &mut Session, chunk: &[MappedRow], last: bool) -> Result<(), TransferError> {
        let mut next = self.state.clone();
        next.chunk_no += 1;
        next.rows += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        next.done = last;
        if let Some(row) = chunk.last() {
            next.last_key = Some(row.source_key.clone());
        }
        for attempt in 1..=CHUNK_ATTEMPTS {
            target.begin(Begin::Write).await?;
            let done = match self.write_rows(target, chunk).await {
                Ok(done) => done,
                Err(error) => {
                    target.rollback().await?;
                    if error.is_collision() && attempt < CHUNK_ATTEMPTS {
                        continue;
                    }
                    return Err(self.locate(target, chunk, error).await);
                }
            };
            let Some(sorted) = done else {
                target.rollback().await?;
                continue;
            };
            let count = |rows: &Vec<Vec<Value>>| u64::try_from(rows.len()).unwrap_or(u64::MAX);
            let (inserted, updated) = (count(&sorted.insert), count(&sorted.overwrite) + count(&sorted.add));
            next.counts = Counts {
                inserted: self.state.counts.inserted + inserted,
                updated: self.state.counts.updated + updated,
                unchanged: self.state.counts.unchanged + sorted.unchanged,
                kept: self.state.counts.kept + sorted.kept,
            };
            if let Err(error) = checkpoint::advance(target, &self.request.token, &next).await {
                target.rollback().await?;
                return Err(error);
            }
            // SQLite's AUTOINCREMENT and MariaDB's AUTO_INCREMENT follow inserts by themselves.
            if last && target.engine() == Engine::Postgres {
                postgres::advance_sequences(target, self.plan).await?;
            }
            self.request.hook.at(ChunkMoment::BeforeCommit).await;
            target.commit().await?;
            self.request.hook.at(ChunkMoment::AfterCommit).await;
            self.report.inserted += inserted;
            self.report.updated += updated;
            self.report.unchanged += sorted.unchanged;
            self.report.kept += sorted.kept;
            self.report.all = next.counts;
            self.state = next;
            return Ok(());
        }
        Err(TransferError::request(format!(
            "another writer keeps inserting the same keys into `{}`",
            self.plan.target.name
        )))
    }

    /// `None` where another writer inserted one of the keys in between.
    async fn write_rows(&self, target: &mut Session, chunk: &[MappedRow]) -> Result<Option<Sorted>, TransferError> {
        let plan = self.plan;
        let keys: Vec<Vec<Value>> = chunk.iter().map(|row| plan.key_of(&row.values)).collect();
        let columns = judged_columns(plan);
        let existing = write::find(target, &plan.target, &plan.target_key(), &keys, &columns, true).await?;
        let mut sorted = Sorted::default();
        for ((row, key), existing) in chunk.iter().zip(&keys).zip(&existing) {
            let values = row.values.clone();
            match effect(self.request.policy, plan, existing.as_deref(), &values) {
                RowEffect::Insert => sorted.insert.push(values),
                RowEffect::Overwrite => sorted.overwrite.push(values),
                RowEffect::Add => {
                    let overflow = existing.as_ref().and_then(|existing| additive_overflow(plan, existing, &values));
                    if let Some((column, why)) = overflow {
                        return Err(rows::misfit(plan, &row.source_key, &column, why));
                    }
                    sorted.add.push(values);
                }
                RowEffect::Keep => sorted.kept += 1,
                RowEffect::Unchanged => sorted.unchanged += 1,
                RowEffect::Forbidden => return Err(self.forbidden(key)),
            }
        }
        let inserted = write::insert(target, plan, &sorted.insert).await?;
        if inserted != u64::try_from(sorted.insert.len()).unwrap_or(u64::MAX) {
            return Ok(None);
        }
        let reset = self.request.policy == Policy::SourceWins { replace_row: true };
        write::update(target, plan, &sorted.overwrite, Change::Overwrite { reset }).await?;
        write::update(target, plan, &sorted.add, Change::Add).await?;
        Ok(Some(sorted))
    }

    /// A forbidden row that appeared after the guard had looked.
    fn forbidden(&self, key: &[Value]) -> TransferError {
        let table = TableOverlap {
            table: self.plan.source.name.clone(),
            forbidden: 1,
            first_keys: vec![self.plan.key_json(key)],
            ..TableOverlap::default()
        };
        TransferError::Overlap(Box::new(OverlapReport { policy: self.request.policy.name(), tables: vec![table] }))
    }

    /// Finds the value behind PostgreSQL's "data exception" (class 22), which names neither row nor column.
    async fn locate(&self, target: &mut Session, chunk: &[MappedRow], error: TransferError) -> TransferError {
        let TransferError::Sql { engine, code: Some(code), message, .. } = &error else {
            return error;
        };
        if *engine == Engine::Mariadb && code == "1062" {
            return TransferError::request(format!(
                "`{}` holds a row that the engine takes for the same as a new one: {message}; another unique key, or a collation that \
                 sees no difference between the two",
                self.plan.target.name
            ));
        }
        if *engine != Engine::Postgres || !code.starts_with("22") {
            return error;
        }
        let why = message.clone();
        for (i, column) in self.plan.columns.iter().enumerate() {
            if !matches!(column.target.kind, Kind::Other) {
                continue;
            }
            let sql = format!("SELECT count(x::{})::text FROM unnest($1::text[]) AS x", column.target.cast);
            let (mut low, mut high) = (0, chunk.len());
            while high - low > 0 {
                let half = if high - low == 1 { high } else { low.midpoint(high) };
                let part = chunk[low..half].iter().map(|row| row.values[i].to_text()).collect();
                match (target.rows(&sql, vec![Arg::Column(part)]).await.is_err(), half - low) {
                    (true, 1) => return rows::misfit(self.plan, &chunk[low].source_key, &column.target.name, why),
                    (true, _) => high = half,
                    (false, _) => low = half,
                }
            }
        }
        error
    }
}

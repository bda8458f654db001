//! Moves one table by its key, chunk by chunk: rows are read as values, judged by the policy beside what the target holds, and written.
//!
//! Refuses rows that the policy forbids and values that do not fit. Called by `copy` for every table that has no faster way.

use std::time::Instant;

use super::super::checkpoint::{self, Counts, TableCheckpoint};
use super::super::chunk_hook::ChunkMoment;
use super::super::engine::Engine;
use super::super::error::TransferError;
use super::super::overlap::{OverlapReport, TableOverlap, judged_columns};
use super::super::plan::TablePlan;
use super::super::policy::{Policy, RowEffect, additive_overflow, effect};
use super::super::rows::{self, Lookups, MappedRow, Side};
use super::super::session::{Arg, Begin, Session};
use super::super::value::{Kind, Value};
use super::super::write::{self, Change};
use super::pace::Pace;
use super::report::TableReport;
use super::{CopyRequest, complete};

/// How often a chunk is tried again when another writer got in between.
const CHUNK_ATTEMPTS: u32 = 5;
/// Rows of a chunk that say how long its rows are.
const ROWS_MEASURED: usize = 64;

/// One table under way.
pub(super) struct TableCopy<'a> {
    pub(super) request: &'a CopyRequest,
    pub(super) plan: &'a TablePlan,
    pub(super) lookups: &'a Lookups,
    pub(super) pace: &'a Pace<'a>,
    pub(super) report: TableReport,
    pub(super) state: TableCheckpoint,
    pub(super) total: u64,
    /// Whether the target holds none of the rows, as long as no other writer brings them.
    pub(super) is_load: bool,
}

/// The rows of a chunk, sorted by what happens to them.
#[derive(Default)]
struct Sorted {
    insert: Vec<Vec<Value>>,
    overwrite: Vec<Vec<Value>>,
    add: Vec<Vec<Value>>,
    done: Counts,
}

fn count<T>(rows: &[T]) -> u64 {
    u64::try_from(rows.len()).unwrap_or(u64::MAX)
}

/// Bytes of the values of a chunk: of every row where it `must` be known, else as some of them have it.
fn bytes_of(chunk: &[MappedRow], must: bool) -> u64 {
    let step = if must { 1 } else { chunk.len() / ROWS_MEASURED + 1 };
    let measured = chunk.iter().step_by(step);
    let (rows, bytes) = measured
        .fold((0, 0_usize), |(rows, bytes), row| (rows + 1, bytes + row.values.iter().map(Value::size).sum::<usize>()));
    u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(count(chunk)) / u64::max(rows, 1)
}

impl TableCopy<'_> {
    pub(super) async fn run(&mut self, source: &mut Session, target: &mut Session) -> Result<(), TransferError> {
        if self.state.done {
            return Ok(());
        }
        self.total = rows::count(source, self.plan, Side::Source, self.request.range).await?;
        self.pace.begin(&self.state.table, self.state.rows, Some(self.total), true);
        let (request, plan, lookups, pace) = (self.request, self.plan, self.lookups, self.pace);
        let mut limit = self.chunk_rows();
        let after = self.state.last_key.as_deref();
        request.hook.at(ChunkMoment::BeforeRead).await;
        let mut chunk = rows::read_chunk(source, plan, lookups, after, request.range, limit).await?;
        loop {
            if !pace.ready().await? {
                let table = self.state.table.clone();
                return Err(TransferError::Cancelled { table, rows: self.state.rows });
            }
            let begun = Instant::now();
            let (rows, bytes) = (count(&chunk), bytes_of(&chunk, pace.measures()));
            let last = chunk.len() < limit;
            if last {
                self.prove_whole(chunk.len())?;
            }
            limit = self.chunk_rows();
            // The next chunk is read while this one is written.
            let ahead = async {
                let Some(row) = chunk.last().filter(|_| !last) else { return Ok(Vec::new()) };
                request.hook.at(ChunkMoment::BeforeRead).await;
                rows::read_chunk(source, plan, lookups, Some(&row.source_key), request.range, limit).await
            };
            let ahead = if request.hook.is_set() {
                // One after the other, so that each moment belongs to one chunk.
                self.write(target, &chunk, last).await?;
                ahead.await
            } else {
                let (ahead, written) = tokio::join!(ahead, self.write(target, &chunk, last));
                written?;
                ahead
            };
            self.report.read += rows;
            pace.moved(begun, rows, bytes);
            pace.tell(self.state.rows);
            if last {
                return Ok(());
            }
            chunk = ahead?;
        }
    }

    /// Rows of the next chunk.
    fn chunk_rows(&self) -> usize {
        let most = u64::try_from(self.request.chunk_rows()).unwrap_or(u64::MAX);
        usize::try_from(self.pace.rows_max(most)).unwrap_or(usize::MAX)
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
            let as_load = self.is_load;
            let done = match self.write_rows(target, chunk).await {
                Ok(done) => done,
                Err(error) => {
                    target.rollback().await?;
                    // Whatever was in the way of a load is judged row by row, and named.
                    self.is_load = false;
                    let again = as_load && !self.request.limits.is_reached(&error);
                    if attempt < CHUNK_ATTEMPTS && (again || error.is_collision()) {
                        continue;
                    }
                    return Err(self.locate(target, chunk, error).await);
                }
            };
            let Some(done) = done else {
                target.rollback().await?;
                continue;
            };
            next.counts = self.state.counts.with(done);
            if let Err(error) = checkpoint::advance(target, &self.request.token, &next).await {
                target.rollback().await?;
                return Err(error);
            }
            if last {
                complete(target, self.request, self.plan).await?;
            }
            self.request.hook.at(ChunkMoment::BeforeCommit).await;
            target.commit().await?;
            self.request.hook.at(ChunkMoment::AfterCommit).await;
            self.report.inserted += done.inserted;
            self.report.updated += done.updated;
            self.report.unchanged += done.unchanged;
            self.report.kept += done.kept;
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
    async fn write_rows(&mut self, target: &mut Session, chunk: &[MappedRow]) -> Result<Option<Counts>, TransferError> {
        let plan = self.plan;
        if self.is_load {
            let inserted = write::load(target, plan, chunk).await?;
            self.is_load = inserted == count(chunk);
            return Ok(self.is_load.then(|| Counts { inserted, ..Counts::default() }));
        }
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
                RowEffect::Keep => sorted.done.kept += 1,
                RowEffect::Unchanged => sorted.done.unchanged += 1,
                RowEffect::Forbidden => return Err(self.forbidden(key)),
            }
        }
        sorted.done.inserted = write::insert(target, plan, &sorted.insert).await?;
        if sorted.done.inserted != count(&sorted.insert) {
            return Ok(None);
        }
        let reset = self.request.policy == Policy::SourceWins { replace_row: true };
        write::update(target, plan, &sorted.overwrite, Change::Overwrite { reset }).await?;
        write::update(target, plan, &sorted.add, Change::Add).await?;
        sorted.done.updated = count(&sorted.overwrite) + count(&sorted.add);
        Ok(Some(sorted.done))
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

//! Copies a table set from one database into another: chunk by chunk, exactly once, resumable.
//!
//! **Reads**: one snapshot of the source for the whole call (SQLite: one read transaction; PostgreSQL: REPEATABLE READ; MariaDB: WITH
//! CONSISTENT SNAPSHOT, which tables without transactions take no part in), all tables included; a resume takes a new snapshot, so what is to be copied over several calls should be closed (a range of the past) or at rest.
//! **Writes**: each chunk and its row in `piton_checkpoint` are one transaction of the target.
//!
//! Each table takes the fastest way that is right for it (`Way`); `docs/design/transfer.md` says which and why.
//! Refuses what the policy forbids before anything is written. Called by the `db.copy` action.

mod decimal;
mod encode;
mod feed;
mod heap;
mod indexes;
mod lanes;
mod merge;
mod pace;
mod place;
mod report;
mod request;
mod sorted;
mod wire;

use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::checkpoint::{self, Counts, TableCheckpoint};
use super::chunk_hook::ChunkMoment;
use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;
use super::estimate;
use super::overlap::guard;
use super::plan::{TablePlan, plan_load};
use super::postgres_stream::Stream;
use super::rows::{self, Lookups, Range};
use super::schema::one;
use super::session::{Begin, Session};
use super::sqlite_reader::Reader;
use super::value::Value;
use feed::Feed;
use heap::HeapCopy;
pub(super) use indexes::{TABLE as INDEX_TABLE, build_all};
use lanes::side_by_side;
use merge::TableCopy;
use pace::Pace;
pub use pace::{PauseWhile, Throttle};
pub(super) use place::Pages;
pub use report::{CopyProgress, CopyReport, TableReport};
pub(super) use request::check_request;
pub use request::{CHUNK_ROWS_DEFAULT, CopyRequest, Indexes};
use sorted::{Came, Rows, SortedCopy};
use wire::Wire;

/// How the rows of a table are moved.
enum Way {
    /// Read as values, judged by the policy, written as values.
    Merge,
    /// Bytes, in the order of the key.
    Sorted(Wire),
    /// Bytes, page by page.
    Heap(Wire),
    /// Values of another engine, encoded in the order of the key.
    Fed(Feed),
}

/// One table and what is known of it before it begins.
struct Work {
    plan: TablePlan,
    lookups: Lookups,
    state: TableCheckpoint,
    /// Rows in range, as the source's engine thinks; none where it has no idea.
    rows: Option<u64>,
}

/// One copy under way.
struct Copier<'a> {
    from: &'a Database,
    to: &'a Database,
    request: &'a CopyRequest,
    pace: Pace<'a>,
    source: Session,
    /// Reads of SQLite what `source` sees.
    reader: Option<Reader>,
    /// What `source` sees of PostgreSQL, once others have to see the same.
    snapshot: Option<(u64, String)>,
    /// Reads of PostgreSQL what `source` sees; what one table leaves for the next.
    stream: Option<Stream>,
    target: Session,
}

/// Copies; see the head of this file. A finished token copies nothing. Cancellation takes effect between two chunks.
pub async fn copy(
    from: &Database,
    to: &Database,
    request: &CopyRequest,
    progress: &(dyn Fn(CopyProgress) + Sync),
    cancel: &CancellationToken,
) -> Result<CopyReport, TransferError> {
    let mut source = request.open(from).await?;
    let target = request.open(to).await?;
    let reader = Reader::begin(&mut source, (from, to)).await?;
    let stop = cancel.child_token();
    let pace = Pace::new(&request.throttle, progress, &stop);
    let mut copier = Copier { from, to, request, pace, source, reader, snapshot: None, stream: None, target };
    let work = Box::pin(copier.look()).await;
    let work = work.map_err(|error| request.limits.name(error, &format!("table set `{}`", request.set)))?;
    let groups = copier.groups(&work).await.map_err(|error| request.limits.name(error, "the look at foreign keys"))?;
    let left = |group: &std::ops::Range<usize>| group.clone().filter(|table| !work[*table].state.done).count();
    let others = copier.others(groups.iter().map(left).max().unwrap_or(0)).await?;
    let connections = request.parallel();
    let mut lanes = vec![copier];
    lanes.extend(others);
    let mut report = CopyReport::default();
    let mut ahead = remaining(&work);
    let mut work = work.into_iter().enumerate();
    for group in groups {
        let behind: Vec<Option<u64>> = group.clone().filter_map(|_| ahead.pop()).collect();
        let group: Vec<(usize, Work)> = work.by_ref().take(group.len()).collect();
        if let ([copier], _) | ([copier, ..], 1) = (lanes.as_mut_slice(), group.len()) {
            for ((_, work), behind) in group.into_iter().zip(behind) {
                report.tables.push(copier.one(work, behind, connections).await?);
            }
        } else {
            let mut done = side_by_side(&mut lanes, group, connections, &stop).await?;
            done.sort_by_key(|(place, _)| *place);
            report.tables.extend(done.into_iter().map(|(_, report)| report));
        }
    }
    Ok(report)
}

impl Copier<'_> {
    /// Plans every table and refuses what may not be; nothing is written but the bookkeeping's own table.
    async fn look(&mut self) -> Result<Vec<Work>, TransferError> {
        let Self { request, source, target, .. } = self;
        let plans = plan_load(source, target, &request.mapping, &request.set).await?;
        for plan in &plans {
            check_request(plan, request)?;
            let checked = rows::check_keys(source, plan).await;
            checked.map_err(|error| request.limits.name(error, &place_of(plan)))?;
        }
        checkpoint::prepare(target).await?;
        let known = checkpoint::load(target, &request.token).await?;
        let asked = request.asked();
        if let Some(other) = known.iter().find(|state| !state.asked.is_empty() && state.asked != asked) {
            return Err(TransferError::request(format!(
                "the copy `{}` began with {} and is now asked for {asked}: what it copied cannot be told apart; undo it first, \
                 or give the new copy a step of its own",
                request.token, other.asked
            )));
        }
        let request = self.request;
        let mut work = Vec::new();
        for plan in plans {
            let known = known.iter().find(|state| state.table == plan.source.name);
            let mut state = known.map_or_else(
                || fresh(&plan, asked.clone()),
                // A row of an older version does not say what was asked for; from here on it does.
                |state| TableCheckpoint { asked: asked.clone(), ..state.clone() },
            );
            let lookups = self.judge(&plan, &mut state).await;
            let lookups = lookups.map_err(|error| request.limits.name(error, &place_of(&plan)))?;
            let rows = self.rows_of(&plan, &state).await?;
            work.push(Work { plan, lookups, state, rows });
        }
        Ok(work)
    }

    /// Finds out what the target holds of one table, and refuses what may not be.
    async fn judge(&mut self, plan: &TablePlan, state: &mut TableCheckpoint) -> Result<Lookups, TransferError> {
        let Self { request, source, target, .. } = self;
        if state.done {
            return Ok(Lookups::default());
        }
        if state.chunk_no == 0 {
            state.began_empty = is_empty(target, plan, request.selected()).await?;
        }
        if !state.began_empty {
            plan.require_unique(&request.mapping.name)?;
        }
        let lookups = rows::load_lookups(source, target, plan, request.range).await?;
        guard(source, target, plan, &lookups, request, state).await?;
        Ok(lookups)
    }

    /// What the source thinks of a table that is left to do.
    async fn rows_of(&mut self, plan: &TablePlan, state: &TableCheckpoint) -> Result<Option<u64>, TransferError> {
        if state.done {
            return Ok(Some(state.rows));
        }
        let thought = estimate::estimate(&mut self.source, plan, self.request.range).await;
        thought.map(|thought| thought.rows).map_err(|error| self.request.limits.name(error, &place_of(plan)))
    }

    /// Copies one table, over at most so many connections to either side; `ahead` rows are in tables behind it, as far as anybody knows.
    async fn one(&mut self, work: Work, ahead: Option<u64>, connections: usize) -> Result<TableReport, TransferError> {
        self.pace.expect(ahead);
        let (table, request) = (place_of(&work.plan), self.request);
        Box::pin(self.table(work, connections)).await.map_err(|error| request.limits.name(error, &table))
    }

    async fn table(&mut self, work: Work, connections: usize) -> Result<TableReport, TransferError> {
        let Work { mut plan, lookups, mut state, rows } = work;
        let mut report = TableReport {
            table: plan.source.name.clone(),
            skipped: state.rows,
            all: state.counts,
            ..TableReport::default()
        };
        if state.done {
            return Ok(report);
        }
        let was_empty = state.began_empty;
        if self.request.indexes == Indexes::After && state.chunk_no == 0 && state.began_empty {
            let taken = indexes::take_away(&mut self.target, &self.request.token, &plan).await?;
            plan.is_unique &= !taken;
        }
        let started = Instant::now();
        self.pace.begin(&plan.source.name, state.rows, rows, false);
        match self.way(&plan, &lookups, &state).await? {
            Way::Heap(wire) => {
                let snapshot = &self.snapshot().await?;
                let heap = HeapCopy {
                    request: self.request,
                    plan: &plan,
                    wire: &wire,
                    from: self.from,
                    to: self.to,
                    snapshot,
                    pace: &self.pace,
                    connections,
                };
                let run = Box::pin(heap.run(&mut self.source, &mut self.stream, &mut self.target, state, report));
                (state, report) = run.await?;
                self.request.limits.set(&mut self.source).await?;
                self.finish(&plan, &mut state).await?;
            }
            Way::Sorted(wire) => {
                let came = self.sorted(&plan, &wire, rows, state, report).await?;
                report = self.came(&plan, &lookups, came).await?;
            }
            Way::Fed(feed) => {
                let came = self.fed(&plan, &feed, state, report).await?;
                report = self.came(&plan, &lookups, came).await?;
            }
            Way::Merge => report = self.merge(&plan, &lookups, state, report, was_empty).await?,
        }
        if was_empty {
            self.analyze(&plan, report.all.inserted).await;
        }
        report.elapsed = started.elapsed();
        (report.bytes, report.waited) = self.pace.account();
        Ok(report)
    }

    /// Has PostgreSQL look at a table whose statistics say little of it now, by the rule by which it would itself within
    /// minutes: a tenth of the rows is new. The rows are there whatever comes of it.
    async fn analyze(&mut self, plan: &TablePlan, inserted: u64) {
        if self.target.engine() != Engine::Postgres {
            return;
        }
        let table = plan.target.quoted();
        let known = "SELECT GREATEST(reltuples, 0)::int8::text FROM pg_class WHERE oid = to_regclass($1::text)";
        let known = self.target.rows(known, one(&table)).await.unwrap_or_default();
        let known = known.first().and_then(|row| row.first()).and_then(Value::as_integer).unwrap_or(0);
        if inserted < u64::try_from(known / 10).unwrap_or(0) {
            return;
        }
        // Where the server is at it already, there is no need to wait for that. Before PostgreSQL 12, which knows no such way, it
        // is left to the server altogether.
        let _ = self.target.run(&format!("ANALYZE (SKIP_LOCKED) {table}"), Vec::new()).await;
    }

    /// Chooses; `docs/design/transfer.md` has the table.
    async fn way(
        &mut self,
        plan: &TablePlan,
        lookups: &Lookups,
        state: &TableCheckpoint,
    ) -> Result<Way, TransferError> {
        let may_pass = lookups.is_empty() && state.began_empty;
        let wire = if may_pass {
            Wire::between(&mut self.source, &mut self.target, plan, self.request.range).await?
        } else {
            None
        };
        let Some(wire) = wire else {
            if state.pages.is_some() {
                return Err(TransferError::request(format!(
                    "`{}` or `{}` has changed its columns since the copy began: undo the copy and begin it anew",
                    plan.source.name, plan.target.name
                )));
            }
            let is_readable = self.source.engine() != Engine::Sqlite || self.reader.is_some();
            let feed = if may_pass && is_readable {
                Feed::between(self.source.engine(), &mut self.target, plan, self.request.range).await?
            } else {
                None
            };
            return Ok(feed.map_or(Way::Merge, Way::Fed));
        };
        let by_pages = !wire.target.has_index && wire.source.has_page_ranges && state.last_key.is_none();
        Ok(if state.pages.is_some() || by_pages { Way::Heap(wire) } else { Way::Sorted(wire) })
    }

    async fn sorted(
        &mut self,
        plan: &TablePlan,
        wire: &Wire,
        rows: Option<u64>,
        state: TableCheckpoint,
        report: TableReport,
    ) -> Result<Came, TransferError> {
        let (_, id) = self.snapshot().await?;
        let settings = sorted::settings(&mut self.source, plan, wire, rows, self.request.limits.statement).await?;
        let mut source = heap::reader(self.request, wire, &mut self.stream, (self.from, &id), settings).await?;
        let (write, pace) = (wire.write.as_str(), &self.pace);
        let sorted = SortedCopy { request: self.request, plan, write, wire: Some(wire), pace, state, report };
        let came = sorted.run(Rows::Wire(wire, &mut source, settings), &mut self.target).await?;
        self.stream = source.into_stream();
        Ok(came)
    }

    /// What others have to join to see what `source` sees.
    async fn snapshot(&mut self) -> Result<(u64, String), TransferError> {
        if self.snapshot.is_none() {
            self.snapshot = Some(heap::snapshot(&mut self.source).await?);
        }
        Ok(self.snapshot.clone().unwrap_or_default())
    }

    async fn fed(
        &mut self,
        plan: &TablePlan,
        feed: &Feed,
        state: TableCheckpoint,
        report: TableReport,
    ) -> Result<Came, TransferError> {
        let (write, pace) = (feed.write.as_str(), &self.pace);
        let sorted = SortedCopy { request: self.request, plan, write, wire: None, pace, state, report };
        let rows = Rows::Feed(feed, &mut self.source, &mut self.reader);
        let came = sorted.run(rows, &mut self.target).await?;
        self.request.limits.set(&mut self.source).await?;
        Ok(came)
    }

    /// Ends what came in the order of the key, or goes on by value where a key was there already.
    async fn came(&mut self, plan: &TablePlan, lookups: &Lookups, came: Came) -> Result<TableReport, TransferError> {
        match came {
            Came::Whole(mut state, report) => {
                self.finish(plan, &mut state).await?;
                Ok(report)
            }
            Came::Collided(state, report) => self.merge(plan, lookups, state, report, false).await,
        }
    }

    async fn merge(
        &mut self,
        plan: &TablePlan,
        lookups: &Lookups,
        state: TableCheckpoint,
        report: TableReport,
        is_load: bool,
    ) -> Result<TableReport, TransferError> {
        let mut table =
            TableCopy { request: self.request, plan, lookups, pace: &self.pace, report, state, total: 0, is_load };
        table.run(&mut self.source, &mut self.target).await?;
        Ok(table.report)
    }

    /// Marks a table as done, in one transaction with what has to be made of it then.
    async fn finish(&mut self, plan: &TablePlan, state: &mut TableCheckpoint) -> Result<(), TransferError> {
        state.chunk_no += 1;
        state.done = true;
        self.target.begin(Begin::Write).await?;
        complete(&mut self.target, self.request, plan).await?;
        checkpoint::advance(&mut self.target, &self.request.token, state).await?;
        self.request.hook.at(ChunkMoment::BeforeCommit).await;
        self.target.commit().await?;
        self.request.hook.at(ChunkMoment::AfterCommit).await;
        Ok(())
    }
}

/// For each table, the last one first, the rows that are left of all tables behind it.
fn remaining(work: &[Work]) -> Vec<Option<u64>> {
    let mut ahead = Vec::new();
    let mut rows = Some(0);
    for work in work.iter().rev() {
        ahead.push(rows);
        let left = work.rows.map(|rows| if work.state.done { 0 } else { rows.saturating_sub(work.state.rows) });
        rows = rows.zip(left).map(|(rows, left)| rows + left);
    }
    ahead
}

/// A table in messages.
fn place_of(plan: &TablePlan) -> String {
    format!("`{}`", plan.source.name)
}

/// What a table needs once its rows are there, in the transaction that marks it as done: its indexes, its sequences, a sync.
async fn complete(target: &mut Session, request: &CopyRequest, plan: &TablePlan) -> Result<(), TransferError> {
    if target.engine() != Engine::Postgres {
        // Their indexes stay where they are, and SQLite's AUTOINCREMENT and MariaDB's AUTO_INCREMENT follow inserts by themselves.
        return Ok(());
    }
    target.run(wire::SYNC, Vec::new()).await?;
    request.limits.lift(target).await?;
    indexes::build(target, &request.token, &plan.source.name, Some(&plan.target.quoted())).await?;
    super::postgres::advance_sequences(target, plan).await
}

/// True where the target holds no row that the copy could meet: none at all, or none within the range where the time is part of the key.
pub(super) async fn is_empty(target: &mut Session, plan: &TablePlan, range: Range) -> Result<bool, TransferError> {
    let in_key = plan.time_index().is_some_and(|time| plan.key.contains(&time));
    let range = if in_key { range } else { Range::default() };
    let engine = target.engine();
    let (filter, args) = rows::range_filter(engine, plan, rows::Side::Target, range)?;
    let sql = format!("SELECT {} FROM {}{filter} LIMIT 1", engine.read("1"), plan.target.quoted());
    Ok(target.rows(&sql, args).await?.is_empty())
}

/// A copy of one table that has not begun.
pub(super) fn fresh(plan: &TablePlan, asked: String) -> TableCheckpoint {
    TableCheckpoint {
        table: plan.source.name.clone(),
        last_key: None,
        pages: None,
        began_empty: false,
        rows: 0,
        chunk_no: 0,
        counts: Counts::default(),
        asked,
        done: false,
        updated_at: String::new(),
    }
}

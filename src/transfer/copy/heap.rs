//! Copies a table of PostgreSQL into an empty one without an index: page range by page range of one snapshot, bytes passed through.
//!
//! Several workers read in the same snapshot; each chunk and its place in the checkpoint are one transaction of the target. A resume, whose
//! snapshot is another one, takes from the pages that are left what stood there before, and finds what was written since by key.
//! Called by `copy`.

use std::sync::{Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, channel};

use super::super::checkpoint::{self, TableCheckpoint};
use super::super::chunk_hook::ChunkMoment;
use super::super::database::Database;
use super::super::error::TransferError;
use super::super::plan::TablePlan;
use super::super::postgres_stream::Stream;
use super::super::rows::{self, Lookups};
use super::super::session::{Begin, Session};
use super::super::value::Value;
use super::super::write;
use super::CopyRequest;
use super::pace::Pace;
use super::place::Pages;
use super::report::TableReport;
use super::wire::{Block, NO_WALK, PAGE_BYTES, Sink, Source, Wire, blocks};

/// Pages of the first chunk; later ones follow from how long it took.
const PAGES_FIRST: u64 = 1_000;
/// Rows of a page of a table that nobody has analyzed.
const PAGE_ROWS: u64 = 50;
const PAGES_MAX: u64 = 32_000;
/// Pages below which a chunk is not made smaller for the sake of other workers.
const PAGES_LEAST: u64 = 1_000;
/// How long a chunk should take.
const CHUNK_TIME: Duration = Duration::from_millis(1_500);
/// Blocks that are read ahead; 56 KiB each.
const AHEAD: usize = 16;
/// Times that a table is read through for the young rows in it; walking over its key once takes as long as about twenty of them.
const SCANS_MAX: usize = 10;
/// How long an additional connection is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// One table under way.
pub(super) struct HeapCopy<'a> {
    pub(super) request: &'a CopyRequest,
    pub(super) plan: &'a TablePlan,
    pub(super) wire: &'a Wire,
    pub(super) from: &'a Database,
    pub(super) to: &'a Database,
    /// The source's.
    pub(super) snapshot: &'a (u64, String),
    pub(super) pace: &'a Pace<'a>,
    /// Most connections to either side.
    pub(super) connections: usize,
}

/// What one transaction wrote.
struct Chunk {
    range: (u64, u64),
    rows: u64,
    bytes: u64,
}

/// How far the workers have come together; whoever commits a chunk holds it until that is done, so that each checkpoint knows of the one before.
struct Shared {
    state: TableCheckpoint,
    report: TableReport,
}

/// What is left to be read. Readers do not wait for those who commit.
struct Ahead {
    left: Vec<(u64, u64)>,
    chunk: u64,
    /// How many read at the same time.
    workers: u64,
}

impl Ahead {
    /// The next pages to be read; the last ones in smaller pieces, so that all workers end together.
    fn take(&mut self) -> Option<(u64, u64)> {
        let left: u64 = self.left.iter().map(|(from, to)| to - from).sum();
        let share = (left / (2 * self.workers)).max(PAGES_LEAST);
        let (from, to) = self.left.pop()?;
        let end = to.min(from + self.chunk.min(share).max(1));
        if end < to {
            self.left.push((end, to));
        }
        Some((from, end))
    }
}

/// What one snapshot says of itself: below which number every transaction had ended, and the name under which others can join it.
pub(super) async fn snapshot(source: &mut Session) -> Result<(u64, String), TransferError> {
    let sql = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text, pg_export_snapshot()";
    let rows = source.rows(sql, Vec::new()).await?;
    match rows.first().map(Vec::as_slice) {
        Some([xmin, Value::Text(id)]) => {
            Ok((xmin.as_integer().and_then(|n| u64::try_from(n).ok()).unwrap_or(0), id.clone()))
        }
        _ => Err(TransferError::statement("PostgreSQL exports no snapshot")),
    }
}

/// A second reader of the same snapshot.
async fn join_snapshot(request: &CopyRequest, from: &Database, id: &str) -> Result<Session, TransferError> {
    let mut session = request.open(from).await?;
    session.begin(Begin::Snapshot).await?;
    session.run(&format!("SET TRANSACTION SNAPSHOT '{id}'"), Vec::new()).await?;
    Ok(session)
}

/// A reader of the snapshot of that name beside the session that holds it: a stream, or else a session.
pub(super) async fn reader(
    request: &CopyRequest,
    wire: &Wire,
    kept: &mut Option<Stream>,
    (from, id): (&Database, &str),
    settings: &[&str],
) -> Result<Source<'static>, TransferError> {
    match wire.stream(kept, (from, id), settings).await {
        Some(stream) => Ok(Source::Stream(Some(stream))),
        None => join_snapshot(request, from, id).await.map(Source::Joined),
    }
}

/// One more connection to each side, the source's in the same snapshot; none where there is none to be had soon.
pub(super) async fn both(
    request: &CopyRequest,
    (from, to): (&Database, &Database),
    id: &str,
) -> Option<(Session, Session)> {
    let both = async { tokio::try_join!(join_snapshot(request, from, id), request.open(to)) };
    tokio::time::timeout(PATIENCE, both).await.ok()?.ok()
}

impl HeapCopy<'_> {
    /// Copies what is left; the table is complete afterwards, but not yet marked as done. `kept` read the table before, and will read the next.
    pub(super) async fn run(
        &self,
        source: &mut Session,
        kept: &mut Option<Stream>,
        target: &mut Session,
        state: TableCheckpoint,
        report: TableReport,
    ) -> Result<(TableCheckpoint, TableReport), TransferError> {
        let (xmin, id) = (self.snapshot.0, self.snapshot.1.as_str());
        let facts = &self.wire.source;
        let mut state = state;
        let mut report = report;
        let filenode = facts.filenode.unwrap_or(0);
        let fresh = || Pages { xmin, filenode, total: facts.pages, done: Vec::new() };
        let is_first = state.pages.is_none();
        let pages = state.pages.get_or_insert_with(fresh).clone();
        let is_held = pages.holds(filenode, xmin);
        if !is_first {
            let young = is_held.then(|| pages.is_young());
            if self.prepare_young(source, young.as_deref()).await? {
                self.find_young(source, target, &mut state, &mut report, young).await?;
            }
            source.run("SET LOCAL enable_indexscan TO DEFAULT", Vec::new()).await?;
        }
        let by_pages = is_first || is_held;
        let mut left = if by_pages { pages.left() } else { Vec::new() };
        left.reverse();
        let old = (!is_first).then(|| pages.is_old());
        let first = match self.wire.stream(kept, (self.from, id), &[]).await {
            Some(stream) => Source::Stream(Some(stream)),
            None => Source::Session(source),
        };
        let others = self.others(id, left.iter().map(|(from, to)| to - from).sum()).await;
        let workers = others.len() as u64 + 1;
        let shared = Mutex::new(Shared { state, report });
        let ahead = StdMutex::new(Ahead { left, chunk: self.first_chunk(), workers });
        let started = Instant::now();
        let (sources, mut targets): (Vec<_>, Vec<_>) = others.into_iter().unzip();
        let workers = std::iter::once((first, target)).chain(sources.into_iter().zip(&mut targets));
        let work = workers.map(|(from, to)| self.work(from, to, (&shared, &ahead), old.as_deref(), started));
        let sources = try_join_all(work).await?;
        *kept = sources.into_iter().find_map(Source::into_stream);
        let Shared { state, report } = shared.into_inner();
        // What was only read is left as well.
        if !by_pages || state.pages.as_ref().is_none_or(|pages| pages.left().is_empty()) {
            return Ok((state, report));
        }
        // Workers leave pages behind for one reason only.
        Err(TransferError::Cancelled { table: self.plan.source.name.clone(), rows: state.rows })
    }

    /// Pages of the first chunk: what was asked for, or little, to learn from it.
    fn first_chunk(&self) -> u64 {
        let facts = &self.wire.source;
        let pages = match self.request.chunk_rows {
            0 => PAGES_FIRST,
            rows => {
                let rows = u64::try_from(rows).unwrap_or(u64::MAX);
                let known = if facts.rows == 0 { facts.pages * PAGE_ROWS } else { facts.rows };
                (rows.saturating_mul(facts.pages) / known.max(1)).clamp(1, PAGES_MAX)
            }
        };
        pages.min(self.pages_max())
    }

    /// Pages of what the pace allows for a second.
    fn pages_max(&self) -> u64 {
        let facts = &self.wire.source;
        let page_rows = if facts.rows == 0 { PAGE_ROWS } else { facts.rows / facts.pages.max(1) };
        let by_rows = self.pace.rows_max(u64::MAX) / page_rows.max(1);
        by_rows.min(self.pace.bytes_max() / PAGE_BYTES).clamp(1, PAGES_MAX)
    }

    /// More connections for a table that is worth them; none where there are none to be had.
    async fn others(&self, id: &str, left: u64) -> Vec<(Source<'static>, Session)> {
        let worth = usize::try_from(left / (2 * self.first_chunk())).unwrap_or(usize::MAX);
        let worth = if self.pace.has_rate() { 1 } else { worth };
        let mut others = Vec::new();
        for _ in 1..self.connections.min(worth) {
            let Some(both) = self.another(id).await else { break };
            others.push(both);
        }
        others
    }

    async fn another(&self, id: &str) -> Option<(Source<'static>, Session)> {
        let mut none = None;
        let source = reader(self.request, self.wire, &mut none, (self.from, id), &[]);
        let both = async { tokio::try_join!(source, self.request.open(self.to)) };
        tokio::time::timeout(PATIENCE, both).await.ok()?.ok()
    }

    /// Reads chunk after chunk, while what was read before is written.
    async fn work<'s>(
        &self,
        mut source: Source<'s>,
        target: &mut Session,
        (shared, ahead): (&Mutex<Shared>, &StdMutex<Ahead>),
        old: Option<&str>,
        started: Instant,
    ) -> Result<Source<'s>, TransferError> {
        // Reading ahead waits for writing, so what counts is how long the source keeps silent.
        if let Some(session) = source.session() {
            self.request.limits.lift(session).await?;
        }
        let patience = self.request.limits.statement;
        let (to, mut from) = channel(AHEAD);
        let read = async {
            // Owned here, so that the writer sees the end of it.
            let (mut source, to) = (source, to);
            loop {
                let Some(range) = held(ahead).take() else { break };
                let mut more = vec![format!("t.ctid >= '({},0)' AND t.ctid < '({},0)'", range.0, range.1)];
                more.extend(old.map(str::to_owned));
                blocks(&mut source, &self.wire.read(&more), u64::MAX, patience, &to).await?;
                if to.send(Block { ends: Some(range), ..Block::default() }).await.is_err() {
                    break;
                }
            }
            Ok::<_, TransferError>(source)
        };
        let write = async {
            let written = self.write(target, &mut from, (shared, ahead), started).await;
            // A reader that waits for room must not wait for ever.
            drop(from);
            written
        };
        let (read, written) = tokio::join!(read, write);
        written?;
        read
    }

    /// Writes what comes, each chunk and the note that it is done in one transaction, until nothing comes or a person has it stop.
    async fn write(
        &self,
        target: &mut Session,
        from: &mut Receiver<Block>,
        (shared, ahead): (&Mutex<Shared>, &StdMutex<Ahead>),
        started: Instant,
    ) -> Result<(), TransferError> {
        while self.pace.ready().await? {
            let Some(first) = from.recv().await else { return Ok(()) };
            let begun = Instant::now();
            self.request.hook.at(ChunkMoment::BeforeRead).await;
            target.begin(Begin::Write).await?;
            // Without its end a chunk is not committed: the reader says why it has none.
            let Some(chunk) = self.fill(target, first, from).await? else { return Ok(()) };
            let took = begun.elapsed();
            let mut shared = shared.lock().await;
            self.close(target, &mut shared, &chunk, started).await?;
            let done = shared.state.rows;
            drop(shared);
            let pages = held(ahead).chunk;
            let pages = if self.request.chunk_rows == 0 { next_chunk(pages, took) } else { pages };
            held(ahead).chunk = pages.min(self.pages_max());
            self.pace.moved(begun, chunk.rows, chunk.bytes);
            self.pace.tell(done);
        }
        Ok(())
    }

    /// Streams one chunk into the open transaction; none where its end does not come.
    async fn fill(
        &self,
        target: &mut Session,
        mut block: Block,
        from: &mut Receiver<Block>,
    ) -> Result<Option<Chunk>, TransferError> {
        let mut sink = Sink::begin(target, &self.wire.write).await?;
        let range = loop {
            sink.put(&block.bytes).await?;
            if let Some(range) = block.ends {
                break range;
            }
            let Some(next) = from.recv().await else {
                // What the source says is the reason.
                sink.abort("the source failed").await;
                return Ok(None);
            };
            block = next;
        };
        let bytes = sink.bytes;
        let rows = sink.end().await?;
        Ok(Some(Chunk { range, rows, bytes }))
    }

    /// Notes a chunk as done and commits.
    async fn close(
        &self,
        target: &mut Session,
        shared: &mut Shared,
        chunk: &Chunk,
        started: Instant,
    ) -> Result<(), TransferError> {
        let mut next = shared.state.clone();
        next.rows += chunk.rows;
        next.chunk_no += 1;
        next.counts.inserted += chunk.rows;
        if let Some(pages) = &mut next.pages {
            pages.finish(chunk.range);
        }
        checkpoint::advance(target, &self.request.token, &next).await?;
        self.request.hook.at(ChunkMoment::BeforeCommit).await;
        target.commit().await?;
        self.request.hook.at(ChunkMoment::AfterCommit).await;
        shared.state = next;
        shared.report.read += chunk.rows;
        shared.report.inserted += chunk.rows;
        shared.report.elapsed = started.elapsed();
        shared.report.all = shared.state.counts;
        Ok(())
    }

    /// Whether there are rows to be looked for at all. Where they are few among many, the table is read through for each chunk of them: what stands
    /// between two of them would be read one by one in the order of the key.
    async fn prepare_young(&self, source: &mut Session, young: Option<&str>) -> Result<bool, TransferError> {
        let Some(young) = young else { return Ok(true) };
        let count = format!("SELECT count(*)::text FROM {} AS t WHERE {young}", self.plan.source.quoted());
        let met = source.number(&count, Vec::new()).await?.and_then(|met| usize::try_from(met).ok()).unwrap_or(0);
        if met.div_ceil(self.request.chunk_rows()) <= SCANS_MAX {
            source.run(NO_WALK, Vec::new()).await?;
        }
        Ok(met > 0)
    }

    /// Inserts the rows that were written since the copy began and whose key the target does not hold; without `young`, of all rows.
    async fn find_young(
        &self,
        source: &mut Session,
        target: &mut Session,
        state: &mut TableCheckpoint,
        report: &mut TableReport,
        young: Option<String>,
    ) -> Result<(), TransferError> {
        let limit = self.request.chunk_rows();
        let mut after: Option<Vec<Value>> = None;
        loop {
            if !self.pace.ready().await? {
                return Err(TransferError::Cancelled { table: state.table.clone(), rows: state.rows });
            }
            let begun = Instant::now();
            let chunk = rows::read_chunk_where(
                source,
                self.plan,
                &Lookups::default(),
                after.as_deref(),
                self.request.range,
                limit,
                young.as_deref(),
            )
            .await?;
            let Some(last) = chunk.last() else { return Ok(()) };
            after = Some(last.source_key.clone());
            let met = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            let keys: Vec<Vec<Value>> = chunk.iter().map(|row| self.plan.key_of(&row.values)).collect();
            target.begin(Begin::Write).await?;
            let found = write::find(target, &self.plan.target, &self.plan.target_key(), &keys, &[], false).await?;
            let fresh = chunk.into_iter().zip(&found).filter(|(_, found)| found.is_none());
            let fresh: Vec<Vec<Value>> = fresh.map(|(row, _)| row.values).collect();
            let inserted = write::insert(target, self.plan, &fresh).await?;
            let mut next = state.clone();
            next.rows += inserted;
            next.chunk_no += 1;
            next.counts.inserted += inserted;
            checkpoint::advance(target, &self.request.token, &next).await?;
            self.request.hook.at(ChunkMoment::BeforeCommit).await;
            target.commit().await?;
            self.request.hook.at(ChunkMoment::AfterCommit).await;
            report.read += inserted;
            report.inserted += inserted;
            report.all = next.counts;
            *state = next;
            self.pace.moved(begun, met, 0);
            self.pace.tell(state.rows);
        }
    }
}

/// What is left is whole whoever panicked.
fn held(ahead: &StdMutex<Ahead>) -> MutexGuard<'_, Ahead> {
    ahead.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Twice as many pages after a quick chunk, half as many after a slow one.
fn next_chunk(pages: u64, took: Duration) -> u64 {
    if took < CHUNK_TIME / 2 {
        (pages * 2).min(PAGES_MAX)
    } else if took > CHUNK_TIME * 2 {
        (pages / 2).max(1)
    } else {
        pages
    }
}

//! Copies new rows into a table of PostgreSQL: one stream in the order of the key, cut into transactions.
//!
//! Rows in the order of the index are inserted several times as fast as in any other. A key that the target holds already ends this way:
//! the chunk is taken back whole, and `merge` goes on from the checkpoint. Called by `copy`.

use std::time::{Duration, Instant};

use super::super::checkpoint::{self, TableCheckpoint};
use super::super::chunk_hook::ChunkMoment;
use super::super::error::TransferError;
use super::super::plan::TablePlan;
use super::super::schema::text;
use super::super::session::{Arg, Begin, Session};
use super::super::sqlite_reader::Reader;
use super::super::value::Value;
use super::CopyRequest;
use super::feed::Feed;
use super::pace::Pace;
use super::report::TableReport;
use super::wire::{Block, NO_WALK, Sink, Source, Wire, blocks};
use tokio::sync::mpsc::{Receiver, channel};

/// Rows of a transaction where the caller names none.
const CHUNK_ROWS: u64 = 500_000;
/// Longest time of a transaction.
const CHUNK_TIME: Duration = Duration::from_secs(3);
/// Blocks that are read ahead; 56 KiB each.
const AHEAD: usize = 32;
/// Has the source sort the rows instead of walking over its key, in memory that stays within a processor's cache.
const SORT: [&str; 2] = [NO_WALK, "SET LOCAL work_mem = '4MB'"];
/// How far the rows may stand out of the order of their key for a walk over it, as PostgreSQL measures that: 1 is not at all.
const IN_ORDER: f64 = 0.9;
/// Smallest table that is sorted: a smaller one stands in the cache of any server.
const SORT_LEAST: u64 = 32 << 20;
/// Fewest rows for which the statistics are asked, which takes about as long as a walk over so many.
const SORT_ROWS: u64 = 10_000;
/// Largest table that is sorted: it stands in the source's temporary files meanwhile.
const SORT_MOST: u64 = 4 << 30;
/// Bytes of a table that any server sorts in a second, during which it says nothing.
const SORT_SPEED: u64 = 20 << 20;
/// How well the rows follow the first column of their key, and how many kilobytes of temporary files a process may have, -1 for any.
const CORRELATION: &str = "SELECT abs(s.correlation)::text, \
    (SELECT setting FROM pg_settings WHERE name = 'temp_file_limit') FROM pg_stats s JOIN pg_class c ON c.relname = s.tablename \
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = s.schemaname \
    WHERE c.oid = to_regclass($1::text) AND s.attname = ($2::text) AND NOT s.inherited";

/// How far the way has come.
pub(super) enum Came {
    /// All rows are there; the table is not yet marked as done.
    Whole(TableCheckpoint, TableReport),
    /// The target holds a key of the next chunk already.
    Collided(TableCheckpoint, TableReport),
}

/// Where the rows come from; what reads them is used up, its stream may be left in the middle.
pub(super) enum Rows<'a> {
    /// Another PostgreSQL, whose bytes pass as they are; with settings for whoever reads there.
    Wire(&'a Wire, &'a mut Source<'static>, &'static [&'static str]),
    /// Another engine.
    Feed(&'a Feed, &'a mut Session, &'a mut Option<Reader>),
}

/// One table under way.
pub(super) struct SortedCopy<'a> {
    pub(super) request: &'a CopyRequest,
    pub(super) plan: &'a TablePlan,
    /// The target's end of the stream.
    pub(super) write: &'a str,
    /// The source's end where it is another PostgreSQL: it reads keys from their bytes.
    pub(super) wire: Option<&'a Wire>,
    pub(super) pace: &'a Pace<'a>,
    pub(super) state: TableCheckpoint,
    pub(super) report: TableReport,
}

/// What one transaction wrote.
struct Written {
    rows: u64,
    bytes: u64,
    last: Vec<u8>,
    key: Vec<Value>,
    is_end: bool,
}

/// How the source is to find the order of the key of so many rows, as far as anybody knows. Its planner takes a walk over the key for cheap as long as it thinks that the table stands in a
/// cache; where the rows stand in another order it then asks for a page for each of them.
pub(super) async fn settings(
    source: &mut Session,
    plan: &TablePlan,
    wire: &Wire,
    rows: Option<u64>,
    patience: Option<Duration>,
) -> Result<&'static [&'static str], TransferError> {
    let is_small = wire.source.bytes() < SORT_LEAST || rows.is_some_and(|rows| rows < SORT_ROWS);
    let Some(key) = plan.source_key.first().filter(|_| !is_small) else { return Ok(&[]) };
    let args = [plan.source.quoted(), key.name.clone()].map(|name| Arg::One(Value::Text(name)));
    let found = source.rows(CORRELATION, args.to_vec()).await?;
    let value = |place: usize| found.first().and_then(|row| row.get(place)).map(text).unwrap_or_default();
    let (correlation, limit) = (value(0).parse().ok(), value(1).parse::<u64>().ok());
    // What is sorted takes no more room than it took; half of what is allowed is left to others.
    let room = limit.map_or(SORT_MOST, |kilobytes| SORT_MOST.min(kilobytes.saturating_mul(1_024) / 2));
    let sorts = is_sorted_sooner(correlation, wire.source.bytes(), patience, room);
    Ok(if sorts { &SORT } else { &[] })
}

/// Whether a table is sorted sooner than it is walked over in the order of its key, in so much room and within the time for which the source may say
/// nothing.
fn is_sorted_sooner(correlation: Option<f64>, bytes: u64, patience: Option<Duration>, room: u64) -> bool {
    let most = patience.map_or(room, |patience| room.min(patience.as_secs().saturating_mul(SORT_SPEED)));
    correlation.is_some_and(|correlation| correlation < IN_ORDER) && bytes <= most
}

impl SortedCopy<'_> {
    /// Copies what is left.
    pub(super) async fn run(mut self, rows: Rows<'_>, target: &mut Session) -> Result<Came, TransferError> {
        // One statement reads the whole table; what counts is how long it keeps silent.
        let (limits, patience) = (self.request.limits, self.request.limits.statement);
        let after = self.state.last_key.clone();
        let (to, mut from) = channel(AHEAD);
        let most = self.chunk_rows();
        let read = async {
            match rows {
                Rows::Wire(wire, source, settings) => {
                    if let Some(session) = source.session() {
                        for setting in settings {
                            session.run(setting, Vec::new()).await?;
                        }
                        limits.lift(session).await?;
                    }
                    blocks(source, &wire.read_sorted(after.as_deref()), most, patience, &to).await
                }
                Rows::Feed(feed, session, reader) => {
                    limits.lift(session).await?;
                    feed.blocks(session, reader, after.as_deref(), most, patience, to).await
                }
            }
        };
        let write = async {
            let collided = self.write(target, &mut from).await;
            // A reader that waits for room must not wait for ever.
            drop(from);
            collided
        };
        let (read, collided) = tokio::join!(read, write);
        // Where both failed, the target's word counts: the reader may only have noticed that nobody takes.
        let collided = collided?;
        read?;
        Ok(if collided { Came::Collided(self.state, self.report) } else { Came::Whole(self.state, self.report) })
    }

    fn chunk_rows(&self) -> u64 {
        self.pace.rows_max(match self.request.chunk_rows {
            0 => CHUNK_ROWS,
            rows => u64::try_from(rows).unwrap_or(u64::MAX),
        })
    }

    /// Writes chunk by chunk; true after a collision.
    async fn write(&mut self, target: &mut Session, from: &mut Receiver<Block>) -> Result<bool, TransferError> {
        let started = Instant::now();
        let mut block = from.recv().await;
        loop {
            if !self.pace.ready().await? {
                let table = self.state.table.clone();
                return Err(TransferError::Cancelled { table, rows: self.state.rows });
            }
            // No transaction for nothing: one that moves no checkpoint could be repeated for ever.
            let Some(first) = block.take() else { return Ok(false) };
            let begun = Instant::now();
            self.request.hook.at(ChunkMoment::BeforeRead).await;
            target.begin(Begin::Write).await?;
            let written = match self.fill(target, first, from).await {
                Ok(written) => written,
                Err(error) if error.is_taken() => {
                    target.rollback().await?;
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            let (rows, bytes) = (written.rows, written.bytes);
            let is_end = self.close(target, written, started).await?;
            self.pace.moved(begun, rows, bytes);
            self.pace.tell(self.state.rows);
            if is_end {
                return Ok(false);
            }
            block = from.recv().await;
        }
    }

    /// Streams one chunk into the open transaction.
    async fn fill(
        &self,
        target: &mut Session,
        mut block: Block,
        from: &mut Receiver<Block>,
    ) -> Result<Written, TransferError> {
        let mut written = Written { rows: 0, bytes: 0, last: Vec::new(), key: Vec::new(), is_end: true };
        let begun = Instant::now();
        let (most, bytes_most) = (self.chunk_rows(), self.pace.bytes_max());
        let mut sink = Sink::begin(target, self.write).await?;
        loop {
            sink.put(&block.bytes).await?;
            written.rows += block.rows;
            written.last = block.last;
            written.key = block.key;
            if written.rows >= most || sink.bytes >= bytes_most || begun.elapsed() >= CHUNK_TIME {
                written.is_end = false;
                break;
            }
            match from.recv().await {
                Some(next) => block = next,
                None => break,
            }
        }
        written.bytes = sink.bytes;
        sink.end().await?;
        Ok(written)
    }

    /// Moves the checkpoint and commits; true at the end of the table.
    async fn close(&mut self, target: &mut Session, written: Written, started: Instant) -> Result<bool, TransferError> {
        let mut next = self.state.clone();
        next.chunk_no += 1;
        next.rows += written.rows;
        next.counts.inserted += written.rows;
        next.last_key = Some(match self.wire {
            Some(wire) => wire.key_text(target, self.plan, &written.last).await?,
            None => written.key,
        });
        checkpoint::advance(target, &self.request.token, &next).await?;
        self.request.hook.at(ChunkMoment::BeforeCommit).await;
        target.commit().await?;
        self.request.hook.at(ChunkMoment::AfterCommit).await;
        self.state = next;
        self.report.read += written.rows;
        self.report.inserted += written.rows;
        self.report.all = self.state.counts;
        self.report.elapsed = started.elapsed();
        Ok(written.is_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_sorted_that_stands_in_another_order_and_is_sorted_in_time() {
        const GIB: u64 = 1 << 30;
        let second = |seconds| Some(Duration::from_secs(seconds));
        let sorts = |correlation, bytes, patience| is_sorted_sooner(correlation, bytes, patience, SORT_MOST);
        assert!(sorts(Some(0.1), GIB, None));
        assert!(!sorts(Some(1.0), GIB, None), "in order");
        assert!(!sorts(None, GIB, None), "nobody has looked at it");
        assert!(!sorts(Some(0.1), 5 * GIB, None), "too much for temporary files");
        assert!(!is_sorted_sooner(Some(0.1), GIB, None, GIB - 1), "too much for those that the server allows");
        assert!(!sorts(Some(0.1), GIB, second(30)), "the silence would be too long");
        assert!(sorts(Some(0.1), GIB, second(60)));
    }
}

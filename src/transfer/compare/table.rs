//! Compares one table: counts, sums on both sides at the same time, and the rows of the chunks whose sums differ.
//!
//! Memory is bounded: the differing chunks are read in portions, and where they are too many the table is walked by its key instead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use super::in_engine::{self, Hashes};
use super::kept::{Memory, RowCounts};
use super::sums::{OnSlice, Reader, SideState};
use super::walk::Walk;
use super::{CompareMode, CompareOptions, CompareRequest, Method, TableComparison};
use crate::transfer::copy::CopyProgress;
use crate::transfer::error::TransferError;
use crate::transfer::plan::TablePlan;
use crate::transfer::rows::{self, Lookups, Range, Side};
use crate::transfer::session::Session;
use crate::transfer::value::{Value, canonical};

/// Rows of a bucket, about.
const BUCKET_ROWS: u64 = 5_000;
const BUCKETS_MAX: u64 = 4_096;
/// Rows and bytes of differing buckets that are held at once.
const HELD_ROWS: u64 = 50_000;
const HELD_BYTES: usize = 64 << 20;
/// How often a table is read again for its differing buckets before it is walked instead.
const PORTIONS_MAX: usize = 6;

/// The sessions of the source and of the target.
type Sessions = [Session; 2];

/// One table under way.
pub(super) struct Comparing<'a> {
    pub(super) request: &'a CompareRequest,
    pub(super) options: &'a CompareOptions,
    pub(super) memory: &'a Memory,
    pub(super) plan: Arc<TablePlan>,
}

/// About one bucket for every [`BUCKET_ROWS`], a power of two.
fn buckets_for(counts: RowCounts) -> usize {
    let wanted = (counts[0].max(counts[1]) / BUCKET_ROWS).clamp(1, BUCKETS_MAX).next_power_of_two();
    usize::try_from(wanted).unwrap_or(1)
}

impl Comparing<'_> {
    /// Compares, and gives the sessions back.
    pub(super) async fn run(&self, sessions: Sessions) -> Result<(TableComparison, Sessions), TransferError> {
        let [mut source, mut target] = sessions;
        let (plan, range) = (&*self.plan, self.request.range);
        rows::check_keys(&mut source, plan).await?;
        let (source_rows, target_rows) = tokio::try_join!(
            rows::count(&mut source, plan, Side::Source, range),
            rows::count(&mut target, plan, Side::Target, range)
        )?;
        let counts = [source_rows, target_rows];
        let mut found =
            TableComparison { table: plan.source.name.clone(), source_rows, target_rows, ..TableComparison::default() };
        if self.request.mode == CompareMode::Count {
            return Ok((found, [source, target]));
        }
        if let Some(hash) = self.memory.equal(&found.table, counts) {
            found.source_hash.clone_from(&hash);
            found.target_hash = hash;
            found.resumed = true;
            return Ok((found, [source, target]));
        }
        let lookups = rows::load_lookups(&mut source, &mut target, plan, range).await?;
        if let Some(sample) = self.options.sample {
            let mut walk = Walk::new(plan, &lookups, self.request, found);
            walk.sample(&mut source, &mut target, sample, &self.options.cancel).await?;
            return Ok((walk.found, [source, target]));
        }
        let hashes = in_engine::hashes(&mut source, &mut target, plan).await?;
        let readers = self.readers([source, target], lookups, hashes);
        let sessions = self.contents(readers, counts, &mut found).await?;
        let equal = found.is_equal().then(|| found.source_hash.clone());
        self.memory.finish(&found.table, counts, equal);
        Ok((found, sessions))
    }

    fn readers(&self, sessions: Sessions, lookups: Lookups, hashes: Option<[Hashes; 2]>) -> [Reader; 2] {
        let lookups = Arc::new(lookups);
        let [source, target] = sessions;
        let (a, b) = hashes.map_or((None, None), |[a, b]| (Some(a), Some(b)));
        let range: Range = self.request.range;
        let reader = |session, side, hashes| Reader {
            session,
            side,
            plan: Arc::clone(&self.plan),
            lookups: Arc::clone(&lookups),
            range,
            hashes,
            slice_rows: self.options.slice_rows,
        };
        [reader(source, Side::Source, a), reader(target, Side::Target, b)]
    }

    async fn contents(
        &self,
        readers: [Reader; 2],
        counts: RowCounts,
        found: &mut TableComparison,
    ) -> Result<Sessions, TransferError> {
        let engine = readers[0].hashes.is_some();
        found.method = if engine { Method::InEngine } else { Method::Streamed };
        let many = buckets_for(counts);
        // Grouping costs an engine nearly as much as hashing: first only whether anything differs at all.
        let first = if engine && self.memory.buckets(&found.table) != Some(many) { 1 } else { many };
        let (mut readers, mut sides) = self.sum(readers, counts, first, found).await?;
        if sides[0].buckets != sides[1].buckets && first < many {
            (readers, sides) = self.sum(readers, counts, many, found).await?;
        }
        found.source_hash = sides[0].total().text();
        found.target_hash = sides[1].total().text();
        let differ: Vec<usize> =
            (0..sides[0].buckets.len()).filter(|i| sides[0].buckets[*i] != sides[1].buckets[*i]).collect();
        if !differ.is_empty() {
            let portions = portions(&differ, &sides);
            let too_many = portions.len() > PORTIONS_MAX;
            let walk_by = if too_many { Some(0) } else { self.settle(&mut readers, &portions, many, found).await? };
            if let Some(chunk_rows) = walk_by {
                let [source, target] = &mut readers;
                let lookups = Arc::clone(&source.lookups);
                let mut walk = Walk::new(&self.plan, &lookups, self.request, found.clone());
                walk.chunks_of(chunk_rows);
                walk.contents(&mut source.session, &mut target.session, &self.options.cancel).await?;
                *found = walk.found;
            } else if found.missing + found.extra + found.different == 0 {
                // Other spellings of the same values.
                found.target_hash.clone_from(&found.source_hash);
            }
        }
        let [source, target] = readers;
        Ok([source.session, target.session])
    }

    /// Both sides at the same time, each in a task of its own.
    async fn sum(
        &self,
        readers: [Reader; 2],
        counts: RowCounts,
        buckets: usize,
        found: &mut TableComparison,
    ) -> Result<([Reader; 2], [SideState; 2]), TransferError> {
        let (states, resumed) = self.memory.begin(&found.table, counts, buckets);
        found.resumed |= resumed;
        let on_slice = self.on_slice(counts);
        let mut tasks = JoinSet::new();
        for ((mut reader, mut state), expected) in readers.into_iter().zip(states).zip(counts) {
            let (on_slice, cancel) = (Arc::clone(&on_slice), self.options.cancel.clone());
            tasks.spawn(
                async move { reader.sum(&mut state, expected, &on_slice, &cancel).await.map(|()| (reader, state)) },
            );
        }
        let mut done: [Option<(Reader, SideState)>; 2] = [None, None];
        while let Some(ended) = tasks.join_next().await {
            let (reader, state) =
                ended.map_err(|error| TransferError::request(format!("a side was not read: {error}")))??;
            let place = usize::from(reader.side == Side::Target);
            done[place] = Some((reader, state));
        }
        let [Some((source, a)), Some((target, b))] = done else {
            return Err(TransferError::request("a side was not read"));
        };
        Ok(([source, target], [a, b]))
    }

    fn on_slice(&self, counts: RowCounts) -> OnSlice {
        let (memory, progress) = (self.memory.clone(), self.options.progress.clone());
        let (table, started) = (self.plan.source.name.clone(), Instant::now());
        let rows_total = counts[0];
        Arc::new(move |side, state| {
            memory.advance(side, state);
            let Some(progress) = progress.as_ref().filter(|_| side == Side::Source) else { return };
            let rows_done = state.rows();
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = rows_done as f64 / started.elapsed().as_secs_f64().max(0.001);
            let table = table.clone();
            progress(CopyProgress { table, rows_done, rows_total, rows_per_second: rate, ..CopyProgress::default() });
        })
    }

    /// Reads the rows of differing buckets, portion by portion; how many rows may be held at once where these are too large.
    async fn settle(
        &self,
        readers: &mut [Reader; 2],
        portions: &[BTreeSet<usize>],
        buckets: usize,
        found: &mut TableComparison,
    ) -> Result<Option<u64>, TransferError> {
        let plan = &*self.plan;
        let none = Lookups::new();
        let mut walk = Walk::new(plan, &none, self.request, found.clone());
        for wanted in portions {
            if self.options.cancel.is_cancelled() {
                return Err(TransferError::Cancelled { table: found.table.clone(), rows: found.source_rows });
            }
            let [source, target] = &mut *readers;
            let mut held: BTreeMap<Vec<String>, Vec<Value>> = BTreeMap::new();
            let (mut bytes, mut met, mut twice) = (0, 0, false);
            source
                .rows_of(wanted, buckets, |row| {
                    met += 1;
                    bytes += row.iter().map(|value| value.size() + size_of::<Value>()).sum::<usize>();
                    if bytes <= HELD_BYTES {
                        twice |= held.insert(canonical_key(plan, &row), row).is_some();
                    }
                    Ok(())
                })
                .await?;
            if bytes > HELD_BYTES || twice {
                return Ok(Some(u64::try_from(HELD_BYTES / 4 / (bytes / met.max(1)).max(1)).unwrap_or(0).max(1)));
            }
            target
                .rows_of(wanted, buckets, |row| {
                    let key = plan.key_of(&row);
                    match held.remove(&canonical_key(plan, &row)) {
                        Some(should) => walk.judge(&key, &should, &row),
                        None => walk.extra(&key),
                    }
                    Ok(())
                })
                .await?;
            for row in held.values() {
                walk.missing(&plan.key_of(row));
            }
        }
        *found = walk.found;
        Ok(None)
    }
}

fn canonical_key(plan: &TablePlan, row: &[Value]) -> Vec<String> {
    plan.key.iter().map(|i| canonical(&row[*i], plan.columns[*i].target.kind)).collect()
}

/// Differing buckets in portions of about [`HELD_ROWS`].
fn portions(differ: &[usize], sides: &[SideState; 2]) -> Vec<BTreeSet<usize>> {
    let mut all = vec![BTreeSet::new()];
    let mut rows = 0;
    for place in differ {
        let more = sides[0].buckets[*place].rows;
        if rows + more > HELD_ROWS && rows > 0 {
            all.push(BTreeSet::new());
            rows = 0;
        }
        rows += more;
        if let Some(last) = all.last_mut() {
            last.insert(*place);
        }
    }
    all
}

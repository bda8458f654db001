//! Walks a table by its key and looks every row up on the other side: for samples, and where nearly everything differs.
//!
//! Chunks are read in key order of one side and asked for by key on the other, so no two engines need to sort alike.

use std::collections::{BTreeSet, HashMap};

use tokio_util::sync::CancellationToken;

use super::sums::ContentHash;
use super::{CompareRequest, Difference, Method, Sample, Sampled, TableComparison};
use crate::transfer::error::TransferError;
use crate::transfer::plan::TablePlan;
use crate::transfer::policy::differing;
use crate::transfer::rows::{
    self, Lookups, MappedRow, Params, Range, Side, keyset_sql, order_sql, range_sql, where_sql,
};
use crate::transfer::schema::{Column, Table};
use crate::transfer::session::Session;
use crate::transfer::value::{Value, convert};
use crate::transfer::write;

/// Rows of a chunk.
const CHUNK_ROWS: u64 = 5_000;
/// Rows of a chunk of a sample.
const SAMPLE_ROWS: u64 = 1_000;

/// One table being walked.
pub(super) struct Walk<'a> {
    plan: &'a TablePlan,
    lookups: &'a Lookups,
    range: Range,
    /// Differences that are named.
    limit: usize,
    chunk_rows: u64,
    pub(super) found: TableComparison,
}

/// Which chunks are read.
enum Chosen {
    All,
    These(BTreeSet<u64>),
}

impl Chosen {
    /// How many chunks are left out before the next one that is read; `None` where no more are.
    fn gap(&self, chunk: u64) -> Option<u64> {
        match self {
            Self::All => Some(0),
            Self::These(places) => places.range(chunk..).next().map(|next| next - chunk),
        }
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        plan: &'a TablePlan,
        lookups: &'a Lookups,
        request: &CompareRequest,
        found: TableComparison,
    ) -> Self {
        Self { plan, lookups, range: request.range, limit: request.limit, chunk_rows: CHUNK_ROWS, found }
    }

    /// Makes chunks smaller, for long rows; 0 leaves them as they are.
    pub(super) fn chunks_of(&mut self, rows: u64) {
        if rows > 0 {
            self.chunk_rows = rows.min(CHUNK_ROWS);
        }
    }

    /// Compares every row, anew.
    pub(super) async fn contents(
        &mut self,
        source: &mut Session,
        target: &mut Session,
        cancel: &CancellationToken,
    ) -> Result<(), TransferError> {
        let found = &mut self.found;
        (found.missing, found.extra, found.different) = (0, 0, 0);
        found.differences.clear();
        found.method = Method::Walked;
        let [mut source_hash, mut target_hash] = [ContentHash::default(); 2];
        let mut matched = 0;
        let mut walked = 0;
        let mut after: Option<Vec<Value>> = None;
        while let Some(chunk) = self.source_chunk(source, after.as_deref(), cancel).await? {
            after = chunk.last().map(|row| row.source_key.clone());
            walked += count(&chunk);
            matched += self.look_up(target, &chunk, [&mut source_hash, &mut target_hash]).await?;
        }
        if walked != self.found.source_rows {
            return Err(TransferError::request(format!(
                "`{}` has {} rows in range but a walk by its key met {walked}",
                self.found.table, self.found.source_rows
            )));
        }
        if matched != self.found.target_rows {
            self.extras(source, target, &Chosen::All, &mut target_hash, cancel).await?;
        }
        self.found.source_hash = source_hash.text();
        self.found.target_hash = target_hash.text();
        Ok(())
    }

    /// Compares some chunks of either side.
    pub(super) async fn sample(
        &mut self,
        source: &mut Session,
        target: &mut Session,
        sample: Sample,
        cancel: &CancellationToken,
    ) -> Result<(), TransferError> {
        self.found.method = Method::Walked;
        self.chunk_rows = SAMPLE_ROWS;
        let mut random = fastrand::Rng::with_seed(sample.seed);
        let mut choose = |rows: u64| choose(rows.div_ceil(SAMPLE_ROWS), sample.one_in, &mut random);
        let (here, there) = (choose(self.found.source_rows), choose(self.found.target_rows));
        let [mut source_hash, mut target_hash] = [ContentHash::default(); 2];
        let mut met =
            Sampled { chunks: 0, of: self.found.source_rows.div_ceil(SAMPLE_ROWS), rows: 0, seed: sample.seed };
        let here = Chosen::These(here);
        let mut after: Option<Vec<Value>> = None;
        let mut place = 0;
        while let Some(gap) = here.gap(place) {
            if gap > 0 {
                after = self.skip(source, Side::Source, after.as_deref(), gap * SAMPLE_ROWS).await?;
                if after.is_none() {
                    break;
                }
            }
            let Some(chunk) = self.source_chunk(source, after.as_deref(), cancel).await? else { break };
            after = chunk.last().map(|row| row.source_key.clone());
            met.chunks += 1;
            met.rows += count(&chunk);
            self.look_up(target, &chunk, [&mut source_hash, &mut target_hash]).await?;
            place += gap + 1;
        }
        met.rows += self.extras(source, target, &Chosen::These(there), &mut target_hash, cancel).await?;
        self.found.sampled = Some(met);
        self.found.source_hash = source_hash.text();
        self.found.target_hash = target_hash.text();
        Ok(())
    }

    async fn source_chunk(
        &self,
        source: &mut Session,
        after: Option<&[Value]>,
        cancel: &CancellationToken,
    ) -> Result<Option<Vec<MappedRow>>, TransferError> {
        self.go_on(cancel)?;
        let limit = usize::try_from(self.chunk_rows).unwrap_or(usize::MAX);
        let chunk = rows::read_chunk(source, self.plan, self.lookups, after, self.range, limit).await?;
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    fn go_on(&self, cancel: &CancellationToken) -> Result<(), TransferError> {
        if cancel.is_cancelled() {
            return Err(TransferError::Cancelled { table: self.found.table.clone(), rows: 0 });
        }
        Ok(())
    }

    /// Looks source rows up in the target; returns how many are there.
    async fn look_up(
        &mut self,
        target: &mut Session,
        chunk: &[MappedRow],
        [source_hash, target_hash]: [&mut ContentHash; 2],
    ) -> Result<u64, TransferError> {
        let plan = self.plan;
        let keys: Vec<Vec<Value>> = chunk.iter().map(|row| plan.key_of(&row.values)).collect();
        let columns = plan.target_columns();
        let held = write::find(target, &plan.target, &plan.target_key(), &keys, &columns, false).await?;
        let mut matched = 0;
        for ((row, key), held) in chunk.iter().zip(&keys).zip(&held) {
            source_hash.add(plan, &row.values);
            match held {
                None => self.missing(key),
                Some(held) => {
                    matched += 1;
                    target_hash.add(plan, held);
                    self.judge(key, &row.values, held);
                }
            }
        }
        Ok(matched)
    }

    fn name(&mut self, difference: Difference) {
        if self.found.differences.len() < self.limit {
            self.found.differences.push(difference);
        }
    }

    /// Takes note of a key that the target lacks.
    pub(super) fn missing(&mut self, key: &[Value]) {
        self.found.missing += 1;
        let key = self.plan.key_json(key);
        self.name(Difference::Missing { key });
    }

    /// Takes note of a key that only the target has.
    pub(super) fn extra(&mut self, key: &[Value]) {
        self.found.extra += 1;
        let key = self.plan.key_json(key);
        self.name(Difference::Extra { key });
    }

    /// Takes note of the columns in which two rows with one key differ, if any.
    pub(super) fn judge(&mut self, key: &[Value], wanted: &[Value], held: &[Value]) {
        let columns = differing(self.plan, wanted, held);
        if columns.is_empty() {
            return;
        }
        self.found.different += 1;
        let show = |row: &[Value]| {
            columns.iter().map(|i| (self.plan.columns[*i].target.name.clone(), row[*i].to_json())).collect()
        };
        let (source, target) = (show(wanted), show(held));
        let key = self.plan.key_json(key);
        self.name(Difference::Different { key, source, target });
    }

    /// Walks the target for keys that the source does not have; returns how many rows it met.
    async fn extras(
        &mut self,
        source: &mut Session,
        target: &mut Session,
        chosen: &Chosen,
        target_hash: &mut ContentHash,
        cancel: &CancellationToken,
    ) -> Result<u64, TransferError> {
        let plan = self.plan;
        let back = inverse(plan, self.lookups);
        let limit = usize::try_from(self.chunk_rows).unwrap_or(usize::MAX);
        let mut after: Option<Vec<Value>> = None;
        let (mut place, mut met) = (0, 0);
        while let Some(gap) = chosen.gap(place) {
            self.go_on(cancel)?;
            if gap > 0 {
                after = self.skip(target, Side::Target, after.as_deref(), gap * self.chunk_rows).await?;
                if after.is_none() {
                    break;
                }
            }
            place += gap + 1;
            let chunk = rows::read_target_chunk(target, plan, after.as_deref(), self.range, limit).await?;
            let Some(last) = chunk.last() else { break };
            after = Some(plan.key_of(last));
            met += count(&chunk);
            let keys: Vec<Option<Vec<Value>>> = chunk.iter().map(|row| source_key(plan, &back, row)).collect();
            let asked: Vec<Vec<Value>> = keys.iter().flatten().cloned().collect();
            let columns: Vec<Column> = plan.source_key.clone();
            let mut held =
                write::find(source, &plan.source, &plan.source_key, &asked, &columns, false).await?.into_iter();
            for (row, key) in chunk.iter().zip(&keys) {
                let there = key.is_some() && held.next().flatten().is_some();
                if !there {
                    target_hash.add(plan, row);
                    self.extra(&plan.key_of(row));
                }
            }
        }
        Ok(met)
    }

    /// The key of the row that lies so many rows further on.
    async fn skip(
        &self,
        session: &mut Session,
        side: Side,
        after: Option<&[Value]>,
        rows: u64,
    ) -> Result<Option<Vec<Value>>, TransferError> {
        let plan = self.plan;
        let (table, key): (&Table, Vec<Column>) = match side {
            Side::Source => (&plan.source, plan.source_key.clone()),
            Side::Target => (&plan.target, plan.target_key()),
        };
        let engine = session.engine();
        let mut params = Params::new(engine);
        let mut clauses = keyset_sql(&mut params, &key, after);
        if let Some((source, target)) = rows::time_of(plan, self.range)? {
            range_sql(&mut params, if side == Side::Source { source } else { target }, self.range, &mut clauses);
        }
        let shown: Vec<String> = key.iter().map(|column| engine.read(&engine.quote(&column.name))).collect();
        let sql = format!(
            "SELECT {} FROM {}{} ORDER BY {} LIMIT 1 OFFSET {}",
            shown.join(", "),
            table.quoted(),
            where_sql(&clauses),
            order_sql(table, &key),
            rows.saturating_sub(1)
        );
        Ok(session.rows(&sql, params.args).await?.into_iter().next())
    }
}

fn count<T>(chunk: &[T]) -> u64 {
    u64::try_from(chunk.len()).unwrap_or(u64::MAX)
}

/// One chunk in so many, at least one.
fn choose(chunks: u64, one_in: u64, random: &mut fastrand::Rng) -> BTreeSet<u64> {
    let wanted = chunks.div_ceil(one_in.max(1));
    let mut places = BTreeSet::new();
    // Floyd's way: every set of so many is as likely as any other, and none is drawn in vain.
    for top in chunks - wanted..chunks {
        let place = random.u64(0..=top);
        let place = if places.contains(&place) { top } else { place };
        places.insert(place);
    }
    places
}

/// For each key column that is looked up the way back: target text to source text.
type Inverse = Vec<Option<HashMap<String, String>>>;

fn inverse(plan: &TablePlan, lookups: &Lookups) -> Inverse {
    plan.key
        .iter()
        .map(|i| {
            let map = lookups.get(&plan.columns[*i].target.name)?;
            Some(map.iter().filter_map(|(old, new)| Some((new.to_text()?, old.clone()))).collect())
        })
        .collect()
}

/// The source's key of a target row; `None` where it cannot have one.
fn source_key(plan: &TablePlan, back: &Inverse, row: &[Value]) -> Option<Vec<Value>> {
    plan.key
        .iter()
        .zip(back)
        .zip(&plan.source_key)
        .map(|((i, back), column)| {
            let value = match back {
                Some(back) => Value::Text(back.get(&row[*i].to_text()?)?.clone()),
                None => row[*i].clone(),
            };
            convert(value, Some(plan.columns[*i].target.kind), column.kind).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_as_many_chunks_as_it_should_and_the_same_for_the_same_seed() {
        for (chunks, one_in, wanted) in [(0, 10, 0), (1, 10, 1), (100, 10, 10), (101, 10, 11), (7, 1, 7)] {
            let draw = |seed| choose(chunks, one_in, &mut fastrand::Rng::with_seed(seed));
            let places = draw(1);
            assert_eq!(places.len(), wanted, "{chunks} {one_in}");
            assert!(places.iter().all(|place| *place < chunks));
            assert_eq!(places, draw(1));
        }
        let differ = (0..20).map(|seed| choose(1_000, 100, &mut fastrand::Rng::with_seed(seed)));
        assert!(differ.collect::<BTreeSet<_>>().len() > 15);
    }
}

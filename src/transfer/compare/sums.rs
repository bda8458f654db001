//! Counts and sums of row hashes over one side of a table, by bucket of keys; and the rows of chosen buckets.
//!
//! A bucket is all rows whose key hashes to the same few bits: the same rows on both sides, whatever the engines' order. The hashes come from the
//! engine (`in_engine`) or are made here of the rows as they stream by. Memory is bounded by the number of buckets.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::in_engine::Hashes;
use super::slices::{Cut, Position, cut, slice};
use crate::transfer::engine::Engine;
use crate::transfer::error::TransferError;
use crate::transfer::plan::{From, TablePlan};
use crate::transfer::rows::{Lookups, Params, Range, Side, map_row, range_sql, time_of, where_sql};
use crate::transfer::schema::Table;
use crate::transfer::session::Session;
use crate::transfer::value::{Value, canonical};

/// The sum, modulo 2^128, of the rows' hashes: independent of order, and a row that is there twice does not cancel out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ContentHash(u128);

impl ContentHash {
    pub(super) fn add(&mut self, plan: &TablePlan, row: &[Value]) {
        let mut hasher = Sha256::new();
        for (column, value) in plan.columns.iter().zip(row) {
            let text = canonical(value, column.target.kind);
            hasher.update(text.len().to_le_bytes());
            hasher.update(text.as_bytes());
        }
        let digest = hasher.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        self.join(u128::from_le_bytes(half));
    }

    fn join(&mut self, other: u128) {
        self.0 = self.0.wrapping_add(other);
    }

    pub(super) fn text(self) -> String {
        format!("{:032x}", self.0)
    }
}

/// Rows of one bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) rows: u64,
    pub(super) hash: ContentHash,
}

/// How far one side of one table has come.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SideState {
    pub(super) position: Position,
    /// A power of two of them.
    pub(super) buckets: Vec<Bucket>,
}

impl SideState {
    pub(super) fn new(buckets: usize) -> Self {
        Self { position: Position::Start, buckets: vec![Bucket::default(); buckets] }
    }

    pub(super) fn rows(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.rows).sum()
    }

    /// The sum over all buckets.
    pub(super) fn total(&self) -> ContentHash {
        let mut all = ContentHash::default();
        for bucket in &self.buckets {
            all.join(bucket.hash.0);
        }
        all
    }

    pub(super) fn to_json(&self) -> Json {
        let buckets: Vec<Json> = self.buckets.iter().map(|b| json!([b.rows, format!("{:x}", b.hash.0)])).collect();
        json!({ "position": self.position.to_json(), "buckets": buckets })
    }

    pub(super) fn from_json(stored: &Json) -> Option<Self> {
        let bucket = |one: &Json| {
            let hash = u128::from_str_radix(one.get(1)?.as_str()?, 16).ok()?;
            Some(Bucket { rows: one.get(0)?.as_u64()?, hash: ContentHash(hash) })
        };
        let buckets: Vec<Bucket> = stored.get("buckets")?.as_array()?.iter().map(bucket).collect::<Option<_>>()?;
        let position = Position::from_json(stored.get("position")?)?;
        buckets.len().is_power_of_two().then_some(Self { position, buckets })
    }
}

/// The bucket of a key, by its canonical form: FNV-1a with its high bits folded in, the same for ever.
fn bucket_of(plan: &TablePlan, row: &[Value], buckets: usize) -> usize {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for i in &plan.key {
        for byte in canonical(&row[*i], plan.columns[*i].target.kind).bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    usize::try_from((hash ^ hash >> 32) & 0xffff_ffff).unwrap_or(0) & (buckets - 1)
}

/// Hears of every slice that is done.
pub(super) type OnSlice = Arc<dyn Fn(Side, &SideState) + Send + Sync>;

/// One side of one table, ready to be read.
pub(super) struct Reader {
    pub(super) session: Session,
    pub(super) side: Side,
    pub(super) plan: Arc<TablePlan>,
    pub(super) lookups: Arc<Lookups>,
    pub(super) range: Range,
    /// What the engine computes; rows are hashed here where it does not.
    pub(super) hashes: Option<Hashes>,
    /// Rows of a slice, about; 0 for the usual.
    pub(super) slice_rows: u64,
}

impl Reader {
    fn table(&self) -> &Table {
        if self.side == Side::Source { &self.plan.source } else { &self.plan.target }
    }

    /// Sums up what `state` has not seen yet; `expected` rows must have been met in the end.
    pub(super) async fn sum(
        &mut self,
        state: &mut SideState,
        expected: u64,
        on_slice: &OnSlice,
        cancel: &CancellationToken,
    ) -> Result<(), TransferError> {
        let resumed = state.position != Position::Start;
        let table = self.table().clone();
        let how = cut(&mut self.session, &table, self.range != Range::default(), self.slice_rows).await?;
        self.slices(&table, &how, state, on_slice, cancel).await?;
        if state.rows() == expected {
            return Ok(());
        }
        // The rows have moved since the slices before, or the engine sorts otherwise than it compares.
        if resumed || !matches!(how, Cut::Whole) {
            *state = SideState::new(state.buckets.len());
            self.slices(&table, &Cut::Whole, state, on_slice, cancel).await?;
        }
        if state.rows() == expected {
            return Ok(());
        }
        Err(TransferError::request(format!(
            "`{}` has {expected} rows in range but a walk through it met {}: it has no one state to be compared",
            table.name,
            state.rows()
        )))
    }

    async fn slices(
        &mut self,
        table: &Table,
        how: &Cut,
        state: &mut SideState,
        on_slice: &OnSlice,
        cancel: &CancellationToken,
    ) -> Result<(), TransferError> {
        loop {
            if cancel.is_cancelled() {
                return Err(TransferError::Cancelled { table: table.name.clone(), rows: state.rows() });
            }
            let mut params = Params::new(self.session.engine());
            let Some(next) = slice(&mut self.session, table, how, &state.position, &mut params).await? else {
                return Ok(());
            };
            self.add(&mut state.buckets, next.clauses, params).await?;
            state.position = next.next;
            on_slice(self.side, state);
        }
    }

    fn range_clauses(&self, clauses: &mut Vec<String>, params: &mut Params) -> Result<(), TransferError> {
        if let Some((source, target)) = time_of(&self.plan, self.range)? {
            range_sql(params, if self.side == Side::Source { source } else { target }, self.range, clauses);
        }
        Ok(())
    }

    async fn add(
        &mut self,
        buckets: &mut [Bucket],
        mut clauses: Vec<String>,
        mut params: Params,
    ) -> Result<(), TransferError> {
        self.range_clauses(&mut clauses, &mut params)?;
        let Some(hashes) = self.hashes.clone() else {
            let (plan, count) = (Arc::clone(&self.plan), buckets.len());
            return self
                .each(&clauses, params, |row| {
                    let bucket = &mut buckets[bucket_of(&plan, &row, count)];
                    bucket.rows += 1;
                    bucket.hash.add(&plan, &row);
                    Ok(())
                })
                .await;
        };
        let sql = sums_sql(&hashes, self.table(), &clauses, buckets.len());
        let mut broken = false;
        self.session
            .each_row(&sql, params.args, |row| {
                let place = row.first().and_then(Value::as_integer).and_then(|i| usize::try_from(i).ok());
                let rows = row.get(1).and_then(Value::as_integer).and_then(|n| u64::try_from(n).ok());
                let sum = row.get(2).and_then(Value::to_text).and_then(|sum| sum.parse::<i128>().ok());
                match (place.and_then(|i| buckets.get_mut(i)), rows, sum) {
                    (Some(bucket), Some(rows), Some(sum)) => {
                        bucket.rows += rows;
                        bucket.hash.join(sum.cast_unsigned());
                    }
                    _ => broken = true,
                }
                Ok(())
            })
            .await?;
        if broken {
            return Err(TransferError::request(format!("the sums over `{}` cannot be read", self.table().name)));
        }
        Ok(())
    }

    /// Hands over every row of some buckets, as the target holds it or should.
    pub(super) async fn rows_of(
        &mut self,
        wanted: &BTreeSet<usize>,
        buckets: usize,
        mut take: impl FnMut(Vec<Value>) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let mut params = Params::new(self.session.engine());
        let mut clauses = Vec::new();
        self.range_clauses(&mut clauses, &mut params)?;
        let here = self.hashes.is_none();
        if let Some(hashes) = &self.hashes {
            let list: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            clauses.push(format!("({} & {}) IN ({})", hashes.key, buckets - 1, list.join(", ")));
        }
        let plan = Arc::clone(&self.plan);
        self.each(&clauses, params, |row| {
            if here && !wanted.contains(&bucket_of(&plan, &row, buckets)) { Ok(()) } else { take(row) }
        })
        .await
    }

    /// Streams rows in no particular order.
    async fn each(
        &mut self,
        clauses: &[String],
        params: Params,
        mut take: impl FnMut(Vec<Value>) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let engine = self.session.engine();
        let plan = Arc::clone(&self.plan);
        let from = |shown: &[String], table: &Table| {
            format!("SELECT {} FROM {}{}", shown.join(", "), table.quoted(), where_sql(clauses))
        };
        if self.side == Side::Target {
            let shown: Vec<String> = plan.columns.iter().map(|c| engine.read(&engine.quote(&c.target.name))).collect();
            return self.session.each_row(&from(&shown, &plan.target), params.args, take).await;
        }
        let keys = plan.source_key.iter().map(|column| engine.read(&engine.quote(&column.name)));
        let values = plan.columns.iter().filter_map(|column| match &column.from {
            From::Source(sql, _) => Some(engine.read(sql)),
            From::Constant(_) => None,
        });
        let shown: Vec<String> = keys.chain(values).collect();
        let lookups = Arc::clone(&self.lookups);
        self.session
            .each_row(&from(&shown, &plan.source), params.args, |mut row| {
                let rest = row.split_off(plan.source_key.len());
                take(map_row(&plan, &lookups, &row, rest)?)
            })
            .await
    }
}

/// Bucket, count and sum; one row of the answer for each bucket that has rows.
fn sums_sql(hashes: &Hashes, table: &Table, clauses: &[String], buckets: usize) -> String {
    let (name, rows) = (table.quoted(), where_sql(clauses));
    let read = |sql: &str| table.engine.read(sql);
    let (count, sum) = (read("count(*)"), read("COALESCE(sum(q.h), 0)"));
    if buckets == 1 {
        let zero = read("0");
        return format!("SELECT {zero}, {count}, {sum} FROM (SELECT {} AS h FROM {name}{rows}) AS q", hashes.row);
    }
    let mut bucket = format!("({}) & {}", hashes.key, buckets - 1);
    if table.engine == Engine::Postgres {
        bucket = format!("({bucket})::int4");
    }
    format!(
        "SELECT {}, {count}, {sum} FROM (SELECT {bucket} AS b, {} AS h FROM {name}{rows}) AS q GROUP BY q.b",
        read("q.b"),
        hashes.row
    )
}

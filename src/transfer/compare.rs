//! Compares a table set between two databases: counts, an order-independent content hash, and the keys that differ.
//!
//! Walks the source in key order, chunk by chunk, and asks the target for the same keys, so no two engines need to sort alike and memory
//! is bounded by the chunk. Each side is read in one snapshot of its own. Refuses to call
//! a walk a proof that did not meet every counted row; what differs is the answer.
//! Called by the `db.compare` action.

use sha2::{Digest, Sha256};

use super::database::Database;
use super::error::TransferError;
use super::mapping::Mapping;
use super::plan::{TablePlan, plan_set};
use super::policy::differing;
use super::rows::{self, Lookups, Range, Side};
use super::schema::Column;
use super::session::{Begin, Session};
use super::value::{Value, canonical};
use super::write;

const CHUNK_ROWS: usize = 5_000;

/// How closely is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareMode {
    /// Row counts only.
    Count,
    /// Every value.
    Content,
}

/// What is to be compared.
#[derive(Debug, Clone)]
pub struct CompareRequest {
    /// The mapping.
    pub mapping: Mapping,
    /// The table set.
    pub set: String,
    /// Which rows, on both sides, by the time column.
    pub range: Range,
    /// How closely.
    pub mode: CompareMode,
    /// How many differing keys are named per table.
    pub limit: usize,
}

/// One key that differs.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// The source has it, the target has not.
    Missing {
        /// By target column.
        key: serde_json::Map<String, serde_json::Value>,
    },
    /// The target has it, the source has not.
    Extra {
        /// By target column.
        key: serde_json::Map<String, serde_json::Value>,
    },
    /// Both have it with other values.
    Different {
        /// By target column.
        key: serde_json::Map<String, serde_json::Value>,
        /// The differing columns as the source says they should be.
        source: serde_json::Map<String, serde_json::Value>,
        /// The same columns as the target has them.
        target: serde_json::Map<String, serde_json::Value>,
    },
}

/// The comparison of one table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableComparison {
    /// The source table.
    pub table: String,
    /// Rows of the source in range.
    pub source_rows: u64,
    /// Rows of the target in range.
    pub target_rows: u64,
    /// Hash over the source's rows as the target should hold them, 32 hex digits; empty under [`CompareMode::Count`].
    pub source_hash: String,
    /// Hash over the target's rows; equal contents give equal hashes, whatever the engine and the order.
    pub target_hash: String,
    /// Keys that the target lacks.
    pub missing: u64,
    /// Keys that only the target has.
    pub extra: u64,
    /// Keys with other values.
    pub different: u64,
    /// The first differing keys.
    pub differences: Vec<Difference>,
}

impl TableComparison {
    /// True where nothing differs.
    pub fn is_equal(&self) -> bool {
        self.source_rows == self.target_rows
            && self.source_hash == self.target_hash
            && self.missing + self.extra + self.different == 0
    }
}

/// The comparison of a table set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CompareReport {
    /// One entry per table, in copy order.
    pub tables: Vec<TableComparison>,
}

impl CompareReport {
    /// True where nothing differs.
    pub fn is_equal(&self) -> bool {
        self.tables.iter().all(TableComparison::is_equal)
    }
}

/// Compares; see the head of this file.
pub async fn compare(from: &Database, to: &Database, request: &CompareRequest) -> Result<CompareReport, TransferError> {
    let mut source = Session::open(from).await?;
    let mut target = Session::open(to).await?;
    source.begin(Begin::Snapshot).await?;
    target.begin(Begin::Snapshot).await?;
    let plans = plan_set(&mut source, &mut target, &request.mapping, &request.set).await?;
    let mut report = CompareReport::default();
    for plan in &plans {
        rows::check_keys(&mut source, plan).await?;
        let mut walk = Walk {
            request,
            plan,
            found: TableComparison { table: plan.source.name.clone(), ..TableComparison::default() },
        };
        walk.found.source_rows = rows::count(&mut source, plan, Side::Source, request.range).await?;
        walk.found.target_rows = rows::count(&mut target, plan, Side::Target, request.range).await?;
        if request.mode == CompareMode::Content {
            walk.contents(&mut source, &mut target).await?;
        }
        report.tables.push(walk.found);
    }
    Ok(report)
}

/// The sum, modulo 2^128, of the rows' hashes: independent of order, and a row that is there twice does not cancel out.
#[derive(Default)]
struct ContentHash(u128);

impl ContentHash {
    fn add(&mut self, plan: &TablePlan, row: &[Value]) {
        let mut hasher = Sha256::new();
        for (column, value) in plan.columns.iter().zip(row) {
            let text = canonical(value, column.target.kind);
            hasher.update(text.len().to_le_bytes());
            hasher.update(text.as_bytes());
        }
        let digest = hasher.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        self.0 = self.0.wrapping_add(u128::from_le_bytes(half));
    }

    fn text(&self) -> String {
        format!("{:032x}", self.0)
    }
}

struct Walk<'a> {
    request: &'a CompareRequest,
    plan: &'a TablePlan,
    found: TableComparison,
}

impl Walk<'_> {
    async fn contents(&mut self, source: &mut Session, target: &mut Session) -> Result<(), TransferError> {
        let plan = self.plan;
        let lookups = rows::load_lookups(source, target, plan, self.request.range).await?;
        let mut source_hash = ContentHash::default();
        let mut target_hash = ContentHash::default();
        let (mut matched, mut walked) = (0, 0);
        let mut after: Option<Vec<Value>> = None;
        loop {
            let chunk =
                rows::read_chunk(source, plan, &lookups, after.as_deref(), self.request.range, CHUNK_ROWS).await?;
            let Some(last) = chunk.last() else { break };
            after = Some(last.source_key.clone());
            let keys: Vec<Vec<Value>> = chunk.iter().map(|row| plan.key_of(&row.values)).collect();
            let columns = plan.target_columns();
            let held = write::find(target, &plan.target, &plan.target_key(), &keys, &columns, false).await?;
            for ((row, key), held) in chunk.iter().zip(&keys).zip(&held) {
                walked += 1;
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
        }
        if walked != self.found.source_rows {
            return Err(TransferError::request(format!(
                "`{}` has {} rows in range but a walk by its key met {walked}",
                self.found.table, self.found.source_rows
            )));
        }
        if matched != self.found.target_rows {
            self.extras(source, target, &lookups, &mut target_hash).await?;
        }
        self.found.source_hash = source_hash.text();
        self.found.target_hash = target_hash.text();
        Ok(())
    }

    fn name(&mut self, difference: Difference) {
        if self.found.differences.len() < self.request.limit {
            self.found.differences.push(difference);
        }
    }

    fn missing(&mut self, key: &[Value]) {
        self.found.missing += 1;
        let key = self.plan.key_json(key);
        self.name(Difference::Missing { key });
    }

    fn judge(&mut self, key: &[Value], wanted: &[Value], held: &[Value]) {
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

    /// Walks the target for keys that the source does not have; only needed where the counts say that there are some.
    async fn extras(
        &mut self,
        source: &mut Session,
        target: &mut Session,
        lookups: &Lookups,
        target_hash: &mut ContentHash,
    ) -> Result<(), TransferError> {
        let plan = self.plan;
        let back = inverse(plan, lookups);
        let mut after: Option<Vec<Value>> = None;
        loop {
            let chunk = rows::read_target_chunk(target, plan, after.as_deref(), self.request.range, CHUNK_ROWS).await?;
            let Some(last) = chunk.last() else { return Ok(()) };
            after = Some(plan.key_of(last));
            let keys: Vec<Option<Vec<Value>>> = chunk.iter().map(|row| source_key(plan, &back, row)).collect();
            let asked: Vec<Vec<Value>> = keys.iter().flatten().cloned().collect();
            let columns: Vec<Column> = plan.source_key.clone();
            let mut held =
                write::find(source, &plan.source, &plan.source_key, &asked, &columns, false).await?.into_iter();
            for (row, key) in chunk.iter().zip(&keys) {
                let there = key.is_some() && held.next().flatten().is_some();
                if !there {
                    self.found.extra += 1;
                    target_hash.add(plan, row);
                    let key = plan.key_json(&plan.key_of(row));
                    self.name(Difference::Extra { key });
                }
            }
        }
    }
}

/// For each key column that is looked up the way back: target text to source text.
type Inverse = Vec<Option<std::collections::HashMap<String, String>>>;

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
            super::value::convert(value, Some(plan.columns[*i].target.kind), column.kind).ok()
        })
        .collect()
}

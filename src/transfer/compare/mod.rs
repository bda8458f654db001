//! Compares a table set between two databases: counts, an order-independent content hash per chunk, and the keys that differ.
//!
//! A chunk is a bucket of keys (`sums`): both sides sum up their rows at the same time, in the engines where these can be shown to compute the
//! same (`in_engine`), else here; only chunks that differ are read row by row. A sample, and a table that differs nearly
//! everywhere, is walked by its key (`walk`). Each side is read in one snapshot of its own. Refuses to call a walk a proof that did not meet
//! every counted row; what differs is the answer. Called by the `db.compare` action; `docs/design/compare.md` says why all this is so.

mod in_engine;
mod kept;
mod slices;
mod sums;
mod table;
mod walk;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use self::kept::Keep;
use self::kept::Memory;
use super::copy::CopyProgress;
use super::database::Database;
use super::engine::Engine;
use super::error::TransferError;
use super::limits::Limits;
use super::mapping::Mapping;
use super::plan::plan_set;
use super::rows::Range;
use super::session::Begin;

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

/// Which part of the rows is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// One chunk in so many.
    pub one_in: u64,
    /// Chooses the chunks: the same seed, the same chunks, as long as the rows are the same.
    pub seed: u64,
}

/// How a comparison is made.
#[derive(Clone, Default)]
pub struct CompareOptions {
    /// Looks at a part only; counts are always those of all rows.
    pub sample: Option<Sample>,
    /// Remembers over a crash how far it came.
    pub keep: Option<Arc<dyn Keep>>,
    /// Hears after every slice how far it came.
    pub progress: Option<Arc<dyn Fn(CopyProgress) + Send + Sync>>,
    /// Rows of a slice, about, which is what a crash loses at most; 0 for the usual.
    pub slice_rows: u64,
    /// How long its statements may take and wait.
    pub limits: Limits,
    /// Ends it between two slices.
    pub cancel: CancellationToken,
}

/// How the rows of a table were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// They were counted.
    #[default]
    Counted,
    /// Both engines hashed them.
    InEngine,
    /// They were streamed here and hashed.
    Streamed,
    /// They were walked by key, each looked up on the other side.
    Walked,
}

/// What a sample met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampled {
    /// Chunks of the source that were read.
    pub chunks: u64,
    /// Chunks that the source has.
    pub of: u64,
    /// Rows that were read, of both sides.
    pub rows: u64,
    /// The seed.
    pub seed: u64,
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
    /// Hash over the source's rows as the target should hold them, 32 hex digits; empty under [`CompareMode::Count`]. It means something
    /// beside the other side's only.
    pub source_hash: String,
    /// Hash over the target's rows; equal contents give equal hashes, whatever the order.
    pub target_hash: String,
    /// Keys that the target lacks.
    pub missing: u64,
    /// Keys that only the target has.
    pub extra: u64,
    /// Keys with other values.
    pub different: u64,
    /// The first differing keys.
    pub differences: Vec<Difference>,
    /// How it was found out.
    pub method: Method,
    /// What the sample met, where only a sample was looked at.
    pub sampled: Option<Sampled>,
    /// Whether a part was seen before a crash, in a snapshot of its own.
    pub resumed: bool,
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

/// Compares everything; see the head of this file.
pub async fn compare(from: &Database, to: &Database, request: &CompareRequest) -> Result<CompareReport, TransferError> {
    compare_with(from, to, request, &CompareOptions::default()).await
}

/// Compares in the given way; see the head of this file.
pub async fn compare_with(
    from: &Database,
    to: &Database,
    request: &CompareRequest,
    options: &CompareOptions,
) -> Result<CompareReport, TransferError> {
    if options.sample.is_some_and(|sample| sample.one_in == 0) {
        return Err(TransferError::request("a sample of one chunk in 0 cannot be taken"));
    }
    let limits = options.limits;
    let mut sides = [limits.open(from, false).await?, limits.open(to, false).await?];
    for session in &mut sides {
        session.begin(Begin::Snapshot).await?;
        if session.engine() == Engine::Postgres {
            // Expressions of this length are compiled anew for every slice.
            session.run("SET LOCAL jit = off", Vec::new()).await?;
        }
    }
    let [mut source, mut target] = sides;
    let plans = plan_set(&mut source, &mut target, &request.mapping, &request.set).await;
    let plans = plans.map_err(|error| limits.name(error, &format!("table set `{}`", request.set)))?;
    let memory = Memory::open(request, options.keep.clone().filter(|_| options.sample.is_none()));
    let mut report = CompareReport::default();
    for plan in plans {
        let place = format!("`{}`", plan.source.name);
        let table = table::Comparing { request, options, memory: &memory, plan: Arc::new(plan) };
        let (found, sessions) = table.run([source, target]).await.map_err(|error| limits.name(error, &place))?;
        [source, target] = sessions;
        report.tables.push(found);
    }
    memory.end();
    Ok(report)
}

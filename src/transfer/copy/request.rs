//! What a copy is asked to do, and what of it can be refused before a row is read.
//!
//! Used by every file of this folder and by `overlap`.

use super::super::chunk_hook::ChunkHook;
use super::super::database::Database;
use super::super::error::TransferError;
use super::super::limits::Limits;
use super::super::mapping::Mapping;
use super::super::plan::TablePlan;
use super::super::policy::Policy;
use super::super::rows::Range;
use super::super::session::Session;
use super::pace::Throttle;

/// Rows of a chunk where the caller names none.
pub const CHUNK_ROWS_DEFAULT: usize = 20_000;

/// Most that is done at the same time where the caller names no number.
const PARALLEL_DEFAULT: usize = 4;

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
    /// Rows of a chunk; with 0 it follows from how long chunks take, and is [`CHUNK_ROWS_DEFAULT`] where rows are judged one by one.
    pub chunk_rows: usize,
    /// Most tables at the same time, and most connections to either side for one table; with 0 as many as there are processors, two to four.
    pub parallel: usize,
    /// The identity of this copy: the same for every resume, another for every new copy.
    pub token: String,
    /// Seconds of one bucket, instead of the mapping's.
    pub timestep: Option<i64>,
    /// How it holds back; may change between two calls.
    pub throttle: Throttle,
    /// How long its statements may take and wait; may change between two calls.
    pub limits: Limits,
    /// What is awaited at the moments of each chunk.
    pub hook: ChunkHook,
    /// When the indexes of an empty target are built.
    pub indexes: Indexes,
}

/// When the keys and indexes of an empty target table are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Indexes {
    /// They stay as they are, and every row goes into them as it comes.
    #[default]
    Keep,
    /// They are taken away and built again once the rows are there.
    After,
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
            parallel: 0,
            token: token.into(),
            timestep: None,
            throttle: Throttle::default(),
            limits: Limits::default(),
            hook: ChunkHook::default(),
            indexes: Indexes::Keep,
        }
    }

    /// A session with the limits of this copy, which may have nothing to do for as long as a table takes: it holds the view that others read in.
    pub(in super::super) async fn open(&self, database: &Database) -> Result<Session, TransferError> {
        self.limits.open(database, true).await
    }

    /// Rows of a chunk that is held in memory.
    pub(in super::super) fn chunk_rows(&self) -> usize {
        if self.chunk_rows == 0 { CHUNK_ROWS_DEFAULT } else { self.chunk_rows }
    }

    /// Most tables at the same time, and most connections to either side for one table.
    pub(super) fn parallel(&self) -> usize {
        if self.parallel == 0 { cores().clamp(2, PARALLEL_DEFAULT) } else { self.parallel }
    }

    /// The rows that the target may not hold yet: those of the range, and of them those that the split gives to the source.
    pub(in super::super) fn selected(&self) -> Range {
        match self.policy {
            Policy::SplitAt { at } => {
                Range { to: Some(self.range.to.map_or(at, |to| to.min(at))), from: self.range.from }
            }
            Policy::SourceWins { .. } | Policy::Fill | Policy::Fail | Policy::BestCoverage | Policy::MergeAdditive => {
                self.range
            }
        }
    }

    /// What a copy under one token may not change between two calls, in words.
    pub(super) fn asked(&self) -> String {
        let bound = |bound: Option<i64>| bound.map_or_else(|| "open".to_owned(), |bound| bound.to_string());
        let policy = match self.policy {
            Policy::SplitAt { at } => format!("split_at {at}"),
            Policy::SourceWins { replace_row: false } => "source_wins of its own columns".to_owned(),
            other => other.name().to_owned(),
        };
        let (from, to) = (bound(self.range.from), bound(self.range.to));
        format!("set `{}`, range {from} to {to}, policy {policy}", self.set)
    }
}

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What can be judged from the plan alone.
pub(in super::super) fn check_request(plan: &TablePlan, request: &CopyRequest) -> Result<(), TransferError> {
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

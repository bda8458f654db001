//! What a copy says of itself: signs of life while it runs, and the account of its tables afterwards.
//!
//! Made by the other files of this folder, shown by the `db.copy` action.

use std::time::Duration;

use super::super::checkpoint::Counts;

/// A sign of life, after every chunk.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CopyProgress {
    /// The source table.
    pub table: String,
    /// Its rows that are committed, earlier calls included.
    pub rows_done: u64,
    /// Its rows in range when this call began, never less than those done; 0 where nobody knows.
    pub rows_total: u64,
    /// Whether they were counted; else they are what the source's planner thinks.
    pub is_counted: bool,
    /// Rows per second of this call, over this table; without the time in which it waited for others.
    pub rows_per_second: f64,
    /// Bytes per second, likewise.
    pub bytes_per_second: f64,
    /// Time left of the whole copy, at the speed so far; none where nobody can tell.
    pub left: Option<Duration>,
    /// Whether it waits for others.
    pub waits: bool,
}

/// The account of one table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableReport {
    /// The source table.
    pub table: String,
    /// Source rows read by this call.
    pub read: u64,
    /// Rows inserted.
    pub inserted: u64,
    /// Rows overwritten or added to.
    pub updated: u64,
    /// Rows that were equal already.
    pub unchanged: u64,
    /// Rows that differ and stay as the target had them.
    pub kept: u64,
    /// Rows that an earlier call under this token had committed.
    pub skipped: u64,
    /// What became of all rows, earlier calls included.
    pub all: Counts,
    /// Bytes of the rows read: of the stream where bytes pass as they are, else the length of values.
    pub bytes: u64,
    /// Time of this call.
    pub elapsed: Duration,
    /// Part of it in which `pause_while` had it wait.
    pub waited: Duration,
}

impl TableReport {
    /// Rows read per second of work.
    pub fn rows_per_second(&self) -> f64 {
        per_second(self.read, self.elapsed.saturating_sub(self.waited))
    }
}

/// The account of a copy.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CopyReport {
    /// One entry per table, in copy order.
    pub tables: Vec<TableReport>,
}

impl CopyReport {
    /// Rows that this call changed in the target.
    pub fn changed(&self) -> u64 {
        self.tables.iter().map(|table| table.inserted + table.updated).sum()
    }
}

pub(super) fn per_second(rows: u64, elapsed: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rows = rows as f64;
    if elapsed.is_zero() { 0.0 } else { rows / elapsed.as_secs_f64() }
}

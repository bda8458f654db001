//! Everything Piton does inside databases: statements with bound values, assertions, migrations, exact copies between engines,
//! comparison, watermarks and gaps.
//!
//! Knows nothing of runs or steps; the `db.*` actions call it and hand it a token that stays the same over every resume.
//! Refuses to change a value on its way, to write what a policy forbids, and to claim an effect it cannot prove.

mod checkpoint;
mod chunk_hook;
mod compare;
mod copy;
mod database;
mod engine;
mod error;
mod mapping;
mod mariadb;
mod mariadb_migrate;
mod mariadb_rows;
mod mariadb_statement;
mod mariadb_value;
mod migrate;
mod moment;
mod overlap;
mod plan;
mod policy;
mod postgres;
mod postgres_rows;
mod postgres_statement;
mod preflight;
mod rows;
mod schema;
mod series;
mod session;
mod sql_text;
mod sqlite;
mod sqlite_rows;
mod statement;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use checkpoint::{Copied, Counts, TableCheckpoint, copied, forget};
pub use chunk_hook::{ChunkHook, ChunkMoment};
pub use compare::{
    CompareMode, CompareOptions, CompareReport, CompareRequest, Difference, Keep, Method, Sample, Sampled,
    TableComparison, compare, compare_with,
};
pub use copy::{CHUNK_ROWS_DEFAULT, CopyProgress, CopyReport, CopyRequest, TableReport, copy};
pub use database::{ConnectOptions, Database, SQLITE_BUSY_TIMEOUT};
pub use engine::Engine;
pub use error::TransferError;
pub use mapping::{Ignore, Lookup, Mapping, TableMapping};
pub use migrate::{applied, migrate};
pub use overlap::{KEYS_SHOWN, OverlapReport, TableOverlap, overlap};
pub use plan::check;
pub use policy::Policy;
pub use preflight::{PreflightFinding, PreflightReport, PreflightRequest, Severity, SideFacts, preflight};
pub use rows::Range;
pub use series::{EntityGaps, Gaps, Lagging, Series, Watermark, gaps, watermark};
pub use statement::{AssertOutcome, Binds, Expect, Rows, StatementOptions, assert, execute, query};

//! Everything Piton does inside databases: statements with bound values, assertions, migrations, exact copies between engines,
//! comparison, watermarks and gaps.
//!
//! Knows nothing of runs or steps; the `db.*` actions call it and hand it a token that stays the same over every resume.
//! Refuses to change a value on its way, to write what a policy forbids, and to claim an effect it cannot prove.

mod activity;
mod checkpoint;
mod chunk_hook;
mod compare;
mod copy;
mod database;
mod engine;
mod error;
mod estimate;
mod forecast;
mod limits;
mod mapping;
mod mariadb;
mod mariadb_migrate;
mod mariadb_rows;
mod mariadb_statement;
mod mariadb_value;
mod migrate;
mod moment;
mod overlap;
mod own;
mod plan;
mod policy;
mod postgres;
mod postgres_copy;
mod postgres_rows;
mod postgres_statement;
mod postgres_stream;
mod preflight;
mod rows;
mod schema;
mod series;
mod session;
mod sql_text;
mod sqlite;
mod sqlite_reader;
mod sqlite_rows;
mod statement;
mod value;
mod whole;
mod write;

#[cfg(test)]
mod tests;

pub use activity::{Ended, SessionFilter, SessionInfo, SessionState, end_session, sessions};
pub use checkpoint::{Copied, Counts, TableCheckpoint, copied, forget};
pub use chunk_hook::{ChunkHook, ChunkMoment};
pub use compare::{
    CompareMode, CompareOptions, CompareReport, CompareRequest, Difference, Keep, Method, Sample, Sampled,
    TableComparison, compare, compare_with,
};
pub use copy::{
    CHUNK_ROWS_DEFAULT, CopyProgress, CopyReport, CopyRequest, Indexes, PauseWhile, TableReport, Throttle, copy,
};
pub use database::{ConnectOptions, Database, SQLITE_BUSY_TIMEOUT};
pub use engine::Engine;
pub use error::TransferError;
pub use forecast::{COMPARED_MAX, COUNTED_MAX, Held, TableForecast, forecast};
pub use limits::Limits;
pub use mapping::{Ignore, Lookup, Mapping, TableMapping};
pub use migrate::{Migrations, applied, apply, migrate};
pub use overlap::{KEYS_SHOWN, OverlapReport, TableOverlap, overlap};
pub use plan::check;
pub use policy::Policy;
pub use preflight::{PreflightFinding, PreflightReport, PreflightRequest, Severity, SideFacts, preflight};
pub use rows::Range;
pub use series::{EntityGaps, Gaps, Lagging, Series, Watermark, gaps, watermark};
pub use statement::{AssertOutcome, Binds, Expect, Rows, StatementOptions, assert, execute, query};
pub use whole::{
    MARK, RestoreMark, ServerFacts, clear_marked, mark_restore, objects, restore_mark, server_facts, sqlite_address,
    sqlite_copy_to, sqlite_damage, sqlite_file, sqlite_settle, tables, tables_without_transactions, unmark_restore,
};

//! Everything that can go wrong while Piton talks to a database, and whether the world is known afterwards.
//!
//! Refuses to guess: an error either proves that nothing was changed or answers `true` to [`TransferError::effect_unknown`].
//! Raised by every file of this module, read by the database actions.

use std::time::Duration;

use miette::Diagnostic;
use thiserror::Error;

use super::engine::Engine;
use super::overlap::OverlapReport;

/// A failed database operation.
#[derive(Debug, Error, Diagnostic)]
pub enum TransferError {
    /// The address names no engine, or one that is not spoken here.
    #[error("`{url}` is no database address: {why}")]
    #[diagnostic(
        code(transfer::address),
        help(
            "write `sqlite:///abs/path.db`, `sqlite:rel.db`, `postgres://user@host/name` or `mysql://user@host/name`"
        )
    )]
    Address {
        /// The address without its password.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server or the file did not answer.
    #[error("cannot connect to `{address}`: {source}")]
    #[diagnostic(code(transfer::connect), help("check that the server runs or the file exists, and the credentials"))]
    Connect {
        /// The address without its password.
        address: String,
        /// The driver's reason.
        source: sqlx::Error,
    },
    /// The engine refused a statement.
    #[error("{engine} says: {message}{}", position.map(|at| format!(" (at character {at})")).unwrap_or_default())]
    #[diagnostic(code(transfer::sql))]
    Sql {
        /// The engine that spoke.
        engine: Engine,
        /// The engine's own message, with its detail where it gave one.
        message: String,
        /// SQLSTATE on PostgreSQL, the extended result code on SQLite, the error number on MariaDB.
        code: Option<String>,
        /// Character of the caller's SQL text, counted from 1.
        position: Option<usize>,
        /// True where the connection broke while a change may have been under way.
        effect_unknown: bool,
    },
    /// The SQL text cannot be used in the way it was asked for.
    #[error("the statement cannot be run: {why}")]
    #[diagnostic(code(transfer::statement))]
    Statement {
        /// What is wrong with the text.
        why: String,
    },
    /// The binds and the `:names` of the text are not the same set.
    #[error("binds do not match the statement: missing {missing:?}, unused {unused:?}")]
    #[diagnostic(code(transfer::binds), help("every `:name` needs one bind and every bind one `:name`"))]
    Binds {
        /// Names in the text without a value.
        missing: Vec<String>,
        /// Values without a name in the text.
        unused: Vec<String>,
    },
    /// A bind's value cannot become the parameter's type.
    #[error("bind `{name}` cannot be a `{to}`: {why}")]
    #[diagnostic(code(transfer::bind_type))]
    BindType {
        /// The bind.
        name: String,
        /// The type the engine asked for.
        to: String,
        /// Why not.
        why: String,
    },
    /// The mapping contradicts itself or one of the databases.
    #[error("the mapping `{mapping}` does not fit: {}", problems.join("; "))]
    #[diagnostic(code(transfer::mapping), help("map the column, or list it under `ignore`"))]
    Mapping {
        /// The mapping's name.
        mapping: String,
        /// Every problem found, each a clause.
        problems: Vec<String>,
    },
    /// A table is not there.
    #[error("{engine} has no table `{table}`")]
    #[diagnostic(code(transfer::unknown_table))]
    UnknownTable {
        /// Where it was looked for.
        engine: Engine,
        /// Its name.
        table: String,
    },
    /// A column is not there.
    #[error("table `{table}` has no column `{column}`")]
    #[diagnostic(code(transfer::unknown_column))]
    UnknownColumn {
        /// The table.
        table: String,
        /// The missing column.
        column: String,
    },
    /// The guard found rows where the policy allows none.
    #[error("overlap guard: {0}")]
    #[diagnostic(code(transfer::overlap), help("stop the second writer, narrow the range, or choose another policy"))]
    Overlap(Box<OverlapReport>),
    /// One value cannot be held by its target column.
    #[error("`{table}` row {key}: column `{column}` cannot hold the value: {why}")]
    #[diagnostic(code(transfer::misfit))]
    Misfit {
        /// The source table.
        table: String,
        /// The row's key as `column=value` pairs.
        key: String,
        /// The target column.
        column: String,
        /// Why not.
        why: String,
    },
    /// A key map of the target does not cover the source, or maps two keys to one.
    #[error("key map `{table}` for `{column}`: {why}")]
    #[diagnostic(code(transfer::lookup), help("complete the map before copying; it must be total and injective"))]
    Lookup {
        /// The map's table.
        table: String,
        /// The target column that is looked up.
        column: String,
        /// What is missing or doubled.
        why: String,
    },
    /// The caller asked to stop; everything up to the last chunk is committed and a resume goes on from there.
    #[error("cancelled at a chunk boundary of `{table}` after {rows} rows")]
    #[diagnostic(code(transfer::cancelled), help("run again with the same token to go on"))]
    Cancelled {
        /// The table under way.
        table: String,
        /// Rows of it that are committed, earlier runs included.
        rows: u64,
    },
    /// Time ran out and the statement was interrupted in the engine.
    #[error("no answer within {after:?}; {}", if *effect_unknown { "the effect is unknown" } else { "the engine confirmed that nothing was changed" })]
    #[diagnostic(code(transfer::timeout))]
    Timeout {
        /// The limit.
        after: Duration,
        /// False only where the engine confirmed the cancellation and the transaction was rolled back.
        effect_unknown: bool,
    },
    /// A limit of a copy's or a comparison's own was reached; the engine undid what was under way.
    #[error("{place}: the `{limit}` of {after:?} was over, and what was under way is undone: {why}")]
    #[diagnostic(
        code(transfer::limit),
        help("run again to go on with what is left; `db.sessions` shows who is in the way")
    )]
    Limit {
        /// The table, or the table set before one was begun.
        place: String,
        /// `statement_timeout` or `lock_timeout`.
        limit: &'static str,
        /// How long it is.
        after: Duration,
        /// What the engine said.
        why: String,
    },
    /// A folder of migrations could not be read or applied.
    #[error("migrations in `{folder}`: {source}")]
    #[diagnostic(code(transfer::migrate))]
    Migrate {
        /// The folder.
        folder: String,
        /// sqlx's reason.
        source: sqlx::migrate::MigrateError,
    },
    /// A text of several statements failed after a part of it was committed by the engine itself.
    #[error(
        "statement {statement} of {of} failed: {why}; the first {committed} are done for good, since MariaDB commits DDL by itself"
    )]
    #[diagnostic(
        code(transfer::half_done),
        help("look at what is done; give each DDL statement a step of its own, or use `db.migrate`")
    )]
    HalfDone {
        /// The statement that failed, counted from 1.
        statement: usize,
        /// How many there are.
        of: usize,
        /// How many are committed.
        committed: usize,
        /// What the engine said.
        why: String,
    },
    /// A statement of a migration failed or its end is unknown.
    #[error("migration {version} (`{name}`), statement {statement} of {of}: {why}")]
    #[diagnostic(code(transfer::migration))]
    Migration {
        /// The migration.
        version: i64,
        /// Its name.
        name: String,
        /// The statement, counted from 1.
        statement: usize,
        /// How many there are.
        of: usize,
        /// What happened and what to do.
        why: String,
    },
    /// A request names something that cannot be done.
    #[error("{why}")]
    #[diagnostic(code(transfer::request))]
    Request {
        /// What is wrong, and what to do.
        why: String,
    },
}

impl TransferError {
    /// True where a change may or may not have happened, so that a probe must look before anybody retries.
    pub fn effect_unknown(&self) -> bool {
        match self {
            Self::Sql { effect_unknown, .. } | Self::Timeout { effect_unknown, .. } => *effect_unknown,
            Self::Migrate { .. } | Self::Migration { .. } | Self::HalfDone { .. } => true,
            Self::Address { .. }
            | Self::Connect { .. }
            | Self::Statement { .. }
            | Self::Binds { .. }
            | Self::BindType { .. }
            | Self::Mapping { .. }
            | Self::UnknownTable { .. }
            | Self::UnknownColumn { .. }
            | Self::Overlap(_)
            | Self::Misfit { .. }
            | Self::Lookup { .. }
            | Self::Cancelled { .. }
            | Self::Limit { .. }
            | Self::Request { .. } => false,
        }
    }

    pub(super) fn request(why: impl Into<String>) -> Self {
        Self::Request { why: why.into() }
    }

    pub(super) fn statement(why: impl Into<String>) -> Self {
        Self::Statement { why: why.into() }
    }

    /// Wraps a driver's error; a broken connection leaves the effect unknown.
    pub(super) fn sql(engine: Engine, error: &sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            let effect_unknown = matches!(
                error,
                sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed | sqlx::Error::Tls(_)
            );
            return Self::Sql { engine, message: error.to_string(), code: None, position: None, effect_unknown };
        };
        let (mut detail, mut position) = (None, None);
        if let Some(postgres) = database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
            detail = postgres.detail();
            if let Some(sqlx::postgres::PgErrorPosition::Original(at)) = postgres.position() {
                position = Some(at);
            }
        }
        let mut code = database.code().map(std::borrow::Cow::into_owned);
        if let Some(mariadb) = database.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
            code = Some(mariadb.number().to_string());
        }
        Self::said(engine, database.message(), detail, code, position)
    }

    /// What an engine itself says is wrong.
    pub(super) fn said(
        engine: Engine,
        message: &str,
        detail: Option<&str>,
        code: Option<String>,
        position: Option<usize>,
    ) -> Self {
        let message = detail.map_or_else(|| message.to_owned(), |detail| format!("{message} ({detail})"));
        // 57P01..57P03: the server went away under the statement.
        // 1053, 1152, 1927, 3169: the same on MariaDB and MySQL.
        let effect_unknown = code.as_deref().is_some_and(|code| match engine {
            Engine::Postgres => code.starts_with("57P"),
            Engine::Mariadb => matches!(code, "1053" | "1152" | "1927" | "3169"),
            Engine::Sqlite => false,
        });
        Self::Sql { engine, message, code, position, effect_unknown }
    }

    /// True where the engine itself interrupted the statement.
    pub(super) fn is_interrupt(&self) -> bool {
        let Self::Sql { engine, code: Some(code), .. } = self else { return false };
        match engine {
            Engine::Postgres => code == "57014",
            Engine::Sqlite => code == "9",
            Engine::Mariadb => matches!(code.as_str(), "1317" | "1969" | "3024"),
        }
    }

    /// True where a lock of somebody else was waited for in vain, or SQLite's file has changed under a transaction that only now wants to write.
    pub(super) fn is_lock_wait(&self) -> bool {
        let Self::Sql { engine, code: Some(code), .. } = self else { return false };
        match engine {
            Engine::Postgres => code == "55P03",
            Engine::Mariadb => code == "1205",
            Engine::Sqlite => matches!(code.as_str(), "5" | "261" | "517"),
        }
    }

    /// True where another writer was in the way and the engine undid or can undo the whole transaction: a deadlock, a changed snapshot,
    /// a key that appeared.
    pub(super) fn is_collision(&self) -> bool {
        matches!(self, Self::Sql { engine: Engine::Mariadb, code: Some(code), .. }
            if matches!(code.as_str(), "1020" | "1062" | "1213" | "1586"))
    }

    /// True where PostgreSQL refused a key that is there already.
    pub(super) fn is_taken(&self) -> bool {
        matches!(self, Self::Sql { engine: Engine::Postgres, code: Some(code), .. } if code == "23505")
    }
}

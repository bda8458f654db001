//! What can go wrong in the lab. Raised by every module of the lab, shown by whoever started the process.

use std::path::PathBuf;

/// A failure of a part of the lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file or socket of the lab could not be used.
    #[error("cannot use `{path}`: {source}")]
    File {
        /// What was opened, written or connected to.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database refused a statement.
    #[error("database error in `{sql}`: {source}")]
    Sql {
        /// The statement, shortened.
        sql: String,
        /// What the engine said.
        source: sqlx::Error,
    },
    /// A query gave another shape than the lab asked for.
    #[error("unexpected result of `{sql}`: {detail}")]
    Shape {
        /// The statement, shortened.
        sql: String,
        /// What was found instead.
        detail: String,
    },
    /// `lab.json` or another JSON text is not what the lab wrote.
    #[error("cannot read `{what}` as JSON: {source}")]
    Json {
        /// Which text.
        what: String,
        /// Where it went wrong.
        source: serde_json::Error,
    },
    /// The lab was asked for something that its options do not allow.
    #[error("{0}")]
    Options(String),
    /// The statistics source went away: a collector cannot live without it.
    #[error("the statistics source is gone: {0}; start `stat-server` and start the collector again")]
    SourceGone(String),
    /// The other side of a lab socket said something else than the protocol allows.
    #[error("unexpected answer `{0}`")]
    Protocol(String),
    /// The Database Utility refused the operation.
    #[error("the database utility refused: {0}")]
    Refused(String),
    /// Invariants were measured and at least one does not hold.
    #[error("{0} of the invariants do not hold")]
    Violated(usize),
}

impl LabError {
    /// Wraps a system error with the path it concerns.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// Wraps an engine's error with the start of its statement.
    pub(crate) fn sql(sql: &str) -> impl FnOnce(sqlx::Error) -> Self {
        let sql = short(sql);
        move |source| Self::Sql { sql, source }
    }

    /// Says that a result had an unexpected shape.
    pub(crate) fn shape(sql: &str, detail: impl Into<String>) -> Self {
        Self::Shape { sql: short(sql), detail: detail.into() }
    }
}

fn short(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(120).collect()
}

//! What can go wrong with a journal, and what to do about it.

use std::path::PathBuf;

use super::PrunedRun;
use crate::ids::{LockName, RunId, StepId};

/// The journal cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file is something else.
    #[error("`{store}` is not a Piton journal; give another `--store`")]
    NotAJournal {
        /// The file, or the address without its password.
        store: String,
    },
    /// The place cannot be understood.
    #[error("`{store}` cannot be used as a store: {why}; give a path or `postgres://USER@HOST/DATABASE`")]
    Address {
        /// The address without its password.
        store: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server does not answer.
    #[error("the store `{store}` cannot be reached; what was recorded is safe, resume when it is back")]
    Unreachable {
        /// The address without its password.
        store: String,
        /// What went wrong last.
        source: sqlx::Error,
    },
    /// The server refuses.
    #[error("the store `{store}` refuses its service; see what its server says")]
    Server {
        /// The address without its password.
        store: String,
        /// What the server says.
        source: sqlx::Error,
    },
    /// Facts that were recorded are gone.
    #[error(
        "{} record {known_seq} of run `{run}` was written and {} (of that run `{path}` has {come}); restore the file from a \
         backup or, if the loss is accepted, remove `{path}-anchor`",
        if come < known_seq { "the end is lost:" } else { "a record was changed:" },
        if come < known_seq { "is not there" } else { "another one stands in its place" }
    )]
    CutOff {
        /// The file.
        path: PathBuf,
        /// A run that is shorter than it was.
        run: RunId,
        /// How far it had come.
        known_seq: u64,
        /// How many records the file has of it.
        come: u64,
    },
    /// The file was written by a later version.
    #[error("`{store}` has journal version {found}, this Piton knows {known}; use a newer Piton")]
    Newer {
        /// The file, or the address without its password.
        store: String,
        /// Its version.
        found: i64,
        /// Latest version known here.
        known: i64,
    },
    /// The file is damaged.
    #[error("`{path}` is damaged; restore it from a backup, or save what can be read with `sqlite3 {path} .recover`")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the database says.
        source: sqlx::Error,
    },
    /// A run without end.
    #[error(
        "run `{run}` has as many records as a run in a file can have; start a new one, or use a server as `--store`"
    )]
    TooLong {
        /// The run.
        run: RunId,
    },
    /// No room.
    #[error("the disk of `{store}` is full; nothing more was recorded; make room, then resume")]
    Full {
        /// The file, or the address without its password.
        store: String,
    },
    /// A write failed.
    #[error("`{path}` cannot be written; nothing more was recorded; see if its disk or a quota is full, then resume")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the database says.
        source: sqlx::Error,
    },
    /// Somebody else holds the file for too long.
    #[error("`{path}` was locked by another process for 10 seconds; see who has it open, then try again")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The file or its folder cannot be made.
    #[error("cannot make `{path}`; check that its folder can be written to")]
    Make {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Anything else that the database reports.
    #[error("cannot use the journal `{path}`; check that it exists and can be read and written")]
    Store {
        /// The file.
        path: PathBuf,
        /// What the database says.
        source: sqlx::Error,
    },
    /// A record that is missing or cannot be read.
    #[error("record {seq} of run `{run}` is broken: {why}; restore the journal from a backup")]
    Broken {
        /// The run.
        run: RunId,
        /// Place of the record.
        seq: u64,
        /// What is wrong.
        why: String,
    },
    /// A run of which somebody took away what nobody may keep.
    #[error("run `{run}` cannot be read back: {pruned}; `piton audit {run}` tells what is left")]
    Pruned {
        /// The run.
        run: RunId,
        /// What was pruned, when, by whom and why.
        pruned: Box<PrunedRun>,
    },
    /// A tombstone that could not be signed.
    #[error("the tombstone of run `{run}` could not be signed ({why}); nothing of it was pruned")]
    Unsealed {
        /// The run.
        run: RunId,
        /// What went wrong.
        why: String,
    },
    /// What a command said is not there as it was kept.
    #[error("what a command said {why} (SHA-256 {digest}); restore the journal from a backup")]
    Transcript {
        /// Its name.
        digest: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No such run.
    #[error("there is no run `{0}` in this journal; list them with `piton runs`")]
    UnknownRun(String),
    /// A prefix of several runs.
    #[error("`{prefix}` is the beginning of {runs} runs; give more of the id")]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// How many runs it fits.
        runs: usize,
    },
}

/// Why facts were not recorded.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A run with this id exists.
    #[error("run `{run}` exists already; give another id")]
    Exists {
        /// Which.
        run: RunId,
    },
    /// The first fact of a run is another one, or its id has characters that no id has.
    #[error("run `{run}` can only begin with `run_started` and a plain id")]
    NotAStart {
        /// Which.
        run: RunId,
    },
    /// The run was pruned; nothing is recorded of it any more.
    #[error("run `{run}` was pruned; nothing more can be recorded of it")]
    Pruned {
        /// Which.
        run: RunId,
    },
    /// Something else was recorded at this place; read on from there and decide anew.
    #[error("the run has come to record {actual_seq} by now; read it again")]
    Conflict {
        /// Place of the latest record.
        actual_seq: u64,
    },
    /// Another driver took over.
    #[error("another driver has taken over this run (generation {generation}); this one must stop")]
    Fenced {
        /// Generation of the driver that has it; 0 if there is none.
        generation: u64,
    },
    /// Another run holds a lock.
    #[error("lock `{lock}` is held by run `{by_run}`; wait for it or cancel it")]
    LockHeld {
        /// Which.
        lock: LockName,
        /// The run that holds it.
        by_run: RunId,
    },
    /// A step that was about to act has lost a lock.
    #[error("step `{step}` has lost its lock while its driver slept; nothing was started; resume the run")]
    LockLost {
        /// Which.
        step: StepId,
    },
    /// The journal failed.
    #[error(transparent)]
    Store(#[from] JournalError),
}

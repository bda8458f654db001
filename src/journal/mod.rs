//! The journal: every fact of every run, in order, for good. It is the only source of state.
//!
//! Owned here: what a store must do ([`Journal`]), the hash chain, leases and locks. Refused: a fact at a place that
//! is taken, a fact from a driver that was replaced, a lock that another run holds. Written by driver and CLI, read
//! by everyone. `docs/design/journal.md` says what is on disk.

/// Calls the same method on whichever store it is.
macro_rules! each {
    ($self:ident, $store:ident => $call:expr, $waiting:expr) => {
        match $self {
            Journal::Memory($store) => $call,
            Journal::Sqlite($store) => $waiting.await,
            Journal::Postgres($store) => $waiting.await,
        }
    };
}

mod bundle;
mod chain;
mod error;
mod exposure;
#[cfg(test)]
mod file_tests;
mod heads;
mod lease;
mod locks;
mod memory;
mod postgres;
mod proof;
#[cfg(test)]
mod proof_tests;
mod prune;
#[cfg(test)]
mod prune_file_tests;
#[cfg(test)]
mod prune_tests;
mod seal;
mod sqlite;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transcript_tests;
mod transcripts;
mod watch;

use std::collections::BTreeMap;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

pub use bundle::{BundleError, judge as judge_bundle, records as bundle_records};
use chain::Row;
pub use error::{AppendError, JournalError};
pub use exposure::{Exposed, exposed};
pub use lease::{LeaseError, Owner};
pub use locks::{HeldLock, LockAnswer, LockAsk, LockTable, LockWaiter};
use memory::Memory;
use postgres::Postgres;
use proof::Evidence;
pub use proof::{Anchored, Proof, Trust, Wrong};
pub use prune::{
    Choice, Chosen, Facts, Inscription, Keeps, NotedTombstones, Order, PrunedRun, Pruner, Required, Rule, StandsOn,
    Tidied, Tombstone, TombstoneProof, What, choose,
};
pub use seal::{Seal, SealError, SealKey, fingerprint, trusted_keys};
use sqlite::Sqlite;
pub use transcripts::TranscriptText;
pub use watch::Watch;

use crate::event::{Event, LockChange, Outcome, Record};
use crate::ids::{Actor, LockName, Milestone, RunId, StepId};

/// One run as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// Its id.
    pub run: RunId,
    /// Name of its runbook.
    pub runbook: String,
    /// Version of its runbook.
    pub version: String,
    /// Its site.
    pub site: String,
    /// Who started it.
    pub by: Actor,
    /// When it started.
    pub started_at: Timestamp,
    /// When anything was last recorded.
    pub last_at: Timestamp,
    /// How it ended or why it rests; `None` while it is open.
    pub outcome: Option<Outcome>,
    /// The tombstone behind which it can no longer be read back.
    pub pruned: Option<u64>,
}

impl RunSummary {
    /// The summary of a run that has these records.
    fn of(records: &[Record]) -> Option<Self> {
        let mut summary = records.first().and_then(Self::first)?;
        for record in records {
            summary.follow(record);
        }
        Some(summary)
    }

    /// The summary of a run whose first record this is; `None` for any other record.
    fn first(record: &Record) -> Option<Self> {
        let Event::RunStarted { runbook, version, site, by, .. } = &record.event else { return None };
        Some(Self {
            run: record.run.clone(),
            runbook: runbook.clone(),
            version: version.clone(),
            site: site.clone(),
            by: by.clone(),
            started_at: record.at,
            last_at: record.at,
            outcome: None,
            pruned: None,
        })
    }

    fn follow(&mut self, record: &Record) {
        self.last_at = record.at;
        self.outcome = outcome_after(self.outcome, &record.event);
    }
}

/// The outcome that lists show once `event` is recorded; the same rule as the scheduler's.
fn outcome_after(before: Option<Outcome>, event: &Event) -> Option<Outcome> {
    if let Event::RunFinished { outcome, .. } = event {
        return Some(*outcome);
    }
    let opens = matches!(event, Event::RunResumed { .. } | Event::RollbackRequested { .. })
        || (matches!(event, Event::StepAnswered { .. }) && before == Some(Outcome::Waiting));
    if opens { None } else { before }
}

/// Whether one of `events` can change what lists show of the run.
fn changes_index(events: &[Event]) -> bool {
    events.iter().any(|event| {
        matches!(
            event,
            Event::RunFinished { .. }
                | Event::RunResumed { .. }
                | Event::RollbackRequested { .. }
                | Event::StepAnswered { .. }
        )
    })
}

fn outcome_text(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::RolledBack => "rolled_back",
        Outcome::Stuck => "stuck",
        Outcome::Cancelled => "cancelled",
        Outcome::Waiting => "waiting",
    }
}

fn parse_outcome(text: &str) -> Result<Outcome, serde_json::Error> {
    serde_json::from_value(serde_json::Value::from(text))
}

/// What stands after these ends of runs on one site.
fn milestones_after(ends: Vec<Record>) -> Vec<(Milestone, RunId, Timestamp)> {
    let mut out: Vec<(Milestone, RunId, Timestamp)> = Vec::new();
    let mut displaced: BTreeMap<RunId, Vec<(Milestone, RunId, Timestamp)>> = BTreeMap::new();
    for record in ends {
        let Event::RunFinished { outcome, milestones, revoked, .. } = record.event else { continue };
        let goes = |name: &Milestone| revoked.contains(name) || milestones.contains(name);
        let mine = displaced.entry(record.run.clone()).or_default();
        if outcome == Outcome::RolledBack && !revoked.is_empty() {
            // Only what this run still holds is its to take back.
            out.retain(|(name, run, _)| !(goes(name) && *run == record.run));
            let back = std::mem::take(mine);
            out.extend(back.into_iter().filter(|(name, ..)| milestones_lack(&out, name)).collect::<Vec<_>>());
        } else {
            mine.extend(out.iter().filter(|(name, ..)| goes(name)).cloned());
            out.retain(|(name, ..)| !goes(name));
            out.extend(milestones.into_iter().map(|name| (name, record.run.clone(), record.at)));
        }
    }
    out
}

fn milestones_lack(standing: &[(Milestone, RunId, Timestamp)], name: &Milestone) -> bool {
    standing.iter().all(|(other, ..)| other != name)
}

/// Which runs to list; everything by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Only of this runbook.
    pub runbook: Option<String>,
    /// Only of this site.
    pub site: Option<String>,
    /// Only this run and those that it started, and so on.
    pub family: Option<RunId>,
    /// Only runs that are not over for good, and can still be read back.
    pub open_only: bool,
    /// At most this many, the latest.
    pub limit: Option<u32>,
}

impl RunFilter {
    fn admits(&self, run: &RunSummary) -> bool {
        self.runbook.as_ref().is_none_or(|runbook| *runbook == run.runbook)
            && self.site.as_ref().is_none_or(|site| *site == run.site)
            && self.family.as_ref().is_none_or(|first| run.run.is_of(first))
            && !(self.open_only && (run.outcome.is_some_and(Outcome::is_final) || run.pruned.is_some()))
    }
}

/// What is left of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Left {
    /// Its place.
    pub seq: u64,
    /// When it was made.
    pub at: Timestamp,
    /// Its kind.
    pub kind: String,
    /// Its hash.
    pub hash: String,
    /// All of it, unless its content was pruned.
    pub record: Option<Record>,
}

/// How far a run's journal has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Place of the latest record; 0 for a run that does not exist.
    pub seq: u64,
    /// Generation of the latest lease; 0 before the first.
    pub generation: u64,
}

/// What `append` is to record, and on which condition.
#[derive(Debug, Clone, Copy)]
pub struct Append<'a> {
    /// The run.
    pub run: &'a RunId,
    /// The place of the latest record that the caller knows of; the first event goes behind it.
    pub expected_seq: u64,
    /// The caller's lease; `None` for a person's word from outside a driver.
    pub generation: Option<u64>,
    /// When; kept in whole milliseconds.
    pub at: Timestamp,
    /// The facts, in order. All are recorded or none.
    pub events: &'a [Event],
    /// What commands said that the facts name; what is there already is not stored again.
    pub texts: &'a [TranscriptText],
}

/// A store of journals.
#[derive(Debug, Clone)]
pub enum Journal {
    /// Forgets everything when it is dropped; for tests and rehearsals.
    Memory(Memory),
    /// One SQLite file.
    Sqlite(Sqlite),
    /// A schema in a PostgreSQL database.
    Postgres(Postgres),
}

/// How long work on a server is repeated when the connection is lost; less than a lease lasts.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// A place as it can be shown: without the password of an address.
pub fn shown_place(place: &str) -> String {
    postgres::address::shown(place)
}

impl Journal {
    /// An empty store in memory.
    pub fn memory() -> Self {
        Self::Memory(Memory::default())
    }

    /// Opens the store at `place`: a path, `postgres://...`, or `memory:`. A file that does not exist is made, with its
    /// folder; so is the schema in a database.
    pub async fn open(place: &str) -> Result<Self, JournalError> {
        if place == "memory:" {
            return Ok(Self::memory());
        }
        if postgres::address::is_postgres(place) {
            let patience = crate::config::seconds("PITON_STORE_PATIENCE").unwrap_or(PATIENCE);
            return Ok(Self::Postgres(Postgres::open(place, patience).await?));
        }
        if let Some((scheme, _)) = place.split_once("://") {
            let why = format!("there is no store of the kind `{scheme}`");
            return Err(JournalError::Address { store: shown_place(place), why });
        }
        Ok(Self::Sqlite(Sqlite::open(Path::new(place)).await?))
    }

    /// The same store; what a driver records through it is sealed with `key` from now on.
    #[must_use]
    pub fn with_seals(mut self, key: SealKey) -> Self {
        let sealer = match &mut self {
            Self::Memory(store) => &mut store.sealer,
            Self::Sqlite(store) => &mut store.sealer,
            Self::Postgres(store) => &mut store.sealer,
        };
        *sealer = Some(key);
        self
    }

    /// The public key that seals what a driver records, if one does.
    pub fn sealed_by(&self) -> Option<String> {
        let sealer = match self {
            Self::Memory(store) => &store.sealer,
            Self::Sqlite(store) => &store.sealer,
            Self::Postgres(store) => &store.sealer,
        };
        sealer.as_ref().map(|key| key.public().to_owned())
    }

    /// Records the start of a new run and takes its locks.
    pub async fn create(
        &self,
        run: &RunId,
        at: Timestamp,
        started: &Event,
        locks: &[LockName],
    ) -> Result<Record, AppendError> {
        if !matches!(started, Event::RunStarted { .. }) || run.as_str().contains(char::is_control) {
            return Err(AppendError::NotAStart { run: run.clone() });
        }
        each!(self, store => store.create(run, at, started, locks), store.create(run, at, started, locks))
    }

    /// Records facts, and takes or frees locks with them, in one transaction.
    ///
    /// Recording the same facts at the same place again gives the records that are there already.
    pub async fn append(&self, append: Append<'_>, locks: &LockChange) -> Result<Vec<Record>, AppendError> {
        each!(self, store => store.append(append, locks), store.append(append, locks))
    }

    /// The records of a run from place `from_seq` on; an error if one is missing, was pruned or cannot be read.
    pub async fn read(&self, run: &RunId, from_seq: u64) -> Result<Vec<Record>, JournalError> {
        let rows = self.rows(run, from_seq).await?;
        if rows.is_empty() && self.head(run).await?.seq == 0 {
            return Err(JournalError::UnknownRun(run.to_string()));
        }
        if let Some(row) = rows.iter().find(|row| row.payload.is_empty()) {
            let pruned = self.pruned(run).await?.into_iter().find(|pruned| pruned.what.is_grave());
            let why = || "its content is gone, and no tombstone says why".to_owned();
            return Err(match pruned {
                Some(pruned) => JournalError::Pruned { run: run.clone(), pruned: Box::new(pruned) },
                None => JournalError::Broken { run: run.clone(), seq: row.seq, why: why() },
            });
        }
        chain::records(run, from_seq, rows)
    }

    /// The records that a run still has, and the places of those without content.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub async fn left(&self, run: &RunId) -> Result<Vec<Left>, JournalError> {
        let rows = self.rows(run, 1).await?;
        let left = |row: Row| {
            let at = Timestamp::from_millisecond(row.at_ms).unwrap_or_default();
            let (seq, kind, hash) = (row.seq, row.kind.clone(), row.hash.clone());
            let record = if row.payload.is_empty() { None } else { Some(chain::record(run, row)?) };
            Ok(Left { seq, at, kind, hash, record })
        };
        rows.into_iter().map(left).collect()
    }

    async fn rows(&self, run: &RunId, from_seq: u64) -> Result<Vec<Row>, JournalError> {
        each!(self, store => Ok(store.rows(run, from_seq)), store.rows(run, from_seq))
    }

    /// Everything that is kept of a run, as it was at one moment.
    async fn evidence(&self, run: &RunId) -> Result<Evidence, JournalError> {
        each!(self, store => Ok(store.evidence(run)), store.evidence(run))
    }

    /// What is kept under a digest, right or wrong.
    async fn find_transcript(&self, digest: &str) -> Result<Option<Vec<u8>>, JournalError> {
        each!(self, store => Ok(store.transcript(digest)), store.transcript(digest))
    }

    /// Runs, the latest first.
    pub async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, JournalError> {
        each!(self, store => Ok(store.runs(filter)), store.runs(filter))
    }

    /// The one run whose id is `prefix` or starts with it, or ends with it after the date.
    pub async fn find_run(&self, prefix: &str) -> Result<RunId, JournalError> {
        let mut runs: Vec<RunId> = self.runs(&RunFilter::default()).await?.into_iter().map(|run| run.run).collect();
        if let Some(exact) = runs.iter().find(|run| run.as_str() == prefix) {
            return Ok(exact.clone());
        }
        let behind_date = |run: &RunId| run.as_str().split_once('-').is_some_and(|(_, tail)| tail.starts_with(prefix));
        runs.retain(|run| !prefix.is_empty() && (run.as_str().starts_with(prefix) || behind_date(run)));
        match runs.as_slice() {
            [] => Err(JournalError::UnknownRun(prefix.to_owned())),
            [run] => Ok(run.clone()),
            many => Err(JournalError::Ambiguous { prefix: prefix.to_owned(), runs: many.len() }),
        }
    }

    /// How far a run has come; cheap enough to ask often.
    pub async fn head(&self, run: &RunId) -> Result<Head, JournalError> {
        each!(self, store => Ok(store.head(run)), store.head(run))
    }

    /// Makes `owner` the driver of a run until `now + ttl` and gives the new generation.
    ///
    /// A lease that ran out, or whose process on this host is gone, is taken over. PostgreSQL judges by the server's
    /// clock; a file, which is used from one host, by `now`.
    pub async fn claim(
        &self,
        run: &RunId,
        owner: &Owner,
        now: Timestamp,
        ttl: SignedDuration,
    ) -> Result<u64, LeaseError> {
        let until = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
        match self {
            Self::Memory(store) => store.claim(run, owner, now, until),
            Self::Sqlite(store) => store.claim(run, owner, now, until).await,
            Self::Postgres(store) => store.claim(run, owner, ttl).await,
        }
    }

    /// Keeps a lease until `now + ttl`; refused if another driver has it by now.
    pub async fn renew(
        &self,
        run: &RunId,
        generation: u64,
        now: Timestamp,
        ttl: SignedDuration,
    ) -> Result<(), LeaseError> {
        let until = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
        match self {
            Self::Memory(store) => store.renew(run, generation, until),
            Self::Sqlite(store) => store.renew(run, generation, until).await,
            Self::Postgres(store) => store.renew(run, generation, ttl).await,
        }
    }

    /// Somebody who waits for what others record: people's words, and locks that are freed.
    pub fn watch(&self) -> Watch {
        match self {
            Self::Memory(store) => store.watch(),
            Self::Sqlite(store) => store.watch(),
            Self::Postgres(store) => store.watch(),
        }
    }

    /// Gives a lease back; does nothing if another driver has it by now.
    pub async fn release(&self, run: &RunId, generation: u64) -> Result<(), LeaseError> {
        each!(self, store => { store.release(run, generation); Ok(()) }, store.release(run, generation))
    }

    /// What runs established on a site, the oldest first. A run that was rolled back also gives back what its success
    /// had taken from others.
    pub async fn milestones(&self, site: &str) -> Result<Vec<(Milestone, RunId, Timestamp)>, JournalError> {
        Ok(milestones_after(self.ends(site).await?))
    }

    /// What runs established on a site at any time, by run.
    pub async fn established(&self, site: &str) -> Result<Vec<(RunId, Milestone)>, JournalError> {
        let mut all = Vec::new();
        for record in self.ends(site).await? {
            if let Event::RunFinished { milestones, .. } = record.event {
                all.extend(milestones.into_iter().map(|milestone| (record.run.clone(), milestone)));
            }
        }
        Ok(all)
    }

    /// Every end of every run on a site, in the order of their times; those of pruned runs as tombstones tell them.
    async fn ends(&self, site: &str) -> Result<Vec<Record>, JournalError> {
        let mut ends = each!(self, store => store.ends(site), store.ends(site))?;
        let graves = each!(self, store => Ok(store.graves_with_ends(site)), store.graves_with_ends(site))?;
        let before = ends.len();
        for grave in graves.iter().filter_map(|stone| stone.read().ok()) {
            ends.extend(grave.end_records());
        }
        if ends.len() > before {
            ends.sort_by(|a, b| (a.at, &a.run, a.seq).cmp(&(b.at, &b.run, b.seq)));
        }
        Ok(ends)
    }

    /// Every lock that is held, who waits, and which of those runs have a driver.
    pub async fn locks(&self) -> Result<LockTable, JournalError> {
        match self {
            Self::Memory(store) => Ok(store.locks(crate::config::now())),
            Self::Sqlite(store) => store.locks(crate::config::now()).await,
            Self::Postgres(store) => store.locks().await,
        }
    }

    /// Takes all locks that a step needs, or puts it in line for them.
    pub async fn ask_locks(&self, ask: LockAsk<'_>) -> Result<LockAnswer, AppendError> {
        each!(self, store => store.ask_locks(ask), store.ask_locks(ask))
    }

    /// Takes a step out of line.
    pub async fn stop_waiting(&self, run: &RunId, step: &StepId) -> Result<(), JournalError> {
        each!(self, store => { store.stop_waiting(run, step); Ok(()) }, store.stop_waiting(run, step))
    }
}

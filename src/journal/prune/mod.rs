//! Pruning: takes away of runs that are over what nobody may keep, and leaves a tombstone that says so.
//!
//! Owned here: what goes and what stays of a run, its tombstone, and that a family of runs goes as a whole. Refused: a run that
//! went on meanwhile, that a driver has, that holds a lock. Which runs may go is chosen in `choose`; that they are as they were
//! recorded is proved before by who asks. Called by `piton audit prune`. `docs/design/retention.md`.

mod bury;
mod choose;
mod judge;
mod tombstone;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

pub(super) use bury::{Burial, Named, stones_of};
pub use bury::{Order, Pruner};
pub use choose::{Choice, Chosen, Facts, Keeps, Required, Rule, choose};
pub(super) use judge::{Stones, judge_bare_anchor, judge_bare_seals};
pub(super) use tombstone::HAS_ENDS;
pub use tombstone::{Inscription, NotedTombstones, StandsOn, Tombstone, TombstoneProof, What};
#[cfg(test)]
pub(super) use tombstone::{judge_all, make as make_stone};

use super::chain::{self, NAMES_EVIDENCE, NAMES_TEXTS, Row};
use super::{Journal, JournalError};
use crate::ids::{Actor, RunId};

/// What was pruned of a run, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrunedRun {
    /// Number of the tombstone.
    pub tombstone: u64,
    /// What went.
    pub what: What,
    /// Of `contents`, of which kinds of records; of all if there are none. None where the tombstone does not say.
    #[serde(skip)]
    pub kinds: Option<Vec<String>>,
    /// Up to which record.
    pub until: u64,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: Actor,
    /// Why.
    pub reason: String,
}

impl From<&Inscription> for PrunedRun {
    fn from(text: &Inscription) -> Self {
        Self {
            tombstone: text.number,
            what: text.what,
            kinds: text.kinds_emptied(),
            until: text.head.seq,
            at: text.at,
            by: text.by.clone(),
            reason: text.reason.clone(),
        }
    }
}

impl std::fmt::Display for PrunedRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tombstone, what, at, by, reason, .. } = self;
        write!(f, "{} by {by} at {at}: {reason} (tombstone {tombstone})", what.went())
    }
}

/// What became of the bytes that were pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tidied {
    /// No byte of them is in the store any more.
    Gone,
    /// They were overwritten where they lay; fragments may be left elsewhere in the file.
    Fragments,
    /// Another process reads or writes the file, so its log or its pages still hold some.
    Busy,
    /// A driver is at work, and the file is too large to be rewritten meanwhile.
    Driven,
    /// It is up to the server.
    Server,
}

impl Journal {
    /// Every tombstone of the store, in the order of their numbers.
    pub async fn tombstones(&self) -> Result<Vec<Tombstone>, JournalError> {
        each!(self, store => Ok(store.tombstones(None)), store.tombstones(None))
    }

    /// The tombstones of a run, in the order of their numbers.
    pub async fn tombstones_of(&self, run: &RunId) -> Result<Vec<Tombstone>, JournalError> {
        each!(self, store => Ok(store.tombstones(Some(run))), store.tombstones(Some(run)))
    }

    /// The tombstones of each run, as they say of themselves.
    pub(super) async fn stones(&self) -> Result<BTreeMap<RunId, Stones>, JournalError> {
        self.stones_of_runs(Stones::read).await
    }

    async fn stones_of_runs(
        &self,
        read: impl Fn(&[Tombstone]) -> Stones,
    ) -> Result<BTreeMap<RunId, Stones>, JournalError> {
        let mut of_run: BTreeMap<RunId, Vec<Tombstone>> = BTreeMap::new();
        for stone in self.tombstones().await? {
            of_run.entry(stone.run.clone()).or_default().push(stone);
        }
        Ok(of_run.into_iter().map(|(run, stones)| (run, read(&stones))).collect())
    }

    /// What was pruned of a run by what its tombstones say of themselves, the latest first.
    pub async fn pruned(&self, run: &RunId) -> Result<Vec<PrunedRun>, JournalError> {
        Ok(Stones::read(&self.tombstones_of(run).await?).told())
    }

    /// The latest tombstone behind which a run can no longer be read back.
    pub async fn grave(&self, run: &RunId) -> Result<Option<Inscription>, JournalError> {
        Ok(Stones::read(&self.tombstones_of(run).await?).grave().cloned())
    }

    /// The latest tombstone of each run that can no longer be read back.
    pub async fn graves(&self) -> Result<BTreeMap<RunId, Inscription>, JournalError> {
        let stones = self.stones().await?;
        Ok(stones.into_iter().filter_map(|(run, stones)| Some((run, stones.grave()?.clone()))).collect())
    }

    /// Judges all tombstones of the store as a chain; `keys`: keys that alone may sign, or any.
    pub async fn prove_tombstones(
        &self,
        keys: &[String],
        noted: &[NotedTombstones],
    ) -> Result<TombstoneProof, JournalError> {
        Ok(tombstone::judge_all(&self.tombstones().await?, keys, noted))
    }

    /// Which runs name which texts that could go, and how far all runs have come at that moment.
    pub(super) async fn names_of_texts(&self, runs: &BTreeSet<RunId>) -> Result<Named, JournalError> {
        let stones = self.stones().await?;
        let mut named = Named::default();
        let all = self.heads_of_all().await?;
        let (first, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(run, _)| runs.contains(run));
        for (run, seq) in first.into_iter().chain(others) {
            let taken = stones.get(&run).and_then(|stones| stones.texts_taken(1)).map_or(0, |text| text.head.seq);
            let candidate = runs.contains(&run);
            for digest in bury::texts_named(&run, &self.rows_holding(&run, taken + 1, NAMES_TEXTS).await?)? {
                if candidate || named.by_digest.contains_key(&digest) {
                    named.by_digest.entry(digest).or_default().insert(run.clone());
                }
            }
            named.heads.insert(run, seq);
        }
        Ok(named)
    }

    /// What was pruned of each run by what tombstones say of themselves, the latest first.
    pub async fn pruned_runs(&self) -> Result<BTreeMap<RunId, Vec<PrunedRun>>, JournalError> {
        Ok(self.stones().await?.into_iter().map(|(run, stones)| (run, stones.told())).collect())
    }

    /// The place of the latest record of each run.
    pub async fn heads(&self) -> Result<BTreeMap<RunId, u64>, JournalError> {
        Ok(self.heads_of_all().await?.into_iter().collect())
    }

    /// Of these files of evidence, by their SHA-256, those that a tombstone names and that no run still has; `keys`: keys that alone
    /// may sign, or any. A tombstone that does not hold names nothing.
    pub async fn evidence_gone(
        &self,
        there: &BTreeSet<String>,
        keys: &[String],
    ) -> Result<BTreeSet<String>, JournalError> {
        let stones = self.stones_of_runs(|stones| Stones::judged(stones, keys)).await?;
        let named = stones.values().flat_map(Stones::evidence);
        let mut gone: BTreeSet<String> = named.filter(|hash| there.contains(*hash)).cloned().collect();
        if gone.is_empty() {
            return Ok(gone);
        }
        for (run, _) in self.heads_of_all().await? {
            let taken = stones.get(&run).map_or(0, Stones::evidence_taken);
            for row in self.rows_holding(&run, taken + 1, NAMES_EVIDENCE).await? {
                for hash in bury::evidence_of(&chain::event(&run, &row)?) {
                    gone.remove(hash);
                }
            }
        }
        Ok(gone)
    }

    async fn heads_of_all(&self) -> Result<Vec<(RunId, u64)>, JournalError> {
        each!(self, store => Ok(store.heads_of_all()), store.heads_of_all())
    }

    async fn rows_holding(&self, run: &RunId, from_seq: u64, part: &str) -> Result<Vec<Row>, JournalError> {
        each!(self, store => Ok(store.rows_holding(run, from_seq, part)), store.rows_holding(run, from_seq, part))
    }

    /// Prunes the runs of each family as a whole, one family after the other; gives their tombstones, or why a family stays as it is.
    ///
    /// # Errors
    /// When the store fails. Families that were pruned before that stay pruned.
    pub async fn prune(
        &self,
        families: &[Vec<Order>],
        pruner: &Pruner<'_>,
    ) -> Result<Vec<Result<Vec<Tombstone>, String>>, JournalError> {
        if families.is_empty() {
            return Ok(Vec::new());
        }
        let takes_texts = |order: &&Order| order.what.takes_texts();
        let runs = families.iter().flatten().filter(takes_texts).map(|order| order.run.clone()).collect();
        let mut named = self.names_of_texts(&runs).await?;
        let mut done = Vec::with_capacity(families.len());
        for family in families {
            done.push(self.prune_family(family, pruner, &mut named).await?);
        }
        Ok(done)
    }

    /// Sees to it that what was pruned is nowhere in the store any more, and gives its room back; with `rewrite` wholly.
    pub async fn tidy(&self, rewrite: bool) -> Result<Tidied, JournalError> {
        match self {
            Self::Memory(_) => Ok(Tidied::Gone),
            Self::Sqlite(store) => store.tidy(rewrite, !self.locks().await?.driven_until.is_empty()).await,
            Self::Postgres(store) => store.tidy(rewrite).await,
        }
    }
}

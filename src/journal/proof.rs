//! Proof: whether what is known of a run is what was recorded, judged from records, seals and anchors alone.
//!
//! Names what is wrong and where; of records that no seal covers yet it says so. It cannot see what was taken away
//! together with everything that names it: for that there are anchors. Called by `piton audit verify`, over a store or over
//! an exported bundle. `docs/design/seals.md` lists what is found and what is not.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::chain::{self, Row};
use super::prune::{Inscription, PrunedRun, Stones, Tombstone, What, judge_bare_anchor, judge_bare_seals};
use super::seal::{EVERY, Seal, fingerprint};
use super::{Journal, JournalError, RunSummary, transcripts};
use crate::event::Event;
use crate::ids::RunId;

/// Everything that a store keeps of one run, but what its commands said: as it was at one moment.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// Its records, in order.
    pub(super) rows: Vec<Row>,
    /// Its seals, in order.
    pub(super) seals: Vec<Seal>,
    /// Its line in the list of runs.
    pub(super) listed: Option<RunSummary>,
    /// Its tombstones, in order.
    pub(super) stones: Vec<Tombstone>,
    /// The record that the anchor beside the file noted, if it is not among them.
    pub(super) lost: Option<u64>,
}

/// How far a run had come, noted outside of its store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchored {
    /// The run.
    pub run: RunId,
    /// Place of the record.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// Its time, in milliseconds since 1970.
    pub at_ms: i64,
}

/// Something that is not as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    /// The record; none when it is about the run as a whole.
    pub seq: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.seq {
            Some(seq) => write!(f, "record {seq}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// What is proved of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// The run.
    pub run: RunId,
    /// Records that are there.
    pub records: u64,
    /// Hash of the latest one.
    pub hash: String,
    /// Place up to which seals that hold cover the records; 0 without any.
    pub sealed: u64,
    /// The keys that sealed, as `SHA256:...`.
    pub keys: BTreeSet<String>,
    /// What was pruned, the latest first.
    pub pruned: Vec<PrunedRun>,
    /// Anchors of records of which nothing stayed that they could be compared with.
    pub uncompared: u64,
    /// What is wrong, the first record first.
    pub wrong: Vec<Wrong>,
}

/// What a proof is judged by.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trust<'a> {
    /// Public keys that may seal; with none, any key that the run itself names.
    pub keys: &'a [String],
    /// What was noted elsewhere.
    pub anchors: &'a [Anchored],
}

impl Proof {
    fn of(run: &RunId) -> Self {
        let (hash, keys) = (chain::FIRST.to_owned(), BTreeSet::new());
        Self {
            run: run.clone(),
            records: 0,
            hash,
            sealed: 0,
            keys,
            pruned: Vec::new(),
            uncompared: 0,
            wrong: Vec::new(),
        }
    }

    /// Adds something that is wrong.
    pub fn add(&mut self, seq: impl Into<Option<u64>>, what: impl Into<String>) {
        self.wrong.push(Wrong { seq: seq.into(), what: what.into() });
    }

    /// Whether the run can no longer be read back, because its contents were pruned.
    pub fn is_grave(&self) -> bool {
        self.pruned.iter().any(|pruned| pruned.what.is_grave())
    }

    /// Whether everything is as it was recorded.
    pub fn holds(&self) -> bool {
        self.wrong.is_empty()
    }
}

/// Judges the records and seals of one run, with what its tombstones say of it.
pub(super) fn judge(run: &RunId, rows: &[Row], seals: &[Seal], stones: &Stones, trust: Trust<'_>) -> Proof {
    let mut proof = Proof::of(run);
    proof.records = rows.len() as u64;
    if let Some(last) = rows.last() {
        proof.hash.clone_from(&last.hash);
    }
    stones.tell(&mut proof);
    let grave = stones.grave();
    let bare = grave.filter(|grave| grave.what == What::Run);
    let from = bare.map_or(1, |grave| grave.head.seq);
    let pruned = chain::Pruned { from, until: grave.map_or(0, |grave| grave.head.seq) };
    if let Err((seq, why)) = chain::verify(run, rows, pruned) {
        proof.add(seq, why);
    } else {
        let keys = Keys::of(run, rows, grave);
        keys.judge_seals(run, rows, seals, &mut proof);
        keys.judge_gaps(seals, &mut proof);
        keys.judge_trust(seals, trust.keys, &mut proof);
    }
    if let Some(grave) = bare {
        judge_bare_seals(run, grave, rows, seals, &mut proof);
    }
    stones.judge_left(rows, seals, &mut proof);
    judge_ends(rows, seals, &mut proof);
    judge_anchors(run, rows, (bare, seals), trust.anchors, &mut proof);
    proof.wrong.sort_by_key(|wrong| wrong.seq.unwrap_or(u64::MAX));
    proof
}

/// Which key the run says seals it, from which record on.
pub(super) fn key_spans(run: &RunId, rows: &[Row], grave: Option<&Inscription>) -> Vec<(u64, Option<String>)> {
    Keys::of(run, rows, grave).spans
}

/// Which key the records say seals them.
struct Keys {
    /// From which record on, and which; none where sealing is off.
    spans: Vec<(u64, Option<String>)>,
    /// Records whose append is sealed, and the last record that can be of the same append.
    due: Vec<(u64, u64)>,
}

impl Keys {
    fn of(run: &RunId, rows: &[Row], grave: Option<&Inscription>) -> Self {
        // Of records without payload, their tombstone tells.
        let mut keys = Self { spans: grave.map(|grave| grave.keys.clone()).unwrap_or_default(), due: Vec::new() };
        let told = grave.map_or(0, |grave| grave.head.seq);
        for (place, row) in rows.iter().enumerate() {
            let names_key =
                row.seq > told && matches!(row.kind.as_str(), "run_started" | "run_resumed" | "rollback_requested");
            if names_key
                && let Ok(
                    Event::RunStarted { sealed_by, .. }
                    | Event::RunResumed { sealed_by, .. }
                    | Event::RollbackRequested { sealed_by, .. },
                ) = chain::event(run, row)
            {
                keys.spans.push((row.seq, sealed_by));
            }
            let is_due = row.kind == "run_finished" || row.seq.is_multiple_of(EVERY);
            if is_due && row.generation > 0 && keys.at(row.seq).is_some() {
                // One append has one time, and is sealed at its end.
                let same = rows[place..]
                    .iter()
                    .take_while(|next| (next.at_ms, next.generation) == (row.at_ms, row.generation));
                keys.due.push((row.seq, same.last().map_or(row.seq, |last| last.seq)));
            }
        }
        keys
    }

    /// The key that seals record `seq`.
    fn at(&self, seq: u64) -> Option<&str> {
        let behind = self.spans.partition_point(|(from, _)| *from <= seq);
        self.spans[..behind].last().and_then(|(_, key)| key.as_deref())
    }

    fn judge_seals(&self, run: &RunId, rows: &[Row], seals: &[Seal], proof: &mut Proof) {
        for seal in seals {
            let Some(row) = find(rows, seal.seq) else { continue };
            let whose = fingerprint(&seal.key);
            if row.hash != seal.hash {
                proof.add(seal.seq, "it is not the record that was sealed");
            } else if !seal.is_good(run) {
                proof.add(seal.seq, format!("its seal does not hold: {whose} did not sign it"));
            } else if row.at_ms != seal.at_ms {
                proof.add(seal.seq, "its seal is of another time");
            } else if self.at(seal.seq) != Some(seal.key.as_str()) {
                proof.add(seal.seq, format!("it is sealed by {whose}, which is not the key that the run names"));
            } else {
                proof.sealed = proof.sealed.max(seal.seq);
                proof.keys.insert(whose);
            }
        }
    }

    /// Records that were sealed when they were made and are not any more.
    fn judge_gaps(&self, seals: &[Seal], proof: &mut Proof) {
        for (due, until) in &self.due {
            if !seals.iter().any(|seal| (*due..=*until).contains(&seal.seq)) {
                proof.add(*due, "its seal is missing: it was taken away, or who recorded this did not have the key");
            }
        }
    }

    fn judge_trust(&self, seals: &[Seal], trusted: &[String], proof: &mut Proof) {
        if trusted.is_empty() {
            return;
        }
        for seal in seals.iter().filter(|seal| !trusted.contains(&seal.key)) {
            proof.add(
                seal.seq,
                format!("it is sealed by {}, which is not a key that you trust", fingerprint(&seal.key)),
            );
        }
        for (seq, key) in &self.spans {
            match key {
                None => proof.add(*seq, "from here on the run says that nothing seals it"),
                Some(key) if !trusted.contains(key) => {
                    proof.add(*seq, format!("it names {} to seal it, which you do not trust", fingerprint(key)));
                }
                Some(_) => {}
            }
        }
    }
}

fn find(rows: &[Row], seq: u64) -> Option<&Row> {
    rows.get(rows.partition_point(|row| row.seq < seq)).filter(|row| row.seq == seq)
}

/// Seals of records that are not there.
fn judge_ends(rows: &[Row], seals: &[Seal], proof: &mut Proof) {
    let last = rows.last().map_or(0, |row| row.seq);
    if let Some(seal) = seals.iter().filter(|seal| seal.seq > last).max_by_key(|seal| seal.seq) {
        proof.add(last + 1, format!("it is missing: there is a seal of record {}, so the end was cut off", seal.seq));
    }
}

fn judge_anchors(
    run: &RunId,
    rows: &[Row],
    (bare, seals): (Option<&Inscription>, &[Seal]),
    anchors: &[Anchored],
    proof: &mut Proof,
) {
    let last = rows.last().map_or(0, |row| row.seq);
    let mut missing = 0;
    for anchor in anchors.iter().filter(|anchor| anchor.run == *run) {
        match find(rows, anchor.seq) {
            Some(row) if row.hash == anchor.hash => {}
            Some(_) => proof.add(anchor.seq, "it is not the record whose hash was noted elsewhere"),
            None if bare.is_some_and(|grave| anchor.seq < grave.head.seq) => judge_bare_anchor(anchor, seals, proof),
            None => missing = missing.max(anchor.seq),
        }
    }
    if missing > 0 {
        let what = format!(
            "it is missing: record {missing} was noted elsewhere, so the end was cut off or an older copy was put back"
        );
        proof.add(last + 1, what);
    }
}

impl Journal {
    /// Judges everything that this store keeps of a run: records, seals, what commands said, and its line in the list of runs.
    pub async fn prove(&self, run: &RunId, trust: Trust<'_>) -> Result<Proof, JournalError> {
        Ok(self.proved(run, trust).await?.0)
    }

    /// The proof, and what it is of.
    pub(super) async fn proved(&self, run: &RunId, trust: Trust<'_>) -> Result<(Proof, Evidence), JournalError> {
        let found = self.evidence(run).await?;
        let is_anchored = trust.anchors.iter().any(|anchor| anchor.run == *run);
        let is_noted = found.lost.is_some() || is_anchored || !found.stones.is_empty();
        if found.rows.is_empty() && found.seals.is_empty() && !is_noted {
            return Err(JournalError::UnknownRun(run.to_string()));
        }
        let stones = Stones::judged(&found.stones, trust.keys);
        let mut proof = judge(run, &found.rows, &found.seals, &stones, trust);
        if let Some(known) = found.lost {
            judge_lost(&found.rows, known, &mut proof);
        }
        if proof.holds() {
            if let Some((seq, why)) = transcripts::first_bad(self, run, &found.rows, &stones).await? {
                proof.add(seq, why);
            }
            judge_list(run, &found, &stones, &mut proof)?;
        }
        Ok((proof, found))
    }

    /// How far a run has come, as an anchor notes it.
    pub async fn anchored(&self, run: &RunId) -> Result<Anchored, JournalError> {
        let head = self.head(run).await?;
        let unknown = || JournalError::UnknownRun(run.to_string());
        let last = self.rows(run, head.seq).await?.pop().ok_or_else(unknown)?;
        Ok(Anchored { run: run.clone(), seq: last.seq, hash: last.hash, at_ms: last.at_ms })
    }
}

fn judge_lost(rows: &[Row], known: u64, proof: &mut Proof) {
    match find(rows, known) {
        Some(_) => proof.add(known, "it is not the record that the anchor beside the file noted"),
        None => proof.add(
            rows.len() as u64 + 1,
            format!("it is missing: the anchor beside the file noted record {known}, so the end was lost or cut off"),
        ),
    }
}

/// The list of runs is not part of the chain; it must say what the records say, or the tombstone.
fn judge_list(run: &RunId, found: &Evidence, stones: &Stones, proof: &mut Proof) -> Result<(), JournalError> {
    let told = match stones.grave() {
        Some(grave) => Some(grave.summary.listed(run, grave.number)),
        None => RunSummary::of(&chain::records(run, 1, found.rows.clone())?),
    };
    if found.listed != told {
        proof.add(None, "the list of runs does not say what its records say");
    }
    Ok(())
}

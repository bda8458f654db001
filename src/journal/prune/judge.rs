//! Whether a run that was pruned is what its tombstones left: judged from records, seals and tombstones alone.
//!
//! What is missing counts as pruned only under a tombstone that holds. Called by `proof`, over a store or over a bundle.

use std::fmt::Write as _;

use super::PrunedRun;
use super::tombstone::{Dropped, Inscription, Tombstone, What};
use crate::ids::RunId;
use crate::journal::chain::Row;
use crate::journal::proof::{Anchored, Proof};
use crate::journal::seal::{Seal, fingerprint};
use crate::plan::sha256_hex;

/// The tombstones of one run that hold, and what is wrong with the others.
#[derive(Debug, Default)]
pub(in crate::journal) struct Stones {
    good: Vec<Inscription>,
    wrong: Vec<String>,
}

/// SHA-256 over a line for each record without payload: `seq at_ms generation kind hash`; none where all have theirs.
pub(super) fn dropped(rows: &[Row], records: u64) -> Option<Dropped> {
    let mut lines = String::new();
    for Row { seq, at_ms, generation, kind, hash, .. } in rows.iter().filter(|row| row.payload.is_empty()) {
        writeln!(lines, "{seq} {at_ms} {generation} {kind} {hash}").expect("a string takes any text");
    }
    (!lines.is_empty()).then(|| Dropped { records, hash: sha256_hex(lines.as_bytes()) })
}

impl Stones {
    /// Judges the tombstones of a run.
    pub(in crate::journal) fn judged(stones: &[Tombstone], trusted: &[String]) -> Self {
        let mut judged = Self::default();
        for stone in stones {
            match stone.judged(trusted) {
                Ok(text) => judged.good.push(text),
                Err(why) => judged.wrong.push(format!("tombstone {}: {why}", stone.number)),
            }
        }
        judged
    }

    /// As it says of itself, right or wrong: for what need not be proved.
    pub(in crate::journal) fn read(stones: &[Tombstone]) -> Self {
        Self { good: stones.iter().filter_map(|stone| stone.read().ok()).collect(), wrong: Vec::new() }
    }

    /// The latest tombstone behind which the run cannot be read back.
    pub(in crate::journal) fn grave(&self) -> Option<&Inscription> {
        self.good.iter().rev().find(|text| text.what.is_grave())
    }

    /// The latest one that took away what commands said up to record `seq` at least.
    pub(in crate::journal) fn texts_taken(&self, seq: u64) -> Option<&Inscription> {
        self.good.iter().rev().find(|text| text.what.takes_texts() && text.head.seq >= seq)
    }

    /// Up to which record evidence was taken away.
    pub(super) fn evidence_taken(&self) -> u64 {
        let takes = |text: &&Inscription| text.what != What::Transcripts;
        self.good.iter().filter(takes).map(|text| text.head.seq).max().unwrap_or(0)
    }

    /// The files of evidence that were taken away.
    pub(super) fn evidence(&self) -> impl Iterator<Item = &String> {
        self.good.iter().flat_map(|text| &text.evidence)
    }

    /// What was pruned, for people; the latest first.
    pub(in crate::journal) fn told(&self) -> Vec<PrunedRun> {
        self.good.iter().rev().map(PrunedRun::from).collect()
    }

    /// Adds what is wrong with tombstones themselves, and what was pruned.
    pub(in crate::journal) fn tell(&self, proof: &mut Proof) {
        for what in &self.wrong {
            proof.add(None, what.clone());
        }
        proof.pruned = self.told();
    }

    /// Whether the run is what is left of it.
    pub(in crate::journal) fn judge_left(&self, rows: &[Row], seals: &[Seal], proof: &mut Proof) {
        if let (true, Some(Inscription { number, head, .. })) = (rows.is_empty(), self.good.last()) {
            proof.add(None, format!("the run is gone although tombstone {number} left record {}", head.seq));
            return;
        }
        self.judge_heads(rows, proof);
        let Some(grave) = self.grave() else { return };
        let number = grave.number;
        let empty = rows.iter().filter(|row| row.payload.is_empty()).count() as u64;
        let gone = if grave.what == What::Run { grave.records.saturating_sub(1) } else { 0 };
        if grave.dropped != dropped(rows, gone + empty) {
            proof.add(None, format!("what is left of its records is not what tombstone {number} left"));
        }
        let last = rows.iter().rfind(|row| row.seq <= grave.head.seq);
        let is_head = |row: &Row| {
            let head = &grave.head;
            (row.seq, row.at_ms, row.generation, &row.kind, &row.hash)
                == (head.seq, head.at_ms, head.generation, &head.kind, &head.hash)
        };
        if !last.is_some_and(is_head) {
            proof.add(grave.head.seq, format!("it is not the latest record that tombstone {number} left"));
        }
        for row in rows {
            if row.seq > grave.head.seq {
                proof.add(row.seq, format!("it was recorded although tombstone {number} had pruned the run"));
            } else if grave.what == What::Run && row.seq < grave.head.seq {
                proof.add(row.seq, format!("it is there although tombstone {number} left the latest record only"));
            }
        }
        if seals.len() as u64 != grave.seals {
            let (there, then) = (seals.len(), grave.seals);
            proof.add(None, format!("it has {there} seals, and tombstone {number} left {then}"));
        }
    }
}

impl Stones {
    /// Whether the records are there that tombstones left as the latest of a run which can be read back.
    fn judge_heads(&self, rows: &[Row], proof: &mut Proof) {
        let gone = self.good.iter().filter(|text| text.what == What::Run).map(|text| text.head.seq).max().unwrap_or(0);
        for Inscription { number, head, .. } in self.good.iter().filter(|text| !text.what.is_grave()) {
            let is_there = || rows.iter().any(|row| (row.seq, &row.hash) == (head.seq, &head.hash));
            if head.seq >= gone && !is_there() {
                proof.add(head.seq, format!("it is not the record that tombstone {number} left"));
            }
        }
    }
}

/// The seals of records of which not even the hash stayed.
pub(in crate::journal) fn judge_bare_seals(
    run: &RunId,
    grave: &Inscription,
    rows: &[Row],
    seals: &[Seal],
    proof: &mut Proof,
) {
    let key_at = |seq: u64| {
        let behind = grave.keys.partition_point(|(from, _)| *from <= seq);
        grave.keys[..behind].last().and_then(|(_, key)| key.as_deref())
    };
    let first = rows.first().map_or(u64::MAX, |row| row.seq);
    for seal in seals.iter().filter(|seal| seal.seq < first) {
        let whose = fingerprint(&seal.key);
        if !seal.is_good(run) {
            proof.add(seal.seq, format!("its seal does not hold: {whose} did not sign it"));
        } else if key_at(seal.seq) != Some(seal.key.as_str()) {
            proof.add(seal.seq, format!("it is sealed by {whose}, which is not the key that the run named"));
        } else {
            proof.keys.insert(whose);
        }
    }
}

/// An anchor of a record of which not even the hash stayed: compared with its seal, or counted.
pub(in crate::journal) fn judge_bare_anchor(anchor: &Anchored, seals: &[Seal], proof: &mut Proof) {
    match seals.iter().find(|seal| seal.seq == anchor.seq) {
        Some(seal) if seal.hash == anchor.hash => {}
        Some(_) => proof.add(anchor.seq, "its seal is not of the record whose hash was noted elsewhere"),
        None => proof.uncompared += 1,
    }
}

//! Pruning in memory: the same rules as on disk.

use super::{Memory, Shared};
use crate::ids::RunId;
use crate::journal::JournalError;
use crate::journal::chain::{NAMES_TEXTS, Row};
use crate::journal::prune::{Burial, HAS_ENDS, Named, Tombstone, What, stones_of};
use crate::journal::seal::SealKey;

impl Memory {
    /// The tombstones of a run, or all.
    pub(in crate::journal) fn tombstones(&self, run: Option<&RunId>) -> Vec<Tombstone> {
        let shared = self.lock();
        shared.stones.iter().filter(|stone| run.is_none_or(|run| stone.run == *run)).cloned().collect()
    }

    /// The latest tombstones of runs on a site whose ends only they tell.
    pub(in crate::journal) fn graves_with_ends(&self, site: &str) -> Vec<Tombstone> {
        let shared = self.lock();
        let of_site = |stone: &&Tombstone| {
            let listed = shared.runs.get(&stone.run).filter(|listed| listed.site == site);
            listed.is_some_and(|listed| listed.pruned == Some(stone.number)) && stone.body.contains(HAS_ENDS)
        };
        shared.stones.iter().filter(of_site).cloned().collect()
    }

    pub(in crate::journal) fn heads_of_all(&self) -> Vec<(RunId, u64)> {
        self.lock().heads()
    }

    pub(in crate::journal) fn rows_holding(&self, run: &RunId, from_seq: u64, part: &str) -> Vec<Row> {
        self.lock().rows_holding(run, from_seq, part)
    }

    /// Carries out what was computed, or says why not.
    pub(in crate::journal) fn bury(
        &self,
        burials: &[Burial],
        named: &mut Named,
        key: &SealKey,
    ) -> Result<Result<Vec<Tombstone>, String>, JournalError> {
        let mut shared = self.lock();
        for burial in burials {
            let head = shared.rows.get(&burial.run).and_then(|rows| rows.last());
            if !head.is_some_and(|head| burial.is_of(head.seq, &head.hash)) {
                return Ok(Err(burial.moved_on()));
            }
            if shared.leases.get(&burial.run).is_none_or(|lease| lease.generation != burial.generation) {
                return Ok(Err(burial.taken_over()));
            }
        }
        for (run, from, seq) in named.news(shared.heads()) {
            named.add(&run, seq, &shared.rows_holding(&run, from, NAMES_TEXTS))?;
        }
        let stones = stones_of(burials, shared.stones.last(), key)?;
        for digest in named.going(burials) {
            shared.transcripts.remove(&digest);
        }
        for (burial, stone) in burials.iter().zip(&stones) {
            let rows = shared.rows.entry(burial.run.clone()).or_default();
            if burial.what == What::Run {
                rows.drain(..rows.len() - 1);
            }
            rows.iter_mut().filter(|row| burial.empties(&row.kind)).for_each(|row| row.payload.clear());
            if let Some(listed) = shared.runs.get_mut(&burial.run).filter(|_| burial.what.is_grave()) {
                listed.pruned = Some(stone.number);
            }
        }
        shared.stones.extend(stones.iter().cloned());
        Ok(Ok(stones))
    }
}

impl Shared {
    fn heads(&self) -> Vec<(RunId, u64)> {
        let head = |(run, rows): (&RunId, &Vec<Row>)| Some((run.clone(), rows.last()?.seq));
        self.rows.iter().filter_map(head).collect()
    }

    fn rows_holding(&self, run: &RunId, from_seq: u64, part: &str) -> Vec<Row> {
        let rows = self.rows.get(run).map(Vec::as_slice).unwrap_or_default();
        rows.iter().filter(|row| row.seq >= from_seq && row.payload.contains(part)).cloned().collect()
    }
}

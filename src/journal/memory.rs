//! A store in memory: the same rules, the same hash chain, nothing on disk.

mod prune;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::chain::{self, FIRST, Row};
use super::lease::{Lease, LeaseError, Owner};
use super::locks::{HeldLock, LockAnswer, LockAsk, LockTable, LockWaiter};
use super::proof::Evidence;
use super::prune::Tombstone;
use super::seal::{self, Seal, SealKey};
use super::watch::{Bell, Watch};
use super::{Append, AppendError, Head, JournalError, RunFilter, RunSummary};
use crate::event::{Event, LockChange, Record};
use crate::ids::{LockName, RunId, StepId};

/// Journals in memory; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    shared: Arc<Mutex<Shared>>,
    bell: Bell,
    pub(super) sealer: Option<SealKey>,
}

#[derive(Debug, Default)]
struct Shared {
    rows: BTreeMap<RunId, Vec<Row>>,
    runs: BTreeMap<RunId, RunSummary>,
    leases: BTreeMap<RunId, Lease>,
    locks: LockTable,
    /// What commands said, by digest.
    transcripts: BTreeMap<String, Vec<u8>>,
    seals: BTreeMap<RunId, Vec<Seal>>,
    stones: Vec<Tombstone>,
    /// Times that each lock was taken.
    fences: BTreeMap<LockName, u64>,
}

impl Shared {
    /// Looks again at which runs have a driver.
    fn table(&mut self, now: Timestamp) -> &LockTable {
        let lasts = |(run, lease): (&RunId, &Lease)| {
            (lease.owner.is_some() && lease.until > now).then(|| (run.clone(), lease.until))
        };
        self.locks.driven_until = self.leases.iter().filter_map(lasts).collect();
        &self.locks
    }

    fn check_locks(&mut self, run: &RunId, now: Timestamp, locks: &LockChange) -> Result<(), AppendError> {
        for guard in &locks.guard {
            let held = |held: &&HeldLock| held.run == *run && held.step.as_ref() == Some(&guard.step);
            if (self.locks.held.iter().filter(held).count() as u64) < guard.locks {
                return Err(AppendError::LockLost { step: guard.step.clone() });
            }
        }
        match self.table(now).held_by_others(run, &locks.take) {
            Some((lock, by_run)) => Err(AppendError::LockHeld { lock, by_run }),
            None => Ok(()),
        }
    }

    fn take(&mut self, lock: &LockName, run: &RunId, step: Option<&StepId>, since: Timestamp) {
        let fence = self.fences.entry(lock.clone()).or_default();
        *fence += 1;
        let (name, run, step, stays) = (lock.clone(), run.clone(), step.cloned(), step.is_none());
        self.locks.held.retain(|held| held.name != name);
        self.locks.held.push(HeldLock { name, run, step, since, fence: *fence, stays });
        self.locks.held.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Does what was checked.
    fn change_locks(&mut self, run: &RunId, at: Timestamp, locks: &LockChange) {
        if locks.free_all {
            self.locks.held.retain(|held| held.run != *run || held.step.is_some());
            self.locks.waiting.retain(|waiter| waiter.run != *run);
        }
        let freed =
            |held: &HeldLock| held.run == *run && held.step.as_ref().is_some_and(|step| locks.free.contains(step));
        self.locks.held.retain(|held| !freed(held));
        for guard in &locks.guard {
            let own = |held: &&mut HeldLock| held.run == *run && held.step.as_ref() == Some(&guard.step);
            self.locks.held.iter_mut().filter(own).for_each(|held| held.stays = guard.stays);
        }
        for lock in &locks.take {
            if !self.locks.is_of_run(lock, run) {
                self.take(lock, run, None, at);
            }
        }
    }

    fn generation(&self, run: &RunId) -> u64 {
        self.leases.get(run).map_or(0, |lease| lease.generation)
    }
}

impl Memory {
    /// A panic elsewhere leaves the maps whole: every change below is made after all that can fail.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn create(
        &self,
        run: &RunId,
        at: Timestamp,
        started: &Event,
        locks: &[LockName],
    ) -> Result<Record, AppendError> {
        let mut shared = self.lock();
        if shared.rows.contains_key(run) {
            return Err(AppendError::Exists { run: run.clone() });
        }
        let locks = LockChange { take: locks.to_vec(), ..LockChange::default() };
        shared.check_locks(run, at, &locks)?;
        let (row, record) = chain::link(run, (1, FIRST), at, 0, started)?;
        shared.rows.insert(run.clone(), vec![row]);
        if let Some(summary) = RunSummary::first(&record) {
            shared.runs.insert(run.clone(), summary);
        }
        shared.change_locks(run, record.at, &locks);
        Ok(record)
    }

    pub(super) fn append(&self, append: Append<'_>, locks: &LockChange) -> Result<Vec<Record>, AppendError> {
        let Append { run, expected_seq, generation, at, texts, .. } = append;
        let mut shared = self.lock();
        let current = shared.leases.get(run);
        if let Some(mine) = generation
            && current.is_none_or(|lease| lease.generation != mine || lease.owner.is_none())
        {
            return Err(AppendError::Fenced { generation: shared.generation(run) });
        }
        let unknown = || JournalError::UnknownRun(run.to_string());
        let rows = shared.rows.get(run).ok_or_else(unknown)?;
        let head = rows.last().map_or(0, |row| row.seq);
        if shared.runs.get(run).is_some_and(|listed| listed.pruned.is_some()) {
            return Err(AppendError::Pruned { run: run.clone() });
        }
        if head != expected_seq {
            let behind: Vec<Row> = rows.iter().filter(|row| row.seq > expected_seq).cloned().collect();
            return chain::same_again(&append, head, behind);
        }
        let prev_hash = rows.last().map_or(FIRST.to_owned(), |row| row.hash.clone());
        shared.check_locks(run, at, locks)?;
        let (new, records) = chain::links(&append, &prev_hash)?;
        shared.rows.entry(run.clone()).or_default().extend(new);
        let seal = seal::due(self.sealer.as_ref(), &append).and_then(|key| key.seal(&records));
        shared.seals.entry(run.clone()).or_default().extend(seal);
        shared.transcripts.extend(texts.iter().map(|text| (text.digest().to_owned(), text.bytes().to_vec())));
        if let Some(summary) = shared.runs.get_mut(run) {
            for record in &records {
                summary.follow(record);
            }
        }
        shared.change_locks(run, at, locks);
        drop(shared);
        if generation.is_none() || locks.frees() {
            self.bell.ring();
        }
        Ok(records)
    }

    /// All that happens here happens in this process; the tick only lets locks of dead drivers be seen.
    pub(super) fn watch(&self) -> Watch {
        self.bell.watch(std::time::Duration::from_secs(1))
    }

    pub(super) fn rows(&self, run: &RunId, from_seq: u64) -> Vec<Row> {
        let shared = self.lock();
        let rows = shared.rows.get(run).map(Vec::as_slice).unwrap_or_default();
        rows.iter().filter(|row| row.seq >= from_seq).cloned().collect()
    }

    pub(super) fn evidence(&self, run: &RunId) -> Evidence {
        let shared = self.lock();
        Evidence {
            rows: shared.rows.get(run).cloned().unwrap_or_default(),
            seals: shared.seals.get(run).cloned().unwrap_or_default(),
            listed: shared.runs.get(run).cloned(),
            stones: shared.stones.iter().filter(|stone| stone.run == *run).cloned().collect(),
            lost: None,
        }
    }

    pub(super) fn transcript(&self, digest: &str) -> Option<Vec<u8>> {
        self.lock().transcripts.get(digest).cloned()
    }

    pub(super) fn runs(&self, filter: &RunFilter) -> Vec<RunSummary> {
        let shared = self.lock();
        let mut runs: Vec<RunSummary> = shared.runs.values().filter(|run| filter.admits(run)).cloned().collect();
        runs.sort_by(|a, b| (b.started_at, &b.run).cmp(&(a.started_at, &a.run)));
        runs.truncate(filter.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX));
        runs
    }

    pub(super) fn head(&self, run: &RunId) -> Head {
        let shared = self.lock();
        let seq = shared.rows.get(run).and_then(|rows| rows.last()).map_or(0, |row| row.seq);
        Head { seq, generation: shared.generation(run) }
    }

    pub(super) fn claim(
        &self,
        run: &RunId,
        owner: &Owner,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<u64, LeaseError> {
        let mut shared = self.lock();
        if let Some(lease) = shared.leases.get(run)
            && !lease.is_free(owner, now)
            && let Some(holder) = &lease.owner
        {
            return Err(LeaseError::Held { owner: holder.clone(), until: lease.until });
        }
        let generation = shared.generation(run) + 1;
        shared.leases.insert(run.clone(), Lease { generation, owner: Some(owner.clone()), until });
        Ok(generation)
    }

    pub(super) fn renew(&self, run: &RunId, generation: u64, until: Timestamp) -> Result<(), LeaseError> {
        let mut shared = self.lock();
        let current = shared.generation(run);
        match shared.leases.get_mut(run) {
            Some(lease) if lease.generation == generation && lease.owner.is_some() => {
                lease.until = until;
                Ok(())
            }
            Some(_) | None => Err(LeaseError::Lost { generation: current }),
        }
    }

    pub(super) fn release(&self, run: &RunId, generation: u64) {
        if let Some(lease) = self.lock().leases.get_mut(run).filter(|lease| lease.generation == generation) {
            lease.owner = None;
        }
    }

    pub(super) fn ends(&self, site: &str) -> Result<Vec<Record>, JournalError> {
        let shared = self.lock();
        let mut ends = Vec::new();
        for (run, summary) in &shared.runs {
            let rows = shared.rows.get(run).filter(|_| summary.site == site).into_iter().flatten();
            for row in rows.filter(|row| row.kind == "run_finished" && !row.payload.is_empty()) {
                ends.push(chain::record(run, row.clone())?);
            }
        }
        ends.sort_by_key(|record| record.at);
        Ok(ends)
    }

    pub(super) fn locks(&self, now: Timestamp) -> LockTable {
        self.lock().table(now).clone()
    }

    pub(super) fn ask_locks(&self, ask: LockAsk<'_>) -> Result<LockAnswer, AppendError> {
        let mut shared = self.lock();
        if shared.leases.get(ask.run).is_none_or(|lease| lease.generation != ask.generation || lease.owner.is_none()) {
            return Err(AppendError::Fenced { generation: shared.generation(ask.run) });
        }
        let answer = shared.table(ask.at).decide(&ask);
        let waits = |waiter: &LockWaiter| waiter.run == *ask.run && waiter.step == *ask.step;
        match answer {
            LockAnswer::Taken => {
                shared.locks.waiting.retain(|waiter| !waits(waiter));
                for lock in ask.locks {
                    if !shared.locks.is_of_run(lock, ask.run) {
                        shared.take(lock, ask.run, Some(ask.step), ask.at);
                    }
                }
            }
            LockAnswer::Waits { .. } if shared.locks.waiting.iter().any(waits) => {}
            LockAnswer::Waits { .. } => {
                let ticket = shared.locks.next_ticket();
                let (run, step, since) = (ask.run, ask.step, ask.at);
                let line = ask.locks.iter().map(|name| LockWaiter {
                    name: name.clone(),
                    run: run.clone(),
                    step: step.clone(),
                    since,
                    ticket,
                });
                shared.locks.waiting.extend(line);
            }
            LockAnswer::Never { .. } => shared.locks.waiting.retain(|waiter| !waits(waiter)),
        }
        Ok(answer)
    }

    pub(super) fn stop_waiting(&self, run: &RunId, step: &StepId) {
        self.lock().locks.waiting.retain(|waiter| waiter.run != *run || waiter.step != *step);
        self.bell.ring();
    }
}

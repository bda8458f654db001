//! Needs, queues, locks and stages: what an ended step makes possible.
//!
//! Everything here is proportional to what changed: an ended step touches the steps that need it, a freed lock wakes
//! one step. Only [`State::rebuild`] looks at every step; it runs at the start and when a run is resumed.

use jiff::Timestamp;

use super::mutant::Mutant;
use super::state::{Stage, State, Status, Verdict};
use super::workflow::{NeedOutcome, Phase};
use crate::event::SkipReason;

/// What the end of a needed step means for the one that needs it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    Yes,
    Never,
    NotYet,
}

impl State {
    /// Whether step `on` ended as `outcome` asks.
    pub(super) fn met(&self, on: usize, outcome: NeedOutcome) -> Met {
        let step = &self.steps[on];
        let deliberate = matches!(step.skipped.as_deref(), Some(SkipReason::When | SkipReason::Person { .. }))
            || self.is(Mutant::AnyEndMeetsNeed);
        let met = match (step.status, outcome) {
            (Status::Succeeded, NeedOutcome::Done | NeedOutcome::Succeeded | NeedOutcome::Any)
            | (Status::Failed, NeedOutcome::Failed | NeedOutcome::Any)
            | (Status::Skipped, NeedOutcome::Skipped | NeedOutcome::Any) => true,
            (Status::Skipped, NeedOutcome::Done) => deliberate,
            (Status::Failed, NeedOutcome::Done) => self.is(Mutant::AnyEndMeetsNeed),
            (Status::Succeeded | Status::Failed | Status::Skipped, _) => false,
            _ => return Met::NotYet,
        };
        if met { Met::Yes } else { Met::Never }
    }

    /// How what a step needs must end: somehow, if a person has it start whatever became of that.
    fn wanted_outcome(&self, number: usize, outcome: NeedOutcome) -> NeedOutcome {
        if self.forced.contains(&number) { NeedOutcome::Any } else { outcome }
    }

    /// The same for a `finally` step, for which the main part is over however it stands.
    fn met_at_the_end(&self, on: usize, outcome: NeedOutcome) -> Met {
        if self.rule(on).phase == Phase::Finally {
            return self.met(on, outcome);
        }
        match (self.met(on, outcome), outcome) {
            (Met::NotYet, NeedOutcome::Any) => Met::Yes,
            (Met::NotYet, _) => Met::Never,
            (met, _) => met,
        }
    }

    /// Tells the steps that need `number` that it ended.
    pub(super) fn settled(&mut self, number: usize) {
        let phase = self.rule(number).phase;
        self.open[phase.slot()] -= 1;
        if self.stage == Stage::Rollback || (self.rolled_back && phase != Phase::Finally) {
            // Nothing stands in line on the way back; who goes forward again counts anew.
            return;
        }
        let flow = self.flow.clone();
        for &(dependent, outcome) in flow.dependents(number) {
            // What `finally` steps need of the main part is looked at when that part is over.
            let later = flow.steps()[dependent].phase == Phase::Finally && phase != Phase::Finally;
            if later || self.steps[dependent].status != Status::Pending {
                continue;
            }
            match self.met(number, self.wanted_outcome(dependent, outcome)) {
                Met::Yes => {
                    self.steps[dependent].unmet -= 1;
                    if self.steps[dependent].unmet == 0 {
                        self.becomes_ready(dependent);
                    }
                }
                Met::Never => self.must_skip(dependent, number),
                Met::NotYet => {}
            }
        }
    }

    fn must_skip(&mut self, number: usize, because_of: usize) {
        if !self.skip_requests.contains_key(&number) {
            let slot = self.rule(number).phase.slot();
            self.to_skip[slot].entry(number).or_insert(because_of);
        }
    }

    /// All needs of a pending step are met, or it may start again.
    pub(super) fn becomes_ready(&mut self, number: usize) {
        if self.skip_requests.contains_key(&number) {
            return;
        }
        let rule = self.rule(number);
        let (slot, waits) = (rule.phase.slot(), rule.wait.is_some());
        self.steps[number].status = Status::Ready;
        if waits {
            self.to_open[slot].insert(number);
        } else {
            self.ready[slot].insert(number);
        }
    }

    /// Takes a step that has not started out of every queue.
    pub(super) fn unqueue(&mut self, number: usize) {
        let slot = self.rule(number).phase.slot();
        self.ready[slot].remove(&number);
        self.to_open[slot].remove(&number);
        self.to_skip[slot].remove(&number);
        if let Status::Pause(at) = self.steps[number].status {
            self.pauses.remove(&(at, number));
        }
        let flow = self.flow.clone();
        for lock in &flow.steps()[number].locks {
            if let Some(parked) = self.parked.get_mut(lock) {
                parked.remove(&number);
            }
        }
        if self.chosen.remove(&number) {
            self.free_locks(number);
        } else {
            self.wake(number);
        }
    }

    pub(super) fn take_locks(&mut self, number: usize) {
        let flow = self.flow.clone();
        for lock in &flow.steps()[number].locks {
            self.held.insert(lock.clone(), number);
        }
    }

    pub(super) fn free_locks(&mut self, number: usize) {
        let flow = self.flow.clone();
        for lock in &flow.steps()[number].locks {
            if self.held.get(lock) == Some(&number) {
                self.held.remove(lock);
            }
        }
        self.wake(number);
    }

    /// For each lock of `number` that is free, puts the first step behind it back in line.
    fn wake(&mut self, number: usize) {
        let flow = self.flow.clone();
        for lock in &flow.steps()[number].locks {
            if self.held.contains_key(lock) {
                continue;
            }
            let Some(parked) = self.parked.get_mut(lock) else { continue };
            if let Some(first) = parked.pop_first() {
                let slot = self.rule(first).phase.slot();
                self.ready[slot].insert(first);
            }
            if self.parked.get(lock).is_some_and(std::collections::BTreeSet::is_empty) {
                self.parked.remove(lock);
            }
        }
    }

    pub(super) fn room(&self) -> usize {
        if self.is(Mutant::IgnoresParallelMax) {
            return usize::MAX;
        }
        usize::try_from(self.flow.run().parallel_max.max(1)).unwrap_or(usize::MAX)
    }

    /// The phase whose steps may start now.
    pub(super) fn stage_slot(&self) -> Option<usize> {
        match self.stage {
            Stage::Preflight => Some(Phase::Preflight.slot()),
            Stage::Main => Some(Phase::Main.slot()),
            Stage::Finally => Some(Phase::Finally.slot()),
            Stage::Rollback => None,
        }
    }

    /// Whether anything new may start.
    pub(super) fn may_start(&self) -> bool {
        self.finished.is_none()
            && self.cancels == 0
            && self.started_at.is_some()
            && (self.stage == Stage::Finally || (self.stage != Stage::Rollback && self.verdict == Verdict::None))
    }

    /// A lock of `number` that another step holds or has kept for it.
    pub(super) fn blocked_by(&self, number: usize) -> Option<usize> {
        if self.is(Mutant::IgnoresLocks) {
            return None;
        }
        self.rule(number).locks.iter().position(|lock| self.held.get(lock).is_some_and(|&holder| holder != number))
    }

    /// Keeps room and locks for the first ready steps in file order.
    pub(super) fn choose(&mut self) {
        let Some(slot) = self.stage_slot() else { return };
        while self.running.len() + self.chosen.len() < self.room() {
            let Some(number) = self.ready[slot].pop_first() else { return };
            if let Some(lock) = self.blocked_by(number) {
                let lock = self.rule(number).locks[lock].clone();
                self.parked.entry(lock).or_default().insert(number);
                self.wake(number);
            } else {
                self.take_locks(number);
                self.chosen.insert(number);
            }
        }
    }

    /// Gives back what was kept, so that [`State::choose`] decides anew.
    pub(super) fn unchoose(&mut self) {
        for number in std::mem::take(&mut self.chosen) {
            let slot = self.rule(number).phase.slot();
            self.ready[slot].insert(number);
            self.free_locks(number);
        }
    }

    /// Puts steps whose pause is over at `at` in line.
    pub(super) fn end_pauses(&mut self, at: Timestamp) {
        while let Some(&(due, number)) = self.pauses.first() {
            if due > at {
                return;
            }
            self.pauses.pop_first();
            self.becomes_ready(number);
        }
    }

    /// Moves on to the next part of the run when this one is over.
    pub(super) fn advance(&mut self) {
        if self.started_at.is_none() || !self.running.is_empty() {
            return;
        }
        if self.redoing && self.stage == Stage::Rollback && self.undo_stack.is_empty() {
            self.go_forward();
            self.rebuild();
        }
        if self.stage == Stage::Preflight {
            let over = self.open[Phase::Preflight.slot()] == 0 || self.is(Mutant::MainBeforePreflight);
            if over && self.preflight_failed() {
                self.verdict = self.verdict.max(Verdict::Stop);
            }
            if over && self.verdict == Verdict::None {
                self.unchoose();
                self.stage = Stage::Main;
            }
        }
        let over = match (self.stage, self.verdict) {
            (Stage::Preflight, Verdict::None) | (Stage::Finally, _) | (Stage::Main, Verdict::Rollback) => false,
            (Stage::Main, Verdict::None) => self.open[Phase::Main.slot()] == 0,
            (Stage::Preflight | Stage::Main, _) => self.doubts.is_empty() && self.asked.is_empty(),
            (Stage::Rollback, _) => self.undo_stack.is_empty() && self.barrier.is_none(),
        };
        if over {
            self.rolled_back |= self.stage == Stage::Rollback;
            self.enter_finally();
        }
    }

    /// Whether a preflight step failed that had to succeed. An amended run comes by here with failures of its main part.
    fn preflight_failed(&self) -> bool {
        let failed = |number: usize| {
            let rule = self.rule(number);
            let counts = rule.phase == Phase::Preflight && !rule.optional && !rule.retired;
            counts && self.steps[number].status == Status::Failed
        };
        self.failed[0] > 0 && (0..self.steps.len()).any(failed)
    }

    fn enter_finally(&mut self) {
        self.unchoose();
        self.give_up_pauses();
        self.stage = Stage::Finally;
        for number in 0..self.steps.len() {
            if self.rule(number).phase == Phase::Finally && self.steps[number].status == Status::Pending {
                self.queue_pending(number);
            }
        }
    }

    /// A step that was in doubt may start, once all that it needs is (still) met.
    pub(super) fn line_up(&mut self, number: usize) {
        self.steps[number].status = Status::Pending;
        self.queue_pending(number);
    }

    /// Whether all that a step of the main part or before it needs is there.
    pub(super) fn needs_are_met(&self, number: usize) -> bool {
        let flow = self.flow.clone();
        self.rule(number).phase == Phase::Finally
            || flow
                .needs(number)
                .iter()
                .all(|&(on, outcome)| self.met(on, self.wanted_outcome(number, outcome)) == Met::Yes)
    }

    /// The same for a step of whatever part that has started already.
    pub(super) fn is_still_met(&self, number: usize) -> bool {
        let flow = self.flow.clone();
        let met = |&(on, outcome): &(usize, NeedOutcome)| self.met_at_the_end(on, outcome) == Met::Yes;
        self.needs_are_met(number) && (self.rule(number).phase != Phase::Finally || flow.needs(number).iter().all(met))
    }

    /// Counts the unmet needs of a pending step and queues it accordingly.
    fn queue_pending(&mut self, number: usize) {
        let flow = self.flow.clone();
        let finally = flow.steps()[number].phase == Phase::Finally;
        let mut unmet = 0;
        let mut never = None;
        for &(on, outcome) in flow.needs(number) {
            let outcome = self.wanted_outcome(number, outcome);
            let met = match (finally, self.stage == Stage::Finally) {
                (true, true) => self.met_at_the_end(on, outcome),
                (true, false) => Met::NotYet,
                (false, _) if self.is(Mutant::ForcesBesideNeeds) && self.forced.contains(&number) => Met::Yes,
                (false, _) => self.met(on, outcome),
            };
            match met {
                Met::Yes => {}
                // It stays unmet, so that the other needs cannot make the step ready.
                Met::Never => {
                    never = never.or(Some(on));
                    unmet += 1;
                }
                Met::NotYet => unmet += 1,
            }
        }
        self.steps[number].unmet = unmet;
        if let Some(on) = never {
            self.must_skip(number, on);
        } else if unmet == 0 && (!finally || self.stage == Stage::Finally) {
            self.becomes_ready(number);
        }
    }

    /// Builds every queue and counter from the statuses of all steps.
    pub(super) fn rebuild(&mut self) {
        self.open = [0; 3];
        self.failed = [0; 2];
        self.empty_queues();
        for number in self.running.clone() {
            // An attempt whose command outlived its driver works on.
            if self.steps[number].status == Status::Running {
                self.take_locks(number);
            }
        }
        for number in 0..self.steps.len() {
            if self.rule(number).retired {
                continue;
            }
            let (phase, optional) = (self.rule(number).phase, self.rule(number).optional);
            let status = self.steps[number].status;
            if !matches!(status, Status::Succeeded | Status::Failed | Status::Skipped) {
                self.open[phase.slot()] += 1;
            }
            if status == Status::Failed && !optional {
                self.failed[usize::from(phase == Phase::Finally)] += 1;
            }
            // A step in line stands in line again; what it needs may have changed. On the way back nothing stands in line.
            if matches!(status, Status::Pending | Status::Ready) {
                if self.stage == Stage::Rollback {
                    self.steps[number].status = Status::Pending;
                } else {
                    self.line_up(number);
                }
            }
        }
    }

    /// Nothing stands in line or has locks.
    pub(super) fn empty_queues(&mut self) {
        self.ready = Default::default();
        self.to_open = Default::default();
        self.to_skip = Default::default();
        self.parked.clear();
        self.held.clear();
        self.chosen.clear();
    }
}

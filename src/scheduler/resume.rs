//! Taking a run up again, after a crash or after it came to rest.
//!
//! After a crash only attempts without a result change: they are in doubt. After a rest what failed may be tried
//! again, under the rules of `docs/design/scheduler.md`.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::apply::refuse;
use super::kept::{Kept, KeptTime};
use super::refusal::IllegalEvent;
use super::state::{Stage, State, Status, Verdict};
use super::workflow::{Idempotent, Phase};
use crate::event::{Outcome, SkipReason};
use crate::ids::StepId;

impl State {
    pub(super) fn on_resumed(&mut self, held: &[StepId], at: Timestamp) -> Result<(), IllegalEvent> {
        let mut kept = BTreeSet::new();
        for step in held {
            let number = self.numbered(step)?;
            if self.steps[number].status != Status::Running {
                return Err(refuse(step, "is not running; there is nothing to hold"));
            }
            kept.insert(number);
        }
        let rested = self.finished.take();
        self.note = None;
        self.doubt_running(&kept);
        if let Some((outcome, _)) = rested {
            self.opened_at = Some(at);
            self.cancels = 0;
            // A run that only waited has not ended: it goes on where it is, whatever failed before stays failed.
            if outcome != Outcome::Waiting {
                self.open_again();
            }
        }
        Ok(())
    }

    /// Attempts without a result are in doubt from here on, but for those that are held; a crash uses up no retry.
    fn doubt_running(&mut self, held: &BTreeSet<usize>) {
        let running = std::mem::take(&mut self.running);
        let (goes_on, in_doubt) = running.into_iter().partition(|number| held.contains(number));
        self.running = goes_on;
        for number in in_doubt {
            self.free_locks(number);
            self.steps[number].order = self.events + 1;
            if self.steps[number].status == Status::Undoing {
                // Undoing twice is the same as undoing once, by contract.
                self.steps[number].status = Status::UndoDue;
                self.steps[number].undo_tries -= 1;
                continue;
            }
            self.steps[number].tries -= 1;
            self.steps[number].dirty = true;
            self.doubt(number);
        }
    }

    /// Has an attempt looked up where that is possible.
    pub(super) fn doubt(&mut self, number: usize) {
        if self.rule(number).has_probe {
            self.steps[number].status = Status::Doubt;
            self.doubts.insert(number);
        } else {
            self.cannot_be_told(number);
        }
    }

    fn open_again(&mut self) {
        match self.stage {
            Stage::Rollback if !self.at_barrier => self.undo_again(),
            Stage::Finally if self.rolled_back => self.finally_again(),
            Stage::Rollback | Stage::Preflight | Stage::Main | Stage::Finally => self.go_forward(),
        }
        self.rebuild();
    }

    fn undo_again(&mut self) {
        for index in 0..self.undo_stack.len() {
            let step = &mut self.steps[self.undo_stack[index]];
            step.undo_tries = 0;
            if step.status == Status::UndoFailed {
                step.status = Status::UndoDue;
            }
        }
    }

    /// Everything that failed, was passed over because of that, or was undone is to be done again.
    pub(super) fn go_forward(&mut self) {
        self.redoing = false;
        self.at_barrier = false;
        self.timed_out = false;
        self.verdict = Verdict::None;
        self.why = None;
        self.barrier = None;
        self.remains.clear();
        self.passed_over.clear();
        self.left.clear();
        let mut reopened = false;
        for number in 0..self.steps.len() {
            if self.rule(number).phase != Phase::Finally && !self.rule(number).retired {
                reopened |= self.reopen(number) || !self.has_ended(number);
            }
        }
        // Even if a person let everything stay that was to be undone, the run is on its way back no more.
        if reopened || self.stage == Stage::Rollback {
            self.stage = Stage::Preflight;
            self.finally_anew();
        } else {
            self.finally_again();
        }
    }

    /// The run will come to another end: its `finally` steps are to run there, whatever became of them before.
    pub(super) fn finally_anew(&mut self) {
        for number in 0..self.steps.len() {
            let belongs = self.rule(number).phase == Phase::Finally && !self.rule(number).retired;
            if belongs && !matches!(self.steps[number].status, Status::Asked) {
                self.reopen(number);
                if self.has_ended(number) && !self.skipped_by_a_person(number) {
                    self.reset(number);
                }
            }
        }
    }

    fn finally_again(&mut self) {
        for number in 0..self.steps.len() {
            if self.rule(number).phase == Phase::Finally {
                self.reopen(number);
            }
        }
    }

    fn has_ended(&self, number: usize) -> bool {
        matches!(self.steps[number].status, Status::Succeeded | Status::Failed | Status::Skipped)
    }

    fn skipped_by_a_person(&self, number: usize) -> bool {
        matches!(self.steps[number].skipped.as_deref(), Some(SkipReason::Person { .. }))
    }

    /// Gives a step that did not get through a fresh start; says whether it needed one.
    fn reopen(&mut self, number: usize) -> bool {
        if self.rule(number).retired {
            return false;
        }
        let (status, dirty) = (self.steps[number].status, self.steps[number].dirty);
        let by_need = matches!(self.steps[number].skipped.as_deref(), Some(SkipReason::Need(_)));
        if status == Status::Failed && dirty && self.rule(number).idempotent == Idempotent::No {
            self.steps[number].tries = 0;
            self.doubt(number);
        } else if matches!(status, Status::Failed | Status::Undone) || (status == Status::Skipped && by_need) {
            self.reset(number);
        } else if matches!(status, Status::Ready | Status::Pause(_)) {
            // What it needs may be done anew as well, so it stands in line again.
            self.unqueue(number);
            self.steps[number].status = Status::Pending;
            self.steps[number].tries = 0;
        } else {
            return false;
        }
        true
    }

    pub(super) fn reset(&mut self, number: usize) {
        self.forced.remove(&number);
        let step = &mut self.steps[number];
        step.status = Status::Pending;
        step.tries = 0;
        step.undo_tries = 0;
        step.when_checked = false;
        step.skipped = None;
        step.finished_at = KeptTime::NONE;
        step.outputs = Kept::default();
        step.forget_answers();
        if !step.dirty {
            // Nothing of it is left in the world: the next attempt sees it afresh.
            step.before = Kept::default();
        }
    }
}

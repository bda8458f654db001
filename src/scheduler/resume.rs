//! Taking a run up again, after a crash or after it came to rest.
//!
//! After a crash only attempts without a result change: they are in doubt. After a rest what failed may be tried
//! again, under the rules of `docs/design/scheduler.md`.

use jiff::Timestamp;

use super::state::{IllegalEvent, Stage, State, Status, Verdict};
use super::workflow::{Idempotent, Phase};
use crate::event::{Outcome, SkipReason};

impl State {
    pub(super) fn on_resumed(&mut self, at: Timestamp) -> Result<(), IllegalEvent> {
        let rested = self.finished.take();
        debug_assert!(rested.is_none_or(|(outcome, _)| !outcome.is_final()), "refused before");
        self.note = None;
        self.doubt_running();
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

    /// Attempts without a result are in doubt from here on; a crash uses up no retry.
    fn doubt_running(&mut self) {
        for number in std::mem::take(&mut self.running) {
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
    fn doubt(&mut self, number: usize) {
        if self.rule(number).has_probe {
            self.steps[number].status = Status::Doubt;
            self.doubts.insert(number);
        } else {
            self.cannot_be_told(number);
        }
    }

    fn open_again(&mut self) {
        match self.stage {
            Stage::Rollback if self.barrier.is_none() || !self.undo_stack.is_empty() => self.undo_again(),
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
    fn go_forward(&mut self) {
        self.timed_out = false;
        self.verdict = Verdict::None;
        self.why = None;
        self.barrier = None;
        self.remains.clear();
        self.passed_over.clear();
        let mut reopened = false;
        for number in 0..self.steps.len() {
            if self.rule(number).phase != Phase::Finally {
                reopened |= self.reopen(number) || !self.has_ended(number);
            }
        }
        if reopened {
            self.stage = Stage::Preflight;
            for number in 0..self.steps.len() {
                if self.rule(number).phase == Phase::Finally && !matches!(self.steps[number].status, Status::Asked) {
                    self.reopen(number);
                    if self.has_ended(number) && !self.skipped_by_a_person(number) {
                        self.reset(number);
                    }
                }
            }
        } else {
            self.finally_again();
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
        matches!(self.steps[number].skipped, Some(SkipReason::Person { .. }))
    }

    /// Gives a step that did not get through a fresh start; says whether it needed one.
    fn reopen(&mut self, number: usize) -> bool {
        let step = &self.steps[number];
        match step.status {
            Status::Failed => {
                if step.dirty && self.rule(number).idempotent == Idempotent::No {
                    self.steps[number].tries = 0;
                    self.doubt(number);
                } else {
                    self.reset(number);
                }
                true
            }
            Status::Skipped if matches!(step.skipped, Some(SkipReason::Need(_))) => {
                self.reset(number);
                true
            }
            Status::Undone | Status::UndoFailed => {
                self.reset(number);
                true
            }
            Status::Ready | Status::Pause(_) => {
                // What it needs may be done anew as well, so it stands in line again.
                self.unqueue(number);
                self.steps[number].status = Status::Pending;
                self.steps[number].tries = 0;
                true
            }
            _ => false,
        }
    }

    fn reset(&mut self, number: usize) {
        let step = &mut self.steps[number];
        step.status = Status::Pending;
        step.tries = 0;
        step.undo_tries = 0;
        step.when_checked = false;
        step.skipped = None;
        step.finished_at = None;
        step.outputs.clear();
        step.answers.clear();
        if !step.dirty {
            // Nothing of it is left in the world: the next attempt sees it afresh.
            step.before = None;
        }
    }
}

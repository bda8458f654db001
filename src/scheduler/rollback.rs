//! Turning back: what is undone, in which order, and where it stops.
//!
//! The newest first; a step counts as completed at its latest event. Rollback never goes behind a point of no return
//! that started, and it passes over steps that have no undo.

use jiff::Timestamp;

use super::apply::{later, refuse};
use super::state::{IllegalEvent, Mutant, Stage, State, Status, Verdict};
use super::workflow::Phase;
use crate::ids::StepId;

impl State {
    pub(super) fn on_rollback_started(&mut self, reason: &str) -> Result<(), IllegalEvent> {
        let due = self.stage == Stage::Main && self.verdict == Verdict::Rollback && self.running.is_empty();
        if !due || self.cancels > 0 {
            return Err(IllegalEvent::Run { kind: "rollback_started", why: "nothing asks for a rollback now" });
        }
        self.why = Some(reason.to_owned());
        self.stage = Stage::Rollback;
        self.clear_the_way();
        self.plan_undo();
        Ok(())
    }

    /// Takes back everything that was about to happen.
    fn clear_the_way(&mut self) {
        self.unchoose();
        self.give_up_pauses();
        for number in std::mem::take(&mut self.waiting) {
            self.stops_waiting(number);
            let step = &mut self.steps[number];
            step.status = Status::Pending;
            step.answers.clear();
        }
    }

    /// There is no next attempt any more: what paused has failed for good.
    pub(super) fn give_up_pauses(&mut self) {
        for (_, number) in std::mem::take(&mut self.pauses) {
            self.steps[number].status = Status::Failed;
            self.failed[0] += usize::from(!self.rule(number).optional);
            self.settled(number);
        }
    }

    fn plan_undo(&mut self) {
        let touched = |number: &usize| {
            let step = &self.steps[*number];
            let unknown = step.dirty && !(self.is(Mutant::ForgetsUnknownEffects) && step.status == Status::Failed);
            let acts = self.rule(*number).wait.is_none() || self.rule(*number).has_undo;
            self.rule(*number).phase == Phase::Main && acts && (step.status == Status::Succeeded || unknown)
        };
        let mut line: Vec<usize> = (0..self.steps.len()).filter(touched).collect();
        line.sort_by_key(|&number| (self.steps[number].order, number));
        self.barrier = None;
        self.remains.clear();
        let last = line.iter().rposition(|&number| self.rule(number).point_of_no_return);
        if let Some(last) = last
            && !self.is(Mutant::PassesPointOfNoReturn)
        {
            self.barrier = Some(line[last]);
            self.remains = line.drain(..=last).collect();
        }
        self.passed_over = line.iter().copied().filter(|&number| !self.rule(number).has_undo).collect();
        line.retain(|&number| self.rule(number).has_undo);
        if self.is(Mutant::UndoesOldestFirst) {
            line.reverse();
        }
        for &number in &line {
            self.doubts.remove(&number);
            self.asked.remove(&number);
            self.steps[number].status = Status::UndoDue;
        }
        self.undo_stack = line;
    }

    pub(super) fn on_undo_started(&mut self, step: &StepId, attempt: u32) -> Result<(), IllegalEvent> {
        let number = self.numbered(step)?;
        if self.stage != Stage::Rollback || self.cancels > 0 || self.undo_stack.last() != Some(&number) {
            return Err(refuse(step, "is not the next one to be undone"));
        }
        let next = self.steps[number].undo_attempts + 1;
        let due = matches!(self.steps[number].status, Status::UndoDue | Status::UndoPause(_));
        if !due || attempt != next {
            return Err(refuse(step, format!("does not start attempt {attempt} at undoing now")));
        }
        let step = &mut self.steps[number];
        step.status = Status::Undoing;
        step.undo_attempts += 1;
        step.undo_tries += 1;
        self.running.insert(number);
        Ok(())
    }

    fn undo_attempt(&self, step: &StepId, attempt: u32) -> Result<usize, IllegalEvent> {
        let number = self.numbered(step)?;
        if self.steps[number].status != Status::Undoing || self.steps[number].undo_attempts != attempt {
            return Err(refuse(step, format!("is not being undone by attempt {attempt}")));
        }
        Ok(number)
    }

    pub(super) fn on_undo_succeeded(&mut self, step: &StepId, attempt: u32, at: Timestamp) -> Result<(), IllegalEvent> {
        let number = self.undo_attempt(step, attempt)?;
        self.running.remove(&number);
        self.undo_stack.pop();
        let step = &mut self.steps[number];
        step.status = Status::Undone;
        step.dirty = false;
        step.finished_at = Some(at);
        Ok(())
    }

    pub(super) fn on_undo_failed(
        &mut self,
        step: &StepId,
        attempt: u32,
        error: &str,
        retryable: bool,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        let number = self.undo_attempt(step, attempt)?;
        self.running.remove(&number);
        let retry = self.rule(number).retry;
        let step = &mut self.steps[number];
        step.error = Some(format!("undo: {error}"));
        step.status = if retryable && step.undo_tries < retry.attempts_max {
            Status::UndoPause(later(at, retry.pause_ms(step.undo_tries)))
        } else {
            Status::UndoFailed
        };
        Ok(())
    }

    fn names(&self, numbers: &[usize]) -> String {
        let names: Vec<String> = numbers.iter().map(|&number| format!("`{}`", self.flow.steps()[number].id)).collect();
        names.join(", ")
    }

    /// What people should know about a rollback that ended or got stuck.
    pub(super) fn rollback_note(&self) -> Option<String> {
        let mut parts = Vec::new();
        if let Some(why) = &self.why {
            parts.push(why.clone());
        }
        if let Some(&number) = self.undo_stack.last()
            && self.steps[number].status == Status::UndoFailed
        {
            parts.push(format!(
                "the undo of `{}` failed; still to be undone: {}",
                self.flow.steps()[number].id,
                self.names(&self.undo_stack)
            ));
        } else if let Some(barrier) = self.barrier {
            parts.push(format!(
                "rollback stopped at `{}`, a point of no return that the run had passed; not undone: {}",
                self.flow.steps()[barrier].id,
                self.names(&self.remains)
            ));
        }
        if !self.passed_over.is_empty() {
            parts.push(format!("without an undo, left as they are: {}", self.names(&self.passed_over)));
        }
        if parts.is_empty() { None } else { Some(parts.join("; ")) }
    }
}

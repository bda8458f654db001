//! Turning back: what is undone, in which order, and where it stops.
//!
//! The newest first; a step counts as completed at its latest event. Rollback never goes behind a point of no return
//! that started, and it passes over steps that have no undo.

use jiff::Timestamp;

use super::apply::{later, refuse};
use super::deviations::{Override, Proposal};
use super::kept::KeptTime;
use super::mutant::Mutant;
use super::refusal::IllegalEvent;
use super::state::{Stage, State, Status, Verdict};
use super::workflow::Phase;
use crate::ids::StepId;

/// The steps of a rollback by number.
#[derive(Debug, Default)]
struct Line {
    /// To be undone; the last one first.
    stack: Vec<usize>,
    /// The point of no return at which it stops.
    barrier: Option<usize>,
    /// What lies behind that point, itself included.
    remains: Vec<usize>,
    /// What has no undo.
    passed_over: Vec<usize>,
}

/// What a rollback does: which steps, in which order, and what it leaves as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayBack {
    /// Steps that are undone, in this order.
    pub undo: Vec<StepId>,
    /// Steps that have changed something and have no undo.
    pub without_undo: Vec<StepId>,
    /// The point of no return at which it stops, if the run had passed one.
    pub stops_at: Option<StepId>,
    /// What stays because of that, the point itself included; in order of completion.
    pub remains: Vec<StepId>,
}

impl WayBack {
    /// Whether there is something to undo, or nothing that would have to be.
    pub fn is_open(&self) -> bool {
        !self.undo.is_empty() || (self.without_undo.is_empty() && self.stops_at.is_none())
    }
}

impl State {
    /// A person wants a run undone that ended or rests. Everything open is closed, `finally` belongs to the new end.
    pub(super) fn on_rollback_requested(&mut self, reason: &str, at: Timestamp) -> Result<(), IllegalEvent> {
        let kind = "rollback_requested";
        if !self.running.is_empty() {
            return Err(IllegalEvent::Run { kind, why: "attempts run; end them or resume the run first" });
        }
        if self.rolled_back || self.stage == Stage::Rollback {
            return Err(IllegalEvent::Run { kind, why: "the run has turned back already; resume it to go on" });
        }
        if !self.way_back().is_open() {
            return Err(IllegalEvent::Run { kind, why: "nothing of what the run did can be undone" });
        }
        self.finished = None;
        self.note = None;
        self.cancels = 0;
        self.opened_at = Some(at);
        self.why = Some(reason.to_owned());
        self.verdict = Verdict::Rollback;
        self.stage = Stage::Rollback;
        self.clear_the_way();
        self.plan_undo();
        if !self.is(Mutant::SkipsSecondFinally) {
            self.finally_anew();
        }
        self.rebuild();
        Ok(())
    }

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
        self.proposals.clear();
        self.unchoose();
        self.give_up_pauses();
        for number in std::mem::take(&mut self.waiting) {
            self.stops_waiting(number);
            let step = &mut self.steps[number];
            step.status = Status::Pending;
            step.forget_answers();
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

    /// What of the run is to be undone now, what is not, and where it stops.
    fn line_back(&self) -> Line {
        let touched = |number: &usize| {
            let step = &self.steps[*number];
            let unknown = step.dirty && !(self.is(Mutant::ForgetsUnknownEffects) && step.status == Status::Failed);
            let acts = self.rule(*number).wait.is_none() || self.rule(*number).has_undo;
            self.rule(*number).phase == Phase::Main && acts && (step.status == Status::Succeeded || unknown)
        };
        let mut stack: Vec<usize> = (0..self.steps.len()).filter(touched).collect();
        stack.sort_by_key(|&number| (self.steps[number].order, number));
        let mut line = Line::default();
        let last = stack.iter().rposition(|&number| self.rule(number).point_of_no_return);
        if let Some(last) = last
            && !self.is(Mutant::PassesPointOfNoReturn)
        {
            line.barrier = Some(stack[last]);
            line.remains = stack.drain(..=last).collect();
        }
        let stays = |number: &usize| !self.rule(*number).has_undo && !self.rule(*number).only_looks;
        line.passed_over = stack.iter().copied().filter(stays).collect();
        stack.retain(|&number| self.rule(number).has_undo);
        if self.is(Mutant::UndoesOldestFirst) {
            stack.reverse();
        }
        line.stack = stack;
        line
    }

    fn plan_undo(&mut self) {
        let line = self.line_back();
        for &number in line.stack.iter().chain(&line.passed_over) {
            self.steps[number].turned = self.steps[number].order;
        }
        for &number in &line.stack {
            self.doubts.remove(&number);
            self.asked.remove(&number);
            self.steps[number].status = Status::UndoDue;
            self.steps[number].undo_tries = 0;
        }
        self.undo_stack = line.stack;
        self.barrier = line.barrier;
        self.remains = line.remains;
        self.passed_over = line.passed_over;
        self.left.clear();
        self.at_barrier = false;
    }

    /// What a rollback would do now, or what is left of the one that is under way.
    pub fn way_back(&self) -> WayBack {
        let line = if self.stage == Stage::Rollback {
            Line {
                stack: self.undo_stack.clone(),
                barrier: self.barrier,
                remains: self.remains.clone(),
                passed_over: self.passed_over.clone(),
            }
        } else {
            self.line_back()
        };
        let ids = |numbers: &[usize]| numbers.iter().map(|&number| self.id(number)).collect::<Vec<_>>();
        WayBack {
            undo: ids(&line.stack).into_iter().rev().collect(),
            without_undo: ids(&line.passed_over),
            stops_at: line.barrier.map(|number| self.id(number)),
            remains: ids(&line.remains),
        }
    }

    /// Refuses what is not to be undone now.
    pub(super) fn check_undo(&self, number: usize) -> Result<(), IllegalEvent> {
        let due = matches!(self.steps[number].status, Status::UndoDue | Status::UndoPause(_));
        if self.stage != Stage::Rollback || self.cancels > 0 || self.undo_stack.last() != Some(&number) || !due {
            return Err(refuse(&self.id(number), "is not the next one to be undone"));
        }
        Ok(())
    }

    pub(super) fn on_undo_started(&mut self, step: &StepId, attempt: u32) -> Result<(), IllegalEvent> {
        let number = self.numbered(step)?;
        self.check_undo(number)?;
        let next = self.steps[number].undo_attempts + 1;
        if attempt != next || self.rule(number).undo_wait.is_some() {
            return Err(refuse(step, format!("does not start attempt {attempt} at undoing now")));
        }
        let step = &mut self.steps[number];
        step.status = Status::Undoing;
        step.undo_attempts += 1;
        step.undo_tries += 1;
        self.running.insert(number);
        Ok(())
    }

    /// Steps that had no undo when the run turned back and have one now are undone in their turn.
    pub(super) fn take_new_undos(&mut self) {
        if self.stage != Stage::Rollback || self.at_barrier {
            return;
        }
        let passed_over = std::mem::take(&mut self.passed_over);
        let (mended, still): (Vec<usize>, Vec<usize>) =
            passed_over.into_iter().partition(|&number| self.rule(number).has_undo);
        self.passed_over = still;
        if mended.is_empty() {
            return;
        }
        for &number in &mended {
            self.doubts.remove(&number);
            self.asked.remove(&number);
            self.steps[number].status = Status::UndoDue;
            self.steps[number].undo_tries = 0;
        }
        self.undo_stack.extend(mended);
        let Self { undo_stack, steps, .. } = self;
        undo_stack.sort_by_key(|&number| (steps[number].turned, number));
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
        self.undone(number, at);
        Ok(())
    }

    /// A step on the way back is undone, by its undo or by hand. It need not be the next one: whoever is asked to undo it answers when
    /// they have, also if an amendment has put another step before it meanwhile.
    pub(super) fn undone(&mut self, number: usize, at: Timestamp) {
        self.undo_stack.retain(|&other| other != number);
        let step = &mut self.steps[number];
        step.status = Status::Undone;
        step.dirty = false;
        step.undone_by_hand = false;
        step.finished_at = KeptTime::new(at);
    }

    /// A person undid a step on the way back. No action took part, so its own has yet to take note.
    pub(super) fn undone_by_hand(&mut self, number: usize, at: Timestamp) {
        self.undone(number, at);
        self.steps[number].undone_by_hand = true;
    }

    /// A person lets a step stay whose undo failed.
    pub(super) fn left_done(&mut self, number: usize, wanted: &Proposal, at: Timestamp) {
        if self.is(Mutant::LeftIsUndone) {
            self.undone(number, at);
            return;
        }
        self.undo_stack.retain(|&other| other != number);
        self.left.push(number);
        let step = &mut self.steps[number];
        step.status = if step.dirty { Status::Failed } else { Status::Succeeded };
        self.deviates_by(Override::LeftDone, Some(number), wanted, at);
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
        let (retry, attempts_max) = (self.rule(number).retry, self.attempts_max(number));
        let step = &mut self.steps[number];
        step.error = Some(format!("undo: {error}").into());
        step.status = if retryable && step.undo_tries < attempts_max {
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
        if !self.left.is_empty() {
            parts.push(format!("left as they are by a person: {}", self.names(&self.left)));
        }
        if parts.is_empty() { None } else { Some(parts.join("; ")) }
    }
}

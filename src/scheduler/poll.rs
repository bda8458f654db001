//! What should happen now: commands, the next time to wake, and how the run ends.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::Command;
use super::apply::later;
use super::mutant::Mutant;
use super::state::{Stage, State, Status, Verdict};
use super::workflow::Phase;
use crate::event::{Event, Outcome, SkipReason};
use crate::ids::StepId;

impl State {
    /// What should be done now. Asking twice is safe: nothing changes until an event arrives.
    pub fn poll(&self, now: Timestamp) -> Vec<Command> {
        let mut out = Vec::new();
        if self.started_at.is_none() || self.finished.is_some() {
            return out;
        }
        if self.cancels == 0 {
            if self.deadline().is_some_and(|deadline| deadline <= now) {
                return vec![Command::Record(Event::RunTimedOut)];
            }
            self.poll_open(now, &mut out);
        }
        let stop = self.cancels > 1 || (self.timed_out && matches!(self.stage, Stage::Preflight | Stage::Main));
        if stop && !self.running.is_empty() {
            out.push(Command::CancelAttempts);
        }
        if out.is_empty()
            && let Some(outcome) = self.conclusion()
        {
            out.push(Command::Record(self.finish(outcome)));
        }
        out
    }

    fn poll_open(&self, now: Timestamp, out: &mut Vec<Command>) {
        for (&number, reason) in &self.skip_requests {
            out.push(Command::Record(Event::StepSkipped { step: self.id(number), reason: reason.clone() }));
        }
        if self.stage == Stage::Rollback {
            self.poll_rollback(now, out);
            return;
        }
        if self.stage == Stage::Main && self.verdict == Verdict::Rollback {
            if self.running.is_empty() {
                let reason = self.why.clone().unwrap_or_else(|| "a step failed".to_owned());
                out.push(Command::Record(Event::RollbackStarted { reason }));
            }
            return;
        }
        for &number in &self.doubts {
            out.push(Command::Probe { step: self.id(number), attempt: self.steps[number].attempts });
        }
        if self.may_start() {
            self.poll_starts(now, out);
        }
    }

    fn poll_starts(&self, now: Timestamp, out: &mut Vec<Command>) {
        self.poll_questions(now, out);
        let Some(slot) = self.stage_slot() else { return };
        for (&number, &on) in &self.to_skip[slot] {
            let reason = SkipReason::Need(self.id(on));
            out.push(Command::Record(Event::StepSkipped { step: self.id(number), reason }));
        }
        for &number in &self.to_open[slot] {
            out.push(Command::OpenWait {
                step: self.id(number),
                check_when: self.checks_when(number),
                expires_ms: self.rule(number).wait.as_ref().and_then(|rule| rule.expires_ms),
            });
        }
        for number in self.startable(now) {
            out.push(Command::Start {
                step: self.id(number),
                attempt: self.steps[number].attempts + 1,
                check_when: self.checks_when(number),
            });
        }
    }

    /// Whether a question goes on now. On the way back only the one about the next undo does: those of the main part stand
    /// still while steps are undone to be done again.
    fn goes_on(&self, number: usize) -> bool {
        self.stage != Stage::Rollback || self.undo_stack.last() == Some(&number)
    }

    /// Questions whose time is over, and whom to tell that they are waited for.
    fn poll_questions(&self, now: Timestamp, out: &mut Vec<Command>) {
        for &(_, number) in self.expiries.range(..=(now, usize::MAX)).filter(|(_, number)| self.goes_on(*number)) {
            out.push(Command::Record(Event::StepExpired { step: self.id(number) }));
        }
        for &number in self.waiting.iter().filter(|number| self.goes_on(**number)) {
            let is_over = self.steps[number].ends_at().is_some_and(|ends_at| ends_at <= now);
            if let Some((_, occasion)) = self.tell_due(number).filter(|(at, _)| *at <= now && !is_over) {
                out.push(Command::Tell { step: self.id(number), occasion });
            }
        }
    }

    /// Whether [`State::poll`] asks for this start now. Looks at this step alone, unless it was to be tried again.
    pub fn asks_to_start(&self, step: &StepId, attempt: u32, now: Timestamp) -> bool {
        let Some(number) = self.flow.number(step) else { return false };
        let over = self.deadline().is_some_and(|deadline| deadline <= now);
        let turning = self.stage == Stage::Main && self.verdict == Verdict::Rollback;
        if over || turning || !self.may_start() || attempt != self.steps[number].attempts + 1 {
            return false;
        }
        let due = matches!(self.steps[number].status, Status::Pause(at) if at <= now);
        self.chosen.contains(&number) || (due && self.startable(now).contains(&number))
    }

    fn checks_when(&self, number: usize) -> bool {
        self.rule(number).has_when && !self.steps[number].when_checked && !self.forced.contains(&number)
    }

    /// The chosen steps, and into the room that is left the steps whose pause is over.
    fn startable(&self, now: Timestamp) -> BTreeSet<usize> {
        let mut starts = self.chosen.clone();
        if self.pauses.first().is_none_or(|&(due, _)| due > now) {
            return starts;
        }
        let slot = self.stage_slot();
        let mut due: Vec<usize> = self.pauses.range(..=(now, usize::MAX)).map(|&(_, number)| number).collect();
        due.sort_unstable();
        let mut taken: BTreeSet<&str> = BTreeSet::new();
        for number in due {
            if self.running.len() + starts.len() >= self.room() {
                break;
            }
            let locks = &self.rule(number).locks;
            let clash = locks.iter().any(|lock| taken.contains(lock.as_str())) && !self.is(Mutant::IgnoresLocks);
            if Some(self.rule(number).phase.slot()) == slot && self.blocked_by(number).is_none() && !clash {
                taken.extend(locks.iter().map(crate::ids::LockName::as_str));
                starts.insert(number);
            }
        }
        starts
    }

    fn poll_rollback(&self, now: Timestamp, out: &mut Vec<Command>) {
        let Some(&number) = self.undo_stack.last() else { return };
        let status = self.steps[number].status;
        self.poll_questions(now, out);
        let due = status == Status::UndoDue || matches!(status, Status::UndoPause(at) if at <= now);
        if let Some(rule) = self.rule(number).undo_wait.as_ref().filter(|_| due) {
            out.push(Command::OpenUndoWait { step: self.id(number), expires_ms: rule.expires_ms });
        } else if due {
            out.push(Command::Undo { step: self.id(number), attempt: self.steps[number].undo_attempts + 1 });
        }
    }

    /// When to ask again although nothing happened; `None` if only an event can change the answer.
    pub fn next_wake(&self) -> Option<Timestamp> {
        if self.finished.is_some() || self.cancels > 0 {
            return None;
        }
        let mut wakes = vec![self.deadline()];
        if self.may_start() {
            wakes.push(self.next_pause().map(|(at, _)| at));
        }
        if self.may_start() || self.stage == Stage::Rollback {
            wakes.push(self.next_of_questions());
        }
        if self.stage == Stage::Rollback
            && let Some(&number) = self.undo_stack.last()
            && let Status::UndoPause(at) = self.steps[number].status
        {
            wakes.push(Some(at));
        }
        wakes.into_iter().flatten().min()
    }

    /// When a question ends next or people are to be told of one.
    fn next_of_questions(&self) -> Option<Timestamp> {
        let ends = self.expiries.iter().find(|(_, number)| self.goes_on(*number)).map(|&(at, _)| at);
        let open = self.waiting.iter().filter(|number| self.goes_on(**number));
        open.filter_map(|&number| self.tell_due(number).map(|(at, _)| at)).chain(ends).min()
    }

    /// The first pause to end of a step whose part it is. A run that was amended may have to wait for what comes before.
    fn next_pause(&self) -> Option<(Timestamp, usize)> {
        let slot = self.stage_slot();
        self.pauses.iter().find(|&&(_, number)| Some(self.rule(number).phase.slot()) == slot).copied()
    }

    /// When the main part must be over, unless it is.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let running = !self.timed_out && matches!(self.stage, Stage::Preflight | Stage::Main);
        let timeout_ms = self.run_timeout_ms().filter(|_| running)?;
        self.opened_at.map(|at| later(at, timeout_ms))
    }

    /// How the run ends, if nothing but a person or nothing at all can move it.
    pub(super) fn conclusion(&self) -> Option<Outcome> {
        if self.started_at.is_none() || self.finished.is_some() || !self.running.is_empty() {
            return None;
        }
        if self.cancels > 0 {
            return Some(Outcome::Cancelled);
        }
        if !self.skip_requests.is_empty() {
            return None;
        }
        match (self.stage, self.verdict) {
            (Stage::Rollback, _) => match self.undo_stack.last() {
                Some(&number) if self.steps[number].status == Status::UndoFailed => Some(Outcome::Stuck),
                Some(&number) if self.steps[number].status == Status::UndoWaiting => Some(Outcome::Waiting),
                Some(_) => None,
                None => self.barrier.map(|_| Outcome::Stuck),
            },
            (Stage::Main, Verdict::Rollback) => None,
            (Stage::Preflight | Stage::Main, Verdict::Stop | Verdict::Rollback) => {
                (self.doubts.is_empty() && !self.asked.is_empty()).then_some(Outcome::Stuck)
            }
            (Stage::Finally, _) if self.open[Phase::Finally.slot()] == 0 => Some(self.final_outcome()),
            (Stage::Preflight | Stage::Main, Verdict::None) | (Stage::Finally, _) => self.rests(),
        }
    }

    /// Whether only people can move an open run.
    fn rests(&self) -> Option<Outcome> {
        let slot = self.stage_slot()?;
        let moves = !self.chosen.is_empty()
            || !self.ready[slot].is_empty()
            || !self.to_open[slot].is_empty()
            || !self.to_skip[slot].is_empty()
            || self.next_pause().is_some()
            || !self.doubts.is_empty();
        if moves {
            None
        } else if !self.asked.is_empty() {
            Some(Outcome::Stuck)
        } else if !self.waiting.is_empty() {
            Some(Outcome::Waiting)
        } else {
            None
        }
    }

    fn final_outcome(&self) -> Outcome {
        if self.rolled_back {
            Outcome::RolledBack
        } else if self.is(Mutant::ForgetsFailures) {
            Outcome::Succeeded
        } else if self.failed != [0, 0] || self.timed_out || self.verdict != Verdict::None {
            Outcome::Failed
        } else {
            Outcome::Succeeded
        }
    }

    fn finish(&self, outcome: Outcome) -> Event {
        let run = self.flow.run();
        let (milestones, revoked) = match outcome {
            Outcome::Succeeded => (run.milestones.clone(), run.revokes.clone()),
            Outcome::RolledBack if self.established && !self.is(Mutant::RollbackKeepsMilestones) => {
                (Vec::new(), run.milestones.clone())
            }
            _ => (Vec::new(), Vec::new()),
        };
        let named = |numbers: &BTreeSet<usize>| -> Vec<String> {
            numbers.iter().take(20).map(|&number| format!("`{}`", self.flow.steps()[number].id)).collect()
        };
        let note = match outcome {
            Outcome::Succeeded | Outcome::Cancelled => None,
            Outcome::Failed => self.why.clone(),
            Outcome::RolledBack => self.rollback_note(),
            Outcome::Waiting => Some(format!("waits for an answer to {}", named(&self.waiting).join(", "))),
            Outcome::Stuck if self.stage == Stage::Rollback => self.rollback_note(),
            Outcome::Stuck => Some(format!(
                "nobody recorded how these ended and they are not safe to repeat: {}; say whether each ran",
                named(&self.asked).join(", ")
            )),
        };
        Event::RunFinished { outcome, milestones, revoked, note }
    }
}

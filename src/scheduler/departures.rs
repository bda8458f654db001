//! What a deviation does, once enough people stand behind it: a step is passed over, started, called done or left; a
//! budget grows.
//!
//! Refused: whatever would run beside what it needs, run twice, or change a run that turns back. A run that rests goes on
//! from there when it is resumed.

use jiff::Timestamp;

use super::apply::refuse;
use super::deviations::{Deviation, Override, Proposal};
use super::refusal::IllegalEvent;
use super::state::{Stage, State, Status, Verdict};
use super::workflow::{Idempotent, Phase};
use crate::event::{Budget, Departure, Outcome, Outputs, SkipReason, WaitKind};
use crate::ids::StepId;

impl State {
    /// Refuses what cannot be done now.
    pub(super) fn check_departure(&self, number: Option<usize>, what: &Departure) -> Result<(), IllegalEvent> {
        match (number, what) {
            (Some(number), Departure::Skip) => self.check_skip(number),
            (Some(number), Departure::Force) => self.check_force(number),
            (Some(number), Departure::Done { .. }) => self.check_done(number),
            (Some(number), Departure::Leave) if self.steps[number].status != Status::UndoFailed => {
                Err(refuse(&self.id(number), "does not wait for this answer"))
            }
            (number, Departure::Extend(budget)) => self.check_extension(number, budget).map(|_| ()),
            (None, Departure::Amend { .. }) if self.rolled_back => {
                Err(self.refused(None, "the run was rolled back; start a new one"))
            }
            (Some(_), Departure::Leave) | (None, Departure::Amend { .. }) => Ok(()),
            (Some(_), Departure::Amend { .. }) => Err(self.refused(number, "a run is amended as a whole")),
            (None, Departure::Skip | Departure::Force | Departure::Done { .. } | Departure::Leave) => {
                Err(self.refused(None, "it is about a step"))
            }
        }
    }

    pub(super) fn depart(&mut self, number: Option<usize>, proposal: Proposal, at: Timestamp) {
        match (number, proposal.what.clone()) {
            (Some(number), Departure::Skip) => self.passes_over(number, proposal),
            (Some(number), Departure::Force) => {
                self.deviates_by(Override::Forced, Some(number), &proposal, at);
                self.forces(number);
            }
            (Some(number), Departure::Done { outputs }) => {
                self.deviates_by(Override::MarkedDone, Some(number), &proposal, at);
                self.counts_as_done(number, &outputs, at);
            }
            (Some(number), Departure::Leave) => self.left_done(number, &proposal, at),
            (number, Departure::Extend(budget)) => {
                let was =
                    self.check_extension(number, &budget).expect("it was checked when it was wanted or agreed to");
                self.deviates_by(Override::Extended, number, &proposal, at);
                if let Some(Deviation { extended, .. }) = self.deviations.last_mut() {
                    *extended = Some((budget.clone(), was));
                }
                self.extends(number, budget);
            }
            (None, what @ Departure::Amend { .. }) => self.agreed_amendment = Some((what, proposal.voices)),
            (Some(_), Departure::Amend { .. })
            | (None, Departure::Skip | Departure::Force | Departure::Done { .. } | Departure::Leave) => {}
        }
    }

    /// Whether a resume would give everything that failed a fresh start.
    fn rests_to_go_forward(&self) -> bool {
        let rests = self
            .finished
            .is_some_and(|(outcome, _)| matches!(outcome, Outcome::Failed | Outcome::Cancelled | Outcome::Stuck));
        rests && self.stage != Stage::Rollback && !self.rolled_back
    }

    /// Whether steps of the phase of this one start now, or would if the run did not just wait for people.
    fn is_its_turn(&self, number: usize) -> bool {
        let open = self.finished.is_none_or(|(outcome, _)| outcome == Outcome::Waiting);
        let goes = self.stage == Stage::Finally || self.verdict == Verdict::None;
        open && goes && self.cancels == 0 && self.stage_slot() == Some(self.rule(number).phase.slot())
    }

    fn check_skip(&self, number: usize) -> Result<(), IllegalEvent> {
        let step = &self.steps[number];
        let untouched = step.tries == 0 && !step.dirty;
        let may = match step.status {
            Status::Waiting => true,
            Status::Pending | Status::Ready => untouched,
            Status::Failed => !step.dirty && self.rests_to_go_forward() && !self.rule(number).retired,
            _ => false,
        };
        if !may || self.skip_requests.contains_key(&number) {
            let why = "has started or ended; only a step that has not started, or failed without effect in a run that rests, can be skipped";
            return Err(refuse(&self.id(number), why));
        }
        Ok(())
    }

    fn passes_over(&mut self, number: usize, proposal: Proposal) {
        let deviation = !self.rule(number).optional;
        self.unqueue(number);
        // Nobody can answer it any more; until the skip is recorded it is as if it had not come to it.
        self.stops_waiting(number);
        if self.steps[number].status == Status::Failed {
            self.reset(number);
        }
        self.steps[number].status = Status::Pending;
        // Another plan may end the wish; then people are asked anew.
        self.steps[number].forget_answers();
        let Proposal { by, reason, mut voices, .. } = proposal;
        voices.retain(|person| *person != by);
        if !voices.is_empty() {
            self.agreed_skips.insert(number, voices);
        }
        self.skip_requests.insert(number, SkipReason::Person { by, reason, deviation });
    }

    /// A step starts against its condition and its needs only when all that it needs has ended: nothing runs beside what it
    /// was to follow, and nothing runs that may be at work already.
    fn check_force(&self, number: usize) -> Result<(), IllegalEvent> {
        let (step, rule) = (&self.steps[number], self.rule(number));
        let passed_over = matches!(step.skipped.as_deref(), Some(SkipReason::When | SkipReason::Need(_)));
        let no = |why: &str| Err(refuse(&rule.id, why));
        if rule.retired || rule.phase == Phase::Finally {
            return no("cannot be forced: only steps of the main part and of preflight can");
        }
        if step.status != Status::Skipped || !passed_over {
            return no("was not passed over for a need or its condition; there is nothing to force");
        }
        if step.dirty && rule.idempotent == Idempotent::No {
            return no("may have changed something and is not safe to repeat; mark it as done, or undo it first");
        }
        if !self.is_its_turn(number) && !self.rests_to_go_forward() {
            return no("cannot be forced now: the run stops, turns back, or is past it; force it when the run rests");
        }
        let ended = |on: usize| matches!(self.steps[on].status, Status::Succeeded | Status::Failed | Status::Skipped);
        if !self.flow.needs(number).iter().all(|&(on, _)| ended(on)) {
            return no("needs a step that has not ended; wait for it, skip it or mark it as done first");
        }
        Ok(())
    }

    fn forces(&mut self, number: usize) {
        self.reset(number);
        self.forced.insert(number);
        if self.finished.is_none_or(|(outcome, _)| outcome == Outcome::Waiting) {
            self.takes_up_those_behind(number);
        }
    }

    fn check_done(&self, number: usize) -> Result<(), IllegalEvent> {
        let rule = self.rule(number);
        let no = |why: &str| Err(refuse(&rule.id, why));
        if rule.wait.as_ref().is_some_and(|wait| wait.kind == WaitKind::Approval) {
            return no("asks for an approval; it cannot be declared done, only approved or skipped");
        }
        if rule.retired || self.skip_requests.contains_key(&number) {
            return no("is not part of the run any more, or is about to be passed over");
        }
        let rests = self.rests_to_go_forward();
        let early = self.stage != Stage::Rollback && self.cancels == 0 && self.verdict == Verdict::None;
        let to_come = early && self.stage_slot().is_some_and(|slot| slot <= rule.phase.slot());
        let may = match self.steps[number].status {
            Status::Pending | Status::Ready | Status::Pause(_) if rule.phase == Phase::Finally => {
                self.is_its_turn(number)
            }
            Status::Pending | Status::Ready | Status::Pause(_) => rests || to_come,
            Status::Failed | Status::Skipped => rests || self.is_its_turn(number),
            _ => {
                return no(
                    "has started, waits for an answer, or is over; only a step that has not started or failed can be marked as done",
                );
            }
        };
        if may {
            Ok(())
        } else {
            no("cannot be marked as done now: the run stops, turns back, or is past it; do it when the run rests")
        }
    }

    fn counts_as_done(&mut self, number: usize, outputs: &Outputs, at: Timestamp) {
        let ended = matches!(self.steps[number].status, Status::Failed | Status::Skipped);
        let rests = self.rests_to_go_forward();
        self.unqueue(number);
        self.steps[number].skipped = None;
        self.steps[number].tries = 0;
        if rests {
            // Who is behind it has a turn when the run is resumed.
            self.is_done(number, outputs, at);
        } else if ended {
            // Those behind it were told of its end already.
            self.is_done(number, outputs, at);
            self.takes_up_those_behind(number);
        } else {
            self.succeeds(number, outputs, at);
        }
        self.steps[number].order = self.events + 1;
        if rests && self.rule(number).phase != Phase::Finally {
            // The run will come to another end.
            self.finally_anew();
        }
    }

    /// Steps that were passed over because of this one have their turn after all.
    fn takes_up_those_behind(&mut self, number: usize) {
        let (flow, mut open) = (self.flow.clone(), vec![number]);
        while let Some(number) = open.pop() {
            let id = self.id(number);
            for &(dependent, _) in flow.dependents(number) {
                let because =
                    matches!(self.steps[dependent].skipped.as_deref(), Some(SkipReason::Need(on)) if *on == id);
                if because && self.steps[dependent].status == Status::Skipped {
                    self.reset(dependent);
                    open.push(dependent);
                }
            }
        }
        // What was to be tried again may need the end that was taken back.
        let pauses = std::mem::take(&mut self.pauses);
        let (stay, cut_off) = pauses.into_iter().partition(|&(_, number)| self.is_still_met(number));
        self.pauses = stay;
        for (_, number) in cut_off {
            self.steps[number].status = Status::Pending;
        }
        self.rebuild();
    }

    /// How much there is of a budget now; refuses one that cannot grow.
    fn check_extension(&self, number: Option<usize>, budget: &Budget) -> Result<i64, IllegalEvent> {
        let no = |why| Err(self.refused(number, why));
        let (had, wanted) = match (number, budget) {
            (None, Budget::Run { .. }) if self.timed_out => {
                return no("the time of the run is over; a resume gives it a new one");
            }
            (None, Budget::Run { ms }) => (self.run_timeout_ms(), *ms),
            (None, Budget::Window { name, ms }) => (self.window_ms(name), *ms),
            (Some(number), Budget::Timeout { ms }) => (self.timeout_of(number), *ms),
            (Some(number), Budget::Attempts { count }) => {
                (self.rule(number).wait.is_none().then(|| i64::from(self.attempts_max(number))), i64::from(*count))
            }
            (Some(_), Budget::Run { .. } | Budget::Window { .. }) => return no("this budget is one of the run"),
            (None, Budget::Timeout { .. } | Budget::Attempts { .. }) => return no("this budget is one of a step"),
        };
        let over = |number: usize| {
            matches!(self.steps[number].status, Status::Succeeded | Status::Skipped) || self.rule(number).retired
        };
        match had {
            _ if number.is_some_and(over) => no("it is over; there is nothing left to extend"),
            None => no("the runbook sets no such limit"),
            Some(had) if wanted <= had => no("it has as much already; an extension is for more"),
            Some(had) => Ok(had),
        }
    }

    fn extends(&mut self, number: Option<usize>, budget: Budget) {
        match (number, budget) {
            (_, Budget::Run { ms }) => self.extended.run_ms = Some(ms),
            (_, Budget::Window { name, ms }) => {
                self.extended.windows.insert(name, ms);
            }
            (Some(number), Budget::Timeout { ms }) => {
                self.extended.steps.entry(number).or_default().timeout_ms = Some(ms);
            }
            (Some(number), Budget::Attempts { count }) => {
                self.extended.steps.entry(number).or_default().attempts = Some(count);
            }
            (None, Budget::Timeout { .. } | Budget::Attempts { .. }) => {}
        }
    }

    pub(super) fn attempts_max(&self, number: usize) -> u32 {
        let extended = self.extended.steps.get(&number).and_then(|extended| extended.attempts);
        extended.unwrap_or(self.rule(number).retry.attempts_max)
    }

    fn timeout_of(&self, number: usize) -> Option<i64> {
        let extended = self.extended.steps.get(&number).and_then(|extended| extended.timeout_ms);
        extended.or(self.rule(number).timeout_ms)
    }

    /// For how many milliseconds an attempt of the step may work.
    pub fn timeout_ms(&self, step: &StepId) -> Option<i64> {
        self.flow.number(step).and_then(|number| self.timeout_of(number))
    }

    pub(super) fn run_timeout_ms(&self) -> Option<i64> {
        self.extended.run_ms.or(self.flow.run().timeout_ms)
    }

    /// For how many milliseconds a window may be open.
    pub fn window_ms(&self, name: &str) -> Option<i64> {
        self.extended.windows.get(name).or_else(|| self.flow.run().windows.get(name)).copied()
    }
}

//! Events: whether one can be true now, and what it changes.
//!
//! Each handler refuses first and changes afterwards, so that an illegal event leaves no trace. Answers of people
//! are in `people`, rollback and resume in their own files.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::kept::{Kept, KeptTime};
use super::mutant::Mutant;
use super::refusal::IllegalEvent;
use super::state::{Stage, State, Status, Verdict};
use super::workflow::{Idempotent, Phase};
use crate::event::{Effect, Event, Finding, Outcome, Outputs, SkipReason};
use crate::ids::StepId;

/// `at` and `ms` milliseconds; the end of time if that is later than time goes.
pub(super) fn later(at: Timestamp, ms: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_millis(ms)).unwrap_or(Timestamp::MAX)
}

pub(super) fn refuse(step: &StepId, why: impl Into<String>) -> IllegalEvent {
    IllegalEvent::Step { step: step.clone(), why: why.into() }
}

impl State {
    /// Makes `event` true as of `at`. An event that cannot be true is refused and changes nothing.
    pub fn apply(&mut self, event: &Event, at: Timestamp) -> Result<(), IllegalEvent> {
        self.check_order(event)?;
        if let Event::WordRefused { .. } = event {
            self.events += 1;
            return Ok(());
        }
        self.take_in(event, at)?;
        self.events += 1;
        self.note_order(event);
        self.end_pauses(at);
        self.advance();
        self.choose();
        Ok(())
    }

    /// What an event by itself changes.
    fn take_in(&mut self, event: &Event, at: Timestamp) -> Result<(), IllegalEvent> {
        match event {
            Event::RunStarted { by, signed, .. } => {
                self.check_start_signed(signed.as_deref())?;
                self.strict = by.how().is_some();
                self.started_at = Some(at);
                self.opened_at = Some(at);
            }
            Event::RunResumed { held, .. } => self.on_resumed(held, at)?,
            Event::RunAmended { .. } => {
                return Err(IllegalEvent::Run {
                    kind: "run_amended",
                    why: "it comes with new rules, which are not here",
                });
            }
            Event::StepSkipped { step, reason } => self.on_skipped(step, reason, at)?,
            Event::AttemptStarted { step, attempt, before, input } => {
                self.on_attempt_started(step, *attempt, before, at)?;
                // What could not be got ready has no input, and told its action nothing.
                if !input.is_null() {
                    let number = self.numbered(step)?;
                    self.steps[number].undone_by_hand = false;
                }
            }
            Event::AttemptSucceeded { step, attempt, outputs, said: _ } => {
                let number = self.running_attempt(step, *attempt)?;
                self.leaves_running(number);
                self.succeeds(number, outputs, at);
            }
            Event::AttemptFailed { step, attempt, error, effect, retryable, said: _ } => {
                let number = self.running_attempt(step, *attempt)?;
                self.on_attempt_failed(number, error, *effect, *retryable, at);
            }
            Event::AttemptProbed { step, attempt, finding } => self.on_probed(step, *attempt, finding, at)?,
            Event::StepWaiting { step, wait, prompt, expires_at, input } => {
                self.on_waiting(step, *wait, (prompt, input.as_deref()), *expires_at, at)?;
            }
            Event::UndoWaiting { step, prompt, expires_at, input } => {
                self.on_undo_waiting(step, (prompt, input), *expires_at, at)?;
            }
            Event::StepAnswered { .. }
            | Event::StepAssigned { .. }
            | Event::SkipRequested { .. }
            | Event::DeviationRequested { .. }
            | Event::DeviationAnswered { .. }
            | Event::CancelRequested { .. }
            | Event::RollbackRequested { .. }
            | Event::WordRefused { .. } => self.hear(event, at)?,
            // It is for people.
            Event::SecretTooShort { .. } => {}
            Event::StepExpired { step } => self.on_expired(step, at)?,
            Event::PeopleTold { step, occasion, .. } => self.on_told(step, *occasion, at)?,
            Event::RunTimedOut => self.on_timed_out(at)?,
            Event::RollbackStarted { reason } => self.on_rollback_started(reason)?,
            Event::UndoStarted { step, attempt } => self.on_undo_started(step, *attempt)?,
            Event::UndoSucceeded { step, attempt, said: _ } => self.on_undo_succeeded(step, *attempt, at)?,
            Event::UndoFailed { step, attempt, error, retryable, said: _ } => {
                self.on_undo_failed(step, *attempt, error, *retryable, at)?;
            }
            Event::RunFinished { outcome, milestones: _, revoked: _, note } => {
                self.on_finished(*outcome, note.as_deref(), at)?;
            }
        }
        Ok(())
    }

    /// When something last happened to the step of an event. Whatever a driver records of it ends what was only wanted.
    fn note_order(&mut self, event: &Event) {
        let Some(number) = event.step().and_then(|step| self.flow.number(step)) else { return };
        // What is only wanted, told or handed over has not happened to the step.
        let happens = !matches!(
            event,
            Event::DeviationRequested { .. }
                | Event::DeviationAnswered { .. }
                | Event::PeopleTold { .. }
                | Event::StepAssigned { .. }
        );
        if happens {
            self.steps[number].order = self.events;
        }
        if event.by().is_none() && !matches!(event, Event::PeopleTold { .. }) {
            self.proposal_lapses(number);
        }
    }

    /// What may come before the start and after an end.
    pub(super) fn check_order(&self, event: &Event) -> Result<(), IllegalEvent> {
        let kind = event.kind();
        if matches!(event, Event::RunStarted { .. }) == self.started_at.is_some() {
            return Err(IllegalEvent::NotFirst { kind });
        }
        if let Some(step) = event.step()
            && self.flow.number(step).is_none()
        {
            return Err(IllegalEvent::UnknownStep(step.clone()));
        }
        let Some((outcome, _)) = self.finished else { return Ok(()) };
        let word = match event {
            Event::WordRefused { .. } => true,
            Event::RollbackRequested { .. } => outcome != Outcome::RolledBack,
            Event::RunResumed { .. }
            | Event::RunAmended { .. }
            | Event::StepAnswered { .. }
            | Event::StepAssigned { .. }
            | Event::SkipRequested { .. }
            | Event::DeviationRequested { .. }
            | Event::DeviationAnswered { .. } => !outcome.is_final(),
            _ => false,
        };
        if word { Ok(()) } else { Err(IllegalEvent::Finished { kind, outcome }) }
    }

    pub(super) fn numbered(&self, step: &StepId) -> Result<usize, IllegalEvent> {
        self.flow.number(step).ok_or_else(|| IllegalEvent::UnknownStep(step.clone()))
    }

    fn running_attempt(&self, step: &StepId, attempt: u32) -> Result<usize, IllegalEvent> {
        let number = self.numbered(step)?;
        if self.steps[number].status != Status::Running {
            return Err(refuse(step, "is not running; its result comes too late"));
        }
        if self.steps[number].attempts != attempt {
            return Err(refuse(step, format!("runs attempt {}, not {attempt}", self.steps[number].attempts)));
        }
        Ok(number)
    }

    fn on_attempt_started(
        &mut self,
        step: &StepId,
        attempt: u32,
        before: &Value,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        let number = self.numbered(step)?;
        self.check_start(number, attempt, at)?;
        let chosen = self.chosen.contains(&number);
        self.unqueue(number);
        if !chosen {
            self.unchoose();
        }
        self.take_locks(number);
        self.running.insert(number);
        let (keep_latest, keep_first) = (self.is(Mutant::LaterBeforeImage), self.is(Mutant::KeepsOldImage));
        let step = &mut self.steps[number];
        step.status = Status::Running;
        step.attempts += 1;
        step.tries += 1;
        step.when_checked = true;
        step.dirty_before = step.dirty;
        step.begins(at);
        step.finished_at = KeptTime::NONE;
        // An attempt that failed before it could look has no image; the first one that looked has the first.
        if step.before.is_empty() || (step.looks_afresh && !keep_first) || keep_latest {
            step.before = Kept::new(before);
        }
        step.looks_afresh = false;
        Ok(())
    }

    fn check_start(&self, number: usize, attempt: u32, at: Timestamp) -> Result<(), IllegalEvent> {
        let step = &self.flow.steps()[number].id;
        let status = self.steps[number].status;
        let ready = (status == Status::Ready && self.rule(number).wait.is_none())
            || matches!(status, Status::Pause(due) if due <= at);
        if !ready || self.skip_requests.contains_key(&number) {
            return Err(refuse(step, "is not ready to start"));
        }
        if !self.may_start() || self.stage_slot() != Some(self.rule(number).phase.slot()) {
            return Err(refuse(step, "may not start: the run starts nothing of this phase now"));
        }
        if attempt != self.steps[number].attempts + 1 {
            return Err(refuse(
                step,
                format!("starts attempt {} next, not {attempt}", self.steps[number].attempts + 1),
            ));
        }
        if self.running.len() >= self.room() {
            return Err(refuse(step, "may not start: enough attempts run already"));
        }
        let held = |lock| self.held.get(lock).is_some_and(|holder| self.running.contains(holder));
        if !self.is(Mutant::IgnoresLocks) && self.rule(number).locks.iter().any(held) {
            return Err(refuse(step, "may not start: another step holds one of its locks"));
        }
        Ok(())
    }

    pub(super) fn leaves_running(&mut self, number: usize) {
        self.running.remove(&number);
        self.free_locks(number);
    }

    pub(super) fn succeeds(&mut self, number: usize, outputs: &Outputs, at: Timestamp) {
        self.is_done(number, outputs, at);
        self.settled(number);
    }

    /// A step is done; nobody behind it is told.
    pub(super) fn is_done(&mut self, number: usize, outputs: &Outputs, at: Timestamp) {
        let step = &mut self.steps[number];
        step.status = Status::Succeeded;
        step.outputs = if outputs.is_empty() { Kept::default() } else { Kept::new(outputs) };
        step.error = None;
        step.dirty = false;
        step.finished_at = KeptTime::new(at);
        self.completed.push(number);
    }

    fn on_attempt_failed(&mut self, number: usize, error: &str, effect: Effect, retryable: bool, at: Timestamp) {
        self.leaves_running(number);
        let rule = self.rule(number);
        let (retry, idempotent) = (rule.retry, rule.idempotent);
        let clean = effect == Effect::None && !self.steps[number].dirty_before;
        let may_repeat = clean || idempotent != Idempotent::No || self.is(Mutant::RetriesUnknown);
        let left = self.steps[number].tries < self.attempts_max(number) || self.is(Mutant::RetriesForEver);
        let again = retryable && may_repeat && self.may_start() && left;
        let is_cut_off = self.strict && !self.needs_are_met(number);
        let step = &mut self.steps[number];
        step.error = Some(error.into());
        step.finished_at = KeptTime::new(at);
        step.dirty = step.dirty_before || effect == Effect::Unknown;
        if again && is_cut_off {
            // What it needs was taken back while it worked: it stands in line again.
            self.line_up(number);
        } else if again {
            let due = later(at, retry.pause_ms(step.tries));
            step.status = Status::Pause(due);
            self.pauses.insert((due, number));
        } else {
            self.fails(number);
        }
    }

    /// A step failed for good.
    pub(super) fn fails(&mut self, number: usize) {
        self.steps[number].status = Status::Failed;
        self.settled(number);
        let rule = self.rule(number);
        let (phase, optional) = (rule.phase, rule.optional);
        if optional {
            return;
        }
        self.failed[usize::from(phase == Phase::Finally)] += 1;
        self.weigh_failure(number);
    }

    /// What the failure of a step means for the run; the gravest one counts, the earliest of them gives the reason.
    pub(super) fn weigh_failure(&mut self, number: usize) {
        let rule = self.rule(number);
        let (phase, on_failure) = (rule.phase, rule.on_failure);
        if rule.optional {
            return;
        }
        let verdict = match phase {
            Phase::Preflight => Verdict::of(on_failure).min(Verdict::Stop),
            Phase::Main => Verdict::of(on_failure),
            Phase::Finally => Verdict::None,
        };
        if verdict > self.verdict {
            self.why = Some(format!("step `{}` failed", self.id(number)));
            self.verdict = verdict;
        }
    }

    fn on_skipped(&mut self, step: &StepId, reason: &SkipReason, at: Timestamp) -> Result<(), IllegalEvent> {
        let number = self.numbered(step)?;
        let slot = self.rule(number).phase.slot();
        let expected = match reason {
            SkipReason::When => {
                let ready = matches!(self.steps[number].status, Status::Ready);
                ready && self.rule(number).has_when && !self.steps[number].when_checked
            }
            SkipReason::Need(need) => self.to_skip[slot].get(&number).is_some_and(|&on| self.id(on) == *need),
            SkipReason::Person { .. } => self.skip_requests.get(&number) == Some(reason),
        };
        if !expected {
            return Err(refuse(step, "cannot be passed over for this reason now"));
        }
        self.unqueue(number);
        self.skip_requests.remove(&number);
        self.stops_waiting(number);
        let step = &mut self.steps[number];
        step.status = Status::Skipped;
        step.skipped = Some(Box::new(reason.clone()));
        step.finished_at = KeptTime::new(at);
        self.note_skip(number, reason, at);
        self.settled(number);
        Ok(())
    }

    fn on_probed(&mut self, step: &StepId, attempt: u32, finding: &Finding, at: Timestamp) -> Result<(), IllegalEvent> {
        let number = self.numbered(step)?;
        if self.steps[number].status != Status::Doubt || self.steps[number].attempts != attempt {
            return Err(refuse(step, "has no attempt in doubt that is to be probed"));
        }
        self.doubts.remove(&number);
        match finding {
            Finding::Done(outputs) => self.succeeds(number, outputs, at),
            Finding::NotDone => self.did_not_run(number),
            Finding::Unknown => self.cannot_be_told(number),
        }
        Ok(())
    }

    /// An attempt in doubt turned out to have changed nothing.
    pub(super) fn did_not_run(&mut self, number: usize) {
        // Where a person's word or a probe is needed, it is about the step and not about its latest attempt alone.
        let repeats = self.rule(number).idempotent != Idempotent::No;
        self.steps[number].dirty = self.steps[number].dirty_before && repeats;
        self.line_up(number);
    }

    /// Nothing but its declared idempotency, or a person, can resolve a doubt.
    pub(super) fn cannot_be_told(&mut self, number: usize) {
        if self.rule(number).idempotent != Idempotent::No || self.is(Mutant::RerunsDoubt) {
            self.line_up(number);
        } else if self.is(Mutant::DoubtIsFailure) {
            self.steps[number].dirty = false;
            self.fails(number);
        } else {
            self.steps[number].status = Status::Asked;
            self.asked.insert(number);
        }
    }

    fn on_timed_out(&mut self, at: Timestamp) -> Result<(), IllegalEvent> {
        if self.deadline().is_none_or(|deadline| at < deadline) {
            return Err(IllegalEvent::Run { kind: "run_timed_out", why: "the time of the run is not over" });
        }
        self.timed_out = true;
        self.weigh_timeout();
        Ok(())
    }

    pub(super) fn weigh_timeout(&mut self) {
        let verdict = match (Verdict::of(self.flow.run().on_failure).max(Verdict::Stop), self.stage) {
            (Verdict::Rollback, Stage::Preflight) => Verdict::Stop,
            (verdict, _) => verdict,
        };
        if verdict > self.verdict {
            self.verdict = verdict;
            self.why = Some("the run took longer than its `timeout`".to_owned());
        }
    }

    fn on_finished(&mut self, outcome: Outcome, note: Option<&str>, at: Timestamp) -> Result<(), IllegalEvent> {
        if self.conclusion() != Some(outcome) {
            return Err(IllegalEvent::Run { kind: "run_finished", why: "the run is not at this end" });
        }
        self.finished = Some((outcome, at));
        self.at_barrier = self.stage == Stage::Rollback && self.undo_stack.is_empty() && self.barrier.is_some();
        match outcome {
            Outcome::Succeeded => self.established = true,
            Outcome::RolledBack => self.established = self.is(Mutant::RollbackKeepsMilestones),
            Outcome::Failed | Outcome::Stuck | Outcome::Cancelled | Outcome::Waiting => {}
        }
        self.note = note.map(ToOwned::to_owned);
        Ok(())
    }
}

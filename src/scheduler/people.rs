//! What people may say: answers to waiting steps and to doubts. What they want against the runbook is in `deviations`.

use jiff::Timestamp;
use serde_json::Value;

use super::apply::refuse;
use super::deviations::{Deviation, Override, Proposal};
use super::form;
use super::kept::KeptTime;
use super::mutant::Mutant;
use super::refusal::IllegalEvent;
use super::reminders::Told;
use super::state::{Stage, State, Status};
use crate::event::{Answer, Departure, Event, Outcome, Outputs, SkipReason, WaitKind};
use crate::ids::{Actor, StepId};

impl State {
    /// A person says something.
    pub(super) fn hear(&mut self, event: &Event, at: Timestamp) -> Result<(), IllegalEvent> {
        match event {
            Event::StepAnswered { step, by, answer } => self.on_answered(step, by, answer, at),
            Event::StepAssigned { step, by, to, reason: _ } => self.on_assigned(step, by, to, at),
            Event::SkipRequested { step, by, reason } => self.on_wanted(Some(step), (by, reason), &Departure::Skip, at),
            Event::DeviationRequested { step, by, what, reason } => {
                self.on_wanted(step.as_ref(), (by, reason), what, at)
            }
            Event::DeviationAnswered { step, by, answer } => self.on_consent(step.as_ref(), by, answer, at),
            // To stop is always safe, so anybody may have it.
            Event::CancelRequested { .. } => {
                self.cancels += 1;
                Ok(())
            }
            Event::RollbackRequested { by, reason, .. } => {
                self.check_identity(None, by)?;
                self.on_rollback_requested(reason, at)
            }
            _ => Err(IllegalEvent::Run { kind: event.kind(), why: "it is no word of a person" }),
        }
    }

    pub(super) fn on_waiting(
        &mut self,
        step: &StepId,
        wait: WaitKind,
        (prompt, input): (&str, Option<&str>),
        expires_at: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        let number = self.numbered(step)?;
        let slot = self.rule(number).phase.slot();
        let kind = self.rule(number).wait.as_ref().map(|rule| rule.kind);
        if !self.to_open[slot].contains(&number) || kind != Some(wait) {
            return Err(refuse(step, "has nothing to wait for now"));
        }
        if !self.may_start() || self.stage_slot() != Some(slot) {
            return Err(refuse(step, "may not start: the run starts nothing of this phase now"));
        }
        self.unqueue(number);
        let step = &mut self.steps[number];
        step.status = Status::Waiting;
        step.when_checked = true;
        step.begins(at);
        step.finished_at = KeptTime::NONE;
        self.opens(number, (prompt, input), expires_at, at);
        Ok(())
    }

    /// A question is put.
    pub(super) fn opens(
        &mut self,
        number: usize,
        (prompt, input): (&str, Option<&str>),
        expires_at: Option<Timestamp>,
        at: Timestamp,
    ) {
        let ends_at = self.ends_at(number, expires_at);
        let assignee = self.question(number).and_then(|rule| rule.assignee.clone());
        self.waiting.insert(number);
        self.expiries.extend(ends_at.map(|ends_at| (ends_at, number)));
        let asked = self.steps[number].asked();
        asked.since = Some(at);
        asked.expires_at = expires_at;
        asked.ends_at = ends_at;
        asked.told = Told::default();
        asked.assignee = assignee;
        asked.for_undo = false;
        asked.prompt = Some(prompt.to_owned());
        asked.input = input.map(str::to_owned);
    }

    pub(super) fn stops_waiting(&mut self, number: usize) {
        self.waiting.remove(&number);
        if let Some(asked) = &mut self.steps[number].asked {
            asked.expires_at = None;
            if let Some(ends_at) = asked.ends_at.take() {
                self.expiries.remove(&(ends_at, number));
            }
        }
    }

    pub(super) fn on_expired(&mut self, step: &StepId, at: Timestamp) -> Result<(), IllegalEvent> {
        let number = self.numbered(step)?;
        if self.steps[number].ends_at().is_none_or(|ends_at| ends_at > at) {
            return Err(refuse(step, "does not wait, or its time is not over"));
        }
        let for_undo = self.steps[number].status == Status::UndoWaiting;
        self.stops_waiting(number);
        let why = "nobody answered in time".to_owned();
        if for_undo {
            self.undo_was_not_done(number, &why);
            return Ok(());
        }
        self.steps[number].error = Some(why.into());
        self.steps[number].finished_at = KeptTime::new(at);
        self.fails(number);
        Ok(())
    }

    pub(super) fn on_answered(
        &mut self,
        step: &StepId,
        by: &Actor,
        answer: &Answer,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        let number = self.numbered(step)?;
        self.check_answer(number, by, answer, at)?;
        self.steps[number].asked().answers.push((by.clone(), answer.clone(), at));
        match answer {
            Answer::Approved { .. } => {
                let people = self.approvers(number);
                let quorum = self.rule(number).wait.as_ref().map_or(1, |rule| rule.quorum.max(1));
                if people.len() >= usize::try_from(quorum).unwrap_or(usize::MAX) {
                    self.stops_waiting(number);
                    let names = people.into_iter().map(|name| Value::String(name.as_str().to_owned())).collect();
                    self.succeeds(number, &Outputs::from([("approved_by".to_owned(), names)]), at);
                }
            }
            Answer::Withdrawn { .. } => {}
            Answer::Rejected { comment } => {
                let for_undo = self.steps[number].status == Status::UndoWaiting;
                self.stops_waiting(number);
                let why = comment.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
                let why = format!("rejected by `{by}`{why}");
                if for_undo {
                    self.undo_was_not_done(number, &why);
                } else {
                    self.steps[number].error = Some(why.into());
                    self.steps[number].finished_at = KeptTime::new(at);
                    self.fails(number);
                }
            }
            Answer::Completed { form, .. } => {
                let for_undo = self.steps[number].status == Status::UndoWaiting;
                self.stops_waiting(number);
                if for_undo { self.undone_by_hand(number, at) } else { self.succeeds(number, form, at) }
            }
            Answer::Ran { outputs, .. } => {
                self.leaves_doubt(number);
                self.succeeds(number, outputs, at);
            }
            Answer::NotRan { .. } => {
                self.leaves_doubt(number);
                self.did_not_run(number);
            }
            Answer::Undone { .. } => self.undone_by_hand(number, at),
            Answer::Left { reason } => {
                let (what, by, reason) = (Departure::Leave, by.clone(), reason.clone());
                let voices = vec![by.clone()];
                self.left_done(number, &Proposal { what, by, reason, at, expires_at: None, voices }, at);
            }
        }
        if self.finished.is_some_and(|(outcome, _)| outcome == Outcome::Waiting) {
            self.finished = None;
            self.note = None;
        }
        Ok(())
    }

    fn leaves_doubt(&mut self, number: usize) {
        self.doubts.remove(&number);
        self.asked.remove(&number);
    }

    /// People who approved since the wait was opened and did not take it back.
    pub(super) fn approvers(&self, number: usize) -> Vec<Actor> {
        let mut people = Vec::new();
        for (by, answer, _) in self.steps[number].answers() {
            match answer {
                Answer::Approved { .. } => people.push(by.clone()),
                Answer::Withdrawn { .. } => people.retain(|person| person != by),
                _ => {}
            }
        }
        people
    }

    /// Whether it is known well enough who this is for a word about the run.
    pub fn knows(&self, by: &Actor) -> bool {
        self.check_identity(None, by).is_ok()
    }

    /// Refuses somebody who is not known well enough; `step`: whose rule counts beside that of the run.
    pub(super) fn check_identity(&self, step: Option<usize>, by: &Actor) -> Result<(), IllegalEvent> {
        let rule = step.and_then(|number| self.question(number)).map(|rule| rule.identity);
        let needed = self.flow.run().identity.max(rule.unwrap_or_default());
        let what = step.map_or_else(|| "the site".to_owned(), |number| format!("step `{}`", self.id(number)));
        if by.level() < needed {
            return Err(IllegalEvent::Identity { by: by.clone(), what, is: by.level(), needed });
        }
        Ok(())
    }

    /// Refuses somebody who may not answer this wait, whatever it is that they say about it.
    pub(super) fn check_person(&self, number: usize, by: &Actor, at: Timestamp) -> Result<(), IllegalEvent> {
        let Some(rule) = self.question(number) else { return Ok(()) };
        let step = &self.flow.steps()[number].id;
        let refuse = |why| Err(IllegalEvent::Answer { step: step.clone(), by: by.clone(), why });
        if rule.exclude.contains(by) && !self.is(Mutant::AnyoneAnswers) {
            return refuse("this person is excluded from answering");
        }
        if self.who_may_answer(number, at).is_some_and(|people| !people.contains(by)) {
            return refuse("this person is not among those who may answer");
        }
        Ok(())
    }

    fn check_answer(&self, number: usize, by: &Actor, answer: &Answer, at: Timestamp) -> Result<(), IllegalEvent> {
        let step = &self.flow.steps()[number].id;
        let status = self.steps[number].status;
        let kind = self.question(number).map(|rule| rule.kind);
        let is_asked = self.is_asked(number);
        let fits = match answer {
            Answer::Approved { .. } | Answer::Withdrawn { .. } => {
                status == Status::Waiting && kind == Some(WaitKind::Approval)
            }
            Answer::Completed { .. } => is_asked && kind == Some(WaitKind::Manual),
            Answer::Rejected { .. } => is_asked,
            Answer::Undone { .. } | Answer::Left { .. } => status == Status::UndoFailed,
            Answer::Ran { .. } | Answer::NotRan { .. } => {
                // During rollback a doubt is resolved by undoing, not by asking.
                matches!(status, Status::Doubt | Status::Asked) && self.stage != Stage::Rollback
            }
        };
        if !fits {
            return Err(refuse(step, "does not wait for this answer"));
        }
        self.check_identity(Some(number), by)?;
        if matches!(answer, Answer::Left { .. }) && !self.decides_alone(Some(step), by) {
            let why = "to leave it is a deviation, to which more people must agree; ask for it as one";
            return Err(IllegalEvent::Answer { step: step.clone(), by: by.clone(), why });
        }
        if matches!(answer, Answer::Undone { .. }) {
            self.check_undoer(number, by, at)?;
        }
        if !is_asked {
            return Ok(());
        }
        self.check_person(number, by, at)?;
        self.check_assignee(number, by)?;
        let refuse = |why| Err(IllegalEvent::Answer { step: step.clone(), by: by.clone(), why });
        let asked = self.steps[number].asked.as_ref();
        let is_bound = asked.is_some_and(|asked| asked.input.is_some());
        let is_over = self.steps[number].ends_at().is_some_and(|ends_at| ends_at <= at);
        if is_bound && is_over && !self.is(Mutant::TakesLateAnswers) {
            return refuse("the time to answer is over");
        }
        if let Answer::Completed { form, evidence, .. } = answer {
            self.check_form(number, form, evidence.is_empty())?;
        }
        let has_approved = self.approvers(number).contains(by);
        match answer {
            Answer::Approved { .. } if has_approved && !self.is(Mutant::CountsRepeatedApprovals) => {
                refuse("this person has approved already; somebody else must")
            }
            Answer::Withdrawn { .. } if !has_approved => refuse("this person has given no approval that still counts"),
            _ => Ok(()),
        }
    }

    /// Refuses a form that does not fit, and work by hand without the evidence that it wants.
    fn check_form(&self, number: usize, form: &Outputs, is_bare: bool) -> Result<(), IllegalEvent> {
        let Some(rule) = self.question(number).filter(|_| self.strict) else { return Ok(()) };
        if rule.wants_evidence && is_bare {
            return Err(refuse(&self.id(number), "wants evidence, and there is none"));
        }
        match form::wrong(&rule.form, form) {
            Some(why) if !self.is(Mutant::TakesAnyForm) => {
                Err(refuse(&self.id(number), format!("is not filled in right: {why}")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn note_skip(&mut self, number: usize, reason: &SkipReason, at: Timestamp) {
        let agreed = self.agreed_skips.remove(&number).unwrap_or_default();
        if let SkipReason::Person { by, reason, deviation: true } = reason {
            self.deviations.push(Deviation {
                what: Override::Skipped,
                step: Some(self.id(number)),
                extended: None,
                by: by.clone(),
                agreed,
                reason: reason.clone(),
                at,
            });
        }
    }
}

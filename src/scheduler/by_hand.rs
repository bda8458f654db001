//! Work by hand: who is to do it, and undoing by hand on the way back.
//!
//! The rules of a question are those of the step, or of its undo while that is what is asked.

use jiff::Timestamp;

use super::apply::refuse;
use super::mutant::Mutant;
use super::refusal::IllegalEvent;
use super::state::{State, Status};
use super::workflow::WaitRule;
use crate::event::WaitKind;
use crate::ids::{Actor, StepId};

impl State {
    /// The rules of what a step asks of people, or would ask.
    pub(super) fn question(&self, number: usize) -> Option<&WaitRule> {
        let rule = self.rule(number);
        if self.asks_of_undo(number) { &rule.undo_wait } else { &rule.wait }.as_deref()
    }

    /// Whether what people are asked is to undo it, or was, and it could not be done.
    fn asks_of_undo(&self, number: usize) -> bool {
        let step = &self.steps[number];
        let failed = step.status == Status::UndoFailed && step.asked.as_ref().is_some_and(|asked| asked.for_undo);
        step.status == Status::UndoWaiting || failed
    }

    /// Refuses somebody who says that it was undone and who was not to undo it.
    pub(super) fn check_undoer(&self, number: usize, by: &Actor, at: Timestamp) -> Result<(), IllegalEvent> {
        if self.asks_of_undo(number) { self.check_person(number, by, at) } else { Ok(()) }
    }

    /// Whether it waits for an answer now.
    pub(super) fn is_asked(&self, number: usize) -> bool {
        matches!(self.steps[number].status, Status::Waiting | Status::UndoWaiting)
    }

    pub(super) fn on_undo_waiting(
        &mut self,
        step: &StepId,
        (prompt, input): (&str, &str),
        expires_at: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        let number = self.numbered(step)?;
        self.check_undo(number)?;
        if self.rule(number).undo_wait.is_none() {
            return Err(refuse(step, "is not undone by hand"));
        }
        if self.is(Mutant::AskingUndoes) {
            self.undone(number, at);
            return Ok(());
        }
        self.steps[number].status = Status::UndoWaiting;
        self.steps[number].forget_answers();
        self.opens(number, (prompt, Some(input)), expires_at, at);
        self.steps[number].asked().for_undo = true;
        Ok(())
    }

    /// An undo by hand that nobody did, or that somebody says cannot be done: only people can move the rollback.
    pub(super) fn undo_was_not_done(&mut self, number: usize, why: &str) {
        self.steps[number].error = Some(format!("undo: {why}").into());
        self.steps[number].status = Status::UndoFailed;
    }

    /// Has an undo be asked for anew, or done, by other rules than those by which it was asked.
    pub(super) fn asks_undo_again(&mut self, number: usize) {
        if self.steps[number].status == Status::UndoWaiting {
            self.stops_waiting(number);
            self.steps[number].forget_answers();
            self.steps[number].status = Status::UndoDue;
        }
    }

    pub(super) fn on_assigned(
        &mut self,
        step: &StepId,
        by: &Actor,
        to: &Actor,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        let number = self.numbered(step)?;
        let by_hand = self.question(number).is_some_and(|rule| rule.kind == WaitKind::Manual);
        if !self.is_asked(number) || !by_hand {
            return Err(refuse(step, "does not wait for work by hand; there is nothing to hand over"));
        }
        self.check_identity(Some(number), by)?;
        self.check_person(number, by, at)?;
        let refused = |by: &Actor, why| Err(IllegalEvent::Answer { step: step.clone(), by: by.clone(), why });
        if self.steps[number].ends_at().is_some_and(|ends_at| ends_at <= at) {
            return refused(by, "the time to answer is over");
        }
        if self.check_person(number, to, at).is_err() {
            return refused(by, "whoever it is to be handed over to may not answer it");
        }
        if self.assignee(number) == Some(to) {
            return refused(by, "it is that person's already");
        }
        self.steps[number].asked().assignee = Some(to.clone());
        Ok(())
    }

    pub(super) fn assignee(&self, number: usize) -> Option<&Actor> {
        self.steps[number].asked.as_ref().and_then(|asked| asked.assignee.as_ref())
    }

    /// Refuses whoever answers what is somebody else's to do.
    pub(super) fn check_assignee(&self, number: usize, by: &Actor) -> Result<(), IllegalEvent> {
        match self.assignee(number) {
            Some(assignee) if assignee != by && !self.is(Mutant::AnswersForOthers) => Err(IllegalEvent::Answer {
                step: self.id(number),
                by: by.clone(),
                why: "it is assigned to somebody else; have it handed over first",
            }),
            _ => Ok(()),
        }
    }
}

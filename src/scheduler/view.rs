//! One step of a run as reports and the driver see it. Changes nothing.

use jiff::Timestamp;
use serde_json::Value;

use super::state::{State, Status, Step, StepState};
use super::workflow::{StepRule, WaitRule};
use crate::event::{Answer, Outputs, SkipReason};
use crate::ids::Actor;

/// What is known of one step, for reports and for the driver.
#[derive(Debug, Clone, Copy)]
pub struct StepView<'a> {
    state: &'a State,
    number: usize,
}

impl<'a> StepView<'a> {
    pub(super) fn new(state: &'a State, number: usize) -> Self {
        Self { state, number }
    }

    fn step(&self) -> &'a Step {
        &self.state.steps[self.number]
    }

    /// Its rules, the id among them.
    pub fn rule(&self) -> &'a StepRule {
        &self.state.flow.steps()[self.number]
    }

    /// Where it stands.
    pub fn state(&self) -> StepState {
        match self.step().status {
            Status::Pending => StepState::Pending,
            Status::Ready | Status::Pause(_) => StepState::Ready,
            Status::Running => StepState::Running,
            Status::Waiting => StepState::Waiting,
            Status::Doubt | Status::Asked => StepState::InDoubt,
            Status::Succeeded => StepState::Succeeded,
            Status::Failed => StepState::Failed,
            Status::Skipped => StepState::Skipped,
            Status::Undoing | Status::UndoWaiting | Status::UndoPause(_) | Status::UndoDue | Status::UndoFailed => {
                StepState::Undoing
            }
            Status::Undone => StepState::Undone,
        }
    }

    /// Attempts started so far.
    pub fn attempts(&self) -> u32 {
        self.step().attempts
    }

    /// Attempts at undoing started so far.
    pub fn undo_attempts(&self) -> u32 {
        self.step().undo_attempts
    }

    /// When its first attempt started or its wait opened.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.step().started_at.get()
    }

    /// When it ended.
    pub fn finished_at(&self) -> Option<Timestamp> {
        self.step().finished_at.get()
    }

    /// When the time to answer is over, while it waits.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.step().ends_at()
    }

    /// When more people are asked, while it waits and they are not.
    pub fn escalates_at(&self) -> Option<Timestamp> {
        let asked = self.step().asked.as_ref().filter(|_| self.is_asked())?;
        let more = self.question().is_some_and(|wait| wait.escalation.is_some());
        asked.expires_at.filter(|_| more && !asked.told.escalated)
    }

    /// Whether it waits for an answer of people: to its own question, or to be undone by hand.
    pub fn is_asked(&self) -> bool {
        self.state.is_asked(self.number)
    }

    /// Whether a person is asked to undo it by hand.
    pub fn undo_waits(&self) -> bool {
        self.step().status == Status::UndoWaiting
    }

    /// Whether it is on the way back only to be done again.
    pub fn is_to_be_redone(&self) -> bool {
        self.state.redoing && self.step().status.is_on_the_way_back()
    }

    /// The rules of what it asks of people, or would ask.
    pub fn question(&self) -> Option<&'a WaitRule> {
        self.state.question(self.number)
    }

    /// Whose it is to do, while it waits for work by hand.
    pub fn assignee(&self) -> Option<&'a Actor> {
        self.state.assignee(self.number).filter(|_| self.is_asked())
    }

    /// Since when it waits, or when it was asked last.
    pub fn asked_at(&self) -> Option<Timestamp> {
        self.step().asked.as_ref().and_then(|asked| asked.since)
    }

    /// When people were told of it last.
    pub fn told_at(&self) -> Option<Timestamp> {
        self.step().asked.as_ref().and_then(|asked| asked.told.last_at)
    }

    /// Who may answer it at that time; nothing: anybody but those who are excluded.
    pub fn who_may_answer(&self, at: Timestamp) -> Option<Vec<Actor>> {
        self.state.who_may_answer(self.number, at)
    }

    /// When the next attempt is due, while it pauses.
    pub fn retry_at(&self) -> Option<Timestamp> {
        if let Status::Pause(at) | Status::UndoPause(at) = self.step().status { Some(at) } else { None }
    }

    /// Its named results.
    pub fn outputs(&self) -> Outputs {
        self.step().outputs.get().unwrap_or_default()
    }

    /// What went wrong last.
    pub fn error(&self) -> Option<&'a str> {
        self.step().error.as_deref()
    }

    /// What its first attempt saw before any change; `None` when it saw nothing.
    pub fn before(&self) -> Option<Value> {
        self.step().before.get()
    }

    /// What people were asked.
    pub fn prompt(&self) -> Option<&'a str> {
        self.step().asked.as_ref().and_then(|asked| asked.prompt.as_deref())
    }

    /// The same, unless it was about the undo of the step.
    pub fn own_prompt(&self) -> Option<&'a str> {
        self.prompt().filter(|_| self.step().asked.as_ref().is_some_and(|asked| !asked.for_undo))
    }

    /// What people answered, in order.
    pub fn answers(&self) -> &'a [(Actor, Answer, Timestamp)] {
        self.step().answers()
    }

    /// Who has approved what is asked now, and has not taken it back.
    pub fn approved(&self) -> Vec<Actor> {
        self.state.approvers(self.number)
    }

    /// Digest of the inputs that are asked about, while it waits.
    pub fn asked_input(&self) -> Option<&'a str> {
        self.step().asked.as_ref().and_then(|asked| asked.input.as_deref())
    }

    /// Why it was passed over.
    pub fn skip_reason(&self) -> Option<&'a SkipReason> {
        self.step().skipped.as_deref()
    }

    /// Whether the world may hold traces of an attempt that did not succeed.
    pub fn effect_unknown(&self) -> bool {
        self.step().dirty
    }

    /// Whether it failed, or may start soon, and runs again without a person's word.
    pub fn is_repeatable(&self) -> bool {
        self.state.is_repeatable(self.number)
    }

    /// Whether its undo failed, so that only a person can move the rollback.
    pub fn undo_failed(&self) -> bool {
        self.step().status == Status::UndoFailed
    }

    /// Whether a person undid it since its latest attempt that got ready, so that its action is to be told.
    pub fn undone_by_hand(&self) -> bool {
        self.step().undone_by_hand
    }

    /// Whether only a person can say what its attempt did.
    pub fn asks_a_person(&self) -> bool {
        self.step().status == Status::Asked
    }
}

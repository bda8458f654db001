//! Questions to people: what they answer, and what must hold of it: who may answer, until when, and whose work it is.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use piton::event::{Answer, Outputs, WaitKind};
use piton::ids::{Actor, StepId};
use piton::scheduler::{State, StepState, StepView, WaitRule};

use super::model::{Check, Model, ensure, view};
use super::random::chance;
use super::world::World;

impl Model {
    /// Somebody who is asked, in time.
    pub(super) fn may_answer(&self, rule: &WaitRule, step: &StepId, by: &Actor) -> Check {
        let among = |people: &Option<Vec<Actor>>| people.as_ref().is_none_or(|people| people.contains(by));
        let expiry = self.expiries.get(step).copied().unwrap_or(Timestamp::MAX);
        let more = rule.escalation.as_ref().filter(|_| expiry <= self.now);
        let length = |ms: i64| expiry.saturating_add(SignedDuration::from_millis(ms)).expect("in range");
        let end = match &rule.escalation {
            Some(more) if expiry != Timestamp::MAX => more.expires_ms.map_or(Timestamp::MAX, length),
            _ => expiry,
        };
        ensure(self.now < end, || format!("{by} answers `{step}` too late"))?;
        let allowed = among(&rule.allowed) || more.is_some_and(|more| among(&more.allowed));
        ensure(allowed && !rule.exclude.contains(by), || format!("{by} may not answer `{step}`"))
    }

    /// Somebody whose work it is, if it is somebody's.
    pub(super) fn is_its_assignee(&self, step: &StepId, by: &Actor) -> Check {
        let assignee = self.assignees.get(step);
        ensure(assignee.is_none_or(|assignee| assignee == by), || format!("{by} answers `{step}` for {assignee:?}"))
    }

    /// A question is put to people.
    pub(super) fn is_asked(&mut self, step: &StepId, rule: Option<&WaitRule>, expires_at: Option<Timestamp>) {
        self.account(step).approved.clear();
        self.expiries.remove(step);
        self.expiries.extend(expires_at.map(|at| (step.clone(), at)));
        self.assignees.remove(step);
        let assignee = rule.and_then(|rule| rule.assignee.clone());
        self.assignees.extend(assignee.map(|person| (step.clone(), person)));
    }

    /// Work by hand is handed over by somebody who may answer, to somebody else who may.
    pub(super) fn is_handed_over(&mut self, state: &State, step: &StepId, by: &Actor, to: &Actor) -> Check {
        ensure(view(state, step).is_asked(), || format!("`{step}` is handed over and asks nothing"))?;
        if let Some(rule) = view(state, step).question() {
            self.may_answer(rule, step, by)?;
            self.may_answer(rule, step, to)?;
        }
        let held = self.assignees.insert(step.clone(), to.clone());
        ensure(held.as_ref() != Some(to), || format!("`{step}` is {to}'s already"))
    }
}

/// What is undone to be done again is asked for in the way in which it is undone.
pub(super) fn is_undone_as_before(was: &State, state: &State, step: &StepId) -> Check {
    let by_hand = |state: &State| state.step(step).map(|view| view.rule().undo_wait.is_some());
    let before = by_hand(was);
    ensure(before.is_none() || before == by_hand(state), || {
        format!("`{step}` is undone in one way and asked about in another")
    })
}

impl World {
    pub(super) fn asking_step(&mut self) -> Option<StepId> {
        let asking: Vec<&StepId> = self.state.steps().filter(asks).map(|step| &step.rule().id).collect();
        (!asking.is_empty()).then(|| asking[self.rng.usize(0..asking.len())].clone())
    }

    /// What a person would say about this step: the truth about doubts, most often yes to the rest.
    pub(super) fn answer(&mut self, step: &StepId) -> Answer {
        let no = !self.kind() && chance(&mut self.rng, 15);
        if self.state.step(step).is_some_and(|view| view.undo_failed()) {
            let reason = "did it by hand".to_owned();
            return if no { Answer::Left { reason } } else { Answer::Undone { reason } };
        }
        let asked = self.state.step(step).filter(StepView::undo_waits).map(|_| WaitKind::Manual);
        match asked.or_else(|| self.wait_kind(step)) {
            Some(_) if no => Answer::Rejected { comment: None },
            Some(WaitKind::Approval) if self.rng.u32(0..8) == 0 => Answer::Withdrawn { comment: None },
            Some(WaitKind::Approval) => Answer::Approved { comment: None },
            Some(WaitKind::Manual) => {
                Answer::Completed { form: self.filled_in(step), evidence: BTreeMap::new(), comment: None }
            }
            None if self.did.get(step) == Some(&true) => Answer::Ran { reason: "seen".into(), outputs: Outputs::new() },
            None => Answer::NotRan { reason: "seen".into() },
        }
    }
}

/// Whether a step asks something of people.
pub(super) fn asks(step: &StepView<'_>) -> bool {
    matches!(step.state(), StepState::Waiting | StepState::InDoubt) || step.undo_failed() || step.undo_waits()
}

//! What must hold of questions to people: who may answer, until when, and whose work it is.

use jiff::{SignedDuration, Timestamp};
use piton::ids::{Actor, StepId};
use piton::scheduler::{State, WaitRule};

use super::model::{Check, Model, ensure, view};

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

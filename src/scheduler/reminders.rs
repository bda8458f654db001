//! Who is told when that people are waited for: once they are asked, again after a while, and others when time is over.
//!
//! Nothing here is sent; the driver does, and records it. Others may answer from the time on at which they are to be asked,
//! whether or not a driver was there to tell them.

use jiff::Timestamp;

use super::apply::{later, refuse};
use super::mutant::Mutant;
use super::refusal::IllegalEvent;
use super::state::State;
use crate::event::Occasion;
use crate::ids::{Actor, StepId};

/// What people were told of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    pub(super) asked: bool,
    pub(super) escalated: bool,
    pub(super) last_at: Option<Timestamp>,
}

impl State {
    /// When the time to answer a question is over that was put at `at` and expires at `expires_at`.
    pub(super) fn ends_at(&self, number: usize, expires_at: Option<Timestamp>) -> Option<Timestamp> {
        match self.question(number).and_then(|rule| rule.escalation.as_ref()) {
            Some(more) => expires_at.and_then(|at| more.expires_ms.map(|ms| later(at, ms))),
            None => expires_at,
        }
    }

    /// Who may answer at that time; nothing: anybody but those who are excluded.
    pub(super) fn who_may_answer(&self, number: usize, at: Timestamp) -> Option<Vec<Actor>> {
        let rule = self.question(number)?;
        let asked = self.steps[number].asked.as_ref();
        let over = asked.and_then(|asked| asked.expires_at).is_some_and(|expires_at| expires_at <= at);
        let more = rule.escalation.as_ref().filter(|_| over || self.is(Mutant::EscalatesAtOnce));
        match (&rule.allowed, more.map(|more| &more.allowed)) {
            (None, _) | (_, Some(None)) => None,
            (Some(people), None) => Some(people.clone()),
            (Some(people), Some(Some(more))) => {
                let more = more.iter().filter(|person| !people.contains(person));
                Some(people.iter().chain(more).cloned().collect())
            }
        }
    }

    /// What people are to be told next of a question, and when.
    pub(super) fn tell_due(&self, number: usize) -> Option<(Timestamp, Occasion)> {
        let (rule, asked) = (self.question(number)?, self.steps[number].asked.as_ref()?);
        let since = asked.since?;
        let first = (rule.tells && !asked.told.asked).then_some((since, Occasion::Asked));
        let more = rule.escalation.as_ref().filter(|_| !asked.told.escalated);
        let more = more.and(asked.expires_at).map(|at| (at, Occasion::Escalated));
        let last = asked.told.last_at.unwrap_or(since);
        let again = rule.remind_ms.map(|ms| (later(last, ms), Occasion::Reminded));
        let due = [first, more, again].into_iter().flatten().min_by_key(|(at, _)| *at);
        // Whoever is told when it is over can do nothing about it.
        due.filter(|(at, _)| asked.ends_at.is_none_or(|ends_at| *at < ends_at))
    }

    pub(super) fn on_told(&mut self, step: &StepId, occasion: Occasion, at: Timestamp) -> Result<(), IllegalEvent> {
        let number = self.numbered(step)?;
        let due = self.is_asked(number) && self.is_due(number, occasion, at);
        if !due {
            return Err(refuse(step, "has nothing to tell people now"));
        }
        let told = &mut self.steps[number].asked().told;
        told.last_at = Some(at);
        match occasion {
            Occasion::Asked => told.asked = true,
            Occasion::Escalated => told.escalated = true,
            Occasion::Reminded => {}
        }
        Ok(())
    }

    fn is_due(&self, number: usize, occasion: Occasion, at: Timestamp) -> bool {
        let (Some(rule), Some(asked)) = (self.question(number), self.steps[number].asked.as_ref()) else {
            return false;
        };
        let reached = |due: Option<Timestamp>| due.is_some_and(|due| due <= at);
        match occasion {
            Occasion::Asked => rule.tells && !asked.told.asked,
            Occasion::Escalated => rule.escalation.is_some() && !asked.told.escalated && reached(asked.expires_at),
            Occasion::Reminded => {
                let last = asked.told.last_at.or(asked.since);
                reached(rule.remind_ms.and_then(|ms| last.map(|last| later(last, ms))))
            }
        }
    }
}

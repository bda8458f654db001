//! What must hold of deviations: nothing is done against the runbook without enough voices, and what is done is on the books.

use std::collections::{BTreeMap, BTreeSet};

use piton::event::{Budget, Consent, Departure, Event, Outcome};
use piton::ids::{Actor, StepId};
use piton::scheduler::{DeviationRule, Override, Phase, State, StepState};

use super::model::{Check, Model, ensure, view};

/// What is wanted, and who stands behind it. A skip is kept apart, since it is recorded later than it is agreed to.
#[derive(Debug, Default)]
pub(super) struct Against {
    wanted: BTreeMap<(Option<StepId>, bool), (Departure, BTreeSet<Actor>)>,
    /// The amendment that people agreed to last.
    amendment: Option<(Departure, BTreeSet<Actor>)>,
    /// Steps that a person had start.
    pub(super) forced: BTreeSet<StepId>,
    /// Attempts that people allowed.
    pub(super) attempts: BTreeMap<StepId, u32>,
}

fn rule<'s>(state: &'s State, step: Option<&StepId>) -> Option<&'s DeviationRule> {
    match step {
        Some(step) => view(state, step).rule().deviations.as_deref(),
        None => state.workflow().run().deviations.as_deref(),
    }
}

fn counts(state: &State, step: Option<&StepId>, by: &Actor) -> bool {
    rule(state, step)
        .is_none_or(|rule| !rule.exclude.contains(by) && rule.allowed.as_ref().is_none_or(|people| people.contains(by)))
}

impl Against {
    /// A word is about to be true.
    pub(super) fn hears(&mut self, state: &State, event: &Event) {
        match event {
            Event::SkipRequested { step, by, .. } => self.wants(state, Some(step), by, &Departure::Skip),
            Event::DeviationRequested { step, by, what, .. } => self.wants(state, step.as_ref(), by, what),
            Event::DeviationAnswered { step, by, answer } => {
                let is_skip = state.proposal(step.as_ref()).is_some_and(|proposal| proposal.what == Departure::Skip);
                let Some((_, voices)) = self.wanted.get_mut(&(step.clone(), is_skip)) else { return };
                match answer {
                    Consent::Agreed { .. } if counts(state, step.as_ref(), by) => drop(voices.insert(by.clone())),
                    Consent::Retracted { .. } => drop(voices.remove(by)),
                    Consent::Denied { .. } => voices.clear(),
                    Consent::Agreed { .. } => {}
                }
            }
            _ => {}
        }
    }

    fn wants(&mut self, state: &State, step: Option<&StepId>, by: &Actor, what: &Departure) {
        let voices = counts(state, step, by).then(|| by.clone()).into_iter().collect();
        self.wanted.insert((step.cloned(), *what == Departure::Skip), (what.clone(), voices));
    }

    /// Enough people stand behind what was wanted of this step or of the run.
    fn enough(&self, state: &State, step: Option<&StepId>, is_skip: bool) -> Check {
        let Some(rule) = rule(state, step) else { return Ok(()) };
        let voices = self.wanted.get(&(step.cloned(), is_skip)).map_or(0, |(_, voices)| voices.len());
        ensure(voices >= rule.quorum as usize, || {
            format!("{step:?}: a deviation with {voices} voices, though {} are wanted", rule.quorum)
        })
    }

    /// An amendment is about to be made in `was`.
    pub(super) fn is_amended(&self, was: &State, event: &Event) -> Check {
        let Event::RunAmended { by, digest, steps, .. } = event else { return Ok(()) };
        let Some(rule) = rule(was, None) else { return Ok(()) };
        let alone = rule.quorum <= 1 && counts(was, None, by);
        let what = Departure::Amend { digest: digest.clone(), steps: steps.clone() };
        let agreed = match &self.wanted.get(&(None, false)) {
            Some((wanted, voices)) if *wanted == what => voices.len(),
            _ => self.amendment.as_ref().filter(|(agreed, _)| *agreed == what).map_or(0, |(_, voices)| voices.len()),
        };
        ensure(alone || agreed >= rule.quorum as usize, || {
            format!("an amendment with {agreed} voices, though {} are wanted", rule.quorum)
        })
    }

    /// Another plan: nothing that was wanted or allowed before holds.
    pub(super) fn forgets(&mut self, state: &State) {
        self.wanted.clear();
        self.amendment = None;
        self.forced.clear();
        self.attempts.clear();
        let _ = state;
    }
}

impl Model {
    /// Looks at what a word, or the record of a skip, did.
    pub(super) fn saw_deviation(&mut self, was: &State, state: &State, event: &Event) -> Check {
        let done = &state.deviations()[was.deviations().len().min(state.deviations().len())..];
        for deviation in done {
            let is_skip = deviation.what == Override::Skipped;
            let by_word = matches!(event, Event::DeviationRequested { .. } | Event::DeviationAnswered { .. });
            ensure(by_word || is_skip || deviation.what == Override::LeftDone, || {
                format!("{:?} came of {}", deviation.what, event.kind())
            })?;
            if by_word || is_skip {
                self.against.enough(was, deviation.step.as_ref(), is_skip)?;
            }
            self.deviates(was, state, event, deviation.what)?;
        }
        // A failed step that is to be passed over is as if it had not come to it.
        if let Some(step) = event.step().filter(|step| view(state, step).state() == StepState::Pending)
            && matches!(event, Event::SkipRequested { .. } | Event::DeviationAnswered { .. })
            && view(was, step).state() == StepState::Failed
        {
            let account = self.account(step);
            account.failures = 0;
            if !account.maybe {
                account.before = None;
            }
        }
        let wish = match event {
            Event::DeviationRequested { step: None, .. } | Event::DeviationAnswered { step: None, .. } => {
                self.against.wanted.get(&(None, false)).cloned()
            }
            _ => None,
        };
        if let Some((what @ Departure::Amend { .. }, voices)) = wish {
            let enough = rule(was, None).is_none_or(|rule| voices.len() >= rule.quorum as usize);
            if enough {
                self.against.amendment = Some((what, voices));
            }
        }
        Ok(())
    }

    fn deviates(&mut self, was: &State, state: &State, event: &Event, what: Override) -> Check {
        let Some(step) = event.step() else { return Ok(()) };
        let place = self.place;
        match what {
            Override::Forced => {
                let fine = view(was, step).state() == StepState::Skipped;
                ensure(fine, || format!("`{step}` was forced and had not been passed over"))?;
                self.against.forced.insert(step.clone());
            }
            Override::MarkedDone => {
                let fits = matches!(
                    view(was, step).state(),
                    StepState::Pending | StepState::Ready | StepState::Failed | StepState::Skipped
                );
                ensure(fits, || format!("`{step}` was marked as done while it was {:?}", view(was, step).state()))?;
                let account = self.account(step);
                ensure(!account.succeeded, || format!("`{step}` is done twice"))?;
                account.is_declared_done(place);
                let rests = was.outcome().is_some_and(|outcome| outcome != Outcome::Waiting);
                if rests && view(was, step).rule().phase != Phase::Finally {
                    for step in was.steps().filter(|step| step.rule().phase == Phase::Finally) {
                        self.finally_is_new(step, false);
                    }
                }
            }
            Override::LeftDone if !matches!(event, Event::StepAnswered { .. }) => {
                ensure(view(was, step).undo_failed(), || format!("`{step}` is not a failed undo"))?;
                self.account(step).left = true;
                self.is_settled(state, step);
            }
            Override::Extended => {
                if let Some((Budget::Attempts { count }, had)) =
                    state.deviations().last().and_then(|deviation| deviation.extended.as_ref())
                {
                    ensure(i64::from(*count) > *had, || format!("`{step}` was extended to less"))?;
                    self.against.attempts.insert(step.clone(), *count);
                }
            }
            Override::Skipped | Override::LeftDone | Override::RanAgain | Override::Amended => {}
        }
        // Whoever was passed over and has a turn after all has it with a fresh budget.
        for now in state.steps() {
            let id = &now.rule().id;
            if view(was, id).state() == StepState::Skipped && now.state() != StepState::Skipped && id != step
                || what == Override::Forced && id == step
            {
                let account = self.account(id);
                account.failures = 0;
                if !account.maybe {
                    account.before = None;
                }
            }
        }
        Ok(())
    }
}

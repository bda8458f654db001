//! Deviations: what people want against the runbook, and how many of them must stand behind it.
//!
//! Owned here: proposals, voices and the books of what was done. What each deviation does to the state is in
//! `departures`. Refused: who may not have a voice, a voice that comes twice or late, and what cannot be done now.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::apply::{later, refuse};
use super::mutant::Mutant;
use super::refusal::IllegalEvent;
use super::state::State;
use super::workflow::DeviationRule;
use crate::event::{Budget, Consent, Departure, StepAmended};
use crate::ids::{Actor, StepId};

/// What a person did against the runbook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Override {
    /// Skipped a step that was not optional.
    Skipped,
    /// Left a step as it was whose undo failed.
    LeftDone,
    /// Had a step run again that is not idempotent and has no undo.
    RanAgain,
    /// Had a step start that was passed over.
    Forced,
    /// Declared a step done of which no attempt succeeded.
    MarkedDone,
    /// Allowed more than the runbook allows.
    Extended,
    /// Had the run go on with another plan.
    Amended,
}

/// A loud override of what the runbook says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deviation {
    /// What was done.
    pub what: Override,
    /// Which step; none when it is about the run.
    pub step: Option<StepId>,
    /// What was extended, and how much it had been.
    pub extended: Option<(Budget, i64)>,
    /// Who wanted it.
    pub by: Actor,
    /// Who agreed beside that person.
    pub agreed: Vec<Actor>,
    /// Why.
    pub reason: String,
    /// When it was done.
    pub at: Timestamp,
}

/// Something that a person wants and to which too few have agreed yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// What.
    pub what: Departure,
    /// Who wants it.
    pub by: Actor,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: Timestamp,
    /// From when on nobody can agree to it.
    pub expires_at: Option<Timestamp>,
    /// Whose voices count for it so far.
    pub voices: Vec<Actor>,
}

impl Proposal {
    fn is_over(&self, at: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= at)
    }
}

impl State {
    /// Who must agree to deviations about a step, or about the run.
    pub(super) fn deviation_rule(&self, number: Option<usize>) -> Option<&DeviationRule> {
        number.map_or(&self.flow.run().deviations, |number| &self.rule(number).deviations).as_deref()
    }

    /// What people want and have not enough voices for, with the step that it is about, and the rule for it.
    pub fn proposals(&self) -> impl Iterator<Item = (Option<StepId>, &Proposal, Option<&DeviationRule>)> {
        self.proposals
            .iter()
            .map(|(&number, proposal)| (number.map(|number| self.id(number)), proposal, self.deviation_rule(number)))
    }

    /// What is proposed about a step or about the run.
    pub fn proposal(&self, step: Option<&StepId>) -> Option<&Proposal> {
        let number = match step {
            Some(step) => Some(self.flow.number(step)?),
            None => None,
        };
        self.proposals.get(&number)
    }

    /// Whether a word of this person alone would be enough for such a deviation.
    pub fn decides_alone(&self, step: Option<&StepId>, by: &Actor) -> bool {
        let number = step.and_then(|step| self.flow.number(step));
        self.deviation_rule(number).is_none_or(|rule| rule.quorum <= 1 && rule.counts(by))
    }

    pub(super) fn on_wanted(
        &mut self,
        step: Option<&StepId>,
        (by, reason): (&Actor, &str),
        what: &Departure,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        let number = step.map(|step| self.numbered(step)).transpose()?;
        self.check_departure(number, what)?;
        self.check_voice(number, what, by, at)?;
        if self.proposals.get(&number).is_some_and(|proposal| !proposal.is_over(at)) {
            return Err(self.refused(number, "something is proposed about it; agree to it or deny it first"));
        }
        let rule = self.deviation_rule(number).filter(|_| self.deviates(number, what));
        let counts = rule.is_none_or(|rule| rule.counts(by)) || self.is(Mutant::AnyVoiceCounts);
        let quorum = rule.map_or(1, |rule| rule.quorum.max(1));
        let expires_at = rule.and_then(|rule| rule.expires_ms).map(|ms| later(at, ms));
        let voices = if counts { vec![by.clone()] } else { Vec::new() };
        let (what, by, reason) = (what.clone(), by.clone(), reason.to_owned());
        self.proposals.remove(&number);
        let proposal = Proposal { what, by, reason, at, expires_at, voices };
        self.weigh(number, proposal, quorum, at);
        Ok(())
    }

    pub(super) fn on_consent(
        &mut self,
        step: Option<&StepId>,
        by: &Actor,
        answer: &Consent,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        let number = step.map(|step| self.numbered(step)).transpose()?;
        let Some(proposal) = self.proposals.get(&number) else {
            return Err(self.refused(number, "nothing is proposed about it"));
        };
        let what = proposal.what.clone();
        self.check_voice(number, &what, by, at)?;
        if proposal.is_over(at) {
            return Err(self.refused(number, "the time to agree is over; whoever still wants it proposes it again"));
        }
        let wants = proposal.by == *by;
        let has_agreed = proposal.voices.contains(by);
        let rule = self.deviation_rule(number);
        let counts = rule.is_none_or(|rule| rule.counts(by)) || self.is(Mutant::AnyVoiceCounts);
        let quorum = rule.map_or(1, |rule| rule.quorum.max(1));
        let why = match answer {
            Consent::Agreed { .. } | Consent::Denied { .. } if !counts => {
                Some("the voice of this person does not count for deviations here")
            }
            Consent::Agreed { .. } if has_agreed && !self.is(Mutant::CountsRepeatedApprovals) => {
                Some("this person stands behind it already; somebody else must agree")
            }
            Consent::Retracted { .. } if !has_agreed && !wants => Some("this person has not agreed to it"),
            _ => None,
        };
        if let Some(why) = why {
            return Err(self.nobody(number, by, why));
        }
        match answer {
            Consent::Agreed { .. } => {
                // What could be done when it was wanted may not be possible any more.
                self.check_departure(number, &what)?;
                let mut proposal = self.proposals.remove(&number).expect("it was looked up above");
                proposal.voices.push(by.clone());
                self.weigh(number, proposal, quorum, at);
            }
            Consent::Retracted { .. } if !wants => {
                let proposal = self.proposals.get_mut(&number).expect("it was looked up above");
                proposal.voices.retain(|person| person != by);
            }
            Consent::Retracted { .. } | Consent::Denied { .. } => {
                self.proposals.remove(&number);
            }
        }
        Ok(())
    }

    /// Does what enough people want; keeps what more people must agree to.
    fn weigh(&mut self, number: Option<usize>, proposal: Proposal, quorum: u32, at: Timestamp) {
        let enough = proposal.voices.len() >= usize::try_from(quorum).unwrap_or(usize::MAX);
        if enough || self.is(Mutant::ProposalIsEnough) {
            self.depart(number, proposal, at);
        } else {
            self.proposals.insert(number, proposal);
        }
    }

    /// Whether it is against the runbook at all.
    fn deviates(&self, number: Option<usize>, what: &Departure) -> bool {
        *what != Departure::Skip || number.is_none_or(|number| !self.rule(number).optional)
    }

    /// Refuses somebody who may have no say in it.
    fn check_voice(
        &self,
        number: Option<usize>,
        what: &Departure,
        by: &Actor,
        at: Timestamp,
    ) -> Result<(), IllegalEvent> {
        self.check_identity(number, by)?;
        if let Some(rule) = self.deviation_rule(number).filter(|_| self.deviates(number, what))
            && by.level() < rule.identity
        {
            let what = number.map_or_else(|| "the run".to_owned(), |number| format!("step `{}`", self.id(number)));
            return Err(IllegalEvent::Identity { by: by.clone(), what, is: by.level(), needed: rule.identity });
        }
        // Passing a question over, or calling it answered, is no way around who may answer it.
        match number.filter(|_| self.strict && matches!(what, Departure::Skip | Departure::Done { .. })) {
            Some(number) => self.check_person(number, by, at),
            None => Ok(()),
        }
    }

    /// Refuses an amendment that one person alone may not make and to which not enough have agreed.
    pub(super) fn check_agreed(&self, by: &Actor, digest: &str, steps: &[StepAmended]) -> Result<(), IllegalEvent> {
        if self.agreed_to(digest, steps).is_some() || self.decides_alone(None, by) || self.is(Mutant::AmendsAlone) {
            return Ok(());
        }
        let why = "the runbook wants more people to agree to an amendment, with this plan and these decisions";
        Err(IllegalEvent::Run { kind: "run_amended", why })
    }

    /// Whether this person may make this amendment: alone, or because enough people have agreed to it.
    pub fn may_amend(&self, by: &Actor, digest: &str, steps: &[StepAmended]) -> bool {
        self.check_agreed(by, digest, steps).is_ok()
    }

    /// Whose voices there are for this amendment, if they are enough.
    pub(super) fn agreed_to(&self, digest: &str, steps: &[StepAmended]) -> Option<Vec<Actor>> {
        match &self.agreed_amendment {
            Some((Departure::Amend { digest: to, steps: decided }, voices)) if to == digest && decided == steps => {
                Some(voices.clone())
            }
            _ => None,
        }
    }

    pub(super) fn refused(&self, number: Option<usize>, why: &'static str) -> IllegalEvent {
        match number {
            Some(number) => refuse(&self.id(number), format!("cannot be deviated from: {why}")),
            None => IllegalEvent::Run { kind: "deviation", why },
        }
    }

    fn nobody(&self, number: Option<usize>, by: &Actor, why: &'static str) -> IllegalEvent {
        let step = number.map(|number| self.id(number));
        IllegalEvent::Voice { step, by: by.clone(), why }
    }

    /// The driver recorded something about a step: what was proposed was about how it stood before.
    pub(super) fn proposal_lapses(&mut self, number: usize) {
        let lapses = |proposal: &Proposal| !matches!(proposal.what, Departure::Extend(_));
        if self.proposals.get(&Some(number)).is_some_and(lapses) {
            self.proposals.remove(&Some(number));
        }
    }

    /// Another plan: whatever people wanted or allowed was about the one before, as far as it is not done.
    pub(super) fn departures_lapse(&mut self) {
        self.proposals.clear();
        self.extended = Extended::default();
        self.forced.clear();
        let flow = self.flow.clone();
        self.skip_requests.retain(|&number, _| flow.steps()[number].deviations.is_none());
        self.agreed_skips.clear();
    }

    /// Everything that is known by number under the new ones.
    pub(super) fn renumber_departures(&mut self, places: &[Option<usize>]) {
        let place = |number: usize| places[number];
        let proposals = std::mem::take(&mut self.proposals).into_iter();
        self.proposals = proposals
            .filter_map(|(number, proposal)| match number {
                Some(number) => place(number).map(|number| (Some(number), proposal)),
                None => Some((None, proposal)),
            })
            .collect();
        self.forced = self.forced.iter().filter_map(|&number| place(number)).collect();
        let extended = std::mem::take(&mut self.extended.steps).into_iter();
        self.extended.steps = extended.filter_map(|(number, extended)| Some((place(number)?, extended))).collect();
        let agreed = std::mem::take(&mut self.agreed_skips).into_iter();
        self.agreed_skips = agreed.filter_map(|(number, people)| Some((place(number)?, people))).collect();
    }

    pub(super) fn deviates_by(&mut self, what: Override, number: Option<usize>, proposal: &Proposal, at: Timestamp) {
        let agreed = proposal.voices.iter().filter(|person| **person != proposal.by).cloned().collect();
        self.deviations.push(Deviation {
            what,
            step: number.map(|number| self.id(number)),
            extended: None,
            by: proposal.by.clone(),
            agreed,
            reason: proposal.reason.clone(),
            at,
        });
    }
}

/// What people allowed beyond the runbook.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Extended {
    /// Time of the run, in milliseconds.
    pub(super) run_ms: Option<i64>,
    /// Time of windows, in milliseconds.
    pub(super) windows: std::collections::BTreeMap<String, i64>,
    pub(super) steps: std::collections::BTreeMap<usize, StepExtended>,
}

/// The same for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct StepExtended {
    pub(super) timeout_ms: Option<i64>,
    pub(super) attempts: Option<u32>,
}

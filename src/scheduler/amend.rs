//! Going on with other rules: what of a run stands when its runbook was changed while it rested.
//!
//! The driver says how each step changed and what a person decided; this file says whether that can be, and carries
//! over what is known. Refused: a changed step that is done without a decision, a change of a step in doubt, and
//! going back behind a point of no return. `docs/design/amend.md` argues every rule.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::apply::refuse;
use super::deviations::{Deviation, Override};
use super::mutant::Mutant;
use super::refusal::IllegalEvent;
use super::state::{Stage, State, Status, Step, Verdict};
use super::workflow::{Idempotent, Phase, StepRule, Workflow};
use crate::event::{Change, Choice, Event, StepAmended};
use crate::ids::{Actor, StepId};

const KIND: &str = "run_amended";

/// The new places of old steps, and the decisions, once they are known to be possible.
struct Amendment {
    flow: Workflow,
    /// By old number.
    places: Vec<Option<usize>>,
    /// By new number: what is forgotten so that the new definition starts afresh.
    forgotten: BTreeSet<usize>,
    /// By new number: failed, repeatable and changed; the new definition is tried, and what may be left of the old one is remembered.
    mended: BTreeSet<usize>,
    /// By new number: done again, after its undo if it has one.
    undone_first: Vec<usize>,
    ran_again: Vec<usize>,
}

impl State {
    /// Whether anything of a step is, or may be, in the world.
    fn is_touched(&self, number: usize) -> bool {
        let step = &self.steps[number];
        step.status.is_on_the_way_back() || step.dirty || step.status == Status::Succeeded
    }

    /// Whether a failed step runs again without a person's word, so that a changed one may as well.
    pub(super) fn is_repeatable(&self, number: usize) -> bool {
        let open =
            matches!(self.steps[number].status, Status::Failed | Status::Pause(_) | Status::Pending | Status::Ready);
        open && self.rule(number).idempotent != Idempotent::No
    }

    fn may_be_mended(&self, number: usize, new: &StepRule) -> bool {
        self.is_repeatable(number) && new.idempotent != Idempotent::No
    }

    /// Makes a `run_amended` true: the run goes on under `flow`. Refused, without a trace, when it cannot be.
    pub fn amend(&mut self, event: &Event, flow: &Workflow, at: Timestamp) -> Result<(), IllegalEvent> {
        let Event::RunAmended { by, reason, steps, voids, was, digest, signed, .. } = event else {
            return Err(IllegalEvent::Run { kind: event.kind(), why: "only `run_amended` brings new rules" });
        };
        self.check_order(event)?;
        if self.rolled_back {
            return Err(IllegalEvent::Run { kind: KIND, why: "the run was rolled back; start a new one" });
        }
        self.check_identity(None, by)?;
        self.check_amended_signed(signed.as_deref(), flow.run())?;
        self.check_agreed(by, digest, steps)?;
        let mut amendment = self.check_amendment(flow, steps)?;
        if self.strict && was != digest && self.voided_by(flow, steps).iter().any(|step| !voids.contains(step)) {
            let why = "approvals of the plan that it had would count for another one";
            return Err(IllegalEvent::Run { kind: KIND, why });
        }
        for step in voids {
            let unknown = || IllegalEvent::UnknownStep(step.clone());
            amendment.forgotten.insert(amendment.flow.number(step).ok_or_else(unknown)?);
        }
        let agreed = self.agreed_to(digest, steps).unwrap_or_default();
        self.agreed_amendment = None;
        if was != digest {
            self.departures_lapse();
            self.deviations.push(deviation(Override::Amended, None, (by, reason, &agreed), at));
        }
        let undos: Vec<StepId> =
            steps.iter().filter(|entry| entry.change == Change::Undo).map(|entry| entry.step.clone()).collect();
        self.carry_over(amendment, (by, reason, &agreed), at);
        for number in 0..self.steps.len() {
            // Another undo is asked for anew, and one that is no longer done by hand is done.
            if self.rule(number).undo_wait.is_none() || undos.contains(&self.rule(number).id) {
                self.asks_undo_again(number);
            }
        }
        self.judge_failures();
        self.events += 1;
        self.advance();
        self.choose();
        Ok(())
    }

    fn check_amendment(&self, flow: &Workflow, steps: &[StepAmended]) -> Result<Amendment, IllegalEvent> {
        let entries: BTreeMap<&StepId, &StepAmended> = steps.iter().map(|entry| (&entry.step, entry)).collect();
        let renamed: BTreeMap<&StepId, &StepId> = steps
            .iter()
            .filter_map(|entry| match &entry.change {
                Change::Renamed { from } => Some((from, &entry.step)),
                _ => None,
            })
            .collect();
        let mut rules: Vec<StepRule> = flow.steps().to_vec();
        let numbers: BTreeMap<StepId, usize> =
            rules.iter().enumerate().map(|(number, rule)| (rule.id.clone(), number)).collect();
        let mut places = Vec::with_capacity(self.steps.len());
        for number in 0..self.steps.len() {
            let id = &self.flow.steps()[number].id;
            let place = numbers.get(renamed.get(id).copied().unwrap_or(id)).copied();
            places.push(match place {
                Some(place) => Some(place),
                None => self.retire(number, &mut rules)?,
            });
        }
        let aliases = renamed.iter().map(|(from, to)| ((*from).clone(), (*to).clone()));
        let aliases: BTreeMap<StepId, StepId> = self.flow.aliases().clone().into_iter().chain(aliases).collect();
        let (mut forgotten, mut mended, mut again) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (old, place) in places.iter().enumerate() {
            let Some(place) = *place else { continue };
            // A point of no return that the run has passed stays one, whatever the new text says.
            let passed = self.rule(old).point_of_no_return && self.is_touched(old);
            rules[place].point_of_no_return |= passed;
            self.check_way_back(old, &rules[place])?;
            let Some(entry) = entries.get(&rules[place].id) else { continue };
            match self.judge(old, entry, &rules[place])? {
                Becomes::Carried => {}
                Becomes::Mended => {
                    mended.insert(place);
                }
                Becomes::Forgotten => {
                    forgotten.insert(place);
                }
                Becomes::Redone => again.push((old, place)),
            }
        }
        let hangs = |_| IllegalEvent::Run { kind: KIND, why: "the new rules do not hang together" };
        let flow = Workflow::with_aliases(rules, flow.run().clone(), aliases).map_err(hangs)?;
        let mut amendment =
            Amendment { flow, places, forgotten, mended, undone_first: Vec::new(), ran_again: Vec::new() };
        self.sort_redone(&again, &entries, &mut amendment)?;
        Ok(amendment)
    }

    /// A step that the new rules do not have: kept as history, and for the way back, if it left anything.
    fn retire(&self, number: usize, rules: &mut Vec<StepRule>) -> Result<Option<usize>, IllegalEvent> {
        let rule = self.rule(number);
        if matches!(self.steps[number].status, Status::Running | Status::Doubt | Status::Asked) {
            return Err(refuse(&rule.id, "is in doubt and cannot be taken out; decide what it did first"));
        }
        if !self.is_touched(number) || self.is(Mutant::ForgetsRemoved) {
            return Ok(None);
        }
        rules.push(StepRule { retired: true, needs: Vec::new(), wait: None, optional: true, ..rule.clone() });
        Ok(Some(rules.len() - 1))
    }

    /// A run that turns back goes on to where it was going: no step falls off the way, and none bars it.
    fn check_way_back(&self, number: usize, new: &StepRule) -> Result<(), IllegalEvent> {
        if self.stage != Stage::Rollback || !self.is_touched(number) {
            return Ok(());
        }
        if new.point_of_no_return && !self.rule(number).point_of_no_return {
            return Err(refuse(&new.id, "cannot become a point of no return while the run turns back"));
        }
        if self.undo_stack.contains(&number) && !new.has_undo {
            return Err(refuse(&new.id, "is being undone; its undo may be mended but not dropped now"));
        }
        Ok(())
    }

    /// What a change means for a step that is known.
    fn judge(&self, number: usize, entry: &StepAmended, new: &StepRule) -> Result<Becomes, IllegalEvent> {
        let (id, status) = (&entry.step, self.steps[number].status);
        let in_doubt = matches!(status, Status::Running | Status::Doubt | Status::Asked);
        let changed = matches!(entry.change, Change::Changed | Change::Inputs);
        match (entry.choice, changed) {
            (_, true) | (Some(Choice::Redo), _) if in_doubt => {
                Err(refuse(id, "is in doubt; decide what it did before it is changed"))
            }
            _ if in_doubt && matches!(entry.change, Change::Renamed { .. }) => {
                Err(refuse(id, "may still be at work and is known there by its old name; rename it when it is over"))
            }
            (_, true) | (Some(Choice::Redo), _) if status.is_on_the_way_back() => {
                Err(refuse(id, "is being undone; only its undo may be changed now"))
            }
            (Some(Choice::Redo), _) if self.stage == Stage::Rollback => {
                Err(refuse(id, "cannot be done again while the run turns back"))
            }
            (Some(Choice::Redo), _) if self.is_touched(number) => Ok(Becomes::Redone),
            (Some(Choice::Redo), _) => Err(refuse(id, "has done nothing that could be done again")),
            (None, true) if self.is_touched(number) && self.is(Mutant::RerunsChanged) => Ok(Becomes::Forgotten),
            (None, true) if self.is_touched(number) && self.may_be_mended(number, new) => Ok(Becomes::Mended),
            (None, true) if self.is_touched(number) => {
                Err(refuse(id, "was changed and is done already; say whether it is kept or done again"))
            }
            (Some(Choice::Keep), true) if self.steps[number].dirty => {
                Err(refuse(id, "may have changed something and cannot be kept; decide what it did, or redo it"))
            }
            (Some(Choice::Keep), _) | (None, false) => Ok(Becomes::Carried),
            (None, true) => Ok(Becomes::Forgotten),
        }
    }

    /// Orders the steps that are done again and refuses what may not be.
    fn sort_redone(
        &self,
        again: &[(usize, usize)],
        entries: &BTreeMap<&StepId, &StepAmended>,
        amendment: &mut Amendment,
    ) -> Result<(), IllegalEvent> {
        if !again.is_empty() && !self.running.is_empty() {
            let why = "attempts may still be at work; take the run up first, then have steps done again";
            return Err(IllegalEvent::Run { kind: KIND, why });
        }
        let old_of: BTreeMap<usize, usize> =
            amendment.places.iter().enumerate().filter_map(|(old, place)| place.map(|place| (place, old))).collect();
        let redone: BTreeSet<usize> = again.iter().map(|&(_, place)| place).collect();
        // The new rules count, since what they call a point of no return is one from now on; what was one is one there, too.
        let point = |place: usize| amendment.flow.steps()[place].point_of_no_return;
        let passed = |old: usize| self.is_touched(old) && self.rule(old).phase == Phase::Main;
        let points = old_of.iter().filter(|&(&place, &old)| point(place) && passed(old));
        let barrier = points.map(|(_, &old)| self.steps[old].order).max();
        for &(old, place) in again {
            let id = &amendment.flow.steps()[place].id;
            let undo = self.rule(old).has_undo && self.rule(old).phase == Phase::Main;
            let behind = undo && barrier.is_some_and(|order| self.steps[old].order <= order);
            if behind || point(place) {
                return Err(refuse(id, "lies behind a point of no return and cannot be done again"));
            }
            // It is undone as it was done, and by its rules: those must be about the same kind of undo.
            let by_hand = |rule: &StepRule| rule.undo_wait.is_some();
            if undo && by_hand(self.rule(old)) != by_hand(&amendment.flow.steps()[place]) {
                let why =
                    "is undone by hand in one runbook and not in the other; have its undo changed first, then redo it";
                return Err(refuse(id, why));
            }
            // Whoever needs it and is done stands on what is done anew.
            let mut open = vec![place];
            let mut seen = BTreeSet::new();
            while let Some(number) = open.pop() {
                for &(dependent, _) in amendment.flow.dependents(number) {
                    let rule = &amendment.flow.steps()[dependent];
                    let stands = |&old: &usize| self.is_touched(old) && !self.may_be_mended(old, rule);
                    let done = old_of.get(&dependent).is_some_and(stands);
                    let kept = entries.get(&rule.id).is_some_and(|entry| entry.choice == Some(Choice::Keep));
                    if done && !kept && !redone.contains(&dependent) && rule.phase != Phase::Finally {
                        let why = format!("needs `{id}`, which is to be done again; keep it or redo it as well");
                        return Err(refuse(&rule.id, why));
                    }
                    if seen.insert(dependent) {
                        open.push(dependent);
                    }
                }
            }
            if undo && !self.is(Mutant::RedoesWithoutUndo) {
                amendment.undone_first.push(place);
            } else {
                amendment.forgotten.insert(place);
                let rule = &amendment.flow.steps()[place];
                let repeats = self.rule(old).idempotent != Idempotent::No && rule.idempotent != Idempotent::No;
                if !repeats && rule.wait.is_none() && !rule.only_looks {
                    amendment.ran_again.push(place);
                }
            }
        }
        amendment.undone_first.sort_by_key(|place| self.steps[old_of[place]].order);
        Ok(())
    }

    /// Puts everything that is known under the new numbers.
    fn carry_over(&mut self, amendment: Amendment, who: (&Actor, &str, &[Actor]), at: Timestamp) {
        let Amendment { flow, places, forgotten, mended, undone_first, ran_again } = amendment;
        let old_steps = std::mem::replace(&mut self.steps, vec![Step::new(); flow.steps().len()]);
        for (step, place) in old_steps.into_iter().zip(&places) {
            if let Some(place) = *place {
                self.steps[place] = step;
            }
        }
        self.flow = Arc::new(flow);
        self.renumber(&places);
        for number in 0..self.steps.len() {
            if !forgotten.contains(&number) && !mended.contains(&number) {
                self.goes_by_new_rules(number);
            }
        }
        for number in forgotten {
            self.leave_queues(number);
            self.start_afresh(number);
        }
        for number in mended {
            self.mend(number);
        }
        for number in ran_again {
            self.deviations.push(deviation(Override::RanAgain, Some(self.id(number)), who, at));
        }
        self.choose_stage(&undone_first);
        for &number in &undone_first {
            self.leave_queues(number);
            self.steps[number].status = Status::UndoDue;
            self.steps[number].undo_tries = 0;
        }
        if !undone_first.is_empty() {
            self.redoing = true;
            self.undo_stack = undone_first;
        }
        self.take_new_undos();
        self.rebuild();
    }

    /// A step that stands where it stood, under its new rules: what may not be tried again is not.
    fn goes_by_new_rules(&mut self, number: usize) {
        let (status, dirty, tries) = (self.steps[number].status, self.steps[number].dirty, self.steps[number].tries);
        if !matches!(status, Status::Pause(_) | Status::Pending | Status::Ready) {
            return;
        }
        let rule = self.rule(number);
        let (retired, repeats) = (rule.retired, rule.idempotent != Idempotent::No);
        let asks = dirty && !repeats;
        // On the way back nobody is asked about what is undone anyway; of `finally` it must be known at the end.
        let later = self.stage == Stage::Rollback && rule.phase != Phase::Finally;
        if retired || tries >= rule.retry.attempts_max || (asks && later) {
            self.leave_queues(number);
            self.steps[number].status = Status::Failed;
        } else if asks {
            self.leave_queues(number);
            self.doubt(number);
        } else if matches!(status, Status::Pause(_)) {
            // What it needs may be new, or done anew: it stands in line again.
            self.leave_queues(number);
            self.steps[number].status = Status::Pending;
        }
    }

    /// Nothing is known of the step but how often it was tried, that a person passed it over, and that one undid it.
    fn start_afresh(&mut self, number: usize) {
        let (attempts, undo_attempts) = (self.steps[number].attempts, self.steps[number].undo_attempts);
        let skipped = self.steps[number].skipped.clone().filter(|_| self.steps[number].status == Status::Skipped);
        let undone_by_hand = self.steps[number].undone_by_hand;
        self.steps[number] = Step { attempts, undo_attempts, undone_by_hand, ..Step::new() };
        if let Some(reason) = skipped.filter(|reason| matches!(**reason, crate::event::SkipReason::Person { .. })) {
            self.steps[number].status = Status::Skipped;
            self.steps[number].skipped = Some(reason);
        }
    }

    /// The new definition of a failed step is tried. Until then its old attempts are what a way back would undo.
    fn mend(&mut self, number: usize) {
        self.leave_queues(number);
        let step = &mut self.steps[number];
        step.looks_afresh = true;
        if self.stage != Stage::Rollback {
            step.status = Status::Pending;
            step.tries = 0;
            step.when_checked = false;
        }
    }

    /// What the failures that are left mean, under the new rules: a mended step no longer stops the run.
    fn judge_failures(&mut self) {
        if self.stage == Stage::Rollback {
            return;
        }
        (self.verdict, self.why) = (Verdict::None, None);
        let mut failed: Vec<usize> =
            (0..self.steps.len()).filter(|&number| self.steps[number].status == Status::Failed).collect();
        failed.sort_by_key(|&number| self.steps[number].order);
        for number in failed {
            self.weigh_failure(number);
        }
        if self.timed_out {
            self.weigh_timeout();
        }
    }

    /// Steps that are new or open again must have their turn: the run goes back to where they belong.
    fn choose_stage(&mut self, undone_first: &[usize]) {
        if !undone_first.is_empty() {
            self.stage = Stage::Rollback;
            (self.barrier, self.at_barrier) = (None, false);
            self.remains.clear();
            self.passed_over.clear();
            self.left.clear();
            return;
        }
        let ended = |number: usize| {
            matches!(self.steps[number].status, Status::Succeeded | Status::Failed | Status::Skipped)
                || self.rule(number).phase == Phase::Finally
                || self.rule(number).retired
        };
        let open = !(0..self.steps.len()).all(ended);
        match self.stage {
            Stage::Finally if open => {
                self.stage = Stage::Preflight;
                self.finally_anew();
            }
            Stage::Main => self.stage = Stage::Preflight,
            Stage::Preflight | Stage::Finally | Stage::Rollback => {}
        }
    }

    fn leave_queues(&mut self, number: usize) {
        if let Status::Pause(at) = self.steps[number].status {
            self.pauses.remove(&(at, number));
        }
        self.stops_waiting(number);
        self.doubts.remove(&number);
        self.asked.remove(&number);
    }

    /// Every set of numbers under the new ones; what is gone is dropped. Queues are built anew later, and until then nothing
    /// may be found there by an old number.
    fn renumber(&mut self, places: &[Option<usize>]) {
        self.empty_queues();
        let set = |numbers: &BTreeSet<usize>| numbers.iter().filter_map(|&number| places[number]).collect();
        let timed = |pairs: &BTreeSet<(Timestamp, usize)>| {
            pairs.iter().filter_map(|&(at, number)| places[number].map(|number| (at, number))).collect()
        };
        let list = |numbers: &[usize]| numbers.iter().filter_map(|&number| places[number]).collect();
        self.running = set(&self.running);
        self.waiting = set(&self.waiting);
        self.doubts = set(&self.doubts);
        self.asked = set(&self.asked);
        self.pauses = timed(&self.pauses);
        self.expiries = timed(&self.expiries);
        self.undo_stack = list(&self.undo_stack);
        self.remains = list(&self.remains);
        self.passed_over = list(&self.passed_over);
        self.left = list(&self.left);
        self.completed = list(&self.completed);
        self.barrier = self.barrier.and_then(|number| places[number]);
        let requests = std::mem::take(&mut self.skip_requests);
        self.skip_requests =
            requests.into_iter().filter_map(|(number, reason)| Some((places[number]?, reason))).collect();
        self.renumber_departures(places);
    }
}

fn deviation(
    what: Override,
    step: Option<StepId>,
    (by, reason, agreed): (&Actor, &str, &[Actor]),
    at: Timestamp,
) -> Deviation {
    let agreed = agreed.iter().filter(|person| *person != by).cloned().collect();
    Deviation { what, step, extended: None, by: by.clone(), agreed, reason: reason.to_owned(), at }
}

/// What becomes of what is known of a step.
enum Becomes {
    /// It stands.
    Carried,
    /// It is forgotten; the step starts afresh.
    Forgotten,
    /// It failed and is tried again as it is now; what it may have left is remembered.
    Mended,
    /// The step is done again.
    Redone,
}

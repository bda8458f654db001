//! Going on with another runbook: what changed since a run was started, what that means for it, and the record of it.
//!
//! Owned here: the comparison of two plans step by step, with the inputs that a step really had, and which plan a
//! step is undone by. Whether an amendment can be is the scheduler's word (`scheduler::State::amend`). Refused: another
//! runbook's name, another site. Called by `piton diff` and `piton resume --runbook`; `docs/design/amend.md`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value as Json;

use super::scope::{self, RunFacts};
use super::signed::{brings_site, vouch_amendment};
use super::turn::prompt;
use super::{DriverError, Ended, Opening, Options, Told, drive, outside, read, workflow};
use crate::action::fences::Fences;
use crate::event::{Change, Choice, Event, Record, Signed, StepAmended};
use crate::ids::{RunId, StepId};
use crate::journal::Journal;
use crate::plan::{Depth, Plan, PlanStep, render_node};
use crate::scheduler::{IllegalEvent, StepState, StepView};
use crate::spec::runbook::Idempotent;

/// One step of the comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct StepDiff {
    /// Which: its new id, or the old one of a step that is gone.
    pub step: StepId,
    /// How it changed.
    pub change: Change,
    /// How it stands in the run; nothing for a step that is new.
    pub state: Option<StepState>,
    /// Whether it is done, or may have left something.
    pub touched: bool,
    /// Whether it failed and may be repeated, so that a change of its work is simply tried.
    pub repeats: bool,
}

impl StepDiff {
    fn new(step: &StepId, change: Change, view: Option<&StepView<'_>>, repeats: bool) -> Self {
        let touched = view.is_some_and(is_touched);
        Self { step: step.clone(), change, state: view.map(StepView::state), touched, repeats: touched && repeats }
    }

    /// Whether what it did stands, or must be settled first.
    pub fn is_done(&self) -> bool {
        self.touched && !self.repeats
    }

    /// Whether a person must decide before the run can go on.
    pub fn wants_a_choice(&self) -> bool {
        self.is_done() && matches!(self.change, Change::Changed | Change::Inputs)
    }
}

/// What a person decides about steps.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// Changed steps that stay as they were done.
    pub keep: BTreeSet<StepId>,
    /// Steps that are done again, after their undo if they have one.
    pub redo: BTreeSet<StepId>,
    /// A step that is done again with everything that needs it.
    pub from: Option<StepId>,
}

/// How a run compares to a plan, in the order of the new file, removed steps last.
///
/// # Errors
/// When the plan is another runbook's or another site's.
pub fn compare(run: &RunId, told: &Told, plan: &Plan) -> Result<Vec<StepDiff>, DriverError> {
    let refused = |what: &str, old: &str, new: &str| {
        let message = format!("the run is of {what} `{old}`, not `{new}`; start a new run");
        Err(DriverError::Refused(message))
    };
    if told.plan.name != plan.name {
        return refused("runbook", &told.plan.name, &plan.name);
    }
    let (old_site, new_site) = (&told.plan.site.site.name, &plan.site.site.name);
    if old_site != new_site {
        return refused("site", old_site, new_site);
    }
    let facts = facts_of(run, &told.records);
    let inputs = inputs(&told.records);
    let renamed = renames(&told.plan, plan);
    let mut found = Vec::with_capacity(plan.steps.len());
    for step in &plan.steps {
        let from = renamed.get(&step.id);
        let view = told.state.step(from.unwrap_or(&step.id));
        let change = match (told.plan.step(from.unwrap_or(&step.id)), &view) {
            (_, None) => Change::Added,
            // It was taken out by an earlier amendment and comes back: what it did then is not known to be the same.
            (None, Some(_)) => Change::Changed,
            (Some(_), Some(_)) if from.is_some() => {
                Change::Renamed { from: from.cloned().unwrap_or_else(|| step.id.clone()) }
            }
            (Some(old), Some(view)) => change(told, plan, (old, step), view, (&facts, inputs.get(&step.id).copied())),
        };
        let repeats = step.idempotent != Idempotent::No && view.as_ref().is_some_and(StepView::is_repeatable);
        found.push(StepDiff::new(&step.id, change, view.as_ref(), repeats));
    }
    let gone = |step: &&PlanStep| plan.step(&step.id).is_none() && !renamed.values().any(|from| *from == step.id);
    for step in told.plan.steps.iter().filter(gone) {
        let view = told.state.step(&step.id);
        found.push(StepDiff::new(&step.id, Change::Removed, view.as_ref(), false));
    }
    Ok(found)
}

fn is_touched(view: &StepView<'_>) -> bool {
    let states = [StepState::Succeeded, StepState::Running, StepState::InDoubt, StepState::Undoing];
    view.effect_unknown() || states.contains(&view.state())
}

/// New steps that are an old one under another name: equal work, and only one of each that could be meant.
fn renames(old: &Plan, new: &Plan) -> BTreeMap<StepId, StepId> {
    let depth = Depth::of(old, new);
    let digests = |plan: &Plan, other: &Plan| {
        let mut by_digest: BTreeMap<String, Vec<StepId>> = BTreeMap::new();
        for step in plan.steps.iter().filter(|step| other.step(&step.id).is_none()) {
            by_digest.entry(step.work_digest(plan, depth)).or_default().push(step.id.clone());
        }
        by_digest
    };
    let gone = digests(old, new);
    let pairs = digests(new, old).into_iter().filter_map(|(digest, fresh)| {
        match (fresh.as_slice(), gone.get(&digest)?.as_slice()) {
            ([to], [from]) => Some((to.clone(), from.clone())),
            _ => None,
        }
    });
    pairs.collect()
}

/// How a step that both plans have changed. Of a step that has begun, the inputs count that it really had, unless it is to be done
/// again anyway: by the latest plan, with whatever inputs that gives.
fn change(
    told: &Told,
    plan: &Plan,
    (old, new): (&PlanStep, &PlanStep),
    view: &StepView<'_>,
    had: (&RunFacts, Option<&Json>),
) -> Change {
    let depth = Depth::of(&told.plan, plan);
    let frame = old.frame(&told.plan, depth) == new.frame(plan, depth);
    let text = old.action.args.to_json() == new.action.args.to_json();
    let begun = (is_touched(view) && !view.is_to_be_redone()) || view.state() == StepState::Waiting;
    let inputs = if begun { same_inputs(told, plan, new, view, had) } else { None };
    match (frame, text, inputs) {
        (true, true, None | Some(true)) | (true, false, Some(true)) => {}
        (true, true, Some(false)) => return Change::Inputs,
        _ => return Change::Changed,
    }
    if old.undo_text(&told.plan, depth) != new.undo_text(plan, depth) {
        Change::Undo
    } else if old.rules() != new.rules() {
        Change::Rules
    } else {
        Change::Same
    }
}

/// Whether the step would get now what it got; nothing if that was not recorded.
fn same_inputs(
    told: &Told,
    plan: &Plan,
    step: &PlanStep,
    view: &StepView<'_>,
    (facts, then): (&RunFacts, Option<&Json>),
) -> Option<bool> {
    let fences = Fences::new(&step.locks, &plan.locks, BTreeMap::new());
    let scope = scope::gather(plan, &told.state, step, facts, &fences).masked(plan);
    let now = render_node(&step.action.args, &scope).map(|node| node.to_json());
    if let Some(asked) = view.own_prompt() {
        // Who may answer, how and until when is part of the question, too.
        let same = |input: &Json| view.asked_input().is_none_or(|digest| crate::plan::digest(input) == digest);
        return Some(now.is_ok_and(|input| prompt(&input, &plan.files) == asked && same(&input)));
    }
    let then = then?;
    Some(now.is_ok_and(|input| input == *then))
}

/// What each step got when it was last started, under its present name.
fn inputs(records: &[Record]) -> BTreeMap<StepId, &Json> {
    let mut latest = BTreeMap::new();
    for record in records {
        match &record.event {
            Event::AttemptStarted { step, input, .. } if !input.is_null() => {
                latest.insert(step.clone(), input);
            }
            Event::RunAmended { steps, .. } => {
                for entry in steps {
                    if let Change::Renamed { from } = &entry.change
                        && let Some(input) = latest.remove(from)
                    {
                        latest.insert(entry.step.clone(), input);
                    }
                }
            }
            _ => {}
        }
    }
    latest
}

fn facts_of(run: &RunId, records: &[Record]) -> RunFacts {
    let first = records.first();
    let starter = match first.map(|record| &record.event) {
        Some(Event::RunStarted { by, .. }) => by.to_string(),
        _ => String::new(),
    };
    RunFacts { id: run.to_string(), starter, started_at: first.map(|record| record.at.to_string()).unwrap_or_default() }
}

/// The fact of an amendment: everything that changed, with what was decided.
///
/// # Errors
/// When a decision names a step that the new plan does not have.
pub fn amendment(
    told: &Told,
    plan: &Plan,
    diffs: &[StepDiff],
    choices: &Choices,
    (options, reason): (&Options, &str),
) -> Result<Event, DriverError> {
    let mut redo = choices.redo.clone();
    if let Some(from) = &choices.from {
        redo.extend(done_from(plan, diffs, from));
        redo.insert(from.clone());
    }
    let unknown = choices.keep.iter().chain(&redo).find(|step| plan.step(step).is_none());
    if let Some(step) = unknown {
        return Err(DriverError::Refused(format!("the runbook has no step `{step}`")));
    }
    let choice = |step: &StepId| match (redo.contains(step), choices.keep.contains(step)) {
        (true, _) => Some(Choice::Redo),
        (false, true) => Some(Choice::Keep),
        (false, false) => None,
    };
    let entries = diffs.iter().map(|diff| StepAmended {
        step: diff.step.clone(),
        change: diff.change.clone(),
        choice: choice(&diff.step),
    });
    let steps: Vec<StepAmended> =
        entries.filter(|entry| entry.change != Change::Same || entry.choice.is_some()).collect();
    let is_other = told.plan.digest != plan.digest;
    let voids = if is_other { told.state.voided_by(&flow_of(plan, &told.records)?, &steps) } else { Vec::new() };
    Ok(Event::RunAmended {
        by: options.by.clone(),
        reason: reason.to_owned(),
        version: plan.version.clone(),
        was: told.plan.digest.clone(),
        digest: plan.digest.clone(),
        params: plan.params.clone(),
        source: serde_json::to_value(plan.kept()).map_err(|error| DriverError::Broken(error.to_string()))?,
        steps,
        voids,
        signed: signed_as_it_is(told, plan, options),
    })
}

/// Whose signatures hold, whether they are enough or not: that is said, and put on record, when the run is to go on.
fn signed_as_it_is(told: &Told, plan: &Plan, options: &Options) -> Option<Box<Signed>> {
    match vouch_amendment(told, plan, options) {
        Ok(vouched) => vouched.signed,
        Err(_) => Some(Box::new(Signed { brings_site: brings_site(told, plan), ..Signed::default() })),
    }
}

/// Done steps that need `from`, directly or through others.
fn done_from(plan: &Plan, diffs: &[StepDiff], from: &StepId) -> BTreeSet<StepId> {
    let mut needed_by: HashMap<&StepId, Vec<&StepId>> = HashMap::new();
    for step in plan.steps.iter().filter(|step| !step.is_finally) {
        for (need, _) in &step.needs {
            needed_by.entry(need).or_default().push(&step.id);
        }
    }
    let (mut reached, mut open) = (BTreeSet::from([from]), vec![from]);
    while let Some(step) = open.pop() {
        let dependents = needed_by.get(step).into_iter().flatten().copied();
        open.extend(dependents.filter(|dependent| reached.insert(*dependent)));
    }
    diffs.iter().filter(|diff| diff.touched && reached.contains(&diff.step)).map(|diff| diff.step.clone()).collect()
}

/// Whether the run can be amended like this; nothing is recorded.
///
/// # Errors
/// With the scheduler's reason why it cannot.
pub fn may_amend(told: &Told, plan: &Plan, event: &Event, options: &Options) -> Result<(), DriverError> {
    let flow = flow_of(plan, &told.records)?;
    let amended = told.state.clone().amend(event, &flow, options.clock.now());
    amended.map_err(|error| match error {
        IllegalEvent::Unsigned { .. } => DriverError::Unsigned(error.to_string()),
        other => DriverError::Refused(other.to_string()),
    })
}

pub(super) fn flow_of(plan: &Plan, records: &[Record]) -> Result<crate::scheduler::Workflow, DriverError> {
    let Some(Event::RunStarted { by, .. }) = records.first().map(|record| &record.event) else {
        return Err(DriverError::Broken("its first record is not `run_started`".into()));
    };
    workflow::of_plan(plan, by).map_err(|error| DriverError::Broken(error.to_string()))
}

/// Records the amendment and goes on under the new plan.
///
/// # Errors
/// When it cannot be, a milestone is missing, another driver has the run, or the journal fails.
pub async fn resume_amended(
    journal: &Journal,
    run: RunId,
    plan: Plan,
    amended: Event,
    options: Options,
) -> Result<Ended, DriverError> {
    let told = read(journal, &run).await?;
    let at = outside::moment(&options.clock, &told.records);
    if let Err(why) = outside::check_signature(&run, &told, &amended, at) {
        return Err(outside::refuse(journal, &run, &amended, at, why).await);
    }
    let amended = match vouch_amendment(&told, &plan, &options) {
        Ok(vouched) => amended.with_signatures(vouched.signed),
        Err(DriverError::Unsigned(why)) => {
            let refused = outside::refuse(journal, &run, &amended, at, why).await;
            return Err(match refused {
                DriverError::Refused(why) => DriverError::Unsigned(why),
                other => other,
            });
        }
        Err(error) => return Err(error),
    };
    if let Err(why) = may_amend(&told, &plan, &amended, &options) {
        return Err(outside::refuse(journal, &run, &amended, at, why.to_string()).await);
    }
    super::require_milestones(&plan, journal).await?;
    let hooks = options.hooks.clone();
    let seq = told.records.last().map_or(0, |record| record.seq);
    let work = Box::pin(drive(Arc::new(plan), journal, run, options, Opening::Amended(Box::new(amended), seq)));
    hooks.unless_crashed(work).await.ok_or(DriverError::Crashed)?
}

/// For steps that are undone by an earlier plan than the present one: that plan, and their id in it.
///
/// A step is undone by the plan under which it was done, unless a later amendment kept the step and changed its undo.
pub(super) fn earlier_plans(records: &[Record]) -> Result<HashMap<StepId, (Arc<Plan>, StepId)>, DriverError> {
    if !records.iter().any(|record| matches!(record.event, Event::RunAmended { .. })) {
        return Ok(HashMap::new());
    }
    let mut latest = Arc::new(outside::original(records)?);
    let mut by_step: HashMap<StepId, (Arc<Plan>, StepId)> = HashMap::new();
    for record in records {
        match &record.event {
            Event::AttemptStarted { step, .. } | Event::StepWaiting { step, .. } => {
                by_step.insert(step.clone(), (Arc::clone(&latest), step.clone()));
            }
            Event::RunAmended { steps, .. } => {
                let plan = Arc::new(outside::brought(&record.event)?);
                by_step = by_step.into_iter().map(|known| carried(known, (&latest, &plan), steps)).collect();
                latest = plan;
            }
            _ => {}
        }
    }
    by_step.retain(|_, (plan, _)| !Arc::ptr_eq(plan, &latest));
    Ok(by_step)
}

type Undoer = (StepId, (Arc<Plan>, StepId));

/// Behind the amendment that led from one plan to another. What counts is whether *this* one changed the undo: a step that an
/// earlier one has undone to be done again has another undo since then, and is undone by the one it was done with.
fn carried((step, (old, old_id)): Undoer, (before, plan): (&Plan, &Arc<Plan>), entries: &[StepAmended]) -> Undoer {
    let is_from = |entry: &&StepAmended| matches!(&entry.change, Change::Renamed { from } if *from == step);
    // One that was taken out and is back was last known to the plan by which it was done.
    let known = before.step(&step).map(|was| (before, was)).or_else(|| Some((&*old, old.step(&old_id)?)));
    let step = entries.iter().find(is_from).map_or_else(|| step.clone(), |entry| entry.step.clone());
    let redone = entries.iter().any(|entry| entry.step == step && entry.choice == Some(Choice::Redo));
    let mended = match (known, plan.step(&step)) {
        (Some((from, was)), Some(is)) => {
            let depth = Depth::of(from, plan);
            was.undo_text(from, depth) != is.undo_text(plan, depth)
        }
        _ => false,
    };
    if mended && !redone { (step.clone(), (Arc::clone(plan), step)) } else { (step, (old, old_id)) }
}

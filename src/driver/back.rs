//! Undoing a run that has ended or rests, because a person asks for it.
//!
//! Owned here: the request and what it would collide with. The way back itself is the scheduler's (`rollback`), the
//! undo of a step the action's. Refused: a run that another driver has, a run that has turned back already, and a run
//! of which nothing can be undone. Called by `piton rollback`.

use std::collections::BTreeSet;

use super::{DriverError, Ended, Opening, Options, Told, drive, outside, read};
use crate::event::{Event, Outcome};
use crate::ids::{LockName, Milestone, RunId};
use crate::journal::{Journal, RunFilter, StandsOn};
use crate::scheduler::{Phase, State, StepState};

/// A later run on the same site that stands on what this one did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaterRun {
    /// Which.
    pub run: RunId,
    /// Of which runbook.
    pub runbook: String,
    /// What it required that this run had established.
    pub milestones: Vec<Milestone>,
    /// Named things of the real world that both worked on.
    pub locks: Vec<LockName>,
}

/// Runs that started later on the same site, changed something, and required what this one established or worked on
/// the same named things. A run that was rolled back itself does not count; neither does one that this run started.
///
/// # Errors
/// When the journal cannot be read.
pub async fn later_runs(journal: &Journal, run: &RunId, told: &Told) -> Result<Vec<LaterRun>, DriverError> {
    let filter = RunFilter { site: Some(told.plan.site.site.name.clone()), ..RunFilter::default() };
    let since = told.state.started_at();
    let established: BTreeSet<&Milestone> =
        if told.state.is_established() { told.plan.achieves.iter().collect() } else { BTreeSet::new() };
    let graves = journal.graves().await?;
    let mut found = Vec::new();
    for other in journal.runs(&filter).await? {
        let inside = other.run.as_str().strip_prefix(run.as_str()).is_some_and(|rest| rest.starts_with('.'));
        let later = since.is_some_and(|since| other.started_at >= since) && other.run != *run && !inside;
        if !later || other.outcome == Some(Outcome::RolledBack) {
            continue;
        }
        let stands = match graves.get(&other.run) {
            Some(grave) => grave.stands_on.clone(),
            None => Some(stands_on(journal, &other.run).await?),
        };
        // A pruned run of which nobody knows is named, too.
        let is_known = stands.is_some();
        let StandsOn { mut milestones, mut locks, changed } = stands.unwrap_or_default();
        milestones.retain(|wanted| established.contains(wanted));
        locks.retain(|lock| told.plan.locks.contains(lock));
        if is_known && ((milestones.is_empty() && locks.is_empty()) || !changed) {
            continue;
        }
        found.push(LaterRun { run: other.run, runbook: other.runbook, milestones, locks });
    }
    found.reverse();
    Ok(found)
}

/// What other runs' ways back must know of a run.
///
/// # Errors
/// When it cannot be read back.
pub async fn stands_on(journal: &Journal, run: &RunId) -> Result<StandsOn, DriverError> {
    let records = journal.read(run, 1).await?;
    let plan = outside::plan_of(&records)?;
    let changed = has_changed(&outside::fold(&plan, &records)?);
    Ok(StandsOn { milestones: plan.milestones, locks: plan.locks, changed })
}

/// Whether a run left, or may have left, anything behind.
fn has_changed(state: &State) -> bool {
    state.steps().any(|step| {
        let rule = step.rule();
        let did = matches!(step.state(), StepState::Succeeded | StepState::Running | StepState::InDoubt);
        rule.phase == Phase::Main && !rule.only_looks && rule.wait.is_none() && (did || step.effect_unknown())
    })
}

/// Turns a run back and drives it until everything is undone or only people can move it.
///
/// # Errors
/// When nothing can be undone, another driver has the run, a lock is not to be had, or the journal fails.
pub async fn rollback(journal: &Journal, run: RunId, reason: String, options: Options) -> Result<Ended, DriverError> {
    let told = read(journal, &run).await?;
    let requested = Event::RollbackRequested {
        by: options.by.clone(),
        reason: reason.clone(),
        driver: String::new(),
        sealed_by: None,
    };
    let (at, state) = (outside::moment(&options.clock, &told.records), may_turn_back(&told, &options)?);
    let signed = outside::check_signature(&run, &told, &requested, at);
    let heard = signed.and_then(|()| state.after(&requested, at).map_err(|error| error.to_string()));
    if let Err(why) = heard {
        return Err(outside::refuse(journal, &run, &requested, at, why).await);
    }
    let hooks = options.hooks.clone();
    let work = Box::pin(drive(told.plan.into(), journal, run, options, Opening::Back(reason)));
    hooks.unless_crashed(work).await.ok_or(DriverError::Crashed)?
}

/// The state of a run right before it turns back: of an interrupted one, with its attempts in doubt.
///
/// # Errors
/// When the run cannot be taken up.
pub fn may_turn_back(told: &Told, options: &Options) -> Result<State, DriverError> {
    if told.state.outcome().is_some() {
        return Ok(told.state.clone());
    }
    let resumed =
        Event::RunResumed { by: options.by.unsigned(), driver: String::new(), held: Vec::new(), sealed_by: None };
    told.state.after(&resumed, options.clock.now()).map_err(|error| DriverError::Refused(error.to_string()))
}

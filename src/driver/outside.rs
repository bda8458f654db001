//! What people say from outside a driver: answers, skips, cancellations. The same rules as for a driver apply, because
//! the scheduler decides whether the fact can be true.

use crate::config::Clock;
use crate::event::{Event, LockChange, Record};
use crate::ids::{RunId, StepId};
use crate::journal::{Append, AppendError, Journal};
use crate::plan::{Plan, PlanSource};
use crate::scheduler::{State, StepState};

use super::{DriverError, workflow};

/// A run as the journal tells it.
pub struct Told {
    /// Its plan.
    pub plan: Plan,
    /// Its state.
    pub state: State,
    /// Its records.
    pub records: Vec<Record>,
}

/// Reads a run back.
///
/// # Errors
/// When the journal cannot be read or does not hang together.
pub async fn read(journal: &Journal, run: &RunId) -> Result<Told, DriverError> {
    let records = journal.read(run, 1).await?;
    let plan = plan_of(&records)?;
    let state = fold(&plan, &records)?;
    Ok(Told { plan, state, records })
}

/// The plan that a run was started with.
pub(super) fn plan_of(records: &[Record]) -> Result<Plan, DriverError> {
    let Some(Event::RunStarted { source, params, digest, .. }) = records.first().map(|record| &record.event) else {
        return Err(DriverError::Broken("its first record is not `run_started`".into()));
    };
    let kept: PlanSource = serde_json::from_value(source.clone())
        .map_err(|error| DriverError::Broken(format!("the kept runbook cannot be read: {error}")))?;
    let plan = Plan::restore(kept, params)?;
    if plan.digest != *digest {
        return Err(DriverError::Digest { then: digest.clone(), now: plan.digest });
    }
    Ok(plan)
}

/// The state after all records.
pub(super) fn fold(plan: &Plan, records: &[Record]) -> Result<State, DriverError> {
    let Some(Event::RunStarted { by, .. }) = records.first().map(|record| &record.event) else {
        return Err(DriverError::Broken("its first record is not `run_started`".into()));
    };
    let flow = workflow::of_plan(plan, by).map_err(|error| DriverError::Broken(error.to_string()))?;
    State::fold(flow.into(), records.iter().map(|record| (&record.event, record.at)))
        .map_err(|error| DriverError::Broken(error.to_string()))
}

/// Records what a person said; refused, and then not recorded, when it cannot be true.
///
/// # Errors
/// [`DriverError::Refused`] with the reason in a person's words.
pub async fn say(journal: &Journal, run: &RunId, event: &Event) -> Result<Record, DriverError> {
    say_by(&Clock::System, journal, run, event).await
}

/// The same, with the time of this clock.
///
/// # Errors
/// As [`say`].
pub async fn say_by(clock: &Clock, journal: &Journal, run: &RunId, event: &Event) -> Result<Record, DriverError> {
    loop {
        let told = read(journal, run).await?;
        let now = clock.now();
        let after = told.state.after(event, now).map_err(|error| DriverError::Refused(error.to_string()))?;
        // A word about a doubt also settles the locks that guarded it.
        let settled = event
            .step()
            .filter(|step| matches!(event, Event::StepAnswered { .. }) && !may_act(&after, step))
            .filter(|step| told.plan.step(step).is_some_and(|planned| !planned.locks.is_empty()));
        let locks = LockChange { free: settled.cloned().into_iter().collect(), ..LockChange::default() };
        let expected_seq = told.records.last().map_or(0, |record| record.seq);
        let events = std::slice::from_ref(event);
        let append = Append { run, expected_seq, generation: None, at: now, events, texts: &[] };
        match journal.append(append, &locks).await {
            Ok(records) => {
                return records.into_iter().next().ok_or_else(|| DriverError::Broken("nothing was recorded".into()));
            }
            Err(AppendError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a step acts, or may have acted.
fn may_act(state: &State, step: &StepId) -> bool {
    let acts = |state| matches!(state, StepState::Running | StepState::Undoing | StepState::InDoubt);
    state.step(step).is_some_and(|view| acts(view.state()))
}

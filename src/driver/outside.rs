//! What people say from outside a driver: answers, skips, cancellations. The same rules as for a driver apply, because
//! the scheduler decides whether the fact can be true.

use std::sync::Arc;

use jiff::Timestamp;

use crate::config::Clock;
use crate::event::{Event, LockChange, Record, SignedFiles};
use crate::ids::{Level, RunId, StepId};
use crate::journal::{Append, AppendError, Journal};
use crate::plan::{Plan, PlanSource};
use crate::scheduler::{IllegalEvent, State, StepState};

use super::DriverError;

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

/// The plan that a run goes by: that of its start, or of its latest amendment.
pub(super) fn plan_of(records: &[Record]) -> Result<Plan, DriverError> {
    let amended = records.iter().rev().find(|record| matches!(record.event, Event::RunAmended { .. }));
    amended.map_or_else(|| original(records), |record| brought(&record.event))
}

/// The plan that a run was started with.
pub(super) fn original(records: &[Record]) -> Result<Plan, DriverError> {
    let first = records.first().ok_or_else(|| DriverError::Broken("it has no record".into()))?;
    brought(&first.event)
}

/// The plan that an event brought.
pub(super) fn brought(event: &Event) -> Result<Plan, DriverError> {
    let (Event::RunStarted { source, params, digest, signed, .. }
    | Event::RunAmended { source, params, digest, signed, .. }) = event
    else {
        return Err(DriverError::Broken("its first record is not `run_started`".into()));
    };
    let kept: PlanSource = serde_json::from_value(source.clone())
        .map_err(|error| DriverError::Broken(format!("the kept runbook cannot be read: {error}")))?;
    let mut plan = Plan::restore(kept, params)?;
    if let Some(signed) = signed {
        let again = |files: &SignedFiles| Arc::new(super::signed::offered_again(files));
        plan.offered = signed.runbook.as_ref().map(again);
        plan.site.offered = signed.site.as_ref().or(signed.new_site.as_ref()).map(again);
    }
    if plan.digest != *digest {
        return Err(DriverError::Digest { then: digest.clone(), now: plan.digest });
    }
    Ok(plan)
}

/// The state after all records; `plan` is the one that the run goes by at their end.
pub(super) fn fold(plan: &Plan, records: &[Record]) -> Result<State, DriverError> {
    if records.iter().any(|record| matches!(record.event, Event::RunAmended { .. })) {
        let last = stages(records)?.pop();
        return last.map(|(_, state)| state).ok_or_else(|| DriverError::Broken("it has no record".into()));
    }
    let flow = super::amend::flow_of(plan, records)?;
    State::fold(flow.into(), records.iter().map(|record| (&record.event, record.at)))
        .map_err(|error| DriverError::Broken(error.to_string()))
}

/// The state before the first record, right behind each amendment, and at the end, each with the place of the record
/// behind which it holds.
///
/// # Errors
/// When the journal does not hang together.
pub fn stages(records: &[Record]) -> Result<Vec<(u64, State)>, DriverError> {
    let broken = |error: IllegalEvent| DriverError::Broken(error.to_string());
    let mut state = State::new(super::amend::flow_of(&original(records)?, records)?.into());
    let mut found = vec![(0, state.clone())];
    for record in records {
        if matches!(record.event, Event::RunAmended { .. }) {
            let flow = super::amend::flow_of(&brought(&record.event)?, records)?;
            state.amend(&record.event, &flow, record.at).map_err(broken)?;
            found.push((record.seq, state.clone()));
        } else {
            state.apply(&record.event, record.at).map_err(broken)?;
        }
    }
    found.push((records.last().map_or(0, |record| record.seq), state));
    Ok(found)
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
    said(clock, journal, run, event, check_signature).await
}

/// The same for people who are made up: a signature of theirs is not looked at.
///
/// # Errors
/// As [`say`].
pub(crate) async fn say_in_trial(
    clock: &Clock,
    journal: &Journal,
    run: &RunId,
    event: &Event,
) -> Result<Record, DriverError> {
    said(clock, journal, run, event, |_, _, _, _| Ok(())).await
}

async fn said(
    clock: &Clock,
    journal: &Journal,
    run: &RunId,
    event: &Event,
    signed: impl Fn(&RunId, &Told, &Event, Timestamp) -> Result<(), String>,
) -> Result<Record, DriverError> {
    loop {
        let told = read(journal, run).await?;
        let now = moment(clock, &told.records);
        let heard = signed(run, &told, event, now).map_err(|why| (why, true)).and_then(|()| {
            told.state.after(event, now).map_err(|error| (error.to_string(), matters(&told, event, &error)))
        });
        let after = match heard {
            Ok(after) => after,
            Err((why, true)) => return Err(refuse(journal, run, event, now, why).await),
            Err((why, false)) => return Err(DriverError::Refused(why)),
        };
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

/// The time of a word: a clock that was moved back does not bring back what is over.
pub(super) fn moment(clock: &Clock, records: &[Record]) -> Timestamp {
    let now = clock.now();
    records.last().map_or(now, |record| now.max(record.at))
}

/// Whether the word is signed as it says, by the keys that the run goes by; why not.
pub(super) fn check_signature(run: &RunId, told: &Told, event: &Event, at: Timestamp) -> Result<(), String> {
    if event.by().is_none_or(|by| by.level() != Level::Ssh) {
        return Ok(());
    }
    let signers = told.plan.site.keys().map_err(|error| error.to_string())?;
    super::vouch::vouch(run, &told.records, event, (&signers, at)).map_err(|error| error.to_string())
}

/// Whether it is for the audit that a word was refused: it was about who may say it, or about a question to people.
fn matters(told: &Told, event: &Event, error: &IllegalEvent) -> bool {
    let asks = |step| told.state.step(step).is_some_and(|view| view.question().is_some());
    let deviates = matches!(
        event,
        Event::DeviationRequested { .. } | Event::DeviationAnswered { .. } | Event::StepAssigned { .. }
    );
    let who = matches!(error, IllegalEvent::Answer { .. } | IllegalEvent::Voice { .. } | IllegalEvent::Identity { .. });
    deviates || who || event.step().is_some_and(asks)
}

/// Records that a word was refused, and says so; a journal that cannot take it says why itself.
pub(super) async fn refuse(journal: &Journal, run: &RunId, event: &Event, at: Timestamp, why: String) -> DriverError {
    let Some(by) = event.by().cloned() else { return DriverError::Refused(why) };
    let refused =
        Event::WordRefused { step: event.step().cloned(), by, word: event.word().to_owned(), why: why.clone() };
    loop {
        let head = match journal.head(run).await {
            Ok(head) => head.seq,
            Err(error) => return error.into(),
        };
        let events = std::slice::from_ref(&refused);
        let append = Append { run, expected_seq: head, generation: None, at, events, texts: &[] };
        match journal.append(append, &LockChange::default()).await {
            Ok(_) => return DriverError::Refused(why),
            Err(AppendError::Conflict { .. }) => {}
            Err(error) => return error.into(),
        }
    }
}

/// Whether a step acts, or may have acted.
fn may_act(state: &State, step: &StepId) -> bool {
    let acts = |state| matches!(state, StepState::Running | StepState::Undoing | StepState::InDoubt);
    state.step(step).is_some_and(|view| acts(view.state()))
}

//! Locks of steps: asked for before a step looks at the world, relied on when its start is recorded, given back with the
//! fact that ends it. Who gets a lock is the journal's business; when a step needs one is the scheduler's.

use std::collections::BTreeMap;
use std::time::Duration;

use super::DriverError;
use super::attempt::Ready;
use super::session::{Done, Session, Work};
use crate::action::fences::Fences;
use crate::action::{Failure, Progress};
use crate::event::{Event, LockChange, LockGuard};
use crate::ids::{LockName, RunId, StepId};
use crate::journal::{AppendError, HeldLock, LockAnswer, LockAsk};
use crate::scheduler::{Idempotent, StepState};

/// How long the table of locks may look the same before it is asked again: leases end without anybody saying so.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What came of waiting for locks.
pub(super) enum Lined {
    /// The step has these locks, with their fences.
    Taken(BTreeMap<LockName, u64>),
    /// Nobody wants them any more.
    GaveUp,
    /// They cannot be had.
    Refused(String),
}

impl Session {
    /// The locks that a step needs beside those that its run holds from beginning to end.
    fn step_locks(&self, step: &StepId) -> Vec<LockName> {
        // Also of a step that the runbook no longer has: its undo needs them.
        let planned = self.state.step(step).map(|step| &*step.rule().locks).unwrap_or_default();
        planned.iter().filter(|lock| !self.plan.locks.contains(lock)).cloned().collect()
    }

    /// The locks that a step holds now, by itself or through its run.
    pub(super) fn fences(&self, step: &StepId) -> Fences {
        let of_step = self.state.step(step).map(|step| &*step.rule().locks).unwrap_or_default();
        let mut held = self.run_locked.clone();
        held.extend(self.locked.get(step).into_iter().flatten().map(|(name, fence)| (name.clone(), *fence)));
        Fences::new(of_step, &self.plan.locks, held)
    }

    /// Looks up what the run holds after it was taken up again: what it had let go of has another fence now.
    pub(super) async fn look_up_run_locks(&mut self) -> Result<(), DriverError> {
        self.run_locked = of_run(&self.journal.locks().await?.held, &self.run).1;
        Ok(())
    }

    /// Whether a step must ask for locks before it may go on.
    pub(super) fn lacks_locks(&self, step: &StepId) -> bool {
        !self.locked.contains_key(step) && !self.step_locks(step).is_empty()
    }

    /// Asks for the locks of a step in a task, and waits there.
    pub(super) fn wait_for_locks(&mut self, id: StepId) {
        let cancel = self.occupy(&id, Work::Lock);
        let (journal, run, generation) = (self.journal.clone(), self.run.clone(), self.generation);
        let (locks, clock) = (self.step_locks(&id), self.options.clock.clone());
        let observer = std::sync::Arc::clone(&self.options.observer);
        self.tasks.spawn(async move {
            let mut news = journal.watch();
            let waiting = async {
                loop {
                    if cancel.is_cancelled() {
                        return Ok(Lined::GaveUp);
                    }
                    let ask = LockAsk { run: &run, generation, step: &id, locks: &locks, at: clock.now() };
                    match journal.ask_locks(ask).await? {
                        LockAnswer::Taken => {
                            let (mut of_steps, _) = of_run(&journal.locks().await?.held, &run);
                            return Ok(Lined::Taken(of_steps.remove(&id).unwrap_or_default()));
                        }
                        LockAnswer::Never { lock, holder } => return Ok(Lined::Refused(never(&lock, &holder, &run))),
                        LockAnswer::Waits { lock, behind } => {
                            let what = waits(&lock, &behind);
                            observer.progress(&run, &id, &Progress { what, ..Progress::default() });
                        }
                    }
                    let seen = journal.locks().await?;
                    let asked = tokio::time::Instant::now();
                    loop {
                        // Only here, where nothing is half asked.
                        tokio::select! {
                            () = news.news() => {}
                            () = cancel.cancelled() => {
                                journal.stop_waiting(&run, &id).await?;
                                return Ok(Lined::GaveUp);
                            }
                        }
                        let now = journal.locks().await?;
                        if now.held != seen.held || now.waiting != seen.waiting || asked.elapsed() > ASK_AGAIN {
                            break;
                        }
                    }
                }
            };
            let result = waiting.await;
            Done::Locked(id, result)
        });
    }

    /// Takes in what came of it.
    pub(super) fn lined(&mut self, step: StepId, result: Result<Lined, AppendError>) -> Result<(), DriverError> {
        match result? {
            Lined::Taken(locks) => {
                self.locked.insert(step, locks);
                Ok(())
            }
            Lined::GaveUp => Ok(()),
            Lined::Refused(why) => {
                let attempt = self.state.step(&step).map_or(0, |view| view.attempts()) + 1;
                self.started(step, attempt, Ready::Fail(Failure::permanent(why)))
            }
        }
    }

    /// Ends the waiting for locks that nobody wants any more.
    pub(super) fn stop_lining_up(&self) {
        for (work, cancel) in self.busy.values() {
            if *work == Work::Lock {
                cancel.cancel();
            }
        }
    }

    /// Steps that hold locks and neither act nor are about to, nor may have acted.
    pub(super) fn done_with_locks(&self) -> Vec<StepId> {
        let needs = |step: &StepId| {
            self.busy.contains_key(step)
                || self.state.step(step).is_some_and(|view| {
                    matches!(view.state(), StepState::Running | StepState::Undoing | StepState::InDoubt)
                })
        };
        self.locked.keys().filter(|step| !needs(step)).cloned().collect()
    }

    /// What an append of these facts changes about the locks of steps.
    pub(super) fn step_lock_change(&self, events: &[Event]) -> LockChange {
        let free = self.done_with_locks();
        let guard = events.iter().filter_map(|event| {
            let (step, undoes, by_hand) = match event {
                Event::AttemptStarted { step, .. } => (step, false, false),
                Event::UndoStarted { step, .. } => (step, true, false),
                Event::UndoWaiting { step, .. } => (step, true, true),
                _ => return None,
            };
            let locks = self.locked.get(step).filter(|_| !free.contains(step))?.len() as u64;
            let repeatable = self.state.step(step).is_some_and(|view| view.rule().idempotent != Idempotent::No);
            // Whoever undoes it by hand is at work also while no driver is.
            let stays = by_hand || (!undoes && (!repeatable || self.outlives(step)));
            Some(LockGuard { step: step.clone(), locks, stays })
        });
        LockChange { guard: guard.collect(), free: free.clone(), ..LockChange::default() }
    }
}

/// Locks by name, with their fences.
type ByName = BTreeMap<LockName, u64>;

/// What each step of a run holds, and what the run itself holds.
pub(super) fn of_run(held: &[HeldLock], run: &RunId) -> (BTreeMap<StepId, ByName>, ByName) {
    let (mut of_steps, mut of_run): (BTreeMap<StepId, ByName>, ByName) = Default::default();
    for held in held.iter().filter(|held| held.run == *run) {
        let locks = match &held.step {
            Some(step) => of_steps.entry(step.clone()).or_default(),
            None => &mut of_run,
        };
        locks.insert(held.name.clone(), held.fence);
    }
    (of_steps, of_run)
}

fn waits(lock: &LockName, (run, step): &(RunId, Option<StepId>)) -> String {
    let step = step.as_ref().map(|step| format!(", step `{step}`")).unwrap_or_default();
    format!("waiting for lock `{lock}` behind run {run}{step}")
}

fn never(lock: &LockName, holder: &RunId, run: &RunId) -> String {
    format!(
        "lock `{lock}` would never be free: run `{holder}` holds it and waits, itself or through others, for what run \
         `{run}` holds; declare both locks in `locks` of both runbooks, or end one of the runs"
    )
}

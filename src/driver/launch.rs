//! Lets tasks begin. A task is tried once in its place: what needs no waiting is over before anything is written, so
//! that the end of an attempt and the start that it allows are one append. What has to wait goes on by itself.
//!
//! Called by `turn`; the session takes in what came to an end here with the next look at its tasks.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Builder, Runtime};

use super::DriverError;
use super::session::{Done, Session};
use crate::plan::PlanStep;
use crate::spec::actions::ActionSpec;

/// Threads for what works on rows, made when the first such task comes. A driver has one thread, which records and renews
/// its lease; converting and hashing rows must not hold that up, and may use every core.
static ROWS: LazyLock<std::io::Result<Runtime>> =
    LazyLock::new(|| Builder::new_multi_thread().thread_name("piton-rows").enable_all().build());

/// The threads for a step of which a part works on databases; none for others. Without them it works where all else does.
fn rows(step: &PlanStep) -> Option<&'static Runtime> {
    step.actions().any(ActionSpec::works_on_databases).then(|| ROWS.as_ref().ok()).flatten()
}

impl Session {
    /// Has a task go on by itself that is not tried in its place.
    pub(super) fn spawn(&mut self, step: &PlanStep, task: impl Future<Output = Done> + Send + 'static) {
        match rows(step) {
            Some(rows) => self.tasks.spawn_on(task, rows.handle()),
            None => self.tasks.spawn(task),
        };
    }

    /// Begins a task for a step and gives what it came to, if it came to it without waiting. What works on rows does so
    /// elsewhere from its beginning on: its connections belong to the threads that wait for them.
    pub(super) fn launch(
        &mut self,
        step: &PlanStep,
        task: impl Future<Output = Done> + Send + 'static,
    ) -> Option<Done> {
        if let Some(rows) = rows(step) {
            self.tasks.spawn_on(task, rows.handle());
            return None;
        }
        let mut task = Box::pin(task);
        // Whoever takes the task over asks it again, so nobody needs to be woken here.
        let mut nobody = Context::from_waker(Waker::noop());
        match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(&mut nobody))) {
            Ok(Poll::Ready(done)) => return Some(done),
            Ok(Poll::Pending) => {
                self.tasks.spawn(task);
            }
            // A task that broke ends the driver, wherever it ran.
            Err(panic) => {
                self.tasks.spawn(async move { resume_unwind(panic) });
            }
        }
        None
    }

    /// Begins a task whose end is taken in later, however soon it comes.
    pub(super) fn launch_and_go_on(&mut self, step: &PlanStep, task: impl Future<Output = Done> + Send + 'static) {
        if let Some(done) = self.launch(step, task) {
            self.over.push(done);
        }
    }

    /// Takes in everything that has ended by now, so that what ends together is recorded together.
    pub(super) fn take_ended(&mut self) -> Result<(), DriverError> {
        for done in std::mem::take(&mut self.over) {
            self.take(Ok(done))?;
        }
        while let Some(done) = self.tasks.try_join_next() {
            self.take(done)?;
        }
        Ok(())
    }
}

//! Lets tasks begin. A task is tried once in its place: what needs no waiting is over before anything is written, so
//! that the end of an attempt and the start that it allows are one append. What has to wait goes on by itself.
//!
//! Called by `turn`; the session takes in what came to an end here with the next look at its tasks.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::{Context, Poll, Waker};

use super::DriverError;
use super::session::{Done, Session};

impl Session {
    /// Begins a task and gives what it came to, if it came to it without waiting.
    pub(super) fn launch(&mut self, task: impl Future<Output = Done> + Send + 'static) -> Option<Done> {
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
    pub(super) fn launch_and_go_on(&mut self, task: impl Future<Output = Done> + Send + 'static) {
        if let Some(done) = self.launch(task) {
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

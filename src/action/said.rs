//! What the command of an attempt said, on its way from the action to the driver that records it.
//!
//! An action may run several commands for one attempt (a check that is repeated until it holds); what the latest one
//! said counts. Still with its secrets: the driver hides them.

use std::sync::{Arc, Mutex, PoisonError};

use super::process::Captured;
use crate::event::Stream;

/// Where an attempt's command leaves what it said; clones share the place.
#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<Vec<(Stream, Captured)>>>);

impl Said {
    /// Leaves both streams of a command that ended, in place of those of an earlier one.
    pub(crate) fn keep(&self, stdout: Captured, stderr: Captured) {
        let both = [(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        let said = both.into_iter().filter(|(_, captured)| captured.total() > 0).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = said;
    }

    /// Takes the streams on which something was said.
    pub(crate) fn take(&self) -> Vec<(Stream, Captured)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

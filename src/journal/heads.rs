//! How far this process knows runs to have come: saves an append the look at the record before.
//!
//! Only a hint. Every statement that uses it checks it against the store, so a wrong one costs time and nothing else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::{Event, Record};
use crate::ids::RunId;

/// Place and hash of the latest record of each run under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Heads(Arc<Mutex<HashMap<RunId, (u64, String)>>>);

impl Heads {
    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, (u64, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hash of record `seq`, if that is the latest one known.
    pub(super) fn get(&self, run: &RunId, seq: u64) -> Option<String> {
        self.lock().get(run).filter(|(known, _)| *known == seq).map(|(_, hash)| hash.clone())
    }

    /// Forgets a run.
    pub(super) fn forget(&self, run: &RunId) {
        self.lock().remove(run);
    }

    /// Remembers the last of `records`; forgets a run that came to rest.
    pub(super) fn came_to(&self, run: &RunId, records: &[Record]) {
        let Some(last) = records.last() else { return };
        if matches!(last.event, Event::RunFinished { .. }) {
            self.lock().remove(run);
        } else {
            self.lock().insert(run.clone(), (last.seq, last.hash.clone()));
        }
    }
}

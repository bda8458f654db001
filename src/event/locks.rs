//! What an append does to locks, beside the facts that it records.

use crate::ids::{LockName, StepId};

/// Locks of the real world that an append takes or frees in its own transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockChange {
    /// To take for the run; refused as a whole if another run holds one of them.
    pub take: Vec<LockName>,
    /// Whether every lock that the run holds from beginning to end is freed.
    pub free_all: bool,
    /// Steps whose locks are freed.
    pub free: Vec<StepId>,
    /// Steps that are about to act and must hold their locks; refused as a whole if one does not any more.
    pub guard: Vec<LockGuard>,
}

impl LockChange {
    /// Whether others may take something afterwards.
    pub fn frees(&self) -> bool {
        self.free_all || !self.free.is_empty()
    }
}

/// A step that relies on locks that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockGuard {
    /// Which step.
    pub step: StepId,
    /// How many locks it holds.
    pub locks: u64,
    /// Whether they stay held when the driver dies, because the step is not safe to repeat.
    pub stays: bool,
}

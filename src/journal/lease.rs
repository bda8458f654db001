//! Who drives a run: the owner of a lease, and whether that process is still there.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::JournalError;

/// A process, so exactly that no later process can be taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Name of the host.
    pub host: String,
    /// Id of the process.
    pub pid: i32,
    /// When the process started, in clock ticks since the host booted.
    pub pid_start: u64,
    /// Id of the host's boot.
    pub boot_id: String,
}

impl Owner {
    /// This very process.
    pub fn this_process() -> std::io::Result<Self> {
        let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
        let stat = procfs::process::Process::myself().and_then(|me| me.stat()).map_err(std::io::Error::other)?;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Self { host, pid: stat.pid, pid_start: stat.starttime, boot_id })
    }

    /// Whether `seen_from`, a process that runs now, can tell that this one is gone. Of another host it cannot.
    pub fn is_gone(&self, seen_from: &Self) -> bool {
        if self.host != seen_from.host {
            return false;
        }
        if self.boot_id != seen_from.boot_id {
            return true;
        }
        match procfs::process::Process::new(self.pid).and_then(|process| process.stat()) {
            // A zombie has ended; nobody has asked for its exit code yet.
            Ok(stat) => stat.starttime != self.pid_start || matches!(stat.state, 'Z' | 'X'),
            Err(procfs::ProcError::NotFound(_)) => true,
            Err(_) => false,
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

/// A lease as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) generation: u64,
    /// `None` once released.
    pub(super) owner: Option<Owner>,
    pub(super) until: Timestamp,
}

impl Lease {
    /// Whether `claimant` may take it at `now`.
    pub(super) fn is_free(&self, claimant: &Owner, now: Timestamp) -> bool {
        self.owner.as_ref().is_none_or(|owner| self.until <= now || owner == claimant || owner.is_gone(claimant))
    }
}

/// Why a lease cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another process drives the run.
    #[error("{owner} drives this run, at least until {until}; wait for it or stop it")]
    Held {
        /// Which.
        owner: Owner,
        /// When its lease ends unless it renews it.
        until: Timestamp,
    },
    /// The lease is no longer this generation's.
    #[error("another driver took this run over (generation {generation}); this one must stop")]
    Lost {
        /// The generation that holds it now.
        generation: u64,
    },
    /// The journal failed.
    #[error(transparent)]
    Store(#[from] JournalError),
}

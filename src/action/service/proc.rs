//! What the kernel says about processes: who is who, who is alive, who carries a token.
//!
//! A process is its number, its start time and the boot it lives in; the number alone is never trusted. Used by the
//! supervisor only.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::{Process, Stat, all_processes};
use serde::{Deserialize, Serialize};

/// Variable that marks every process of a service with the token of its start.
pub(crate) const TOKEN_VARIABLE: &str = "PITON_SERVICE_TOKEN";

/// A process, told apart from any later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Its number.
    pub(crate) pid: i32,
    /// Clock ticks from the boot to its start.
    pub(crate) start_ticks: u64,
}

impl Identity {
    /// The identity of `pid` right now; nothing when there is no such process.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        stat(pid).map(|stat| Self { pid, start_ticks: stat.starttime })
    }

    /// The identity of a process of this one that was started after `before`, a moment ago. When the clock has not ticked
    /// since, that is when it started; the kernel, slower, is asked only otherwise.
    pub(crate) fn started(pid: i32, before: Option<u64>) -> Option<Self> {
        match before {
            Some(start_ticks) if ticks() == before => Some(Self { pid, start_ticks }),
            _ => Self::of(pid),
        }
    }

    /// Whether this very process still runs; a zombie does not.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.starttime == self.start_ticks && runs(&stat))
    }

    /// Sends a signal to this very process.
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_alive()
            && let Err(error) = kill(Pid::from_raw(self.pid), signal)
            && error != Errno::ESRCH
        {
            tracing::warn!(pid = self.pid, %signal, %error, "signal not delivered");
        }
    }
}

/// Clock ticks since the boot, as the kernel notes them for a process that starts now.
pub(crate) fn ticks() -> Option<u64> {
    const NANOSECONDS: u64 = 1_000_000_000;
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).ok()?;
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec()).ok()?, u64::try_from(now.tv_nsec()).ok()?);
    let per_second = procfs::ticks_per_second();
    Some(seconds * per_second + nanoseconds / NANOSECONDS.checked_div(per_second)?)
}

/// Whether a process with this number runs.
#[cfg(test)]
pub(crate) fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| runs(&stat))
}

fn stat(pid: i32) -> Option<Stat> {
    Process::new(pid).and_then(|process| process.stat()).ok()
}

fn runs(stat: &Stat) -> bool {
    !matches!(stat.state, 'Z' | 'X' | 'x')
}

/// A running process of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// Which.
    pub(crate) identity: Identity,
    /// Its process group.
    pub(crate) group: i32,
    /// Whether it leads the session of the service.
    pub(crate) leads: bool,
}

/// All running processes that carry `token`, or belong to the session that `leader` leads while it is alive.
pub(crate) fn members(token: &str, leader: Option<Identity>) -> Vec<Member> {
    let session = leader.filter(|leader| leader.is_alive()).map(|leader| leader.pid);
    let Ok(processes) = all_processes() else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|process| {
            let stat = process.stat().ok().filter(runs)?;
            let in_session = session == Some(stat.session);
            let marked = || {
                let environ = process.environ().ok()?;
                environ.get(std::ffi::OsStr::new(TOKEN_VARIABLE)).map(|value| value.as_os_str() == token)
            };
            (in_session || marked() == Some(true)).then_some(Member {
                identity: Identity { pid: stat.pid, start_ticks: stat.starttime },
                group: stat.pgrp,
                leads: stat.session == stat.pid,
            })
        })
        .collect()
}

/// The boot that this system is in; process numbers and start times mean nothing in another.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Pause between two looks at a process.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(25);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_and_the_kernel_say_the_same_of_a_process_that_was_just_started() {
        for _ in 0..50 {
            let before = ticks();
            let mut child = std::process::Command::new("true").spawn().expect("starts");
            let pid = i32::try_from(child.id()).expect("a process number");
            let said = Identity::started(pid, before);
            assert_eq!((said, said.is_some()), (Identity::of(pid), true), "{before:?}");
            child.wait().expect("ends");
        }
        let own = i32::try_from(std::process::id()).expect("a process number");
        assert_eq!(Identity::started(own, None), Identity::of(own), "without a clock the kernel is asked");
    }
}

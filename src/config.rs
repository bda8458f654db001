//! What the process is told from outside the runbook: environment, user, host. The only place that reads them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::ids::{Account, Actor, How};

pub mod rights;

/// The value of an environment variable, if it is set to UTF-8 text.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A number of seconds that an environment variable gives; `None` if it is not set or is no number.
pub fn seconds(name: &str) -> Option<std::time::Duration> {
    let seconds: f64 = variable(name)?.trim().parse().ok()?;
    std::time::Duration::try_from_secs_f64(seconds).ok()
}

/// The current time. Everything below the driver gets it as a value.
pub fn now() -> jiff::Timestamp {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_millisecond(now.as_millisecond()).expect("a time that was just read is in range")
}

/// Where a driver gets the time from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The clock of the system.
    #[default]
    System,
    /// Milliseconds since 1970: one passes with each reading, and pauses are leapt over. Clones share it. For tests of
    /// runbooks, where it also tells apart what happened at different times.
    Leaping(Arc<AtomicI64>),
}

impl Clock {
    /// A leaping clock that begins at `start`.
    pub fn leaping(start: jiff::Timestamp) -> Self {
        Self::Leaping(Arc::new(AtomicI64::new(start.as_millisecond())))
    }

    /// What time it is, in whole milliseconds.
    pub fn now(&self) -> jiff::Timestamp {
        match self {
            Self::System => now(),
            Self::Leaping(ms) => {
                jiff::Timestamp::from_millisecond(ms.fetch_add(1, Ordering::SeqCst)).unwrap_or(jiff::Timestamp::MAX)
            }
        }
    }

    /// Makes it `at`, unless it is later already; false for a clock that does not leap.
    pub fn leap_to(&self, at: jiff::Timestamp) -> bool {
        match self {
            Self::System => false,
            Self::Leaping(ms) => {
                ms.fetch_max(at.as_millisecond(), Ordering::SeqCst);
                true
            }
        }
    }
}

/// Name of this host.
pub fn host() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".into())
}

/// The user of this process as the system knows it; behind `sudo`, the person who called it.
pub fn local_user() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    let user = user.unwrap_or_else(|| nix::unistd::getuid().to_string());
    match variable("SUDO_USER") {
        Some(caller) if user == "root" => caller,
        _ => user,
    }
}

/// The account of this process.
pub fn account() -> Account {
    Account { user: local_user(), uid: nix::unistd::getuid().as_raw(), host: host() }
}

/// Who acts: the person named by `--as`, which is a claim, or the local user.
pub fn actor(named: Option<&str>) -> Actor {
    let account = account();
    match named {
        Some(name) if name != account.user => Actor::identified(name, How::Claimed(account)),
        _ => Actor::identified(account.user.clone(), How::Local(account)),
    }
}

/// The store when nothing else is said: `.piton/piton.db` in the nearest folder above `start` that has one or is a
/// project (`.git`), else in `start`.
pub fn default_store(start: &Path) -> PathBuf {
    project_of(start).join(".piton").join("piton.db")
}

/// The folder of a file; `.` for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The project that a folder belongs to: the nearest folder above it, or itself, that has `.piton` or `.git`; else itself.
pub fn project_of(folder: &Path) -> PathBuf {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let marked = folder.ancestors().find(|folder| folder.join(".piton").is_dir() || folder.join(".git").exists());
    marked.unwrap_or(&folder).to_path_buf()
}

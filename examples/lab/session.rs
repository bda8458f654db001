//! What every process of the lab does alike: say that it is ready, keep its session row alive, stop when told to.
//!
//! A session row stays in the database after the process is gone, so "who was connected when" can be asked afterwards.

use std::io::Write;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::db::{Arg, LabDb};
use super::error::LabError;
use super::settings::{Database, Lab, now_ms};

/// How often a session says that it lives.
pub(super) const HEARTBEAT_MS: i64 = 500;

/// What kind of work a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Collector,
    Component,
    Utility,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Collector => "collector",
            Self::Component => "component",
            Self::Utility => "utility",
        }
    }
}

/// A row of `lab_session`, held by a running process.
#[derive(Debug)]
pub(super) struct Session {
    id: String,
    database: Database,
}

impl Session {
    /// Registers the calling process as `component`.
    pub(super) async fn open(
        db: &mut LabDb,
        database: Database,
        component: &str,
        kind: Kind,
    ) -> Result<Self, LabError> {
        let (now, pid) = (now_ms(), std::process::id());
        let id = format!("{pid}-{now}");
        let sql = format!(
            "INSERT INTO {}.lab_session (session_id, component, kind, pid, opened_ms, beat_ms) VALUES ($1, $2, $3, {pid}, $4, $4)",
            database.name()
        );
        let args = [Arg::Text(id.clone()), component.into(), kind.name().into(), now.into()];
        db.execute(&sql, &args).await?;
        Ok(Self { id, database })
    }

    /// The session's id, unique in its database.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Records that the process still lives.
    pub(super) async fn beat(&self, db: &mut LabDb) -> Result<(), LabError> {
        self.touch(db, "beat_ms").await
    }

    /// Records that the process ends in good order.
    pub(super) async fn end(self, db: &mut LabDb) -> Result<(), LabError> {
        self.touch(db, "beat_ms").await?;
        self.touch(db, "closed_ms").await
    }

    async fn touch(&self, db: &mut LabDb, column: &str) -> Result<(), LabError> {
        let sql = format!("UPDATE {}.lab_session SET {column} = $1 WHERE session_id = $2", self.database.name());
        db.execute(&sql, &[now_ms().into(), Arg::Text(self.id.clone())]).await.map(|_| ())
    }
}

/// The ready file of a component: absent until the process can do its work, gone again when it ends in good order.
#[derive(Debug)]
pub(super) struct Ready(std::path::PathBuf);

impl Ready {
    /// Takes the component's ready file and makes sure that nothing stale stands in it.
    pub(super) fn claim(lab: &Lab, component: &str) -> Result<Self, LabError> {
        let path = lab.ready_file(component);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(LabError::file(folder))?;
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(LabError::file(&path)(error)),
            Ok(()) | Err(_) => Ok(Self(path)),
        }
    }

    /// Says that the component is ready; `content` is where it listens or how it is known.
    pub(super) fn announce(&self, content: &str) -> Result<(), LabError> {
        let fresh = self.0.with_extension("new");
        std::fs::write(&fresh, content).map_err(LabError::file(&fresh))?;
        std::fs::rename(&fresh, &self.0).map_err(LabError::file(&self.0))
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // The process ends; a file that cannot be removed is replaced at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The signals that ask a process to stop.
#[derive(Debug)]
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Begins to listen.
    pub(super) fn listen() -> Result<Self, LabError> {
        let on = |kind| signal(kind).map_err(LabError::file("signals"));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    /// Returns once the process is asked to stop.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Writes one line to standard output; a closed pipe is no reason to stop working.
pub(super) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Returns once the clock has reached `at_ms`.
pub(super) async fn until(at_ms: i64) {
    let wait_ms = u64::try_from(at_ms - now_ms()).unwrap_or(0);
    tokio::time::sleep(std::time::Duration::from_millis(wait_ms)).await;
}

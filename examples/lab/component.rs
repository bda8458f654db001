//! Server, Builder, Web and Daemon of both releases: processes that hold a database session and a ready file.
//!
//! They do no work of their own; what a migration needs of them is that they are there, take their time and can be stopped.

use super::db::LabDb;
use super::error::LabError;
use super::session::{HEARTBEAT_MS, Kind, Ready, Session, Stop, until};
use super::settings::{Lab, Release, now_ms};

/// A component beside the data aggregator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ComponentName {
    /// Takes the lab's `server_start_ms` until it is ready.
    Server,
    /// Builds schedules.
    Builder,
    /// Serves people.
    Web,
    /// Watches and notifies.
    Daemon,
}

impl ComponentName {
    /// Every component that a release has beside its data aggregator.
    pub(super) const ALL: [Self; 4] = [Self::Server, Self::Builder, Self::Web, Self::Daemon];

    /// The name within its release.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Builder => "builder",
            Self::Web => "web",
            Self::Daemon => "daemon",
        }
    }
}

/// Runs the component until it is asked to stop.
pub(super) async fn serve(lab: &Lab, component: ComponentName, release: Release) -> Result<(), LabError> {
    let mut stop = Stop::listen()?;
    let name = format!("{}-{}", release.prefix(), component.name());
    let ready = Ready::claim(lab, &name)?;
    let mut db = LabDb::open(lab, &name).await?;
    let session = Session::open(&mut db, release.database(), &name, Kind::Component).await?;
    let mut ready_at = Some(match component {
        ComponentName::Server => now_ms() + i64::try_from(lab.options.server_start_ms).unwrap_or(i64::MAX / 2),
        ComponentName::Builder | ComponentName::Web | ComponentName::Daemon => now_ms(),
    });
    let mut beat_at = now_ms() + HEARTBEAT_MS;
    loop {
        if ready_at.is_some_and(|at| at <= now_ms()) {
            ready.announce(&std::process::id().to_string())?;
            ready_at = None;
        }
        if beat_at <= now_ms() {
            session.beat(&mut db).await?;
            beat_at = now_ms() + HEARTBEAT_MS;
        }
        tokio::select! {
            () = stop.asked() => break,
            () = until(beat_at.min(ready_at.unwrap_or(i64::MAX))) => {}
        }
    }
    session.end(&mut db).await?;
    db.close().await
}

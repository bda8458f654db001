//! Holds: a stopped service that must stay down, with who asked for it and why. A hold outlives its run.
//!
//! One small file per held service in Piton's state folder. Used by the service actions.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::{Context, durable};
use crate::config::rights::own_folder;

/// Why a service is kept down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The run that holds it.
    pub run: String,
    /// The step that holds it.
    pub step: String,
    /// Who started that run.
    pub by: String,
    /// Since when.
    pub at: jiff::Timestamp,
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "held by step `{}` of run {} ({}) since {}", self.step, self.run, self.by, self.at)
    }
}

impl Hold {
    /// The hold that this attempt would set.
    pub(crate) fn by(cx: &Context) -> Self {
        Self { run: cx.run.to_string(), step: cx.step.to_string(), by: cx.actor.to_string(), at: crate::config::now() }
    }

    /// The hold on a service, if there is one.
    ///
    /// # Errors
    /// A hold that cannot be read counts as an error, never as none.
    pub fn read(cx: &Context, service: &str) -> io::Result<Option<Self>> {
        let Some(content) = durable::read(&path(cx, service))? else { return Ok(None) };
        serde_json::from_slice(&content).map(Some).map_err(io::Error::other)
    }

    /// Sets the hold.
    pub(crate) fn write(&self, cx: &Context, service: &str) -> io::Result<()> {
        let path = path(cx, service);
        if let Some(folder) = path.parent() {
            own_folder(folder)?;
        }
        durable::replace(&path, &serde_json::to_vec_pretty(self).map_err(io::Error::other)?, None)
    }

    /// Takes any hold away.
    pub(crate) fn release(cx: &Context, service: &str) -> io::Result<()> {
        durable::remove(&path(cx, service))
    }
}

fn path(cx: &Context, service: &str) -> PathBuf {
    super::folder(cx).join(format!("{}.hold.json", durable::file_name(service)))
}

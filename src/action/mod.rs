//! What a step does. An action knows nothing of scheduling; it looks, acts, says what it found and how to go back.
//!
//! After a failure it says what it knows: nothing was changed ([`Effect::None`]), or it cannot tell
//! ([`Effect::Unknown`]). Called by the driver only.

mod backup;
pub mod build;
pub mod databases;
mod db;
mod db_backup;
mod db_compare;
mod db_copy;
mod db_preflight;
mod db_restore;
mod db_series;
mod db_sessions;
pub mod exec;
pub mod fences;
mod file_write;
pub mod held;
mod http;
pub mod mask;
pub mod material;
mod notify;
pub mod option;
mod people;
pub mod process;
mod runbook;
pub mod said;
pub mod secrets;
pub mod service;
pub mod size;
mod wait;
mod wait_until;
pub mod wiped;

pub(crate) mod durable;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::event::{Effect, Finding, Outcome, Outputs};
use crate::ids::{Actor, RunId, StepId};
use crate::plan::{Files, Pins, Walls};
use crate::site::LoadedSite;
use crate::transfer::ChunkHook;

/// What an action can do. Arguments are part of the implementing value, already rendered.
#[async_trait]
pub trait Action: Send + Sync {
    /// Looks at the world before the first change. Kept durably before `run`; needed to undo and to probe.
    async fn before(&self, _cx: &Context) -> Result<Value, Failure> {
        Ok(Value::Null)
    }

    /// Does the work.
    async fn run(&self, cx: &Context, before: &Value) -> Result<Outputs, Failure>;

    /// Goes on with an attempt that an earlier driver had started and that [`held::standing`] has not given up.
    async fn take_up(&self, _cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        Err(Failure::unknown("nothing holds what this action had started"))
    }

    /// Says what became of an attempt whose result is unknown.
    async fn probe(&self, _cx: &Context, _before: &Value) -> Finding {
        Finding::Unknown
    }

    /// Goes back to `before`. Must be safe to repeat.
    async fn undo(&self, _cx: &Context, _before: &Value) -> Result<(), Failure> {
        Err(Failure::harmless("this action has no inverse"))
    }

    /// Takes note that another action has undone this one, so that it may run again as if for the first time.
    async fn undone(&self, _cx: &Context) -> Result<(), Failure> {
        Ok(())
    }

    /// Tells people that they are waited for; false where there is no way to.
    async fn tell(&self, _cx: &Context, _message: &Value) -> Result<bool, Failure> {
        Ok(false)
    }

    /// Says what `run` would change, without changing anything.
    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::Unknown("the action cannot tell beforehand".into())
    }
}

/// An action that did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// What went wrong, for people.
    pub error: String,
    /// Whether the world may have changed.
    pub effect: Effect,
    /// Whether trying again can help.
    pub retryable: bool,
}

impl Failure {
    /// A failure that changed nothing and may pass.
    pub fn harmless(error: impl Into<String>) -> Self {
        Self { error: error.into(), effect: Effect::None, retryable: true }
    }

    /// A failure that changed nothing and will not pass by itself.
    pub fn permanent(error: impl Into<String>) -> Self {
        Self { error: error.into(), effect: Effect::None, retryable: false }
    }

    /// A failure behind which the world may have changed.
    pub fn unknown(error: impl Into<String>) -> Self {
        Self { error: error.into(), effect: Effect::Unknown, retryable: true }
    }
}

/// What an action would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preview {
    /// Something; in a few words.
    WillChange(String),
    /// Nothing; why.
    NoChange(String),
    /// It cannot be told; why.
    Unknown(String),
}

/// How far a long action has come; shown, never stored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// What is being done, for instance the table.
    pub what: String,
    /// Units done.
    pub done: u64,
    /// Units in all, if known.
    pub total: Option<u64>,
    /// Whether `total` is an estimate.
    pub is_estimate: bool,
    /// Units per second.
    pub per_second: f64,
    /// Bytes per second, where units are no bytes and that is known.
    pub bytes_per_second: Option<f64>,
    /// Time left, where more than `total` has to be known to tell.
    pub left: Option<std::time::Duration>,
}

impl Progress {
    /// Whether it counts nothing and only says what is going on, for instance what is waited for.
    pub fn is_words(&self) -> bool {
        self.done == 0 && self.total.is_none()
    }
}

/// Where progress goes.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// What an action gets to work with.
#[derive(Clone)]
pub struct Context {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Who started the run.
    pub actor: Actor,
    /// The site.
    pub site: LoadedSite,
    /// Folder that Piton keeps its own state in: service states, evidence.
    pub state_dir: Arc<Path>,
    /// Folder of the runbook; relative paths start here.
    pub base: Arc<Path>,
    /// Cancelled when the attempt must end: stop what was started, then return.
    pub cancel: CancellationToken,
    /// Where progress goes.
    pub progress: ProgressSink,
    /// Texts of the files that the runbook names, as they were when the plan was made.
    pub files: Arc<Files>,
    /// What must be as it was then; nothing in runs of earlier versions.
    pub pins: Option<Arc<Pins>>,
    /// The folders that the runbook reads its files from; nothing in runs of earlier versions.
    pub walls: Option<Arc<Walls>>,
    /// Starts runs of other runbooks.
    pub children: Arc<dyn RunChild>,
    /// Opens databases of the site once per run.
    pub databases: databases::Databases,
    /// Fetches secrets of the site once per run, and knows them from then on.
    pub secrets: Arc<secrets::Secrets>,
    /// Hides secrets in whatever is recorded or shown.
    pub masker: mask::Masker,
    /// What takes the place of actions, if anything does.
    pub swap: Option<Arc<dyn build::Swap>>,
    /// Has the command of this attempt outlive its driver; nothing where a command ends with whoever started it.
    pub held: Option<held::Held>,
    /// The locks that the step holds.
    pub fences: fences::Fences,
    /// Where the command of this attempt leaves what it said.
    pub said: said::Said,
    /// What is awaited at the moments of each chunk that is copied.
    pub chunks: ChunkHook,
}

/// Runs other runbooks; the driver's side of the `runbook` action.
#[async_trait]
pub trait RunChild: Send + Sync {
    /// Starts the child run of a step, or takes it up again where it was.
    async fn run_child(&self, child: ChildRun<'_>, cancel: CancellationToken) -> Result<(RunId, Outcome), Failure>;
}

/// A runbook that a step runs.
#[derive(Debug, Clone, Copy)]
pub struct ChildRun<'a> {
    /// The run whose step it is.
    pub parent: &'a RunId,
    /// The step.
    pub step: &'a StepId,
    /// The folder of the runbook that runs it.
    pub base: &'a Path,
    /// Its path from there.
    pub path: &'a str,
    /// Its parameters.
    pub params: &'a BTreeMap<String, Value>,
    /// What must be as it was when the plan of `parent` was made; nothing in runs of earlier versions.
    pub pins: Option<&'a Pins>,
    /// The folders that the runbook that runs it stays in; nothing in runs of earlier versions.
    pub walls: Option<&'a Walls>,
}

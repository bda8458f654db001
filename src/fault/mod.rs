//! Faults on purpose: what may go wrong, at which point of a run, and the hooks at which a driver asks.
//!
//! Owned here: the points, the faults and what each does there. Refused: to set a fault by itself; a driver without
//! faults pays one comparison. The driver asks; tests, `piton test` and the hidden setting `PITON_FAULT` answer.
//! `docs/design/faults.md` tells which faults exist and what must hold under each.

mod acting;
mod script;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::action::build::{Part, Swap};
use crate::event::{Effect, Event};
use crate::ids::StepId;
use crate::journal::{AppendError, JournalError};
use crate::transfer::{ChunkHook, ChunkMoment};

pub use script::{FaultError, Script, Set, Trigger};

/// A place in a driver's work at which something may go wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Point<'a> {
    /// The start is durable; the action has done nothing yet.
    BeforeAct {
        /// Of which step.
        step: &'a StepId,
        /// Which attempt, from 1.
        attempt: u32,
        /// What of the step is to act.
        part: Part,
    },
    /// The action has done its work; its end is not recorded yet.
    AfterAct {
        /// Of which step.
        step: &'a StepId,
        /// Which attempt, from 1.
        attempt: u32,
        /// What of the step acted.
        part: Part,
    },
    /// A moment of a chunk that a copy moves.
    Chunk {
        /// Counts this moment over all copies of this driver, from 1.
        number: u64,
        /// Which moment.
        moment: ChunkMoment,
    },
    /// These facts are about to be recorded.
    BeforeAppend {
        /// Counts the appends of this driver and of the child runs it drives, from 1 unless told otherwise.
        number: u64,
        /// The facts.
        events: &'a [Event],
    },
    /// These facts are durable; the driver has not been told yet.
    AfterAppend {
        /// As before.
        number: u64,
        /// The facts.
        events: &'a [Event],
    },
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The driver is gone from one moment to the next; how is said by [`Crash`].
    Crash,
    /// It takes that long.
    Delay(Duration),
    /// The whole process stops until somebody sends it SIGCONT, so that meanwhile the world around it can be changed.
    Stop,
    /// Of an action: it reports a failure with this effect. Before acting nothing happens, after acting all has.
    Fail {
        /// What it says about the world.
        effect: Effect,
        /// Whether it says that trying again may help.
        retryable: bool,
    },
    /// Of an action: it acts twice.
    Repeat,
    /// Of an append: the disk is full; nothing is recorded.
    DiskFull,
    /// Of an append: the store says that somebody else was there first; nothing is recorded.
    Conflict,
    /// Of an append: it is recorded, and the driver gets an error instead of the answer.
    LostAnswer,
}

/// How a driver crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The driver's work is dropped where it stands and the caller gets `DriverError::Crashed`.
    Driver,
    /// The process gets SIGKILL.
    Process,
}

/// Says what goes wrong. Asked once each time a driver comes to a point.
pub trait Faults: Send + Sync {
    /// What goes wrong at this point; `None` for nothing.
    fn at(&self, point: &Point<'_>) -> Option<Fault>;
}

/// What a driver is hooked up with; nothing by default.
#[derive(Clone, Default)]
pub struct Hooks {
    mocks: Option<Arc<dyn Swap>>,
    set: Option<Arc<Armed>>,
}

/// Faults and how they strike.
struct Armed {
    faults: Arc<dyn Faults>,
    crash: Crash,
    appends: AtomicU64,
    chunks: [AtomicU64; 3],
    crashed: CancellationToken,
}

impl Hooks {
    /// Real actions, and these faults.
    pub fn new(faults: Arc<dyn Faults>, crash: Crash) -> Self {
        let armed = Armed {
            faults,
            crash,
            appends: AtomicU64::new(0),
            chunks: Default::default(),
            crashed: CancellationToken::new(),
        };
        Self { mocks: None, set: Some(Arc::new(armed)) }
    }

    /// The same with other actions in the place of the real ones.
    #[must_use]
    pub fn with_mocks(self, mocks: Arc<dyn Swap>) -> Self {
        Self { mocks: Some(mocks), ..self }
    }

    /// The same, counting appends on from those of earlier drivers of the run.
    #[must_use]
    pub fn counting_from(self, appends: u64) -> Self {
        if let Some(armed) = &self.set {
            armed.appends.store(appends, Ordering::SeqCst);
        }
        self
    }

    /// Whether actions are mocks, so that nothing of the site is needed.
    pub(crate) fn pretends(&self) -> bool {
        self.mocks.is_some()
    }

    /// How many appends were begun, those of earlier drivers included if they were counted on.
    pub fn appends(&self) -> u64 {
        self.set.as_ref().map_or(0, |armed| armed.appends.load(Ordering::SeqCst))
    }

    /// What takes the place of actions, if anything does.
    pub(crate) fn swap(&self) -> Option<Arc<dyn Swap>> {
        match &self.set {
            Some(armed) => {
                Some(Arc::new(acting::Disturbed { armed: Arc::clone(armed), mocks: self.mocks.clone() }) as Arc<_>)
            }
            None => self.mocks.clone(),
        }
    }

    /// Records through `work`, disturbed as the faults say.
    pub(crate) async fn append<T>(
        &self,
        events: &[Event],
        work: impl Future<Output = Result<T, AppendError>>,
    ) -> Result<T, AppendError> {
        let Some(armed) = &self.set else { return work.await };
        let number = armed.appends.fetch_add(1, Ordering::SeqCst) + 1;
        let mut lost = false;
        match armed.faults.at(&Point::BeforeAppend { number, events }) {
            Some(Fault::Crash) => armed.crash().await,
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::DiskFull) => return Err(JournalError::Full { store: "a fault".to_owned() }.into()),
            Some(Fault::Conflict) => return Err(AppendError::Conflict { actual_seq: 0 }),
            Some(Fault::LostAnswer) => lost = true,
            Some(Fault::Stop) => stop(),
            Some(Fault::Fail { .. } | Fault::Repeat) | None => {}
        }
        let done = work.await?;
        match armed.faults.at(&Point::AfterAppend { number, events }) {
            Some(Fault::Crash) => armed.crash().await,
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Conflict) => return Err(AppendError::Conflict { actual_seq: 0 }),
            Some(Fault::LostAnswer) => lost = true,
            Some(Fault::Stop) => stop(),
            Some(Fault::DiskFull | Fault::Fail { .. } | Fault::Repeat) | None => {}
        }
        if lost {
            let source = sqlx::Error::Io(std::io::Error::new(
                std::io::ErrorKind::ConnectionReset,
                "the answer of the store was lost",
            ));
            return Err(JournalError::Store { path: PathBuf::from("a fault"), source }.into());
        }
        Ok(done)
    }

    /// The result of `work`, or nothing when it crashed in between; it is dropped then.
    pub(crate) async fn unless_crashed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let Some(armed) = &self.set else { return Some(work.await) };
        tokio::select! {
            biased;
            () = armed.crashed.cancelled() => None,
            done = work => Some(done),
        }
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").field("mocks", &self.mocks.is_some()).field("faults", &self.set.is_some()).finish()
    }
}

/// Stops the process; the thread that comes here stops first and does nothing more until SIGCONT.
fn stop() {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
}

impl Armed {
    /// What a copy awaits at the moments of its chunks.
    fn chunk_hook(self: &Arc<Self>) -> ChunkHook {
        let armed = Arc::clone(self);
        ChunkHook::new(move |moment| {
            let armed = Arc::clone(&armed);
            Box::pin(async move { armed.at_chunk(moment).await })
        })
    }

    async fn at_chunk(&self, moment: ChunkMoment) {
        let count = match moment {
            ChunkMoment::BeforeRead => &self.chunks[0],
            ChunkMoment::BeforeCommit => &self.chunks[1],
            ChunkMoment::AfterCommit => &self.chunks[2],
        };
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        match self.faults.at(&Point::Chunk { number, moment }) {
            Some(Fault::Crash) => self.crash().await,
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Stop) => stop(),
            Some(Fault::Fail { .. } | Fault::Repeat | Fault::DiskFull | Fault::Conflict | Fault::LostAnswer) | None => {
            }
        }
    }

    /// The end of the driver; never returns.
    async fn crash(&self) {
        match self.crash {
            Crash::Driver => self.crashed.cancel(),
            // SIGKILL cannot be refused; until it arrives nothing more may happen.
            Crash::Process => {
                let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
            }
        }
        std::future::pending::<()>().await;
    }
}

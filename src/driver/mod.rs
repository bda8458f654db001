//! The driver: the only place that starts tasks and reads the clock while a run is under way.
//!
//! One door for facts: refuse before it is durable, durable before it is true for anybody else, true before it is
//! shown. A start is recorded before its action runs. A journal that cannot be written stops the run, resumable; it
//! never goes on unrecorded. `docs/design/driver.md` tells the whole loop.

mod amend;
mod attempt;
mod back;
mod child;
mod group;
mod held;
mod launch;
mod limit;
mod locks;
mod outside;
mod preview;
mod said;
mod scope;
mod session;
mod signed;
mod tell;
mod trust;
mod turn;
mod vouch;
mod workflow;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::action::Progress;
use crate::action::held::Commands;
use crate::config::Clock;
use crate::event::{Event, LockChange, Outcome, Record};
use crate::fault::Hooks;
use crate::ids::{Actor, Milestone, RunId, StepId};
use crate::journal::{Append, AppendError, Journal, JournalError, LeaseError, Owner};
use crate::plan::{Plan, PlanError};
use crate::scheduler::State;

pub use amend::{Choices, StepDiff, amendment, compare, may_amend, resume_amended};
pub use back::{LaterRun, later_runs, may_turn_back, rollback, stands_on};
pub(crate) use outside::say_in_trial;
pub use outside::{Told, read, say, say_by, stages};
pub use preview::preview;
pub use scope::used_outputs;
pub use signed::{Cover, Standing, Vouched, runbook_standing, site_standing, vouch_amendment, vouch_files};
pub use vouch::{Words, statement, vouch, words};

/// Length of a driver's lease on a run unless options say otherwise; renewed at a third of it.
const LEASE: Duration = Duration::from_secs(30);
const LEASE_MIN: Duration = Duration::from_millis(300);

/// Why a run did not start or stopped without an outcome.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The journal could not be read or written. The run can be resumed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A fact could not be recorded. The run can be resumed.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Another driver has the run.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The plan cannot be made again.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The site lacks a fact that another runbook establishes.
    #[error("milestone `{milestone}` is not established on site `{site}`; run the runbook that achieves it first")]
    Milestone {
        /// Which.
        milestone: Milestone,
        /// Where.
        site: String,
    },
    /// The plan of a run is not what it was.
    #[error(
        "the run was started with plan {then}, but what the journal kept makes {now}; was it written by another version?"
    )]
    Digest {
        /// At the start.
        then: String,
        /// Now.
        now: String,
    },
    /// What a person said cannot be true.
    #[error("{0}")]
    Refused(String),
    /// What a run would go by is not signed as it must be.
    #[error("{0}")]
    Unsigned(String),
    /// The run is over for good.
    #[error("run `{run}` is over ({outcome}); start a new one")]
    Over {
        /// Which.
        run: RunId,
        /// How it ended.
        outcome: String,
    },
    /// The journal of the run does not hang together.
    #[error("the journal of this run does not hang together: {0}")]
    Broken(String),
    /// A fault that was set ended this driver; nothing more was recorded.
    #[error("a fault that was set ended this driver; the run can be resumed")]
    Crashed,
    /// The process cannot tell who it is.
    #[error("this process cannot be identified: {0}")]
    Identity(#[from] std::io::Error),
}

/// Sees a run as it goes; can never slow or fail it.
pub trait Observer: Send + Sync {
    /// A fact that is durable, and the state behind it.
    fn record(&self, record: Record, state: &State);

    /// How far a running step has come, in this run or in one that a step of it started.
    fn progress(&self, _run: &RunId, _step: &StepId, _progress: &Progress) {}
}

/// Sees nothing.
#[derive(Debug)]
pub struct Blind;

impl Observer for Blind {
    fn record(&self, _: Record, _: &State) {}
}

/// How to drive.
#[derive(Clone)]
pub struct Options {
    /// Who acts.
    pub by: Actor,
    /// Folder for Piton's own state.
    pub state_dir: Arc<Path>,
    /// Keeps waiting for people instead of resting.
    pub wait: bool,
    /// Cancelled once: finish what runs and rest. See `stop_now`.
    pub stop: CancellationToken,
    /// Cancelled as well: end the running attempts.
    pub stop_now: CancellationToken,
    /// Who watches.
    pub observer: Arc<dyn Observer>,
    /// Holds commands so that they outlive this driver; without it they end with whoever started them.
    pub commands: Option<Commands>,
    /// The run and step that started this one.
    pub parent: Option<(RunId, StepId)>,
    /// Where the time comes from.
    pub clock: Clock,
    /// Faults on purpose and stand-ins for actions; none outside of tests.
    pub hooks: Hooks,
    /// Length of the lease on the run; renewed at a third of it.
    pub lease: Duration,
    /// Further lists of signers by whom sites must be signed, beside those of the host and of the store.
    pub site_signers: Vec<PathBuf>,
    /// Who signed what the run goes by that starts this one.
    pub cover: Option<Arc<Cover>>,
}

impl Options {
    /// Options for a driver that nobody watches.
    pub fn new(by: Actor, state_dir: impl Into<Arc<Path>>) -> Self {
        Self {
            by,
            state_dir: state_dir.into(),
            wait: false,
            stop: CancellationToken::new(),
            stop_now: CancellationToken::new(),
            observer: Arc::new(Blind),
            commands: None,
            parent: None,
            clock: Clock::System,
            hooks: Hooks::default(),
            lease: crate::config::seconds("PITON_LEASE").map_or(LEASE, |lease| lease.max(LEASE_MIN)),
            site_signers: crate::config::variable("PITON_SITE_SIGNERS").map(PathBuf::from).into_iter().collect(),
            cover: None,
        }
    }
}

/// How a run ended or why it rests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The run.
    pub run: RunId,
    /// How.
    pub outcome: Outcome,
    /// What remains or why.
    pub note: Option<String>,
}

/// Starts a run of `plan` and drives it until it ends or rests.
///
/// # Errors
/// Before anything is recorded: a milestone, a lock or the id is not to be had. Later: the journal failed.
pub async fn start(
    plan: impl Into<Arc<Plan>>,
    journal: &Journal,
    run: RunId,
    options: Options,
) -> Result<Ended, DriverError> {
    let plan = plan.into();
    let hooks = options.hooks.clone();
    let work = async {
        held::warm(&plan, &options).await;
        let first = begin(&plan, journal, &run, &options).await?;
        drive(plan, journal, run, options, Opening::Start(Some(Box::new(first)))).await
    };
    hooks.unless_crashed(Box::pin(work)).await.ok_or(DriverError::Crashed)?
}

/// Records the start of a run without driving it; gives that record.
///
/// # Errors
/// As [`start`].
pub async fn begin(plan: &Plan, journal: &Journal, run: &RunId, options: &Options) -> Result<Record, DriverError> {
    require_milestones(plan, journal).await?;
    let Vouched { signed, .. } = vouch_files(plan, options)?;
    let mut kept = plan.kept();
    // Of a text of megabytes there is one copy less.
    let text = std::mem::take(&mut kept.runbook);
    let mut source = serde_json::to_value(kept).map_err(|error| DriverError::Broken(error.to_string()))?;
    source["runbook"] = text.into();
    let started = Event::RunStarted {
        runbook: plan.name.clone(),
        version: plan.version.clone(),
        digest: plan.digest.clone(),
        site: plan.site.site.name.clone(),
        by: options.by.unsigned(),
        params: plan.params.clone(),
        piton: env!("CARGO_PKG_VERSION").to_owned(),
        source,
        parent: options.parent.clone(),
        sealed_by: journal.sealed_by(),
        signed,
    };
    let create = journal.create(run, options.clock.now(), &started, &plan.locks);
    Ok(options.hooks.append(std::slice::from_ref(&started), create).await?)
}

/// Refuses a plan that requires a milestone which no run has established.
async fn require_milestones(plan: &Plan, journal: &Journal) -> Result<(), DriverError> {
    if plan.milestones.is_empty() {
        return Ok(());
    }
    let site = plan.site.site.name.clone();
    let established = journal.milestones(&site).await?;
    let missing = plan.milestones.iter().find(|wanted| established.iter().all(|(name, _, _)| name != *wanted));
    missing.map_or(Ok(()), |milestone| Err(DriverError::Milestone { milestone: milestone.clone(), site }))
}

/// Takes a run up again and drives it until it ends or rests.
///
/// # Errors
/// When it is over for good, another driver has it, or the journal fails.
pub async fn resume(journal: &Journal, run: RunId, options: Options) -> Result<Ended, DriverError> {
    let told = read(journal, &run).await?;
    if let Some(outcome) = told.state.outcome().filter(|outcome| outcome.is_final()) {
        let outcome =
            serde_json::to_value(outcome).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        return Err(DriverError::Over { run, outcome });
    }
    let hooks = options.hooks.clone();
    let work = Box::pin(drive(told.plan.into(), journal, run, options, Opening::Resume));
    hooks.unless_crashed(work).await.ok_or(DriverError::Crashed)?
}

/// What a driver records first.
enum Opening {
    /// Nothing: the run was just made, with this record.
    Start(Option<Box<Record>>),
    /// That the run is taken up.
    Resume,
    /// That a person wants it undone, and why.
    Back(String),
    /// That it goes on with other rules, behind the record at this place; then as a resume.
    Amended(Box<Event>, u64),
}

impl Opening {
    /// The record that made the run, if that was just now; taken once, since it holds the whole plan.
    fn first(&mut self) -> Option<Record> {
        match self {
            Self::Start(first) => first.take().map(|first| *first),
            Self::Resume | Self::Back(_) | Self::Amended(..) => None,
        }
    }

    /// `held`: steps whose attempts go on under this driver.
    /// `sealed_by`: the key that seals what this driver records.
    fn events(self, state: &State, who: (&Actor, &str), held: Vec<StepId>, sealed_by: Option<String>) -> Vec<Event> {
        let (by, driver) = (who.0.clone(), who.1.to_owned());
        let resumed =
            || Event::RunResumed { by: by.unsigned(), driver: driver.clone(), held, sealed_by: sealed_by.clone() };
        match self {
            Self::Start(_) => Vec::new(),
            Self::Resume | Self::Amended(..) => vec![resumed()],
            Self::Back(reason) => {
                // Of an interrupted run, attempts without a result are in doubt first.
                let mut events: Vec<Event> = state.outcome().is_none().then(resumed).into_iter().collect();
                events.push(Event::RollbackRequested { by, reason, driver, sealed_by });
                events
            }
        }
    }
}

/// The right of one driver to drive a run.
struct Tenure {
    /// Generation of its lease.
    generation: u64,
    /// Cancelled when the lease is lost.
    lost: CancellationToken,
}

async fn drive(
    plan: Arc<Plan>,
    journal: &Journal,
    run: RunId,
    options: Options,
    mut opening: Opening,
) -> Result<Ended, DriverError> {
    let owner = Owner::this_process()?;
    let lease = options.lease;
    let length = jiff::SignedDuration::try_from(lease).unwrap_or(jiff::SignedDuration::MAX);
    let generation = journal.claim(&run, &owner, options.clock.now(), length).await?;
    let lost = CancellationToken::new();
    let renewal = keep_lease(journal.clone(), run.clone(), generation, lease, options.clock.clone(), lost.clone());
    // Also a driver that is dropped renews nothing any more.
    let mut renewal = AbortOnDropHandle::new(tokio::spawn(renewal));
    let driver = owner.to_string();
    if let Opening::Amended(event, expected_seq) = &opening {
        let events = std::slice::from_ref(&**event);
        let at = options.clock.now();
        let generation = Some(generation);
        let append = Append { run: &run, expected_seq: *expected_seq, generation, at, events, texts: &[] };
        options.hooks.append(events, journal.append(append, &LockChange::default())).await?;
    }
    let tenure = Tenure { generation, lost: lost.clone() };
    let first = opening.first();
    let mut session = session::Session::open(plan, journal.clone(), run.clone(), tenure, options, first).await?;
    let result = match session.open_slots(&opening).await {
        Ok(held) => {
            let first = opening.events(&session.state, (&session.options.by, &driver), held, journal.sealed_by());
            session.drive(first).await
        }
        Err(error) => Err(error),
    };
    if result.is_err() {
        session.let_go();
    }
    session.close().await;
    if result.is_err()
        && lost.is_cancelled()
        && let Ok(error) = (&mut renewal).await
    {
        return Err(error.into());
    }
    drop(renewal);
    if result.is_ok() {
        journal.release(&run, generation).await?;
    }
    result
}

/// Renews the lease until it is lost; then tells the session, which can no longer record anything anyway.
async fn keep_lease(
    journal: Journal,
    run: RunId,
    generation: u64,
    lease: Duration,
    clock: Clock,
    lost: CancellationToken,
) -> LeaseError {
    let length = jiff::SignedDuration::try_from(lease).unwrap_or(jiff::SignedDuration::MAX);
    loop {
        tokio::time::sleep(lease / 3).await;
        if let Err(error) = journal.renew(&run, generation, clock.now(), length).await {
            tracing::error!(%run, %error, "the lease is lost");
            lost.cancel();
            return error;
        }
    }
}

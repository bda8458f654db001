//! A driver at work on one run: tasks that run, facts that wait to be recorded, and the loop between them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::attempt::{Prepared, Ready};
use super::child::Children;
use super::group::Group;
use super::limit::Limits;
use super::locks::{self, Lined};
use super::scope::RunFacts;
use super::turn::Planned;
use super::{DriverError, Ended, Options, Tenure};
use crate::action::build::Swap;
use crate::action::databases::Databases;
use crate::action::mask::Masker;
use crate::action::process::Captured;
use crate::action::said::Said;
use crate::action::secrets::Secrets;
use crate::action::{Context, Failure};
use crate::event::{Effect, Event, Finding, Occasion, Outcome, Outputs, Record, Stream, Transcript};
use crate::ids::{Actor, LockName, RunId, StepId};
use crate::journal::{AppendError, Journal, TranscriptText, Watch};
use crate::plan::{Plan, PlanStep};
use crate::scheduler::State;

/// What a task does for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Work {
    /// Condition, arguments, look before.
    Prepare,
    /// The action itself.
    Act,
    /// Finding out about an attempt in doubt.
    Probe,
    /// Going back.
    Undo,
    /// Waiting for locks.
    Lock,
    /// Telling people that they are waited for.
    Tell,
}

/// What a task came to.
pub(super) enum Done {
    /// A step is ready, or is not.
    Prepared(StepId, u32, Ready),
    /// An attempt ended, and its command said this.
    Acted(StepId, u32, Result<Outputs, Failure>, Vec<(Stream, Captured)>),
    /// A doubt was looked into.
    Probed(StepId, u32, Finding),
    /// An undo ended, and its command said this.
    Undone(StepId, u32, Result<(), Failure>, Vec<(Stream, Captured)>),
    /// A step has its locks, or not.
    Locked(StepId, Result<Lined, AppendError>),
    /// People were told, or there was no way to, or it failed.
    Told(StepId, Occasion, Result<bool, Failure>),
}

/// A task that may start once its event is durable.
pub(super) enum Deferred {
    /// Run a prepared attempt.
    Act(StepId, u32, Box<Prepared>),
    /// Go on with an attempt that an earlier driver started.
    TakeUp(StepId, u32),
    /// Undo a step.
    Undo(StepId, u32),
}

/// A step that is about to be undone.
pub(super) struct Undoing {
    pub(super) plan: Arc<Plan>,
    pub(super) step: Planned,
    pub(super) cx: Context,
}

/// A driver at work on one run.
pub(super) struct Session {
    pub(super) plan: Arc<Plan>,
    pub(super) journal: Journal,
    /// For actions that start runs of other runbooks.
    children: Arc<Children>,
    /// Who started the run.
    starter: Actor,
    pub(super) run: RunId,
    pub(super) generation: u64,
    pub(super) options: Options,
    pub(super) state: State,
    /// Place of the latest durable record.
    pub(super) seq: u64,
    /// Facts that are true for this session and not durable yet.
    pub(super) pending: Vec<Event>,
    /// What commands said that they name.
    pub(super) texts: Vec<TranscriptText>,
    /// When the first of them was adopted.
    pub(super) moment: jiff::Timestamp,
    /// Tasks that wait for their fact to be durable.
    pub(super) deferred: Vec<Deferred>,
    pub(super) busy: HashMap<StepId, (Work, CancellationToken)>,
    pub(super) tasks: JoinSet<Done>,
    /// What came to an end as soon as it began.
    pub(super) over: Vec<Done>,
    /// Steps that hold locks, with their fences.
    pub(super) locked: BTreeMap<StepId, BTreeMap<LockName, u64>>,
    /// The locks that the run holds from beginning to end, with their fences.
    pub(super) run_locked: BTreeMap<LockName, u64>,
    pub(super) facts: RunFacts,
    pub(super) secrets: Arc<Secrets>,
    databases: Databases,
    /// Steps that are undone by an earlier plan than the present one.
    pub(super) earlier: HashMap<StepId, (Arc<Plan>, StepId)>,
    /// Databases of sites that earlier plans had.
    earlier_databases: Vec<Databases>,
    swap: Option<Arc<dyn Swap>>,
    lost: CancellationToken,
    /// Rings when others may have recorded something.
    outside: Watch,
    /// Cancelled when this driver can record nothing more: what is held is left to the next one.
    pub(super) detached: CancellationToken,
    stops_seen: u8,
    /// How the ends of attempts share a sync.
    pub(super) group: Group,
    /// How long attempts at work may take.
    pub(super) limits: Limits,
}

impl Session {
    /// Reads the run back and gets ready to drive it; `first` is its first record, if that was just made.
    pub(super) async fn open(
        plan: Arc<Plan>,
        journal: Journal,
        run: RunId,
        Tenure { generation, lost }: Tenure,
        options: Options,
        first: Option<Record>,
    ) -> Result<Self, DriverError> {
        // Heard from before the first look on, so that nothing falls between.
        let outside = journal.watch();
        let records = match first {
            // With a plan of megabytes it is not read back.
            Some(first) if journal.head(&run).await?.seq == first.seq => vec![first],
            _ => journal.read(&run, 1).await?,
        };
        let state = super::outside::fold(&plan, &records)?;
        let starter = match records.first().map(|record| &record.event) {
            Some(Event::RunStarted { by, .. }) => by.clone(),
            _ => Actor::new(""),
        };
        let started_at = records.first().map(|record| record.at.to_string()).unwrap_or_default();
        let facts = RunFacts { id: run.to_string(), starter: starter.to_string(), started_at };
        let lockless = plan.locks.is_empty() && state.steps().all(|step| step.rule().locks.is_empty());
        let (locked, run_locked) =
            if lockless { Default::default() } else { locks::of_run(&journal.locks().await?.held, &run) };
        let signed = super::signed::latest(&records).cloned().unwrap_or_default();
        let secrets: Arc<Secrets> =
            if options.hooks.pretends() { Arc::new(Secrets::made_up()) } else { Arc::default() };
        let earlier = super::amend::earlier_plans(&records)?;
        let seq = records.last().map_or(0, |record| record.seq);
        // It holds the whole plan, so it is handed over.
        if let Some(first) = records.into_iter().next() {
            options.observer.record(first, &state);
        }
        Ok(Self {
            locked,
            run_locked,
            databases: Databases::new(plan.site.clone(), Arc::clone(&secrets)),
            earlier,
            earlier_databases: Vec::new(),
            children: Arc::new(Children::new(journal.clone(), options.clone(), plan.site.clone(), signed)),
            starter,
            swap: options.hooks.swap(),
            outside,
            plan,
            journal,
            run,
            generation,
            options,
            state,
            seq,
            pending: Vec::new(),
            texts: Vec::new(),
            moment: jiff::Timestamp::UNIX_EPOCH,
            deferred: Vec::new(),
            busy: HashMap::new(),
            tasks: JoinSet::new(),
            over: Vec::new(),
            facts,
            secrets,
            lost,
            detached: CancellationToken::new(),
            stops_seen: 0,
            group: Group::default(),
            limits: Limits::default(),
        })
    }

    /// Drives until the run ends or rests; `opening` is what this driver records first.
    pub(super) async fn drive(&mut self, opening: Vec<Event>) -> Result<Ended, DriverError> {
        for event in opening {
            if let Event::RunResumed { held, .. } = &event {
                self.take_up_held(held);
            }
            self.adopt(event)?;
        }
        if !self.plan.locks.is_empty() {
            // A step may name the fence of a lock that the run takes with its first fact.
            self.flush().await?;
        }
        loop {
            self.turn().await?;
            if let Some(outcome) = self.state.outcome()
                && self.tasks.is_empty()
                && self.over.is_empty()
            {
                let note = self.state.note().map(str::to_owned);
                return Ok(Ended { run: self.run.clone(), outcome, note });
            }
            if self.state.outcome().is_some() {
                self.stop_lining_up();
            }
            self.wait().await?;
        }
    }

    /// Waits for the next thing to happen and takes it in.
    async fn wait(&mut self) -> Result<(), DriverError> {
        tokio::task::consume_budget().await;
        let at_once = !self.over.is_empty();
        let now = self.options.clock.now();
        let idle = !at_once && self.tasks.is_empty();
        if idle && self.state.next_wake().is_some_and(|at| self.options.clock.leap_to(at)) {
            return self.look_outside().await;
        }
        let wake = self.state.next_wake().map(|at| {
            let ms = at.as_millisecond().saturating_sub(now.as_millisecond()).max(0);
            Duration::from_millis(u64::try_from(ms).unwrap_or(0))
        });
        let stop = if self.stops_seen == 0 { self.options.stop.clone() } else { self.options.stop_now.clone() };
        let stoppable = self.stops_seen < 2;
        tokio::select! {
            biased;
            () = stop.cancelled(), if stoppable => {
                self.stops_seen += 1;
                let event = Event::CancelRequested { by: self.options.by.unsigned(), reason: None };
                self.adopt_if_legal(event);
            }
            () = self.lost.cancelled() => {
                self.let_go();
                return Err(AppendError::Fenced { generation: 0 }.into());
            }
            () = self.outside.news() => self.look_outside().await?,
            Some(done) = self.tasks.join_next() => {
                self.take(done)?;
                self.take_ended()?;
                self.take_siblings().await?;
            }
            () = std::future::ready(()), if at_once => self.take_ended()?,
            () = tokio::time::sleep(wake.unwrap_or_default()), if wake.is_some() => {}
        }
        Ok(())
    }

    /// Takes in the end of a task.
    pub(super) fn take(&mut self, done: Result<Done, tokio::task::JoinError>) -> Result<(), DriverError> {
        // What a panic says may hold anything.
        let broke = |error: tokio::task::JoinError| self.masker().text(&error.to_string());
        let done =
            done.map_err(|error| DriverError::Broken(format!("a task of this driver broke: {}", broke(error))))?;
        for name in self.secrets.take_short() {
            self.adopt_if_legal(Event::SecretTooShort { name });
        }
        match done {
            Done::Prepared(step, attempt, ready) => {
                self.busy.remove(&step);
                self.started(step, attempt, ready)
            }
            Done::Acted(step, attempt, result, said) => {
                self.busy.remove(&step);
                self.limits.forget(&step);
                let said = self.keep_said(said);
                self.adopt(match result {
                    Ok(outputs) => Event::AttemptSucceeded { step, attempt, outputs: self.mask_outputs(outputs), said },
                    Err(failure) => self.failed(step, attempt, failure, said),
                })
            }
            Done::Probed(step, attempt, finding) => {
                self.busy.remove(&step);
                self.adopt(Event::AttemptProbed { step, attempt, finding })
            }
            Done::Locked(step, result) => {
                self.busy.remove(&step);
                self.lined(step, result)
            }
            Done::Told(step, occasion, result) => {
                self.busy.remove(&step);
                self.told(step, occasion, result);
                Ok(())
            }
            Done::Undone(step, attempt, result, said) => {
                self.busy.remove(&step);
                self.limits.forget(&step);
                let said = self.keep_said(said);
                self.adopt(match result {
                    Ok(()) => Event::UndoSucceeded { step, attempt, said },
                    Err(failure) => Event::UndoFailed {
                        step,
                        attempt,
                        error: self.masker().text(&failure.error),
                        retryable: failure.retryable,
                        said,
                    },
                })
            }
        }
    }

    /// A prepared step: its start (to be made durable before it acts), its skip or its failure.
    pub(super) fn started(&mut self, step: StepId, attempt: u32, ready: Ready) -> Result<(), DriverError> {
        if !self.still_wanted(&step, attempt) {
            return Ok(());
        }
        match ready {
            Ready::Skip => self.adopt(Event::StepSkipped { step, reason: crate::event::SkipReason::When }),
            Ready::Go(mut prepared) => {
                let event = Event::AttemptStarted {
                    step: step.clone(),
                    attempt,
                    before: prepared.before.clone(),
                    input: prepared.input.take(),
                };
                self.adopt(event)?;
                self.earlier.remove(&step);
                self.deferred.push(Deferred::Act(step, attempt, prepared));
                Ok(())
            }
            Ready::Fail(failure) => {
                let event =
                    Event::AttemptStarted { step: step.clone(), attempt, before: Json::Null, input: Json::Null };
                self.adopt(event)?;
                self.adopt(self.failed(step, attempt, Failure { effect: Effect::None, ..failure }, Vec::new()))
            }
        }
    }

    fn failed(&self, step: StepId, attempt: u32, failure: Failure, said: Vec<Transcript>) -> Event {
        let Failure { error, effect, retryable } = failure;
        Event::AttemptFailed { step, attempt, error: self.masker().text(&error), effect, retryable, said }
    }

    fn mask_outputs(&self, outputs: Outputs) -> Outputs {
        let masker = self.masker();
        outputs.into_iter().map(|(name, value)| (name, masker.json(value))).collect()
    }

    /// Hides every secret that was fetched so far.
    pub(super) fn masker(&self) -> Masker {
        self.secrets.masker()
    }

    /// What an action of this step works with.
    pub(super) fn context(&self, step: &PlanStep, attempt: u32, cancel: CancellationToken) -> Context {
        let observer = Arc::clone(&self.options.observer);
        let (run, id) = (self.run.clone(), step.id.clone());
        Context {
            run: self.run.clone(),
            step: step.id.clone(),
            attempt,
            actor: self.starter.clone(),
            site: self.plan.site.clone(),
            state_dir: self.options.state_dir.clone(),
            base: self.plan.base.clone(),
            files: Arc::clone(&self.plan.files),
            pins: self.plan.pins.clone(),
            walls: self.plan.walls.clone(),
            cancel,
            progress: Arc::new(move |progress| observer.progress(&run, &id, &progress)),
            databases: self.databases.clone(),
            secrets: Arc::clone(&self.secrets),
            masker: self.masker(),
            swap: self.swap.clone(),
            held: None,
            fences: self.fences(&step.id),
            said: Said::default(),
            chunks: crate::transfer::ChunkHook::default(),
            children: Arc::clone(&self.children) as Arc<_>,
        }
    }

    /// What the undo of this step works with: the plan that it was done by, unless an amendment mended its undo.
    pub(super) fn context_of_undo(&mut self, id: &StepId, attempt: u32, cancel: CancellationToken) -> Undoing {
        let earlier = self.earlier.get(id).and_then(|(plan, old)| Some((Arc::clone(plan), Planned::of(plan, old)?)));
        let Some((plan, step)) = earlier else {
            let step = self.planned(id);
            let cx = self.context(&step, attempt, cancel);
            return Undoing { plan: Arc::clone(&self.plan), step, cx };
        };
        let mut cx = self.context(&step, attempt, cancel);
        if plan.site.tree != self.plan.site.tree {
            let databases = Databases::new(plan.site.clone(), Arc::clone(&self.secrets));
            self.earlier_databases.push(databases.clone());
            cx.databases = databases;
            cx.site = plan.site.clone();
        }
        cx.fences = self.fences(id);
        cx.base.clone_from(&plan.base);
        cx.files = Arc::clone(&plan.files);
        cx.pins.clone_from(&plan.pins);
        cx.walls.clone_from(&plan.walls);
        Undoing { plan, step, cx }
    }

    /// Tells every running task to stop.
    pub(super) fn cancel_tasks(&self) {
        for (_, cancel) in self.busy.values() {
            cancel.cancel();
        }
    }

    /// Leaves what is held to the next driver, as if this one were dead, and tells every other task to stop: what they come to can
    /// no longer be recorded.
    pub(super) fn let_go(&self) {
        self.detached.cancel();
        self.cancel_tasks();
    }

    /// Stops what still runs and closes the databases of the site.
    pub(super) async fn close(&mut self) {
        self.cancel_tasks();
        while self.tasks.join_next().await.is_some() {}
        self.close_slots().await;
        self.databases.close().await;
        for databases in std::mem::take(&mut self.earlier_databases) {
            databases.close().await;
        }
    }

    /// Whether resting for people would be the end of this driver, and is not wanted.
    pub(super) fn keeps_waiting(&self, event: &Event) -> bool {
        self.options.wait && matches!(event, Event::RunFinished { outcome: Outcome::Waiting, .. })
    }
}

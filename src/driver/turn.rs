//! One turn of a driver: ask the scheduler, do what needs no waiting, make all facts durable together, then act.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::session::{Deferred, Done, Session, Undoing, Work};
use super::{DriverError, attempt, scope};
use crate::action::Failure;
use crate::action::build::Part;
use crate::event::{Event, LockChange, Record, WaitKind};
use crate::ids::StepId;
use crate::journal::{Append, AppendError};
use crate::plan::{Plan, PlanStep};
use crate::scheduler::{Command, StepState};
use crate::spec::actions::ActionKind;
use crate::spec::runbook::Undo;

/// Most facts in one transaction.
const BATCH: usize = 500;

/// A step of a plan that is kept as long as somebody works on the step.
#[derive(Clone)]
pub(super) struct Planned {
    plan: Arc<Plan>,
    place: usize,
}

impl Planned {
    /// The step of this plan; nothing if it has none of this name.
    pub(super) fn of(plan: &Arc<Plan>, step: &StepId) -> Option<Self> {
        plan.place(step).map(|place| Self { plan: Arc::clone(plan), place })
    }
}

impl std::ops::Deref for Planned {
    type Target = PlanStep;

    fn deref(&self) -> &PlanStep {
        &self.plan.steps[self.place]
    }
}

impl Session {
    /// Asks the scheduler until it has nothing new to say, then makes everything durable and lets the actions run.
    pub(super) async fn turn(&mut self) -> Result<(), DriverError> {
        if self.state.is_cancelling() {
            self.stop_at_boundaries();
        }
        loop {
            let mut news = false;
            let moment = self.moment();
            for command in self.state.poll(moment) {
                news |= self.perform(command).await?;
            }
            if !news || self.pending.len() >= BATCH {
                self.flush().await?;
                if !news {
                    return Ok(());
                }
            }
        }
    }

    /// Does what a command says; true when that made a new fact.
    async fn perform(&mut self, command: Command) -> Result<bool, DriverError> {
        match command {
            Command::Record(event) => {
                if self.keeps_waiting(&event) {
                    return Ok(false);
                }
                self.adopt(event)?;
                Ok(true)
            }
            Command::CancelAttempts => {
                self.cancel_tasks();
                Ok(false)
            }
            Command::Start { step, attempt, check_when } => {
                // An earlier command of this turn may have changed what is wanted.
                if self.busy.contains_key(&step) || !self.still_wanted(&step, attempt) {
                    return Ok(false);
                }
                if self.lacks_locks(&step) {
                    self.wait_for_locks(step);
                    return Ok(false);
                }
                self.prepare(step, attempt, check_when)
            }
            Command::OpenWait { step, check_when, expires_ms } => {
                self.open_wait(step, check_when, expires_ms).await?;
                Ok(true)
            }
            Command::OpenUndoWait { step, expires_ms } => {
                if self.busy.contains_key(&step) {
                    return Ok(false);
                }
                if self.lacks_locks(&step) {
                    self.wait_for_locks(step);
                    return Ok(false);
                }
                self.open_undo_wait(step, expires_ms).await?;
                Ok(true)
            }
            Command::Tell { step, occasion } => {
                if !self.busy.contains_key(&step) {
                    self.tell(step, occasion);
                }
                Ok(false)
            }
            Command::Probe { step, attempt } => {
                if !self.busy.contains_key(&step) {
                    self.probe(step, attempt);
                }
                Ok(false)
            }
            Command::Undo { step, attempt } => {
                if self.busy.contains_key(&step) {
                    return Ok(false);
                }
                if self.lacks_locks(&step) {
                    self.wait_for_locks(step);
                    return Ok(false);
                }
                self.adopt(Event::UndoStarted { step: step.clone(), attempt })?;
                self.deferred.push(Deferred::Undo(step, attempt));
                Ok(true)
            }
        }
    }

    /// Tells those to stop that lose nothing by it, while others finish: a copy goes on behind its last chunk.
    fn stop_at_boundaries(&self) {
        for (step, (work, cancel)) in &self.busy {
            let kind = self.plan.step(step).map(|step| step.action.kind);
            if *work == Work::Act && kind == Some(ActionKind::DbCopy) {
                cancel.cancel();
            }
        }
    }

    pub(super) fn planned(&self, step: &StepId) -> Planned {
        Planned::of(&self.plan, step).expect("the scheduler names steps of the plan only")
    }

    pub(super) fn occupy(&mut self, step: &StepId, work: Work) -> CancellationToken {
        let cancel = CancellationToken::new();
        self.busy.insert(step.clone(), (work, cancel.clone()));
        cancel
    }

    /// Gets a step ready; true when it was ready without waiting, so that its start is a fact of this turn.
    fn prepare(&mut self, id: StepId, attempt: u32, check_when: bool) -> Result<bool, DriverError> {
        let step = self.planned(&id);
        let cancel = self.occupy(&id, Work::Prepare);
        let cx = self.context(&step, attempt, cancel);
        let earlier = attempt::Earlier::of(self.state.step(&id));
        let gathered = scope::gather(&self.plan, &self.state, &step, &self.facts, &cx.fences);
        let (plan, secrets) = (self.plan.clone(), self.secrets.clone());
        let planned = step.clone();
        let prepared = self.launch(&planned, async move {
            let ready = match gathered.with_secrets(&plan, &secrets).await {
                Ok(scope) => attempt::prepare(&plan, &step, &cx, scope, check_when, earlier).await,
                Err(failure) => attempt::Ready::Fail(failure),
            };
            Done::Prepared(id, attempt, ready)
        });
        let at_once = prepared.is_some();
        prepared.map_or(Ok(()), |done| self.take(Ok(done)))?;
        Ok(at_once)
    }

    fn probe(&mut self, id: StepId, attempt: u32) {
        let step = self.planned(&id);
        let cancel = self.occupy(&id, Work::Probe);
        let cx = self.context(&step, attempt, cancel);
        let before = self.state.step(&id).and_then(|view| view.before()).unwrap_or_default();
        let gathered = scope::gather(&self.plan, &self.state, &step, &self.facts, &cx.fences);
        let (plan, secrets) = (self.plan.clone(), self.secrets.clone());
        let planned = step.clone();
        self.launch_and_go_on(&planned, async move {
            let finding = match gathered.with_secrets(&plan, &secrets).await {
                Ok(scope) => attempt::probe(&plan, &step, &cx, scope, &before).await,
                Err(_) => crate::event::Finding::Unknown,
            };
            Done::Probed(id, attempt, finding)
        });
    }

    /// Renders what people are asked and records that they are.
    async fn open_wait(&mut self, id: StepId, check_when: bool, expires_ms: Option<i64>) -> Result<(), DriverError> {
        let step = self.planned(&id);
        let cx = self.context(&step, 1, CancellationToken::new());
        let scope = scope::gather(&self.plan, &self.state, &step, &self.facts, &cx.fences)
            .with_secrets(&self.plan, &self.secrets)
            .await;
        let ready = match scope {
            Ok(scope) => attempt::prepare(&self.plan, &step, &cx, scope, check_when, attempt::Earlier::default()).await,
            Err(failure) => attempt::Ready::Fail(failure),
        };
        let rendered = match ready {
            attempt::Ready::Skip => {
                return self.adopt(Event::StepSkipped { step: id, reason: crate::event::SkipReason::When });
            }
            attempt::Ready::Fail(failure) => Err(failure),
            attempt::Ready::Go(prepared) => Ok(prepared.input),
        };
        let plan = Arc::clone(&self.plan);
        let (prompt, input, expires_at) = self.question(rendered, &plan, expires_ms);
        let is_manual = step.action.kind == ActionKind::Manual;
        let wait = if is_manual { WaitKind::Manual } else { WaitKind::Approval };
        self.adopt(Event::StepWaiting { step: id, wait, prompt, expires_at, input: Some(input) })
    }

    /// What is asked, the digest of what it is about, and when its time is over. What cannot be asked as written is asked with its
    /// error, so that nothing is hidden but secrets.
    fn question(
        &mut self,
        rendered: Result<serde_json::Value, Failure>,
        plan: &Plan,
        expires_ms: Option<i64>,
    ) -> (String, String, Option<jiff::Timestamp>) {
        let (prompt, input) = match rendered {
            Ok(input) => (prompt(&input, &plan.files), crate::plan::digest(&input)),
            Err(failure) => (self.masker().text(&failure.error), crate::plan::digest(&serde_json::Value::Null)),
        };
        let now = self.moment();
        let expires_at = expires_ms.and_then(|ms| now.checked_add(jiff::SignedDuration::from_millis(ms)).ok());
        (prompt, input, expires_at)
    }

    /// Renders what a person is asked to undo by hand and records that they are.
    async fn open_undo_wait(&mut self, id: StepId, expires_ms: Option<i64>) -> Result<(), DriverError> {
        let Undoing { plan, step, cx } = self.context_of_undo(&id, 1, CancellationToken::new());
        let gathered = scope::gather(&plan, &self.state, &step, &self.facts, &cx.fences);
        let rendered = match (gathered.with_secrets(&plan, &self.secrets).await, step.undo.as_deref()) {
            (Ok(scope), Some(Undo::Action(undo))) => {
                attempt::make(&plan, undo, &scope, &cx, Part::Undo).map(|(_, input)| input)
            }
            (Ok(_), Some(Undo::Auto(_)) | None) => Ok(serde_json::Value::Null),
            (Err(failure), _) => Err(failure),
        };
        let (prompt, input, expires_at) = self.question(rendered, &plan, expires_ms);
        self.adopt(Event::UndoWaiting { step: id, prompt, expires_at, input })
    }

    /// Whether a prepared attempt is still what the scheduler asks for.
    pub(super) fn still_wanted(&mut self, step: &StepId, attempt: u32) -> bool {
        let moment = self.moment();
        self.state.asks_to_start(step, attempt, moment)
    }

    /// The time of the facts that wait to be recorded, or now. They are recorded with the very time at which they were
    /// adopted: pauses and deadlines that a replay computes are those that this session went by.
    fn moment(&mut self) -> jiff::Timestamp {
        if self.pending.is_empty() {
            self.moment = self.options.clock.now();
        }
        self.moment
    }

    /// Makes a fact true for this session; it becomes durable with the next flush, before anything acts on it.
    pub(super) fn adopt(&mut self, event: Event) -> Result<(), DriverError> {
        let moment = self.moment();
        self.state
            .apply(&event, moment)
            .map_err(|error| DriverError::Broken(format!("`{}` was refused: {error}", event.kind())))?;
        self.pending.push(event);
        Ok(())
    }

    /// Adopts a fact unless it cannot be true any more.
    pub(super) fn adopt_if_legal(&mut self, event: Event) {
        let moment = self.moment();
        if self.state.apply(&event, moment).is_ok() {
            self.pending.push(event);
        }
    }

    /// Makes every pending fact durable, shows it, and starts what waited for it.
    pub(super) async fn flush(&mut self) -> Result<(), DriverError> {
        while !self.pending.is_empty() || !self.done_with_locks().is_empty() {
            let (events, texts) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.texts));
            let rests = events.iter().rev().find_map(|event| match event {
                Event::RunFinished { outcome, .. } => Some(frees_locks(*outcome)),
                _ => None,
            });
            let take = match events.first() {
                // A run that is taken up and over at once takes nothing that it would then keep.
                Some(Event::RunResumed { .. } | Event::RollbackRequested { .. }) if rests != Some(true) => {
                    self.plan.locks.clone()
                }
                _ => Vec::new(),
            };
            let locks = LockChange { take, free_all: rests == Some(true), ..self.step_lock_change(&events) };
            let append = Append {
                run: &self.run,
                expected_seq: self.seq,
                generation: Some(self.generation),
                at: self.moment,
                events: &events,
                texts: &texts,
            };
            match self.options.hooks.append(&events, self.journal.append(append, &locks)).await {
                Ok(records) => {
                    self.locked.retain(|step, _| !locks.free.contains(step));
                    self.settle_slots(&records);
                    for record in records {
                        self.seq = record.seq;
                        self.options.observer.record(record, &self.state);
                    }
                    if !locks.take.is_empty() {
                        self.look_up_run_locks().await?;
                    }
                }
                Err(AppendError::Conflict { .. }) => {
                    self.texts = texts;
                    self.rebase(events).await?;
                }
                Err(error) => {
                    self.let_go();
                    return Err(error.into());
                }
            }
        }
        for deferred in std::mem::take(&mut self.deferred) {
            self.act(deferred);
        }
        Ok(())
    }

    /// Somebody else recorded a fact first: takes it in and adopts the own facts behind it, as far as they still hold.
    async fn rebase(&mut self, events: Vec<Event>) -> Result<(), DriverError> {
        let records = self.journal.read(&self.run, 1).await?;
        self.refuse_a_successor(&records)?;
        self.state = super::outside::fold(&self.plan, &records)?;
        let known = self.seq;
        self.seq = records.last().map_or(known, |record| record.seq);
        for record in records.into_iter().filter(|record| record.seq > known) {
            self.options.observer.record(record, &self.state);
        }
        self.limits.tell(&self.state);
        for event in events {
            self.adopt_if_legal(event);
        }
        let state = &self.state;
        self.deferred.retain(|deferred| {
            let (Deferred::Act(step, ..) | Deferred::TakeUp(step, _) | Deferred::Undo(step, _)) = deferred;
            state.step(step).is_some_and(|view| matches!(view.state(), StepState::Running | StepState::Undoing))
        });
        Ok(())
    }

    /// Stops this driver if another one has recorded facts since: it slept through its lease.
    fn refuse_a_successor(&self, records: &[Record]) -> Result<(), DriverError> {
        let latest = records.iter().map(|record| record.generation).max().unwrap_or(0);
        if latest <= self.generation {
            return Ok(());
        }
        self.let_go();
        Err(AppendError::Fenced { generation: latest }.into())
    }

    /// Takes in facts that people recorded from outside.
    pub(super) async fn look_outside(&mut self) -> Result<(), DriverError> {
        if !self.pending.is_empty() {
            return Ok(());
        }
        if self.journal.head(&self.run).await?.seq <= self.seq {
            return Ok(());
        }
        let records = self.journal.read(&self.run, self.seq + 1).await?;
        self.refuse_a_successor(&records)?;
        for record in records {
            self.state
                .apply(&record.event, record.at)
                .map_err(|error| DriverError::Broken(format!("record {}: {error}", record.seq)))?;
            self.seq = record.seq;
            self.options.observer.record(record, &self.state);
        }
        self.limits.tell(&self.state);
        Ok(())
    }

    fn act(&mut self, deferred: Deferred) {
        match deferred {
            Deferred::Act(id, attempt, prepared) => {
                let step = self.planned(&id);
                let cancel = self.occupy(&id, Work::Act);
                let cx = self.holding_context(&step, attempt, cancel);
                let (plan, said, limit) = (self.plan.clone(), cx.said.clone(), self.limit(&id));
                let planned = step.clone();
                self.launch_and_go_on(&planned, async move {
                    let result = attempt::run(plan, step, cx, *prepared, limit).await;
                    Done::Acted(id, attempt, result, said.take())
                });
            }
            Deferred::TakeUp(id, attempt) => self.take_up(id, attempt),
            Deferred::Undo(id, attempt) => {
                let cancel = self.occupy(&id, Work::Undo);
                let Undoing { plan, step, cx } = self.context_of_undo(&id, attempt, cancel);
                let before = self.state.step(&id).and_then(|view| view.before()).unwrap_or_default();
                let gathered = scope::gather(&plan, &self.state, &step, &self.facts, &cx.fences);
                let (secrets, said, limit) = (self.secrets.clone(), cx.said.clone(), self.limit(&id));
                let planned = step.clone();
                self.launch_and_go_on(&planned, async move {
                    let result = match gathered.with_secrets(&plan, &secrets).await {
                        Ok(scope) => attempt::undo(plan, step, cx, (scope, before), limit).await,
                        Err(failure) => Err(failure),
                    };
                    Done::Undone(id, attempt, result, said.take())
                });
            }
        }
    }
}

/// What a person reads: the prompt, or the instructions, from their file if they are one.
pub(super) fn prompt(input: &serde_json::Value, files: &crate::plan::Files) -> String {
    let text = input
        .get("prompt")
        .or_else(|| input.get("instructions"))
        .and_then(serde_json::Value::as_str)
        .unwrap_or_default();
    files.get(text).cloned().unwrap_or_else(|| text.to_owned())
}

/// Whether a run that ends or rests like this lets go of its locks. A run that people must still settle keeps them.
fn frees_locks(outcome: crate::event::Outcome) -> bool {
    use crate::event::Outcome;
    match outcome {
        Outcome::Succeeded | Outcome::RolledBack | Outcome::Failed | Outcome::Cancelled => true,
        Outcome::Stuck | Outcome::Waiting => false,
    }
}

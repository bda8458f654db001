//! Commands that outlive their driver: which attempts of a dead one go on, and when their trace may go.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::session::{Deferred, Done, Session, Work};
use super::{DriverError, Opening, Options, attempt, scope};
use crate::action::Context;
use crate::action::held::{self, Held, Slot, Standing};
use crate::event::{Event, Record};
use crate::ids::StepId;
use crate::plan::{Plan, PlanStep};
use crate::scheduler::StepState;
use crate::spec::actions::ActionKind;

fn is_held(step: &PlanStep) -> bool {
    step.action.kind == ActionKind::Exec
}

/// Has the holder of a plan's commands start while the run is being recorded.
pub(super) async fn warm(plan: &Plan, options: &Options) {
    if let Some(commands) = &options.commands
        && plan.steps.iter().any(is_held)
    {
        commands.warm().await;
    }
}

impl Session {
    /// Attempts without a result whose commands are held, have left a result, or were never started.
    async fn held_attempts(&self) -> Result<Vec<StepId>, DriverError> {
        let mut running: BTreeMap<StepId, u32> = BTreeMap::new();
        if self.options.commands.is_some() {
            let views = self.state.steps().filter(|view| view.state() == StepState::Running);
            running.extend(views.map(|view| (view.rule().id.clone(), view.attempts())));
            running.retain(|step, _| self.plan.step(step).is_some_and(is_held));
        }
        if running.is_empty() {
            return Ok(Vec::new());
        }
        let mut held = Vec::new();
        for record in self.journal.read(&self.run, 1).await? {
            let Event::AttemptStarted { step, attempt, .. } = &record.event else { continue };
            if running.get(step) != Some(attempt) {
                continue;
            }
            match held::standing(&self.options.state_dir, &self.run, step, *attempt, record.generation) {
                Standing::Ended | Standing::Held | Standing::NeverStarted => held.push(step.clone()),
                Standing::Lost => {}
            }
        }
        Ok(held)
    }

    /// Notes that this driver keeps its slots here, before any attempt of it is recorded; gives the steps that go on.
    /// Where that cannot be noted, commands end with the driver.
    pub(super) async fn open_slots(&mut self, opening: &Opening) -> Result<Vec<StepId>, DriverError> {
        if !self.plan.steps.iter().any(is_held) {
            self.options.commands = None;
        }
        let is_new = matches!(opening, Opening::Start(_));
        if self.options.commands.is_some()
            && let Err(error) = held::open(&self.options.state_dir, &self.run, self.generation, is_new)
        {
            tracing::warn!(%error, "commands will not outlive this driver: its state folder cannot be written");
            self.options.commands = None;
        }
        let held = if is_new { Vec::new() } else { self.held_attempts().await? };
        match (opening, held.first()) {
            // What is undone must not be under way.
            (Opening::Back(_), Some(step)) => Err(DriverError::Refused(format!(
                "step `{step}` is not over although its driver is gone; take the run up with `piton resume` first"
            ))),
            (Opening::Start(_) | Opening::Resume | Opening::Amended(..) | Opening::Back(_), _) => Ok(held),
        }
    }

    /// Whether what the step starts may go on without this driver.
    pub(super) fn outlives(&self, step: &StepId) -> bool {
        self.options.commands.is_some() && self.plan.step(step).is_some_and(is_held)
    }

    /// Has the held attempts go on once it is on record that this driver took the run up.
    pub(super) fn take_up_held(&mut self, held: &[StepId]) {
        for step in held {
            if let Some(view) = self.state.step(step) {
                self.deferred.push(Deferred::TakeUp(step.clone(), view.attempts()));
            }
        }
    }

    /// What an action of this step works with when its command is to outlive this driver.
    pub(super) fn holding_context(&self, step: &PlanStep, attempt: u32, cancel: CancellationToken) -> Context {
        let commands = self.options.commands.clone().filter(|_| is_held(step));
        let held = commands.map(|commands| Held {
            commands,
            slot: self.slot(&step.id, attempt),
            generation: self.generation,
            detached: self.detached.clone(),
        });
        Context { held, ..self.context(step, attempt, cancel) }
    }

    fn slot(&self, step: &StepId, attempt: u32) -> Slot {
        Slot::of(&self.options.state_dir, &self.run, step, attempt)
    }

    /// Goes on with an attempt that an earlier driver started.
    pub(super) fn take_up(&mut self, id: StepId, attempt: u32) {
        let step = self.planned(&id);
        let cancel = self.occupy(&id, Work::Act);
        let mut cx = self.holding_context(&step, attempt, cancel);
        let view = self.state.step(&id);
        let before = view.and_then(|view| view.before()).unwrap_or_default();
        let gathered = scope::gather(&self.plan, &self.state, &step, &self.facts, &cx.fences);
        let (plan, secrets, said) = (self.plan.clone(), self.secrets.clone(), cx.said.clone());
        let limit = self.limit(&id);
        let planned = step.clone();
        self.spawn(&planned, async move {
            let result = match gathered.with_secrets(&plan, &secrets).await {
                Ok(scope) => {
                    cx.masker = secrets.masker();
                    let since = cx.held.as_ref().and_then(|held| held.slot.taken_at());
                    attempt::take_up(plan, step, cx, scope, before, (since, limit)).await
                }
                // What it started goes on; without its secrets it can be neither read nor shown.
                Err(failure) => Err(crate::action::Failure { effect: crate::event::Effect::Unknown, ..failure }),
            };
            Done::Acted(id, attempt, result, said.take())
        });
    }

    /// What is on record needs no trace any more.
    pub(super) fn settle_slots(&self, records: &[Record]) {
        let Some(commands) = &self.options.commands else { return };
        for record in records {
            if let Event::AttemptSucceeded { step, attempt, .. } | Event::AttemptFailed { step, attempt, .. } =
                &record.event
                && self.plan.step(step).is_some_and(is_held)
            {
                commands.recorded(&self.slot(step, *attempt));
            }
        }
    }

    /// At the end of a driver: tells the holder what is on record, and tidies up behind a run that rests or is over.
    pub(super) async fn close_slots(&self) {
        let Some(commands) = &self.options.commands else { return };
        commands.settle().await;
        if self.state.outcome().is_some() && self.pending.is_empty() && !self.detached.is_cancelled() {
            held::close(&self.options.state_dir, &self.run);
        }
    }
}

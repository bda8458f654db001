//! What the steps of a plan would change, without changing anything: will change, no change, or unknown and why.
//!
//! A step whose arguments or condition come from a step that has not run is unknown, and so is everything that would
//! need a secret; nothing is guessed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::scope::{self, RunFacts};
use super::{DriverError, Options, attempt, child, workflow};
use crate::action::build::Part;
use crate::action::databases::Databases;
use crate::action::fences::Fences;
use crate::action::mask::Masker;
use crate::action::secrets::Secrets;
use crate::action::{Context, Preview};
use crate::event::Signed;
use crate::ids::{Actor, RunId, StepId};
use crate::journal::Journal;
use crate::plan::{Plan, PlanStep};
use crate::scheduler::State;

/// Asks every action of the plan what it would do now. Only looks.
///
/// # Errors
/// When the plan has no order.
pub async fn preview(plan: &Plan, by: &Actor, state_dir: PathBuf) -> Result<BTreeMap<StepId, Preview>, DriverError> {
    let flow = workflow::of_plan(plan, by).map_err(|error| DriverError::Broken(error.to_string()))?;
    let state = State::new(Arc::new(flow));
    let databases = Databases::new(plan.site.clone(), Arc::default());
    let mut previews = BTreeMap::new();
    for step in &plan.steps {
        let cx = context(plan, step, by, &state_dir, &databases);
        previews.insert(step.id.clone(), one(plan, &state, step, &cx).await);
    }
    databases.close().await;
    Ok(previews)
}

async fn one(plan: &Plan, state: &State, step: &PlanStep, cx: &Context) -> Preview {
    let facts = RunFacts { id: cx.run.to_string(), starter: cx.actor.to_string(), started_at: String::new() };
    let gathered = scope::gather(plan, state, step, &facts, &cx.fences);
    if let Some(name) = gathered.unknown_before_a_run() {
        return Preview::Unknown(format!("uses `{name}`, which is not known yet"));
    }
    let scope = match gathered.with_secrets(plan, &Secrets::default()).await {
        Ok(scope) => scope,
        Err(failure) => return Preview::Unknown(failure.error),
    };
    if let Some(when) = &step.when {
        match when.evaluate(&scope.full) {
            Ok(serde_json::Value::Bool(false)) => return Preview::NoChange("skipped: its condition is false".into()),
            Ok(_) => {}
            Err(error) => return Preview::Unknown(format!("its condition: {error}")),
        }
    }
    match attempt::make(plan, &step.action, &scope, cx, Part::Action) {
        Ok((action, _)) => action.preview(cx).await,
        Err(failure) => Preview::Unknown(failure.error),
    }
}

fn context(plan: &Plan, step: &PlanStep, by: &Actor, state_dir: &std::path::Path, databases: &Databases) -> Context {
    let options = Options::new(by.clone(), state_dir.to_path_buf());
    Context {
        run: RunId::new("preview"),
        step: step.id.clone(),
        attempt: 1,
        actor: by.clone(),
        site: plan.site.clone(),
        state_dir: state_dir.into(),
        base: plan.base.clone(),
        files: Arc::clone(&plan.files),
        pins: plan.pins.clone(),
        walls: plan.walls.clone(),
        cancel: CancellationToken::new(),
        progress: Arc::new(|_| {}),
        databases: databases.clone(),
        secrets: Arc::default(),
        masker: Masker::default(),
        swap: None,
        held: None,
        fences: Fences::default(),
        said: crate::action::said::Said::default(),
        chunks: crate::transfer::ChunkHook::default(),
        children: Arc::new(child::Children::new(Journal::memory(), options, plan.site.clone(), Signed::default())),
    }
}

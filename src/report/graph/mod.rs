//! The graph of a plan as a picture (SVG) or as text that other tools draw (Mermaid, DOT).

pub mod layout;
pub mod svg;
pub mod text;

use std::collections::BTreeMap;

use crate::ids::StepId;
use crate::plan::PlanStep;
use crate::scheduler::{State, StepState};
use crate::spec::runbook::{Idempotent, OnFailure, Runbook, Step};

/// States to colour steps with.
pub type States = BTreeMap<StepId, StepState>;

/// The states of a run.
pub fn states_of(state: &State) -> States {
    state.steps().map(|view| (view.rule().id.clone(), view.state())).collect()
}

/// The colour of a state: fill and border.
pub fn colours(state: Option<StepState>) -> (&'static str, &'static str) {
    match state {
        None | Some(StepState::Ready) => ("#ffffff", "#4b5563"),
        Some(StepState::Pending) => ("#f9fafb", "#9ca3af"),
        Some(StepState::Running) => ("#dbeafe", "#2563eb"),
        Some(StepState::Succeeded) => ("#dcfce7", "#16a34a"),
        Some(StepState::Failed) => ("#fee2e2", "#dc2626"),
        Some(StepState::Skipped) => ("#f3f4f6", "#9ca3af"),
        Some(StepState::InDoubt) => ("#fae8ff", "#a21caf"),
        Some(StepState::Undoing | StepState::Undone) => ("#e0e7ff", "#4f46e5"),
        Some(StepState::Waiting) => ("#fef9c3", "#ca8a04"),
    }
}

/// The steps of a runbook as far as they can be drawn without a site: a `foreach` is one box.
pub fn sketch(runbook: &Runbook) -> Vec<PlanStep> {
    let main = runbook.steps.iter().map(|step| sketch_step(step, false));
    main.chain(runbook.finally.iter().map(|step| sketch_step(step, true))).collect()
}

fn sketch_step(step: &Step, is_finally: bool) -> PlanStep {
    let fields = &step.fields;
    PlanStep {
        id: step.id().clone(),
        declared: step.id().clone(),
        name: fields.name.as_deref().map(Into::into),
        item: None,
        action: step.action.clone(),
        verify: None,
        undo: None,
        when: None,
        needs: fields.needs.iter().map(|need| (StepId::new(&need.step.value), need.outcome)).collect(),
        timeout: None,
        retry: None,
        idempotent: Idempotent::No,
        on_failure: OnFailure::Stop,
        optional: fields.optional.clone().map(Box::new),
        deviations: None,
        point_of_no_return: fields.point_of_no_return.as_deref().map(Into::into),
        locks: Box::default(),
        phase: fields.phase,
        is_finally,
        outputs: BTreeMap::new(),
        uses: Box::default(),
    }
}

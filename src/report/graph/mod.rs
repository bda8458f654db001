//! The graph of a plan as a picture (SVG) or as text that other tools draw (Mermaid, DOT).

pub mod layout;
pub mod svg;
pub mod text;

use std::collections::BTreeMap;

use crate::ids::StepId;
use crate::scheduler::{State, StepState};

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

//! The cases of a test file: each is one scenario with its own parameters, and what came of it is held against what was
//! expected.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Lived, Scenario, live};
use crate::action::build::Part;
use crate::fault::{Fault, Script, Set, Trigger};
use crate::ids::StepId;
use crate::plan::{Given, Plan, PlanError};
use crate::scheduler::StepState;
use crate::spec::case::{Case, MomentWord, StateWord, TestFile};
use crate::spec::problem::{Problem, Problems, Source, Span, did_you_mean};

/// A case that was lived through.
#[derive(Debug)]
pub struct Judged {
    /// What came of it.
    pub lived: Lived,
    /// Where it is not what was expected, with file, line and column.
    pub unmet: Vec<String>,
}

/// The test file of a runbook: `two-step.test.yaml` beside `two-step.yaml`.
pub fn beside(runbook: &Path) -> PathBuf {
    runbook.with_extension("test.yaml")
}

/// Refuses names of steps that the runbook does not have.
///
/// # Errors
/// Every such name, at its place.
pub fn check(file: &TestFile, plan: &Plan, source: &Arc<Source>) -> Result<(), Problems> {
    let known: Vec<&str> = plan.steps.iter().flat_map(|step| [step.id.as_str(), step.declared.as_str()]).collect();
    let mut problems = Vec::new();
    let mut look = |name: &str, span: Span| {
        if !known.contains(&name) {
            let message = format!("the runbook has no step `{name}`");
            let problem = Problem::new("test::unknown_step", message, span).label("unknown");
            problems.push(problem.help_if(did_you_mean(name, known.iter().copied())));
        }
    };
    for case in &file.cases {
        for (key, _) in &case.mocks.0 {
            look(&key.text, key.span);
        }
        for (key, _) in &case.expect.steps.0 {
            look(&key.text, key.span);
        }
        for name in case.expect.undone.iter().flat_map(|undone| &undone.value) {
            look(name, case.expect.undone.as_ref().map_or(case.name.span, |undone| undone.span));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Problems::new(Arc::clone(source), problems)) }
}

/// Lives through a case.
///
/// # Errors
/// When its parameters make no plan.
pub async fn judge(
    runbook: &Path,
    plan: &Plan,
    given: &Given,
    case: &Case,
    source: &Source,
) -> Result<Judged, PlanError> {
    let mut given = given.clone();
    given.extend(case.params.iter().map(|(name, value)| (name.clone(), value.clone())));
    let plan = Plan::load(runbook, plan.site.clone(), &given)?;
    let crashes = case.mocks.0.iter().filter_map(|(key, mock)| {
        let step = StepId::new(&key.text);
        let at = match mock.crash? {
            MomentWord::Before => Trigger::BeforeAct(step, None, Part::Action),
            MomentWord::After => Trigger::AfterAct(step, None, Part::Action),
        };
        Some(Set { at, fault: Fault::Crash })
    });
    let scenario = Scenario {
        name: case.name.value.clone(),
        faults: Script::new(crashes),
        rules: case.mocks.0.iter().map(|(key, mock)| (key.text.clone(), mock.clone())).collect(),
        repeats: None,
    };
    let lived = live(&plan, scenario).await;
    let unmet = unmet(case, &lived, source);
    Ok(Judged { lived, unmet })
}

fn unmet(case: &Case, lived: &Lived, source: &Source) -> Vec<String> {
    let place = |span: Span| {
        let (line, column) = source.position(span.start);
        format!("{}:{line}:{column}", source.name)
    };
    let mut out = Vec::new();
    let expected = case.expect.outcome.value.outcome();
    if lived.outcome != Some(expected) {
        let why = lived.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        let at = place(case.expect.outcome.span);
        out.push(format!("{at}: the run was expected to end {expected:?} and ended {:?}{why}", lived.outcome));
    }
    for (key, wanted) in &case.expect.steps.0 {
        let wanted_state = state_of(wanted.value);
        let same = |id: &&StepId| id.as_str() == key.text || id.as_str().starts_with(&format!("{}[", key.text));
        for id in lived.states.keys().filter(same) {
            let found = lived.states[id];
            if found != wanted_state {
                let why = lived.errors.get(id).map(|error| format!(": {error}")).unwrap_or_default();
                let at = place(wanted.span);
                out.push(format!("{at}: step `{id}` was expected to be {wanted_state:?} and is {found:?}{why}"));
            }
        }
    }
    if let Some(wanted) = &case.expect.undone {
        let found: Vec<String> = lived.undone.iter().map(ToString::to_string).collect();
        if found != wanted.value {
            let at = place(wanted.span);
            out.push(format!(
                "{at}: `{}` were expected to be undone, in this order; undone were `{}`",
                wanted.value.join(", "),
                found.join(", ")
            ));
        }
    }
    out
}

fn state_of(word: StateWord) -> StepState {
    match word {
        StateWord::Pending => StepState::Pending,
        StateWord::Ready => StepState::Ready,
        StateWord::Succeeded => StepState::Succeeded,
        StateWord::Failed => StepState::Failed,
        StateWord::Skipped => StepState::Skipped,
        StateWord::InDoubt => StepState::InDoubt,
        StateWord::Undoing => StepState::Undoing,
        StateWord::Undone => StepState::Undone,
        StateWord::Waiting => StepState::Waiting,
    }
}

//! A rollback before it begins: what would be undone, in which order, what stays, and who stands on it.

use serde_json::{Value as Json, json};

use super::words::Paint;
use crate::driver::LaterRun;
use crate::ids::{RunId, StepId};
use crate::plan::{Plan, PlanStep};
use crate::scheduler::WayBack;
use crate::spec::actions::ActionKind;
use crate::spec::runbook::Undo;

/// What is shown.
#[derive(Clone, Copy)]
pub struct Back<'a> {
    /// The run.
    pub run: &'a RunId,
    /// Its plan.
    pub plan: &'a Plan,
    /// The way back.
    pub way: &'a WayBack,
    /// Milestones that are taken back once everything is undone.
    pub revoked: &'a [crate::ids::Milestone],
    /// Later runs that stand on this one.
    pub later: &'a [LaterRun],
}

/// How a step is undone, in a few words.
fn how(step: Option<&PlanStep>) -> String {
    let Some(step) = step else { return String::new() };
    match step.undo.as_deref() {
        Some(Undo::Auto(_)) => format!("the inverse of {}", step.action.kind.key()),
        Some(Undo::Action(undo)) => undo.kind.key().to_owned(),
        None => String::new(),
    }
}

/// The machine form: `run, undo, without_undo, stops_at, remains, revokes, later_runs`.
pub fn to_json(back: Back<'_>) -> Json {
    let undo = back.way.undo.iter().map(|step| json!({ "step": step, "undo": how(back.plan.step(step)) }));
    let later = back
        .later
        .iter()
        .map(|run| json!({ "run": run.run, "runbook": run.runbook, "milestones": run.milestones, "locks": run.locks }));
    json!({
        "run": back.run, "undo": undo.collect::<Json>(), "without_undo": back.way.without_undo,
        "stops_at": back.way.stops_at, "remains": back.way.remains, "revokes": back.revoked,
        "later_runs": later.collect::<Json>(),
    })
}

/// The list for people.
pub fn to_text(back: Back<'_>, paint: Paint) -> String {
    let Back { plan, way, .. } = back;
    let mut lines = vec![paint.bold(&format!("rollback of run {} ({} {})", back.run, plan.name, plan.version))];
    if way.undo.is_empty() {
        lines.push("nothing is undone".into());
    } else {
        lines.push("is undone, in this order:".into());
    }
    for (place, id) in way.undo.iter().enumerate() {
        lines.push(format!("{:>4}. {id}  ({})", place + 1, how(plan.step(id))));
    }
    if !way.without_undo.is_empty() {
        lines.push(paint.warn(&format!("has no undo and stays as it is: {}", names(&way.without_undo))));
        for id in &way.without_undo {
            if plan.step(id).is_some_and(|step| step.action.kind == ActionKind::Runbook) {
                lines.push(format!("      `{id}` ran a runbook: see piton rollback {}.{id} --plan", back.run));
            }
        }
    }
    if let Some(stop) = &way.stops_at {
        let reason = plan.step(stop).and_then(|step| step.point_of_no_return.clone());
        let reason = reason.map(|text| format!(": {text}")).unwrap_or_default();
        lines.push(paint.bad(&format!("stops at `{stop}`, a point of no return{reason}")));
        lines.push(paint.bad(&format!("stays because of that: {}", names(&way.remains))));
    }
    if !back.revoked.is_empty() {
        let names: Vec<_> = back.revoked.iter().map(|name| format!("`{name}`")).collect();
        let when = if way.stops_at.is_some() { "would be taken back, but it stops before" } else { "is taken back" };
        lines.push(format!("{when}: milestone {}", names.join(", ")));
    }
    lines.extend(back.later.iter().map(|run| paint.warn(&stands_on(run))));
    lines.push(String::new());
    lines.join("\n")
}

/// Why a later run speaks against a rollback.
pub fn stands_on(later: &LaterRun) -> String {
    let list = |names: Vec<String>| names.join(", ");
    let mut why = Vec::new();
    if !later.milestones.is_empty() {
        let names = list(later.milestones.iter().map(|name| format!("`{name}`")).collect());
        why.push(format!("required milestone {names} of this run"));
    }
    if !later.locks.is_empty() {
        why.push(format!("worked on {} since", list(later.locks.iter().map(|name| format!("`{name}`")).collect())));
    }
    if why.is_empty() {
        why.push("was pruned, so nobody can tell whether it stands on this run".to_owned());
    }
    format!("later run {} ({}) {}", later.run, later.runbook, why.join(" and "))
}

fn names(steps: &[StepId]) -> String {
    let names: Vec<_> = steps.iter().map(|step| format!("`{step}`")).collect();
    names.join(", ")
}

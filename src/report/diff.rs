//! A run beside a changed runbook: what is kept, what was changed before it ran, what was changed and is done already.

use serde_json::{Value as Json, json};

use super::words::Paint;
use crate::driver::{StepDiff, Told};
use crate::event::{Change, Choice, StepAmended};
use crate::ids::RunId;
use crate::plan::Plan;

/// One entry of an amendment in words.
pub fn entry(entry: &StepAmended) -> String {
    let choice = match entry.choice {
        Some(Choice::Keep) => "; kept as it was done",
        Some(Choice::Redo) => "; is done again",
        None => "",
    };
    format!("`{}`: {}{choice}", entry.step, change(&entry.change))
}

fn change(change: &Change) -> String {
    match change {
        Change::Same => "unchanged".to_owned(),
        Change::Rules => "its rules were changed, not its work".to_owned(),
        Change::Undo => "its undo was changed".to_owned(),
        Change::Inputs => "its inputs have other values now".to_owned(),
        Change::Changed => "changed".to_owned(),
        Change::Added => "added".to_owned(),
        Change::Removed => "removed".to_owned(),
        Change::Renamed { from } => format!("was called `{from}`"),
    }
}

/// The comparison for people.
pub fn to_text(run: &RunId, told: &Told, plan: &Plan, diffs: &[StepDiff], paint: Paint) -> String {
    let head = format!("run {run}: {} {} -> {}", plan.name, told.plan.version, plan.version);
    let mut lines = vec![paint.bold(&head)];
    if told.plan.digest == plan.digest {
        lines.push("nothing was changed".into());
    }
    if told.plan.site.tree != plan.site.tree {
        lines.push("the site file was changed".into());
    }
    for (name, value) in &plan.params {
        match told.plan.params.get(name) {
            Some(old) if old == value => {}
            Some(old) => lines.push(format!("param {name}: {old} -> {value}")),
            None => lines.push(format!("param {name}: {value} (new)")),
        }
    }
    let kept = diffs.iter().filter(|diff| diff.change == Change::Same).count();
    if kept > 0 {
        lines.push(format!("  {kept} step(s) unchanged"));
    }
    for diff in diffs.iter().filter(|diff| diff.change != Change::Same) {
        let text = format!("  `{}`: {}{}", diff.step, change(&diff.change), after(diff));
        lines.push(if diff.wants_a_choice() { paint.bad(&text) } else { text });
    }
    let open: Vec<&StepDiff> = diffs.iter().filter(|diff| diff.wants_a_choice()).collect();
    if let Some(first) = open.first() {
        let text = format!(
            "{} changed step(s) are done already: say `--keep {}` or `--redo {}` for each",
            open.len(),
            first.step,
            first.step
        );
        lines.push(paint.warn(&text));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// What the change means for the run.
fn after(diff: &StepDiff) -> &'static str {
    match (&diff.change, diff.is_done()) {
        (Change::Changed | Change::Inputs, _) if diff.repeats => {
            "; it failed and may be repeated, so it is tried as it is now"
        }
        (Change::Changed | Change::Inputs, true) => ", and it is done already",
        (Change::Changed | Change::Inputs, false) => ", and it has not run",
        (Change::Removed, true) => ", and it is done: it stays on the way back, with its old undo",
        (Change::Undo, true) => "; it is undone by the new one",
        _ => "",
    }
}

/// The machine form of a comparison.
pub fn to_json(run: &RunId, told: &Told, plan: &Plan, diffs: &[StepDiff]) -> Json {
    let steps = diffs.iter().map(|diff| {
        json!({
            "step": diff.step, "change": diff.change.word(), "state": diff.state, "done": diff.is_done(),
            "wants_a_choice": diff.wants_a_choice(),
            "from": match &diff.change { Change::Renamed { from } => Some(from), _ => None },
        })
    });
    json!({
        "run": run, "was": told.plan.digest, "digest": plan.digest, "same": told.plan.digest == plan.digest,
        "site_changed": told.plan.site.tree != plan.site.tree, "params_changed": told.plan.params != plan.params,
        "steps": steps.collect::<Json>(),
    })
}

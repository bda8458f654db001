//! A plan for people and programs: what a run would do, in order, and everything that decides about it.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::words::{self, Paint};
use crate::action::Preview;
use crate::ids::StepId;
use crate::plan::{Plan, PlanStep};
use crate::spec::runbook::{Idempotent, OnFailure, Phase, Undo};
use crate::spec::yaml::{Key, Node, Value};

/// What the previews of a plan's steps found, by step.
pub type Previews = BTreeMap<StepId, Preview>;

/// An action and its arguments in one line; templates stay as the author wrote them.
pub fn action_words(step: &PlanStep, chars_max: usize) -> String {
    let mut words = format!("{} ", step.action.kind.key());
    match &step.action.args.value {
        Value::Map(pairs) => put_fields(pairs, &mut words),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) | Value::Text(_) | Value::List(_) => {
            put_flow(&step.action.args, &mut words);
        }
    }
    words::cut(&words.replace('\n', " "), chars_max)
}

fn put_fields(pairs: &[(Key, Node)], words: &mut String) {
    for (place, (key, value)) in pairs.iter().enumerate() {
        words.push_str(if place > 0 { ", " } else { "" });
        words.push_str(&key.text);
        words.push_str(": ");
        put_flow(value, words);
    }
}

/// A value as an author would write it in one line.
fn put_flow(node: &Node, words: &mut String) {
    match &node.value {
        Value::Text(text) if text.is_empty() => words.push_str("\"\""),
        Value::Text(text) => words.push_str(text),
        Value::List(items) => {
            words.push('[');
            for (place, item) in items.iter().enumerate() {
                words.push_str(if place > 0 { ", " } else { "" });
                put_flow(item, words);
            }
            words.push(']');
        }
        Value::Map(pairs) => {
            words.push_str("{ ");
            put_fields(pairs, words);
            words.push_str(" }");
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) => {
            words.push_str(&node.to_json().to_string());
        }
    }
}

fn notes(step: &PlanStep) -> Vec<String> {
    let mut notes = Vec::new();
    if !step.needs.is_empty() {
        let needs: Vec<String> = step
            .needs
            .iter()
            .map(|(need, outcome)| {
                outcome.map_or_else(|| need.to_string(), |outcome| format!("{need} ({})", outcome.word()))
            })
            .collect();
        notes.push(format!("needs {}", needs.join(", ")));
    }
    if let Some(when) = &step.when {
        notes.push(format!("only when {}", when.text));
    }
    if let Some(timeout) = step.timeout {
        notes.push(format!("at most {timeout}"));
    }
    if let Some(retry) = step.retry.as_ref().filter(|retry| retry.attempts > 1) {
        notes.push(format!("up to {} attempts, first pause {}", retry.attempts, retry.backoff.initial));
    }
    notes.push(match step.undo.as_deref() {
        Some(Undo::Auto(_)) => "undone by its inverse".to_owned(),
        Some(Undo::Action(action)) => format!("undone by {}", action.kind.key()),
        None => "no undo".to_owned(),
    });
    notes.push(match step.idempotent {
        Idempotent::Yes => "may run twice".to_owned(),
        Idempotent::No => "never runs twice without a person's word".to_owned(),
        Idempotent::Resumable => "goes on where it was".to_owned(),
    });
    if let Some(verify) = &step.verify {
        notes.push(format!("verified by {}", verify.kind.key()));
    }
    if !step.locks.is_empty() {
        notes.push(format!("holds {}", step.locks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")));
    }
    notes
}

/// What a preview found, in words.
pub fn preview_words(preview: &Preview) -> String {
    match preview {
        Preview::WillChange(what) => format!("will change: {what}"),
        Preview::NoChange(why) => format!("no change: {why}"),
        Preview::Unknown(why) => format!("unknown, because {why}"),
    }
}

fn stage(step: &PlanStep) -> &'static str {
    match step.phase {
        _ if step.is_finally => "at the end, whatever happened",
        Phase::Preflight => "before everything else; only looks",
        Phase::Main => "in order of need",
    }
}

/// The steps in an order in which they could run one by one, by stage.
pub fn in_order(plan: &Plan) -> Vec<&PlanStep> {
    let mut steps: Vec<&PlanStep> = plan.in_order();
    steps.sort_by_key(|step| (step.is_finally, step.phase == Phase::Main));
    steps
}

/// The text for people.
pub fn to_text(plan: &Plan, previews: &Previews, paint: Paint) -> String {
    let mut lines = vec![format!("{} {} on site {}", paint.bold(&plan.name), plan.version, plan.site.site.name)];
    lines.extend(plan.description.iter().map(|text| text.trim().to_owned()));
    lines.push(paint.faint(&format!("plan {}", plan.digest)));
    lines.extend(plan.params.iter().map(|(name, value)| format!("param {name} = {}", words::short(value, 100))));
    lines.extend(plan.milestones.iter().map(|milestone| format!("requires milestone {milestone}")));
    if !plan.locks.is_empty() {
        let locks: Vec<&str> = plan.locks.iter().map(crate::ids::LockName::as_str).collect();
        lines.push(format!("holds locks {}", locks.join(", ")));
    }
    let timeout = plan.limits.timeout.map(|timeout| format!(", at most {timeout} in all")).unwrap_or_default();
    lines.push(format!(
        "up to {} steps at a time{timeout}; after a failure: {}",
        plan.limits.parallel,
        failure(plan.on_failure)
    ));
    let mut last_stage = "";
    for (place, step) in in_order(plan).into_iter().enumerate() {
        if stage(step) != last_stage {
            last_stage = stage(step);
            lines.push(String::new());
            lines.push(paint.faint(last_stage));
        }
        let name = step.name.as_ref().map(|name| format!("  {name}")).unwrap_or_default();
        lines.push(format!("{:>4}. {}{name}", place + 1, paint.bold(step.id.as_str())));
        lines.push(format!("      {}", action_words(step, 140)));
        lines.push(format!("      {}", paint.faint(&notes(step).join("; "))));
        if let Some(preview) = previews.get(&step.id) {
            let text = preview_words(preview);
            let shown = match preview {
                Preview::WillChange(_) => paint.warn(&text),
                Preview::NoChange(_) => paint.good(&text),
                Preview::Unknown(_) => paint.faint(&text),
            };
            lines.push(format!("      {shown}"));
        }
        if let Some(optional) = &step.optional {
            lines.push(format!("      optional; skipped, it means: {}", optional.consequence.trim()));
        }
        if let Some(why) = &step.point_of_no_return {
            lines.push(format!("      {}", paint.bad(&format!("point of no return: {}", why.trim()))));
        }
    }
    if !plan.windows.is_empty() {
        lines.push(String::new());
    }
    for window in &plan.windows {
        let budget = window.budget.map(|budget| format!(", at most {budget}")).unwrap_or_default();
        lines.push(format!(
            "window {}: from the start of {} to the success of {}{budget}",
            window.name, window.opens.value, window.closes.value
        ));
    }
    lines.extend(plan.achieves.iter().map(|milestone| format!("establishes milestone {milestone}")));
    lines.extend(plan.revokes.iter().map(|milestone| format!("takes back milestone {milestone}")));
    lines.push(String::new());
    lines.join("\n")
}

fn failure(rule: OnFailure) -> &'static str {
    match rule {
        OnFailure::Rollback => "what was done is undone, last first",
        OnFailure::Stop => "nothing new starts",
        OnFailure::Continue => "what does not depend on it goes on",
    }
}

/// The machine form.
pub fn to_json(plan: &Plan, previews: &Previews) -> Json {
    let steps: Vec<Json> = in_order(plan)
        .into_iter()
        .map(|step| {
            let preview = previews.get(&step.id).map(|preview| match preview {
                Preview::WillChange(text) => json!({ "verdict": "will_change", "text": text }),
                Preview::NoChange(text) => json!({ "verdict": "no_change", "text": text }),
                Preview::Unknown(text) => json!({ "verdict": "unknown", "text": text }),
            });
            json!({
                "id": step.id, "name": step.name, "action": step.action.kind.key(), "args": step.action.args.to_json(),
                "phase": if step.is_finally { "finally" } else { step.phase.word() },
                "needs": step.needs.iter().map(|(need, _)| need).collect::<Vec<_>>(),
                "when": step.when.as_ref().map(|when| when.text.clone()),
                "timeout_ms": step.timeout.map(|timeout| timeout.0),
                "attempts": step.retry.as_ref().map_or(1, |retry| retry.attempts),
                "undo": step.undo.is_some(), "idempotent": step.idempotent.word(),
                "optional": step.optional.as_ref().map(|optional| optional.consequence.clone()),
                "point_of_no_return": step.point_of_no_return, "locks": step.locks, "preview": preview,
            })
        })
        .collect();
    let windows: Vec<Json> = plan
        .windows
        .iter()
        .map(|window| {
            json!({ "name": window.name, "opens": window.opens.value, "closes": window.closes.value,
                    "budget_ms": window.budget.map(|budget| budget.0) })
        })
        .collect();
    json!({
        "runbook": plan.name, "version": plan.version, "digest": plan.digest, "site": plan.site.site.name,
        "params": plan.params, "requires": plan.milestones, "achieves": plan.achieves, "revokes": plan.revokes,
        "locks": plan.locks, "parallel": plan.limits.parallel, "on_failure": plan.on_failure.word(),
        "steps": steps, "windows": windows,
    })
}

//! Steps with their defaults filled in and their lists expanded: one plan step for every item of a `foreach`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::check::idempotency;
use super::{PlanStep, value_problem};
use crate::ids::{LockName, StepId};
use crate::spec::problem::Problem;
use crate::spec::reference::{Expression, Malformed, render};
use crate::spec::runbook::{OnFailure, Runbook, Step};

/// All steps of the runbook, expanded.
pub fn steps(runbook: &Runbook, scope: &Json) -> Result<Vec<PlanStep>, Problem> {
    let mut items: BTreeMap<&str, Vec<(StepId, Option<Json>)>> = BTreeMap::new();
    for step in runbook.steps.iter().chain(&runbook.finally) {
        items.insert(step.id().as_str(), instances(step, scope)?);
    }
    let mut all = Vec::new();
    let parts = runbook.steps.iter().map(|step| (step, false)).chain(runbook.finally.iter().map(|step| (step, true)));
    for (step, is_finally) in parts {
        for (id, item) in &items[step.id().as_str()] {
            all.push(plan_step(runbook, step, id.clone(), item.clone(), is_finally, &items, scope)?);
        }
    }
    Ok(all)
}

fn instances(step: &Step, scope: &Json) -> Result<Vec<(StepId, Option<Json>)>, Problem> {
    let Some(foreach) = &step.fields.foreach else { return Ok(vec![(step.id().clone(), None)]) };
    let wrong = |error: Malformed| value_problem(foreach.span, error);
    let list = match &foreach.value.items.value {
        Json::String(text) => Expression::parse(text).and_then(|e| e.evaluate(scope)).map_err(wrong)?,
        other => other.clone(),
    };
    let Json::Array(list) = list else {
        return Err(wrong(Malformed("`foreach` needs a list of items".into())));
    };
    let key = foreach.value.key.as_ref().map(|key| Expression::parse(&key.value)).transpose().map_err(wrong)?;
    let mut seen = std::collections::BTreeSet::new();
    let mut found = Vec::with_capacity(list.len());
    for item in list {
        let name = match &key {
            Some(key) => key.evaluate(&with_item(scope, &item)).map_err(wrong)?,
            None => item.clone(),
        };
        let name = match name {
            Json::String(text) => text,
            Json::Number(number) => number.to_string(),
            Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => {
                return Err(wrong(Malformed("an item needs a name: add `key: item.name`".into())));
            }
        };
        if !seen.insert(name.clone()) {
            return Err(wrong(Malformed(format!("two items have the key `{name}`"))));
        }
        found.push((StepId::new(format!("{}[{name}]", step.id())), Some(item)));
    }
    Ok(found)
}

fn with_item(scope: &Json, item: &Json) -> Json {
    let mut scope = scope.clone();
    scope["item"] = item.clone();
    scope
}

fn plan_step(
    runbook: &Runbook,
    step: &Step,
    id: StepId,
    item: Option<Json>,
    is_finally: bool,
    items: &BTreeMap<&str, Vec<(StepId, Option<Json>)>>,
    scope: &Json,
) -> Result<PlanStep, Problem> {
    let fields = &step.fields;
    let needs = fields.needs.iter().flat_map(|need| {
        let targets = items.get(need.step.value.as_str()).map(Vec::as_slice).unwrap_or_default();
        targets.iter().map(|(id, _)| (id.clone(), need.outcome))
    });
    let when = fields.when.as_ref().map(|when| Expression::parse(&when.value).map_err(|e| value_problem(when.span, e)));
    let outputs = fields.outputs.iter().map(|(name, rule)| {
        Expression::parse(&rule.value).map(|rule| (name.clone(), rule)).map_err(|e| value_problem(fields.id.span, e))
    });
    let item_scope = item.as_ref().map(|item| with_item(scope, item));
    let locks = fields.locks.iter().map(|lock| {
        let text = render(&lock.value, item_scope.as_ref().unwrap_or(scope));
        text.map(LockName::new).map_err(|e| value_problem(lock.span, e))
    });
    let fallback = if is_finally { OnFailure::Continue } else { runbook.on_failure };
    Ok(PlanStep {
        declared: step.id().to_string(),
        name: fields.name.clone(),
        action: step.action.clone(),
        verify: fields.verify.as_ref().map(|verify| verify.0.clone()),
        undo: fields.undo.clone(),
        when: when.transpose()?,
        needs: needs.collect(),
        timeout: fields.timeout.or(runbook.defaults.timeout),
        retry: fields.retry.as_ref().map(|retry| retry.value.clone()).or_else(|| runbook.defaults.retry.clone()),
        idempotent: idempotency(step),
        on_failure: fields.on_failure.unwrap_or(fallback),
        optional: fields.optional.clone(),
        point_of_no_return: fields.point_of_no_return.clone(),
        locks: locks.collect::<Result<_, _>>()?,
        phase: fields.phase,
        is_finally,
        outputs: outputs.collect::<Result<_, _>>()?,
        id,
        item,
    })
}

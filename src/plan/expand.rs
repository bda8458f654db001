//! Steps with their defaults filled in and their lists expanded: one plan step for every item of a `foreach`.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::check::idempotency;
use super::render::render_node;
use super::{PlanStep, value_problem};
use crate::ids::{LockName, StepId};
use crate::spec::actions::{ActionSpec, RULES};
use crate::spec::decode::{Decoder, Templates};
use crate::spec::problem::{Problem, Source};
use crate::spec::reference::{Expression, Malformed, render};
use crate::spec::runbook::{OnFailure, Runbook, Step, Undo};
use crate::spec::yaml::Value;

/// The steps that one step of the runbook becomes, by id, with their items.
type Items = Vec<(StepId, Option<Box<Json>>)>;

/// All steps of the runbook, expanded; they are taken out of it.
pub fn steps(runbook: &mut Runbook, source: &Arc<Source>, scope: &Json) -> Result<Vec<PlanStep>, Problem> {
    let (steps, last) = (std::mem::take(&mut runbook.steps), std::mem::take(&mut runbook.finally));
    let mut items: HashMap<StepId, Items> = HashMap::with_capacity(steps.len() + last.len());
    for step in steps.iter().chain(&last) {
        items.insert(step.id().clone(), instances(step, scope)?);
    }
    let mut inner = scope.clone();
    let mut all = Vec::with_capacity(steps.len() + last.len());
    let parts = steps.into_iter().map(|step| (step, false)).chain(last.into_iter().map(|step| (step, true)));
    for (step, is_finally) in parts {
        let own = &items[step.id()];
        for (step, (id, item)) in std::iter::repeat_n(step, own.len()).zip(own) {
            let scope = match item {
                Some(item) => {
                    inner["item"] = item.as_ref().clone();
                    &inner
                }
                None => scope,
            };
            all.push(plan_step(runbook, step, (id.clone(), item.clone()), is_finally, &items, (source, scope))?);
        }
    }
    Ok(all)
}

/// A question to people with everything rendered that decides who may answer it.
fn decided(mut action: ActionSpec, source: &Arc<Source>, scope: &Json) -> Result<ActionSpec, Problem> {
    let Value::Map(pairs) = &mut action.args.value else { return Ok(action) };
    if action.kind.is_wait_for_people() {
        for (_, value) in pairs.iter_mut().filter(|(key, _)| RULES.contains(&key.text.as_str())) {
            *value = render_node(value, scope).map_err(|error| value_problem(value.span, error))?;
        }
        let mut decoder = Decoder::new(Arc::clone(source));
        decoder.templates = Templates::Pending;
        action.kind.decode(&action.args, &mut decoder);
        if let Some(problem) = decoder.problems.into_iter().next() {
            return Err(problem);
        }
    }
    Ok(action)
}

fn instances(step: &Step, scope: &Json) -> Result<Items, Problem> {
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
    let mut inner = if key.is_some() { scope.clone() } else { Json::Null };
    for item in list {
        let name = match &key {
            Some(key) => {
                inner["item"] = item.clone();
                key.evaluate(&inner).map_err(wrong)?
            }
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
        found.push((StepId::new(format!("{}[{name}]", step.id())), Some(Box::new(item))));
    }
    Ok(found)
}

fn plan_step(
    runbook: &Runbook,
    step: Step,
    (id, item): (StepId, Option<Box<Json>>),
    is_finally: bool,
    items: &HashMap<StepId, Items>,
    (source, scope): (&Arc<Source>, &Json),
) -> Result<PlanStep, Problem> {
    let idempotent = idempotency(&step);
    let Step { mut fields, action, .. } = step;
    let action = decided(action, source, scope)?;
    if let Some(Undo::Action(undo)) = fields.undo.take_if(|undo| matches!(undo, Undo::Action(_))) {
        fields.undo = Some(Undo::Action(decided(undo, source, scope)?));
    }
    let needs = fields.needs.iter().flat_map(|need| {
        let targets = items.get(need.step.value.as_str()).map(Vec::as_slice).unwrap_or_default();
        targets.iter().map(|(id, _)| (id.clone(), need.outcome))
    });
    let when = fields.when.as_ref().map(|when| Expression::parse(&when.value).map_err(|e| value_problem(when.span, e)));
    let outputs = fields.outputs.iter().map(|(name, rule)| {
        Expression::parse(&rule.value).map(|rule| (name.clone(), rule)).map_err(|e| value_problem(fields.id.span, e))
    });
    let locks = fields
        .locks
        .iter()
        .map(|lock| render(&lock.value, scope).map(LockName::new).map_err(|e| value_problem(lock.span, e)));
    let fallback = if is_finally { OnFailure::Continue } else { runbook.on_failure };
    Ok(PlanStep {
        when: when.transpose()?.map(Box::new),
        needs: needs.collect(),
        outputs: outputs.collect::<Result<_, _>>()?,
        locks: locks.collect::<Result<_, _>>()?,
        // One text for both, but for items of a list.
        declared: if fields.id.value == id { id.clone() } else { fields.id.value },
        name: fields.name.map(Into::into),
        action,
        verify: fields.verify.map(|verify| Box::new(verify.0)),
        undo: fields.undo.map(Box::new),
        timeout: fields.timeout.or(runbook.defaults.timeout),
        retry: fields.retry.map(|retry| retry.value).or_else(|| runbook.defaults.retry.clone()).map(Box::new),
        idempotent,
        on_failure: fields.on_failure.unwrap_or(fallback),
        optional: fields.optional.map(Box::new),
        deviations: fields.deviations.map(Box::new),
        point_of_no_return: fields.point_of_no_return.map(Into::into),
        phase: fields.phase,
        is_finally,
        uses: fields.uses.into_iter().map(|pattern| pattern.value).collect(),
        id,
        item,
    })
}

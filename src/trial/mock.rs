//! Actions that only say what they would have done: each keeps its contract and changes nothing but the books.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::SignedDuration;
use serde_json::{Map, Value as Json, json};

use crate::action::build::{Part, Swap};
use crate::action::{Action, Context, Failure};
use crate::config::Clock;
use crate::event::{Effect, Finding, Outputs};
use crate::ids::StepId;
use crate::plan::{Plan, PlanStep, has_probe};
use crate::spec::actions::{ActionKind, Args};
use crate::spec::case::Mock;
use crate::spec::reference::{Reference, template_references};
use crate::spec::runbook::Undo;
use crate::spec::yaml::{Node, Value};

/// What was done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Act {
    pub(super) step: StepId,
    pub(super) part: Part,
}

/// The books of a pretended world; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct World(Arc<Mutex<Vec<Act>>>);

impl World {
    fn acts(&self) -> MutexGuard<'_, Vec<Act>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn did(&self, step: &StepId, part: Part) {
        self.acts().push(Act { step: step.clone(), part });
    }

    /// How often a part of a step did its work.
    pub(super) fn count(&self, step: &StepId, part: Part) -> usize {
        self.acts().iter().filter(|act| act.step == *step && act.part == part).count()
    }

    /// Whether the step has done its work and nothing has taken it back since.
    pub(super) fn holds(&self, step: &StepId) -> bool {
        let acts = self.acts();
        let latest = acts.iter().rev().find(|act| act.step == *step && act.part != Part::Verify);
        latest.is_some_and(|act| act.part == Part::Action)
    }
}

/// The stand-ins of one trial.
pub(super) struct Mocks {
    pub(super) world: World,
    pub(super) clock: Clock,
    /// By the id the author wrote, or that of an item.
    pub(super) rules: BTreeMap<String, Mock>,
    pub(super) steps: BTreeMap<StepId, Pretended>,
}

/// What is known of a step before it runs.
pub(super) struct Pretended {
    outputs: Outputs,
    timeout_ms: Option<u64>,
    probes: bool,
}

/// What every step of a plan would answer; everything that templates behind it name is there.
pub(super) fn pretended(plan: &Plan) -> BTreeMap<StepId, Pretended> {
    let mut named: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for step in &plan.steps {
        for Reference { path, .. } in references(step) {
            match path.split_first().map(|(root, rest)| (root.as_str(), rest)) {
                Some(("outputs", rest)) => named.entry(step.declared.to_string()).or_default().push(rest.to_vec()),
                Some(("steps", [id, word, rest @ ..])) if word == "outputs" => {
                    named.entry(id.clone()).or_default().push(rest.to_vec());
                }
                _ => {}
            }
        }
    }
    let one = |step: &PlanStep| {
        let mut outputs = made_up(step.action.kind, &step.action.args);
        for path in named.get(step.declared.as_str()).into_iter().flatten() {
            // What the author computes from the action's outputs is not the action's.
            if path.first().is_some_and(|name| !step.outputs.contains_key(name)) {
                fill(&mut outputs, path);
            }
        }
        let timeout_ms = step.timeout.map(|limit| limit.0);
        Pretended { outputs: outputs.into_iter().collect(), timeout_ms, probes: has_probe(step.action.kind) }
    };
    plan.steps.iter().map(|step| (step.id.clone(), one(step))).collect()
}

/// Puts a 1 where the path leads, unless something is there.
fn fill(outputs: &mut Map<String, Json>, path: &[String]) {
    let Some((name, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        outputs.entry(name.clone()).or_insert_with(|| json!(1));
        return;
    }
    let place = outputs.entry(name.clone()).or_insert_with(|| json!({}));
    if !place.is_object() {
        return;
    }
    if let Some(inner) = place.as_object_mut() {
        fill(inner, rest);
    }
}

fn references(step: &PlanStep) -> Vec<Reference> {
    let mut found = Vec::new();
    let undo = match step.undo.as_deref() {
        Some(Undo::Action(action)) => Some(action),
        Some(Undo::Auto(_)) | None => None,
    };
    for action in std::iter::once(&step.action).chain(step.verify.as_deref()).chain(undo) {
        collect(&action.args, &mut found);
    }
    for expression in step.when.as_deref().into_iter().chain(step.outputs.values()) {
        found.extend(expression.references());
    }
    found
}

fn collect(node: &Node, found: &mut Vec<Reference>) {
    match &node.value {
        Value::Text(text) => found.extend(template_references(text).unwrap_or_default()),
        Value::List(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Map(pairs) => pairs.iter().for_each(|(_, child)| collect(child, found)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) => {}
    }
}

/// Outputs of the right kind for every name that an action promises.
fn made_up(kind: ActionKind, args: &Node) -> Map<String, Json> {
    let at = "2026-01-01T00:00:00Z";
    let value = |name: &str| match name {
        "services" | "changed" | "held_before" | "lagging" | "gaps" | "applied" | "approved_by" => json!([]),
        "started_at" | "stopped_at" => json!(at),
        // Seconds since 1970: a boundary of every usual timestep.
        "at" | "watermark" => json!(1_767_225_600_i64),
        "at_ms" => json!(1_767_225_600_000_i64),
        "rows" if kind == ActionKind::DbQuery => json!([]),
        "row" | "tables" => json!({}),
        "old" | "error" => Json::Null,
        "delivered" => json!(true),
        "outcome" => json!("succeeded"),
        "path" | "sha256" | "run" | "value" | "new" => json!("mock"),
        _ => json!(1),
    };
    let mut outputs: Map<String, Json> =
        kind.outputs().into_iter().flatten().map(|name| ((*name).to_owned(), value(name))).collect();
    if let Some(Value::Map(rules)) = args.get("outputs").map(|node| &node.value) {
        for (name, rule) in rules {
            let text = ["stdout", "regex", "body", "header"].iter().any(|key| rule.get(key).is_some());
            outputs.insert(name.text.clone(), if text { json!("1") } else { json!(1) });
        }
    }
    outputs
}

impl Swap for Mocks {
    fn swap(&self, cx: &Context, part: Part, _: Args) -> Box<dyn Action> {
        let step = cx.step.as_str();
        let declared = step.split_once('[').map_or(step, |(declared, _)| declared);
        let rule = self.rules.get(step).or_else(|| self.rules.get(declared)).cloned();
        let mut outputs = Outputs::new();
        let (mut timeout_ms, mut probes) = (None, false);
        if let Some(known) = self.steps.get(&cx.step).filter(|_| part == Part::Action) {
            outputs.clone_from(&known.outputs);
            (timeout_ms, probes) = (known.timeout_ms, known.probes);
            outputs.extend(rule.iter().flat_map(|rule| rule.outputs.clone()));
        }
        Box::new(Mocked {
            world: self.world.clone(),
            clock: self.clock.clone(),
            part,
            rule,
            outputs,
            timeout_ms,
            probes,
        })
    }
}

struct Mocked {
    world: World,
    clock: Clock,
    part: Part,
    rule: Option<Mock>,
    outputs: Outputs,
    timeout_ms: Option<u64>,
    probes: bool,
}

impl Mocked {
    fn passes(&self, ms: u64) {
        let later = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
        if let Ok(at) = self.clock.now().checked_add(later) {
            self.clock.leap_to(at);
        }
    }
}

#[async_trait]
impl Action for Mocked {
    async fn run(&self, cx: &Context, _: &Json) -> Result<Outputs, Failure> {
        let rule = self.rule.as_ref().filter(|_| self.part == Part::Action);
        let takes_ms = rule.and_then(|rule| rule.takes).map_or(0, |takes| takes.0);
        if let Some(limit) = self.timeout_ms.filter(|limit| takes_ms > *limit) {
            self.passes(limit);
            self.world.did(&cx.step, self.part);
            return Err(Failure::unknown("the attempt took longer than its timeout"));
        }
        self.passes(takes_ms);
        if let Some(fails) = rule.and_then(|rule| rule.fail.as_ref())
            && fails.times.is_none_or(|times| cx.attempt <= times)
        {
            let effect = fails.effect();
            if effect == Effect::Unknown {
                self.world.did(&cx.step, self.part);
            }
            return Err(Failure { error: fails.error.clone(), effect, retryable: fails.retryable });
        }
        self.world.did(&cx.step, self.part);
        Ok(self.outputs.clone())
    }

    async fn probe(&self, cx: &Context, _: &Json) -> Finding {
        match (self.probes, self.world.holds(&cx.step)) {
            (false, _) => Finding::Unknown,
            (true, true) => Finding::Done(self.outputs.clone()),
            (true, false) => Finding::NotDone,
        }
    }

    async fn undo(&self, cx: &Context, _: &Json) -> Result<(), Failure> {
        self.world.did(&cx.step, Part::Undo);
        Ok(())
    }
}

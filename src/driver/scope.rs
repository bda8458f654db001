//! What templates and expressions of a step see. Only the steps that are named are put in, so that the cost of a step
//! does not grow with the run.

use std::collections::BTreeSet;

use secrecy::ExposeSecret;
use serde_json::{Map, Value as Json, json};

use crate::action::Failure;
use crate::action::fences::Fences;
use crate::action::secrets::Secrets;
use crate::event::Outputs;
use crate::ids::StepId;
use crate::plan::{Plan, PlanStep};
use crate::scheduler::{State, StepState, StepView};
use crate::site::SecretSource;
use crate::spec::reference::{Reference, template_references};
use crate::spec::runbook::{ParamType, Undo};
use crate::spec::values::wipe;
use crate::spec::yaml::{Node, Value};

/// Facts about the run itself.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// Its id.
    pub id: String,
    /// Who started it.
    pub starter: String,
    /// When, RFC 3339.
    pub started_at: String,
}

/// A scope with secrets and the same with `***` in their place.
pub struct Scope {
    /// For running.
    pub full: Json,
    /// For the journal.
    pub masked: Json,
}

impl Drop for Scope {
    fn drop(&mut self) {
        wipe(&mut self.full);
    }
}

/// Outputs of `id` that other steps name.
pub fn used_outputs(plan: &Plan, id: &StepId) -> BTreeSet<String> {
    let (declared, key) = match id.as_str().split_once('[') {
        Some((declared, key)) => (declared, key.strip_suffix(']')),
        None => (id.as_str(), None),
    };
    let named = |reference: Reference| {
        let mut path = reference.path.into_iter();
        let of_step = path.next()? == "steps" && path.next()? == declared && path.next()? == "outputs";
        let of_item = key.is_none_or(|key| path.next().is_some_and(|part| part == key));
        if of_step && of_item { path.next() } else { None }
    };
    let others = plan.steps.iter().filter(|step| step.id != *id);
    others.flat_map(|step| references(step).into_iter().filter_map(named).collect::<Vec<_>>()).collect()
}

/// Every name that the step uses anywhere.
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

/// A scope before secrets are put in; gathered without waiting, so that the state need not be copied.
pub struct Gathered {
    scope: Json,
    references: Vec<Reference>,
    /// What stands in the journal for `lock`, if it is used.
    masked_lock: Option<Json>,
}

/// What the step sees, but for secrets.
pub fn gather(plan: &Plan, state: &State, step: &PlanStep, facts: &RunFacts, fences: &Fences) -> Gathered {
    let references = references(step);
    let used = |root: &str| references.iter().any(|reference| reference.path[0] == root);
    let mut scope = Map::new();
    if used("params") {
        scope.insert("params".to_owned(), json!(plan.params));
    }
    if used("site") {
        scope.insert("site".to_owned(), plan.site.site.scope());
    }
    if used("run") {
        scope.insert("run".to_owned(), run_facts(plan, state, facts));
    }
    if used("steps") {
        scope.insert("steps".to_owned(), steps(plan, state, &references));
    }
    if let Some(item) = &step.item {
        scope.insert("item".to_owned(), item.as_ref().clone());
    }
    let masked_lock = used("lock").then(|| fences.masked_scope());
    if masked_lock.is_some() {
        scope.insert("lock".to_owned(), fences.scope());
    }
    Gathered { scope: Json::Object(scope), references, masked_lock }
}

impl Gathered {
    /// A name that only a run can give a value to: an output, a fact of the run, a secret.
    pub fn unknown_before_a_run(&self) -> Option<String> {
        let unknown = |reference: &&Reference| match reference.path[0].as_str() {
            "steps" | "secrets" | "lock" => true,
            "run" => matches!(reference.path.get(1).map(String::as_str), Some("id" | "started_at" | "outcome")),
            _ => false,
        };
        self.references.iter().find(unknown).map(|reference| reference.path.join("."))
    }

    /// The scope with `***` for every secret, as the journal keeps inputs.
    pub fn masked(self, plan: &Plan) -> Json {
        let Self { mut scope, references, masked_lock } = self;
        if let Some(lock) = masked_lock {
            scope["lock"] = lock;
        }
        for name in names(&references, "secrets") {
            scope["secrets"][&name] = "***".into();
        }
        for name in secret_params(plan, &references) {
            scope["params"][&name] = "***".into();
        }
        scope
    }

    /// The scope with secrets.
    pub async fn with_secrets(self, plan: &Plan, secrets_of_run: &Secrets) -> Result<Scope, Failure> {
        let Self { mut scope, references, masked_lock } = self;
        let mut masked = scope.clone();
        if let Some(lock) = masked_lock {
            masked["lock"] = lock;
        }
        let mut secrets = Map::new();
        for name in names(&references, "secrets") {
            let source = plan.site.site.secrets.get(&name);
            let source = source.ok_or_else(|| Failure::permanent(format!("the site has no secret `{name}`")))?;
            let value = secrets_of_run.fetch(&name, source, &plan.site.base).await?;
            masked["secrets"][&name] = "***".into();
            secrets.insert(name, value.expose_secret().into());
        }
        scope["secrets"] = Json::Object(secrets);
        for name in secret_params(plan, &references) {
            let reference = plan.params.get(&name).and_then(Json::as_str).unwrap_or_default();
            let Some(source) = SecretSource::from_reference(reference) else { continue };
            let value = secrets_of_run.fetch(&format!("params.{name}"), &source, &plan.site.base).await?;
            scope["params"][&name] = value.expose_secret().into();
            masked["params"][&name] = "***".into();
        }
        Ok(Scope { full: scope, masked })
    }
}

fn run_facts(plan: &Plan, state: &State, facts: &RunFacts) -> Json {
    let outcome = serde_json::to_value(state.outcome_so_far()).unwrap_or_default();
    json!({
        "id": facts.id, "starter": facts.starter, "started_at": facts.started_at,
        "runbook": plan.name, "version": plan.version, "outcome": outcome,
    })
}

/// The second part of every reference that begins with `root`.
fn names(references: &[Reference], root: &str) -> BTreeSet<String> {
    references.iter().filter(|r| r.path[0] == root).filter_map(|r| r.path.get(1).cloned()).collect()
}

fn secret_params(plan: &Plan, references: &[Reference]) -> BTreeSet<String> {
    let mut names = names(references, "params");
    names.retain(|name| plan.param_types.get(name) == Some(&ParamType::Secret));
    names
}

/// Outputs and states of the named steps; of a `foreach`, outputs by key.
fn steps(plan: &Plan, state: &State, references: &[Reference]) -> Json {
    let mut steps = Map::new();
    for id in names(references, "steps") {
        let items = plan.instances(&id);
        let value = match items.as_slice() {
            [only] if only.item.is_none() => one_step(state, only),
            items => {
                let outputs: Map<String, Json> = items
                    .iter()
                    .filter_map(|step| {
                        let key = step.id.as_str().split_once('[')?.1.strip_suffix(']')?;
                        Some((key.to_owned(), one_step(state, step)["outputs"].clone()))
                    })
                    .collect();
                json!({ "outputs": outputs })
            }
        };
        steps.insert(id, value);
    }
    Json::Object(steps)
}

fn one_step(state: &State, step: &PlanStep) -> Json {
    let view = state.step(&step.id);
    let outputs = view.as_ref().map(StepView::outputs).unwrap_or_default();
    let state = view.map_or(StepState::Pending, |view| view.state());
    json!({ "outputs": outputs, "state": state })
}

/// The author's own outputs of a step, computed from the action's.
pub fn named_outputs(step: &PlanStep, scope: &Json, mut outputs: Outputs) -> Result<Outputs, Failure> {
    if step.outputs.is_empty() {
        return Ok(outputs);
    }
    let mut full = scope.clone();
    full["outputs"] = json!(outputs);
    let scope = Scope { full, masked: Json::Null };
    for (name, rule) in &step.outputs {
        let value = rule.evaluate(&scope.full);
        let value = value.map_err(|error| Failure::unknown(format!("output `{name}` (`{}`): {error}", rule.text)))?;
        outputs.insert(name.clone(), value);
    }
    Ok(outputs)
}

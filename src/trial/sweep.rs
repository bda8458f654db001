//! Every scenario that a runbook alone tells: each step fails, each append is the last one of a driver, each idempotent
//! step is repeated.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;

use super::{Lived, Scenario, live};
use crate::action::build::Part;
use crate::event::Effect;
use crate::fault::{Fault, Script, Set, Trigger};
use crate::ids::StepId;
use crate::plan::Plan;
use crate::scheduler::StepState;
use crate::spec::case::Mock;
use crate::spec::runbook::Idempotent;

/// Scenarios that are lived through at the same time.
const AT_ONCE: usize = 4;

/// Rules for steps, by their ids.
pub type Rules = std::collections::BTreeMap<String, Mock>;

/// All scenarios of a sweep and what of the runbook they went through.
#[derive(Debug)]
pub struct Swept {
    /// Nothing goes wrong.
    pub calm: Lived,
    /// The others, in the order in which they were made.
    pub scenarios: Vec<Lived>,
    /// What no scenario went through, in words.
    pub never: Vec<String>,
    /// How many things could be gone through.
    pub edges: usize,
}

impl Swept {
    /// Scenarios in which a rule of the engine did not hold.
    pub fn broken(&self) -> impl Iterator<Item = &Lived> {
        std::iter::once(&self.calm).chain(&self.scenarios).filter(|lived| !lived.broken.is_empty())
    }
}

/// Lives through every scenario of a plan; `rules` say what steps answer where what is made up does not do.
pub async fn sweep(plan: &Plan, rules: &Rules) -> Swept {
    let calm = Scenario { name: "nothing goes wrong".into(), rules: rules.clone(), ..Scenario::default() };
    let calm = live(plan, calm).await;
    let mut wanted = failures(plan, &calm, rules);
    wanted.extend(crashes(&calm, rules));
    wanted.extend(repeats(plan, &calm, rules));
    let lives = wanted.into_iter().map(|scenario| {
        let plan = plan.clone();
        async move {
            let name = scenario.name.clone();
            let broke = |error| Lived { name, broken: vec![format!("the test broke: {error}")], ..Lived::default() };
            tokio::spawn(async move { live(&plan, scenario).await }).await.unwrap_or_else(broke)
        }
    });
    let scenarios: Vec<Lived> = futures_util::stream::iter(lives).buffered(AT_ONCE).collect().await;
    let (edges, never) = coverage(plan, &calm, &scenarios);
    Swept { calm, scenarios, never, edges }
}

fn scenario(name: String, rules: &Rules, at: Trigger, fault: Fault) -> Scenario {
    Scenario { name, rules: rules.clone(), faults: Script::new([Set { at, fault }]), repeats: None }
}

/// Steps that acted when nothing went wrong, in the order of the file.
fn acted<'p>(plan: &'p Plan, calm: &'p Lived) -> impl Iterator<Item = &'p StepId> {
    let ran = |id: &StepId| matches!(calm.states.get(id), Some(StepState::Succeeded | StepState::Failed));
    let of_people = |step: &crate::plan::PlanStep| step.action.kind.is_wait_for_people();
    plan.steps.iter().filter(move |step| ran(&step.id) && !of_people(step)).map(|step| &step.id)
}

/// Each step fails: once before it changed anything, once behind its change, and for good.
fn failures(plan: &Plan, calm: &Lived, rules: &Rules) -> Vec<Scenario> {
    let mut out = Vec::new();
    for id in acted(plan, calm) {
        let fail = |effect, retryable| Fault::Fail { effect, retryable };
        let first = |before: bool| {
            let (step, part) = (id.clone(), Part::Action);
            if before { Trigger::BeforeAct(step, Some(1), part) } else { Trigger::AfterAct(step, Some(1), part) }
        };
        let none = fail(Effect::None, true);
        out.push(scenario(format!("`{id}` fails once and changed nothing"), rules, first(true), none));
        let unknown = fail(Effect::Unknown, true);
        out.push(scenario(format!("`{id}` fails once behind its change"), rules, first(false), unknown));
        let always = Trigger::AfterAct(id.clone(), None, Part::Action);
        let name = format!("`{id}` fails for good, its effect unknown");
        out.push(scenario(name, rules, always, fail(Effect::Unknown, false)));
    }
    for step in plan.steps.iter().filter(|step| step.action.kind.is_wait_for_people()) {
        let mut rules = rules.clone();
        if let Some(rule) = rules.get_mut(step.id.as_str()) {
            rule.answer = crate::spec::case::AnswerWord::Reject;
        } else {
            rules.insert(step.id.to_string(), Mock::rejecting());
        }
        out.push(Scenario { name: format!("`{}` is refused", step.id), rules, ..Scenario::default() });
    }
    out
}

/// The driver dies before and after each append, and is resumed.
fn crashes(calm: &Lived, rules: &Rules) -> Vec<Scenario> {
    let both = |number| {
        [
            scenario(format!("a crash before append {number}"), rules, Trigger::BeforeAppend(number), Fault::Crash),
            scenario(format!("a crash after append {number}"), rules, Trigger::AfterAppend(number), Fault::Crash),
        ]
    };
    (1..=calm.appends).flat_map(both).collect()
}

/// Each step that says it may run again does.
fn repeats(plan: &Plan, calm: &Lived, rules: &Rules) -> Vec<Scenario> {
    let may = |id: &&StepId| plan.step(id).is_some_and(|step| step.idempotent != Idempotent::No);
    let one = |id: &StepId| {
        let at = Trigger::BeforeAct(id.clone(), Some(1), Part::Action);
        let twice = scenario(format!("`{id}` acts twice"), rules, at, Fault::Repeat);
        Scenario { repeats: Some(id.clone()), ..twice }
    };
    acted(plan, calm).filter(may).map(one).collect()
}

/// How many branches there are, and those that no scenario took.
fn coverage(plan: &Plan, calm: &Lived, scenarios: &[Lived]) -> (usize, Vec<String>) {
    let all = || std::iter::once(calm).chain(scenarios);
    let (mut edges, mut never) = (0, Vec::new());
    let mut edge = |taken: bool, words: String| {
        edges += 1;
        if !taken {
            never.push(words);
        }
    };
    let ended = |id: &StepId, wanted: StepState| all().any(|lived| lived.states.get(id) == Some(&wanted));
    let mut undone: BTreeSet<&StepId> = BTreeSet::new();
    undone.extend(all().flat_map(|lived| &lived.undone));
    for step in &plan.steps {
        let id = &step.id;
        edge(ended(id, StepState::Succeeded) || undone.contains(id), format!("`{id}` never succeeded"));
        if step.when.is_some() {
            let skipped = all().any(|lived| lived.when_false.contains(id));
            edge(skipped, format!("the `when` of `{id}` was never false"));
        }
        if step.undo.is_some() {
            edge(undone.contains(id), format!("`{id}` was never undone"));
        }
        let failed = all().any(|lived| lived.errors.contains_key(id));
        edge(failed, format!("`{id}` never failed"));
    }
    (edges, never)
}

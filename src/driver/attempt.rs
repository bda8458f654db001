//! One attempt: its arguments, the look before, the work, the postcondition, within its time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::limit::Limit;
use super::scope::{self, Scope};
use super::turn::Planned;
use crate::action::build::{self, Part};
use crate::action::material;
use crate::action::said::Said;
use crate::action::{Action, Context, Failure};
use crate::event::{Finding, Outputs};
use crate::plan::{Plan, PlanStep, render_action};
use crate::scheduler::StepView;
use crate::spec::actions::ActionSpec;
use crate::spec::runbook::Undo;

/// Most bytes that the outputs of an attempt may have together, as JSON: they are values in an event, and everyone who
/// reads the run reads them.
const OUTPUTS_MAX: usize = 256 * 1024;

/// An attempt that is ready to be recorded and run.
pub struct Prepared {
    /// The action with its arguments.
    pub action: Box<dyn Action>,
    /// What the journal keeps of the arguments.
    pub input: Json,
    /// What the action saw before the first change.
    pub before: Json,
    /// What templates see.
    pub scope: Scope,
}

/// What came out of preparing a step.
pub enum Ready {
    /// Its condition is false.
    Skip,
    /// It can start.
    Go(Box<Prepared>),
    /// It cannot; nothing was changed.
    Fail(Failure),
}

/// What an attempt has to know of those before it.
#[derive(Default)]
pub struct Earlier {
    /// What the first of them saw, if anything of it may still be there.
    pub before: Option<Json>,
    /// Whether a person undid them, so that the action has yet to take note.
    pub undone_by_hand: bool,
}

impl Earlier {
    /// Of this step.
    pub fn of(view: Option<StepView<'_>>) -> Self {
        Self {
            before: view.and_then(|view| view.before()),
            undone_by_hand: view.is_some_and(|view| view.undone_by_hand()),
        }
    }
}

/// The action of `spec`, rendered.
pub fn make(
    plan: &Plan,
    spec: &ActionSpec,
    scope: &Scope,
    cx: &Context,
    part: Part,
) -> Result<(Box<dyn Action>, Json), Failure> {
    let rendered = render_action(spec, &plan.source, &scope.full, &scope.masked)
        .map_err(|error| Failure::permanent(error.to_string()))?;
    Ok((build::action_for(cx.swap.as_ref(), cx, part, rendered.args), rendered.input))
}

/// Evaluates the condition, renders the arguments and lets the action look at the world.
pub async fn prepare(
    plan: &Plan,
    step: &PlanStep,
    cx: &Context,
    scope: Scope,
    check_when: bool,
    earlier: Earlier,
) -> Ready {
    if check_when && let Some(when) = &step.when {
        match when.evaluate(&scope.full) {
            Ok(Json::Bool(true)) => {}
            Ok(Json::Bool(false)) => return Ready::Skip,
            Ok(other) => {
                let error = format!("`when` yields `{other}`, not true or false: `{}`", when.text);
                return Ready::Fail(Failure::permanent(error));
            }
            Err(error) => return Ready::Fail(Failure::permanent(format!("`when` (`{}`): {error}", when.text))),
        }
    }
    let made = material::unchanged(plan, step, cx).and_then(|()| make(plan, &step.action, &scope, cx, Part::Action));
    let (action, input) = match made {
        Ok(made) => made,
        Err(failure) => return Ready::Fail(failure),
    };
    // Safe to repeat: it counts as told only once the start of an attempt that got ready is on record.
    if earlier.undone_by_hand
        && let Err(failure) = action.undone(cx).await
    {
        return Ready::Fail(failure);
    }
    let before = match earlier.before.filter(|before| !before.is_null()) {
        Some(before) => before,
        None => match action.before(cx).await {
            Ok(before) => before,
            Err(failure) => return Ready::Fail(failure),
        },
    };
    Ready::Go(Box::new(Prepared { action, input, before, scope }))
}

/// Does the work of a prepared attempt and checks its postcondition.
pub async fn run(
    plan: Arc<Plan>,
    step: Planned,
    cx: Context,
    prepared: Prepared,
    limit: Limit,
) -> Result<Outputs, Failure> {
    let work = async {
        let outputs = prepared.action.run(&cx, &prepared.before).await?;
        complete(&plan, &step, &cx, &prepared.scope, outputs).await
    };
    limit.within(Duration::ZERO, &cx, work).await
}

/// Goes on with an attempt that an earlier driver started; its time counts from `since`.
pub async fn take_up(
    plan: Arc<Plan>,
    step: Planned,
    cx: Context,
    scope: Scope,
    before: Json,
    (since, limit): (Option<jiff::Timestamp>, Limit),
) -> Result<Outputs, Failure> {
    let spent = since.map_or(0, |since| crate::config::now().as_millisecond() - since.as_millisecond());
    let spent = Duration::from_millis(u64::try_from(spent).unwrap_or(0));
    let work = async {
        let (action, _) = make(&plan, &step.action, &scope, &cx, Part::Action)?;
        let outputs = action.take_up(&cx, &before).await?;
        complete(&plan, &step, &cx, &scope, outputs).await
    };
    limit.within(spent, &cx, work).await
}

/// The step's own outputs, once its postcondition holds.
async fn complete(
    plan: &Plan,
    step: &PlanStep,
    cx: &Context,
    scope: &Scope,
    outputs: Outputs,
) -> Result<Outputs, Failure> {
    let outputs = scope::named_outputs(step, &scope.full, outputs)?;
    check_size(&outputs)?;
    if let Some(verify) = &step.verify {
        self::verify(plan, verify, cx, scope, &outputs).await?;
    }
    Ok(outputs)
}

/// Refuses outputs that are no values any more; trying again would not make them smaller.
fn check_size(outputs: &Outputs) -> Result<(), Failure> {
    let sizes = outputs.iter().map(|(name, value)| (name.len() + value.to_string().len(), name));
    let (total, largest) = sizes.fold((0, (0, "")), |(total, largest), (size, name)| {
        (total + size, if size > largest.0 { (size, name.as_str()) } else { largest })
    });
    if total <= OUTPUTS_MAX {
        return Ok(());
    }
    let (size, name) = largest;
    let error = format!(
        "it did its work, but its outputs have {total} bytes as JSON (`{name}` {size} of them), more than {OUTPUTS_MAX}; \
         put long results into a file and give its path"
    );
    Err(Failure { retryable: false, ..Failure::unknown(error) })
}

async fn verify(plan: &Plan, spec: &ActionSpec, cx: &Context, scope: &Scope, outputs: &Outputs) -> Result<(), Failure> {
    let with_outputs = |scope: &Json| {
        let mut scope = scope.clone();
        scope["outputs"] = json!(outputs);
        scope
    };
    let scope = Scope { full: with_outputs(&scope.full), masked: with_outputs(&scope.masked) };
    let wrong = |failure: Failure| Failure::unknown(format!("verify `{}`: {}", spec.kind.key(), failure.error));
    let (action, _) = make(plan, spec, &scope, cx, Part::Verify).map_err(wrong)?;
    // What is recorded of the attempt is what its action said.
    let cx = &Context { held: None, said: Said::default(), ..cx.clone() };
    let before = action.before(cx).await.map_err(wrong)?;
    action.run(cx, &before).await.map(|_| ()).map_err(wrong)
}

/// Looks up what became of an attempt in doubt. Work that was done counts only once its postcondition holds as well.
pub async fn probe(plan: &Plan, step: &PlanStep, cx: &Context, scope: Scope, before: &Json) -> Finding {
    let Ok((action, _)) = make(plan, &step.action, &scope, cx, Part::Action) else { return Finding::Unknown };
    let outputs = match action.probe(cx, before).await {
        Finding::Done(outputs) => outputs,
        other @ (Finding::NotDone | Finding::Unknown) => return other,
    };
    let Ok(outputs) = scope::named_outputs(step, &scope.full, outputs) else { return Finding::Unknown };
    if check_size(&outputs).is_err() {
        return Finding::Unknown;
    }
    match &step.verify {
        Some(verify) if self::verify(plan, verify, cx, &scope, &outputs).await.is_err() => Finding::Unknown,
        Some(_) | None => Finding::Done(outputs),
    }
}

/// Goes back to where the step began.
pub async fn undo(
    plan: Arc<Plan>,
    step: Planned,
    cx: Context,
    (scope, before): (Scope, Json),
    limit: Limit,
) -> Result<(), Failure> {
    let work = async {
        match step.undo.as_deref() {
            // Nobody looked: the step never started, a person declared it done.
            Some(Undo::Auto(_)) if before.is_null() => {
                let why = "what was there before this step is not known, so it cannot be put back; undo it by hand";
                Err(Failure::permanent(why))
            }
            Some(Undo::Auto(_)) => make(&plan, &step.action, &scope, &cx, Part::Action)?.0.undo(&cx, &before).await,
            Some(Undo::Action(spec)) => {
                let (undoing, _) = make(&plan, spec, &scope, &cx, Part::Undo)?;
                let before = undoing.before(&cx).await?;
                undoing.run(&cx, &before).await?;
                make(&plan, &step.action, &scope, &cx, Part::Action)?.0.undone(&cx).await
            }
            None => Ok(()),
        }
    };
    limit.within(Duration::ZERO, &cx, work).await
}

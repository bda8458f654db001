//! A plan as the scheduler's rules.

use std::sync::Arc;

use crate::event::WaitKind;
use crate::ids::{Actor, Level};
use crate::plan::{Plan, PlanStep, has_probe, only_looks};
use crate::scheduler::{
    DeviationRule, Escalation, FieldKind, FieldRule, Idempotent, Need, NeedOutcome, OnFailure, Phase, Retry, RunRule,
    SignRule, StepRule, WaitRule, Workflow, WorkflowError,
};
use crate::site::Site;
use crate::spec::actions::{
    ActionKind, ActionSpec, Approval, Escalate, Evidence, FieldType, FormField, Manual, Require,
};
use crate::spec::decode::{Decode, Decoder};
use crate::spec::deviations::Deviations;
use crate::spec::runbook;
use crate::spec::values::Millis;
use crate::spec::yaml::Value;

/// The rules of a plan; `starter` is who `run.starter` stands for.
pub fn of_plan(plan: &Plan, starter: &Actor) -> Result<Workflow, WorkflowError> {
    let deviations = plan.deviations.as_ref().map(|rule| Arc::new(deviation_rule(plan, rule, starter)));
    let steps = plan.steps.iter().map(|step| {
        let own = step.deviations.as_deref().map(|rule| Arc::new(deviation_rule(plan, rule, starter)));
        StepRule { deviations: own.or_else(|| deviations.clone()), ..rule(plan, step, starter) }
    });
    let run = RunRule { deviations: deviations.clone(), ..run_rule(plan) };
    Workflow::new(steps.collect(), run)
}

/// Who must have signed the runbooks that run on a site.
pub fn sign_rule(site: &Site) -> Option<SignRule> {
    let rule = site.runbooks.as_ref()?.signed.as_ref()?;
    let allowed = site.may_sign_runbooks().map(|people| people.into_iter().collect());
    Some(SignRule { quorum: rule.quorum.max(1), allowed })
}

/// The rules of a plan that hold for the run as a whole, but for those about deviations, which need to know who started it.
pub fn run_rule(plan: &Plan) -> RunRule {
    let budget = |window: &runbook::Window| Some((window.name.clone(), whole(window.budget?)));
    RunRule {
        parallel_max: plan.limits.parallel.max(1),
        locks: plan.locks.clone(),
        timeout_ms: plan.limits.timeout.map(whole),
        on_failure: on_failure(plan.on_failure),
        milestones: plan.achieves.clone(),
        revokes: plan.revokes.clone(),
        identity: level(plan.site.site.required()),
        signed: sign_rule(&plan.site.site),
        deviations: None,
        windows: plan.windows.iter().filter_map(budget).collect(),
    }
}

fn rule(plan: &Plan, step: &PlanStep, starter: &Actor) -> StepRule {
    let needs = step.needs.iter().map(|(need, outcome)| Need { step: need.clone(), outcome: need_outcome(*outcome) });
    StepRule {
        needs: needs.collect(),
        has_when: step.when.is_some(),
        wait: wait_rule(plan, &step.action, starter),
        retry: step.retry.as_deref().map_or(Retry::NEVER, retry),
        timeout_ms: step.timeout.map(whole),
        idempotent: match step.idempotent {
            runbook::Idempotent::Yes => Idempotent::Yes,
            runbook::Idempotent::No => Idempotent::No,
            runbook::Idempotent::Resumable => Idempotent::Resumable,
        },
        has_probe: has_probe(step.action.kind),
        has_undo: step.undo.is_some(),
        undo_wait: match step.undo.as_deref() {
            Some(runbook::Undo::Action(undo)) => wait_rule(plan, undo, starter),
            Some(runbook::Undo::Auto(_)) | None => None,
        },
        only_looks: only_looks(step.action.kind),
        on_failure: on_failure(step.on_failure),
        optional: step.optional.is_some(),
        point_of_no_return: step.point_of_no_return.is_some(),
        locks: step.locks.clone(),
        phase: match step.phase {
            _ if step.is_finally => Phase::Finally,
            runbook::Phase::Preflight => Phase::Preflight,
            runbook::Phase::Main => Phase::Main,
        },
        ..StepRule::new(step.id.clone())
    }
}

fn level(require: Require) -> Level {
    match require {
        Require::Claimed => Level::Claimed,
        Require::Local => Level::Local,
        Require::Ssh => Level::Ssh,
    }
}

fn whole(millis: Millis) -> i64 {
    i64::try_from(millis.0).unwrap_or(i64::MAX)
}

fn need_outcome(outcome: Option<runbook::NeedOutcome>) -> NeedOutcome {
    match outcome {
        None => NeedOutcome::Done,
        Some(runbook::NeedOutcome::Succeeded) => NeedOutcome::Succeeded,
        Some(runbook::NeedOutcome::Failed) => NeedOutcome::Failed,
        Some(runbook::NeedOutcome::Skipped) => NeedOutcome::Skipped,
        Some(runbook::NeedOutcome::Any) => NeedOutcome::Any,
    }
}

fn on_failure(rule: runbook::OnFailure) -> OnFailure {
    match rule {
        runbook::OnFailure::Rollback => OnFailure::Rollback,
        runbook::OnFailure::Stop => OnFailure::Stop,
        runbook::OnFailure::Continue => OnFailure::Continue,
    }
}

fn retry(retry: &runbook::Retry) -> Retry {
    Retry {
        attempts_max: retry.attempts.max(1),
        initial_ms: whole(retry.backoff.initial),
        factor: retry.backoff.factor,
        max_ms: whole(retry.backoff.max),
    }
}

/// What every question says of the people that it is put to.
struct Common<'a> {
    groups: &'a [String],
    people: &'a [String],
    expires: Option<Millis>,
    escalate: Option<&'a Escalate>,
    remind: Option<Millis>,
    identity: Option<Require>,
}

impl<'a> From<&'a Approval> for Common<'a> {
    fn from(asks: &'a Approval) -> Self {
        let Approval { groups, people, expires, escalate, remind, identity, .. } = asks;
        let (expires, remind, identity) = (*expires, *remind, *identity);
        Self { groups, people, expires, escalate: escalate.as_ref(), remind, identity }
    }
}

impl<'a> From<&'a Manual> for Common<'a> {
    fn from(asks: &'a Manual) -> Self {
        let Manual { groups, people, expires, escalate, remind, identity, .. } = asks;
        let (expires, remind, identity) = (*expires, *remind, *identity);
        Self { groups, people, expires, escalate: escalate.as_ref(), remind, identity }
    }
}

/// Who may answer, how many must, until when. What cannot be read as a question lets nobody answer.
fn wait_rule(plan: &Plan, action: &ActionSpec, starter: &Actor) -> Option<Box<WaitRule>> {
    let site = &plan.site.site;
    let kind = match action.kind {
        ActionKind::Approval => WaitKind::Approval,
        ActionKind::Manual => WaitKind::Manual,
        _ => return None,
    };
    let base = WaitRule { identity: level(site.required()), ..WaitRule::new(kind) };
    let among = |groups: &[String], people: &[String]| {
        site.people_in(groups, people).map(|people| people.into_iter().collect::<Vec<_>>())
    };
    let more = |more: &Escalate| Escalation {
        allowed: among(&more.groups, &more.people),
        expires_ms: more.expires.map(whole),
    };
    let common = |asks: Common<'_>| WaitRule {
        allowed: among(asks.groups, asks.people),
        expires_ms: asks.expires.map(whole),
        identity: level(site.required()).max(asks.identity.map(level).unwrap_or_default()),
        escalation: asks.escalate.map(more),
        remind_ms: asks.remind.map(whole),
        tells: action.args.get("notify").is_some() || site.notify.is_some(),
        ..WaitRule::new(kind)
    };
    let rule = match kind {
        WaitKind::Approval => question::<Approval>(plan, action).map(|asks| WaitRule {
            quorum: asks.quorum.max(1),
            exclude: people(plan, &asks.exclude, starter),
            ..common(Common::from(&asks))
        }),
        WaitKind::Manual => question::<Manual>(plan, action).map(|asks| WaitRule {
            assignee: asks.assignee.as_ref().map(|name| match name.as_str() {
                "run.starter" => Actor::new(starter.as_str()),
                name => Actor::new(name),
            }),
            form: asks.form.iter().map(|(name, field)| field_rule(name, field)).collect(),
            wants_evidence: asks.evidence == Evidence::Required,
            ..common(Common::from(&asks))
        }),
    };
    Some(Box::new(rule.unwrap_or(WaitRule { allowed: Some(Vec::new()), ..base })))
}

fn field_rule(name: &str, field: &FormField) -> FieldRule {
    FieldRule {
        name: name.to_owned(),
        kind: match field.r#type {
            FieldType::String => FieldKind::Text,
            FieldType::Integer => FieldKind::Integer,
            FieldType::Number => FieldKind::Number,
            FieldType::Boolean => FieldKind::Boolean,
            FieldType::Enum => FieldKind::Enum,
            FieldType::Date => FieldKind::Date,
            FieldType::Time => FieldKind::Time,
        },
        optional: field.optional,
        minimum: field.minimum,
        maximum: field.maximum,
        values: field.values.clone(),
        description: field.description.clone(),
    }
}

/// The arguments of a question; templates in its texts are left as they are.
fn question<T: Decode>(plan: &Plan, action: &ActionSpec) -> Option<T> {
    let mut decoder = Decoder::new(Arc::clone(&plan.source));
    let mut args = action.args.clone();
    if let Value::Map(pairs) = &mut args.value {
        // How people are told may be known only when they are.
        pairs.retain(|(key, _)| key.text != "notify");
    }
    T::decode(&args, &mut decoder).filter(|_| decoder.problems.is_empty())
}

/// People by name, with the words for some of them. Whoever started the run under another name is the starter by the name
/// of the account as well.
fn people(plan: &Plan, names: &[String], starter: &Actor) -> Vec<Actor> {
    let one = |name: &String| match name.as_str() {
        "run.starter" => starter.names(),
        "runbook.author" => plan.authors.clone(),
        _ => vec![Actor::new(name)],
    };
    names.iter().flat_map(one).collect()
}

fn deviation_rule(plan: &Plan, rule: &Deviations, starter: &Actor) -> DeviationRule {
    let site = &plan.site.site;
    DeviationRule {
        quorum: rule.quorum.max(1),
        exclude: people(plan, &rule.exclude, starter),
        allowed: site.people_in(&rule.groups, &rule.people).map(|people| people.into_iter().collect()),
        expires_ms: rule.expires.map(whole),
        identity: level(site.required()).max(rule.identity.map(level).unwrap_or_default()),
    }
}

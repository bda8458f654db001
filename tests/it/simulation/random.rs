//! Random workflows: small, and with every feature.

use fastrand::Rng;
use piton::event::WaitKind;
use piton::ids::Actor;
use piton::scheduler::{Idempotent, Need, NeedOutcome, OnFailure, Phase, Retry, RunRule, StepRule, WaitRule, Workflow};

pub(super) fn chance(rng: &mut Rng, percent: u32) -> bool {
    rng.u32(0..100) < percent
}

/// The people of every simulated place.
pub(super) fn person(number: usize) -> Actor {
    Actor::new(format!("local:p{number}"))
}

pub(super) const PEOPLE: usize = 5;

fn phase(rng: &mut Rng) -> Phase {
    match rng.u32(0..10) {
        0 => Phase::Preflight,
        1 => Phase::Finally,
        _ => Phase::Main,
    }
}

fn on_failure(rng: &mut Rng) -> OnFailure {
    match rng.u32(0..5) {
        0 => OnFailure::Continue,
        1 | 2 => OnFailure::Stop,
        _ => OnFailure::Rollback,
    }
}

fn need(rng: &mut Rng, step: &StepRule) -> Need {
    let outcome = match rng.u32(0..12) {
        0 => NeedOutcome::Failed,
        1 => NeedOutcome::Skipped,
        2 => NeedOutcome::Any,
        3 => NeedOutcome::Succeeded,
        _ => NeedOutcome::Done,
    };
    Need { step: step.id.clone(), outcome }
}

fn wait(rng: &mut Rng) -> WaitRule {
    let quorum = rng.u32(1..=3);
    WaitRule {
        kind: if chance(rng, 70) { WaitKind::Approval } else { WaitKind::Manual },
        quorum,
        exclude: if chance(rng, 40) { vec![person(0)] } else { vec![] },
        allowed: chance(rng, 40).then(|| (0..=3).map(person).collect()),
        expires_ms: chance(rng, 30).then(|| rng.i64(1..50_000)),
    }
}

fn step(rng: &mut Rng, number: usize, phase: Phase, earlier: &[StepRule]) -> StepRule {
    let mut rule = StepRule::new(format!("s{number}").as_str());
    rule.phase = phase;
    let candidates: Vec<&StepRule> = earlier.iter().filter(|step| step.phase <= phase).collect();
    if !candidates.is_empty() {
        for _ in 0..rng.usize(0..=2) {
            let on = candidates[rng.usize(0..candidates.len())];
            if rule.needs.iter().all(|need| need.step != on.id) {
                rule.needs.push(need(rng, on));
            }
        }
    }
    rule.has_when = chance(rng, 15);
    if chance(rng, 12) {
        rule.wait = Some(wait(rng));
    } else {
        rule.retry = Retry { attempts_max: rng.u32(1..=3), initial_ms: rng.i64(0..20), factor: 2.0, max_ms: 30 };
        rule.has_probe = chance(rng, 40);
        rule.has_undo = chance(rng, 55);
        rule.point_of_no_return = chance(rng, 8);
        if chance(rng, 25) {
            rule.locks.push(["north/db", "north/app"][rng.usize(0..2)].into());
        }
        if chance(rng, 8) {
            rule.locks = vec!["north/db".into(), "north/app".into()];
        }
    }
    rule.idempotent = [Idempotent::Yes, Idempotent::No, Idempotent::No, Idempotent::Resumable][rng.usize(0..4)];
    rule.on_failure = on_failure(rng);
    rule.optional = chance(rng, 15);
    rule
}

/// One to twelve steps, most often about five.
pub(super) fn workflow(rng: &mut Rng) -> Workflow {
    let count = rng.usize(1..=6) + if chance(rng, 15) { rng.usize(0..=6) } else { 0 };
    let mut steps: Vec<StepRule> = Vec::with_capacity(count);
    for number in 0..count {
        let phase = phase(rng);
        let rule = step(rng, number, phase, &steps);
        steps.push(rule);
    }
    let run = RunRule {
        parallel_max: rng.u32(1..=3),
        locks: vec![],
        timeout_ms: chance(rng, 12).then(|| rng.i64(10..3_000)),
        on_failure: on_failure(rng),
        milestones: vec!["north/moved".into()],
    };
    Workflow::new(steps, run).expect("needs only point to earlier steps of the same or an earlier phase")
}

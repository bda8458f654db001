//! Random workflows: small, and with every feature.

use fastrand::Rng;
use piton::event::{Change, Choice, FileSigner, Signed, SignedFiles, StepAmended, WaitKind};
use piton::ids::{Account, Actor, How, StepId};
use piton::scheduler::{
    Idempotent, Need, NeedOutcome, OnFailure, Phase, Retry, RunRule, SignRule, StepRule, WaitRule, Workflow,
};

pub(super) fn chance(rng: &mut Rng, percent: u32) -> bool {
    rng.u32(0..100) < percent
}

/// The people of every simulated place.
pub(super) fn person(number: usize) -> Actor {
    let name = format!("local:p{number}");
    let account = Account { user: name.clone(), uid: 0, host: "h".into() };
    Actor::identified(name, How::Local(account))
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

fn idempotent(rng: &mut Rng) -> Idempotent {
    [Idempotent::Yes, Idempotent::No, Idempotent::No, Idempotent::Resumable][rng.usize(0..4)]
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
        ..WaitRule::new(WaitKind::Approval)
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
        rule.wait = Some(Box::new(wait(rng)));
    } else {
        rule.retry = Retry { attempts_max: rng.u32(1..=3), initial_ms: rng.i64(0..20), factor: 2.0, max_ms: 30 };
        rule.has_probe = chance(rng, 40);
        rule.has_undo = chance(rng, 55);
        rule.point_of_no_return = chance(rng, 8);
        if chance(rng, 25) {
            rule.locks = [["north/db", "north/app"][rng.usize(0..2)].into()].into();
        }
        if chance(rng, 8) {
            rule.locks = ["north/db".into(), "north/app".into()].into();
        }
    }
    rule.idempotent = idempotent(rng);
    rule.on_failure = on_failure(rng);
    rule.optional = chance(rng, 15);
    rule
}

/// Now and then, who must have signed the runbook.
pub(super) fn sign_rule(rng: &mut Rng) -> Option<SignRule> {
    let allowed = chance(rng, 50).then(|| (0..3).map(person).collect());
    chance(rng, 30).then(|| SignRule { quorum: rng.u32(1..=2), allowed })
}

/// Signatures of some people, now and then one of them twice.
fn files(rng: &mut Rng) -> Option<SignedFiles> {
    let people: Vec<Actor> = (0..rng.usize(0..4)).map(|_| person(rng.usize(0..PEOPLE))).collect();
    chance(rng, 80).then(|| signed_files(people))
}

fn signed_files(people: Vec<Actor>) -> SignedFiles {
    let signer = |name| FileSigner { name, key: String::new(), fingerprint: String::new(), signature: String::new() };
    SignedFiles {
        list: String::new(),
        entry: String::new(),
        by: people.into_iter().map(signer).collect(),
        trusted: Vec::new(),
    }
}

/// What people may have signed.
pub(super) fn signed(rng: &mut Rng) -> Option<Box<Signed>> {
    let (runbook, new_site, brings_site) = (files(rng), files(rng), chance(rng, 40));
    chance(rng, 85).then(|| Box::new(Signed { runbook, site: None, new_site, brings_site }))
}

/// What everybody signed.
pub(super) fn signed_by_all() -> Signed {
    let all = || Some(signed_files((0..PEOPLE).map(person).collect()));
    Signed { runbook: all(), site: None, new_site: all(), brings_site: false }
}

/// The same rules, now and then with another one about signatures.
pub(super) fn signed_otherwise(rng: &mut Rng, flow: &Workflow) -> Workflow {
    let rule = sign_rule(rng);
    let signed = if chance(rng, 30) { rule } else { flow.run().signed.clone() };
    let run = RunRule { signed, ..flow.run().clone() };
    Workflow::new(flow.steps().to_vec(), run).expect("the same steps")
}

/// One to twelve steps, most often about five.
pub(super) fn workflow(rng: &mut Rng, signed: Option<SignRule>) -> Workflow {
    let count = rng.usize(1..=6) + if chance(rng, 15) { rng.usize(0..=6) } else { 0 };
    let mut steps: Vec<StepRule> = Vec::with_capacity(count);
    for number in 0..count {
        let phase = phase(rng);
        let rule = step(rng, number, phase, &steps);
        steps.push(rule);
    }
    let run = RunRule {
        parallel_max: rng.u32(1..=3),
        locks: [].into(),
        timeout_ms: chance(rng, 12).then(|| rng.i64(10..3_000)),
        on_failure: on_failure(rng),
        milestones: vec!["north/moved".into()],
        revokes: vec!["north/old".into()],
        signed,
        ..RunRule::default()
    };
    Workflow::new(steps, run).expect("needs only point to earlier steps of the same or an earlier phase")
}

/// The same workflow as somebody might have edited it, with what that person says about each step.
pub(super) fn amended(rng: &mut Rng, flow: &Workflow, number: usize) -> (Workflow, Vec<StepAmended>) {
    let mut steps: Vec<StepRule> = Vec::new();
    let mut entries = Vec::new();
    let mut names: std::collections::BTreeMap<StepId, StepId> = std::collections::BTreeMap::new();
    for (place, old) in flow.steps().iter().filter(|rule| !rule.retired).enumerate() {
        let mut rule = old.clone();
        let choice = [None, None, Some(Choice::Keep), Some(Choice::Redo)][rng.usize(0..4)];
        match rng.u32(0..100) {
            0..10 => {
                entries.push(StepAmended { step: rule.id, change: Change::Removed, choice: None });
                continue;
            }
            10..18 => {
                rule.id = StepId::new(format!("r{number}n{place}"));
                let change = Change::Renamed { from: old.id.clone() };
                entries.push(StepAmended { step: rule.id.clone(), change, choice: None });
            }
            18..45 => {
                rule.has_undo = rule.wait.is_none() && chance(rng, 55);
                rule.point_of_no_return = rule.wait.is_none() && chance(rng, 8);
                if chance(rng, 20) {
                    rule.idempotent = idempotent(rng);
                }
                let change = if rng.bool() { Change::Changed } else { Change::Inputs };
                entries.push(StepAmended { step: rule.id.clone(), change, choice });
            }
            45..60 if choice.is_some() => {
                entries.push(StepAmended { step: rule.id.clone(), change: Change::Same, choice });
            }
            60..75 => {
                rule.idempotent = idempotent(rng);
                rule.on_failure = on_failure(rng);
                rule.retry.attempts_max = rng.u32(1..=3);
                rule.optional = chance(rng, 15);
                entries.push(StepAmended { step: rule.id.clone(), change: Change::Rules, choice: None });
            }
            75..82 => {
                rule.has_undo = rule.wait.is_none() && rng.bool();
                entries.push(StepAmended { step: rule.id.clone(), change: Change::Undo, choice: None });
            }
            _ => {}
        }
        rule.undo_wait = rule.undo_wait.filter(|_| rule.has_undo);
        // Without dice, so that a seed tells the story that it told before: what is undone by hand is not any more, or is now.
        let of_another = || flow.steps().iter().find_map(|other| other.undo_wait.clone());
        if rule.has_undo
            && entries.last().is_some_and(|entry| entry.step == rule.id)
            && (number + place).is_multiple_of(4)
        {
            rule.undo_wait = if rule.undo_wait.is_some() { None } else { of_another() };
        }
        names.insert(old.id.clone(), rule.id.clone());
        rule.needs.retain(|need| names.contains_key(&need.step));
        for need in &mut rule.needs {
            need.step.clone_from(&names[&need.step]);
        }
        steps.push(rule);
    }
    if chance(rng, 40) || steps.is_empty() {
        let phase = phase(rng);
        let mut rule = step(rng, 0, phase, &steps);
        rule.id = StepId::new(format!("a{number}"));
        entries.push(StepAmended { step: rule.id.clone(), change: Change::Added, choice: None });
        steps.push(rule);
    }
    let flow = Workflow::new(steps, flow.run().clone()).expect("needs still point to earlier steps");
    (flow, entries)
}

//! What people of a simulated place want against the runbook, and who must agree.

use std::sync::Arc;

use fastrand::Rng;
use jiff::SignedDuration;
use piton::event::{Budget, Consent, Departure, Event, Outputs, WaitKind};
use piton::ids::{Actor, Level, StepId};
use piton::scheduler::{
    DeviationRule, Escalation, FieldKind, FieldRule, RunRule, StepRule, StepState, StepView, WaitRule, Workflow,
};

use super::random::{PEOPLE, chance, person};
use super::world::{Turn, World};

fn rule(rng: &mut Rng) -> DeviationRule {
    DeviationRule {
        quorum: rng.u32(1..=3),
        exclude: if chance(rng, 40) { vec![person(0)] } else { vec![] },
        allowed: chance(rng, 40).then(|| (0..=3).map(person).collect()),
        expires_ms: chance(rng, 20).then(|| rng.i64(1..5_000)),
        identity: Level::Claimed,
    }
}

/// A field that wants a number.
fn number() -> FieldRule {
    FieldRule {
        name: "n".to_owned(),
        kind: FieldKind::Integer,
        optional: false,
        minimum: Some(1.0),
        maximum: None,
        values: Vec::new(),
        description: None,
    }
}

/// The same workflow where people must agree to deviations, and with limits that they may extend.
pub(super) fn guarded(rng: &mut Rng, flow: &Workflow) -> Workflow {
    let run = chance(rng, 70).then(|| Arc::new(rule(rng)));
    let wait = |rng: &mut Rng, rule: &WaitRule| WaitRule {
        remind_ms: chance(rng, 30).then(|| rng.i64(1..2_000)),
        tells: rng.bool(),
        escalation: rule.expires_ms.filter(|_| rng.bool()).map(|_| Escalation {
            allowed: chance(rng, 80).then(|| vec![person(4)]),
            expires_ms: rng.bool().then(|| rng.i64(1..50_000)),
        }),
        ..rule.clone()
    };
    let by_hand = |rng: &mut Rng, rule: WaitRule| {
        let may = |person: &Actor| !rule.exclude.contains(person);
        let assignee = (0..=3).map(person).find(may).filter(|_| chance(rng, 40));
        let form = if chance(rng, 40) { vec![number()] } else { Vec::new() };
        WaitRule { assignee, form, ..rule }
    };
    let step = |step: &StepRule| StepRule {
        wait: step.wait.as_ref().map(|rule| match rule.kind {
            WaitKind::Approval => Box::new(wait(rng, rule)),
            WaitKind::Manual => {
                let rule = wait(rng, rule);
                Box::new(by_hand(rng, rule))
            }
        }),
        undo_wait: (step.has_undo && chance(rng, 25)).then(|| {
            let expires_ms = chance(rng, 30).then(|| rng.i64(1..50_000));
            let rule = wait(rng, &WaitRule { expires_ms, ..WaitRule::new(WaitKind::Manual) });
            Box::new(by_hand(rng, rule))
        }),
        timeout_ms: chance(rng, 50).then_some(100),
        deviations: if chance(rng, 25) { Some(Arc::new(rule(rng))) } else { run.clone() },
        ..step.clone()
    };
    let steps = flow.steps().iter().map(step).collect();
    let run = RunRule { deviations: run.clone(), windows: [("w".to_owned(), 100)].into(), ..flow.run().clone() };
    Workflow::new(steps, run).expect("it held together before")
}

impl World {
    /// Whether somebody wants something now.
    pub(super) fn has_a_whim(&mut self, percent: u32) -> bool {
        self.whims.as_mut().is_some_and(|rng| chance(rng, percent))
    }

    /// Nobody looks for a while.
    pub(super) fn sleep(&mut self) {
        if let Some(rng) = &mut self.whims {
            let ms = rng.i64(1..60_000);
            self.now = self.now.saturating_add(SignedDuration::from_millis(ms)).expect("in range");
        }
    }

    /// Somebody wants something against the runbook, or says something to what another one wants.
    pub(super) fn somebody_deviates(&mut self) -> Turn {
        let Some(mut rng) = self.whims.take() else { return Ok(()) };
        let event = self.whim(&mut rng);
        self.whims = Some(rng);
        self.say(event)
    }

    /// A form as somebody fills it in: right, unless the dice say otherwise.
    pub(super) fn filled_in(&mut self, step: &StepId) -> Outputs {
        let wants = self.state.step(step).and_then(|view| view.question().map(|rule| !rule.form.is_empty()));
        let wrong = !self.kind() && self.has_a_whim(20);
        match (wants, wrong) {
            (Some(true), false) => [("n".to_owned(), 1.into())].into(),
            (Some(true), true) => [("n".to_owned(), "one".into())].into(),
            _ => Outputs::new(),
        }
    }

    fn whim(&self, rng: &mut Rng) -> Event {
        let by = person(rng.usize(0..PEOPLE));
        let asked: Vec<StepId> =
            self.state.steps().filter(StepView::is_asked).map(|view| view.rule().id.clone()).collect();
        if !asked.is_empty() && chance(rng, 25) {
            let step = asked[rng.usize(0..asked.len())].clone();
            return Event::StepAssigned { step, by, to: person(rng.usize(0..PEOPLE)), reason: "next shift".into() };
        }
        let open: Vec<Option<StepId>> = self.state.proposals().map(|(step, ..)| step).collect();
        if !open.is_empty() && chance(rng, 70) {
            let step = open[rng.usize(0..open.len())].clone();
            let answer = match rng.u32(0..10) {
                0 => Consent::Retracted { comment: None },
                1 => Consent::Denied { comment: None },
                _ => Consent::Agreed { comment: None },
            };
            return Event::DeviationAnswered { step, by, answer };
        }
        let reason = "must be".to_owned();
        if chance(rng, 10) {
            let budget = match rng.u32(0..2) {
                0 => Budget::Run { ms: rng.i64(1..5_000) },
                _ => Budget::Window { name: "w".into(), ms: rng.i64(1..300) },
            };
            return Event::DeviationRequested { step: None, by, what: Departure::Extend(budget), reason };
        }
        let steps: Vec<_> = self.state.steps().collect();
        let wanted = |state: StepState| match state {
            StepState::Skipped | StepState::Failed | StepState::Undoing => 4,
            StepState::Pending | StepState::Ready | StepState::Running => 2,
            StepState::Succeeded | StepState::InDoubt | StepState::Undone | StepState::Waiting => 1,
        };
        let weighed: Vec<_> = steps.iter().flat_map(|step| std::iter::repeat_n(step, wanted(step.state()))).collect();
        let view = weighed[rng.usize(0..weighed.len())];
        let step = view.rule().id.clone();
        let what = match (view.state(), rng.u32(0..10)) {
            (StepState::Undoing, 0..8) => Departure::Leave,
            (StepState::Skipped, 0..7) => Departure::Force,
            (StepState::Failed, 0..3) | (_, 0) => return Event::SkipRequested { step, by, reason },
            (StepState::Running | StepState::Ready, 0..5) => {
                Departure::Extend(Budget::Attempts { count: rng.u32(1..6) })
            }
            (_, 1) => Departure::Force,
            (_, 2) => Departure::Extend(Budget::Timeout { ms: rng.i64(1..300) }),
            (_, 3) => Departure::Leave,
            _ => Departure::Done { outputs: Outputs::new() },
        };
        Event::DeviationRequested { step: Some(step), by, what, reason }
    }

    /// Most often people agree to an amendment before somebody makes it.
    pub(super) fn people_agree_to_amend(&mut self, event: &Event) -> Turn {
        let Event::RunAmended { digest, steps, .. } = event else { return Ok(()) };
        if !self.has_a_whim(70) {
            return Ok(());
        }
        let (by, reason) = (person(1), "better".to_owned());
        let what = Departure::Amend { digest: digest.clone(), steps: steps.clone() };
        self.say(Event::DeviationRequested { step: None, by, what, reason })?;
        for number in 0..PEOPLE {
            if self.has_a_whim(70) {
                let (by, answer) = (person(number), Consent::Agreed { comment: None });
                self.say(Event::DeviationAnswered { step: None, by, answer })?;
            }
        }
        Ok(())
    }
}

//! The rules one by one, each as a short story; random stories are in the simulation.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::event::{Answer, Effect, Finding, Outcome, Outputs, SkipReason, WaitKind};
use crate::ids::Actor;

pub(super) struct Story {
    pub(super) state: State,
    pub(super) now: Timestamp,
}

/// The first fact of every run in these tests.
pub(super) fn run_started() -> Event {
    Event::RunStarted {
        runbook: "r".into(),
        version: "1".into(),
        digest: "d".into(),
        site: "s".into(),
        by: "ann".into(),
        params: [].into(),
        piton: "0".into(),
        source: Value::Null,
        parent: None,
        sealed_by: None,
        signed: None,
    }
}

impl Story {
    pub(super) fn new(steps: Vec<StepRule>) -> Self {
        Self::with(steps, RunRule { parallel_max: 2, ..RunRule::default() })
    }

    pub(super) fn with(steps: Vec<StepRule>, run: RunRule) -> Self {
        let flow = Workflow::new(steps, run).expect("hangs together");
        let mut story = Self { state: State::new(Arc::new(flow)), now: Timestamp::UNIX_EPOCH };
        story.say(&run_started());
        story
    }

    pub(super) fn say(&mut self, event: &Event) -> &mut Self {
        self.state.apply(event, self.now).unwrap_or_else(|error| panic!("{event:?}: {error}"));
        self
    }

    pub(super) fn refuses(&self, event: &Event) -> String {
        self.state.after(event, self.now).expect_err("must be refused").to_string()
    }

    pub(super) fn start(&mut self, step: &str) -> &mut Self {
        let attempt = self.state.step(&step.into()).expect("exists").attempts() + 1;
        self.say(&Event::AttemptStarted { step: step.into(), attempt, before: json!(attempt), input: Value::Null })
    }

    pub(super) fn succeed(&mut self, step: &str) -> &mut Self {
        let attempt = self.start(step).state.step(&step.into()).expect("exists").attempts();
        self.say(&Event::AttemptSucceeded { step: step.into(), attempt, outputs: Outputs::new(), said: vec![] })
    }

    pub(super) fn fail(&mut self, step: &str, effect: Effect) -> &mut Self {
        let attempt = self.start(step).state.step(&step.into()).expect("exists").attempts();
        let error = "broke".to_owned();
        self.say(&Event::AttemptFailed { step: step.into(), attempt, error, effect, retryable: true, said: vec![] })
    }

    pub(super) fn resume(&mut self) -> &mut Self {
        self.say(&Event::RunResumed { by: "ann".into(), driver: "d".into(), held: vec![], sealed_by: None })
    }

    pub(super) fn answer(&mut self, step: &str, by: &str, answer: Answer) -> &mut Self {
        self.say(&Event::StepAnswered { step: step.into(), by: by.into(), answer })
    }

    /// Records every fact that needs nothing done.
    pub(super) fn settle(&mut self) -> &mut Self {
        while let Some(Command::Record(event)) = self.state.poll(self.now).into_iter().next() {
            self.say(&event);
        }
        self
    }

    pub(super) fn undo(&mut self, step: &str) -> &mut Self {
        self.settle();
        assert_eq!(self.commands(), [format!("undo {step}")]);
        let (step, attempt) = (StepId::new(step), 1);
        self.say(&Event::UndoStarted { step: step.clone(), attempt });
        self.say(&Event::UndoSucceeded { step, attempt, said: vec![] })
    }

    pub(super) fn pass(&mut self, ms: i64) -> &mut Self {
        self.now += SignedDuration::from_millis(ms);
        self
    }

    pub(super) fn commands(&self) -> Vec<String> {
        let tell = |command| match command {
            Command::Start { step, .. } => format!("start {step}"),
            Command::OpenWait { step, .. } => format!("open {step}"),
            Command::OpenUndoWait { step, .. } => format!("open undo of {step}"),
            Command::Tell { step, .. } => format!("tell {step}"),
            Command::Probe { step, .. } => format!("probe {step}"),
            Command::Undo { step, .. } => format!("undo {step}"),
            Command::CancelAttempts => "cancel attempts".to_owned(),
            Command::Record(event) => format!("record {}", event.kind()),
        };
        self.state.poll(self.now).into_iter().map(tell).collect()
    }

    pub(super) fn is(&self, step: &str) -> StepState {
        self.state.step(&step.into()).expect("exists").state()
    }

    pub(super) fn ends(&mut self, outcome: Outcome) -> &mut Self {
        self.settle();
        assert_eq!(self.state.outcome(), Some(outcome), "{:?}", self.commands());
        self
    }
}

pub(super) fn step(id: &str, needs: &[&str]) -> StepRule {
    let needs = needs.iter().map(|&on| Need { step: on.into(), outcome: NeedOutcome::Done }).collect();
    StepRule { needs, ..StepRule::new(id) }
}

pub(super) fn undoable(id: &str, needs: &[&str]) -> StepRule {
    StepRule { has_undo: true, on_failure: OnFailure::Rollback, ..step(id, needs) }
}

pub(super) fn approval(id: &str, quorum: u32) -> StepRule {
    let wait = WaitRule {
        kind: WaitKind::Approval,
        quorum,
        exclude: vec!["eve".into()],
        allowed: Some(["ann", "bob", "eve"].map(Actor::from).to_vec()),
        expires_ms: Some(1_000),
        ..WaitRule::new(WaitKind::Approval)
    };
    StepRule { wait: Some(Box::new(wait)), ..StepRule::new(id) }
}

pub(super) fn yes() -> Answer {
    Answer::Approved { comment: None }
}

#[test]
fn ready_steps_start_in_file_order_up_to_the_limit() {
    let mut story = Story::new(vec![step("a", &[]), step("b", &[]), step("c", &[]), step("d", &["a"])]);
    assert_eq!(story.commands(), ["start a", "start b"]);
    story.succeed("a").succeed("b");
    assert_eq!(story.commands(), ["start c", "start d"]);
    story.succeed("c").succeed("d").ends(Outcome::Succeeded);
    let order: Vec<&str> = story.state.completed().map(StepId::as_str).collect();
    assert_eq!(order, ["a", "b", "c", "d"]);
}

#[test]
fn a_lock_is_held_by_one_attempt_at_a_time() {
    let locked = |id| StepRule { locks: ["db".into()].into(), ..StepRule::new(id) };
    let mut story = Story::new(vec![locked("a"), locked("b"), step("c", &[])]);
    assert_eq!(story.commands(), ["start a", "start c"]);
    story.start("a");
    let started = Event::AttemptStarted { step: "b".into(), attempt: 1, before: Value::Null, input: Value::Null };
    assert!(story.refuses(&started).contains("holds one of its locks"));
}

#[test]
fn a_failed_attempt_is_tried_again_after_its_pause_but_never_blindly() {
    let retry = Retry { attempts_max: 2, initial_ms: 100, factor: 2.0, max_ms: 1_000 };
    let mut story = Story::new(vec![StepRule { retry, ..StepRule::new("a") }]);
    story.fail("a", Effect::None);
    assert_eq!(story.commands(), Vec::<String>::new());
    assert_eq!(story.state.next_wake(), Some(story.now + SignedDuration::from_millis(100)));
    assert_eq!(story.pass(100).commands(), ["start a"]);
    story.fail("a", Effect::Unknown).ends(Outcome::Failed);
    assert_eq!(story.state.step(&"a".into()).expect("exists").before(), Some(json!(1)), "the first one's");

    let mut story = Story::new(vec![StepRule { retry, ..StepRule::new("a") }]);
    story.fail("a", Effect::Unknown).ends(Outcome::Failed);
    story.resume().ends(Outcome::Stuck);
    assert_eq!(story.is("a"), StepState::InDoubt);
    story.answer("a", "bob", Answer::NotRan { reason: "looked".into() }).resume();
    story.succeed("a").ends(Outcome::Succeeded);
}

#[test]
fn an_attempt_that_failed_before_it_could_look_leaves_no_before_image() {
    let retry = Retry { attempts_max: 2, initial_ms: 100, factor: 2.0, max_ms: 1_000 };
    let mut story = Story::new(vec![StepRule { retry, ..StepRule::new("a") }]);
    story.say(&Event::AttemptStarted { step: "a".into(), attempt: 1, before: Value::Null, input: Value::Null });
    story.say(&Event::AttemptFailed {
        step: "a".into(),
        attempt: 1,
        error: "unreachable".into(),
        effect: Effect::None,
        retryable: true,
        said: vec![],
    });
    story.pass(100).start("a");
    assert_eq!(story.state.step(&"a".into()).expect("exists").before(), Some(json!(2)), "the first that looked");
}

#[test]
fn needs_are_met_by_deliberate_skips_only() {
    let mut steps = vec![step("a", &[]), step("b", &["a"]), step("c", &["b"]), step("d", &["a"])];
    steps[0].has_when = true;
    steps[3].needs[0].outcome = NeedOutcome::Failed;
    let mut story = Story::new(steps);
    story.say(&Event::StepSkipped { step: "a".into(), reason: SkipReason::When }).settle();
    assert_eq!(story.is("d"), StepState::Skipped);
    story.say(&Event::SkipRequested { step: "b".into(), by: "bob".into(), reason: "done by hand".into() }).settle();
    assert_eq!(story.commands(), ["start c"]);
    assert_eq!(story.state.deviations()[0].reason, "done by hand");
    story.start("c");
    assert!(
        story
            .refuses(&Event::SkipRequested { step: "c".into(), by: "bob".into(), reason: String::new() })
            .contains("not started")
    );
}

#[test]
fn doubts_are_resolved_by_probe_then_idempotency_then_people() {
    let probing = StepRule { has_probe: true, ..StepRule::new("probing") };
    let repeatable = StepRule { idempotent: Idempotent::Yes, ..StepRule::new("repeatable") };
    let steps = vec![probing, repeatable, StepRule::new("once")];
    let mut story = Story::with(steps, RunRule { parallel_max: 3, ..RunRule::default() });
    story.start("probing").start("repeatable").start("once").resume();
    assert_eq!(story.commands(), ["probe probing", "start repeatable"]);
    let finding = Finding::Done([("rows".to_owned(), json!(7))].into());
    story.say(&Event::AttemptProbed { step: "probing".into(), attempt: 1, finding });
    assert_eq!(story.state.step(&"probing".into()).expect("exists").outputs()["rows"], json!(7));
    story.succeed("repeatable").ends(Outcome::Stuck);
    story
        .answer("once", "bob", Answer::Ran { reason: "saw it".into(), outputs: Outputs::new() })
        .resume()
        .ends(Outcome::Succeeded);
    assert!(
        story
            .refuses(&Event::RunResumed { by: "ann".into(), driver: "d".into(), held: vec![], sealed_by: None })
            .contains("Succeeded")
    );
}

#[test]
fn rollback_undoes_the_newest_first_and_what_may_have_happened() {
    let steps = vec![undoable("a", &[]), undoable("b", &["a"]), undoable("c", &["b"])];
    let mut story = Story::new(steps);
    story.succeed("a").succeed("b").fail("c", Effect::Unknown);
    story.undo("c").undo("b").undo("a").ends(Outcome::RolledBack);

    let mut story = Story::new(vec![undoable("a", &[]), undoable("b", &["a"])]);
    story.succeed("a").fail("b", Effect::None).undo("a").ends(Outcome::RolledBack);
    assert_eq!(story.is("b"), StepState::Failed, "it changed nothing");
}

#[test]
fn rollback_stops_at_a_point_of_no_return_and_the_run_may_go_forward() {
    let point = StepRule { point_of_no_return: true, ..undoable("point", &["a"]) };
    let mut story = Story::new(vec![undoable("a", &[]), point, undoable("b", &["point"]), undoable("c", &["b"])]);
    story.succeed("a").succeed("point").succeed("b").fail("c", Effect::None).undo("b").ends(Outcome::Stuck);
    let note = story.state.note().expect("says why");
    assert!(note.contains("point of no return") && note.contains("`a`, `point`"), "{note}");
    story.resume();
    assert_eq!(story.commands(), ["start b"]);
    story.succeed("b").succeed("c").ends(Outcome::Succeeded);
}

#[test]
fn a_failed_undo_is_tried_again_after_a_person_looked() {
    let mut story = Story::new(vec![undoable("a", &[]), undoable("b", &["a"])]);
    story.succeed("a").fail("b", Effect::None).settle();
    story.say(&Event::UndoStarted { step: "a".into(), attempt: 1 });
    let (step, error) = (StepId::new("a"), "cannot".to_owned());
    story
        .say(&Event::UndoFailed { step: step.clone(), attempt: 1, error, retryable: false, said: vec![] })
        .ends(Outcome::Stuck);
    story.resume();
    assert_eq!(story.commands(), ["undo a"]);
    story.say(&Event::UndoStarted { step: step.clone(), attempt: 2 });
    story.say(&Event::UndoSucceeded { step, attempt: 2, said: vec![] }).ends(Outcome::RolledBack);
}

#[test]
fn a_quorum_is_of_different_allowed_people() {
    let mut story = Story::new(vec![approval("go", 2)]);
    assert_eq!(story.commands(), ["open go"]);
    let expires_at = Some(story.now + SignedDuration::from_secs(1));
    story.say(&Event::StepWaiting {
        step: "go".into(),
        wait: WaitKind::Approval,
        prompt: "?".into(),
        expires_at,
        input: None,
    });
    story.answer("go", "ann", yes());
    for (by, why) in [("ann", "already"), ("eve", "excluded"), ("zoe", "not among")] {
        let word = Event::StepAnswered { step: "go".into(), by: by.into(), answer: yes() };
        assert!(story.refuses(&word).contains(why), "{by}");
    }
    story.ends(Outcome::Waiting).answer("go", "bob", yes());
    assert_eq!(story.is("go"), StepState::Succeeded);
    story.ends(Outcome::Succeeded);

    let mut story = Story::new(vec![approval("go", 2)]);
    story.say(&Event::StepWaiting {
        step: "go".into(),
        wait: WaitKind::Approval,
        prompt: "?".into(),
        expires_at,
        input: None,
    });
    assert_eq!(story.pass(1_000).commands(), ["record step_expired"]);
    story.ends(Outcome::Failed);
}

#[test]
fn preflight_comes_first_and_finally_last() {
    let look = StepRule { phase: Phase::Preflight, on_failure: OnFailure::Rollback, ..StepRule::new("look") };
    let tell = StepRule { phase: Phase::Finally, ..StepRule::new("tell") };
    let steps = || vec![tell.clone(), step("work", &[]), look.clone()];
    let mut story = Story::new(steps());
    assert_eq!(story.commands(), ["start look"]);
    story.succeed("look").succeed("work").fail("tell", Effect::None).ends(Outcome::Failed);

    let mut story = Story::new(steps());
    story.fail("look", Effect::None).settle();
    assert_eq!(story.commands(), ["start tell"]);
    story.succeed("tell").ends(Outcome::Failed);
    assert_eq!(story.state.step(&"work".into()).expect("exists").attempts(), 0);
}

#[test]
fn a_cancel_lets_attempts_end_and_a_second_one_stops_them() {
    let mut story = Story::new(vec![step("a", &[]), step("b", &["a"])]);
    let cancel = Event::CancelRequested { by: "ann".into(), reason: None };
    story.start("a").say(&cancel);
    assert_eq!(story.commands(), Vec::<String>::new());
    assert_eq!(story.say(&cancel).commands(), ["cancel attempts"]);
    let (error, effect) = ("killed".to_owned(), Effect::Unknown);
    story.say(&Event::AttemptFailed { step: "a".into(), attempt: 1, error, effect, retryable: false, said: vec![] });
    story.ends(Outcome::Cancelled).resume().ends(Outcome::Stuck);
}

#[test]
fn a_run_that_takes_too_long_is_stopped() {
    let run = RunRule { timeout_ms: Some(500), on_failure: OnFailure::Rollback, ..RunRule::default() };
    let mut story = Story::with(vec![undoable("a", &[]), step("b", &["a"])], run);
    story.succeed("a").start("b");
    assert_eq!(story.state.next_wake(), Some(story.now + SignedDuration::from_millis(500)));
    assert_eq!(story.pass(500).commands(), ["record run_timed_out"]);
    assert_eq!(story.settle().commands(), ["cancel attempts"]);
    let (error, effect) = ("killed".to_owned(), Effect::Unknown);
    story.say(&Event::AttemptFailed { step: "b".into(), attempt: 1, error, effect, retryable: false, said: vec![] });
    story.undo("a").ends(Outcome::RolledBack);
    assert!(story.state.note().expect("says why").contains("`timeout`"));
}

#[test]
fn a_hundred_thousand_steps_are_no_burden() {
    // Wide, then a chain, then one step that needs the first thousand; a scan per event would take hours.
    let mut steps: Vec<StepRule> = (0..80_000).map(|n| step(&format!("w{n}"), &[])).collect();
    steps.extend((0..20_000).map(|n| {
        let on = if n == 0 { "w0".to_owned() } else { format!("c{}", n - 1) };
        StepRule { locks: ["chain".into()].into(), ..step(&format!("c{n}"), &[&on]) }
    }));
    let wide: Vec<String> = (0..1_000).map(|n| format!("w{n}")).collect();
    steps.push(step("last", &wide.iter().map(String::as_str).collect::<Vec<_>>()));
    let mut story = Story::with(steps, RunRule { parallel_max: 16, ..RunRule::default() });
    let mut started = 0;
    while story.state.outcome().is_none() {
        for command in story.state.poll(story.now) {
            match command {
                Command::Start { step, .. } => {
                    started += 1;
                    story.succeed(step.as_str());
                }
                Command::Record(event) => {
                    story.say(&event);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((started, story.state.outcome()), (100_001, Some(Outcome::Succeeded)));
}

fn asked_back() -> Event {
    Event::RollbackRequested { by: "ann".into(), reason: "not wanted".into(), driver: "d".into(), sealed_by: None }
}

#[test]
fn a_run_that_succeeded_can_be_turned_back_and_then_takes_its_milestones_back() {
    let look = StepRule { only_looks: true, ..StepRule::new("look") };
    let tell = StepRule { phase: Phase::Finally, ..StepRule::new("tell") };
    let run = RunRule { milestones: vec!["north/moved".into()], ..RunRule::default() };
    let mut story = Story::with(vec![look, undoable("a", &[]), undoable("b", &["a"]), step("c", &[]), tell], run);
    story.succeed("look").succeed("a").succeed("b").succeed("c").succeed("tell").ends(Outcome::Succeeded);
    assert!(
        story
            .refuses(&Event::RunResumed { by: "ann".into(), driver: "d".into(), held: vec![], sealed_by: None })
            .contains("Succeeded")
    );
    let way = story.state.way_back();
    assert_eq!(way.undo, ["b", "a"].map(StepId::from));
    assert_eq!(way.without_undo, [StepId::from("c")], "a step that only looks needs no undo");
    story.say(&asked_back());
    assert!(story.refuses(&asked_back()).contains("turned back already"));
    story.undo("b").resume().undo("a").settle();
    assert_eq!(story.commands(), ["start tell"], "the new end is told as well");
    story.succeed("tell");
    let commands = story.state.poll(story.now);
    let [Command::Record(Event::RunFinished { outcome, milestones, revoked, .. })] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    assert_eq!((*outcome, milestones.len()), (Outcome::RolledBack, 0));
    assert_eq!(revoked, &["north/moved".into()]);
    story.ends(Outcome::RolledBack);
    assert!(story.refuses(&asked_back()).contains("RolledBack"));
}

#[test]
fn a_rollback_on_request_stops_at_a_point_of_no_return_and_what_cannot_go_back_is_refused() {
    let point = StepRule { point_of_no_return: true, ..undoable("point", &["a"]) };
    let mut story = Story::new(vec![undoable("a", &[]), point.clone(), undoable("b", &["point"])]);
    story.succeed("a").succeed("point").succeed("b").ends(Outcome::Succeeded);
    assert_eq!(story.state.way_back().stops_at, Some("point".into()));
    assert_eq!(story.state.way_back().remains, ["a", "point"].map(StepId::from));
    story.say(&asked_back()).undo("b").ends(Outcome::Stuck);
    assert!(story.state.is_established(), "it did not come back all the way");
    story.resume().succeed("b").ends(Outcome::Succeeded);

    let mut story = Story::new(vec![undoable("a", &[]), point]);
    story.succeed("a").succeed("point").ends(Outcome::Succeeded);
    assert!(story.refuses(&asked_back()).contains("nothing"));

    let mut story = Story::new(vec![undoable("a", &[])]);
    story.start("a");
    assert!(story.refuses(&asked_back()).contains("attempts run"));
    story.resume().ends(Outcome::Stuck).say(&asked_back()).undo("a").ends(Outcome::RolledBack);
}

#[test]
fn a_waiting_run_can_be_turned_back_and_its_question_is_closed() {
    let mut story = Story::new(vec![undoable("a", &[]), approval("go", 1)]);
    story.succeed("a");
    let wait = Event::StepWaiting {
        step: "go".into(),
        wait: WaitKind::Approval,
        prompt: "?".into(),
        expires_at: None,
        input: None,
    };
    story.say(&wait).ends(Outcome::Waiting).say(&asked_back());
    assert_eq!(story.is("go"), StepState::Pending);
    story.undo("a").ends(Outcome::RolledBack);
}

#[test]
fn a_person_settles_an_undo_that_cannot_work() {
    for answer in [Answer::Undone { reason: "by hand".into() }, Answer::Left { reason: "may stay".into() }] {
        let mut story = Story::new(vec![undoable("a", &[]), undoable("b", &["a"])]);
        story.succeed("a").succeed("b").ends(Outcome::Succeeded).say(&asked_back());
        let word = Event::StepAnswered { step: "b".into(), by: "ann".into(), answer: answer.clone() };
        assert!(story.refuses(&word).contains("this answer"));
        story.say(&Event::UndoStarted { step: "b".into(), attempt: 1 });
        let error = "cannot".to_owned();
        story
            .say(&Event::UndoFailed { step: "b".into(), attempt: 1, error, retryable: false, said: vec![] })
            .ends(Outcome::Stuck);
        story.say(&word).resume().undo("a").ends(Outcome::RolledBack);
        let left = matches!(answer, Answer::Left { .. });
        assert_eq!(story.is("b"), if left { StepState::Succeeded } else { StepState::Undone });
        assert_eq!(story.state.deviations().len(), usize::from(left));
        assert_eq!(story.state.note().is_some_and(|note| note.contains("left as they are by a person: `b`")), left);
    }
}

#[test]
fn an_undo_settled_by_hand_does_not_turn_a_run_forward_at_a_point_of_no_return() {
    let point = StepRule { point_of_no_return: true, ..undoable("point", &[]) };
    let mut story = Story::new(vec![point, undoable("b", &["point"])]);
    story.succeed("point").succeed("b").ends(Outcome::Succeeded).say(&asked_back());
    story.say(&Event::UndoStarted { step: "b".into(), attempt: 1 });
    let error = "cannot".to_owned();
    story
        .say(&Event::UndoFailed { step: "b".into(), attempt: 1, error, retryable: false, said: vec![] })
        .ends(Outcome::Stuck);
    story.answer("b", "ann", Answer::Undone { reason: "by hand".into() }).resume().ends(Outcome::Stuck);
    assert!(story.state.note().is_some_and(|note| note.contains("point of no return")));
    story.resume();
    assert_eq!(story.commands(), ["start b"], "only now it goes forward");
}

/// A fan of 20,000 steps that all need the first: whatever happens, the driver is told of no more than may run at once,
/// and every event touches its own step only.
#[test]
fn work_for_an_event_does_not_grow_with_the_run() {
    let most = 8;
    let mut steps = vec![StepRule::new("first")];
    steps.extend((0..20_000).map(|number| step(&format!("s{number}"), &["first"])));
    let mut story = Story::with(steps, RunRule { parallel_max: most, ..RunRule::default() });
    let mut told = 0;
    story.succeed("first");
    loop {
        let commands = story.state.poll(story.now);
        told += commands.len();
        assert!(commands.len() <= most as usize, "{} commands at once", commands.len());
        let Some(Command::Start { step, attempt, .. }) = commands.first() else { break };
        assert!(story.state.asks_to_start(step, *attempt, story.now));
        story.succeed(step.as_str());
    }
    assert_eq!(story.state.completed().count(), 20_001);
    assert!(told <= 20_001 * most as usize, "{told}");
}

//! Amendments one by one: what is kept, refused, done again, and what stays for the way back.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::tests::run_started;
use super::*;
use crate::event::{Change, Choice, Effect, Outcome, Outputs, StepAmended, WaitKind};

struct Story {
    state: State,
}

fn flow(steps: Vec<StepRule>) -> Workflow {
    Workflow::new(steps, RunRule { parallel_max: 2, ..RunRule::default() }).expect("hangs together")
}

fn amended(steps: Vec<StepAmended>) -> Event {
    Event::RunAmended {
        by: "ann".into(),
        reason: "mended".into(),
        version: "2".into(),
        was: "d".into(),
        digest: "e".into(),
        params: [].into(),
        source: Value::Null,
        steps,
        voids: Vec::new(),
        signed: None,
    }
}

fn entry(step: &str, change: Change, choice: Option<Choice>) -> StepAmended {
    StepAmended { step: step.into(), change, choice }
}

impl Story {
    fn new(steps: Vec<StepRule>) -> Self {
        let mut story = Self { state: State::new(Arc::new(flow(steps))) };
        story.say(&run_started());
        story
    }

    fn say(&mut self, event: &Event) -> &mut Self {
        self.state.apply(event, Timestamp::UNIX_EPOCH).unwrap_or_else(|error| panic!("{event:?}: {error}"));
        self
    }

    fn start(&mut self, step: &str) -> u32 {
        let attempt = self.state.step(&step.into()).expect("exists").attempts() + 1;
        self.say(&Event::AttemptStarted { step: step.into(), attempt, before: json!(attempt), input: Value::Null });
        attempt
    }

    fn succeed(&mut self, step: &str) -> &mut Self {
        let attempt = self.start(step);
        self.say(&Event::AttemptSucceeded { step: step.into(), attempt, outputs: Outputs::new(), said: Vec::new() })
    }

    fn fail(&mut self, step: &str, effect: Effect) -> &mut Self {
        let attempt = self.start(step);
        let error = "broke".to_owned();
        self.say(&Event::AttemptFailed {
            step: step.into(),
            attempt,
            error,
            effect,
            retryable: false,
            said: Vec::new(),
        })
    }

    fn undo(&mut self, step: &str) -> &mut Self {
        self.settle();
        assert_eq!(self.commands(), [format!("undo {step}")]);
        let attempt = self.state.step(&step.into()).expect("exists").undo_attempts() + 1;
        self.say(&Event::UndoStarted { step: step.into(), attempt });
        self.say(&Event::UndoSucceeded { step: step.into(), attempt, said: Vec::new() })
    }

    fn settle(&mut self) -> &mut Self {
        while let Some(Command::Record(event)) = self.state.poll(Timestamp::UNIX_EPOCH).into_iter().next() {
            self.say(&event);
        }
        self
    }

    fn ends(&mut self, outcome: Outcome) -> &mut Self {
        self.settle();
        assert_eq!(self.state.outcome(), Some(outcome), "{:?}", self.commands());
        self
    }

    fn commands(&self) -> Vec<String> {
        let tell = |command| match command {
            Command::Start { step, .. } => format!("start {step}"),
            Command::OpenWait { step, .. } => format!("open {step}"),
            Command::Undo { step, .. } => format!("undo {step}"),
            other => format!("{other:?}"),
        };
        self.state.poll(Timestamp::UNIX_EPOCH).into_iter().map(tell).collect()
    }

    /// Amends and takes the run up again.
    fn amend(&mut self, steps: Vec<StepRule>, entries: Vec<StepAmended>) -> &mut Self {
        let event = amended(entries);
        self.state.amend(&event, &flow(steps), Timestamp::UNIX_EPOCH).unwrap_or_else(|error| panic!("{error}"));
        self.say(&Event::RunResumed { by: "ann".into(), driver: "d".into(), held: Vec::new(), sealed_by: None })
    }

    fn refuses(&mut self, steps: Vec<StepRule>, entries: Vec<StepAmended>) -> String {
        let before = self.state.clone();
        let refused = self.state.amend(&amended(entries), &flow(steps), Timestamp::UNIX_EPOCH);
        assert_eq!(self.state, before, "a refusal leaves no trace");
        refused.expect_err("must be refused").to_string()
    }

    fn did(&self) -> Vec<Override> {
        self.state.deviations().iter().map(|deviation| deviation.what).collect()
    }

    fn is(&self, step: &str) -> StepState {
        self.state.step(&step.into()).expect("exists").state()
    }
}

fn step(id: &str, needs: &[&str]) -> StepRule {
    let needs = needs.iter().map(|&on| Need { step: on.into(), outcome: NeedOutcome::Done }).collect();
    StepRule { needs, ..StepRule::new(id) }
}

fn undoable(id: &str, needs: &[&str]) -> StepRule {
    StepRule { has_undo: true, on_failure: OnFailure::Rollback, ..step(id, needs) }
}

#[test]
fn what_is_done_and_unchanged_is_kept_and_the_rest_goes_by_the_new_rules() {
    let mut story = Story::new(vec![step("a", &[]), step("b", &["a"]), step("c", &["b"])]);
    story.succeed("a").fail("b", Effect::None).ends(Outcome::Failed);
    let new = vec![step("a", &[]), step("look", &["a"]), step("b", &["look"])];
    let entries =
        vec![entry("look", Change::Added, None), entry("b", Change::Changed, None), entry("c", Change::Removed, None)];
    story.amend(new, entries);
    assert_eq!(story.commands(), ["start look"]);
    assert!(story.state.step(&"c".into()).is_none(), "it never ran");
    story.succeed("look").succeed("b").ends(Outcome::Succeeded);
    assert_eq!(story.state.step(&"b".into()).expect("exists").attempts(), 2, "attempts are never counted anew");
}

#[test]
fn a_changed_step_that_is_done_wants_a_decision() {
    let rules = || vec![undoable("a", &[]), undoable("b", &["a"]), step("c", &["b"])];
    let done = || {
        let mut story =
            Story::new(rules().into_iter().map(|rule| StepRule { on_failure: OnFailure::Stop, ..rule }).collect());
        story.succeed("a").succeed("b").fail("c", Effect::None).ends(Outcome::Failed);
        story
    };
    for change in [Change::Changed, Change::Inputs] {
        assert!(done().refuses(rules(), vec![entry("a", change, None)]).contains("say whether it is kept"));
    }
    done().amend(rules(), vec![entry("a", Change::Changed, Some(Choice::Keep))]).succeed("c").ends(Outcome::Succeeded);
    let redo = vec![entry("a", Change::Changed, Some(Choice::Redo))];
    assert!(done().refuses(rules(), redo.clone()).contains("needs `a`"), "b stands on it");
    let both = vec![redo[0].clone(), entry("b", Change::Same, Some(Choice::Redo))];
    let mut story = done();
    story.amend(rules(), both).undo("b").undo("a");
    assert_eq!(story.commands(), ["start a"], "undone in reverse order, then forward");
    story.succeed("a").succeed("b").succeed("c").ends(Outcome::Succeeded);
    assert_eq!(story.did(), [Override::Amended]);
}

#[test]
fn a_step_that_may_not_be_repeated_and_has_no_undo_runs_again_only_as_a_deviation() {
    let mut story = Story::new(vec![step("a", &[]), step("b", &["a"])]);
    story.succeed("a").fail("b", Effect::None).ends(Outcome::Failed);
    story.amend(vec![step("a", &[]), step("b", &["a"])], vec![entry("a", Change::Same, Some(Choice::Redo))]);
    assert_eq!(story.commands(), ["start a"]);
    assert_eq!(story.did(), [Override::Amended, Override::RanAgain]);

    let idempotent = || StepRule { idempotent: Idempotent::Yes, ..step("a", &[]) };
    let mut story = Story::new(vec![idempotent(), step("b", &["a"])]);
    story.succeed("a").fail("b", Effect::None).ends(Outcome::Failed);
    story.amend(vec![idempotent(), step("b", &["a"])], vec![entry("a", Change::Changed, Some(Choice::Redo))]);
    assert_eq!((story.commands(), story.did()), (vec!["start a".to_owned()], vec![Override::Amended]));
}

#[test]
fn a_removed_step_that_is_done_stays_on_the_way_back() {
    let mut story = Story::new(vec![undoable("a", &[]), undoable("b", &["a"]), step("c", &["b"])]);
    story.succeed("a").succeed("b").fail("c", Effect::None).ends(Outcome::Failed);
    let new = vec![undoable("b", &[]), StepRule { on_failure: OnFailure::Rollback, ..step("c", &["b"]) }];
    story.amend(new, vec![entry("a", Change::Removed, None), entry("c", Change::Rules, None)]);
    assert_eq!(story.is("a"), StepState::Succeeded);
    assert!(story.state.step(&"a".into()).expect("exists").rule().retired);
    story.fail("c", Effect::None).undo("b").undo("a").ends(Outcome::RolledBack);
}

#[test]
fn a_renamed_step_is_the_same_step() {
    let mut story = Story::new(vec![undoable("a", &[]), step("b", &["a"])]);
    story.succeed("a").fail("b", Effect::None).ends(Outcome::Failed);
    let new = vec![undoable("first", &[]), step("b", &["first"])];
    story.amend(new, vec![entry("first", Change::Renamed { from: "a".into() }, None), entry("b", Change::Rules, None)]);
    assert_eq!(story.commands(), ["start b"]);
    assert_eq!(story.is("first"), StepState::Succeeded);
    assert_eq!(story.is("a"), StepState::Succeeded, "its old name still finds it");
    story.succeed("b").ends(Outcome::Succeeded);
}

#[test]
fn what_is_in_doubt_is_decided_before_it_is_changed() {
    let mut story = Story::new(vec![step("a", &[])]);
    story.start("a");
    let changed = vec![entry("a", Change::Changed, None)];
    assert!(story.refuses(vec![step("a", &[])], changed.clone()).contains("in doubt"));
    assert!(story.refuses(vec![step("b", &[])], vec![]).contains("in doubt and cannot be taken out"));
    story
        .say(&Event::RunResumed { by: "ann".into(), driver: "d".into(), held: Vec::new(), sealed_by: None })
        .ends(Outcome::Stuck);
    assert!(story.refuses(vec![step("a", &[])], changed).contains("in doubt"));
    story.amend(vec![step("a", &[]), step("b", &[])], vec![entry("b", Change::Added, None)]);
    story.succeed("b").ends(Outcome::Stuck);
}

#[test]
fn nothing_goes_back_behind_a_point_of_no_return_that_was_passed() {
    let point = |is| StepRule { point_of_no_return: is, ..undoable("point", &["a"]) };
    let rules = |is| vec![undoable("a", &[]), point(is), step("c", &["point"])];
    let mut story = Story::new(rules(true));
    story.succeed("a").succeed("point").fail("c", Effect::None).ends(Outcome::Failed);
    let both = |first| vec![entry(first, Change::Same, Some(Choice::Redo)), entry("c", Change::Same, None)];
    assert!(story.refuses(rules(true), both("point")).contains("point of no return"));
    let a = vec![entry("a", Change::Changed, Some(Choice::Redo)), entry("point", Change::Same, Some(Choice::Keep))];
    assert!(story.refuses(rules(true), a).contains("point of no return"));
    story.amend(rules(false), vec![entry("point", Change::Rules, None)]);
    assert!(story.state.step(&"point".into()).expect("exists").rule().point_of_no_return, "it stays one");
}

#[test]
fn a_question_that_was_changed_is_asked_again() {
    let wait = WaitRule {
        kind: WaitKind::Approval,
        quorum: 2,
        exclude: vec![],
        allowed: None,
        expires_ms: None,
        ..WaitRule::new(WaitKind::Approval)
    };
    let ask = || StepRule { wait: Some(Box::new(wait.clone())), ..step("go", &[]) };
    let mut story = Story::new(vec![ask()]);
    story.say(&Event::StepWaiting {
        step: "go".into(),
        wait: WaitKind::Approval,
        prompt: "?".into(),
        expires_at: None,
        input: None,
    });
    let answer = crate::event::Answer::Approved { comment: None };
    story.say(&Event::StepAnswered { step: "go".into(), by: "ann".into(), answer }).ends(Outcome::Waiting);
    story.amend(vec![ask()], vec![entry("go", Change::Changed, None)]);
    assert_eq!(story.commands(), ["open go"]);
    assert_eq!(
        story.state.step(&"go".into()).expect("exists").answers().len(),
        0,
        "what was said was about something else"
    );
}

#[test]
fn a_run_that_is_over_is_not_amended() {
    let mut story = Story::new(vec![step("a", &[])]);
    story.succeed("a").ends(Outcome::Succeeded);
    assert!(story.refuses(vec![step("a", &[]), step("b", &[])], vec![]).contains("Succeeded"));
}

fn repeatable(id: &str, needs: &[&str]) -> StepRule {
    StepRule { idempotent: Idempotent::Yes, ..undoable(id, needs) }
}

#[test]
fn a_failed_step_that_may_be_repeated_is_mended_without_a_decision() {
    let rules = |b: StepRule| vec![undoable("a", &[]), StepRule { on_failure: OnFailure::Stop, ..b }];
    let mut story = Story::new(rules(repeatable("b", &["a"])));
    story.succeed("a").fail("b", Effect::Unknown).ends(Outcome::Failed);
    let changed = || vec![entry("b", Change::Changed, None)];
    let no = rules(undoable("b", &["a"]));
    assert!(story.refuses(no, changed()).contains("say whether it is kept"), "it may not be repeated as it is now");
    story.amend(rules(repeatable("b", &["a"])), changed());
    assert_eq!(story.commands(), ["start b"]);
    let view = story.state.step(&"b".into()).expect("exists");
    assert_eq!((view.effect_unknown(), view.before()), (true, Some(json!(1))), "its old attempt can still be undone");
    story.fail("b", Effect::None);
    let view = story.state.step(&"b".into()).expect("exists");
    assert_eq!((view.effect_unknown(), view.before()), (true, Some(json!(2))), "the new one looked at another world");
}

#[test]
fn the_failure_of_a_mended_step_no_longer_stops_the_run() {
    let rules = || vec![step("a", &[]), step("b", &[])];
    let mut story = Story::new(rules());
    story.fail("a", Effect::None);
    assert!(!story.commands().contains(&"start b".to_owned()), "nothing starts behind a failure");
    story.amend(rules(), vec![entry("a", Change::Changed, None)]);
    assert_eq!(story.commands(), ["start a", "start b"]);
    story.succeed("a").succeed("b").ends(Outcome::Succeeded);
}

#[test]
fn rules_that_forbid_what_they_allowed_are_kept() {
    let rules = |repeats, attempts_max| {
        let retry = Retry { attempts_max, initial_ms: 1_000, factor: 1.0, max_ms: 1_000 };
        let idempotent = if repeats { Idempotent::Yes } else { Idempotent::No };
        vec![StepRule { retry, idempotent, ..step("a", &[]) }]
    };
    let pausing = || {
        let mut story = Story::new(rules(true, 3));
        let attempt = story.start("a");
        let (error, effect) = ("broke".to_owned(), Effect::Unknown);
        let step = "a".into();
        story.say(&Event::AttemptFailed { step, attempt, error, effect, retryable: true, said: Vec::new() });
        story
    };
    let changed = || vec![entry("a", Change::Rules, None)];
    let mut story = pausing();
    story.amend(rules(false, 3), changed());
    assert_eq!(story.is("a"), StepState::InDoubt, "it is no longer repeatable");
    let mut story = pausing();
    story.amend(rules(true, 1), changed()).ends(Outcome::Failed);
    let mut story = pausing();
    story.amend(rules(true, 2), changed());
    assert_eq!(story.commands(), ["start a"], "the pause is over");
}

#[test]
fn a_step_that_gets_an_undo_on_the_way_back_is_undone_in_its_turn() {
    let rules = |c: StepRule| vec![undoable("a", &[]), undoable("b", &["a"]), c, undoable("d", &["c"])];
    let mut story = Story::new(rules(step("c", &["b"])));
    story.succeed("a").succeed("b").succeed("c").fail("d", Effect::None).settle();
    story.say(&Event::UndoStarted { step: "b".into(), attempt: 1 });
    let error = "broke".to_owned();
    story.say(&Event::UndoFailed { step: "b".into(), attempt: 1, error, retryable: false, said: Vec::new() });
    story.ends(Outcome::Stuck);
    let undo = || vec![entry("c", Change::Undo, None)];
    let point = StepRule { point_of_no_return: true, ..undoable("c", &["b"]) };
    assert!(story.refuses(rules(point), undo()).contains("while the run turns back"));
    let mut dropped = rules(undoable("c", &["b"]));
    dropped[0].has_undo = false;
    assert!(story.refuses(dropped, undo()).contains("not dropped"));
    story.amend(rules(undoable("c", &["b"])), undo());
    story.undo("c").undo("b").undo("a").ends(Outcome::RolledBack);
}

#[test]
fn an_attempt_whose_command_goes_on_keeps_its_locks_and_bars_what_would_be_done_again() {
    let locking = |id: &str| StepRule { locks: ["north/db".into()].into(), ..step(id, &[]) };
    let mut story = Story::new(vec![undoable("a", &[]), locking("b")]);
    story.succeed("a");
    story.start("b");
    let again = vec![entry("a", Change::Same, Some(Choice::Redo))];
    assert!(story.refuses(vec![undoable("a", &[]), locking("b")], again).contains("still be at work"));
    let event = amended(vec![entry("c", Change::Added, None)]);
    let new = flow(vec![undoable("a", &[]), locking("b"), locking("c")]);
    story.state.amend(&event, &new, Timestamp::UNIX_EPOCH).expect("nothing is in the way");
    story.say(&Event::RunResumed { by: "ann".into(), driver: "d".into(), held: vec!["b".into()], sealed_by: None });
    assert_eq!(story.commands(), Vec::<String>::new(), "`c` waits for the lock of `b`");
}

#[test]
fn what_is_newly_a_point_of_no_return_bars_the_way_as_well() {
    let point = |is| StepRule { point_of_no_return: is, ..undoable("point", &["a"]) };
    let rules =
        |is| vec![undoable("a", &[]), point(is), StepRule { on_failure: OnFailure::Stop, ..step("c", &["point"]) }];
    let mut story = Story::new(rules(false));
    story.succeed("a").succeed("point").fail("c", Effect::None).ends(Outcome::Failed);
    let redo = vec![entry("a", Change::Same, Some(Choice::Redo)), entry("point", Change::Rules, Some(Choice::Keep))];
    assert!(story.refuses(rules(true), redo).contains("point of no return"));
}

#[test]
fn a_question_stands_still_while_steps_are_undone_to_be_done_again() {
    let later = Timestamp::from_second(1).expect("in range");
    let question = StepRule { wait: Some(Box::new(WaitRule::new(WaitKind::Approval))), ..step("b", &[]) };
    let steps = || vec![undoable("a", &[]), question.clone()];
    let mut story = Story::new(steps());
    story.succeed("a").say(&Event::StepWaiting {
        step: "b".into(),
        wait: WaitKind::Approval,
        prompt: "?".into(),
        expires_at: Some(later),
        input: Some("i".into()),
    });
    story.ends(Outcome::Waiting);
    story.amend(steps(), vec![entry("a", Change::Same, Some(Choice::Redo))]);
    assert_eq!(story.state.next_wake(), None, "nobody is asked now");
    assert!(matches!(story.state.poll(later)[..], [Command::Undo { .. }]), "{:?}", story.state.poll(later));
    story.undo("a");
    assert_eq!(story.state.next_wake(), Some(later));
    let expired = Command::Record(Event::StepExpired { step: "b".into() });
    assert!(story.state.poll(later).contains(&expired), "its time goes on with the run");
}

#[test]
fn who_undid_a_step_is_remembered_until_it_begins_again() {
    let mut story = Story::new(vec![
        StepRule { undo_wait: Some(Box::new(WaitRule::new(WaitKind::Manual))), ..undoable("a", &[]) },
        StepRule { on_failure: OnFailure::Rollback, ..step("b", &["a"]) },
    ]);
    story.succeed("a").fail("b", Effect::None).settle();
    let (prompt, input) = ("?".to_owned(), "i".to_owned());
    story.say(&Event::UndoWaiting { step: "a".into(), prompt, expires_at: None, input });
    let answer = crate::event::Answer::Completed { form: Outputs::new(), evidence: [].into(), comment: None };
    let by_hand = |story: &Story| story.state.step(&"a".into()).is_some_and(|view| view.undone_by_hand());
    assert!(!by_hand(&story));
    story.say(&Event::StepAnswered { step: "a".into(), by: "ann".into(), answer });
    assert_eq!(story.is("a"), StepState::Undone);
    assert!(by_hand(&story));
}

/// An amendment puts a step before one that people undo already: what they answer is about theirs.
#[test]
fn whoever_undid_a_step_in_its_turn_took_no_other_one_off_the_way() {
    let by_hand = || StepRule { undo_wait: Some(Box::new(WaitRule::new(WaitKind::Manual))), ..undoable("a", &[]) };
    let rules = |b: StepRule| vec![by_hand(), b, StepRule { on_failure: OnFailure::Rollback, ..step("c", &["b"]) }];
    let asked = || {
        let mut story = Story::new(rules(step("b", &["a"])));
        story.succeed("a").succeed("b").fail("c", Effect::None).settle();
        let (prompt, input) = ("?".to_owned(), "i".to_owned());
        story.say(&Event::UndoWaiting { step: "a".into(), prompt, expires_at: None, input }).ends(Outcome::Waiting);
        story.amend(rules(undoable("b", &["a"])), vec![entry("b", Change::Undo, None)]);
        story
    };
    let answer = |answer| Event::StepAnswered { step: "a".into(), by: "ann".into(), answer };
    let completed = crate::event::Answer::Completed { form: Outputs::new(), evidence: [].into(), comment: None };
    let mut story = asked();
    story.say(&answer(completed));
    assert_eq!(story.is("a"), StepState::Undone);
    story.undo("b").ends(Outcome::RolledBack);
    // What cannot be undone, and is left as it is, bars nothing either.
    let mut story = asked();
    story.say(&answer(crate::event::Answer::Rejected { comment: None }));
    story.say(&answer(crate::event::Answer::Left { reason: "stays".into() }));
    assert_eq!((story.is("a"), story.did()), (StepState::Succeeded, vec![Override::Amended, Override::LeftDone]));
    story.undo("b").settle();
    assert!(story.state.outcome().is_some(), "{:?}", story.commands());
}

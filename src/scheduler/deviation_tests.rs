//! Deviations one by one: what each does, when it cannot be, and how many people must stand behind it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::tests::{Story, approval, run_started, step, undoable};
use super::*;
use crate::event::{Answer, Budget, Consent, Departure, Effect, Outcome, Outputs, SkipReason, WaitKind};
use crate::ids::{Account, Actor, How, Level};

fn wants(by: &str, step: Option<&str>, what: Departure) -> Event {
    Event::DeviationRequested { step: step.map(StepId::from), by: by.into(), what, reason: "must be".into() }
}

fn agrees(by: &str, step: Option<&str>) -> Event {
    let answer = Consent::Agreed { comment: None };
    Event::DeviationAnswered { step: step.map(StepId::from), by: by.into(), answer }
}

fn says(by: &str, step: Option<&str>, answer: Consent) -> Event {
    Event::DeviationAnswered { step: step.map(StepId::from), by: by.into(), answer }
}

fn done() -> Departure {
    Departure::Done { outputs: Outputs::from([("rows".to_owned(), json!(7))]) }
}

/// Two of the database people, but not who started the run.
fn four_eyes() -> Arc<DeviationRule> {
    Arc::new(DeviationRule {
        quorum: 2,
        exclude: vec!["ann".into()],
        allowed: Some(["ann", "bob", "eve"].map(Actor::from).to_vec()),
        expires_ms: Some(1_000),
        identity: Level::Claimed,
    })
}

fn guarded(rule: StepRule) -> StepRule {
    StepRule { deviations: Some(four_eyes()), ..rule }
}

/// A run of which `b` was passed over for `a`, which failed.
fn passed_over() -> Story {
    let a = StepRule { on_failure: OnFailure::Continue, ..step("a", &[]) };
    let mut story = Story::new(vec![a, step("b", &["a"]), step("c", &["b"]), step("other", &[])]);
    story.fail("a", Effect::None).settle();
    assert_eq!((story.is("b"), story.is("c")), (StepState::Skipped, StepState::Skipped));
    story
}

#[test]
fn a_step_that_was_passed_over_starts_by_force_with_all_behind_it() {
    let mut story = passed_over();
    story.say(&wants("bob", Some("b"), Departure::Force));
    assert_eq!(story.commands(), ["start b", "start other"]);
    story.succeed("b").succeed("c").succeed("other").ends(Outcome::Failed);
    let deviation = &story.state.deviations()[0];
    assert_eq!(
        (deviation.what, &deviation.by, &deviation.reason),
        (Override::Forced, &"bob".into(), &"must be".into())
    );
}

#[test]
fn force_does_not_ask_the_condition_again() {
    let mut story = Story::new(vec![StepRule { has_when: true, ..step("a", &[]) }, step("last", &["a"])]);
    story.say(&Event::StepSkipped { step: "a".into(), reason: SkipReason::When });
    story.say(&wants("bob", Some("a"), Departure::Force));
    let asks = |command| matches!(command, Command::Start { check_when: true, .. });
    assert!(!story.state.poll(story.now).into_iter().any(asks));
    assert_eq!(story.commands(), ["start a"], "and what needs it waits for it again");
}

#[test]
fn nothing_is_forced_beside_what_it_needs_nor_twice() {
    let a = StepRule { on_failure: OnFailure::Continue, ..step("a", &[]) };
    let mut story = Story::new(vec![a, step("b", &[]), step("c", &["a", "b"]), step("d", &["b"])]);
    let force = wants("bob", Some("c"), Departure::Force);
    assert!(story.refuses(&force).contains("was not passed over"), "it has not come to it");
    story.start("b").fail("a", Effect::None).settle();
    assert_eq!(story.is("c"), StepState::Skipped);
    assert!(story.refuses(&force).contains("has not ended"), "b is at work");
    story.say(&Event::AttemptSucceeded { step: "b".into(), attempt: 1, outputs: Outputs::new(), said: vec![] });
    story.say(&force).start("c");
    assert!(story.refuses(&force).contains("was not passed over"));
}

#[test]
fn a_force_at_rest_waits_for_what_is_tried_again_and_holds_once() {
    let mut story = Story::new(vec![step("a", &[]), step("b", &["a"])]);
    story.fail("a", Effect::None).ends(Outcome::Failed);
    assert!(story.refuses(&wants("bob", Some("b"), Departure::Force)).contains("was not passed over"));
    let mut story = passed_over();
    story.succeed("other").ends(Outcome::Failed);
    story.say(&wants("bob", Some("b"), Departure::Force)).resume();
    assert_eq!(story.commands(), ["start a"], "what failed has its turn first");
    story.fail("a", Effect::None).settle();
    assert_eq!(story.commands(), ["start b"]);
    story.fail("b", Effect::None).ends(Outcome::Failed).resume().fail("a", Effect::None).settle();
    assert_eq!(story.is("b"), StepState::Skipped, "it was for one time");
}

#[test]
fn a_failed_step_counts_as_done_when_a_person_says_so() {
    let mut story = Story::new(vec![undoable("a", &[]), step("b", &["a"]), step("c", &["b"])]);
    story.succeed("a").fail("b", Effect::Unknown).ends(Outcome::Failed);
    let before = story.state.step(&"b".into()).expect("exists").attempts();
    story.say(&wants("bob", Some("b"), done()));
    let view = story.state.step(&"b".into()).expect("exists");
    assert_eq!(
        (view.state(), view.outputs()["rows"].clone(), view.effect_unknown()),
        (StepState::Succeeded, json!(7), false)
    );
    assert_eq!(view.attempts(), before);
    story.resume();
    assert_eq!(story.commands(), ["start c"]);
    story.succeed("c").ends(Outcome::Succeeded);
    assert_eq!(story.state.deviations()[0].what, Override::MarkedDone);
}

#[test]
fn what_was_marked_as_done_is_undone_in_its_turn() {
    let mut story = Story::new(vec![undoable("a", &[]), undoable("b", &["a"]), undoable("c", &["b"])]);
    story.say(&wants("bob", Some("b"), done())).succeed("a").fail("c", Effect::None);
    story.undo("a").undo("b").ends(Outcome::RolledBack);
}

#[test]
fn a_run_that_comes_to_another_end_runs_finally_again() {
    let last = StepRule { phase: Phase::Finally, ..step("last", &[]) };
    let mut story = Story::new(vec![step("a", &[]), last]);
    story.fail("a", Effect::None).succeed("last").ends(Outcome::Failed);
    story.say(&wants("bob", Some("a"), done())).resume().succeed("last").ends(Outcome::Succeeded);
}

#[test]
fn a_finally_step_that_failed_can_be_marked_as_done() {
    let last = StepRule { phase: Phase::Finally, ..step("last", &[]) };
    let mut story = Story::new(vec![step("a", &[]), last]);
    story.succeed("a").fail("last", Effect::None).ends(Outcome::Failed);
    story.say(&wants("bob", Some("last"), done())).resume().ends(Outcome::Succeeded);
}

#[test]
fn what_is_at_work_or_over_or_asks_for_consent_is_not_marked_as_done() {
    let mut story = Story::new(vec![step("a", &[]), step("b", &[]), approval("go", 1)]);
    story.start("a").succeed("b");
    for name in ["a", "b"] {
        assert!(story.refuses(&wants("bob", Some(name), done())).contains("only a step that has not started"));
    }
    assert!(story.refuses(&wants("bob", Some("go"), done())).contains("approved or skipped"));
    story.resume();
    assert_eq!(story.is("a"), StepState::InDoubt);
    assert!(story.refuses(&wants("bob", Some("a"), done())).contains("only a step that has not started"));
}

#[test]
fn nothing_is_deviated_from_while_a_run_turns_back() {
    let mut story = Story::new(vec![undoable("a", &[]), undoable("b", &["a"]), step("c", &["b"])]);
    story.succeed("a").fail("b", Effect::None).settle();
    for what in [Departure::Force, done()] {
        let error = story.refuses(&wants("bob", Some("c"), what));
        assert!(error.contains("turns back") || error.contains("was not passed over"), "{error}");
    }
}

#[test]
fn a_failed_step_without_effect_can_be_skipped_when_the_run_rests() {
    let mut story = Story::new(vec![step("a", &[]), step("b", &["a"])]);
    story.fail("a", Effect::None);
    let skip = Event::SkipRequested { step: "a".into(), by: "bob".into(), reason: "no need".into() };
    assert!(story.refuses(&skip).contains("in a run that rests"));
    story.ends(Outcome::Failed).say(&skip).resume().settle().succeed("b").ends(Outcome::Succeeded);
    assert_eq!(story.state.deviations()[0].what, Override::Skipped);
    let mut story = Story::new(vec![step("a", &[])]);
    story.fail("a", Effect::Unknown).ends(Outcome::Failed);
    assert!(story.refuses(&skip).contains("without effect"));
}

#[test]
fn budgets_grow_and_never_shrink() {
    let retry = Retry { attempts_max: 2, initial_ms: 0, factor: 1.0, max_ms: 0 };
    let run = RunRule { timeout_ms: Some(100), windows: [("w".to_owned(), 50)].into(), ..RunRule::default() };
    let mut story = Story::with(vec![StepRule { retry, timeout_ms: Some(10), ..step("a", &[]) }, step("b", &[])], run);
    let extends = |step, budget| wants("bob", step, Departure::Extend(budget));
    for (step, budget) in [
        (Some("a"), Budget::Timeout { ms: 10 }),
        (Some("a"), Budget::Attempts { count: 1 }),
        (None, Budget::Run { ms: 99 }),
        (None, Budget::Window { name: "w".into(), ms: 5 }),
    ] {
        assert!(story.refuses(&extends(step, budget)).contains("as much already"));
    }
    assert!(story.refuses(&extends(Some("b"), Budget::Timeout { ms: 10 })).contains("no such limit"));
    assert!(story.refuses(&extends(None, Budget::Window { name: "x".into(), ms: 5 })).contains("no such limit"));
    assert!(story.refuses(&extends(None, Budget::Timeout { ms: 50 })).contains("one of a step"));
    story.say(&extends(Some("a"), Budget::Timeout { ms: 20 })).say(&extends(Some("a"), Budget::Attempts { count: 3 }));
    story.say(&extends(None, Budget::Run { ms: 300 })).say(&extends(None, Budget::Window { name: "w".into(), ms: 60 }));
    assert_eq!((story.state.timeout_ms(&"a".into()), story.state.window_ms("w")), (Some(20), Some(60)));
    story.fail("a", Effect::None).fail("a", Effect::None);
    story.pass(200).succeed("a").pass(99).settle();
    assert_eq!(story.state.outcome(), None);
    story.pass(1).settle();
    assert!(
        story.refuses(&extends(None, Budget::Run { ms: 900 })).contains("resume") || story.state.outcome().is_some()
    );
    let was: Vec<_> = story.state.deviations().iter().filter_map(|deviation| deviation.extended.clone()).collect();
    assert_eq!(was.iter().map(|(_, was)| *was).collect::<Vec<_>>(), [10, 2, 100, 50]);
}

#[test]
fn where_two_must_agree_one_alone_changes_nothing() {
    let mut story = Story::new(vec![guarded(step("a", &[])), step("b", &[])]);
    let skip = |by: &str| Event::SkipRequested { step: "a".into(), by: by.into(), reason: "no need".into() };
    story.say(&skip("ann"));
    assert_eq!(story.commands(), ["start a", "start b"], "a proposal holds nothing up");
    assert!(story.refuses(&skip("bob")).contains("proposed about it"));
    assert!(story.refuses(&agrees("ann", Some("a"))).contains("does not count"), "excluded, though in the group");
    assert!(story.refuses(&agrees("zoe", Some("a"))).contains("does not count"), "not in the group");
    story.say(&agrees("bob", Some("a")));
    assert!(story.refuses(&agrees("bob", Some("a"))).contains("stands behind it already"));
    assert_eq!(story.commands(), ["start a", "start b"], "the one who wanted it does not count");
    story.say(&agrees("eve", Some("a"))).settle();
    assert_eq!(story.is("a"), StepState::Skipped);
    let deviation = &story.state.deviations()[0];
    assert_eq!((deviation.by.as_str(), deviation.agreed.len()), ("ann", 2));
}

#[test]
fn whoever_counts_and_wants_it_is_one_of_the_quorum() {
    let mut story = Story::new(vec![guarded(step("a", &[]))]);
    story.say(&wants("bob", Some("a"), done()));
    assert_eq!(story.is("a"), StepState::Ready);
    story.say(&agrees("eve", Some("a")));
    assert_eq!(story.is("a"), StepState::Succeeded);
}

#[test]
fn a_proposal_ends_by_a_no_by_its_time_and_by_whatever_happens_to_its_step() {
    let fresh = || {
        let mut story = Story::new(vec![guarded(step("a", &[])), step("b", &["a"])]);
        story.say(&wants("bob", Some("a"), done()));
        story
    };
    for (by, answer) in [("eve", Consent::Denied { comment: None }), ("bob", Consent::Retracted { comment: None })] {
        let mut story = fresh();
        story.say(&says(by, Some("a"), answer));
        assert!(story.refuses(&agrees("eve", Some("a"))).contains("nothing is proposed"));
    }
    let mut story = fresh();
    assert!(story.refuses(&says("zoe", Some("a"), Consent::Denied { comment: None })).contains("does not count"));
    assert!(story.refuses(&says("eve", Some("a"), Consent::Retracted { comment: None })).contains("has not agreed"));
    story.pass(1_000);
    assert!(story.refuses(&agrees("eve", Some("a"))).contains("time to agree is over"));
    story.say(&wants("eve", Some("a"), done()));
    story.start("a");
    assert!(story.refuses(&agrees("bob", Some("a"))).contains("nothing is proposed"), "it is not the step it was");
}

#[test]
fn a_question_is_not_skipped_by_people_who_may_not_answer_it() {
    let account = Account { user: "ann".into(), uid: 1, host: "h".into() };
    let Event::RunStarted { runbook, version, digest, site, params, piton, source, parent, sealed_by, .. } =
        run_started()
    else {
        panic!("it is the start")
    };
    let by = Actor::identified("ann", How::Local(account));
    let start = Event::RunStarted {
        runbook,
        version,
        digest,
        site,
        by,
        params,
        piton,
        source,
        parent,
        sealed_by,
        signed: None,
    };
    let rule = DeviationRule { exclude: vec![], allowed: None, ..(*four_eyes()).clone() };
    let steps = vec![StepRule { deviations: Some(Arc::new(rule)), ..approval("go", 1) }];
    let mut state = State::new(Arc::new(Workflow::new(steps, RunRule::default()).expect("hangs together")));
    let now = jiff::Timestamp::UNIX_EPOCH;
    state.apply(&start, now).expect("starts");
    let skip = |by: &str| Event::SkipRequested { step: "go".into(), by: by.into(), reason: "no need".into() };
    assert!(state.after(&skip("eve"), now).expect_err("excluded from answering").to_string().contains("excluded"));
    state.apply(&skip("bob"), now).expect("may answer");
    let error = state.after(&agrees("eve", Some("go")), now).expect_err("excluded from answering");
    assert!(error.to_string().contains("excluded"), "{error}");
    state.apply(&agrees("ann", Some("go")), now).expect("may answer");
    assert!(matches!(state.poll(now)[..], [Command::Record(Event::StepSkipped { .. })]));
}

#[test]
fn a_signature_is_asked_of_whoever_wants_or_agrees() {
    let rule = DeviationRule { identity: Level::Ssh, ..(*four_eyes()).clone() };
    let story = Story::new(vec![StepRule { deviations: Some(Arc::new(rule)), ..step("a", &[]) }]);
    assert!(story.refuses(&wants("bob", Some("a"), done())).contains("wants a signature"));
}

#[test]
fn to_leave_a_step_obeys_the_same_quorum() {
    let mut story = Story::new(vec![guarded(undoable("a", &[])), step("b", &["a"])]);
    story.succeed("a");
    story.say(&Event::RollbackRequested {
        by: "ann".into(),
        reason: "no".into(),
        driver: String::new(),
        sealed_by: None,
    });
    story.say(&Event::UndoStarted { step: "a".into(), attempt: 1 });
    let error = "cannot".to_owned();
    story.say(&Event::UndoFailed { step: "a".into(), attempt: 1, error, retryable: false, said: vec![] });
    story.ends(Outcome::Stuck);
    let left = Answer::Left { reason: "may stay".into() };
    let alone = Event::StepAnswered { step: "a".into(), by: "bob".into(), answer: left };
    assert!(story.refuses(&alone).contains("more people must agree"));
    story.say(&wants("bob", Some("a"), Departure::Leave)).say(&agrees("eve", Some("a")));
    story.resume().ends(Outcome::RolledBack);
    assert_eq!(story.state.deviations()[0].what, Override::LeftDone);
}

#[test]
fn an_amendment_needs_the_quorum_of_the_plan_before_it_and_ends_what_was_allowed() {
    let run = || RunRule { timeout_ms: Some(100), deviations: Some(four_eyes()), ..RunRule::default() };
    let mut story = Story::with(vec![step("a", &[]), step("b", &["a"])], run());
    story.succeed("a").fail("b", Effect::None).ends(Outcome::Failed);
    story.say(&wants("bob", None, Departure::Extend(Budget::Run { ms: 500 }))).say(&agrees("eve", None));
    let amended = |by: &str| Event::RunAmended {
        by: by.into(),
        reason: "mended".into(),
        version: "2".into(),
        was: "d".into(),
        digest: "e".into(),
        params: [].into(),
        source: Value::Null,
        signed: None,
        steps: Vec::new(),
        voids: Vec::new(),
    };
    // The new rules want nobody, which is why the old ones must be asked.
    let new = Workflow::new(vec![step("a", &[]), step("b", &["a"])], RunRule { deviations: None, ..run() });
    let new = new.expect("hangs together");
    let refused = story.state.clone().amend(&amended("bob"), &new, story.now).expect_err("one alone");
    assert!(refused.to_string().contains("more people to agree"), "{refused}");
    let amend = |digest: &str| Departure::Amend { digest: digest.into(), steps: Vec::new() };
    story.say(&wants("bob", None, amend("other"))).say(&agrees("eve", None));
    assert!(story.state.clone().amend(&amended("bob"), &new, story.now).is_err(), "they agreed to another plan");
    story.say(&wants("bob", None, amend("e"))).say(&agrees("eve", None));
    story.state.amend(&amended("ann"), &new, story.now).expect("enough agreed, whoever does it");
    let whats: Vec<Override> = story.state.deviations().iter().map(|deviation| deviation.what).collect();
    assert_eq!(whats, [Override::Extended, Override::Amended]);
    assert_eq!(story.state.deviations()[1].agreed, ["bob", "eve"].map(Actor::from));
    story.resume().pass(100).settle();
    assert!(story.state.outcome_so_far() == Outcome::Failed, "the time is that of the new plan");
}

#[test]
fn a_manual_step_that_expired_can_be_marked_as_done() {
    let mut hand = approval("hand", 1);
    if let Some(wait) = &mut hand.wait {
        wait.kind = WaitKind::Manual;
    }
    let mut story = Story::new(vec![hand, step("b", &["hand"])]);
    let (expires_at, input) = (Some(story.now), None);
    story.say(&Event::StepWaiting {
        step: "hand".into(),
        wait: WaitKind::Manual,
        prompt: "?".into(),
        expires_at,
        input,
    });
    story.settle().ends(Outcome::Failed);
    story.say(&wants("bob", Some("hand"), done())).resume().succeed("b").ends(Outcome::Succeeded);
}

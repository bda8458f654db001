//! Questions to people one by one: who is told when, who may answer from when on, and when it is over.

use jiff::SignedDuration;

use super::tests::{Story, approval, step, yes};
use super::*;
use crate::event::{Answer, Event, Occasion, Outcome, WaitKind};

/// Asks ann or bob; from 1 s on zoe as well, until 3 s; people are told again every 400 ms.
fn question() -> StepRule {
    let mut rule = approval("go", 1);
    if let Some(wait) = &mut rule.wait {
        wait.escalation = Some(Escalation { allowed: Some(vec!["zoe".into(), "eve".into()]), expires_ms: Some(2_000) });
        wait.remind_ms = Some(400);
        wait.tells = true;
    }
    rule
}

fn asked(rule: StepRule) -> Story {
    let mut story = Story::new(vec![rule, step("after", &["go"])]);
    let expires_at = Some(story.now + SignedDuration::from_millis(1_000));
    let input = Some("digest".to_owned());
    let wait =
        Event::StepWaiting { step: "go".into(), wait: WaitKind::Approval, prompt: "?".into(), expires_at, input };
    story.say(&wait);
    story
}

fn told(story: &mut Story, occasion: Occasion) -> &mut Story {
    story.say(&Event::PeopleTold { step: "go".into(), occasion, sent: true, error: None })
}

fn answers(by: &str, answer: Answer) -> Event {
    Event::StepAnswered { step: "go".into(), by: by.into(), answer }
}

fn next(story: &Story) -> Option<i64> {
    story.state.next_wake().map(|at| at.as_millisecond() - story.now.as_millisecond())
}

#[test]
fn people_are_told_when_they_are_asked_and_again_and_others_when_time_is_over() {
    let mut story = asked(question());
    assert_eq!(story.commands(), ["tell go", "start after"][..1], "a run does not rest before people know");
    told(&mut story, Occasion::Asked);
    assert_eq!(next(&story), Some(400));
    assert!(story.commands().iter().all(|command| command.starts_with("record run_finished")), "now it may rest");
    story.pass(450);
    assert_eq!(story.commands(), ["tell go"]);
    told(&mut story, Occasion::Reminded);
    let early = Event::PeopleTold { step: "go".into(), occasion: Occasion::Reminded, sent: true, error: None };
    assert!(story.refuses(&early).contains("nothing to tell"));
    story.pass(550);
    let due = story.state.poll(story.now).into_iter().find_map(|command| match command {
        Command::Tell { occasion, .. } => Some(occasion),
        _ => None,
    });
    assert_eq!(due, Some(Occasion::Reminded), "what was due first comes first");
    told(&mut story, Occasion::Reminded);
    told(&mut story, Occasion::Escalated);
    assert!(
        story
            .refuses(&Event::PeopleTold { step: "go".into(), occasion: Occasion::Escalated, sent: true, error: None })
            .contains("nothing to tell")
    );
    story.pass(2_000).settle().ends(Outcome::Failed);
}

#[test]
fn others_may_answer_from_their_time_on_whether_or_not_anybody_was_there_to_tell_them() {
    let mut story = asked(question());
    assert!(story.refuses(&answers("zoe", yes())).contains("not among those"));
    assert!(story.refuses(&Event::StepExpired { step: "go".into() }).contains("time is not over"));
    story.pass(1_000);
    assert!(story.refuses(&answers("eve", yes())).contains("excluded"), "an escalation lifts no exclusion");
    assert!(story.refuses(&answers("max", yes())).contains("not among those"));
    assert!(story.state.after(&answers("ann", yes()), story.now).is_ok(), "whoever was asked first still may");
    assert!(story.refuses(&Event::StepExpired { step: "go".into() }).contains("time is not over"));
    story.pass(1_999);
    assert!(story.state.after(&answers("zoe", yes()), story.now).is_ok());
    story.pass(1);
    assert!(story.refuses(&answers("zoe", yes())).contains("the time to answer is over"));
    story.settle().ends(Outcome::Failed);
}

#[test]
fn an_escalation_without_an_end_waits_for_as_long_as_it_takes() {
    let mut rule = question();
    if let Some(wait) = &mut rule.wait {
        (wait.remind_ms, wait.tells) = (None, false);
        wait.escalation = Some(Escalation { allowed: None, expires_ms: None });
    }
    let mut story = asked(rule);
    story.pass(1_000_000).settle();
    told(&mut story, Occasion::Escalated);
    story.say(&answers("max", yes())).succeed("after").ends(Outcome::Succeeded);
}

#[test]
fn nobody_is_told_of_what_is_answered_or_over() {
    let mut story = asked(question());
    story.pass(3_000);
    assert_eq!(story.commands(), ["record step_expired"]);
    let mut story = asked(question());
    story.say(&answers("ann", yes()));
    let late = Event::PeopleTold { step: "go".into(), occasion: Occasion::Asked, sent: true, error: None };
    assert!(story.refuses(&late).contains("nothing to tell"), "the answer was faster");
}

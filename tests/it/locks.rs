//! Locks of steps that several runbooks of one store share: one at a time, whoever dies.

use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::cli::state;
use super::held;
use super::journal_drivers::{Post, said};

/// A runbook whose one step holds `north/db` while the file of its name is missing.
fn holder(name: &str, idempotent: &str) -> String {
    let script =
        format!("echo {name} >> log; touch {name}.in; until test -e {name}; do sleep 0.02; done; rm {name}.in");
    format!("steps: [{{ id: work, locks: [north/db], idempotent: {idempotent}, exec: {{ shell: '{script}' }} }}]\n")
}

/// Waits until the lock has this many waiters.
#[track_caller]
fn wait_for_line(post: &Post, waiters: usize) -> Json {
    let until = Instant::now() + Duration::from_mins(1);
    loop {
        let locks = post.piton(&["locks", "--json"]).exits(0).json();
        if locks[0]["waiters"].as_array().is_some_and(|line| line.len() == waiters) {
            return locks[0].clone();
        }
        assert!(Instant::now() < until, "nobody waits: {locks}");
    }
}

#[test]
fn steps_of_two_runs_hold_a_lock_one_after_the_other() {
    for post in Post::each("step_locks") {
        post.desk.runbook("one", &holder("one", "no"));
        post.desk.runbook("two", &holder("two", "no"));
        let one = post.start(&["run", "one.yaml", "--run-id", "r-1"]);
        post.desk.wait_for("one.in");
        let two = post.start(&["run", "two.yaml", "--run-id", "r-2"]);
        let lock = wait_for_line(&post, 1);
        assert_eq!((&lock["lock"], &lock["run"], &lock["step"]), (&"north/db".into(), &"r-1".into(), &"work".into()));
        assert_eq!((&lock["waiters"][0]["run"], &lock["fence"]), (&"r-2".into(), &1.into()));
        assert!(lock["lease_until"].is_string() && lock["stays"] == true, "{lock}");
        assert_eq!(post.count("two"), 0);
        post.write("one");
        post.desk.wait_for("two.in");
        post.write("two");
        assert_eq!((said(one).code, said(two).code), (0, 0));
        assert!(post.piton(&["locks"]).exits(0).out.contains("no locks are held"));
        post.verify("r-2");
    }
}

/// Starts the run `first` and kills its driver when something is seen.
fn kill_first(post: &Post, seen: impl Fn() -> bool) {
    let mut first = post.start(&["run", "first.yaml", "--run-id", "first"]);
    let until = Instant::now() + Duration::from_mins(1);
    while !seen() {
        assert!(Instant::now() < until, "its step never started");
    }
    first.kill().expect("it lives");
    first.wait().expect("it ends");
}

#[test]
fn the_lock_of_a_killed_driver_goes_on_if_its_step_may_be_repeated() {
    for post in Post::each("killed_waiter") {
        post.desk.runbook("first", "steps: [{ id: work, locks: [north/db], wait.for: { duration: 1h } }]\n");
        post.desk.runbook("next", &holder("next", "yes"));
        kill_first(&post, || {
            let show = post.piton(&["show", "first", "--json"]);
            show.code == 0 && state(&show.json(), "work") == "running"
        });
        post.write("next");
        post.piton(&["run", "next.yaml"]).exits(0);
    }
}

#[test]
fn a_command_that_outlives_its_driver_keeps_its_lock() {
    for post in Post::each("outlived") {
        post.desk.runbook("first", &holder("first", "yes"));
        post.desk.runbook("next", &holder("next", "yes"));
        kill_first(&post, || post.desk.path("first.in").exists());
        let next = post.start(&["run", "next.yaml", "--run-id", "r-2"]);
        post.write("next");
        let lock = wait_for_line(&post, 1);
        assert_eq!((&lock["run"], &lock["stays"], &lock["lease_until"]), (&"first".into(), &true.into(), &Json::Null));
        assert_eq!(post.count("next"), 0);
        post.write("first");
        post.piton(&["resume", "first"]).exits(0);
        assert_eq!(said(next).code, 0);
        assert_eq!((post.count("first"), post.count("next")), (1, 1));
    }
}

#[test]
fn the_lock_of_a_step_in_doubt_stays_until_a_person_has_spoken() {
    for post in Post::each("killed_holder") {
        post.desk.runbook("first", &holder("first", "no"));
        post.desk.runbook("next", &holder("next", "yes"));
        kill_first(&post, || post.desk.path("first.in").exists());
        held::end(held::holder(&post.desk, "work"));
        let next = post.start(&["run", "next.yaml", "--run-id", "r-2"]);
        post.write("next");
        let lock = wait_for_line(&post, 1);
        assert_eq!((&lock["run"], &lock["stays"], &lock["lease_until"]), (&"first".into(), &true.into(), &Json::Null));
        assert!(post.piton(&["locks"]).exits(0).out.contains("in doubt"));
        // Nobody but a person knows; the word frees the lock.
        post.piton(&["resume", "first"]).exits(5);
        assert_eq!(wait_for_line(&post, 1)["run"], "first");
        post.piton(&["decide", "first", "work", "--ran", "--reason", "seen"]).exits(0);
        let next = said(next);
        assert_eq!(next.code, 0, "{}", next.err);
        // What the killed holder left running ends as well.
        post.write("first");
    }
}

/// A step that says which fence it finds, in its environment and in its arguments.
const SAYS_FENCES: &str =
    "argv: [/bin/sh, -c, 'echo $PITON_LOCK=$PITON_LOCK_FENCE $0 [$PITON_LOCK_FENCES] >> fences', '{{ lock.fence }}']";

#[test]
fn a_step_knows_the_fence_of_its_lock_and_each_taking_has_a_higher_one() {
    for post in Post::each("fences") {
        post.desk.runbook(
            "fenced",
            &format!(
                "locks: [north/site]\nsteps:\n  - {{ id: own, locks: [north/db], exec: {{ {SAYS_FENCES} }}, undo: {{ exec: {{ {SAYS_FENCES} }} }} }}\n  - {{ id: whole, needs: [own], exec: {{ {SAYS_FENCES} }} }}\n  - {{ id: last, needs: [whole], exec: {{ argv: [test, -e, there] }}, idempotent: yes }}\n"
            ),
        );
        post.piton(&["run", "fenced.yaml", "--run-id", "r-1"]).exits(4);
        let first = "north/db=1 1 [north/db=1 north/site=1]\nnorth/site=1 1 [north/site=1]\n";
        let fences = || std::fs::read_to_string(post.desk.path("fences")).expect("was said");
        assert_eq!(fences(), first);
        let input = post.piton(&["show", "r-1", "--events", "--json"]);
        assert!(!input.out.contains("\"fence\":"), "{}", input.out);
        post.write("there");
        post.piton(&["resume", "r-1"]).exits(0);
        assert_eq!(fences(), first, "nothing ran again");
        // The run let go of its lock and took it again for the way back; so did the step.
        post.piton(&["rollback", "r-1", "--reason", "not wanted", "--yes"]).exits(0);
        assert_eq!(fences(), format!("{first}north/db=2 2 [north/db=2 north/site=3]\n"));
        post.piton(&["run", "fenced.yaml"]).exits(0);
        assert!(
            fences().ends_with("north/db=3 3 [north/db=3 north/site=4]\nnorth/site=4 4 [north/site=4]\n"),
            "{}",
            fences()
        );
    }
}

#[test]
fn child_runs_that_would_wait_for_each_other_end_with_a_reason() {
    for post in Post::each("child_circle") {
        // Names that are known only in a run pass the check; the journal refuses the one who would close the circle.
        let child = |name: &str, other: &str| {
            let script = format!("touch in-{name}; until test -e in-{other}; do sleep 0.02; done");
            format!(
                "params: {{ lock: {{ type: string }} }}\nsteps:\n  - {{ id: meet, exec: {{ shell: '{script}' }}, idempotent: yes }}\n  - {{ id: want, needs: [meet], locks: ['{{{{ params.lock }}}}'], exec: {{ argv: ['true'] }}, idempotent: yes }}\n"
            )
        };
        post.desk.runbook("one", &child("one", "two"));
        post.desk.runbook("two", &child("two", "one"));
        post.desk.runbook(
            "both",
            "steps:\n  - { id: name, exec: { argv: [echo, b], outputs: { b: { stdout: true } } }, idempotent: yes }\n  - { id: x, needs: [name], locks: [a], runbook: { path: one.yaml, params: { lock: '{{ steps.name.outputs.b }}' } }, on_failure: continue }\n  - { id: y, needs: [name], locks: [b], runbook: { path: two.yaml, params: { lock: a } }, on_failure: continue }\n",
        );
        let run = post.piton(&["run", "both.yaml", "--run-id", "r-1"]).exits(4);
        let show = post.piton(&["show", "r-1", "--json"]).exits(0).json();
        let mut states = [state(&show, "x"), state(&show, "y")];
        states.sort_unstable();
        assert_eq!(states, ["failed", "succeeded"], "{}", run.out);
        let reasons = post.piton(&["show", "r-1.x"]).out + &post.piton(&["show", "r-1.y"]).out;
        assert!(reasons.contains("would never be free"), "{reasons}");
    }
}

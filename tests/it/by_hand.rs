//! Work by hand through the `piton` program: steps that people do and undo, whose work it is, what they fill in and read.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::cli::{Desk, Said, state};

const SITE: &str = "apiVersion: piton/v1\nkind: Site\nname: here\npeople:\n  ann: { groups: [ops] }\n  bob: { groups: [ops] }\n  eve: { groups: [bosses] }\n";

/// A rack that is put up by hand and taken down by hand; then something fails.
const RACK: &str = "on_failure: rollback
steps:
  - id: first
    exec: { argv: [touch, begun] }
    undo: { exec: { argv: [touch, undone] } }
  - id: rack
    needs: [first]
    exec: { argv: ['true'] }
    undo: { manual: { instructions: 'Pull **both** plugs of {{ site.name }}', people: [ann, bob], assignee: ann, form: { plugs: { type: integer, minimum: 2 } } } }
  - { id: fails, needs: [rack], exec: { argv: ['false'] }, idempotent: yes }
";

fn desk(steps: &str) -> Desk {
    let desk = Desk::new();
    desk.write("site.yaml", SITE);
    desk.runbook("job", steps);
    desk
}

fn run(desk: &Desk) -> Said {
    desk.piton(&["run", "job.yaml", "--site", "site.yaml", "--run-id", "r"])
}

fn drives(desk: &Desk, args: &[&str]) -> Child {
    desk.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

fn audit(desk: &Desk, run: &str) -> Vec<Json> {
    desk.piton(&["audit", run, "--json"]).exits(0).json_lines()
}

/// Waits until a run asks something of people.
#[track_caller]
fn asked(desk: &Desk, run: &str) -> Json {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let said = desk.piton(&["show", run, "--json"]);
        if said.code == 0
            && let Some(ask) = said.json()["waiting_for"].get(0)
        {
            return ask.clone();
        }
        assert!(Instant::now() < until, "`{run}` asks nobody: {}{}", said.out, said.err);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_undo_by_hand_is_asked_answered_and_the_rollback_goes_on() {
    let desk = desk(RACK);
    let out = run(&desk).exits(6).out;
    assert!(out.contains("waits to be undone by ann: Pull both plugs of here"), "{out}");
    let ask = asked(&desk, "r");
    assert_eq!((&ask["step"], &ask["undo"], &ask["assignee"]), (&json!("rack"), &json!(true), &json!("ann")));
    assert_eq!(ask["prompt"], "Pull **both** plugs of here");
    assert_eq!(ask["commands"][0], "piton answer r rack --set plugs=INTEGER");
    assert!(!desk.path("undone").exists(), "the newest is undone first");
    desk.piton(&["resume", "r"]).exits(6);
    let said = desk.piton(&["answer", "r", "rack", "--set", "plugs=1", "--as", "ann"]).exits(2);
    assert!(said.err.contains("field `plugs`: 1 is less than 2"), "{}", said.err);
    desk.piton(&["answer", "r", "rack", "--set", "plugs=2", "--as", "ann"]).exits(0);
    desk.piton(&["resume", "r"]).exits(4);
    let show = desk.show();
    assert_eq!((state(&show, "rack"), state(&show, "first")), ("undone", "undone"));
    assert_eq!(show["outcome"], "rolled_back");
    assert!(desk.path("undone").exists());
    desk.piton(&["audit", "verify", "r"]).exits(0);
}

#[test]
fn what_is_anothers_to_do_is_refused_until_it_is_handed_over() {
    let desk = desk(RACK);
    run(&desk).exits(6);
    let answer = ["answer", "r", "rack", "--set", "plugs=2", "--as", "bob"];
    let said = desk.piton(&answer).exits(2);
    assert!(said.err.contains("assigned to somebody else"), "{}", said.err);
    let refused = audit(&desk, "r").into_iter().rfind(|record| record["kind"] == "word_refused").expect("on record");
    assert_eq!(
        (&refused["by"], &refused["word"], &refused["step"]),
        (&json!("bob"), &json!("completed"), &json!("rack"))
    );
    assert!(desk.piton(&["audit", "r"]).exits(0).out.contains("REFUSED: \"completed\" by bob"));
    let listed = desk.piton(&["approvals", "--for", "bob", "--json"]).exits(0).json_lines();
    assert_eq!(listed, Vec::<Json>::new(), "it is ann's");
    let hand_over = |to: &'static str, by: &'static str| {
        desk.piton(&["assign", "r", "rack", "--to", to, "--reason", "end of shift", "--as", by])
    };
    assert!(hand_over("eve", "ann").exits(2).err.contains("may not answer it"));
    assert!(hand_over("bob", "eve").exits(2).err.contains("not among those who may answer"));
    assert!(hand_over("ann", "bob").exits(2).err.contains("that person's already"));
    hand_over("bob", "ann").exits(0);
    assert!(desk.piton(&["audit", "r"]).exits(0).out.contains("handed over to bob by ann"));
    assert_eq!(asked(&desk, "r")["assignee"], "bob");
    let late = desk.piton(&["answer", "r", "rack", "--set", "plugs=2", "--as", "ann"]).exits(2);
    assert!(late.err.contains("assigned to somebody else"), "{}", late.err);
    desk.piton(&answer).exits(0);
    desk.piton(&["resume", "r"]).exits(4);
    let nothing = desk.piton(&["assign", "r", "rack", "--to", "ann", "--reason", "x", "--as", "bob"]).exits(2);
    assert!(!nothing.err.is_empty());
}

#[test]
fn an_undo_that_cannot_be_done_leaves_the_run_stuck_and_is_asked_again() {
    let desk = desk(RACK);
    run(&desk).exits(6);
    let rejected = || {
        desk.piton(&["approve", "r", "rack", "--reject", "--comment", "no key", "--as", "ann"]).exits(0);
        desk.piton(&["resume", "r"]).exits(5);
    };
    rejected();
    desk.piton(&["resume", "r"]).exits(6);
    rejected();
    let ask = asked(&desk, "r");
    assert_eq!(ask["kind"], "undo");
    assert!(ask["prompt"].as_str().expect("text").contains("no key"), "{ask}");
    assert!(ask["since"].is_string(), "{ask}");
    let other = desk.piton(&["decide", "r", "rack", "--undone", "--reason", "so I heard", "--as", "eve"]).exits(2);
    assert!(other.err.contains("not among those who may answer"), "{}", other.err);
    desk.piton(&["decide", "r", "rack", "--undone", "--reason", "it fell over", "--as", "ann"]).exits(0);
    desk.piton(&["resume", "r"]).exits(4);
}

#[test]
fn a_driver_that_is_killed_while_an_undo_waits_asks_nobody_twice() {
    let desk = desk(RACK);
    let mut driver = drives(&desk, &["run", "job.yaml", "--site", "site.yaml", "--run-id", "r", "--wait"]);
    assert_eq!(asked(&desk, "r")["undo"], json!(true));
    driver.kill().expect("SIGKILL");
    driver.wait().expect("it ends");
    desk.piton(&["resume", "r"]).exits(6);
    let count = |kind: &str| audit(&desk, "r").iter().filter(|record| record["kind"] == kind).count();
    assert_eq!(count("undo_waiting"), 1, "the question stands");
    let mut driver = drives(&desk, &["resume", "r", "--wait"]);
    // An answer that comes while nobody drives the run counts as well.
    driver.kill().expect("SIGKILL");
    driver.wait().expect("it ends");
    desk.piton(&["answer", "r", "rack", "--set", "plugs=2", "--as", "ann"]).exits(0);
    desk.piton(&["resume", "r"]).exits(4);
    assert_eq!((count("undo_waiting"), count("undo_succeeded")), (1, 1));
    desk.piton(&["audit", "verify", "r"]).exits(0);
}

/// A rack that is put up and stays, and what comes behind it and fails.
fn put_up(undo: &str) -> Desk {
    desk(&format!(
        "steps:\n  - {{ id: rack, exec: {{ argv: ['true'] }}, undo: {{ {undo} }} }}\n  - {{ id: fails, needs: [rack], exec: {{ argv: ['false'] }}, idempotent: yes }}\n"
    ))
}

#[test]
fn a_step_is_not_redone_under_another_kind_of_undo() {
    let (manual, exec) = ("manual: { instructions: Take it down }", "exec: { argv: [touch, down] }");
    for (old, new) in [(manual, exec), (exec, manual)] {
        let desk = put_up(old);
        run(&desk).exits(4);
        desk.runbook(
            "job",
            &format!("steps:\n  - {{ id: rack, exec: {{ argv: [echo] }}, undo: {{ {new} }} }}\n  - {{ id: fails, needs: [rack], exec: {{ argv: ['true'] }}, idempotent: yes }}\n"),
        );
        let amend = |choice: &str| {
            desk.piton(&["resume", "r", "--runbook", "job.yaml", "--reason", "better", "--yes", choice, "rack"])
        };
        let refused = amend("--redo").exits(2);
        assert!(refused.err.contains("undone by hand in one runbook and not in the other"), "{}", refused.err);
        amend("--keep").exits(0);
        assert!(!desk.path("down").exists());
    }
}

#[test]
fn the_undo_of_a_step_that_was_taken_out_is_answered_by_its_name() {
    let desk = put_up("manual: { instructions: Take it down }");
    run(&desk).exits(4);
    desk.runbook(
        "job",
        "on_failure: rollback\nsteps:\n  - { id: fails, exec: { argv: ['false'] }, idempotent: yes }\n",
    );
    desk.piton(&["resume", "r", "--runbook", "job.yaml", "--reason", "no rack", "--yes"]).exits(6);
    assert_eq!(asked(&desk, "r")["step"], "rack");
    let unknown = desk.piton(&["answer", "r", "rakc"]).exits(2);
    assert!(unknown.err.contains("did you mean `rack`"), "{}", unknown.err);
    let gone = desk.piton(&["decide", "r", "rack", "--ran", "--reason", "x"]).exits(2);
    assert!(gone.err.contains("no step `rack` any more"), "{}", gone.err);
    desk.piton(&["answer", "r", "rack"]).exits(0);
    desk.piton(&["resume", "r"]).exits(4);
    assert_eq!(desk.show()["outcome"], "rolled_back");
}

#[test]
fn whoever_undoes_by_hand_has_the_locks_of_the_step_meanwhile() {
    let desk = desk(&RACK.replace("    needs: [first]\n", "    needs: [first]\n    locks: [north/rack]\n"));
    run(&desk).exits(6);
    let locks = desk.piton(&["locks", "--json"]).exits(0).json();
    assert_eq!(
        (&locks[0]["lock"], &locks[0]["step"], &locks[0]["stays"]),
        (&json!("north/rack"), &json!("rack"), &json!(true))
    );
    desk.piton(&["answer", "r", "rack", "--set", "plugs=2", "--as", "ann"]).exits(0);
    desk.piton(&["resume", "r"]).exits(4);
    assert!(desk.piton(&["locks"]).exits(0).out.contains("no locks are held"));
}

#[test]
fn work_by_hand_is_asked_for_each_item() {
    let desk = desk(
        "steps:\n  - { id: look, foreach: { items: [north, south] }, manual: { instructions: 'Look at {{ item }}', form: { lamp: { type: enum, values: [green, red] } } } }\n  - { id: after, needs: [look], exec: { argv: [touch, done] } }\n",
    );
    run(&desk).exits(6);
    let asks = desk.show()["waiting_for"].clone();
    assert_eq!((&asks[0]["step"], &asks[1]["prompt"]), (&json!("look[north]"), &json!("Look at south")));
    assert_eq!(asks[0]["commands"][0], "piton answer r 'look[north]' --set 'lamp=green|red'");
    desk.piton(&["answer", "r", "look[north]", "--set", "lamp=green"]).exits(0);
    desk.piton(&["resume", "r"]).exits(6);
    assert!(!desk.path("done").exists());
    desk.piton(&["answer", "r", "look[south]", "--set", "lamp=red"]).exits(0);
    desk.piton(&["resume", "r"]).exits(0);
    assert!(desk.path("done").exists());
}

#[test]
fn work_by_hand_in_a_child_run_is_shown_to_whoever_looks_at_the_parent() {
    let desk = desk("steps:\n  - { id: sub, runbook: { path: child.yaml } }\n");
    desk.runbook(
        "child",
        "steps:\n  - { id: look, manual: { instructions: 'Look *closely*', form: { seen: { type: boolean } } } }\n",
    );
    let driver = drives(&desk, &["run", "job.yaml", "--site", "site.yaml", "--run-id", "r"]);
    let ask = asked(&desk, "r");
    assert_eq!((&ask["run"], &ask["step"]), (&json!("r.sub"), &json!("look")));
    let text = desk.piton(&["show", "r"]).exits(0).out;
    assert!(text.contains("`look` of run r.sub waits for anybody") && text.contains("Look closely"), "{text}");
    assert!(text.contains("piton answer r.sub look --set seen=BOOLEAN"), "{text}");
    assert!(desk.piton(&["approvals"]).exits(0).out.contains("piton answer r.sub look"));
    desk.piton(&["answer", "r.sub", "look", "--set", "seen=perhaps"]).exits(2);
    desk.piton(&["answer", "r.sub", "look", "--set", "seen=yes"]).exits(0);
    let said: Said = driver.wait_with_output().expect("it ends").into();
    let out = said.exits(0).out;
    assert!(out.contains("piton answer r.sub look --set seen=BOOLEAN"), "the driver says how to answer: {out}");
    assert_eq!(desk.piton(&["show", "r", "--json"]).exits(0).json()["waiting_for"], json!([]));
}

#[test]
fn a_field_that_is_filled_in_wrong_is_named() {
    let desk = desk(
        "steps:\n  - { id: look, manual: { instructions: Look, form: { lamp: { type: enum, values: [green, red] }, day: { type: date }, at: { type: time }, count: { type: integer, maximum: 9, optional: true } } } }\n",
    );
    run(&desk).exits(6);
    let good = ["lamp=green", "day=2026-11-30", "at=2026-11-30T02:15:00+01:00"];
    let answer = |fields: &[&str]| {
        let sets = fields.iter().flat_map(|field| ["--set", field]);
        desk.piton(&["answer", "r", "look"].into_iter().chain(sets).collect::<Vec<_>>())
    };
    for (place, bad, why) in [
        (0, "lamp=blue", "field `lamp`: \"blue\" is not one of `green`, `red`"),
        (1, "day=2026-02-30", "field `day`: \"2026-02-30\" is not a day like `2026-11-30`"),
        (1, "day=30.11.2026", "field `day`"),
        (2, "at=02:15", "field `at`: \"02:15\" is not a time like `2026-11-30T02:15:00Z`"),
        (2, "at=2026-11-30", "field `at`"),
        (0, "lmap=green", "the form has no field `lmap`"),
    ] {
        let mut fields = good;
        fields[place] = bad;
        let err = answer(&fields).exits(2).err;
        assert!(err.contains(why), "{bad}: {err}");
    }
    let err = answer(&[&good[..], &["count=10"]].concat()).exits(2).err;
    assert!(err.contains("field `count`: 10 is more than 9"), "{err}");
    assert!(answer(&good[..2]).exits(2).err.contains("field `at` is missing; add `--set at=TIME`"));
    answer(&good).exits(0);
    desk.piton(&["resume", "r"]).exits(0);
    let outputs = &desk.show()["steps"][0]["outputs"];
    assert_eq!(outputs, &json!({ "lamp": "green", "day": "2026-11-30", "at": "2026-11-30T02:15:00+01:00" }));
}

#[test]
fn instructions_are_read_as_markdown_and_nothing_in_them_becomes_part_of_a_page() {
    let text = "# Take it down\n\n1. Pull **both** plugs\n2. <img src=x onerror=alert(1)>\n\n<script>alert(1)</script>\n\n[call](javascript:alert(1))\n";
    let desk = desk("steps:\n  - { id: look, manual: { instructions: look.md } }\n");
    desk.write("look.md", text);
    run(&desk).exits(6);
    let shown = desk.piton(&["show", "r"]).exits(0).out;
    assert!(shown.contains("    Take it down\n\n    1. Pull both plugs\n"), "{shown}");
    desk.piton(&["answer", "r", "look"]).exits(0);
    desk.piton(&["resume", "r"]).exits(0);
    desk.piton(&["report", "r", "--to", "out"]).exits(0);
    let page = std::fs::read_to_string(desk.path("out/report.html")).expect("the page is there");
    assert!(page.contains("<h4>Take it down</h4>") && page.contains("<strong>both</strong>"), "it is rendered");
    for bad in ["<script", "<img", "href=\"javascript"] {
        assert!(!page.contains(bad), "`{bad}` is in the page");
    }
}

//! `piton rollback` from outside: the plan of it, the confirmation, who stands on the run, a second crash, an undo that fails.

use std::process::Stdio;

use super::cli::{Desk, state};

/// Two steps that leave a file each, with undos that take it away and say so; `b`'s undo fails while `broken` is there.
const TWO: &str = "achieves: [m/two]\nlocks: [thing]\nsteps:\n  - { id: look, wait.for: { duration: 1ms } }\n  - { id: a, needs: [look], exec: { argv: [touch, a] }, undo: { exec: { shell: 'rm a && echo a >> undone' } } }\n  - { id: b, needs: [a], exec: { argv: [touch, b] }, undo: { exec: { shell: '[ ! -e broken ] && rm b && echo b >> undone' } } }\n  - { id: c, needs: [b], exec: { argv: ['true'] } }\nfinally:\n  - { id: tell, exec: { shell: 'echo {{ run.outcome }} >> ends' } }\n";

fn desk() -> Desk {
    let desk = Desk::new();
    desk.runbook("two", TWO);
    desk.runbook("next", "requires: { milestones: [m/two] }\nsteps: [{ id: a, exec: { argv: ['true'] } }]\n");
    desk.piton(&["run", "two.yaml", "--run-id", "r1"]).exits(0);
    desk
}

fn read(desk: &Desk, name: &str) -> String {
    std::fs::read_to_string(desk.path(name)).unwrap_or_default()
}

#[test]
fn a_finished_run_is_undone_in_reverse_order_and_gives_its_milestone_back() {
    let desk = desk();
    let plan = desk.piton(&["rollback", "r1", "--plan"]).exits(0).out;
    let places = ["1. b  (exec)", "2. a  (exec)", "stays as it is: `c`", "taken back: milestone `m/two`"];
    assert!(places.iter().all(|part| plan.contains(part)) && !plan.contains("look"), "{plan}");
    let json = desk.piton(&["rollback", "r1", "--plan", "--json"]).exits(0).json();
    assert_eq!(json["undo"][0]["step"], "b");
    assert_eq!(json["revokes"][0], "m/two");
    desk.piton(&["rollback", "r1"]).exits(2);
    let unsure = desk.piton(&["rollback", "r1", "--reason", "not wanted"]).exits(2);
    assert!(unsure.err.contains("--yes"), "{}", unsure.err);
    assert!(desk.path("a").exists() && desk.path("b").exists(), "nothing was touched so far");
    assert_eq!(desk.show()["outcome"], "succeeded");

    let back = desk.piton(&["rollback", "r1", "--reason", "not wanted", "--yes", "--as", "ann"]).exits(0);
    assert!(back.out.contains("took back m/two"), "{}", back.out);
    assert_eq!(read(&desk, "undone"), "b\na\n");
    assert_eq!(read(&desk, "ends"), "succeeded\nrolled_back\n");
    let show = desk.show();
    assert_eq!((state(&show, "a"), show["outcome"].as_str()), ("undone", Some("rolled_back")));
    assert_eq!(desk.piton(&["milestones", "--json"]).json(), serde_json::json!([]));
    assert_eq!(desk.piton(&["locks", "--json"]).json(), serde_json::json!([]));
    let audit = desk.piton(&["audit", "r1"]).exits(0).out;
    assert!(audit.contains("ann has the run rolled back: not wanted"), "{audit}");
    assert_eq!(desk.piton(&["audit", "verify", "r1", "--json"]).exits(0).json()["intact"], true);
    desk.piton(&["rollback", "r1", "--reason", "again", "--yes"]).exits(2);
    desk.piton(&["resume", "r1"]).exits(2);
}

#[test]
fn a_run_that_later_runs_stand_on_is_rolled_back_only_when_told_so_twice() {
    let desk = desk();
    desk.piton(&["run", "next.yaml", "--run-id", "r2"]).exits(0);
    let refused = desk.piton(&["rollback", "r1", "--reason", "not wanted", "--yes"]).exits(2);
    assert!(refused.err.contains("r2 (next) required milestone `m/two`"), "{}", refused.err);
    assert!(desk.path("a").exists());
    let json = desk.piton(&["rollback", "r1", "--plan", "--json"]).exits(0).json();
    assert_eq!(json["later_runs"][0]["milestones"][0], "m/two");
    desk.piton(&["rollback", "r1", "--reason", "not wanted", "--yes", "--despite-later-runs"]).exits(0);
    desk.piton(&["run", "two.yaml", "--run-id", "r3"]).exits(0);
    desk.piton(&["run", "two.yaml", "--run-id", "r4"]).exits(0);
    let refused = desk.piton(&["rollback", "r3", "--reason", "not wanted", "--yes"]).exits(2);
    assert!(refused.err.contains("r4 (two) worked on `thing` since"), "{}", refused.err);
}

#[test]
fn an_interrupted_rollback_is_resumed() {
    let desk = Desk::new();
    desk.runbook(
        "slow",
        "steps:\n  - { id: a, exec: { argv: [touch, a] }, undo: { exec: { argv: [rm, a] } } }\n  - { id: b, needs: [a], exec: { argv: ['true'] }, undo: { exec: { shell: 'touch began; [ -e again ] || sleep 30' } } }\n",
    );
    desk.piton(&["run", "slow.yaml", "--run-id", "r1"]).exits(0);
    let mut child = desk
        .command(&["rollback", "r1", "--reason", "not wanted", "--yes"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    desk.wait_for("began");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert_eq!(desk.show()["outcome"], serde_json::Value::Null);
    desk.write("again", "");
    desk.piton(&["resume", "r1"]).exits(4);
    assert_eq!(desk.show()["outcome"], "rolled_back");
    assert!(!desk.path("a").exists());
}

#[test]
fn an_undo_that_fails_is_tried_again_or_settled_by_a_person() {
    let desk = desk();
    desk.write("broken", "");
    let stuck = desk.piton(&["rollback", "r1", "--reason", "not wanted", "--yes"]).exits(5);
    assert!(stuck.out.contains("piton decide r1 b --undone"), "{}", stuck.out);
    let show = desk.show();
    assert_eq!((state(&show, "b"), show["waiting_for"][0]["kind"].as_str()), ("undoing", Some("undo")));
    assert!(show["note"].as_str().is_some_and(|note| note.contains("still to be undone: `a`, `b`")), "{show}");
    assert_eq!(desk.piton(&["milestones", "--json"]).json()[0]["milestone"], "m/two", "not back yet");
    desk.piton(&["resume", "r1"]).exits(5);
    desk.piton(&["decide", "r1", "a", "--undone", "--reason", "x"]).exits(2);
    desk.piton(&["decide", "r1", "b", "--undone", "--leave", "--reason", "x"]).exits(2);
    desk.piton(&["decide", "r1", "b", "--leave", "--reason", "harmless"]).exits(0);
    desk.piton(&["resume", "r1"]).exits(4);
    let show = desk.show();
    assert_eq!((state(&show, "a"), state(&show, "b")), ("undone", "succeeded"));
    assert_eq!(show["deviations"][0]["what"], "left_done");
    assert!(desk.path("b").exists() && !desk.path("a").exists());
}

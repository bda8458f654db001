//! `piton diff` and `piton resume --runbook` from outside: what is kept, asked for, done again, undone by which plan.

use super::cli::{Desk, state};

fn steps(a: &str, b: &str, more: &str) -> String {
    format!(
        "params: {{ name: {{ type: string, default: one }} }}\nsteps:\n  - {{ id: a, exec: {{ shell: 'echo {a} >> log' }}, undo: {{ exec: {{ shell: 'echo undo-{a}-{{{{ params.name }}}} >> log' }} }} }}\n  - {{ id: b, needs: [a], exec: {{ shell: 'echo {{{{ params.name }}}} >> log' }}, idempotent: yes }}\n  - {{ id: c, needs: [b], exec: {{ shell: '{b}' }}, idempotent: yes }}\n{more}"
    )
}

/// A run that failed at `c`, after `a` and `b`.
fn failed() -> Desk {
    let desk = Desk::new();
    desk.runbook("work", &steps("a1", "false", ""));
    desk.piton(&["run", "work.yaml", "--run-id", "r1"]).exits(4);
    assert_eq!(log(&desk), "a1\none\n");
    desk
}

fn log(desk: &Desk) -> String {
    std::fs::read_to_string(desk.path("log")).unwrap_or_default()
}

fn change<'j>(diff: &'j serde_json::Value, step: &str) -> &'j str {
    let rows = diff["steps"].as_array().expect("steps");
    rows.iter().find(|row| row["step"] == step).expect("is there")["change"].as_str().expect("a word")
}

#[test]
fn a_mended_step_runs_and_what_is_done_is_kept() {
    let desk = failed();
    let same = desk.piton(&["diff", "r1", "--json"]).exits(0).json();
    assert_eq!((same["same"].as_bool(), change(&same, "a")), (Some(true), "same"));
    desk.runbook("work", &steps("a1", "true", "  - { id: d, needs: [c], exec: { argv: ['true'] } }\n"));
    let diff = desk.piton(&["diff", "r1", "--json"]).exits(0).json();
    assert_eq!(["a", "b", "c", "d"].map(|step| change(&diff, step)), ["same", "same", "changed", "added"]);
    desk.piton(&["resume", "r1"]).exits(4);
    desk.piton(&["resume", "r1", "--runbook", "work.yaml"]).exits(2);
    let unsure = desk.piton(&["resume", "r1", "--runbook", "work.yaml", "--reason", "mended c"]).exits(2);
    assert!(unsure.err.contains("--yes") && unsure.out.contains("`d`: added"), "{} {}", unsure.out, unsure.err);
    let args = ["resume", "r1", "--runbook", "work.yaml", "--reason", "mended c", "--yes", "--as", "ann"];
    desk.piton(&args).exits(0);
    assert_eq!(log(&desk), "a1\none\n", "nothing ran twice");
    let show = desk.show();
    assert_eq!((state(&show, "c"), state(&show, "d")), ("succeeded", "succeeded"));
    let audit = desk.piton(&["audit", "r1"]).exits(0).out;
    assert!(audit.contains("ann has it go on") && audit.contains("`c`: changed"), "{audit}");
    assert_eq!(desk.piton(&["audit", "verify", "r1", "--json"]).exits(0).json()["intact"], true);
    let drawn = desk.piton(&["graph", "--run", "r1", "--format", "dot"]).exits(0).out;
    assert!(drawn.contains("\"d\""), "{drawn}");
}

#[test]
fn a_changed_step_that_is_done_is_kept_or_done_again_as_a_person_says() {
    let desk = failed();
    desk.runbook("work", &steps("a2", "true", ""));
    let diff = desk.piton(&["diff", "r1"]).exits(5).out;
    assert!(diff.contains("--keep a"), "{diff}");
    let base = ["resume", "r1", "--runbook", "work.yaml", "--reason", "better", "--yes"];
    let refused = desk.piton(&base).exits(2);
    assert!(refused.err.contains("`a` was changed and is done already"), "{}", refused.err);
    let alone = desk.piton(&[&base[..], &["--redo", "a"]].concat()).exits(2);
    assert!(alone.err.contains("`b` needs `a`"), "{}", alone.err);
    desk.piton(&[&base[..], &["--from", "a"]].concat()).exits(0);
    assert_eq!(log(&desk), "a1\none\nundo-a1-one\na2\none\n", "undone as it was done, then done anew");
}

#[test]
fn another_value_of_a_parameter_is_another_input() {
    let desk = failed();
    desk.runbook("work", &steps("a1", "true", ""));
    let base = ["resume", "r1", "--runbook", "work.yaml", "--reason", "other name", "--yes", "--param", "name=two"];
    let diff = desk.piton(&["diff", "r1", "--param", "name=two", "--json"]).exits(5).json();
    assert_eq!((change(&diff, "a"), change(&diff, "b")), ("same", "inputs"));
    desk.piton(&base).exits(2);
    desk.piton(&[&base[..], &["--keep", "b"]].concat()).exits(0);
    desk.piton(&["rollback", "r1", "--reason", "not wanted", "--yes"]).exits(0);
    assert_eq!(log(&desk), "a1\none\nundo-a1-one\n", "undone with the parameters that it was done with");
}

#[test]
fn a_removed_step_is_undone_by_its_old_undo_and_a_mended_undo_is_the_new_one() {
    let desk = Desk::new();
    let step = |id: &str, needs: &str, undo: &str| {
        format!(
            "  - {{ id: {id}, needs: [{needs}], exec: {{ argv: ['true'] }}, undo: {{ exec: {{ shell: '{undo}' }} }} }}\n"
        )
    };
    let last = "  - { id: z, needs: [b], exec: { argv: ['false'] }, idempotent: yes, on_failure: stop }\n";
    desk.runbook("work", &format!("steps:\n{}{}{last}", step("a", "", "echo a-old >> log"), step("b", "a", "false")));
    desk.piton(&["run", "work.yaml", "--run-id", "r1"]).exits(4);
    desk.piton(&["rollback", "r1", "--reason", "not wanted", "--yes"]).exits(5);
    desk.runbook("work", &format!("steps:\n{}{last}", step("b", "", "echo b-new >> log")));
    let args = ["resume", "r1", "--runbook", "work.yaml", "--reason", "mended the undo", "--yes"];
    desk.piton(&args).exits(4);
    assert_eq!(log(&desk), "b-new\na-old\n");
    let show = desk.show();
    assert_eq!((state(&show, "a"), show["outcome"].as_str()), ("undone", Some("rolled_back")));
}

#[test]
fn a_renamed_step_is_not_run_again_and_another_runbook_is_refused() {
    let desk = failed();
    let text = steps("a1", "true", "").replace("id: a,", "id: first,").replace("needs: [a]", "needs: [first]");
    desk.runbook("work", &text);
    let diff = desk.piton(&["diff", "r1", "--json"]).exits(0).json();
    assert_eq!((change(&diff, "first"), change(&diff, "b")), ("renamed", "rules"));
    desk.piton(&["resume", "r1", "--runbook", "work.yaml", "--reason", "clearer", "--yes"]).exits(0);
    assert_eq!(log(&desk), "a1\none\n");
    desk.runbook("other", "steps: [{ id: a, exec: { argv: ['true'] } }]\n");
    let other = desk.piton(&["diff", "r1", "--runbook", "other.yaml"]).exits(2);
    assert!(other.err.contains("`work`, not `other`"), "{}", other.err);
}

/// What is to be done again is undone as it was done, also when the runbook is changed once more before it is.
#[test]
fn a_step_that_is_to_be_done_again_keeps_its_undo_through_further_amendments() {
    let text = |word: &str, undo: &str, last: &str| {
        format!(
            "steps:\n  - {{ id: a, exec: {{ shell: 'echo {word} >> log' }}, undo: {{ exec: {{ shell: 'echo {undo} >> log' }} }} }}\n  - {{ id: b, needs: [a], exec: {{ argv: ['true'] }}, undo: {{ manual: {{ instructions: Pull }} }} }}\n  - {{ id: c, needs: [b], exec: {{ shell: '{last}' }}, idempotent: yes }}\n"
        )
    };
    // Its undo alone is another one now, or its work as well.
    for (word, undo) in [("a", "undo-2"), ("b", "undo-b")] {
        let desk = Desk::new();
        desk.runbook("work", &text("a", "undo-a", "false"));
        desk.piton(&["run", "work.yaml", "--run-id", "r1"]).exits(4);
        let amend = |more: &[&str]| {
            let base = ["resume", "r1", "--runbook", "work.yaml", "--reason", "better", "--yes"];
            desk.piton(&[&base[..], more].concat())
        };
        desk.runbook("work", &text(word, undo, "false"));
        amend(&["--from", "a"]).exits(6);
        desk.runbook("work", &text(word, undo, "true"));
        amend(&[]).exits(6);
        desk.piton(&["answer", "r1", "b"]).exits(0);
        desk.piton(&["resume", "r1"]).exits(0);
        assert_eq!(log(&desk), format!("a\nundo-a\n{word}\n"));
        desk.piton(&["audit", "verify", "r1"]).exits(0);
    }
}

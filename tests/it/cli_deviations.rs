//! Deviations through the `piton` program: what is done at once, what others must agree to, and that it can be seen for ever.

use std::process::Stdio;

use serde_json::json;

use super::cli::{Desk, Said, state};

/// `work` may fail, `after` needs it, `aside` does not.
const STEPS: &str = "steps:
  - { id: work, idempotent: yes, on_failure: continue, exec: { argv: [test, -e, ready], outputs: { text: { stdout: true } } } }
  - { id: after, needs: [work], exec: { argv: [touch, after] }, undo: { exec: { argv: [rm, after] } } }
  - { id: said, needs: [after], exec: { argv: [echo, 'got {{ steps.work.outputs.text }}'], outputs: { line: { stdout: true } } } }
";

/// Two people of three must agree, and the one who started the run does not count.
const QUORUM: &str = "deviations: { quorum: 2, groups: [dba], exclude: [run.starter] }\n";

const SITE: &str = "apiVersion: piton/v1\nkind: Site\nname: here\npeople:\n  ann: { groups: [dba] }\n  bob: { groups: [dba] }\n  sue: { groups: [dba] }\n  zoe: {}\n";

fn failed(head: &str, steps: &str) -> Desk {
    let desk = Desk::new();
    desk.write("site.yaml", SITE);
    desk.runbook("job", &format!("{head}{steps}"));
    desk.piton(&["run", "job.yaml", "--site", "site.yaml", "--as", "sue"]).exits(4);
    desk
}

#[test]
fn a_step_that_was_passed_over_is_forced_and_the_run_shows_it_for_ever() {
    let desk = failed(
        "",
        "steps:\n  - { id: work, idempotent: yes, on_failure: continue, exec: { argv: ['false'] } }\n  - { id: after, needs: [work], exec: { argv: [touch, after] } }\n",
    );
    desk.piton(&["force", "last", "work", "--reason", "x"]).exits(2);
    desk.piton(&["force", "last", "after", "--reason", " "]).exits(2);
    let said = desk.piton(&["force", "last", "after", "--reason", "the check is wrong", "--as", "ann"]).exits(0);
    assert!(said.err.contains("deviation"), "{}", said.err);
    desk.piton(&["resume", "last"]).exits(4);
    assert!(desk.path("after").exists());
    let show = desk.show();
    assert_eq!((state(&show, "work"), state(&show, "after")), ("failed", "succeeded"));
    let deviation = &show["deviations"][0];
    assert_eq!(
        (&deviation["what"], &deviation["by"], &deviation["step"]),
        (&json!("forced"), &json!("ann"), &json!("after"))
    );
    let text = desk.piton(&["show", "last"]).exits(0).out;
    let (deviates, table) = (text.find("deviation:").expect("is there"), text.find("✗ work").expect("the table"));
    assert!(deviates < table, "{text}");
    desk.piton(&["report", "last", "--to", "page"]).exits(0);
    let page = std::fs::read_to_string(desk.path("page/report.html")).expect("a page");
    assert!(page.contains("was started, although it was to be passed over, by ann: the check is wrong"));
}

#[test]
fn a_failed_step_is_declared_done_with_what_others_use() {
    let desk = failed("", STEPS);
    let missing = desk.piton(&["done", "last", "work", "--reason", "by hand"]).exits(2);
    assert!(missing.err.contains("--output text=VALUE"), "{}", missing.err);
    desk.piton(&["done", "last", "work", "--reason", "by hand", "--output", "text=7 rows"]).exits(0);
    desk.piton(&["resume", "last"]).exits(0);
    let show = desk.show();
    let said = show["steps"].as_array().expect("steps").iter().find(|step| step["id"] == "said").expect("is there");
    assert_eq!(said["outputs"]["line"], "got 7 rows");
    assert_eq!(show["deviations"][0]["what"], "marked_done");
    let audit = desk.piton(&["audit", "last"]).exits(0).out;
    assert!(
        audit.contains("wants it to count as done (text 7 rows): by hand") && audit.contains("1 deviation(s)"),
        "{audit}"
    );
    desk.piton(&["audit", "verify", "last"]).exits(0);
}

#[test]
fn an_automatic_undo_of_what_nobody_looked_at_asks_a_person() {
    let desk = Desk::new();
    desk.runbook(
        "job",
        "on_failure: rollback\nsteps:\n  - { id: write, when: 'false', file.write: { path: note, content: hello }, undo: auto }\n  - { id: ask, approval: { prompt: 'Go on?' } }\n",
    );
    desk.piton(&["run", "job.yaml"]).exits(6);
    desk.write("note", "hello");
    desk.piton(&["done", "last", "write", "--reason", "wrote it by hand"]).exits(0);
    desk.piton(&["approve", "last", "ask", "--reject"]).exits(0);
    let stuck = desk.piton(&["resume", "last"]).exits(5);
    assert!(stuck.out.contains("undo it by hand"), "{}", stuck.out);
    assert!(desk.path("note").exists(), "nothing was taken away that nobody had looked at");
    desk.piton(&["decide", "last", "write", "--undone", "--reason", "removed it"]).exits(0);
    desk.piton(&["resume", "last"]).exits(4);
    assert_eq!(desk.show()["outcome"], "rolled_back");
}

#[test]
fn an_attempt_at_work_is_given_more_time() {
    let desk = Desk::new();
    desk.runbook("job", "windows: [{ name: down, opens: slow, closes: slow, budget: 1s }]\nsteps:\n  - { id: slow, timeout: 4s, exec: { shell: 'touch began; while ! [ -e enough ]; do sleep 0.05; done' } }\n");
    let mut command = desk.command(&["run", "job.yaml"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    desk.wait_for("began");
    let shorter = desk.piton(&["extend", "last", "slow", "--timeout", "2s", "--reason", "x"]).exits(2);
    assert!(shorter.err.contains("as much already"), "{}", shorter.err);
    desk.piton(&["extend", "last", "--attempts", "2", "--reason", "x"]).exits(2);
    desk.piton(&["extend", "last", "slow", "--timeout", "10m", "--reason", "nearly there"]).exits(0);
    desk.piton(&["extend", "last", "--window", "down=10m", "--reason", "agreed with the customer"]).exits(0);
    // It would have been stopped by now.
    std::thread::sleep(std::time::Duration::from_millis(4_500));
    desk.write("enough", "");
    let said: Said = child.wait_with_output().expect("it ends").into();
    let out = said.exits(0).out;
    assert!(out.contains("extended from 4.0s to 10m00s by"), "{out}");
    let window = &desk.show()["windows"][0];
    let budgets = (&window["budget_ms"], &window["budget_was_ms"], &window["over_budget"]);
    assert_eq!(budgets, (&json!(600_000), &json!(1_000), &json!(false)));
    assert_eq!(desk.show()["deviations"][1]["budget"], json!({ "window": { "name": "down", "ms": 600_000 } }));
}

#[test]
fn what_others_must_agree_to_waits_for_them() {
    let desk = failed(QUORUM, STEPS);
    let want = ["done", "last", "work", "--reason", "by hand", "--output", "text=x", "--as", "sue"];
    let said = desk.piton(&want).exits(0).out;
    assert!(said.contains("`work` still waits for ann, bob; 0 of 2 agreed") && said.contains("piton agree"), "{said}");
    let listed = desk.piton(&["approvals", "--for", "ann", "--json"]).exits(0).json_lines();
    assert_eq!((listed[0]["kind"].clone(), listed[0]["step"].clone()), (json!("deviation"), json!("work")));
    assert_eq!(desk.piton(&["approvals", "--for", "sue"]).exits(0).out, "nothing waits for a person\n");
    let refused = desk.piton(&["agree", "last", "work", "--as", "sue"]).exits(2);
    assert!(refused.err.contains("does not count"), "{}", refused.err);
    desk.piton(&["agree", "last", "work", "--as", "zoe"]).exits(2);
    desk.piton(&["agree", "last", "work", "--as", "ann"]).exits(0);
    desk.piton(&["agree", "last", "work", "--as", "ann"]).exits(2);
    assert_eq!(state(&desk.show(), "work"), "failed");
    desk.piton(&["agree", "last", "work", "--as", "bob", "--comment", "saw it"]).exits(0);
    assert_eq!(state(&desk.show(), "work"), "succeeded");
    desk.piton(&["resume", "last"]).exits(0);
    assert_eq!(desk.show()["deviations"][0]["agreed"], json!(["ann", "bob"]));
    let audit = desk.piton(&["audit", "last"]).exits(0).out;
    assert_eq!(audit.matches("REFUSED").count(), 3, "{audit}");
    desk.piton(&["audit", "verify", "last"]).exits(0);
}

#[test]
fn a_skip_and_a_step_of_its_own_obey_the_quorum() {
    let steps = "steps:\n  - { id: ask, approval: { prompt: '?' } }\n  - { id: may, needs: [ask], optional: { consequence: none }, exec: { argv: ['true'] } }\n  - { id: free, needs: [ask], deviations: {}, exec: { argv: ['true'] } }\n  - { id: must, needs: [ask], exec: { argv: ['true'] } }\n";
    let desk = Desk::new();
    desk.write("site.yaml", SITE);
    desk.runbook("job", &format!("{QUORUM}{steps}"));
    desk.piton(&["run", "job.yaml", "--site", "site.yaml", "--as", "sue"]).exits(6);
    let skip = |step: &str| desk.piton(&["skip", "last", step, "--reason", "no need", "--as", "ann"]).exits(0).out;
    assert!(!skip("may").contains("agreed") && !skip("free").contains("`free` still"), "one word is enough");
    assert!(skip("must").contains("1 of 2 agreed"));
    desk.piton(&["agree", "last", "must", "--deny", "--comment", "it must run", "--as", "bob"]).exits(0);
    desk.piton(&["agree", "last", "must", "--as", "bob"]).exits(2);
    desk.piton(&["approve", "last", "ask", "--as", "bob"]).exits(0);
    desk.piton(&["resume", "last"]).exits(0);
    let show = desk.show();
    assert_eq!(["may", "free", "must"].map(|step| state(&show, step)), ["skipped", "skipped", "succeeded"]);
}

#[test]
fn an_amendment_cannot_take_the_quorum_out_by_itself() {
    let desk = failed(QUORUM, STEPS);
    desk.runbook("job", STEPS);
    let amend = |by: &str| {
        desk.piton(&["resume", "last", "--runbook", "job.yaml", "--reason", "no quorum", "--yes", "--as", by])
    };
    let proposed = amend("ann").exits(6).out;
    assert!(proposed.contains("the run still waits for bob; 1 of 2 agreed"), "{proposed}");
    assert!(desk.piton(&["approvals"]).exits(0).out.contains("piton agree"));
    desk.piton(&["agree", "last", "--as", "bob"]).exits(0);
    amend("ann").exits(4);
    let deviation = &desk.show()["deviations"][0];
    assert_eq!((&deviation["what"], &deviation["agreed"]), (&json!("amended"), &json!(["bob"])));
    desk.piton(&["done", "last", "work", "--reason", "by hand", "--output", "text=x", "--as", "zoe"]).exits(0);
    desk.piton(&["resume", "last"]).exits(0);
}

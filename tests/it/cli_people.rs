//! Questions to people through the `piton` program: who is told, who is asked when nobody answers, what stands in the lists.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::cli::{Desk, Said, state};

const PEOPLE: &str =
    "people:\n  ann: { groups: [ops] }\n  bob: { groups: [ops] }\n  eve: { groups: [bosses] }\n  zoe: {}\n";

/// A hook that adds each message as a line to `told`.
const HOOK: &str = "notify: { command: [sh, -c, 'cat >> told; echo >> told'] }\n";

fn site(desk: &Desk, more: &str) {
    desk.write("site.yaml", &format!("apiVersion: piton/v1\nkind: Site\nname: here\n{more}{PEOPLE}"));
}

fn told(desk: &Desk) -> Vec<Json> {
    let text = std::fs::read_to_string(desk.path("told")).unwrap_or_default();
    // The last line may be half there.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[track_caller]
fn wait_until_told(desk: &Desk, occasion: &str) -> Json {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(message) = told(desk).into_iter().find(|message| message["occasion"] == occasion) {
            return message;
        }
        assert!(Instant::now() < until, "nobody was told: {occasion}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kinds(desk: &Desk) -> Vec<String> {
    let records = desk.piton(&["audit", "last", "--json"]).exits(0).json_lines();
    records.iter().map(|record| record["kind"].as_str().expect("a word").to_owned()).collect()
}

#[test]
fn people_are_told_before_the_run_rests() {
    let desk = Desk::new();
    site(&desk, HOOK);
    desk.runbook("job", "steps:\n  - { id: go, approval: { prompt: 'Sure?', groups: [ops], expires: 2h, escalate: { groups: [bosses] } } }\n");
    desk.piton(&["run", "job.yaml", "--site", "site.yaml"]).exits(6);
    let message = &told(&desk)[0];
    assert_eq!(
        (&message["occasion"], &message["step"], &message["prompt"]),
        (&json!("asked"), &json!("go"), &json!("Sure?"))
    );
    assert_eq!(message["allowed"], json!(["ann", "bob"]));
    assert!(message["text"].as_str().expect("text").contains("waits for an approval: Sure?"), "{message}");
    assert_eq!(kinds(&desk), ["run_started", "step_waiting", "people_told", "run_finished"]);
    desk.piton(&["resume", "last"]).exits(6);
    assert_eq!(told(&desk).len(), 1, "they know");
    desk.piton(&["approve", "last", "go", "--as", "ann", "--comment", "it is late"]).exits(0);
    desk.piton(&["resume", "last"]).exits(0);
    assert!(desk.piton(&["audit", "last"]).exits(0).out.contains("approved (\"it is late\") by ann"));
}

#[test]
fn the_secret_address_of_a_hook_is_fetched_once_and_hidden_from_then_on() {
    let desk = Desk::new();
    site(
        &desk,
        "notify: { secret: hook }\nsecrets: { hook: { command: [sh, -c, 'echo x >> fetched; cat address'] } }\n",
    );
    desk.write("address", "http://127.0.0.1:1/s3cret-way");
    desk.runbook(
        "job",
        "steps:\n  - { id: go, approval: { prompt: 'Sure?' } }\n  - { id: too, approval: { prompt: 'Really?' } }\n",
    );
    desk.piton(&["run", "job.yaml", "--site", "site.yaml"]).exits(6);
    assert_eq!(std::fs::read_to_string(desk.path("fetched")).expect("it was fetched"), "x\n");
    let records = desk.piton(&["audit", "last", "--json"]).exits(0).out;
    assert!(records.contains("people_told") && !records.contains("s3cret-way"), "{records}");
}

#[test]
fn a_message_that_does_not_get_through_changes_nothing() {
    let desk = Desk::new();
    site(&desk, "notify: { command: [sh, -c, 'echo no line >&2; exit 3'] }\n");
    desk.runbook("job", "steps:\n  - { id: go, approval: { prompt: 'Sure?' } }\n  - { id: own, approval: { prompt: 'Really?', notify: { command: [touch, told-otherwise] } } }\n");
    desk.piton(&["run", "job.yaml", "--site", "site.yaml"]).exits(6);
    desk.wait_for("told-otherwise");
    let audit = desk.piton(&["audit", "last"]).exits(0).out;
    assert!(
        audit.contains("told people that they are asked; it did not get through") && audit.contains("no line"),
        "{audit}"
    );
}

#[test]
fn who_does_not_answer_is_reminded_and_then_others_are_asked() {
    let desk = Desk::new();
    site(&desk, HOOK);
    desk.runbook("job", "steps:\n  - { id: go, approval: { prompt: 'Sure?', groups: [ops], remind: 300ms, expires: 1s, escalate: { groups: [bosses] } } }\n");
    let mut command = desk.command(&["run", "job.yaml", "--site", "site.yaml", "--wait", "--run-id", "r"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    wait_until_told(&desk, "reminded");
    let early = desk.piton(&["approve", "r", "go", "--as", "eve"]).exits(2);
    assert!(early.err.contains("not among those"), "{}", early.err);
    let message = wait_until_told(&desk, "escalated");
    assert_eq!(message["allowed"], json!(["ann", "bob", "eve"]));
    let listed = desk.piton(&["approvals", "--for", "eve", "--json"]).exits(0).json_lines();
    assert_eq!((listed[0]["step"].clone(), listed[0]["escalates_at"].clone()), (json!("go"), Json::Null));
    assert!(listed[0]["told_at"].is_string() && listed[0]["since"].is_string());
    desk.piton(&["approve", "r", "go", "--as", "eve"]).exits(0);
    let said: Said = child.wait_with_output().expect("it ends").into();
    assert!(said.exits(0).out.contains("others are asked as well"));
}

#[test]
fn a_run_that_rests_reminds_at_the_next_look_and_once_however_long_it_was() {
    let desk = Desk::new();
    site(&desk, "");
    desk.runbook("job", "steps:\n  - { id: go, approval: { prompt: 'Sure?', remind: 50ms } }\n");
    desk.piton(&["run", "job.yaml", "--site", "site.yaml"]).exits(6);
    std::thread::sleep(Duration::from_millis(300));
    let out = desk.piton(&["resume", "last"]).exits(6).out;
    assert_eq!(out.matches("reminded people").count(), 1, "{out}");
    assert!(out.contains("neither the step nor the site has a `notify`"), "{out}");
}

#[test]
fn an_approval_of_each_item_may_have_its_own_people_and_quorum() {
    let desk = Desk::new();
    site(&desk, "");
    desk.runbook("job", "params: { most: { type: integer, default: 2 }, time: { type: duration, default: 90m } }\nsteps:\n  - { id: go, foreach: { items: [ops, bosses] }, approval: { prompt: 'Sure, {{ item }}?', groups: ['{{ item }}'], quorum: '{{ params.most }}', expires: '{{ params.time }}' } }\n");
    desk.piton(&["run", "job.yaml", "--site", "site.yaml"]).exits(6);
    let asks = desk.show()["waiting_for"].clone();
    assert_eq!((&asks[0]["allowed"], &asks[0]["quorum"]), (&json!(["ann", "bob"]), &json!(2)));
    assert_eq!(asks[1]["allowed"], json!(["eve"]));
    assert!(asks[0]["expires_at"].is_string());
    desk.piton(&["approve", "last", "go[ops]", "--as", "ann"]).exits(0);
    desk.piton(&["resume", "last"]).exits(6);
    assert_eq!(state(&desk.show(), "go[ops]"), "waiting", "one of two");
    desk.piton(&["run", "job.yaml", "--site", "site.yaml", "--param", "most=0"]).exits(3);
}

//! Commands that outlive a driver that was killed: found again, waited for, never started twice.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value as Json;

use super::cli::{Desk, Said, state};

/// Starts a run, waits until `file` is there and kills its driver.
fn killed(desk: &Desk, file: &str) {
    let mut driver = start(desk);
    desk.wait_for(file);
    driver.kill().expect("SIGKILL");
    driver.wait().expect("it ends");
}

fn start(desk: &Desk) -> Child {
    let args = ["run", "long.yaml"];
    desk.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

fn text(desk: &Desk, name: &str) -> String {
    std::fs::read_to_string(desk.path(name)).unwrap_or_default()
}

fn output(desk: &Desk, step: &str, name: &str) -> Json {
    let show = desk.show();
    let row = show["steps"].as_array().expect("steps").iter().find(|row| row["id"] == step).expect("is there").clone();
    row["outputs"][name].clone()
}

fn until(what: &str, fact: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !fact() {
        assert!(Instant::now() < until, "never observed: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A shell text that says it is there, waits to be let go, leaves one line and prints.
fn waiting(name: &str) -> String {
    format!("touch {name}.there; while [ ! -e {name}.go ]; do sleep 0.02; done; echo x >> {name}.count")
}

/// Where the slots of the run are claimed.
fn claims(desk: &Desk) -> std::path::PathBuf {
    let folder = std::fs::read_dir(desk.path(".piton/commands")).expect("slots").flatten().next().expect("of the run");
    folder.path().join("claims")
}

/// What is written of the first attempt of a step: who took it, then the process.
fn slot(desk: &Desk, step: &str) -> Vec<Json> {
    let text = std::fs::read_to_string(claims(desk)).expect("the claims");
    let lines = text.lines().filter(|line| !line.is_empty());
    let lines = lines.map(|line| serde_json::from_str::<Json>(line).expect("a whole line"));
    let name = format!("{step}.1");
    let of_slot = |line: Json| {
        let what = line.as_object()?.values().next()?.clone();
        (what["slot"] == name.as_str()).then_some(what)
    };
    lines.filter_map(of_slot).collect()
}

/// The process that holds the first attempt of a step.
pub fn holder(desk: &Desk, step: &str) -> Pid {
    pid(&slot(desk, step)[0]["by"]["holder"])
}

fn pid(of: &Json) -> Pid {
    Pid::from_raw(i32::try_from(of["pid"].as_i64().expect("a number")).expect("a process number"))
}

/// Whether it runs; a zombie does not.
fn is_alive(process: Pid) -> bool {
    let stat = procfs::process::Process::new(process.as_raw()).and_then(|process| process.stat());
    stat.is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Kills a process and waits until it is gone.
pub fn end(process: Pid) {
    kill(process, Signal::SIGKILL).expect("it lives");
    until("a killed process is gone", || !is_alive(process));
}

fn events(desk: &Desk, kind: &str) -> Vec<Json> {
    desk.piton(&["audit", "last", "--json"]).exits(0).json_lines().into_iter().filter(|e| e["kind"] == kind).collect()
}

#[test]
fn a_command_is_waited_for_and_its_result_taken() {
    let desk = Desk::new();
    let work = waiting("a");
    desk.runbook(
        "long",
        &format!(
            "steps:
  - {{ id: a, exec: {{ shell: '{work}; cat; echo out', stdin: 'in ', outputs: {{ said: {{ stdout: true }} }} }} }}
  - {{ id: b, needs: [a], exec: {{ argv: [echo, '{{{{ steps.a.outputs.said }}}}'], outputs: {{ said: {{ stdout: true }} }} }} }}
"
        ),
    );
    killed(&desk, "a.there");
    let mut next =
        desk.command(&["resume", "last"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    until("the resume is on record", || !events(&desk, "run_resumed").is_empty());
    assert_eq!(state(&desk.show(), "a"), "running");
    desk.write("a.go", "");
    next.wait().expect("it ends");
    Said::from(next.wait_with_output().expect("it ended")).exits(0);
    assert_eq!(text(&desk, "a.count"), "x\n");
    assert_eq!(output(&desk, "b", "said"), "in out");
    assert_eq!(events(&desk, "attempt_started").len(), 2);
    let audit = desk.piton(&["audit", "last"]).exits(0).out;
    assert!(audit.contains("`a` went on meanwhile"), "{audit}");
    let left = std::fs::read_dir(desk.path(".piton/commands")).expect("was made").count();
    assert_eq!(left, 0, "traces of the run are left");
}

#[test]
fn a_command_that_ended_while_nobody_looked_left_its_result() {
    let desk = Desk::new();
    let work = waiting("a");
    desk.runbook(
        "long",
        &format!(
            "limits: {{ parallel: 2 }}
on_failure: continue
steps:
  - {{ id: a, exec: {{ shell: '{work}; echo out', outputs: {{ said: {{ stdout: true }} }} }} }}
  - {{ id: b, exec: {{ shell: 'while [ ! -e a.there ]; do sleep 0.02; done; touch b.there; {}; echo why >&2; exit 3' }} }}
",
            waiting("b")
        ),
    );
    killed(&desk, "b.there");
    let holder = holder(&desk, "a");
    until("both slots are taken", || slot(&desk, "b").len() == 2);
    desk.write("a.go", "");
    desk.write("b.go", "");
    until("the holder has gone", || !is_alive(holder));
    desk.piton(&["resume", "last"]).exits(4);
    assert_eq!((text(&desk, "a.count"), text(&desk, "b.count")), ("x\n".to_owned(), "x\n".to_owned()));
    assert_eq!(output(&desk, "a", "said"), "out");
    let failed = events(&desk, "attempt_failed");
    assert_eq!(failed.len(), 1);
    assert!(failed[0]["error"].as_str().is_some_and(|error| error.contains("exit code 3: why")), "{failed:?}");
    assert_eq!(failed[0]["effect"], "unknown");
}

#[test]
fn a_timeout_counts_from_the_start_of_the_command() {
    let desk = Desk::new();
    desk.runbook("long", "steps: [{ id: a, timeout: 4s, exec: { shell: 'touch a.there; sleep 600' } }]\n");
    killed(&desk, "a.there");
    std::thread::sleep(Duration::from_millis(4100));
    desk.piton(&["resume", "last"]).exits(4);
    let failed = events(&desk, "attempt_failed");
    let error = failed[0]["error"].as_str().expect("a text");
    assert!(error.contains("its timeout of 4s") && error.contains("killed by SIGTERM"), "{error}");
}

#[test]
fn a_cancel_ends_a_command_that_was_found_again() {
    let desk = Desk::new();
    desk.runbook("long", "steps: [{ id: a, exec: { shell: 'touch a.there; sleep 600' } }]\n");
    killed(&desk, "a.there");
    until("its process is known", || slot(&desk, "a").len() == 2);
    let command = pid(&slot(&desk, "a")[1]["process"]);
    let mut next =
        desk.command(&["resume", "last"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    until("the resume is on record", || !events(&desk, "run_resumed").is_empty());
    desk.piton(&["cancel", "last"]).exits(0);
    desk.piton(&["cancel", "last"]).exits(0);
    assert_eq!(next.wait().expect("it ends").code(), Some(130));
    assert!(!is_alive(command), "it still runs");
    assert_eq!(events(&desk, "attempt_failed")[0]["effect"], "unknown");
}

#[test]
fn a_command_whose_holder_died_too_is_in_doubt() {
    let desk = Desk::new();
    desk.runbook("long", &format!("steps: [{{ id: a, exec: {{ shell: '{}' }} }}]\n", waiting("a")));
    killed(&desk, "a.there");
    end(holder(&desk, "a"));
    desk.piton(&["resume", "last"]).exits(5);
    assert_eq!(state(&desk.show(), "a"), "in_doubt");
    desk.write("a.go", "");
    until("the command ended by itself", || text(&desk, "a.count") == "x\n");
}

#[test]
fn a_holder_that_dies_under_its_driver_takes_its_command_along() {
    let desk = Desk::new();
    desk.runbook("long", "steps: [{ id: a, exec: { shell: 'touch a.there; sleep 600' } }]\n");
    let mut driver = start(&desk);
    desk.wait_for("a.there");
    until("its process is known", || slot(&desk, "a").len() == 2);
    let trace = slot(&desk, "a");
    kill(pid(&trace[0]["by"]["holder"]), Signal::SIGKILL).expect("it lives");
    assert_eq!(driver.wait().expect("it ends").code(), Some(4));
    assert!(!is_alive(pid(&trace[1]["process"])), "it still runs");
    assert_eq!(events(&desk, "attempt_failed")[0]["effect"], "unknown");
}

#[test]
fn an_attempt_that_was_recorded_and_not_started_starts_under_the_next_driver() {
    let desk = Desk::new();
    desk.runbook("long", &format!("steps: [{{ id: a, exec: {{ shell: '{}; true' }} }}]\n", waiting("a")));
    let mut driver = start(&desk);
    desk.wait_for("a.there");
    until("its process is known", || slot(&desk, "a").len() == 2);
    let trace = slot(&desk, "a");
    driver.kill().expect("SIGKILL");
    driver.wait().expect("it ends");
    // As if the driver had died between the record and the request: nothing runs, no slot was taken.
    end(pid(&trace[0]["by"]["holder"]));
    end(pid(&trace[1]["process"]));
    std::fs::write(claims(&desk), "").expect("it was there");
    desk.write("a.go", "");
    desk.piton(&["resume", "last"]).exits(0);
    assert_eq!(text(&desk, "a.count"), "x\n");
    assert_eq!(events(&desk, "attempt_started").len(), 1);
}

#[test]
fn raw_output_is_private_and_secrets_stay_hidden() {
    use std::os::unix::fs::PermissionsExt as _;
    let desk = Desk::new();
    desk.write("secret", "hunter2");
    desk.write("site.yaml", "apiVersion: piton/v1\nkind: Site\nname: desk\nsecrets: { pass: { file: secret } }\n");
    let work = waiting("a");
    desk.runbook(
        "long",
        &format!(
            "steps: [{{ id: a, exec: {{ shell: '{work}; echo \"got $PASS\"', env: {{ PASS: '{{{{ secrets.pass }}}}' }}, outputs: {{ said: {{ stdout: true }} }} }} }}]\n"
        ),
    );
    let args = ["--site", "site.yaml", "run", "long.yaml"];
    let mut driver =
        desk.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    desk.wait_for("a.there");
    driver.kill().expect("SIGKILL");
    driver.wait().expect("it ends");
    let holder = holder(&desk, "a");
    desk.write("a.go", "");
    until("the holder has gone", || !is_alive(holder));
    let claims = claims(&desk);
    let folder = claims.parent().expect("of the run");
    for name in ["claims", "a.1.ended"] {
        let mode = std::fs::metadata(folder.join(name)).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    desk.piton(&["resume", "last"]).exits(0);
    assert_eq!(output(&desk, "a", "said"), "got ***");
    assert!(!folder.exists(), "its traces are still there");
}

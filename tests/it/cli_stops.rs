//! The `piton` program interrupted: killed, told to stop, its reader gone.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cli::{Desk, Said, state};

/// A step that says it began and then takes its time.
const SLOW: &str = "steps:\n  - { id: slow, exec: { shell: 'touch began; if [ -e again ]; then exit 0; fi; sleep 30' } }\n  - { id: after, needs: [slow], exec: { argv: ['true'] } }\n";

fn start(desk: &Desk, args: &[&str]) -> Child {
    desk.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

fn tell(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("the process is there");
}

/// Kills a driver and what holds its commands, so that nobody knows how they end.
fn kill_with_holder(desk: &Desk, child: &mut Child) {
    tell(child, Signal::SIGKILL);
    child.wait().expect("it ends");
    super::held::end(super::held::holder(desk, "slow"));
}

#[test]
fn after_a_kill_a_person_says_whether_the_step_ran() {
    let desk = Desk::new();
    desk.runbook("slow", SLOW);
    let mut child = start(&desk, &["run", "slow.yaml"]);
    desk.wait_for("began");
    kill_with_holder(&desk, &mut child);
    assert_eq!(desk.show()["outcome"], serde_json::Value::Null);
    let stuck = desk.piton(&["resume", "last"]).exits(5);
    assert!(stuck.out.contains("piton decide"), "{}", stuck.out);
    assert_eq!(state(&desk.show(), "slow"), "in_doubt");
    desk.piton(&["decide", "last", "slow", "--not-ran"]).exits(2);
    desk.write("again", "");
    desk.piton(&["decide", "last", "slow", "--not-ran", "--reason", "no trace of it"]).exits(0);
    desk.piton(&["resume", "last"]).exits(0);
    let show = desk.show();
    assert_eq!((state(&show, "slow"), state(&show, "after")), ("succeeded", "succeeded"));
    let audit = desk.piton(&["audit", "last"]).exits(0).out;
    assert!(audit.contains("was interrupted") && audit.contains("no trace of it"), "{audit}");
}

#[test]
fn a_decision_that_it_ran_is_taken_as_a_success() {
    let desk = Desk::new();
    desk.runbook("slow", SLOW);
    let mut child = start(&desk, &["run", "slow.yaml"]);
    desk.wait_for("began");
    kill_with_holder(&desk, &mut child);
    desk.piton(&["resume", "last"]).exits(5);
    desk.piton(&["decide", "last", "slow", "--ran", "--reason", "its log says so"]).exits(0);
    desk.piton(&["resume", "last"]).exits(0);
    assert_eq!(desk.show()["steps"][0]["attempts"], 1);
}

#[test]
fn a_decision_that_it_ran_gives_what_other_steps_use() {
    let desk = Desk::new();
    desk.runbook(
        "slow",
        "steps:
  - { id: slow, exec: { shell: 'touch began; sleep 30', outputs: { rows: { json: /rows }, name: { stdout: true } } } }
  - id: after
    needs: [slow]
    exec: { argv: [echo, 'moved {{ steps.slow.outputs.rows }}'], outputs: { said: { stdout: true } } }
",
    );
    let mut child = start(&desk, &["run", "slow.yaml"]);
    desk.wait_for("began");
    kill_with_holder(&desk, &mut child);
    desk.piton(&["resume", "last"]).exits(5);
    let decide = |more: &[&str]| {
        desk.piton(&[&["decide", "last", "slow", "--reason", "its log says so", "--as", "ann"], more].concat())
    };
    for (more, part) in [
        (&["--ran"][..], "other steps use output `rows` of `slow`"),
        (&["--ran", "--output", "rwos=7"], "did you mean `rows`?"),
        (&["--ran", "--output", "rows"], "write `--output name=value`"),
        (&["--not-ran", "--output", "rows=7"], "cannot be used with"),
    ] {
        let said = decide(more).exits(2);
        assert!(said.err.contains(part), "{part} in {}", said.err);
    }
    let word = decide(&["--ran", "--output", "rows=7", "--json"]).exits(0).json();
    assert_eq!(word["recorded"]["answer"]["ran"]["outputs"]["rows"], 7, "{word}");
    decide(&["--ran", "--output", "rows=8"]).exits(2);
    desk.piton(&["resume", "last"]).exits(0);
    assert_eq!(desk.show()["steps"][1]["outputs"]["said"], "moved 7");
    let audit = desk.piton(&["audit", "last"]).exits(0).out;
    assert!(audit.contains("ann") && audit.contains("its log says so") && audit.contains("rows 7"), "{audit}");
}

#[test]
fn the_first_interrupt_finishes_what_runs() {
    let desk = Desk::new();
    desk.runbook(
        "polite",
        "steps:\n  - { id: a, exec: { shell: 'touch began; while [ ! -e finish ]; do sleep 0.02; done' } }\n  - { id: b, needs: [a], exec: { argv: ['true'] } }\n",
    );
    let mut child = start(&desk, &["run", "polite.yaml"]);
    desk.wait_for("began");
    tell(&child, Signal::SIGINT);
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("it says what it does");
    assert!(line.contains("finishing what runs"), "{line}");
    desk.write("finish", "");
    let said = Said::from(child.wait_with_output().expect("it ends")).exits(130);
    assert!(said.out.contains("piton resume"), "{}", said.out);
    let show = desk.show();
    assert_eq!((state(&show, "a"), show["outcome"].as_str()), ("succeeded", Some("cancelled")));
    assert_ne!(state(&show, "b"), "succeeded");
    desk.piton(&["resume", "last"]).exits(0);
}

#[test]
fn the_second_interrupt_stops_at_once() {
    let desk = Desk::new();
    desk.runbook("slow", SLOW);
    let mut child = start(&desk, &["run", "slow.yaml"]);
    desk.wait_for("began");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    tell(&child, Signal::SIGTERM);
    stderr.read_line(&mut line).expect("it says what it does");
    tell(&child, Signal::SIGINT);
    stderr.read_line(&mut line).expect("it says what it does");
    assert!(line.contains("stopping what runs now"), "{line}");
    let said = Said::from(child.wait_with_output().expect("it ends"));
    assert!([5, 130].contains(&said.code), "exit {}: {}", said.code, said.out);
    assert_ne!(state(&desk.show(), "after"), "succeeded");
}

#[test]
fn a_reader_that_is_gone_is_no_panic_and_no_failure() {
    let desk = Desk::new();
    desk.runbook(
        "ok",
        "steps:\n  - { id: a, exec: { shell: 'touch began; while [ ! -e go ]; do sleep 0.02; done' } }\n",
    );
    let mut child = start(&desk, &["run", "ok.yaml"]);
    drop(child.stdout.take());
    desk.wait_for("began");
    desk.write("go", "");
    let said = Said::from(child.wait_with_output().expect("it ends")).exits(0);
    assert!(!said.err.contains("panicked"), "{}", said.err);
    for args in [&["audit", "last", "--json"][..], &["show", "last"], &["schema", "runbook"], &["graph", "ok.yaml"]] {
        let mut child = start(&desk, args);
        drop(child.stdout.take());
        let said = Said::from(child.wait_with_output().expect("it ends")).exits(0);
        assert!(said.err.is_empty(), "{}", said.err);
    }
}

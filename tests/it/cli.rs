//! The `piton` program from outside: exit codes, what people say, what programs read.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value as Json;

/// A folder of its own with the program to run in it.
pub struct Desk {
    folder: tempfile::TempDir,
}

/// What a command said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program prints UTF-8");
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Said {
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "out: {}\nerr: {}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {}", self.out))
    }

    #[track_caller]
    pub fn json_lines(&self) -> Vec<Json> {
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        self.out.lines().map(read).collect()
    }
}

impl Desk {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join(".piton")).expect("its own store");
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a runbook with these steps (and whatever stands behind them).
    pub fn runbook(&self, name: &str, rest: &str) {
        let text = format!("apiVersion: piton/v1\nkind: Runbook\nname: {name}\nversion: 1.0.0\n{rest}");
        self.write(&format!("{name}.yaml"), &text);
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the folder can be written to");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_piton"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["PITON_STORE", "PITON_SITE", "PITON_SITE_SIGNERS", "PITON_LOG", "SUDO_USER"] {
            command.env_remove(name);
        }
        command
    }

    pub fn piton(&self, args: &[&str]) -> Said {
        self.command(args).output().expect("the program starts").into()
    }

    pub fn show(&self) -> Json {
        self.piton(&["show", "last", "--json"]).exits(0).json()
    }

    /// Waits until a file is there.
    #[track_caller]
    pub fn wait_for(&self, name: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.path(name).exists() {
            assert!(Instant::now() < until, "`{name}` did not appear");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What a failed test left running in the folder would go on for ever.
impl Drop for Desk {
    fn drop(&mut self) {
        let folder = self.folder.path();
        for process in procfs::process::all_processes().into_iter().flatten().flatten() {
            if process.cwd().is_ok_and(|place| place.starts_with(folder)) {
                // It may have ended meanwhile.
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            }
        }
    }
}

/// The state of a step in what `show --json` said.
pub fn state<'j>(show: &'j Json, step: &str) -> &'j str {
    let steps = show["steps"].as_array().expect("steps");
    let step = steps.iter().find(|row| row["id"] == step).expect("the step is there");
    step["state"].as_str().expect("a word")
}

const APPROVAL: &str = "steps:\n  - { id: go, approval: { prompt: 'Sure?', quorum: 2 } }\n  - { id: after, needs: [go], exec: { argv: ['true'] } }\n";

#[test]
fn exit_codes_say_how_a_run_ended() {
    let desk = Desk::new();
    desk.runbook("good", "steps: [{ id: a, exec: { argv: ['true'] } }]\n");
    desk.runbook("bad", "steps: [{ id: a, exec: { argv: ['false'] } }]\n");
    desk.runbook(
        "back",
        "on_failure: rollback\nsteps:\n  - { id: a, exec: { argv: ['true'] }, undo: { exec: { argv: [touch, undone] } } }\n  - { id: b, needs: [a], exec: { argv: ['false'] }, idempotent: yes }\n",
    );
    desk.runbook("gated", "requires: { milestones: [m/done] }\nsteps: [{ id: a, exec: { argv: ['true'] } }]\n");
    assert!(desk.piton(&["run", "good.yaml"]).exits(0).out.starts_with("run 2"));
    desk.piton(&["run", "bad.yaml"]).exits(4);
    desk.piton(&["run", "back.yaml"]).exits(4);
    assert_eq!(desk.show()["outcome"], "rolled_back");
    assert!(desk.path("undone").exists());
    let gated = desk.piton(&["run", "gated.yaml"]).exits(3);
    assert!(gated.err.contains("m/done"), "{}", gated.err);
    let missing = desk.piton(&["run", "none.yaml"]).exits(2);
    assert!(missing.err.starts_with("error: `none.yaml`"), "{}", missing.err);
    desk.piton(&["run", "good.yaml", "--param", "x=1"]).exits(2);
    desk.piton(&["frobnicate"]).exits(2);
    desk.piton(&["show", "nothing"]).exits(2);
}

#[test]
fn check_reports_all_mistakes_of_all_files() {
    let desk = Desk::new();
    desk.runbook("good", "steps: [{ id: a, exec: { argv: ['true'] } }]\n");
    desk.runbook("bad", "stepz: []\nsteps: [{ id: a, needs: [b], exec: { argv: ['true'] } }]\n");
    desk.write("site.yaml", "apiVersion: piton/v1\nkind: Site\nname: here\ndatebases: {}\n");
    let said = desk.piton(&["check", "good.yaml", "bad.yaml", "site.yaml"]).exits(3);
    assert!(said.out.contains("ok good.yaml (runbook good, 1 steps)"), "{}", said.out);
    for part in ["stepz", "`b`", "datebases", "bad.yaml:", "2 problems in `bad.yaml`"] {
        assert!(said.err.contains(part), "{part} in {}", said.err);
    }
    let files = desk.piton(&["check", "--json", "good.yaml", "bad.yaml"]).exits(3).json();
    assert_eq!(files["files"][0]["ok"], true);
    assert_eq!(files["files"][1]["problems"].as_array().map(Vec::len), Some(2));
}

#[test]
fn an_approval_wants_as_many_people_as_it_says() {
    let desk = Desk::new();
    desk.runbook("ask", APPROVAL);
    let said = desk.piton(&["run", "ask.yaml", "--run-id", "r-1", "--as", "eve"]).exits(6);
    assert!(said.out.contains("piton approve r-1 go"), "{}", said.out);
    desk.piton(&["approve", "r-1", "go", "--as", "ann"]).exits(0);
    let twice = desk.piton(&["approve", "r-1", "go", "--as", "ann"]).exits(2);
    assert!(twice.err.contains("approved already"), "{}", twice.err);
    assert_eq!(desk.show()["waiting_for"][0]["approved"][0], "ann");
    let last = desk.piton(&["approve", "last", "go", "--as", "bob", "--comment", "fine"]).exits(0);
    assert!(last.out.contains("piton resume r-1"), "{}", last.out);
    desk.piton(&["resume", "r-"]).exits(0);
    assert_eq!(state(&desk.show(), "after"), "succeeded");
    let wrong = desk.piton(&["approve", "last", "goo"]).exits(2);
    assert!(wrong.err.contains("did you mean `go`?"), "{}", wrong.err);
}

#[test]
fn a_rejection_fails_the_run() {
    let desk = Desk::new();
    desk.runbook("ask", APPROVAL);
    desk.piton(&["run", "ask.yaml"]).exits(6);
    desk.piton(&["approve", "last", "go", "--reject", "--comment", "too late"]).exits(0);
    desk.piton(&["resume", "last"]).exits(4);
    assert_eq!(state(&desk.show(), "go"), "failed");
}

#[test]
fn manual_work_is_answered_with_its_form_and_evidence() {
    let desk = Desk::new();
    desk.runbook(
        "hand",
        "steps:\n  - { id: w, manual: { instructions: 'Click', form: { rows: { type: integer, minimum: 0 } }, evidence: required } }\n",
    );
    desk.write("shot.txt", "proof");
    desk.piton(&["run", "hand.yaml"]).exits(6);
    for (args, part) in [
        (vec!["--evidence", "shot.txt"], "`rows` is missing"),
        (vec!["--set", "rows=x", "--evidence", "shot.txt"], "not a whole number"),
        (vec!["--set", "rows=-1", "--evidence", "shot.txt"], "less than 0"),
        (vec!["--set", "row=1", "--evidence", "shot.txt"], "did you mean `rows`?"),
        (vec!["--set", "rows=1"], "wants evidence"),
    ] {
        let said = desk.piton(&[&["answer", "last", "w"][..], &args].concat()).exits(2);
        assert!(said.err.contains(part), "{part} in {}", said.err);
    }
    desk.piton(&["answer", "last", "w", "--set", "rows=7", "--evidence", "shot.txt"]).exits(0);
    desk.piton(&["resume", "last"]).exits(0);
    let show = desk.show();
    assert_eq!(show["steps"][0]["outputs"]["rows"], 7);
    let hash = piton::plan::sha256_hex(b"proof");
    let kept = std::fs::read_to_string(desk.path(".piton/evidence").join(&hash)).expect("the copy is kept");
    assert_eq!(kept, "proof");
    assert!(desk.piton(&["audit", "last"]).exits(0).out.contains(&hash));
}

#[test]
fn skipping_what_is_not_optional_is_a_deviation() {
    let desk = Desk::new();
    desk.runbook("ask", APPROVAL);
    desk.piton(&["run", "ask.yaml"]).exits(6);
    desk.piton(&["skip", "last", "after", "--reason", " "]).exits(2);
    let said = desk.piton(&["skip", "last", "go", "--reason", "nobody is here", "--as", "eve"]).exits(0);
    assert!(said.err.contains("deviation"), "{}", said.err);
    desk.piton(&["resume", "last"]).exits(0);
    let show = desk.show();
    assert_eq!((state(&show, "go"), state(&show, "after")), ("skipped", "succeeded"));
    assert_eq!(show["deviations"][0]["reason"], "nobody is here");
    assert!(desk.piton(&["audit", "last"]).out.contains("1 deviation(s)"));
}

#[test]
fn a_resting_run_can_be_cancelled_and_gives_its_locks_back() {
    let desk = Desk::new();
    desk.runbook("ask", &format!("locks: [thing]\n{APPROVAL}"));
    desk.piton(&["run", "ask.yaml", "--run-id", "r1"]).exits(6);
    assert_eq!(desk.piton(&["locks", "--json"]).json()[0]["lock"], "thing");
    let second = desk.piton(&["run", "ask.yaml"]).exits(2);
    assert!(second.err.contains("`thing` is held by run `r1`"), "{}", second.err);
    desk.piton(&["cancel", "r1", "--reason", "other day"]).exits(0);
    assert_eq!(desk.show()["outcome"], "cancelled");
    assert_eq!(desk.piton(&["locks", "--json"]).json(), serde_json::json!([]));
    desk.piton(&["resume", "r1"]).exits(6);
}

#[test]
fn programs_read_a_run_line_by_line() {
    let desk = Desk::new();
    desk.runbook(
        "two",
        "achieves: [m/two]\nwindows: [{ name: gap, opens: a, closes: b, budget: 1h }]\nsteps:\n  - { id: a, exec: { argv: [echo, hi], outputs: { said: { stdout: true } } } }\n  - { id: b, needs: [a], exec: { argv: ['true'] } }\n",
    );
    let lines = desk.piton(&["run", "two.yaml", "--json", "--run-id", "r9"]).exits(0).json_lines();
    assert_eq!(lines[0], serde_json::json!({ "run": "r9" }));
    assert_eq!(lines[lines.len() - 1], serde_json::json!({ "run": "r9", "outcome": "succeeded", "note": null }));
    let kinds: Vec<_> = lines[1..lines.len() - 1].iter().map(|line| line["kind"].as_str().unwrap_or("")).collect();
    let expected =
        ["run_started", "attempt_started", "attempt_succeeded", "attempt_started", "attempt_succeeded", "run_finished"];
    assert_eq!(kinds, expected);
    let audit = desk.piton(&["audit", "r9", "--json"]).exits(0).json_lines();
    assert_eq!(audit, lines[1..lines.len() - 1]);
    let show = desk.show();
    for key in
        ["run", "runbook", "version", "digest", "site", "outcome", "steps", "windows", "deviations", "waiting_for"]
    {
        assert!(show.get(key).is_some(), "{key}");
    }
    assert_eq!(show["steps"][0]["outputs"]["said"], "hi");
    assert_eq!(show["windows"][0]["state"], "closed");
    assert_eq!(desk.piton(&["milestones", "--json"]).json()[0]["milestone"], "m/two");
    assert_eq!(desk.piton(&["runs", "--json"]).json()[0]["outcome"], "succeeded");
    assert_eq!(desk.piton(&["audit", "verify", "r9", "--json"]).exits(0).json()["intact"], true);
}

#[test]
fn a_runbook_is_planned_drawn_and_written_down() {
    let desk = Desk::new();
    desk.piton(&["new", "start"]).exits(0);
    desk.piton(&["new", "start"]).exits(2);
    desk.piton(&["check", "start.yaml"]).exits(0);
    let plan = desk.piton(&["plan", "start.yaml"]).exits(0).out;
    assert!(plan.contains("1. look") && plan.contains("at the end, whatever happened"), "{plan}");
    let plan = desk.piton(&["plan", "start.yaml", "--json"]).exits(0).json();
    assert_eq!(plan["steps"][0]["phase"], "preflight");
    for (format, part) in [("svg", "</svg>"), ("mermaid", "flowchart TD"), ("dot", "\"begin\" -> \"go\"")] {
        let drawn = desk.piton(&["graph", "start.yaml", "--format", format]).exits(0).out;
        assert!(drawn.contains(part), "{drawn}");
    }
    assert!(desk.piton(&["doc", "start.yaml"]).exits(0).out.contains("### 2. `begin`"));
    let schema = desk.piton(&["schema", "runbook"]).exits(0).json();
    assert!(schema["$defs"].is_object() || schema["properties"].is_object());
    assert!(desk.piton(&["completions", "bash"]).exits(0).out.contains("piton"));
}

#[test]
fn anchors_are_told_how_far_each_run_came() {
    let desk = Desk::new();
    desk.write(
        "site.yaml",
        "apiVersion: piton/v1\nkind: Site\nname: desk\nanchors:\n  - { file: kept/anchors.jsonl }\n  - { command: [sh, -c, 'cat >> told'] }\n",
    );
    desk.runbook("child", "steps: [{ id: a, exec: { argv: ['true'] } }]\n");
    desk.runbook("go", "steps:\n  - { id: sub, runbook: { path: child.yaml } }\n  - { id: ask, needs: [sub], approval: { prompt: 'Sure?' } }\n");
    let warned = desk.piton(&["--site", "site.yaml", "run", "go.yaml", "--run-id", "r"]).exits(6);
    assert!(
        warned.err.contains("warning: the anchor `kept/anchors.jsonl` was not told how far run r came"),
        "{}",
        warned.err
    );
    std::fs::create_dir(desk.path("kept")).expect("the folder can be written to");
    desk.piton(&["approve", "r", "ask", "--as", "eve"]).exits(0);
    let quiet = desk.piton(&["resume", "r"]).exits(0);
    assert!(!quiet.err.contains("warning"), "{}", quiet.err);
    let heads = desk.piton(&["audit", "head", "--all"]).exits(0).out;
    assert_eq!(heads.lines().count(), 2, "{heads}");
    assert_eq!(std::fs::read_to_string(desk.path("kept/anchors.jsonl")).expect("was told"), heads);
    let told = std::fs::read_to_string(desk.path("told")).expect("was told");
    assert_eq!((told.lines().count(), told.ends_with(&heads)), (4, true), "{told}");
    desk.piton(&["audit", "verify", "--all", "--anchor", "told", "--anchor", "kept/anchors.jsonl"]).exits(0);
}

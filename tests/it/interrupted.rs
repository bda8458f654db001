//! What a driver makes of a run that it takes up again, where the answer is neither "it ran" nor "it did not".

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::cli::{Desk, state};

const SITE: &str = "apiVersion: piton/v1
kind: Site
name: desk
databases:
  a: { url: 'sqlite://a.db' }
  b: { url: 'sqlite://b.db' }
options:
  settings: { ini: { path: app.ini } }
";

/// A postcondition that takes a moment and does not hold.
const SLOW_AND_FALSE: &str = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 4000000) SELECT count(*) AS n FROM c WHERE n < 0";

fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("site.yaml", SITE);
    for database in ["a.db", "b.db"] {
        desk.write(database, "");
    }
    desk
}

#[test]
fn work_that_was_done_before_a_crash_counts_only_once_its_postcondition_holds() {
    let desk = desk();
    desk.write("app.ini", "[Options]\nMode = 0\n");
    desk.runbook(
        "set",
        &format!(
            "steps:\n  - id: set\n    option.set: {{ store: settings, section: Options, name: Mode, value: '1' }}\n    verify: {{ db.assert: {{ database: a, sql: \"{SLOW_AND_FALSE}\", expect: {{ value: 1 }} }} }}\n"
        ),
    );
    let args = ["--site", "site.yaml", "run", "set.yaml"];
    let mut driver =
        desk.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
    let until = Instant::now() + Duration::from_secs(30);
    while !std::fs::read_to_string(desk.path("app.ini")).is_ok_and(|text| text.contains('1')) {
        assert!(Instant::now() < until, "the option was not set");
        std::thread::sleep(Duration::from_millis(1));
    }
    driver.kill().expect("SIGKILL");
    driver.wait().expect("it ends");
    // The value is there, so a look at the option alone would call the step a success.
    desk.piton(&["resume", "last"]).exits(5);
    assert_eq!(state(&desk.show(), "set"), "in_doubt");
}

/// A copy that is taken back like this, as far as the run does it by itself, in a run that then goes no further back.
fn taken_back(undo: &str) -> Desk {
    let desk = desk();
    desk.write(
        "map.yaml",
        "apiVersion: piton/v1\nkind: Mapping\nname: map\nsets: { all: [t] }\ntables:\n  t: { columns: { id: id, text: text } }\n",
    );
    let steps = "steps:
  - { id: source, db.execute: { database: a, sql: 'CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, text TEXT)' } }
  - { id: rows, needs: [source], db.execute: { database: a, sql: \"INSERT INTO t VALUES (1, 'one'), (2, 'two')\" } }
  - { id: target, db.execute: { database: b, sql: 'CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, text TEXT)' } }
  - { id: leap, needs: [rows, target], exec: { argv: ['true'] }, point_of_no_return: nobody leaps back }
  - id: copy
    needs: [leap]
    db.copy: { from: a, to: b, map: map.yaml, tables: all, policy: fail }
    undo: { UNDO }
  - { id: mended, needs: [copy], exec: { shell: test -e mended }, idempotent: yes }
  - { id: there, needs: [mended], db.assert: { database: b, sql: SELECT count(*) AS n FROM t, expect: { value: 2 } } }
on_failure: rollback
";
    desk.runbook("copy", &steps.replace("UNDO", undo));
    desk
}

/// Takes the rows out of the target, as a person does who undoes the copy.
fn empties(desk: &Desk) {
    desk.runbook("empty", "steps:\n  - { id: empty, db.execute: { database: b, sql: DELETE FROM t } }\n");
    desk.piton(&["--site", "site.yaml", "run", "empty.yaml"]).exits(0);
}

#[test]
fn a_copy_that_was_taken_back_is_copied_again_when_the_run_goes_on() {
    let desk = taken_back("db.execute: { database: b, sql: DELETE FROM t }");
    desk.piton(&["--site", "site.yaml", "run", "copy.yaml"]).exits(5);
    assert_eq!(state(&desk.show(), "copy"), "undone");
    desk.write("mended", "");
    desk.piton(&["resume", "last"]).exits(0);
}

#[test]
fn a_copy_that_a_person_took_back_is_copied_again_as_well() {
    let desk = taken_back("manual: { instructions: Empty the table }");
    desk.piton(&["--site", "site.yaml", "run", "copy.yaml", "--run-id", "r"]).exits(6);
    empties(&desk);
    desk.piton(&["answer", "r", "copy"]).exits(0);
    desk.piton(&["resume", "r"]).exits(5);
    desk.write("mended", "");
    desk.piton(&["resume", "r"]).exits(0);
    desk.piton(&["audit", "verify", "r"]).exits(0);
}

#[test]
fn a_copy_that_a_person_says_is_undone_is_copied_again_even_if_it_first_cannot_start() {
    let desk = taken_back("exec: { argv: ['false'] }");
    desk.piton(&["--site", "site.yaml", "run", "copy.yaml", "--run-id", "r"]).exits(5);
    empties(&desk);
    desk.piton(&["decide", "r", "copy", "--undone", "--reason", "emptied it"]).exits(0);
    desk.piton(&["resume", "r"]).exits(5);
    desk.write("mended", "");
    // An attempt that cannot even be got ready leaves the progress to be forgotten by the next one.
    std::fs::rename(desk.path("b.db"), desk.path("kept.db")).expect("moved away");
    desk.write("b.db", "no database at all, only a text that is longer than the head of one");
    desk.piton(&["resume", "r"]).exits(5);
    std::fs::rename(desk.path("kept.db"), desk.path("b.db")).expect("moved back");
    desk.piton(&["resume", "r"]).exits(0);
}

#[test]
fn a_long_copy_says_once_a_second_how_far_it_is_in_json_lines() {
    let desk = desk();
    desk.write(
        "map.yaml",
        "apiVersion: piton/v1\nkind: Mapping\nname: map\nsets: { all: [t] }\ntables:\n  t: { columns: { id: id, text: text } }\n",
    );
    let table = |database: &str| {
        format!(
            "db.execute: {{ database: {database}, sql: 'CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, text TEXT)' }}"
        )
    };
    let rows = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3000) INSERT INTO t SELECT n, 'x' FROM c";
    let steps = format!(
        "steps:
  - {{ id: source, {} }}
  - {{ id: target, {} }}
  - {{ id: rows, needs: [source], db.execute: {{ database: a, sql: \"{rows}\" }} }}
",
        table("a"),
        table("b")
    );
    desk.runbook("fill", &steps);
    desk.piton(&["--site", "site.yaml", "run", "fill.yaml"]).exits(0);
    desk.runbook(
        "copy",
        "steps:
  - id: copy
    db.copy: { from: a, to: b, map: map.yaml, tables: all, throttle: { rows_per_second: 1000, pause_while: { sql: SELECT 0 } } }
",
    );
    let plan = desk.piton(&["--site", "site.yaml", "plan", "copy.yaml"]).exits(0).out;
    assert!(plan.contains("copies 3000 rows (about ") && plan.contains("has 0 of their keys"), "{plan}");
    let said = desk.piton(&["--site", "site.yaml", "run", "copy.yaml", "--json"]).exits(0).out;
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<_> = lines.iter().filter(|line| line["kind"] == "progress").collect();
    assert!(!told.is_empty(), "three thousand rows take two seconds at least: {said}");
    for line in told {
        assert_eq!((&line["step"], &line["what"], &line["total"]), (&"copy".into(), &"t".into(), &3_000.into()));
        assert!(line["per_second"].as_f64() > Some(0.0) && line["left_ms"].is_u64() && line["seq"].is_null(), "{line}");
    }
}

//! What a runbook is made of does not change under a run: texts are those of the plan, programs and runbooks must be what
//! they were, and what is not is named.

use std::os::unix::fs::PermissionsExt as _;

use super::cli::{Desk, state};

const SITE: &str = "apiVersion: piton/v1\nkind: Site\nname: here\ndatabases: { app: { url: 'sqlite:app.db' } }\n";

/// A folder with a site and an empty database.
fn desk() -> Desk {
    let desk = Desk::new();
    desk.write("site.yaml", SITE);
    desk.write("app.db", "");
    desk
}

/// The same, and a run of `rest` that waits at an approval `go`.
fn waits(rest: &str, prepare: impl FnOnce(&Desk)) -> Desk {
    let desk = desk();
    prepare(&desk);
    desk.runbook("job", &format!("steps:\n  - {{ id: go, approval: {{ prompt: 'Sure?' }} }}\n{rest}"));
    desk.piton(&["run", "job.yaml", "--site", "site.yaml", "--run-id", "r"]).exits(6);
    desk
}

fn goes_on(desk: &Desk, code: i32) {
    desk.piton(&["approve", "r", "go"]).exits(0);
    desk.piton(&["resume", "r"]).exits(code);
}

fn error(desk: &Desk, step: &str) -> String {
    let show = desk.piton(&["show", "r", "--json"]).exits(0).json();
    let row = show["steps"].as_array().expect("steps").iter().find(|row| row["id"] == step).expect("the step").clone();
    row["error"].as_str().unwrap_or_default().to_owned()
}

fn script(desk: &Desk, name: &str, text: &str) {
    desk.write(name, text);
    std::fs::set_permissions(desk.path(name), std::fs::Permissions::from_mode(0o755)).expect("is ours");
}

#[test]
fn migrations_are_those_of_the_plan() {
    let steps = "  - { id: tables, needs: [go], db.migrate: { database: app, folder: migrations } }
  - { id: look, needs: [tables], db.query: { database: app, sql: 'SELECT name FROM pragma_table_info(''t'')' } }\n";
    let desk = waits(steps, |desk| {
        std::fs::create_dir(desk.path("migrations")).expect("made");
        desk.write("migrations/1_tables.sql", "CREATE TABLE t (kept INT);");
        desk.write("migrations/notes.txt", "no migration");
    });
    desk.write("migrations/1_tables.sql", "CREATE TABLE t (slipped_in INT);");
    desk.write("migrations/2_more.sql", "ALTER TABLE t ADD slipped_in INT;");
    goes_on(&desk, 0);
    let show = desk.show();
    let rows = &show["steps"][2]["outputs"]["rows"];
    assert_eq!(rows.to_string(), r#"[{"name":"kept"}]"#, "{show:#}");
    assert_eq!(show["steps"][1]["outputs"]["applied"].to_string(), "[1]");
}

#[test]
fn a_name_with_a_parameter_is_resolved_when_the_plan_is_made() {
    let desk = desk();
    std::fs::create_dir(desk.path("north")).expect("made");
    desk.write("north/1_tables.sql", "CREATE TABLE t (kept INT);");
    desk.runbook(
        "job",
        "params: { where: { type: string } }
steps:
  - { id: go, approval: { prompt: 'Sure?' } }
  - { id: tables, needs: [go], db.migrate: { database: app, folder: '{{ params.where }}' } }\n",
    );
    let digest = |desk: &Desk| {
        let plan =
            desk.piton(&["plan", "job.yaml", "--offline", "--json", "--param", "where=north", "--site", "site.yaml"]);
        plan.exits(0).json()["digest"].clone()
    };
    let before = digest(&desk);
    desk.piton(&["run", "job.yaml", "--site", "site.yaml", "--run-id", "r", "--param", "where=north"]).exits(6);
    desk.write("north/1_tables.sql", "CREATE TABLE t (slipped_in INT);");
    assert_ne!(digest(&desk), before, "what is applied is part of the plan");
    goes_on(&desk, 0);
    desk.runbook("look", "steps: [{ id: look, db.query: { database: app, sql: 'SELECT kept FROM t' } }]\n");
    desk.piton(&["run", "look.yaml", "--site", "site.yaml"]).exits(0);
    let missing = desk.piton(&["plan", "job.yaml", "--param", "where=nowhere", "--site", "site.yaml"]).exits(3);
    assert!(missing.err.contains("migrations in `nowhere` cannot be read"), "{}", missing.err);
    assert!(missing.err.contains("job.yaml:8:"), "{}", missing.err);
}

#[test]
fn a_program_must_be_what_it_was() {
    let desk = waits("  - { id: act, needs: [go], exec: { argv: [./bin/act.sh], cwd: tools } }\n", |desk| {
        std::fs::create_dir_all(desk.path("tools/bin")).expect("made");
        script(desk, "tools/bin/act.sh", "#!/bin/sh\ntouch ../kept\n");
    });
    script(&desk, "tools/bin/act.sh", "#!/bin/sh\ntouch ../slipped-in\n");
    goes_on(&desk, 4);
    let why = error(&desk, "act");
    assert!(why.starts_with("`tools/bin/act.sh` was changed since this run was planned"), "{why}");
    assert!(!desk.path("slipped-in").exists() && !desk.path("kept").exists());
    std::fs::remove_file(desk.path("tools/bin/act.sh")).expect("was there");
    desk.piton(&["resume", "r"]).exits(4);
    assert!(error(&desk, "act").starts_with("`tools/bin/act.sh` is gone"), "{}", error(&desk, "act"));
    script(&desk, "tools/bin/act.sh", "#!/bin/sh\ntouch ../kept\n");
    desk.piton(&["resume", "r"]).exits(0);
    assert!(desk.path("kept").exists());
}

#[test]
fn what_a_step_uses_is_part_of_its_work() {
    let steps =
        "  - { id: act, needs: [go], uses: ['*.inc', lib/one.sh], exec: { shell: '. ./act.inc' }, idempotent: yes }
  - { id: other, needs: [act], exec: { argv: ['true'] } }\n";
    let desk = waits(steps, |desk| {
        std::fs::create_dir(desk.path("lib")).expect("made");
        desk.write("act.inc", ". ./lib/one.sh\n");
        desk.write("lib/one.sh", "exit 1\n");
    });
    desk.piton(&["approve", "r", "go"]).exits(0);
    desk.piton(&["resume", "r"]).exits(4);
    desk.write("lib/one.sh", "touch done\n");
    desk.piton(&["resume", "r"]).exits(4);
    assert!(error(&desk, "act").starts_with("`lib/one.sh` was changed"), "{}", error(&desk, "act"));
    let diff = desk.piton(&["diff", "r", "--json"]).exits(0).json();
    let changes: Vec<String> =
        diff["steps"].as_array().expect("steps").iter().map(|row| format!("{}", row["change"])).collect();
    assert_eq!(changes, ["\"same\"", "\"changed\"", "\"same\""], "{diff:#}");
    // What was approved was another plan, so people are asked again.
    desk.piton(&["resume", "r", "--runbook", "job.yaml", "--reason", "mended", "--yes"]).exits(6);
    assert!(!desk.path("done").exists());
    goes_on(&desk, 0);
    assert!(desk.path("done").exists());
    desk.runbook("none", "steps: [{ id: a, uses: ['*.nothing', '[', '{{ params.x }}'], exec: { argv: ['true'] } }]\n");
    let none = desk.piton(&["check", "none.yaml"]).exits(3).err;
    assert!(none.contains("no file fits `*.nothing`") && none.contains("`[` is no pattern"), "{none}");
}

#[test]
fn a_runbook_that_a_step_runs_must_be_what_it_was() {
    let child = "steps: [{ id: a, db.migrate: { database: app, folder: sql } }, { id: b, exec: { argv: [./b.sh] } }]\n";
    let ways: [(&str, &str, &str, &str); 4] = [
        (
            "sub/child.yaml",
            "apiVersion: piton/v1\nkind: Runbook\nname: child\nsteps: [{ id: a, exec: { argv: ['true'] } }]\n",
            "`sub/child.yaml` was changed",
            "sub/child.yaml",
        ),
        ("sub/sql/1_t.sql", "CREATE TABLE u (a INT);", "`sub/sql/1_t.sql` was changed", "sub/sql/1_t.sql"),
        ("sub/sql/2_u.sql", "CREATE TABLE u (a INT);", "`sub/sql/2_u.sql` was added", ""),
        ("sub/b.sh", "#!/bin/sh\nfalse\n", "`sub/b.sh` was changed", "sub/b.sh"),
    ];
    for (file, text, expected, is_there) in ways {
        let desk = waits("  - { id: sub, needs: [go], runbook: { path: sub/child.yaml } }\n", |desk| {
            std::fs::create_dir_all(desk.path("sub/sql")).expect("made");
            desk.write("sub/sql/1_t.sql", "CREATE TABLE t (a INT);");
            script(desk, "sub/b.sh", "#!/bin/sh\ntrue\n");
            desk.write("sub/child.yaml", &format!("apiVersion: piton/v1\nkind: Runbook\nname: child\n{child}"));
        });
        let before = std::fs::read(desk.path(file));
        assert_eq!(before.is_ok(), !is_there.is_empty(), "{file}");
        desk.write(file, text);
        goes_on(&desk, 4);
        let why = error(&desk, "sub");
        assert!(why.starts_with(expected), "{why}");
        match before {
            Ok(bytes) => std::fs::write(desk.path(file), bytes).expect("written"),
            Err(_) => std::fs::remove_file(desk.path(file)).expect("was there"),
        }
        desk.piton(&["resume", "r"]).exits(0);
        let show = desk.show();
        assert_eq!(state(&show, "sub"), "succeeded");
    }
}

#[test]
fn a_runbook_that_cannot_be_run_is_named_before_the_run() {
    let desk = Desk::new();
    desk.runbook("broken", "stepz: []\nsteps: [{ id: a, exec: { argv: ['true'] } }]\n");
    desk.runbook("needy", "steps: [{ id: a, db.execute: { database: app, sql: gone.sql } }]\n");
    desk.runbook("round", "steps: [{ id: a, when: 'false', runbook: { path: round.yaml } }]\n");
    desk.runbook(
        "job",
        "steps:
  - { id: a, runbook: { path: broken.yaml } }
  - { id: b, runbook: { path: needy.yaml } }
  - { id: c, runbook: { path: nowhere.yaml } }\n",
    );
    let said = desk.piton(&["check", "job.yaml"]).exits(3).err;
    for expected in [
        "runbook `broken.yaml` cannot be read: it has 1 problem",
        "runbook `needy.yaml` cannot be read: file `gone.sql` cannot be read: no such file or directory",
        "runbook `nowhere.yaml` cannot be read: no such file or directory",
        "see `piton check broken.yaml`",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    desk.piton(&["check", "round.yaml"]).exits(0);
}

/// What only the run can name is read in the run, and is no reason to refuse what did not change.
#[test]
fn what_only_the_run_can_name_is_read_then() {
    let desk = waits(
        "  - { id: name, needs: [go], exec: { argv: [echo, south], outputs: { x: { stdout: true } } } }
  - { id: sub, needs: [name], runbook: { path: child.yaml, params: { folder: '{{ steps.name.outputs.x }}' } } }\n",
        |desk| {
            std::fs::create_dir(desk.path("south")).expect("made");
            desk.write("south/1_t.sql", "CREATE TABLE t (a INT);");
            desk.runbook(
                "child",
                "params: { folder: { type: string, default: north } }\nsteps: [{ id: a, db.migrate: { database: app, folder: '{{ params.folder }}' } }]\n",
            );
        },
    );
    goes_on(&desk, 0);
    assert_eq!(desk.show()["outcome"], "succeeded");
}

/// Paths that lead out of a project, in the run as well, and what allows them.
#[test]
fn a_runbook_reads_inside_of_its_project_only() {
    let outer = desk();
    std::fs::create_dir_all(outer.path("project/.piton")).expect("made");
    std::fs::create_dir_all(outer.path("shared")).expect("made");
    outer.write("shared/1_t.sql", "CREATE TABLE t (a INT);");
    outer.write("shared/look.sql", "SELECT 1 AS a");
    let text = |steps: &str| format!("apiVersion: piton/v1\nkind: Runbook\nname: job\n{steps}");
    let run = |more: &[&str]| outer.piton(&[&["run", "project/job.yaml", "--site", "site.yaml"], more].concat());
    outer
        .write("project/job.yaml", &text("steps: [{ id: a, db.query: { database: app, sql: ../shared/look.sql } }]\n"));
    let refused = run(&[]).exits(3).err;
    assert!(refused.contains("plan::outside") && refused.contains("job.yaml:4:"), "{refused}");
    assert!(refused.contains("`../shared/look.sql` leads out of the project"), "{refused}");
    assert!(refused.contains("--allow-reads FOLDER"), "{refused}");
    assert!(outer.piton(&["check", "project/job.yaml"]).exits(3).err.contains("plan::outside"));
    run(&["--allow-reads", "shared"]).exits(0);
    outer.piton(&["check", "project/job.yaml", "--allow-reads", "shared"]).exits(0);
    outer.write("open.yaml", &format!("{SITE}runbooks: {{ reads: [shared] }}\n"));
    outer.piton(&["run", "project/job.yaml", "--site", "open.yaml"]).exits(0);
    outer.write("narrow.yaml", &format!("{SITE}runbooks: {{ reads: [project] }}\n"));
    outer.piton(&["run", "project/job.yaml", "--site", "narrow.yaml"]).exits(3);

    // What only the run can name is looked at in the run; what runs a runbook allows it what it may read itself.
    let late = "steps:
  - { id: name, exec: { argv: [echo, ../shared], outputs: { x: { stdout: true } } } }
  - { id: tables, needs: [name], db.migrate: { database: app, folder: '{{ steps.name.outputs.x }}' }, on_failure: continue }
  - { id: sub, needs: [{ step: tables, outcome: any }], runbook: { path: sub/child.yaml, params: { sql: look } } }\n";
    outer.write("project/job.yaml", &text(late));
    std::fs::create_dir_all(outer.path("project/sub")).expect("made");
    let child = "params: { sql: { type: string } }\nsteps: [{ id: a, db.migrate: { database: app, folder: '../../shared' } }, { id: b, exec: { argv: [echo, '{{ params.sql }}'] } }]\n";
    outer.write("project/sub/child.yaml", &text(child));
    let refused = run(&[]).exits(3).err;
    assert!(
        refused.contains("runbook `sub/child.yaml` cannot be read: `../../shared` leads out of the project"),
        "{refused}"
    );
    outer.write(
        "project/sub/child.yaml",
        &text("params: { sql: { type: string } }\nsteps: [{ id: b, exec: { argv: [echo, '{{ params.sql }}'] } }]\n"),
    );
    run(&["--run-id", "late"]).exits(4);
    let show = outer.piton(&["show", "late", "--json", "--store", "project/.piton/piton.db"]).exits(0).json();
    let why = show["steps"][1]["error"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("`../shared` leads out of the project"), "{show:#}");
    outer.write("project/sub/child.yaml", &text(child));
    run(&["--allow-reads", "shared", "--run-id", "wide"]).exits(0);
}

#[test]
fn a_value_does_not_lead_out_of_a_path() {
    let desk = Desk::new();
    std::fs::create_dir_all(desk.path("conf")).expect("made");
    desk.runbook(
        "job",
        "params: { name: { type: string } }
steps: [{ id: a, file.write: { path: 'conf/{{ params.name }}.ini', content: x } }]\n",
    );
    desk.piton(&["run", "job.yaml", "--param", "name=one"]).exits(0);
    assert!(desk.path("conf/one.ini").exists());
    desk.piton(&["run", "job.yaml", "--param", "name=../two", "--run-id", "r"]).exits(4);
    assert!(!desk.path("two.ini").exists());
    let why = error(&desk, "a");
    assert!(why.contains("job.yaml:6:") && why.contains("`params.name` holds `..`"), "{why}");
}

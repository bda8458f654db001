//! The four ways to migrate side by side: what each loses is measured, never more than predicted, and in the order that
//! theory says. Then the gate in front of the 8.x update, and the ways back.

use serde_json::Value as Json;

use crate::support::lab::{PITON, RunningLab, assert_nothing_lost, events, said};

fn figure(row: &Json, name: &str) -> i64 {
    row[name].as_i64().unwrap_or_else(|| panic!("`{name}` in {row}"))
}

#[test]
fn losses_come_out_in_the_order_of_the_theory_and_never_above_the_prediction() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let dir = folder.path().join("labs").display().to_string();
    let size = ["--entities", "10", "--history", "600", "--timestep", "2"];
    let output = std::process::Command::new(PITON)
        .args(["demo", "--compare", "--json", "--dir", &dir])
        .args(size)
        .output()
        .expect("piton starts");
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let rows: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
    let names: Vec<&str> = rows.iter().filter_map(|row| row["procedure"].as_str()).collect();
    assert_eq!(names, ["one-step", "two-step", "two-step-skip-7", "two-step-guarded"]);
    for row in &rows {
        for name in ["missing", "partial", "overwritten"] {
            let predicted = figure(&row["predicted"], name);
            assert!(figure(row, name) <= predicted, "more {name} than predicted: {row}");
        }
    }
    let [one_step, two_step, skip_7, guarded] = rows.as_slice() else { panic!("four rows") };
    assert!(figure(one_step, "missing") > figure(two_step, "missing"), "{one_step} {two_step}");
    assert!(figure(skip_7, "overwritten") > figure(two_step, "overwritten"), "{skip_7} {two_step}");
    assert!(figure(two_step, "partial") > 0, "{two_step}");
    assert_nothing_lost(guarded);
}

fn run(lab: &RunningLab, runbook: &str, id: &str, more: &[&str]) -> std::process::Output {
    let path = lab.runbook(runbook).display().to_string();
    let mut arguments = vec!["run", &path, "--yes", "--run-id", id];
    arguments.extend(more);
    lab.output(&arguments)
}

const SIZE: [&str; 6] = ["--entities", "5", "--history", "200", "--timestep", "2"];

#[test]
fn the_8x_update_is_refused_before_the_milestone_and_accepted_after_it() {
    let lab = RunningLab::start(&SIZE);
    let refused = run(&lab, "update-to-8x.yaml", "early", &[]);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains("milestone `wfm76/performance-migrated` is not established on site"), "{message}");
    assert!(!lab.output(&["show", "early"]).status.success(), "nothing may be recorded of a refused run");

    let moved = run(&lab, "two-step-guarded.yaml", "moved", &["--param", "settle=5s"]);
    assert!(moved.status.success(), "{}", said(&moved));
    assert_nothing_lost(&lab.evidence("last"));

    let updated = run(&lab, "update-to-8x.yaml", "updated", &[]);
    assert!(updated.status.success(), "{}", said(&updated));
}

#[test]
fn a_failure_before_the_changeover_puts_everything_back() {
    let lab = RunningLab::start(&SIZE);
    // The runbook itself is given a step that fails right before the new collector starts.
    let path = lab.runbook("two-step-guarded.yaml");
    let text = std::fs::read_to_string(&path).expect("the runbook is there");
    let broken = text.replace(
        "  - id: start-76\n",
        "  - id: breaks\n    needs: [go]\n    exec: { argv: [\"false\"] }\n  - id: start-76\n",
    );
    let broken = broken.replace(
        "    needs: [go]\n    service.start: { service: wfm76-data-aggregator }",
        "    needs: [breaks]\n    service.start: { service: wfm76-data-aggregator }",
    );
    assert_ne!(text, broken);
    std::fs::write(&path, broken).expect("the lab is ours");

    let back = run(&lab, "two-step-guarded.yaml", "back", &[]);
    assert_eq!(back.status.code(), Some(4), "{}", said(&back));
    let told = events(&lab, "back");
    let last = told.last().expect("events");
    assert_eq!(last["outcome"], "rolled_back", "{last}");
    let undone: Vec<&str> =
        told.iter().filter(|e| e["kind"] == "undo_succeeded").filter_map(|e| e["step"].as_str()).collect();
    let place = |id: &str| undone.iter().position(|step| *step == id).unwrap_or_else(|| panic!("`{id}` in {undone:?}"));
    assert!(place("option-0") < place("stop-65"), "the last thing done is undone first: {undone:?}");

    // The option is absent again, not empty; 6.5 runs again and nothing is held.
    let site = lab.dir().join("site.yaml");
    let check = lab.dir().join("check.yaml");
    std::fs::write(
        &check,
        "apiVersion: piton/v1\nkind: Runbook\nname: check\nsteps:\n  - id: absent\n    option.check: { store: genesys, object: WFM Client Application, section: Options, name: AllowMigratePerformance, absent: true }\n  - id: up\n    service.check: { group: wfm65, state: running }\n",
    )
    .expect("the lab is ours");
    assert!(site.exists());
    let checked = lab.output(&["run", &check.display().to_string(), "--yes"]);
    assert!(checked.status.success(), "{}", said(&checked));
}

#[test]
fn a_gap_of_6_5_itself_is_found_before_the_changeover() {
    let lab = RunningLab::start(&SIZE);
    let path = lab.runbook("two-step-guarded.yaml");
    let text = std::fs::read_to_string(&path).expect("the runbook is there");
    // Three timesteps pass, then 6.5 loses what it collected in one that closed since the run began.
    let broken = text.replace(
        "  - id: mark3\n    needs: [round2]\n",
        "  - id: passes\n    needs: [round2]\n    wait.for: { duration: 6s }\n  - id: mark3\n    needs: [passes]\n",
    );
    let broken =
        broken.replace("    needs: [round3]\n    db.gaps: &gaps65\n", "    needs: [hole]\n    db.gaps: &gaps65\n");
    let broken = broken.replace(
        "  - id: source-gaps\n",
        "  - id: hole\n    needs: [round3]\n    db.execute: { database: wfm65, sql: \"DELETE FROM wfm_perf_item WHERE entity_id = (SELECT MIN(entity_id) FROM wfm_perf_item) AND step_start = :mark - 2\", bind: { mark: \"{{ steps.mark3.outputs.watermark }}\" } }\n  - id: source-gaps\n",
    );
    std::fs::write(&path, broken).expect("the lab is ours");
    let back = run(&lab, "two-step-guarded.yaml", "gap", &[]);
    assert_eq!(back.status.code(), Some(4), "{}", said(&back));
    let told = events(&lab, "gap");
    assert!(told.iter().any(|event| event["kind"] == "attempt_failed" && event["step"] == "source-gaps"), "{told:?}");
    assert!(told.iter().all(|event| event["step"] != "stop-65-collector"), "6.5 went on collecting");
}

#[test]
fn what_comes_late_to_a_round_that_is_over_is_moved_all_the_same() {
    let lab = RunningLab::start(&SIZE);
    let path = lab.runbook("two-step-guarded.yaml");
    let text = std::fs::read_to_string(&path).expect("the runbook is there");
    // Some timesteps pass before the last round; behind it 6.5 corrects one that an earlier range has taken.
    let late = text.replace(
        "  - id: mark3\n    needs: [round2]\n",
        "  - id: passes\n    needs: [round2]\n    wait.for: { duration: 8s }\n  - id: mark3\n    needs: [passes]\n",
    );
    let late =
        late.replace("    needs: [round3]\n    db.gaps: &gaps65\n", "    needs: [correct]\n    db.gaps: &gaps65\n");
    let late = late.replace(
        "  - id: source-gaps\n",
        "  - id: correct\n    needs: [round3]\n    db.execute: { database: wfm65, sql: \"UPDATE wfm_perf_item SET iv = iv + 1 WHERE entity_id = (SELECT MIN(entity_id) FROM wfm_perf_item) AND step_start = :mark\", bind: { mark: \"{{ steps.mark1.outputs.watermark }}\" } }\n  - id: source-gaps\n",
    );
    std::fs::write(&path, late).expect("the lab is ours");
    let moved = run(&lab, "two-step-guarded.yaml", "late", &["--param", "predict_loss=false"]);
    assert!(moved.status.success(), "{}", said(&moved));
    let show = lab.output(&["show", "late", "--json"]);
    let show: Json = serde_json::from_slice(&show.stdout).expect("JSON");
    let output = |step: &str, name: &str| {
        let steps = show["steps"].as_array().expect("steps");
        steps.iter().find(|row| row["id"] == step).expect("the step is there")["outputs"][name].clone()
    };
    assert_eq!(output("correct", "rows_affected"), 1, "{show}");
    assert_eq!((output("late", "updated"), output("again", "updated")), (1.into(), 0.into()), "{show}");
}

#[test]
fn a_failure_behind_the_point_of_no_return_is_left_to_a_person() {
    let lab = RunningLab::start(&SIZE);
    let path = lab.runbook("two-step-guarded.yaml");
    let text = std::fs::read_to_string(&path).expect("the runbook is there");
    let broken = text.replace("  - id: stop-utility\n    needs: [stop-65-collector]\n", "  - id: breaks\n    needs: [stop-65-collector]\n    exec: { argv: [\"false\"] }\n  - id: stop-utility\n    needs: [breaks]\n");
    assert_ne!(text, broken);
    std::fs::write(&path, broken).expect("the lab is ours");
    let stuck = run(&lab, "two-step-guarded.yaml", "stuck", &[]);
    assert_eq!(stuck.status.code(), Some(5), "{}", said(&stuck));
    let told = events(&lab, "stuck");
    let note = told.last().and_then(|event| event["note"].as_str()).unwrap_or_default().to_owned();
    assert!(note.contains("stop-65-collector"), "the note names what remains: {note}");
}

#[test]
fn the_rollback_runbook_brings_6_5_back() {
    let lab = RunningLab::start(&SIZE);
    let moved = run(&lab, "two-step.yaml", "moved", &["--param", "settle=5s"]);
    assert!(moved.status.success(), "{}", said(&moved));
    let back = run(&lab, "rollback.yaml", "back", &[]);
    assert!(back.status.success(), "{}", said(&back));
}

#[test]
fn the_tutorial_needs_nothing_but_a_shell() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let tutorial = concat!(env!("CARGO_MANIFEST_DIR"), "/runbooks/tutorial/first.yaml");
    let store = folder.path().join("piton.db").display().to_string();
    let output = std::process::Command::new(PITON)
        .args(["--store", &store, "run", tutorial, "--yes"])
        .current_dir(folder.path())
        .output()
        .expect("piton starts");
    assert!(output.status.success(), "{}", said(&output));
}

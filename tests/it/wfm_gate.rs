//! Before and behind the changeover: what a refused or failed run leaves of the site, looked up in the site itself.

use std::process::Output;

use serde_json::Value as Json;

use crate::support::lab::{RunningLab, events, said};

const SIZE: [&str; 6] = ["--entities", "5", "--history", "100", "--timestep", "1"];
const OPTION: &str = "store: genesys, object: WFM Client Application, section: Options, name: AllowMigratePerformance";

fn run(lab: &RunningLab, runbook: &str, id: &str) -> Output {
    lab.output(&["run", &lab.runbook(runbook).display().to_string(), "--yes", "--run-id", id])
}

/// Runs `steps` as a runbook of their own: a look at the site, or a hand in it.
fn look(lab: &RunningLab, name: &str, steps: &str) -> Output {
    let path = lab.dir().join(format!("{name}.yaml"));
    let text = format!("apiVersion: piton/v1\nkind: Runbook\nname: {name}\nsteps:\n{steps}");
    std::fs::write(&path, text).expect("the lab is ours");
    lab.output(&["run", &path.display().to_string(), "--yes"])
}

/// WFM 6.5 runs, nothing of it is held, and the option is absent: as if nothing had been.
pub(crate) fn assert_as_before(lab: &RunningLab, name: &str) {
    let steps = format!(
        "  - {{ id: absent, option.check: {{ {OPTION}, absent: true }} }}\n  - {{ id: up, service.check: {{ group: wfm65, state: running }} }}\n  - {{ id: unheld, needs: [up], service.start: {{ group: wfm65 }} }}\n"
    );
    let looked = look(lab, name, &steps);
    assert!(looked.status.success(), "{}", said(&looked));
}

/// A row that only the target has: the comparison behind the first pass cannot come out equal.
pub(crate) fn plant_a_row(lab: &RunningLab) {
    let sql = "INSERT INTO wfm_business_unit (bu_id, name, timezone) VALUES (987654, 'planted', 'UTC')";
    let planted =
        look(lab, "plant", &format!("  - {{ id: plant, db.execute: {{ database: wfm76, sql: \"{sql}\" }} }}\n"));
    assert!(planted.status.success(), "{}", said(&planted));
}

fn started(events: &[Json]) -> Vec<&str> {
    events
        .iter()
        .filter(|event| event["kind"] == "attempt_started")
        .filter_map(|event| event["step"].as_str())
        .collect()
}

#[test]
fn a_gate_that_is_shut_changes_nothing_and_one_that_is_open_leads_to_8x() {
    let lab = RunningLab::start(&SIZE);
    let refused = run(&lab, "update-to-8x.yaml", "early");
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("wfm76/performance-migrated") && message.contains("run the runbook"), "{message}");
    assert!(!lab.output(&["show", "early"]).status.success(), "nothing is recorded of it");
    assert_as_before(&lab, "untouched");

    let moved = run(&lab, "two-step-guarded.yaml", "moved");
    assert!(moved.status.success(), "{}", said(&moved));
    let updated = run(&lab, "update-to-8x.yaml", "updated");
    assert!(updated.status.success(), "{}", said(&updated));
    let version = "SELECT count(*) AS n FROM wfm_schema_version WHERE is_current = 1 AND version LIKE '8.%'";
    let looked = look(
        &lab,
        "version",
        &format!(
            "  - {{ id: v, db.assert: {{ database: wfm76, sql: \"{version}\", expect: {{ value: 1 }} }} }}\n  - {{ id: up, service.check: {{ group: wfm76 }} }}\n"
        ),
    );
    assert!(looked.status.success(), "{}", said(&looked));
    // The schema is no longer 7.6: a second update fails in its preflight and touches nothing.
    let again = run(&lab, "update-to-8x.yaml", "again");
    assert_eq!(again.status.code(), Some(4), "{}", said(&again));
    assert_eq!(started(&events(&lab, "again")), ["schema"]);
}

#[test]
fn a_preflight_that_fails_leaves_everything_alone() {
    let lab = RunningLab::start(&SIZE);
    let down = look(&lab, "down", "  - { id: down, service.stop: { service: wfm65-data-aggregator } }\n");
    assert!(down.status.success(), "{}", said(&down));
    let failed = run(&lab, "two-step-guarded.yaml", "early");
    assert_eq!(failed.status.code(), Some(4), "{}", said(&failed));
    let told = events(&lab, "early");
    let begun = started(&told);
    assert!(begun.contains(&"collector-up") && !begun.contains(&"stop-65"), "{begun:?}");
    let why = told.iter().find(|event| event["kind"] == "attempt_failed" && event["step"] == "collector-up");
    let why = why.and_then(|event| event["error"].as_str()).unwrap_or_default();
    assert!(why.contains("`wfm65-data-aggregator` does not run"), "{why}");
    // Up again, and a whole timestep collected since.
    let healthy = "runbooks/wfm/checks/old-collector-healthy.sql";
    let up = look(
        &lab,
        "up",
        &format!(
            "  - {{ id: up, service.start: {{ service: wfm65-data-aggregator }} }}\n  - {{ id: next, needs: [up], wait.boundary: {{ every: 1s }} }}\n  - {{ id: collects, needs: [next], wait.until: {{ every: 100ms, timeout: 30s, db.assert: {{ database: wfm65, sql: {healthy}, bind: {{ since: \"{{{{ steps.next.outputs.at }}}}\" }} }} }} }}\n"
        ),
    );
    assert!(up.status.success(), "{}", said(&up));
    assert_as_before(&lab, "looked");
    // What was in the way is gone. The timesteps that 6.5 itself did not collect are no fault of the migration.
    let moved = run(&lab, "two-step-guarded.yaml", "moved");
    assert!(moved.status.success(), "{}", said(&moved));
}

#[test]
fn a_first_pass_that_does_not_compare_equal_is_taken_back() {
    let lab = RunningLab::start(&SIZE);
    plant_a_row(&lab);
    let back = run(&lab, "two-step-guarded.yaml", "back");
    assert_eq!(back.status.code(), Some(4), "{}", said(&back));
    let told = events(&lab, "back");
    assert_eq!(told.last().expect("events")["outcome"], "rolled_back");
    let failed = told.iter().rev().find(|event| event["kind"] == "attempt_failed").expect("a failure");
    assert_eq!(failed["step"], "config", "{failed}");
    assert!(failed["error"].as_str().is_some_and(|text| text.contains("1 extra")), "{failed}");
    assert_as_before(&lab, "looked");
    let gone = "SELECT count(*) AS n FROM wfm_agent";
    let looked = look(
        &lab,
        "gone",
        &format!("  - {{ id: v, db.assert: {{ database: wfm76, sql: \"{gone}\", expect: {{ value: 0 }} }} }}\n"),
    );
    assert!(looked.status.success(), "{}", said(&looked));
    // What failed is mended by the way back; a new run gets through.
    let moved = run(&lab, "two-step-guarded.yaml", "moved");
    assert!(moved.status.success(), "{}", said(&moved));
}

#[test]
fn the_way_back_after_a_finished_migration_ends_with_6_5_as_it_was() {
    let lab = RunningLab::start(&SIZE);
    let moved = run(&lab, "two-step-guarded.yaml", "moved");
    assert!(moved.status.success(), "{}", said(&moved));
    let back = run(&lab, "rollback.yaml", "back");
    assert!(back.status.success(), "{}", said(&back));
    assert_as_before(&lab, "looked");
    let down = look(&lab, "down", "  - { id: down, service.check: { group: wfm76, state: stopped } }\n");
    assert!(down.status.success(), "{}", said(&down));
    // 7.6 is held: nobody starts it by accident.
    let held = look(&lab, "held", "  - { id: held, service.start: { service: wfm76-data-aggregator } }\n");
    assert_eq!(held.status.code(), Some(4), "{}", said(&held));
}

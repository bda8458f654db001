//! The guarded migration while its driver is killed with SIGKILL again and again, on SQLite and on PostgreSQL.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::support::lab::{RunningLab, assert_nothing_lost, events, said};
use crate::support::postgres::PrivatePostgres;

/// Fewest times that a driver at work must have been killed.
const KILLS_MIN: usize = 10;

/// Steps that may run again by themselves: they only look, resume exactly, or were declared idempotent.
fn may_repeat(lab: &RunningLab) -> BTreeMap<String, bool> {
    let runbook = lab.runbook("two-step-guarded.yaml");
    let site = piton::plan::load_site(&lab.dir().join("site.yaml")).expect("the lab's site is valid");
    let plan = piton::plan::Plan::load(&runbook, site, &piton::plan::Given::new()).expect("the runbook is valid");
    let never = piton::spec::runbook::Idempotent::No;
    plan.steps.iter().map(|step| (step.id.to_string(), step.idempotent != never)).collect()
}

/// Every second start of a step that may not be repeated must follow a finding that the first changed nothing.
fn assert_nothing_ran_twice(events: &[Json], may_repeat: &BTreeMap<String, bool>) {
    let mut open: BTreeMap<&str, bool> = BTreeMap::new();
    for event in events {
        let (kind, step) = (event["kind"].as_str().unwrap_or_default(), event["step"].as_str().unwrap_or_default());
        match kind {
            "attempt_started" => {
                let doubtful = open.insert(step, true).unwrap_or(false);
                assert!(!doubtful || may_repeat[step], "`{step}` started again while its first attempt was in doubt");
            }
            "attempt_probed" => {
                let known = event["finding"].as_str() != Some("unknown");
                open.insert(step, !known);
            }
            "attempt_succeeded" => {
                open.insert(step, false);
            }
            "attempt_failed" => {
                open.insert(step, event["effect"].as_str() == Some("unknown"));
            }
            _ => {}
        }
    }
}

fn survive(lab: &RunningLab, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let runbook = lab.runbook("two-step-guarded.yaml").display().to_string();
    let begin: &[&str] =
        &["run", &runbook, "--yes", "--run-id", "crashed", "--param", "chunk_rows=1000", "--param", "settle=5s"];
    let mut kills = 0;
    let deadline = Instant::now() + Duration::from_mins(4);
    let mut arguments = begin;
    loop {
        assert!(Instant::now() < deadline, "the run did not end after {kills} kills (seed {seed})");
        let mut driver =
            lab.piton(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("piton starts");
        let killed_at = Instant::now() + Duration::from_millis(random.u64(30..700));
        let ended = loop {
            if let Some(status) = driver.try_wait().expect("the driver is our child") {
                break Some(status);
            }
            // Once it was killed often enough, it may finish.
            if kills < KILLS_MIN + 4 && Instant::now() >= killed_at {
                driver.kill().expect("SIGKILL");
                break None;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let output = driver.wait_with_output().expect("its output");
        match ended {
            None => kills += 1,
            Some(status) if status.success() => break,
            Some(_) => panic!("the run ended badly after {kills} kills (seed {seed}): {}", said(&output)),
        }
        // A driver that died before it recorded the start leaves nothing to resume.
        let started = lab.output(&["show", "crashed"]).status.success();
        arguments = if started { &["resume", "crashed"] } else { begin };
    }
    assert!(kills >= KILLS_MIN, "only {kills} kills hit the run (seed {seed})");
    let told = events(lab, "crashed");
    let interruptions = told.iter().filter(|event| event["kind"] == "run_resumed").count();
    assert!(
        interruptions >= KILLS_MIN / 2,
        "the audit shows only {interruptions} interruptions of {kills} (seed {seed})"
    );
    assert_nothing_ran_twice(&told, &may_repeat(lab));
    let verified = lab.output(&["audit", "crashed", "--verify"]);
    assert!(verified.status.success(), "{}", said(&verified));
    assert_nothing_lost(&lab.evidence("crashed"));
}

fn seed() -> u64 {
    std::env::var("PITON_CRASH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..))
}

const SIZE: [&str; 6] = ["--entities", "10", "--history", "1000", "--timestep", "2"];

#[test]
fn a_driver_that_is_killed_again_and_again_loses_nothing_on_sqlite() {
    survive(&RunningLab::start(&SIZE), seed());
}

#[test]
fn a_driver_that_is_killed_again_and_again_loses_nothing_on_postgresql() {
    let url = PrivatePostgres::start().create_database("wfm_crash");
    let mut arguments = SIZE.to_vec();
    arguments.extend(["--postgres-url", &url]);
    survive(&RunningLab::start(&arguments), seed());
}

//! The guarded migration while its driver is killed with SIGKILL again and again, on SQLite and on PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::support::lab::{RunningLab, assert_nothing_lost, events, said};
use crate::support::postgres::PrivatePostgres;
use crate::wfm_gate::{assert_as_before, plant_a_row};

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

/// What the journal tells about a step so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Untouched,
    Begun,
    Doubtful,
    Done,
}

/// A step starts only where nothing of it is in the world, or where repeating it is declared harmless; one that is done never starts.
fn assert_nothing_ran_twice(events: &[Json], may_repeat: &BTreeMap<String, bool>) {
    let mut steps: BTreeMap<&str, Known> = BTreeMap::new();
    for event in events {
        let (kind, step) = (event["kind"].as_str().unwrap_or_default(), event["step"].as_str().unwrap_or_default());
        let known = steps.get(step).copied().unwrap_or(Known::Untouched);
        let now = match kind {
            "attempt_started" => {
                let free = match known {
                    Known::Untouched => true,
                    Known::Begun | Known::Doubtful => may_repeat[step],
                    Known::Done => false,
                };
                assert!(free, "`{step}` started again while its earlier attempt was {known:?}: {event}");
                Known::Begun
            }
            "attempt_probed" => {
                assert_eq!(known, Known::Begun, "only an attempt without a result is looked up: {event}");
                match event["finding"].as_str() {
                    Some("not_done") => Known::Untouched,
                    Some(_) => Known::Doubtful,
                    None => Known::Done,
                }
            }
            "attempt_succeeded" => Known::Done,
            "attempt_failed" if event["effect"] == "unknown" => Known::Doubtful,
            "attempt_failed" | "undo_succeeded" => Known::Untouched,
            _ => continue,
        };
        steps.insert(step, now);
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
    let verified = lab.output(&["audit", "verify", "crashed"]);
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

/// Drives a run to its end while every driver is killed the moment it tells an event of these kinds about a step for the first
/// time. Returns how often that interrupted it.
fn kill_at_each(lab: &RunningLab, kinds: &[&str], end: i32) -> usize {
    let runbook = lab.runbook("two-step-guarded.yaml").display().to_string();
    let begin: &[&str] = &[
        "run",
        &runbook,
        "--yes",
        "--json",
        "--run-id",
        "crashed",
        "--param",
        "chunk_rows=1000",
        "--param",
        "settle=3s",
    ];
    let mut seen = BTreeSet::new();
    let mut arguments = begin;
    loop {
        let mut driver =
            lab.piton(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("piton starts");
        let lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
        let killed = lines.map_while(Result::ok).any(|line| {
            let event: Json = serde_json::from_str(&line).expect("a JSON object a line");
            let kind = event["kind"].as_str().unwrap_or_default().to_owned();
            kinds.contains(&kind.as_str()) && seen.insert((kind, event["step"].to_string()))
        });
        if killed {
            driver.kill().expect("SIGKILL");
        }
        let output = driver.wait_with_output().expect("its output");
        // A signal may come just too late: the run is over, and nothing is interrupted.
        if !killed && String::from_utf8_lossy(&output.stderr).contains("`crashed` is over") {
            return seen.len() - 1;
        }
        if !killed {
            assert_eq!(output.status.code(), Some(end), "after {} kills: {}", seen.len(), said(&output));
            return seen.len();
        }
        arguments = &["resume", "crashed", "--json"];
    }
}

#[test]
fn a_driver_that_is_killed_in_every_single_step_loses_nothing() {
    let lab = RunningLab::start(&["--entities", "8", "--history", "300", "--timestep", "1"]);
    let kills = kill_at_each(&lab, &["attempt_started", "attempt_probed"], 0);
    let told = events(&lab, "crashed");
    let steps: BTreeSet<&str> =
        told.iter().filter(|e| e["kind"] == "attempt_succeeded").filter_map(|e| e["step"].as_str()).collect();
    // On a busy machine a signal lands some steps late, and one kill then stands for all of them.
    assert!(kills >= 25 && steps.len() >= 40, "{kills} kills in {} steps", steps.len());
    let interruptions = told.iter().filter(|event| event["kind"] == "run_resumed").count();
    assert_eq!(interruptions, kills, "the audit shows every interruption");
    assert_nothing_ran_twice(&told, &may_repeat(&lab));
    assert_nothing_lost(&lab.evidence("crashed"));
}

#[test]
fn a_driver_that_is_killed_on_the_way_back_still_puts_everything_back() {
    let lab = RunningLab::start(&["--entities", "5", "--history", "100", "--timestep", "1"]);
    plant_a_row(&lab);
    let kills = kill_at_each(&lab, &["rollback_started", "undo_started", "undo_succeeded"], 4);
    // As above: quick undos may pass before a signal lands.
    assert!(kills >= 4, "only {kills} kills");
    let told = events(&lab, "crashed");
    assert_eq!(told.last().expect("events")["outcome"], "rolled_back");
    assert_nothing_ran_twice(&told, &may_repeat(&lab));
    assert_as_before(&lab, "looked");
}

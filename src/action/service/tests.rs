//! Services as real processes.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::super::testing::{Place, until};
use super::*;
use crate::event::Effect;

/// Arguments that choose nothing yet.
pub(super) fn services() -> Services {
    Services {
        service: None,
        services: Vec::new(),
        group: None,
        except: Vec::new(),
        hold: false,
        release_hold: false,
        state: RunState::Running,
    }
}

fn action(verb: ServiceVerb, service: &str) -> ServiceAction {
    let mut args = services();
    args.service = Some(service.into());
    ServiceAction { verb, args }
}

/// A site with one service `a` that runs this shell text.
fn one(text: &str, more: &str) -> Place {
    Place::at(|_| {
        format!("services:\n  a: {{ provider: {{ process: {{ argv: [sh, -c, {}], {more} }} }} }}\n", json!(text))
    })
}

async fn run(action: &ServiceAction, cx: &Context) -> Result<(Value, Outputs), Failure> {
    let before = action.before(cx).await?;
    let outputs = action.run(cx, &before).await?;
    Ok((before, outputs))
}

async fn pid(cx: &Context) -> Option<i32> {
    match control(cx, "a").expect("known").status().await.expect("readable") {
        Status::Running { pid, .. } => pid,
        Status::Stopped { .. } => None,
    }
}

fn state_file(cx: &Context) -> PathBuf {
    folder(cx).join("a.json")
}

fn edit_state(cx: &Context, edit: impl FnOnce(&mut Value)) {
    let mut state: Value = serde_json::from_slice(&fs::read(state_file(cx)).expect("a state")).expect("JSON");
    edit(&mut state);
    fs::write(state_file(cx), state.to_string()).expect("written");
}

#[tokio::test]
async fn start_twice_is_one_process_and_stop_twice_is_fine() {
    let place = one("exec sleep 600", "");
    let (_, outputs) = run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect("starts");
    assert_eq!(outputs["changed"], json!(["a"]));
    let first = pid(&place.cx).await.expect("runs");
    let (_, outputs) = run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect("runs already");
    assert_eq!(outputs["changed"], json!([]));
    assert_eq!(pid(&place.cx).await, Some(first));
    let (_, outputs) = run(&action(ServiceVerb::Stop, "a"), &place.cx).await.expect("stops");
    assert_eq!(outputs["changed"], json!(["a"]));
    assert!(!proc::is_alive(first));
    let (_, again) = run(&action(ServiceVerb::Stop, "a"), &place.cx).await.expect("is down");
    assert_eq!((&again["changed"], &again["stopped_at"]), (&json!([]), &outputs["stopped_at"]));
}

#[tokio::test]
async fn a_grandchild_that_traps_the_polite_signal_is_killed() {
    let text = "sh -c 'trap \"\" TERM; echo $$ > grand.new; mv grand.new grand; while :; do sleep 1; done' & wait";
    let place = one(text, "stop_timeout: 300ms, ready: { file: grand }");
    run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect("starts");
    let grand: i32 = fs::read_to_string(place.path("grand")).expect("written").trim().parse().expect("a pid");
    assert!(proc::is_alive(grand));
    run(&action(ServiceVerb::Stop, "a"), &place.cx).await.expect("stops");
    assert!(!proc::is_alive(grand));
}

#[tokio::test]
async fn a_process_that_only_has_the_same_number_is_left_alone() {
    let place = one("exec sleep 600", "");
    run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect("starts");
    let real = pid(&place.cx).await.expect("runs");
    let saved = fs::read(state_file(&place.cx)).expect("a state");
    edit_state(&place.cx, |state| {
        state["process"]["start_ticks"] = json!(1);
        state["token"] = json!("another");
    });
    assert_eq!(pid(&place.cx).await, None);
    run(&action(ServiceVerb::Stop, "a"), &place.cx).await.expect("nothing to stop");
    assert!(proc::is_alive(real), "a stranger must not be signalled");
    fs::write(state_file(&place.cx), &saved).expect("written");
    edit_state(&place.cx, |state| state["boot"] = json!("an earlier boot"));
    run(&action(ServiceVerb::Stop, "a"), &place.cx).await.expect("nothing to stop");
    assert!(proc::is_alive(real), "numbers of another boot mean nothing");
    fs::write(state_file(&place.cx), &saved).expect("written");
    run(&action(ServiceVerb::Stop, "a"), &place.cx).await.expect("stops");
}

#[tokio::test]
async fn a_crash_between_spawn_and_state_file_is_found_again() {
    let place = one("exec sleep 600", "");
    run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect("starts");
    let real = pid(&place.cx).await.expect("runs");
    // The state as it is before the process number is known.
    edit_state(&place.cx, |state| state["process"] = Value::Null);
    assert_eq!(pid(&place.cx).await, Some(real));
    let start = action(ServiceVerb::Start, "a");
    let before = json!({ "services": { "a": { "status": { "stopped": { "at_ms": null } }, "hold": null } } });
    let Finding::Done(outputs) = start.probe(&place.cx, &before).await else { panic!("it runs") };
    assert_eq!(outputs["changed"], json!(["a"]));
    run(&start, &place.cx).await.expect("runs already");
    assert_eq!(pid(&place.cx).await, Some(real));
    run(&action(ServiceVerb::Stop, "a"), &place.cx).await.expect("stops");
    assert!(!proc::is_alive(real));
}

#[tokio::test]
async fn a_crash_before_the_spawn_counts_as_not_started() {
    let place = one("exec sleep 600", "");
    run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect("starts");
    run(&action(ServiceVerb::Stop, "a"), &place.cx).await.expect("stops");
    edit_state(&place.cx, |state| {
        state["process"] = Value::Null;
        state["token"] = json!("nobody-carries-this");
    });
    assert_eq!(action(ServiceVerb::Start, "a").probe(&place.cx, &Value::Null).await, Finding::NotDone);
}

#[tokio::test]
async fn a_start_that_dies_tells_its_last_words() {
    let place = one("echo the config is missing >&2; exit 7", "ready: { file: never }");
    let failure = run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect_err("dies");
    assert!(failure.error.contains("the config is missing"), "{failure}");
    assert_eq!(failure.effect, Effect::Unknown);
}

#[tokio::test]
async fn a_start_that_is_never_ready_is_stopped_again() {
    let place = one("echo $$ > pid; exec sleep 600", "ready: { file: never }, start_timeout: 400ms");
    let failure = run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect_err("never ready");
    assert!(failure.error.contains("not ready within 400ms"), "{failure}");
    let left: i32 = fs::read_to_string(place.path("pid")).expect("written").trim().parse().expect("a pid");
    assert!(!proc::is_alive(left));
}

#[tokio::test]
async fn an_old_ready_file_does_not_count() {
    let place = one("exec sleep 600", "ready: { file: ready }, start_timeout: 400ms");
    fs::write(place.path("ready"), "old").expect("written");
    let old = fs::File::options().write(true).open(place.path("ready")).expect("there");
    old.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
    run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect_err("not ready");
}

#[tokio::test]
async fn a_listening_port_and_a_command_speak_for_readiness() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let place = one("touch up; exec sleep 600", &format!("ready: {{ tcp: '{address}', exec: [test, -e, up] }}"));
    run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect("ready");
    assert!(place.path("up").exists());
    run(&action(ServiceVerb::Stop, "a"), &place.cx).await.expect("stops");
}

#[tokio::test]
async fn a_held_service_stays_down_until_released() {
    let place = one("exec sleep 600", "");
    run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect("starts");
    let mut stop = action(ServiceVerb::Stop, "a");
    stop.args.hold = true;
    let (before, _) = run(&stop, &place.cx).await.expect("stops");
    let start = action(ServiceVerb::Start, "a");
    let failure = run(&start, &place.cx).await.expect_err("held");
    assert!(failure.error.contains("held by step `s1` of run r1 (local:eve@host)"), "{failure}");
    assert_eq!((failure.effect, failure.retryable), (Effect::None, false));
    let mut check = action(ServiceVerb::Check, "a");
    check.args.state = RunState::Stopped;
    run(&check, &place.cx).await.expect("held and down");
    // The undo of the stop that holds it starts it again.
    stop.undo(&place.cx, &before).await.expect("undone");
    stop.undo(&place.cx, &before).await.expect("safe to repeat");
    assert!(pid(&place.cx).await.is_some());
    let (before, _) = run(&stop, &place.cx).await.expect("stops");
    assert!(matches!(stop.probe(&place.cx, &before).await, Finding::Done(_)));
    let mut release = start.clone();
    release.args.release_hold = true;
    let (before, _) = run(&release, &place.cx).await.expect("released");
    release.undo(&place.cx, &before).await.expect("undone");
    assert!(pid(&place.cx).await.is_none());
    assert!(Hold::read(&place.cx, "a").expect("readable").is_some(), "the hold is back");
}

#[tokio::test]
async fn a_revived_service_is_reported() {
    let place = one("exec sleep 600", "");
    run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect("starts");
    Hold::by(&place.cx).write(&place.cx, "a").expect("held");
    for state in [RunState::Running, RunState::Stopped] {
        let mut check = action(ServiceVerb::Check, "a");
        check.args.state = state;
        let failure = run(&check, &place.cx).await.expect_err("revived");
        assert!(failure.error.contains("it was revived"), "{failure}");
    }
    Hold::release(&place.cx, "a").expect("released");
    run(&action(ServiceVerb::Stop, "a"), &place.cx).await.expect("stops");
}

#[tokio::test]
async fn a_restart_is_a_new_process_and_its_probe_can_tell() {
    let place = one("exec sleep 600", "");
    run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect("starts");
    let old = pid(&place.cx).await;
    let restart = action(ServiceVerb::Restart, "a");
    let before = restart.before(&place.cx).await.expect("looks");
    assert_eq!(restart.probe(&place.cx, &before).await, Finding::NotDone);
    restart.run(&place.cx, &before).await.expect("restarts");
    assert_ne!(pid(&place.cx).await, old);
    assert!(matches!(restart.probe(&place.cx, &before).await, Finding::Done(_)));
    run(&action(ServiceVerb::Stop, "a"), &place.cx).await.expect("stops");
}

/// Services that note the order in which they start and stop.
fn noting(folder: &Path) -> String {
    let service = |name: &str, needs: &str| {
        let text = format!(
            "echo +{name} >> order; trap 'echo -{name} >> order; exit 0' TERM; touch {name}.up; while :; do sleep 0.05; done"
        );
        let (argv, cwd) = (json!(["sh", "-c", text]), json!(folder));
        format!(
            "  {name}: {{ group: g, needs: [{needs}], provider: {{ process: {{ argv: {argv}, cwd: {cwd}, ready: {{ file: {name}.up }} }} }} }}\n"
        )
    };
    format!("services:\n{}{}{}", service("web", "server"), service("server", "db"), service("db", ""))
}

#[tokio::test]
async fn needs_start_first_and_stop_last() {
    let place = Place::at(noting);
    let mut args = services();
    args.group = Some("g".into());
    run(&ServiceAction { verb: ServiceVerb::Start, args: args.clone() }, &place.cx).await.expect("starts");
    let stop = ServiceAction { verb: ServiceVerb::Stop, args };
    assert_eq!(stop.preview(&place.cx).await, Preview::WillChange("stops web, server, db".into()));
    run(&stop, &place.cx).await.expect("stops");
    let order = fs::read_to_string(place.path("order")).expect("noted");
    assert_eq!(order.split_whitespace().collect::<Vec<_>>(), ["+db", "+server", "+web", "-web", "-server", "-db"]);
    assert_eq!(stop.preview(&place.cx).await, Preview::NoChange("already so".into()));
}

#[tokio::test]
async fn a_cancel_cuts_the_wait_for_a_stop_short() {
    let place = one("trap 'touch told' TERM; touch up; while :; do sleep 0.05; done", "stop_timeout: 10m");
    run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect("starts");
    let stop = action(ServiceVerb::Stop, "a");
    let stopping = run(&stop, &place.cx);
    let cancel = async {
        until("it was told to stop", || place.path("told").exists()).await;
        place.cx.cancel.cancel();
    };
    let (result, ()) = tokio::join!(stopping, cancel);
    let failure = result.expect_err("cut short");
    assert_eq!(failure.effect, Effect::Unknown);
    assert!(failure.error.contains("told to stop"), "{failure}");
    let pid = pid(&place.cx).await.expect("it goes on");
    super::super::process::signal_group(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

#[tokio::test]
async fn any_control_command_will_do() {
    let place = Place::at(|_| {
        "services:\n  a: { provider: { command: { start: [touch, up], stop: [rm, up], status: [sh, -c, '[ -e broken ] && exit 1; [ -e up ] || exit 3'] } } }\n".into()
    });
    run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect("starts");
    run(&action(ServiceVerb::Check, "a"), &place.cx).await.expect("runs");
    run(&action(ServiceVerb::Stop, "a"), &place.cx).await.expect("stops");
    assert!(!place.path("up").exists());
    fs::write(place.path("broken"), "").expect("written");
    let failure = run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect_err("no guess");
    assert_eq!(failure.effect, Effect::None);
    assert_eq!(action(ServiceVerb::Start, "a").probe(&place.cx, &Value::Null).await, Finding::Unknown);
}

#[tokio::test]
async fn a_daemon_that_a_control_command_starts_lives_on() {
    let place = Place::at(|_| {
        "services:\n  a: { provider: { command: { start: [sh, -c, 'sleep 600 & echo $! > pid'], stop: [sh, -c, 'kill $(cat pid); rm pid'], status: [sh, -c, '[ -e pid ] || exit 3'] } } }\n".into()
    });
    run(&action(ServiceVerb::Start, "a"), &place.cx).await.expect("starts");
    let daemon: i32 = fs::read_to_string(place.path("pid")).expect("written").trim().parse().expect("a pid");
    assert!(proc::is_alive(daemon));
    run(&action(ServiceVerb::Stop, "a"), &place.cx).await.expect("stops");
    until("the daemon is gone", || !proc::is_alive(daemon)).await;
}

#[tokio::test]
async fn both_kinds_of_service_find_the_fence_of_the_lock() {
    let mut place = Place::at(|folder| {
        let note = "echo $PITON_LOCK=$PITON_LOCK_FENCE > up.new; mv up.new up";
        let cwd = json!(folder);
        format!(
            "services:\n  a: {{ provider: {{ command: {{ start: [sh, -c, '{note}'], stop: [rm, up], status: [sh, -c, '[ -e up ] || exit 3'] }} }} }}\n  b: {{ provider: {{ process: {{ argv: [sh, -c, '{note}; exec sleep 600'], cwd: {cwd}, ready: {{ file: up }} }} }} }}\n"
        )
    });
    let lock = [crate::ids::LockName::new("north/db")];
    place.cx.fences = super::super::fences::Fences::new(&lock, &[], [(lock[0].clone(), 7)].into());
    for service in ["a", "b"] {
        run(&action(ServiceVerb::Start, service), &place.cx).await.expect("starts");
        assert_eq!(fs::read_to_string(place.path("up")).expect("written"), "north/db=7\n");
        run(&action(ServiceVerb::Stop, service), &place.cx).await.expect("stops");
        let _ = fs::remove_file(place.path("up"));
    }
}

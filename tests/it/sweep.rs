//! A runbook of forty steps that is struck at every single append and then taken to its end: its driver is killed with SIGKILL,
//! its disk is full, its server is killed and comes back; on a file and on a server.
//!
//! The process kills or stops itself through `PITON_FAULT`, so that no append is missed and none is met twice. How many appends
//! there are is found out by going on until a driver comes to its end without a blow: independent steps share appends, the more
//! the busier the machine. People answer from what is really there. `PITON_SWEEP_TELL=1` prints how many blows there were.

mod blow;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use piton::driver::{self, DriverError, Options, Told};
use piton::event::{Event, Outcome};
use piton::ids::RunId;
use piton::journal::{Journal, Trust};
use piton::plan::{Given, Plan};
use piton::scheduler::StepState;
use piton::site::LoadedSite;
use serde_json::Value as Json;

use super::cli::{Desk, Said};
use super::support::postgres::PrivatePostgres;
use blow::{Blow, PinnedLog};

/// Scenarios at the same time; most of their time they wait for disks and commands.
const THREADS: usize = 6;

/// Servers that are killed at the same time.
const SERVERS: usize = 3;

/// Most sittings until a run must have come to its end.
const SITTINGS_MAX: u32 = 60;

/// What a step of the runbook does to the world, for the final account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Never without a person's word.
    Never,
    /// As often as it likes.
    Freely,
}

struct Forty {
    /// The runbook, with [`LOCK`] where the lock of the run at hand belongs.
    text: String,
    /// Steps that leave a mark, and how often they may.
    marks: BTreeMap<String, Repeat>,
    finally: Vec<&'static str>,
}

/// Stands for a lock that no other run wants: on a server all runs share one store, and one that is killed would have the
/// others wait for its end.
const LOCK: &str = "LOCK-OF-THE-RUN";

/// One step that leaves a mark which its undo takes away.
fn marking(id: &str, idempotent: &str, rest: &str) -> String {
    format!(
        "  - id: {id}\n    exec: {{ shell: 'echo ran >> {id}.count; touch {id}.mark' }}\n    idempotent: {idempotent}\n    \
         undo: {{ exec: {{ shell: 'rm -f {id}.mark' }} }}\n{rest}"
    )
}

fn forty() -> Forty {
    let mut text = String::from(
        "apiVersion: piton/v1\nkind: Runbook\nname: forty\nversion: 1.0.0\nlimits: { parallel: 6 }\non_failure: rollback\nsteps:\n\
         \x20 - { id: look, phase: preflight, exec: { argv: ['true'] }, idempotent: yes }\n\
         \x20 - { id: go, needs: [look], approval: { prompt: 'Go?' } }\n",
    );
    let mut marks = BTreeMap::new();
    let mut add = |id: String, idempotent: &str, rest: String| {
        text.push_str(&marking(&id, idempotent, &rest));
        marks.insert(id, if idempotent == "no" { Repeat::Never } else { Repeat::Freely });
    };
    for number in 0..8 {
        add(format!("once{number}"), "no", "    needs: [go]\n".into());
    }
    let mut before = "once0".to_owned();
    for number in 0..8 {
        let id = format!("chain{number}");
        let idempotent = ["no", "yes", "resumable", "no"][number % 4];
        let verify = format!("    needs: [{before}]\n    verify: {{ exec: {{ argv: [test, -e, {id}.mark] }} }}\n");
        add(id.clone(), idempotent, verify);
        before = id;
    }
    for number in 0..4 {
        add(format!("locked{number}"), "no", format!("    needs: [once1]\n    locks: [{LOCK}]\n"));
    }
    for number in 0..3 {
        add(format!("long{number}"), "resumable", format!("    needs: [once{number}]\n    timeout: 1m\n"));
    }
    for number in 0..3 {
        write!(
            text,
            "  - id: flaky{number}\n    needs: [once2]\n    exec: {{ shell: 'echo try >> flaky{number}.tries; test $(wc -l < flaky{number}.tries) -ge 2' }}\n    \
             idempotent: yes\n    retry: {{ attempts: 3, backoff: {{ initial: 10ms }} }}\n"
        )
        .expect("a string takes any text");
    }
    text.push_str(
        "  - { id: shrug, needs: [once3], exec: { argv: ['false'] }, idempotent: yes, optional: { consequence: none } }\n\
         \x20 - { id: whatever, needs: [{ step: shrug, outcome: any }], exec: { argv: ['true'] }, idempotent: yes }\n\
         \x20 - { id: never, needs: [go], when: '1 > 2', exec: { shell: 'echo ran >> never.count' } }\n\
         \x20 - { id: each, needs: [once4], foreach: { items: [a, b, c] }, exec: { shell: 'echo ran >> each-{{ item }}.count' } }\n",
    );
    let mut last = |id: &str, needs: &str| {
        text.push_str(&marking(id, "no", &format!("    needs: [{needs}]\n")));
        marks.insert(id.to_owned(), Repeat::Never);
    };
    last(
        "join",
        "chain7, locked0, locked1, locked2, locked3, long0, long1, long2, flaky0, flaky1, flaky2, whatever, never, each, once5, once6, once7",
    );
    last("leap", "join");
    text.push_str(
        "  - { id: gate, needs: [leap], exec: { shell: 'test ! -e break' }, idempotent: yes }\n\
         \x20 - { id: beyond, needs: [gate], exec: { argv: ['true'] }, idempotent: yes }\n\
         finally:\n\
         \x20 - { id: tell, exec: { shell: 'echo told >> tell.told' }, idempotent: yes }\n\
         \x20 - { id: tidy, needs: [tell], exec: { shell: 'echo told >> tidy.told' }, idempotent: yes }\n",
    );
    Forty { text, marks, finally: vec!["tell", "tidy"] }
}

/// How many steps of the plan stand one behind the other: those up to the approval, and those behind it.
///
/// The start of a step is on record before it acts, and is recorded after the end of the one before it. So at least as
/// many appends are met. Where the last step does not come to its turn because the one before it failed, the undos of all
/// the others do.
fn longest_chain(plan: &Plan) -> [u64; 2] {
    let mut depth: BTreeMap<&str, u64> = BTreeMap::new();
    let [mut deepest, mut last] = [0; 2];
    for step in plan.in_order() {
        let before = step.needs.iter().map(|(need, _)| depth[need.as_str()]).max().unwrap_or(0);
        depth.insert(step.id.as_str(), before + 1);
        let longest = if step.is_finally { &mut last } else { &mut deepest };
        *longest = (*longest).max(before + 1);
    }
    [depth["go"], deepest - depth["go"] + last]
}

/// Which part of the run is struck: the one before the approval or the one behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    Start,
    Rest,
}

#[derive(Debug, Clone, Copy)]
struct Scenario {
    leg: Leg,
    blow: Blow,
    /// Which append it strikes; of a disk, for how many pages there is no room.
    number: u64,
    /// Whether the last step fails, so that all of it is undone.
    breaks: bool,
}

/// Where runs are recorded.
enum Store {
    /// In a file of each one's own.
    Files,
    /// In a database that all share.
    Shared(String),
    /// In a database of a server that the blows are for.
    Own(PrivatePostgres, String),
}

struct Sweep {
    /// One for each thread.
    stores: Vec<Store>,
    breaks: bool,
    forty: Forty,
}

/// One run in a folder of its own.
struct Sitting<'s> {
    desk: Desk,
    sweep: &'s Sweep,
    store: &'s Store,
    run: String,
}

impl Sweep {
    /// The desk of a run, with the runbook on it.
    fn sit<'s>(&'s self, run: String, store: &'s Store) -> Sitting<'s> {
        let desk = Desk::new();
        desk.write("forty.yaml", &self.forty.text.replace(LOCK, &run));
        if self.breaks {
            desk.write("break", "");
        }
        Sitting { desk, sweep: self, store, run }
    }

    /// Strikes every append until there is none left to strike; how many were met.
    fn every_append(&self, blow: Blow) -> u64 {
        let measured = self.sit("measured".into(), &Store::Files);
        let plan = Plan::load(&measured.desk.path("forty.yaml"), LoadedSite::empty(), &Given::new()).expect("is valid");
        let [start, rest] = longest_chain(&plan);
        self.every_append_of(Leg::Start, blow, start) + self.every_append_of(Leg::Rest, blow, rest)
    }

    /// Strikes the first append, the second and so on, until a driver comes to its end without having met the number.
    fn every_append_of(&self, leg: Leg, blow: Blow, fewest: u64) -> u64 {
        let (next, over, met) = (AtomicU64::new(1), AtomicBool::new(false), Mutex::new(BTreeSet::new()));
        let one_after_the_other = |store| {
            while !over.load(Ordering::SeqCst) {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if self.one(Scenario { leg, blow, number, breaks: self.breaks }, store) {
                    met.lock().expect("nobody panics with it").insert(number);
                } else {
                    over.store(true, Ordering::SeqCst);
                }
            }
        };
        std::thread::scope(|scope| {
            for store in &self.stores {
                scope.spawn(move || one_after_the_other(store));
            }
        });
        let met = met.into_inner().expect("nobody panics with it");
        let in_sequence = met.iter().zip(1..).take_while(|(number, next)| *number == next).count() as u64;
        assert!(in_sequence >= fewest, "{leg:?}: {fewest} steps stand in a row, {blow:?} at these appends: {met:?}");
        met.len() as u64
    }

    /// One blow and what follows; false when the driver came to the end of its leg without it.
    fn one(&self, scenario: Scenario, store: &Store) -> bool {
        let Scenario { leg, blow, number, breaks } = scenario;
        let sitting = self.sit(format!("{leg:?}-{blow:?}-{number}-{breaks}").to_lowercase(), store);
        let log = (blow == Blow::DiskFull).then(|| PinnedLog::of(&sitting));
        if leg == Leg::Rest {
            sitting.run_to_approval().exits(6);
            sitting.piton(&["approve", &sitting.run, "go"], None).exits(0);
        }
        let args = match leg {
            Leg::Start => &["run", "forty.yaml", "--run-id", &sitting.run][..],
            Leg::Rest => &["resume", &sitting.run],
        };
        let what = format!("{scenario:?}");
        let (said, is_struck) = blow.strikes(&sitting, args, number);
        if !is_struck || blow == Blow::ServerGone {
            let done = match (leg, breaks) {
                (Leg::Start, _) => 6,
                (Leg::Rest, false) => 0,
                (Leg::Rest, true) => 4,
            };
            said.exits(done);
        }
        drop(log);
        if !is_struck {
            return false;
        }
        let left = sitting.records().len();
        if blow == Blow::KilledAfter {
            // And once more while it is taken up again.
            let again = format!("crash-before-append={}", number % 5 + 1);
            sitting.piton(&["resume", &sitting.run], Some(&again));
        }
        sitting.to_the_end();
        sitting.account(&what);
        if blow != Blow::ServerGone {
            sitting.shows_interruption(left, &what);
        }
        true
    }
}

impl Sitting<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.desk.command(args);
        if let Store::Shared(url) | Store::Own(_, url) = self.store {
            command.env("PITON_STORE", url);
        }
        command
    }

    fn piton(&self, args: &[&str], fault: Option<&str>) -> Said {
        let mut command = self.command(args);
        if let Some(fault) = fault {
            command.env("PITON_FAULT", fault);
        }
        command.output().expect("the program starts").into()
    }

    fn run_to_approval(&self) -> Said {
        self.piton(&["run", "forty.yaml", "--run-id", &self.run], None)
    }

    fn show(&self) -> Json {
        self.piton(&["show", &self.run, "--json"], None).exits(0).json()
    }

    /// What the audit says for programs; nothing of a run that was never recorded.
    fn records(&self) -> Vec<Json> {
        let said = self.piton(&["audit", &self.run, "--json"], None);
        if said.code == 0 { said.json_lines() } else { Vec::new() }
    }

    /// Whoever comes behind a dead driver says so on record, and the audit tells people.
    fn shows_interruption(&self, left: usize, what: &str) {
        let records = self.records();
        let kind = |at: usize| records.get(at).map(|record| record["kind"].as_str().expect("a word"));
        let Some(before) = left.checked_sub(1) else { return };
        let Some(behind) = kind(left) else {
            return assert_eq!(kind(before), Some("run_finished"), "{what}: nothing came after record {left}");
        };
        assert_eq!(behind, "run_resumed", "{what}: after record {left}");
        let rested = matches!(kind(before), Some("run_finished" | "step_answered"));
        let words = if rested { "the run rested for" } else { "the run was interrupted; nothing was recorded for" };
        let text = self.piton(&["audit", &self.run], None).exits(0).out;
        assert!(text.contains(words), "{what}: `{words}` is missing in\n{text}");
    }

    /// Resumes until the run is over, answering what people are asked.
    fn to_the_end(&self) {
        for _ in 0..SITTINGS_MAX {
            let said = self.piton(&["resume", &self.run], None);
            match said.code {
                0 | 4 => return,
                2 if said.err.contains("is over") => return,
                // It died before its first record: it does not exist, and is started.
                2 if said.err.contains("there is no run") || said.err.contains("there is no store") => {
                    self.run_to_approval();
                }
                5 => self.decide(),
                6 => {
                    self.piton(&["approve", &self.run, "go"], None).exits(0);
                }
                code => panic!("exit {code} of a resume: {}\n{}", said.out, said.err),
            }
        }
        panic!("no end after {SITTINGS_MAX} sittings: {}", self.show());
    }

    /// Says of each doubtful step what is true.
    fn decide(&self) {
        self.let_commands_end();
        for step in self.show()["steps"].as_array().expect("steps").iter().filter(|step| step["state"] == "in_doubt") {
            let id = step["id"].as_str().expect("an id");
            let word = if self.lines(&format!("{}.count", file_of(id))) > 0 { "--ran" } else { "--not-ran" };
            self.piton(&["decide", &self.run, id, word, "--reason", "counted its marks"], None).exits(0);
        }
    }

    /// Commands outlive a driver that was killed; waits until none works in this folder.
    fn let_commands_end(&self) {
        let folder = std::fs::canonicalize(self.desk.path(".")).expect("the folder is there");
        let until = Instant::now() + Duration::from_secs(30);
        let busy = || {
            let all = procfs::process::all_processes().expect("processes can be listed").flatten();
            all.filter_map(|process| process.cwd().ok()).any(|cwd| cwd == folder)
        };
        while busy() {
            assert!(Instant::now() < until, "a command goes on for ever in {}", folder.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn lines(&self, file: &str) -> usize {
        std::fs::read_to_string(self.desk.path(file)).map_or(0, |text| text.lines().count())
    }

    /// The books at the end: outcome, marks, order of undoing, the journal itself.
    fn account(&self, what: &str) {
        self.let_commands_end();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let told = runtime.block_on(self.journal_holds(what));
        let outcome = if self.sweep.breaks { Outcome::RolledBack } else { Outcome::Succeeded };
        assert_eq!(told.state.outcome(), Some(outcome), "{what}: {:?}", told.state.note());
        let state = |id: &str| told.state.step(&id.into()).expect("a step of the run").state();
        assert_eq!(told.state.steps().count(), 40, "{what}");
        for (id, repeat) in &self.sweep.forty.marks {
            let count = self.lines(&format!("{id}.count"));
            assert!(count <= 1 || *repeat == Repeat::Freely, "{what}: `{id}` acted {count} times");
            let succeeded = state(id) == StepState::Succeeded;
            assert!(count >= 1 || !succeeded, "{what}: `{id}` succeeded and did nothing");
            let there = self.desk.path(&format!("{id}.mark")).exists();
            assert_eq!(there, succeeded, "{what}: `{id}` is {:?} and its mark is not as it says", state(id));
        }
        for item in ["a", "b", "c"] {
            assert_eq!(self.lines(&format!("each-{item}.count")), 1, "{what}: each[{item}]");
        }
        assert_eq!((self.lines("never.count"), state("never")), (0, StepState::Skipped), "{what}");
        for id in &self.sweep.forty.finally {
            let ran = self.lines(&format!("{id}.told")) >= 1 && state(id) == StepState::Succeeded;
            assert!(ran, "{what}: `{id}` did not run");
        }
    }

    /// The chain is whole, what came last was undone first, and a run that is over stays as it is.
    async fn journal_holds(&self, what: &str) -> Told {
        let own = self.desk.path(".piton/piton.db").display().to_string();
        let place = match self.store {
            Store::Files => &own,
            Store::Shared(url) | Store::Own(_, url) => url,
        };
        let journal = Journal::open(place).await.expect("the store opens");
        let run = RunId::new(&self.run);
        let proof = journal.prove(&run, Trust::default()).await.expect("can be read");
        assert!(proof.holds(), "{what}: {proof:?}");
        let told = driver::read(&journal, &run).await.expect("hangs together");
        let (mut latest, mut undone) = (BTreeMap::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for record in &told.records {
            match &record.event {
                Event::AttemptSucceeded { step, .. } => {
                    latest.insert(step.clone(), record.seq);
                }
                Event::UndoStarted { step, .. } if seen.insert(step.clone()) => {
                    undone.extend(latest.get(step).copied());
                }
                _ => {}
            }
        }
        assert!(undone.is_sorted_by(|earlier: &u64, later| earlier > later), "{what}: undone in the order {undone:?}");
        assert_eq!(undone.is_empty(), !self.sweep.breaks, "{what}");
        let options = Options::new("somebody".into(), self.desk.path(".piton"));
        let over = driver::resume(&journal, run.clone(), options).await;
        assert!(matches!(over, Err(DriverError::Over { .. })), "{what}: {over:?}");
        assert_eq!(journal.head(&run).await.expect("can be read").seq, told.records.len() as u64, "{what}");
        told
    }
}

/// Items of a `foreach` leave their marks under a name that a file can have.
fn file_of(step: &str) -> String {
    step.replace('[', "-").replace(']', "")
}

fn sweep(stores: Vec<Store>, breaks: bool, blows: &[Blow]) {
    let began = Instant::now();
    let sweep = Sweep { stores, breaks, forty: forty() };
    let met: u64 = blows.iter().map(|blow| sweep.every_append(*blow)).sum();
    if std::env::var_os("PITON_SWEEP_TELL").is_some() {
        let seconds = began.elapsed().as_secs_f64();
        let line = format!("{blows:?}, breaks {breaks}: {met} blows in {seconds:.1} s\n");
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("standard error is open");
    }
}

const KILLS: [Blow; 2] = [Blow::KilledBefore, Blow::KilledAfter];

fn files() -> Vec<Store> {
    (0..THREADS).map(|_| Store::Files).collect()
}

/// A database for one sweep, so that two of them do not meet.
fn database(name: &str) -> Vec<Store> {
    let url = PrivatePostgres::start().create_database(name);
    (0..THREADS).map(|_| Store::Shared(url.clone())).collect()
}

/// Servers to be killed.
fn servers() -> Vec<Store> {
    let own = |_| {
        let server = PrivatePostgres::of_its_own();
        let url = server.create_database("sweep");
        Store::Own(server, url)
    };
    (0..SERVERS).map(own).collect()
}

#[test]
fn a_run_killed_at_every_append_does_everything_once_on_sqlite() {
    sweep(files(), false, &KILLS);
}

#[test]
fn a_run_killed_at_every_append_goes_all_the_way_back_on_sqlite() {
    sweep(files(), true, &KILLS);
}

#[test]
fn a_run_killed_at_every_append_does_everything_once_on_postgres() {
    sweep(database("sweep_once"), false, &KILLS);
}

#[test]
fn a_run_killed_at_every_append_goes_all_the_way_back_on_postgres() {
    sweep(database("sweep_back"), true, &KILLS);
}

#[test]
fn a_run_whose_disk_is_full_at_every_page_does_everything_once() {
    sweep(files(), false, &[Blow::DiskFull]);
}

#[test]
fn a_run_whose_disk_is_full_at_every_page_goes_all_the_way_back() {
    sweep(files(), true, &[Blow::DiskFull]);
}

#[test]
fn a_run_whose_server_is_killed_at_every_append_goes_on_when_it_is_back() {
    sweep(servers(), false, &[Blow::ServerGone]);
}

#[test]
fn a_run_whose_server_is_killed_at_every_append_goes_all_the_way_back_when_it_is_back() {
    sweep(servers(), true, &[Blow::ServerGone]);
}

//! How long the parts of the core take, each by itself: the scheduler, the journal, the plan.
//!
//! Started by `cargo bench --bench core [-- FILTER]`. For comparing a change with the commit before it on the same
//! machine; `benches/run engine` compares whole runs with other programs.

#![expect(clippy::print_stdout, reason = "a program that prints what it measured")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use piton::action::mask::Masker;
use piton::event::{Event, LockChange, Outputs};
use piton::ids::{RunId, StepId};
use piton::journal::{Append, Journal, Trust};
use piton::plan::{Given, Plan};
use piton::scheduler::{Command, Need, NeedOutcome, RunRule, State, StepRule, Workflow};
use piton::site::LoadedSite;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const SAMPLES: usize = 7;

/// One part: its name, how many things one sample does, and what is done.
type Part = (&'static str, usize, fn(usize) -> Duration);

const PARTS: &[Part] = &[
    ("live through a chain, per step", 1_000, live_through_a_chain),
    ("live through a chain, per step", 100_000, live_through_a_chain),
    ("live through independent steps, per step", 1_000, live_through_independent_steps),
    ("live through independent steps, per step", 100_000, live_through_independent_steps),
    ("fold a chain, per step", 100_000, fold_a_chain),
    ("append an end and a start in memory", 1_000, append_in_memory),
    ("append an end and a start to SQLite", 200, append_to_sqlite),
    ("verify the hashes of a chain, per step", 10_000, verify_a_chain),
    ("hide 3 secrets in output without any, per KiB", 10_240, hide_nothing),
    ("hide 3 secrets in output full of them, per KiB", 10_240, hide_much),
    ("plan a chain, per step", 1_000, plan_a_chain),
    ("plan a chain, per step", 10_000, plan_a_chain),
];

fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    println!("{:<44} {:>8} {:>12}", "part", "of", "median ns");
    for (name, count, part) in PARTS.iter().filter(|(name, ..)| name.contains(&filter)) {
        part(*count);
        let mut samples: Vec<Duration> = (0..SAMPLES).map(|_| part(*count)).collect();
        samples.sort();
        let each = samples[SAMPLES / 2].as_nanos() / *count as u128;
        println!("{name:<44} {count:>8} {each:>12}");
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let started = Instant::now();
    std::hint::black_box(work());
    started.elapsed()
}

fn id(number: usize) -> StepId {
    StepId::new(format!("s{number}"))
}

/// Each step needs the one before, or none needs another.
fn flow(steps: usize, chained: bool) -> Arc<Workflow> {
    let rule = |number: usize| {
        let need = number.checked_sub(1).filter(|_| chained);
        let needs = need.map(|need| Need { step: id(need), outcome: NeedOutcome::Done });
        StepRule { needs: needs.into_iter().collect(), ..StepRule::new(id(number)) }
    };
    let run = RunRule { parallel_max: 8, ..RunRule::default() };
    Arc::new(Workflow::new((0..steps).map(rule).collect(), run).expect("hangs together"))
}

fn started() -> Event {
    Event::RunStarted {
        runbook: "bench".into(),
        version: "1".into(),
        digest: "d".into(),
        site: "s".into(),
        by: "ann".into(),
        params: [].into(),
        piton: "0".into(),
        source: Value::Null,
        parent: None,
        sealed_by: None,
        signed: None,
    }
}

fn start_and_end(step: &StepId, attempt: u32) -> [Event; 2] {
    let outputs = Outputs::from([("rows".to_owned(), json!(42))]);
    [
        Event::AttemptStarted {
            step: step.clone(),
            attempt,
            before: json!({ "until_ms": 1 }),
            input: json!({ "argv": ["true"] }),
        },
        Event::AttemptSucceeded { step: step.clone(), attempt, outputs, said: vec![] },
    ]
}

/// Lives through a run in which everything succeeds; gives its events.
fn live(flow: Arc<Workflow>) -> Vec<Event> {
    let mut state = State::new(flow);
    let mut events = vec![started()];
    state.apply(&events[0], NOW).expect("may start");
    loop {
        let commands = state.poll(NOW);
        for command in commands {
            let facts = match command {
                Command::Start { step, attempt, .. } => start_and_end(&step, attempt).to_vec(),
                Command::Record(event) => vec![event],
                other => unreachable!("{other:?} in a run without people, probes and undos"),
            };
            for fact in facts {
                state.apply(&fact, NOW).expect("is legal");
                events.push(fact);
            }
        }
        if state.outcome().is_some() {
            return events;
        }
    }
}

fn live_through_a_chain(steps: usize) -> Duration {
    let flow = flow(steps, true);
    timed(|| live(flow))
}

fn live_through_independent_steps(steps: usize) -> Duration {
    let flow = flow(steps, false);
    timed(|| live(flow))
}

fn fold_a_chain(steps: usize) -> Duration {
    let flow = flow(steps, true);
    let events = live(Arc::clone(&flow));
    timed(|| State::fold(flow, events.iter().map(|event| (event, NOW))).expect("is legal"))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Appends an end and a start again and again, each pair an append of its own.
fn append(place: &str, count: usize) -> Duration {
    let (runtime, run) = (runtime(), RunId::new("bench"));
    let events = start_and_end(&id(1), 1);
    runtime.block_on(async {
        let journal = Journal::open(place).await.expect("opens");
        let mut seq = journal.create(&run, NOW, &started(), &[]).await.expect("is made").seq;
        let begun = Instant::now();
        for _ in 0..count {
            let append =
                Append { run: &run, expected_seq: seq, generation: None, at: NOW, events: &events, texts: &[] };
            let records = journal.append(append, &LockChange::default()).await.expect("is appended");
            seq += records.len() as u64;
        }
        begun.elapsed()
    })
}

fn append_in_memory(count: usize) -> Duration {
    append("memory:", count)
}

fn append_to_sqlite(count: usize) -> Duration {
    let folder = folder();
    append(&folder.path().join("bench.db").display().to_string(), count)
}

/// Recomputes the hashes of a run's records and reads each.
fn verify_a_chain(steps: usize) -> Duration {
    let (runtime, run, journal) = (runtime(), RunId::new("bench"), Journal::memory());
    let events = live(flow(steps, true));
    runtime.block_on(async {
        journal.create(&run, NOW, &events[0], &[]).await.expect("is made");
        let append = Append { run: &run, expected_seq: 1, generation: None, at: NOW, events: &events[1..], texts: &[] };
        journal.append(append, &LockChange::default()).await.expect("is appended");
        let begun = Instant::now();
        journal.prove(&run, Trust::default()).await.expect("is readable");
        begun.elapsed()
    })
}

/// Puts so many KiB of text through a masker in the chunks in which output is read.
fn hide(kibibytes: usize, line: &str) -> Duration {
    let masker = Masker::new(["A", "B", "C"].map(|name| format!("secret number {name}, with \"quotes\" & more")));
    let text = line.repeat(kibibytes * 1024 / line.len());
    timed(|| {
        let (mut stream, mut shown) = (masker.stream(), Vec::with_capacity(text.len()));
        for chunk in text.as_bytes().chunks(16 * 1024) {
            stream.push(chunk, &mut shown);
        }
        stream.finish(&mut shown);
        shown
    })
}

fn hide_nothing(kibibytes: usize) -> Duration {
    hide(kibibytes, "a line of output, sixty-four bytes long with its end of line....\n")
}

fn hide_much(kibibytes: usize) -> Duration {
    hide(kibibytes, "password=secret number B, with \"quotes\" & more\n")
}

/// A folder on the disk that the project stands on.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("a folder")
}

fn plan_a_chain(steps: usize) -> Duration {
    let folder = folder();
    let path = folder.path().join("chain.yaml");
    let mut text = "apiVersion: piton/v1\nkind: Runbook\nname: chain\nsteps:\n".to_owned();
    for number in 0..steps {
        let needs = number.checked_sub(1).map(|need| format!("needs: [s{need}], ")).unwrap_or_default();
        writeln!(text, "  - {{ id: s{number}, {needs}exec: {{ argv: [\"true\"] }} }}")
            .expect("a string takes any text");
    }
    std::fs::write(&path, text).expect("written");
    timed(|| Plan::load(&path, LoadedSite::empty(), &Given::new()).expect("a valid runbook"))
}

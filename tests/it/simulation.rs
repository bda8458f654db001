//! The scheduler against random histories: the main test of the project's core.
//!
//! `PITON_HISTORIES=1000000` runs more of them; `PITON_SIM_SEED=n` runs one and tells its story; `PITON_SIM_TELL=1` says how
//! long each wrong rule took to be noticed. A seed that fails is kept in `simulation/seeds.txt` and always lived through first.

mod against;
mod asked;
mod model;
mod random;
mod whims;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use piton::scheduler::Mutant;
use world::{Tally, World};

const HISTORIES: u64 = 100_000;
const HISTORIES_PER_MUTANT: u64 = 5_000;
const THREADS: u8 = 2;

/// Seeds that failed once.
const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/simulation/seeds.txt");

const MUTANTS: [Mutant; 33] = [
    Mutant::RetriesUnknown,
    Mutant::RerunsDoubt,
    Mutant::DoubtIsFailure,
    Mutant::IgnoresParallelMax,
    Mutant::IgnoresLocks,
    Mutant::UndoesOldestFirst,
    Mutant::PassesPointOfNoReturn,
    Mutant::AnyEndMeetsNeed,
    Mutant::CountsRepeatedApprovals,
    Mutant::LaterBeforeImage,
    Mutant::MainBeforePreflight,
    Mutant::ForgetsUnknownEffects,
    Mutant::RollbackKeepsMilestones,
    Mutant::SkipsSecondFinally,
    Mutant::LeftIsUndone,
    Mutant::AnyoneAnswers,
    Mutant::ForgetsFailures,
    Mutant::RetriesForEver,
    Mutant::RerunsChanged,
    Mutant::ForgetsRemoved,
    Mutant::RedoesWithoutUndo,
    Mutant::KeepsOldImage,
    Mutant::TakesUnsigned,
    Mutant::TakesUnsignedSite,
    Mutant::ProposalIsEnough,
    Mutant::AnyVoiceCounts,
    Mutant::ForcesBesideNeeds,
    Mutant::AmendsAlone,
    Mutant::EscalatesAtOnce,
    Mutant::TakesLateAnswers,
    Mutant::AskingUndoes,
    Mutant::AnswersForOthers,
    Mutant::TakesAnyForm,
];

/// The seed of every other history: people there also want things against the runbook. Seeds below it live as they always did.
fn mixed(seed: u64) -> u64 {
    if seed.is_multiple_of(2) { seed } else { world::WITH_WHIMS + seed }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("`{name}` must be a number")))
}

fn history(seed: u64) -> Tally {
    let mut world = World::new(seed, None);
    let lived = catch_unwind(AssertUnwindSafe(|| world.run()));
    match lived.unwrap_or_else(|_| Err("a panic".to_owned())) {
        Ok(tally) => tally,
        Err(why) => {
            keep(seed);
            panic!("PITON_SIM_SEED={seed}: {why}\n{}", world.story())
        }
    }
}

/// Adds a seed that failed to those that are always lived through. Several threads may fail at once, and the first one
/// ends the process, so the list is replaced as a whole.
fn keep(seed: u64) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = std::fs::read_to_string(SEEDS).unwrap_or_default();
    if !seeds_of(&kept).any(|known| known == seed) {
        // A checkout that cannot be written to still has the seed in the message of the failure.
        let new = format!("{SEEDS}.new");
        let _ = std::fs::write(&new, format!("{kept}{seed}\n")).and_then(|()| std::fs::rename(&new, SEEDS));
    }
}

fn seeds_of(text: &str) -> impl Iterator<Item = u64> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.parse().unwrap_or_else(|_| panic!("`{line}` in {SEEDS} is no seed")))
}

#[test]
fn every_history_keeps_the_rules() {
    if let Some(seed) = number("PITON_SIM_SEED") {
        history(seed);
        return;
    }
    for seed in seeds_of(&std::fs::read_to_string(SEEDS).expect("the seeds are kept")) {
        history(seed);
    }
    let histories = number("PITON_HISTORIES").unwrap_or(HISTORIES);
    let halves: Vec<_> = (0..THREADS)
        .map(|half| {
            let seeds = (u64::from(half)..histories).step_by(usize::from(THREADS));
            std::thread::spawn(move || seeds.map(|seed| history(mixed(seed))).collect::<Vec<_>>())
        })
        .collect();
    let tallies: Vec<Tally> = halves
        .into_iter()
        .flat_map(|half| half.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        .collect();
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    for tally in &tallies {
        *ends.entry(format!("{:?}", tally.outcome)).or_default() += 1;
    }
    assert_eq!(tallies.len() as u64, histories);
    // A simulation that never gets anywhere would also find nothing.
    let events: u64 = tallies.iter().map(|tally| tally.events).sum();
    let crashes: u64 = tallies.iter().map(|tally| tally.crashes).sum();
    assert!(events > 10 * histories && crashes > histories / 4, "{events} events, {crashes} crashes, {ends:?}");
    for end in ["Some(Succeeded)", "Some(RolledBack)", "Some(Failed)"] {
        assert!(ends.get(end).is_some_and(|&count| count > histories / 50), "{ends:?}");
    }
}

#[test]
fn every_wrong_rule_is_caught() {
    for mutant in MUTANTS {
        let began = std::time::Instant::now();
        // A wrong rule may also break the scheduler's own books; that is noticed as well.
        let is_wrong = |seed: u64| {
            let lived = catch_unwind(AssertUnwindSafe(|| World::new(seed, Some(mutant)).run()));
            !matches!(lived, Ok(Ok(_)))
        };
        let caught = (0..HISTORIES_PER_MUTANT).map(mixed).find(|&seed| is_wrong(seed));
        assert!(caught.is_some(), "{mutant:?} was not noticed in {HISTORIES_PER_MUTANT} histories");
        if std::env::var_os("PITON_SIM_TELL").is_some() {
            let seed = caught.unwrap_or_default();
            let line = format!("{mutant:?}: history {seed}, {} ms\n", began.elapsed().as_millis());
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("standard error is open");
        }
    }
}

//! Faults through the library: a driver whose journal or actions go wrong on purpose, in this very process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use piton::action::build::{Part, Swap};
use piton::action::{Action, Context, Failure};
use piton::config::Clock;
use piton::driver::{self, DriverError, Options};
use piton::event::{Answer, Effect, Event, Outcome, Outputs};
use piton::fault::{Crash, Fault, Faults, Hooks, Point, Script, Set, Trigger};
use piton::ids::{RunId, StepId};
use piton::journal::{Journal, Trust};
use piton::plan::{Given, Plan};
use piton::scheduler::StepState;
use piton::site::LoadedSite;
use piton::spec::actions::Args;

/// Ten steps with retries, a wait that is none, parallel work, an undo each.
const RUNBOOK: &str = "apiVersion: piton/v1
kind: Runbook
name: small
on_failure: rollback
steps:
  - { id: a, exec: { argv: [do] }, undo: { exec: { argv: [undo] } } }
  - { id: b, needs: [a], exec: { argv: [do] }, undo: { exec: { argv: [undo] } } }
  - { id: c, needs: [a], exec: { argv: [do] }, idempotent: yes, undo: { exec: { argv: [undo] } } }
  - { id: flaky, needs: [a], exec: { argv: [flaky] }, idempotent: yes, retry: { attempts: 3, backoff: { initial: 3ms } } }
  - { id: nap, needs: [b], wait.for: { duration: 1h } }
  - { id: d, needs: [nap, c, flaky], exec: { argv: [do] }, idempotent: resumable }
  - { id: e, needs: [d], exec: { argv: [do] }, verify: { exec: { argv: [look] } }, undo: { exec: { argv: [undo] } } }
finally:
  - { id: tell, exec: { argv: [do] }, idempotent: yes }
";

type Counts = Arc<Mutex<BTreeMap<(String, Part), u32>>>;

/// Counts instead of acting.
#[derive(Default)]
struct Counting {
    counts: Counts,
}

struct Counted {
    counts: Counts,
    part: Part,
    flaky: bool,
}

impl Swap for Counting {
    fn swap(&self, _: &Context, part: Part, args: Args) -> Box<dyn Action> {
        let flaky = matches!(args, Args::Exec(exec) if exec.argv == ["flaky"]);
        Box::new(Counted { counts: Arc::clone(&self.counts), part, flaky })
    }
}

#[async_trait]
impl Action for Counted {
    async fn run(&self, cx: &Context, _: &serde_json::Value) -> Result<Outputs, Failure> {
        let mut counts = self.counts.lock().expect("nobody panics here");
        let count = counts.entry((cx.step.to_string(), self.part)).or_default();
        *count += 1;
        if self.flaky && *count == 1 { Err(Failure::harmless("not yet")) } else { Ok(Outputs::new()) }
    }
}

/// A run in memory, its world and its clock.
struct Trial {
    _folder: tempfile::TempDir,
    plan: Plan,
    journal: Journal,
    run: RunId,
    counts: Counts,
    clock: Clock,
}

impl Trial {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("small.yaml");
        std::fs::write(&path, RUNBOOK).expect("written");
        let plan = Plan::load(&path, LoadedSite::empty(), &Given::new()).expect("a valid runbook");
        let clock = Clock::leaping(Timestamp::UNIX_EPOCH);
        Self { _folder: folder, plan, journal: Journal::memory(), run: "r".into(), counts: Counts::default(), clock }
    }

    fn options(&self, faults: impl Faults + 'static) -> Options {
        let mocks = Counting { counts: Arc::clone(&self.counts) };
        let mut options = Options::new("eve".into(), std::path::PathBuf::from("unused"));
        options.clock = self.clock.clone();
        options.hooks = Hooks::new(Arc::new(faults), Crash::Driver).with_mocks(Arc::new(mocks));
        options
    }

    async fn start(&self, faults: impl Faults + 'static) -> Result<Outcome, DriverError> {
        let ended = driver::start(self.plan.clone(), &self.journal, self.run.clone(), self.options(faults)).await;
        ended.map(|ended| ended.outcome)
    }

    fn count(&self, step: &str, part: Part) -> u32 {
        self.counts.lock().expect("nobody panics here").get(&(step.to_owned(), part)).copied().unwrap_or(0)
    }

    /// Resumes without faults to the end, saying the truth where a person must.
    async fn to_the_end(&self) -> Outcome {
        for _ in 0..20 {
            match driver::resume(&self.journal, self.run.clone(), self.options(Script::default())).await {
                Ok(ended) if ended.outcome == Outcome::Stuck => self.decide().await,
                Ok(ended) => return ended.outcome,
                Err(DriverError::Over { .. }) => {
                    let told = driver::read(&self.journal, &self.run).await.expect("hangs together");
                    return told.state.outcome().expect("is over");
                }
                Err(DriverError::Journal(error)) if error.to_string().contains("there is no run") => {
                    self.start(Script::default()).await.expect("nothing goes wrong now");
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("no end");
    }

    async fn decide(&self) {
        let told = driver::read(&self.journal, &self.run).await.expect("hangs together");
        let doubtful: Vec<StepId> = told
            .state
            .steps()
            .filter(piton::scheduler::StepView::asks_a_person)
            .map(|step| step.rule().id.clone())
            .collect();
        for step in doubtful {
            let reason = "counted".to_owned();
            let ran = self.count(step.as_str(), Part::Action) > 0;
            let answer = if ran { Answer::Ran { reason, outputs: BTreeMap::new() } } else { Answer::NotRan { reason } };
            let event = Event::StepAnswered { step, by: "ann".into(), answer };
            driver::say_by(&self.clock, &self.journal, &self.run, &event).await.expect("it is asked for");
        }
    }

    /// What must hold of every run that succeeded, whatever went wrong on the way.
    async fn accounts(&self, what: &str) {
        for step in ["a", "b", "e"] {
            assert_eq!(self.count(step, Part::Action), 1, "{what}: `{step}` is not idempotent");
        }
        for step in ["c", "d", "tell"] {
            assert!(self.count(step, Part::Action) >= 1, "{what}: `{step}`");
        }
        assert_eq!(self.count("flaky", Part::Action).min(2), 2, "{what}");
        let proof = self.journal.prove(&self.run, Trust::default()).await.expect("readable");
        assert!(proof.holds(), "{what}: {proof:?}");
    }
}

/// Strikes once, at the append of a number, before or after it.
fn at_append(after: bool, number: u64, fault: Fault) -> Script {
    let at = if after { Trigger::AfterAppend(number) } else { Trigger::BeforeAppend(number) };
    Script::new([Set { at, fault }])
}

#[tokio::test]
async fn whatever_happens_to_an_append_the_run_comes_to_the_same_end() {
    let faults = [
        (false, Fault::Crash),
        (true, Fault::Crash),
        (false, Fault::DiskFull),
        (false, Fault::Conflict),
        (true, Fault::Conflict),
        (false, Fault::LostAnswer),
        (true, Fault::LostAnswer),
    ];
    for (after, fault) in faults {
        let mut struck = 0;
        for number in 1.. {
            let trial = Trial::new();
            let options = trial.options(at_append(after, number, fault));
            let hooks = options.hooks.clone();
            let what = format!("{fault:?} {} append {number}", if after { "after" } else { "before" });
            let ended = driver::start(trial.plan.clone(), &trial.journal, trial.run.clone(), options).await;
            if hooks.appends() < number {
                assert_eq!(ended.expect("nothing went wrong").outcome, Outcome::Succeeded);
                break;
            }
            struck += 1;
            if fault != Fault::Conflict || number == 1 {
                ended.expect_err(&what);
            }
            assert_eq!(trial.to_the_end().await, Outcome::Succeeded, "{what}");
            trial.accounts(&what).await;
        }
        assert!(struck > 8, "{fault:?} struck {struck} times");
    }
}

#[tokio::test]
async fn an_action_that_crashes_or_fails_leaves_the_doubt_that_it_should() {
    let strike = |after, part, fault| {
        let at =
            if after { Trigger::AfterAct("b".into(), None, part) } else { Trigger::BeforeAct("b".into(), None, part) };
        Script::new([Set { at, fault }])
    };
    for after in [false, true] {
        let trial = Trial::new();
        let crashed = trial.start(strike(after, Part::Action, Fault::Crash)).await;
        assert!(matches!(crashed, Err(DriverError::Crashed)), "{crashed:?}");
        assert_eq!(trial.count("b", Part::Action), u32::from(after));
        assert_eq!(trial.to_the_end().await, Outcome::Succeeded);
        trial.accounts("a crash around an action").await;
    }
    // A failure behind which something may have happened is undone; one that changed nothing is not.
    for (effect, undone) in [(Effect::None, 0), (Effect::Unknown, 1)] {
        let trial = Trial::new();
        let ended = trial.start(strike(true, Part::Action, Fault::Fail { effect, retryable: true })).await;
        assert_eq!(ended.expect("it ends"), Outcome::RolledBack);
        assert_eq!((trial.count("b", Part::Undo), trial.count("a", Part::Undo)), (undone, 1), "{effect:?}");
    }
    let trial = Trial::new();
    let ended = trial.start(strike(false, Part::Action, Fault::Repeat)).await;
    assert_eq!((ended.expect("it ends"), trial.count("b", Part::Action)), (Outcome::Succeeded, 2));
}

#[tokio::test]
async fn a_clock_that_leaps_runs_hours_in_no_time() {
    /// Says nothing, sees everything.
    struct Watching(Mutex<Vec<u64>>);
    impl Faults for Watching {
        fn at(&self, point: &Point<'_>) -> Option<Fault> {
            if let Point::BeforeAppend { number, .. } = point {
                self.0.lock().expect("nobody panics here").push(*number);
            }
            None
        }
    }
    let trial = Trial::new();
    let ended = trial.start(Watching(Mutex::default())).await.expect("nothing goes wrong");
    assert_eq!(ended, Outcome::Succeeded);
    let told = driver::read(&trial.journal, &trial.run).await.expect("a replay accepts every time that was recorded");
    assert!(told.state.steps().all(|step| step.state() == StepState::Succeeded));
    assert_eq!(trial.count("flaky", Part::Action), 2);
}

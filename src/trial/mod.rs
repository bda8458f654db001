//! Runbooks tried out on mocked actions: the real driver, scheduler and journal in memory, a clock that leaps, people who
//! answer at once. Nothing outside of the process is looked at or changed.
//!
//! Owned here: living through one scenario and the books that are kept of it. [`sweep`] makes scenarios from the runbook
//! alone, [`cases`] from a test file. Called by `piton test`.

pub mod cases;
mod mock;
pub mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value as Json, json};

use crate::action::build::Part;
use crate::config::Clock;
use crate::driver::{self, DriverError, Options, Told};
use crate::event::{Answer, Event, Outcome, Outputs, SkipReason, WaitKind};
use crate::fault::{Crash, Hooks, Script};
use crate::ids::{Account, Actor, How, RunId, StepId};
use crate::journal::{Journal, Trust};
use crate::plan::Plan;
use crate::scheduler::{FieldKind, FieldRule, Idempotent, Phase, StepState, WaitRule};
use crate::spec::case::{AnswerWord, Mock};
use mock::{Mocks, World, pretended};

/// Most times that a run is taken up again in one scenario.
const SITTINGS_MAX: u32 = 40;

/// The time at which every trial begins: 2026-01-01.
const BEGIN_MS: i64 = 1_767_225_600_000;

/// One way to live through a runbook.
#[derive(Debug, Default)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// What steps do instead of acting; those that are not named succeed.
    pub rules: BTreeMap<String, Mock>,
    /// What goes wrong.
    pub faults: Script,
    /// Whether a step acts twice because a fault says so.
    pub repeats: Option<StepId>,
}

/// What came of a scenario.
#[derive(Debug, Clone, Default)]
pub struct Lived {
    /// What it is called.
    pub name: String,
    /// How the run ended; nothing when it did not.
    pub outcome: Option<Outcome>,
    /// Why.
    pub note: Option<String>,
    /// Where each step stands.
    pub states: BTreeMap<StepId, StepState>,
    /// What went wrong last, by step.
    pub errors: BTreeMap<StepId, String>,
    /// Steps that were passed over because their condition was false.
    pub when_false: BTreeSet<StepId>,
    /// Steps that were undone, in this order.
    pub undone: Vec<StepId>,
    /// Appends of all its drivers.
    pub appends: u64,
    /// How often the driver died.
    pub crashes: u32,
    /// Rules of the engine that did not hold; empty if all is well.
    pub broken: Vec<String>,
}

/// A run that is tried out.
struct Trial<'s> {
    plan: Plan,
    journal: Journal,
    run: RunId,
    clock: Clock,
    world: World,
    scenario: &'s Scenario,
    faults: Arc<Script>,
    mocks: Arc<Mocks>,
    /// Steps of which a person said that they had not run.
    allowed_again: BTreeMap<StepId, usize>,
}

/// Lives through a scenario to its end.
pub async fn live(plan: &Plan, mut scenario: Scenario) -> Lived {
    let mut plan = plan.clone();
    // What other runbooks establish is taken for granted.
    plan.milestones.clear();
    let (clock, world) =
        (Clock::leaping(Timestamp::from_millisecond(BEGIN_MS).unwrap_or(Timestamp::UNIX_EPOCH)), World::default());
    let faults = Arc::new(std::mem::take(&mut scenario.faults));
    let mocks =
        Mocks { world: world.clone(), clock: clock.clone(), rules: scenario.rules.clone(), steps: pretended(&plan) };
    let mut trial = Trial {
        plan,
        journal: Journal::memory(),
        run: RunId::new("trial"),
        clock,
        world,
        scenario: &scenario,
        faults,
        mocks: Arc::new(mocks),
        allowed_again: BTreeMap::new(),
    };
    let mut lived = Lived { name: scenario.name.clone(), ..Lived::default() };
    trial.live_to_the_end(&mut lived).await;
    trial.account(&mut lived).await;
    lived
}

/// Somebody who is known as well as any rule may want it, or only by the account.
fn mocked(name: &str, signs: bool) -> Actor {
    let account = Account { user: name.to_owned(), uid: 0, host: "mock".to_owned() };
    let nothing = String::new;
    let how = if signs {
        How::Ssh { account, key: nothing(), fingerprint: nothing(), signature: nothing() }
    } else {
        How::Local(account)
    };
    Actor::identified(name, how)
}

impl Trial<'_> {
    fn options(&self, appends: u64) -> Options {
        // Nothing is kept there: every action is a mock.
        let mut options = Options::new(mocked("mock:starter", false), PathBuf::from("/nonexistent"));
        options.clock = self.clock.clone();
        let faults: Arc<Script> = Arc::clone(&self.faults);
        let hooks = Hooks::new(faults, Crash::Driver).counting_from(appends);
        options.hooks = hooks.with_mocks(Arc::clone(&self.mocks) as Arc<_>);
        options
    }

    async fn begun(&self) -> bool {
        self.journal.head(&self.run).await.is_ok_and(|head| head.seq > 0)
    }

    /// Starts and resumes until nothing moves the run any more.
    async fn live_to_the_end(&mut self, lived: &mut Lived) {
        for _ in 0..SITTINGS_MAX {
            let options = self.options(lived.appends);
            let hooks = options.hooks.clone();
            let result = if self.begun().await {
                driver::resume(&self.journal, self.run.clone(), options).await
            } else {
                driver::start(self.plan.clone(), &self.journal, self.run.clone(), options).await
            };
            lived.appends = hooks.appends();
            match result {
                Err(DriverError::Crashed | DriverError::Append(_)) => lived.crashes += 1,
                // It died behind its last record.
                Err(DriverError::Over { .. }) => return,
                Err(error) => {
                    lived.broken.push(format!("the driver gave up: {error}"));
                    return;
                }
                Ok(ended) => match ended.outcome {
                    Outcome::Waiting | Outcome::Stuck => match self.people_speak(lived).await {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(error) => {
                            lived.broken.push(format!("a person could not answer: {error}"));
                            return;
                        }
                    },
                    Outcome::Succeeded | Outcome::Failed | Outcome::RolledBack | Outcome::Cancelled => return,
                },
            }
        }
        lived.broken.push(format!("the run came to no end in {SITTINGS_MAX} sittings"));
    }

    /// Lets people answer everything that they are asked; whether anybody said anything.
    async fn people_speak(&mut self, lived: &mut Lived) -> Result<bool, DriverError> {
        let told = driver::read(&self.journal, &self.run).await?;
        let mut spoken = false;
        for view in told.state.steps() {
            let id = view.rule().id.clone();
            if view.asks_a_person() {
                let reason = "looked into the books of the test".to_owned();
                let answer = if self.world.holds(&id) {
                    Answer::Ran { reason, outputs: Outputs::new() }
                } else {
                    *self.allowed_again.entry(id.clone()).or_default() += 1;
                    Answer::NotRan { reason }
                };
                self.say(&id, "mock:operator", answer).await?;
                spoken = true;
            } else if view.is_asked()
                && let Some(wait) = view.question()
            {
                let rule = self.scenario.rules.get(id.as_str());
                // The answer of a case is to the step, not to its undo.
                let word = rule.filter(|_| !view.undo_waits()).map_or(AnswerWord::Approve, |rule| rule.answer);
                let mut people = people(wait);
                if people.len() < wait.quorum as usize && word == AnswerWord::Approve && wait.kind == WaitKind::Approval
                {
                    lived.broken.push(format!("`{id}` wants {} people and the site has {}", wait.quorum, people.len()));
                    continue;
                }
                let answers: Vec<Answer> = match (word, wait.kind) {
                    (AnswerWord::Nothing, _) => Vec::new(),
                    (AnswerWord::Reject, _) => vec![Answer::Rejected { comment: None }],
                    (AnswerWord::Approve, WaitKind::Approval) => {
                        vec![Answer::Approved { comment: None }; wait.quorum.max(1) as usize]
                    }
                    (AnswerWord::Approve, WaitKind::Manual) => {
                        vec![Self::by_hand(wait, rule.filter(|_| !view.undo_waits()))]
                    }
                };
                people.reverse();
                if let (Some(assignee), false) = (view.assignee(), answers.is_empty()) {
                    self.hand_over(&id, assignee, people.last()).await?;
                }
                for answer in answers {
                    let by = people.pop().unwrap_or_else(|| Actor::new("mock:person"));
                    self.say(&id, by.as_str(), answer).await?;
                    spoken = true;
                }
            }
        }
        Ok(spoken)
    }

    /// Has work by hand be done by one who may do it, where that is not whose it is: whoever starts a run on mocks is nobody of the site.
    async fn hand_over(&self, step: &StepId, from: &Actor, to: Option<&Actor>) -> Result<(), DriverError> {
        let Some(to) = to.filter(|to| *to != from) else { return Ok(()) };
        let reason = "the mocked starter may not answer it".to_owned();
        let event = Event::StepAssigned { step: step.clone(), by: mocked(to.as_str(), true), to: to.clone(), reason };
        driver::say_in_trial(&self.clock, &self.journal, &self.run, &event).await.map(|_| ())
    }

    async fn say(&self, step: &StepId, by: &str, answer: Answer) -> Result<(), DriverError> {
        let event = Event::StepAnswered { step: step.clone(), by: mocked(by, true), answer };
        driver::say_in_trial(&self.clock, &self.journal, &self.run, &event).await.map(|_| ())
    }

    /// Work by hand, reported done with a form that fits.
    fn by_hand(asks: &WaitRule, rule: Option<&Mock>) -> Answer {
        let filled = |field: &FieldRule| {
            let most = field.maximum.unwrap_or(f64::INFINITY);
            let least = field.minimum.unwrap_or(1.0).min(most);
            // Within the bounds, as long as a whole number is.
            let nearest = if least.ceil() <= most { least.ceil() } else { most.floor() };
            #[expect(clippy::cast_possible_truncation, reason = "a bound of a form is a small number")]
            let whole = nearest as i64;
            let value = match field.kind {
                FieldKind::Text => json!("mock"),
                FieldKind::Integer => json!(whole),
                FieldKind::Number => json!(least),
                FieldKind::Boolean => json!(true),
                FieldKind::Enum => json!(field.values.first()),
                FieldKind::Date => json!("2026-01-01"),
                FieldKind::Time => json!("2026-01-01T00:00:00Z"),
            };
            (field.name.clone(), value)
        };
        let mut form: Outputs = asks.form.iter().map(filled).collect();
        form.extend(rule.iter().flat_map(|rule| rule.form.clone()));
        let evidence = asks.wants_evidence.then(|| ("mock".to_owned(), crate::plan::sha256_hex(b"mock")));
        Answer::Completed { form, evidence: evidence.into_iter().collect(), comment: None }
    }

    /// What must hold whatever happened.
    async fn account(&self, lived: &mut Lived) {
        match self.journal.prove(&self.run, Trust::default()).await {
            Ok(proof) => {
                lived
                    .broken
                    .extend(proof.wrong.iter().map(|wrong| format!("the journal of the run is broken: {wrong}")));
            }
            Err(error) => lived.broken.push(format!("the journal cannot be read: {error}")),
        }
        let told = match driver::read(&self.journal, &self.run).await {
            Ok(told) => told,
            Err(error) => {
                lived.broken.push(format!("a replay refuses the journal: {error}"));
                return;
            }
        };
        lived.outcome = told.state.outcome();
        lived.note = told.state.note().map(str::to_owned);
        if lived.outcome.is_none() {
            lived.broken.push("the run has no outcome".to_owned());
        }
        for view in told.state.steps() {
            let id = view.rule().id.clone();
            lived.states.insert(id.clone(), view.state());
            if let Some(error) = view.error() {
                lived.errors.insert(id.clone(), error.to_owned());
            }
            if matches!(view.skip_reason(), Some(SkipReason::When)) {
                lived.when_false.insert(id.clone());
            }
            let acted = self.world.count(&id, Part::Action);
            let again = self.allowed_again.get(&id).copied().unwrap_or(0);
            let twice_on_purpose = usize::from(self.scenario.repeats.as_ref() == Some(&id));
            if view.rule().idempotent == Idempotent::No && acted > 1 + again + twice_on_purpose {
                lived.broken.push(format!("`{id}` is not idempotent and acted {acted} times"));
            }
            if view.state() == StepState::Succeeded && view.rule().wait.is_none() && acted == 0 {
                lived.broken.push(format!("`{id}` reports success and never acted"));
            }
            let ends = matches!(lived.outcome, Some(Outcome::Succeeded | Outcome::Failed | Outcome::RolledBack));
            let over = matches!(view.state(), StepState::Succeeded | StepState::Failed | StepState::Skipped);
            if ends && view.rule().phase == Phase::Finally && !over {
                lived.broken.push(format!("`{id}` of `finally` did not run"));
            }
        }
        order_of_undoing(&told, lived);
        self.stays_over(&told, lived).await;
    }

    /// A run that is over for good cannot be taken up again, and trying leaves no trace.
    async fn stays_over(&self, told: &Told, lived: &mut Lived) {
        if !lived.outcome.is_some_and(Outcome::is_final) {
            return;
        }
        let again = driver::resume(&self.journal, self.run.clone(), self.options(lived.appends)).await;
        let same = self.journal.head(&self.run).await.is_ok_and(|head| head.seq == told.records.len() as u64);
        if !matches!(again, Err(DriverError::Over { .. })) || !same {
            lived.broken.push("a resume of a run that is over changed it".to_owned());
        }
    }
}

/// Undone is in reverse order of completion.
fn order_of_undoing(told: &Told, lived: &mut Lived) {
    let mut latest: BTreeMap<&StepId, u64> = BTreeMap::new();
    let mut places = Vec::new();
    let mut by_hand = BTreeSet::new();
    for record in &told.records {
        match &record.event {
            Event::AttemptSucceeded { step, .. } => {
                latest.insert(step, record.seq);
            }
            Event::UndoWaiting { step, .. } => drop(by_hand.insert(step)),
            Event::StepAnswered { step, answer: Answer::Completed { .. }, .. } if !by_hand.remove(step) => {}
            Event::UndoSucceeded { step, .. } | Event::StepAnswered { step, answer: Answer::Completed { .. }, .. } => {
                lived.undone.push(step.clone());
                places.extend(latest.get(step).copied());
            }
            _ => {}
        }
    }
    if !places.is_sorted_by(|earlier, later| earlier > later) {
        lived.broken.push("steps were not undone in reverse order of completion".to_owned());
    }
}

/// People who may answer a wait, as many as it wants if the site leaves it open.
fn people(wait: &WaitRule) -> Vec<Actor> {
    let open = (1..=wait.quorum.max(1)).map(|number| Actor::new(format!("mock:person{number}")));
    let named: Vec<Actor> = match (&wait.assignee, &wait.allowed) {
        (Some(assignee), Some(allowed)) if !allowed.contains(assignee) => allowed.clone(),
        (Some(assignee), _) => vec![assignee.clone()],
        (None, Some(allowed)) => allowed.clone(),
        (None, None) => open.collect(),
    };
    named.into_iter().filter(|person| !wait.exclude.contains(person)).collect()
}

/// What came of a scenario, for programs.
pub fn to_json(lived: &Lived) -> Json {
    json!({
        "name": lived.name, "outcome": lived.outcome, "note": lived.note, "crashes": lived.crashes,
        "undone": lived.undone, "steps": lived.states, "broken": lived.broken,
    })
}

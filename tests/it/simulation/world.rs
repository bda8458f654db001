//! One history: a random workflow in a random world, driven as the real driver does it.
//!
//! Attempts succeed, fail or vanish; the driver crashes between any two records; people answer, refuse, skip and
//! cancel; time jumps. After some rests the world turns kind, and then every run must come to an end for good.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};
use piton::event::{Change, Effect, Event, Finding, Outcome, Outputs, Signed, StepAmended, WaitKind};
use piton::ids::StepId;
use piton::scheduler::{Command, IllegalEvent, Mutant, State, Workflow};
use serde_json::{Value, json};

use super::asked::asks;
use super::model::Model;
use super::random::{self, PEOPLE, chance, person};

const RESTS_UNTIL_KIND: u32 = 4;
const RESTS_MAX: u32 = 14;
const TURNS_MAX: u32 = 1_500;
const TURNS_BACK_MAX: u32 = 2;

/// What runs right now.
#[derive(Debug, Clone)]
struct Busy {
    attempt: u32,
    undo: bool,
}

/// From this seed on people also want things against the runbook.
pub(super) const WITH_WHIMS: u64 = 1 << 40;

pub(super) struct World {
    pub(super) rng: Rng,
    /// Rolls for signatures, apart from all else, so that a seed tells the story that it told before there were any.
    signs: Rng,
    /// What people want against the runbook has dice of its own.
    pub(super) whims: Option<Rng>,
    pub(super) flow: Arc<Workflow>,
    mutant: Option<Mutant>,
    pub(super) state: State,
    pub(super) model: Model,
    journal: Vec<(Event, Timestamp)>,
    pub(super) now: Timestamp,
    busy: BTreeMap<StepId, Busy>,
    /// Per step: whether its latest attempt really changed the world.
    pub(super) did: BTreeMap<StepId, bool>,
    images: u64,
    rests: u32,
    crashes: u32,
    /// How often a person had the run turned back.
    turns_back: u32,
    /// The rules at the start, and those that records of the journal brought.
    first: Arc<Workflow>,
    flows: BTreeMap<usize, Workflow>,
}

/// How a history went.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) events: u64,
    pub(super) crashes: u64,
    pub(super) outcome: Option<Outcome>,
}

pub(super) type Turn = Result<(), String>;

impl World {
    pub(super) fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut signs = Rng::with_seed(!seed);
        let mut flow = random::workflow(&mut rng, random::sign_rule(&mut signs));
        let mut whims = (seed >= WITH_WHIMS).then(|| Rng::with_seed(!seed));
        if let Some(whims) = &mut whims {
            flow = super::whims::guarded(whims, &flow);
        }
        let flow = Arc::new(flow);
        let state = State::with_mutant(flow.clone(), mutant);
        Self {
            rng,
            signs,
            whims,
            first: flow.clone(),
            flows: BTreeMap::new(),
            flow,
            mutant,
            state,
            model: Model::default(),
            journal: Vec::new(),
            now: Timestamp::UNIX_EPOCH,
            busy: BTreeMap::new(),
            did: BTreeMap::new(),
            images: 0,
            rests: 0,
            crashes: 0,
            turns_back: 0,
        }
    }

    /// Lives through the history to its end.
    pub(super) fn run(&mut self) -> Result<Tally, String> {
        self.start()?;
        for _ in 0..TURNS_MAX {
            match self.state.outcome() {
                None => self.turn()?,
                Some(Outcome::Succeeded) if chance(&mut self.rng, 25) && self.turn_back()? => {}
                Some(outcome) if outcome.is_final() => {
                    self.replays()?;
                    return Ok(self.tally(outcome));
                }
                Some(outcome) => {
                    self.rests += 1;
                    if !self.kind() && chance(&mut self.rng, 35) && outcome == Outcome::Failed {
                        self.replays()?;
                        return Ok(self.tally(outcome));
                    }
                    if self.rests > self.rests_max() {
                        return Err(format!("does not come to an end in a kind world; rests {outcome:?}"));
                    }
                    self.at_rest()?;
                }
            }
        }
        Err(format!("no end after {TURNS_MAX} turns"))
    }

    /// A run starts once enough people signed what it goes by, and not before.
    fn start(&mut self) -> Turn {
        for _ in 0..3 {
            let event = started(random::signed(&mut self.signs));
            if self.state.after(&event, self.now).is_ok() {
                return self.record(event);
            }
        }
        self.record(started(Some(Box::new(random::signed_by_all()))))
    }

    fn tally(&self, outcome: Outcome) -> Tally {
        Tally { events: self.journal.len() as u64, crashes: u64::from(self.crashes), outcome: Some(outcome) }
    }

    /// Whether everything goes well from here on.
    pub(super) fn kind(&self) -> bool {
        self.rests >= RESTS_UNTIL_KIND
    }

    /// After so many rests a run should be over. Whoever has it turned back has every step ask once more, both ways.
    fn rests_max(&self) -> u32 {
        let steps = u32::try_from(self.flow.steps().len()).expect("a few");
        RESTS_MAX + self.turns_back * (2 * steps + 1)
    }

    /// The history so far, for the person who looks for the fault.
    pub(super) fn story(&self) -> String {
        let mut out = String::new();
        for rule in self.flow.steps() {
            let _ = writeln!(out, "{rule:?}");
        }
        let _ = writeln!(out, "{:?}", self.flow.run());
        for (event, at) in &self.journal {
            let _ = writeln!(out, "{:>6} {event:?}", at.as_millisecond());
        }
        out
    }

    /// Through the one door: checked, recorded, adopted.
    fn record(&mut self, event: Event) -> Turn {
        if self.rng.u32(0..4) == 0 {
            let later = self.now.saturating_add(SignedDuration::from_millis(self.rng.i64(1..4))).expect("in range");
            // A word that is just in time is in time.
            let is_late = event.by().is_some() && self.state.after(&event, later).is_err();
            self.now = if is_late { self.now } else { later };
        }
        self.model.now = self.now;
        self.model.sees(&self.state, &event)?;
        let was = self.whims.is_some().then(|| self.state.clone());
        self.state.apply(&event, self.now).map_err(|error| format!("{} is refused: {error}", event.kind()))?;
        self.model.saw(&self.state, &event)?;
        if let Some(was) = was {
            self.model.saw_deviation(&was, &self.state, &event)?;
        }
        self.journal.push((event, self.now));
        Ok(())
    }

    /// The same for what people say, which may be refused; a refusal changes nothing.
    pub(super) fn say(&mut self, event: Event) -> Turn {
        if self.state.after(&event, self.now).is_ok() {
            return self.record(event);
        }
        let before = self.state.clone();
        let refused: Result<(), IllegalEvent> = self.state.apply(&event, self.now);
        if refused.is_err() && self.state == before { Ok(()) } else { Err("a refusal changed the state".into()) }
    }

    fn turn(&mut self) -> Turn {
        let kind = self.kind();
        if !kind && self.has_a_whim(5) {
            return self.somebody_deviates();
        }
        match self.rng.u32(0..100) {
            0..3 if !kind => return self.crash(),
            3..8 if !kind => return self.somebody_speaks(),
            8..10 if !kind => return self.nonsense(),
            10..12 if !kind => self.now = self.later(self.rng.clone().i64(1..5_000)),
            12..14 if !kind => return self.answer_lost(),
            14..16 if !kind => self.now = self.earlier(),
            _ => {}
        }
        if chance(&mut self.signs, 2) {
            self.something_is_noted()?;
        }
        let commands = self.state.poll(self.now);
        if commands != self.state.poll(self.now) {
            return Err("asking twice gives two answers".into());
        }
        self.asks_for_what_it_starts(&commands)?;
        if !self.busy.is_empty() && (commands.is_empty() || chance(&mut self.rng, 40)) {
            return self.something_ends();
        }
        if commands.is_empty() {
            return match self.state.next_wake() {
                Some(wake) if wake > self.now => {
                    self.now = wake;
                    Ok(())
                }
                wake => Err(format!("nothing to do, nothing runs, nothing to wait for ({wake:?})")),
            };
        }
        let command = commands[self.rng.usize(0..commands.len())].clone();
        self.perform(command)
    }

    /// A note for people: a record like any other, of which nothing comes.
    fn something_is_noted(&mut self) -> Turn {
        let before = self.state.poll(self.now);
        let event = Event::SecretTooShort { name: "pin".into() };
        self.model.sees(&self.state, &event)?;
        self.state.apply(&event, self.now).map_err(|error| format!("a note is refused: {error}"))?;
        self.model.saw(&self.state, &event)?;
        self.journal.push((event, self.now));
        if self.state.poll(self.now) == before { Ok(()) } else { Err("a note changes what is done".into()) }
    }

    /// `asks_to_start` and `poll` agree on every step.
    fn asks_for_what_it_starts(&self, commands: &[Command]) -> Turn {
        let starts = commands.iter().filter_map(|command| match command {
            Command::Start { step, attempt, .. } => Some((step, *attempt)),
            _ => None,
        });
        let starts: std::collections::BTreeMap<_, _> = starts.collect();
        for view in self.state.steps() {
            let (step, next) = (&view.rule().id, view.attempts() + 1);
            if self.state.asks_to_start(step, next, self.now) != (starts.get(step) == Some(&next)) {
                return Err(format!("`{step}` is asked to start by one and not by the other"));
            }
        }
        Ok(())
    }

    /// The clock is set back.
    fn earlier(&mut self) -> Timestamp {
        let ms = self.rng.i64(1..5_000);
        self.now.saturating_sub(SignedDuration::from_millis(ms)).expect("in range").max(Timestamp::UNIX_EPOCH)
    }

    /// Facts are durable and the answer of the store is lost: the driver reads the journal and adopts its own facts once
    /// more, as far as they still hold.
    fn answer_lost(&mut self) -> Turn {
        let length = self.journal.len();
        if let Some(command) = self.state.poll(self.now).into_iter().next() {
            self.perform(command)?;
        }
        self.replays()?;
        let own: Vec<Event> = self.journal[length..].iter().map(|(event, _)| event.clone()).collect();
        for event in own {
            if self.state.after(&event, self.now).is_ok() {
                self.record(event)?;
            }
        }
        Ok(())
    }

    fn later(&mut self, ms: i64) -> Timestamp {
        self.rng.u32(..);
        self.now.saturating_add(SignedDuration::from_millis(ms)).expect("in range")
    }

    fn perform(&mut self, command: Command) -> Turn {
        match command {
            Command::Start { step, check_when: true, .. } if self.when_is_false() => {
                self.record(Event::StepSkipped { step, reason: piton::event::SkipReason::When })
            }
            Command::Start { step, attempt, .. } => {
                self.images += 1;
                let (before, input) = (json!(self.images), Value::Null);
                self.record(Event::AttemptStarted { step: step.clone(), attempt, before, input })?;
                self.busy.insert(step, Busy { attempt, undo: false });
                Ok(())
            }
            Command::OpenWait { step, check_when: true, .. } if self.when_is_false() => {
                self.record(Event::StepSkipped { step, reason: piton::event::SkipReason::When })
            }
            Command::OpenWait { step, expires_ms, .. } => {
                let wait = self.wait_kind(&step).expect("only such steps wait");
                let expires_at = expires_ms.map(|ms| self.later(ms));
                self.record(Event::StepWaiting {
                    step,
                    wait,
                    prompt: "?".into(),
                    expires_at,
                    input: Some(String::new()),
                })
            }
            Command::OpenUndoWait { step, expires_ms } => {
                let expires_at = expires_ms.map(|ms| self.later(ms));
                self.record(Event::UndoWaiting { step, prompt: "?".into(), expires_at, input: String::new() })
            }
            Command::Tell { step, occasion } => {
                self.record(Event::PeopleTold { step, occasion, sent: true, error: None })
            }
            Command::Probe { step, attempt } => {
                let finding = match (chance(&mut self.rng, 25), self.did.get(&step)) {
                    (true, _) => Finding::Unknown,
                    (false, Some(true)) => Finding::Done(Outputs::new()),
                    (false, _) => Finding::NotDone,
                };
                self.record(Event::AttemptProbed { step, attempt, finding })
            }
            Command::Undo { step, attempt } => {
                self.record(Event::UndoStarted { step: step.clone(), attempt })?;
                self.busy.insert(step, Busy { attempt, undo: true });
                Ok(())
            }
            Command::CancelAttempts => {
                for (step, busy) in std::mem::take(&mut self.busy) {
                    let error = "cancelled".to_owned();
                    self.did.insert(step.clone(), self.rng.bool());
                    let Busy { attempt, undo } = busy;
                    self.record(if undo {
                        Event::UndoFailed { step, attempt, error, retryable: true, said: vec![] }
                    } else {
                        Event::AttemptFailed {
                            step,
                            attempt,
                            error,
                            effect: Effect::Unknown,
                            retryable: false,
                            said: vec![],
                        }
                    })?;
                }
                Ok(())
            }
            Command::Record(event) => self.record(event),
        }
    }

    fn when_is_false(&mut self) -> bool {
        chance(&mut self.rng, 30)
    }

    pub(super) fn wait_kind(&self, step: &StepId) -> Option<WaitKind> {
        self.flow.rule(step)?.wait.as_ref().map(|wait| wait.kind)
    }

    /// One of the running attempts ends.
    fn something_ends(&mut self) -> Turn {
        let step = self.busy.keys().nth(self.rng.usize(0..self.busy.len())).expect("not empty").clone();
        let Busy { attempt, undo } = self.busy.remove(&step).expect("is there");
        let well = self.kind() || chance(&mut self.rng, if undo { 85 } else { 70 });
        let (error, retryable) = ("broke".to_owned(), chance(&mut self.rng, 80));
        let event = match (undo, well) {
            (true, true) => Event::UndoSucceeded { step, attempt, said: vec![] },
            (true, false) => Event::UndoFailed { step, attempt, error, retryable, said: vec![] },
            (false, true) => {
                self.did.insert(step.clone(), true);
                Event::AttemptSucceeded { step, attempt, outputs: Outputs::new(), said: vec![] }
            }
            (false, false) => {
                let effect = if self.rng.bool() { Effect::Unknown } else { Effect::None };
                self.did.insert(step.clone(), effect == Effect::Unknown && self.rng.bool());
                Event::AttemptFailed { step, attempt, error, effect, retryable, said: vec![] }
            }
        };
        self.record(event)
    }

    /// The driver dies: what ran may or may not have done its work. Another one reads the journal.
    fn crash(&mut self) -> Turn {
        self.crashes += 1;
        let mut held = Vec::new();
        for (step, busy) in std::mem::take(&mut self.busy) {
            if !busy.undo && chance(&mut self.rng, 30) {
                // Its command outlived the driver.
                held.push(step.clone());
                self.busy.insert(step, busy);
            } else {
                self.did.insert(step, self.rng.bool());
            }
        }
        self.replays()?;
        let nothing_runs = held.is_empty();
        if chance(&mut self.rng, 15) {
            self.amend()?;
        }
        self.record(resumed(held))?;
        if nothing_runs && chance(&mut self.rng, 5) {
            self.turn_back()?;
        }
        Ok(())
    }

    /// Somebody edits the runbook while nothing is driven; what is refused leaves no trace.
    fn amend(&mut self) -> Turn {
        let (flow, steps) = random::amended(&mut self.rng, &self.flow, self.journal.len());
        let flow = random::signed_otherwise(&mut self.signs, &flow);
        let event = Event::RunAmended {
            by: person(2),
            reason: "better".into(),
            version: String::new(),
            was: "old".into(),
            digest: "new".into(),
            params: BTreeMap::new(),
            source: Value::Null,
            voids: self.state.voided_by(&flow, &steps),
            steps,
            signed: random::signed(&mut self.signs),
        };
        self.people_agree_to_amend(&event)?;
        let mut next = self.state.clone();
        if next.amend(&event, &flow, self.now).is_err() {
            return if next == self.state { Ok(()) } else { Err("a refused amendment changed the state".into()) };
        }
        self.model.sees(&self.state, &event)?;
        if let Event::RunAmended { steps, .. } = &event {
            for (from, to) in steps.iter().filter_map(renaming) {
                if let Some(did) = self.did.remove(from) {
                    self.did.insert(to.clone(), did);
                }
            }
        }
        self.model.saw_amended(&self.state, &next, &event)?;
        self.state = next;
        self.flow = self.state.workflow().clone();
        self.flows.insert(self.journal.len(), flow);
        self.model.against.forgets(&self.state);
        self.journal.push((event, self.now));
        Ok(())
    }

    /// A person wants everything undone; says whether the run turns back.
    fn turn_back(&mut self) -> Result<bool, String> {
        if self.turns_back >= TURNS_BACK_MAX {
            return Ok(false);
        }
        let by = person(self.rng.usize(0..PEOPLE));
        let length = self.journal.len();
        self.say(Event::RollbackRequested { by, reason: "not wanted".into(), driver: String::new(), sealed_by: None })?;
        let turned = self.journal.len() > length;
        self.turns_back += u32::from(turned);
        let back = self.state.outcome_so_far() == Outcome::RolledBack;
        if !turned && self.state.way_back().is_open() && !back {
            return Err("a run that can turn back does not".into());
        }
        Ok(turned)
    }

    /// The fold of the journal is the state.
    fn replays(&mut self) -> Turn {
        let mut folded = State::with_mutant(self.first.clone(), self.mutant);
        for (place, (event, at)) in self.journal.iter().enumerate() {
            let applied = match self.flows.get(&place) {
                Some(flow) => folded.amend(event, flow, *at),
                None => folded.apply(event, *at),
            };
            applied.map_err(|error| format!("replay refuses: {error}"))?;
        }
        let same = folded == self.state;
        self.state = folded;
        if same { Ok(()) } else { Err("replay gives another state".into()) }
    }

    /// A person says something, sensible or not.
    fn somebody_speaks(&mut self) -> Turn {
        let step = self.any_step();
        let by = person(self.rng.usize(0..PEOPLE));
        let reason = String::new();
        match self.rng.u32(0..20) {
            0 => self.say(Event::CancelRequested { by, reason: None }),
            1..=4 => self.say(Event::SkipRequested { step, by, reason }),
            _ => {
                let step = self.asking_step().unwrap_or(step);
                let answer = self.answer(&step);
                self.say(Event::StepAnswered { step, by, answer })
            }
        }
    }

    fn any_step(&mut self) -> StepId {
        let number = self.rng.usize(0..self.flow.steps().len());
        self.flow.steps()[number].id.clone()
    }

    /// An event out of the blue.
    fn nonsense(&mut self) -> Turn {
        let (step, attempt) = (self.any_step(), self.rng.u32(0..3));
        let event = match self.rng.u32(0..9) {
            0 => started(None),
            1 => Event::StepExpired { step },
            2 => Event::UndoStarted { step, attempt },
            3 => Event::RollbackStarted { reason: String::new() },
            4 => Event::AttemptProbed { step, attempt, finding: Finding::NotDone },
            5 => Event::RunTimedOut,
            7 => Event::RollbackRequested {
                by: person(0),
                reason: String::new(),
                driver: String::new(),
                sealed_by: None,
            },
            6 => Event::AttemptSucceeded { step: "nobody".into(), attempt, outputs: Outputs::new(), said: vec![] },
            8 if !self.busy.contains_key(&step) => resumed(vec![step]),
            _ => Event::RunFinished { outcome: Outcome::Waiting, milestones: vec![], revoked: vec![], note: None },
        };
        match self.state.after(&event, self.now) {
            Ok(_) => Ok(()),
            Err(_) => self.say(event),
        }
    }

    /// People look at a run that rests, answer what they can, and take it up again.
    fn at_rest(&mut self) -> Turn {
        if !self.kind() && self.has_a_whim(40) {
            self.sleep();
        }
        let steps: Vec<StepId> = self.flow.steps().iter().map(|rule| rule.id.clone()).collect();
        for step in steps {
            if !self.state.step(&step).is_some_and(|view| asks(&view)) || !(self.kind() || self.rng.bool()) {
                continue;
            }
            for number in 0..PEOPLE {
                let answer = self.answer(&step);
                self.say(Event::StepAnswered { step: step.clone(), by: person(number), answer })?;
            }
        }
        while !self.kind() && self.has_a_whim(40) {
            self.somebody_deviates()?;
        }
        if self.state.outcome().is_none() && self.rng.bool() {
            return Ok(());
        }
        if self.state.outcome().is_some() && chance(&mut self.rng, 10) && self.turn_back()? {
            return Ok(());
        }
        if !self.kind() && chance(&mut self.rng, 40) {
            self.amend()?;
        }
        self.record(resumed(Vec::new()))
    }
}

/// The old and the new name of a step that was renamed.
pub(super) fn renaming(entry: &StepAmended) -> Option<(&StepId, &StepId)> {
    match &entry.change {
        Change::Renamed { from } => Some((from, &entry.step)),
        _ => None,
    }
}

fn started(signed: Option<Box<Signed>>) -> Event {
    Event::RunStarted {
        runbook: String::new(),
        version: String::new(),
        digest: String::new(),
        site: String::new(),
        by: person(0),
        params: BTreeMap::new(),
        piton: String::new(),
        source: Value::Null,
        parent: None,
        sealed_by: None,
        signed,
    }
}

fn resumed(held: Vec<StepId>) -> Event {
    Event::RunResumed { by: person(1), driver: String::new(), held, sealed_by: None }
}

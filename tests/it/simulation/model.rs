//! What must hold of every history, told independently of the scheduler's own bookkeeping.
//!
//! The model sees each event before it is applied (with the state as it was) and keeps its own account of what each
//! step may have done to the world.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use piton::event::{
    Answer, Change, Choice, Effect, Event, Finding, Outcome, Signed, SignedFiles, SkipReason, StepAmended,
};
use piton::ids::{Actor, Milestone, StepId};
use piton::scheduler::{FieldRule, Idempotent, NeedOutcome, Phase, SignRule, State, StepRule, StepState, StepView};
use serde_json::Value;

use super::against::Against;
use super::asked::is_undone_as_before;
use super::world::renaming;

/// The model's account of one step.
#[derive(Debug, Default, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact about a step and may be true on its own")]
pub(super) struct Account {
    /// It may have changed the world, and nothing has taken that back.
    pub(super) maybe: bool,
    maybe_before: bool,
    running: bool,
    undoing: bool,
    pub(super) succeeded: bool,
    /// Failed attempts since it was last given a fresh budget.
    pub(super) failures: u32,
    /// Place of its latest event.
    pub(super) last: usize,
    pub(super) before: Option<Value>,
    /// What later attempts saw that may have looked anew, since nothing of it was in the world then: as good as `before`.
    afresh: Vec<Value>,
    may_look_afresh: bool,
    pub(super) approved: BTreeSet<Actor>,
    /// A person let it stay although it was to be undone.
    pub(super) left: bool,
}

impl Account {
    /// A person says that it is done; what was seen before it stays.
    pub(super) fn is_declared_done(&mut self, place: usize) {
        let before = self.before.take();
        *self = Self { maybe: true, succeeded: true, before, last: place, ..Self::default() };
    }
}

#[derive(Debug, Default)]
pub(super) struct Model {
    accounts: BTreeMap<StepId, Account>,
    pub(super) place: usize,
    /// Latest events as they were when the run turned back.
    turned: BTreeMap<StepId, usize>,
    cancelled: bool,
    timed_out: bool,
    /// Place of the latest request to turn back.
    asked_back: Option<usize>,
    /// Whether the milestones of the run stand.
    established: bool,
    /// Steps that are to be undone before they are done again.
    redo: BTreeSet<StepId>,
    /// What people wanted against the runbook, and who stood behind it.
    pub(super) against: Against,
    /// When the questions that are open end, or are put to others as well.
    pub(super) expiries: BTreeMap<StepId, Timestamp>,
    /// Whose work by hand it is.
    pub(super) assignees: BTreeMap<StepId, Actor>,
    /// The time of what is about to be true.
    pub(super) now: Timestamp,
}

pub(super) type Check = Result<(), String>;

pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

pub(super) fn view<'a>(state: &'a State, step: &StepId) -> StepView<'a> {
    state.step(step).expect("the driver names only steps of the plan")
}

/// Whether as many people as the rule asks for signed it, each of them once.
fn is_signed(rule: Option<&SignRule>, files: Option<&SignedFiles>) -> Check {
    let Some(SignRule { quorum, allowed }) = rule else { return Ok(()) };
    let mut people: Vec<&str> = files.iter().flat_map(|files| &files.by).map(|signer| signer.name.as_str()).collect();
    people.sort_unstable();
    people.dedup();
    people.retain(|name| allowed.as_ref().is_none_or(|all| all.iter().any(|one| one.as_str() == *name)));
    ensure(people.len() >= *quorum as usize, || format!("goes by what only {people:?} signed"))
}

/// An amendment goes by what enough people signed, and so does the site that it may bring.
fn is_amended_by_signers(state: &State, signed: Option<&Signed>) -> Check {
    let rule = state.workflow().run().signed.as_ref();
    is_signed(rule, signed.and_then(|signed| signed.runbook.as_ref()))?;
    let site = signed.filter(|signed| signed.brings_site);
    site.map_or(Ok(()), |signed| is_signed(rule, signed.new_site.as_ref()))
}

fn need_is_met(needed: StepView<'_>, outcome: NeedOutcome, at_the_end: bool) -> bool {
    let deliberate = matches!(needed.skip_reason(), Some(SkipReason::When | SkipReason::Person { .. }));
    let state = needed.state();
    match outcome {
        NeedOutcome::Done => state == StepState::Succeeded || (state == StepState::Skipped && deliberate),
        NeedOutcome::Succeeded => state == StepState::Succeeded,
        NeedOutcome::Failed => state == StepState::Failed,
        NeedOutcome::Skipped => state == StepState::Skipped,
        NeedOutcome::Any => {
            at_the_end || matches!(state, StepState::Succeeded | StepState::Failed | StepState::Skipped)
        }
    }
}

impl Model {
    pub(super) fn account(&mut self, step: &StepId) -> &mut Account {
        self.accounts.entry(step.clone()).or_default()
    }

    /// Looks at `event`, which is about to become true in `state`.
    pub(super) fn sees(&mut self, state: &State, event: &Event) -> Check {
        self.place += 1;
        match event {
            Event::AttemptStarted { step, before, .. } => self.starts(state, step, before)?,
            Event::StepWaiting { step, expires_at, .. } => {
                self.may_begin(state, view(state, step).rule())?;
                self.is_asked(step, view(state, step).rule().wait.as_deref(), *expires_at);
            }
            Event::UndoWaiting { step, expires_at, .. } => {
                self.undoes(state, step)?;
                self.account(step).undoing = false;
                self.is_asked(step, view(state, step).rule().undo_wait.as_deref(), *expires_at);
            }
            Event::StepAssigned { step, by, to, .. } => self.is_handed_over(state, step, by, to)?,
            Event::PeopleTold { step, .. } => {
                ensure(view(state, step).is_asked(), || format!("people are told of `{step}`, which does not wait"))?;
            }
            Event::AttemptSucceeded { step, .. } => self.succeeds(step)?,
            Event::AttemptFailed { step, effect, .. } => {
                let account = self.account(step);
                account.running = false;
                account.failures += 1;
                account.maybe = account.maybe_before || *effect == Effect::Unknown;
            }
            Event::AttemptProbed { step, finding, .. } => match finding {
                Finding::Done(_) => self.succeeds(step)?,
                Finding::NotDone => self.did_not_run(state, step),
                Finding::Unknown => {}
            },
            Event::StepAnswered { step, by, answer } => self.answered(state, step, by, answer)?,
            Event::RunResumed { held, .. } => self.resumes(state, held)?,
            Event::CancelRequested { .. } => self.cancelled = true,
            Event::RunTimedOut => self.timed_out = true,
            Event::RollbackStarted { .. } => self.turns_back()?,
            Event::RollbackRequested { .. } => self.is_asked_back(state)?,
            Event::RunAmended { steps, signed, .. } => {
                is_amended_by_signers(state, signed.as_deref())?;
                self.is_amended(state, steps);
            }
            Event::UndoStarted { step, .. } => self.undoes(state, step)?,
            Event::UndoSucceeded { step, .. } => {
                *self.account(step) = Account::default();
                self.is_settled(state, step);
            }
            Event::UndoFailed { step, .. } => self.account(step).undoing = false,
            Event::RunFinished { outcome, milestones, revoked, note } => {
                self.establishes(state, *outcome, (milestones, revoked))?;
                self.finishes(state, *outcome, note.as_deref())?;
            }
            Event::RunStarted { signed, .. } => {
                let rule = state.workflow().run().signed.as_ref();
                is_signed(rule, signed.as_ref().and_then(|signed| signed.runbook.as_ref()))?;
            }
            Event::SecretTooShort { .. }
            | Event::StepSkipped { .. }
            | Event::StepExpired { .. }
            | Event::WordRefused { .. }
            | Event::SkipRequested { .. }
            | Event::DeviationRequested { .. }
            | Event::DeviationAnswered { .. } => {}
        }
        self.against.hears(state, event);
        self.notes_place(event);
        Ok(())
    }

    /// When something last happened to the step of an event. What is only wanted, told or handed over has not.
    fn notes_place(&mut self, event: &Event) {
        let place = self.place;
        let is_wish = matches!(
            event,
            Event::DeviationRequested { .. }
                | Event::DeviationAnswered { .. }
                | Event::PeopleTold { .. }
                | Event::StepAssigned { .. }
        );
        if let Some(step) = event.step().filter(|_| !is_wish) {
            self.account(step).last = place;
        }
    }

    /// Looks at `state` once the event is true.
    pub(super) fn saw(&self, state: &State, event: &Event) -> Check {
        if let Event::AttemptSucceeded { step, .. } | Event::AttemptFailed { step, .. } = event {
            let kept = view(state, step).before();
            let account = &self.accounts[step];
            let is_afresh = kept.as_ref().is_some_and(|kept| account.afresh.contains(kept));
            ensure(kept == account.before || is_afresh, || {
                format!("`{step}` lost the before-image of its first attempt: {kept:?}")
            })?;
        }
        if let Event::StepAnswered { step, answer: Answer::Approved { .. }, .. } = event {
            let rule = view(state, step).rule().wait.as_ref().expect("was answered");
            let enough = self.accounts[step].approved.len() >= rule.quorum as usize;
            let through = view(state, step).state() == StepState::Succeeded;
            ensure(enough == through, || format!("`{step}` does not respect its quorum"))?;
        }
        Ok(())
    }

    fn may_begin(&self, state: &State, rule: &StepRule) -> Check {
        let at_the_end = rule.phase == Phase::Finally;
        for need in &rule.needs {
            let needed = view(state, &need.step);
            let end = at_the_end && needed.rule().phase != Phase::Finally;
            let outcome = if self.against.forced.contains(&rule.id) { NeedOutcome::Any } else { need.outcome };
            ensure(need_is_met(needed, outcome, end), || {
                format!("`{}` starts although its need of `{}` is not met", rule.id, need.step)
            })?;
        }
        ensure(!self.cancelled, || format!("`{}` starts after a cancel", rule.id))?;
        for other in state.steps() {
            let through = is_through(other);
            if rule.phase == Phase::Main && other.rule().phase == Phase::Preflight {
                ensure(through, || format!("`{}` starts before preflight `{}` is through", rule.id, other.rule().id))?;
            }
            let busy = matches!(other.state(), StepState::Running | StepState::InDoubt);
            if rule.phase == Phase::Finally && other.rule().phase != Phase::Finally && !state_is_back(state) {
                ensure(!busy, || format!("`{}` starts before `{}` ended", rule.id, other.rule().id))?;
            }
        }
        Ok(())
    }

    fn starts(&mut self, state: &State, step: &StepId, before: &Value) -> Check {
        let rule = view(state, step).rule();
        ensure(!rule.retired, || format!("`{step}` starts although the runbook no longer has it"))?;
        ensure(self.redo.is_empty(), || format!("`{step}` starts before {:?} are undone", self.redo))?;
        self.may_begin(state, rule)?;
        let running: Vec<&StepId> =
            self.accounts.iter().filter(|(_, account)| account.running || account.undoing).map(|(id, _)| id).collect();
        let parallel_max = state.workflow().run().parallel_max as usize;
        ensure(running.len() < parallel_max, || format!("`{step}` starts beyond the parallel limit"))?;
        for other in running {
            let shared = view(state, other).rule().locks.iter().any(|lock| rule.locks.contains(lock));
            ensure(!shared, || format!("`{step}` and `{other}` hold one lock"))?;
        }
        let attempts_max = self.against.attempts.get(step).copied().unwrap_or(rule.retry.attempts_max);
        let account = self.account(step);
        let repeats = rule.idempotent == Idempotent::No && account.maybe;
        ensure(!repeats, || format!("`{step}` is not idempotent and may run twice without a person's word"))?;
        ensure(account.failures < attempts_max, || format!("`{step}` starts beyond its retries"))?;
        ensure(!account.succeeded, || format!("`{step}` starts although it succeeded"))?;
        account.maybe_before = account.maybe;
        account.maybe = true;
        account.running = true;
        account.before.get_or_insert_with(|| before.clone());
        if std::mem::take(&mut account.may_look_afresh) {
            account.afresh.push(before.clone());
        }
        Ok(())
    }

    fn succeeds(&mut self, step: &StepId) -> Check {
        let account = self.account(step);
        ensure(!account.succeeded, || format!("`{step}` succeeds twice"))?;
        account.running = false;
        account.succeeded = true;
        account.maybe = true;
        Ok(())
    }

    /// The attempt in doubt did nothing; of a step that is not idempotent the word is about all its attempts.
    fn did_not_run(&mut self, state: &State, step: &StepId) {
        let repeats = view(state, step).rule().idempotent != Idempotent::No;
        let account = self.account(step);
        account.maybe = account.maybe_before && repeats;
    }

    fn answered(&mut self, state: &State, step: &StepId, by: &Actor, answer: &Answer) -> Check {
        let for_undo = view(state, step).undo_waits();
        if let Some(rule) = view(state, step).question().filter(|_| view(state, step).is_asked()) {
            self.may_answer(rule, step, by)?;
            self.is_its_assignee(step, by)?;
            if let Answer::Completed { form, .. } = answer {
                let fits = |field: &FieldRule| form.get(&field.name).is_some_and(Value::is_number);
                ensure(rule.form.iter().all(fits), || format!("`{step}` takes a form that is not filled in"))?;
            }
        }
        match answer {
            Answer::Approved { .. } => {
                self.account(step).approved.insert(by.clone());
            }
            Answer::Withdrawn { .. } => {
                let had = self.account(step).approved.remove(by);
                ensure(had, || format!("{by} takes back what was never given to `{step}`"))?;
            }
            Answer::Ran { .. } => self.succeeds(step)?,
            Answer::NotRan { .. } => self.did_not_run(state, step),
            Answer::Undone { .. } | Answer::Left { .. } => {
                ensure(view(state, step).undo_failed(), || format!("`{step}` is not a failed undo"))?;
                if matches!(answer, Answer::Left { .. }) {
                    self.account(step).left = true;
                } else {
                    *self.account(step) = Account::default();
                }
                self.is_settled(state, step);
            }
            Answer::Completed { .. } if for_undo => {
                *self.account(step) = Account::default();
                self.is_settled(state, step);
            }
            Answer::Rejected { .. } | Answer::Completed { .. } => {}
        }
        Ok(())
    }

    /// Milestones come with success, and go with a rollback after it.
    fn establishes(&mut self, state: &State, outcome: Outcome, told: (&[Milestone], &[Milestone])) -> Check {
        let run = state.workflow().run();
        let none: &[Milestone] = &[];
        let expected = match outcome {
            Outcome::Succeeded => (run.milestones.as_slice(), run.revokes.as_slice()),
            Outcome::RolledBack if self.established => (none, run.milestones.as_slice()),
            _ => (none, none),
        };
        if matches!(outcome, Outcome::Succeeded | Outcome::RolledBack) {
            self.established = outcome == Outcome::Succeeded;
        }
        ensure(told == expected, || format!("{outcome:?} with milestones {told:?}, not {expected:?}"))
    }

    /// A person has the run turned back; whatever is to happen at the end happens anew.
    fn is_asked_back(&mut self, state: &State) -> Check {
        self.turns_back()?;
        self.asked_back = Some(self.place);
        self.cancelled = false;
        for step in state.steps().filter(|step| step.rule().phase == Phase::Finally) {
            self.finally_is_new(step, true);
        }
        Ok(())
    }

    /// Somebody edited the runbook: nothing that is done changes without a decision, nothing is forgotten.
    fn is_amended(&mut self, state: &State, steps: &[StepAmended]) {
        for (from, to) in steps.iter().filter_map(renaming) {
            let account = self.accounts.remove(from).unwrap_or_default();
            self.accounts.insert(to.clone(), account);
            if let Some(turned) = self.turned.remove(from) {
                self.turned.insert(to.clone(), turned);
            }
            if self.redo.remove(from) {
                self.redo.insert(to.clone());
            }
            if let Some(at) = self.expiries.remove(from) {
                self.expiries.insert(to.clone(), at);
            }
            if let Some(person) = self.assignees.remove(from) {
                self.assignees.insert(to.clone(), person);
            }
        }
        let mut redo = BTreeSet::new();
        for entry in steps {
            let step = &entry.step;
            let fresh = |account: &Account| Account { last: account.last, ..Account::default() };
            match entry.choice {
                Some(Choice::Redo) => {
                    let rule = view(state, step).rule();
                    if rule.has_undo && rule.phase == Phase::Main {
                        redo.insert(step.clone());
                    } else {
                        *self.account(step) = fresh(self.account(step));
                    }
                }
                Some(Choice::Keep) | None => {}
            }
        }
        if !redo.is_empty() {
            self.turned = self.accounts.iter().map(|(step, account)| (step.clone(), account.last)).collect();
            self.redo = redo;
        }
    }

    /// Whoever did something and was changed needs a decision, unless it failed and may be repeated as it was and as it is.
    fn was_changed(&mut self, was: &State, state: &State, step: &StepId, choice: Option<Choice>) -> Check {
        if choice.is_some() {
            return Ok(());
        }
        let repeats = |state: &State| state.step(step).is_some_and(|view| view.rule().idempotent != Idempotent::No);
        let mended = repeats(was) && repeats(state);
        let account = self.account(step);
        let stands = account.succeeded || account.running || account.undoing || (account.maybe && !mended);
        ensure(!stands, || format!("`{step}` was changed, is done, and nobody decided about it"))?;
        // What may be left of it is not forgotten, but the next attempt looks at another world.
        let Account { maybe, last, left, .. } = *account;
        *account = Account { maybe, last, left, ..Account::default() };
        Ok(())
    }

    /// Looks at the state right behind an amendment.
    pub(super) fn saw_amended(&mut self, was: &State, state: &State, event: &Event) -> Check {
        let Event::RunAmended { steps, signed, .. } = event else { return Ok(()) };
        let rule = state.workflow().run().signed.as_ref();
        is_signed(rule, signed.as_ref().and_then(|signed| signed.runbook.as_ref()))?;
        self.against.is_amended(was, event)?;
        // One that an earlier amendment has undone may have its undo mended meanwhile.
        let redone = steps.iter().filter(|entry| entry.choice == Some(Choice::Redo)).map(|entry| &entry.step);
        redone.filter(|step| self.redo.contains(*step)).try_for_each(|step| is_undone_as_before(was, state, step))?;
        for entry in steps.iter().filter(|entry| matches!(entry.change, Change::Changed | Change::Inputs)) {
            self.was_changed(was, state, &entry.step, entry.choice)?;
        }
        for (step, account) in &self.accounts {
            let known = state.step(step).is_some();
            ensure(known || !(account.maybe || account.running), || {
                format!("`{step}` left something and is forgotten")
            })?;
        }
        self.accounts.retain(|step, _| state.step(step).is_some());
        for step in state.steps().filter(|step| matches!(step.state(), StepState::Running | StepState::InDoubt)) {
            // An attempt that had begun is part of the budget that it began with, also when it begins again after a crash.
            let attempts_max = step.rule().retry.attempts_max;
            let account = self.account(&step.rule().id);
            account.failures = account.failures.min(attempts_max.saturating_sub(1));
        }
        // With more to do before them, they may be in line for another end already.
        let opens = state.steps().any(|step| {
            let ended = matches!(step.state(), StepState::Succeeded | StepState::Failed | StepState::Skipped);
            step.rule().phase != Phase::Finally && !step.rule().retired && !ended
        });
        for step in state.steps().filter(|step| step.rule().phase == Phase::Finally) {
            let account = self.account(&step.rule().id);
            if account.succeeded && step.state() != StepState::Succeeded {
                *account = Account { last: account.last, ..Account::default() };
            }
            // The run comes to another end; its `finally` steps have a fresh budget there.
            let left_its_place = |was: StepView<'_>| {
                let ended = |state| matches!(state, StepState::Succeeded | StepState::Failed | StepState::Skipped);
                let in_line = was.state() == StepState::Ready && (step.state() == StepState::Pending || opens);
                let paused = was.retry_at().is_some() && step.retry_at().is_none();
                (ended(was.state()) && !ended(step.state())) || in_line || paused
            };
            let id = &step.rule().id;
            let old = steps.iter().filter_map(renaming).find(|(_, to)| *to == id).map_or(id, |(from, _)| from);
            if was.step(old).is_some_and(left_its_place) {
                account.failures = 0;
            }
            account.may_look_afresh |= !account.maybe;
        }
        Ok(())
    }

    /// One of the steps that are undone to be done again is settled; behind the last one the run goes forward.
    pub(super) fn is_settled(&mut self, state: &State, step: &StepId) {
        if self.redo.remove(step) && self.redo.is_empty() {
            self.goes_forward(state);
        }
    }

    /// `turned`: even a step that would have been tried again may start anew.
    pub(super) fn finally_is_new(&mut self, step: StepView<'_>, turned: bool) {
        let account = self.account(&step.rule().id);
        account.failures = 0;
        if account.succeeded {
            *account = Account { last: account.last, ..Account::default() };
        }
        account.may_look_afresh = (turned || account.may_look_afresh) && !account.maybe;
        if matches!(step.state(), StepState::Failed | StepState::Skipped) && !account.maybe {
            account.before = None;
        }
    }

    fn resumes(&mut self, state: &State, held: &[StepId]) -> Check {
        let place = self.place;
        for (step, account) in &mut self.accounts {
            if held.contains(step) {
                ensure(account.running, || format!("`{step}` is held and does not run"))?;
                continue;
            }
            if account.running || account.undoing {
                account.last = place;
            }
            account.running = false;
            account.undoing = false;
        }
        if state.outcome().is_none_or(|outcome| outcome == Outcome::Waiting) {
            return Ok(());
        }
        self.cancelled = false;
        self.goes_forward(state);
        Ok(())
    }

    /// Whatever did not get through gets a fresh budget.
    fn goes_forward(&mut self, state: &State) {
        self.timed_out = false;
        for step in state.steps() {
            // A `finally` step belongs to one end of the run; the next end has its own.
            if step.rule().phase == Phase::Finally {
                self.finally_is_new(step, false);
                continue;
            }
            let account = self.account(&step.rule().id);
            account.failures = 0;
            if matches!(step.state(), StepState::Failed | StepState::Skipped) && !account.maybe {
                account.before = None;
            }
        }
    }

    fn turns_back(&mut self) -> Check {
        ensure(self.accounts.values().all(|account| !account.running), || "turns back over running attempts".into())?;
        self.accounts.values_mut().for_each(|account| account.left = false);
        self.redo.clear();
        self.turned = self.accounts.iter().map(|(step, account)| (step.clone(), account.last)).collect();
        Ok(())
    }

    fn undoes(&mut self, state: &State, step: &StepId) -> Check {
        let mine = self.turned.get(step).copied().unwrap_or(0);
        ensure(self.accounts.get(step).is_some_and(|account| account.maybe), || format!("`{step}` did nothing"))?;
        for (other, account) in &self.accounts {
            let rule = view(state, other).rule();
            let later = self.turned.get(other).copied().unwrap_or(0) > mine && rule.phase == Phase::Main;
            if account.maybe && later && other != step && !account.left {
                ensure(!rule.point_of_no_return, || format!("undoing `{step}` goes behind `{other}`"))?;
                let counts = self.redo.is_empty() || self.redo.contains(other);
                ensure(!rule.has_undo || !counts, || {
                    format!("`{step}` is undone before `{other}`, which ended later")
                })?;
            }
            ensure(!account.running && !account.undoing, || format!("`{step}` is undone while `{other}` runs"))?;
        }
        ensure(!view(state, step).rule().point_of_no_return, || format!("undoes `{step}`, a point of no return"))?;
        self.account(step).undoing = true;
        Ok(())
    }

    fn finishes(&self, state: &State, outcome: Outcome, note: Option<&str>) -> Check {
        let busy = self.accounts.values().any(|account| account.running || account.undoing);
        ensure(!busy, || "finishes while something runs".into())?;
        for (step, account) in self.accounts.iter().filter(|(_, account)| account.left && account.maybe) {
            // A run that went forward again may ask what became of it, or come to rest before it is tried again.
            let stays = match view(state, step).state() {
                StepState::Succeeded | StepState::Failed | StepState::InDoubt => true,
                StepState::Pending => !outcome.is_final() && view(state, step).effect_unknown(),
                _ => false,
            };
            ensure(stays || account.running, || format!("`{step}` was left as it is and counts as undone"))?;
        }
        let any = |wanted: StepState| state.steps().any(|step| step.state() == wanted);
        let failed = state.steps().any(|step| step.state() == StepState::Failed && !step.rule().optional);
        let holds = match outcome {
            Outcome::Succeeded => state.steps().all(|step| is_through(step) || step.rule().retired) && !self.timed_out,
            Outcome::Failed => failed || self.timed_out,
            Outcome::RolledBack => state.steps().all(|step| {
                let account = self.accounts.get(&step.rule().id);
                let stays = account.is_some_and(|account| account.maybe && !account.left);
                let by_a_person = matches!(step.skip_reason(), Some(SkipReason::Person { .. }));
                let since = account.is_some_and(|account| self.asked_back.is_none_or(|at| account.last > at));
                match step.rule().phase {
                    Phase::Main => !(stays && step.rule().has_undo),
                    Phase::Finally => since || by_a_person || step.rule().retired,
                    Phase::Preflight => true,
                }
            }),
            Outcome::Stuck => {
                any(StepState::InDoubt) || any(StepState::Undoing) || note.is_some_and(speaks_of_no_return)
            }
            Outcome::Cancelled => self.cancelled,
            Outcome::Waiting => state.steps().any(|step| step.is_asked()),
        };
        ensure(holds, || format!("finishes {outcome:?}, which does not fit its steps"))
    }
}

/// Whether a step ended in a way that lets the run go on.
fn is_through(step: StepView<'_>) -> bool {
    matches!(step.state(), StepState::Succeeded | StepState::Skipped)
        || (step.state() == StepState::Failed && step.rule().optional)
}

fn speaks_of_no_return(note: &str) -> bool {
    note.contains("point of no return")
}

/// Whether the run was rolled back, so that doubts were resolved by undoing.
fn state_is_back(state: &State) -> bool {
    state.outcome_so_far() == Outcome::RolledBack
}

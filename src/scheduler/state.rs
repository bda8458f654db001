//! The state of a run: what each step is, what waits for what, and what reports may ask.
//!
//! Owned here: the data and the read-only views. The files beside this one change it: `apply` (events), `people`
//! (answers), `progress` (needs, queues, locks), `rollback`, `resume`. Called by driver, CLI and reports.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::deviations::{Deviation, Extended, Proposal};
use super::kept::{Kept, KeptTime};
use super::mutant::Mutant;
use super::refusal::IllegalEvent;
use super::reminders::Told;
use super::view::StepView;
use super::workflow::{OnFailure, StepRule, Workflow};
use crate::event::{Answer, Departure, Event, Outcome, SkipReason};
use crate::ids::{Actor, LockName, StepId};

/// What a step is, as shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Needs are not met yet.
    Pending,
    /// May start as soon as there is room, its locks are free and its pause is over.
    Ready,
    /// An attempt runs.
    Running,
    /// Done.
    Succeeded,
    /// Failed for good.
    Failed,
    /// Passed over.
    Skipped,
    /// An attempt started and its result is unknown.
    InDoubt,
    /// Is being undone, or its undo failed.
    Undoing,
    /// Was undone.
    Undone,
    /// Waits for people.
    Waiting,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Pending,
    Ready,
    /// Failed, and will be tried again at the time.
    Pause(Timestamp),
    Running,
    Waiting,
    /// A probe is due.
    Doubt,
    /// Only a person can tell.
    Asked,
    Succeeded,
    Failed,
    Skipped,
    Undoing,
    /// A person is asked to undo it by hand.
    UndoWaiting,
    /// The last undo attempt failed; next one at the time.
    UndoPause(Timestamp),
    /// Due to be undone (again).
    UndoDue,
    UndoFailed,
    Undone,
}

impl Status {
    /// Whether it is to be undone, is being undone, or could not be.
    pub(super) fn is_on_the_way_back(self) -> bool {
        matches!(self, Self::Undoing | Self::UndoWaiting | Self::UndoPause(_) | Self::UndoDue | Self::UndoFailed)
    }
}

/// What is known of one step.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact about the step and independent of the others")]
pub(super) struct Step {
    pub(super) status: Status,
    /// Attempts ever started.
    pub(super) attempts: u32,
    /// Attempts that count against the retry budget.
    pub(super) tries: u32,
    pub(super) undo_attempts: u32,
    pub(super) undo_tries: u32,
    /// Needs that are not met yet.
    pub(super) unmet: u32,
    /// Whether the world may hold traces of an unfinished attempt.
    pub(super) dirty: bool,
    /// `dirty` as it was before the latest attempt.
    pub(super) dirty_before: bool,
    /// Whether its work was changed since its latest attempt, so that the next one looks at another world.
    pub(super) looks_afresh: bool,
    /// Whether a person undid it and its action does not know of that yet: it is told before it begins again.
    pub(super) undone_by_hand: bool,
    pub(super) when_checked: bool,
    /// Number of the event that was its latest, for the order of undoing.
    pub(super) order: u64,
    /// `order` as it was when the run turned back.
    pub(super) turned: u64,
    pub(super) started_at: KeptTime,
    pub(super) finished_at: KeptTime,
    pub(super) before: Kept,
    pub(super) outputs: Kept,
    pub(super) error: Option<Box<str>>,
    /// What was asked of people and said by them, if anything; few steps of a run ask.
    pub(super) asked: Option<Box<Asked>>,
    pub(super) skipped: Option<Box<SkipReason>>,
}

/// What people were asked about a step, and what they said.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Asked {
    pub(super) prompt: Option<String>,
    /// Since when.
    pub(super) since: Option<Timestamp>,
    /// When more people are asked, or, if nobody else is, when the time to answer is over.
    pub(super) expires_at: Option<Timestamp>,
    /// When the time to answer is over, while it waits.
    pub(super) ends_at: Option<Timestamp>,
    /// Who was told of it.
    pub(super) told: Told,
    /// Whose it is to do.
    pub(super) assignee: Option<Actor>,
    /// Whether it is about the undo.
    pub(super) for_undo: bool,
    pub(super) answers: Vec<(Actor, Answer, Timestamp)>,
    /// Digest of what is asked; an answer to a question that has one must come in time.
    pub(super) input: Option<String>,
}

impl Step {
    /// Notes when it began, the first time.
    pub(super) fn begins(&mut self, at: Timestamp) {
        if self.started_at == KeptTime::NONE {
            self.started_at = KeptTime::new(at);
        }
    }

    pub(super) fn new() -> Self {
        Self {
            status: Status::Pending,
            attempts: 0,
            tries: 0,
            undo_attempts: 0,
            undo_tries: 0,
            unmet: 0,
            dirty: false,
            dirty_before: false,
            looks_afresh: false,
            undone_by_hand: false,
            when_checked: false,
            order: 0,
            turned: 0,
            started_at: KeptTime::NONE,
            finished_at: KeptTime::NONE,
            before: Kept::default(),
            outputs: Kept::default(),
            error: None,
            asked: None,
            skipped: None,
        }
    }

    /// What is asked of people, to be changed.
    pub(super) fn asked(&mut self) -> &mut Asked {
        self.asked.get_or_insert_default()
    }

    pub(super) fn ends_at(&self) -> Option<Timestamp> {
        self.asked.as_ref().and_then(|asked| asked.ends_at)
    }

    pub(super) fn answers(&self) -> &[(Actor, Answer, Timestamp)] {
        self.asked.as_ref().map_or(&[], |asked| &asked.answers)
    }

    pub(super) fn forget_answers(&mut self) {
        if let Some(asked) = &mut self.asked {
            asked.answers.clear();
        }
    }
}

/// In which part of its way the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Preflight,
    Main,
    Rollback,
    Finally,
}

/// Why nothing new starts any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    None,
    Stop,
    Rollback,
}

impl Verdict {
    pub(super) fn of(on_failure: OnFailure) -> Self {
        match on_failure {
            OnFailure::Rollback => Self::Rollback,
            OnFailure::Stop => Self::Stop,
            OnFailure::Continue => Self::None,
        }
    }
}

/// A run, folded from its events.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact about the run and independent of the others")]
pub struct State {
    pub(super) flow: Arc<Workflow>,
    pub(super) mutant: Option<Mutant>,
    pub(super) steps: Vec<Step>,
    pub(super) events: u64,
    /// Whether the run was started by a version that says how people are known; rules that came with it hold then.
    pub(super) strict: bool,
    pub(super) started_at: Option<Timestamp>,
    /// From when the run's timeout counts.
    pub(super) opened_at: Option<Timestamp>,
    pub(super) finished: Option<(Outcome, Timestamp)>,
    pub(super) note: Option<String>,
    pub(super) stage: Stage,
    pub(super) verdict: Verdict,
    pub(super) why: Option<String>,
    pub(super) timed_out: bool,
    pub(super) cancels: u32,
    pub(super) rolled_back: bool,
    /// Per phase: steps that have not ended.
    pub(super) open: [usize; 3],
    /// Failed steps that were not optional: of preflight and main, of finally.
    pub(super) failed: [usize; 2],
    pub(super) ready: [BTreeSet<usize>; 3],
    /// Ready, with room and locks kept for them.
    pub(super) chosen: BTreeSet<usize>,
    /// Ready, but behind a lock.
    pub(super) parked: HashMap<LockName, BTreeSet<usize>>,
    pub(super) held: HashMap<LockName, usize>,
    pub(super) pauses: BTreeSet<(Timestamp, usize)>,
    pub(super) to_open: [BTreeSet<usize>; 3],
    pub(super) to_skip: [BTreeMap<usize, usize>; 3],
    pub(super) skip_requests: BTreeMap<usize, SkipReason>,
    /// Who agreed to skips that are not recorded yet.
    pub(super) agreed_skips: BTreeMap<usize, Vec<Actor>>,
    /// What people want and too few have agreed to, by step; none: about the run.
    pub(super) proposals: BTreeMap<Option<usize>, Proposal>,
    /// The amendment that enough people agreed to, and who.
    pub(super) agreed_amendment: Option<(Departure, Vec<Actor>)>,
    /// Steps that start although they were passed over: all that they need is that it has ended.
    pub(super) forced: BTreeSet<usize>,
    /// What people allowed beyond the runbook.
    pub(super) extended: Extended,
    pub(super) running: BTreeSet<usize>,
    pub(super) waiting: BTreeSet<usize>,
    pub(super) expiries: BTreeSet<(Timestamp, usize)>,
    pub(super) doubts: BTreeSet<usize>,
    pub(super) asked: BTreeSet<usize>,
    /// What is left to undo; the last one is next.
    pub(super) undo_stack: Vec<usize>,
    /// What rollback leaves as it is: behind a point of no return, without undo.
    pub(super) barrier: Option<usize>,
    pub(super) remains: Vec<usize>,
    pub(super) passed_over: Vec<usize>,
    /// Steps whose undo failed and that a person left as they are.
    pub(super) left: Vec<usize>,
    /// Whether the run rests because rollback can go no further.
    pub(super) at_barrier: bool,
    /// Whether the milestones of the run stand.
    pub(super) established: bool,
    /// Whether what is undone now is done again afterwards.
    pub(super) redoing: bool,
    pub(super) completed: Vec<usize>,
    pub(super) deviations: Vec<Deviation>,
}

impl State {
    /// A run of `flow` to which nothing has happened.
    pub fn new(flow: Arc<Workflow>) -> Self {
        Self::with_mutant(flow, None)
    }

    /// The same under a deliberately wrong rule.
    #[doc(hidden)]
    pub fn with_mutant(flow: Arc<Workflow>, mutant: Option<Mutant>) -> Self {
        let steps = vec![Step::new(); flow.steps().len()];
        let mut state = Self {
            flow,
            mutant,
            steps,
            events: 0,
            strict: false,
            started_at: None,
            opened_at: None,
            finished: None,
            note: None,
            stage: Stage::Preflight,
            verdict: Verdict::None,
            why: None,
            timed_out: false,
            cancels: 0,
            rolled_back: false,
            open: [0; 3],
            failed: [0; 2],
            ready: Default::default(),
            chosen: BTreeSet::new(),
            parked: HashMap::new(),
            held: HashMap::new(),
            pauses: BTreeSet::new(),
            to_open: Default::default(),
            to_skip: Default::default(),
            skip_requests: BTreeMap::new(),
            agreed_skips: BTreeMap::new(),
            proposals: BTreeMap::new(),
            agreed_amendment: None,
            forced: BTreeSet::new(),
            extended: Extended::default(),
            running: BTreeSet::new(),
            waiting: BTreeSet::new(),
            expiries: BTreeSet::new(),
            doubts: BTreeSet::new(),
            asked: BTreeSet::new(),
            undo_stack: Vec::new(),
            barrier: None,
            remains: Vec::new(),
            passed_over: Vec::new(),
            left: Vec::new(),
            at_barrier: false,
            established: false,
            redoing: false,
            completed: Vec::new(),
            deviations: Vec::new(),
        };
        state.rebuild();
        state
    }

    /// The state of a run after `events`, each with the time of its record.
    pub fn fold<'a>(
        flow: Arc<Workflow>,
        events: impl IntoIterator<Item = (&'a Event, Timestamp)>,
    ) -> Result<Self, IllegalEvent> {
        let mut state = Self::new(flow);
        for (event, at) in events {
            state.apply(event, at)?;
        }
        Ok(state)
    }

    /// The state once `event` is true.
    pub fn after(&self, event: &Event, at: Timestamp) -> Result<Self, IllegalEvent> {
        let mut next = self.clone();
        next.apply(event, at)?;
        Ok(next)
    }

    pub(super) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub(super) fn rule(&self, number: usize) -> &StepRule {
        &self.flow.steps()[number]
    }

    pub(super) fn id(&self, number: usize) -> StepId {
        self.flow.steps()[number].id.clone()
    }

    /// The rules of the run.
    pub fn workflow(&self) -> &Arc<Workflow> {
        &self.flow
    }

    /// How the run ended or why it rests; `None` while it is open.
    pub fn outcome(&self) -> Option<Outcome> {
        self.finished.map(|(outcome, _)| outcome)
    }

    /// When it ended or came to rest.
    pub fn finished_at(&self) -> Option<Timestamp> {
        self.finished.map(|(_, at)| at)
    }

    /// When it started.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.started_at
    }

    /// The note of the latest end, or the reason of a rollback that is under way.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref().or(self.why.as_deref())
    }

    /// How the run would end if nothing else went wrong; for messages of `finally` steps.
    pub fn outcome_so_far(&self) -> Outcome {
        if self.rolled_back || self.stage == Stage::Rollback {
            Outcome::RolledBack
        } else if self.failed != [0, 0] || self.verdict != Verdict::None || self.timed_out {
            Outcome::Failed
        } else {
            Outcome::Succeeded
        }
    }

    /// Whether a cancel was asked for in this sitting.
    pub fn is_cancelling(&self) -> bool {
        self.cancels > 0
    }

    /// Whether the run is turning back.
    pub fn is_rolling_back(&self) -> bool {
        self.stage == Stage::Rollback
    }

    /// Whether the milestones of the run stand.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Loud overrides, in order.
    pub fn deviations(&self) -> &[Deviation] {
        &self.deviations
    }

    /// Steps that succeeded, in the order in which they did; a step that was undone and done again is named twice.
    pub fn completed(&self) -> impl Iterator<Item = &StepId> {
        self.completed.iter().map(|&number| &self.flow.steps()[number].id)
    }

    /// All steps in file order.
    pub fn steps(&self) -> impl Iterator<Item = StepView<'_>> {
        (0..self.steps.len()).map(|number| StepView::new(self, number))
    }

    /// One step.
    pub fn step(&self, id: &StepId) -> Option<StepView<'_>> {
        self.flow.number(id).map(|number| StepView::new(self, number))
    }
}

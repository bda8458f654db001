//! The rules of a run as the scheduler sees them: steps in file order, their needs and their limits.
//!
//! Owned here: the shapes, and the check that they hang together. Refused: duplicate ids, unknown needs, needs that
//! point backwards through the phases, cycles. The plan builds a [`Workflow`] once; nothing changes it afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::form::FieldRule;
use crate::event::{SignedFiles, WaitKind};
use crate::ids::{Actor, Level, LockName, Milestone, StepId};

/// How a needed step must have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeedOutcome {
    /// Succeeded, or passed over on purpose (`when`, or a person).
    Done,
    /// Succeeded, literally.
    Succeeded,
    /// Failed for good, after all retries.
    Failed,
    /// Passed over, for whatever reason.
    Skipped,
    /// Ended in any way.
    Any,
}

/// One edge of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The step that must have ended.
    pub step: StepId,
    /// How it must have ended.
    pub outcome: NeedOutcome,
}

/// What a step for people waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitRule {
    /// An approval or work done by hand.
    pub kind: WaitKind,
    /// How many different people must approve; at least 1.
    pub quorum: u32,
    /// People who may not answer.
    pub exclude: Vec<Actor>,
    /// People who may answer; `None` is anybody.
    pub allowed: Option<Vec<Actor>>,
    /// After how many milliseconds the wait is over without an answer.
    pub expires_ms: Option<i64>,
    /// How whoever answers must at least be identified.
    pub identity: Level,
    /// Who is asked as well when that time is over; without it, the step fails then.
    pub escalation: Option<Escalation>,
    /// After how many milliseconds people are told again that they are waited for.
    pub remind_ms: Option<i64>,
    /// Whether there is a way to tell people.
    pub tells: bool,
    /// Who is to do it; nobody else reports it done until it is handed over.
    pub assignee: Option<Actor>,
    /// What is filled in.
    pub form: Vec<FieldRule>,
    /// Whether evidence must come with it.
    pub wants_evidence: bool,
}

impl WaitRule {
    /// One answer by anybody, for as long as it takes.
    pub fn new(kind: WaitKind) -> Self {
        Self {
            kind,
            quorum: 1,
            exclude: Vec::new(),
            allowed: None,
            expires_ms: None,
            identity: Level::Claimed,
            escalation: None,
            remind_ms: None,
            tells: false,
            assignee: None,
            form: Vec::new(),
            wants_evidence: false,
        }
    }
}

/// Who is asked as well when nobody answered in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escalation {
    /// People who may answer from then on; `None` is anybody.
    pub allowed: Option<Vec<Actor>>,
    /// For how many milliseconds more; without it, for as long as it takes.
    pub expires_ms: Option<i64>,
}

/// Who must agree before something is done against the runbook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviationRule {
    /// How many different people must stand behind it, whoever wants it included; at least 1.
    pub quorum: u32,
    /// People who do not count.
    pub exclude: Vec<Actor>,
    /// People who count; `None` is anybody.
    pub allowed: Option<Vec<Actor>>,
    /// After how many milliseconds it is forgotten if too few agreed.
    pub expires_ms: Option<i64>,
    /// How whoever wants it or agrees must at least be identified.
    pub identity: Level,
}

impl DeviationRule {
    /// Whether the voice of this person counts.
    pub fn counts(&self, by: &Actor) -> bool {
        !self.exclude.contains(by) && self.allowed.as_ref().is_none_or(|people| people.contains(by))
    }
}

/// When a failed attempt is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Attempts in all, the first included; at least 1.
    pub attempts_max: u32,
    /// Pause before the second attempt, in milliseconds.
    pub initial_ms: i64,
    /// By how much each pause is longer than the one before.
    pub factor: f64,
    /// The longest pause, in milliseconds.
    pub max_ms: i64,
}

impl Retry {
    /// No second attempt.
    pub const NEVER: Self = Self { attempts_max: 1, initial_ms: 0, factor: 1.0, max_ms: 0 };

    /// The pause after the attempt number `tries` (from 1) of this budget, in milliseconds.
    pub fn pause_ms(&self, tries: u32) -> i64 {
        let mut pause = self.initial_ms.clamp(0, self.max_ms.max(0));
        for _ in 1..tries {
            let longer = longer_ms(pause, self.factor);
            if longer >= self.max_ms {
                return self.max_ms.max(0);
            }
            if longer <= pause {
                break;
            }
            pause = longer;
        }
        pause
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a pause in whole milliseconds; the cast saturates"
)]
fn longer_ms(pause: i64, factor: f64) -> i64 {
    (pause as f64 * factor) as i64
}

/// What may be done after an attempt whose result is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotent {
    /// Doing it twice is the same as doing it once.
    Yes,
    /// Only a person or a probe may say that it may run again.
    No,
    /// A second attempt takes up where the first one stopped.
    Resumable,
}

/// What the run does when a step failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Undoes what was done.
    Rollback,
    /// Starts nothing more.
    Stop,
    /// Goes on with what does not depend on it; the run ends failed.
    Continue,
}

/// In which part of the run a step belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Before the first change; read-only.
    Preflight,
    /// The work.
    Main,
    /// At each end of the run: succeeded, failed or rolled back.
    Finally,
}

impl Phase {
    pub(super) fn slot(self) -> usize {
        match self {
            Self::Preflight => 0,
            Self::Main => 1,
            Self::Finally => 2,
        }
    }
}

/// The rules of one step.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one line of the runbook language and independent of the others"
)]
pub struct StepRule {
    /// Its id.
    pub id: StepId,
    /// What must have ended before.
    pub needs: Vec<Need>,
    /// Whether an expression decides right before the start if the step runs at all.
    pub has_when: bool,
    /// Set for steps that people answer; such a step has no attempts.
    pub wait: Option<Box<WaitRule>>,
    /// When to try again.
    pub retry: Retry,
    /// For how many milliseconds an attempt may work; the driver sees to it.
    pub timeout_ms: Option<i64>,
    /// What may be done after an unknown result.
    pub idempotent: Idempotent,
    /// Whether the action can look up what an attempt in doubt did.
    pub has_probe: bool,
    /// Whether the step can be undone.
    pub has_undo: bool,
    /// Set when a person undoes it by hand.
    pub undo_wait: Option<Box<WaitRule>>,
    /// Whether the step only looks, so that there is nothing to undo.
    pub only_looks: bool,
    /// What its failure means.
    pub on_failure: OnFailure,
    /// Whether an operator may skip it, and its failure does not fail the run.
    pub optional: bool,
    /// Whether rollback may not go behind it once it started.
    pub point_of_no_return: bool,
    /// What only one attempt of the run may hold at a time.
    pub locks: Box<[LockName]>,
    /// Where it belongs.
    pub phase: Phase,
    /// Who must agree to deviations about it; `None`: one word of anybody is enough.
    pub deviations: Option<Arc<DeviationRule>>,
    /// Whether the runbook no longer has it: it never runs again and counts for nothing but the way back.
    pub retired: bool,
}

impl StepRule {
    /// A main step with no needs, one attempt, `idempotent: no` and `on_failure: stop`.
    pub fn new(id: impl Into<StepId>) -> Self {
        Self {
            id: id.into(),
            needs: Vec::new(),
            has_when: false,
            wait: None,
            retry: Retry::NEVER,
            timeout_ms: None,
            idempotent: Idempotent::No,
            has_probe: false,
            has_undo: false,
            undo_wait: None,
            only_looks: false,
            on_failure: OnFailure::Stop,
            optional: false,
            point_of_no_return: false,
            locks: Box::default(),
            phase: Phase::Main,
            deviations: None,
            retired: false,
        }
    }
}

/// Who must have signed what a run goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignRule {
    /// How many different people; at least 1.
    pub quorum: u32,
    /// Who counts; `None` is anybody whose key is known.
    pub allowed: Option<Vec<Actor>>,
}

impl SignRule {
    /// Whether enough people signed; if not, what is missing, in words.
    pub fn admits(&self, signed: Option<&SignedFiles>) -> Result<(), String> {
        let counts = |name: &&Actor| self.allowed.as_ref().is_none_or(|people| people.contains(name));
        let by: BTreeSet<&Actor> = signed.iter().flat_map(|files| &files.by).map(|signer| &signer.name).collect();
        let counted = by.iter().copied().filter(counts).count();
        if counted >= self.quorum.max(1) as usize {
            return Ok(());
        }
        let names = |people: &mut dyn Iterator<Item = &Actor>| {
            people.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let whom = self.allowed.as_ref().map(|people| format!(" of {}", names(&mut people.iter()))).unwrap_or_default();
        let has = if by.is_empty() { "none".to_owned() } else { names(&mut by.into_iter()) };
        Err(format!("{} signature(s){whom} are asked for, and there is {has}", self.quorum.max(1)))
    }
}

/// What holds for the run as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRule {
    /// How many attempts may run at once; 0 counts as 1.
    pub parallel_max: u32,
    /// Locks of the real world that the run holds from start to end.
    pub locks: Vec<LockName>,
    /// For how many milliseconds the run may work on its main part.
    pub timeout_ms: Option<i64>,
    /// What a timeout means.
    pub on_failure: OnFailure,
    /// What the run establishes when it succeeds.
    pub milestones: Vec<Milestone>,
    /// What it takes back when it succeeds.
    pub revokes: Vec<Milestone>,
    /// How somebody must at least be identified whose word counts.
    pub identity: Level,
    /// Who must have signed the runbook.
    pub signed: Option<SignRule>,
    /// Who must agree to deviations about the run as a whole; `None`: one word of anybody is enough.
    pub deviations: Option<Arc<DeviationRule>>,
    /// Budgets of windows in milliseconds, by name. Nothing here keeps to them; reports do.
    pub windows: BTreeMap<String, i64>,
}

impl Default for RunRule {
    fn default() -> Self {
        Self {
            parallel_max: 1,
            locks: Vec::new(),
            timeout_ms: None,
            on_failure: OnFailure::Stop,
            milestones: Vec::new(),
            revokes: Vec::new(),
            identity: Level::Claimed,
            signed: None,
            deviations: None,
            windows: BTreeMap::new(),
        }
    }
}

/// Why rules do not hang together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkflowError {
    /// Two steps have one id.
    #[error("step `{0}` is declared twice; rename one of them")]
    Duplicate(StepId),
    /// A need names nothing.
    #[error("step `{step}` needs `{need}`, which does not exist; declare it or drop the need")]
    UnknownNeed {
        /// The step with the need.
        step: StepId,
        /// The name that is no step.
        need: StepId,
    },
    /// A need points to a later phase.
    #[error("step `{step}` needs `{need}`, which belongs to a later phase; move one of them")]
    LaterPhase {
        /// The step with the need.
        step: StepId,
        /// The step of the later phase.
        need: StepId,
    },
    /// Steps need each other.
    #[error("step `{0}` needs itself, directly or through others; drop one of the needs")]
    Cycle(StepId),
}

/// The rules of a run, checked and indexed.
#[derive(Debug, PartialEq)]
pub struct Workflow {
    steps: Vec<StepRule>,
    run: RunRule,
    index: HashMap<StepId, usize>,
    /// Per step: the numbers of the steps it needs.
    needs: Vec<Vec<(usize, NeedOutcome)>>,
    /// Per step: who needs it.
    dependents: Vec<Vec<(usize, NeedOutcome)>>,
    /// Steps by names that they had before an amendment.
    aliases: BTreeMap<StepId, StepId>,
}

impl Workflow {
    /// Checks `steps` (in file order) and builds the indexes.
    pub fn new(steps: Vec<StepRule>, run: RunRule) -> Result<Self, WorkflowError> {
        Self::with_aliases(steps, run, BTreeMap::new())
    }

    /// The same, with names that steps had before. A step that has such a name now goes before.
    pub(super) fn with_aliases(
        steps: Vec<StepRule>,
        run: RunRule,
        aliases: BTreeMap<StepId, StepId>,
    ) -> Result<Self, WorkflowError> {
        let mut index = HashMap::with_capacity(steps.len());
        for (number, step) in steps.iter().enumerate() {
            if index.insert(step.id.clone(), number).is_some() {
                return Err(WorkflowError::Duplicate(step.id.clone()));
            }
        }
        let mut needs = vec![Vec::new(); steps.len()];
        let mut dependents = vec![Vec::new(); steps.len()];
        for (number, step) in steps.iter().enumerate() {
            for need in &step.needs {
                let unknown = || WorkflowError::UnknownNeed { step: step.id.clone(), need: need.step.clone() };
                let &on = index.get(&need.step).ok_or_else(unknown)?;
                if steps[on].phase > step.phase {
                    return Err(WorkflowError::LaterPhase { step: step.id.clone(), need: need.step.clone() });
                }
                needs[number].push((on, need.outcome));
                dependents[on].push((number, need.outcome));
            }
        }
        let flow = Self { steps, run, index, needs, dependents, aliases };
        match flow.cycle() {
            Some(number) => Err(WorkflowError::Cycle(flow.steps[number].id.clone())),
            None => Ok(flow),
        }
    }

    /// A step that cannot be reached from steps without needs.
    fn cycle(&self) -> Option<usize> {
        let mut unmet: Vec<usize> = self.needs.iter().map(Vec::len).collect();
        let mut free: Vec<usize> = (0..self.steps.len()).filter(|&n| unmet[n] == 0).collect();
        let mut seen = 0;
        while let Some(number) = free.pop() {
            seen += 1;
            for &(dependent, _) in &self.dependents[number] {
                unmet[dependent] -= 1;
                if unmet[dependent] == 0 {
                    free.push(dependent);
                }
            }
        }
        if seen == self.steps.len() { None } else { unmet.iter().position(|&n| n > 0) }
    }

    /// The steps in file order.
    pub fn steps(&self) -> &[StepRule] {
        &self.steps
    }

    /// The rules of the run as a whole.
    pub fn run(&self) -> &RunRule {
        &self.run
    }

    /// The rules of one step.
    pub fn rule(&self, step: &StepId) -> Option<&StepRule> {
        self.index.get(step).map(|&number| &self.steps[number])
    }

    pub(super) fn number(&self, step: &StepId) -> Option<usize> {
        let alias = || self.aliases.get(step).and_then(|step| self.index.get(step));
        self.index.get(step).or_else(alias).copied()
    }

    pub(super) fn aliases(&self) -> &BTreeMap<StepId, StepId> {
        &self.aliases
    }

    pub(super) fn needs(&self, number: usize) -> &[(usize, NeedOutcome)] {
        &self.needs[number]
    }

    pub(super) fn dependents(&self, number: usize) -> &[(usize, NeedOutcome)] {
        &self.dependents[number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needing(id: &str, needs: &[&str]) -> StepRule {
        let needs = needs.iter().map(|&n| Need { step: n.into(), outcome: NeedOutcome::Done }).collect();
        StepRule { needs, ..StepRule::new(id) }
    }

    #[test]
    fn rules_that_do_not_hang_together_are_refused() {
        let refused = |steps| Workflow::new(steps, RunRule::default()).expect_err("must be refused").to_string();
        assert_eq!(
            refused(vec![StepRule::new("a"), StepRule::new("a")]),
            "step `a` is declared twice; rename one of them"
        );
        assert_eq!(
            refused(vec![needing("a", &["x"])]),
            "step `a` needs `x`, which does not exist; declare it or drop the need"
        );
        assert!(refused(vec![needing("a", &["b"]), needing("b", &["a"])]).contains("needs itself"));
        let preflight = StepRule { phase: Phase::Preflight, ..needing("a", &["b"]) };
        assert!(refused(vec![preflight, StepRule::new("b")]).contains("later phase"));
    }

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let retry = Retry { attempts_max: 9, initial_ms: 100, factor: 2.0, max_ms: 350 };
        assert_eq!([1, 2, 3, 4].map(|tries| retry.pause_ms(tries)), [100, 200, 350, 350]);
        assert_eq!(Retry::NEVER.pause_ms(5), 0);
    }
}

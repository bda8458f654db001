//! Wrong rules on purpose: each breaks one promise of the scheduler, and the simulation must notice every one of them.
//!
//! Never set outside of tests. Asked by every file beside this one, at the place of the rule that it breaks.

/// Deliberately wrong rules, for tests that must notice them.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Retries attempts with unknown effect although the step is not idempotent.
    RetriesUnknown,
    /// Starts attempts in doubt again without asking.
    RerunsDoubt,
    /// Takes an attempt in doubt for one that failed without effect.
    DoubtIsFailure,
    /// Starts everything that is ready.
    IgnoresParallelMax,
    /// Lets two attempts hold one lock.
    IgnoresLocks,
    /// Undoes the oldest step first.
    UndoesOldestFirst,
    /// Rolls back behind a point of no return.
    PassesPointOfNoReturn,
    /// Takes a plain need as met by any end.
    AnyEndMeetsNeed,
    /// Counts each approval, whoever gave it.
    CountsRepeatedApprovals,
    /// Keeps the before-image of the last attempt.
    LaterBeforeImage,
    /// Does not wait for preflight.
    MainBeforePreflight,
    /// Forgets to undo failed steps whose effect is unknown.
    ForgetsUnknownEffects,
    /// Keeps what a run established although it was rolled back.
    RollbackKeepsMilestones,
    /// Does not run `finally` again at the end of a rollback that a person asked for.
    SkipsSecondFinally,
    /// Takes a step that a person left as it is for one that was undone.
    LeftIsUndone,
    /// Takes the answer of a person who is excluded.
    AnyoneAnswers,
    /// Takes a run for a success although a step failed.
    ForgetsFailures,
    /// Tries a failed step again whatever its budget.
    RetriesForEver,
    /// Runs a step that was changed and is done again without asking.
    RerunsChanged,
    /// Forgets steps that are done and no longer in the runbook.
    ForgetsRemoved,
    /// Does a step again without undoing it first.
    RedoesWithoutUndo,
    /// Keeps the before-image of a step that was changed since.
    KeepsOldImage,
    /// Goes by a runbook that too few people signed.
    TakesUnsigned,
    /// Goes on with another site, which may ask for no signatures, whoever signed it.
    TakesUnsignedSite,
    /// Does what one person wants against the runbook, however many must agree.
    ProposalIsEnough,
    /// Counts the voice of a person who is excluded, or not among those who count.
    AnyVoiceCounts,
    /// Starts a forced step beside what it needs.
    ForcesBesideNeeds,
    /// Takes an amendment to which too few have agreed.
    AmendsAlone,
    /// Takes answers of those who are to be asked later.
    EscalatesAtOnce,
    /// Takes answers when the time for them is over.
    TakesLateAnswers,
    /// Takes a step for undone as soon as a person is asked to undo it.
    AskingUndoes,
    /// Takes an answer to what is somebody else's to do.
    AnswersForOthers,
    /// Takes a form however it is filled in.
    TakesAnyForm,
}

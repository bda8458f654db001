//! A test file as an author writes it: cases with what mocked steps do and what must come of it.
//!
//! Only the language; `trial` lives through the cases.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::decode::{Decode, Decoder, Named, Schemas, Spanned, describe};
use super::problem::{Problems, Source};
use super::runbook::{ApiVersion, refuse_kind};
use super::values::Millis;
use super::yaml;
use crate::event::{Effect, Outcome};
use crate::{choice, record};

choice! {
    /// What the file is.
    pub enum TestKind("kind of file here") {
        /// A test of a runbook.
        Test = "Test",
    }
}

choice! {
    /// Whether a failure may have changed the world.
    pub enum EffectWord("effect") {
        /// Nothing was changed, for certain.
        None = "none",
        /// Something may have been changed.
        Unknown = "unknown",
    }
}

choice! {
    /// A moment around the work of a step.
    pub enum MomentWord("moment") {
        /// The start is recorded, nothing was done.
        Before = "before",
        /// It was done, the end is not recorded.
        After = "after",
    }
}

choice! {
    /// What people say when a step asks them.
    pub enum AnswerWord("answer") {
        /// As many as are needed approve; work by hand is reported done.
        Approve = "approve",
        /// The first one refuses.
        Reject = "reject",
        /// Nobody says anything.
        Nothing = "nothing",
    }
}

choice! {
    /// How a run ends or why it rests.
    pub enum OutcomeWord("outcome") {
        /// Every step that had to succeed did.
        Succeeded = "succeeded",
        /// A step failed and nothing was rolled back.
        Failed = "failed",
        /// A step failed and what could be undone was.
        RolledBack = "rolled_back",
        /// A person must decide.
        Stuck = "stuck",
        /// It was cancelled.
        Cancelled = "cancelled",
        /// It waits for people.
        Waiting = "waiting",
    }
}

impl OutcomeWord {
    /// The outcome that is meant.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Succeeded => Outcome::Succeeded,
            Self::Failed => Outcome::Failed,
            Self::RolledBack => Outcome::RolledBack,
            Self::Stuck => Outcome::Stuck,
            Self::Cancelled => Outcome::Cancelled,
            Self::Waiting => Outcome::Waiting,
        }
    }
}

choice! {
    /// Where a step stands in the end.
    pub enum StateWord("step state") {
        /// It never came to it.
        Pending = "pending",
        /// It may start.
        Ready = "ready",
        /// Done.
        Succeeded = "succeeded",
        /// Failed for good.
        Failed = "failed",
        /// Passed over.
        Skipped = "skipped",
        /// Nobody knows what it did.
        InDoubt = "in_doubt",
        /// Its undo failed.
        Undoing = "undoing",
        /// Undone.
        Undone = "undone",
        /// Waits for people.
        Waiting = "waiting",
    }
}

record! {
    /// How a mocked step fails.
    pub struct Fails("failure") {
        /// What it says about the world; with `unknown` it has done its work all the same.
        effect: EffectWord = EffectWord::None,
        /// How many attempts fail; all of them when left out.
        times: Option<u32>,
        /// What it says.
        error: String = "the test says so".to_owned(),
        /// Whether it says that trying again may help.
        retryable: bool = true,
    }
}

impl Fails {
    /// The effect that is meant.
    pub fn effect(&self) -> Effect {
        match self.effect {
            EffectWord::None => Effect::None,
            EffectWord::Unknown => Effect::Unknown,
        }
    }
}

record! {
    /// What a step does instead of acting.
    pub struct Mock("mocked step") {
        /// Its outputs; what is left out is made up so that it fits.
        outputs: BTreeMap<String, Json>,
        /// How it fails.
        fail: Option<Fails>,
        /// The driver dies around its first attempt and the run is resumed.
        crash: Option<MomentWord>,
        /// How long an attempt takes; more than its timeout makes it fail.
        takes: Option<Millis>,
        /// What people say.
        answer: AnswerWord = AnswerWord::Approve,
        /// What a person fills in.
        form: BTreeMap<String, Json>,
    }
}

impl Mock {
    /// A step that succeeds and answers what is made up.
    pub fn plain() -> Self {
        Self {
            outputs: BTreeMap::new(),
            fail: None,
            crash: None,
            takes: None,
            answer: AnswerWord::Approve,
            form: BTreeMap::new(),
        }
    }

    /// A question to which people say no.
    pub fn rejecting() -> Self {
        Self { answer: AnswerWord::Reject, ..Self::plain() }
    }
}

record! {
    /// What must come of a case.
    pub struct Expect("expectation") {
        /// How the run ends.
        outcome: Spanned<OutcomeWord>,
        /// Where steps stand in the end.
        steps: Named<Spanned<StateWord>>,
        /// Exactly these are undone, in this order.
        undone: Option<Spanned<Vec<String>>>,
    }
}

record! {
    /// One case.
    pub struct Case("case") {
        /// Its name.
        name: Spanned<String>,
        /// Parameters, over those of the command line.
        params: BTreeMap<String, Json>,
        /// What steps do; those that are not named succeed.
        mocks: Named<Mock>,
        /// What must come of it.
        expect: Expect,
    }
}

record! {
    /// A test of a runbook on mocked actions.
    pub struct TestFile("test") {
        /// Version of the language: `piton/v1`.
        api_version as "apiVersion": ApiVersion,
        /// `Test`.
        kind: TestKind,
        /// The cases.
        cases: Vec<Case>,
    }
}

/// Reads a test file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(source: &Arc<Source>) -> Result<TestFile, Problems> {
    let (node, duplicates) = yaml::parse_with_duplicates(source)?;
    refuse_kind(&node, "Runbook", "this is a runbook, not a test", "give the test file behind the runbook", source)?;
    let mut d = Decoder::new(Arc::clone(source));
    d.problems = duplicates;
    let file = TestFile::decode(&node, &mut d);
    d.finish(file)
}

/// The JSON Schema of test files.
pub fn json_schema() -> Json {
    let mut schemas = Schemas::default();
    TestFile::schema(&mut schemas);
    let root = schemas.defs.remove("TestFile").unwrap_or_default();
    let root = describe(root, "A test of a Piton runbook.", None);
    schemas.document("Piton test", &root)
}

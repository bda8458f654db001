//! A whole runbook as an author writes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::actions::{ActionKind, ActionSpec, checks_list, take_action};
use super::decode::{Decode, Decoder, MapReader, Named, Schemas, Spanned, describe};
use super::deviations::Deviations;
use super::mend;
use super::problem::{Problem, Problems, Source, Span};
use super::rules::{known, more_than_zero};
use super::values::Millis;
use super::yaml::{self, Node, Value};
use crate::ids::StepId;
use crate::{choice, record};

choice! {
    /// Version of the language.
    pub enum ApiVersion("version of the language") {
        /// The first.
        V1 = "piton/v1",
    }
}

choice! {
    /// What the file is.
    pub enum RunbookKind("kind of file here") {
        /// A runbook.
        Runbook = "Runbook",
    }
}

choice! {
    /// Type of a parameter.
    pub enum ParamType("parameter type") {
        /// Text.
        String = "string",
        /// A whole number.
        Integer = "integer",
        /// A number.
        Number = "number",
        /// True or false.
        Boolean = "boolean",
        /// A length of time.
        Duration = "duration",
        /// One of `values`.
        Enum = "enum",
        /// A list.
        List = "list",
        /// A reference to a secret: `env:NAME`, `file:PATH` or `command:PROGRAM ARGUMENT`.
        Secret = "secret",
    }
}

record! {
    /// A parameter that a run is started with.
    pub struct Param("a parameter") {
        /// Its type.
        r#type as "type": ParamType = ParamType::String,
        /// Its value when none is given; without it the parameter is required.
        default: Option<Spanned<Json>>,
        /// Smallest number.
        minimum: Option<f64>,
        /// Largest number.
        maximum: Option<f64>,
        /// Regular expression that the whole text must match.
        pattern: Option<Spanned<String>>,
        /// The allowed words of an `enum`.
        values: Vec<String>,
        /// What it is for.
        description: Option<String>,
    }
}

record! {
    /// What a site must provide.
    pub struct Requires("`requires`") {
        /// Databases by name.
        databases: Vec<Spanned<String>>,
        /// Services by name or pattern.
        services: Vec<Spanned<String>>,
        /// Option stores by name.
        options: Vec<Spanned<String>>,
        /// Facts that other runbooks must have established on this site.
        milestones: Vec<Spanned<String>>,
    }
}

record! {
    /// Bounds of a run.
    #[check(check_limits)]
    pub struct Limits("`limits`") {
        /// Most attempts that run at the same time.
        parallel: u32 = 4,
        /// Longest time for the whole run.
        timeout: Option<Millis>,
    }
}

fn check_limits(node: &Node, d: &mut Decoder) {
    more_than_zero("parallel", node, d);
    more_than_zero("timeout", node, d);
}

record! {
    /// Pauses between attempts: initial, initial x factor, ... up to max.
    #[check(check_backoff)]
    pub struct Backoff("`backoff`") {
        /// First pause.
        initial: Millis = Millis(1_000),
        /// What each pause is multiplied with.
        factor: f64 = 2.0,
        /// Longest pause.
        max: Millis = Millis(60_000),
    }
}

fn check_backoff(node: &Node, d: &mut Decoder) {
    if known::<f64>(node, "factor", d).is_some_and(|factor| factor < 1.0) {
        let place = node.get("factor").map_or(node.span, |factor| factor.span);
        let problem = Problem::new("spec::out_of_range", "`factor` must be 1 or more", place).label("too small");
        d.problem(problem.help("with 1 every pause is as long as the first"));
    }
}

record! {
    /// How often a failed step is tried.
    pub struct Retry("`retry`") {
        /// Most attempts in all.
        attempts: u32,
        /// Pauses between them.
        backoff: Backoff = Backoff { initial: Millis(1_000), factor: 2.0, max: Millis(60_000) },
    }
}

record! {
    /// What steps do unless they say otherwise.
    pub struct Defaults("`defaults`") {
        /// Longest time of one attempt.
        timeout: Option<Millis>,
        /// How often a failed step is tried.
        retry: Option<Retry>,
    }
}

record! {
    /// Time between two steps that is forecast, measured and reported.
    pub struct Window("a window") {
        /// Its name.
        name: String,
        /// The step whose start opens it.
        opens: Spanned<String>,
        /// The step whose success closes it.
        closes: Spanned<String>,
        /// How long it may be.
        budget: Option<Millis>,
    }
}

choice! {
    /// What happens after a final failure.
    pub enum OnFailure("failure rule") {
        /// What was done is undone, last first.
        Rollback = "rollback",
        /// Nothing new starts.
        Stop = "stop",
        /// What does not depend on it goes on.
        Continue = "continue",
    }
}

choice! {
    /// How a needed step must have ended.
    pub enum NeedOutcome("outcome") {
        /// It succeeded.
        Succeeded = "succeeded",
        /// It failed for good.
        Failed = "failed",
        /// It was skipped.
        Skipped = "skipped",
        /// It ended somehow.
        Any = "any",
    }
}

record! {
    /// A step that must have ended in a certain way.
    pub struct NeedWithOutcome("a need") {
        /// Which step.
        step: Spanned<String>,
        /// How it must have ended.
        outcome: NeedOutcome,
    }
}

/// A step that must come first.
#[derive(Debug, Clone, PartialEq)]
pub struct Need {
    /// Which step.
    pub step: Spanned<String>,
    /// How it must have ended; nothing: succeeded or deliberately skipped.
    pub outcome: Option<NeedOutcome>,
}

impl Decode for Need {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        if node.text().is_some() {
            return Spanned::decode(node, d).map(|step| Self { step, outcome: None });
        }
        NeedWithOutcome::decode(node, d).map(|need| Self { step: need.step, outcome: Some(need.outcome) })
    }

    fn schema(schemas: &mut Schemas) -> Json {
        json!({ "anyOf": [{ "type": "string" }, NeedWithOutcome::schema(schemas)] })
    }
}

choice! {
    /// What a crash in the middle of a step means.
    pub enum Idempotent("idempotency") {
        /// It may run again.
        Yes = "yes",
        /// It never runs again without a person's word.
        No = "no",
        /// It goes on where it was.
        Resumable = "resumable",
    }
}

record! {
    /// Marks a step that an operator may skip.
    pub struct Optional("`optional`") {
        /// What skipping it means.
        consequence: String,
    }
}

choice! {
    /// When a step runs.
    pub enum Phase("phase") {
        /// Before everything else; only looks.
        Preflight = "preflight",
        /// In its place.
        Main = "main",
    }
}

record! {
    /// Runs a step once for every item of a list.
    pub struct Foreach("`foreach`") {
        /// A list, or an expression that yields one from `params` and `site`.
        items: Spanned<Json>,
        /// Expression over `item` that names it; the item itself when left out.
        key: Option<Spanned<String>>,
    }
}

/// The inverse of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Undo {
    /// The action knows its inverse.
    Auto(Span),
    /// Another action.
    Action(ActionSpec),
}

impl Decode for Undo {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        if let Some(word) = node.text() {
            if word == "auto" {
                return Some(Self::Auto(node.span));
            }
            let problem = Problem::new("spec::bad_undo", format!("`{word}` is no undo"), node.span);
            d.problem(problem.label("here").help("write `auto`, or an action like `{ exec: { argv: [...] } }`"));
            return None;
        }
        one_action(node, "`undo`", false, d).map(Self::Action)
    }

    fn schema(schemas: &mut Schemas) -> Json {
        json!({ "anyOf": [{ "const": "auto" }, action_schema(schemas)] })
    }
}

/// A postcondition: an action that only looks.
#[derive(Debug, Clone, PartialEq)]
pub struct Verify(pub ActionSpec);

impl Decode for Verify {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        let action = one_action(node, "`verify`", true, d)?;
        if !action.is_check() {
            let message = format!("`{}` changes things and cannot verify", action.kind.key());
            d.problem(Problem::new("spec::not_a_check", message, action.key).label("not a check").help(checks_list()));
        }
        Some(Self(action))
    }

    fn schema(schemas: &mut Schemas) -> Json {
        action_schema(schemas)
    }
}

fn one_action(node: &Node, what: &'static str, only_looks: bool, d: &mut Decoder) -> Option<ActionSpec> {
    let reader = MapReader::new(node, what, d)?;
    let action = take_action(&reader, what, node, only_looks, d);
    reader.finish(ActionKind::KEYS, d);
    action
}

fn action_schema(schemas: &mut Schemas) -> Json {
    schemas.named("Action", |schemas| {
        let properties: serde_json::Map<_, _> =
            ActionKind::ALL.iter().map(|kind| (kind.key().to_owned(), kind.schema(schemas))).collect();
        json!({ "type": "object", "properties": properties, "additionalProperties": false, "minProperties": 1, "maxProperties": 1 })
    })
}

record! {
    /// What every step may say beside its action.
    pub struct StepFields("a step") {
        /// Its name in the graph.
        id: Spanned<StepId>,
        /// What it is called in reports.
        name: Option<String>,
        /// What it does and why.
        description: Option<String>,
        /// Steps that come first.
        needs: Vec<Need>,
        /// Expression; the step is skipped when it is false.
        when: Option<Spanned<String>>,
        /// Postcondition: the step has not succeeded until it holds.
        verify: Option<Verify>,
        /// Its inverse.
        undo: Option<Undo>,
        /// How often it is tried.
        retry: Option<Spanned<Retry>>,
        /// Longest time of one attempt.
        timeout: Option<Millis>,
        /// What a crash in the middle means.
        idempotent: Option<Spanned<IdempotentWord>>,
        /// What happens after its final failure.
        on_failure: Option<OnFailure>,
        /// Marks it as one that an operator may skip.
        optional: Option<Optional>,
        /// Who must agree to deviations about it, instead of what the runbook says.
        deviations: Option<Deviations>,
        /// Text that says why there is no way back behind it.
        point_of_no_return: Option<String>,
        /// Named things that only one step may hold at a time.
        locks: Vec<Spanned<String>>,
        /// When it runs.
        phase: Phase = Phase::Main,
        /// Runs it once for every item.
        foreach: Option<Spanned<Foreach>>,
        /// Expressions over the action's `outputs` that name further outputs.
        outputs: BTreeMap<String, Spanned<String>>,
        /// Further files that it uses, by path or pattern (`scripts/*.py`), relative to the runbook: compared with what they were when the plan was made.
        uses: Vec<Spanned<String>>,
    }
}

/// `yes`, `no` or `resumable`, where `true` and `false` count as the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotentWord(pub Idempotent);

impl Decode for IdempotentWord {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        match node.value {
            Value::Bool(true) => Some(Self(Idempotent::Yes)),
            Value::Bool(false) => Some(Self(Idempotent::No)),
            Value::Null | Value::Int(_) | Value::Float(..) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                Idempotent::decode(node, d).map(Self)
            }
        }
    }

    fn schema(_: &mut Schemas) -> Json {
        json!({ "enum": ["yes", "no", "resumable", true, false] })
    }
}

/// A step: its fields and its action.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Everything but the action.
    pub fields: StepFields,
    /// The action.
    pub action: ActionSpec,
    /// Where the step stands.
    pub span: Span,
}

impl Step {
    /// Its id.
    pub fn id(&self) -> &StepId {
        &self.fields.id.value
    }
}

impl Decode for Step {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        let mut reader = MapReader::new(node, "a step", d)?;
        let fields = StepFields::read_fields(&mut reader, d);
        let what = fields.as_ref().map_or_else(|| "step".to_owned(), |f| format!("step `{}`", f.id.value));
        let action = take_action(&reader, &what, node, false, d);
        reader.finish(ActionKind::KEYS, d);
        Some(Self { fields: fields?, action: action?, span: node.span })
    }

    fn schema(schemas: &mut Schemas) -> Json {
        schemas.named("Step", |schemas| {
            let (mut properties, required) = StepFields::field_schemas(schemas);
            for kind in ActionKind::ALL {
                properties.insert(kind.key().into(), kind.schema(schemas));
            }
            let one_of: Vec<Json> = ActionKind::KEYS.iter().map(|key| json!({ "required": [key] })).collect();
            json!({ "type": "object", "properties": properties, "required": required,
                    "oneOf": one_of, "additionalProperties": false,
                    "description": "A step: exactly one action and what belongs to it." })
        })
    }
}

record! {
    /// A runbook: a procedure as a graph of steps.
    pub struct Runbook("the runbook") {
        /// Version of the language: `piton/v1`.
        api_version as "apiVersion": ApiVersion,
        /// `Runbook`.
        kind: RunbookKind,
        /// Its name.
        name: Spanned<String>,
        /// Its version.
        version: String = "0.0.0".to_owned(),
        /// What it does.
        description: Option<String>,
        /// Who wrote it, by login: `runbook.author` where an approval excludes people.
        authors: Vec<String>,
        /// What a run is started with.
        params: Named<Param>,
        /// What a site must provide.
        requires: Requires = Requires { databases: Vec::new(), services: Vec::new(), options: Vec::new(), milestones: Vec::new() },
        /// Named things of the real world that only one run may hold.
        locks: Vec<Spanned<String>>,
        /// Bounds of a run.
        limits: Limits = Limits { parallel: 4, timeout: None },
        /// Who must agree before something is done against the runbook; one word of anybody is enough when left out.
        deviations: Option<Deviations>,
        /// What steps do unless they say otherwise.
        defaults: Defaults = Defaults { timeout: None, retry: None },
        /// Measured times between two steps.
        windows: Vec<Window>,
        /// The steps.
        steps: Vec<Step>,
        /// What happens after a final failure.
        on_failure: OnFailure = OnFailure::Stop,
        /// Steps that run at the end, whatever happened.
        finally: Vec<Step>,
        /// Facts about the site that a successful run establishes.
        achieves: Vec<Spanned<String>>,
        /// Facts about the site that a successful run takes back.
        revokes: Vec<Spanned<String>>,
    }
}

/// What could be read of a runbook, and everything that is wrong so far.
#[derive(Debug)]
pub struct Loaded {
    /// The runbook, if enough of it could be read.
    pub runbook: Option<Runbook>,
    /// The text.
    pub source: Arc<Source>,
    /// The data of the whole file.
    pub tree: Node,
    /// What is wrong so far.
    pub problems: Vec<Problem>,
    /// All steps that could be seen, also those that could not be read.
    pub seen: Vec<SeenStep>,
}

/// What can be seen of a step whatever else is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenStep {
    /// Its id; empty when there is none.
    pub id: String,
    /// The steps it needs, and where each is named.
    pub needs: Vec<(String, Span)>,
}

/// Reads a runbook.
///
/// # Errors
/// When the text is no YAML at all. Everything else is in `problems`.
pub fn read(source: &Arc<Source>) -> Result<Loaded, Problems> {
    let (node, duplicates) = yaml::parse_with_duplicates(source)?;
    refuse_kind(
        &node,
        "Site",
        "this is a site, not a runbook",
        "give it with `--site`; a runbook begins with `kind: Runbook`",
        source,
    )?;
    let mut d = Decoder::new(Arc::clone(source));
    d.problems = duplicates;
    let whole = Runbook::decode(&node, &mut d);
    if whole.is_none() && d.problems.is_empty() {
        // A part that cannot be read must never look like a part that is not there.
        let problem = Problem::new("spec::unreadable", "a part of this runbook cannot be read", node.span);
        d.problem(problem.label("somewhere in here").help("compare the file with the reference of runbooks"));
    }
    let runbook = whole.or_else(|| mend::runbook(&node, source));
    let seen = ["steps", "finally"].into_iter().filter_map(|key| node.get(key)).flat_map(seen_steps).collect();
    Ok(Loaded { runbook, source: Arc::clone(source), tree: node, problems: d.problems, seen })
}

/// Stops at a file of the other kind: every key of it would be wrong.
///
/// # Errors
/// When the file says that it is of the kind `other`.
pub fn refuse_kind(node: &Node, other: &str, message: &str, help: &str, source: &Arc<Source>) -> Result<(), Problems> {
    match node.get("kind") {
        Some(kind) if kind.text() == Some(other) => {
            let problem = Problem::new("spec::wrong_kind", message, kind.span).label("here").help(help);
            Err(Problems::new(Arc::clone(source), vec![problem]))
        }
        _ => Ok(()),
    }
}

fn seen_steps(list: &Node) -> Vec<SeenStep> {
    match &list.value {
        Value::List(items) => items.iter().map(seen_step).collect(),
        // Something is there, whatever it is: the runbook is not without steps.
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) | Value::Text(_) | Value::Map(_) => {
            vec![seen_step(list)]
        }
    }
}

fn seen_step(step: &Node) -> SeenStep {
    let name = |node: &Node| {
        let named = if node.text().is_some() { node } else { node.get("step")? };
        named.text().map(|text| (text.to_owned(), named.span))
    };
    let needs = match step.get("needs").map(|needs| (&needs.value, needs)) {
        Some((Value::List(items), _)) => items.iter().filter_map(name).collect(),
        Some((_, needs)) => name(needs).into_iter().collect(),
        None => Vec::new(),
    };
    SeenStep { id: step.get("id").and_then(Node::text).unwrap_or_default().to_owned(), needs }
}

/// The JSON Schema of runbooks.
pub fn json_schema() -> Json {
    let mut schemas = Schemas::default();
    Runbook::schema(&mut schemas);
    let root = schemas.defs.remove("Runbook").unwrap_or_default();
    let root = describe(root, "A Piton runbook.", None);
    schemas.document("Piton runbook", &root)
}

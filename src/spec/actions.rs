//! The arguments of every action, as an author writes them. Behaviour lives in `action`; this is only the language.
//!
//! Inside arguments a template may stand for a value of any type, but not for all of them; the arguments are read once when the runbook is loaded (to report
//! mistakes) and once more, rendered, right before the action runs.

mod data;
mod people;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::decode::{Decode, Decoder, MapReader, Schemas, Templates, describe, is_plain};
use super::problem::Problem;
use super::rules::{Choice, exactly_one, known, whole_seconds};
use super::values::{Millis, SecretText};
use super::yaml::{Node, Value};
use crate::{choice, record};
pub use data::{
    BuildIndexes, CompareMode, DbAssert, DbBackup, DbCompare, DbCopy, DbGaps, DbMigrate, DbPreflight, DbRestore,
    DbSessions, DbSql, DbWatermark, Expect, ExpectRows, MergePolicy, PauseWhile, SessionState, Throttle, TimeRange,
};
pub use people::{Approval, Escalate, Evidence, FieldType, FormField, Hook, Manual, RULES, Require};

record! {
    /// How an output is taken from what a command printed.
    #[check(check_output_rule)]
    pub struct OutputRule("an output") {
        /// JSON pointer into standard output read as JSON.
        json: Option<String>,
        /// Regular expression on standard output; the first group, or the whole match.
        regex: Option<String>,
        /// The whole of standard output, trimmed.
        stdout: bool = false,
    }
}

fn check_output_rule(node: &Node, d: &mut Decoder) {
    let choices = [Choice::Value("json"), Choice::Value("regex"), Choice::Flag("stdout")];
    exactly_one("spec::one_of", "an output", &choices, "`{ json: /version }`", node, d);
    if let Some(Err(error)) = known::<String>(node, "regex", d).as_deref().map(regex::Regex::new) {
        let reason = error.to_string().lines().last().unwrap_or("").trim().to_owned();
        let place = node.get("regex").map_or(node.span, |regex| regex.span);
        let reason = reason.trim_start_matches("error: ");
        let problem = Problem::new("spec::bad_regex", format!("this is no regular expression: {reason}"), place);
        d.problem(problem.label("here").help("mend the expression; in double quotes, write a backslash twice"));
    }
}

record! {
    /// What a command may answer.
    pub struct ExpectCodes("`expect`") {
        /// Exit codes that mean success.
        codes: Vec<i32> = vec![0],
    }
}

record! {
    /// Runs a command.
    #[check(check_exec)]
    pub struct Exec("`exec`") {
        /// The command and its arguments, each an element; nothing is interpreted by a shell.
        argv: Vec<String>,
        /// A text for `sh -c`; only when a shell is wanted.
        shell: Option<String>,
        /// Environment variables, added to PATH, HOME, LANG, TZ, USER and TMPDIR.
        env: BTreeMap<String, SecretText>,
        /// Folder to run in, relative to the runbook.
        cwd: Option<String>,
        /// Text for standard input.
        stdin: Option<SecretText>,
        /// What counts as success.
        expect: ExpectCodes = ExpectCodes { codes: vec![0] },
        /// Named outputs.
        outputs: BTreeMap<String, OutputRule>,
    }
}

fn check_exec(node: &Node, d: &mut Decoder) {
    let example = "`argv: [program, argument]`; `shell` only when a shell is wanted";
    exactly_one("spec::one_of", "`exec`", &[Choice::List("argv"), Choice::Value("shell")], example, node, d);
}

choice! {
    /// Whether a service runs.
    pub enum RunState("service state") {
        /// It runs.
        Running = "running",
        /// It does not.
        Stopped = "stopped",
    }
}

record! {
    /// Picks services of the site and acts on them in dependency order.
    #[check(check_service)]
    pub struct Services("a service action") {
        /// One service.
        service: Option<String>,
        /// Several, by name or pattern (`wfm65-*`).
        services: Vec<String>,
        /// All of a group.
        group: Option<String>,
        /// All but these, by name or pattern.
        except: Vec<String>,
        /// After a stop: keeps them down; a start is refused until the hold is released.
        hold: bool = false,
        /// Before a start: releases a hold.
        release_hold: bool = false,
        /// For `service.check`: what must be true.
        state: RunState = RunState::Running,
    }
}

fn check_service(node: &Node, d: &mut Decoder) {
    let choices = [Choice::Value("service"), Choice::List("services"), Choice::Value("group")];
    let example = "`{ group: wfm65, except: [wfm65-data-aggregator] }`";
    exactly_one("spec::one_of", "a service action", &choices, example, node, d);
}

record! {
    /// Sets an option of an option store.
    pub struct OptionSet("`option.set`") {
        /// Option store of the site.
        store: String,
        /// Application object; empty for stores without objects.
        object: String = String::new(),
        /// Section.
        section: String,
        /// Name of the option.
        name: String,
        /// The new value.
        value: String,
    }
}

record! {
    /// Removes an option; absent is not the same as empty.
    pub struct OptionUnset("`option.unset`") {
        /// Option store of the site.
        store: String,
        /// Application object; empty for stores without objects.
        object: String = String::new(),
        /// Section.
        section: String,
        /// Name of the option.
        name: String,
    }
}

record! {
    /// Fails unless an option has a value, or is absent.
    #[check(check_option)]
    pub struct OptionCheck("`option.check`") {
        /// Option store of the site.
        store: String,
        /// Application object; empty for stores without objects.
        object: String = String::new(),
        /// Section.
        section: String,
        /// Name of the option.
        name: String,
        /// The value it must have.
        value: Option<String>,
        /// True when it must not exist.
        absent: bool = false,
    }
}

fn check_option(node: &Node, d: &mut Decoder) {
    let choices = [Choice::Value("value"), Choice::Flag("absent")];
    exactly_one("spec::one_of", "`option.check`", &choices, "`value: \"1\"`, or `absent: true`", node, d);
}

record! {
    /// Waits a length of time.
    pub struct WaitFor("`wait.for`") {
        /// How long.
        duration: Millis,
    }
}

record! {
    /// Waits for the next boundary of a clock grid.
    #[check(check_boundary)]
    pub struct WaitBoundary("`wait.boundary`") {
        /// Width of the grid.
        every: Millis,
        /// The boundary comes after this second (since the epoch), not after now.
        after: Option<i64>,
    }
}

fn check_boundary(node: &Node, d: &mut Decoder) {
    whole_seconds("every", node, d);
}

record! {
    /// Waits for a time.
    pub struct WaitAt("`wait.at`") {
        /// RFC 3339 time, for instance `2026-11-22T02:00:00Z`.
        time: String,
    }
}

/// Repeats a read-only check until it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitUntil {
    /// Pause between two looks.
    pub every: Millis,
    /// Longest wait.
    pub timeout: Option<Millis>,
    /// What must hold.
    pub check: Box<ActionSpec>,
}

impl Decode for WaitUntil {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        let mut reader = MapReader::new(node, "`wait.until`", d)?;
        let every = reader.field("every", Some(Millis(1_000)), d);
        let timeout = reader.field("timeout", None, d);
        let check = take_action(&reader, "`wait.until`", node, true, d);
        reader.finish(ActionKind::KEYS, d);
        let check = check?;
        if !check.is_check() {
            let problem = Problem::new(
                "spec::not_a_check",
                format!("`{}` changes things and cannot be waited on", check.kind.key()),
                check.key,
            );
            d.problem(problem.label("not a check").help(checks_list()));
        }
        Some(Self { every: every?, timeout: timeout?, check: Box::new(check) })
    }

    fn schema(schemas: &mut Schemas) -> Json {
        schemas.named("WaitUntil", |schemas| {
            let mut properties = serde_json::Map::new();
            let every = describe(Millis::schema(schemas), "Pause between two looks.", Millis(1_000).written());
            properties.insert("every".into(), every);
            properties.insert("timeout".into(), describe(Millis::schema(schemas), "Longest wait.", None));
            let mut one_of = Vec::new();
            for kind in ActionKind::ALL.iter().filter(|kind| kind.is_check()) {
                properties.insert(kind.key().into(), kind.schema(schemas));
                one_of.push(serde_json::json!({ "required": [kind.key()] }));
            }
            serde_json::json!({ "type": "object", "properties": properties, "additionalProperties": false,
                "oneOf": one_of, "description": "Repeats a read-only check until it holds." })
        })
    }
}

record! {
    /// Writes a file, whole or not at all.
    pub struct FileWrite("`file.write`") {
        /// Path, relative to the runbook.
        path: String,
        /// Its content.
        content: SecretText,
        /// Permissions in octal, for instance `"0644"`.
        mode: Option<String>,
    }
}

record! {
    /// Where an output of a response comes from.
    #[check(check_response_rule)]
    pub struct ResponseRule("an output") {
        /// JSON pointer into the body.
        json: Option<String>,
        /// A header.
        header: Option<String>,
        /// The status code.
        status: bool = false,
        /// The whole body as text.
        body: bool = false,
    }
}

fn check_response_rule(node: &Node, d: &mut Decoder) {
    let choices = [Choice::Value("json"), Choice::Value("header"), Choice::Flag("status"), Choice::Flag("body")];
    exactly_one("spec::one_of", "an output", &choices, "`{ json: /id }`", node, d);
}

record! {
    /// What a server may answer.
    pub struct ExpectStatus("`expect`") {
        /// Status codes that mean success; any 2xx when empty.
        status: Vec<u16>,
    }
}

record! {
    /// Sends an HTTP request.
    pub struct HttpRequest("`http.request`") {
        /// Method.
        method: String = "GET".to_owned(),
        /// Address.
        url: SecretText,
        /// Headers.
        headers: BTreeMap<String, SecretText>,
        /// Body as text.
        body: Option<SecretText>,
        /// Body as JSON.
        json: Option<Json>,
        /// What counts as success.
        expect: ExpectStatus = ExpectStatus { status: Vec::new() },
        /// Named outputs.
        outputs: BTreeMap<String, ResponseRule>,
    }
}

record! {
    /// Tells a web hook; a failure does not fail the run unless `required`.
    pub struct NotifyWebhook("`notify.webhook`") {
        /// Address.
        url: SecretText,
        /// Text, sent as `{"text": ...}`.
        text: Option<String>,
        /// Any JSON instead of a text.
        json: Option<Json>,
        /// Whether a failure counts.
        required: bool = false,
    }
}

record! {
    /// Tells someone through a command; a failure does not fail the run unless `required`.
    pub struct NotifyCommand("`notify.command`") {
        /// The command and its arguments.
        argv: Vec<String>,
        /// Text for standard input.
        stdin: Option<String>,
        /// Whether a failure counts.
        required: bool = false,
    }
}

record! {
    /// Runs another runbook as a step.
    pub struct SubRunbook("`runbook`") {
        /// Its file, relative to this runbook.
        path: String,
        /// Its parameters.
        params: BTreeMap<String, Json>,
    }
}

/// One action of a step: its kind and its arguments as written.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionSpec {
    /// Which action.
    pub kind: ActionKind,
    /// Where its key stands.
    pub key: super::problem::Span,
    /// Its arguments, templates and all.
    pub args: Node,
}

impl ActionSpec {
    /// The check inside of a `wait.until`.
    pub fn nested(&self) -> Option<Self> {
        let (ActionKind::WaitUntil, Value::Map(pairs)) = (self.kind, &self.args.value) else { return None };
        pairs.iter().find_map(|(key, args)| {
            ActionKind::of_key(&key.text).map(|kind| Self { kind, key: key.span, args: args.clone() })
        })
    }

    /// Whether it works on databases: itself, by the check that it repeats, or through an option store, which may be a table.
    pub fn works_on_databases(&self) -> bool {
        let is_one = |key: &str| key.starts_with("db.") || key.starts_with("option.");
        is_one(self.kind.key()) || self.nested().is_some_and(|check| is_one(check.kind.key()))
    }

    /// Whether it only looks, as it is written: sessions that may be ended are more than looked at.
    pub fn is_check(&self) -> bool {
        let spares = || self.args.get("terminate").is_none_or(|value| value.value == Value::Bool(false));
        self.kind.is_check() && (self.kind != ActionKind::DbSessions || spares())
    }
}

macro_rules! actions {
    ($( $variant:ident($args:ty) = $key:literal, outputs $outputs:expr, $crash:ident, check $check:literal; )*) => {
        /// Every action there is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ActionKind {
            $( #[doc = concat!("`", $key, "`")] $variant, )*
        }

        /// The arguments of an action, rendered.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Args {
            $( #[doc = concat!("Of `", $key, "`")] $variant(Box<$args>), )*
        }

        impl ActionKind {
            /// All kinds, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];
            /// The keys of all kinds.
            pub const KEYS: &'static [&'static str] = &[$( $key ),*];

            /// The key an author writes.
            pub fn key(self) -> &'static str {
                match self { $( Self::$variant => $key, )* }
            }

            /// Names of the outputs; nothing when the author names them.
            pub fn outputs(self) -> Option<&'static [&'static str]> {
                match self { $( Self::$variant => $outputs, )* }
            }

            /// What a crash in the middle means unless the author says otherwise.
            pub fn crash_default(self) -> CrashDefault {
                match self { $( Self::$variant => CrashDefault::$crash, )* }
            }

            /// Whether it only looks.
            pub fn is_check(self) -> bool {
                match self { $( Self::$variant => $check, )* }
            }

            /// Reads the arguments.
            pub fn decode(self, node: &Node, d: &mut Decoder) -> Option<Args> {
                match self { $( Self::$variant => <$args>::decode(node, d).map(|args| Args::$variant(Box::new(args))), )* }
            }

            /// The schema of the arguments: a mapping in which templates may stand for values, but not for the whole.
            pub fn schema(self, schemas: &mut Schemas) -> Json {
                let mut schema = match self { $( Self::$variant => schemas.in_arguments(<$args>::schema), )* };
                match schema.get_mut("anyOf") {
                    Some(options) => options[0].take(),
                    None => schema,
                }
            }
        }
    };
}

/// What a crash in the middle of an action means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashDefault {
    /// A person must say whether it ran.
    Ask,
    /// It may simply run again.
    Safe,
    /// It goes on where it was.
    Resumable,
    /// It looks at the world and knows.
    Probe,
}

actions! {
    Exec(Exec) = "exec", outputs None, Ask, check true;
    ServiceStart(Services) = "service.start", outputs Some(&["services", "changed", "started_at", "at", "at_ms", "held_before"]), Probe, check false;
    ServiceStop(Services) = "service.stop", outputs Some(&["services", "changed", "stopped_at", "at", "at_ms", "held_before"]), Probe, check false;
    ServiceRestart(Services) = "service.restart", outputs Some(&["services", "changed", "started_at", "at", "at_ms", "held_before"]), Probe, check false;
    ServiceCheck(Services) = "service.check", outputs Some(&["services"]), Safe, check true;
    OptionSet(OptionSet) = "option.set", outputs Some(&["old", "new"]), Probe, check false;
    OptionUnset(OptionUnset) = "option.unset", outputs Some(&["old", "new"]), Probe, check false;
    OptionCheck(OptionCheck) = "option.check", outputs Some(&["value"]), Safe, check true;
    DbExecute(DbSql) = "db.execute", outputs Some(&["rows_affected"]), Ask, check false;
    DbQuery(DbSql) = "db.query", outputs Some(&["rows", "row", "count"]), Safe, check true;
    DbAssert(DbAssert) = "db.assert", outputs Some(&["count"]), Safe, check true;
    DbMigrate(DbMigrate) = "db.migrate", outputs Some(&["applied"]), Resumable, check false;
    DbCopy(DbCopy) = "db.copy", outputs Some(&["rows", "inserted", "updated", "unchanged", "skipped", "tables", "seconds"]), Resumable, check false;
    DbCompare(DbCompare) = "db.compare", outputs Some(&["rows", "tables", "looked_at", "seed", "resumed"]), Safe, check true;
    DbGaps(DbGaps) = "db.gaps", outputs Some(&["gaps"]), Safe, check true;
    DbWatermark(DbWatermark) = "db.watermark", outputs Some(&["watermark", "lagging"]), Safe, check true;
    DbPreflight(DbPreflight) = "db.preflight", outputs Some(&["findings", "errors", "warnings", "source", "target"]), Safe, check true;
    DbSessions(DbSessions) = "db.sessions", outputs Some(&["rows", "count", "ended"]), Safe, check true;
    DbBackup(DbBackup) = "db.backup", outputs Some(&["path", "file", "bytes", "sha256", "tables", "server_version"]), Probe, check false;
    DbRestore(DbRestore) = "db.restore", outputs Some(&["path", "bytes", "sha256", "tables"]), Probe, check false;
    WaitUntil(WaitUntil) = "wait.until", outputs Some(&["looks", "at"]), Safe, check false;
    WaitFor(WaitFor) = "wait.for", outputs Some(&["at"]), Safe, check false;
    WaitBoundary(WaitBoundary) = "wait.boundary", outputs Some(&["at"]), Safe, check false;
    WaitAt(WaitAt) = "wait.at", outputs Some(&["at"]), Safe, check false;
    Approval(Approval) = "approval", outputs Some(&["approved_by"]), Safe, check false;
    Manual(Manual) = "manual", outputs None, Safe, check false;
    FileWrite(FileWrite) = "file.write", outputs Some(&["path", "sha256"]), Probe, check false;
    HttpRequest(HttpRequest) = "http.request", outputs None, Ask, check true;
    NotifyWebhook(NotifyWebhook) = "notify.webhook", outputs Some(&["delivered", "error"]), Safe, check false;
    NotifyCommand(NotifyCommand) = "notify.command", outputs Some(&["delivered", "error"]), Safe, check false;
    Runbook(SubRunbook) = "runbook", outputs Some(&["run", "outcome"]), Resumable, check false;
}

impl ActionKind {
    /// The kind whose key this is.
    pub fn of_key(key: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.key() == key)
    }

    /// Whether people, not the driver, do the work.
    pub fn is_wait_for_people(self) -> bool {
        self == Self::Approval || self == Self::Manual
    }
}

/// `take one of ...`, for places where an action may only look.
pub fn checks_list() -> String {
    let keys: Vec<&str> = ActionKind::ALL.iter().filter(|kind| kind.is_check()).map(|kind| kind.key()).collect();
    format!("take an action that only looks: `{}`", keys.join("`, `"))
}

/// How arguments that were written as plain text are written right, when it can be told.
fn as_arguments(kind: ActionKind, text: &str) -> Option<String> {
    let key = match kind {
        ActionKind::Exec => {
            let words: Vec<&str> = text.split_whitespace().collect();
            let is_plain = !words.is_empty() && words.iter().all(|word| word.starts_with('-') || is_plain(word));
            let how = if is_plain { format!("argv: [{}]", words.join(", ")) } else { "shell: \"...\"".to_owned() };
            return Some(format!("write `exec: {{ {how} }}`"));
        }
        ActionKind::ServiceStart | ActionKind::ServiceStop | ActionKind::ServiceRestart | ActionKind::ServiceCheck => {
            "service"
        }
        ActionKind::WaitFor => "duration",
        ActionKind::WaitBoundary => "every",
        ActionKind::WaitAt => "time",
        ActionKind::Approval => "prompt",
        ActionKind::Manual => "instructions",
        ActionKind::Runbook => "path",
        ActionKind::OptionSet
        | ActionKind::OptionUnset
        | ActionKind::OptionCheck
        | ActionKind::DbExecute
        | ActionKind::DbQuery
        | ActionKind::DbAssert
        | ActionKind::DbMigrate
        | ActionKind::DbCopy
        | ActionKind::DbCompare
        | ActionKind::DbGaps
        | ActionKind::DbWatermark
        | ActionKind::DbPreflight
        | ActionKind::DbSessions
        | ActionKind::DbBackup
        | ActionKind::DbRestore
        | ActionKind::WaitUntil
        | ActionKind::FileWrite
        | ActionKind::HttpRequest
        | ActionKind::NotifyWebhook
        | ActionKind::NotifyCommand => return None,
    };
    let shown = if is_plain(text) || Millis::parse(text).is_some() { text } else { "\"...\"" };
    Some(format!("write `{}: {{ {key}: {shown} }}`", kind.key()))
}

/// The one action among the keys of a mapping; notes a mistake if there is none or more than one.
///
/// A key that is nearly an action counts as the misspelt action: the caller reports it as an unknown key with
/// [`MapReader::finish`], which it must call in every case. `only_looks` names the checks alone where there is none.
pub fn take_action(
    reader: &MapReader<'_>,
    what: &str,
    node: &Node,
    only_looks: bool,
    d: &mut Decoder,
) -> Option<ActionSpec> {
    let pairs = reader.pairs();
    let mut found = pairs.iter().filter_map(|(key, args)| ActionKind::of_key(&key.text).map(|kind| (kind, key, args)));
    let Some((kind, key, args)) = found.next() else {
        let is_misspelt = |key: &str| {
            reader.is_unknown(key) && super::problem::nearest(key, ActionKind::KEYS.iter().copied()).is_some()
        };
        if !pairs.iter().any(|(key, _)| is_misspelt(&key.text)) {
            let problem = Problem::new("spec::no_action", format!("{what} has no action"), node.span).label("in here");
            let all = || format!("actions are `{}`", ActionKind::KEYS.join("`, `"));
            d.problem(problem.help(if only_looks { checks_list() } else { all() }));
        }
        return None;
    };
    if let Some((_, second, _)) = found.next() {
        let message = format!("{what} has two actions, `{}` and `{}`", key.text, second.text);
        let problem = Problem::new("spec::two_actions", message, second.span).label("second").other(key.span, "first");
        d.problem(problem.help("make two steps of it"));
    }
    let before = std::mem::replace(&mut d.templates, Templates::Pending);
    match args.text() {
        // One template for all arguments would hide every name in them from every check.
        Some(_) if d.is_pending(args) => {
            let help = "write the arguments out as `key: value` pairs; a template may stand for each value";
            d.expected(args, &format!("the keys of `{}`", kind.key()), Some(help.to_owned()));
        }
        Some(text) => {
            let help = as_arguments(kind, text).unwrap_or_else(|| "write `key: value` pairs".to_owned());
            d.expected(args, &format!("the keys of `{}`", kind.key()), Some(help));
        }
        None => {
            kind.decode(args, d);
        }
    }
    d.templates = before;
    Some(ActionSpec { kind, key: key.span, args: args.clone() })
}

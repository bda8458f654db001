//! Arguments of the actions that people answer: approvals and work by hand.

use std::collections::BTreeMap;

use crate::spec::decode::Decoder;
use crate::spec::problem::Problem;
use crate::spec::rules::{Choice, exactly_one, more_than_zero};
use crate::spec::values::{Millis, SecretText};
use crate::spec::yaml::{Node, Value};
use crate::{choice, record};

choice! {
    /// How somebody must be identified whose word counts.
    pub enum Require("way to identify people") {
        /// By any name that is given.
        Claimed = "claimed",
        /// By the account of the operating system.
        Local = "local",
        /// By a signature with a key of theirs.
        Ssh = "ssh",
    }
}

/// What decides who may answer a question, how and until when. It is known before a run starts, so templates in it may name
/// parameters, the site and the item of a `foreach` only.
pub const RULES: [&str; 11] = [
    "quorum", "groups", "people", "exclude", "expires", "escalate", "remind", "identity", "form", "evidence",
    "assignee",
];

record! {
    /// Who is asked as well when nobody answered in time.
    #[check(check_escalation)]
    pub struct Escalate("`escalate`") {
        /// Groups of the site.
        groups: Vec<String>,
        /// People of the site.
        people: Vec<String>,
        /// After this much longer without an answer the step fails; as long as it takes when left out.
        expires: Option<Millis>,
    }
}

fn check_escalation(node: &Node, d: &mut Decoder) {
    more_than_zero("expires", node, d);
    if node.get("groups").is_none() && node.get("people").is_none() {
        let problem = Problem::new("spec::missing_key", "`escalate` names nobody", node.span).label("in here");
        d.problem(problem.help("add `groups: [...]` or `people: [...]`"));
    }
}

record! {
    /// How people are told that they are waited for.
    #[check(check_hook)]
    pub struct Hook("`notify`") {
        /// A command that gets the message as JSON on standard input.
        command: Option<Vec<String>>,
        /// Address of a web hook that gets it as JSON, with `text` for chats.
        webhook: Option<SecretText>,
    }
}

fn check_hook(node: &Node, d: &mut Decoder) {
    let choices = [Choice::List("command"), Choice::Value("webhook")];
    exactly_one("spec::one_of", "`notify`", &choices, "`command: [notify-send, waiting]`", node, d);
}

record! {
    /// Asks people to approve.
    #[check(check_approval)]
    pub struct Approval("`approval`") {
        /// What they are asked.
        prompt: String,
        /// Who may answer: groups of the site; anybody when left out.
        groups: Vec<String>,
        /// Who may answer: people of the site.
        people: Vec<String>,
        /// How many must approve.
        quorum: u32 = 1,
        /// Who may not: `run.starter`, `runbook.author` or people.
        exclude: Vec<String>,
        /// After this long without an answer the step fails, or others are asked.
        expires: Option<Millis>,
        /// Who may answer as well from then on.
        escalate: Option<Escalate>,
        /// After each such time without an answer people are told again.
        remind: Option<Millis>,
        /// How they are told, instead of what the site says.
        notify: Option<Hook>,
        /// How whoever answers must be identified, if that is more than the site requires.
        identity: Option<Require>,
    }
}

fn check_approval(node: &Node, d: &mut Decoder) {
    more_than_zero("quorum", node, d);
    check_question(node, d);
}

/// What holds of every question to people.
fn check_question(node: &Node, d: &mut Decoder) {
    more_than_zero("expires", node, d);
    more_than_zero("remind", node, d);
    if let Some(escalate) = node.get("escalate").filter(|_| node.get("expires").is_none()) {
        let message = "`escalate` is about the end of `expires`, which is not there";
        let problem = Problem::new("spec::missing_key", message, escalate.span).label("never comes");
        d.problem(problem.help("add `expires: 2h`: after that time others are asked as well"));
    }
}

choice! {
    /// Whether evidence must come with an answer.
    pub enum Evidence("evidence rule") {
        /// At least one file.
        Required = "required",
        /// If there is some.
        Optional = "optional",
    }
}

choice! {
    /// Type of a field of a form.
    pub enum FieldType("field type") {
        /// Text.
        String = "string",
        /// A whole number.
        Integer = "integer",
        /// A number.
        Number = "number",
        /// True or false.
        Boolean = "boolean",
        /// One of `values`.
        Enum = "enum",
        /// A day: `2026-11-30`.
        Date = "date",
        /// A moment with its offset: `2026-11-30T02:15:00Z`.
        Time = "time",
    }
}

record! {
    /// One field of a form.
    #[check(check_field)]
    pub struct FormField("a form field") {
        /// Its type.
        r#type as "type": FieldType = FieldType::String,
        /// What to fill in.
        description: Option<String>,
        /// Smallest number.
        minimum: Option<f64>,
        /// Largest number.
        maximum: Option<f64>,
        /// The allowed words of an `enum`.
        values: Vec<String>,
        /// Whether it may be left out.
        optional: bool = false,
    }
}

fn check_field(node: &Node, d: &mut Decoder) {
    let r#type = node.get("type");
    if r#type.is_some_and(|node| d.is_pending(node)) {
        return;
    }
    let is_enum = r#type.and_then(Node::text) == Some("enum");
    match node.get("values") {
        None if is_enum => {
            let problem = Problem::new("spec::missing_key", "a field of the type `enum` lacks `values`", node.span);
            d.problem(problem.label("in here").help("add `values: [green, red]`"));
        }
        Some(Node { value: Value::List(items), span }) if is_enum && items.is_empty() => {
            let problem = Problem::new("spec::one_of", "a field of the type `enum` has no word to choose", *span);
            d.problem(problem.label("nothing in here").help("write `values: [green, red]`"));
        }
        Some(values) if !is_enum => {
            let problem = Problem::new("spec::one_of", "`values` belongs to a field of the type `enum`", values.span);
            d.problem(problem.label("would be ignored").help("add `type: enum`, or take the words out"));
        }
        Some(_) | None => {}
    }
}

record! {
    /// Asks a person to do something by hand.
    #[check(check_question)]
    pub struct Manual("`manual`") {
        /// What to do: text, or the path of a Markdown file relative to the runbook.
        instructions: String,
        /// What to fill in.
        form: BTreeMap<String, FormField>,
        /// Whether evidence must be handed in.
        evidence: Evidence = Evidence::Optional,
        /// Who may answer: groups of the site; anybody when left out.
        groups: Vec<String>,
        /// Who may answer: people of the site.
        people: Vec<String>,
        /// Who is to do it: a person, or `run.starter`; nobody else reports it done until it is handed over.
        assignee: Option<String>,
        /// After this long without an answer the step fails, or others are asked.
        expires: Option<Millis>,
        /// Who may answer as well from then on.
        escalate: Option<Escalate>,
        /// After each such time without an answer people are told again.
        remind: Option<Millis>,
        /// How they are told, instead of what the site says.
        notify: Option<Hook>,
        /// How whoever answers must be identified, if that is more than the site requires.
        identity: Option<Require>,
    }
}

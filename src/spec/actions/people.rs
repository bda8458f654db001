//! Arguments of the actions that people answer: approvals and work by hand.

use std::collections::BTreeMap;

use crate::spec::decode::Decoder;
use crate::spec::rules::more_than_zero;
use crate::spec::values::Millis;
use crate::spec::yaml::Node;
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
        /// After this long without an answer the step fails.
        expires: Option<Millis>,
        /// How whoever answers must be identified, if that is more than the site requires.
        identity: Option<Require>,
    }
}

fn check_approval(node: &Node, d: &mut Decoder) {
    more_than_zero("quorum", node, d);
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
    }
}

record! {
    /// One field of a form.
    pub struct FormField("a form field") {
        /// Its type.
        r#type as "type": FieldType = FieldType::String,
        /// What to fill in.
        description: Option<String>,
        /// Smallest number.
        minimum: Option<f64>,
        /// Largest number.
        maximum: Option<f64>,
        /// Whether it may be left out.
        optional: bool = false,
    }
}

record! {
    /// Asks a person to do something by hand.
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
        /// After this long without an answer the step fails.
        expires: Option<Millis>,
        /// How whoever answers must be identified, if that is more than the site requires.
        identity: Option<Require>,
    }
}

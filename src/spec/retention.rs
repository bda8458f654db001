//! A retention policy as its author writes it: which runs are pruned when, of what, and which are left.
//!
//! Only the language; `journal` chooses and prunes, called by `piton audit prune`.

use std::sync::Arc;

use serde_json::Value as Json;

use super::decode::{Decode, Decoder, Schemas, Spanned, describe};
use super::problem::{Problem, Problems, Source, one_of};
use super::rules::{known, more_than_zero, pair};
use super::runbook::{ApiVersion, refuse_kind};
use super::values::Millis;
use super::yaml::{self, Node};
use crate::event;
use crate::{choice, record};

choice! {
    /// What the file is.
    pub enum RetentionKind("kind of file here") {
        /// A retention policy.
        Retention = "Retention",
    }
}

choice! {
    /// What is pruned of a run.
    pub enum PruneWord("thing to prune") {
        /// What commands said.
        Transcripts = "transcripts",
        /// Files that people handed in.
        Evidence = "evidence",
        /// Both, and the payload of records.
        Contents = "contents",
        /// Everything but a summary.
        Run = "run",
    }
}

record! {
    /// One rule.
    #[check(check_rule)]
    pub struct RetentionRule("rule") {
        /// What is pruned.
        prune: PruneWord,
        /// The age that a run must have, counted from its latest record.
        older_than: Millis,
        /// Only of runs of these runbooks.
        runbooks: Vec<String>,
        /// Only of runs on these sites.
        sites: Vec<String>,
        /// How many of the latest runs of each runbook on each site stay, whatever their age.
        keep_last: u32 = 0,
        /// Also of runs that rest failed or cancelled: they cannot be resumed afterwards.
        failed: bool = false,
        /// Of `contents`, only the payload of records of these kinds.
        kinds: Vec<Spanned<String>>,
    }
}

record! {
    /// What may be kept of runs, and for how long.
    pub struct Retention("retention policy") {
        /// Version of the language: `piton/v1`.
        api_version as "apiVersion": ApiVersion,
        /// `Retention`.
        kind: RetentionKind,
        /// Runs that stay whatever the rules say.
        except: Vec<String>,
        /// The rules; of several that choose a run, the one that takes most counts.
        rules: Vec<RetentionRule>,
    }
}

fn check_rule(node: &Node, d: &mut Decoder) {
    more_than_zero("older_than", node, d);
    let contents = known(node, "prune", d) == Some(PruneWord::Contents);
    if let (Some((key, _)), false) = (pair(node, "kinds"), contents) {
        let problem = Problem::new("spec::one_of", "`kinds` means something with `prune: contents` only", key.span);
        d.problem(problem.label("would be ignored").help("write `prune: contents`, or drop `kinds`"));
    }
}

/// Reads a policy.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(source: &Arc<Source>) -> Result<Retention, Problems> {
    let (node, duplicates) = yaml::parse_with_duplicates(source)?;
    refuse_kind(&node, "Runbook", "this is a runbook, not a retention policy", "give the file of the policy", source)?;
    let mut d = Decoder::new(Arc::clone(source));
    d.problems = duplicates;
    let policy = Retention::decode(&node, &mut d);
    for kind in policy.iter().flat_map(|policy| &policy.rules).flat_map(|rule| &rule.kinds) {
        if !event::is_kind(&kind.value) {
            let kinds: Vec<&str> = event::KINDS.to_vec();
            let problem =
                Problem::new("spec::unknown_word", format!("`{}` is no kind of record", kind.value), kind.span)
                    .label("not one of the words known here")
                    .help(one_of(&kind.value, &kinds));
            d.problem(problem);
        }
    }
    d.finish(policy)
}

/// The JSON Schema of policies.
pub fn json_schema() -> Json {
    let mut schemas = Schemas::default();
    Retention::schema(&mut schemas);
    let root = schemas.defs.remove("Retention").unwrap_or_default();
    let root = describe(root, "What Piton may keep of runs, and for how long.", None);
    schemas.document("Piton retention policy", &root)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<Retention, Problems> {
        let text = format!("apiVersion: piton/v1\nkind: Retention\n{text}");
        read(&Arc::new(Source { name: "keep.yaml".into(), text }))
    }

    #[test]
    fn a_policy_is_read_with_its_defaults() {
        let read = policy("rules:\n  - { prune: run, older_than: 400d }\n").expect("is right");
        let rule = &read.rules[0];
        assert_eq!((rule.prune, rule.older_than), (PruneWord::Run, Millis(400 * 86_400_000)));
        assert!(!rule.failed && rule.keep_last == 0 && rule.kinds.is_empty() && read.except.is_empty());
        let read = policy("except: [a]\nrules:\n  - { prune: contents, older_than: 1w, kinds: [step_answered] }\n");
        assert_eq!(read.expect("is right").rules[0].kinds[0].value, "step_answered");
    }

    #[test]
    fn every_mistake_is_named() {
        let told =
            policy("rules:\n  - { prune: all, older_than: 1 year, kinds: [step_anwsered] }\n").expect_err("is wrong");
        let told = told.render();
        for part in ["`all` is no thing to prune", "duration"] {
            assert!(told.contains(part), "{part} in {told}");
        }
        let told =
            policy("rules:\n  - { prune: contents, older_than: 1d, kinds: [step_anwsered] }\n").expect_err("is wrong");
        assert!(told.render().contains("did you mean `step_answered`?"), "{}", told.render());
    }

    #[test]
    fn a_rule_that_would_take_more_than_it_says_is_refused() {
        for word in ["transcripts", "evidence", "run"] {
            let rule = format!("rules:\n  - {{ prune: {word}, older_than: 1d, kinds: [step_answered] }}\n");
            let told = policy(&rule).expect_err("takes all kinds");
            assert_eq!((told.list.len(), told.list[0].code), (1, "spec::one_of"));
            assert_eq!(told.source.slice(told.list[0].span), "kinds");
            assert!(told.render().contains("or drop `kinds`"), "{}", told.render());
        }
        for age in ["0s", "0d", "PT0S"] {
            let told = policy(&format!("rules:\n  - {{ prune: run, older_than: {age} }}\n")).expect_err("no age");
            assert_eq!((told.list.len(), told.list[0].code), (1, "spec::out_of_range"));
            assert_eq!(told.source.slice(told.list[0].span), age);
            assert!(told.render().contains("`older_than` must be more than 0"), "{}", told.render());
        }
        assert_eq!(policy("rules:\n  - { prune: run, older_than: 0 }\n").expect_err("no unit").list.len(), 1);
    }
}

//! The canonical form of data and its digest.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::{Depth, Plan, PlanStep};
use crate::spec::actions::ActionSpec;
use crate::spec::runbook::{NeedOutcome, Undo};
use crate::spec::yaml::{Node, Value};

/// The data as text: keys sorted, no white space. Equal data has equal text.
pub fn canonical(value: &Json) -> String {
    text_of(|text| write(value, text))
}

/// The canonical form of what a file holds, the same as that of its JSON.
pub fn canonical_node(node: &Node) -> String {
    text_of(|text| write_node(node, text))
}

fn text_of(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut text = Vec::new();
    write(&mut text).expect("memory takes any bytes");
    String::from_utf8(text).expect("canonical data is text")
}

fn write(value: &Json, out: &mut impl Write) -> io::Result<()> {
    match value {
        Json::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_unstable_by_key(|(key, _)| key.as_str());
            fields(pairs.into_iter().map(|(key, value)| (key.as_str(), value)), out, write)
        }
        Json::Array(items) => list(items, out, write),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(serde_json::to_writer(out, value)?),
    }
}

fn write_node(node: &Node, out: &mut impl Write) -> io::Result<()> {
    match &node.value {
        Value::Map(pairs) => {
            let mut pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.text.as_str(), value)).collect();
            pairs.sort_unstable_by_key(|(key, _)| *key);
            fields(pairs.into_iter(), out, write_node)
        }
        Value::List(items) => list(items, out, write_node),
        Value::Text(text) => Ok(serde_json::to_writer(out, text)?),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) => {
            Ok(serde_json::to_writer(out, &node.to_json())?)
        }
    }
}

fn fields<'a, T: 'a, W: Write>(
    pairs: impl Iterator<Item = (&'a str, &'a T)>,
    out: &mut W,
    one: impl Fn(&T, &mut W) -> io::Result<()>,
) -> io::Result<()> {
    let mut before = "{";
    for (key, value) in pairs {
        out.write_all(before.as_bytes())?;
        serde_json::to_writer(&mut *out, key)?;
        out.write_all(b":")?;
        one(value, out)?;
        before = ",";
    }
    out.write_all(if before == "{" { b"{}" } else { b"}" })
}

fn list<T, W: Write>(items: &[T], out: &mut W, one: impl Fn(&T, &mut W) -> io::Result<()>) -> io::Result<()> {
    out.write_all(b"[")?;
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            out.write_all(b",")?;
        }
        one(item, out)?;
    }
    out.write_all(b"]")
}

/// SHA-256 of the canonical form, in hex.
pub fn digest(value: &Json) -> String {
    digest_of(|out| write(value, out))
}

/// SHA-256, in hex, of the canonical form of a mapping whose values are in canonical form; `parts` sorted by key.
pub fn digest_of_parts(parts: &[(&str, &str)]) -> String {
    debug_assert!(parts.is_sorted(), "canonical keys are sorted");
    digest_of(|out| {
        fields(parts.iter().map(|(key, text)| (*key, text)), out, |text, out| out.write_all(text.as_bytes()))
    })
}

/// The digest of what `write` writes.
fn digest_of(write: impl FnOnce(&mut BufWriter<Sha256>) -> io::Result<()>) -> String {
    let mut out = BufWriter::new(Sha256::new());
    let hash = write(&mut out).and_then(|()| Ok(out.into_inner()?));
    hex::encode(hash.expect("a digest takes any bytes").finalize())
}

impl PlanStep {
    /// What it does, its postcondition, its undo.
    pub fn actions(&self) -> impl Iterator<Item = &ActionSpec> {
        std::iter::once(&self.action).chain(self.verify.as_deref()).chain(self.undo_action())
    }

    fn undo_action(&self) -> Option<&ActionSpec> {
        match self.undo.as_deref() {
            Some(Undo::Action(action)) => Some(action),
            Some(Undo::Auto(_)) | None => None,
        }
    }

    /// What decides its work: action, arguments as written, condition, postcondition, outputs, and the files it uses.
    pub fn work_digest(&self, plan: &Plan, depth: Depth) -> String {
        let frame = self.frame(plan, depth);
        digest(&json!({ "piton": "step-v1", "args": self.action.args.to_json(), "frame": frame }))
    }

    /// Its work without its own arguments.
    pub(crate) fn frame(&self, plan: &Plan, depth: Depth) -> Json {
        let action = |action: &ActionSpec| json!({ action.kind.key(): action.args.to_json() });
        let actions = std::iter::once(&self.action).chain(self.verify.as_deref());
        let mut used = plan.used(self, actions, depth);
        if depth == Depth::All {
            used.extend(plan.used_by_patterns(self));
        }
        let outputs: BTreeMap<&String, &String> = self.outputs.iter().map(|(name, rule)| (name, &rule.text)).collect();
        json!({
            "action": self.action.kind.key(), "item": self.item, "verify": self.verify.as_deref().map(action),
            "when": self.when.as_ref().map(|when| &when.text), "outputs": outputs, "files": used,
            "phase": self.phase.word(), "finally": self.is_finally,
        })
    }

    /// How it is undone, as written, with the files that this uses.
    pub(crate) fn undo_text(&self, plan: &Plan, depth: Depth) -> Json {
        match self.undo.as_deref() {
            None => Json::Null,
            Some(Undo::Auto(_)) => "auto".into(),
            Some(Undo::Action(undo)) => {
                let used = plan.used(self, std::iter::once(undo), depth);
                json!({ undo.kind.key(): undo.args.to_json(), "files": used })
            }
        }
    }

    /// When and how it may run, and what its end means.
    pub(crate) fn rules(&self) -> Json {
        let needs: Vec<Json> =
            self.needs.iter().map(|(step, outcome)| json!([step, outcome.map(NeedOutcome::word)])).collect();
        let retry = self.retry.as_ref().map(|retry| {
            let pause = &retry.backoff;
            json!([retry.attempts, pause.initial.0, pause.factor, pause.max.0])
        });
        let deviations = self.deviations.as_deref().map(|rule| format!("{rule:?}"));
        json!({
            "needs": needs, "deviations": deviations, "timeout": self.timeout.map(|time| time.0), "retry": retry,
            "idempotent": self.idempotent.word(), "on_failure": self.on_failure.word(),
            "optional": self.optional.as_ref().map(|optional| &optional.consequence),
            "point_of_no_return": self.point_of_no_return, "locks": self.locks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sha256_hex;
    use crate::spec::problem::Span;

    #[test]
    fn equal_data_has_an_equal_digest() {
        assert_eq!(canonical(&json!({ "b": [1, "x"], "a": null })), r#"{"a":null,"b":[1,"x"]}"#);
        assert_eq!(digest(&json!({ "b": 1, "a": 2 })), digest(&json!({ "a": 2, "b": 1 })));
        assert_eq!(digest(&json!({ "a": [] })), sha256_hex(br#"{"a":[]}"#));
    }

    #[test]
    fn a_node_has_the_form_of_its_json() {
        let data =
            json!({ "z": [1, -2, 0.5, 1e30, null, true, {}, []], "a": { "\"q\"": "line\nend \u{7}é", "b": {} } });
        assert_eq!(canonical_node(&Node::from_json(&data, Span::default())), canonical(&data));
        let nan = Node { value: Value::Float(f64::NAN, ".nan".into()), span: Span::default() };
        assert_eq!(canonical_node(&nan), canonical(&nan.to_json()));
    }

    #[test]
    fn a_mapping_of_parts_has_the_digest_of_the_mapping() {
        let (a, b) = (json!({ "y": 1, "x": "t" }), json!([null]));
        let parts = [("a", canonical(&a)), ("b", canonical(&b))];
        let parts: Vec<_> = parts.iter().map(|(key, text)| (*key, text.as_str())).collect();
        assert_eq!(digest_of_parts(&parts), digest(&json!({ "b": b, "a": a })));
    }
}

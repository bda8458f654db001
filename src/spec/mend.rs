//! What can be read of a runbook that has mistakes, so that the rest of it is still checked.
//!
//! A part that cannot be read is left out, or replaced by one that raises no further complaint: one mistake gives one
//! message. The result is good for messages only; a plan is never made from it. Called by `runbook::read`.

use std::sync::Arc;

use super::actions::ActionKind;
use super::decode::{Decode, Decoder};
use super::problem::{Source, Span};
use super::runbook::{Need, Param, Runbook, Step};
use super::yaml::{Key, Node, Value};

/// The runbook without what cannot be read.
pub(super) fn runbook(node: &Node, source: &Arc<Source>) -> Option<Runbook> {
    let Value::Map(pairs) = &node.value else { return None };
    let mender = Mender { source };
    let top = Span { start: node.span.start, len: 0 };
    let pair = |key: &str, value: Node| (Key { text: key.to_owned(), span: top }, value);
    let name = node.get("name").filter(|name| mender.reads::<String>(name)).cloned();
    let base = vec![
        pair("apiVersion", text("piton/v1", top)),
        pair("kind", text("Runbook", top)),
        pair("name", name.unwrap_or_else(|| text("runbook", top))),
    ];
    let mut kept = base.clone();
    for (key, child) in pairs {
        let whole = match key.text.as_str() {
            "apiVersion" | "kind" | "name" => None,
            "steps" | "finally" => mender.steps(child),
            "params" => Some(mender.params(child)?),
            _ => {
                let mut alone = base.clone();
                alone.push((key.clone(), child.clone()));
                mender.kept_or_replaced::<Runbook>(key, child, &map(alone, top))
            }
        };
        kept.extend(whole.map(|whole| (key.clone(), whole)));
    }
    Runbook::decode(&map(kept, node.span), &mut mender.silent())
}

struct Mender<'s> {
    source: &'s Arc<Source>,
}

impl Mender<'_> {
    fn silent(&self) -> Decoder {
        Decoder::new(Arc::clone(self.source))
    }

    fn reads<T: Decode>(&self, node: &Node) -> bool {
        T::decode(node, &mut self.silent()).is_some()
    }

    /// The child as it is when `alone`, a whole with nothing else in doubt, can be read; else what stands for it.
    fn kept_or_replaced<T: Decode>(&self, key: &Key, child: &Node, alone: &Node) -> Option<Node> {
        if self.reads::<T>(alone) { Some(child.clone()) } else { self.replaced(key, child) }
    }

    /// What stands for a field that cannot be read, where leaving it out would raise a false complaint.
    fn replaced(&self, key: &Key, child: &Node) -> Option<Node> {
        let at = child.span;
        match key.text.as_str() {
            "on_failure" => Some(text("continue", at)),
            "idempotent" => Some(text("yes", at)),
            "foreach" => Some(map(vec![(Key { text: "items".into(), span: at }, list(Vec::new(), at))], at)),
            "needs" => Some(self.needs(child)),
            "outputs" => match &child.value {
                Value::Map(pairs) => {
                    Some(map(pairs.iter().map(|(key, value)| (key.clone(), text("true", value.span))).collect(), at))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Needs whose outcome cannot be read count as plain ones; a single name counts as a list of it.
    fn needs(&self, node: &Node) -> Node {
        let items: &[Node] = match &node.value {
            Value::List(items) => items,
            Value::Text(_) => std::slice::from_ref(node),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) | Value::Map(_) => &[],
        };
        let plain = |item: &Node| if self.reads::<Need>(item) { Some(item.clone()) } else { item.get("step").cloned() };
        list(items.iter().filter_map(plain).filter(|item| self.reads::<Need>(item)).collect(), node.span)
    }

    fn params(&self, node: &Node) -> Option<Node> {
        let Value::Map(pairs) = &node.value else { return None };
        let mended =
            |child: &Node| if self.reads::<Param>(child) { child.clone() } else { map(Vec::new(), child.span) };
        Some(map(pairs.iter().map(|(key, child)| (key.clone(), mended(child))).collect(), node.span))
    }

    fn steps(&self, node: &Node) -> Option<Node> {
        let Value::List(items) = &node.value else { return None };
        Some(list(items.iter().filter_map(|item| self.step(item)).collect(), node.span))
    }

    /// A step without the fields that cannot be read; nothing without an id or an action.
    fn step(&self, node: &Node) -> Option<Node> {
        if self.reads::<Step>(node) {
            return Some(node.clone());
        }
        let Value::Map(pairs) = &node.value else { return None };
        let is_core = |key: &Key| key.text == "id" || ActionKind::of_key(&key.text).is_some();
        let core: Vec<_> = pairs.iter().filter(|(key, _)| is_core(key)).cloned().collect();
        if !self.reads::<Step>(&map(core.clone(), node.span)) {
            return None;
        }
        let mut kept = core.clone();
        for (key, child) in pairs.iter().filter(|(key, _)| !is_core(key)) {
            let mut alone = core.clone();
            alone.push((key.clone(), child.clone()));
            let mended = self.kept_or_replaced::<Step>(key, child, &map(alone, node.span));
            kept.extend(mended.map(|mended| (key.clone(), mended)));
        }
        Some(map(kept, node.span))
    }
}

fn text(text: &str, span: Span) -> Node {
    Node { value: Value::Text(text.to_owned()), span }
}

fn list(items: Vec<Node>, span: Span) -> Node {
    Node { value: Value::List(items), span }
}

fn map(pairs: Vec<(Key, Node)>, span: Span) -> Node {
    Node { value: Value::Map(pairs), span }
}

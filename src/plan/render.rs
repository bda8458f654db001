//! Arguments of an action with every template replaced by its value, right before the action runs.

use std::sync::Arc;

use serde_json::Value as Json;

use super::inserted;
use crate::spec::actions::{ActionKind, ActionSpec, Args};
use crate::spec::decode::Decoder;
use crate::spec::problem::Source;
use crate::spec::reference::{self, Malformed};
use crate::spec::values::wipe;
use crate::spec::yaml::{Node, Value};

/// Whether a field of an action may hold a secret. Secrets never reach an argv, a log or the journal.
pub fn may_hold_secret(kind: ActionKind, path: &[&str]) -> bool {
    matches!(
        (kind, path),
        (ActionKind::Exec, ["env", _] | ["stdin"])
            | (ActionKind::FileWrite, ["content"])
            | (ActionKind::HttpRequest, ["url" | "body"] | ["headers", _])
            | (ActionKind::NotifyWebhook, ["url"])
            | (ActionKind::Approval | ActionKind::Manual, ["notify", "webhook"])
    )
}

/// Replaces templates in `node`, everywhere.
///
/// # Errors
/// When a name has no value.
pub fn render_node(node: &Node, scope: &Json) -> Result<Node, Malformed> {
    let value = match &node.value {
        Value::Text(text) if has_templates(node) => {
            let mut value = reference::evaluate_template(text, scope)?;
            let rendered = Node::from_json(&value, node.span);
            wipe(&mut value);
            return Ok(rendered);
        }
        Value::List(items) => Value::List(items.iter().map(|item| render_node(item, scope)).collect::<Result<_, _>>()?),
        Value::Map(pairs) => Value::Map(
            pairs.iter().map(|(key, child)| Ok((key.clone(), render_node(child, scope)?))).collect::<Result<_, _>>()?,
        ),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) | Value::Text(_) => node.value.clone(),
    };
    Ok(Node { value, span: node.span })
}

/// Whether anything in `node` is replaced.
fn has_templates(node: &Node) -> bool {
    match &node.value {
        Value::Text(text) => text.contains("{{"),
        Value::List(items) => items.iter().any(has_templates),
        Value::Map(pairs) => pairs.iter().any(|(_, child)| has_templates(child)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) => false,
    }
}

/// Arguments ready to run, and what the journal may keep of them.
#[derive(Debug)]
pub struct Rendered {
    /// The arguments.
    pub args: Args,
    /// The same as JSON with secrets shown as `***`.
    pub input: Json,
}

/// Renders and reads the arguments of an action.
///
/// # Errors
/// When a template has no value or the result does not fit; in words for the step's error.
pub fn render_action(
    action: &ActionSpec,
    source: &Arc<Source>,
    scope: &Json,
    masked_scope: &Json,
) -> Result<Rendered, Malformed> {
    inserted::check(action, scope).map_err(|error| {
        let (line, column) = source.position(action.key.start);
        Malformed(format!("{}:{line}:{column}: {}", source.name, error.0))
    })?;
    let mut d = Decoder::new(Arc::clone(source));
    let (args, input) = if has_templates(&action.args) {
        let mut node = render_node(&action.args, scope)?;
        let input = render_node(&action.args, masked_scope)?.to_json();
        let args = action.kind.decode(&node, &mut d);
        node.wipe();
        (args, input)
    } else {
        (action.kind.decode(&action.args, &mut d), action.args.to_json())
    };
    match args {
        Some(args) if d.problems.is_empty() => Ok(Rendered { args, input }),
        _ => {
            let text: Vec<_> = d
                .problems
                .iter()
                .map(|problem| {
                    let (line, column) = source.position(problem.span.start);
                    format!("{}:{line}:{column}: {}", source.name, problem.message)
                })
                .collect();
            Err(Malformed(text.join("; ")))
        }
    }
}

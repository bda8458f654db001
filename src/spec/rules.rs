//! Rules between the keys of one mapping, applied as soon as the keys they concern are known.
//!
//! A rule looks at keys, not at a finished value: inside arguments a template may hide some keys until a step runs, and
//! that must not keep rules about other keys from being applied when the runbook is loaded. Called by the checks of
//! [`record!`](crate::record).

use std::sync::Arc;

use super::decode::{Decode, Decoder};
use super::problem::{Problem, Span};
use super::values::Millis;
use super::yaml::{Key, Node, Value};

/// A key of a rule and when it says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Whenever it is there, whatever its value.
    Value(&'static str),
    /// When it is `true`.
    Flag(&'static str),
    /// When its list is not empty.
    List(&'static str),
}

/// What a key says before every template has its value.
enum Says {
    Nothing,
    Something(Span),
    Unknown,
}

impl Choice {
    fn key(self) -> &'static str {
        match self {
            Self::Value(key) | Self::Flag(key) | Self::List(key) => key,
        }
    }

    fn says(self, node: &Node, d: &Decoder) -> Says {
        let Some((key, value)) = pair(node, self.key()) else { return Says::Nothing };
        match (self, &value.value) {
            (Self::Flag(_) | Self::List(_), _) if d.is_pending(value) => Says::Unknown,
            (Self::Flag(_), Value::Bool(false)) => Says::Nothing,
            (Self::List(_), Value::List(items)) if items.is_empty() => Says::Nothing,
            _ => Says::Something(key.span),
        }
    }
}

/// The key and the value of `key`, if `node` is a mapping that has it.
pub fn pair<'n>(node: &'n Node, key: &str) -> Option<&'n (Key, Node)> {
    match &node.value {
        Value::Map(pairs) => pairs.iter().find(|(k, _)| k.text == key),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) | Value::Text(_) | Value::List(_) => None,
    }
}

/// The value of `key`, when it is there, readable and no template.
pub fn known<T: Decode>(node: &Node, key: &str, d: &Decoder) -> Option<T> {
    let value = node.get(key).filter(|value| !d.is_pending(value))?;
    let mut silent = Decoder { source: Arc::clone(&d.source), problems: Vec::new(), templates: d.templates };
    T::decode(value, &mut silent)
}

/// Notes that of some keys none or several say something; `what` and an `example` are for the message.
pub fn exactly_one(code: &'static str, what: &str, choices: &[Choice], example: &str, node: &Node, d: &mut Decoder) {
    let says: Vec<Says> = choices.iter().map(|choice| choice.says(node, d)).collect();
    let mut given: Vec<Span> = says
        .iter()
        .filter_map(|says| match says {
            Says::Something(span) => Some(*span),
            Says::Nothing | Says::Unknown => None,
        })
        .collect();
    given.sort_unstable();
    let keys: Vec<&str> = choices.iter().map(|choice| choice.key()).collect();
    let message = format!("{what} takes exactly one of `{}`", keys.join("`, `"));
    match given.as_slice() {
        [first, second, ..] => {
            let problem = Problem::new(code, message, *second).label("and this").other(*first, "this");
            d.problem(problem.help("keep one of them"));
        }
        [] if !says.iter().any(|says| matches!(says, Says::Unknown)) => {
            d.problem(
                Problem::new(code, message, node.span).label("none in here").help(format!("for example {example}")),
            );
        }
        [] | [_] => {}
    }
}

/// Notes that the number or duration under `key` is 0 where that has no meaning.
pub fn more_than_zero(key: &str, node: &Node, d: &mut Decoder) {
    let Some(place) = node.get(key) else { return };
    let help = match &place.value {
        Value::Int(0) => "write 1 or more",
        Value::Text(text) if Millis::parse(text) == Some(Millis(0)) => "write a length of time like `30s`",
        Value::Text(text) if text.trim().parse() == Ok(0_i64) => "write 1 or more",
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Float(..)
        | Value::Text(_)
        | Value::List(_)
        | Value::Map(_) => {
            return;
        }
    };
    let problem = Problem::new("spec::out_of_range", format!("`{key}` must be more than 0"), place.span);
    d.problem(problem.label("too small").help(help));
}

/// Notes that the duration under `key` is not one or more whole seconds.
pub fn whole_seconds(key: &str, node: &Node, d: &mut Decoder) {
    if known(node, key, d).is_some_and(|Millis(ms)| ms == 0 || !ms.is_multiple_of(1_000)) {
        let place = node.get(key).map_or(node.span, |value| value.span);
        let message = format!("`{key}` must be one or more whole seconds");
        let problem = Problem::new("spec::out_of_range", message, place).label("no grid of whole seconds");
        d.problem(problem.help("write it like `15m` or `900s`"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::actions::ActionKind;
    use super::super::decode::Templates;
    use super::super::problem::Source;
    use super::super::yaml;
    use super::*;

    /// What is wrong with arguments while templates stand for values.
    fn problems(kind: ActionKind, args: &str) -> Vec<String> {
        let source = Arc::new(Source { name: "t.yaml".into(), text: args.to_owned() });
        let node = yaml::parse(&source).expect("YAML");
        let mut d = Decoder::new(source);
        d.templates = Templates::Pending;
        kind.decode(&node, &mut d);
        d.problems.into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn a_template_elsewhere_hides_no_rule() {
        let cases = [
            (ActionKind::Exec, "{ argv: [x], shell: y, expect: '{{ params.e }}' }"),
            (ActionKind::Exec, "{ env: '{{ item.env }}' }"),
            (ActionKind::Exec, "{ argv: [x], outputs: { v: { json: /a, regex: b, stdout: '{{ params.s }}' } } }"),
            (ActionKind::ServiceStop, "{ service: x, group: '{{ params.g }}', hold: '{{ params.h }}' }"),
            (ActionKind::ServiceStart, "{ release_hold: '{{ params.h }}' }"),
            (ActionKind::OptionCheck, "{ store: s, section: x, name: n, value: '{{ params.v }}', absent: true }"),
            (ActionKind::DbAssert, "{ database: d, sql: q, expect: { rows: '{{ params.n }}', value: 1 } }"),
            (
                ActionKind::DbCopy,
                "{ from: a, to: b, map: m, tables: t, policy: split_at, chunk_rows: '{{ params.n }}' }",
            ),
            (ActionKind::DbCopy, "{ from: a, to: b, map: m, tables: t, at: '{{ params.at }}', chunk_rows: 5 }"),
            (
                ActionKind::DbCopy,
                "{ from: a, to: b, map: m, tables: t, at: '{{ params.at }}', policy: '{{ params.p }}', chunk_rows: 0 }",
            ),
            (ActionKind::DbCopy, "{ from: a, to: b, map: m, tables: t, parallel: 9, range: '{{ params.r }}' }"),
            (ActionKind::DbGaps, "{ database: d, table: t, time: c, entity: e, timestep: 0s, from: '{{ params.f }}' }"),
            (ActionKind::DbWatermark, "{ database: d, table: t, time: c, entity: '{{ item }}', timestep: 1500ms }"),
            (ActionKind::WaitBoundary, "{ every: 500ms, after: '{{ params.a }}' }"),
            (ActionKind::Approval, "{ prompt: x, quorum: 0, groups: '{{ params.g }}' }"),
            (ActionKind::HttpRequest, "{ url: u, expect: '{{ params.e }}', outputs: { v: { json: /a, header: b } } }"),
        ];
        for (kind, args) in cases {
            assert_eq!(problems(kind, args).len(), 1, "{}: {args}: {:?}", kind.key(), problems(kind, args));
        }
    }

    #[test]
    fn a_rule_waits_for_the_keys_it_concerns() {
        let cases = [
            (ActionKind::Exec, "{ argv: '{{ params.a }}' }"),
            (ActionKind::Exec, "{ argv: '{{ params.a }}', shell: x }"),
            (ActionKind::Exec, "{ argv: [x], outputs: { v: { regex: '({{ params.r }}' } } }"),
            (ActionKind::Exec, "{ argv: [x], outputs: { v: { json: /a, stdout: '{{ params.s }}' } } }"),
            (ActionKind::OptionCheck, "{ store: s, section: x, name: n, absent: '{{ params.b }}' }"),
            (ActionKind::OptionCheck, "{ store: s, section: x, name: n, value: x, absent: '{{ params.b }}' }"),
            (ActionKind::DbCopy, "{ from: a, to: b, map: m, tables: t, at: 5, policy: '{{ params.p }}' }"),
            (ActionKind::DbCopy, "{ from: a, to: b, map: m, tables: t, policy: '{{ params.p }}' }"),
            (ActionKind::DbCopy, "{ from: a, to: b, map: m, tables: t, parallel: '{{ params.n }}' }"),
            (ActionKind::DbCopy, "{ from: a, to: b, map: m, tables: t, parallel: 8 }"),
            (ActionKind::DbAssert, "{ database: d, sql: q, expect: '{{ params.e }}' }"),
            (ActionKind::WaitBoundary, "{ every: '{{ params.e }}' }"),
            (ActionKind::Approval, "{ prompt: x, quorum: '{{ params.q }}' }"),
        ];
        for (kind, args) in cases {
            assert_eq!(problems(kind, args), Vec::<String>::new(), "{}: {args}", kind.key());
        }
    }
}

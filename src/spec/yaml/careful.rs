//! The reader that has the last word: tags, merge keys, unusual scalars, and a message for every mistake.
//!
//! It goes through serde and keeps a place for every value, which costs several times what `events` does.

use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;

use super::{DEPTH_MAX, Key, NODES_MAX, Node, Value, caret};
use crate::spec::problem::{Problem, Problems, Source, Span};
use crate::spec::syntax;

/// Reads one document; keys that stand twice are kept and noted.
pub(super) fn read(source: &Arc<Source>) -> Result<(Node, Vec<Problem>), Problems> {
    let read: Spanned<Raw> = serde_yaml::from_str_with_options(&source.text, options())
        .map_err(|error| Problems::new(Arc::clone(source), vec![syntax_problem(source, &error)]))?;
    let mut duplicates = Vec::new();
    let node = place(source, read, false, &mut duplicates);
    Ok((node, duplicates))
}

/// What a plain scalar means; `None` if it is no scalar when it stands alone.
pub(super) fn scalar(text: &str) -> Option<Value> {
    let [raw]: [Raw; 1] = serde_yaml::from_str_with_options(&format!("- {text}"), options()).ok()?;
    match raw {
        Raw::Null => Some(Value::Null),
        Raw::Bool(flag) => Some(Value::Bool(flag)),
        Raw::Int(number) => Some(Value::Int(number)),
        Raw::Float(number) => Some(Value::Float(number, digits(text, number))),
        Raw::Text(text) => Some(Value::Text(text)),
        Raw::List(_) | Raw::Map(_) => None,
    }
}

/// A number's digits as written, as far as they are digits.
fn digits(written: &str, number: f64) -> String {
    let written = written.trim();
    if written.parse::<f64>().is_ok() { written.to_owned() } else { number.to_string() }
}

fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        with_snippet: false,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        reject_tagged_field_names: true,
        duplicate_keys: serde_yaml::options::DuplicateKeyPolicy::PassThrough,
        budget: serde_yaml::budget! {
            max_nodes: NODES_MAX, max_events: 4 * NODES_MAX, max_documents: 1, max_depth: DEPTH_MAX,
            max_aliases: 10_000, flow_nesting_limit: DEPTH_MAX
        },
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: 200_000, max_replay_stack_depth: 16 },
    }
}

fn syntax_problem(source: &Source, error: &serde_yaml::Error) -> Problem {
    let offset = error.location().map_or(0, |at| byte_offset(source, at));
    syntax::problem(source, offset, &error.render_with_formatter(&serde_yaml::UserMessageFormatter))
}

/// Scanner errors carry no byte offset, so it is found again from line and column.
fn byte_offset(source: &Source, at: serde_yaml::Location) -> usize {
    if let Some(offset) = at.span().byte_offset().and_then(|offset| usize::try_from(offset).ok()) {
        return floor_char(&source.text, offset);
    }
    let line = usize::try_from(at.line()).unwrap_or(1).max(1);
    let column = usize::try_from(at.column()).unwrap_or(1).max(1);
    let start: usize = source.text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = source.text.get(start..).unwrap_or("");
    let line_text = rest.split('\n').next().unwrap_or("");
    start + line_text.chars().take(column - 1).map(char::len_utf8).sum::<usize>()
}

fn floor_char(text: &str, mut offset: usize) -> usize {
    offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// The tree as serde sees it, before places are resolved.
enum Raw {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Raw, E> {
        i64::try_from(value).map(Raw::Int).map_err(|_| E::custom(format!("number `{value}` does not fit into 64 bits")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = access.next_entry()? {
            pairs.push(pair);
        }
        Ok(Raw::Map(pairs))
    }
}

/// The node of what was read. What an alias brings stands where it was written; the alias itself where it is used.
fn place(source: &Source, raw: Spanned<Raw>, in_alias: bool, duplicates: &mut Vec<Problem>) -> Node {
    let span = span_of(source, if in_alias { raw.defined } else { raw.referenced });
    let in_alias = in_alias || raw.referenced != raw.defined;
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(flag) => Value::Bool(flag),
        Raw::Int(number) => Value::Int(number),
        Raw::Float(number) => Value::Float(number, digits(source.slice(span_of(source, raw.defined)), number)),
        Raw::Text(text) => Value::Text(text),
        Raw::List(items) => {
            Value::List(items.into_iter().map(|item| place(source, item, in_alias, duplicates)).collect())
        }
        Raw::Map(pairs) => Value::Map(place_pairs(source, pairs, in_alias, duplicates)),
    };
    Node { value, span }
}

fn place_pairs(
    source: &Source,
    pairs: Vec<(Spanned<String>, Spanned<Raw>)>,
    in_alias: bool,
    duplicates: &mut Vec<Problem>,
) -> Vec<(Key, Node)> {
    let mut placed: Vec<(Key, Node)> = Vec::with_capacity(pairs.len());
    let mut seen = std::collections::HashMap::with_capacity(pairs.len());
    for (key, raw) in pairs {
        let at = if in_alias { key.defined } else { key.referenced };
        let key = Key { span: span_of(source, at), text: key.value };
        let node = place(source, raw, in_alias, duplicates);
        if let Some(first) = seen.insert(key.text.clone(), key.span) {
            let problem = Problem::new("yaml::duplicate_key", format!("key `{}` stands twice", key.text), key.span)
                .label("again here")
                .other(first, "first here")
                .help("keep one of them; YAML would silently use only one");
            duplicates.push(problem);
        }
        placed.push((key, node));
    }
    placed
}

fn span_of(source: &Source, at: serde_yaml::Location) -> Span {
    let start = byte_offset(source, at);
    let len = at.span().byte_len().and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
    caret(&source.text, start, floor_char(&source.text, start.saturating_add(len)))
}

//! YAML text to a tree of nodes that know their place. The only module that knows which YAML crate is used.
//!
//! Refuses what could surprise an author: duplicate keys, several documents, unknown tags, YAML 1.1 booleans
//! (`yes` is text), and files that are too big, too deep or swell through aliases. See `docs/design/yaml.md`.

use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;

use super::problem::{Problem, Problems, Source, Span};
use super::syntax;

/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Deepest nesting of lists and mappings.
pub const DEPTH_MAX: usize = 64;
/// Most nodes in a file, aliases counted as often as they are used.
pub const NODES_MAX: usize = 1_000_000;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it stands; for an alias, where the alias stands.
    pub span: Span,
}

/// What a node can hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction or an exponent, with its digits as written.
    Float(f64, String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// The key of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its text.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

impl Node {
    /// The value of `key`, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(pairs) => pairs.iter().find(|(k, _)| k.text == key).map(|(_, node)| node),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) | Value::Text(_) | Value::List(_) => None,
        }
    }

    /// The text, if this is text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What kind of thing this is, in an author's words.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(..) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The same value as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(flag) => (*flag).into(),
            Value::Int(number) => (*number).into(),
            Value::Float(number, _) => (*number).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(pairs) => pairs.iter().map(|(key, node)| (key.text.clone(), node.to_json())).collect(),
        }
    }

    /// A node for a JSON value, standing at `span`.
    pub fn from_json(json: &serde_json::Value, span: Span) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(flag) => Value::Bool(*flag),
            serde_json::Value::Number(number) => number
                .as_i64()
                .map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::MAX), number.to_string()), Value::Int),
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(|v| Self::from_json(v, span)).collect()),
            serde_json::Value::Object(map) => {
                Value::Map(map.iter().map(|(k, v)| (Key { text: k.clone(), span }, Self::from_json(v, span))).collect())
            }
        };
        Self { value, span }
    }
}

/// Parses one document.
///
/// # Errors
/// The first mistake that keeps the text from being YAML, or every duplicate key.
pub fn parse(source: &Arc<Source>) -> Result<Node, Problems> {
    let (node, duplicates) = parse_with_duplicates(source)?;
    if duplicates.is_empty() { Ok(node) } else { Err(Problems::new(Arc::clone(source), duplicates)) }
}

/// Parses one document; keys that stand twice are kept and noted, so that the rest can still be checked.
///
/// # Errors
/// The first mistake that keeps the text from being YAML.
pub fn parse_with_duplicates(source: &Arc<Source>) -> Result<(Node, Vec<Problem>), Problems> {
    let fail = |problem: Problem| Problems::new(Arc::clone(source), vec![problem]);
    if source.text.len() > FILE_BYTES_MAX {
        let message = format!("file has {} bytes, more than the {FILE_BYTES_MAX} that are read", source.text.len());
        return Err(fail(
            Problem::new("yaml::too_big", message, Span::default()).help("split the runbook into several"),
        ));
    }
    let read: Spanned<Raw> = serde_yaml::from_str_with_options(&source.text, options())
        .map_err(|error| fail(syntax_problem(source, &error)))?;
    let mut duplicates = Vec::new();
    let node = place(source, read, false, &mut duplicates);
    Ok((node, duplicates))
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
        Raw::Float(number) => {
            let written = source.slice(span_of(source, raw.defined)).trim();
            let digits = if written.parse::<f64>().is_ok() { written.to_owned() } else { number.to_string() };
            Value::Float(number, digits)
        }
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
    let end = floor_char(&source.text, start.saturating_add(len));
    // A block or a missing value has no width of its own; the caret then covers its first line.
    let text = &source.text[start..end];
    let first_line = text.split('\n').next().unwrap_or("").trim_end();
    let len = if text.contains('\n') && !text.starts_with(['|', '>', '"', '\'']) {
        first_line.len()
    } else {
        text.trim_end().len()
    };
    Span { start, len }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Node, Problems> {
        parse(&Arc::new(Source { name: "t.yaml".into(), text: text.into() }))
    }

    #[test]
    fn values_keep_their_meaning_and_place() {
        let node = read("a: yes\nb: 0755\nc: 1.10\nd: [1, true, ~]\n").expect("valid");
        assert_eq!(node.get("a").and_then(Node::text), Some("yes"));
        assert_eq!(node.get("b").and_then(Node::text), Some("0755"));
        assert_eq!(node.get("c").map(|n| &n.value), Some(&Value::Float(1.1, "1.10".into())));
        assert_eq!(node.get("b").map(|n| n.span), Some(Span { start: 10, len: 4 }));
    }

    #[test]
    fn a_key_that_stands_twice_is_named_with_both_places() {
        let problems = read("a: 1\nb: 2\na: 3\n").expect_err("duplicate");
        assert_eq!(problems.list.len(), 1);
        assert_eq!(problems.list[0].message, "key `a` stands twice");
        assert_eq!(problems.list[0].other.as_ref().map(|(span, _)| span.start), Some(0));
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let line = format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", "));
            bomb.push_str(&line);
        }
        assert_eq!(read(&bomb).expect_err("bomb").list[0].code, "yaml::alias_bomb");
        let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
        assert_eq!(read(&deep).expect_err("deep").list[0].code, "yaml::too_deep");
    }
}

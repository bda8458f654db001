//! YAML text to a tree of nodes that know their place. The only module that knows which YAML crates are used.
//!
//! `events` reads what most files hold, in one pass over the parser's events; everything else, mistakes included, is
//! read again by `careful`, which has the last word.
//! Refuses what could surprise an author: duplicate keys, several documents, unknown tags, YAML 1.1 booleans
//! (`yes` is text), and files that are too big, too deep or swell through aliases. See `docs/design/yaml.md`.

use std::sync::Arc;

use zeroize::Zeroize as _;

use super::problem::{Problem, Problems, Source, Span};

mod careful;
mod events;

/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Deepest nesting of lists and mappings.
pub const DEPTH_MAX: usize = 64;
/// Most nodes in a file, aliases counted as often as they are used.
pub const NODES_MAX: usize = 4_000_000;

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
    /// Wipes every text in it: what was rendered may hold secrets.
    pub fn wipe(&mut self) {
        match &mut self.value {
            Value::Text(text) => text.zeroize(),
            Value::List(items) => items.iter_mut().for_each(Self::wipe),
            Value::Map(pairs) => pairs.iter_mut().for_each(|(_, node)| node.wipe()),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) => {}
        }
    }

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
    if source.text.len() > FILE_BYTES_MAX {
        let message = format!("file has {} bytes, more than the {FILE_BYTES_MAX} that are read", source.text.len());
        let problem = Problem::new("yaml::too_big", message, Span::default()).help("split the runbook into several");
        return Err(Problems::new(Arc::clone(source), vec![problem]));
    }
    match events::read(source) {
        Some(node) => Ok((node, Vec::new())),
        None => careful::read(source),
    }
}

/// Where the caret goes for what stands at `start..end`.
fn caret(text: &str, start: usize, end: usize) -> Span {
    // A block or a missing value has no width of its own; the caret then covers its first line.
    let written = &text[start..end];
    let first_line = written.split('\n').next().unwrap_or("").trim_end();
    let len = if written.contains('\n') && !written.starts_with(['|', '>', '"', '\'']) {
        first_line.len()
    } else {
        written.trim_end().len()
    };
    Span { start, len }
}

#[cfg(test)]
mod tests;

//! From nodes to typed values, reporting every mistake instead of stopping at the first.
//!
//! [`Decode`] also describes its type as JSON Schema, so that the schema and the reader are one text.
//! Types are declared with [`record!`](crate::record) and [`choice!`](crate::choice).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;

use super::problem::{Problem, Problems, Source, Span, did_you_mean, nearest};
use super::yaml::{Key, Node, Value};

/// Pattern of text that a template will replace, for schemas.
pub const TEMPLATE: &str = r"\{\{";

/// Pattern of text that stands for a whole number.
const INTEGER_TEXT: &str = r"^\s*[+-]?[0-9]+\s*$";

/// Reads nodes of one file and collects what is wrong with them.
#[derive(Debug)]
pub struct Decoder {
    /// The file.
    pub source: Arc<Source>,
    /// What is wrong so far.
    pub problems: Vec<Problem>,
    /// Whether text may still hold templates, which then stand for a value of any type.
    pub templates: Templates,
}

/// How text with `{{ }}` is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Templates {
    /// As ordinary text (outside action arguments, or after rendering).
    Literal,
    /// As a value that is not known yet; accepted wherever a scalar or list is.
    Pending,
}

impl Decoder {
    /// A decoder for a file whose text is what it says.
    pub fn new(source: Arc<Source>) -> Self {
        Self { source, problems: Vec::new(), templates: Templates::Literal }
    }

    /// Notes a mistake.
    pub fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Notes that `node` is not what was expected.
    pub fn expected(&mut self, node: &Node, what: &str, help: Option<String>) {
        let message = format!("expected {what}, found {}", node.kind());
        let help = if node.value == Value::Null { Some("write a value, or drop the key".into()) } else { help };
        match node.value {
            Value::Null if self.source.text.trim().is_empty() => {
                let problem = Problem::new("spec::empty", "the file is empty", node.span);
                self.problem(problem.help("begin with `apiVersion: piton/v1`, or let `piton new` write a runbook"));
            }
            _ => self.problem(Problem::new("spec::wrong_type", message, node.span).label("here").help_if(help)),
        }
    }

    /// The value, or everything that is wrong.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Problems> {
        match value {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(Problems::new(self.source, self.problems)),
        }
    }

    /// Whether the node is text that only rendering will give its value.
    pub fn is_pending(&self, node: &Node) -> bool {
        self.templates == Templates::Pending && node.text().is_some_and(|text| text.contains("{{"))
    }
}

/// A type that an author can write in YAML.
pub trait Decode: Sized {
    /// Reads the node; nothing if it is wrong, which is then noted in `d`.
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self>;

    /// The value of a key that is not there; nothing if the key is required.
    fn absent() -> Option<Self> {
        None
    }

    /// The value as an author would write it, for the defaults in schemas; nothing when there is nothing to write.
    fn written(&self) -> Option<serde_json::Value> {
        None
    }

    /// The JSON Schema of the type; named types add themselves to `schemas` and return a reference.
    fn schema(schemas: &mut Schemas) -> serde_json::Value;
}

/// Named schemas gathered while a schema is built.
#[derive(Debug, Default)]
pub struct Schemas {
    /// By name.
    pub defs: BTreeMap<String, serde_json::Value>,
    /// Whether the place is inside the arguments of an action, where a template may stand for a value of any type.
    pub templates: bool,
}

impl Schemas {
    /// A reference to the schema `name`, built once.
    pub fn named(&mut self, name: &str, build: impl FnOnce(&mut Self) -> serde_json::Value) -> serde_json::Value {
        if !self.defs.contains_key(name) {
            self.defs.insert(name.to_owned(), json!(true));
            let schema = build(self);
            self.defs.insert(name.to_owned(), schema);
        }
        json!({ "$ref": format!("#/$defs/{name}") })
    }

    /// The schema, or text with a template where one may stand for the value.
    pub fn or_template(&self, schema: serde_json::Value) -> serde_json::Value {
        if self.templates { json!({ "anyOf": [schema, { "type": "string", "pattern": TEMPLATE }] }) } else { schema }
    }

    /// What `build` yields inside the arguments of an action.
    pub fn in_arguments(&mut self, build: impl FnOnce(&mut Self) -> serde_json::Value) -> serde_json::Value {
        let before = std::mem::replace(&mut self.templates, true);
        let schema = build(self);
        self.templates = before;
        schema
    }

    /// Wraps a schema into a whole document.
    pub fn document(self, title: &str, root: &serde_json::Value) -> serde_json::Value {
        let mut document = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "title": title });
        if let (Some(map), Some(root)) = (document.as_object_mut(), root.as_object()) {
            map.extend(root.clone());
            map.insert("$defs".into(), json!(self.defs));
        }
        document
    }
}

/// Reads the keys of a mapping one by one and then refuses those nobody asked for.
#[derive(Debug)]
pub struct MapReader<'n> {
    pairs: &'n [(Key, Node)],
    span: Span,
    asked: BTreeSet<&'static str>,
    what: &'static str,
}

impl<'n> MapReader<'n> {
    /// Starts reading; notes a mistake if `node` is no mapping.
    pub fn new(node: &'n Node, what: &'static str, d: &mut Decoder) -> Option<Self> {
        match &node.value {
            Value::Map(pairs) => Some(Self { pairs, span: node.span, asked: BTreeSet::new(), what }),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(..) | Value::Text(_) | Value::List(_) => {
                let wanted = if what == "this" { "a mapping".to_owned() } else { format!("the keys of {what}") };
                d.expected(node, &wanted, Some("write `key: value` pairs, one a line or in `{ }`".into()));
                None
            }
        }
    }

    /// The pair of `key`, marked as known.
    pub fn take(&mut self, key: &'static str) -> Option<&'n (Key, Node)> {
        self.asked.insert(key);
        self.pairs.iter().find(|(k, _)| k.text == key)
    }

    /// Reads the value of `key`, or `default` when it is not there.
    pub fn field<T: Decode>(&mut self, key: &'static str, default: Option<T>, d: &mut Decoder) -> Option<T> {
        if let Some((_, node)) = self.take(key) {
            return T::decode(node, d);
        }
        let value = default.or_else(T::absent);
        if value.is_none() {
            let message = format!("{} lacks `{key}`", self.what);
            d.problem(
                Problem::new("spec::missing_key", message, self.span)
                    .label("in here")
                    .help(format!("add `{key}: ...`")),
            );
        }
        value
    }

    /// Whether nothing here knows `key`; actions are never asked for by name.
    pub fn is_unknown(&self, key: &str) -> bool {
        !self.asked.contains(key)
    }

    /// Refuses keys that were not asked for; `extra` names more keys that are known here.
    pub fn finish(self, extra: &[&'static str], d: &mut Decoder) {
        for (key, _) in self.pairs {
            let name = key.text.as_str();
            if self.asked.contains(name) || extra.contains(&name) {
                continue;
            }
            let message = format!("unknown key `{name}` in {}", self.what);
            let help = did_you_mean(name, self.asked.iter().copied());
            // Further keys are named when they are meant; there are too many of them to list.
            let help = nearest(name, self.asked.iter().chain(extra).copied())
                .map(|meant| format!("did you mean `{meant}`?"))
                .or_else(|| help.map(|list| if extra.is_empty() { list } else { format!("{list}; and one action") }));
            d.problem(Problem::new("spec::unknown_key", message, key.span).label("not known here").help_if(help));
        }
    }

    /// Every key with its place and value.
    pub fn pairs(&self) -> &'n [(Key, Node)] {
        self.pairs
    }

    /// Where the mapping stands.
    pub fn span(&self) -> Span {
        self.span
    }
}

impl Decode for String {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Int(number) => Some(number.to_string()),
            Value::Float(_, digits) => Some(digits.clone()),
            Value::Bool(_) | Value::Null | Value::List(_) | Value::Map(_) => {
                d.expected(node, "text", Some("put it in quotes".into()));
                None
            }
        }
    }

    fn written(&self) -> Option<serde_json::Value> {
        (!self.is_empty()).then(|| self.as_str().into())
    }

    fn schema(_: &mut Schemas) -> serde_json::Value {
        json!({ "type": ["string", "number"] })
    }
}

impl Decode for bool {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        if d.is_pending(node) {
            return None;
        }
        match &node.value {
            Value::Bool(flag) => Some(*flag),
            Value::Null | Value::Int(_) | Value::Float(..) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                d.expected(node, "`true` or `false`", Some("write `true` or `false`, without quotes".into()));
                None
            }
        }
    }

    fn written(&self) -> Option<serde_json::Value> {
        Some((*self).into())
    }

    fn schema(schemas: &mut Schemas) -> serde_json::Value {
        schemas.or_template(json!({ "type": "boolean" }))
    }
}

/// Whether `node` alone would be a `T`.
fn reads<T: Decode>(node: &Node, d: &Decoder) -> bool {
    T::decode(node, &mut Decoder::new(Arc::clone(&d.source))).is_some()
}

/// Whether text is one word that means itself in a YAML list.
pub(super) fn is_plain(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_./+".contains(c);
    text.len() <= 40 && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && text.chars().all(is_word)
}

/// Reads a whole number that fits into `T`; rendered text counts when it is one.
fn decode_int<T: TryFrom<i64>>(node: &Node, d: &mut Decoder, what: &str) -> Option<T> {
    if d.is_pending(node) {
        return None;
    }
    let number = match &node.value {
        Value::Int(number) => Some(*number),
        Value::Text(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Float(..) | Value::List(_) | Value::Map(_) => None,
    };
    if let Value::Float(_, digits) = &node.value {
        let is_whole = digits.chars().all(|c| c.is_ascii_digit() || c == '-');
        let message = format!("number `{digits}` is {}", if is_whole { "too large here" } else { "not whole" });
        d.problem(Problem::new("spec::out_of_range", message, node.span).label("here").help(format!("write {what}")));
        return None;
    }
    let Some(number) = number else {
        d.expected(node, what, Some(format!("write {what}")));
        return None;
    };
    let fit = T::try_from(number).ok();
    if fit.is_none() {
        let message = format!("number `{number}` is too {} here", if number < 0 { "small" } else { "large" });
        let problem = Problem::new("spec::out_of_range", message, node.span).label("out of range");
        d.problem(problem.help(format!("write {what}")));
    }
    fit
}

macro_rules! decode_ints {
    ($($int:ty => $what:literal, $min:expr;)*) => {$(
        impl Decode for $int {
            fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
                decode_int(node, d, $what)
            }

            fn written(&self) -> Option<serde_json::Value> {
                Some((*self).into())
            }

            fn schema(schemas: &mut Schemas) -> serde_json::Value {
                schemas.or_template(json!({ "type": ["integer", "string"], "minimum": $min, "pattern": INTEGER_TEXT }))
            }
        }
    )*};
}

decode_ints! {
    u32 => "a whole number from 0 to 4294967295", 0;
    u64 => "a whole number from 0", 0;
    i32 => "a whole number from -2147483648 to 2147483647", i32::MIN;
    i64 => "a whole number", i64::MIN;
    u16 => "a whole number from 0 to 65535", 0;
}

impl Decode for f64 {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        if d.is_pending(node) {
            return None;
        }
        match &node.value {
            #[expect(clippy::cast_precision_loss, reason = "factors are small numbers")]
            Value::Int(number) => Some(*number as f64),
            Value::Float(number, _) => Some(*number),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                d.expected(node, "a number", Some("write a number without quotes".into()));
                None
            }
        }
    }

    fn written(&self) -> Option<serde_json::Value> {
        Some((*self).into())
    }

    fn schema(schemas: &mut Schemas) -> serde_json::Value {
        schemas.or_template(json!({ "type": "number" }))
    }
}

impl Decode for serde_json::Value {
    fn decode(node: &Node, _: &mut Decoder) -> Option<Self> {
        Some(node.to_json())
    }

    fn schema(_: &mut Schemas) -> serde_json::Value {
        json!(true)
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        T::decode(node, d).map(Some)
    }

    fn written(&self) -> Option<serde_json::Value> {
        self.as_ref().and_then(T::written)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn schema(schemas: &mut Schemas) -> serde_json::Value {
        T::schema(schemas)
    }
}

impl<T: Decode> Decode for Box<T> {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        T::decode(node, d).map(Box::new)
    }

    fn schema(schemas: &mut Schemas) -> serde_json::Value {
        T::schema(schemas)
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        if d.is_pending(node) {
            return None;
        }
        let Value::List(items) = &node.value else {
            let help = match &node.value {
                // One item where a list of them belongs is what is mostly meant.
                Value::Text(text) if is_plain(text) && reads::<T>(node, d) => {
                    format!("write `[{text}]`, or one `- item` a line")
                }
                _ => "write it as `[a, b]` or with one `- item` a line".to_owned(),
            };
            d.expected(node, "a list", Some(help));
            return None;
        };
        let read: Vec<Option<T>> = items.iter().map(|item| T::decode(item, d)).collect();
        read.into_iter().collect()
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn written(&self) -> Option<serde_json::Value> {
        let items: Option<Vec<_>> = self.iter().map(T::written).collect();
        items.filter(|items| !items.is_empty()).map(Into::into)
    }

    fn schema(schemas: &mut Schemas) -> serde_json::Value {
        let items = T::schema(schemas);
        schemas.or_template(json!({ "type": "array", "items": items }))
    }
}

impl<T: Decode> Decode for BTreeMap<String, T> {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        if d.is_pending(node) {
            return None;
        }
        let reader = MapReader::new(node, "this", d)?;
        let read: Vec<_> = reader
            .pairs()
            .iter()
            .map(|(key, node)| T::decode(node, d).map(|value| (key.text.clone(), value)))
            .collect();
        read.into_iter().collect()
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn schema(schemas: &mut Schemas) -> serde_json::Value {
        let values = T::schema(schemas);
        schemas.or_template(json!({ "type": "object", "additionalProperties": values }))
    }
}

/// A value that remembers where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

impl<T: Decode> Decode for Spanned<T> {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        T::decode(node, d).map(|value| Self { value, span: node.span })
    }

    fn schema(schemas: &mut Schemas) -> serde_json::Value {
        T::schema(schemas)
    }
}

/// A mapping that keeps the order of the file and the places of its keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Named<T>(pub Vec<(Key, T)>);

impl<T> Named<T> {
    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(key, _)| key.text == name).map(|(_, value)| value)
    }

    /// The names in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.iter().map(|(key, _)| key.text.as_str())
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Decode> Decode for Named<T> {
    fn decode(node: &Node, d: &mut Decoder) -> Option<Self> {
        let reader = MapReader::new(node, "this", d)?;
        let read: Vec<_> =
            reader.pairs().iter().map(|(key, node)| T::decode(node, d).map(|value| (key.clone(), value))).collect();
        read.into_iter().collect::<Option<Vec<_>>>().map(Self)
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }

    fn schema(schemas: &mut Schemas) -> serde_json::Value {
        json!({ "type": "object", "additionalProperties": T::schema(schemas) })
    }
}

/// Adds description and default to the schema of a field.
pub fn describe(schema: serde_json::Value, doc: &str, default: Option<serde_json::Value>) -> serde_json::Value {
    let mut schema = match schema {
        serde_json::Value::Object(map) => map,
        _ => serde_json::Map::new(),
    };
    schema.insert("description".into(), json!(doc.trim()));
    if let Some(default) = default {
        schema.insert("default".into(), default);
    }
    serde_json::Value::Object(schema)
}

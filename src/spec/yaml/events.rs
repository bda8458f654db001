//! The reader for what most files hold: one pass over the parser's events.
//!
//! It decides nothing that is unusual. A syntax error, a tag, a merge key, a key that is no plain text or stands
//! twice, too much of anything: it gives up, and `careful` reads the whole text again and says what is wrong.
//! Where both read a text they agree on every value and place; `agreement` in the tests holds them to it.

use std::borrow::Cow;
use std::collections::HashSet;

use granit_parser::{Event, Parser, ScalarStyle};

use super::{DEPTH_MAX, Key, NODES_MAX, Node, Value, careful, caret};
use crate::spec::problem::{Source, Span};

/// Most nodes that aliases may bring.
const ALIASED_NODES_MAX: usize = 50_000;
/// Mappings with more keys are looked at through a set for keys that stand twice.
const FEW_KEYS: usize = 16;

/// The only document of a text; `None` to have it read carefully.
pub(super) fn read(source: &Source) -> Option<Node> {
    let options = granit_parser::options! {
        emit_comments: false, flow_nesting_limit: DEPTH_MAX, block_nesting_limit: DEPTH_MAX
    };
    let parser = Parser::new_from_str_with_options(&source.text, options);
    let mut builder = Builder { text: &source.text, parser, anchors: Vec::new(), nodes: 0, aliased: 0 };
    builder.document()
}

/// A tree that is being built, and what it has cost so far.
struct Builder<'a> {
    text: &'a str,
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    /// What stands behind each anchor, and how many nodes that are.
    anchors: Vec<(usize, Node, usize)>,
    nodes: usize,
    aliased: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        let (event, place) = self.parser.next_event()?.ok()?;
        let range = place.byte_range()?;
        Some((event, caret(self.text, range.start, range.end)))
    }

    fn document(&mut self) -> Option<Node> {
        let (Event::StreamStart, _) = self.next()? else { return None };
        let (Event::DocumentStart(..), _) = self.next()? else { return None };
        let (event, span) = self.next()?;
        let node = self.node(event, span, 0)?;
        let (Event::DocumentEnd, _) = self.next()? else { return None };
        matches!(self.next()?, (Event::StreamEnd, _)).then_some(node)
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Option<Node> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return None;
        }
        let before = self.nodes;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, None) => (meaning(text, style)?, anchor),
            Event::SequenceStart(_, anchor, None) if depth < DEPTH_MAX => (self.list(depth)?, anchor),
            Event::MappingStart(_, anchor, None) if depth < DEPTH_MAX => (self.map(depth)?, anchor),
            Event::Alias(anchor) => return self.alias(anchor, span),
            _ => return None,
        };
        let node = Node { value, span };
        if anchor != 0 {
            self.anchors.push((anchor, node.clone(), self.nodes - before + 1));
        }
        Some(node)
    }

    /// What an alias brings stands where it was written; the alias itself where it is used.
    fn alias(&mut self, anchor: usize, span: Span) -> Option<Node> {
        let (_, node, nodes) = self.anchors.iter().rev().find(|(id, ..)| *id == anchor)?;
        self.aliased += nodes;
        self.nodes += nodes;
        (self.aliased <= ALIASED_NODES_MAX).then(|| Node { value: node.value.clone(), span })
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => {
                    items.shrink_to_fit();
                    return Some(Value::List(items));
                }
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Option<Value> {
        let mut pairs: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let text = match event {
                Event::MappingEnd => {
                    // A file of many steps is mostly mappings of one or two keys.
                    pairs.shrink_to_fit();
                    return distinct(&pairs).then_some(Value::Map(pairs));
                }
                Event::Scalar(text, ScalarStyle::Plain, 0, None) if is_plain_key(&text) => text,
                Event::Scalar(text, ScalarStyle::DoubleQuoted | ScalarStyle::SingleQuoted, 0, None) => text,
                _ => return None,
            };
            let (event, place) = self.next()?;
            let node = self.node(event, place, depth + 1)?;
            pairs.push((Key { text: text.into_owned(), span }, node));
        }
    }
}

/// Whether plain text is a name and nothing that YAML gives a meaning of its own.
fn is_plain_key(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !is_special(text)
}

/// Words that are, or in some YAML were, more than text.
fn is_special(text: &str) -> bool {
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    text.len() <= 5 && WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

fn distinct(pairs: &[(Key, Node)]) -> bool {
    if pairs.len() <= FEW_KEYS {
        return (1..pairs.len()).all(|at| pairs[..at].iter().all(|(key, _)| key.text != pairs[at].0.text));
    }
    let mut seen = HashSet::with_capacity(pairs.len());
    pairs.iter().all(|(key, _)| seen.insert(key.text.as_str()))
}

/// What a scalar means; numbers in plain digits and ordinary words at once, everything else carefully.
fn meaning(text: Cow<'_, str>, style: ScalarStyle) -> Option<Value> {
    if style != ScalarStyle::Plain {
        return Some(Value::Text(text.into_owned()));
    }
    match text.as_ref() {
        "" | "~" | "null" => return Some(Value::Null),
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    if is_word && !is_special(&text) && !text.eq_ignore_ascii_case("nan") && !text.eq_ignore_ascii_case("inf") {
        return Some(Value::Text(text.into_owned()));
    }
    let is_digits = text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_digits && (text.len() == 1 || !text.starts_with('0')) {
        return text.parse().ok().map(Value::Int);
    }
    careful::scalar(&text)
}

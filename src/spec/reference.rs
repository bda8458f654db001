//! Templates (Handlebars, text only) and expressions (CEL, typed): which names they use, and their values.
//!
//! Templates carry no logic: `{{ params.x }}` and nothing else. Every name is checked when the runbook is loaded.
//! Expressions have no side effects and are bounded in size. Both see the same scope: `params`, `site`, `steps`, `run`,
//! `item` (inside `foreach`); templates in fields that may hold secrets also see `secrets`.

use std::collections::BTreeSet;

use cel::common::ast::{EntryExpr, Expr, LiteralValue};
use cel::parser::PrattParser;
use handlebars::template::{Parameter, TemplateElement};
use handlebars::{Handlebars, Path, PathSeg, Template};

/// Longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 2_048;
/// Most nodes in an expression.
pub const EXPRESSION_NODES_MAX: usize = 300;

/// A dotted name that a template or an expression uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its parts: `steps`, `boundary`, `outputs`, `at`.
    pub path: Vec<String>,
    /// As the author wrote it, to find it again in the file.
    pub written: String,
}

/// Why a text is no template or no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// The names that a template uses.
///
/// # Errors
/// When the text is no template, or holds more than plain names.
pub fn template_references(text: &str) -> Result<Vec<Reference>, Malformed> {
    if !text.contains("{{") {
        return Ok(Vec::new());
    }
    plain_references(text)
        .or_else(|| references_of(text))
        .ok_or_else(|| Malformed(complaint(malformed_part(text).unwrap_or(text)).to_owned()))
}

/// The first part of a text with braces that keeps it from being a template.
pub fn malformed_part(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let tail = &rest[start..];
        let Some(end) = tail.find("}}") else { return tail.lines().next().map(str::trim_end) };
        let part = &tail[..end + 2];
        if references_of(part).is_none() {
            return Some(part);
        }
        rest = &tail[end + 2..];
    }
    None
}

/// Why `part`, braces and all, is no name.
fn complaint(part: &str) -> &'static str {
    let Some((inside, _)) = part.strip_prefix("{{").and_then(|rest| rest.split_once("}}")) else {
        return "`{{` is never closed by `}}`";
    };
    let inside = inside.trim().trim_matches('~');
    if inside.starts_with(['#', '/', '>', '^', '*']) || inside == "else" {
        "a template carries no logic; use `when` or an expression"
    } else if inside.is_empty() {
        "a template needs a name between its braces"
    } else {
        "a template holds plain names only, like `{{ params.x }}`"
    }
}

/// The names of a template that has plain dotted names between its braces, as nearly all have; nothing when the parser
/// of templates must be asked. Where both answer, they answer alike.
fn plain_references(text: &str) -> Option<Vec<Reference>> {
    if text.contains('\\') {
        return None;
    }
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let (inside, behind) = rest[start + 2..].split_once("}}")?;
        let written = inside.trim_matches(' ');
        let is_plain = written.contains('.') && written.split('.').all(is_plain_part);
        if !is_plain || behind.starts_with('}') {
            return None;
        }
        found.push(Reference { path: written.split('.').map(str::to_owned).collect(), written: written.to_owned() });
        rest = behind;
    }
    Some(found)
}

/// Whether a part of a dotted name means nothing special to the parser of templates.
fn is_plain_part(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphabetic())
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && !matches!(part, "this" | "else" | "as" | "true" | "false" | "null" | "undefined")
}

/// The names in a text with braces; nothing when it is no template or holds more than plain names.
fn references_of(text: &str) -> Option<Vec<Reference>> {
    let template = Template::compile(text).ok()?;
    let mut found = Vec::new();
    for element in &template.elements {
        match element {
            TemplateElement::RawString(_) | TemplateElement::Comment(_) => {}
            TemplateElement::Expression(name) | TemplateElement::HtmlExpression(name) => {
                let plain = name.params.is_empty() && name.hash.is_empty() && !name.block;
                let path = match &name.name {
                    Parameter::Path(Path::Relative((segments, written))) if plain => path_of(segments, written),
                    Parameter::Name(written) if plain => {
                        Some(Reference { path: vec![written.clone()], written: written.clone() })
                    }
                    _ => None,
                };
                found.push(path?);
            }
            _ => return None,
        }
    }
    Some(found)
}

fn path_of(segments: &[PathSeg], written: &str) -> Option<Reference> {
    let path: Option<Vec<String>> = segments
        .iter()
        .map(|segment| match segment {
            PathSeg::Named(name) => Some(name.clone()),
            _ => None,
        })
        .collect();
    path.filter(|path| !path.is_empty()).map(|path| Reference { path, written: written.to_owned() })
}

/// Replaces the names of a template by their values.
///
/// # Errors
/// When a name has no value, or one that is no scalar.
pub fn render(text: &str, scope: &serde_json::Value) -> Result<String, Malformed> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    // A template takes a copy of its scope: of what it names, not of everything that has a name.
    let mut named = serde_json::Map::new();
    for reference in template_references(text)? {
        let value = look_up(scope, &reference.path)
            .ok_or_else(|| Malformed(format!("`{}` has no value here", reference.path.join("."))))?;
        if value.is_object() || value.is_array() {
            let name = reference.path.join(".");
            return Err(Malformed(format!("`{name}` is a list or a mapping and cannot stand inside text")));
        }
        put(&mut named, &reference.path, value);
    }
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.register_escape_fn(handlebars::no_escape);
    registry.render_template(text, &named).map_err(|error| Malformed(error.reason().to_string()))
}

/// Puts a value at a path of names, where no shorter path has a value.
fn put(map: &mut serde_json::Map<String, serde_json::Value>, path: &[String], value: &serde_json::Value) {
    match path {
        [] => {}
        [last] => {
            map.insert(last.clone(), value.clone());
        }
        [first, rest @ ..] => {
            let inner = map.entry(first.as_str()).or_insert_with(|| serde_json::Map::new().into());
            if let serde_json::Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// The value of a template: of the name's own type when the template is nothing but one name, else text.
///
/// # Errors
/// As [`render`].
pub fn evaluate_template(text: &str, scope: &serde_json::Value) -> Result<serde_json::Value, Malformed> {
    let trimmed = text.trim();
    // What stands behind the name is text, also if it ends like one.
    let is_closed_at_its_end = trimmed.find("}}").is_some_and(|end| end + 2 == trimmed.len());
    if trimmed.starts_with("{{")
        && is_closed_at_its_end
        && trimmed.matches("{{").count() == 1
        && let [only] = template_references(trimmed)?.as_slice()
    {
        return look_up(scope, &only.path)
            .cloned()
            .ok_or_else(|| Malformed(format!("`{}` has no value here", only.path.join("."))));
    }
    render(text, scope).map(serde_json::Value::String)
}

/// The value at a path of names (and list indices).
pub fn look_up<'v>(scope: &'v serde_json::Value, path: &[String]) -> Option<&'v serde_json::Value> {
    path.iter().try_fold(scope, |value, part| match value {
        serde_json::Value::Object(map) => map.get(part),
        serde_json::Value::Array(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => None,
    })
}

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    /// As written.
    pub text: String,
    tree: cel::IdedExpr,
    /// First parts of the names it uses.
    roots: BTreeSet<String>,
}

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    /// When it is none, or too long.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(Malformed(format!(
                "expression has {} bytes, at most {EXPRESSION_BYTES_MAX} are read",
                text.len()
            )));
        }
        let parser = PrattParser::new().max_recursion_depth(32).max_expression_node_count(EXPRESSION_NODES_MAX);
        let tree = parser.parse(text).map_err(|errors| {
            let first = errors.errors.first().map_or_else(|| errors.to_string(), |error| error.msg.clone());
            Malformed(format!("this is no expression: {}", first.trim_end_matches('.').to_lowercase()))
        })?;
        let mut expression = Self { text: text.to_owned(), tree, roots: BTreeSet::new() };
        expression.roots = expression.references().into_iter().map(|mut name| name.path.swap_remove(0)).collect();
        Ok(expression)
    }

    /// The names it uses.
    pub fn references(&self) -> Vec<Reference> {
        let mut found = Vec::new();
        walk(&self.tree.expr, &mut Vec::new(), &mut found);
        found
    }

    /// Its value over `scope`, a mapping.
    ///
    /// # Errors
    /// What CEL says: a missing key, types that do not fit together.
    pub fn evaluate(&self, scope: &serde_json::Value) -> Result<serde_json::Value, Malformed> {
        let mut context = cel::Context::default();
        if let serde_json::Value::Object(map) = scope {
            for (name, value) in map.iter().filter(|(name, _)| self.roots.contains(*name)) {
                context.add_variable_from_value(name.as_str(), to_cel(value));
            }
        }
        let value = context.resolve(&self.tree).map_err(|error| Malformed(error.to_string().to_lowercase()))?;
        from_cel(&value).ok_or_else(|| Malformed(format!("the value is a {}, not data", value.type_of())))
    }
}

/// JSON to CEL with every whole number signed, so that `params.n + 1` has one type.
fn to_cel(value: &serde_json::Value) -> cel::Value {
    match value {
        serde_json::Value::Null => cel::Value::Null,
        serde_json::Value::Bool(flag) => cel::Value::Bool(*flag),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)), cel::Value::Int)
        }
        serde_json::Value::String(text) => cel::Value::String(text.clone().into()),
        serde_json::Value::Array(items) => cel::Value::List(items.iter().map(to_cel).collect::<Vec<_>>().into()),
        serde_json::Value::Object(map) => {
            let map: std::collections::HashMap<String, cel::Value> =
                map.iter().map(|(key, value)| (key.clone(), to_cel(value))).collect();
            cel::Value::Map(map.into())
        }
    }
}

/// CEL to JSON; nothing for functions, bytes, times and other things that are no data.
fn from_cel(value: &cel::Value) -> Option<serde_json::Value> {
    match value {
        cel::Value::Null => Some(serde_json::Value::Null),
        cel::Value::Bool(flag) => Some((*flag).into()),
        cel::Value::Int(number) => Some((*number).into()),
        cel::Value::UInt(number) => Some((*number).into()),
        cel::Value::Float(number) => Some((*number).into()),
        cel::Value::String(text) => Some(text.as_str().into()),
        cel::Value::List(items) => items.iter().map(from_cel).collect::<Option<Vec<_>>>().map(Into::into),
        cel::Value::Map(map) => {
            let pairs = map.map.iter().map(|(key, value)| from_cel(value).map(|value| (key.to_string(), value)));
            pairs.collect::<Option<serde_json::Map<_, _>>>().map(serde_json::Value::Object)
        }
        _ => None,
    }
}

/// Collects dotted names; `bound` are the variables of enclosing comprehensions.
fn walk(expr: &Expr, bound: &mut Vec<String>, found: &mut Vec<Reference>) {
    if let Some(path) = dotted(expr) {
        if !bound.contains(&path[0]) && !path[0].starts_with('@') {
            found.push(Reference { written: path.join("."), path });
        }
        return;
    }
    match expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Select(select) => walk(&select.operand.expr, bound, found),
        Expr::Call(call) => {
            for part in call.target.iter().map(AsRef::as_ref).chain(&call.args) {
                walk(&part.expr, bound, found);
            }
        }
        Expr::List(list) => list.elements.iter().for_each(|item| walk(&item.expr, bound, found)),
        Expr::Map(map) => map.entries.iter().for_each(|entry| walk_entry(&entry.expr, bound, found)),
        Expr::Struct(value) => value.entries.iter().for_each(|entry| walk_entry(&entry.expr, bound, found)),
        Expr::Comprehension(over) => {
            walk(&over.iter_range.expr, bound, found);
            let before = bound.len();
            bound.push(over.iter_var.clone());
            bound.push(over.accu_var.clone());
            bound.extend(over.iter_var2.clone());
            for part in [&over.accu_init, &over.loop_cond, &over.loop_step, &over.result] {
                walk(&part.expr, bound, found);
            }
            bound.truncate(before);
        }
    }
}

fn walk_entry(entry: &EntryExpr, bound: &mut Vec<String>, found: &mut Vec<Reference>) {
    match entry {
        EntryExpr::StructField(field) => walk(&field.value.expr, bound, found),
        EntryExpr::MapEntry(pair) => {
            walk(&pair.key.expr, bound, found);
            walk(&pair.value.expr, bound, found);
        }
    }
}

/// `a.b["c"].d` as its parts; nothing for anything else.
fn dotted(expr: &Expr) -> Option<Vec<String>> {
    match expr {
        Expr::Ident(name) => Some(vec![name.clone()]),
        Expr::Select(select) => {
            let mut path = dotted(&select.operand.expr)?;
            path.push(select.field.clone());
            Some(path)
        }
        Expr::Call(call) if call.func_name == "_[_]" => match call.args.as_slice() {
            [operand, index] => {
                let Expr::Literal(LiteralValue::String(key)) = &index.expr else { return None };
                let mut path = dotted(&operand.expr)?;
                path.push(key.inner().to_owned());
                Some(path)
            }
            _ => None,
        },
        Expr::Unspecified
        | Expr::Call(_)
        | Expr::Comprehension(_)
        | Expr::List(_)
        | Expr::Literal(_)
        | Expr::Map(_)
        | Expr::Struct(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn paths(references: &[Reference]) -> Vec<String> {
        references.iter().map(|r| r.path.join("/")).collect()
    }

    #[test]
    fn names_of_templates_are_found() {
        let found = template_references("a {{ steps.stop-65.outputs.at }} b {{site.name}}").expect("template");
        assert_eq!(paths(&found), ["steps/stop-65/outputs/at", "site/name"]);
    }

    /// Texts out of everything that means something to one of the two: where the short way answers, it is right.
    #[test]
    fn the_short_way_to_names_answers_as_the_parser() {
        const WORDS: [&str; 34] = [
            "{{",
            "}}",
            "{",
            "}",
            "{{ ",
            " }}",
            "{{{",
            "}}}",
            "\\",
            "~",
            "!",
            "#if",
            "/if",
            "^",
            "&",
            ">",
            "*",
            "a.b",
            "site.name",
            "params.x-1",
            ".",
            "..",
            "a.this",
            "else.a",
            "a.null",
            "x-.y_",
            " ",
            "\n",
            "é.b",
            "[0]",
            "@root.a",
            "a.0b",
            "--",
            "-x.y",
        ];
        let mut random = fastrand::Rng::with_seed(23);
        let mut answered = 0;
        for _ in 0..40_000 {
            let middle: String = (0..random.usize(0..5)).map(|_| random.choice(WORDS).unwrap_or_default()).collect();
            let text = if random.bool() { format!("x {{{{ {middle} }}}} y") } else { middle };
            if let Some(names) = plain_references(&text).filter(|names| !names.is_empty()) {
                assert_eq!(references_of(&text), Some(names), "{text:?}");
                answered += 1;
            }
        }
        assert!(answered > 500, "{answered}");
    }

    #[test]
    fn a_template_reads_values_in_lists_and_in_each_other() {
        let scope = json!({ "params": { "list": [{ "a": 1 }, "two"], "x": { "y": true, "z": null } } });
        let text = "{{params.list.1}} {{ params.x.y }}{{params.x.z}} {{params.x.y}}";
        assert_eq!(render(text, &scope), Ok("two true true".to_owned()));
    }

    #[test]
    fn logic_in_templates_is_refused() {
        for text in ["{{#if a}}x{{/if}}", "{{upper a}}", "{{> part}}", "{{ a"] {
            assert!(template_references(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_template_of_one_name_keeps_its_type() {
        let scope = json!({ "params": { "n": 5, "list": [1, 2], "s": "<b>&" } });
        assert_eq!(evaluate_template("{{ params.n }}", &scope), Ok(json!(5)));
        assert_eq!(evaluate_template("n={{ params.n }}", &scope), Ok(json!("n=5")));
        assert_eq!(evaluate_template("{{ params.n }} x }}", &scope), Ok(json!("5 x }}")));
        assert_eq!(evaluate_template("x {{ params.s }}", &scope), Ok(json!("x <b>&")));
        assert!(evaluate_template("x {{ params.list }}", &scope).is_err());
        assert!(evaluate_template("{{ params.typo }}", &scope).is_err());
    }

    #[test]
    fn names_of_expressions_are_found() {
        let e = Expression::parse(
            r#"params.n > 3 && steps["stop-65"].outputs.x == site.name && ["a"].exists(i, i == run.id)"#,
        )
        .expect("expression");
        assert_eq!(paths(&e.references()), ["params/n", "steps/stop-65/outputs/x", "site/name", "run/id"]);
    }

    #[test]
    fn expressions_are_typed() {
        let scope = json!({ "params": { "n": 5, "s": "5" } });
        let value = |text: &str| Expression::parse(text).and_then(|e| e.evaluate(&scope));
        assert_eq!(value("params.n + 1 == 6"), Ok(json!(true)));
        assert!(value("params.n > params.s").is_err());
        assert!(value("params.missing").is_err());
        assert!(Expression::parse("a b").is_err());
        assert!(Expression::parse(&"(".repeat(500)).is_err());
    }
}

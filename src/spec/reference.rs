//! Templates (Handlebars, text only) and expressions (CEL, typed): which names they use, and their values.
//!
//! Templates carry no logic: `{{ params.x }}` and nothing else. Every name is checked when the runbook is loaded.
//! Expressions have no side effects and are bounded in size. Both see the same scope: `params`, `site`, `steps`, `run`,
//! `item` (inside `foreach`); templates in fields that may hold secrets also see `secrets`.

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
    references_of(text).ok_or_else(|| Malformed(complaint(malformed_part(text).unwrap_or(text)).to_owned()))
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
    for reference in template_references(text)? {
        let value = look_up(scope, &reference.path)
            .ok_or_else(|| Malformed(format!("`{}` has no value here", reference.path.join("."))))?;
        if value.is_object() || value.is_array() {
            let name = reference.path.join(".");
            return Err(Malformed(format!("`{name}` is a list or a mapping and cannot stand inside text")));
        }
    }
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.register_escape_fn(handlebars::no_escape);
    registry.render_template(text, scope).map_err(|error| Malformed(error.reason().to_string()))
}

/// The value of a template: of the name's own type when the template is nothing but one name, else text.
///
/// # Errors
/// As [`render`].
pub fn evaluate_template(text: &str, scope: &serde_json::Value) -> Result<serde_json::Value, Malformed> {
    let trimmed = text.trim();
    if trimmed.starts_with("{{")
        && trimmed.ends_with("}}")
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
        Ok(Self { text: text.to_owned(), tree })
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
            for (name, value) in map {
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

//! The reference pages: what is generated from the types is as it is in the types, and every problem has its entry.
//! `PITON_BLESS=1` writes the generated parts anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use piton::plan::has_inverse;
use piton::spec::actions::{ActionKind, CrashDefault};
use piton::spec::decode::{Schemas, TEMPLATE};
use serde_json::Value as Json;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The parts of a JSON Schema document that a page needs.
struct Pages {
    schema: Json,
    /// Records that a field named and that have no section yet.
    wanted: Vec<String>,
}

impl Pages {
    fn new(schema: Json) -> Self {
        Self { schema, wanted: Vec::new() }
    }

    fn definition(&self, name: &str) -> &Json {
        &self.schema["$defs"][name]
    }

    /// The type of a value in words; records are linked and remembered.
    fn type_of(&mut self, schema: &Json) -> String {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            return match name {
                "Duration" => "duration".to_owned(),
                "Action" => "one action".to_owned(),
                "Step" => "[step](#step)".to_owned(),
                _ => {
                    self.wanted.push(name.to_owned());
                    format!("[{}](#{})", words(name), words(name).replace(' ', "-"))
                }
            };
        }
        if let Some(word) = schema.get("const") {
            return format!("`{}`", text(word));
        }
        if let Some(words) = schema["enum"].as_array() {
            let words: Vec<String> = words.iter().map(|word| format!("`{}`", text(word))).collect();
            return words.join(", ");
        }
        if let Some(options) = schema["anyOf"].as_array() {
            // That a template may stand for a value is said once, in the introduction of the actions.
            let options: Vec<&Json> = options.iter().filter(|option| option["pattern"] != TEMPLATE).collect();
            let parts: Vec<String> = options.into_iter().map(|option| self.type_of(option)).collect();
            return parts.join(", ");
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Json::String(kind) => vec![kind],
            Json::Array(kinds) => kinds.iter().filter_map(Json::as_str).collect(),
            _ => return "any value".to_owned(),
        };
        match kinds.as_slice() {
            ["array"] => format!("list of {}", self.type_of(&schema["items"])),
            ["object"] => format!("name: {}", self.type_of(&schema["additionalProperties"])),
            ["string", ..] => "text".to_owned(),
            ["boolean"] => "`true`, `false`".to_owned(),
            ["integer", ..] => "whole number".to_owned(),
            ["number"] => "number".to_owned(),
            other => panic!("no words for {other:?}"),
        }
    }

    /// A table of the keys of a record; keys in `hidden` are left out.
    fn table(&mut self, record: &Json, hidden: &[&str]) -> String {
        let required: Vec<&str> =
            record["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        let mut table = String::from("| key | value | default | meaning |\n|---|---|---|---|\n");
        let properties = record["properties"].as_object().expect("a record has properties").clone();
        for (key, schema) in properties.iter().filter(|(key, _)| !hidden.contains(&key.as_str())) {
            let value = self.type_of(schema);
            let default = match schema.get("default") {
                Some(default) => format!("`{}`", text(default)),
                None if required.contains(&key.as_str()) => "required".to_owned(),
                None => String::new(),
            };
            let meaning = text(&schema["description"]).replace('|', "\\|");
            writeln!(table, "| `{key}` | {value} | {default} | {meaning} |").expect("a string takes any text");
        }
        table
    }

    /// Sections for all records that were named so far and have none yet.
    fn sections(&mut self, done: &mut BTreeSet<String>) -> String {
        let mut page = String::new();
        while let Some(name) = self.wanted.pop() {
            if !done.insert(name.clone()) {
                continue;
            }
            let record = self.definition(&name).clone();
            let table = self.table(&record, &[]);
            let words = words(&name);
            let heading = words[..1].to_uppercase() + &words[1..];
            write!(page, "### {heading}\n{}\n\n{table}\n", text(&record["description"]))
                .expect("a string takes any text");
        }
        page
    }
}

/// The name of a type as words: `NeedWithOutcome` is `need with outcome`.
fn words(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

fn text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn crash(kind: ActionKind) -> &'static str {
    match kind.crash_default() {
        CrashDefault::Ask => "a person is asked, unless the step is `idempotent`",
        CrashDefault::Safe => "it simply runs again",
        CrashDefault::Resumable => "it goes on where it was",
        CrashDefault::Probe => "it looks at the world and knows",
    }
}

/// One section for every action, in the order of the language.
fn actions(pages: &mut Pages) -> String {
    let mut page = String::new();
    for &kind in ActionKind::ALL {
        let mut schemas = Schemas::default();
        let reference = kind.schema(&mut schemas);
        let name = text(&reference["$ref"]).rsplit('/').next().unwrap_or_default().to_owned();
        let record = schemas.defs[&name].clone();
        let hidden: &[&str] = if kind == ActionKind::WaitUntil { ActionKind::KEYS } else { &[] };
        let table = pages.table(&record, hidden);
        let outputs = match kind.outputs() {
            Some(names) => format!("`{}`", names.join("`, `")),
            None if kind == ActionKind::Manual => "the fields of `form`".to_owned(),
            None => "those named under `outputs`".to_owned(),
        };
        write!(page, "### `{}`\n{}\n\n{table}\n", kind.key(), text(&record["description"])).expect("text");
        let mut facts = vec![format!("outputs: {outputs}"), format!("after a crash in the middle: {}", crash(kind))];
        facts.extend(has_inverse(kind).then(|| "`undo: auto` is known".to_owned()));
        facts.extend(kind.is_check().then(|| "may stand in `verify`, `wait.until` and preflight steps".to_owned()));
        for fact in facts {
            writeln!(page, "* {fact}").expect("text");
        }
        page.push('\n');
    }
    page
}

fn runbook_page() -> String {
    let mut pages = Pages::new(piton::spec::runbook::json_schema());
    let top = pages.schema.clone();
    let mut page = format!("## Runbook\n{}\n", pages.table(&top, &[]));
    let step = pages.definition("Step").clone();
    write!(page, "## Step\nExactly one action, and:\n\n{}\n", pages.table(&step, ActionKind::KEYS)).expect("text");
    let mut done = BTreeSet::new();
    write!(page, "## Parts of runbooks and steps\n{}", pages.sections(&mut done)).expect("text");
    write!(page, "## Actions\n{}", actions(&mut pages)).expect("text");
    write!(page, "## Parts of actions\n{}", pages.sections(&mut done)).expect("text");
    page
}

fn site_page() -> String {
    let mut pages = Pages::new(piton::site::json_schema());
    let top = pages.schema.clone();
    let mut page = format!("## Site\n{}\n", pages.table(&top, &[]));
    write!(page, "## Parts\n{}", pages.sections(&mut BTreeSet::new())).expect("text");
    page
}

const BEGIN: &str = "<!-- Generated from the types by tests/it/reference.rs; do not edit below. -->\n";

#[test]
fn the_generated_part_of_each_reference_page_is_as_the_types_are() {
    for (name, fresh) in [("runbook", runbook_page()), ("site", site_page())] {
        let path = root().join(format!("docs/reference/{name}.md"));
        let kept = std::fs::read_to_string(&path).expect("the page");
        let (written, generated) = kept.split_once(BEGIN).expect("the page says where its generated part begins");
        let fresh = format!("{}\n", fresh.trim_end());
        if std::env::var_os("PITON_BLESS").is_some() {
            std::fs::write(&path, format!("{written}{BEGIN}{fresh}")).expect("written");
        } else {
            assert!(generated == fresh, "docs/reference/{name}.md is out of date; PITON_BLESS=1 writes it anew");
        }
    }
}

/// Adds the descriptions anywhere in a schema that do not end in exactly one full stop.
fn unfinished(schema: &Json, at: &str, found: &mut Vec<String>) {
    let Some(map) = schema.as_object() else {
        schema.as_array().into_iter().flatten().for_each(|item| unfinished(item, at, found));
        return;
    };
    if let Some(description) = map.get("description").and_then(Json::as_str)
        && (!description.ends_with(['.', '!', '?']) || description.ends_with(".."))
    {
        found.push(format!("{at}: {description}"));
    }
    map.iter().for_each(|(key, child)| unfinished(child, &format!("{at}/{key}"), found));
}

#[test]
fn every_description_is_a_sentence() {
    let mut found = Vec::new();
    unfinished(&piton::spec::runbook::json_schema(), "runbook", &mut found);
    unfinished(&piton::site::json_schema(), "site", &mut found);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn each_reference_page_is_introduced_by_an_example_that_is_right() {
    for name in ["runbook", "site"] {
        let page = std::fs::read_to_string(root().join(format!("docs/reference/{name}.md"))).expect("the page");
        let (written, _) = page.split_once(BEGIN).expect("a generated part");
        assert!(written.split_whitespace().count() > 60, "docs/reference/{name}.md has no introduction");
        let example = written.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
        let text = example.expect("an example").to_owned();
        let source = std::sync::Arc::new(piton::spec::problem::Source { name: format!("{name}.md"), text });
        let refused = match name {
            "site" => piton::site::read(&source, &root()).err(),
            _ => piton::plan::check(&source, &root(), None, &[]).err(),
        };
        assert!(refused.is_none(), "{}", refused.map(|problems| problems.render()).unwrap_or_default());
    }
}

/// Every problem code in the source of `spec`, `site` and `plan`.
fn codes_in_source() -> BTreeSet<String> {
    let code = regex::Regex::new(r#""((?:yaml|spec|site|plan)::[a-z_]+)""#).expect("a pattern");
    let mut found = BTreeSet::new();
    let mut folders: Vec<PathBuf> = ["spec", "site", "plan"].iter().map(|name| root().join("src").join(name)).collect();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).expect("a source folder").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("source text");
            let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            found.extend(code.captures_iter(&text).map(|part| part[1].to_owned()));
        }
    }
    assert!(found.len() > 50, "only {} codes were found", found.len());
    found
}

#[test]
fn every_problem_has_its_entry_and_every_entry_its_problem() {
    let page = std::fs::read_to_string(root().join("docs/reference/errors.md")).expect("the page of errors");
    let entry =
        regex::Regex::new(r"(?m)^\| `((?:yaml|spec|site|plan)::[a-z_]+)` \| \S.* \| \S.* \|$").expect("a pattern");
    let listed: BTreeSet<String> = entry.captures_iter(&page).map(|part| part[1].to_owned()).collect();
    let known = codes_in_source();
    let missing: Vec<_> = known.difference(&listed).collect();
    let stale: Vec<_> = listed.difference(&known).collect();
    assert!(missing.is_empty() && stale.is_empty(), "docs/reference/errors.md lacks {missing:?} and lists {stale:?}");
}

#[test]
fn every_problem_is_shown_by_a_broken_file() {
    let corpus = root().join("tests/it/corpus");
    let shown: BTreeSet<String> = std::fs::read_dir(&corpus)
        .expect("the corpus")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "expected"))
        .flat_map(|path| first_words(&path))
        .collect();
    // Too big to keep (generated in `diagnostics`), a safety net, and a value that only a plan has (below).
    let elsewhere = ["yaml::too_big", "spec::unreadable", "plan::bad_value"];
    let unseen: Vec<String> = codes_in_source()
        .into_iter()
        .filter(|code| !shown.contains(code) && !elsewhere.contains(&code.as_str()))
        .collect();
    assert!(unseen.is_empty(), "no broken file shows {unseen:?}");
}

fn first_words(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("an expected text");
    text.lines()
        .filter(|line| line.contains("::"))
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

#[test]
fn a_value_that_only_a_plan_knows_is_refused_at_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("twins.yaml");
    let head = "apiVersion: piton/v1\nkind: Runbook\nname: t\nparams: { hosts: { type: list } }\nsteps:\n";
    let step = "  - id: a\n    foreach: { items: params.hosts }\n    exec: { argv: [echo, \"{{ item }}\"] }\n";
    std::fs::write(&path, format!("{head}{step}")).expect("written");
    let given = piton::plan::Given::from([("hosts".to_owned(), Json::from("one,two,one"))]);
    let refused =
        piton::plan::Plan::load(&path, piton::site::LoadedSite::empty(), &given).expect_err("twins").to_string();
    assert!(refused.contains("plan::bad_value") && refused.contains("two items have the key `one`"), "{refused}");
    assert!(refused.contains("twins.yaml:7:14"), "{refused}");
}

//! One word for one idea: the words that `docs/glossary.md` replaces appear in no document, help text or schema.

use std::path::PathBuf;
use std::process::Command;

use regex::Regex;
use serde_json::Value as Json;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What the glossary replaces, as (pattern, the word to use).
fn replaced() -> Vec<(Regex, String)> {
    let glossary = std::fs::read_to_string(root().join("docs/glossary.md")).expect("the glossary");
    let (_, table) = glossary.split_once("| not | but |").expect("the glossary says which words are not used");
    let mut found = Vec::new();
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for word in cells[1].split(", ") {
            let pattern = Regex::new(&format!(r"(?i)\b{}s?\b", regex::escape(word))).expect("a pattern");
            found.push((pattern, cells[2].to_owned()));
        }
    }
    assert!(found.len() > 15, "only {} words are replaced", found.len());
    found
}

/// Every document that people read, as (name, text); the glossary without its own list.
fn documents() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("docs")];
    let mut files = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                files.push(path);
            }
        }
    }
    for path in files {
        let text = std::fs::read_to_string(&path).expect("text");
        let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        found.push((shown, text.split("| not | but |").next().unwrap_or_default().to_owned()));
    }
    assert!(found.len() > 10, "only {} documents were found", found.len());
    found
}

/// The help of the program and of each of its commands.
fn helps() -> Vec<(String, String)> {
    let help = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_piton")).args(arguments).output().expect("the program runs");
        String::from_utf8(output.stdout).expect("the program prints UTF-8")
    };
    let whole = help(&["--help"]);
    let (_, commands) = whole.split_once("Commands:").expect("the help lists commands");
    let names = commands.lines().skip(1).take_while(|line| !line.trim().is_empty() && line.starts_with("  "));
    let names: Vec<String> = names
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect();
    assert!(names.len() > 15, "only these commands were found: {names:?}");
    let mut found: Vec<_> =
        names.iter().map(|name| (format!("piton {name} --help"), help(&[name, "--help"]))).collect();
    found.push(("piton --help".to_owned(), whole));
    found
}

fn descriptions(schema: &Json, found: &mut String) {
    if let Some(text) = schema.get("description").and_then(Json::as_str) {
        found.push_str(text);
        found.push('\n');
    }
    match schema {
        Json::Object(map) => map.values().for_each(|child| descriptions(child, found)),
        Json::Array(items) => items.iter().for_each(|child| descriptions(child, found)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

fn schemas() -> Vec<(String, String)> {
    let described = |name: &str, schema: &Json| {
        let mut text = String::new();
        descriptions(schema, &mut text);
        (format!("the schema of {name}"), text)
    };
    vec![described("runbooks", &piton::spec::runbook::json_schema()), described("sites", &piton::site::json_schema())]
}

#[test]
fn replaced_words_appear_nowhere() {
    let replaced = replaced();
    let mut wrong = Vec::new();
    for (name, text) in documents().into_iter().chain(helps()).chain(schemas()) {
        for (at, line) in text.lines().enumerate() {
            // A task of the async runtime is called by its name, and code is quoted as it is.
            let line = code_taken_out(line).replace("tokio task", "");
            for (pattern, word) in &replaced {
                if let Some(hit) = pattern.find(&line) {
                    wrong.push(format!("{name}:{}: `{}` is called `{word}` here", at + 1, hit.as_str()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A line without what stands between backticks.
fn code_taken_out(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

#[test]
fn words_that_are_used_are_not_replaced() {
    let glossary = std::fs::read_to_string(root().join("docs/glossary.md")).expect("the glossary");
    let words: Vec<&str> = glossary
        .lines()
        .filter_map(|line| line.strip_prefix("| ").and_then(|row| row.split(" | ").next()))
        .take_while(|word| *word != "not")
        .collect();
    assert!(words.len() > 30 && words.contains(&"runbook"), "{words:?}");
    for (pattern, _) in replaced() {
        let both: Vec<_> =
            words.iter().filter(|word| pattern.find(word).is_some_and(|hit| hit.len() == word.len())).collect();
        assert!(both.is_empty(), "{both:?} is used and replaced");
    }
}

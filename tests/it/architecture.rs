//! The walls of the house: which module may use which, and who may touch the world.

use std::path::{Path, PathBuf};

/// A module uses only modules that stand before it.
const ORDER: [&str; 18] = [
    "ids",
    "event",
    "config",
    "spec",
    "identity",
    "site",
    "plan",
    "scheduler",
    "transfer",
    "action",
    "journal",
    "fault",
    "driver",
    "report",
    "trial",
    "lab",
    "cli",
    "main",
];

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a source folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).expect("source text");
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 80, "only {} source files were found", found.len());
    found
}

/// The part of the house that a file belongs to.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("below src");
    let first = inside.components().next().expect("a file has a name").as_os_str().to_string_lossy().into_owned();
    first.strip_suffix(".rs").map_or(first.clone(), str::to_owned)
}

fn place(module: &str) -> Option<usize> {
    ORDER.iter().position(|name| *name == module)
}

#[test]
fn a_module_uses_only_modules_that_stand_before_it() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = module_of(&path);
        let Some(own_place) = place(&own) else { continue };
        for used in text.split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if place(&used).is_some_and(|place| place > own_place) {
                wrong.push(format!("{}: `{own}` uses `{used}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_thing_of_the_world_has_its_one_place() {
    let places: [(&str, &[&str]); 7] = [
        ("std::env::var", &["src/config.rs"]),
        ("Timestamp::now()", &["src/config.rs"]),
        ("SystemTime::now", &[]),
        ("serde_yaml::", &["src/spec/yaml/careful.rs", "src/transfer/mapping.rs"]),
        ("granit_parser::", &["src/spec/yaml/events.rs"]),
        ("petgraph::", &["src/plan/graph.rs"]),
        ("use cel::", &["src/spec/reference.rs"]),
    ];
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let shown = path.display().to_string();
        for (word, allowed) in places {
            // Tests inside a file may look at the world.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let is_test_file = shown.ends_with("tests.rs") || shown.ends_with("testing.rs");
            if !is_test_file && code.contains(word) && !allowed.iter().any(|place| shown.ends_with(place)) {
                wrong.push(format!("{shown} names `{word}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_readable() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        let most = match path.file_name().and_then(|name| name.to_str()) {
            Some("lib.rs") => 100,
            Some("main.rs") if path.ends_with("src/main.rs") => 40,
            _ => 600,
        };
        if lines > most {
            wrong.push(format!("{} has {lines} lines, more than {most}", path.display()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{} does not say what it owns", path.display()));
        }
        for word in ["TODO", "FIXME", "todo!(", "unimplemented!("] {
            if text.contains(word) {
                wrong.push(format!("{} holds `{word}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

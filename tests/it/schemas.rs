//! The JSON Schemas: generated from the types, accepting what the reader accepts, refusing what is wrongly built.
//! `PITON_BLESS=1` writes them anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use piton::spec::problem::Source;
use serde_json::Value as Json;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn yaml(path: &Path) -> Json {
    let text = std::fs::read_to_string(path).expect("a text file");
    let source = Arc::new(Source { name: path.display().to_string(), text });
    piton::spec::yaml::parse(&source).expect("YAML").to_json()
}

fn runbooks() -> Vec<PathBuf> {
    let folders = ["runbooks/wfm", "runbooks/tutorial"];
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(root().join(folder)).expect("shipped runbooks"));
    let mut files: Vec<PathBuf> = files.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    files.sort();
    files
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    for (name, schema) in [
        ("runbook", piton::spec::runbook::json_schema()),
        ("site", piton::site::json_schema()),
        ("test", piton::spec::case::json_schema()),
        ("retention", piton::spec::retention::json_schema()),
    ] {
        let path = root().join(format!("schemas/{name}.schema.json"));
        let fresh = format!("{}\n", serde_json::to_string_pretty(&schema).expect("JSON"));
        if std::env::var_os("PITON_BLESS").is_some() {
            std::fs::write(&path, &fresh).expect("written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == fresh, "schemas/{name}.schema.json is out of date; PITON_BLESS=1 writes it anew");
    }
}

#[test]
fn every_shipped_runbook_fits_the_schema() {
    let schema = jsonschema::validator_for(&piton::spec::runbook::json_schema()).expect("a schema");
    let runbooks = runbooks();
    assert!(runbooks.len() >= 6, "{runbooks:?}");
    for path in runbooks {
        let errors: Vec<String> =
            schema.iter_errors(&yaml(&path)).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{}: {}", path.display(), errors.join("\n"));
    }
}

#[test]
fn a_lab_site_fits_the_schema() {
    let schema = jsonschema::validator_for(&piton::site::json_schema()).expect("a schema");
    let site = yaml(&root().join("tests/it/corpus/the-site.site"));
    assert!(schema.is_valid(&site), "{:?}", schema.iter_errors(&site).map(|e| e.to_string()).collect::<Vec<_>>());
}

/// Codes of mistakes in how a file is built, which a schema can see; the others are about what names mean.
const STRUCTURE: [&str; 9] = [
    "spec::unknown_key",
    "spec::missing_key",
    "spec::wrong_type",
    "spec::unknown_word",
    "spec::no_action",
    "spec::two_actions",
    "spec::bad_duration",
    "spec::bad_step_id",
    "spec::bad_undo",
];

/// What our reader says about the form of a runbook: `None` when it is no YAML, else the codes of its mistakes.
fn form_of(text: &str) -> Option<(Json, Vec<&'static str>)> {
    let source = Arc::new(Source { name: "t.yaml".into(), text: text.to_owned() });
    let loaded = piton::spec::runbook::read(&source).ok()?;
    Some((loaded.tree.to_json(), loaded.problems.iter().map(|problem| problem.code).collect()))
}

/// Why schema and reader disagree about a runbook, if they do.
fn disagreement(schema: &jsonschema::Validator, text: &str) -> Option<String> {
    let (tree, codes) = form_of(text)?;
    let errors: Vec<String> = schema.iter_errors(&tree).map(|e| format!("{}: {e}", e.instance_path())).collect();
    let is_misbuilt = codes.iter().any(|code| STRUCTURE.contains(code));
    match (codes.is_empty(), is_misbuilt, errors.is_empty()) {
        (true, _, false) => Some(format!("the schema refuses what is read: {}", errors.join("; "))),
        (_, true, true) => Some(format!("the schema accepts what is refused: {codes:?}")),
        _ => None,
    }
}

/// The broken files, as (name, text).
fn corpus() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(root().join("tests/it/corpus")).expect("the corpus");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    let named = |path: PathBuf| {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        (name, std::fs::read_to_string(&path).expect("text"))
    };
    files.map(named).collect()
}

#[test]
fn reader_and_schema_agree_on_every_broken_file() {
    let schema = jsonschema::validator_for(&piton::spec::runbook::json_schema()).expect("a schema");
    let mut wrong = Vec::new();
    for (name, text) in corpus().into_iter().filter(|(name, _)| !name.starts_with("site.")) {
        wrong.extend(disagreement(&schema, &text).map(|why| format!("{name}: {why}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reader_and_schema_agree_on_every_broken_site() {
    let schema = jsonschema::validator_for(&piton::site::json_schema()).expect("a schema");
    for (name, text) in corpus().into_iter().filter(|(name, _)| name.starts_with("site.")) {
        let source = Arc::new(Source { name: name.clone(), text });
        let problems = piton::site::read(&source, &root()).expect_err(&name);
        let Ok(tree) = piton::spec::yaml::parse(&source) else { continue };
        if problems.list.iter().any(|problem| STRUCTURE.contains(&problem.code)) {
            assert!(!schema.is_valid(&tree.to_json()), "the schema accepts {name}");
        }
    }
}

#[test]
fn templates_and_units_are_accepted_by_both() {
    let schema = jsonschema::validator_for(&piton::spec::runbook::json_schema()).expect("a schema");
    let head = "apiVersion: piton/v1\nkind: Runbook\nname: t\nsteps:\n  - id: a\n";
    for action in [
        r#"exec: { argv: "{{ item }}", env: { N: 1, F: 1.5 }, stdin: 7, expect: { codes: ["{{ site.vars.ok }}", 0] } }"#,
        r#"service.stop: { services: "{{ params.list }}", hold: "{{ params.hold }}" }"#,
        r#"service.check: { service: x, state: "{{ params.state }}" }"#,
        r#"db.copy: { from: a, to: b, map: m.yaml, tables: t, chunk_rows: "{{ params.n }}", policy: split_at, at: "{{ params.at }}", range: { from: "{{ params.from }}", to: "12" } }"#,
        r#"db.gaps: { database: d, table: t, time: c, entity: e, timestep: "{{ site.vars.step }}" }"#,
        r#"db.assert: { database: d, sql: "SELECT 1", bind: { a: [1, null, { b: c }] }, expect: { rows: "{{ params.n }}" } }"#,
        r#"db.assert: { database: d, sql: "SELECT 1", expect: no_rows }"#,
        r#"approval: { prompt: x, quorum: "{{ params.n }}", expires: 1h 30m }"#,
        r#"manual: { instructions: x, form: { n: { type: integer, minimum: "{{ params.n }}" } } }"#,
        r#"http.request: { url: "{{ secrets.u }}", json: { a: 1 }, expect: { status: [200, "204"] } }"#,
        "wait.until: { every: 250ms, timeout: 1d, option.check: { store: s, section: x, name: n, absent: true } }",
        r#"wait.boundary: { every: 15m, after: "-3" }"#,
        "wait.for: { duration: PT1H30M }",
        r#"db.copy: { from: a, to: b, map: m, tables: t, range: "{{ item.range }}" }"#,
        r#"exec: { shell: x, env: "{{ item.env }}" }"#,
        "exec: { shell: x }\n    idempotent: yes\n    undo: auto\n    retry: { attempts: 3, backoff: { factor: 1.5 } }",
        "exec: { shell: x }\n    idempotent: true\n    needs: [b, { step: c, outcome: any }]\n    foreach: { items: [1, 2] }",
        "exec: { shell: x }\n    verify: { exec: { argv: [y] } }\n    undo: { exec: { argv: [z] } }\n    outputs: { a: \"1 + 1\" }",
    ] {
        let text = format!("{head}    {action}\n");
        let (_, codes) = form_of(&text).expect("YAML");
        assert!(codes.is_empty(), "the reader refuses {action}: {codes:?}");
        assert_eq!(disagreement(&schema, &text), None, "{action}");
    }
}

#[test]
fn templates_outside_arguments_are_refused_by_both() {
    let schema = jsonschema::validator_for(&piton::spec::runbook::json_schema()).expect("a schema");
    let head = "apiVersion: piton/v1\nkind: Runbook\nname: t\nsteps:\n  - id: a\n";
    for step in [
        "exec: { argv: [x] }\n    timeout: \"{{ params.t }}\"",
        "exec: { argv: [x] }\n    retry: { attempts: \"{{ params.n }}\" }",
        "exec: { argv: [x] }\n    retry: { attempts: 2, backoff: { factor: \"{{ params.n }}\" } }",
        "exec: { argv: [x] }\n    needs: \"{{ params.needs }}\"",
        "exec: { argv: [x] }\n    on_failure: \"{{ params.rule }}\"",
        "exec: \"{{ item }}\"",
        "wait.until: \"{{ item }}\"",
        "wait.until: {}",
        "wait.until: { every: 1s }",
    ] {
        let text = format!("{head}    {step}\n");
        let (tree, codes) = form_of(&text).expect("YAML");
        assert!(codes.iter().any(|code| STRUCTURE.contains(code)), "the reader accepts {step}: {codes:?}");
        assert!(!schema.is_valid(&tree), "the schema accepts {step}");
    }
}

/// Changes one place of a tree: `pick` chooses the place, `how` the change.
fn mutate(tree: &mut Json, pick: &mut usize, how: usize) {
    if *pick == 0 {
        let values = [
            Json::Null,
            Json::from(7),
            Json::from("{{ params.x }}"),
            Json::from("30s"),
            serde_json::json!([]),
            serde_json::json!({}),
            Json::from(true),
            Json::from(1.5),
        ];
        match (how, &mut *tree) {
            (0, Json::Object(map)) => {
                map.insert("extra".to_owned(), Json::from(1));
            }
            (1, Json::Object(map)) => {
                let first = map.keys().next().cloned();
                first.and_then(|key| map.shift_remove(&key));
            }
            (2, Json::Object(map)) => {
                let last = map.keys().next_back().cloned();
                if let Some((key, value)) = last.and_then(|key| map.shift_remove(&key).map(|value| (key, value))) {
                    map.insert(format!("{key}s"), value);
                }
            }
            (how, other) => *other = values[how % values.len()].clone(),
        }
    }
    *pick = pick.wrapping_sub(1);
    match tree {
        Json::Object(map) => map.values_mut().for_each(|value| mutate(value, pick, how)),
        Json::Array(items) => items.iter_mut().for_each(|value| mutate(value, pick, how)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn reader_and_schema_agree_on_shipped_runbooks_with_a_change(file in 0..64_usize, place in 0..400_usize, how in 0..8_usize) {
        static SCHEMA: std::sync::LazyLock<jsonschema::Validator> = std::sync::LazyLock::new(|| {
            jsonschema::validator_for(&piton::spec::runbook::json_schema()).expect("a schema")
        });
        let files = runbooks();
        let mut tree = yaml(&files[file % files.len()]);
        mutate(&mut tree, &mut { place }, how);
        // JSON is YAML.
        let text = serde_json::to_string_pretty(&tree).expect("JSON");
        proptest::prop_assert_eq!(disagreement(&SCHEMA, &text), None, "{}", text);
    }
}

#[test]
fn the_readme_shows_the_tutorial_as_it_is_shipped() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README");
    let tutorial = std::fs::read_to_string(root().join("runbooks/tutorial/first.yaml")).expect("the tutorial");
    let shown = tutorial.split_once('\n').expect("a first line").1.trim_end();
    assert!(readme.contains(shown), "the README shows another runbook than runbooks/tutorial/first.yaml");
}

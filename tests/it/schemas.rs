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
    for (name, schema) in [("runbook", piton::spec::runbook::json_schema()), ("site", piton::site::json_schema())] {
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

#[test]
fn what_is_wrongly_built_is_refused_by_the_schema_too() {
    let schema = jsonschema::validator_for(&piton::spec::runbook::json_schema()).expect("a schema");
    for name in [
        "unknown-key-top",
        "unknown-key-step",
        "unknown-key-action",
        "missing-id",
        "missing-name",
        "no-action",
        "two-actions",
        "unknown-action",
        "unknown-word",
        "wrong-kind",
        "wrong-type-steps",
        "wrong-version",
        "bad-duration",
        "bad-id",
    ] {
        let broken = yaml(&root().join(format!("tests/it/corpus/{name}.yaml")));
        assert!(!schema.is_valid(&broken), "the schema accepts {name}");
    }
}

#[test]
fn the_readme_shows_the_tutorial_as_it_is_shipped() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README");
    let tutorial = std::fs::read_to_string(root().join("runbooks/tutorial/first.yaml")).expect("the tutorial");
    let shown = tutorial.split_once('\n').expect("a first line").1.trim_end();
    assert!(readme.contains(shown), "the README shows another runbook than runbooks/tutorial/first.yaml");
}

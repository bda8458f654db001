//! Broken runbooks and sites, each with the exact text that its author sees. `PITON_BLESS=1` writes the texts anew.
//!
//! A file `site.NAME.yaml` is read as a site; a file `site-NAME.yaml` as a runbook against `the-site.site`; every other
//! one as a runbook without a site.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use piton::spec::problem::{Problems, Source};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/corpus")
}

fn source(name: &str) -> Arc<Source> {
    let text = std::fs::read_to_string(corpus().join(name)).expect("a corpus file is UTF-8 text");
    Arc::new(Source { name: name.to_owned(), text })
}

fn diagnose(name: &str) -> Problems {
    let broken = source(name);
    let result = if name.starts_with("site.") {
        piton::site::read(&broken, &corpus()).map(|_| ())
    } else if name.starts_with("site-") || name == "many-at-once.yaml" {
        let site = piton::site::read(&source("the-site.site"), &corpus()).expect("the corpus' own site is valid");
        piton::plan::check(&broken, &corpus(), Some(&site.site), &[]).map(|_| ())
    } else {
        piton::plan::check(&broken, &corpus(), None, &[]).map(|_| ())
    };
    result.expect_err(name)
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(corpus())
        .expect("the corpus is there")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    names.sort();
    names
}

#[test]
fn every_broken_file_gets_its_exact_diagnostic() {
    let bless = std::env::var_os("PITON_BLESS").is_some();
    let names = names();
    assert!(names.len() >= 60, "the corpus has only {} files", names.len());
    let mut wrong = Vec::new();
    for name in &names {
        let shown = diagnose(name).render();
        let expected = corpus().join(name.replace(".yaml", ".expected"));
        if bless {
            std::fs::write(&expected, &shown).expect("the corpus can be written");
        } else if std::fs::read_to_string(&expected).ok().as_deref() != Some(shown.as_str()) {
            wrong.push(format!("{name}:\n{shown}"));
        }
    }
    assert!(wrong.is_empty(), "{} diagnostics changed; PITON_BLESS=1 accepts them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_diagnostic_names_a_place_and_most_say_what_to_do() {
    for name in names() {
        for problem in diagnose(&name).list {
            assert!(problem.code.contains("::"), "{name}: {}", problem.code);
            assert!(!problem.message.ends_with('.'), "{name}: {}", problem.message);
            assert!(!problem.message.contains("invalid type"), "{name}: {}", problem.message);
            let end = problem.span.start + problem.span.len;
            assert!(end <= source(&name).text.len(), "{name}: {problem:?} lies outside the file");
        }
    }
}

#[test]
fn one_file_with_eight_mistakes_reports_all_of_them() {
    let codes: Vec<&str> = diagnose("many-at-once.yaml").list.iter().map(|problem| problem.code).collect();
    for code in [
        "spec::unknown_key",
        "plan::unused_param",
        "plan::missing_resource",
        "plan::unknown_window_step",
        "spec::bad_duration",
        "plan::unknown_need",
        "plan::unknown_param",
        "plan::cycle",
        "plan::retry_not_idempotent",
    ] {
        assert!(codes.contains(&code), "`{code}` is missing among {codes:?}");
    }
}

#[test]
fn an_oversize_file_is_refused_before_it_is_parsed() {
    let text = "#".repeat(piton::spec::yaml::FILE_BYTES_MAX + 1);
    let source = Arc::new(Source { name: "big.yaml".into(), text });
    let problems = piton::plan::check(&source, &corpus(), None, &[]).expect_err("too big");
    assert_eq!(problems.list[0].code, "yaml::too_big");
}

#[test]
fn a_file_that_is_no_text_is_named_with_the_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("latin1.yaml");
    std::fs::write(&path, b"kind: x\nname: gr\xf6\xdfe\n").expect("written");
    let error = piton::plan::read_source(&path).expect_err("not UTF-8").to_string();
    assert!(error.ends_with("line 2, column 9 is not UTF-8 text; save the file as UTF-8"), "{error}");
}

//! What is read, what is refused, and that both readers agree.

use std::path::Path;

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Node, Problems> {
    parse(&Arc::new(Source { name: "t.yaml".into(), text: text.into() }))
}

#[test]
fn values_keep_their_meaning_and_place() {
    let node = read("a: yes\nb: 0755\nc: 1.10\nd: [1, true, ~]\n").expect("valid");
    assert_eq!(node.get("a").and_then(Node::text), Some("yes"));
    assert_eq!(node.get("b").and_then(Node::text), Some("0755"));
    assert_eq!(node.get("c").map(|n| &n.value), Some(&Value::Float(1.1, "1.10".into())));
    assert_eq!(node.get("b").map(|n| n.span), Some(Span { start: 10, len: 4 }));
}

#[test]
fn a_key_that_stands_twice_is_named_with_both_places() {
    let problems = read("a: 1\nb: 2\na: 3\n").expect_err("duplicate");
    assert_eq!(problems.list.len(), 1);
    assert_eq!(problems.list[0].message, "key `a` stands twice");
    assert_eq!(problems.list[0].other.as_ref().map(|(span, _)| span.start), Some(0));
}

#[test]
fn bombs_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let line = format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", "));
        bomb.push_str(&line);
    }
    assert_eq!(read(&bomb).expect_err("bomb").list[0].code, "yaml::alias_bomb");
    let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
    assert_eq!(read(&deep).expect_err("deep").list[0].code, "yaml::too_deep");
}

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source { name: "t.yaml".into(), text: text.into() })
}

/// Whether the quick reader took the text; if so, the careful one reads the same.
fn agrees(text: &str) -> bool {
    let source = source(text);
    let Some(quick) = events::read(&source) else { return false };
    match careful::read(&source) {
        Ok((node, duplicates)) => {
            assert_eq!(quick, node, "{text}");
            assert!(duplicates.is_empty(), "{text}");
        }
        Err(problems) => panic!("only the quick reader took this: {:?}\n{text}", problems.list),
    }
    true
}

fn files(folder: &str, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path.display().to_string(), found);
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn both_readers_agree_on_every_file_of_the_project() {
    let mut found = Vec::new();
    for folder in ["runbooks", "schemas", "examples", "tests/it/corpus"] {
        files(folder, &mut found);
    }
    let quick = found.iter().filter(|path| agrees(&std::fs::read_to_string(path).unwrap_or_default())).count();
    assert!(quick * 2 > found.len(), "the quick reader took only {quick} of {}", found.len());
}

#[test]
fn what_an_alias_brings_stands_where_it_was_written() {
    assert!(agrees("a: &x { b: [1, two] }\nc: *x\nd: [*x, *x]\ne: &y 1.50\nf: *y\n"));
    assert!(agrees("a: &x 1\nb: &x 2\nc: *x\n"));
    assert!(!agrees("base: &b { k: 1 }\nmore: { <<: *b, l: 2 }\n"));
}

/// Scalars that readers of YAML like to disagree about.
const SCALARS: &[&str] = &[
    "",
    "~",
    "null",
    "Null",
    "NULL",
    "true",
    "True",
    "yes",
    "no",
    "on",
    "off",
    "y",
    "0",
    "7",
    "-7",
    "+7",
    "007",
    "0755",
    "0o17",
    "0x1F",
    "0b1",
    "1_000",
    "1.0",
    "1.10",
    "-0.5",
    ".5",
    "5.",
    "1e3",
    "1.5e-3",
    ".inf",
    "-.inf",
    ".nan",
    "nan",
    "inf",
    "Infinity",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "123456789012345678",
    "1234567890123456789",
    "99999999999999999999",
    "10s",
    "1h30m",
    "2026-11-01",
    "2026-11-01T00:00:00Z",
    "12:30",
    "a b",
    "word",
    "a:b",
    "a#b",
    "/path",
    "*.sql",
    "'it''s'",
    "\"q\\n\"",
    "'null'",
    "\"1\"",
    "\"{{ x }}\"",
    "-",
    "--",
    "- x",
    "a - b",
    "x: y",
    "[1, 2]",
    "{a: 1}",
    "!!str 1",
    "!x y",
    "%a",
    "@a",
    "`a",
    "|\n      text\n",
    "é",
    "_x",
    "=",
    "<<",
    "---",
    "...",
];

fn yaml_text() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(SCALARS);
    let line = (
        0..4_usize,
        prop::sample::select(
            &[
                "a: ", "b:  ", "- ", "c: &n ", "d: *n", "? ", "1: ", "\"k\": ", "null: ", "yes: ", "# ", "a: [",
                "e: {x: ", "",
            ][..],
        ),
        scalar,
        prop::sample::select(&["", " # c", "]", "}", " ", "\t"][..]),
    )
        .prop_map(|(indent, lead, scalar, tail)| format!("{}{lead}{scalar}{tail}\n", "  ".repeat(indent)));
    prop::collection::vec(line, 1..8).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn both_readers_agree_on_odd_text(text in yaml_text()) {
        agrees(&text);
    }

    #[test]
    fn both_readers_agree_on_scalars_in_their_places(
        block in prop::sample::select(SCALARS), flow in prop::sample::select(SCALARS), key in prop::sample::select(SCALARS),
    ) {
        agrees(&format!("a: {block}\nb:\n  - {block}\nc: [{flow}, x]\nd: {{ k: {flow} }}\n"));
        agrees(&format!("{key}: 1\n"));
    }
}

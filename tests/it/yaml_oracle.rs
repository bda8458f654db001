//! What our reader accepts means the same to the archived `serde_yaml`, but for exceptions that are listed here.

use std::sync::Arc;

use piton::spec::problem::Source;
use piton::spec::yaml;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

fn ours(text: &str) -> Option<Json> {
    let source = Arc::new(Source { name: "t.yaml".into(), text: text.to_owned() });
    yaml::parse(&source).ok().map(|node| node.to_json())
}

fn theirs(text: &str) -> Option<Json> {
    let value: serde_yaml_legacy::Value = serde_yaml_legacy::from_str(text).ok()?;
    serde_json::to_value(value).ok()
}

/// Equal as data: a whole number may be written with a fraction of zero.
fn same(ours: &Json, theirs: &Json) -> bool {
    match (ours, theirs) {
        (Json::Number(a), Json::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => ours == theirs,
    }
}

const TEXTS: [&str; 57] = [
    "null",
    "~",
    "true",
    "false",
    "True",
    "0",
    "-1",
    "+1",
    "007",
    "0x1f",
    "0o17",
    "1.5",
    "-0.25",
    "1e3",
    "1.10",
    "1_000",
    "yes",
    "no",
    "on",
    "off",
    "y",
    "n",
    "2026-11-22",
    "12:30:45",
    "a b",
    "'it''s'",
    "\"a\\tb\\u00e9\"",
    "\"\"",
    "''",
    "größe",
    "a#b",
    "a #b",
    "- a\n- b",
    "[a, [b], {c: d}]",
    "{a: 1, b: [x]}",
    "a: 1\nb:\n  - c\n  - d: e",
    "|\n  a\n  b\n",
    "|-\n  a\n",
    ">\n  a\n  b\n\n  c\n",
    ">+\n  a\n\n",
    "|2\n    a\n",
    "a:\n- b\n- c",
    "&x a",
    "[&x a, *x]",
    "\"a\n  b\n\n  c\"",
    "a\n  b",
    "a: &m {x: 1}\nb: *m",
    "? a\n: b",
    "{a, b: }",
    "[]",
    "{}",
    "- - a\n  - b\n- c",
    "9223372036854775807",
    "-9223372036854775808",
    "'{{ params.x }}'",
    "\"\\x41\\\n  b\"",
    "- \n- a",
];

#[test]
fn scalars_and_collections_mean_the_same() {
    let mut wrong = Vec::new();
    for text in TEXTS {
        let ours = ours(text).unwrap_or_else(|| panic!("ours refuses {text:?}"));
        match theirs(text) {
            Some(theirs) if !same(&ours, &theirs) => wrong.push(format!("{text:?}: {ours} here, {theirs} there")),
            Some(_) => {}
            None => wrong.push(format!("{text:?}: {ours} here, refused there")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The exceptions, each on purpose (`docs/design/yaml.md`): text, our meaning (nothing: refused), theirs.
#[test]
fn the_exceptions_are_these() {
    let table: [(&str, Option<Json>, Option<Json>); 9] = [
        // A mapping with a key twice is a mistake in both; ours names both places.
        ("a: 1\na: 2", None, None),
        ("--- a\n--- b", None, None),
        // Infinity and not-a-number have no JSON, no digest and no use.
        (".inf", None, Some(Json::Null)),
        (".nan", None, Some(Json::Null)),
        ("!secret a", None, None),
        // Keys are text; a missing key is a mistake.
        ("~: a", None, None),
        ("1: a", Some(json!({ "1": "a" })), Some(json!({ "1": "a" }))),
        // A merge key merges; the archived crate keeps it as a key.
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}", Some(json!({ "a": { "x": 1 }, "b": { "x": 1, "y": 2 } })), None),
        // More than 64 bits.
        ("18446744073709551615", None, Some(json!(18_446_744_073_709_551_615_u64))),
    ];
    for (text, here, there) in table {
        assert_eq!(ours(text), here, "our meaning of {text:?}");
        if let Some(there) = there {
            assert_eq!(theirs(text), Some(there), "their meaning of {text:?}");
        }
    }
}

/// Text of a tree in flow style, with scalars as people write them.
fn flow() -> impl Strategy<Value = String> {
    let plain = "[a-zA-Z][a-zA-Z0-9_./-]{0,8}";
    let number = "-?(0|[1-9][0-9]{0,11})(\\.[0-9]{1,4})?";
    let quoted = "'[ -&(-~]{0,8}'";
    let double = "\"[ !#-\\[\\]-~]{0,8}\"";
    let leaf = prop_oneof![
        plain.prop_map(|text| text),
        number.prop_map(|text| text),
        quoted.prop_map(|text| text),
        double.prop_map(|text| text),
        Just("~".to_owned()),
        Just("true".to_owned()),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(", "))),
            proptest::collection::btree_map("[a-z]{1,6}", inner, 0..5).prop_map(|pairs| {
                let pairs: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
                format!("{{{}}}", pairs.join(", "))
            }),
        ]
    })
}

/// Text of a tree in block style.
fn block() -> impl Strategy<Value = String> {
    proptest::collection::btree_map("[a-z]{1,6}", flow(), 1..6).prop_flat_map(|pairs| {
        let lines: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let list: Vec<String> = lines.iter().map(|line| format!("- {line}")).collect();
        let nested = format!("top:\n  {}\nlist:\n{}\n", lines.join("\n  "), list.join("\n"));
        prop_oneof![Just(lines.join("\n")), Just(list.join("\n")), Just(nested)]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_ours_accepts_means_the_same_to_the_archived_crate(text in prop_oneof![flow(), block()]) {
        let ours = ours(&text);
        prop_assert!(ours.is_some(), "ours refuses {text:?}");
        if let (Some(ours), Some(theirs)) = (ours, theirs(&text)) {
            prop_assert!(same(&ours, &theirs), "{text:?}: {ours} here, {theirs} there");
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[ -~\n\t{}\\[\\]:,&*!|>'\"%@`#é]{0,60}") {
        let source = Arc::new(Source { name: "t.yaml".into(), text });
        if let Err(problems) = piton::plan::check(&source, std::path::Path::new("."), None, &[]) {
            prop_assert!(!problems.list.is_empty(), "refused without a reason");
            prop_assert!(!problems.render().is_empty());
        }
    }
}

//! Comparisons between real databases of every two engines: what differs is named, what does not is not, a cut one goes on.

use std::sync::{Arc, Mutex};

use piton::transfer::{
    CompareMode, CompareOptions, CompareRequest, CopyRequest, Database, Difference, Engine, Keep, Mapping, Method,
    Policy, Range, Sample, TableComparison, TransferError, compare_with, copy,
};
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use crate::support::databases::{ENGINES, Fresh};

/// Enough for several buckets and slices.
const GROUPS: i64 = 140;
const ROWS: u64 = 21_000;

fn mapping(text: &str) -> Mapping {
    let text = format!("apiVersion: piton/v1\nkind: Mapping\nname: m\nsets: {{ all: [item] }}\n{text}");
    Mapping::from_yaml(&text).expect("valid")
}

async fn look(
    from: &Database,
    to: &Database,
    mapping: &Mapping,
    range: Range,
    options: &CompareOptions,
) -> Result<TableComparison, TransferError> {
    let mode = CompareMode::Content;
    let request = CompareRequest { mapping: mapping.clone(), set: "all".into(), range, mode, limit: 50 };
    compare_with(from, to, &request, options).await.map(|mut report| report.tables.remove(0))
}

async fn whole(from: &Fresh, to: &Fresh, mapping: &Mapping) -> TableComparison {
    let found = look(&from.database, &to.database, mapping, Range::default(), &CompareOptions::default()).await;
    found.unwrap_or_else(|error| panic!("{error}"))
}

const TABLE: &str = "CREATE TABLE item (grp INTEGER NOT NULL, no INTEGER NOT NULL, at BIGINT NOT NULL, price NUMERIC(12,2), \
                     name VARCHAR(40), PRIMARY KEY (grp, no))";

/// A SQLite file with groups of 150 rows.
async fn origin(folder: &std::path::Path) -> Fresh {
    let origin = Fresh::new(Engine::Sqlite, "origin", folder).await;
    origin.run(TABLE).await;
    origin
        .run(&format!(
            "WITH RECURSIVE g(grp) AS (SELECT 1 UNION ALL SELECT grp + 1 FROM g WHERE grp < {GROUPS}), \
             n(no) AS (SELECT 1 UNION ALL SELECT no + 1 FROM n WHERE no < 150) \
             INSERT INTO item SELECT grp, no, (grp * 150 + no) * 900, CASE WHEN no % 10 = 0 THEN NULL ELSE grp + no * 0.25 END, \
             CASE WHEN no % 7 = 0 THEN NULL ELSE 'item ' || grp || ' of ' || no || ' ä€' END FROM g, n"
        ))
        .await;
    origin
}

async fn filled(engine: Engine, origin: &Fresh, folder: &std::path::Path) -> Fresh {
    let fresh = Fresh::new(engine, "filled", folder).await;
    fresh.run(TABLE).await;
    let request = CopyRequest::new(mapping(""), "all", Policy::Fail, "fill");
    let done = copy(&origin.database, &fresh.database, &request, &|_| {}, &CancellationToken::new()).await;
    assert_eq!(done.expect("copies").changed(), ROWS);
    fresh
}

fn method(from: Engine, to: Engine) -> Method {
    if from == to && from != Engine::Sqlite { Method::InEngine } else { Method::Streamed }
}

/// The key of a difference and, where both sides have it, its values.
fn told(difference: &Difference) -> (&'static str, Json, Json, Json) {
    match difference {
        Difference::Missing { key } => ("missing", json!(key), Json::Null, Json::Null),
        Difference::Extra { key } => ("extra", json!(key), Json::Null, Json::Null),
        Difference::Different { key, source, target } => ("different", json!(key), json!(source), json!(target)),
    }
}

/// Numbers as text, since engines show decimals in their own ways.
fn plain(value: &Json) -> String {
    value.to_string().replace('"', "").replace(".00", "")
}

#[tokio::test]
async fn every_difference_is_named_with_both_values_between_every_two_engines() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let origin = origin(folder.path()).await;
    for from in ENGINES {
        let source = filled(from, &origin, folder.path()).await;
        for to in ENGINES {
            let target = filled(to, &origin, folder.path()).await;
            let found = whole(&source, &target, &mapping("")).await;
            assert!(found.is_equal() && found.source_rows == ROWS, "{from} to {to}: {found:?}");
            assert_eq!(found.method, method(from, to), "{from} to {to}");
            for change in [
                // Two values that change places leave every sum over a column as it was.
                "UPDATE item SET price = CASE no WHEN 3 THEN 9.25 ELSE 7.75 END WHERE grp = 7 AND no IN (3, 9)",
                "UPDATE item SET name = '' WHERE grp = 100 AND no = 7",
                "UPDATE item SET price = 0 WHERE grp = 101 AND no = 10",
                "DELETE FROM item WHERE grp = 50 AND no = 50",
                "INSERT INTO item VALUES (0, 1, 0, NULL, NULL)",
            ] {
                target.run(change).await;
            }
            let found = whole(&source, &target, &mapping("")).await;
            assert_eq!((found.missing, found.extra, found.different), (1, 1, 4), "{from} to {to}: {found:?}");
            assert_ne!(found.source_hash, found.target_hash);
            let mut all: Vec<String> = found
                .differences
                .iter()
                .map(|difference| {
                    let (what, key, source, target) = told(difference);
                    format!("{what} {} {} {}", plain(&key), plain(&source), plain(&target))
                })
                .collect();
            all.sort();
            let wanted = [
                "different {grp:100,no:7} {name:null} {name:}",
                "different {grp:101,no:10} {price:null} {price:0}",
                "different {grp:7,no:3} {price:7.75} {price:9.25}",
                "different {grp:7,no:9} {price:9.25} {price:7.75}",
                "extra {grp:0,no:1} null null",
                "missing {grp:50,no:50} null null",
            ];
            assert_eq!(all, wanted, "{from} to {to}");
            // Where nearly everything differs, the same is found by another way.
            target.run("UPDATE item SET name = 'all the same'").await;
            let found = whole(&source, &target, &mapping("")).await;
            assert_eq!((found.missing, found.extra, found.different), (1, 1, ROWS - 1), "{from} to {to}");
            assert_eq!(found.differences.len(), 50);
        }
    }
}

#[tokio::test]
async fn renames_expressions_key_maps_and_ranges_are_respected() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let origin = origin(folder.path()).await;
    let text = "tables:\n  item:\n    to: ware\n    columns: { place: grp, no: no, stamp: at, title: name }\n    time: at\n    timestep: 900\n    \
                expressions: { cents: \"CAST(price * 100 AS DECIMAL(12,0))\" }\n    constants: { origin: \"it's 65\" }\n";
    let lookup = "    lookup: { place: { table: places, from: old, to: new } }\n";
    for (from, to) in [
        (Engine::Postgres, Engine::Postgres),
        (Engine::Mariadb, Engine::Mariadb),
        (Engine::Mariadb, Engine::Postgres),
        (Engine::Postgres, Engine::Sqlite),
    ] {
        let source = filled(from, &origin, folder.path()).await;
        for mapped in [mapping(text), mapping(&format!("{text}{lookup}"))] {
            let has_map = mapped.table("item").lookup.contains_key("place");
            let target = Fresh::new(to, "mapped", folder.path()).await;
            target
                .run(
                    "CREATE TABLE ware (title VARCHAR(40), cents DECIMAL(12,0), origin VARCHAR(9) NOT NULL, place INTEGER NOT NULL, \
                     no INTEGER NOT NULL, stamp BIGINT NOT NULL, PRIMARY KEY (place, no))",
                )
                .await;
            target.run("CREATE TABLE places (old INTEGER PRIMARY KEY, new INTEGER NOT NULL)").await;
            let entries: Vec<String> = (1..=GROUPS).map(|old| format!("({old}, {})", 1_000 - old)).collect();
            target.run(&format!("INSERT INTO places VALUES {}", entries.join(", "))).await;
            let request = CopyRequest::new(mapped.clone(), "all", Policy::Fail, "mapped");
            let done = copy(&source.database, &target.database, &request, &|_| {}, &CancellationToken::new()).await;
            assert_eq!(done.unwrap_or_else(|error| panic!("{from} to {to}: {error}")).changed(), ROWS);
            let found = whole(&source, &target, &mapped).await;
            assert!(found.is_equal(), "{from} to {to}: {found:?}");
            let in_engine = from == Engine::Postgres && to == from && !has_map;
            assert_eq!(found.method == Method::InEngine, in_engine, "{from} to {to}");
            let place = if has_map { 990 } else { 10 };
            target.run(&format!("UPDATE ware SET cents = 1 WHERE place = {place} AND no = 4")).await;
            let at = (10 * 150 + 4) * 900;
            let within = |from, to| Range { from: Some(from), to: Some(to) };
            for (range, different) in [(within(at, at + 900), 1), (within(at - 900, at), 0), (within(0, at), 0)] {
                let options = CompareOptions::default();
                let found = look(&source.database, &target.database, &mapped, range, &options).await;
                let found = found.expect("compares");
                assert_eq!(found.different, different, "{from} to {to}, {range:?}: {found:?}");
                assert!(found.source_rows < ROWS && found.source_rows == found.target_rows);
            }
        }
    }
}

/// Keeps in memory, and ends the comparison after so many texts.
struct Cut {
    text: Mutex<Option<String>>,
    left: Mutex<u32>,
    cancel: CancellationToken,
}

impl Cut {
    fn new(text: Option<String>, left: u32) -> Arc<Self> {
        Arc::new(Self { text: Mutex::new(text), left: Mutex::new(left), cancel: CancellationToken::new() })
    }
}

impl Keep for Cut {
    fn load(&self) -> Option<String> {
        self.text.lock().expect("not poisoned").clone()
    }

    fn save(&self, text: &str) {
        let mut left = self.left.lock().expect("not poisoned");
        if *left > 0 {
            *self.text.lock().expect("not poisoned") = Some(text.to_owned());
            *left -= 1;
        }
        if *left == 0 {
            self.cancel.cancel();
        }
    }

    fn clear(&self) {
        *self.text.lock().expect("not poisoned") = None;
    }
}

fn cut_options(cut: &Arc<Cut>, heard: &Arc<Mutex<Vec<u64>>>) -> CompareOptions {
    let heard = Arc::clone(heard);
    CompareOptions {
        keep: Some(cut.clone()),
        progress: Some(Arc::new(move |seen| heard.lock().expect("not poisoned").push(seen.rows_done))),
        slice_rows: 2_000,
        cancel: cut.cancel.clone(),
        ..CompareOptions::default()
    }
}

#[tokio::test]
async fn a_comparison_that_was_cut_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let origin = origin(folder.path()).await;
    for (from, to) in [
        (Engine::Postgres, Engine::Postgres),
        (Engine::Mariadb, Engine::Mariadb),
        (Engine::Sqlite, Engine::Sqlite),
        (Engine::Mariadb, Engine::Sqlite),
        (Engine::Sqlite, Engine::Postgres),
    ] {
        let case = format!("{from} to {to}");
        let (source, target) = (filled(from, &origin, folder.path()).await, filled(to, &origin, folder.path()).await);
        let m = mapping("");
        for cut_after in [1, 4, 9] {
            let heard = Arc::new(Mutex::new(Vec::new()));
            let cut = Cut::new(None, cut_after);
            let error =
                look(&source.database, &target.database, &m, Range::default(), &cut_options(&cut, &heard)).await;
            assert!(matches!(error, Err(TransferError::Cancelled { .. })), "{case}: {error:?}");
            let kept = cut.load();
            assert!(kept.is_some(), "{case}");
            heard.lock().expect("not poisoned").clear();
            let again = Cut::new(kept.clone(), u32::MAX);
            let found =
                look(&source.database, &target.database, &m, Range::default(), &cut_options(&again, &heard)).await;
            let found = found.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(found.is_equal() && found.resumed, "{case}: {found:?}");
            assert_eq!(again.load(), None, "{case}: what is known needs no memory");
            let slices = heard.lock().expect("not poisoned").clone();
            assert!(slices.windows(2).all(|pair| pair[0] <= pair[1]), "{case}: {slices:?}");
            if cut_after == 9 {
                assert!(slices.first().is_none_or(|first| *first > 2_000), "{case}: it began anew: {slices:?}");
            }
            // Rows that changed in between, though as many as before, are found by reading them: in what was not seen yet.
            let kept_text = kept.clone().unwrap_or_default();
            let memory: serde_json::Value = serde_json::from_str(&kept_text).expect("JSON");
            let was_seen = memory["current"]["sides"][1]["position"] == "done";
            target.run("UPDATE item SET name = 'late' WHERE grp = 140").await;
            let later = Cut::new(kept, u32::MAX);
            let found =
                look(&source.database, &target.database, &m, Range::default(), &cut_options(&later, &heard)).await;
            let found = found.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(found.different, if was_seen { 0 } else { 150 }, "{case}: {kept_text}: {found:?}");
            target.run("DELETE FROM item WHERE grp = 140").await;
            let source_rows = "INSERT INTO item SELECT grp, no, at, price, name FROM item WHERE grp = -1";
            target.run(source_rows).await;
            let request = CopyRequest::new(m.clone(), "all", Policy::Fill, format!("again {cut_after}"));
            copy(&source.database, &target.database, &request, &|_| {}, &CancellationToken::new())
                .await
                .expect("copies");
        }
    }
}

#[tokio::test]
async fn a_sample_says_what_it_is_and_finds_what_lies_in_it() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let origin = origin(folder.path()).await;
    for (from, to) in [(Engine::Postgres, Engine::Mariadb), (Engine::Sqlite, Engine::Postgres)] {
        let (source, target) = (filled(from, &origin, folder.path()).await, filled(to, &origin, folder.path()).await);
        let sampled = async |one_in, seed| {
            let options = CompareOptions { sample: Some(Sample { one_in, seed }), ..CompareOptions::default() };
            let found = look(&source.database, &target.database, &mapping(""), Range::default(), &options).await;
            found.unwrap_or_else(|error| panic!("{from} to {to}: {error}"))
        };
        let found = sampled(5, 1).await;
        let met = found.sampled.expect("a sample");
        assert!(found.is_equal(), "{found:?}");
        assert_eq!((met.chunks, met.of, met.seed), (5, 21, 1));
        assert!(met.rows <= 10_000 && met.rows > 8_000, "{met:?}");
        assert_eq!(found, sampled(5, 1).await, "the same seed, the same sample");
        target.run("UPDATE item SET name = 'x' WHERE grp = 70 AND no = 1").await;
        target.run("DELETE FROM item WHERE grp = 71 AND no = 1").await;
        target.run("INSERT INTO item VALUES (71, 1000, 0, NULL, NULL)").await;
        let all = sampled(1, 3).await;
        assert_eq!((all.missing, all.extra, all.different), (1, 1, 1), "{all:?}");
        let mut hits = 0;
        for seed in 0..12 {
            hits += u32::from(!sampled(3, seed).await.is_equal());
        }
        assert!((1..12).contains(&hits), "{hits} of 12 samples of a third met rows in one place");
    }
}

/// Type, value, another value, whether they are equal all the same.
type Twin = (&'static str, &'static str, &'static str, bool);

const POSTGRES: &[Twin] = &[
    ("numeric", "1.5", "-1.5", false),
    ("numeric", "'NaN'", "'Infinity'", false),
    ("numeric", "1.0", "1.00", true),
    ("numeric(10,2)", "0.10", "0.01", false),
    ("int8", "1", "4294967296", false),
    ("int8", "-1", "-4294967297", false),
    ("int4", "0", "NULL", false),
    ("int2", "-1", "1", false),
    ("bool", "true", "false", false),
    ("bool", "false", "NULL", false),
    ("real", "0.1", "0.10000001", false),
    ("real", "'NaN'", "'-Infinity'", false),
    ("float8", "0.1", "0.1::float8 + 1e-17::float8 * 2", false),
    ("float8", "0.0", "'-0'", true),
    ("text", "''", "NULL", false),
    ("text COLLATE folded", "'a'", "'A'", false),
    ("varchar(9)", "'a'", "'a '", false),
    ("char(3)", "'a'", "'a  '", true),
    ("char(3)", "'a'", "'b'", false),
    ("bytea", "'\\x00'", "'\\x0000'", false),
    ("bytea", "''", "NULL", false),
    ("timestamptz", "'infinity'", "'-infinity'", false),
    ("timestamptz", "'2024-01-01 00:00:00+00'", "'2024-01-01 00:00:00.000001+00'", false),
    ("timestamptz", "'2024-01-01 00:00:00+00'", "'2024-01-01 02:00:00+02'", true),
    ("timestamp", "'epoch'", "NULL", false),
    ("timestamp", "'9999-12-31 23:59:59.999999'", "'9999-12-31 23:59:59.999998'", false),
    ("date", "'2024-02-29'", "'2024-03-01'", false),
    ("date", "'infinity'", "NULL", false),
    ("time", "'00:00'", "'24:00'", false),
    ("timetz", "'00:00+00'", "'02:00+02'", false),
    ("interval", "'1 mon'", "'30 days'", false),
    ("uuid", "'00000000-0000-0000-0000-000000000000'", "NULL", false),
    ("json", "'{\"a\": 1, \"b\": 2}'", "'{\"b\": 2, \"a\": 1.0}'", true),
    ("json", "'[1]'", "'[2]'", false),
    ("jsonb", "'{\"a\": 1}'", "'{\"a\": null}'", false),
    ("int4[]", "'{1,2}'", "'{2,1}'", false),
    ("int4[]", "'{1,NULL}'", "'{NULL,1}'", false),
    ("mood", "'glad'", "'sad'", false),
    ("inet", "'10.0.0.1'", "'10.0.0.1/24'", false),
    ("int4range", "'[1,3)'", "'[1,4)'", false),
];

const MARIADB: &[Twin] = &[
    ("BIGINT UNSIGNED", "18446744073709551615", "18446744073709551614", false),
    ("INT", "0", "NULL", false),
    ("TINYINT(1)", "1", "2", false),
    ("BIT(8)", "b'1'", "b'10'", false),
    ("YEAR", "2024", "2025", false),
    ("FLOAT", "1.0000001", "1.0000002", false),
    ("FLOAT", "16777216", "16777214", false),
    ("DOUBLE", "0.1e0", "0.1e0 + 1.4e-17", false),
    ("DOUBLE", "123456789.123456789e0", "123456789.12345680e0", false),
    ("DOUBLE(10,2)", "1.25", "1.26", false),
    ("DECIMAL(20,4)", "1.5", "-1.5", false),
    ("VARCHAR(9) COLLATE utf8mb4_general_ci", "'a'", "'A'", false),
    ("VARCHAR(9)", "'a'", "'a '", false),
    ("VARCHAR(9)", "'~'", "NULL", false),
    ("VARCHAR(9)", "''", "NULL", false),
    ("VARCHAR(9) CHARACTER SET latin1", "'é'", "'e'", false),
    ("LONGTEXT", "REPEAT('ä', 9000)", "CONCAT(REPEAT('ä', 8999), 'a')", false),
    ("BLOB", "x'00'", "x'0000'", false),
    ("VARBINARY(4)", "x''", "NULL", false),
    ("BINARY(2)", "x'0001'", "x'0100'", false),
    ("DATE", "'2024-02-29'", "'2024-03-01'", false),
    ("TIME(3)", "'00:00:01'", "'00:00:01.001'", false),
    ("DATETIME(6)", "'2024-01-01'", "'2024-01-01 00:00:00.000001'", false),
    ("TIMESTAMP(6) NULL", "'2024-01-01'", "'2024-01-01 00:00:01'", false),
    ("ENUM('a','b')", "'a'", "'b'", false),
    ("SET('a','b')", "'a'", "'a,b'", false),
    ("JSON", "'{\"a\": 1, \"b\": 2}'", "'{\"b\": 2, \"a\": 1.0}'", true),
    ("JSON", "'[1]'", "'[2]'", false),
    ("UUID", "'00000000-0000-4000-8000-000000000000'", "NULL", false),
    ("INET6", "'::1'", "'::2'", false),
];

/// A table with one column for each twin; the other side differs in one row for each.
async fn twins(engine: Engine, all: &[Twin], folder: &std::path::Path) -> (Fresh, Fresh) {
    let sides = (Fresh::new(engine, "twins", folder).await, Fresh::new(engine, "twins", folder).await);
    for (side, fresh) in [&sides.0, &sides.1].into_iter().enumerate() {
        if engine == Engine::Postgres {
            // Another order of the labels: another number behind each.
            let labels = if side == 0 { "'glad', 'sad'" } else { "'sad', 'glad'" };
            fresh.run(&format!("CREATE TYPE mood AS ENUM ({labels})")).await;
            fresh
                .run("CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
                .await;
        }
        let columns: Vec<String> = all.iter().enumerate().map(|(i, twin)| format!("c{i} {}", twin.0)).collect();
        fresh.run(&format!("CREATE TABLE item (id INTEGER PRIMARY KEY, {})", columns.join(", "))).await;
        let names: Vec<String> = (0..all.len()).map(|i| format!("c{i}")).collect();
        for row in 0..=all.len() {
            let values: Vec<&str> =
                all.iter().enumerate().map(|(i, twin)| if side == 1 && row == i { twin.2 } else { twin.1 }).collect();
            fresh
                .run(&format!("INSERT INTO item (id, {}) VALUES ({row}, {})", names.join(", "), values.join(", ")))
                .await;
        }
    }
    sides
}

#[tokio::test]
async fn no_two_values_are_taken_for_one_by_the_engines_hashes() {
    let folder = tempfile::tempdir().expect("a temp dir");
    for (engine, all) in [(Engine::Postgres, POSTGRES), (Engine::Mariadb, MARIADB)] {
        let (source, target) = twins(engine, all, folder.path()).await;
        let streamed = |twin: &Twin| twin.0.starts_with("INET") || twin.0.starts_with("DOUBLE(");
        // One column at a time, so that no other column's difference hides that one was missed.
        for (i, twin) in all.iter().enumerate() {
            let others: Vec<String> =
                (0..all.len()).filter(|other| *other != i).map(|other| format!("c{other}")).collect();
            let others = others.join(", ");
            let only = mapping(&format!(
                "tables: {{ item: {{ ignore: {{ source: [{others}], target: [{others}] }}, columns: {{ id: id, c{i}: c{i} }} }} }}\n"
            ));
            let found = whole(&source, &target, &only).await;
            let expected = u64::from(!twin.3);
            assert_eq!(found.different, expected, "{engine} {twin:?}: {found:?}");
            assert_eq!(found.is_equal(), twin.3, "{engine} {twin:?}: {found:?}");
            let wanted = if streamed(twin) { Method::Streamed } else { Method::InEngine };
            assert_eq!(found.method, wanted, "{engine} {twin:?}");
            if let (false, Some(first)) = (twin.3, found.differences.first()) {
                assert_eq!(
                    told(first).1,
                    json!({ "id": if engine == Engine::Postgres { json!(i.to_string()) } else { json!(i) } })
                );
            }
        }
    }
}

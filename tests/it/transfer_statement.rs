//! Statements, assertions, timeouts and migrations on a real PostgreSQL.

use std::time::{Duration, Instant};

use piton::transfer::{
    Binds, ConnectOptions, Database, Expect, StatementOptions, TransferError, assert, execute, migrate, query,
};
use serde_json::{Value, json};

use crate::support::postgres::PrivatePostgres;

async fn open(name: &str) -> Database {
    let url = PrivatePostgres::start().create_database(name);
    Database::connect(&url, ConnectOptions::default()).await.expect("the server runs")
}

fn binds(values: &Value) -> Binds {
    values.as_object().expect("a map").clone().into_iter().collect()
}

#[tokio::test]
async fn values_of_every_type_come_right_both_ways() {
    let database = open("st_types").await;
    let sql = "SELECT :i::int4 + 1 AS i, :b::int8 AS b, :f::float8 AS f, :n::numeric AS n, :t || '!' AS t, :y::bool AS y, \
               :u::uuid AS u, :j::jsonb AS j, :ts::timestamptz AS ts, :a::int[] AS a, NULL::text AS nothing, \
               'x'::bytea AS bytes, ':no' AS colon, 1.50::numeric AS m -- :not_this";
    let given = json!({
        "i": 41, "b": 9_223_372_036_854_775_807_i64, "f": 0.1, "n": "12345678901234567890.12", "t": "it's; -- fine", "y": true,
        "u": "6F9619FF-8B86-D011-B42D-00C04FC964FF", "j": {"k": [1, null]}, "ts": "2024-02-03T04:05:06+01:00", "a": [1, 2],
    });
    let rows = query(&database, sql, &binds(&given), StatementOptions::default()).await.expect("runs");
    assert_eq!(rows.columns[0], "i");
    let wanted = json!({
        "i": 42, "b": 9_223_372_036_854_775_807_i64, "f": 0.1, "n": "12345678901234567890.12", "t": "it's; -- fine!", "y": true,
        "u": "6f9619ff-8b86-d011-b42d-00c04fc964ff", "j": {"k": [1, null]}, "ts": "2024-02-03T03:05:06+00:00", "a": [1, 2],
        "nothing": null, "bytes": "\\x78", "colon": ":no", "m": 1.5,
    });
    assert_eq!(Value::Object(rows.rows[0].clone()), wanted);
}

#[tokio::test]
async fn wrong_binds_and_wrong_words_are_named_where_they_stand() {
    let database = open("st_errors").await;
    let none = Binds::new();
    let all = StatementOptions::default();
    let error = query(&database, "SELECT :a, :b", &binds(&json!({"b": 1, "c": 2})), all).await.expect_err("a and c");
    assert!(
        matches!(&error, TransferError::Binds { missing, unused } if missing == &["a"] && unused == &["c"]),
        "{error}"
    );
    let error = query(&database, "SELECT :a::int + nope", &binds(&json!({"a": 1})), all).await.expect_err("no column");
    let TransferError::Sql { position, code, .. } = &error else { panic!("{error}") };
    assert_eq!((*position, code.as_deref()), (Some(18), Some("42703")));
    let error = query(&database, "SELECT :a::int", &binds(&json!({"a": true})), all).await.expect_err("no number");
    assert!(matches!(error, TransferError::BindType { .. }), "{error}");
    let error = query(&database, "SELECT :a::text", &binds(&json!({"a": "x\0y"})), all).await.expect_err("NUL");
    assert!(error.to_string().contains("NUL"), "{error}");
    let error = query(&database, "SELECT :a::int", &binds(&json!({"a": "many"})), all).await.expect_err("no number");
    assert!(matches!(&error, TransferError::Sql { code: Some(code), .. } if code == "22P02"), "{error}");
    assert!(query(&database, "SELECT 1 AS a, 2 AS a", &none, all).await.is_err(), "one name twice");
    assert!(query(&database, "SELECT 1; SELECT 2", &none, all).await.is_err(), "two statements");
    assert!(execute(&database, "COMMIT", &none, all).await.is_err(), "transaction control");
}

#[tokio::test]
async fn a_change_of_several_statements_is_one_transaction() {
    let database = open("st_execute").await;
    let all = StatementOptions::default();
    let sql = "CREATE TABLE t (a int PRIMARY KEY, at timestamptz); INSERT INTO t VALUES (:one, now()), (2, now());
               CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1; $$; UPDATE t SET a = a + 10 WHERE a > :one";
    let affected = execute(&database, sql, &binds(&json!({"one": 1})), all).await.expect("runs");
    assert_eq!(affected, 3);
    let broken = "INSERT INTO t VALUES (100, NULL); INSERT INTO t VALUES (100, NULL)";
    let error = execute(&database, broken, &Binds::new(), all).await.expect_err("twice");
    assert!(!error.effect_unknown() && error.to_string().contains("already exists"), "{error}");
    let count = Expect::Value(json!(2));
    let outcome = assert(&database, "SELECT count(*) FROM t", &Binds::new(), &count, all).await.expect("runs");
    assert!(outcome.holds, "{outcome:?}");
    let outcome =
        assert(&database, "SELECT a FROM t ORDER BY a", &Binds::new(), &Expect::NoRows, all).await.expect("runs");
    assert_eq!((outcome.holds, outcome.counted, outcome.evidence.rows[0]["a"].clone()), (false, 2, json!(1)));
    let returned =
        query(&database, "INSERT INTO t VALUES (7, NULL) RETURNING a", &Binds::new(), all).await.expect("runs");
    assert_eq!(returned.rows[0]["a"], 7);
    let outcome = assert(&database, "SELECT 1 FROM t", &Binds::new(), &Expect::Rows(3), all).await.expect("runs");
    assert!(outcome.holds, "the returned row is committed");
}

#[tokio::test]
async fn a_timeout_really_cancels_the_statement_in_the_server() {
    let database = open("st_timeout").await;
    let short = StatementOptions { timeout: Some(Duration::from_millis(300)), ..Default::default() };
    let started = Instant::now();
    let error = query(&database, "SELECT pg_sleep(60)", &Binds::new(), short).await.expect_err("too slow");
    assert!(matches!(error, TransferError::Timeout { effect_unknown: false, .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));
    let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE '%pg_sleep%' \
               AND pid <> pg_backend_pid()";
    let left = assert(&database, sql, &Binds::new(), &Expect::NoRows, StatementOptions::default()).await.expect("runs");
    assert!(left.holds, "{left:?}");
}

#[tokio::test]
async fn a_timeout_interrupts_sqlite_too() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let url = format!("sqlite://{}", folder.path().join("a.db").display());
    let database = Database::connect(&url, ConnectOptions { create: true, ..Default::default() }).await.expect("opens");
    let none = Binds::new();
    execute(&database, "CREATE TABLE t (a INTEGER)", &none, StatementOptions::default()).await.expect("runs");
    let endless = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let short = StatementOptions { timeout: Some(Duration::from_millis(300)), ..Default::default() };
    let error = execute(&database, endless, &none, short).await.expect_err("endless");
    assert!(matches!(error, TransferError::Timeout { effect_unknown: false, .. }), "{error}");
    let empty = assert(&database, "SELECT * FROM t", &none, &Expect::NoRows, StatementOptions::default()).await;
    assert!(empty.expect("runs").holds);
}

#[tokio::test]
async fn migrations_are_applied_once_and_a_broken_one_names_its_folder() {
    let database = open("st_migrate").await;
    let folder = tempfile::tempdir().expect("a temp dir");
    std::fs::write(folder.path().join("1_start.sql"), "CREATE TABLE a (x int);").expect("written");
    std::fs::write(folder.path().join("2_more.sql"), "ALTER TABLE a ADD COLUMN y int;").expect("written");
    assert_eq!(migrate(&database, folder.path()).await.expect("applies"), [1, 2]);
    assert!(migrate(&database, folder.path()).await.expect("nothing to do").is_empty());
    std::fs::write(folder.path().join("3_bad.sql"), "ALTER TABLE nope ADD COLUMN y int;").expect("written");
    let error = migrate(&database, folder.path()).await.expect_err("no such table");
    assert!(matches!(error, TransferError::Migrate { .. }), "{error}");
}

#[tokio::test]
async fn a_read_only_handle_writes_nothing_and_a_dead_server_is_a_connect_error() {
    let url = PrivatePostgres::start().create_database("st_read_only");
    let read_only = ConnectOptions { read_only: true, ..Default::default() };
    let database = Database::connect(&url, read_only).await.expect("the server runs");
    let error = execute(&database, "CREATE TABLE t (a int)", &Binds::new(), StatementOptions::default()).await;
    assert!(matches!(&error, Err(TransferError::Sql { code: Some(code), .. }) if code == "25006"), "{error:?}");
    let error = Database::connect("postgres://x:secret@127.0.0.1:1/none", ConnectOptions::default()).await;
    let error = error.expect_err("nobody listens");
    assert!(matches!(error, TransferError::Connect { .. }) && !error.to_string().contains("secret"), "{error}");
}

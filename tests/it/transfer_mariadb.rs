//! Statements, assertions, timeouts and migrations on a real MariaDB, and what a copy does about its peculiarities.

use std::time::{Duration, Instant};

use piton::transfer::{
    Binds, CompareMode, CompareRequest, ConnectOptions, CopyRequest, Database, Expect, Mapping, Policy, Range,
    StatementOptions, TransferError, applied, assert, compare, copied, copy, execute, migrate, query,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::mariadb::PrivateMariadb;
use crate::support::postgres::PrivatePostgres;

const ALL: StatementOptions = StatementOptions { timeout: None, keep_rows: 1_000 };

async fn open(name: &str) -> Database {
    let url = PrivateMariadb::start().create_database(name);
    Database::connect(&url, ConnectOptions::default()).await.expect("the server runs")
}

fn binds(values: &Value) -> Binds {
    values.as_object().expect("a map").clone().into_iter().collect()
}

async fn run(database: &Database, sql: &str) -> u64 {
    execute(database, sql, &Binds::new(), ALL).await.expect("the statement runs")
}

async fn rows(database: &Database, sql: &str) -> Vec<Value> {
    let found = query(database, sql, &Binds::new(), ALL).await.expect("the query runs");
    found.rows.into_iter().map(Value::Object).collect()
}

#[tokio::test]
async fn values_of_every_type_come_right_both_ways() {
    let database = open("st_types").await;
    let sql = "SELECT :i + 1 AS i, :b AS b, :u AS u, :f AS f, CAST(:n AS DECIMAL(30,2)) AS n, CONCAT(:t, '!') AS t, :y AS y, \
               JSON_EXTRACT(:j, '$.k') AS j, NULL AS nothing, X'00ff' AS bytes, ':no' AS colon, 1.50 AS m, DATE'2024-02-29' AS d, \
               TIMESTAMP'2024-02-29 01:02:03.40' AS ts, TIME'-12:00:00' AS span, :t AS again, 'it\\'s' AS esc -- :not_this";
    let given = json!({
        "i": 41, "b": 9_223_372_036_854_775_807_i64, "u": "18446744073709551615", "f": 0.1, "n": "12345678901234567890.12",
        "t": "it's; -- fine \\ 😀", "y": true, "j": {"k": [1, null]},
    });
    let found = query(&database, sql, &binds(&given), ALL).await.expect("runs");
    let wanted = json!({
        "i": 42, "b": 9_223_372_036_854_775_807_i64, "u": "18446744073709551615", "f": 0.1, "n": "12345678901234567890.12",
        "t": "it's; -- fine \\ 😀!", "y": 1, "j": "[1, null]", "nothing": null, "bytes": "\\x00ff", "colon": ":no", "m": 1.5,
        "d": "2024-02-29", "ts": "2024-02-29 01:02:03.4", "span": "-12:00:00", "again": "it's; -- fine \\ 😀", "esc": "it's",
    });
    assert_eq!(Value::Object(found.rows[0].clone()), wanted);
}

#[tokio::test]
async fn a_session_is_strict_whatever_the_server_is() {
    let database = open("st_strict").await;
    run(&database, "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, d DATE, s VARCHAR(3), n TINYINT UNSIGNED)")
        .await;
    for (values, word) in [
        ("(1, '0000-00-00', '', 1)", "date"),
        ("(1, '2024-02-00', '', 1)", "date"),
        ("(1, NULL, 'long', 1)", "too long"),
        ("(1, NULL, '', 256)", "Out of range"),
        ("(1, NULL, '', -1)", "Out of range"),
    ] {
        let sql = format!("INSERT INTO t VALUES {values}");
        let error = execute(&database, &sql, &Binds::new(), ALL).await.expect_err("refused");
        assert!(error.to_string().contains(word) && !error.effect_unknown(), "{error}");
    }
    run(&database, "INSERT INTO t VALUES (0, NULL, '😀', 255)").await;
    let found = rows(&database, "SELECT id, s, @@time_zone AS zone FROM t").await;
    assert_eq!(found, [json!({"id": 0, "s": "😀", "zone": "+00:00"})]);
    for sql in ["SET sql_mode = ''", "LOCK TABLES t WRITE", "COMMIT", "SET SESSION time_zone = '+01:00'"] {
        let error = execute(&database, sql, &Binds::new(), ALL).await.expect_err("ours alone");
        assert!(error.to_string().contains("not allowed"), "{error}");
    }
}

#[tokio::test]
async fn changes_of_rows_are_one_transaction_and_ddl_says_how_far_it_came() {
    let database = open("st_execute").await;
    run(&database, "CREATE TABLE t (a INT PRIMARY KEY); INSERT INTO t VALUES (1), (2)").await;
    let given = binds(&json!({"by": 10, "one": 1}));
    let sql = "UPDATE t SET a = a + :by WHERE a > :one; INSERT INTO t VALUES (:one + :by)";
    assert_eq!(execute(&database, sql, &given, ALL).await.expect("runs"), 2);
    let broken = "INSERT INTO t VALUES (100); INSERT INTO t VALUES (100)";
    let error = execute(&database, broken, &Binds::new(), ALL).await.expect_err("twice");
    assert!(!error.effect_unknown() && error.to_string().contains("Duplicate entry"), "{error}");
    assert_eq!(rows(&database, "SELECT count(*) AS n FROM t").await, [json!({"n": 3})], "the first was taken back");
    let broken =
        "INSERT INTO t VALUES (100); CREATE TABLE u (b INT); INSERT INTO t VALUES (101); INSERT INTO t VALUES (100)";
    let error = execute(&database, broken, &Binds::new(), ALL).await.expect_err("twice");
    assert!(matches!(&error, TransferError::HalfDone { statement: 4, of: 4, committed: 2, .. }), "{error:?}");
    assert!(error.effect_unknown() && error.to_string().contains("the first 2 are done for good"), "{error}");
    let left = rows(&database, "SELECT a FROM t WHERE a >= 100").await;
    assert_eq!(left, [json!({"a": 100})], "what stands before the DDL is committed, what stands behind it is not");
    let outcome = assert(&database, "SELECT count(*) FROM t", &Binds::new(), &Expect::Value(json!(4)), ALL).await;
    assert!(outcome.expect("runs").holds);
}

#[tokio::test]
async fn wrong_binds_and_wrong_words_are_named() {
    let database = open("st_errors").await;
    let none = Binds::new();
    let error = query(&database, "SELECT :a, :b", &binds(&json!({"b": 1, "c": 2})), ALL).await.expect_err("a and c");
    assert!(
        matches!(&error, TransferError::Binds { missing, unused } if missing == &["a"] && unused == &["c"]),
        "{error}"
    );
    let error = query(&database, "SELECT nope", &none, ALL).await.expect_err("no column");
    assert!(matches!(&error, TransferError::Sql { code: Some(code), .. } if code == "1054"), "{error}");
    assert!(query(&database, "SELECT 1 AS a, 2 AS a", &none, ALL).await.is_err(), "one name twice");
    assert!(query(&database, "DO 1", &none, ALL).await.is_err(), "no rows");
    let error = Database::connect("mysql://root:secret@127.0.0.1:1/none", ConnectOptions::default()).await;
    let error = error.expect_err("nobody listens");
    assert!(matches!(error, TransferError::Connect { .. }) && !error.to_string().contains("secret"), "{error}");
    let error = Database::connect("mysql://root@127.0.0.1", ConnectOptions::default()).await.expect_err("which one?");
    assert!(error.to_string().contains("no database"), "{error}");
}

#[tokio::test]
async fn a_timeout_really_ends_the_statement_in_the_server() {
    let database = open("st_timeout").await;
    run(&database, "CREATE TABLE t (a BIGINT)").await;
    let short = StatementOptions { timeout: Some(Duration::from_millis(300)), ..ALL };
    let endless = "INSERT INTO t SELECT a.seq FROM seq_1_to_1000000 a JOIN seq_1_to_1000000 b ON a.seq + b.seq < 0";
    let started = Instant::now();
    let error = execute(&database, endless, &Binds::new(), short).await.expect_err("too slow");
    assert!(matches!(error, TransferError::Timeout { effect_unknown: false, .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));
    let sql =
        "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'INSERT INTO t SELECT%' AND DB = DATABASE()";
    while !rows(&database, sql).await.is_empty() {
        // It has answered already; its entry may outlast the answer for a moment.
        assert!(started.elapsed() < Duration::from_secs(20), "the statement goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let url = PrivateMariadb::start().create_database("st_read_only");
    let options =
        ConnectOptions { read_only: true, statement_timeout: Some(Duration::from_millis(200)), ..Default::default() };
    let database = Database::connect(&url, options).await.expect("opens");
    let error = execute(&database, "CREATE TABLE t (a INT)", &Binds::new(), ALL).await.expect_err("read only");
    assert!(matches!(&error, TransferError::Sql { code: Some(code), .. } if code == "1792"), "{error}");
    let error =
        query(&database, "SELECT count(*) FROM seq_1_to_1000000 a, seq_1_to_1000000 b", &Binds::new(), ALL).await;
    assert!(matches!(error, Err(TransferError::Timeout { .. })), "{error:?}");
}

#[tokio::test]
async fn a_migration_goes_on_behind_its_last_statement_and_names_a_doubt() {
    let database = open("st_migrate").await;
    let folder = tempfile::tempdir().expect("a temp dir");
    let write = |name: &str, sql: &str| std::fs::write(folder.path().join(name), sql).expect("written");
    write("1_start.sql", "CREATE TABLE a (x INT PRIMARY KEY); INSERT INTO a VALUES (1);");
    assert_eq!(migrate(&database, folder.path()).await.expect("applies"), [1]);
    assert!(migrate(&database, folder.path()).await.expect("nothing to do").is_empty());
    let body = "ALTER TABLE a ADD COLUMN y INT; INSERT INTO a VALUES (2, 2); ALTER TABLE nope ADD COLUMN y INT";
    write("2_more.sql", body);
    let error = migrate(&database, folder.path()).await.expect_err("no such table");
    assert!(matches!(&error, TransferError::Migration { version: 2, statement: 3, of: 3, .. }), "{error:?}");
    assert_eq!(applied(&database).await.expect("reads"), [1], "a version that is under way is no success");
    // What is done may not be changed, what failed may.
    write("2_more.sql", &body.replace("(2, 2)", "(3, 3)"));
    let error = migrate(&database, folder.path()).await.expect_err("another text");
    assert!(matches!(&error, TransferError::Migration { statement: 2, .. }), "{error:?}");
    write("2_more.sql", &body.replace("nope ADD COLUMN y", "a ADD COLUMN z"));
    // A crash between the DDL and its record.
    let digest = "SELECT SHA2('ALTER TABLE a ADD COLUMN z INT', 256)";
    run(&database, &format!("INSERT INTO piton_migration_step SELECT 2, 3, ({digest}), 'begun'")).await;
    let error = migrate(&database, folder.path()).await.expect_err("nobody knows").to_string();
    assert!(error.contains("statement 3 of 3") && error.contains("ALTER TABLE a ADD COLUMN z INT"), "{error}");
    assert!(error.contains("DELETE FROM piton_migration_step WHERE version = 2 AND statement = 3"), "{error}");
    run(&database, "DELETE FROM piton_migration_step WHERE version = 2 AND statement = 3").await;
    assert_eq!(migrate(&database, folder.path()).await.expect("goes on"), [2]);
    let found = rows(&database, "SELECT count(*) AS n, max(y) AS y, max(z) AS z FROM a").await;
    assert_eq!(found, [json!({"n": 2, "y": 2, "z": null})], "the INSERT ran once");
    write("1_start.sql", "CREATE TABLE a (x INT)");
    let error = migrate(&database, folder.path()).await.expect_err("changed").to_string();
    assert!(error.contains("migration 1 is applied and was changed"), "{error}");
}

fn whole(table: &str, policy: Policy, token: &str) -> CopyRequest {
    let text = format!("apiVersion: piton/v1\nkind: Mapping\nname: m\nsets: {{ all: [{table}] }}\n");
    CopyRequest::new(Mapping::from_yaml(&text).expect("valid"), "all", policy, token)
}

async fn move_all(from: &Database, to: &Database, request: &CopyRequest) -> Result<u64, TransferError> {
    copy(from, to, request, &|_| {}, &CancellationToken::new()).await.map(|report| report.changed())
}

#[tokio::test]
async fn keys_that_only_a_collation_takes_for_the_same_are_refused_and_nothing_is_overwritten() {
    let url = PrivatePostgres::start().create_database("maria_collation");
    let from = Database::connect(&url, ConnectOptions::default()).await.expect("the server runs");
    let to = open("collation").await;
    run(&from, "CREATE TABLE k (code text PRIMARY KEY, n int); INSERT INTO k VALUES ('B', 1), ('b', 2), ('c', 3)")
        .await;
    run(&to, "CREATE TABLE k (code VARCHAR(9) COLLATE utf8mb4_general_ci PRIMARY KEY, n INT)").await;
    for policy in [Policy::Fail, Policy::Fill, Policy::SourceWins { replace_row: true }] {
        let error = move_all(&from, &to, &whole("k", policy, "t")).await.expect_err("one of two would be lost");
        assert!(error.to_string().contains("takes for the same") && error.to_string().contains("Duplicate"), "{error}");
        assert!(rows(&to, "SELECT * FROM k").await.is_empty());
    }
    run(&to, "INSERT INTO k VALUES ('C', 7)").await;
    run(&from, "DELETE FROM k WHERE code <> 'c'").await;
    let error = move_all(&from, &to, &whole("k", Policy::SourceWins { replace_row: true }, "u")).await;
    assert!(error.expect_err("another row").to_string().contains("takes for the same"));
    assert_eq!(rows(&to, "SELECT code, n FROM k").await, [json!({"code": "C", "n": 7})]);
}

#[tokio::test]
async fn a_table_without_transactions_is_read_but_never_written() {
    let from = open("storage_from").await;
    let to = open("storage_to").await;
    run(&from, "CREATE TABLE k (id INT PRIMARY KEY) ENGINE=MyISAM; INSERT INTO k VALUES (1), (2)").await;
    run(&to, "CREATE TABLE k (id INT PRIMARY KEY) ENGINE=MyISAM").await;
    let error = move_all(&from, &to, &whole("k", Policy::Fail, "t")).await.expect_err("no way back there");
    assert!(error.to_string().contains("ENGINE=InnoDB"), "{error}");
    run(&to, "ALTER TABLE k ENGINE=InnoDB").await;
    assert_eq!(move_all(&from, &to, &whole("k", Policy::Fail, "t")).await.expect("copies"), 2);
    run(&from, "CREATE TABLE f (id FLOAT PRIMARY KEY)").await;
    run(&to, "CREATE TABLE f (id DOUBLE PRIMARY KEY)").await;
    let error = move_all(&from, &to, &whole("f", Policy::Fail, "t")).await.expect_err("no exact key");
    assert!(error.to_string().contains("FLOAT"), "{error}");
}

#[tokio::test]
async fn auto_increment_goes_on_behind_the_copied_rows() {
    let (from, to) = (open("auto_from").await, open("auto_to").await);
    for database in [&from, &to] {
        run(database, "CREATE TABLE k (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(9))").await;
    }
    run(&from, "INSERT INTO k VALUES (0, 'zero'), (41, 'a')").await;
    assert_eq!(move_all(&from, &to, &whole("k", Policy::Fail, "t")).await.expect("copies"), 2);
    run(&to, "INSERT INTO k (name) VALUES ('next')").await;
    assert_eq!(
        rows(&to, "SELECT id FROM k ORDER BY id").await,
        [json!({"id": 0}), json!({"id": 41}), json!({"id": 42})]
    );
}

#[tokio::test]
async fn a_server_killed_in_the_middle_of_a_chunk_loses_and_doubles_nothing() {
    let server = PrivateMariadb::of_its_own();
    let url = server.create_database("killed");
    let to = Database::connect(&url, ConnectOptions::default()).await.expect("the server runs");
    let from = open("killed_from").await;
    let table = "CREATE TABLE perf (e INT, t BIGINT, iv INT, PRIMARY KEY (e, t))";
    run(&from, table).await;
    run(&to, table).await;
    run(&from, "INSERT INTO perf SELECT seq DIV 10, seq % 10 * 900, seq FROM seq_0_to_29").await;
    run(&to, "INSERT INTO perf VALUES (0, 0, 1000), (0, 4500, 1000)").await;
    let text =
        "apiVersion: piton/v1\nkind: Mapping\nname: m\nsets: { all: [perf] }\ntables: { perf: { additive: [iv] } }\n";
    let mut request = CopyRequest::new(Mapping::from_yaml(text).expect("valid"), "all", Policy::MergeAdditive, "t");
    request.chunk_rows = 4;
    // A lock on a row of the second chunk keeps its transaction open until the server dies.
    let Database::Mariadb(pool) = &to else { panic!("MariaDB was asked for") };
    let mut holder = pool.begin().await.expect("begins");
    sqlx::query("SELECT 1 FROM perf WHERE e = 0 AND t = 4500 FOR UPDATE").execute(&mut *holder).await.expect("locks");
    let killer = async {
        // The engine shows a state that is at least 100 ms old to those who ask more often.
        let waits = "SELECT trx_query FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'";
        while rows(&to, waits).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        server.kill();
    };
    let mut copying = std::pin::pin!(move_all(&from, &to, &request));
    tokio::select! {
        early = &mut copying => panic!("it waits for the lock: {early:?}"),
        () = killer => {}
    }
    let error = copying.await.expect_err("its server was killed");
    assert!(error.effect_unknown(), "{error:?}");
    drop(holder);
    server.start_again();
    let to = Database::connect(&url, ConnectOptions::default()).await.expect("the server runs again");
    assert_eq!(copied(&to, "t").await.expect("probe").rows(), 4);
    assert_eq!(move_all(&from, &to, &request).await.expect("goes on"), 26);
    let found = rows(&to, "SELECT count(*) AS n, sum(iv) AS total FROM perf").await;
    assert_eq!(found, [json!({"n": 30, "total": 29 * 15 + 2_000})], "each row was added once");
    assert_eq!(move_all(&from, &to, &request).await.expect("done"), 0);
}

#[tokio::test]
async fn zero_dates_are_named_and_told_apart_from_null() {
    let from = open("zero_from").await;
    run(&from, "CREATE TABLE k (id INT PRIMARY KEY, d DATE, at TIMESTAMP NULL, s DATETIME)").await;
    let Database::Mariadb(pool) = &from else { panic!("MariaDB was asked for") };
    let mut loose = pool.acquire().await.expect("a connection");
    sqlx::raw_sql("SET sql_mode = ''").execute(&mut *loose).await.expect("loosens");
    let insert = "INSERT INTO k VALUES (1, NULL, NULL, NULL), (2, '0000-00-00', NULL, NULL), (3, NULL, '0000-00-00', NULL), \
                  (4, NULL, NULL, '2024-05-00 01:00:00')";
    sqlx::raw_sql(insert).execute(&mut *loose).await.expect("the old days");
    loose.close_on_drop();
    drop(loose);
    let url = PrivatePostgres::start().create_database("maria_zero");
    let postgres = Database::connect(&url, ConnectOptions::default()).await.expect("the server runs");
    run(&postgres, "CREATE TABLE k (id int PRIMARY KEY, d text, at text, s text)").await;
    let maria = open("zero_to").await;
    run(&maria, "CREATE TABLE k (id INT PRIMARY KEY, d DATE, at TIMESTAMP NULL, s DATETIME)").await;
    for to in [&postgres, &maria] {
        for (id, column) in [(2, "d"), (3, "at"), (4, "s")] {
            run(&from, &format!("CREATE OR REPLACE VIEW one AS SELECT * FROM k WHERE id IN (1, {id})")).await;
            let text = "apiVersion: piton/v1\nkind: Mapping\nname: m\nsets: { all: [one] }\ntables: { one: { to: k, key: [id] } }\n";
            let request = CopyRequest::new(Mapping::from_yaml(text).expect("valid"), "all", Policy::Fail, "t");
            let error = move_all(&from, to, &request).await.expect_err("a zero date");
            let TransferError::Misfit { key, column: named, why, .. } = &error else { panic!("{error}") };
            assert_eq!((key.as_str(), named.as_str()), (format!("id={id}").as_str(), column), "{error}");
            assert!(why.contains("zero date"), "{why}");
        }
    }
}

#[tokio::test]
async fn a_comparison_across_engines_names_what_differs() {
    let from = open("compare_from").await;
    let url = PrivatePostgres::start().create_database("maria_compare");
    let to = Database::connect(&url, ConnectOptions::default()).await.expect("the server runs");
    run(&from, "CREATE TABLE k (id BIGINT UNSIGNED PRIMARY KEY, n DECIMAL(10,2), s TEXT)").await;
    run(&to, "CREATE TABLE k (id numeric(20) PRIMARY KEY, n numeric, s varchar)").await;
    run(
        &from,
        "INSERT INTO k VALUES (1, 1.50, 'a'), (18446744073709551615, 2, 'b'), (18446744073709551614, NULL, 'c')",
    )
    .await;
    let request = whole("k", Policy::Fail, "t");
    assert_eq!(move_all(&from, &to, &request).await.expect("copies"), 3);
    let wanted = CompareRequest {
        mapping: request.mapping.clone(),
        set: "all".into(),
        range: Range::default(),
        mode: CompareMode::Content,
        limit: 5,
    };
    let found = compare(&from, &to, &wanted).await.expect("compares").tables.remove(0);
    assert!(found.is_equal() && found.target_rows == 3, "{found:?}");
    run(&to, "UPDATE k SET s = 'x' WHERE id = 18446744073709551615; DELETE FROM k WHERE id = 1; INSERT INTO k VALUES (7, 0, 'y')").await;
    for (a, b) in [(&from, &to), (&to, &from)] {
        let found = compare(a, b, &wanted).await.expect("compares").tables.remove(0);
        assert_eq!((found.missing, found.extra, found.different), (1, 1, 1), "{found:?}");
    }
}

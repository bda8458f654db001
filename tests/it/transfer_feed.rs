//! Copies from SQLite and MariaDB into empty tables of PostgreSQL, whose rows are encoded as they are read: usual and unusual values, a value
//! that does not fit, cuts in the middle, a writer who was faster.

use std::sync::atomic::{AtomicU32, Ordering};

use piton::transfer::{
    Binds, CompareMode, CompareRequest, ConnectOptions, CopyReport, CopyRequest, Database, Indexes, Mapping, Policy,
    Range, StatementOptions, TransferError, compare, copy, execute, query,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::mariadb::PrivateMariadb;
use crate::support::postgres::PrivatePostgres;

static DATABASES: AtomicU32 = AtomicU32::new(0);

const MAPPING: &str = "apiVersion: piton/v1\nkind: Mapping\nname: perf\nsets: { perf: [perf] }\n\
                       tables: { perf: { time: ts, constants: { origin: \"65\" } } }\n";
const TARGET: &str = "CREATE TABLE perf (entity_id int NOT NULL, ts timestamptz NOT NULL, volume int, aht real, total float8, \
                      flag boolean, note varchar(12), raw bytea, day date, price numeric(12,3), doc jsonb, id uuid, origin text NOT NULL, PRIMARY KEY (entity_id, ts))";

/// A source of 3,000 rows and an empty target.
struct Pair {
    from: Database,
    to: Database,
    _folder: tempfile::TempDir,
}

async fn run(database: &Database, sql: &str) {
    let options = StatementOptions::default();
    execute(database, sql, &Binds::new(), options).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn number(database: &Database, sql: &str) -> i64 {
    let rows = query(database, sql, &Binds::new(), StatementOptions::default()).await.expect("the query runs").rows;
    rows[0].values().next().and_then(Value::as_i64).expect("a number")
}

impl Pair {
    async fn new(engine: &str) -> Self {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir().expect("a temp dir");
        let target = PrivatePostgres::start().create_database(&format!("feed_{number}"));
        let to = Database::connect(&target, ConnectOptions::default()).await.expect("opens");
        run(&to, TARGET).await;
        let (url, create, fill) = if engine == "mariadb" {
            (
                PrivateMariadb::start().create_database(&format!("feed_{number}")),
                "CREATE TABLE perf (entity_id int unsigned NOT NULL, ts timestamp(6) NOT NULL, volume smallint, aht float, total double, \
                 flag tinyint(1), note varchar(40), raw blob, day date, price decimal(12,4), doc json, id char(36), PRIMARY KEY (entity_id, ts))",
                "INSERT INTO perf SELECT e.seq, FROM_UNIXTIME(1600000200 + 900 * b.seq) + INTERVAL b.seq MICROSECOND, IF(b.seq % 7, e.seq * b.seq % 500, NULL), \
                 (e.seq * 7 + b.seq) / 10, e.seq / 3e0, b.seq % 2, CONCAT('zä ', b.seq), UNHEX(LPAD(HEX(b.seq), 4, '0')), \
                 DATE'2024-02-28' + INTERVAL b.seq DAY, (15 - CAST(e.seq AS SIGNED)) * CAST(b.seq AS SIGNED) / 8, JSON_OBJECT('e', e.seq, 'b', 'zä'), \
                 CONCAT('00000000-0000-4000-8000-', LPAD(b.seq, 12, '0')) FROM seq_1_to_30 AS e JOIN seq_0_to_99 AS b",
            )
        } else {
            (
                format!("sqlite://{}", folder.path().join("source.db").display()),
                "CREATE TABLE perf (entity_id integer NOT NULL, ts timestamptz NOT NULL, volume integer, aht real, total real, \
                 flag integer, note text, raw blob, day text, price numeric, doc text, id text, PRIMARY KEY (entity_id, ts)) WITHOUT ROWID",
                "WITH RECURSIVE b(b) AS (SELECT 0 UNION ALL SELECT b + 1 FROM b WHERE b < 99), \
                 e(e) AS (SELECT 1 UNION ALL SELECT e + 1 FROM e WHERE e < 30) \
                 INSERT INTO perf SELECT e, strftime('%Y-%m-%d %H:%M:%S+00', 1600000200 + 900 * b, 'unixepoch'), \
                 CASE WHEN b % 7 THEN e * b % 500 END, (e * 7 + b) / 10.0, e / 3.0, b % 2, 'zä ' || b, CAST(x'00ff' AS BLOB), \
                 date('2024-02-28', b || ' days'), (15 - e) * b / 8.0, '{\"e\": ' || e || ', \"b\": \"zä\"}', \
                 '00000000-0000-4000-8000-' || substr('000000000000' || b, -12) FROM e CROSS JOIN b",
            )
        };
        let from =
            Database::connect(&url, ConnectOptions { create: true, ..ConnectOptions::default() }).await.expect("opens");
        run(&from, create).await;
        run(&from, fill).await;
        Self { from, to, _folder: folder }
    }

    async fn copy(&self, request: &CopyRequest) -> Result<CopyReport, TransferError> {
        copy(&self.from, &self.to, request, &|_| {}, &CancellationToken::new()).await
    }

    /// What the target differs in, as a comparison by other means finds it.
    async fn is_equal(&self) -> bool {
        let mapping = Mapping::from_yaml(MAPPING).expect("valid");
        let (set, range) = ("perf".to_owned(), Range::default());
        let wanted = CompareRequest { mapping, set, range, mode: CompareMode::Content, limit: 5 };
        compare(&self.from, &self.to, &wanted).await.expect("compares").tables.remove(0).is_equal()
    }
}

fn request(chunk_rows: usize, policy: Policy) -> CopyRequest {
    let mapping = Mapping::from_yaml(MAPPING).expect("valid");
    CopyRequest { chunk_rows, ..CopyRequest::new(mapping, "perf", policy, "run/step") }
}

#[tokio::test]
async fn usual_values_arrive_as_they_are() {
    for engine in ["sqlite", "mariadb"] {
        for indexes in [Indexes::Keep, Indexes::After] {
            let pair = Pair::new(engine).await;
            let account = pair.copy(&CopyRequest { indexes, ..request(0, Policy::Fail) }).await.expect("copies");
            assert_eq!((account.tables[0].read, account.tables[0].all.inserted), (3_000, 3_000), "{engine}");
            assert!(pair.is_equal().await, "{engine}");
            let sql = "SELECT count(*) FROM perf WHERE origin = '65' AND note LIKE 'zä %' AND flag IS NOT NULL AND day >= '2024-02-28'";
            assert_eq!(number(&pair.to, sql).await, 3_000, "{engine}");
            let sql =
                "SELECT count(*) FROM perf WHERE total * 3 = entity_id AND octet_length(raw) = 2 AND volume IS NULL";
            assert_eq!(number(&pair.to, sql).await, 30 * 15, "{engine}");
            let sql = "SELECT count(*) FROM perf WHERE price = (15 - entity_id) * right(id::text, 4)::int / 8.0 \
                       AND (doc->>'e')::int = entity_id AND doc->>'b' = 'zä'";
            assert_eq!(number(&pair.to, sql).await, 3_000, "{engine}");
            assert_eq!(number(&pair.to, "SELECT count(*) FROM pg_index WHERE indrelid = 'perf'::regclass").await, 1);
        }
    }
}

#[tokio::test]
async fn unusual_values_go_the_long_way_and_arrive_alike() {
    let pair = Pair::new("sqlite").await;
    for change in [
        "UPDATE perf SET ts = '2031-01-01T01:00:00.5+01:00' WHERE entity_id = 3 AND ts = '2020-09-13 12:30:00+00'",
        "UPDATE perf SET aht = 16777216 WHERE entity_id = 4",
        "UPDATE perf SET volume = '12' WHERE entity_id = 5",
        "UPDATE perf SET flag = 'true' WHERE entity_id = 6",
        "UPDATE perf SET note = 7 WHERE entity_id = 7",
        "UPDATE perf SET total = 9e999 WHERE entity_id = 8",
        "UPDATE perf SET price = '1.5E2' WHERE entity_id = 9",
        "UPDATE perf SET id = replace(upper(id), '-', '') WHERE entity_id = 10",
    ] {
        run(&pair.from, change).await;
    }
    pair.copy(&request(700, Policy::Fail)).await.expect("copies");
    assert_eq!(number(&pair.to, "SELECT count(*) FROM perf WHERE ts = '2031-01-01 00:00:00.5+00'").await, 1);
    assert_eq!(number(&pair.to, "SELECT count(*) FROM perf WHERE volume = 12 AND entity_id = 5").await, 100);
    assert_eq!(number(&pair.to, "SELECT count(*) FROM perf WHERE note = '7' AND flag IS NOT NULL").await, 100);
    assert_eq!(number(&pair.to, "SELECT count(*) FROM perf WHERE total = 'Infinity'").await, 100);
    assert_eq!(number(&pair.to, "SELECT count(*) FROM perf WHERE price = 150 AND entity_id = 9").await, 100);
    assert_eq!(number(&pair.to, "SELECT count(DISTINCT id) FROM perf WHERE entity_id = 10").await, 100);
    assert_eq!(number(&pair.to, "SELECT count(*) FROM perf").await, 3_000);
}

#[tokio::test]
async fn digits_that_have_no_room_and_broken_documents_are_named() {
    for (change, column, why) in [
        ("price = 1234567890.5", "`price`", "more digits"),
        ("price = 0.0625", "`price`", "more than 3 digits"),
        ("doc = '{'", "`doc`", "not JSON"),
        ("id = 'x'", "`id`", "no UUID"),
    ] {
        let pair = Pair::new("sqlite").await;
        run(&pair.from, &format!("UPDATE perf SET {change} WHERE entity_id = 20 AND volume = 20")).await;
        let error = pair.copy(&request(500, Policy::Fail)).await.expect_err("does not fit").to_string();
        assert!(error.contains("entity_id=20") && error.contains(column) && error.contains(why), "{change}: {error}");
    }
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_named_and_what_came_before_it_stays() {
    for engine in ["sqlite", "mariadb"] {
        let pair = Pair::new(engine).await;
        run(&pair.from, "UPDATE perf SET note = 'more than twelve' WHERE entity_id = 20 AND volume = 20").await;
        let error = pair.copy(&request(500, Policy::Fail)).await.expect_err("too long").to_string();
        assert!(error.contains("`perf`") && error.contains("`note`") && error.contains("more than 12"), "{error}");
        let there = number(&pair.to, "SELECT count(*) FROM perf").await;
        assert!((1_500..2_000).contains(&there), "{engine}: {there}");
        run(&pair.from, "UPDATE perf SET note = 'short' WHERE entity_id = 20").await;
        let account = pair.copy(&request(500, Policy::Fail)).await.expect("goes on");
        assert_eq!(account.tables[0].all.inserted, 3_000, "{engine}");
        assert!(pair.is_equal().await, "{engine}");
    }
}

#[tokio::test]
async fn a_copy_that_was_cut_goes_on_behind_its_last_key() {
    for engine in ["sqlite", "mariadb"] {
        let pair = Pair::new(engine).await;
        let mut calls = 0;
        loop {
            let cancel = CancellationToken::new();
            let done = copy(&pair.from, &pair.to, &request(450, Policy::Fail), &|_| cancel.cancel(), &cancel).await;
            calls += 1;
            match done {
                Ok(_) => break,
                Err(TransferError::Cancelled { rows, .. }) => assert_eq!(rows, 450 * calls, "{engine}"),
                Err(error) => panic!("{engine}: {error}"),
            }
        }
        assert!(calls >= 6, "{calls}");
        assert!(pair.is_equal().await, "{engine}");
    }
}

#[tokio::test]
async fn where_another_writer_was_faster_the_policy_decides() {
    for engine in ["sqlite", "mariadb"] {
        let pair = Pair::new(engine).await;
        let cancel = CancellationToken::new();
        let fill = request(600, Policy::Fill);
        copy(&pair.from, &pair.to, &fill, &|_| cancel.cancel(), &cancel).await.expect_err("cut off");
        let sql = "INSERT INTO perf (entity_id, ts, volume, origin) VALUES (29, to_timestamp(1600000200), -1, 'else')";
        run(&pair.to, sql).await;
        let account = pair.copy(&fill).await.expect("goes on by value");
        assert_eq!((account.tables[0].all.inserted, account.tables[0].all.kept), (2_999, 1), "{engine}");
        assert_eq!(number(&pair.to, "SELECT volume FROM perf WHERE origin = 'else'").await, -1, "{engine}");
        assert_eq!(number(&pair.to, "SELECT count(*) FROM perf").await, 3_000, "{engine}");
    }
}

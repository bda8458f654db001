//! Copies between SQLite, PostgreSQL and MariaDB in every direction: all policies, resumes, aborts, guards, misfits.

use std::sync::atomic::{AtomicU32, Ordering};

use piton::transfer::{
    Binds, CompareMode, CompareRequest, ConnectOptions, CopyReport, CopyRequest, Database, Engine, Mapping, Policy,
    Range, Series, StatementOptions, TableComparison, TransferError, check, compare, copied, copy, execute, gaps,
    overlap, query, watermark,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::databases::{ENGINES, pairs};
use crate::support::mariadb::PrivateMariadb;
use crate::support::perf::{self, TOTALLED};
use crate::support::postgres::PrivatePostgres;

/// The mapping of the series, with what its policies need.
fn mapping() -> Mapping {
    let perf = format!("{TOTALLED}    time: step_start\n    timestep: 900\n    coverage: handle_s\n");
    Mapping::from_yaml(&perf::mapping("perf", "performance: [perf]", &perf)).expect("valid")
}

const SOURCE: &str = "CREATE TABLE perf (entity_id INTEGER NOT NULL, step_start BIGINT NOT NULL, iv INTEGER, handle_s BIGINT, \
                      label TEXT, PRIMARY KEY (entity_id, step_start))";
const TARGET: &str = "CREATE TABLE perf_item (entity_id INTEGER NOT NULL, step_start BIGINT NOT NULL, iv INTEGER, handle_s BIGINT, \
                      label TEXT, total BIGINT, src TEXT NOT NULL, extra TEXT DEFAULT 'none', PRIMARY KEY (entity_id, step_start))";

struct Pair {
    from: Database,
    to: Database,
    _folder: tempfile::TempDir,
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

async fn open(engine: Engine, folder: &tempfile::TempDir) -> Database {
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    let url = match engine {
        Engine::Sqlite => format!("sqlite://{}", folder.path().join(format!("{number}.db")).display()),
        Engine::Postgres => PrivatePostgres::start().create_database(&format!("copy_{number}")),
        Engine::Mariadb => PrivateMariadb::start().create_database(&format!("copy_{number}")),
    };
    Database::connect(&url, ConnectOptions { create: true, ..Default::default() }).await.expect("opens")
}

async fn run(database: &Database, sql: &str) -> u64 {
    execute(database, sql, &Binds::new(), StatementOptions::default()).await.expect("the statement runs")
}

async fn rows_of(database: &Database, sql: &str) -> Vec<serde_json::Map<String, Value>> {
    query(database, sql, &Binds::new(), StatementOptions::default()).await.expect("the query runs").rows
}

impl Pair {
    async fn empty((from, to): (Engine, Engine)) -> Self {
        let folder = tempfile::tempdir().expect("a temp dir");
        Self { from: open(from, &folder).await, to: open(to, &folder).await, _folder: folder }
    }

    /// Entities 1..=3 with buckets 0..=9 of 900 s in the source, nothing in the target.
    async fn new(engines: (Engine, Engine)) -> Self {
        let pair = Self::empty(engines).await;
        run(&pair.from, SOURCE).await;
        run(&pair.to, TARGET).await;
        let values: Vec<String> = (1..=3)
            .flat_map(|entity| (0..10).map(move |b| format!("({entity}, {}, {b}, {}, 'ä\"{b}''')", b * 900, b * 10)))
            .collect();
        run(&pair.from, &format!("INSERT INTO perf VALUES {}", values.join(", "))).await;
        pair
    }

    async fn copy(&self, request: &CopyRequest) -> Result<CopyReport, TransferError> {
        copy(&self.from, &self.to, request, &|_| {}, &CancellationToken::new()).await
    }

    async fn compare(&self, request: &CopyRequest) -> TableComparison {
        let wanted = CompareRequest {
            mapping: request.mapping.clone(),
            set: request.set.clone(),
            range: request.range,
            mode: CompareMode::Content,
            limit: 5,
        };
        compare(&self.from, &self.to, &wanted).await.expect("compares").tables.remove(0)
    }
}

fn request(policy: Policy, token: &str) -> CopyRequest {
    let mut request = CopyRequest::new(mapping(), "performance", policy, token);
    request.chunk_rows = 4;
    request
}

#[tokio::test]
async fn every_pair_of_engines_copies_exactly_and_only_once() {
    for engines in pairs() {
        let pair = Pair::new(engines).await;
        let account = pair.copy(&request(Policy::Fail, "run/step")).await.expect("copies");
        assert_eq!((account.tables[0].read, account.tables[0].inserted), (30, 30), "{engines:?}");
        let found = pair.compare(&request(Policy::Fail, "")).await;
        assert!(found.is_equal() && found.target_rows == 30, "{engines:?}: {found:?}");
        let again = pair.copy(&request(Policy::Fail, "run/step")).await.expect("nothing to do");
        assert_eq!((again.changed(), again.tables[0].skipped), (0, 30), "{engines:?}");
        let second = pair.copy(&request(Policy::SplitAt { at: 9_000 }, "second")).await.expect("all equal");
        assert_eq!((second.changed(), second.tables[0].unchanged), (0, 30), "{engines:?}");
        let row = &rows_of(&pair.to, "SELECT * FROM perf_item WHERE entity_id = 2 AND step_start = 2700").await[0];
        let wanted = json!({"entity_id": 2, "step_start": 2700, "iv": 3, "handle_s": 30, "label": "ä\"3'", "total": 6, "src": "65",
            "extra": "none"});
        assert_eq!(Value::Object(row.clone()), wanted, "{engines:?}");
    }
}

#[tokio::test]
async fn every_policy_decides_as_its_name_says_on_every_pair() {
    let own = |iv: i64, handle_s: i64, src: &str, extra: &str| json!({"iv": iv, "handle_s": handle_s, "src": src, "extra": extra});
    let cases = [
        (Policy::SourceWins { replace_row: true }, own(2, 20, "65", "none"), 1, 0),
        (Policy::SourceWins { replace_row: false }, own(2, 20, "65", "own"), 1, 0),
        (Policy::Fill, own(7, 30, "76", "own"), 0, 1),
        (Policy::SplitAt { at: 9_000 }, own(2, 20, "65", "own"), 1, 0),
        (Policy::BestCoverage, own(7, 30, "76", "own"), 0, 1),
        (Policy::MergeAdditive, own(9, 50, "76", "own"), 1, 0),
    ];
    for engines in pairs() {
        for (policy, wanted, updated, kept) in cases.clone() {
            let pair = Pair::new(engines).await;
            run(&pair.to, "INSERT INTO perf_item VALUES (1, 1800, 7, 30, 'x', 0, '76', 'own')").await;
            let forecast = overlap(&pair.from, &pair.to, &request(policy, "t")).await.expect("reports");
            let account = pair.copy(&request(policy, "t")).await.expect("copies");
            let (done, foretold) = (&account.tables[0], &forecast.tables[0]);
            assert_eq!((done.inserted, done.updated, done.kept), (29, updated, kept), "{engines:?} {policy:?}");
            assert_eq!((foretold.insert, foretold.update, foretold.keep, foretold.common), (29, updated, kept, 1));
            let sql = "SELECT iv, handle_s, src, extra FROM perf_item WHERE entity_id = 1 AND step_start = 1800";
            assert_eq!(Value::Object(rows_of(&pair.to, sql).await.remove(0)), wanted, "{engines:?} {policy:?}");
        }
        let pair = Pair::new(engines).await;
        run(&pair.to, "INSERT INTO perf_item VALUES (1, 1800, 7, 30, 'x', 0, '76', 'own')").await;
        let error = pair.copy(&request(Policy::Fail, "t")).await.expect_err("one common key");
        assert!(matches!(&error, TransferError::Overlap(report) if report.forbidden() == 1), "{error}");
        let error = pair.copy(&request(Policy::SplitAt { at: 8_100 }, "t")).await.expect_err("three at the split");
        assert!(matches!(&error, TransferError::Overlap(report) if report.forbidden() == 3), "{error}");
        assert_eq!(rows_of(&pair.to, "SELECT 1 AS one FROM perf_item").await.len(), 1, "nothing was written");
    }
}

#[tokio::test]
async fn a_copy_stopped_between_chunks_goes_on_without_adding_twice() {
    for engines in pairs() {
        let pair = Pair::new(engines).await;
        run(&pair.to, "INSERT INTO perf_item VALUES (1, 900, 100, 100, 'x', 0, '76', 'own')").await;
        let cancel = CancellationToken::new();
        let stopped =
            copy(&pair.from, &pair.to, &request(Policy::MergeAdditive, "t"), &|_| cancel.cancel(), &cancel).await;
        assert!(matches!(stopped, Err(TransferError::Cancelled { rows: 4, .. })), "{engines:?} {stopped:?}");
        assert_eq!(copied(&pair.to, "t").await.expect("probe").rows(), 4);
        let rest = pair.copy(&request(Policy::MergeAdditive, "t")).await.expect("goes on");
        assert_eq!((rest.tables[0].skipped, rest.tables[0].inserted), (4, 26), "{engines:?}");
        let sql = "SELECT iv FROM perf_item WHERE entity_id = 1 AND step_start = 900";
        assert_eq!(rows_of(&pair.to, sql).await[0]["iv"], 101, "{engines:?}: added once");
    }
}

#[tokio::test]
async fn a_chunk_that_fails_half_way_leaves_neither_rows_nor_checkpoint() {
    for engines in pairs() {
        let pair = Pair::new(engines).await;
        // The sixth row: the second chunk has written part of its rows when the engine refuses.
        let trap = match engines.1 {
            Engine::Sqlite => {
                "CREATE TRIGGER trap BEFORE INSERT ON perf_item WHEN NEW.iv = 5 BEGIN SELECT RAISE(ABORT, 'trap'); END"
            }
            Engine::Postgres | Engine::Mariadb => "ALTER TABLE perf_item ADD CONSTRAINT trap CHECK (iv <> 5)",
        };
        run(&pair.to, trap).await;
        let error = pair.copy(&request(Policy::Fail, "t")).await.expect_err("the trap");
        assert!(error.to_string().contains("trap") && !error.effect_unknown(), "{error}");
        assert_eq!(rows_of(&pair.to, "SELECT 1 AS one FROM perf_item").await.len(), 4, "{engines:?}");
        assert_eq!(copied(&pair.to, "t").await.expect("probe").rows(), 4);
        let undo = match engines.1 {
            Engine::Sqlite => "DROP TRIGGER trap",
            Engine::Postgres | Engine::Mariadb => "ALTER TABLE perf_item DROP CONSTRAINT trap",
        };
        run(&pair.to, undo).await;
        let rest = pair.copy(&request(Policy::Fail, "t")).await.expect("goes on");
        assert_eq!(rest.tables[0].inserted, 26, "{engines:?}");
        assert!(pair.compare(&request(Policy::Fail, "")).await.is_equal(), "{engines:?}");
    }
}

#[tokio::test]
async fn a_backend_killed_in_the_middle_loses_and_doubles_nothing() {
    let pair = Pair::new((Engine::Postgres, Engine::Postgres)).await;
    let to = pair.to.clone();
    // A lock on one row of the second chunk keeps its transaction open until its backend is killed.
    run(&pair.to, "INSERT INTO perf_item VALUES (1, 4500, 1, 1, 'x', 0, '76', 'own')").await;
    let Database::Postgres(pool) = &to else { panic!("PostgreSQL was asked for") };
    let mut holder = pool.begin().await.expect("begins");
    sqlx::query("SELECT 1 FROM perf_item WHERE step_start = 4500 FOR UPDATE")
        .execute(&mut *holder)
        .await
        .expect("locks");
    let killer = async {
        loop {
            let sql = "SELECT pg_terminate_backend(pid) AS killed FROM pg_stat_activity WHERE datname = current_database() \
                       AND wait_event_type = 'Lock'";
            if !rows_of(&to, sql).await.is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let first = request(Policy::SourceWins { replace_row: true }, "t");
    let (outcome, ()) = tokio::join!(pair.copy(&first), killer);
    let error = outcome.expect_err("its backend was killed");
    assert!(error.effect_unknown(), "{error:?}");
    holder.rollback().await.expect("lets go");
    assert_eq!(copied(&pair.to, "t").await.expect("probe").rows(), 4);
    let rest = pair.copy(&first).await.expect("goes on");
    assert_eq!((rest.tables[0].skipped, rest.tables[0].inserted, rest.tables[0].updated), (4, 25, 1));
    assert!(pair.compare(&first).await.is_equal());
}

#[tokio::test]
async fn a_row_exactly_on_a_boundary_belongs_to_the_later_range() {
    for engines in pairs() {
        let pair = Pair::new(engines).await;
        let mut early = request(Policy::Fail, "early");
        early.range = Range { from: None, to: Some(2_700) };
        assert_eq!(pair.copy(&early).await.expect("copies").changed(), 9, "{engines:?}");
        let newest = rows_of(&pair.to, "SELECT max(step_start) AS t FROM perf_item").await;
        assert_eq!(newest[0]["t"], 1_800, "{engines:?}");
        let mut late = request(Policy::SplitAt { at: 9_000 }, "late");
        late.range = Range { from: Some(2_700), to: Some(9_000) };
        assert_eq!(pair.copy(&late).await.expect("disjoint").changed(), 21, "{engines:?}");
        assert!(pair.compare(&request(Policy::Fail, "")).await.is_equal(), "{engines:?}");
    }
}

const TYPED: &str = r"
apiVersion: piton/v1
kind: Mapping
name: typed
sets: { all: [typed] }
";

fn typed(token: &str) -> CopyRequest {
    CopyRequest::new(Mapping::from_yaml(TYPED).expect("valid"), "all", Policy::Fail, token)
}

#[tokio::test]
async fn values_that_do_not_fit_are_named_by_table_key_and_column() {
    let cases = [
        ("small", "99999", "out of the range"),
        ("small", "1.5", "whole number"),
        ("name", "'a' || char(0) || 'b'", "NUL"),
        ("name", "CAST(x'ff41' AS TEXT)", "UTF-8"),
        ("name", "'far too long'", "more than 5"),
        ("amount", "1.005", "2 digits"),
        ("day", "'2024-02-30'", "2024-02-30"),
        ("name", "NULL", "NULL"),
    ];
    for (column, value, why) in cases {
        let pair = Pair::empty((Engine::Sqlite, Engine::Postgres)).await;
        run(&pair.from, "CREATE TABLE typed (id INTEGER PRIMARY KEY, small, name, amount, day)").await;
        run(&pair.to, "CREATE TABLE typed (id int PRIMARY KEY, small int2, name varchar(5) NOT NULL, amount numeric(8,2), day date)").await;
        run(
            &pair.from,
            "INSERT INTO typed VALUES (1, 7, 'fine', 1.25, '2024-02-29'), (2, 7, 'fine', 1.25, '2024-02-29')",
        )
        .await;
        run(&pair.from, &format!("UPDATE typed SET {column} = {value} WHERE id = 2")).await;
        let error = pair.copy(&typed("t")).await.expect_err("does not fit");
        let TransferError::Misfit { table, key, column: named, why: said } = &error else {
            panic!("{column}: {error}")
        };
        assert_eq!((table.as_str(), key.as_str(), named.as_str()), ("typed", "id=2", column));
        assert!(said.contains(why), "{said}");
        assert!(rows_of(&pair.to, "SELECT 1 AS one FROM typed").await.is_empty(), "the chunk was rolled back");
    }
}

#[tokio::test]
async fn an_exotic_value_is_located_by_the_server_itself() {
    let pair = Pair::empty((Engine::Sqlite, Engine::Postgres)).await;
    run(&pair.from, "CREATE TABLE typed (id INTEGER PRIMARY KEY, net TEXT)").await;
    run(&pair.to, "CREATE TABLE typed (id int PRIMARY KEY, net inet)").await;
    run(&pair.from, "INSERT INTO typed VALUES (1, '10.0.0.1'), (2, '10.0.0.999'), (3, '::1')").await;
    let error = pair.copy(&typed("t")).await.expect_err("no address");
    assert!(matches!(&error, TransferError::Misfit { key, column, .. } if key == "id=2" && column == "net"), "{error}");
}

const EVERY_TYPE: &str = "CREATE TABLE typed (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, small int2, f4 real, f8 double precision, \
    n numeric, n2 numeric(10,2), flag bool, name varchar(40), fixed char(6), bytes bytea, at timestamptz, local timestamp, \
    day date, u uuid, j jsonb, arr int[], span interval)";

#[tokio::test]
async fn postgres_types_survive_the_way_to_postgres_and_through_sqlite() {
    let pair = Pair::empty((Engine::Postgres, Engine::Postgres)).await;
    let values = "(1, -32768, 0.1, 0.1, 1e-20, 1.50, true, 'ä€😀', 'ab', '\\x00ff', '2024-02-03 04:05:06.123456+02', \
                   '2024-02-03 04:05:06', '0044-03-15', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"b\": [1, 2.50], \"a\": null}', \
                   '{1,NULL,3}', '1 day 02:00'), \
                  (9007199254740993, NULL, 'Infinity', 'NaN', 123456789012345678901234567890.5, NULL, NULL, '', NULL, '', NULL, \
                   'infinity', NULL, NULL, 'null', '{}', NULL)";
    for database in [&pair.from, &pair.to] {
        run(database, EVERY_TYPE).await;
    }
    run(&pair.from, &format!("INSERT INTO typed VALUES {values}")).await;
    assert_eq!(pair.copy(&typed("t")).await.expect("copies").changed(), 2);
    let found = pair.compare(&typed("")).await;
    assert!(found.is_equal(), "{found:?}");
    // The identity goes on behind the copied rows.
    run(&pair.to, "INSERT INTO typed (name) VALUES ('next')").await;
    let newest = rows_of(&pair.to, "SELECT max(id) AS id FROM typed").await;
    assert_eq!(newest[0]["id"], 9_007_199_254_740_994_i64);

    let middle = Pair { from: pair.from.clone(), ..Pair::empty((Engine::Sqlite, Engine::Sqlite)).await };
    run(&middle.from, "DELETE FROM typed WHERE id <> 1").await;
    let sqlite = "CREATE TABLE typed (id INTEGER PRIMARY KEY AUTOINCREMENT, small INTEGER, f4 REAL, f8 REAL, n TEXT, n2 NUMERIC, \
                  flag INTEGER, name TEXT, fixed TEXT, bytes BLOB, at TEXT, local TEXT, day TEXT, u TEXT, j TEXT, arr TEXT, span TEXT)";
    run(&middle.to, sqlite).await;
    middle.copy(&typed("t")).await.expect("copies");
    let found = middle.compare(&typed("")).await;
    assert!(found.is_equal(), "{found:?}");
    let back = Pair { from: middle.to.clone(), ..Pair::empty((Engine::Sqlite, Engine::Postgres)).await };
    run(&back.to, EVERY_TYPE).await;
    back.copy(&typed("t")).await.expect("copies back");
    let round =
        Pair { from: middle.from.clone(), to: back.to.clone(), _folder: tempfile::tempdir().expect("a temp dir") };
    let found = round.compare(&typed("")).await;
    assert!(found.is_equal(), "{found:?}");
}

#[tokio::test]
async fn sqlites_autoincrement_goes_on_behind_the_copied_rows() {
    let pair = Pair::empty((Engine::Postgres, Engine::Sqlite)).await;
    run(&pair.from, "CREATE TABLE typed (id int PRIMARY KEY, name text); INSERT INTO typed VALUES (41, 'a')").await;
    run(&pair.to, "CREATE TABLE typed (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT)").await;
    pair.copy(&typed("t")).await.expect("copies");
    run(&pair.to, "DELETE FROM typed; INSERT INTO typed (name) VALUES ('next')").await;
    assert_eq!(rows_of(&pair.to, "SELECT id FROM typed").await[0]["id"], 42);
}

#[tokio::test]
async fn watermarks_and_gaps_agree_on_every_engine() {
    for engine in ENGINES {
        let pair = Pair::new((engine, engine)).await;
        let series = Series {
            table: "perf".into(),
            time: "step_start".into(),
            entity: "entity_id".into(),
            active: Some("SELECT DISTINCT entity_id FROM perf".into()),
            timestep: 900,
        };
        assert_eq!(watermark(&pair.from, &series, 8_999).await.expect("observed").watermark, Some(8_100));
        run(&pair.from, "DELETE FROM perf WHERE entity_id = 2 AND step_start IN (8100, 2700)").await;
        run(&pair.from, "DELETE FROM perf WHERE entity_id = 3 AND step_start = 7200").await;
        let found = watermark(&pair.from, &series, 9_000).await.expect("observed");
        assert_eq!((found.watermark, found.highest_closed_bucket, found.entities), (Some(7_200), Some(8_100), 3));
        assert_eq!(found.lagging[0].entity, 2);
        let holes = gaps(&pair.from, &series, 0, 9_000, 5).await.expect("walks");
        assert_eq!((holes.missing, holes.entities[0].first.clone()), (3, vec![2_700, 8_100]), "{engine:?}");
    }
}

#[tokio::test]
async fn sqlite_shared_with_another_writer_waits_instead_of_failing() {
    let pair = Pair::new((Engine::Sqlite, Engine::Sqlite)).await;
    let Database::Sqlite(pool) = pair.to.clone() else { panic!("SQLite was asked for") };
    let holder = pool.begin_with("BEGIN IMMEDIATE").await.expect("locks");
    let hold = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        holder.rollback().await.expect("lets go");
    };
    let patient = request(Policy::Fail, "t");
    let (copied, ()) = tokio::join!(pair.copy(&patient), hold);
    assert_eq!(copied.expect("waits").changed(), 30);
}

#[tokio::test]
async fn a_surrogate_number_and_text_keys_survive_a_full_overwrite() {
    let text = r"
apiVersion: piton/v1
kind: Mapping
name: keyed
sets: { all: [keyed] }
tables:
  keyed: { key: [code], ignore: { target: [id, note] } }
";
    for engines in pairs() {
        let pair = Pair::empty(engines).await;
        run(&pair.from, "CREATE TABLE keyed (code VARCHAR(20) NOT NULL PRIMARY KEY, n INTEGER)").await;
        let id = match engines.1 {
            Engine::Sqlite => "id INTEGER PRIMARY KEY AUTOINCREMENT",
            Engine::Postgres => "id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            Engine::Mariadb => "id int AUTO_INCREMENT PRIMARY KEY",
        };
        run(&pair.to, &format!("CREATE TABLE keyed ({id}, code VARCHAR(20) NOT NULL UNIQUE, n INTEGER, note TEXT)"))
            .await;
        run(&pair.to, "INSERT INTO keyed (code, n, note) VALUES ('zz', 0, ''), ('b', 0, 'lost')").await;
        run(
            &pair.from,
            "INSERT INTO keyed VALUES ('a', 1), ('B', 2), ('b', 3), ('ä', 4), ('Z', 5), ('_', 6), ('10', 7), ('9', 8)",
        )
        .await;
        let mapping = Mapping::from_yaml(text).expect("valid");
        let mut wanted = CopyRequest::new(mapping, "all", Policy::SourceWins { replace_row: true }, "t");
        wanted.chunk_rows = 2;
        let account = pair.copy(&wanted).await.expect("copies");
        assert_eq!((account.tables[0].inserted, account.tables[0].updated), (7, 1), "{engines:?}");
        let row = rows_of(&pair.to, "SELECT id, n, note FROM keyed WHERE code = 'b'").await.remove(0);
        assert_eq!(Value::Object(row), json!({"id": 2, "n": 3, "note": null}), "{engines:?}");
        let found = pair.compare(&wanted).await;
        assert_eq!((found.missing, found.different, found.extra), (0, 0, 1), "{engines:?}: only `zz` is extra");
        wanted.token = "again".into();
        assert_eq!(pair.copy(&wanted).await.expect("all equal").changed(), 0, "{engines:?}");
    }
}

#[tokio::test]
async fn two_copies_under_one_token_cannot_both_write_a_chunk() {
    for engine in ENGINES {
        let pair = Pair::new((Engine::Sqlite, engine)).await;
        run(&pair.to, "INSERT INTO perf_item VALUES (1, 900, 100, 100, 'x', 0, '76', 'own')").await;
        let same = request(Policy::MergeAdditive, "t");
        let (a, b) = tokio::join!(pair.copy(&same), pair.copy(&same));
        assert!(a.is_ok() || b.is_ok(), "{a:?} {b:?}");
        let _ = pair.copy(&same).await.expect("goes on or is done");
        let sql = "SELECT iv FROM perf_item WHERE entity_id = 1 AND step_start = 900";
        assert_eq!(rows_of(&pair.to, sql).await[0]["iv"], 101, "{engine:?}: added once");
        assert_eq!(rows_of(&pair.to, "SELECT 1 AS one FROM perf_item").await.len(), 30);
    }
}

#[tokio::test]
async fn the_shipped_wfm_mapping_fits_the_shipped_schemas_on_every_pair() {
    let read = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/wfm").join(name);
        std::fs::read_to_string(path).expect("shipped")
    };
    let mapping = Mapping::from_yaml(&read("6.5-to-7.6.yaml")).expect("valid");
    for engines in pairs() {
        let pair = Pair::empty(engines).await;
        run(&pair.from, &read("wfm-6.5.sql")).await;
        run(&pair.to, &read("wfm-7.6.sql")).await;
        check(&pair.from, &pair.to, &mapping).await.expect("every table and column is accounted for");
        run(&pair.from, "INSERT INTO wfm_business_unit VALUES (1, 'Nord', 'Europe/Berlin')").await;
        run(&pair.from, "INSERT INTO wfm_perf_item VALUES (1, 0, 5, 600, 80, 1, 0), (1, 900, 6, 700, 90, 0, 2)").await;
        for set in ["configuration", "performance"] {
            let wanted = CopyRequest::new(mapping.clone(), set, Policy::SourceWins { replace_row: true }, set);
            pair.copy(&wanted).await.expect("copies");
            let found = CompareRequest {
                mapping: mapping.clone(),
                set: set.into(),
                range: Range::default(),
                mode: CompareMode::Content,
                limit: 5,
            };
            let found = compare(&pair.from, &pair.to, &found).await.expect("compares");
            assert!(found.is_equal(), "{engines:?} {found:?}");
        }
        run(&pair.to, "CREATE TABLE forgotten (a INTEGER PRIMARY KEY)").await;
        let error = check(&pair.from, &pair.to, &mapping).await.expect_err("a table in no set");
        assert!(error.to_string().contains("`forgotten`"), "{error}");
    }
}

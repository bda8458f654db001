//! Stories of copies and comparisons between SQLite files; the same stories run against PostgreSQL in `tests/it`.

use std::sync::Mutex;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;

struct Pair {
    from: Database,
    to: Database,
    _folder: tempfile::TempDir,
}

const MAPPING: &str = r#"
apiVersion: piton/v1
kind: Mapping
name: perf
sets: { performance: [perf] }
tables:
  perf:
    key: [entity_id, step_start]
    columns: { entity_id: entity_id, step_start: step_start, iv: iv, handle_s: handle_s }
    constants: { src: "65" }
    time: step_start
    timestep: 900
    coverage: handle_s
    additive: [iv, handle_s]
    ignore: { target: [extra] }
"#;

const SOURCE: &str = "CREATE TABLE perf (entity_id INTEGER NOT NULL, step_start BIGINT NOT NULL, iv INTEGER, handle_s BIGINT, \
                      PRIMARY KEY (entity_id, step_start))";
const TARGET: &str = "CREATE TABLE perf (entity_id INTEGER NOT NULL, step_start BIGINT NOT NULL, iv INTEGER, handle_s BIGINT, \
                      src TEXT NOT NULL, extra TEXT, PRIMARY KEY (entity_id, step_start))";

async fn run(database: &Database, sql: &str) -> u64 {
    execute(database, sql, &Binds::new(), StatementOptions::default()).await.expect("the statement runs")
}

async fn rows_of(database: &Database, sql: &str) -> Vec<serde_json::Map<String, serde_json::Value>> {
    query(database, sql, &Binds::new(), StatementOptions::default()).await.expect("the query runs").rows
}

impl Pair {
    /// Entities 1..=3 with buckets 0..=9 of 900 s in the source, nothing in the target.
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temp dir");
        let open = |name: &str| {
            let url = format!("sqlite://{}", folder.path().join(name).display());
            async move {
                Database::connect(&url, ConnectOptions { create: true, ..Default::default() }).await.expect("opens")
            }
        };
        let pair = Self { from: open("from.db").await, to: open("to.db").await, _folder: folder };
        run(&pair.from, SOURCE).await;
        run(&pair.to, TARGET).await;
        for entity in 1..=3 {
            for bucket in 0..10 {
                let sql = format!("INSERT INTO perf VALUES ({entity}, {}, {bucket}, {})", bucket * 900, bucket * 10);
                run(&pair.from, &sql).await;
            }
        }
        pair
    }

    async fn copy(&self, request: &CopyRequest) -> Result<CopyReport, TransferError> {
        copy(&self.from, &self.to, request, &|_| {}, &CancellationToken::new()).await
    }

    async fn compare(&self, range: Range) -> TableComparison {
        let mapping = Mapping::from_yaml(MAPPING).expect("valid");
        let request =
            CompareRequest { mapping, set: "performance".into(), range, mode: CompareMode::Content, limit: 5 };
        compare(&self.from, &self.to, &request).await.expect("compares").tables.remove(0)
    }
}

fn request(policy: Policy, token: &str) -> CopyRequest {
    let mut request = CopyRequest::new(Mapping::from_yaml(MAPPING).expect("valid"), "performance", policy, token);
    request.chunk_rows = 4;
    request
}

#[tokio::test]
async fn a_copy_is_complete_and_a_finished_token_changes_nothing() {
    let pair = Pair::new().await;
    let first = pair.copy(&request(Policy::Fail, "run/step")).await.expect("copies");
    assert_eq!((first.tables[0].read, first.tables[0].inserted), (30, 30));
    let comparison = pair.compare(Range::default()).await;
    assert!(comparison.is_equal(), "{comparison:?}");
    let again = pair.copy(&request(Policy::Fail, "run/step")).await.expect("nothing to do");
    assert_eq!((again.changed(), again.tables[0].read, again.tables[0].skipped), (0, 0, 30));
    let fresh = pair.copy(&request(Policy::SplitAt { at: 9_000 }, "other")).await.expect("all equal");
    assert_eq!((fresh.changed(), fresh.tables[0].unchanged), (0, 30));
}

#[tokio::test]
async fn a_cancelled_copy_goes_on_after_its_last_chunk() {
    let pair = Pair::new().await;
    let cancel = CancellationToken::new();
    let seen = Mutex::new(0);
    let progress = |_: CopyProgress| {
        let mut seen = seen.lock().expect("one thread");
        *seen += 1;
        if *seen == 2 {
            cancel.cancel();
        }
    };
    let stopped = copy(&pair.from, &pair.to, &request(Policy::MergeAdditive, "t"), &progress, &cancel).await;
    assert!(matches!(stopped, Err(TransferError::Cancelled { rows: 8, .. })), "{stopped:?}");
    assert_eq!(copied(&pair.to, "t").await.expect("probe").rows(), 8);
    let rest = pair.copy(&request(Policy::MergeAdditive, "t")).await.expect("goes on");
    assert_eq!((rest.tables[0].skipped, rest.tables[0].inserted), (8, 22));
    assert_eq!(rest.tables[0].all, Counts { inserted: 30, ..Counts::default() });
    let again = pair.copy(&request(Policy::MergeAdditive, "t")).await.expect("nothing to do");
    assert_eq!((again.tables[0].inserted, again.tables[0].all.inserted), (0, 30));
    assert!(pair.compare(Range::default()).await.is_equal());
    assert!(copied(&pair.to, "t").await.expect("probe").is_done(&["perf".to_owned()]));
}

#[tokio::test]
async fn a_copy_goes_on_only_with_what_it_began_with() {
    let pair = Pair::new().await;
    pair.copy(&request(Policy::Fail, "t")).await.expect("copies");
    let mut other = request(Policy::Fail, "t");
    other.range = Range { from: None, to: Some(2_700) };
    for changed in [other.clone(), request(Policy::Fill, "t"), request(Policy::SplitAt { at: 900 }, "t")] {
        let error = pair.copy(&changed).await.expect_err("another copy").to_string();
        assert!(error.contains("range open to open, policy fail") && error.contains("undo it first"), "{error}");
    }
    forget(&pair.to, "t").await.expect("forgotten");
    run(&pair.to, "DELETE FROM perf").await;
    assert_eq!(pair.copy(&other).await.expect("anew").changed(), 9);
}

#[tokio::test]
async fn a_table_of_checkpoints_from_an_older_version_is_brought_up_to_date() {
    let pair = Pair::new().await;
    let old = "CREATE TABLE piton_checkpoint (token TEXT NOT NULL, table_name TEXT NOT NULL, last_key TEXT, rows BIGINT NOT NULL, \
               chunk_no BIGINT NOT NULL, done INTEGER NOT NULL, updated_at TEXT NOT NULL, PRIMARY KEY (token, table_name))";
    run(&pair.to, old).await;
    run(&pair.to, "INSERT INTO piton_checkpoint VALUES ('t', 'perf', NULL, 0, 1, 0, 'then')").await;
    let report = pair.copy(&request(Policy::Fail, "t")).await.expect("goes on");
    assert_eq!(report.tables[0].all.inserted, 30);
    assert_eq!(copied(&pair.to, "t").await.expect("probe").rows(), 30);
}

#[tokio::test]
async fn ranges_are_half_open_to_the_row() {
    let pair = Pair::new().await;
    let mut early = request(Policy::Fail, "early");
    early.range = Range { from: None, to: Some(2_700) };
    assert_eq!(pair.copy(&early).await.expect("copies").changed(), 9);
    let mut late = request(Policy::Fail, "late");
    late.range = Range { from: Some(2_700), to: Some(9_000) };
    assert_eq!(pair.copy(&late).await.expect("disjoint").changed(), 21);
    assert!(pair.compare(Range::default()).await.is_equal());
    late.range = Range { from: Some(100), to: None };
    late.token = "uneven".into();
    let error = pair.copy(&late).await.expect_err("cuts a bucket");
    assert!(error.to_string().contains("cuts a bucket"), "{error}");
}

#[tokio::test]
async fn the_overlap_guard_stops_before_anything_is_written() {
    let pair = Pair::new().await;
    run(&pair.to, "INSERT INTO perf VALUES (3, 8100, 1, 1, '76', 'own')").await;
    let error = pair.copy(&request(Policy::Fail, "a")).await.expect_err("one common key");
    let TransferError::Overlap(report) = error else { panic!("another error: {error}") };
    assert_eq!((report.forbidden(), report.tables[0].first_keys[0]["step_start"].clone()), (1, json!(8_100)));
    let error = pair.copy(&request(Policy::SplitAt { at: 8_100 }, "b")).await.expect_err("rows at the split");
    let TransferError::Overlap(report) = error else { panic!("another error: {error}") };
    assert_eq!(report.forbidden(), 3);
    assert_eq!(rows_of(&pair.to, "SELECT * FROM perf").await.len(), 1);
}

#[tokio::test]
async fn each_policy_decides_as_its_name_says() {
    let cases = [
        (Policy::SourceWins { replace_row: true }, json!({"iv": 2, "handle_s": 20, "src": "65", "extra": null}), 1, 0),
        (
            Policy::SourceWins { replace_row: false },
            json!({"iv": 2, "handle_s": 20, "src": "65", "extra": "own"}),
            1,
            0,
        ),
        (Policy::Fill, json!({"iv": 7, "handle_s": 30, "src": "76", "extra": "own"}), 0, 1),
        (Policy::SplitAt { at: 9_000 }, json!({"iv": 2, "handle_s": 20, "src": "65", "extra": "own"}), 1, 0),
        (Policy::BestCoverage, json!({"iv": 7, "handle_s": 30, "src": "76", "extra": "own"}), 0, 1),
        (Policy::MergeAdditive, json!({"iv": 9, "handle_s": 50, "src": "76", "extra": "own"}), 1, 0),
    ];
    for (policy, wanted, updated, kept) in cases {
        let pair = Pair::new().await;
        run(&pair.to, "INSERT INTO perf VALUES (1, 1800, 7, 30, '76', 'own')").await;
        let forecast = overlap(&pair.from, &pair.to, &request(policy, "t")).await.expect("reports");
        let account = pair.copy(&request(policy, "t")).await.expect("copies");
        let table = &account.tables[0];
        assert_eq!((table.inserted, table.updated, table.kept), (29, updated, kept), "{policy:?}");
        let foretold = &forecast.tables[0];
        assert_eq!((foretold.insert, foretold.update, foretold.keep), (29, updated, kept), "{policy:?}");
        let sql = "SELECT iv, handle_s, src, extra FROM perf WHERE entity_id = 1 AND step_start = 1800";
        assert_eq!(serde_json::Value::Object(rows_of(&pair.to, sql).await.remove(0)), wanted, "{policy:?}");
    }
}

#[tokio::test]
async fn a_comparison_names_what_differs() {
    let pair = Pair::new().await;
    pair.copy(&request(Policy::Fail, "t")).await.expect("copies");
    run(&pair.to, "UPDATE perf SET iv = 99 WHERE entity_id = 1 AND step_start = 0").await;
    run(&pair.to, "DELETE FROM perf WHERE entity_id = 2 AND step_start = 900").await;
    run(&pair.to, "INSERT INTO perf VALUES (9, 0, 1, 1, '65', NULL)").await;
    let found = pair.compare(Range::default()).await;
    assert_eq!((found.missing, found.extra, found.different), (1, 1, 1));
    assert_ne!(found.source_hash, found.target_hash);
    assert!(found.differences.iter().any(|d| matches!(d, Difference::Extra { key } if key["entity_id"] == 9)));
    assert!(found.differences.iter().any(|d| matches!(d, Difference::Different { source, target, .. }
        if source["iv"] == 0 && target["iv"] == 99)));
    assert!(pair.compare(Range { from: Some(1_800), to: Some(9_000) }).await.is_equal());
}

#[tokio::test]
async fn a_watermark_waits_for_the_slowest_and_never_covers_an_open_bucket() {
    let pair = Pair::new().await;
    let series = Series {
        table: "perf".into(),
        time: "step_start".into(),
        entity: "entity_id".into(),
        active: None,
        timestep: 900,
    };
    let at = |now| watermark(&pair.from, &series, now);
    assert_eq!(at(9_000).await.expect("observed").watermark, Some(9_000));
    assert_eq!(at(8_999).await.expect("observed").watermark, Some(8_100), "bucket 9 is still open");
    run(&pair.from, "DELETE FROM perf WHERE entity_id = 2 AND step_start IN (8100, 7200)").await;
    let found = at(9_000).await.expect("observed");
    assert_eq!(found.watermark, Some(7_200));
    assert_eq!(found.lagging, [Lagging { entity: json!(2), last_bucket: Some(6_300) }]);
    run(&pair.from, "DELETE FROM perf WHERE entity_id = 3 AND step_start = 6300").await;
    assert_eq!(at(9_000).await.expect("observed").watermark, Some(6_300), "not every entity has bucket 7");
    let missing = gaps(&pair.from, &series, 0, 9_000, 5).await.expect("walks");
    assert_eq!(missing.missing, 3);
    assert_eq!(missing.entities[0], EntityGaps { entity: json!(2), missing: 2, first: vec![7_200, 8_100] });
    let active = Series { active: Some("SELECT 4 UNION SELECT 1".into()), ..series.clone() };
    let found = watermark(&pair.from, &active, 9_000).await.expect("observed");
    assert_eq!((found.watermark, found.lagging[0].last_bucket), (None, None));
}

#[tokio::test]
async fn unmapped_columns_and_forgotten_tables_are_named() {
    let pair = Pair::new().await;
    run(&pair.from, "CREATE TABLE forgotten (a INTEGER PRIMARY KEY); ALTER TABLE perf ADD COLUMN note TEXT").await;
    let mapping = Mapping::from_yaml(MAPPING).expect("valid");
    let error = check(&pair.from, &pair.to, &mapping).await.expect_err("two problems").to_string();
    assert!(error.contains("`forgotten`") && error.contains("`perf.note`"), "{error}");
}

#[tokio::test]
async fn key_maps_must_be_total_and_injective() {
    let pair = Pair::new().await;
    run(&pair.to, "CREATE TABLE map (old_id INTEGER, new_id INTEGER); INSERT INTO map VALUES (1, 101), (2, 102)").await;
    let text =
        MAPPING.replace("    time:", "    lookup: { entity_id: { table: map, from: old_id, to: new_id } }\n    time:");
    let mut request = request(Policy::Fail, "t");
    request.mapping = Mapping::from_yaml(&text).expect("valid");
    let error = pair.copy(&request).await.expect_err("3 is missing").to_string();
    assert!(error.contains("not total") && error.contains('3'), "{error}");
    run(&pair.to, "INSERT INTO map VALUES (3, 102)").await;
    assert!(pair.copy(&request).await.expect_err("102 twice").to_string().contains("not injective"));
    run(&pair.to, "UPDATE map SET new_id = 90 WHERE old_id = 3").await;
    assert_eq!(pair.copy(&request).await.expect("copies").changed(), 30);
    run(&pair.to, "INSERT INTO perf VALUES (90, 90000, 1, 1, '65', NULL)").await;
    let wanted = CompareRequest {
        mapping: request.mapping,
        set: "performance".into(),
        range: Range::default(),
        mode: CompareMode::Content,
        limit: 5,
    };
    let found = compare(&pair.from, &pair.to, &wanted).await.expect("compares").tables.remove(0);
    assert_eq!((found.missing, found.extra, found.different), (0, 1, 0));
}

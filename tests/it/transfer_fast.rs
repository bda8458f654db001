//! Copies between two PostgreSQL databases whose bytes pass as they are: by pages, in the order of the key, with indexes built afterwards;
//! cut off in the middle, with a source that moves its rows before the copy goes on.

use std::sync::atomic::{AtomicU32, Ordering};

use piton::transfer::{
    Binds, CompareMode, CompareRequest, ConnectOptions, CopyReport, CopyRequest, Database, Indexes, Mapping, Policy,
    Range, StatementOptions, TransferError, compare, copy, forget, query,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::support::postgres::PrivatePostgres;

static DATABASES: AtomicU32 = AtomicU32::new(0);

const MAPPING: &str = "apiVersion: piton/v1\nkind: Mapping\nname: perf\nsets: { perf: [perf] }\n\
                       tables: { perf: { time: ts, columns: { entity_id: entity_id, ts: ts, volume: volume, aht: aht, note: note } } }\n";
const COLUMNS: &str = "entity_id int NOT NULL, ts timestamptz NOT NULL, volume int, aht real, note text";
/// Some hundred pages, in an order that is not that of the key.
const FILL: &str = "INSERT INTO perf SELECT e, to_timestamp(900 * b), e * b, e / 7.0, repeat('x', 40) \
                    FROM generate_series(0, 99) AS b, generate_series(1, 100) AS e";
const KEY: &str = "PRIMARY KEY (entity_id, ts)";

async fn open() -> Database {
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    let url = PrivatePostgres::start().create_database(&format!("fast_{number}"));
    Database::connect(&url, ConnectOptions::default()).await.expect("opens")
}

async fn run(database: &Database, sql: &str) {
    let Database::Postgres(pool) = database else { panic!("these tests are PostgreSQL's") };
    for sql in sql.split(';').filter(|part| !part.trim().is_empty()) {
        // One by one, outside of a transaction: VACUUM wants it so.
        sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(pool).await.expect("the statement runs");
    }
}

pub(super) async fn number(database: &Database, sql: &str) -> i64 {
    let rows = query(database, sql, &Binds::new(), StatementOptions::default()).await.expect("the query runs").rows;
    rows[0].values().next().and_then(Value::as_i64).expect("a number")
}

struct Pair {
    from: Database,
    to: Database,
}

impl Pair {
    /// 10,000 rows in the source, an empty target with these constraints.
    async fn new(constraints: &str) -> Self {
        let pair = Self { from: open().await, to: open().await };
        run(&pair.from, &format!("CREATE TABLE perf ({COLUMNS}, {KEY}); {FILL}; ANALYZE perf")).await;
        run(&pair.to, &format!("CREATE TABLE perf ({COLUMNS}{constraints})")).await;
        pair
    }

    async fn copy(&self, request: &CopyRequest) -> Result<CopyReport, TransferError> {
        copy(&self.from, &self.to, request, &|_| {}, &CancellationToken::new()).await
    }

    /// Cuts the copy off behind its first chunk.
    async fn copy_a_little(&self, request: &CopyRequest) {
        let cancel = CancellationToken::new();
        let error = copy(&self.from, &self.to, request, &|_| cancel.cancel(), &cancel).await.expect_err("cut off");
        assert!(matches!(error, TransferError::Cancelled { rows, .. } if rows > 0 && rows < 10_000), "{error}");
    }

    async fn is_equal(&self) -> bool {
        let mapping = Mapping::from_yaml(MAPPING).expect("valid");
        let (set, range) = ("perf".to_owned(), Range::default());
        let wanted = CompareRequest { mapping, set, range, mode: CompareMode::Content, limit: 5 };
        compare(&self.from, &self.to, &wanted).await.expect("compares").tables.remove(0).is_equal()
    }

    /// Rows of the target, and how many keys they have.
    async fn rows_and_keys(&self) -> (i64, i64) {
        let rows = number(&self.to, "SELECT count(*) FROM perf").await;
        (rows, number(&self.to, "SELECT count(DISTINCT (entity_id, ts)) FROM perf").await)
    }

    /// Keys of the source that the target does not hold.
    async fn lost(&self) -> usize {
        let keys = "SELECT entity_id, extract(epoch FROM ts)::bigint AS t FROM perf ORDER BY 1, 2";
        let of = async |database| {
            let all = StatementOptions { keep_rows: usize::MAX, ..StatementOptions::default() };
            let rows = query(database, keys, &Binds::new(), all).await.expect("the query runs").rows;
            rows.iter().map(|row| json!([row["entity_id"], row["t"]]).to_string()).collect::<Vec<_>>()
        };
        let target: std::collections::HashSet<String> = of(&self.to).await.into_iter().collect();
        of(&self.from).await.iter().filter(|key| !target.contains(*key)).count()
    }
}

fn request(chunk_rows: usize) -> CopyRequest {
    let mapping = Mapping::from_yaml(MAPPING).expect("valid");
    CopyRequest { chunk_rows, parallel: 2, ..CopyRequest::new(mapping, "perf", Policy::Fail, "run/step") }
}

#[tokio::test]
async fn a_table_without_an_index_is_filled_once_and_only_while_it_is_empty() {
    let pair = Pair::new("").await;
    let account = pair.copy(&request(700)).await.expect("copies");
    assert_eq!((account.tables[0].read, account.tables[0].all.inserted), (10_000, 10_000));
    assert_eq!(pair.rows_and_keys().await, (10_000, 10_000));
    assert_eq!(pair.copy(&request(700)).await.expect("nothing to do").changed(), 0);
    let again = CopyRequest { token: "another".to_owned(), ..request(700) };
    let error = pair.copy(&again).await.expect_err("nothing would keep a key from standing there twice");
    assert!(error.to_string().contains("no unique key"), "{error}");
    run(&pair.to, &format!("ALTER TABLE perf ADD {KEY}")).await;
    assert!(pair.is_equal().await);
}

#[tokio::test]
async fn statistics_are_renewed_where_a_tenth_of_the_rows_is_new() {
    let pair = Pair::new(&format!(", {KEY}")).await;
    let analyzed =
        async || number(&pair.to, "SELECT analyze_count FROM pg_stat_user_tables WHERE relname = 'perf'").await;
    let range = |from, to| Range { from: Some(from), to: Some(to) };
    let part = |token: &str, range| CopyRequest { token: token.to_owned(), range, ..request(5_000) };
    pair.copy(&part("most", range(0, 95 * 900))).await.expect("copies");
    assert_eq!(analyzed().await, 1, "the table was empty");
    pair.copy(&part("delta", range(95 * 900, 96 * 900))).await.expect("copies");
    assert_eq!(analyzed().await, 1, "100 rows behind 9,500 say nothing new");
    assert_eq!(pair.rows_and_keys().await.0, 9_600);
}

#[tokio::test]
async fn rows_that_move_between_two_calls_are_neither_lost_nor_doubled() {
    // Each makes other rows young, or stand elsewhere than when the copy began.
    let moves = [
        "UPDATE perf SET volume = volume + 1 WHERE entity_id % 3 = 0",
        "DELETE FROM perf WHERE ts < to_timestamp(9000) AND entity_id > 50; VACUUM perf; UPDATE perf SET volume = 0 WHERE ts > to_timestamp(80000)",
        "VACUUM FULL perf",
        "VACUUM FREEZE perf; INSERT INTO perf SELECT e, to_timestamp(900000), 1, 1, 'new' FROM generate_series(1, 100) AS e",
        "CLUSTER perf USING perf_pkey; UPDATE perf SET note = 'y' WHERE entity_id < 20",
        "UPDATE perf SET entity_id = entity_id + 1000 WHERE entity_id % 5 = 0",
    ];
    for moved in moves {
        let pair = Pair::new("").await;
        pair.copy_a_little(&request(700)).await;
        run(&pair.from, moved).await;
        pair.copy_a_little_or_all(&request(700)).await;
        run(&pair.from, "UPDATE perf SET volume = volume + 1 WHERE entity_id % 4 = 0").await;
        let account = pair.copy(&request(700)).await.expect("goes on");
        let (rows, keys) = pair.rows_and_keys().await;
        assert_eq!(rows, keys, "doubled after: {moved}");
        assert_eq!(pair.lost().await, 0, "lost after: {moved}");
        assert_eq!(account.tables[0].all.inserted, u64::try_from(rows).expect("a count"), "miscounted after: {moved}");
    }
}

impl Pair {
    /// A second cut, which may come too late.
    async fn copy_a_little_or_all(&self, request: &CopyRequest) {
        let cancel = CancellationToken::new();
        let ended = copy(&self.from, &self.to, request, &|_| cancel.cancel(), &cancel).await;
        assert!(matches!(ended, Ok(_) | Err(TransferError::Cancelled { .. })), "{ended:?}");
    }
}

#[tokio::test]
async fn a_table_whose_key_is_there_is_filled_in_its_order_and_goes_on_behind_the_last_key() {
    let pair = Pair::new(&format!(", {KEY}")).await;
    pair.copy_a_little(&request(700)).await;
    run(&pair.from, "UPDATE perf SET volume = volume WHERE entity_id % 3 = 0; VACUUM FULL perf").await;
    let account = pair.copy(&request(700)).await.expect("goes on");
    assert!(account.tables[0].skipped > 0 && account.tables[0].read < 10_000, "{account:?}");
    assert!(pair.is_equal().await);
}

#[tokio::test]
async fn a_range_of_moments_is_half_open_and_meets_a_filled_table_without_its_index_in_the_way() {
    let pair = Pair::new(&format!(", {KEY}")).await;
    let rounds = [(None, Some(45_000)), (Some(45_000), Some(45_900)), (Some(45_900), None)];
    let mut moved = Vec::new();
    for (round, (from, to)) in rounds.into_iter().enumerate() {
        let policy = Policy::SplitAt { at: 90_000 };
        let token = format!("round/{round}");
        let wanted = CopyRequest { range: Range { from, to }, policy, token, ..request(0) };
        moved.push(pair.copy(&wanted).await.expect("copies").tables[0].inserted);
    }
    assert_eq!(moved, [5_000, 100, 4_900]);
    assert!(pair.is_equal().await);
    let late = CopyRequest { policy: Policy::SplitAt { at: 45_000 }, token: "late".to_owned(), ..request(0) };
    assert!(
        matches!(pair.copy(&late).await, Err(TransferError::Overlap(_))),
        "rows from the split on are the target's"
    );
}

#[tokio::test]
async fn a_key_that_another_writer_brings_ends_in_the_policys_hands() {
    for (policy, wanted) in
        [(Policy::Fill, Some(-1)), (Policy::SourceWins { replace_row: true }, Some(5_000)), (Policy::Fail, None)]
    {
        let pair = Pair::new(&format!(", {KEY}")).await;
        let wish = CopyRequest { policy, ..request(700) };
        pair.copy_a_little(&wish).await;
        run(&pair.to, "INSERT INTO perf VALUES (100, to_timestamp(45000), -1, 0, '')").await;
        let ended = pair.copy(&wish).await;
        match wanted {
            Some(wanted) => {
                ended.expect("goes on");
                let sql = "SELECT volume FROM perf WHERE entity_id = 100 AND ts = to_timestamp(45000)";
                assert_eq!(number(&pair.to, sql).await, wanted, "{policy:?}");
                assert_eq!(pair.rows_and_keys().await, (10_000, 10_000), "{policy:?}");
            }
            None => assert!(matches!(ended, Err(TransferError::Overlap(_))), "{ended:?}"),
        }
    }
}

const DEFINITIONS: &str = "SELECT string_agg(d, '; ' ORDER BY d) AS all FROM (SELECT pg_get_indexdef(indexrelid) AS d FROM pg_index \
    WHERE indrelid IN ('perf'::regclass, 'own'::regclass) UNION ALL SELECT conrelid::regclass || conname || pg_get_constraintdef(oid) \
    FROM pg_constraint WHERE conrelid IN ('perf'::regclass, 'own'::regclass)) AS x";

async fn definitions(database: &Database) -> Value {
    let rows = query(database, DEFINITIONS, &Binds::new(), StatementOptions::default()).await.expect("runs").rows;
    rows[0]["all"].clone()
}

async fn indexed() -> Pair {
    let pair = Pair::new(&format!(", CONSTRAINT perf_key {KEY} INCLUDE (note), CHECK (volume >= 0)")).await;
    run(
        &pair.to,
        "CREATE TABLE kind (id int PRIMARY KEY); INSERT INTO kind SELECT generate_series(0, 10000); \
         ALTER TABLE perf ADD FOREIGN KEY (volume) REFERENCES kind (id); CREATE INDEX perf_note ON perf (lower(note)) WHERE volume > 3; \
         CREATE UNIQUE INDEX \"perf Ä\" ON perf (ts DESC, entity_id); \
         CREATE TABLE own (e int, t timestamptz, CONSTRAINT own_perf FOREIGN KEY (e, t) REFERENCES perf (entity_id, ts))",
    )
    .await;
    pair
}

#[tokio::test]
async fn indexes_that_are_taken_away_come_back_as_they_were() {
    let pair = indexed().await;
    let before = definitions(&pair.to).await;
    let wish = CopyRequest { indexes: Indexes::After, ..request(700) };
    pair.copy_a_little(&wish).await;
    assert_eq!(number(&pair.to, "SELECT count(*) FROM pg_index WHERE indrelid = 'perf'::regclass").await, 0);
    let account = pair.copy(&wish).await.expect("goes on");
    assert_eq!(account.tables[0].all.inserted, 10_000);
    assert_eq!(definitions(&pair.to).await, before);
    assert!(pair.is_equal().await);
    assert_eq!(number(&pair.to, "SELECT count(*) FROM piton_index").await, 0);
}

#[tokio::test]
async fn a_copy_that_is_taken_back_leaves_the_indexes_as_they_were() {
    let pair = indexed().await;
    let before = definitions(&pair.to).await;
    let wish = CopyRequest { indexes: Indexes::After, ..request(700) };
    pair.copy_a_little(&wish).await;
    run(&pair.to, "DELETE FROM perf").await;
    forget(&pair.to, &wish.token).await.expect("forgets");
    assert_eq!(definitions(&pair.to).await, before);
    pair.copy(&wish).await.expect("begins anew");
    assert!(pair.is_equal().await);
}

#[tokio::test]
async fn an_index_that_says_more_than_its_definition_stays() {
    let pair = indexed().await;
    run(&pair.to, "COMMENT ON INDEX perf_note IS 'asked for by the auditors'").await;
    let wish = CopyRequest { indexes: Indexes::After, ..request(700) };
    pair.copy_a_little(&wish).await;
    assert_eq!(number(&pair.to, "SELECT count(*) FROM pg_index WHERE indrelid = 'perf'::regclass").await, 3);
    pair.copy(&wish).await.expect("goes on");
    assert!(pair.is_equal().await);
}

#[tokio::test]
async fn types_that_differ_do_not_pass_as_bytes() {
    let pair = Pair { from: open().await, to: open().await };
    run(&pair.from, &format!("CREATE TABLE perf ({COLUMNS}, {KEY}); {FILL}")).await;
    let wider = COLUMNS.replace("volume int", "volume numeric(12,2)").replace("note text", "note varchar(60)");
    run(&pair.to, &format!("CREATE TABLE perf ({wider}, {KEY})")).await;
    pair.copy(&request(0)).await.expect("copies");
    assert!(pair.is_equal().await);
}

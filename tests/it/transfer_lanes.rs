//! Several tables copied at the same time: which ones, in one snapshot, and what becomes of the others when one fails or everything is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use piton::transfer::{
    ChunkHook, ChunkMoment, CompareMode, CompareRequest, ConnectOptions, CopyReport, CopyRequest, Database, Indexes,
    Mapping, Policy, Range, TableComparison, Throttle, TransferError, compare, copy,
};
use tokio_util::sync::CancellationToken;

use super::support::postgres::PrivatePostgres;
use super::transfer_fast::number;

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// Tables without a word about each other.
const TABLES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn mapping() -> Mapping {
    let tables: Vec<String> = TABLES.iter().map(|table| format!("{table}: {{ key: [id] }}")).collect();
    let text = format!(
        "apiVersion: piton/v1\nkind: Mapping\nname: all\nsets: {{ all: [{}] }}\ntables: {{ {} }}\n",
        TABLES.join(", "),
        tables.join(", ")
    );
    Mapping::from_yaml(&text).expect("valid")
}

async fn open() -> Database {
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    let url = PrivatePostgres::start().create_database(&format!("lanes_{number}"));
    Database::connect(&url, ConnectOptions::default()).await.expect("opens")
}

async fn run(database: &Database, sql: &str) {
    let Database::Postgres(pool) = database else { panic!("these tests are PostgreSQL's") };
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap_or_else(|why| panic!("{sql}: {why}"));
}

struct Pair {
    from: Database,
    to: Database,
}

impl Pair {
    /// 1,000 rows in each table of the source; in the target, `b` refers to `a` where that is asked for.
    async fn new(refers: bool) -> Self {
        let pair = Self { from: open().await, to: open().await };
        for table in TABLES {
            let create = format!("CREATE TABLE {table} (id int PRIMARY KEY, note text)");
            let fill = format!("INSERT INTO {table} SELECT i, '{table}' || i FROM generate_series(1, 1000) AS i");
            run(&pair.from, &format!("{create}; {fill}; ANALYZE {table}")).await;
            run(&pair.to, &create).await;
        }
        if refers {
            run(&pair.to, "ALTER TABLE b ADD FOREIGN KEY (id) REFERENCES a (id)").await;
        }
        pair
    }

    async fn copy(&self, request: &CopyRequest) -> Result<CopyReport, TransferError> {
        copy(&self.from, &self.to, request, &|_| {}, &CancellationToken::new()).await
    }

    async fn is_equal(&self) -> bool {
        let (mapping, set, range) = (mapping(), "all".to_owned(), Range::default());
        let wanted = CompareRequest { mapping, set, range, mode: CompareMode::Content, limit: 5 };
        compare(&self.from, &self.to, &wanted).await.expect("compares").tables.iter().all(TableComparison::is_equal)
    }
}

fn request() -> CopyRequest {
    CopyRequest { chunk_rows: 400, ..CopyRequest::new(mapping(), "all", Policy::Fail, "run/step") }
}

/// Counts the chunks that begin at the same time, each for a while.
fn watched() -> (ChunkHook, Arc<AtomicUsize>) {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let hook = ChunkHook::new(move |moment| {
        let (open, most) = (Arc::clone(&open), Arc::clone(&most));
        Box::pin(async move {
            if moment == ChunkMoment::BeforeRead {
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                open.fetch_sub(1, Ordering::SeqCst);
            }
        })
    });
    (hook, seen)
}

#[tokio::test]
async fn tables_that_do_not_refer_to_each_other_are_copied_side_by_side_and_told_in_their_order() {
    for indexes in [Indexes::Keep, Indexes::After] {
        let pair = Pair::new(false).await;
        let (hook, most) = watched();
        let account = pair.copy(&CopyRequest { indexes, hook, ..request() }).await.expect("copies");
        let names: Vec<&str> = account.tables.iter().map(|table| table.table.as_str()).collect();
        assert_eq!(names, TABLES);
        assert!(account.tables.iter().all(|table| table.all.inserted == 1_000));
        assert!(most.load(Ordering::SeqCst) > 1, "one after the other");
        assert!(pair.is_equal().await);
    }
}

#[tokio::test]
async fn a_table_waits_for_the_one_it_refers_to() {
    let pair = Pair::new(true).await;
    // Would be refused by the engine otherwise: rows of `b` whose row of `a` is not there.
    let (hook, most) = watched();
    pair.copy(&CopyRequest { hook, ..request() }).await.expect("copies");
    assert!(most.load(Ordering::SeqCst) > 1, "the others need not wait");
    assert!(pair.is_equal().await);
    let pair = Pair::new(true).await;
    pair.copy(&CopyRequest { indexes: Indexes::After, ..request() }).await.expect("copies");
    let sql = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated";
    assert_eq!(number(&pair.to, sql).await, 1);
    assert!(pair.is_equal().await);
}

#[tokio::test]
async fn a_copy_that_keeps_a_rate_or_is_told_so_has_one_table_at_a_time() {
    let pair = Pair::new(false).await;
    let throttle = Throttle { rows_per_second: Some(100_000), ..Throttle::default() };
    let (hook, most) = watched();
    pair.copy(&CopyRequest { throttle, hook, ..request() }).await.expect("copies");
    assert_eq!(most.load(Ordering::SeqCst), 1);
    let pair = Pair::new(false).await;
    let (hook, most) = watched();
    pair.copy(&CopyRequest { parallel: 1, hook, ..request() }).await.expect("copies");
    assert_eq!(most.load(Ordering::SeqCst), 1, "as a person may want it");
}

#[tokio::test]
async fn all_tables_are_read_in_one_snapshot() {
    let pair = Pair::new(false).await;
    let from = pair.from.clone();
    let changed = Arc::new(AtomicUsize::new(0));
    // The source changes everywhere as soon as the first chunk begins.
    let hook = ChunkHook::new(move |moment| {
        let (from, changed) = (from.clone(), Arc::clone(&changed));
        Box::pin(async move {
            if moment == ChunkMoment::BeforeRead && changed.fetch_add(1, Ordering::SeqCst) == 0 {
                for table in TABLES {
                    run(&from, &format!("UPDATE {table} SET note = 'late'; INSERT INTO {table} VALUES (2000, 'late')"))
                        .await;
                }
            }
        })
    });
    pair.copy(&CopyRequest { hook, ..request() }).await.expect("copies");
    for table in TABLES {
        let sql = format!("SELECT count(*) FROM {table} WHERE note = 'late'");
        assert_eq!(number(&pair.to, &sql).await, 0, "{table}");
        assert_eq!(number(&pair.to, &format!("SELECT count(*) FROM {table}")).await, 1_000, "{table}");
    }
}

#[tokio::test]
async fn an_error_in_one_table_is_told_and_the_next_call_goes_on_with_all() {
    let pair = Pair::new(false).await;
    run(&pair.to, "ALTER TABLE c ADD CHECK (id <> 700)").await;
    let error = pair.copy(&request()).await.expect_err("one row is refused").to_string();
    assert!(error.contains("violates check constraint") && error.contains("\"c\""), "{error}");
    let there = number(&pair.to, "SELECT count(*) FROM c").await;
    assert!(there < 1_000, "{there}");
    run(&pair.to, "ALTER TABLE c DROP CONSTRAINT c_id_check").await;
    let account = pair.copy(&request()).await.expect("goes on");
    assert!(account.tables.iter().all(|table| table.all.inserted == 1_000), "each row once");
    assert!(pair.is_equal().await);
}

#[tokio::test]
async fn a_copy_that_is_stopped_ends_every_table_at_a_chunk_and_goes_on_later() {
    let pair = Pair::new(false).await;
    let mut calls = 0;
    loop {
        calls += 1;
        let cancel = CancellationToken::new();
        match copy(&pair.from, &pair.to, &request(), &|_| cancel.cancel(), &cancel).await {
            Ok(account) => {
                assert!(account.tables.iter().all(|table| table.all.inserted == 1_000), "each row once");
                break;
            }
            Err(TransferError::Cancelled { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(calls > 2, "{calls}");
    assert!(pair.is_equal().await);
}

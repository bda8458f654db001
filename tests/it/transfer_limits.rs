//! Limits of time of the sessions that copy and compare: what they cut off is named and undone, and the next call goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use piton::transfer::{
    ChunkHook, ChunkMoment, CompareMode, CompareOptions, CompareRequest, CopyReport, CopyRequest, Database, Engine,
    Limits, Mapping, Policy, Range, TransferError, compare_with, copied, copy,
};
use tokio_util::sync::CancellationToken;

use crate::support::databases::Fresh;

const MAPPING: &str = "apiVersion: piton/v1\nkind: Mapping\nname: m\nsets: { all: [item] }\n\
                       tables: { item: { columns: { id: id, label: label } } }\n";
const ROWS: u64 = 3_000;

struct Pair {
    from: Fresh,
    to: Fresh,
    _folder: tempfile::TempDir,
}

impl Pair {
    async fn new(from: Engine, to: Engine, key: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temp dir");
        let from = Fresh::new(from, "limit", folder.path()).await;
        let to = Fresh::new(to, "limit", folder.path()).await;
        from.run("CREATE TABLE item (id INTEGER NOT NULL, label VARCHAR(40), PRIMARY KEY (id))").await;
        let values: Vec<String> = (1..=ROWS).map(|id| format!("({id}, '{id:040}')")).collect();
        from.run(&format!("INSERT INTO item VALUES {}", values.join(", "))).await;
        to.run(&format!("CREATE TABLE item (id INTEGER NOT NULL, label VARCHAR(40){key})")).await;
        if from.database.engine() == Engine::Postgres {
            from.run("ANALYZE item").await;
        }
        Self { from, to, _folder: folder }
    }

    async fn copy(&self, limits: Limits, hook: ChunkHook) -> Result<CopyReport, TransferError> {
        let mapping = Mapping::from_yaml(MAPPING).expect("valid");
        let request = CopyRequest {
            limits,
            hook,
            chunk_rows: 1_000,
            ..CopyRequest::new(mapping, "all", Policy::Fail, "run/step")
        };
        copy(&self.from.database, &self.to.database, &request, &|_| {}, &CancellationToken::new()).await
    }

    async fn there(&self) -> u64 {
        copied(&self.to.database, "run/step").await.expect("the target answers").rows()
    }

    /// The rows that the target holds are those that the checkpoint says, each once.
    async fn rows_are_those_of_the_checkpoint(&self) {
        let rows = self.to.value("SELECT count(DISTINCT id) * 100000 + count(*) FROM item").await;
        assert_eq!(rows, serde_json::json!(self.there().await * 100_001));
    }
}

fn lock(ms: u64) -> Limits {
    Limits { lock: Some(Duration::from_millis(ms)), ..Limits::default() }
}

fn is_limit(error: &TransferError, wanted: &str) -> bool {
    assert!(!error.effect_unknown(), "{error}");
    let text = error.to_string();
    matches!(error, TransferError::Limit { limit, .. } if *limit == wanted) && text.contains("`item`")
}

/// A lock on the table that another session holds until it is dropped.
enum Held {
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
    Mariadb(sqlx::Transaction<'static, sqlx::MySql>),
    Sqlite(sqlx::pool::PoolConnection<sqlx::Sqlite>),
}

impl Held {
    async fn new(database: &Database) -> Self {
        match database {
            Database::Postgres(pool) => {
                let mut held = pool.begin().await.expect("begins");
                sqlx::query("LOCK TABLE item IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.expect("locks");
                Self::Postgres(held)
            }
            Database::Mariadb(pool) => {
                let mut held = pool.begin().await.expect("begins");
                // Every key and every gap between them.
                sqlx::query("SELECT id FROM item FOR UPDATE").fetch_all(&mut *held).await.expect("locks");
                Self::Mariadb(held)
            }
            Database::Sqlite(pool) => {
                let mut held = pool.acquire().await.expect("a connection");
                sqlx::query("BEGIN IMMEDIATE").execute(&mut *held).await.expect("locks");
                Self::Sqlite(held)
            }
        }
    }

    async fn release(self) {
        match self {
            Self::Postgres(held) => held.rollback().await.expect("ends"),
            Self::Mariadb(held) => held.rollback().await.expect("ends"),
            Self::Sqlite(mut held) => {
                sqlx::query("ROLLBACK").execute(&mut *held).await.expect("ends");
            }
        }
    }
}

/// Runs `work` before the second chunk is read.
fn before_the_second_chunk<F>(work: impl Fn() -> F + Send + Sync + 'static) -> ChunkHook
where
    F: Future<Output = ()> + Send + 'static,
{
    let chunks = AtomicU64::new(0);
    ChunkHook::new(move |moment| {
        let is_second = moment == ChunkMoment::BeforeRead && chunks.fetch_add(1, Ordering::Relaxed) == 1;
        let work = is_second.then(&work);
        Box::pin(async move {
            if let Some(work) = work {
                work.await;
            }
        })
    })
}

#[tokio::test]
async fn a_table_that_somebody_locks_in_the_middle_ends_the_copy_which_then_goes_on() {
    for (from, to, key) in [
        (Engine::Postgres, Engine::Postgres, ""),
        (Engine::Postgres, Engine::Postgres, ", PRIMARY KEY (id)"),
        (Engine::Sqlite, Engine::Postgres, ", PRIMARY KEY (id)"),
        (Engine::Postgres, Engine::Mariadb, ", PRIMARY KEY (id)"),
        (Engine::Mariadb, Engine::Sqlite, ", PRIMARY KEY (id)"),
    ] {
        let case = format!("{from} to {to}{key}");
        let pair = Pair::new(from, to, key).await;
        let held = Arc::new(tokio::sync::Mutex::new(None));
        let (database, keep) = (pair.to.database.clone(), Arc::clone(&held));
        let hook = before_the_second_chunk(move || {
            let (database, keep) = (database.clone(), Arc::clone(&keep));
            async move { *keep.lock().await = Some(Held::new(&database).await) }
        });
        let error = pair.copy(lock(300), hook).await.expect_err("somebody is in the way");
        assert!(is_limit(&error, "lock_timeout"), "{case}: {error:?}");
        held.lock().await.take().expect("locked").release().await;
        let there = pair.there().await;
        assert!(there > 0 && there < ROWS, "{case}: {there}");
        pair.rows_are_those_of_the_checkpoint().await;
        pair.copy(lock(300), ChunkHook::default()).await.unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(pair.there().await, ROWS, "{case}");
        pair.rows_are_those_of_the_checkpoint().await;
    }
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_undone_whole_and_named() {
    const SLOW: [&str; 2] = [
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.id > 1500 THEN PERFORM pg_sleep(60); END IF; RETURN NEW; END $$",
        "CREATE TRIGGER slow BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION slow()",
    ];
    let limits = Limits { statement: Some(Duration::from_secs(2)), ..Limits::default() };
    for key in ["", ", PRIMARY KEY (id)"] {
        for from in [Engine::Postgres, Engine::Sqlite] {
            if (from, key) == (Engine::Sqlite, "") {
                continue;
            }
            let pair = Pair::new(from, Engine::Postgres, key).await;
            for sql in SLOW {
                pair.to.run(sql).await;
            }
            let error = pair.copy(limits, ChunkHook::default()).await.expect_err("too slow");
            assert!(is_limit(&error, "statement_timeout"), "{from}{key}: {error:?}");
            assert!(pair.there().await < ROWS, "{from}{key}");
            pair.rows_are_those_of_the_checkpoint().await;
            pair.to.run("DROP TRIGGER slow ON item").await;
            pair.copy(limits, ChunkHook::default()).await.expect("goes on");
            assert_eq!(pair.there().await, ROWS, "{from}{key}");
            pair.rows_are_those_of_the_checkpoint().await;
        }
    }
    // On MariaDB the source is slow: reading a view of it takes more time than it has.
    let pair = Pair::new(Engine::Mariadb, Engine::Sqlite, ", PRIMARY KEY (id)").await;
    pair.from.run("RENAME TABLE item TO base").await;
    pair.from.run("CREATE VIEW item AS SELECT id, CONCAT(label, LEFT(SLEEP(0.05), 0)) AS label FROM base").await;
    let mapping = MAPPING.replace("item: { columns", "item: { key: [id], columns");
    let request = CopyRequest {
        limits,
        ..CopyRequest::new(Mapping::from_yaml(&mapping).expect("valid"), "all", Policy::Fail, "run/step")
    };
    let done = copy(&pair.from.database, &pair.to.database, &request, &|_| {}, &CancellationToken::new()).await;
    let error = done.expect_err("too slow");
    assert!(is_limit(&error, "statement_timeout"), "{error:?}");
    assert_eq!(pair.there().await, 0);
}

#[tokio::test]
async fn a_limit_holds_for_every_table_of_a_set() {
    let limits = Limits { statement: Some(Duration::from_secs(1)), ..Limits::default() };
    let mapping = MAPPING
        .replace("all: [item]", "all: [early, item]")
        .replace("tables: {", "tables: { early: { columns: { id: id } },");
    let request = CopyRequest {
        limits,
        ..CopyRequest::new(Mapping::from_yaml(&mapping).expect("valid"), "all", Policy::Fail, "run/step")
    };
    for (to, slow) in [
        (
            Engine::Mariadb,
            "CREATE TRIGGER slow BEFORE INSERT ON item FOR EACH ROW SET NEW.label = CONCAT(NEW.label, LEFT(SLEEP(60), 0))",
        ),
        (
            Engine::Postgres,
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$",
        ),
    ] {
        let pair = Pair::new(Engine::Postgres, to, ", PRIMARY KEY (id)").await;
        for side in [&pair.from, &pair.to] {
            side.run("CREATE TABLE early (id INTEGER NOT NULL, PRIMARY KEY (id))").await;
        }
        pair.from.run("INSERT INTO early VALUES (1), (2)").await;
        pair.to.run(slow).await;
        if to == Engine::Postgres {
            pair.to.run("CREATE TRIGGER slow BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION slow()").await;
        }
        let cancel = CancellationToken::new();
        let done = copy(&pair.from.database, &pair.to.database, &request, &|_| {}, &cancel);
        let done = tokio::time::timeout(Duration::from_secs(30), done).await.expect("it is limited");
        let error = done.expect_err("too slow");
        assert!(is_limit(&error, "statement_timeout"), "{to}: {error:?}");
        assert_eq!(pair.there().await, 2, "{to}: the table before it is there");
    }
}

#[tokio::test]
async fn a_comparison_does_not_wait_for_a_locked_table_for_ever() {
    let pair = Pair::new(Engine::Postgres, Engine::Postgres, ", PRIMARY KEY (id)").await;
    pair.copy(Limits::default(), ChunkHook::default()).await.expect("copies");
    let mapping = Mapping::from_yaml(MAPPING).expect("valid");
    let set = "all".to_owned();
    let request = CompareRequest { mapping, set, range: Range::default(), mode: CompareMode::Content, limit: 5 };
    let options = CompareOptions { limits: lock(200), ..CompareOptions::default() };
    let held = Held::new(&pair.from.database).await;
    let error = compare_with(&pair.from.database, &pair.to.database, &request, &options).await;
    assert!(error.is_err_and(|error| is_limit(&error, "lock_timeout")));
    held.release().await;
    let found = compare_with(&pair.from.database, &pair.to.database, &request, &options).await.expect("compares");
    assert!(found.is_equal());
}

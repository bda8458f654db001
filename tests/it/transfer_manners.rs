//! How a copy behaves beside others: rates, pauses while a query says that somebody else is busy, an end at any moment of it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use piton::transfer::{
    Binds, COUNTED_MAX, CopyProgress, CopyReport, CopyRequest, Database, Engine, Held, Mapping, PauseWhile, Policy,
    Throttle, TransferError, copied, copy, forecast,
};
use tokio_util::sync::CancellationToken;

use crate::support::databases::Fresh;

const MAPPING: &str = "apiVersion: piton/v1\nkind: Mapping\nname: m\nsets: { all: [item] }\n\
                       tables: { item: { columns: { id: id, label: label } } }\n";
const ROWS: u64 = 4_000;

/// Two databases with one table; each way of a copy has a pair that takes it.
struct Pair {
    from: Fresh,
    to: Fresh,
    _folder: tempfile::TempDir,
}

/// By pages, in the order of the key, by value.
const WAYS: [(Engine, Engine, &str); 4] = [
    (Engine::Postgres, Engine::Postgres, ""),
    (Engine::Postgres, Engine::Postgres, ", PRIMARY KEY (id)"),
    (Engine::Sqlite, Engine::Mariadb, ", PRIMARY KEY (id)"),
    (Engine::Mariadb, Engine::Sqlite, ", PRIMARY KEY (id)"),
];

impl Pair {
    async fn new((from, to, key): (Engine, Engine, &str)) -> Self {
        let folder = tempfile::tempdir().expect("a temp dir");
        let from = Fresh::new(from, "calm", folder.path()).await;
        let to = Fresh::new(to, "calm", folder.path()).await;
        from.run("CREATE TABLE item (id INTEGER NOT NULL, label VARCHAR(40), PRIMARY KEY (id))").await;
        let values: Vec<String> = (1..=ROWS).map(|id| format!("({id}, '{id:040}')")).collect();
        from.run(&format!("INSERT INTO item VALUES {}", values.join(", "))).await;
        to.run(&format!("CREATE TABLE item (id INTEGER NOT NULL, label VARCHAR(40){key})")).await;
        from.run("CREATE TABLE busy (it_is INTEGER)").await;
        from.run("INSERT INTO busy VALUES (0)").await;
        match &from.database {
            Database::Postgres(_) => from.run("ANALYZE item").await,
            Database::Mariadb(pool) => {
                sqlx::query("ANALYZE TABLE item").fetch_all(pool).await.expect("counts");
            }
            Database::Sqlite(_) => {}
        }
        Self { from, to, _folder: folder }
    }

    fn request(throttle: Throttle) -> CopyRequest {
        let mapping = Mapping::from_yaml(MAPPING).expect("valid");
        CopyRequest { throttle, chunk_rows: 1_000, ..CopyRequest::new(mapping, "all", Policy::Fail, "run/step") }
    }

    fn pause(&self, sql: &str, every: Duration) -> Throttle {
        let pause =
            PauseWhile { database: self.from.database.clone(), sql: sql.to_owned(), binds: Binds::new(), every };
        Throttle { pause_while: Some(pause), ..Throttle::default() }
    }

    async fn copy(
        &self,
        throttle: Throttle,
        progress: &(dyn Fn(CopyProgress) + Sync),
        cancel: &CancellationToken,
    ) -> Result<CopyReport, TransferError> {
        copy(&self.from.database, &self.to.database, &Self::request(throttle), progress, cancel).await
    }

    /// Rows that are committed.
    async fn there(&self) -> u64 {
        copied(&self.to.database, "run/step").await.expect("the target answers").rows()
    }

    async fn is_whole(&self) {
        let sql = "SELECT count(DISTINCT id) * 100000 + count(*) FROM item";
        assert_eq!(self.to.value(sql).await, serde_json::json!(ROWS * 100_001));
    }
}

#[tokio::test]
async fn a_rate_is_kept_by_every_way() {
    for way in WAYS {
        let rates = [
            Throttle { rows_per_second: Some(ROWS / 2), ..Throttle::default() },
            Throttle { rows_per_second: Some(ROWS * 10), bytes_per_second: Some(20 * ROWS), ..Throttle::default() },
        ];
        for throttle in rates {
            let pair = Pair::new(way).await;
            let seen = Mutex::new(Vec::new());
            let begun = Instant::now();
            let tell = |told: CopyProgress| seen.lock().expect("not poisoned").push(told);
            let report = pair.copy(throttle, &tell, &CancellationToken::new()).await.expect("copies");
            // The last chunk is not waited for: half of the rows take a second at least.
            assert!(begun.elapsed() >= Duration::from_secs(1), "{way:?}: {:?}", begun.elapsed());
            pair.is_whole().await;
            let seen = seen.into_inner().expect("not poisoned");
            assert!(seen.len() >= 2 && seen.iter().all(|told| !told.waits), "{way:?}: {seen:?}");
            let last = seen.last().expect("told");
            assert_eq!((last.rows_total, last.left), (ROWS, Some(Duration::ZERO)), "{way:?}: {last:?}");
            assert!(last.bytes_per_second > last.rows_per_second && last.rows_done == ROWS, "{way:?}: {last:?}");
            assert!(report.tables[0].bytes >= ROWS * 40, "{way:?}: {}", report.tables[0].bytes);
        }
    }
}

#[tokio::test]
async fn a_copy_waits_while_a_query_says_that_somebody_is_busy_and_goes_on_afterwards() {
    for way in WAYS {
        let pair = Pair::new(way).await;
        let throttle = pair.pause("SELECT it_is FROM busy WHERE it_is <> :idle", Duration::from_millis(5));
        let throttle = Throttle {
            pause_while: throttle
                .pause_while
                .map(|pause| PauseWhile { binds: [("idle".to_owned(), 0.into())].into_iter().collect(), ..pause }),
            ..throttle
        };
        pair.from.run("UPDATE busy SET it_is = 1").await;
        let waits = tokio::sync::Notify::new();
        let told = Mutex::new(Vec::new());
        let tell = |seen: CopyProgress| {
            if seen.waits {
                waits.notify_one();
            }
            told.lock().expect("not poisoned").push(seen);
        };
        let cancel = CancellationToken::new();
        let relieve = async {
            for _ in 0..3 {
                waits.notified().await;
            }
            assert_eq!(pair.there().await, 0, "{way:?}: nothing moves while it waits");
            pair.from.run("UPDATE busy SET it_is = 0").await;
        };
        let (report, ()) = tokio::join!(pair.copy(throttle, &tell, &cancel), relieve);
        let report = report.expect("copies");
        assert!(!report.tables[0].waited.is_zero() && report.tables[0].waited < report.tables[0].elapsed, "{way:?}");
        assert!(!told.into_inner().expect("not poisoned").last().expect("told").waits, "{way:?}");
        pair.is_whole().await;
    }
}

#[tokio::test]
async fn a_copy_that_waits_is_cancelled_at_once_and_resumes_where_it_was() {
    for way in WAYS {
        let pair = Pair::new(way).await;
        let cancel = CancellationToken::new();
        let error = pair.copy(Throttle::default(), &|_| cancel.cancel(), &cancel).await.expect_err("cut off");
        let before = pair.there().await;
        assert!(matches!(error, TransferError::Cancelled { rows, .. } if rows == before), "{way:?}: {error}");
        assert!(before > 0 && before < ROWS, "{way:?}: {before}");
        let cancel = CancellationToken::new();
        let tell = |seen: CopyProgress| {
            assert!(seen.waits && seen.rows_done == before, "{seen:?}");
            cancel.cancel();
        };
        let throttle = pair.pause("SELECT 1", Duration::from_hours(1));
        let error = pair.copy(throttle, &tell, &cancel).await.expect_err("cancelled while it waits");
        assert!(matches!(error, TransferError::Cancelled { rows, .. } if rows == before), "{way:?}: {error}");
        pair.copy(Throttle::default(), &|_| {}, &CancellationToken::new()).await.expect("goes on");
        pair.is_whole().await;
    }
}

#[tokio::test]
async fn a_forecast_counts_or_says_that_it_guesses_and_writes_nothing() {
    for way in WAYS {
        let pair = Pair::new(way).await;
        let request = Pair::request(Throttle::default());
        let foretell = async || forecast(&pair.from.database, &pair.to.database, &request).await.expect("foretells");
        let seen = foretell().await;
        assert_eq!((seen.len(), seen[0].rows, seen[0].is_exact, seen[0].forbidden), (1, ROWS, true, 0), "{way:?}");
        assert_eq!(seen[0].held, Held::Nothing, "{way:?}");
        let bytes = seen[0].bytes.expect("every engine has an idea");
        assert!((ROWS * 40..=ROWS * 200).contains(&bytes), "{way:?}: {bytes}");
        assert_eq!(pair.to.value("SELECT count(*) FROM item").await, 0, "{way:?}");
        assert_eq!(pair.there().await, 0, "{way:?}");
        if way.2.is_empty() {
            continue;
        }
        pair.copy(Throttle::default(), &|_| {}, &CancellationToken::new()).await.expect("copies");
        let seen = foretell().await;
        assert_eq!((seen[0].held, seen[0].forbidden), (Held::Keys(ROWS), ROWS), "{way:?}");
    }
    let pair = Pair::new(WAYS[1]).await;
    pair.from.run("INSERT INTO item SELECT i, 'x' FROM generate_series(10000, 1100000) AS i").await;
    pair.from.run("ANALYZE item").await;
    let request = Pair::request(Throttle::default());
    let seen = forecast(&pair.from.database, &pair.to.database, &request).await.expect("foretells");
    assert!(!seen[0].is_exact && seen[0].rows > COUNTED_MAX && seen[0].rows < 1_200_000, "{seen:?}");
    assert_eq!(seen[0].held, Held::Nothing);
}

#[tokio::test]
async fn a_question_without_an_answer_stops_the_copy_before_anything_is_written() {
    let pair = Pair::new(WAYS[0]).await;
    for (sql, why) in [("SELECT 'maybe'", "neither true nor false"), ("SELECT x FROM busy", "does not exist")] {
        let throttle = pair.pause(sql, Duration::from_secs(1));
        let error = pair.copy(throttle, &|_| {}, &CancellationToken::new()).await.expect_err("no answer");
        assert!(error.to_string().contains("pause_while") && error.to_string().contains(why), "{error}");
        assert!(!error.effect_unknown());
        assert_eq!(pair.there().await, 0);
    }
}

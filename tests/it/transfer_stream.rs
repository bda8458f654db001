//! Reading PostgreSQL beside the driver: who signs in how, what is read by the session where that is not to be had, and what others lock meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use piton::transfer::{
    Binds, ChunkHook, ChunkMoment, ConnectOptions, CopyRequest, Database, Mapping, Policy, StatementOptions, copy,
    query,
};
use tokio_util::sync::CancellationToken;

use crate::support::postgres::PrivatePostgres;

const MAPPING: &str = "apiVersion: piton/v1\nkind: Mapping\nname: perf\nsets: { perf: [perf] }\ntables: { perf: {} }\n";
const TABLE: &str = "CREATE TABLE perf (entity_id int, ts timestamptz, note text";
const KEY: &str = ", PRIMARY KEY (entity_id, ts))";
/// More than is read ahead, so that there is a reader while the first rows are written.
const FILL: &str = "INSERT INTO perf SELECT e, to_timestamp(900 * b), repeat('x', 38 * e) \
                    FROM generate_series(0, 99) AS b, generate_series(1, 50) AS e";
const HASH: &str = "SELECT count(*) || ' ' || sum(hash_record_extended(t, 0)::numeric) AS h FROM perf AS t";

async fn open(url: &str) -> Database {
    Database::connect(url, ConnectOptions::default()).await.unwrap_or_else(|error| panic!("{url}: {error}"))
}

async fn run(database: &Database, sql: &str) {
    let Database::Postgres(pool) = database else { panic!("these tests are PostgreSQL's") };
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(pool)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn value(database: &Database, sql: &str) -> serde_json::Value {
    let found = query(database, sql, &Binds::new(), StatementOptions::default()).await.expect("the query runs");
    found.rows[0].values().next().cloned().expect("a value")
}

/// A database with rows, and one without.
struct Pair {
    from: Database,
    from_url: String,
    to: Database,
}

impl Pair {
    async fn new(server: &PrivatePostgres, name: &str, end: &str) -> Self {
        let from_url = server.create_database(&format!("{name}_from"));
        let from = open(&from_url).await;
        let to = open(&server.create_database(&format!("{name}_to"))).await;
        run(&from, &format!("{TABLE}{KEY}; {FILL}; ANALYZE perf")).await;
        run(&to, &format!("{TABLE}{end}")).await;
        Self { from, from_url, to }
    }

    /// Copies as `role`; the most sessions of it that the source had when rows were about to be written.
    async fn copy_as(&self, role: &str, password: &str) -> i64 {
        let url = self.from_url.replace("postgres@", &format!("{role}:{password}@"));
        let most = Arc::new(AtomicI64::new(0));
        let (watch, seen, who) = (self.from.clone(), Arc::clone(&most), role.to_owned());
        let hook = ChunkHook::new(move |moment| {
            let (watch, seen, who) = (watch.clone(), Arc::clone(&seen), who.clone());
            Box::pin(async move {
                if moment == ChunkMoment::BeforeRead {
                    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{who}'");
                    seen.fetch_max(value(&watch, &sql).await.as_i64().expect("a number"), Ordering::Relaxed);
                }
            })
        });
        let mapping = Mapping::from_yaml(MAPPING).expect("valid");
        let wanted = CopyRequest { hook, parallel: 1, ..CopyRequest::new(mapping, "perf", Policy::Fail, "run/step") };
        let account = copy(&open(&url).await, &self.to, &wanted, &|_| {}, &CancellationToken::new()).await;
        assert_eq!(account.expect("copies").tables[0].all.inserted, 5_000);
        assert_eq!(value(&self.from, HASH).await, value(&self.to, HASH).await);
        most.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn rows_are_read_beside_the_driver_however_the_server_asks_for_the_password() {
    let server = PrivatePostgres::of_its_own();
    let postgres = open(&server.address("postgres")).await;
    for (method, stored) in [("scram-sha-256", "scram-sha-256"), ("md5", "md5"), ("password", "scram-sha-256")] {
        let role = format!("reader_{}", method.replace('-', "_"));
        run(
            &postgres,
            &format!("SET password_encryption = '{stored}'; CREATE ROLE {role} LOGIN PASSWORD 'p@ss w:örd/'"),
        )
        .await;
        server.ask(&role, method);
        for (way, end) in [("pages", ")"), ("sorted", KEY)] {
            let pair = Pair::new(&server, &format!("{role}_{way}"), end).await;
            run(&pair.from, &format!("GRANT SELECT ON perf TO {role}")).await;
            let sessions = pair.copy_as(&role, "p%40ss%20w%3A%C3%B6rd%2F").await;
            assert_eq!(sessions, 2, "{method}, {way}: the session that holds the snapshot, and the stream");
        }
    }
    server.kill();
}

#[tokio::test]
async fn a_source_that_has_no_connection_left_is_read_by_the_session() {
    let server = PrivatePostgres::start();
    let pair = Pair::new(server, "stream_limit", ")").await;
    run(&pair.from, "CREATE ROLE only_one LOGIN CONNECTION LIMIT 1; GRANT SELECT ON perf TO only_one").await;
    assert_eq!(pair.copy_as("only_one", "").await, 1);
}

#[tokio::test]
async fn the_session_that_holds_the_view_may_be_idle_for_as_long_as_a_table_takes() {
    let server = PrivatePostgres::start();
    let pair = Pair::new(server, "stream_idle", ")").await;
    let limit = "SET idle_in_transaction_session_timeout = '300ms'";
    run(&pair.from, &format!("CREATE ROLE hurried LOGIN; GRANT SELECT ON perf TO hurried; ALTER ROLE hurried {limit}"))
        .await;
    let hook = ChunkHook::new(|moment| {
        Box::pin(async move {
            if moment == ChunkMoment::BeforeRead {
                tokio::time::sleep(std::time::Duration::from_millis(900)).await;
            }
        })
    });
    let mapping = Mapping::from_yaml(MAPPING).expect("valid");
    let wanted = CopyRequest { hook, ..CopyRequest::new(mapping, "perf", Policy::Fail, "run/step") };
    let from = open(&pair.from_url.replace("postgres@", "hurried@")).await;
    let account = copy(&from, &pair.to, &wanted, &|_| {}, &CancellationToken::new()).await.expect("copies");
    assert_eq!(account.tables[0].all.inserted, 5_000);
}

#[tokio::test]
async fn whoever_waits_to_lock_the_table_is_not_waited_for() {
    let server = PrivatePostgres::start();
    let pair = Pair::new(server, "stream_lock", ")").await;
    let mapping = Mapping::from_yaml(MAPPING).expect("valid");
    let (altering, watch) = (pair.from.clone(), pair.from.clone());
    let (begun, is_begun) = (Arc::new(tokio::sync::Notify::new()), Arc::new(AtomicI64::new(0)));
    let (tell, count) = (Arc::clone(&begun), Arc::clone(&is_begun));
    let hook = ChunkHook::new(move |moment| {
        let (watch, tell, count) = (watch.clone(), Arc::clone(&tell), Arc::clone(&count));
        Box::pin(async move {
            if moment == ChunkMoment::BeforeRead && count.fetch_add(1, Ordering::Relaxed) == 0 {
                tell.notify_one();
                let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'perf'::regclass";
                while value(&watch, waits).await == serde_json::json!(0) {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
        })
    });
    let altered = tokio::spawn(async move {
        begun.notified().await;
        run(&altering, "ALTER TABLE perf ADD COLUMN late int").await;
    });
    let wanted = CopyRequest {
        hook,
        chunk_rows: 500,
        parallel: 2,
        ..CopyRequest::new(mapping, "perf", Policy::Fail, "run/step")
    };
    let account = copy(&pair.from, &pair.to, &wanted, &|_| {}, &CancellationToken::new()).await.expect("copies");
    assert_eq!(account.tables[0].all.inserted, 5_000);
    assert!(is_begun.load(Ordering::Relaxed) > 1, "several chunks, most of them with somebody waiting");
    altered.await.expect("goes on when the copy is done");
}

/// Rows in an order that has nothing to do with their key, four to a page.
const SHUFFLED: &str = "INSERT INTO perf SELECT e, to_timestamp(900 * b), repeat('x', 1900) \
                        FROM generate_series(0, 399) AS b, generate_series(1, 50) AS e ORDER BY b, e";

#[tokio::test]
async fn a_table_that_stands_in_another_order_is_sorted_and_not_walked_over() {
    let server = PrivatePostgres::start();
    let cases = [
        ("sorted_known", "; ANALYZE perf", false),
        ("sorted_unknown", "", true),
        ("sorted_no_room", "; ANALYZE perf; ALTER DATABASE sorted_no_room_from SET temp_file_limit = '20MB'", true),
    ];
    for (name, analyzed, walks) in cases {
        let from_url = server.create_database(&format!("{name}_from"));
        // Whoever looks at it meanwhile would make it known; pages that are cheap to ask for are a planner that likes to walk.
        let settings = format!(
            "ALTER DATABASE {name}_from SET random_page_cost = 0.01; ALTER TABLE perf SET (autovacuum_enabled = off)"
        );
        let from = open(&from_url).await;
        let to = open(&server.create_database(&format!("{name}_to"))).await;
        run(&from, &format!("{TABLE}{KEY}; {settings}; {SHUFFLED}{analyzed}")).await;
        run(&to, &format!("{TABLE}{KEY}")).await;
        let mapping = Mapping::from_yaml(MAPPING).expect("valid");
        let wanted = CopyRequest::new(mapping, "perf", Policy::Fail, "run/step");
        // A connection of before would not know the settings of the database.
        let account = copy(&open(&from_url).await, &to, &wanted, &|_| {}, &CancellationToken::new()).await;
        assert_eq!(account.expect("copies").tables[0].all.inserted, 20_000);
        assert_eq!(value(&from, HASH).await, value(&to, HASH).await);
        let read = |what: &str| format!("SELECT {what} FROM pg_stat_user_tables WHERE relname = 'perf'");
        // A session tells what it read when it ends; those of this test and of the hash read through.
        let (mut by_key, mut through) = (0, 0);
        for _ in 0..500 {
            by_key = value(&from, &read("idx_tup_fetch")).await.as_i64().expect("a number");
            through = value(&from, &read("seq_tup_read")).await.as_i64().expect("a number");
            if by_key + through >= 40_000 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(
            (by_key >= 20_000, through >= 40_000),
            (walks, !walks),
            "{name}: {by_key} by the key, {through} not"
        );
    }
}

#[tokio::test]
async fn the_end_of_a_table_is_on_the_disk_whatever_the_target_does_without_being_asked() {
    let server = PrivatePostgres::start();
    let from = open(&server.create_database("lazy_from")).await;
    let to_url = server.create_database("lazy_to");
    run(&open(&to_url).await, "ALTER DATABASE lazy_to SET synchronous_commit = off").await;
    let to = open(&to_url).await;
    for (way, end, policy) in
        [("pages", ")", Policy::Fail), ("sorted", KEY, Policy::Fail), ("values", KEY, Policy::Fill)]
    {
        run(&from, &format!("DROP TABLE IF EXISTS perf; {TABLE}{KEY}; {FILL}")).await;
        run(&to, &format!("DROP TABLE IF EXISTS perf, seen; {TABLE}{end}; CREATE TABLE seen (done text, how text)"))
            .await;
        let note = "CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            INSERT INTO seen VALUES (NEW.done::text, current_setting('synchronous_commit')); RETURN NEW; END $$";
        let mapping = Mapping::from_yaml(MAPPING).expect("valid");
        // The first copy makes the table that is watched in the second.
        for token in ["first", "second"] {
            let wanted = CopyRequest::new(mapping.clone(), "perf", policy, format!("{way}{token}"));
            run(&to, "TRUNCATE perf").await;
            // A target that holds something is not filled by a stream.
            let there = i32::from(way == "values");
            run(&to, &format!("INSERT INTO perf SELECT 0, now(), 'here' FROM generate_series(1, {there})")).await;
            let account = copy(&from, &to, &wanted, &|_| {}, &CancellationToken::new()).await;
            assert_eq!(account.expect("copies").tables[0].all.inserted, 5_000);
            // At the commit, where it counts.
            let trigger = "DROP TRIGGER IF EXISTS noted ON piton_checkpoint; \
                           CREATE CONSTRAINT TRIGGER noted AFTER INSERT OR UPDATE ON piton_checkpoint \
                           DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()";
            run(&to, &format!("{note}; {trigger}")).await;
        }
        let ends = "SELECT string_agg(DISTINCT how, ' ') FROM seen WHERE done IN ('1', 'true')";
        assert_eq!(value(&to, ends).await, "on", "{way}");
    }
}

#[tokio::test]
async fn tables_one_after_the_other_are_read_over_one_connection() {
    const FEW: &str = "INSERT INTO perf SELECT e, to_timestamp(900 * b), '' FROM generate_series(0, 9) AS b, generate_series(1, 10) AS e";
    let tables: Vec<String> = (0..40).map(|number| format!("t{number}")).collect();
    let server = PrivatePostgres::start();
    let from_url = server.create_database("stream_many_from");
    let from = open(&from_url).await;
    let to = open(&server.create_database("stream_many_to")).await;
    run(&from, "CREATE ROLE many LOGIN").await;
    for (place, table) in tables.iter().enumerate() {
        let named = |sql: &str| sql.replace("perf", table);
        run(&from, &named(&format!("{TABLE}{KEY}; {FEW}; GRANT SELECT ON perf TO many"))).await;
        // By pages and in the order of the key, in turns.
        run(&to, &named(&format!("{TABLE}{}", if place % 2 == 0 { ")" } else { KEY }))).await;
    }
    let seen = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let most_locks = Arc::new(AtomicI64::new(0));
    let (watch, noted, locked) = (from.clone(), Arc::clone(&seen), Arc::clone(&most_locks));
    let hook = ChunkHook::new(move |moment| {
        let (watch, noted, locked) = (watch.clone(), Arc::clone(&noted), Arc::clone(&locked));
        Box::pin(async move {
            if moment == ChunkMoment::BeforeRead {
                let sql = "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE usename = 'many'";
                let pids = value(&watch, sql).await;
                let pids: Vec<String> = pids.as_str().expect("some").split(' ').map(str::to_owned).collect();
                noted.lock().expect("is whole").extend(pids);
                let sql = "SELECT min(n) FROM (SELECT count(*) AS n FROM pg_locks JOIN pg_stat_activity USING (pid) \
                           WHERE usename = 'many' AND locktype = 'relation' GROUP BY pid) AS each";
                locked.fetch_max(value(&watch, sql).await.as_i64().expect("a number"), Ordering::Relaxed);
            }
        })
    });
    let named: Vec<String> = tables.iter().map(|table| format!("{table}: {{}}")).collect();
    let set = format!("[{}]", tables.join(", "));
    let mapping = MAPPING.replace("[perf]", &set).replace("{ perf: {} }", &format!("{{ {} }}", named.join(", ")));
    let mapping = Mapping::from_yaml(&mapping).expect("valid");
    let wanted = CopyRequest { hook, parallel: 1, ..CopyRequest::new(mapping, "perf", Policy::Fail, "run/step") };
    let as_many = open(&from_url.replace("postgres@", "many@")).await;
    let account = copy(&as_many, &to, &wanted, &|_| {}, &CancellationToken::new()).await.expect("copies");
    assert!(account.tables.iter().all(|table| table.all.inserted == 100), "{account:?}");
    for table in &tables {
        let hash = HASH.replace("perf", table);
        assert_eq!(value(&from, &hash).await, value(&to, &hash).await, "{table}");
    }
    let seen = seen.lock().expect("is whole").clone();
    assert_eq!(seen.len(), 2, "the session that holds the view, and one that reads: {seen:?}");
    let most = most_locks.load(Ordering::Relaxed);
    assert!(most < 10, "what reads locks the one table, not those before it as well: {most} locks");
}

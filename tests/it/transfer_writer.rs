//! The guarded move of a time series while both collectors write as fast as they can: rounds over closed buckets, a boundary, the final delta
//! under every merge policy, late rows. What must hold afterwards (I3 to I9, I13, I14 of the two-step migration) is asked of both
//! databases by queries that know nothing of the copy.
//!
//! Time is counted in buckets, not by the clock. The collectors live in the test; steps of the runbook hand over to them by files.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use piton::transfer::{Database, Engine};
use serde_json::Value as Json;
use sqlx::AssertSqlSafe;

use super::cli::{Desk, Said};
use super::support::databases::Fresh;
use super::support::perf;

/// Seconds of a bucket.
const STEP: i64 = 900;
/// Entities that are collected.
const ENTITIES: i64 = 8;
/// Buckets that the source holds at first.
const HISTORY: i64 = 400;
/// Buckets after which a collector would have to be stopped by other means.
const BUCKETS_MAX: i64 = 200_000;
/// What the new collector saw of the bucket that it began in: volume and seconds.
const PARTIAL: (i64, i64) = (40, 400);

/// What an entity's bucket truly holds.
fn truth(entity: i64, bucket: i64) -> i64 {
    100 + (entity * 7 + bucket * 13).rem_euclid(50)
}

/// Whether the row of this bucket comes late to the source; the next one is in time, so that no watermark waits for it.
fn is_late(entity: i64, bucket: i64) -> bool {
    bucket >= HISTORY && bucket % 20 == 7 && entity == bucket % ENTITIES + 1
}

/// What is copied of the series, and by which columns its policies judge.
const PERF: &str = "    columns: { entity_id: entity_id, step_start: step_start, iv: iv, covered: covered }
    time: step_start
    timestep: 900
    coverage: covered
    additive: [iv, covered]
";

const SOURCE: &str = "CREATE TABLE perf (entity_id INTEGER NOT NULL, step_start BIGINT NOT NULL, iv BIGINT NOT NULL, covered BIGINT NOT NULL, \
                      PRIMARY KEY (entity_id, step_start))";
const TARGET: &str = "CREATE TABLE perf_item (entity_id INTEGER NOT NULL, step_start BIGINT NOT NULL, iv BIGINT NOT NULL, covered BIGINT NOT NULL, \
                      src VARCHAR(2) NOT NULL, extra VARCHAR(9) DEFAULT 'none', PRIMARY KEY (entity_id, step_start))";

/// A merge policy and what may be done under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Merge {
    SourceWins,
    Fill,
    SplitAt,
    Fail,
    BestCoverage,
    Additive,
}

impl Merge {
    fn name(self) -> &'static str {
        match self {
            Self::SourceWins => "source_wins",
            Self::Fill => "fill",
            Self::SplitAt => "split_at",
            Self::Fail => "fail",
            Self::BestCoverage => "best_coverage",
            Self::Additive => "merge_additive",
        }
    }

    /// Whether ranges may be read again, so that late rows are found.
    fn reads_again(self) -> bool {
        !matches!(self, Self::Fail | Self::Additive)
    }
}

fn runbook(merge: Merge) -> String {
    let hand_over = |id: &str, needs: &str| {
        format!(
            "  - {{ id: {id}, needs: [{needs}], exec: {{ shell: 'touch {id}; until test -e {id}.done; do sleep 0.02; done' }}, idempotent: yes }}\n"
        )
    };
    let watermark = "db.watermark: { database: here, table: perf, time: step_start, entity: entity_id, timestep: 15m }";
    let copy = |id: &str, needs: &str, policy: &str, from: &str, to: &str| {
        let from = match from {
            "" => String::new(),
            "settled" => format!("from: {}, ", HISTORY * STEP),
            step => format!("from: \"{{{{ steps.{step} }}}}\", "),
        };
        format!(
            "  - id: {id}\n    needs: [{needs}]\n    db.copy:\n      {{ from: here, to: there, map: map.yaml, tables: performance, chunk_rows: 2000, {policy}, range: {{ {from}to: \"{{{{ steps.{to} }}}}\" }} }}\n"
        )
    };
    let mark = |number, before| format!("  - {{ id: mark{number}, needs: [round{before}], {watermark} }}\n");
    let mut steps = format!("steps:\n  - {{ id: mark1, {watermark} }}\n");
    steps += &copy("round1", "mark1", "policy: fail", "", "mark1.outputs.watermark");
    for (number, before) in [(2, 1), (3, 2)] {
        steps += &mark(number, before);
        let (from, to) = (format!("mark{before}.outputs.watermark"), format!("mark{number}.outputs.watermark"));
        steps += &copy(&format!("round{number}"), &format!("mark{number}"), "policy: fail", &from, &to);
    }
    steps += &hand_over("start76", "round3");
    steps += "  - { id: boundary, needs: [start76], exec: { argv: [cat, boundary.json], outputs: { at: { json: /at } } }, idempotent: yes }\n";
    steps += "  - id: drained\n    needs: [boundary]\n    wait.until:\n      every: 50ms\n      timeout: 5m\n      db.assert: { database: here, sql: 'SELECT count(*) AS n FROM perf WHERE step_start = :b - 900', bind: { b: '{{ steps.boundary.outputs.at }}' }, expect: { value: 8 } }\n";
    steps += &hand_over("stop65", "drained");
    let policy = match merge {
        Merge::SplitAt => "policy: split_at, at: \"{{ steps.boundary.outputs.at }}\"".to_owned(),
        other => format!("policy: {}", other.name()),
    };
    steps += &copy("delta", "stop65", &policy, "mark3.outputs.watermark", "boundary.outputs.at");
    if merge.reads_again() {
        steps += &hand_over("late", "delta");
        // Every bucket that a row may still have come late for is read again.
        steps += &copy("reread", "late", &policy, "settled", "boundary.outputs.at");
        steps += &copy("again", "reread", &policy, "settled", "boundary.outputs.at");
    }
    steps
}

/// One statement, on a connection that stays.
async fn write(database: &Database, sql: String) {
    let sql = AssertSqlSafe(sql);
    let done = match database {
        Database::Sqlite(pool) => sqlx::query(sql).execute(pool).await.map(drop),
        Database::Postgres(pool) => sqlx::query(sql).execute(pool).await.map(drop),
        Database::Mariadb(pool) => sqlx::query(sql).execute(pool).await.map(drop),
    };
    done.expect("a collector writes");
}

/// Both collectors and what they know of each other.
struct Collectors {
    from: Database,
    to: Database,
    desk: PathBuf,
    merge: Merge,
}

impl Collectors {
    fn asked(&self, what: &str) -> bool {
        self.desk.join(what).exists()
    }

    fn done(&self, what: &str) {
        std::fs::write(self.desk.join(format!("{what}.done")), "").expect("the folder can be written to");
    }

    /// Rows of a bucket for the source; one that comes late is left out.
    async fn collect_65(&self, bucket: i64, seen_by_both: bool) {
        let rows: Vec<String> = (1..=ENTITIES)
            .filter(|entity| !self.merge.reads_again() || !is_late(*entity, bucket))
            .map(|entity| {
                // Volumes may only be added up where each was seen once.
                let (less, seconds) = if seen_by_both && self.merge == Merge::Additive { PARTIAL } else { (0, 0) };
                format!("({entity}, {}, {}, {})", bucket * STEP, truth(entity, bucket) - less, STEP - seconds)
            })
            .collect();
        write(&self.from, format!("INSERT INTO perf VALUES {}", rows.join(", "))).await;
    }

    async fn collect_76(&self, bucket: i64, partial: bool) {
        let row = |entity| {
            let (volume, seconds) = if partial { PARTIAL } else { (truth(entity, bucket), STEP) };
            format!("({entity}, {}, {volume}, {seconds}, '76', 'own')", bucket * STEP)
        };
        let rows: Vec<String> = (1..=ENTITIES).map(row).collect();
        write(&self.to, format!("INSERT INTO perf_item VALUES {}", rows.join(", "))).await;
    }

    /// Collects for the source at full speed, until it is told to stop; then writes what came late. Returns the first bucket behind.
    async fn old(self: Arc<Self>) -> i64 {
        let mut bucket = HISTORY;
        let mut new = None;
        while !self.asked("stop65") {
            assert!(bucket < BUCKETS_MAX, "nobody stops the collector");
            let starts = new.is_none() && self.asked("start76") && bucket % 20 != 7;
            if starts {
                // The new collector begins within this bucket.
                self.collect_76(bucket, true).await;
                let at = (bucket + 1) * STEP;
                std::fs::write(self.desk.join("boundary.json"), format!("{{\"at\": {at}}}")).expect("can be written");
                new = Some(tokio::spawn(Arc::clone(&self).new_from(bucket + 1)));
                self.done("start76");
            }
            self.collect_65(bucket, starts).await;
            bucket += 1;
            tokio::task::yield_now().await;
        }
        self.done("stop65");
        if self.merge.reads_again() {
            self.wait_for("late").await;
            for late in (HISTORY..bucket).filter(|bucket| bucket % 20 == 7) {
                let entity = late % ENTITIES + 1;
                let (at, volume) = (late * STEP, truth(entity, late));
                write(&self.from, format!("INSERT INTO perf VALUES ({entity}, {at}, {volume}, {STEP})")).await;
            }
            self.done("late");
        }
        new.expect("the new collector was started").await.expect("it does not panic")
    }

    /// Collects for the target at full speed, until the run is over.
    async fn new_from(self: Arc<Self>, first: i64) -> i64 {
        let mut bucket = first;
        while !self.asked("over") {
            assert!(bucket < BUCKETS_MAX, "nobody stops the collector");
            self.collect_76(bucket, false).await;
            bucket += 1;
            tokio::task::yield_now().await;
        }
        bucket
    }

    async fn wait_for(&self, what: &str) {
        while !self.asked(what) && !self.asked("over") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Moves a series from one engine to another under a policy, and asks both databases what became of it.
async fn move_while_both_write(merge: Merge, engines: (Engine, Engine)) {
    let desk = Desk::new();
    let (from, to) =
        (Fresh::new(engines.0, "writer", &desk.path("")).await, Fresh::new(engines.1, "writer", &desk.path("")).await);
    from.run(SOURCE).await;
    to.run(TARGET).await;
    let history: Vec<String> = (0..HISTORY)
        .flat_map(|bucket| {
            (1..=ENTITIES)
                .map(move |entity| format!("({entity}, {}, {}, {STEP})", bucket * STEP, truth(entity, bucket)))
        })
        .collect();
    from.run(&format!("INSERT INTO perf VALUES {}", history.join(", "))).await;
    desk.write("map.yaml", &perf::mapping("series", "performance: [perf]", PERF));
    desk.write(
        "site.yaml",
        &format!("apiVersion: piton/v1\nkind: Site\nname: desk\ndatabases:\n  here: {{ url: '{}' }}\n  there: {{ url: '{}' }}\n", from.url, to.url),
    );
    desk.runbook("move", &runbook(merge));
    let (old, new) = (from.database.clone(), to.database.clone());
    let collectors = Arc::new(Collectors { from: old, to: new, desk: desk.path(""), merge });
    let collecting = tokio::spawn(Arc::clone(&collectors).old());
    let sit = |args: &[&str]| {
        let child =
            desk.command(args).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
        let child = child.expect("the program starts");
        tokio::task::spawn_blocking(move || Said::from(child.wait_with_output().expect("its output")))
    };
    let mut said = sit(&["--site", "site.yaml", "run", "move.yaml", "--run-id", "r"]).await.expect("no panic");
    if merge == Merge::Fail {
        // The bucket in which the new collector began is in both; nothing is written, and a person takes it out.
        let said_before = said.exits(4);
        let told = format!("forbids {ENTITIES} rows");
        assert!(said_before.out.contains(&told) && said_before.out.contains("step_start"), "{}", said_before.out);
        let at = boundary(&desk);
        let begun = "SELECT count(*) AS n FROM piton_checkpoint WHERE token = 'r/delta'";
        assert_eq!(to.value(begun).await, 0, "the delta wrote nothing");
        to.run(&format!("DELETE FROM perf_item WHERE step_start = {}", at - STEP)).await;
        said = sit(&["resume", "r"]).await.expect("no panic");
    }
    desk.write("over", "");
    let closed = collecting.await.expect("the collectors do not panic");
    let said = said.exits(0);
    let show = desk.piton(&["show", "r", "--json"]).exits(0).json();
    assert_eq!(show["outcome"], "succeeded", "{}", said.out);
    let at = boundary(&desk);
    account_of_rounds(&show, &from, merge, at).await;
    account_of_rows(&from, &to, merge, at, closed).await;
    desk.piton(&["audit", "verify", "r"]).exits(0);
}

/// The first second that belongs to the new collector.
fn boundary(desk: &Desk) -> i64 {
    let text = std::fs::read_to_string(desk.path("boundary.json")).expect("the new collector began");
    let json: Json = serde_json::from_str(&text).expect("JSON of ours");
    json["at"].as_i64().expect("a second")
}

fn output(show: &Json, step: &str, name: &str) -> i64 {
    let steps = show["steps"].as_array().expect("steps");
    let step = steps.iter().find(|row| row["id"] == step).unwrap_or_else(|| panic!("`{step}` in {show}"));
    step["outputs"][name].as_i64().unwrap_or_else(|| panic!("`{name}` in {step}"))
}

async fn number(database: &Fresh, sql: &str) -> i64 {
    let value = database.value(sql).await;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.parse().unwrap_or_else(|_| panic!("{sql}: {value}"))
}

/// I13: watermarks never go back and cover closed buckets only, and the ranges are joined. I14: a second execution changes nothing.
async fn account_of_rounds(show: &Json, from: &Fresh, merge: Merge, at: i64) {
    let marks = ["mark1", "mark2", "mark3"].map(|mark| output(show, mark, "watermark"));
    assert!(marks.is_sorted() && marks[2] <= at && marks[0] >= HISTORY * STEP, "{marks:?} up to {at}");
    for mark in marks {
        assert_eq!(mark % STEP, 0);
        let last = format!("SELECT count(*) AS n FROM perf WHERE step_start = {}", mark - STEP);
        assert_eq!(number(from, &last).await, ENTITIES, "{mark} covers a bucket that was closed");
    }
    let copied = |step| output(show, step, "rows");
    let all: i64 = ["round1", "round2", "round3", "delta"].into_iter().map(copied).sum();
    let source = number(from, &format!("SELECT count(*) AS n FROM perf WHERE step_start < {at}")).await;
    let buckets = at / STEP;
    let late = if merge.reads_again() { (HISTORY..buckets).filter(|bucket| bucket % 20 == 7).count() } else { 0 };
    let late = i64::try_from(late).expect("few");
    assert_eq!(
        (source, all),
        (buckets * ENTITIES, source - late),
        "each row is in exactly one range, but for {late} late ones"
    );
    if merge.reads_again() {
        assert_eq!(
            (output(show, "reread", "inserted"), output(show, "reread", "updated")),
            (late, 0),
            "late rows are found"
        );
        assert_eq!((output(show, "again", "inserted"), output(show, "again", "updated")), (0, 0), "a second execution");
    }
}

/// I3 to I9, each by a query of its own.
async fn account_of_rows(from: &Fresh, to: &Fresh, merge: Merge, at: i64, closed: i64) {
    let (before, begun) = (format!("WHERE step_start < {at}"), at / STEP - 1);
    let of = |select: &str, table: &str, rows: &str| format!("SELECT {select} AS n FROM {table} {rows}");
    let what = merge.name();
    // I3 and I5: the keys of both sides, and no others.
    for keys in ["count(*)", "sum(entity_id * 31 + step_start)"] {
        let (source, target) = (of(keys, "perf", &before), of(keys, "perf_item", &before));
        assert_eq!(number(to, &target).await, number(from, &source).await, "{what}: {keys}");
    }
    // I4: what the rows hold; only the bucket in which both collected may differ, as the policy says.
    let rest = format!("{before} AND step_start <> {}", begun * STEP);
    for values in ["sum(iv)", "sum(covered)", "sum(iv * entity_id + step_start)"] {
        let (source, target) = (of(values, "perf", &rest), of(values, "perf_item", &rest));
        assert_eq!(number(to, &target).await, number(from, &source).await, "{what}: {values}");
    }
    // I9: against the truth. `fill` keeps the partial rows, which is why it is no safe default.
    let true_sum = |buckets: std::ops::Range<i64>| -> i64 {
        buckets.flat_map(|bucket| (1..=ENTITIES).map(move |entity| truth(entity, bucket))).sum()
    };
    let both = format!("WHERE step_start = {}", begun * STEP);
    let (volume, seconds) = if merge == Merge::Fill {
        (PARTIAL.0 * ENTITIES, PARTIAL.1 * ENTITIES)
    } else {
        (true_sum(begun..begun + 1), STEP * ENTITIES)
    };
    assert_eq!(number(to, &of("sum(iv)", "perf_item", &rest)).await, true_sum(0..begun), "{what}");
    assert_eq!(number(to, &of("sum(iv)", "perf_item", &both)).await, volume, "{what}: where both collected");
    assert_eq!(number(to, &of("sum(covered)", "perf_item", &both)).await, seconds, "{what}: where both collected");
    // I6 and I8: from the boundary on everything is the new collector's, without a gap, its own column included.
    let behind = format!("WHERE step_start >= {at} AND src = '76' AND extra = 'own'");
    assert_eq!(number(to, &of("count(*)", "perf_item", &behind)).await, (closed - begun - 1) * ENTITIES, "{what}");
    assert_eq!(number(to, &of("sum(iv)", "perf_item", &behind)).await, true_sum(begun + 1..closed), "{what}");
    assert_eq!(
        number(to, &of("count(*)", "perf_item", "")).await,
        closed * ENTITIES,
        "{what}: no gap and nothing else"
    );
    // I7: whose rows they are.
    let old = number(to, &of("count(*)", "perf_item", &format!("{rest} AND src = '65'"))).await;
    assert_eq!(old, begun * ENTITIES, "{what}");
    let (src, extra) = match merge {
        Merge::SourceWins | Merge::Fail => ("65", "none"),
        Merge::SplitAt | Merge::BestCoverage => ("65", "own"),
        Merge::Fill | Merge::Additive => ("76", "own"),
    };
    let whose = format!("{both} AND src = '{src}' AND extra = '{extra}'");
    assert_eq!(number(to, &of("count(*)", "perf_item", &whose)).await, ENTITIES, "{what}: where both collected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_wins_takes_the_rows_of_the_old_collector_while_both_write() {
    move_while_both_write(Merge::SourceWins, (Engine::Postgres, Engine::Postgres)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fill_leaves_the_partial_rows_of_the_new_collector_while_both_write() {
    move_while_both_write(Merge::Fill, (Engine::Mariadb, Engine::Postgres)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn split_at_loses_and_overwrites_nothing_while_both_write() {
    move_while_both_write(Merge::SplitAt, (Engine::Sqlite, Engine::Sqlite)).await;
    move_while_both_write(Merge::SplitAt, (Engine::Postgres, Engine::Mariadb)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_writes_nothing_until_the_overlap_is_gone_while_both_write() {
    move_while_both_write(Merge::Fail, (Engine::Postgres, Engine::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn best_coverage_takes_the_complete_rows_while_both_write() {
    move_while_both_write(Merge::BestCoverage, (Engine::Mariadb, Engine::Mariadb)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merge_additive_adds_up_what_each_has_seen_once_while_both_write() {
    move_while_both_write(Merge::Additive, (Engine::Sqlite, Engine::Postgres)).await;
}

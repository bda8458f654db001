//! Journals of earlier versions replay for ever: the records as they were written, and what they came to.
//!
//! Each file in `journals/` holds the rows of one run as version 1 of the SQLite tables has them, and beside it what
//! `piton show --json` said of it when it was written. Never change these files; add new ones.

use std::path::Path;

use serde_json::Value as Json;
use sqlx::{Connection, SqliteConnection};

use super::cli::Desk;

const TABLES: &str = include_str!("../../src/journal/migrations/sqlite/0001.sql");
const RUNS: [(&str, &str, &str); 4] = [
    ("g-first", include_str!("journals/g-first.jsonl"), include_str!("journals/g-first.show.json")),
    ("g-back", include_str!("journals/g-back.jsonl"), include_str!("journals/g-back.show.json")),
    ("g-crash", include_str!("journals/g-crash.jsonl"), include_str!("journals/g-crash.show.json")),
    // Work by hand, handed over and undone by hand; an approval; words that were refused.
    ("g-people", include_str!("journals/g-people.jsonl"), include_str!("journals/g-people.show.json")),
];

/// A store as version 1 wrote it, with these runs in it.
async fn store(desk: &Desk) {
    let path = desk.path(".piton/piton.db").display().to_string();
    let mut db = SqliteConnection::connect(&format!("sqlite://{path}?mode=rwc")).await.expect("opens");
    sqlx::raw_sql(TABLES).execute(&mut db).await.expect("makes the tables");
    sqlx::raw_sql("PRAGMA application_id = 1346982990; PRAGMA user_version = 1").execute(&mut db).await.expect("marks");
    for (run, rows, _) in RUNS {
        let rows: Vec<Json> = rows.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
        for row in &rows {
            sqlx::query("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
                .bind(run)
                .bind(row["seq"].as_i64())
                .bind(row["at_ms"].as_i64())
                .bind(row["generation"].as_i64())
                .bind(row["kind"].as_str())
                .bind(row["payload"].as_str())
                .bind(row["prev_hash"].as_str())
                .bind(row["hash"].as_str())
                .execute(&mut db)
                .await
                .expect("inserts");
        }
        let started: Json = serde_json::from_str(rows[0]["payload"].as_str().expect("text")).expect("an event");
        let ended: Json =
            serde_json::from_str(rows[rows.len() - 1]["payload"].as_str().expect("text")).expect("an event");
        sqlx::query("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(run)
            .bind(started["runbook"].as_str())
            .bind(started["version"].as_str())
            .bind(started["site"].as_str())
            .bind(started["by"].as_str().or(started["by"]["name"].as_str()))
            .bind(rows[0]["at_ms"].as_i64())
            .bind(rows[rows.len() - 1]["at_ms"].as_i64())
            .bind(ended["outcome"].as_str())
            .execute(&mut db)
            .await
            .expect("inserts");
    }
    db.close().await.expect("closes");
}

/// Whether everything that `then` says, `now` says as well; `now` may say more.
fn says(now: &Json, then: &Json, place: &str) {
    match (now, then) {
        (Json::Object(now), Json::Object(then)) => {
            for (key, then) in then {
                says(now.get(key).unwrap_or(&Json::Null), then, &format!("{place}/{key}"));
            }
        }
        (Json::Array(now), Json::Array(then)) => {
            assert_eq!(now.len(), then.len(), "{place}");
            now.iter().zip(then).enumerate().for_each(|(n, (now, then))| says(now, then, &format!("{place}/{n}")));
        }
        _ => assert_eq!(now, then, "{place}"),
    }
}

#[tokio::test]
async fn a_journal_of_version_1_replays_to_what_it_came_to() {
    let desk = Desk::new();
    store(&desk).await;
    for (run, rows, show) in RUNS {
        let verified = desk.piton(&["audit", "verify", run, "--json"]).exits(0).json();
        assert_eq!(verified["records"].as_u64(), Some(rows.lines().count() as u64));
        let now = desk.piton(&["show", run, "--json"]).exits(0).json();
        says(&now, &serde_json::from_str(show).expect("JSON"), run);
        desk.piton(&["audit", run]).exits(0);
        desk.piton(&["graph", "--run", run, "--format", "dot"]).exits(0);
    }
    let runs = desk.piton(&["runs", "--json"]).exits(0).json();
    assert_eq!(runs.as_array().map(Vec::len), Some(RUNS.len()));
}

/// Where the runbooks of these runs lay, so that the command of an undo starts there.
const FOLDER: &str = "/srv/runbooks";

#[tokio::test]
async fn a_finished_run_of_version_1_can_be_turned_back() {
    let desk = Desk::new();
    store(&desk).await;
    let plan = desk.piton(&["rollback", "g-first", "--plan", "--json"]).exits(0).json();
    assert_eq!(plan["undo"][0]["step"], "begin");
    let back = desk.piton(&["rollback", "g-first", "--reason", "not wanted", "--yes"]);
    if Path::new(FOLDER).is_dir() {
        back.exits(0);
    } else {
        let back = back.exits(5).out;
        assert!(back.contains("cannot start `true`: its folder `/srv/runbooks` does not exist; create it"), "{back}");
        desk.piton(&["decide", "g-first", "begin", "--undone", "--reason", "by hand"]).exits(0);
        desk.piton(&["resume", "g-first"]).exits(4);
    }
    let show = desk.piton(&["show", "g-first", "--json"]).exits(0).json();
    assert_eq!(show["outcome"], "rolled_back");
    desk.piton(&["rollback", "g-crash", "--reason", "not wanted", "--yes"]).exits(2);
}

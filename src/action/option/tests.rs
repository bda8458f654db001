//! The option actions over both kinds of stores: the same story has to hold for each.

use std::fs;

use super::super::testing::Place;
use super::*;
use crate::event::Effect;
use crate::transfer::{ConnectOptions, Database};

const INI: &str = "; kept\n[WFM/Options]\nOther = 1\n";

fn ini() -> Place {
    let place = Place::at(|_| "options: { o: { ini: { path: app.ini } } }\n".into());
    fs::write(place.path("app.ini"), INI).expect("written");
    place
}

async fn sqlite() -> Place {
    let place = Place::at(|_| {
        "databases: { d: { url: 'sqlite:opt.db' } }\noptions: { o: { sql: { database: d, table: option_value, history: option_history } } }\n".into()
    });
    let url = format!("sqlite://{}", place.path("opt.db").display());
    let made = Database::connect(&url, ConnectOptions { create: true, ..Default::default() }).await.expect("created");
    let Database::Sqlite(pool) = &made else { panic!("SQLite was asked for") };
    sqlx::raw_sql(
        "CREATE TABLE option_value (object TEXT NOT NULL, section TEXT NOT NULL, name TEXT NOT NULL, value TEXT,
             PRIMARY KEY (object, section, name));
         CREATE TABLE option_history (at TEXT, who TEXT, object TEXT, section TEXT, name TEXT, old_value TEXT, new_value TEXT);
         INSERT INTO option_value VALUES ('WFM', 'Options', 'Other', '1');",
    )
    .execute(pool)
    .await
    .expect("tables");
    made.close().await;
    place
}

fn set(name: &str, value: &str) -> OptionSet {
    OptionSet {
        store: "o".into(),
        object: "WFM".into(),
        section: "Options".into(),
        name: name.into(),
        value: value.into(),
    }
}

fn unset(name: &str) -> OptionUnset {
    OptionUnset { store: "o".into(), object: "WFM".into(), section: "Options".into(), name: name.into() }
}

async fn value(cx: &Context, name: &str) -> Option<String> {
    set(name, "").change().get(cx).await.expect("readable")
}

async fn run(action: &dyn Action, cx: &Context) -> Result<Value, Failure> {
    let before = action.before(cx).await?;
    action.run(cx, &before).await.map(|_| before)
}

/// What must hold for every store.
async fn the_story(place: &Place) {
    let cx = &place.cx;
    let allow = set("Allow", "0");
    let before = allow.before(cx).await.expect("looks");
    assert_eq!(before, json!({ "value": null }));
    assert_eq!(allow.probe(cx, &before).await, Finding::NotDone);
    assert_eq!(allow.preview(cx).await, Preview::WillChange("WFM / Options / Allow: absent becomes `0`".into()));
    let outputs = allow.run(cx, &before).await.expect("set");
    assert_eq!((&outputs["old"], &outputs["new"]), (&Value::Null, &json!("0")));
    assert!(matches!(allow.probe(cx, &before).await, Finding::Done(_)));
    assert!(matches!(allow.preview(cx).await, Preview::NoChange(_)));
    allow.run(cx, &before).await.expect("safe to repeat");

    // An undo of a created option removes it again, and may be repeated.
    allow.undo(cx, &before).await.expect("undone");
    allow.undo(cx, &before).await.expect("safe to repeat");
    assert_eq!(value(cx, "Allow").await, None);

    // Empty is a value.
    let emptied = run(&set("Other", ""), cx).await.expect("set");
    assert_eq!(value(cx, "Other").await.as_deref(), Some(""));
    set("Other", "").undo(cx, &emptied).await.expect("undone");
    let removed = run(&unset("Other"), cx).await.expect("removed");
    assert_eq!(value(cx, "Other").await, None);

    // A foreign change is neither overwritten by a step that looked before it nor by an undo.
    run(&set("Other", "theirs"), cx).await.expect("set");
    let failure = set("Other", "ours").run(cx, &removed).await.expect_err("lost update");
    assert_eq!((failure.effect, failure.retryable), (Effect::None, false), "{failure}");
    assert!(failure.error.contains("`theirs` now"), "{failure}");
    let failure = unset("Other").undo(cx, &removed).await.expect_err("not ours");
    assert!(failure.error.contains("left alone"), "{failure}");
    assert_eq!(unset("Other").probe(cx, &removed).await, Finding::Unknown);
    assert_eq!(value(cx, "Other").await.as_deref(), Some("theirs"));
}

#[tokio::test]
async fn an_ini_file_keeps_the_story() {
    let place = ini();
    the_story(&place).await;
    run(&set("Other", "1"), &place.cx).await.expect("set");
    assert_eq!(fs::read_to_string(place.path("app.ini")).expect("there"), INI, "every other byte is as before");
}

#[tokio::test]
async fn an_sql_table_keeps_the_story_and_a_history() {
    let place = sqlite().await;
    the_story(&place).await;
    let Database::Sqlite(pool) = place.cx.databases.get("d").await.expect("open") else { panic!("SQLite") };
    let rows: Vec<(String, String, Option<String>, Option<String>)> =
        sqlx::query_as("SELECT who, name, old_value, new_value FROM option_history ORDER BY rowid")
            .fetch_all(&pool)
            .await
            .expect("a history");
    let text: Vec<String> = rows.iter().map(|(who, name, old, new)| format!("{who} {name} {old:?} {new:?}")).collect();
    assert_eq!(text[0], r#"local:eve@host Allow None Some("0")"#);
    assert_eq!(text[1], r#"local:eve@host Allow Some("0") None"#);
    assert_eq!(text.len(), 6, "{text:?}");
    let failure = unset("Other").undo(&place.cx, &json!({ "value": "1" })).await.expect_err("not ours");
    assert!(failure.error.contains("last changed by local:eve@host"), "{failure}");
}

#[tokio::test]
async fn a_check_compares_and_tells_absent_from_empty() {
    let place = ini();
    let check = |name: &str, value: Option<&str>| OptionCheck {
        store: "o".into(),
        object: "WFM".into(),
        section: "Options".into(),
        name: name.into(),
        value: value.map(Into::into),
        absent: value.is_none(),
    };
    run(&check("Other", Some("1")), &place.cx).await.expect("holds");
    run(&check("Missing", None), &place.cx).await.expect("holds");
    let failure = run(&check("Missing", Some("")), &place.cx).await.expect_err("absent is not empty");
    assert_eq!(failure.error, "option WFM / Options / Missing of store `o` is absent, not ``");
}

#[tokio::test]
async fn a_missing_file_is_no_empty_store() {
    let place = ini();
    fs::remove_file(place.path("app.ini")).expect("removed");
    let failure = run(&set("Allow", "0"), &place.cx).await.expect_err("no file");
    assert_eq!(failure.effect, Effect::None);
}

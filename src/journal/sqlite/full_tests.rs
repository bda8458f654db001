//! A file that had no room, and has room again, for the same process.

use super::*;
use crate::journal::Append;

#[tokio::test]
async fn a_transaction_that_sqlite_gave_up_by_itself_is_not_the_last_one() {
    let place = tempfile::tempdir().expect("a temp dir");
    let sqlite = Sqlite::open(&place.path().join("piton.db")).await.expect("opens");
    let (run, at) = (RunId::new("r"), Timestamp::UNIX_EPOCH);
    sqlite.create(&run, at, &crate::journal::tests::started("local"), &[]).await.expect("is new");
    {
        let mut writer = sqlite.writer().await.expect("is there");
        let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.expect("begins");
        // What SQLite does when a page cannot be written.
        sqlx::raw_sql("ROLLBACK").execute(&mut *tx).await.expect("is over");
    }
    let events = [Event::CancelRequested { by: "ann".into(), reason: None }];
    let append = Append { run: &run, expected_seq: 1, generation: None, at, events: &events, texts: &[] };
    let locks = LockChange { free_all: true, ..LockChange::default() };
    let records = sqlite.append(append, &locks).await.expect("the next transaction is one");
    assert_eq!(records.len(), 1);
}

#[tokio::test]
async fn a_run_that_goes_on_appending_finds_room_in_the_log() {
    let place = tempfile::tempdir().expect("a temp dir");
    let path = place.path().join("piton.db");
    let sqlite = Sqlite::open(&path).await.expect("opens");
    let (run, at) = (RunId::new("r"), Timestamp::UNIX_EPOCH);
    sqlite.create(&run, at, &crate::journal::tests::started("local"), &[]).await.expect("is new");
    let length = || std::fs::metadata(place.path().join("piton.db-wal")).expect("is there").len();
    let mut grown = 0;
    for expected_seq in 1..=300 {
        let before = length();
        let events = [Event::CancelRequested { by: "ann".into(), reason: Some("x".repeat(2000)) }];
        let append = Append { run: &run, expected_seq, generation: None, at, events: &events, texts: &[] };
        sqlite.append(append, &LockChange::default()).await.expect("is recorded");
        grown += u32::from(length() > before);
    }
    assert!((9..60).contains(&grown), "{grown} of 300 appends made the file longer");
    let again = Sqlite::open(&path).await.expect("opens");
    assert_eq!(again.rows(&run, 1).await.expect("reads").len(), 301);
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM transcripts").fetch_one(&again.readers).await.expect("reads");
    assert_eq!(kept, 0, "what made room is not kept");
}

//! What only a file can do wrong: damage, lost ends, somebody else's files.

use super::tests::{at, owner, say, skipped, started};
use super::*;

/// Writes behind the journal's back.
async fn tamper(path: &Path, sql: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut conn = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.expect("opens");
    sqlx::raw_sql(sql).execute(&mut conn).await.expect("runs");
}

#[tokio::test]
async fn a_changed_record_is_found_by_its_place() {
    for (sql, place) in [
        ("UPDATE events SET payload = replace(payload, '\"b\"', '\"q\"') WHERE id = (1 << 32) + 3", 3),
        ("UPDATE events SET at_ms = at_ms + 1 WHERE id = (1 << 32) + 2", 2),
        ("UPDATE events SET kind = 'run_resumed' WHERE id = (1 << 32) + 2", 2),
        ("UPDATE events SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE id = (1 << 32) + 3", 3),
        ("DELETE FROM events WHERE id = (1 << 32) + 3", 3),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("j.db");
        let journal = Journal::open(path.to_str().expect("plain")).await.expect("opens");
        let run = RunId::new("r");
        journal.create(&run, at(1), &started("north"), &[]).await.expect("creates");
        let events = [skipped("a"), skipped("b"), skipped("c")];
        journal.append(say(&run, 1, &events), &LockChange::default()).await.expect("appends");
        tamper(&path, sql).await;
        let proof = journal.prove(&run, Trust::default()).await.expect("reads");
        assert_eq!(proof.wrong.first().and_then(|wrong| wrong.seq), Some(place), "{sql}: {proof:?}");
        if sql.starts_with("DELETE") {
            let error = journal.read(&run, 1).await.expect_err("a gap");
            assert!(matches!(error, JournalError::Broken { seq: 3, .. }), "{error}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_no_journal_is_named_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = async |path: &Path| Journal::open(path.to_str().expect("plain")).await;

    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database at all, just some notes\n".repeat(200)).expect("writes");
    let error = open(&text).await.expect_err("refused");
    assert!(matches!(error, JournalError::NotAJournal { .. }) && error.to_string().contains("notes.txt"), "{error}");
    assert!(std::fs::read_to_string(&text).expect("reads").starts_with("not a database"));

    let other = folder.path().join("other.db");
    std::fs::write(&other, "").expect("writes");
    tamper(&other, "CREATE TABLE things (a)").await;
    let error = open(&other).await.expect_err("refused");
    assert!(matches!(error, JournalError::NotAJournal { .. }), "{error}");

    let newer = folder.path().join("newer.db");
    drop(open(&newer).await.expect("makes it"));
    tamper(&newer, "PRAGMA user_version = 99").await;
    let error = open(&newer).await.expect_err("refused");
    assert!(matches!(error, JournalError::Newer { found: 99, known: 7, .. }), "{error}");

    let folder_as_file = open(folder.path()).await.expect_err("refused");
    assert!(matches!(folder_as_file, JournalError::Store { .. }), "{folder_as_file}");
    let below_a_file = open(&text.join("x/j.db")).await.expect_err("refused");
    assert!(matches!(below_a_file, JournalError::Make { .. }), "{below_a_file}");
}

#[tokio::test]
async fn a_torn_file_is_named_not_trusted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("torn.db");
    let place = path.to_str().expect("plain");
    let journal = Journal::open(place).await.expect("opens");
    let run = RunId::new("r");
    journal.create(&run, at(1), &started("north"), &[]).await.expect("creates");
    let events: Vec<Event> = (0..400).map(|number| skipped(&format!("step-{number}"))).collect();
    journal.append(say(&run, 1, &events), &LockChange::default()).await.expect("appends");
    tamper(&path, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    drop(journal);
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opens");
    let size = file.metadata().expect("has a size").len();
    file.set_len(size / 2).expect("cuts");
    let read = match Journal::open(place).await {
        Ok(journal) => journal.read(&run, 1).await.map(|_| ()),
        Err(error) => Err(error),
    };
    let error = read.expect_err("half of it is missing");
    // Which of the two is seen first depends on whether the connection above, which closes by itself, still held the log.
    let is_named = matches!(error, JournalError::Corrupt { .. } | JournalError::CutOff { .. });
    assert!(is_named && error.to_string().contains("torn.db"), "{error:?}");
}

/// A journal whose end is partly in the file and partly in its write-ahead log.
async fn written(folder: &Path) -> RunId {
    let path = folder.join("j.db");
    let journal = Journal::open(path.to_str().expect("plain")).await.expect("opens");
    let run = RunId::new("r");
    journal.create(&run, at(1), &started("north"), &[]).await.expect("creates");
    for place in 1..=40 {
        let events = [skipped(&format!("step-{place}"))];
        journal.append(say(&run, place, &events), &LockChange::default()).await.expect("appends");
        if place == 20 {
            tamper(&path, "PRAGMA wal_checkpoint(TRUNCATE)").await;
        }
    }
    // Copied while it is open, as a machine that dies leaves it: closing would tidy up.
    std::fs::create_dir(folder.join("cut")).expect("a folder");
    for name in ["j.db", "j.db-wal", "j.db-anchor"] {
        std::fs::copy(folder.join(name), folder.join("cut").join(name)).expect("copies");
    }
    run
}

/// Where the latest transaction in a log ends; behind it there is room. <https://www.sqlite.org/fileformat2.html#walformat> has the form.
fn committed(log: &[u8]) -> u64 {
    let (header, frames) = log.split_at(32);
    let is_last = |frame: &[u8]| frame[8..16] == header[16..24] && frame[4..8] != [0; 4];
    let before = frames.chunks_exact(4120).rposition(is_last).expect("a transaction");
    32 + (before as u64 + 1) * 4120
}

/// What is found of a journal of which `name` was cut to `len` bytes (`None`: removed).
async fn cut(folder: &Path, name: &str, len: Option<u64>, run: &RunId) -> Result<Proof, JournalError> {
    let here = tempfile::tempdir_in(folder).expect("a folder");
    for name in ["j.db", "j.db-wal", "j.db-anchor"] {
        std::fs::copy(folder.join("cut").join(name), here.path().join(name)).expect("copies");
    }
    match len {
        Some(len) => {
            let file = std::fs::OpenOptions::new().write(true).open(here.path().join(name)).expect("opens");
            file.set_len(len).expect("cuts");
        }
        None => std::fs::remove_file(here.path().join(name)).expect("removes"),
    }
    let journal = Journal::open(here.path().join("j.db").to_str().expect("plain")).await?;
    let proof = journal.prove(run, Trust::default()).await?;
    if proof.holds() {
        assert_eq!(journal.read(run, 1).await?.len(), 41);
    }
    Ok(proof)
}

#[tokio::test]
async fn a_journal_cut_at_any_byte_is_whole_or_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = written(folder.path()).await;
    let (mut whole, mut named) = (0, 0);
    let committed = committed(&std::fs::read(folder.path().join("cut/j.db-wal")).expect("is there"));
    for (name, stride) in [("j.db-wal", 127), ("j.db", 509)] {
        let size = std::fs::metadata(folder.path().join("cut").join(name)).expect("is there").len();
        let ends = [committed - 1, committed, size - 1, size].map(Some);
        for len in (0..size.min(2 * committed)).step_by(stride).map(Some).chain(ends).chain([None]) {
            match cut(folder.path(), name, len, &run).await {
                Ok(proof) if proof.holds() => {
                    assert_eq!(proof.records, 41, "`{name}` cut to {len:?} was accepted with facts lost");
                    assert!(len >= Some(committed) || name == "j.db", "`{name}` cut to {len:?} cannot be whole");
                    whole += 1;
                }
                Ok(proof) => {
                    let lost = proof.wrong.iter().any(|wrong| wrong.what.contains("lost"));
                    assert!(lost, "`{name}` cut to {len:?}: {proof:?}");
                    named += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains("j.db"), "`{name}` cut to {len:?}: {error}");
                    named += 1;
                }
            }
        }
    }
    assert!(whole >= 4 && named > 700, "{whole} whole, {named} named");
}

#[tokio::test]
async fn a_lost_end_is_accepted_once_its_anchor_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = written(folder.path()).await;
    let here = folder.path().join("cut");
    std::fs::remove_file(here.join("j.db-wal")).expect("removes");
    let place = here.join("j.db");
    let place = place.to_str().expect("plain");
    let error = Journal::open(place).await.expect_err("records are lost");
    let JournalError::CutOff { run: of, known_seq: 41, come: 21, .. } = &error else { panic!("{error}") };
    assert_eq!(*of, run);
    assert!(error.to_string().contains("j.db-anchor"), "{error}");
    std::fs::remove_file(here.join("j.db-anchor")).expect("removes");
    let journal = Journal::open(place).await.expect("a person accepted the loss");
    let proof = journal.prove(&run, Trust::default()).await.expect("reads");
    assert!(proof.holds() && proof.records == 21, "{proof:?}");
    // From here on the new end is the one that is kept.
    journal.append(say(&run, 21, &[skipped("new")]), &LockChange::default()).await.expect("appends");
    drop(journal);
    assert_eq!(Journal::open(place).await.expect("opens").head(&run).await.expect("head").seq, 22);
}

/// A driver does not wait for the note, so it is made when the driver waits for anything else.
#[tokio::test]
async fn what_a_driver_recorded_is_noted_once_it_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("j.db");
    let journal = Journal::open(path.to_str().expect("plain")).await.expect("opens");
    let run = RunId::new("r");
    journal.create(&run, at(1), &started("north"), &[]).await.expect("creates");
    let generation = journal.claim(&run, &owner(7), at(2), SignedDuration::from_secs(60)).await.expect("is free");
    let known = async || {
        tokio::task::yield_now().await;
        let copy = folder.path().join("copy.db");
        std::fs::copy(folder.path().join("j.db-anchor"), folder.path().join("copy.db-anchor")).expect("copies");
        match Journal::open(copy.to_str().expect("plain")).await {
            Err(JournalError::CutOff { known_seq, .. }) => known_seq,
            other => panic!("{other:?}"),
        }
    };
    for place in 1..=3 {
        let events = [skipped(&format!("step-{place}"))];
        let append = Append { generation: Some(generation), ..say(&run, place, &events) };
        journal.append(append, &LockChange::default()).await.expect("appends");
        assert_eq!(known().await, place + 1);
    }
}

#[tokio::test]
async fn an_emptied_or_removed_file_is_not_taken_for_a_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = written(folder.path()).await;
    for len in [Some(0), None] {
        let error = cut(folder.path(), "j.db", len, &run).await.expect_err("everything is lost");
        assert!(matches!(error, JournalError::CutOff { come: 0, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_file_is_its_owners_and_keeps_what_was_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a/b/j.db");
    let place = path.to_str().expect("plain");
    let run = RunId::new("r");
    let journal = Journal::open(place).await.expect("opens");
    journal.create(&run, at(1), &started("north"), &[]).await.expect("creates");
    let mode =
        |name: &str| std::fs::metadata(folder.path().join("a/b").join(name)).expect("is there").permissions().mode();
    assert_eq!(mode("j.db") & 0o777, 0o600);
    assert_eq!(mode("j.db-wal") & 0o777, 0o600);
    // A second process, as it were, while the first one still has it open.
    let other = Journal::open(place).await.expect("opens");
    other.append(say(&run, 1, &[skipped("a")]), &LockChange::default()).await.expect("appends");
    assert_eq!(journal.read(&run, 1).await.expect("reads").len(), 2);
}

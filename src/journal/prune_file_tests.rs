//! What pruning does to a file: not a byte of what went stays readable, its room can be given back, and a crash leaves runs that
//! are whole and runs that are pruned.

use super::prune_tests::{key, order, over, prune};
use super::tests::{at, skipped, started, stores};
use super::*;

const FILES: [&str; 4] = ["j.db", "j.db-wal", "j.db-shm", "j.db-anchor"];

/// How often the files of the store hold the bytes.
fn count(folder: &Path, text: &str) -> usize {
    let bytes = FILES.iter().flat_map(|name| std::fs::read(folder.join(name)).unwrap_or_default()).collect::<Vec<u8>>();
    aho_corasick::AhoCorasick::new([text]).expect("one text").find_iter(&bytes).count()
}

/// A text that is found wherever it lies, longer than a page.
fn marked(word: &str) -> TranscriptText {
    TranscriptText::new(format!("{word} ").repeat(2000).into_bytes())
}

/// A run whose records hold the word in its first record, in one that is longer than a page, and in what was said.
async fn speaking(journal: &Journal, word: &str) -> RunId {
    let run = over(journal, word, "north", &marked(&format!("said-{word}"))).await;
    let long = Event::StepSkipped {
        step: "long".into(),
        reason: crate::event::SkipReason::Person {
            by: Actor::new("ann"),
            reason: format!("because-{word} ").repeat(1000),
            deviation: false,
        },
    };
    let append = super::tests::say(&run, 5, std::slice::from_ref(&long));
    journal.append(append, &LockChange::default()).await.expect("appends");
    run
}

#[tokio::test]
async fn no_byte_of_what_was_pruned_stays_in_the_file() {
    for rewrite in [true, false] {
        let folder = tempfile::tempdir().expect("a folder");
        let here = folder.path();
        let key = key(here);
        let journal = Journal::open(here.join("j.db").to_str().expect("plain")).await.expect("opens");
        let journal = journal.with_seals(key.clone());
        let mut runs = Vec::new();
        for number in 0..24 {
            runs.push(speaking(&journal, &format!("word{number:02}x")).await);
        }
        // Between each other, as drivers at the same time record them, so that pages are split.
        for place in 6..20 {
            for run in &runs {
                let events = [skipped(&format!("step-of-{run}"))];
                let append = Append { at: at(200), ..super::tests::say(run, place, &events) };
                journal.append(append, &LockChange::default()).await.expect("appends");
            }
        }
        assert_eq!(journal.tidy(false).await.expect("works"), Tidied::Fragments);
        let size = || std::fs::metadata(here.join("j.db")).expect("is there").len();
        let before = size();
        for run in &runs {
            for part in ["said-", "because-", "step-of-"] {
                assert!(count(here, &format!("{part}{run}")) > 0, "{part}{run} is there before");
            }
        }
        for (number, run) in runs.iter().enumerate() {
            let what = [What::Run, What::Contents, What::Transcripts, What::Evidence][number % 4];
            prune(&journal, &key, vec![order(&journal, run, what).await]).await.expect("is pruned");
        }
        let tidied = journal.tidy(rewrite).await.expect("works");
        assert_eq!(tidied, if rewrite { Tidied::Gone } else { Tidied::Fragments });
        for (number, run) in runs.iter().enumerate() {
            let proof = journal.prove(run, Trust::default()).await.expect("reads");
            assert!(proof.holds(), "{proof:?}");
            let counts = ["said-", "because-", "step-of-"].map(|part| count(here, &format!("{part}{run}")));
            let goes = [[true; 3], [true; 3], [true, false, false], [false; 3]][number % 4];
            for ((count, goes), was) in counts.into_iter().zip(goes).zip([2000, 1000, 14]) {
                match (goes, rewrite) {
                    (true, true) => assert_eq!(count, 0, "{run}: {counts:?}"),
                    // What pages keep of former rows is less than one of them.
                    (true, false) => assert!(count < was / 2, "{run}: {counts:?}"),
                    // One that lies across two pages is not counted.
                    (false, _) => assert!(count > was * 9 / 10, "{run}: {counts:?}"),
                }
            }
        }
        // Names of people in a form are gone with the contents, and stay with the texts.
        assert!(count(here, "Erika Mustermann") >= 12);
        assert!(if rewrite { size() < before * 3 / 4 } else { size() == before }, "{} of {before}", size());
        for run in &runs {
            prune(&journal, &key, vec![order(&journal, run, What::Run).await]).await.expect("is pruned");
        }
        assert_eq!(journal.tidy(true).await.expect("works"), Tidied::Gone);
        assert_eq!(["said-", "because-", "step-of-", "Mustermann"].map(|text| count(here, text)), [0; 4]);
    }
}

#[tokio::test]
async fn a_log_that_another_process_needs_is_told_and_emptied_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = key(folder.path());
    let path = folder.path().join("j.db");
    let journal = Journal::open(path.to_str().expect("plain")).await.expect("opens").with_seals(key.clone());
    let run = speaking(&journal, "word").await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut reader = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.expect("opens");
    sqlx::raw_sql("BEGIN; SELECT count(*) FROM events").execute(&mut reader).await.expect("reads");
    prune(&journal, &key, vec![order(&journal, &run, What::Run).await]).await.expect("is pruned");
    assert_eq!(journal.tidy(true).await.expect("works"), Tidied::Busy, "somebody still reads the pages as they were");
    assert!(count(folder.path(), "because-word") > 0);
    sqlx::raw_sql("COMMIT").execute(&mut reader).await.expect("ends");
    assert_eq!(journal.tidy(true).await.expect("works"), Tidied::Gone);
    assert_eq!(count(folder.path(), "because-word") + count(folder.path(), "said-word"), 0);
}

#[tokio::test]
async fn the_log_is_emptied_also_where_the_file_is_too_large_to_be_rewritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = key(folder.path());
    let path = folder.path().join("j.db");
    let journal = Journal::open(path.to_str().expect("plain")).await.expect("opens").with_seals(key.clone());
    let run = speaking(&journal, "word").await;
    prune(&journal, &key, vec![order(&journal, &run, What::Run).await]).await.expect("is pruned");
    let log = || std::fs::metadata(folder.path().join("j.db-wal")).map_or(0, |meta| meta.len());
    assert!(log() > 0, "it holds pages as they were");
    let file = std::fs::File::options().write(true).open(&path).expect("opens");
    file.set_len(257 * 1024 * 1024).expect("grows");
    let Journal::Sqlite(store) = &journal else { panic!("it is a file") };
    assert_eq!(store.tidy(true, true).await.expect("works"), Tidied::Driven);
    assert_eq!(log(), 0);
}

#[tokio::test]
async fn a_store_that_fails_keeps_no_lease_and_nothing_asks_nothing_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = key(folder.path());
    let path = folder.path().join("j.db");
    let journal = Journal::open(path.to_str().expect("plain")).await.expect("opens").with_seals(key.clone());
    let (a, b) = (speaking(&journal, "a").await, speaking(&journal, "b").await);
    let family = vec![order(&journal, &a, What::Run).await, order(&journal, &b, What::Run).await];
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut other = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.expect("opens");
    let text = "CREATE TRIGGER fails BEFORE UPDATE ON leases WHEN NEW.run = 'b' BEGIN SELECT RAISE(FAIL, 'no'); END;
        UPDATE events SET payload = '{\"said\":[' WHERE id = (SELECT number FROM runs WHERE run = 'b') * 4294967296 + 2";
    sqlx::raw_sql(text).execute(&mut other).await.expect("works");
    let pruner = super::prune_tests::pruner(&key);
    journal.prune(std::slice::from_ref(&family), &pruner).await.expect_err("a record cannot be read");
    assert_eq!(journal.prune(&[], &pruner).await.expect("nobody needs it"), []);
    let evidence = family.into_iter().map(|order| Order { what: What::Evidence, ..order }).collect::<Vec<_>>();
    let mut named = prune::Named::default();
    journal.prune_family(&evidence, &pruner, &mut named).await.expect_err("the lease of b cannot be taken");
    let mut far = super::tests::owner(7);
    far.host = "there".into();
    let ttl = SignedDuration::from_secs(10);
    journal.claim(&a, &far, crate::config::now(), ttl).await.expect("a is free again");
}

#[tokio::test]
async fn a_pruning_cut_at_any_byte_leaves_whole_states() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = key(folder.path());
    let path = folder.path().join("j.db");
    let journal = Journal::open(path.to_str().expect("plain")).await.expect("opens").with_seals(key.clone());
    let mut families = Vec::new();
    for number in 0..4 {
        let (parent, child) = (format!("r{number}"), format!("r{number}.copy"));
        let mut family = Vec::new();
        for run in [parent, child] {
            let run = speaking(&journal, &run).await;
            family.push(order(&journal, &run, if number % 2 == 0 { What::Run } else { What::Contents }).await);
        }
        families.push(family);
    }
    assert_eq!(journal.tidy(true).await.expect("works"), Tidied::Gone);
    for family in &families {
        prune(&journal, &key, family.clone()).await.expect("is pruned");
    }
    // Copied while it is open, as a machine that dies leaves it.
    let dead = folder.path().join("dead");
    std::fs::create_dir(&dead).expect("a folder");
    for name in ["j.db", "j.db-wal", "j.db-anchor"] {
        std::fs::copy(folder.path().join(name), dead.join(name)).expect("copies");
    }
    let size = std::fs::metadata(dead.join("j.db-wal")).expect("is there").len();
    let mut seen = std::collections::BTreeSet::new();
    for len in (0..size).step_by(7001).chain([size - 1, size]) {
        let here = tempfile::tempdir().expect("a folder");
        for name in ["j.db", "j.db-wal", "j.db-anchor"] {
            std::fs::copy(dead.join(name), here.path().join(name)).expect("copies");
        }
        let wal = std::fs::OpenOptions::new().write(true).open(here.path().join("j.db-wal")).expect("opens");
        wal.set_len(len).expect("cuts");
        let journal = Journal::open(here.path().join("j.db").to_str().expect("plain")).await.expect("opens");
        let stones = journal.prove_tombstones(&[key.public().to_owned()], &[]).await.expect("reads");
        assert!(stones.wrong.is_empty(), "cut to {len}: {stones:?}");
        let mut graves = 0;
        for family in &families {
            let mut both = Vec::new();
            for order in family {
                let proof = journal.prove(&order.run, Trust::default()).await.expect("reads");
                assert!(proof.holds(), "cut to {len}: {proof:?}");
                assert_eq!(proof.is_grave(), journal.read(&order.run, 1).await.is_err());
                both.push(proof.is_grave());
            }
            assert_eq!(both[0], both[1], "a family goes as a whole");
            graves += u64::from(both[0]);
        }
        assert_eq!(stones.tombstones, 2 * graves);
        seen.insert(graves);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4], "one after the other");
}

#[tokio::test]
async fn a_file_of_the_version_before_can_be_pruned() {
    let (folder, stores) = stores().await;
    let [_, file, _] = stores;
    let key = key(folder.path());
    let journal = file.with_seals(key.clone());
    let run = RunId::new("old");
    journal.create(&run, at(1), &started("north"), &[]).await.expect("creates");
    // As an earlier version left it: nothing sealed, and no line says how it ended.
    let why = prune(&journal, &key, vec![order(&journal, &run, What::Run).await]).await;
    let text = why.expect("whoever chose it is right")[0].read().expect("reads");
    assert_eq!((text.seals, text.summary.outcome), (0, None));
    assert!(journal.prove(&run, Trust::default()).await.expect("reads").holds());
}

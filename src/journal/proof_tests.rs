//! What every store must do with seals, and what a bundle proves without a store.

use super::bundle::{BundleError, judge as judge_bundle};
use super::proof::Trust;
use super::tests::{at, finished, owner, say, skipped, started, stores};
use super::transcript_tests::{bytes, ended, said};
use super::*;

fn key(folder: &Path) -> SealKey {
    SealKey::open(&folder.join("keys/seal")).expect("is made")
}

/// A run with a thousand records and more, which ended.
async fn sealed_run(journal: &Journal) -> (RunId, u64) {
    let run = RunId::new("20261122-aaaaaa");
    let mut first = started("north");
    if let Event::RunStarted { sealed_by, .. } = &mut first {
        *sealed_by = journal.sealed_by();
    }
    journal.create(&run, at(1), &first, &[]).await.expect("creates");
    let generation = journal.claim(&run, &owner(1), at(1), SignedDuration::from_hours(1)).await.expect("is free");
    let mut seq = 1;
    for _ in 0..41 {
        let events: Vec<Event> = (0..25).map(|number| skipped(&format!("s{number}"))).collect();
        let append = Append { generation: Some(generation), ..say(&run, seq, &events) };
        seq += journal.append(append, &LockChange::default()).await.expect("appends").len() as u64;
    }
    let text = bytes();
    let events = [ended("a", vec![said(&text)]), finished(Outcome::Succeeded)];
    let texts = std::slice::from_ref(&text);
    let append = Append { generation: Some(generation), texts, ..say(&run, seq, &events) };
    seq += journal.append(append, &LockChange::default()).await.expect("appends").len() as u64;
    (run, seq)
}

#[tokio::test]
async fn a_driver_seals_every_outcome_and_every_thousandth_record() {
    let (folder, stores) = stores().await;
    let key = key(folder.path());
    for journal in stores {
        let journal = journal.with_seals(key.clone());
        let (run, last) = sealed_run(&journal).await;
        let seals = journal.evidence(&run).await.expect("reads").seals;
        assert_eq!(seals.iter().map(|seal| seal.seq).collect::<Vec<_>>(), [1001, last]);
        assert!(seals.iter().all(|seal| seal.is_good(&run) && seal.key == key.public()));
        let keys = [key.public().to_owned()];
        let proof = journal.prove(&run, Trust { keys: &keys, anchors: &[] }).await.expect("reads");
        assert!(proof.holds(), "{proof:?}");
        assert_eq!((proof.records, proof.sealed), (last, last));
        // A person's word is sealed with what the driver says next.
        let word = [skipped("later")];
        journal.append(say(&run, last, &word), &LockChange::default()).await.expect("appends");
        let proof = journal.prove(&run, Trust { keys: &keys, anchors: &[] }).await.expect("reads");
        assert_eq!((proof.holds(), proof.records, proof.sealed), (true, last + 1, last));
        let unknown = journal.prove(&"x".into(), Trust::default()).await.expect_err("no such run");
        assert!(matches!(unknown, JournalError::UnknownRun(_)));
    }
}

async fn small_run(journal: &Journal) -> RunId {
    let run = RunId::new("r");
    let mut first = started("north");
    if let Event::RunStarted { sealed_by, .. } = &mut first {
        *sealed_by = journal.sealed_by();
    }
    journal.create(&run, at(1), &first, &[]).await.expect("creates");
    let generation = journal.claim(&run, &owner(1), at(1), SignedDuration::from_hours(1)).await.expect("is free");
    let text = bytes();
    let events = [ended("a", vec![said(&text)]), finished(Outcome::Succeeded)];
    let texts = std::slice::from_ref(&text);
    let append = Append { generation: Some(generation), texts, ..say(&run, 1, &events) };
    journal.append(append, &LockChange::default()).await.expect("appends");
    run
}

#[tokio::test]
async fn no_byte_of_a_bundle_can_be_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = key(folder.path());
    let journal = Journal::memory().with_seals(key.clone());
    let run = small_run(&journal).await;
    let whole = journal.export(&run, Some(&key), at(9)).await.expect("is written").0.into_bytes();
    let keys = [key.public().to_owned()];
    let trust = Trust { keys: &keys, anchors: &[] };
    let proof = judge_bundle(&whole, trust, false).expect("is a bundle");
    assert!(proof.holds(), "{proof:?}");
    assert_eq!((proof.run, proof.records, proof.sealed), (run, 3, 3));
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        let judged = judge_bundle(&changed, trust, false);
        let around =
            String::from_utf8_lossy(&changed[place.saturating_sub(20)..(place + 20).min(changed.len())]).into_owned();
        assert!(judged.is_err() || judged.is_ok_and(|proof| !proof.holds()), "byte {place}: {around}");
        let mut missing = whole.clone();
        missing.remove(place);
        let judged = judge_bundle(&missing, trust, false);
        assert!(judged.is_err() || judged.is_ok_and(|proof| !proof.holds()), "without byte {place}: {around}");
        let cut = judge_bundle(&whole[..place], trust, false);
        assert!(cut.is_err(), "cut at {place}");
    }
}

#[tokio::test]
async fn a_bundle_names_the_record_that_was_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = key(folder.path());
    let journal = Journal::memory().with_seals(key.clone());
    let run = small_run(&journal).await;
    let (whole, _) = journal.export(&run, Some(&key), at(9)).await.expect("is written");
    let judge = |text: &str| judge_bundle(text.as_bytes(), Trust::default(), false);
    let wrong = |text: &str| judge(text).expect("is a bundle").wrong.remove(0);
    assert_eq!(wrong(&whole.replacen("north", "south", 1)).seq, Some(1));
    assert_eq!(wrong(&whole.replacen("db/moved", "db/stays", 1)).seq, Some(3));
    let said = wrong(&whole.replacen("\"bytes\":\"AP8", "\"bytes\":\"AP9", 1));
    assert_eq!((said.seq, said.what.contains("on standard output is not as it was kept")), (Some(2), true), "{said:?}");
    let exported = wrong(&whole.replacen("1970-01-01T00:00:09Z", "1970-01-01T00:00:08Z", 1));
    assert_eq!((exported.seq, exported.what.contains("its envelope")), (None, true), "{exported:?}");
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let without = |left_out: usize| {
        lines.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, line)| *line).collect::<String>()
    };
    assert_eq!(wrong(&without(2)).seq, Some(2));
    assert_eq!(wrong(&without(4)).seq, Some(3), "its seal is missing");
    assert!(matches!(judge(&without(lines.len() - 1)), Err(BundleError::NoEnvelope)));
    assert!(matches!(judge(&without(0)), Err(BundleError::Line { line: 1, .. })));
    assert!(matches!(
        judge(&whole.replacen("\"version\":1", "\"version\":3", 1)),
        Err(BundleError::Newer { found: 3 })
    ));
    let spaced = whole.replacen("{\"line\":\"record\",", "{\"line\":\"record\", ", 1);
    assert!(matches!(judge(&spaced), Err(BundleError::Line { line: 2, .. })));
    // Somebody else's key signs as well as any, but nobody trusts it.
    let other = SealKey::open(&folder.path().join("other")).expect("is made");
    let (theirs, _) = journal.export(&run, Some(&other), at(9)).await.expect("is written");
    assert!(judge(&theirs).expect("is a bundle").holds());
    let keys = [key.public().to_owned()];
    let proof = judge_bundle(theirs.as_bytes(), Trust { keys: &keys, anchors: &[] }, false).expect("is a bundle");
    assert!(proof.wrong.iter().any(|wrong| wrong.what.contains("not a key that you trust")), "{proof:?}");
    let (unsigned, _) = journal.export(&run, None, at(9)).await.expect("is written");
    assert!(matches!(judge(&unsigned), Err(BundleError::NoEnvelope)));
    assert!(judge_bundle(unsigned.as_bytes(), Trust::default(), true).expect("is a bundle").holds());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_under_way_proves_itself_at_every_moment() {
    let (folder, stores) = stores().await;
    let key = key(folder.path());
    for journal in stores {
        let journal = journal.with_seals(key.clone());
        let (writer, run) = (journal.clone(), small_run(&journal).await);
        let mut seq = journal.head(&run).await.expect("reads").seq;
        journal.release(&run, 1).await.expect("is given back");
        let of = run.clone();
        let recording = tokio::spawn(async move {
            let run = of;
            let generation =
                writer.claim(&run, &owner(2), at(1), SignedDuration::from_hours(1)).await.expect("is free");
            for number in 0..120 {
                let event = [if number % 2 == 0 { finished(Outcome::Waiting) } else { skipped("s") }];
                let append = Append { generation: Some(generation), at: at(200 + number), ..say(&run, seq, &event) };
                seq += writer.append(append, &LockChange::default()).await.expect("appends").len() as u64;
            }
        });
        let mut looks = 0;
        while looks == 0 || !recording.is_finished() {
            let proof = journal.prove(&run, Trust::default()).await.expect("reads");
            assert!(proof.holds(), "{proof:?}");
            let (bundle, _) = journal.export(&run, Some(&key), at(9)).await.expect("holds");
            let proof = judge_bundle(bundle.as_bytes(), Trust::default(), false).expect("is a bundle");
            assert!(proof.holds(), "{proof:?}");
            looks += 1;
        }
        recording.await.expect("no panic");
    }
}

#[tokio::test]
async fn one_seal_at_its_end_covers_an_append_of_thousands() {
    let (folder, stores) = stores().await;
    let key = key(folder.path());
    for journal in stores {
        let journal = journal.with_seals(key.clone());
        let run = small_run(&journal).await;
        let seq = journal.head(&run).await.expect("reads").seq;
        journal.release(&run, 1).await.expect("is given back");
        let generation = journal.claim(&run, &owner(2), at(1), SignedDuration::from_hours(1)).await.expect("is free");
        let events: Vec<Event> = (0..2500).map(|number| skipped(&format!("s{number}"))).collect();
        let append = Append { generation: Some(generation), at: at(200), ..say(&run, seq, &events) };
        journal.append(append, &LockChange::default()).await.expect("appends");
        let proof = journal.prove(&run, Trust::default()).await.expect("reads");
        assert!(proof.holds(), "{proof:?}");
        assert_eq!(proof.sealed, seq + 2500);
    }
}

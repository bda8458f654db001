//! What every store must do when runs are pruned: all of it or nothing, provably, and nothing that others still need.

use super::tests::{at, finished, owner, say, skipped, started, stores};
use super::transcript_tests::{bytes, ended, said};
use std::collections::BTreeSet;

use super::*;
use crate::event::Answer;

pub(super) fn key(folder: &Path) -> SealKey {
    SealKey::open(&folder.join("seal")).expect("is made")
}

pub(super) fn pruner(key: &SealKey) -> Pruner<'_> {
    let (by, reason) = (Actor::new("bob"), "the policy says so".to_owned());
    Pruner { by, reason, at: at(1000), key, owner: owner(99) }
}

/// A run of this many skipped steps that says `text`, hands in evidence and succeeds; its site is `site`.
pub(super) async fn over(journal: &Journal, run: &str, site: &str, text: &TranscriptText) -> RunId {
    let run = RunId::new(run);
    let mut first = started(site);
    if let Event::RunStarted { sealed_by, .. } = &mut first {
        *sealed_by = journal.sealed_by();
    }
    journal.create(&run, at(1), &first, &[]).await.expect("creates");
    let generation = journal.claim(&run, &owner(1), at(1), SignedDuration::from_hours(1)).await.expect("is free");
    let answer = Event::StepAnswered {
        step: "w".into(),
        by: Actor::new("ann"),
        answer: Answer::Completed {
            form: [("name".to_owned(), "Erika Mustermann".into())].into(),
            evidence: [("shot.png".to_owned(), "e0".repeat(32))].into(),
            comment: None,
        },
    };
    let events = [ended("a", vec![said(text)]), answer, skipped("b"), finished(Outcome::Succeeded)];
    let texts = std::slice::from_ref(text);
    let append = Append { generation: Some(generation), texts, ..say(&run, 1, &events) };
    journal.append(append, &LockChange::default()).await.expect("appends");
    journal.release(&run, generation).await.expect("is given back");
    run
}

pub(super) async fn order(journal: &Journal, run: &RunId, what: What) -> Order {
    let head = journal.anchored(run).await.expect("is there");
    let stands_on = Some(StandsOn { milestones: vec!["m".into()], locks: vec![], changed: true });
    let (run, rule) = (run.clone(), "--older-than 1d".to_owned());
    Order { run, what, kinds: vec![], rule, head: (head.seq, head.hash), signed: 0, stands_on }
}

pub(super) async fn prune(journal: &Journal, key: &SealKey, orders: Vec<Order>) -> Result<Vec<Tombstone>, String> {
    journal.prune(&[orders], &pruner(key)).await.expect("the store works").pop().expect("one family")
}

async fn proof(journal: &Journal, run: &RunId, key: &SealKey) -> Proof {
    let keys = [key.public().to_owned()];
    journal.prove(run, Trust { keys: &keys, anchors: &[] }).await.expect("reads")
}

#[tokio::test]
async fn of_a_pruned_run_its_summary_stays_and_proves_itself() {
    let (folder, all) = stores().await;
    let key = key(folder.path());
    for journal in all {
        let journal = journal.with_seals(key.clone());
        let run = over(&journal, "r", "north", &bytes()).await;
        let before = (
            journal.anchored(&run).await.expect("is there"),
            journal.milestones("north").await.expect("lists"),
            journal.runs(&RunFilter::default()).await.expect("lists"),
        );
        let stones = prune(&journal, &key, vec![order(&journal, &run, What::Run).await]).await.expect("is pruned");
        let text = stones[0].judged(&[key.public().to_owned()]).expect("holds");
        assert_eq!((text.number, text.what, text.records, text.texts, text.seals), (1, What::Run, 5, 1, 1));
        assert_eq!((text.by.as_str(), text.reason.as_str(), text.evidence.len()), ("bob", "the policy says so", 1));

        let proof = proof(&journal, &run, &key).await;
        assert!(proof.holds() && proof.is_grave(), "{proof:?}");
        assert_eq!((proof.records, proof.sealed, &proof.hash), (1, 5, &before.0.hash));
        let keys = [key.public().to_owned()];
        let all = journal.prove_tombstones(&keys, &[]).await.expect("reads");
        assert!(all.wrong.is_empty() && all.tombstones == 1, "{all:?}");

        let error = journal.read(&run, 1).await.expect_err("is gone");
        assert!(matches!(&error, JournalError::Pruned { pruned, .. } if pruned.by == Actor::new("bob")), "{error}");
        assert!(error.to_string().contains("was pruned by bob"), "{error}");
        assert!(journal.transcript(&said(&bytes())).await.is_err());
        assert_eq!(journal.anchored(&run).await.expect("is there"), before.0);
        assert_eq!(journal.milestones("north").await.expect("lists"), before.1, "they stand as before");
        let listed = journal.runs(&RunFilter::default()).await.expect("lists");
        assert_eq!(listed, [RunSummary { pruned: Some(1), ..before.2[0].clone() }]);

        let again = journal.create(&run, at(2), &started("north"), &[]).await;
        assert!(matches!(again, Err(AppendError::Exists { .. })), "{again:?}");
        let events = [skipped("late")];
        for generation in [None, Some(1), Some(2)] {
            let append = Append { generation, ..say(&run, 5, &events) };
            let late = journal.append(append, &LockChange::default()).await;
            assert!(matches!(late, Err(AppendError::Pruned { .. } | AppendError::Fenced { .. })), "{late:?}");
        }
        let (bundle, _) = journal.export(&run, Some(&key), at(9)).await.expect("is written");
        let judged = judge_bundle(bundle.as_bytes(), Trust { keys: &keys, anchors: &[before.0] }, false);
        assert!(judged.as_ref().is_ok_and(Proof::holds), "{judged:?}");
        assert!(!bundle.contains("Mustermann"));
    }
}

#[tokio::test]
async fn of_pruned_contents_every_hash_stays_and_the_chain_of_the_rest_holds() {
    let (folder, all) = stores().await;
    let key = key(folder.path());
    for journal in all {
        let journal = journal.with_seals(key.clone());
        let run = over(&journal, "r", "north", &bytes()).await;
        let records = journal.read(&run, 1).await.expect("reads");
        let some = Order { kinds: vec!["step_answered".into()], ..order(&journal, &run, What::Contents).await };
        let stones = prune(&journal, &key, vec![some]).await.expect("is pruned");
        assert_eq!(stones[0].read().expect("reads").kinds, Some(vec!["step_answered".to_owned()]));
        let left = journal.left(&run).await.expect("reads");
        let bare: Vec<u64> = left.iter().filter(|left| left.record.is_none()).map(|left| left.seq).collect();
        assert_eq!(bare, [3]);
        let hashes = |left: &[Left]| left.iter().map(|left| left.hash.clone()).collect::<Vec<_>>();
        assert_eq!(hashes(&left), records.iter().map(|record| record.hash.clone()).collect::<Vec<_>>());
        let held = proof(&journal, &run, &key).await;
        assert!(held.holds() && held.records == 5 && held.sealed == 5, "{held:?}");
        let anchors: Vec<Anchored> = records
            .iter()
            .map(|record| Anchored {
                run: run.clone(),
                seq: record.seq,
                hash: record.hash.clone(),
                at_ms: record.at.as_millisecond(),
            })
            .collect();
        let trust = Trust { keys: &[], anchors: &anchors };
        assert!(journal.prove(&run, trust).await.expect("reads").holds(), "every anchor can be compared");
        let (bundle, _) = journal.export(&run, Some(&key), at(9)).await.expect("is written");
        let judged = judge_bundle(bundle.as_bytes(), trust, false).expect("is a bundle");
        assert!(judged.holds(), "{judged:?}");
        assert!(!bundle.contains("Mustermann") && bundle.contains("db/moved"));

        // All of them, then all but the summary.
        prune(&journal, &key, vec![order(&journal, &run, What::Contents).await]).await.expect("is pruned");
        assert!(journal.left(&run).await.expect("reads").iter().all(|left| left.record.is_none()));
        assert!(proof(&journal, &run, &key).await.holds());
        // Kinds are nothing to whoever takes all.
        let all = Order { kinds: vec!["step_answered".into()], ..order(&journal, &run, What::Run).await };
        let stones = prune(&journal, &key, vec![all]).await.expect("is pruned");
        assert_eq!(stones[0].read().expect("reads").kinds, Some(vec![]));
        let left = journal.left(&run).await.expect("reads");
        assert_eq!(left.iter().map(|left| left.record.is_none()).collect::<Vec<_>>(), [true]);
        let proof = journal.prove(&run, trust).await.expect("reads");
        // The last is compared with its record; of the others nothing is left.
        assert!(proof.holds() && proof.uncompared == 4 && proof.pruned.len() == 3, "{proof:?}");
        assert_eq!(journal.milestones("north").await.expect("lists").len(), 1, "told by the tombstone");
        let runs = journal.runs(&RunFilter { open_only: true, ..RunFilter::default() }).await.expect("lists");
        assert_eq!(runs, []);
    }
}

#[tokio::test]
async fn a_text_goes_when_nobody_names_it_any_more() {
    let (folder, all) = stores().await;
    let key = key(folder.path());
    for journal in all {
        let journal = journal.with_seals(key.clone());
        let (shared, own) = (bytes(), TranscriptText::new(b"only one says so".to_vec()));
        let runs = [over(&journal, "a", "north", &shared).await, over(&journal, "b", "south", &shared).await];
        let alone = over(&journal, "c", "west", &own).await;
        let orders =
            vec![order(&journal, &runs[0], What::Transcripts).await, order(&journal, &alone, What::Transcripts).await];
        prune(&journal, &key, orders).await.expect("is pruned");
        assert!(journal.transcript(&said(&own)).await.is_err(), "nobody else said it");
        assert_eq!(journal.transcript(&said(&shared)).await.expect("b has it"), shared.bytes());
        for run in [&runs[0], &runs[1], &alone] {
            let proof = proof(&journal, run, &key).await;
            assert!(proof.holds() && !proof.is_grave(), "{proof:?}");
            assert_eq!(journal.read(run, 1).await.expect("reads").len(), 5, "every record is there");
        }
        // Evidence is another matter.
        prune(&journal, &key, vec![order(&journal, &alone, What::Evidence).await]).await.expect("is pruned");
        let there: BTreeSet<String> = ["e0".repeat(32), "ff".repeat(32)].into();
        assert_eq!(
            journal.evidence_gone(&there, &[]).await.expect("looks"),
            [].into(),
            "others handed in the same file"
        );
        prune(
            &journal,
            &key,
            vec![order(&journal, &runs[0], What::Evidence).await, order(&journal, &runs[1], What::Run).await],
        )
        .await
        .expect("is pruned");
        assert_eq!(journal.evidence_gone(&there, &[]).await.expect("looks"), ["e0".repeat(32)].into());
        assert!(journal.transcript(&said(&shared)).await.is_err(), "both that said it are pruned");
        let proof = journal.prove_tombstones(&[], &[]).await.expect("reads");
        assert!(proof.wrong.is_empty() && proof.tombstones == 5, "{proof:?}");
        // Each run is told by its own tombstones.
        let all = journal.tombstones().await.expect("reads");
        for (run, numbers) in [(&runs[0], [1, 4].as_slice()), (&alone, &[2, 3]), (&runs[1], &[5])] {
            let own: Vec<Tombstone> = all.iter().filter(|stone| stone.run == *run).cloned().collect();
            assert_eq!(own.iter().map(|stone| stone.number).collect::<Vec<_>>(), numbers);
            assert_eq!(journal.tombstones_of(run).await.expect("reads"), own);
            let told = journal.pruned(run).await.expect("reads");
            assert_eq!(told.iter().rev().map(|one| one.tombstone).collect::<Vec<_>>(), numbers, "the latest first");
            let grave = journal.grave(run).await.expect("reads").map(|grave| grave.number);
            assert_eq!(grave, (run == &runs[1]).then_some(5));
        }
        assert_eq!(journal.tombstones_of(&RunId::new("none")).await.expect("reads"), []);
    }
}

#[tokio::test]
async fn what_went_on_or_is_driven_or_holds_a_lock_stays() {
    let (folder, all) = stores().await;
    let key = key(folder.path());
    for journal in all {
        let journal = journal.with_seals(key.clone());
        let (run, other) = (over(&journal, "r", "north", &bytes()).await, over(&journal, "s", "north", &bytes()).await);
        let whole = async |run: &RunId| {
            assert_eq!(
                journal.read(run, 1).await.expect("reads").len() as u64,
                journal.head(run).await.expect("reads").seq
            );
            assert!(proof(&journal, run, &key).await.holds());
        };
        // A word between the proof and the pruning.
        let stale = vec![order(&journal, &run, What::Run).await, order(&journal, &other, What::Run).await];
        journal.append(say(&other, 5, &[skipped("late")]), &LockChange::default()).await.expect("appends");
        let why = prune(&journal, &key, stale).await.expect_err("went on");
        assert!(why.contains("run s went on"), "{why}");
        whole(&run).await;
        whole(&other).await;
        // A driver.
        let mut far = owner(7);
        far.host = "there".into();
        let ttl = SignedDuration::from_secs(100);
        let generation = journal.claim(&run, &far, crate::config::now(), ttl).await.expect("free");
        let why = prune(&journal, &key, vec![order(&journal, &run, What::Run).await]).await.expect_err("is driven");
        assert!(why.contains("process 7 on there drives this run"), "{why}");
        journal.release(&run, generation).await.expect("gives it back");
        // A lock.
        let take = LockChange { take: vec![LockName::new("north/db")], ..LockChange::default() };
        journal.append(say(&run, 5, &[skipped("late")]), &take).await.expect("appends");
        let why = prune(&journal, &key, vec![order(&journal, &run, What::Run).await]).await.expect_err("holds a lock");
        assert!(why.contains("north/db"), "{why}");
        whole(&run).await;
        assert_eq!(journal.tombstones().await.expect("reads"), []);
        let free = LockChange { free_all: true, ..LockChange::default() };
        journal.append(say(&run, 6, &[]), &free).await.expect("frees");
        // A driver that slept comes too late.
        prune(&journal, &key, vec![order(&journal, &run, What::Run).await]).await.expect("is pruned");
        let events = [skipped("late")];
        let append = Append { generation: Some(generation), ..say(&run, 6, &events) };
        journal.append(append, &LockChange::default()).await.expect_err("is pruned");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_somebody_says_meanwhile_stays() {
    let (folder, all) = stores().await;
    let key = key(folder.path());
    for journal in all {
        let journal = journal.with_seals(key.clone());
        let texts: Vec<TranscriptText> =
            (0..12).map(|number| TranscriptText::new(format!("said by many {number}").into_bytes())).collect();
        let mut families = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            let run = over(&journal, &format!("r{number}"), "north", text).await;
            families
                .push(vec![order(&journal, &run, if number % 2 == 0 { What::Run } else { What::Transcripts }).await]);
        }
        let run = RunId::new("live");
        journal.create(&run, at(1), &started("north"), &[]).await.expect("creates");
        let (writer, of, all) = (journal.clone(), run.clone(), texts.clone());
        let speaking = tokio::spawn(async move {
            for (seq, text) in (1..).zip(&all) {
                let events = [ended("a", vec![said(text)])];
                let append = Append { texts: std::slice::from_ref(text), ..say(&of, seq, &events) };
                writer.append(append, &LockChange::default()).await.expect("appends");
            }
        });
        for pruned in journal.prune(&families, &pruner(&key)).await.expect("the store works") {
            pruned.expect("nobody went on");
        }
        speaking.await.expect("no panic");
        for text in &texts {
            assert_eq!(journal.transcript(&said(text)).await.expect("the live run said it"), text.bytes());
        }
        let proof = journal.prove(&run, Trust::default()).await.expect("reads");
        assert!(proof.holds() && proof.records == 13, "{proof:?}");
    }
}

#[tokio::test]
async fn tombstones_that_were_forged_moved_or_taken_away_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (key, other) = (key(folder.path()), SealKey::open(&folder.path().join("other")).expect("is made"));
    let journal = Journal::memory().with_seals(key.clone());
    for run in ["a", "b", "c"] {
        let run = over(&journal, run, "north", &bytes()).await;
        prune(&journal, &key, vec![order(&journal, &run, What::Contents).await]).await.expect("is pruned");
    }
    let stones = journal.tombstones().await.expect("reads");
    let keys = [key.public().to_owned()];
    let wrong = |stones: &[Tombstone], noted: &[NotedTombstones]| {
        let proof = prune::judge_all(stones, &keys, noted);
        proof
            .wrong
            .iter()
            .map(|wrong| format!("{} {}", wrong.seq.unwrap_or(0), wrong.what))
            .collect::<Vec<_>>()
            .join("; ")
    };
    assert_eq!(wrong(&stones, &[]), "");
    let changed = |number: usize, change: fn(&mut Tombstone)| {
        let mut stones = stones.clone();
        change(&mut stones[number]);
        stones
    };
    assert!(
        wrong(&changed(1, |stone| stone.body = stone.body.replace("bob", "eve")), &[])
            .starts_with("2 its seal does not hold")
    );
    assert!(wrong(&changed(1, |stone| stone.run = "c".into()), &[]).contains("2 it is of run b: it was moved"));
    assert_eq!(wrong(&[stones[0].clone(), stones[2].clone()], &[]), "2 it is missing: it was taken away");
    assert_eq!(wrong(&stones[2..], &[]), "1 it is missing up to 2: it was taken away");
    let mut swapped = stones.clone();
    swapped.swap(0, 1);
    (swapped[0].number, swapped[1].number) = (1, 2);
    assert!(
        wrong(&swapped, &[]).starts_with("1 it is tombstone 2: it was moved; 2 it is tombstone 1"),
        "{}",
        wrong(&swapped, &[])
    );
    // Sealed anew by somebody else.
    let text = Inscription { reason: "because".into(), ..stones[1].read().expect("reads") };
    let forged = prune::make_stone(&text, Some(&stones[0]), &other);
    assert!(wrong(&[stones[0].clone(), forged.clone(), stones[2].clone()], &[]).contains("2 it is sealed by SHA256:"));
    let untrusted = prune::judge_all(&[stones[0].clone(), forged, stones[2].clone()], &[], &[]);
    assert_eq!(untrusted.wrong.len(), 1, "the next one does not stand behind it: {untrusted:?}");
    // What was noted elsewhere.
    let noted = NotedTombstones { tombstones: 3, hash: stones[2].hash() };
    assert_eq!(wrong(&stones, std::slice::from_ref(&noted)), "");
    assert!(wrong(&stones[..2], std::slice::from_ref(&noted)).starts_with("3 it is missing: it was noted elsewhere"));
    assert!(wrong(&[], &[noted]).starts_with("3 it is missing: it was noted elsewhere"));
}

#[tokio::test]
async fn a_way_back_is_closed_for_who_was_pruned() {
    let (folder, all) = stores().await;
    let key = key(folder.path());
    for journal in all {
        let journal = journal.with_seals(key.clone());
        // b took the milestone over from a; pruning b must not give it back to a.
        let (a, b) = (over(&journal, "a", "north", &bytes()).await, over(&journal, "b", "north", &bytes()).await);
        let before = journal.milestones("north").await.expect("lists");
        assert_eq!(before[0].1, b);
        prune(&journal, &key, vec![order(&journal, &a, What::Run).await, order(&journal, &b, What::Run).await])
            .await
            .expect("is pruned");
        assert_eq!(journal.milestones("north").await.expect("lists"), before);
        let graves = journal.graves().await.expect("reads");
        assert_eq!(graves[&b].stands_on.as_ref().map(|stands| stands.milestones.len()), Some(1));
    }
}

/// Waits until somebody waits for a lock in the database.
async fn until_somebody_waits(conn: &mut sqlx::PgConnection) {
    let text = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database()";
    while sqlx::query_scalar::<_, i64>(text).fetch_one(&mut *conn).await.expect("reads") == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_word_of_a_person_and_a_pruning_wait_for_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = key(folder.path());
    let url = super::tests::database();
    let journal = Journal::open(&url).await.expect("opens").with_seals(key.clone());
    let connect = async || <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.expect("connects");
    let (mut other, mut eye) = (connect().await, connect().await);
    for known in [true, false] {
        let run = over(&journal, &format!("r-{known}"), "north", &bytes()).await;
        // Somebody prunes it and is not done yet.
        let text = format!(
            "BEGIN; SELECT 1 FROM piton.runs WHERE run = '{run}' FOR UPDATE; UPDATE piton.runs SET pruned = 7 WHERE run = '{run}'"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut other).await.expect("works");
        let fresh = if known { journal.clone() } else { Journal::open(&url).await.expect("opens") };
        let of = run.clone();
        let word = tokio::spawn(async move {
            let events = [skipped("late")];
            fresh.append(say(&of, 5, &events), &LockChange::default()).await
        });
        until_somebody_waits(&mut eye).await;
        sqlx::raw_sql("COMMIT").execute(&mut other).await.expect("works");
        let late = word.await.expect("no panic");
        assert!(matches!(late, Err(AppendError::Pruned { .. })), "{late:?}");
    }
    // The other way round: a word that is not recorded yet is waited for, and the run went on.
    let run = over(&journal, "r-3", "north", &bytes()).await;
    let text = "BEGIN; SELECT 1 FROM piton.runs WHERE run = 'r-3' FOR KEY SHARE;
        INSERT INTO piton.events SELECT run, 6, at_ms, 0, kind, payload, hash FROM piton.events WHERE run = 'r-3' AND seq = 5";
    sqlx::raw_sql(text).execute(&mut other).await.expect("works");
    let (pruning, orders, seal) = (journal.clone(), vec![order(&journal, &run, What::Run).await], key.clone());
    let pruned = tokio::spawn(async move { prune(&pruning, &seal, orders).await });
    until_somebody_waits(&mut eye).await;
    sqlx::raw_sql("COMMIT").execute(&mut other).await.expect("works");
    let why = pruned.await.expect("no panic").expect_err("it went on");
    assert!(why.contains("went on meanwhile"), "{why}");
}

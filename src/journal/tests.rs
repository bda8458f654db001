//! What every store must do: each test runs on each store. What only a server or a file can do wrong stands behind it.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::*;
use crate::event::Answer;

#[expect(dead_code, reason = "servers that are killed are the business of the integration tests")]
#[path = "../../tests/it/support/postgres.rs"]
mod postgres;
#[path = "../../tests/it/support/server.rs"]
mod server;

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// One store of each kind; the folder lives as long as the file is needed.
pub(super) async fn stores() -> (tempfile::TempDir, [Journal; 3]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/er").join("j.db");
    let file = Journal::open(path.to_str().expect("plain")).await.expect("opens");
    let served = Journal::open(&database()).await.expect("opens");
    (folder, [Journal::open("memory:").await.expect("opens"), file, served])
}

/// The address of an empty database.
pub(super) fn database() -> String {
    postgres::PrivatePostgres::start().create_database(&format!("j{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Lets time pass for leases: by the caller's clock, or by the server's.
async fn pass(journal: &Journal, now: &mut Timestamp, seconds: i64) {
    *now += SignedDuration::from_secs(seconds);
    if let Journal::Postgres(store) = journal {
        store.pass(seconds).await;
    }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

pub(in crate::journal) fn started(site: &str) -> Event {
    Event::RunStarted {
        runbook: "move".into(),
        version: "1.0.0".into(),
        digest: "d".into(),
        site: site.into(),
        by: "local:ann@here".into(),
        params: [("z".to_owned(), json!(1)), ("a".to_owned(), json!({"y": 1, "b": null}))].into(),
        piton: "0.1.0".into(),
        source: json!({}),
        parent: None,
        sealed_by: None,
        signed: None,
    }
}

pub(super) fn skipped(step: &str) -> Event {
    Event::StepSkipped { step: step.into(), reason: crate::event::SkipReason::When }
}

pub(super) fn finished(outcome: Outcome) -> Event {
    let milestones = if outcome == Outcome::Succeeded { vec!["db/moved".into()] } else { vec![] };
    Event::RunFinished { outcome, milestones, revoked: vec![], note: None }
}

pub(super) fn owner(pid: i32) -> Owner {
    Owner { host: "here".into(), pid, pid_start: 1, boot_id: "b".into() }
}

pub(super) fn say<'a>(run: &'a RunId, expected_seq: u64, events: &'a [Event]) -> Append<'a> {
    Append { run, expected_seq, generation: None, at: at(100), events, texts: &[] }
}

#[tokio::test]
async fn what_was_recorded_is_read_in_order_and_the_chain_holds() {
    let (_folder, stores) = stores().await;
    let mut hashes = Vec::new();
    for journal in stores {
        let run = RunId::new("20261122-aaaaaa");
        let first = journal.create(&run, at(1), &started("north"), &[]).await.expect("creates");
        let more = [skipped("a"), skipped("b")];
        let records = journal.append(say(&run, 1, &more), &LockChange::default()).await.expect("appends");
        let all = journal.read(&run, 1).await.expect("reads");
        assert_eq!(all, [vec![first], records.clone()].concat());
        assert_eq!(journal.read(&run, 2).await.expect("reads"), records);
        assert_eq!(all.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 3]);
        let proof = journal.prove(&run, Trust::default()).await.expect("reads");
        assert!(proof.holds(), "{proof:?}");
        assert_eq!((proof.records, &proof.hash), (3, &all[2].hash));
        hashes.push(proof.hash);
        assert_eq!(journal.head(&run).await.expect("head"), Head { seq: 3, generation: 0 });
        assert_eq!(journal.head(&"x".into()).await.expect("head").seq, 0);
        let error = journal.read(&"x".into(), 1).await.expect_err("no such run");
        assert!(matches!(error, JournalError::UnknownRun(_)));
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "a hash does not depend on the store");
}

#[tokio::test]
async fn the_same_facts_twice_are_recorded_once_and_others_are_refused() {
    let (_folder, stores) = stores().await;
    for journal in stores {
        let run = RunId::new("20261122-aaaaaa");
        journal.create(&run, at(1), &started("north"), &[]).await.expect("creates");
        let again = journal.create(&run, at(1), &started("north"), &[]).await.expect_err("exists");
        assert!(matches!(again, AppendError::Exists { .. }), "{again}");
        let (a, b) = ([skipped("a")], [skipped("b")]);
        let once = journal.append(say(&run, 1, &a), &LockChange::default()).await.expect("appends");
        let twice = journal.append(say(&run, 1, &a), &LockChange::default()).await.expect("is there already");
        assert_eq!(once, twice);
        for (expected_seq, events) in [(1, &b), (0, &a), (7, &a)] {
            let error = journal.append(say(&run, expected_seq, events), &LockChange::default()).await;
            assert!(matches!(error, Err(AppendError::Conflict { actual_seq: 2 })), "{expected_seq}: {error:?}");
        }
        assert_eq!(journal.head(&run).await.expect("head").seq, 2);
        let not_a_start = journal.create(&"y".into(), at(1), &skipped("a"), &[]).await;
        assert!(matches!(not_a_start, Err(AppendError::NotAStart { .. })));
        let unknown = journal.append(say(&"y".into(), 0, &a), &LockChange::default()).await;
        assert!(matches!(unknown, Err(AppendError::Store(JournalError::UnknownRun(_)))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_appends_exactly_one_wins_each_place() {
    let (_folder, stores) = stores().await;
    for journal in stores {
        let run = RunId::new("20261122-aaaaaa");
        journal.create(&run, at(1), &started("north"), &[]).await.expect("creates");
        let mut racers = Vec::new();
        for racer in 0..8 {
            let (journal, run) = (journal.clone(), run.clone());
            racers.push(tokio::spawn(async move {
                let mut won = 0;
                for place in 1..=10 {
                    let events = [skipped(&format!("r{racer}"))];
                    match journal.append(say(&run, place, &events), &LockChange::default()).await {
                        Ok(_) => won += 1,
                        Err(AppendError::Conflict { actual_seq }) => assert_ne!(actual_seq, place, "the place is free"),
                        Err(other) => panic!("{other}"),
                    }
                }
                won
            }));
        }
        let mut won = 0;
        for racer in racers {
            won += racer.await.expect("no panic");
        }
        assert_eq!(won + 1, journal.head(&run).await.expect("head").seq, "each place was won once");
        assert!(journal.prove(&run, Trust::default()).await.expect("reads").holds());
    }
}

#[tokio::test]
async fn a_replaced_driver_is_refused_at_its_next_append() {
    let (_folder, stores) = stores().await;
    for journal in stores {
        let run = RunId::new("20261122-aaaaaa");
        journal.create(&run, at(1), &started("north"), &[]).await.expect("creates");
        let ttl = SignedDuration::from_secs(100);
        let mut now = at(0);
        // Two processes of another host, so that nobody can look whether they live.
        let mut far = owner(7);
        far.host = "there".into();
        let first = journal.claim(&run, &far, now, ttl).await.expect("free");
        assert_eq!(first, 1);
        pass(&journal, &mut now, 50).await;
        let held = journal.claim(&run, &owner(8), now, ttl).await.expect_err("held");
        assert!(matches!(&held, LeaseError::Held { owner, .. } if *owner == far), "{held}");
        let events = [skipped("a")];
        let append = |generation, expected_seq| Append {
            run: &run,
            expected_seq,
            generation: Some(generation),
            at: at(3),
            events: &events,
            texts: &[],
        };
        let records = journal.append(append(first, 1), &LockChange::default()).await.expect("has the lease");
        assert_eq!(records[0].generation, 1);
        journal.renew(&run, first, now, ttl).await.expect("has the lease");
        pass(&journal, &mut now, 60).await;
        journal.claim(&run, &owner(8), now, ttl).await.expect_err("renewed");
        pass(&journal, &mut now, 60).await;
        // A caller whose clock is far behind has no say where the server has one.
        let skewed = if matches!(journal, Journal::Postgres(_)) { at(0) } else { now };
        let second = journal.claim(&run, &owner(8), skewed, ttl).await.expect("ran out");
        assert_eq!(second, 2);
        let fenced = journal.append(append(first, 2), &LockChange::default()).await.expect_err("replaced");
        assert!(matches!(fenced, AppendError::Fenced { generation: 2 }), "{fenced}");
        let lost = journal.renew(&run, first, now, ttl).await.expect_err("replaced");
        assert!(matches!(lost, LeaseError::Lost { generation: 2 }), "{lost}");
        journal.release(&run, first).await.expect("does nothing");
        journal.append(append(second, 2), &LockChange::default()).await.expect("has the lease");
        journal
            .append(say(&run, 3, &[skipped("word")]), &LockChange::default())
            .await
            .expect("a person needs no lease");
        journal.release(&run, second).await.expect("gives it back");
        let released = journal.append(append(second, 4), &LockChange::default()).await.expect_err("gave it back");
        assert!(matches!(released, AppendError::Fenced { generation: 2 }));
        assert_eq!(journal.claim(&run, &owner(9), now, ttl).await.expect("free"), 3);
    }
}

#[tokio::test]
async fn the_lease_of_a_dead_process_is_taken_over_at_once() {
    let (_folder, stores) = stores().await;
    let me = Owner::this_process().expect("procfs");
    let mut child = tokio::process::Command::new("true").spawn().expect("spawns");
    let pid = i32::try_from(child.id().expect("runs")).expect("a pid");
    child.wait().await.expect("ends");
    let dead = Owner { pid, ..me.clone() };
    let reused = Owner { pid_start: me.pid_start + 1, ..me.clone() };
    let before_boot = Owner { boot_id: "earlier".into(), ..me.clone() };
    let parent = i32::try_from(std::os::unix::process::parent_id()).expect("a pid");
    let stat = procfs::process::Process::new(parent).and_then(|process| process.stat()).expect("lives");
    let alive = Owner { pid: parent, pid_start: stat.starttime, ..me.clone() };
    let elsewhere = Owner { host: "far-away".into(), ..dead.clone() };
    for journal in stores {
        let ttl = SignedDuration::from_secs(600);
        for (run, owner, free) in [
            ("dead", &dead, true),
            ("reused", &reused, true),
            ("boot", &before_boot, true),
            ("alive", &alive, false),
            ("elsewhere", &elsewhere, false),
        ] {
            let run = RunId::new(run);
            journal.claim(&run, owner, at(0), ttl).await.expect("free");
            let taken = journal.claim(&run, &me, at(1), ttl).await;
            assert_eq!(taken.is_ok(), free, "{run}: {taken:?}");
        }
    }
}

#[tokio::test]
async fn a_lock_has_one_run_at_a_time() {
    let (_folder, stores) = stores().await;
    for journal in stores {
        let (a, b) = (RunId::new("a"), RunId::new("b"));
        let lock = || vec![LockName::new("north/db")];
        journal.create(&a, at(1), &started("north"), &lock()).await.expect("free");
        let held = journal.create(&b, at(1), &started("north"), &lock()).await.expect_err("held");
        assert!(matches!(&held, AppendError::LockHeld { by_run, .. } if *by_run == a), "{held}");
        assert_eq!(journal.head(&b).await.expect("head").seq, 0, "refused as a whole");
        journal.create(&b, at(2), &started("north"), &[]).await.expect("creates");
        let take = LockChange { take: lock(), ..LockChange::default() };
        let refused = journal.append(say(&b, 1, &[skipped("x")]), &take).await.expect_err("held");
        assert!(matches!(refused, AppendError::LockHeld { .. }));
        assert_eq!(journal.head(&b).await.expect("head").seq, 1, "refused as a whole");
        journal.append(say(&a, 1, &[]), &take).await.expect("has it already");
        let held = journal.locks().await.expect("lists").held;
        assert_eq!((held.len(), held[0].name.as_str(), &held[0].run, held[0].since), (1, "north/db", &a, at(1)));
        assert!(held[0].stays && held[0].step.is_none() && held[0].fence == 1);
        let free = LockChange { free_all: true, ..LockChange::default() };
        journal.append(say(&a, 1, &[finished(Outcome::Failed)]), &free).await.expect("frees");
        assert_eq!(journal.locks().await.expect("lists").held, []);
        journal.append(say(&b, 1, &[skipped("x")]), &take).await.expect("free");
        let held = journal.locks().await.expect("lists").held;
        assert_eq!((&held[0].run, held[0].fence), (&b, 2), "the fence grows");
    }
}

#[tokio::test]
async fn locks_of_steps_are_taken_guarded_freed_and_left_behind() {
    let (_folder, stores) = stores().await;
    for journal in stores {
        let mut now = crate::config::now();
        let me = Owner::this_process().expect("procfs");
        let mut far = me.clone();
        far.host = "there".into();
        let (a, b) = (RunId::new("a"), RunId::new("b"));
        let ttl = SignedDuration::from_secs(100);
        let mut drivers = Vec::new();
        for run in [&a, &b] {
            journal.create(run, now, &started("north"), &[]).await.expect("creates");
            drivers.push(journal.claim(run, &far, now, ttl).await.expect("free"));
        }
        let locks = [LockName::new("x"), LockName::new("y")];
        let (s, t) = (StepId::new("s"), StepId::new("t"));
        let of_a = LockAsk { run: &a, generation: drivers[0], step: &s, locks: &locks, at: now };
        let of_b = LockAsk { run: &b, generation: drivers[1], step: &t, locks: &locks[..1], at: now };
        assert_eq!(journal.ask_locks(of_a).await.expect("asks"), LockAnswer::Taken);
        let waits = LockAnswer::Waits { lock: "x".into(), behind: (a.clone(), Some(s.clone())) };
        assert_eq!(journal.ask_locks(of_b).await.expect("asks"), waits);
        assert_eq!(journal.ask_locks(of_b).await.expect("asks again"), waits);
        let table = journal.locks().await.expect("lists");
        assert_eq!((table.held.len(), table.waiting.len()), (2, 1), "one place in line");
        assert!(table.is_driven(&a) && table.held.iter().all(|held| held.fence == 1 && !held.stays));

        // The start relies on both, and from then on they outlast the driver.
        let guard = |locks, stays| LockChange {
            guard: vec![crate::event::LockGuard { step: s.clone(), locks, stays }],
            ..LockChange::default()
        };
        let lost = journal.append(say(&a, 1, &[skipped("1")]), &guard(3, true)).await.expect_err("it has two");
        assert!(matches!(lost, AppendError::LockLost { .. }), "{lost}");
        journal.append(say(&a, 1, &[skipped("1")]), &guard(2, true)).await.expect("it has two");
        pass(&journal, &mut now, 200).await;
        journal.claim(&b, &far, now, ttl).await.expect("ran out");
        let late = LockAsk { generation: drivers[1], at: now, ..of_b };
        assert!(matches!(journal.ask_locks(late).await, Err(AppendError::Fenced { generation: 2 })));
        let late = LockAsk { generation: 2, ..late };
        assert_eq!(journal.ask_locks(late).await.expect("asks"), waits, "nobody knows what became of it");
        journal.append(say(&a, 2, &[skipped("2")]), &guard(2, false)).await.expect("it has two");
        assert_eq!(journal.ask_locks(late).await.expect("asks"), LockAnswer::Taken, "it may be repeated");
        let lost = journal.append(say(&a, 3, &[skipped("3")]), &guard(2, false)).await.expect_err("it has one");
        assert!(matches!(lost, AppendError::LockLost { .. }), "{lost}");
        let table = journal.locks().await.expect("lists");
        assert_eq!((table.held[0].run.as_str(), table.held[0].fence, table.waiting.len()), ("b", 2, 0));

        let free = LockChange { free: vec![t.clone()], ..LockChange::default() };
        journal.append(say(&b, 1, &[skipped("1")]), &free).await.expect("frees");
        let held = journal.locks().await.expect("lists").held;
        assert_eq!(held.iter().map(|held| held.name.as_str()).collect::<Vec<_>>(), ["y"]);
    }
}

#[tokio::test]
async fn a_run_is_listed_with_those_that_it_started() {
    let (_folder, stores) = stores().await;
    for journal in stores {
        for run in ["r", "r.a", "r.a.b", "r-a", "ra", "r%"] {
            journal.create(&run.into(), at(1), &started("north"), &[]).await.expect("creates");
        }
        for (first, family) in
            [("r", &["r.a.b", "r.a", "r"][..]), ("r.a", &["r.a.b", "r.a"]), ("r%", &["r%"]), ("", &[])]
        {
            let filter = RunFilter { family: Some(first.into()), ..RunFilter::default() };
            let listed: Vec<RunId> =
                journal.runs(&filter).await.expect("lists").into_iter().map(|run| run.run).collect();
            assert_eq!(listed, family.iter().map(|run| RunId::new(*run)).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn runs_are_listed_found_and_what_they_established_is_known() {
    let (_folder, stores) = stores().await;
    for journal in stores {
        for (run, second, site) in
            [("20261121-ab1", 1, "north"), ("20261122-ab2", 2, "south"), ("20261122-cd3", 3, "north")]
        {
            journal.create(&run.into(), at(second), &started(site), &[]).await.expect("creates");
        }
        let none = LockChange::default();
        journal.append(say(&"20261121-ab1".into(), 1, &[finished(Outcome::Succeeded)]), &none).await.expect("appends");
        let waiting = [finished(Outcome::Waiting)];
        journal.append(say(&"20261122-cd3".into(), 1, &waiting), &none).await.expect("appends");

        let list = async |filter: RunFilter| {
            let runs = journal.runs(&filter).await.expect("lists").into_iter();
            runs.map(|run| (run.run.to_string(), run.outcome)).collect::<Vec<_>>()
        };
        let (first, second, third) = (
            ("20261121-ab1".to_owned(), Some(Outcome::Succeeded)),
            ("20261122-ab2".to_owned(), None),
            ("20261122-cd3".to_owned(), Some(Outcome::Waiting)),
        );
        assert_eq!(list(RunFilter::default()).await, [third.clone(), second.clone(), first.clone()]);
        assert_eq!(list(RunFilter { open_only: true, ..RunFilter::default() }).await, [third.clone(), second]);
        let north = RunFilter { site: Some("north".into()), ..RunFilter::default() };
        assert_eq!(list(north.clone()).await, [third.clone(), first]);
        assert_eq!(list(RunFilter { limit: Some(1), ..north }).await, [third]);
        assert_eq!(list(RunFilter { runbook: Some("other".into()), ..RunFilter::default() }).await, []);

        let word = Event::StepAnswered {
            step: "go".into(),
            by: "local:bob@here".into(),
            answer: Answer::Approved { comment: None },
        };
        journal.append(say(&"20261122-cd3".into(), 2, &[word]), &none).await.expect("appends");
        assert_eq!(list(RunFilter { limit: Some(1), ..RunFilter::default() }).await[0].1, None, "open again");

        assert_eq!(journal.find_run("20261121").await.expect("one"), "20261121-ab1".into());
        assert_eq!(journal.find_run("cd").await.expect("one"), "20261122-cd3".into());
        assert!(matches!(journal.find_run("2026").await, Err(JournalError::Ambiguous { runs: 3, .. })));
        assert!(matches!(journal.find_run("zz").await, Err(JournalError::UnknownRun(_))));
        assert!(matches!(journal.find_run("").await, Err(JournalError::UnknownRun(_))));

        let milestones = journal.milestones("north").await.expect("lists");
        assert_eq!(milestones, [("db/moved".into(), "20261121-ab1".into(), at(100))]);
        assert_eq!(journal.milestones("south").await.expect("lists"), []);

        let revoked = vec!["db/moved".into()];
        let back = Event::RunFinished { outcome: Outcome::Succeeded, milestones: vec![], revoked, note: None };
        journal.append(say(&"20261122-cd3".into(), 3, &[back]), &none).await.expect("appends");
        assert_eq!(journal.milestones("north").await.expect("lists"), [], "taken back");
    }
}

#[tokio::test]
async fn few_facts_and_many_make_the_same_chain() {
    let (_folder, stores) = stores().await;
    let mut hashes = Vec::new();
    for journal in stores {
        let run = RunId::new("20261122-aaaaaa");
        journal.create(&run, at(1), &started("north"), &[]).await.expect("creates");
        let owner = Owner::this_process().expect("procfs");
        let mine = journal.claim(&run, &owner, at(1), SignedDuration::from_secs(60)).await.expect("free");
        let mut head = 1;
        for size in [1, 2, 32, 33, 1, 500, 1] {
            let events: Vec<Event> = (0..size).map(|number| skipped(&format!("s{number}"))).collect();
            let append = Append {
                run: &run,
                expected_seq: head,
                generation: Some(mine),
                at: at(5),
                events: &events,
                texts: &[],
            };
            let records = journal.append(append, &LockChange::default()).await.expect("appends");
            assert_eq!(records.len(), size);
            let again = journal.append(append, &LockChange::default()).await.expect("is there already");
            assert_eq!(records, again, "of {size}");
            head += size as u64;
            // A person's word between two appends of the driver takes a place.
            journal.append(say(&run, head, &[skipped("word")]), &LockChange::default()).await.expect("appends");
            let late = Append { expected_seq: head, ..append };
            let error = journal.append(late, &LockChange::default()).await.expect_err("the place is taken");
            assert!(matches!(error, AppendError::Conflict { actual_seq } if actual_seq == head + 1), "{error}");
            head += 1;
        }
        let proof = journal.prove(&run, Trust::default()).await.expect("reads");
        assert!(proof.holds(), "{proof:?}");
        assert_eq!(proof.records, head);
        hashes.push(proof.hash);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1, "a hash does not depend on the store");
}

#[tokio::test]
async fn what_one_process_records_wakes_another() {
    let url = database();
    let (here, there) = (Journal::open(&url).await.expect("opens"), Journal::open(&url).await.expect("opens"));
    let run = RunId::new("20261122-aaaaaa");
    here.create(&run, at(1), &started("north"), &[]).await.expect("creates");
    let Journal::Postgres(store) = &there else { panic!("a server") };
    // Without ticks worth the name: only the bell is left.
    let mut watch = store.watch_every(std::time::Duration::from_secs(100_000));
    watch.news().await; // It listens now.
    here.append(say(&run, 1, &[skipped("word")]), &LockChange::default()).await.expect("appends");
    watch.news().await;
    assert_eq!(there.head(&run).await.expect("head").seq, 2);
}

#[tokio::test]
async fn a_server_is_told_apart_and_left_alone() {
    let url = database();
    let options = <sqlx::postgres::PgConnectOptions as std::str::FromStr>::from_str(&url).expect("an address");
    let run = async |sql: &'static str| {
        let mut conn = <sqlx::PgConnection as sqlx::Connection>::connect_with(&options).await.expect("connects");
        sqlx::raw_sql(sql).execute(&mut conn).await.expect("runs");
    };
    run("CREATE TABLE theirs (a int); CREATE SCHEMA piton; CREATE TABLE piton.things (a int)").await;
    let error = Journal::open(&url).await.expect_err("somebody else's schema");
    assert!(matches!(error, JournalError::NotAJournal { .. }), "{error}");
    run("CREATE TABLE piton.version (a int)").await;
    let error = Journal::open(&url).await.expect_err("somebody else's table");
    assert!(matches!(error, JournalError::NotAJournal { .. }), "{error}");
    run("DROP SCHEMA piton CASCADE").await;

    // Many at once make it once.
    let (a, b, c) = tokio::join!(Journal::open(&url), Journal::open(&url), Journal::open(&url));
    for journal in [a, b, c] {
        assert_eq!(journal.expect("opens").runs(&RunFilter::default()).await.expect("lists"), []);
    }
    run("SELECT a FROM theirs").await;
    run("UPDATE piton.version SET version = 99").await;
    let error = Journal::open(&url).await.expect_err("newer");
    assert!(matches!(error, JournalError::Newer { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn a_password_is_never_told() {
    let url = database().replace("postgres://postgres@", "postgres://postgres:s3cret@");
    let journal = Journal::open(&url).await.expect("opens");
    assert!(!format!("{journal:?}").contains("s3cret"));
    for wrong in [
        "postgres://ann:s3cret@localhost:1/nothing",
        "postgres://ann:s3cret@localhost/x?host=/nowhere&password=s3cret",
        "postgres://ann:s3cret@local host:bad/x",
        "mysql://ann:s3cret@localhost/x",
    ] {
        let error = Journal::open(wrong).await.expect_err("nobody is there");
        let mut told = format!("{error} {error:?}");
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            told.push_str(&inner.to_string());
            cause = inner.source();
        }
        assert!(!told.contains("s3cret"), "{told}");
        assert!(told.contains("ann:***@"), "{told}");
    }
}

#[test]
fn a_hash_is_what_the_documented_recipe_gives() {
    // printf of the lines in docs/design/journal.md, piped to sha256sum.
    let run = RunId::new("r");
    let (row, _) = chain::link(&run, (1, chain::FIRST), at(1), 0, &Event::RunTimedOut).expect("encodes");
    assert_eq!(row.payload, r#"{"kind":"run_timed_out"}"#);
    assert_eq!(row.hash, "918b9d72c1494f1a11e0a6227dd1be1a21582eef21b73bef868a82034d4070dc");
}

#[tokio::test]
async fn a_rollback_takes_back_what_stood_and_gives_back_what_it_had_displaced() {
    let (_folder, stores) = stores().await;
    for journal in stores {
        let end = |outcome, milestones: &[&str], revoked: &[&str]| {
            let names = |list: &[&str]| list.iter().map(|&name| Milestone::new(name)).collect();
            Event::RunFinished { outcome, milestones: names(milestones), revoked: names(revoked), note: None }
        };
        let (first, second) = (RunId::new("20261121-ab1"), RunId::new("20261121-ab2"));
        for run in [&first, &second] {
            journal.create(run, at(1), &started("north"), &[]).await.expect("creates");
        }
        let say = |run, seq, event| {
            let journal = journal.clone();
            async move {
                let append =
                    Append { run, expected_seq: seq, generation: None, at: at(100), events: &[event], texts: &[] };
                journal.append(append, &LockChange::default()).await.expect("appends");
            }
        };
        let names = |list: Vec<(Milestone, RunId, Timestamp)>| {
            let all: Vec<String> = list.into_iter().map(|(name, run, _)| format!("{name} {run}")).collect();
            all.join(", ")
        };
        say(&first, 1, end(Outcome::Succeeded, &["a", "b"], &[])).await;
        say(&second, 1, end(Outcome::Succeeded, &["b"], &["a"])).await;
        assert_eq!(names(journal.milestones("north").await.expect("lists")), "b 20261121-ab2");
        let asked =
            Event::RollbackRequested { by: "ann".into(), reason: "no".into(), driver: String::new(), sealed_by: None };
        say(&second, 2, asked).await;
        assert_eq!(journal.runs(&RunFilter::default()).await.expect("lists")[0].outcome, None, "it is open again");
        say(&second, 3, end(Outcome::RolledBack, &[], &["b"])).await;
        assert_eq!(
            names(journal.milestones("north").await.expect("lists")),
            "a 20261121-ab1, b 20261121-ab1",
            "as it was before the second run"
        );
    }
}

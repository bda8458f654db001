//! What every store must do with what commands said: with its event or not at all, once, and checked when it is read.

use super::tests::{at, say, started, stores};
use super::*;
use crate::event::{Gap, Outputs, Stream, Transcript};

pub(super) fn said(text: &TranscriptText) -> Transcript {
    let gap = Some(Gap { at: 3, bytes: 9_000_000_000 });
    let kept = text.bytes().len() as u64;
    Transcript { stream: Stream::Stdout, bytes: 9_000_000_000 + kept, digest: text.digest().to_owned(), kept, gap }
}

pub(super) fn ended(step: &str, said: Vec<Transcript>) -> Event {
    Event::AttemptSucceeded { step: step.into(), attempt: 1, outputs: Outputs::new(), said }
}

/// Bytes that are no text.
pub(super) fn bytes() -> TranscriptText {
    TranscriptText::new(vec![0, 255, b'\n', 128, 7, 7])
}

async fn begun(journal: &Journal) -> RunId {
    let run = RunId::new("20261122-aaaaaa");
    journal.create(&run, at(1), &started("north"), &[]).await.expect("creates");
    run
}

#[tokio::test]
async fn what_a_command_said_comes_with_its_event_and_is_read_back() {
    let (_folder, stores) = stores().await;
    for journal in stores {
        let run = begun(&journal).await;
        let texts = [bytes(), TranscriptText::new(b"hello\n".to_vec())];
        let events = [ended("a", texts.iter().map(said).collect()), ended("b", vec![said(&texts[0])])];
        let append = Append { texts: &texts, ..say(&run, 1, &events) };
        let records = journal.append(append, &LockChange::default()).await.expect("appends");
        let again = journal.append(append, &LockChange::default()).await.expect("an answer that was lost");
        assert_eq!(records, again);
        // Others say the same.
        let more = [ended("c", vec![said(&texts[1])])];
        let append = Append { texts: &texts[1..], ..say(&run, 3, &more) };
        journal.append(append, &LockChange::default()).await.expect("appends");
        for record in journal.read(&run, 2).await.expect("reads") {
            for said in record.event.said() {
                let kept = journal.transcript(said).await.expect("is there");
                assert!(texts.iter().any(|text| text.bytes() == kept && text.digest() == said.digest));
            }
        }
        let proof = journal.prove(&run, Trust::default()).await.expect("reads");
        assert!(proof.holds() && proof.records == 4, "{proof:?}");
    }
}

#[tokio::test]
async fn an_append_that_is_refused_keeps_nothing() {
    let (_folder, stores) = stores().await;
    for journal in stores {
        let run = begun(&journal).await;
        let text = bytes();
        let events = [ended("a", vec![said(&text)])];
        let texts = std::slice::from_ref(&text);
        let late = Append { texts, ..say(&run, 0, &events) };
        let error = journal.append(late, &LockChange::default()).await.expect_err("the place is taken");
        assert!(matches!(error, AppendError::Conflict { .. }), "{error}");
        let fenced = Append { generation: Some(7), texts, ..say(&run, 1, &events) };
        let error = journal.append(fenced, &LockChange::default()).await.expect_err("nobody's lease");
        assert!(matches!(error, AppendError::Fenced { .. }), "{error}");
        let error = journal.transcript(&said(&text)).await.expect_err("was not kept");
        assert!(matches!(error, JournalError::Transcript { why: "is missing", .. }), "{error}");
    }
}

#[tokio::test]
async fn a_record_that_names_what_is_not_there_is_found() {
    let (_folder, stores) = stores().await;
    for journal in stores {
        let run = begun(&journal).await;
        let events = [ended("a", vec![]), ended("b", vec![said(&bytes())])];
        journal.append(say(&run, 1, &events), &LockChange::default()).await.expect("appends");
        let proof = journal.prove(&run, Trust::default()).await.expect("reads");
        let [Wrong { seq: Some(3), what }] = &proof.wrong[..] else { panic!("{proof:?}") };
        assert!(what.contains("standard output is missing") && what.contains(bytes().digest()), "{what}");
    }
}

#[tokio::test]
async fn a_file_of_the_version_before_is_brought_up_to_date() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("j.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut old = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(&options).await.expect("opens");
    for script in [
        include_str!("migrations/sqlite/0001.sql"),
        include_str!("migrations/sqlite/0002.sql"),
        include_str!("migrations/sqlite/0003.sql"),
        "PRAGMA application_id = 1346982990; PRAGMA user_version = 3",
    ] {
        sqlx::raw_sql(script).execute(&mut old).await.expect("as it was");
    }
    let journal = Journal::open(path.to_str().expect("plain")).await.expect("opens");
    let run = begun(&journal).await;
    let text = bytes();
    let events = [ended("a", vec![said(&text)])];
    let append = Append { texts: std::slice::from_ref(&text), ..say(&run, 1, &events) };
    journal.append(append, &LockChange::default()).await.expect("appends");
    assert_eq!(journal.transcript(&said(&text)).await.expect("is there"), text.bytes());
}

#[test]
fn records_of_the_version_before_are_read_and_silence_is_written_as_it_was() {
    let stored = [
        r#"{"kind":"attempt_succeeded","step":"a","attempt":1,"outputs":{"n":1}}"#,
        r#"{"kind":"attempt_failed","step":"a","attempt":1,"error":"e","effect":"none","retryable":true}"#,
        r#"{"kind":"undo_succeeded","step":"a","attempt":1}"#,
        r#"{"kind":"undo_failed","step":"a","attempt":1,"error":"e","retryable":false}"#,
    ];
    for text in stored {
        let event: Event = serde_json::from_str(text).expect("reads");
        assert!(event.said().is_empty());
        assert_eq!(serde_json::to_string(&event).expect("writes"), text);
    }
}

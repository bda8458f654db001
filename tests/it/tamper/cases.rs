//! The cases: what is changed, how, and what is said of it.

use serde_json::{Value as Json, json};

use super::*;

/// One record changed, taken away or put in.
pub(super) const OF_RECORDS: &[Case] = &[
    (
        "a parameter of the first record",
        |f| f.set(ENDED, 1, "payload = replace(payload, '\"amount\":1', '\"amount\":7')"),
        Plainly("record 1 of run ended"),
    ),
    (
        "one letter in the middle",
        |f| f.set(ENDED, 2, "payload = replace(payload, 'say', 'sai')"),
        Plainly("record 2 of run ended"),
    ),
    (
        "the outcome",
        |f| f.set(ENDED, -1, "payload = replace(payload, 'succeeded', 'failed')"),
        Plainly("of run ended: its content"),
    ),
    ("a space in a payload", |f| f.set(ENDED, 3, "payload = payload || ' '"), Plainly("record 3 of run ended")),
    ("the time of a record", |f| f.set(ENDED, 3, "at_ms = at_ms - 1"), Plainly("record 3 of run ended")),
    (
        "the generation of a record",
        |f| f.set(ENDED, 3, "generation = generation + 1"),
        Plainly("record 3 of run ended"),
    ),
    (
        "a person's word made a driver's",
        |f| f.sql("UPDATE events SET generation = 2 WHERE kind = 'step_answered'"),
        Plainly("of run ended: its content"),
    ),
    ("the kind of a record", |f| f.set(ENDED, 3, "kind = 'attempt_failed'"), Plainly("record 3 of run ended")),
    (
        "one hash",
        |f| f.set(ENDED, 3, "hash = replace(hash, substr(hash, 1, 4), '0000')"),
        Plainly("record 3 of run ended"),
    ),
    (
        "the last hash",
        |f| f.set(ENDED, -1, "hash = 'f' || substr(hash, 2, 62) || 'z'"),
        Plainly("do not match its hash"),
    ),
    ("a hash in capitals", |f| f.set(ENDED, 3, "hash = upper(hash)"), Plainly("record 3 of run ended")),
    ("a payload that is no JSON", |f| f.set(ENDED, 3, "payload = 'none'"), Plainly("record 3 of run ended")),
    ("an empty payload", |f| f.set(ENDED, 3, "payload = ''"), Plainly("record 3 of run ended")),
    (
        "the first record taken away",
        |f| {
            let id = f.id(ENDED, 1);
            f.sql(&format!("DELETE FROM events WHERE id = {id}"));
        },
        Plainly("record 1 of run ended: the record is missing"),
    ),
    (
        "a record in the middle taken away",
        |f| {
            let id = f.id(ENDED, 4);
            f.sql(&format!("DELETE FROM events WHERE id = {id}"));
        },
        Plainly("record 4 of run ended: the record is missing"),
    ),
    (
        "the same, with the others moved up",
        |f| {
            let mut rows = f.rows(ENDED);
            rows.remove(3);
            f.put(ENDED, &rows);
        },
        Plainly("record 4 of run ended"),
    ),
    (
        "all records taken away but the first",
        |f| {
            let rows = f.rows(ENDED);
            f.put(ENDED, &rows[..1]);
        },
        Plainly("record 2 of run ended: it is missing"),
    ),
    ("all records taken away", |f| f.put(ENDED, &[]), Plainly("record 1 of run ended: it is missing")),
    (
        "the last record twice",
        |f| {
            let mut rows = f.rows(ENDED);
            rows.push(rows[rows.len() - 1].clone());
            f.put(ENDED, &rows);
        },
        Plainly("of run ended: its content"),
    ),
    (
        "an old record put in the middle",
        |f| {
            let mut rows = f.rows(ENDED);
            rows.insert(3, rows[2].clone());
            f.put(ENDED, &rows);
        },
        Plainly("record 4 of run ended"),
    ),
    (
        "two neighbours swapped",
        |f| {
            let mut rows = f.rows(ENDED);
            rows.swap(2, 3);
            f.put(ENDED, &rows);
        },
        Plainly("record 3 of run ended"),
    ),
    (
        "two records far apart swapped",
        |f| {
            let mut rows = f.rows(ENDED);
            let last = rows.len() - 1;
            rows.swap(1, last);
            f.put(ENDED, &rows);
        },
        Plainly("record 2 of run ended"),
    ),
    (
        "the last record further back",
        |f| {
            let id = f.id(ENDED, -1);
            f.sql(&format!("UPDATE events SET id = id + 5 WHERE id = {id}"));
        },
        Plainly("of run ended: the record is missing"),
    ),
    (
        "a record of another run in its place",
        |f| {
            let theirs = f.rows("other");
            let mut rows = f.rows(ENDED);
            rows[1] = theirs[1].clone();
            f.put(ENDED, &rows);
        },
        Plainly("record 2 of run ended"),
    ),
];

/// Whole runs, what they name, and the list of them.
pub(super) const OF_RUNS: &[Case] = &[
    (
        "a run under another name",
        |f| {
            f.sql("UPDATE runs SET run = 'undone' WHERE run = 'ended'; UPDATE seals SET run = 'undone' WHERE run = 'ended'");
        },
        Plainly("record 1 of run undone"),
    ),
    (
        "a run told a second time under another name",
        |f| {
            let rows = f.rows(ENDED);
            f.sql("INSERT INTO runs SELECT NULL, 'again', runbook, version, site, started_by, started_ms, outcome, pruned FROM runs WHERE run = 'ended'");
            f.put("again", &rows);
            f.sql("INSERT INTO seals SELECT 'again', seq, hash, at_ms, key, signature FROM seals WHERE run = 'ended'");
        },
        Plainly("record 1 of run again"),
    ),
    (
        "two runs swapped",
        |f| {
            let (a, b) = (f.rows(ENDED), f.rows("other"));
            f.put(ENDED, &b);
            f.put("other", &a);
        },
        Plainly("record 1 of run ended"),
    ),
    (
        "what a command said",
        |f| f.sql("UPDATE transcripts SET bytes = CAST('forty one' AS BLOB)"),
        Plainly("is not as it was kept"),
    ),
    ("what a command said taken away", |f| f.sql("DELETE FROM transcripts"), Plainly("is missing (")),
    (
        "the outcome in the list of runs",
        |f| f.sql("UPDATE runs SET outcome = 'failed' WHERE run = 'ended'"),
        Plainly("run ended: the list of runs"),
    ),
    (
        "the starter in the list of runs",
        |f| f.sql("UPDATE runs SET started_by = 'local:eve@here' WHERE run = 'ended'"),
        Plainly("run ended: the list of runs"),
    ),
    (
        "the runbook in the list of runs",
        |f| f.sql("UPDATE runs SET runbook = 'harmless' WHERE run = 'open'"),
        Plainly("run open: the list of runs"),
    ),
    (
        "the seal of an outcome taken away",
        |f| f.sql("DELETE FROM seals WHERE run = 'ended'"),
        Plainly("of run ended: its seal is missing"),
    ),
    (
        "a letter of a signature",
        |f| f.sql("UPDATE seals SET signature = replace(signature, 'A', 'B')"),
        Plainly("its seal does not hold"),
    ),
    (
        "the hash of a seal",
        |f| f.sql("UPDATE seals SET hash = upper(hash)"),
        Plainly("it is not the record that was sealed"),
    ),
    ("the time of a seal", |f| f.sql("UPDATE seals SET at_ms = at_ms + 1"), Plainly("its seal does not hold")),
    (
        "a seal put at another record",
        |f| f.sql("UPDATE seals SET seq = seq - 1 WHERE run = 'ended'"),
        Plainly("it is not the record that was sealed"),
    ),
    (
        "the seal of another run",
        |f| f.sql("UPDATE seals SET signature = (SELECT signature FROM seals WHERE run = 'other') WHERE run = 'ended'"),
        Plainly("its seal does not hold"),
    ),
    (
        "a seal of a record to come",
        |f| {
            f.sql("INSERT INTO seals SELECT run, seq + 9, hash, at_ms, key, signature FROM seals WHERE run = 'ended' ORDER BY seq DESC LIMIT 1");
        },
        Plainly("so the end was cut off"),
    ),
];

/// By somebody who knows how hashes are made.
pub(super) const OF_FORGERS: &[Case] = &[
    ("another starter, every hash anew", other_starter, Plainly("of run ended: it is not the record that was sealed")),
    (
        "the same, without the seals",
        |f| {
            other_starter(f);
            f.sql("DELETE FROM seals WHERE run = 'ended'");
        },
        Plainly("of run ended: its seal is missing"),
    ),
    (
        "the same, with the old seals on the new hashes",
        |f| {
            other_starter(f);
            let rows = f.rows(ENDED);
            for (seq, row) in (1..).zip(&rows) {
                f.sql(&format!("UPDATE seals SET hash = '{}' WHERE run = 'ended' AND seq = {seq}", row.hash));
            }
        },
        Plainly("its seal does not hold"),
    ),
    (
        "the same, sealed with another key",
        |f| {
            other_starter(f);
            f.seal(ENDED);
        },
        Plainly("which is not the key that the run names"),
    ),
    ("the same, sealed with another key that the run names", resealed, Plainly("which you do not trust")),
    (
        "the same, said not to be sealed at all",
        |f| {
            other_starter(f);
            f.forge(ENDED, |rows| name_key(rows, &Json::Null));
            f.sql("DELETE FROM seals WHERE run = 'ended'");
        },
        Plainly("the run says that nothing seals it"),
    ),
    (
        "a step that was passed over is not mentioned",
        |f| {
            f.forge(ENDED, |rows| rows.retain(|row| row.kind != "step_skipped"));
            f.drop_anchor();
        },
        Plainly("of run ended: "),
    ),
    (
        "an approval that nobody gave",
        |f| {
            f.forge("other", |rows| {
            let mut word = rows[0].clone();
            word.kind = "step_answered".into();
            word.generation = 0;
            word.payload = json!({ "kind": "step_answered", "step": "ask", "by": "local:eve@here", "answer": { "approved": { "comment": "fine" } } }).to_string();
            let end = rows.len() - 1;
            rows.insert(end, word);
        });
            f.drop_anchor();
        },
        Plainly("of run other: "),
    ),
    (
        "every run sealed with another key, and the public one replaced",
        replaced_key,
        With(KEY, "which you do not trust"),
    ),
];

/// What is not there any more.
pub(super) const OF_ENDS: &[Case] = &[
    ("the last record and its seal", |f| cut(f, ENDED), Plainly("the anchor beside the file noted record")),
    ("the same of a run under way", |f| cut(f, OPEN), Plainly("of run `open`")),
    (
        "the last record, not its seal, and the anchor beside the file",
        |f| {
            let mut rows = f.rows(ENDED);
            rows.pop();
            f.put(ENDED, &rows);
            f.drop_anchor();
        },
        Plainly("so the end was cut off"),
    ),
    (
        "the last record, its seal and the anchor beside the file",
        |f| {
            cut(f, ENDED);
            f.drop_anchor();
        },
        With(ANCHOR, "of run ended: it is missing"),
    ),
    (
        "the same of a run under way",
        |f| {
            cut(f, OPEN);
            f.drop_anchor();
        },
        With(ANCHOR, "of run open: it is missing"),
    ),
    (
        "a record of a run under way, every hash anew, and no anchor beside the file",
        |f| {
            f.forge(OPEN, |rows| {
                let end = rows.len() - 1;
                rows[end].at_ms += 1;
            });
            f.drop_anchor();
        },
        With(ANCHOR, "of run open: it is not the record whose hash was noted"),
    ),
    (
        "a run as if it had never been",
        |f| {
            f.put(ENDED, &[]);
            f.sql("DELETE FROM runs WHERE run = 'ended'; DELETE FROM seals WHERE run = 'ended'");
            f.drop_anchor();
        },
        With(ANCHOR, "record 1 of run ended: it is missing"),
    ),
    ("the whole store as it was before", |f| f.put_older_back(), With(ANCHOR, "an older copy was put back")),
];

//! What somebody can do to a store that was pruned: to tombstones, to what they left, and to what they say nothing about.

use super::*;

/// Of four runs one is pruned but for its summary, one of its contents, one of its forms, one of what its command said; one is whole.
pub(super) fn scene() -> Scene {
    let desk = Desk::new();
    desk.runbook(
        "job",
        "params: { who: { type: string, default: 'Erika' } }
steps:
  - { id: say, exec: { argv: [echo, 'hello {{ params.who }}'] } }
  - { id: hand, needs: [say], manual: { instructions: 'Click', form: { name: { type: string } } } }
  - { id: last, needs: [hand], exec: { argv: ['true'] } }
",
    );
    for run in ["gone", "bare", "form", "quiet", "whole"] {
        // Each says something else.
        desk.piton(&["run", "job.yaml", "--run-id", run, "--param", &format!("who=Erika in {run}")]).exits(6);
        desk.piton(&["answer", run, "hand", "--set", "name=Erika", "--as", "eve"]).exits(0);
        desk.piton(&["resume", run]).exits(0);
    }
    let older = tempfile::tempdir().expect("a folder");
    copy(&desk.path(".piton"), older.path());
    for (run, more) in [
        ("gone", &[][..]),
        ("bare", &["--contents-only"]),
        ("form", &["--contents-only", "--kind", "step_answered"]),
        ("quiet", &["--transcripts-only"]),
    ] {
        let args = [&["audit", "prune", "--yes", "--reason", "the law", "--run", run], more].concat();
        desk.piton(&args).exits(0);
    }
    let heads = desk.piton(&["audit", "head", "--all"]).exits(0).out;
    assert_eq!(heads.matches("\"tombstones\":4").count(), 1, "{heads}");
    desk.write("anchors.jsonl", &heads);
    std::fs::copy(desk.path(".piton/keys/seal.pub"), desk.path("auditor.pub")).expect("is there");
    Scene { desk, older }
}

/// Puts back what a run had before.
fn bring_back(forger: &mut Forger<'_>, run: &str) {
    forger.close();
    let rows = {
        let mut older = Forger::in_folder(forger.scene, forger.scene.older.path());
        older.rows(run)
    };
    forger.open();
    forger.put(run, &rows);
}

/// Takes away all of a run but its tombstone.
fn forget(forger: &mut Forger<'_>, run: &str) {
    forger.put(run, &[]);
    forger.sql(&format!("DELETE FROM runs WHERE run = '{run}'; DELETE FROM seals WHERE run = '{run}'"));
    forger.drop_anchor();
}

/// A tombstone of the forger's own for a run, sealed with a key of the forger's.
fn own_tombstone(forger: &mut Forger<'_>, run: &str, like: &str) {
    let query = sqlx::query_scalar("SELECT body FROM tombstones WHERE run = ?").bind(like.to_owned());
    let db = forger.db.as_mut().expect("is open");
    let body: String = forger.runtime.block_on(query.fetch_one(db)).expect("is there");
    let before: String = {
        let query = sqlx::query_scalar("SELECT body FROM tombstones ORDER BY number DESC LIMIT 1");
        forger.runtime.block_on(query.fetch_one(forger.db.as_mut().expect("is open"))).expect("is there")
    };
    let mut text: Json = serde_json::from_str(&body).expect("JSON");
    let rows = forger.rows(run);
    let last = rows.last().expect("is there");
    text["run"] = json!(run);
    text["number"] = json!(5);
    text["before"] = json!(format!("{:x}", Sha256::digest(before)));
    text["records"] = json!(rows.len());
    for (name, value) in [
        ("seq", json!(rows.len())),
        ("at_ms", json!(last.at_ms)),
        ("generation", json!(last.generation)),
        ("kind", json!(last.kind)),
        ("hash", json!(last.hash)),
    ] {
        text["head"][name] = value;
    }
    let body = text.to_string();
    let (key, signature) = forger.sign("piton-tombstone", &body);
    forger.sql(&format!(
        "INSERT INTO tombstones VALUES (5, '{run}', '{}', '{key}', '{signature}'); UPDATE runs SET pruned = 5 WHERE run = '{run}'",
        body.replace('\'', "''")
    ));
    let number = forger.number(run);
    forger.sql(&format!("DELETE FROM events WHERE id >> 32 = {number} AND id < {number} * (1 << 32) + {}", rows.len()));
    forger.sql(&format!("UPDATE events SET payload = '' WHERE id >> 32 = {number}"));
}

pub(super) const CASES: &[Case] = &[
    (
        "the reason on a tombstone",
        |f| f.sql("UPDATE tombstones SET body = replace(body, 'the law', 'the lie') WHERE number = 1"),
        Plainly("tombstone 1: its seal does not hold"),
    ),
    (
        "who pruned",
        |f| {
            f.sql("UPDATE tombstones SET body = replace(body, '\"what\":\"contents\"', '\"what\":\"run\"') WHERE number = 2");
        },
        Plainly("tombstone 2: its seal does not hold"),
    ),
    (
        "a letter of a signature",
        |f| f.sql("UPDATE tombstones SET signature = replace(signature, 'A', 'B') WHERE number = 3"),
        Plainly("tombstone 3: its seal does not hold"),
    ),
    (
        "a tombstone that cannot be read",
        |f| f.sql("UPDATE tombstones SET body = '{}' WHERE number = 3"),
        Plainly("tombstone 3: its seal does not hold"),
    ),
    (
        "a tombstone sealed with another key",
        |f| {
            let query = sqlx::query_scalar("SELECT body FROM tombstones WHERE number = 1");
            let body: String = f.runtime.block_on(query.fetch_one(f.db.as_mut().expect("is open"))).expect("is there");
            let (key, signature) = f.sign("piton-tombstone", &body);
            f.sql(&format!("UPDATE tombstones SET key = '{key}', signature = '{signature}' WHERE number = 1"));
        },
        Plainly("tombstone 1: it is sealed by SHA256:"),
    ),
    (
        "a tombstone taken away",
        |f| f.sql("DELETE FROM tombstones WHERE number = 1"),
        Plainly("tombstone 1: it is missing"),
    ),
    (
        "the tombstone of a run that lost its first records",
        |f| f.sql("DELETE FROM tombstones WHERE number = 1"),
        Plainly("record 1 of run gone: the record is missing"),
    ),
    (
        "the tombstone of a run without contents",
        |f| f.sql("DELETE FROM tombstones WHERE number = 2"),
        Plainly("record 1 of run bare: "),
    ),
    (
        "the last tombstone",
        |f| f.sql("DELETE FROM tombstones WHERE number = 4"),
        Plainly("of run quiet: what its command said on standard output is missing"),
    ),
    (
        "two tombstones swapped",
        |f| {
            f.sql("UPDATE tombstones SET number = 9 WHERE number = 1; UPDATE tombstones SET number = 1 WHERE number = 2; UPDATE tombstones SET number = 2 WHERE number = 9");
        },
        Plainly("tombstone 1: it is tombstone 2: it was moved"),
    ),
    (
        "a tombstone put at another run",
        |f| f.sql("UPDATE tombstones SET run = 'whole' WHERE number = 1"),
        Plainly("tombstone 1: it is of run gone: it was moved"),
    ),
    (
        "a tombstone used a second time",
        |f| f.sql("INSERT INTO tombstones SELECT 5, 'whole', body, key, signature FROM tombstones WHERE number = 1"),
        Plainly("tombstone 5: it is of run gone: it was moved"),
    ),
    (
        "a run pruned without a tombstone",
        |f| {
            let (number, length) = (f.number("whole"), f.rows("whole").len());
            f.sql(&format!("DELETE FROM events WHERE id >> 32 = {number} AND id < {number} * (1 << 32) + {length}"));
            f.sql("UPDATE events SET payload = '' WHERE id = (SELECT max(id) FROM events)");
        },
        Plainly("record 1 of run whole: the record is missing"),
    ),
    (
        "a run pruned with a tombstone of the forger's",
        |f| own_tombstone(f, "whole", "gone"),
        Plainly("tombstone 5: it is sealed by SHA256:"),
    ),
    (
        "the content of a record of a whole run",
        |f| f.set("whole", 2, "payload = ''"),
        Plainly("record 2 of run whole: "),
    ),
    (
        "the content of another record than those that were pruned",
        |f| f.set("form", 2, "payload = ''"),
        Plainly("run form: what is left of its records is not what tombstone 3 left"),
    ),
    (
        "a record of a run whose form was pruned",
        |f| f.set("form", 2, "payload = replace(payload, 'Erika', 'Maria')"),
        Plainly("record 2 of run form: "),
    ),
    (
        "the hash of a record without content",
        |f| f.set("bare", 3, "hash = upper(hash)"),
        Plainly("run bare: what is left"),
    ),
    ("its time", |f| f.set("bare", 3, "at_ms = at_ms + 1"), Plainly("run bare: what is left")),
    ("its kind", |f| f.set("bare", 3, "kind = 'attempt_failed'"), Plainly("run bare: what is left")),
    (
        "a record without content taken away",
        |f| {
            let id = f.id("bare", 4);
            f.sql(&format!("DELETE FROM events WHERE id = {id}"));
        },
        Plainly("record 4 of run bare: the record is missing"),
    ),
    (
        "the hash of the record that stayed",
        |f| {
            let number = f.number("gone");
            f.sql(&format!("UPDATE events SET hash = upper(hash) WHERE id >> 32 = {number}"));
        },
        Plainly("run gone: it is not the latest record that tombstone 1 left"),
    ),
    (
        "the same, without the anchor beside the file",
        |f| {
            let number = f.number("gone");
            f.sql(&format!("UPDATE events SET hash = upper(hash) WHERE id >> 32 = {number}"));
            f.drop_anchor();
        },
        Plainly("of run gone: it is not the latest record that tombstone 1 left"),
    ),
    (
        "the time of the record that stayed",
        |f| {
            let number = f.number("gone");
            f.sql(&format!("UPDATE events SET at_ms = at_ms - 1 WHERE id >> 32 = {number}"));
        },
        Plainly("of run gone: it is not the latest record that tombstone 1 left"),
    ),
    ("what was pruned, put back", |f| bring_back(f, "gone"), Plainly("it is there although tombstone 1 left")),
    (
        "contents put back",
        |f| bring_back(f, "bare"),
        Plainly("run bare: what is left of its records is not what tombstone 2 left"),
    ),
    (
        "a record behind what was pruned",
        |f| {
            let number = f.number("gone");
            f.sql(&format!("INSERT INTO events SELECT id + 1, at_ms, generation, kind, '{{\"kind\":\"run_timed_out\"}}', hash FROM events WHERE id >> 32 = {number}"));
        },
        Plainly("of run gone: "),
    ),
    (
        "a seal of a pruned run taken away",
        |f| f.sql("DELETE FROM seals WHERE run = 'gone' AND seq = (SELECT min(seq) FROM seals WHERE run = 'gone')"),
        Plainly("run gone: it has 1 seals, and tombstone 1 left 2"),
    ),
    (
        "a seal of a pruned run changed",
        |f| f.sql("UPDATE seals SET hash = upper(hash) WHERE run = 'gone'"),
        Plainly("of run gone: its seal does not hold"),
    ),
    (
        "the outcome in the list of runs",
        |f| f.sql("UPDATE runs SET outcome = 'failed' WHERE run = 'gone'"),
        Plainly("run gone: the list of runs"),
    ),
    (
        "a run that is listed as pruned",
        |f| f.sql("UPDATE runs SET pruned = 1 WHERE run = 'whole'"),
        Plainly("run whole: the list of runs"),
    ),
    (
        "a run that is not listed as pruned",
        |f| f.sql("UPDATE runs SET pruned = NULL WHERE run = 'bare'"),
        Plainly("run bare: the list of runs"),
    ),
    (
        "what a command of a whole run said",
        |f| f.sql("DELETE FROM transcripts"),
        Plainly("of run whole: what its command said on standard output is missing"),
    ),
    (
        "a pruned run as if it had never been, with the last tombstone",
        |f| {
            f.sql("DELETE FROM tombstones WHERE number = 4");
            f.put("quiet", &[]);
            f.sql("DELETE FROM runs WHERE run = 'quiet'; DELETE FROM seals WHERE run = 'quiet'");
            f.drop_anchor();
        },
        With(ANCHOR, "tombstone 4: it is missing: it was noted elsewhere"),
    ),
    (
        "a pruned run as if it had never been, but for its tombstone",
        |f| forget(f, "gone"),
        Plainly("run gone: the run is gone although tombstone 1 left record "),
    ),
    (
        "the same of a run without contents",
        |f| forget(f, "bare"),
        Plainly("run bare: the run is gone although tombstone 2 left record "),
    ),
    (
        "the same of a run that only lost its texts",
        |f| forget(f, "quiet"),
        Plainly("run quiet: the run is gone although tombstone 4 left record "),
    ),
    (
        "the end of a run that lost its texts",
        |f| {
            let mut rows = f.rows("quiet");
            rows.pop();
            f.put("quiet", &rows);
            f.sql(&format!("DELETE FROM seals WHERE run = 'quiet' AND seq > {}", rows.len()));
            f.sql("UPDATE runs SET outcome = NULL WHERE run = 'quiet'");
            f.drop_anchor();
        },
        Plainly("of run quiet: it is not the record that tombstone 4 left"),
    ),
    (
        "the whole store as it was before it was pruned",
        |f| f.put_older_back(),
        With(ANCHOR, "an older copy was put back"),
    ),
];

//! Every way to change what a store says of its runs that we could think of: each is found and named, or said not to be without an anchor.
//!
//! One store is made by the real program: a run that ended, one with a person's word and one whose driver was killed. Each case copies it, changes
//! the copy as somebody would who can write the file, and asks `piton audit verify`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, Row as _, SqliteConnection};
use tokio::runtime::Runtime;

use super::cli::{Desk, Said};
use super::journal_drivers::Post;
use super::support::postgres::PrivatePostgres;

mod cases;
mod pruned;
mod stores;

const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// The run that ended.
const ENDED: &str = "ended";
/// The run whose driver was killed.
const OPEN: &str = "open";

/// The store that is tampered with, and what an auditor had noted of it.
struct Scene {
    desk: Desk,
    /// The store before the second run was there.
    older: tempfile::TempDir,
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().expect("cp is there");
    assert!(status.success());
}

fn scene() -> Scene {
    let desk = Desk::new();
    let older = tempfile::tempdir().expect("a folder");
    set_out(&desk, &mut |args| desk.command(args), &mut || copy(&desk.path(".piton"), older.path()));
    Scene { desk, older }
}

/// Makes the runs by `command`; calls `keep_older` before they go on.
fn set_out(desk: &Desk, command: &mut dyn FnMut(&[&str]) -> Command, keep_older: &mut dyn FnMut()) {
    desk.runbook(
        "job",
        "params: { amount: { type: integer, default: 1 } }
steps:
  - { id: say, exec: { argv: [echo, 'forty two'] } }
  - { id: maybe, when: 'params.amount > 1', needs: [say], exec: { argv: ['true'] } }
  - { id: ask, needs: [say], approval: { prompt: 'Sure?' } }
  - { id: last, needs: [ask], exec: { argv: ['true'] } }
",
    );
    desk.runbook("long", "steps:\n  - { id: a, exec: { argv: ['true'] } }\n  - { id: b, needs: [a], exec: { shell: 'touch there; sleep 600' } }\n");
    let mut piton = |args: &[&str]| Said::from(command(args).output().expect("the program starts"));
    piton(&["run", "job.yaml", "--run-id", ENDED]).exits(6);
    keep_older();
    piton(&["approve", ENDED, "ask", "--as", "eve", "--comment", "fine"]).exits(0);
    piton(&["resume", ENDED]).exits(0);
    piton(&["run", "job.yaml", "--run-id", "other"]).exits(6);
    let args = ["run", "long.yaml", "--run-id", OPEN];
    let mut driver = command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    desk.wait_for("there");
    driver.kill().expect("SIGKILL");
    driver.wait().expect("it ends");
    let heads = Said::from(command(&["audit", "head", "--all"]).output().expect("the program starts")).exits(0).out;
    desk.write("anchors.jsonl", &heads);
    std::fs::copy(desk.path(".piton/keys/seal.pub"), desk.path("auditor.pub")).expect("is there");
}

/// A record as it lies in the file.
#[derive(Clone)]
struct Row {
    at_ms: i64,
    generation: i64,
    kind: String,
    payload: String,
    hash: String,
}

/// A copy of the store in the hands of somebody who can write it.
struct Forger<'s> {
    scene: &'s Scene,
    folder: tempfile::TempDir,
    db: Option<SqliteConnection>,
    runtime: Runtime,
}

impl<'s> Forger<'s> {
    fn new(scene: &'s Scene) -> Self {
        Self::in_folder(scene, &scene.desk.path(".piton"))
    }

    /// The same with a copy of another folder.
    fn in_folder(scene: &'s Scene, from: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        copy(from, folder.path());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut forger = Self { scene, folder, db: None, runtime };
        forger.open();
        forger
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&mut self) {
        let address = format!("sqlite://{}", self.path("piton.db").display());
        self.db = Some(self.runtime.block_on(SqliteConnection::connect(&address)).expect("opens"));
    }

    fn close(&mut self) {
        if let Some(db) = self.db.take() {
            self.runtime.block_on(db.close()).expect("closes");
        }
    }

    /// Puts an older copy in the place of the whole store.
    fn put_older_back(&mut self) {
        self.close();
        for name in ["piton.db", "piton.db-wal", "piton.db-shm", "piton.db-anchor"] {
            let _ = std::fs::remove_file(self.path(name));
        }
        copy(self.scene.older.path(), self.folder.path());
        self.open();
    }

    fn sql(&mut self, text: &str) {
        let db = self.db.as_mut().expect("is open");
        self.runtime.block_on(sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned())).execute(db)).expect(text);
    }

    fn number(&mut self, run: &str) -> i64 {
        let db = self.db.as_mut().expect("is open");
        let query = sqlx::query_scalar("SELECT number FROM runs WHERE run = ?").bind(run.to_owned());
        self.runtime.block_on(query.fetch_one(db)).expect("is there")
    }

    /// `SET` of one record, counted from 1; from the end when negative.
    fn set(&mut self, run: &str, seq: i64, set: &str) {
        let id = self.id(run, seq);
        self.sql(&format!("UPDATE events SET {set} WHERE id = {id}"));
    }

    fn id(&mut self, run: &str, seq: i64) -> i64 {
        let length = i64::try_from(self.rows(run).len()).expect("few");
        let seq = if seq < 0 { length + 1 + seq } else { seq };
        self.number(run) * (1 << 32) + seq
    }

    fn rows(&mut self, run: &str) -> Vec<Row> {
        let number = self.number(run);
        let db = self.db.as_mut().expect("is open");
        let text = "SELECT at_ms, generation, kind, payload, hash FROM events WHERE id >> 32 = ? ORDER BY id";
        let rows = self.runtime.block_on(sqlx::query(text).bind(number).fetch_all(db)).expect("can be read");
        let row = |row: &sqlx::sqlite::SqliteRow| Row {
            at_ms: row.get(0),
            generation: row.get(1),
            kind: row.get(2),
            payload: row.get(3),
            hash: row.get(4),
        };
        rows.iter().map(row).collect()
    }

    /// Puts other records in the place of a run's, as they are.
    fn put(&mut self, run: &str, rows: &[Row]) {
        let number = self.number(run);
        self.sql(&format!("DELETE FROM events WHERE id >> 32 = {number}"));
        for (seq, row) in (1..).zip(rows) {
            let query = sqlx::query("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)")
                .bind(number * (1 << 32) + seq)
                .bind(row.at_ms)
                .bind(row.generation)
                .bind(row.kind.clone())
                .bind(row.payload.clone())
                .bind(row.hash.clone());
            self.runtime.block_on(query.execute(self.db.as_mut().expect("is open"))).expect("can be written");
        }
    }

    /// Changes the records of a run and computes every hash anew, as the documentation says.
    fn forge(&mut self, run: &str, change: impl FnOnce(&mut Vec<Row>)) {
        let mut rows = self.rows(run);
        change(&mut rows);
        rehash(run, &mut rows);
        self.put(run, &rows);
    }

    /// The anchor beside the file goes, as whoever accepts a loss is told to.
    fn drop_anchor(&mut self) {
        std::fs::remove_file(self.path("piton.db-anchor")).expect("is there");
    }

    /// Seals the last record of a run with a key of the forger's; gives the public key.
    fn seal(&mut self, run: &str) -> String {
        let rows = self.rows(run);
        let last = rows.last().expect("is there");
        let text = format!("piton-seal-v1\n{run}\n{}\n{}\n{}\n", rows.len(), last.hash, last.at_ms);
        let (public, signature) = self.sign("piton-seal", &text);
        let (hash, at_ms) = (&last.hash, last.at_ms);
        self.sql(&format!("DELETE FROM seals WHERE run = '{run}'"));
        self.sql(&format!(
            "INSERT INTO seals VALUES ('{run}', {}, '{hash}', {at_ms}, '{public}', '{signature}')",
            rows.len()
        ));
        public
    }

    /// A key of the forger's, and its signature over a text.
    fn sign(&self, namespace: &str, text: &str) -> (String, String) {
        signed(self.folder.path(), namespace, text)
    }

    fn verify(&mut self, more: &[&str]) -> Said {
        self.close();
        let store = self.path("piton.db");
        let args = [&["--store", store.to_str().expect("plain"), "audit", "verify", "--all"], more].concat();
        self.scene.desk.piton(&args)
    }
}

/// Computes the hash of each record anew, as the documentation says.
fn rehash(run: &str, rows: &mut [Row]) {
    let mut before = FIRST.to_owned();
    for (seq, row) in (1..).zip(rows.iter_mut()) {
        let text = format!(
            "piton-journal-v1\n{before}\n{run}\n{seq}\n{}\n{}\n{}\n{}",
            row.at_ms, row.generation, row.kind, row.payload
        );
        row.hash = format!("{:x}", Sha256::digest(text));
        before.clone_from(&row.hash);
    }
}

/// A public key whose private half lies in `folder` as `forged`, and its signature over a text.
fn signed(folder: &Path, namespace: &str, text: &str) -> (String, String) {
    let key = folder.join("forged");
    if !key.exists() {
        let mut make = Command::new("ssh-keygen");
        make.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&key);
        assert!(make.status().expect("ssh-keygen is there").success());
    }
    let public = std::fs::read_to_string(key.with_extension("pub")).expect("is there").trim().to_owned();
    let file = folder.join("statement");
    std::fs::write(&file, text).expect("can be written");
    let mut sign = Command::new("ssh-keygen");
    sign.args(["-q", "-Y", "sign", "-n", namespace, "-f"]).arg(&key).arg(&file);
    assert!(sign.stderr(Stdio::null()).status().expect("ssh-keygen is there").success());
    let signature = std::fs::read_to_string(folder.join("statement.sig")).expect("was written");
    std::fs::remove_file(folder.join("statement.sig")).expect("was written");
    (public, signature)
}

fn edit(row: &mut Row, change: impl FnOnce(&mut Json)) {
    let mut payload = serde_json::from_str(&row.payload).expect("JSON");
    change(&mut payload);
    row.payload = payload.to_string();
}

/// Starter of the run, changed; every hash anew.
fn other_starter(forger: &mut Forger<'_>) {
    forger.forge(ENDED, |rows| edit(&mut rows[0], |event| event["by"] = json!("local:nobody@there")));
    forger.sql("UPDATE runs SET started_by = 'local:nobody@there' WHERE run = 'ended'");
    forger.drop_anchor();
}

/// Names another key in every record that names one.
fn name_key(rows: &mut [Row], key: &Json) {
    for row in rows {
        edit(row, |event| {
            if event.get("sealed_by").is_some() {
                event["sealed_by"] = key.clone();
            }
        });
    }
}

fn resealed(forger: &mut Forger<'_>) {
    other_starter(forger);
    let key = forger.seal(ENDED);
    forger.forge(ENDED, |rows| name_key(rows, &json!(key)));
    forger.seal(ENDED);
    forger.sql("DELETE FROM seals WHERE run = 'ended' AND seq <> (SELECT max(seq) FROM seals WHERE run = 'ended')");
}

/// The history of a run written anew with a key of the forger's, all of it consistent but for the rests on the way.
fn replaced_key(forger: &mut Forger<'_>) {
    for run in [ENDED, "other", OPEN] {
        let key = forger.seal(run);
        forger.forge(run, |rows| {
            name_key(rows, &json!(key));
            rows.retain(|row| row.kind != "run_finished" || run != ENDED);
        });
        forger.seal(run);
    }
    forger.sql("UPDATE runs SET outcome = NULL WHERE run = 'ended'");
    forger.drop_anchor();
    std::fs::copy(forger.path("forged.pub"), forger.path("keys/seal.pub")).expect("can be replaced");
}

/// Takes the last record away, and its seal.
fn cut(forger: &mut Forger<'_>, run: &str) {
    let mut rows = forger.rows(run);
    rows.pop();
    forger.put(run, &rows);
    let length = rows.len();
    forger.sql(&format!("DELETE FROM seals WHERE run = '{run}' AND seq > {length}"));
    forger.sql(&format!("UPDATE runs SET outcome = NULL WHERE run = '{run}'"));
}

/// What `audit verify --all` comes to.
#[derive(Clone, Copy)]
enum Found {
    /// It says so by itself.
    Plainly(&'static str),
    /// Only with what the auditor kept elsewhere: further arguments, and what it says then.
    With(&'static [&'static str], &'static str),
}
use Found::{Plainly, With};

const ANCHOR: &[&str] = &["--anchor", "anchors.jsonl"];
const KEY: &[&str] = &["--key", "auditor.pub"];

type Case = (&'static str, fn(&mut Forger<'_>), Found);

fn judge(cases: &[Case]) {
    judge_in(&scene(), cases);
}

fn judge_in(scene: &Scene, cases: &[Case]) {
    for (name, tamper, found) in cases {
        let mut forger = Forger::new(scene);
        tamper(&mut forger);
        let said = forger.verify(&[]);
        let (said, wanted) = match found {
            Plainly(text) => (said, text),
            With(more, text) => {
                assert_eq!(said.code, 0, "{name}: is seen by itself after all: {}", said.err);
                (forger.verify(more), text)
            }
        };
        assert!(
            said.code != 0 && said.err.contains(wanted),
            "{name}: exit code {}, {}{}",
            said.code,
            said.out,
            said.err
        );
    }
}

#[test]
fn nothing_is_wrong_with_what_nobody_touched() {
    let scene = scene();
    let said = Forger::new(&scene).verify(&[ANCHOR, KEY].concat()).exits(0);
    assert_eq!(said.out.matches("all as they were written").count(), 3, "{}", said.out);
    assert_eq!(said.out.matches("as it should be").count(), 2, "{}", said.out);
    assert!([cases::OF_RECORDS, cases::OF_RUNS, cases::OF_FORGERS, cases::OF_ENDS].concat().len() >= 40);
}

#[test]
fn changed_records_are_named() {
    judge(cases::OF_RECORDS);
}

#[test]
fn changed_runs_and_seals_are_named() {
    judge(cases::OF_RUNS);
}

#[test]
fn whoever_computes_every_hash_anew_still_has_no_key() {
    judge(cases::OF_FORGERS);
}

#[test]
fn a_lost_end_is_named_or_needs_an_anchor() {
    judge(cases::OF_ENDS);
}

#[test]
fn what_is_done_to_a_pruned_store_is_named() {
    let scene = pruned::scene();
    let said = Forger::new(&scene).verify(&[ANCHOR, KEY].concat()).exits(0);
    assert_eq!(said.out.matches("as it should be").count(), 5, "{}", said.out);
    assert!(said.out.contains("4 tombstones, sealed as they should be"), "{}", said.out);
    judge_in(&scene, pruned::CASES);
}

#[test]
fn ssh_keygen_takes_a_seal_for_what_it_is() {
    let scene = scene();
    let mut forger = Forger::new(&scene);
    let query =
        sqlx::query("SELECT seq, hash, at_ms, signature FROM seals WHERE run = 'ended' ORDER BY seq DESC LIMIT 1");
    let row = forger.runtime.block_on(query.fetch_one(forger.db.as_mut().expect("is open"))).expect("a seal");
    let (seq, hash, at_ms): (i64, String, i64) = (row.get(0), row.get(1), row.get(2));
    std::fs::write(forger.path("sig"), row.get::<String, _>(3)).expect("can be written");
    let public = std::fs::read_to_string(forger.path("keys/seal.pub")).expect("is there");
    std::fs::write(forger.path("signers"), format!("piton {public}")).expect("can be written");
    for (statement, holds) in [
        (format!("piton-seal-v1\nended\n{seq}\n{hash}\n{at_ms}\n"), true),
        (format!("piton-seal-v1\nended\n{}\n{hash}\n{at_ms}\n", seq - 1), false),
    ] {
        std::fs::write(forger.path("statement"), statement).expect("can be written");
        let mut verify = Command::new("ssh-keygen");
        verify.args(["-Y", "verify", "-n", "piton-seal", "-I", "piton", "-f"]).arg(forger.path("signers"));
        verify.arg("-s").arg(forger.path("sig"));
        verify.stdin(std::fs::File::open(forger.path("statement")).expect("is there"));
        let output = verify.output().expect("ssh-keygen is there");
        assert_eq!(output.status.success(), holds, "{output:?}");
    }
}

const WAITING: &str = "steps:\n  - { id: ask, approval: { prompt: 'Sure?' } }\n";

#[test]
fn only_who_drives_a_run_needs_the_key() {
    let desk = Desk::new();
    desk.runbook("job", WAITING);
    desk.piton(&["run", "job.yaml", "--run-id", "r"]).exits(6);
    let key = desk.path(".piton/keys/seal");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("is ours");
    for looks in [&["show", "r"][..], &["runs"], &["audit", "r"], &["audit", "verify", "r"], &["audit", "head"]] {
        desk.piton(looks).exits(0);
    }
    desk.piton(&["approve", "r", "ask", "--as", "eve"]).exits(0);
    let refused = desk.piton(&["resume", "r"]).exits(2);
    assert!(refused.err.contains("chmod 600"), "{}", refused.err);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("is ours");
    desk.piton(&["resume", "r"]).exits(0);
}

#[test]
fn drivers_of_a_shared_store_seal_with_keys_of_their_own() {
    let url = PrivatePostgres::start().create_database("shared_seals");
    let posts = [Post::at(url.clone()), Post::at(url)];
    posts[0].desk.runbook("job", WAITING);
    posts[0].piton(&["run", "job.yaml", "--run-id", "r"]).exits(6);
    posts[1].piton(&["approve", "r", "ask", "--as", "eve"]).exits(0);
    posts[1].piton(&["resume", "r"]).exits(0);
    let keys = posts.each_ref().map(|post| post.desk.path(".piton/keys/seal.pub").display().to_string());
    for post in &posts {
        post.verify("r");
        let both = ["audit", "verify", "r", "--key", &keys[0], "--key", &keys[1]];
        assert!(post.piton(&both).exits(0).out.contains("as it should be"));
        let one = post.piton(&["audit", "verify", "r", "--key", &keys[0]]).exits(1);
        assert!(one.err.contains("which you do not trust"), "{}", one.err);
    }
}

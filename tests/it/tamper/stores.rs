//! The eight plain ways to lie, each done to a run that ended and to one whose driver was killed, in a file and on a server.

use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::*;

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// What somebody who can write a store does to it.
trait Hand {
    fn rows(&mut self, run: &str) -> Vec<Row>;
    /// Puts other records in the place of a run's, as they are.
    fn put(&mut self, run: &str, rows: &[Row]);
    /// Does something to the table of seals, which is `{seals}`.
    fn seals(&mut self, text: &str);
    /// A key of the forger's, and its signature over a text.
    fn sign(&self, text: &str) -> (String, String);
    /// Puts the store back as it was before the run was there.
    fn roll_back(&mut self);
    /// Takes away what notes beside the store how far it came.
    fn drop_notes(&mut self);
    fn verify(&mut self, more: &[&str]) -> Said;
}

impl Hand for Forger<'_> {
    fn rows(&mut self, run: &str) -> Vec<Row> {
        Forger::rows(self, run)
    }

    fn put(&mut self, run: &str, rows: &[Row]) {
        Forger::put(self, run, rows);
    }

    fn seals(&mut self, text: &str) {
        self.sql(&text.replace("{seals}", "seals"));
    }

    fn sign(&self, text: &str) -> (String, String) {
        Forger::sign(self, "piton-seal", text)
    }

    fn roll_back(&mut self) {
        self.close();
        for name in ["piton.db", "piton.db-wal", "piton.db-shm", "piton.db-anchor"] {
            let _ = std::fs::remove_file(self.path(name));
        }
        copy(self.scene.older.path(), self.folder.path());
        self.open();
    }

    fn drop_notes(&mut self) {
        self.drop_anchor();
    }

    fn verify(&mut self, more: &[&str]) -> Said {
        Forger::verify(self, &[KEY, more].concat())
    }
}

/// A store on a server, and what it was before its runs went on.
struct Served {
    post: Post,
    name: String,
    older: String,
}

impl Served {
    fn new() -> Self {
        let name = "tamper_scene".to_owned();
        let post = Post::at(PrivatePostgres::start().create_database(&name));
        let older = "tamper_older".to_owned();
        set_out(&post.desk, &mut |args| post.command(args), &mut || {
            PrivatePostgres::start().copy_database(&name, &older);
        });
        Self { post, name, older }
    }
}

/// A copy of the store on the server in the hands of somebody who can write it.
struct Intruder<'s> {
    served: &'s Served,
    name: String,
    db: Option<PgConnection>,
    runtime: Runtime,
    keys: tempfile::TempDir,
}

impl<'s> Intruder<'s> {
    fn new(served: &'s Served) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let keys = tempfile::tempdir().expect("a folder");
        let mut intruder = Self { served, name: String::new(), db: None, runtime, keys };
        intruder.take(&served.name);
        intruder
    }

    fn take(&mut self, from: &str) {
        self.close();
        self.name = format!("tampered_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let url = PrivatePostgres::start().copy_database(from, &self.name);
        self.db = Some(self.runtime.block_on(PgConnection::connect(&url)).expect("connects"));
    }

    fn close(&mut self) {
        if let Some(db) = self.db.take() {
            self.runtime.block_on(db.close()).expect("closes");
        }
    }

    fn sql(&mut self, text: &str) {
        let db = self.db.as_mut().expect("is open");
        self.runtime.block_on(sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(db)).expect(text);
    }
}

impl Hand for Intruder<'_> {
    fn rows(&mut self, run: &str) -> Vec<Row> {
        let text = "SELECT at_ms, generation, kind, payload, hash FROM piton.events WHERE run = $1 ORDER BY seq";
        let query = sqlx::query(text).bind(run.to_owned()).fetch_all(self.db.as_mut().expect("is open"));
        let rows = self.runtime.block_on(query).expect("can be read");
        let row = |row: &sqlx::postgres::PgRow| Row {
            at_ms: row.get(0),
            generation: row.get(1),
            kind: row.get(2),
            payload: row.get(3),
            hash: row.get(4),
        };
        rows.iter().map(row).collect()
    }

    fn put(&mut self, run: &str, rows: &[Row]) {
        self.sql(&format!("DELETE FROM piton.events WHERE run = '{run}'"));
        for (seq, row) in (1_i64..).zip(rows) {
            let query = sqlx::query("INSERT INTO piton.events (run, seq, at_ms, generation, kind, payload, hash) VALUES ($1, $2, $3, $4, $5, $6, $7)")
                .bind(run.to_owned())
                .bind(seq)
                .bind(row.at_ms)
                .bind(row.generation)
                .bind(row.kind.clone())
                .bind(row.payload.clone())
                .bind(row.hash.clone());
            self.runtime.block_on(query.execute(self.db.as_mut().expect("is open"))).expect("can be written");
        }
    }

    fn seals(&mut self, text: &str) {
        self.sql(&text.replace("{seals}", "piton.seals"));
    }

    fn sign(&self, text: &str) -> (String, String) {
        signed(self.keys.path(), "piton-seal", text)
    }

    fn roll_back(&mut self) {
        self.take(&self.served.older);
    }

    fn drop_notes(&mut self) {}

    fn verify(&mut self, more: &[&str]) -> Said {
        let store = PrivatePostgres::start().address(&self.name);
        let args = [&["--store", &store, "audit", "verify", "--all"], KEY, more].concat();
        self.served.post.desk.piton(&args)
    }
}

/// Computes every hash of a run anew.
fn chained(run: &str, mut rows: Vec<Row>) -> Vec<Row> {
    rehash(run, &mut rows);
    rows
}

/// Each way, what it does to a run (`other` is another one), and whether it is seen without what was noted elsewhere.
type Way = (&'static str, fn(&mut dyn Hand, &str, &str), bool);

const WAYS: &[Way] = &[
    (
        "a flipped bit",
        |hand, run, _| {
            let mut rows = hand.rows(run);
            let payload = rows[1].payload.clone().replacen("\"a", "\"c", 1).replacen("\"s", "\"r", 1);
            assert_ne!(payload, rows[1].payload);
            rows[1].payload = payload;
            hand.put(run, &rows);
        },
        true,
    ),
    (
        "a record deleted",
        |hand, run, _| {
            let mut rows = hand.rows(run);
            rows.remove(1);
            hand.put(run, &rows);
        },
        true,
    ),
    (
        "a record inserted",
        |hand, run, _| {
            let mut rows = hand.rows(run);
            rows.insert(1, rows[1].clone());
            hand.put(run, &rows);
        },
        true,
    ),
    (
        "two records in another order",
        |hand, run, _| {
            let mut rows = hand.rows(run);
            rows.swap(1, 2);
            hand.put(run, &rows);
        },
        true,
    ),
    (
        "two runs swapped",
        |hand, run, other| {
            let (one, two) = (hand.rows(run), hand.rows(other));
            hand.put(run, &two);
            hand.put(other, &one);
        },
        true,
    ),
    (
        "the history written anew and sealed with another key",
        |hand, run, _| {
            let mut rows = hand.rows(run);
            edit(&mut rows[0], |event| event["by"] = json!("local:nobody@there"));
            let (key, _) = hand.sign("");
            name_key(&mut rows, &json!(key));
            let rows = chained(run, rows);
            hand.put(run, &rows);
            let last = rows.last().expect("is there");
            let text = format!("piton-seal-v1\n{run}\n{}\n{}\n{}\n", rows.len(), last.hash, last.at_ms);
            let (key, signature) = hand.sign(&text);
            hand.seals(&format!("DELETE FROM {{seals}} WHERE run = '{run}'"));
            hand.seals(&format!(
                "INSERT INTO {{seals}} VALUES ('{run}', {}, '{}', {}, '{key}', '{signature}')",
                rows.len(),
                last.hash,
                last.at_ms
            ));
            hand.drop_notes();
        },
        true,
    ),
    (
        "the end cut off, with its seals and what noted it",
        |hand, run, _| {
            let mut rows = hand.rows(run);
            rows.pop();
            hand.put(run, &rows);
            hand.seals(&format!("DELETE FROM {{seals}} WHERE run = '{run}' AND seq > {}", rows.len()));
            hand.drop_notes();
        },
        false,
    ),
    ("the whole store rolled back", |hand, _, _| hand.roll_back(), false),
];

fn try_all<H: Hand>(store: &str, mut fresh: impl FnMut() -> H) {
    for run in [ENDED, OPEN] {
        for (name, lie, is_seen) in WAYS {
            let mut hand = fresh();
            lie(&mut hand, run, "other");
            let said = hand.verify(&[]);
            // The list of runs, which is read first, may tell of a lost end as well.
            let is_lost_end = name.starts_with("the end") && run == ENDED;
            let said = if *is_seen || is_lost_end {
                said
            } else {
                assert_eq!(said.code, 0, "{name}, {run}, {store}: is seen by itself after all: {}", said.err);
                hand.verify(ANCHOR)
            };
            let wanted = if name.contains("rolled back") { "an older copy was put back" } else { run };
            assert!(said.code != 0 && said.err.contains(wanted), "{name}, {run}, {store}: {} {}", said.out, said.err);
        }
    }
}

#[test]
fn every_plain_lie_is_named_in_a_file() {
    let scene = scene();
    let said = Hand::verify(&mut Forger::new(&scene), ANCHOR).exits(0);
    assert_eq!(said.out.matches("all as they were written").count(), 3, "{}", said.out);
    try_all("in a file", || Forger::new(&scene));
}

#[test]
fn every_plain_lie_is_named_on_a_server() {
    let served = Served::new();
    let said = Intruder::new(&served).verify(ANCHOR).exits(0);
    assert_eq!(said.out.matches("all as they were written").count(), 3, "{}", said.out);
    try_all("on a server", || Intruder::new(&served));
}

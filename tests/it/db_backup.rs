//! `db.backup` and `db.restore` with the engines' own tools: round trips, damage, what is in the way, drivers that are killed, and no
//! password where others could see it.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use piton::transfer::{Engine, sqlite_address};
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, MySqlConnection, PgConnection};

use super::cli::{Desk, state};
use crate::support::databases::{ENGINES, Fresh};
use crate::support::mariadb::PrivateMariadb;

const MAP: &str = "apiVersion: piton/v1\nkind: Mapping\nname: m\nsets: { all: [item, part] }\n";
const SECRET: &str = "geheim-4711";

/// Tables with rows, and what else a database has.
fn content(engine: Engine) -> Vec<&'static str> {
    let mut all = match engine {
        Engine::Sqlite => vec![
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, data BLOB, amount REAL)",
            "CREATE TABLE part (item INTEGER NOT NULL REFERENCES item(id), n INTEGER NOT NULL, PRIMARY KEY (item, n))",
            "INSERT INTO item VALUES (1, 'eins; -- \\ '' \"', x'00ff0a', 0.1), (2, 'zwei' || char(10) || 'ü', NULL, -1e300)",
        ],
        Engine::Postgres => vec![
            "CREATE TABLE item (id bigserial PRIMARY KEY, name text NOT NULL, data bytea, amount numeric(20, 5))",
            "CREATE TABLE part (item bigint NOT NULL REFERENCES item(id), n integer NOT NULL, PRIMARY KEY (item, n))",
            "INSERT INTO item (name, data, amount) VALUES ('eins; -- \\ '' \"', '\\x00ff0a', 0.1), (E'zwei\\nü', NULL, -123456789.12345)",
            "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER touched BEFORE INSERT ON part FOR EACH ROW EXECUTE FUNCTION touch()",
        ],
        Engine::Mariadb => vec![
            "CREATE TABLE item (id BIGINT PRIMARY KEY AUTO_INCREMENT, name TEXT NOT NULL, data BLOB, amount DECIMAL(20, 5))",
            "CREATE TABLE part (item BIGINT NOT NULL, n INT NOT NULL, PRIMARY KEY (item, n), FOREIGN KEY (item) REFERENCES item(id))",
            "INSERT INTO item (name, data, amount) VALUES ('eins; -- \\\\ '' \"', x'00ff0a', 0.1), ('zwei\\nü', NULL, -123456789.12345)",
            "CREATE TRIGGER touched BEFORE INSERT ON part FOR EACH ROW SET NEW.n = NEW.n",
            "CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN 2 * n",
        ],
    };
    all.push("INSERT INTO part VALUES (1, 1), (1, 2), (2, 1)");
    all.push("CREATE VIEW named AS SELECT i.name, p.n FROM item i JOIN part p ON p.item = i.id");
    all
}

async fn filled(engine: Engine, folder: &Path) -> Fresh {
    let fresh = Fresh::new(engine, "bak", folder).await;
    for sql in content(engine) {
        fresh.run(sql).await;
    }
    fresh
}

/// The address of the same database with a password in it.
async fn with_password(fresh: &Fresh) -> String {
    match fresh.database.engine() {
        Engine::Sqlite => fresh.url.clone(),
        // These servers trust whoever comes.
        Engine::Postgres => fresh.url.replacen("postgres@", &format!("postgres:{SECRET}@"), 1),
        Engine::Mariadb => {
            let user = Fresh::name("bak");
            fresh
                .run(&format!(
                    "CREATE USER {user}@localhost IDENTIFIED BY '{SECRET}'; GRANT ALL ON *.* TO {user}@localhost"
                ))
                .await;
            fresh.url.replacen("root@", &format!("{user}:{SECRET}@"), 1)
        }
    }
}

fn desk(old: &str, new: &str) -> Desk {
    let desk = Desk::new();
    desk.write(
        "site.yaml",
        &format!("apiVersion: piton/v1\nkind: Site\nname: here\ndatabases: {{ old: {{ url: '{old}' }}, new: {{ url: '{new}' }} }}\n"),
    );
    desk.write("map.yaml", MAP);
    desk.runbook("backup", "steps:\n  - id: save\n    db.backup: { database: old, to: saved/old }\n");
    for (name, more) in [("restore", ""), ("replace", ", replace: true")] {
        let steps = format!(
            "steps:\n  - id: load\n    db.restore: {{ database: new, from: saved/old{more} }}\n  - id: same\n    needs: [load]\n    \
             db.compare: {{ from: old, to: new, map: map.yaml, tables: all }}\n"
        );
        desk.runbook(name, &steps);
    }
    desk
}

fn run(desk: &Desk, name: &str, code: i32) -> String {
    let said = desk.piton(&["run", "--site", "site.yaml", &format!("{name}.yaml")]).exits(code);
    format!("{}{}", said.out, said.err)
}

/// A place for a copy: SQLite's is not there yet.
async fn empty(engine: Engine, folder: &Path) -> (String, Option<Fresh>) {
    if engine == Engine::Sqlite {
        return (sqlite_address(&folder.join("new.db")), None);
    }
    let fresh = Fresh::new(engine, "bak", folder).await;
    (fresh.url.clone(), Some(fresh))
}

fn data_file(desk: &Desk) -> PathBuf {
    let output = |name: &str| desk.path("saved/old").join(name);
    ["data.dump", "data.sql", "data.db"].map(output).into_iter().find(|path| path.exists()).expect("a backup")
}

#[tokio::test]
async fn what_was_backed_up_is_restored_as_it_was_on_every_engine() {
    let folder = tempfile::tempdir().expect("a temp dir");
    for engine in ENGINES {
        let old = filled(engine, folder.path()).await;
        let (new, _) = empty(engine, folder.path()).await;
        let desk = desk(&with_password(&old).await, &new);
        run(&desk, "backup", 0);
        let outputs = desk.show()["steps"][0]["outputs"].clone();
        let manifest = std::fs::read_to_string(desk.path("saved/old/manifest.json")).expect("a manifest");
        let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
        assert_eq!((&outputs["bytes"], &outputs["sha256"]), (&manifest["bytes"], &manifest["sha256"]), "{engine}");
        let bytes = std::fs::metadata(data_file(&desk)).expect("a file").len();
        assert_eq!(manifest["bytes"].as_u64(), Some(bytes), "{engine}");
        assert_eq!(manifest["tables"], serde_json::json!(["item", "part"]), "{engine}");
        run(&desk, "restore", 0);
        let restored = Fresh::at(new).await;
        assert_eq!(restored.value("SELECT count(*) FROM named").await, 3, "{engine}: the view is there");
        assert_eq!(restored.value("SELECT name FROM item WHERE id = 2").await, "zwei\nü", "{engine}");
        match engine {
            Engine::Mariadb => {
                let marks = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'piton_restore'";
                assert_eq!(restored.value(marks).await, 0, "no mark is left");
                assert_eq!(restored.value("SELECT twice(21)").await, 42);
            }
            Engine::Postgres => assert_eq!(restored.value("SELECT nextval('item_id_seq')").await, 3),
            Engine::Sqlite => {}
        }
        assert!(!folder.path().join(".piton").exists());
        let left: Vec<_> = std::fs::read_dir(desk.path(".piton/tools")).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{engine}: what the tools were told is gone: {left:?}");
        let said = run(&desk, "backup", 4);
        assert!(said.contains("is there already"), "{engine}: {said}");
    }
}

#[tokio::test]
async fn a_damaged_backup_is_refused_before_anything_is_changed() {
    let folder = tempfile::tempdir().expect("a temp dir");
    for engine in ENGINES {
        let old = filled(engine, folder.path()).await;
        let (new, fresh) = empty(engine, folder.path()).await;
        let desk = desk(&old.url, &new);
        run(&desk, "backup", 0);
        let file = data_file(&desk);
        let whole = std::fs::read(&file).expect("a file");
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 1;
        std::fs::write(&file, &bytes).expect("written");
        assert!(run(&desk, "restore", 4).contains("SHA-256"), "{engine}");
        std::fs::write(&file, &whole[..whole.len() - 1]).expect("written");
        assert!(run(&desk, "restore", 4).contains("its manifest says"), "{engine}");
        match fresh {
            None => assert!(!folder.path().join("new.db").exists()),
            Some(fresh) => {
                let tables = piton::transfer::objects(&fresh.database).await.expect("told");
                assert_eq!(tables, Vec::<String>::new(), "{engine}");
            }
        }
        std::fs::write(&file, &whole).expect("written");
        run(&desk, "restore", 0);
        let _ = std::fs::remove_file(folder.path().join("new.db"));
    }
}

#[tokio::test]
async fn a_database_that_holds_something_is_left_alone_unless_it_may_be_replaced() {
    let folder = tempfile::tempdir().expect("a temp dir");
    for engine in ENGINES {
        let old = filled(engine, folder.path()).await;
        let new = Fresh::new(engine, "bak", folder.path()).await;
        new.run("CREATE TABLE item (id INTEGER PRIMARY KEY)").await;
        new.run("INSERT INTO item VALUES (77)").await;
        let desk = desk(&old.url, &new.url);
        run(&desk, "backup", 0);
        let said = run(&desk, "restore", 4);
        assert!(said.contains("is not empty") && said.contains("item"), "{engine}: {said}");
        assert_eq!(new.value("SELECT max(id) FROM item").await, 77, "{engine}");
        if engine == Engine::Mariadb {
            assert!(run(&desk, "replace", 4).contains("restore into an empty database"));
            assert_eq!(new.value("SELECT max(id) FROM item").await, 77);
            continue;
        }
        if engine == Engine::Sqlite {
            let said = run(&desk, "replace", 4);
            assert!(said.contains("in use") || said.contains("locked"), "this test has it open: {said}");
            new.database.close().await;
        }
        run(&desk, "replace", 0);
        let again = Fresh::at(new.url.clone()).await;
        assert_eq!(again.value("SELECT max(id) FROM item").await, 2, "{engine}");
    }
}

/// A client that holds the tables, so that a tool has to wait.
enum Holder {
    Postgres(PgConnection),
    Mariadb(MySqlConnection),
}

impl Holder {
    async fn open(url: &str) -> Self {
        if url.starts_with("postgres") {
            let options: PgConnectOptions = url.parse().expect("an address");
            return Self::Postgres(options.connect().await.expect("a client may connect"));
        }
        let options: MySqlConnectOptions = url.parse().expect("an address");
        Self::Mariadb(options.connect().await.expect("a client may connect"))
    }

    async fn run(&mut self, sql: &'static str) {
        match self {
            Self::Postgres(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
            Self::Mariadb(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
        }
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// The command lines of all processes that work in the desk's folder or below.
fn commands(desk: &Desk) -> Vec<Vec<String>> {
    let folder = desk.path("");
    let all = procfs::process::all_processes().into_iter().flatten().flatten();
    let here = all.filter(|process| process.cwd().is_ok_and(|place| place.starts_with(&folder)));
    here.filter_map(|process| process.cmdline().ok()).collect()
}

async fn waits_in(desk: &Desk, program: &str) {
    for _ in 0..1_500 {
        if commands(desk).iter().any(|line| line.first().is_some_and(|first| first.ends_with(program))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("`{program}` was not started: {:?}", commands(desk));
}

fn start(desk: &Desk, name: &str) -> Child {
    desk.command(&["run", "--site", "site.yaml", &format!("{name}.yaml")]).spawn().expect("it starts")
}

async fn kill_it(mut run: Child) {
    kill(Pid::from_raw(run.id().cast_signed()), Signal::SIGKILL).expect("it can be killed");
    tokio::task::spawn_blocking(move || run.wait()).await.expect("joined").expect("a status");
}

#[tokio::test]
async fn a_driver_that_is_killed_leaves_nothing_that_passes_for_a_backup() {
    let folder = tempfile::tempdir().expect("a temp dir");
    for (engine, hold, free, program) in [
        (Engine::Postgres, "BEGIN; LOCK TABLE item IN ACCESS EXCLUSIVE MODE", "ROLLBACK", "pg_dump"),
        (Engine::Mariadb, "LOCK TABLES item WRITE", "UNLOCK TABLES", "mariadb-dump"),
    ] {
        let old = filled(engine, folder.path()).await;
        let new = Fresh::new(engine, "bak", folder.path()).await;
        let desk = desk(&with_password(&old).await, &new.url);
        let mut holder = Holder::open(&old.url).await;
        holder.run(hold).await;
        let run_once = start(&desk, "backup");
        waits_in(&desk, program).await;
        let shown = commands(&desk);
        assert!(!format!("{shown:?}").contains(SECRET), "{engine}: {shown:?}");
        assert!(!format!("{shown:?}").contains("password="), "{engine}: {shown:?}");
        kill_it(run_once).await;
        assert!(!desk.path("saved/old").exists(), "{engine}: no folder that passes for a backup");
        holder.run(free).await;
        desk.piton(&["resume", "last", "--site", "site.yaml"]).exits(0);
        assert_eq!(state(&desk.show(), "save"), "succeeded", "{engine}");
        let names: Vec<_> = std::fs::read_dir(desk.path("saved")).expect("a folder").flatten().collect();
        assert_eq!(names.len(), 1, "{engine}: the draft of the killed attempt is gone: {names:?}");
        run(&desk, "restore", 0);
    }
}

#[tokio::test]
async fn a_restore_whose_driver_is_killed_in_the_middle_is_done_once() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let old = filled(Engine::Postgres, folder.path()).await;
    let new = Fresh::new(Engine::Postgres, "bak", folder.path()).await;
    let desk = desk(&old.url, &new.url);
    run(&desk, "backup", 0);
    let mut holder = Holder::open(&new.url).await;
    // Whoever makes the same table waits for the end of this transaction.
    holder.run("BEGIN; CREATE TABLE part (id integer)").await;
    let restore = start(&desk, "restore");
    waits_in(&desk, "pg_restore").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    kill_it(restore).await;
    holder.run("ROLLBACK").await;
    desk.piton(&["resume", "last", "--site", "site.yaml"]).exits(0);
    assert_eq!(state(&desk.show(), "same"), "succeeded");
}

#[tokio::test]
async fn a_half_done_restore_of_mariadb_is_cleared_away_and_done_again() {
    let server = PrivateMariadb::of_its_own();
    let (old, new) = (Fresh::at(server.create_database("old")).await, Fresh::at(server.create_database("new")).await);
    for sql in content(Engine::Mariadb) {
        old.run(sql).await;
    }
    let rows = "INSERT INTO item (name, data) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999) \
                SELECT CONCAT('row ', a.i, '.', b.i), REPEAT('x', 1000) FROM n a JOIN n b WHERE b.i <= 20";
    old.run(rows).await;
    let desk = desk(&old.url, &new.url);
    run(&desk, "backup", 0);
    let mut holder = Holder::open(&new.url).await;
    let restore = start(&desk, "restore");
    let made = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'item'";
    for _ in 0..3_000 {
        if new.value(made).await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Nothing more is written from here on, so that the driver is killed with the restore half done.
    holder.run("FLUSH TABLES WITH READ LOCK").await;
    kill_it(restore).await;
    assert_eq!(new.value("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'piton_restore'").await, 1);
    holder.run("UNLOCK TABLES").await;
    desk.piton(&["resume", "last", "--site", "site.yaml"]).exits(0);
    assert_eq!(state(&desk.show(), "same"), "succeeded");
    assert_eq!(new.value("SELECT COUNT(*) FROM item").await, 19_982);
    // A restore of another step does not touch what is there, marked or not.
    new.run("CREATE TABLE piton_restore (session BIGINT UNSIGNED NOT NULL) COMMENT = 'somebodyelse'").await;
    assert!(run(&desk, "restore", 4).contains("is not empty"));
    assert_eq!(new.value("SELECT COUNT(*) FROM item").await, 19_982);
}

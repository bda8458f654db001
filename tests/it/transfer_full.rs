//! A copy whose target has no room left in every chunk, on every pair of engines: what does not fit is not there by half, the run fails with the
//! engine's own words, and goes on where it was once there is room.
//!
//! The program stands still before it reads a chunk while the room is taken. SQLite: no file of the program may grow any more. PostgreSQL: none
//! of the session that writes. MariaDB: the tables live in one file of a fixed size, which another table fills up.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use piton::transfer::{Binds, Engine, StatementOptions, execute};

use super::support::databases::{Fresh, pairs};
use super::support::mariadb::PrivateMariadb;
use super::support::postgres::{PrivatePostgres, as_postgres};
use super::transfer_faults::{Ground, SITTINGS_MAX, Target, directly};

/// Bytes that a file of PostgreSQL's log takes, and more than any other file has that must go on growing.
const FLOOR: u64 = 16 * 1024 * 1024;
/// Rows of 216 bytes that make a table a little larger than that.
const BALLAST: u64 = 80_000;

/// Lets no file of a process grow beyond so many bytes; false where the process is gone. Only its own user may always do that.
fn limit(mut prlimit: Command, process: &str, bytes: u64) -> bool {
    prlimit.args(["--pid", process]).arg(format!("--fsize={bytes}:{bytes}")).stderr(Stdio::null());
    prlimit.status().expect("prlimit (util-linux) is there").success()
}

/// What a target of each engine needs so that its room can be taken.
async fn prepare(target: &Fresh) {
    match target.database.engine() {
        Engine::Sqlite => {}
        Engine::Postgres => {
            // 37 rows fill a page up to 28 bytes. The last row divides by 0. What was written before it takes its space until a vacuum, and there is none.
            for (table, columns) in [
                ("perf_item", "0, -i, 1 / (i - N), 0, repeat('x', 136), 0, '', ''"),
                ("plain", "-i, 1 / (i - N), repeat('x', 170)"),
            ] {
                target.run(&format!("ALTER TABLE {table} SET (autovacuum_enabled = off)")).await;
                let columns = columns.replace('N', &BALLAST.to_string());
                let sql = format!("INSERT INTO {table} SELECT {columns} FROM generate_series(1, {BALLAST}) AS i");
                let undone = execute(&target.database, &sql, &Binds::new(), StatementOptions::default()).await;
                assert!(undone.is_err_and(|error| error.to_string().contains("zero")));
            }
            assert!(smallest(target).await > FLOOR, "the tables are larger than a file of the log");
        }
        Engine::Mariadb => target.run("CREATE TABLE ballast (text VARCHAR(4000)) ENGINE=InnoDB").await,
    }
}

/// Bytes of the smaller one of PostgreSQL's tables, without a lock of them: the program may stand still with one.
async fn smallest(target: &Fresh) -> u64 {
    let size = "SELECT least((pg_stat_file(pg_relation_filepath('perf_item'))).size, \
                (pg_stat_file(pg_relation_filepath('plain'))).size) AS size";
    target.value(size).await.as_u64().expect("a number of bytes")
}

/// Takes what room there is, while the program stands still.
async fn fill(target: &Fresh, child: &Child) {
    match target.database.engine() {
        Engine::Sqlite => {
            let file = target.url.strip_prefix("sqlite://").expect("a file");
            let log = std::fs::metadata(format!("{file}-wal")).map_or(0, |data| data.len());
            assert!(limit(Command::new("prlimit"), &child.id().to_string(), log), "it stands still");
        }
        Engine::Postgres => {
            let sessions = "SELECT string_agg(pid::text, ' ') AS pids FROM pg_stat_activity \
                            WHERE datname = current_database() AND pid <> pg_backend_pid()";
            let (sessions, size) = (target.value(sessions).await, smallest(target).await);
            // Sessions of the test itself may have ended meanwhile.
            let sessions = sessions.as_str().expect("the copy has a session").split(' ');
            assert!(
                sessions.filter(|session| limit(as_postgres("prlimit"), session, size)).count() > 0,
                "no session was limited"
            );
        }
        Engine::Mariadb => {
            for rows in [400, 40, 1] {
                while ballast(target, rows).await {}
            }
        }
    }
}

/// Whether there was room for so many rows of 4,000 bytes more.
async fn ballast(target: &Fresh, rows: u32) -> bool {
    let sql = format!("INSERT INTO ballast SELECT REPEAT('x', 4000) FROM seq_1_to_{rows}");
    execute(&target.database, &sql, &Binds::new(), StatementOptions::default()).await.is_ok()
}

/// Gives the room back; a limit ends with the session that it was set for.
async fn make_room(target: &Fresh) {
    if target.database.engine() != Engine::Mariadb {
        return;
    }
    target.run("TRUNCATE TABLE ballast").await;
    // The engine frees what was in it in its own time.
    let until = Instant::now() + Duration::from_mins(1);
    while !ballast(target, 100).await {
        assert!(Instant::now() < until, "there is no room");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_target_without_room_in_every_chunk_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let maria = PrivateMariadb::with(&["--innodb-file-per-table=0", "--innodb-data-file-path=ibdata1:24M"]);
    let more = [Target::Keyless, Target::SideBySide].map(|target| ((Engine::Postgres, Engine::Postgres), target));
    for ((from, to), target) in pairs().map(|pair| (pair, Target::Empty)).chain(more) {
        let from = Fresh::new(from, "full", folder.path()).await;
        let to = match to {
            Engine::Mariadb => Fresh::at(maria.create_database(&Fresh::name("full"))).await,
            other => Fresh::new(other, "full", folder.path()).await,
        };
        let ground = Ground::new(from, to, target, directly).await;
        // A journal on a server takes no part in the limits of the program's own files.
        let ground = ground.recorded_in(PrivatePostgres::start().create_database(&Fresh::name("full_store")));
        prepare(&ground.to).await;
        let mut failures = 0;
        for sitting in 0..SITTINGS_MAX {
            let fault = if sitting == 0 { "stop-before-read=1" } else { "stop-before-read=2" };
            let Some(child) = ground.stop_at(fault) else { break };
            fill(&ground.to, &child).await;
            let said = ground.go_on(child);
            make_room(&ground.to).await;
            let words = ["disk I/O error", "is full", "File too large", "No space left"];
            let named = words.iter().any(|words| said.out.contains(words));
            assert!(named || said.code == 0, "{}: {}", ground.what, said.out);
            failures += usize::from(said.code != 0);
        }
        assert!(failures >= target.commits() - 1, "{}: {failures} failures", ground.what);
        ground.finish();
        ground.account().await;
    }
}

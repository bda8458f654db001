//! A copy that is hurt at every chunk, on every pair of engines: the driver is killed, either server is killed and started again, the
//! network breaks or stalls in the middle of a message. Each time somebody resumes the run, as a user would, until
//! it is over; then a comparison finds no difference, sums that know nothing of the copy agree, and no chunk was counted twice.
//!
//! Moments are hit through `PITON_FAULT` and by counting bytes, never by time. `PITON_SWEEP_FULL=1` hits every moment of every chunk with
//! every fault, which takes some minutes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use piton::transfer::{Binds, Copied, Engine, StatementOptions, copied, query};
use serde_json::Value as Json;

use super::cli::{Desk, Said};
use super::support::databases::{ENGINES, Fresh, pairs};
use super::support::mariadb::PrivateMariadb;
use super::support::perf::{self, TOTALLED};
use super::support::postgres::PrivatePostgres;
use super::support::proxy::{Proxy, Toward};

/// Rows of a chunk.
const CHUNK: u64 = 250;
/// Rows of the table that is mapped.
const MAPPED: u64 = 1_100;
/// Rows of the table that is the same on both sides.
const PLAIN: u64 = 900;

const SOURCE: [&str; 2] = [
    "CREATE TABLE perf (entity_id INTEGER NOT NULL, step_start BIGINT NOT NULL, iv INTEGER, handle_s BIGINT, label VARCHAR(200), \
     PRIMARY KEY (entity_id, step_start))",
    "CREATE TABLE plain (id BIGINT NOT NULL PRIMARY KEY, amount BIGINT, text VARCHAR(200))",
];
const TARGET: [&str; 2] = [
    "CREATE TABLE perf_item (entity_id INTEGER NOT NULL, step_start BIGINT NOT NULL, iv INTEGER, handle_s BIGINT, label VARCHAR(200), \
     total BIGINT, src VARCHAR(2) NOT NULL, extra VARCHAR(9) DEFAULT 'none', PRIMARY KEY (entity_id, step_start))",
    "CREATE TABLE plain (id BIGINT NOT NULL PRIMARY KEY, amount BIGINT, text VARCHAR(200))",
];

/// What the target holds before the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing; any key that is there is a mistake.
    Empty,
    /// Every third key with values of its own, which those of the source are added to: what is copied twice counts twice.
    Filled,
    /// Nothing, in tables of PostgreSQL whose keys are built once the rows are there: one is filled by its pages, by several workers.
    Keyless,
    /// As `Filled`, both tables at the same time.
    SideBySide,
}

impl Target {
    /// Rows of a chunk.
    fn chunk(self) -> u64 {
        match self {
            Self::Empty | Self::Filled | Self::SideBySide => CHUNK,
            // A page or two, so that a few remain for everybody, and behind those that were read ahead.
            Self::Keyless => 100,
        }
    }

    fn is_filled(self) -> bool {
        matches!(self, Self::Filled | Self::SideBySide)
    }

    /// The fewest commits that a copy of both tables takes.
    pub(super) fn commits(self) -> usize {
        match self {
            Self::Empty | Self::Filled => 8,
            // Of two connections one may commit while the other stands still.
            Self::Keyless => 11,
            // Each time the other table may have come as far.
            Self::SideBySide => Self::Filled.commits() / 2,
        }
    }

    /// The same where one table does not go on while the other does.
    fn commits_one_by_one(self) -> usize {
        if self == Self::SideBySide { Self::Filled.commits() } else { self.commits() }
    }
}

/// What was added to the values of a row that the target held before.
const HELD: u64 = 1_000_000;

/// A run in a folder of its own, and its two databases by ways that nothing is done to.
pub(super) struct Ground {
    desk: Desk,
    pub(super) from: Fresh,
    pub(super) to: Fresh,
    target: Target,
    begun: std::cell::Cell<bool>,
    /// The store of the run, where it is none of its own.
    store: Option<String>,
    pub(super) what: String,
}

fn every(rows: u64, row: impl Fn(u64) -> String) -> String {
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

impl Ground {
    /// Databases on `servers`, filled, and a runbook that copies one into the other over the addresses that `by` makes of theirs.
    pub(super) async fn new(
        from: Fresh,
        to: Fresh,
        target: Target,
        by: impl Fn(&str, &str) -> (String, String),
    ) -> Self {
        for sql in SOURCE {
            from.run(sql).await;
        }
        for sql in TARGET {
            to.run(sql).await;
        }
        let label = |i: u64| format!("row {i} {}", "x".repeat(usize::try_from(i % 90).expect("small")));
        let perf = every(MAPPED, |i| format!("({}, {}, {i}, {}, '{}')", i % 10, i / 10 * 900, i * 7, label(i)));
        from.run(&format!("INSERT INTO perf VALUES {perf}")).await;
        from.run(&format!(
            "INSERT INTO plain VALUES {}",
            every(PLAIN, |i| format!("({i}, {}, '{}')", i * 3, label(i)))
        ))
        .await;
        if target.is_filled() {
            let held = |i: u64| i.is_multiple_of(3).then_some(i);
            let perf: Vec<String> = (0..MAPPED)
                .filter_map(held)
                .map(|i| format!("({}, {}, {HELD}, {HELD}, 'held', 0, '76', 'own')", i % 10, i / 10 * 900))
                .collect();
            let plain: Vec<String> = (0..PLAIN).filter_map(held).map(|i| format!("({i}, {HELD}, 'held')")).collect();
            to.run(&format!("INSERT INTO perf_item VALUES {}", perf.join(", "))).await;
            to.run(&format!("INSERT INTO plain VALUES {}", plain.join(", "))).await;
        }
        let desk = Desk::new();
        let tables = format!("{TOTALLED}  plain: {{ additive: [amount] }}\n");
        desk.write("map.yaml", &perf::mapping("hurt", "all: [perf, plain]", &tables));
        let (here, there) = by(&from.url, &to.url);
        desk.write(
            "site.yaml",
            &format!("apiVersion: piton/v1\nkind: Site\nname: desk\ndatabases:\n  here: {{ url: '{here}' }}\n  there: {{ url: '{there}' }}\n"),
        );
        let policy = if target.is_filled() { "merge_additive" } else { "fail" };
        let more = match target {
            Target::Keyless => {
                from.run("ANALYZE").await;
                ", indexes: after, parallel: 2"
            }
            Target::SideBySide => ", parallel: 2",
            // Each chunk of both tables has its turn to be hurt.
            Target::Empty | Target::Filled => ", parallel: 1",
        };
        let chunk = target.chunk();
        let mut steps = format!(
            "steps:\n  - id: copy\n    db.copy: {{ from: here, to: there, map: map.yaml, tables: all, chunk_rows: {chunk}, policy: {policy}{more} }}\n"
        );
        if !target.is_filled() {
            steps.push_str(
                "  - { id: same, needs: [copy], db.compare: { from: here, to: there, map: map.yaml, tables: all } }\n",
            );
        }
        desk.runbook("move", &steps);
        let what = format!("{} to {} ({target:?})", from.database.engine(), to.database.engine());
        Self { desk, from, to, target, begun: std::cell::Cell::new(false), store: None, what }
    }

    /// The same with the journal in another store.
    pub(super) fn recorded_in(self, store: String) -> Self {
        Self { store: Some(store), ..self }
    }

    fn piton(&self, args: &[&str]) -> Command {
        // Files that may not grow any more are an error then, no end of the program.
        let mut command = Command::new("sh");
        let program = self.desk.command(args);
        command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(program.get_program()).args(program.get_args());
        command.current_dir(program.get_current_dir().expect("a folder")).stdin(Stdio::null());
        match &self.store {
            Some(store) => command.env("PITON_STORE", store),
            None => command.env_remove("PITON_STORE"),
        };
        command
    }

    fn show(&self) -> Said {
        self.piton(&["show", "r", "--json"]).output().expect("the program starts").into()
    }

    /// The next sitting of the run: its start, or a resume.
    fn start(&self, fault: Option<&str>) -> Child {
        let args: &[&str] = if self.begun.get() {
            &["resume", "r"]
        } else {
            &["--site", "site.yaml", "run", "move.yaml", "--run-id", "r"]
        };
        let mut command = self.piton(args);
        if let Some(fault) = fault {
            command.env("PITON_FAULT", fault);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    }

    fn end(&self, child: Child) -> Said {
        let said: Said = child.wait_with_output().expect("its output").into();
        self.begun.set(self.begun.get() || self.show().code == 0);
        said
    }

    fn sit(&self, fault: Option<&str>) -> Said {
        self.end(self.start(fault))
    }
}

impl Ground {
    /// Waits until the program has stopped itself; false when it ended without.
    fn stopped(child: &mut Child) -> bool {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            if child.try_wait().expect("it is our child").is_some() {
                return false;
            }
            let process = procfs::process::Process::new(pid(child).as_raw());
            if process.and_then(|process| process.stat()).is_ok_and(|stat| stat.state == 'T') {
                return true;
            }
            assert!(Instant::now() < until, "it neither stopped nor ended");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// One sitting that stops at this moment, has `hurt` done to its world, and goes on; false when it never came there.
    fn hurt_at(&self, fault: &str, hurt: impl FnOnce()) -> bool {
        let Some(child) = self.stop_at(fault) else { return false };
        hurt();
        self.go_on(child);
        true
    }

    /// A sitting that has come to this moment and stands still; `None` when it ended well without coming there.
    pub(super) fn stop_at(&self, fault: &str) -> Option<Child> {
        let mut child = self.start(Some(fault));
        if Self::stopped(&mut child) {
            return Some(child);
        }
        self.whole(&self.end(child));
        None
    }

    /// Lets a sitting go on that stands still.
    pub(super) fn go_on(&self, child: Child) -> Said {
        kill(pid(&child), Signal::SIGCONT).expect("it is our child");
        let said = self.end(child);
        assert!([0, 4, 5].contains(&said.code), "{}: {}\n{}\n{}", self.what, said.code, said.out, said.err);
        said
    }

    /// Takes the run to its end, undisturbed.
    pub(super) fn finish(&self) {
        self.whole(&self.sit(None));
    }

    /// A sitting that ended well, or had nothing left to do: a source that is hurt behind its last row is not missed.
    fn whole(&self, said: &Said) {
        let over = said.code == 2 && said.err.contains("is over");
        assert!(said.code == 0 || over, "{}: {}\n{}\n{}", self.what, said.code, said.out, said.err);
    }

    /// What must hold in the end, whatever happened on the way.
    pub(super) async fn account(&self) {
        let what = &self.what;
        let show = self.show().exits(0).json();
        assert_eq!(show["outcome"], "succeeded", "{what}: {show}");
        let sums = [
            (
                "perf",
                "SELECT count(*) AS a, sum(iv) AS b, sum(handle_s) AS c, sum(iv * 2) AS d, sum(entity_id * 7 + step_start) AS e FROM perf",
            ),
            ("plain", "SELECT count(*) AS a, sum(amount) AS b, sum(id) AS c, max(id) AS d, min(id) AS e FROM plain"),
        ];
        let of_target = [
            "SELECT count(*) AS a, sum(iv) AS b, sum(handle_s) AS c, sum(total) AS d, sum(entity_id * 7 + step_start) AS e FROM perf_item",
            "SELECT count(*) AS a, sum(amount) AS b, sum(id) AS c, max(id) AS d, min(id) AS e FROM plain",
        ];
        for ((table, source), target) in sums.into_iter().zip(of_target) {
            let mut wanted = numbers(&self.from, source).await;
            if self.target.is_filled() {
                let held = (wanted[0] + 2) / 3;
                wanted[1] += held * i128::from(HELD);
                if table == "perf" {
                    wanted[2] += held * i128::from(HELD);
                    // Columns that are not added up stay as the target had them.
                    let kept: i128 = (0..i128::from(MAPPED)).filter(|i| i % 3 == 0).map(|i| i * 2).sum();
                    wanted[3] -= kept;
                }
            }
            assert_eq!(numbers(&self.to, target).await, wanted, "{what}: `{table}`");
        }
        self.checkpoints(&copied(&self.to.database, "r/copy").await.expect("is readable"));
        if self.target == Target::Keyless {
            let keys = "SELECT (SELECT count(*) FROM pg_index WHERE indisprimary AND indrelid IN ('perf_item'::regclass, 'plain'::regclass)) AS keys, \
                        (SELECT count(*) FROM piton_index) AS missing";
            assert_eq!(numbers(&self.to, keys).await, [2, 0], "{what}: keys that are there, and that are not");
        }
    }

    /// What the target's own account says: each row once, in as many chunks as there are, however often the copy was hurt.
    fn checkpoints(&self, seen: &Copied) {
        for (table, rows) in [("perf", MAPPED), ("plain", PLAIN)] {
            let state = seen.tables.iter().find(|state| state.table == table).expect("it was copied");
            let what = &self.what;
            assert!(state.done, "{what}: `{table}` is done");
            assert_eq!(state.rows, rows, "{what}: rows of `{table}`");
            let held = if self.target.is_filled() { rows.div_ceil(3) } else { 0 };
            assert_eq!((state.counts.inserted, state.counts.updated), (rows - held, held), "{what}: `{table}`");
            assert_eq!(state.counts.unchanged + state.counts.kept, 0, "{what}: `{table}`");
        }
    }
}

pub(super) fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process number"))
}

/// The numbers of an answer of one row.
async fn numbers(database: &Fresh, sql: &str) -> Vec<i128> {
    let found = query(&database.database, sql, &Binds::new(), StatementOptions::default()).await;
    let row = found.unwrap_or_else(|error| panic!("{sql}: {error}")).rows.remove(0);
    let number = |value: &Json| match value {
        Json::Number(number) => number.to_string().parse().expect("a whole number"),
        Json::String(text) => text.parse().expect("a whole number"),
        other => panic!("{sql}: {other}"),
    };
    row.values().map(number).collect()
}

/// Ctrl-C, once, while it stands still between two chunks.
#[tokio::test]
async fn a_copy_that_is_interrupted_stops_behind_its_chunk_and_goes_on_there() {
    for (from, to) in pairs() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let (from, to) = (Fresh::new(from, "stop", folder.path()).await, Fresh::new(to, "stop", folder.path()).await);
        let ground = Ground::new(from, to, Target::Filled, directly).await;
        let mut cut = 0;
        while let Some(child) = ground.stop_at("stop-after-commit=1,delay-before-read=2:300ms") {
            let before = copied(&ground.to.database, "r/copy").await.expect("is readable").rows();
            kill(pid(&child), Signal::SIGINT).expect("it is our child");
            kill(pid(&child), Signal::SIGCONT).expect("it is our child");
            let said = ground.end(child);
            let what = &ground.what;
            assert!([0, 130].contains(&said.code), "{what}: {}\n{}\n{}", said.code, said.out, said.err);
            let rows = copied(&ground.to.database, "r/copy").await.expect("is readable").rows();
            assert!(rows >= before, "{what}: {rows} after {before}");
            let show = ground.show().exits(0).json();
            if show["steps"][0]["state"] == "succeeded" {
                // It stood still behind the last chunk.
                assert_eq!(rows, MAPPED + PLAIN, "{what}");
                break;
            }
            assert_eq!(
                (&show["outcome"], &show["steps"][0]["state"]),
                (&"cancelled".into(), &"failed".into()),
                "{what}"
            );
            assert!(show["steps"][0]["error"].to_string().contains("chunk boundary"), "{what}: {show}");
            cut += 1;
        }
        assert!(cut > 3, "{}: it was in the middle {cut} times only", ground.what);
        ground.finish();
        ground.account().await;
    }
}

/// Addresses as they are.
pub(super) fn directly(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

/// The most times that a run is taken up again.
pub(super) const SITTINGS_MAX: usize = 150;

/// Whether every moment of every chunk is hit by everything.
fn full() -> bool {
    std::env::var("PITON_SWEEP_FULL").is_ok_and(|value| value == "1")
}

#[tokio::test]
async fn a_driver_that_is_killed_at_every_moment_of_every_chunk_copies_each_row_once() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let filled = |number: usize| if number.is_multiple_of(2) { Target::Filled } else { Target::Empty };
    let more = [Target::Keyless, Target::SideBySide].map(|target| ((Engine::Postgres, Engine::Postgres), target));
    let cases = pairs().enumerate().map(|(number, pair)| (pair, filled(number))).chain(more);
    for ((from, to), target) in cases {
        let (from, to) = (Fresh::new(from, "hurt", folder.path()).await, Fresh::new(to, "hurt", folder.path()).await);
        let ground = Ground::new(from, to, target, directly).await;
        // Only the last leaves one more chunk behind.
        let moments: &[&str] = if full() {
            &["crash-before-read=1", "crash-before-commit=1", "crash-after-commit=1"]
        } else {
            &["crash-before-commit=1", "crash-after-commit=1"]
        };
        let kills =
            moments.iter().cycle().take(SITTINGS_MAX).take_while(|fault| ground.sit(Some(fault)).code == -1).count();
        let (fewest, most) = (target.commits() * moments.len(), target.commits_one_by_one() * moments.len() * 3);
        assert!((fewest..=most).contains(&kills), "{}: {kills} kills", ground.what);
        ground.account().await;
    }
}

/// A server of the test's own.
enum Victim {
    Postgres(PrivatePostgres),
    Mariadb(PrivateMariadb),
}

impl Victim {
    fn new(engine: Engine) -> Self {
        match engine {
            Engine::Postgres => Self::Postgres(PrivatePostgres::of_its_own()),
            Engine::Mariadb => Self::Mariadb(PrivateMariadb::of_its_own()),
            Engine::Sqlite => panic!("SQLite has no server"),
        }
    }

    async fn database(&self) -> Fresh {
        let name = Fresh::name("victim");
        Fresh::at(match self {
            Self::Postgres(server) => server.create_database(&name),
            Self::Mariadb(server) => server.create_database(&name),
        })
        .await
    }

    /// As a power cut and the return of the current.
    fn kill_and_start(&self) {
        match self {
            Self::Postgres(server) => {
                server.kill();
                server.start_again();
            }
            Self::Mariadb(server) => {
                server.kill();
                server.start_again();
            }
        }
    }
}

/// On which side of the copy something is hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Source,
    Target,
}

const ROLES: [Role; 2] = [Role::Source, Role::Target];

/// Kills the server and starts it again at one moment of every chunk, as the source and as the target of a copy with each engine.
async fn kill_the_server(engine: Engine) {
    let folder = tempfile::tempdir().expect("a temp dir");
    let victim = Victim::new(engine);
    let filled = |number: usize| if number.is_multiple_of(2) { Target::Empty } else { Target::Filled };
    let sides = ROLES.into_iter().flat_map(|role| ENGINES.map(|other| (role, other))).enumerate();
    let mut cases: Vec<_> = sides.map(|(number, (role, other))| (role, other, filled(number))).collect();
    if engine == Engine::Postgres {
        cases.extend(ROLES.map(|role| (role, Engine::Postgres, Target::Keyless)));
        cases.extend(ROLES.map(|role| (role, Engine::Postgres, Target::SideBySide)));
        cases.push((Role::Source, Engine::Mariadb, Target::SideBySide));
    }
    for (role, other, target) in cases {
        let (mine, other) = (victim.database().await, Fresh::new(other, "hurt", folder.path()).await);
        let (from, to) = if role == Role::Source { (mine, other) } else { (other, mine) };
        let ground = Ground::new(from, to, target, directly).await;
        // Each leaves one more chunk behind. What was read before the source went is committed all the same.
        let moments = match (full(), role) {
            (false, Role::Source) => ["stop-before-commit=1", "stop-after-commit=1", "stop-before-read=2"],
            (false, Role::Target) => ["stop-before-commit=2", "stop-after-commit=1", "stop-before-read=2"],
            (true, _) => ["stop-before-read=1", "stop-before-commit=1", "stop-after-commit=1"],
        };
        let kills = moments
            .iter()
            .cycle()
            .take(SITTINGS_MAX)
            .take_while(|fault| ground.hurt_at(fault, || victim.kill_and_start()))
            .count();
        let (fewest, most) = (target.commits() - 1, (target.commits_one_by_one() - 1) * 3);
        assert!((fewest..=most).contains(&kills), "{}: {kills} kills", ground.what);
        ground.finish();
        ground.account().await;
    }
}

#[tokio::test]
async fn a_postgresql_server_that_is_killed_in_every_chunk_loses_and_doubles_nothing() {
    kill_the_server(Engine::Postgres).await;
}

#[tokio::test]
async fn a_mariadb_server_that_is_killed_in_every_chunk_loses_and_doubles_nothing() {
    kill_the_server(Engine::Mariadb).await;
}

/// A ground whose server on this side is reached over a line that can break; the other side directly.
async fn over_a_line(from: Engine, to: Engine, role: Role, target: Target, folder: &Path) -> (Ground, Proxy) {
    let (from, to) = (Fresh::new(from, "hurt", folder).await, Fresh::new(to, "hurt", folder).await);
    let (proxy, address) = Proxy::before(if role == Role::Source { &from.url } else { &to.url });
    let ground = Ground::new(from, to, target, |from, to| match role {
        Role::Source => (address.clone(), to.to_owned()),
        Role::Target => (from.to_owned(), address.clone()),
    })
    .await;
    (ground, proxy)
}

/// Both directions with every engine at the other end; SQLite has no network.
fn lines() -> impl Iterator<Item = (Engine, Engine, Role)> {
    let sides = |(from, to)| ROLES.map(|role| (from, to, role));
    let has_line =
        |(from, to, role): &(Engine, Engine, Role)| *(if *role == Role::Source { from } else { to }) != Engine::Sqlite;
    pairs().flat_map(sides).filter(has_line)
}

#[tokio::test]
async fn a_network_that_breaks_again_and_again_in_the_middle_of_messages_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let filled = |number: usize| if number.is_multiple_of(2) { Target::Filled } else { Target::Empty };
    let more = [Target::Keyless, Target::SideBySide];
    let more =
        ROLES.into_iter().flat_map(|role| more.map(|target| ((Engine::Postgres, Engine::Postgres, role), target)));
    for ((from, to, role), target) in lines().enumerate().map(|(number, line)| (line, filled(number))).chain(more) {
        let (ground, proxy) = over_a_line(from, to, role, target, folder.path()).await;
        let passed = || [Toward::Server, Toward::Client].map(|toward| proxy.passed(toward));
        // How much goes either way before the first chunk is read, and how much in all.
        ground.sit(Some("crash-before-read=1"));
        let before = passed();
        proxy.mend();
        // The comparison is not counted.
        ground.sit(Some("crash-before-act=same"));
        let whole = passed();
        ground.finish();
        ground.account().await;

        let (ground, proxy) = over_a_line(from, to, role, target, folder.path()).await;
        // A resume may look at more than the first sitting did before it goes on, so each gets a little further.
        let (first, more) = if full() { (30, 17) } else { (80, 60) };
        let both = [Toward::Server, Toward::Client].into_iter().cycle();
        let within = both.zip(0_u64..).map(|(toward, sitting)| {
            let (before, whole) = (before[toward as usize], whole[toward as usize]);
            (toward, before + (whole - before) * (first + sitting * more) / 1_000)
        });
        let first = [(Toward::Server, before[0] * 9 / 10)];
        let mut cuts = 0;
        for (toward, after) in first.into_iter().chain(within).take(SITTINGS_MAX) {
            proxy.mend();
            proxy.cut_after(toward, after);
            let said = ground.sit(None);
            assert!([0, 2, 4, 5].contains(&said.code), "{} {}: {}\n{}", ground.what, said.code, said.out, said.err);
            cuts += u64::from(!proxy.is_whole());
            if said.code == 0 || said.err.contains("is over") {
                break;
            }
        }
        assert!(cuts >= 5, "{}: {cuts} cuts at its {role:?}", ground.what);
        proxy.mend();
        ground.finish();
        ground.account().await;
    }
}

#[tokio::test]
async fn a_network_that_stalls_leaves_a_run_that_can_be_killed_and_resumed() {
    let folder = tempfile::tempdir().expect("a temp dir");
    for (number, (from, to, role)) in lines().enumerate() {
        let target = if number % 2 == 0 { Target::Empty } else { Target::Filled };
        let (ground, proxy) = over_a_line(from, to, role, target, folder.path()).await;
        let toward = if role == Role::Source { Toward::Client } else { Toward::Server };
        // Once there is nothing to be seen but silence; what the tables hold is many times as much.
        for after in [30_000, 60_000, 90_000] {
            proxy.mend();
            proxy.stall_after(toward, after);
            let mut child = ground.start(None);
            let until = Instant::now() + Duration::from_mins(1);
            while proxy.is_whole() && child.try_wait().expect("it is our child").is_none() {
                assert!(Instant::now() < until, "{}: it neither stalled nor ended", ground.what);
                std::thread::sleep(Duration::from_millis(2));
            }
            assert!(!proxy.is_whole(), "{}: the line was to stall", ground.what);
            child.kill().expect("SIGKILL");
            ground.end(child);
        }
        proxy.mend();
        ground.finish();
        ground.account().await;
    }
}

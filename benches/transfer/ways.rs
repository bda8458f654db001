//! The ways in which the same rows are moved: Piton's, and those of the tools that it is held against.
//!
//! Each way makes its own empty target first, outside of the time.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use sqlx::Connection as _;

use super::measure::{BenchError, Used, watch};
use super::servers::{Mariadb, Postgres, run};

const COLUMNS: &str = "entity_id int NOT NULL, ts timestamptz NOT NULL, volume int, aht real, sl real, abandoned int";
/// Entities of the time series; every one has a row in every bucket of 900 s.
const ENTITIES: u64 = 100;
const FIRST: u64 = 1_600_000_200;
/// Rows of the last ranges that the delta moves.
pub(crate) const DELTA: u64 = 1_000;
const PITON: &str = env!("CARGO_BIN_EXE_piton");

/// How the rows are moved, or what is done with them where they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Pipe,
    PipeThenKey,
    SortedPipeIntoKey,
    Pgcopydb,
    Pgloader,
    PgloaderSqlite,
    PgloaderMariadb,
    HashInEngine,
    Piton,
    PitonThenKey,
    PitonIntoKey,
    PitonSqlite,
    PitonMariadb,
    PitonCompare,
    PitonDelta,
}

impl Way {
    /// The program that must be installed.
    pub(crate) fn tool(self) -> Option<&'static str> {
        match self {
            Self::Pgcopydb => Some("pgcopydb"),
            Self::Pgloader | Self::PgloaderSqlite | Self::PgloaderMariadb => Some("pgloader"),
            _ => None,
        }
    }

    /// Whether the time of the action alone counts, not that of the process.
    pub(crate) fn is_action(self) -> bool {
        self == Self::PitonDelta
    }
}

/// The servers with the same rows in each source.
pub(crate) struct Field {
    rows: u64,
    source: Postgres,
    target: Postgres,
    mariadb: Option<Mariadb>,
    folder: tempfile::TempDir,
    runs: u64,
}

impl Field {
    /// Starts what `ways` need and fills it with `rows` rows.
    pub(crate) fn new(rows: u64, ways: &[Way]) -> Result<Self, BenchError> {
        let folder = tempfile::tempdir().map_err(|error| BenchError::File(std::env::temp_dir(), error))?;
        let (source, target) = (Postgres::start()?, Postgres::start()?);
        fill_postgres(&source, rows)?;
        let mut field = Self { rows, source, target, mariadb: None, folder, runs: 0 };
        if ways.iter().any(|way| matches!(way, Way::PgloaderMariadb | Way::PitonMariadb)) {
            let server = Mariadb::start()?;
            fill_mariadb(&server, rows)?;
            field.mariadb = Some(server);
        }
        if ways.iter().any(|way| matches!(way, Way::PgloaderSqlite | Way::PitonSqlite)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| BenchError::Start("a runtime".to_owned(), error))?;
            runtime.block_on(fill_sqlite(&field.sqlite(), rows))?;
        }
        Ok(field)
    }

    /// Moves the rows once.
    pub(crate) fn run(&mut self, way: Way) -> Result<Used, BenchError> {
        self.prepare(way)?;
        let pipe = |read: &str| {
            let (from, to) = (self.source.psql("perf"), self.target.psql("perf"));
            format!(
                "{from} -c \"COPY {read} TO STDOUT (FORMAT binary)\" | {to} -c 'COPY perf FROM STDIN (FORMAT binary)'"
            )
        };
        let key = format!(" && {} -c 'ALTER TABLE perf ADD PRIMARY KEY (entity_id, ts)'", self.target.psql("perf"));
        let shell = |text: String| watch(Command::new("sh").args(["-ec", &text]));
        let pgloader = |from: &str| {
            let mut command = Command::new("pgloader");
            command.arg("--quiet").arg(from).arg(self.target.pgloader_url("perf")).current_dir(self.folder.path());
            watch(&mut command)
        };
        match way {
            Way::Pipe => shell(pipe("perf")),
            Way::PipeThenKey => shell(pipe("perf") + &key),
            Way::SortedPipeIntoKey => shell(pipe("(SELECT * FROM perf ORDER BY entity_id, ts)")),
            Way::Pgcopydb => self.pgcopydb(),
            Way::Pgloader => pgloader(&self.source.pgloader_url("perf")),
            Way::PgloaderSqlite => pgloader(&format!("sqlite://{}", self.sqlite().display())),
            Way::PgloaderMariadb => pgloader(&self.mariadb()?.url()),
            Way::HashInEngine => {
                let sql = "SELECT count(*), sum(hash_record_extended(perf, 0)::numeric) FROM perf";
                let one = |server: &Postgres| shell(format!("{} -c '{sql}'", server.psql("perf")));
                let (a, b) = (one(&self.source)?, one(&self.target)?);
                Ok(if a.wall > b.wall { a } else { b })
            }
            Way::Piton | Way::PitonIntoKey => self.piton(&self.source.url("perf"), "", Self::COPY),
            Way::PitonThenKey => self.piton(&self.source.url("perf"), ", indexes: after", Self::COPY),
            Way::PitonSqlite => {
                self.piton(&format!("sqlite://{}", self.sqlite().display()), ", indexes: after", Self::COPY)
            }
            Way::PitonMariadb => self.piton(&self.mariadb()?.url(), ", indexes: after", Self::COPY),
            Way::PitonCompare => self.piton(&self.source.url("perf"), "", "db.compare"),
            Way::PitonDelta => {
                let from = FIRST + 900 * (self.rows - DELTA) / ENTITIES;
                let more = format!(", policy: split_at, at: {}, range: {{ from: {from} }}", from + 9_000_000);
                self.piton(&self.source.url("perf"), &more, Self::COPY)
            }
        }
    }

    const COPY: &str = "db.copy";

    /// Makes the target that the way expects; everything older is on the disk before the time begins.
    fn prepare(&mut self, way: Way) -> Result<(), BenchError> {
        self.runs += 1;
        self.target.fresh("perf")?;
        let table = format!("CREATE TABLE perf ({COLUMNS}");
        let keyed = format!("{table}, PRIMARY KEY (entity_id, ts))");
        match way {
            Way::Pipe | Way::PipeThenKey | Way::Piton => self.target.sql("perf", &format!("{table})"))?,
            Way::SortedPipeIntoKey | Way::PitonThenKey | Way::PitonIntoKey | Way::PitonSqlite | Way::PitonMariadb => {
                self.target.sql("perf", &keyed)?;
            }
            Way::PitonDelta => {
                self.target.sql("perf", &keyed)?;
                self.target.sql("perf", "CREATE INDEX ON perf (ts)")?;
                self.fill_target(self.rows - DELTA)?;
            }
            Way::PitonCompare | Way::HashInEngine => {
                self.target.sql("perf", &keyed)?;
                self.fill_target(self.rows)?;
            }
            Way::Pgcopydb | Way::Pgloader | Way::PgloaderSqlite | Way::PgloaderMariadb => {}
        }
        self.source.sql("postgres", "CHECKPOINT")?;
        self.target.sql("postgres", "CHECKPOINT")
    }

    fn fill_target(&self, rows: u64) -> Result<(), BenchError> {
        self.target.sql("perf", &insert(rows))?;
        self.target.sql("perf", "VACUUM ANALYZE perf")
    }

    fn pgcopydb(&self) -> Result<Used, BenchError> {
        let place = self.folder.path().join(format!("pgcopydb{}", self.runs));
        let mut command = Command::new("pgcopydb");
        command.args(["clone", "--source", &self.source.url("perf"), "--target", &self.target.url("perf")]);
        watch(command.arg("--dir").arg(place).current_dir(self.folder.path()))
    }

    /// The same job as a step of a runbook, by the program itself.
    fn piton(&self, source: &str, more: &str, action: &str) -> Result<Used, BenchError> {
        let write = |name: &str, text: &str| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).map_err(|error| BenchError::File(path.clone(), error))?;
            Ok::<PathBuf, BenchError>(path)
        };
        let head = "apiVersion: piton/v1\n";
        write(
            "map.yaml",
            &format!("{head}kind: Mapping\nname: perf\nsets: {{ perf: [perf] }}\ntables: {{ perf: {{ time: ts }} }}\n"),
        )?;
        let target = self.target.url("perf");
        let databases = format!("{{ source: {{ url: '{source}' }}, target: {{ url: '{target}' }} }}");
        let site = write("site.yaml", &format!("{head}kind: Site\nname: bench\ndatabases: {databases}\n"))?;
        let step = format!("{action}: {{ from: source, to: target, map: map.yaml, tables: perf{more} }}");
        let runbook = write(
            "move.yaml",
            &format!(
                "{head}kind: Runbook\nname: move\nrequires: {{ databases: [source, target] }}\nsteps:\n  - {{ id: move, {step} }}\n"
            ),
        )?;
        let id = format!("move{}", self.runs);
        let piton = || {
            let mut command = Command::new(PITON);
            command.arg("--store").arg(self.folder.path().join("runs.db")).arg("--site").arg(&site);
            command.current_dir(self.folder.path());
            command
        };
        let used = watch(piton().arg("run").arg(&runbook).args(["--yes", "--run-id", &id]))?;
        let shown = piton().args(["show", &id, "--json"]).output();
        let shown = shown.map_err(|error| BenchError::Start("piton show".to_owned(), error))?;
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        let outputs = &shown["steps"][0]["outputs"];
        if action == Self::COPY {
            let seconds = outputs["seconds"].as_f64().ok_or(BenchError::Silent("`seconds`"))?;
            return Ok(Used { action: Duration::from_secs_f64(seconds), ..used });
        }
        Ok(used)
    }

    fn sqlite(&self) -> PathBuf {
        self.folder.path().join("source.db")
    }

    fn mariadb(&self) -> Result<&Mariadb, BenchError> {
        self.mariadb.as_ref().ok_or_else(|| BenchError::Missing("mariadbd".to_owned(), "mariadb-server"))
    }
}

/// Rows in the order in which a collector writes them: bucket by bucket, which is not the order of the key.
fn insert(rows: u64) -> String {
    let last = rows / ENTITIES - 1;
    format!(
        "INSERT INTO perf SELECT e, to_timestamp({FIRST} + 900 * b), (e * b) % 500, (e * 7 + b * 13) % 2400 / 10.0, \
         (e + b) % 1000 / 1000.0, b % 7 FROM generate_series(0, {last}::bigint) AS b, generate_series(1, {ENTITIES}) AS e \
         ORDER BY b, e"
    )
}

fn fill_postgres(server: &Postgres, rows: u64) -> Result<(), BenchError> {
    server.fresh("perf")?;
    server.sql("perf", &format!("CREATE TABLE perf ({COLUMNS}); {}", insert(rows)))?;
    server.sql("perf", "ALTER TABLE perf ADD PRIMARY KEY (entity_id, ts); CREATE INDEX perf_ts ON perf (ts)")?;
    server.sql("perf", "VACUUM ANALYZE perf")
}

fn fill_mariadb(server: &Mariadb, rows: u64) -> Result<(), BenchError> {
    let columns = "entity_id int NOT NULL, ts timestamp NOT NULL, volume int, aht float, sl float, abandoned int";
    server.sql(&format!("CREATE TABLE perf ({columns}, PRIMARY KEY (entity_id, ts))"))?;
    let last = rows / ENTITIES - 1;
    server.sql(&format!(
        "SET time_zone = '+00:00'; INSERT INTO perf SELECT STRAIGHT_JOIN e.seq, FROM_UNIXTIME({FIRST} + 900 * b.seq), \
         e.seq * b.seq % 500, (e.seq * 7 + b.seq * 13) % 2400 / 10, (e.seq + b.seq) % 1000 / 1000, b.seq % 7 \
         FROM seq_1_to_{ENTITIES} AS e JOIN seq_0_to_{last} AS b"
    ))
}

async fn fill_sqlite(path: &std::path::Path, rows: u64) -> Result<(), BenchError> {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut database = sqlx::SqliteConnection::connect_with(&options).await?;
    let columns =
        "entity_id integer NOT NULL, ts timestamptz NOT NULL, volume integer, aht real, sl real, abandoned integer";
    let last = rows / ENTITIES - 1;
    let fill = format!(
        "CREATE TABLE perf ({columns}, PRIMARY KEY (entity_id, ts)) WITHOUT ROWID; \
         WITH RECURSIVE b(b) AS (SELECT 0 UNION ALL SELECT b + 1 FROM b WHERE b < {last}), \
         e(e) AS (SELECT 1 UNION ALL SELECT e + 1 FROM e WHERE e < {ENTITIES}) \
         INSERT INTO perf SELECT e, strftime('%Y-%m-%d %H:%M:%S+00', {FIRST} + 900 * b, 'unixepoch'), e * b % 500, \
         (e * 7 + b * 13) % 2400 / 10.0, (e + b) % 1000 / 1000.0, b % 7 FROM e CROSS JOIN b"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut database).await?;
    database.close().await?;
    Ok(())
}

/// Whether a program is on the path.
pub(crate) fn is_installed(tool: &str) -> bool {
    run(Command::new("sh").args(["-c", &format!("command -v {tool}")])).is_ok()
}

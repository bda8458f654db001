//! How fast rows are moved: `db.copy` in a run, with checkpoints, against pipes of `psql`, pgcopydb and pgloader, all in one run.
//!
//! Every ratio is the median of ratios of the same round, so that a noisy machine moves both sides alike. Started by
//! `benches/run transfer [--json] [--rows N] [--only ROW] [--repeat N]`; `docs/performance.md` explains each row.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints what it measured")]

mod measure;
#[path = "../../tests/it/support/server.rs"]
mod server;
mod servers;
mod ways;

use std::collections::BTreeMap;
use std::process::ExitCode;

use measure::{BenchError, Used, median};
use ways::{Field, Way, is_installed};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS_DEFAULT: u64 = 500_000;

/// What a way is held against.
#[derive(Clone, Copy)]
enum Against {
    /// Times as fast as another way; more is better.
    Way(Way),
    /// Time over that of another way; less is better.
    Over(Way),
    /// Seconds; less is better.
    Seconds(f64),
    /// Bytes of memory; less is better.
    Bytes(f64),
}

struct Row {
    name: &'static str,
    what: &'static str,
    bar: f64,
    way: Way,
    against: Against,
}

impl Row {
    fn is_higher_better(&self) -> bool {
        matches!(self.against, Against::Way(_))
    }

    fn ways(&self) -> Vec<Way> {
        match self.against {
            Against::Way(other) | Against::Over(other) => vec![other, self.way],
            Against::Seconds(_) | Against::Bytes(_) => vec![self.way],
        }
    }

    fn ratio(&self, round: &BTreeMap<Way, Used>) -> Option<f64> {
        let subject = round.get(&self.way)?;
        let wall = if self.way.is_action() { subject.action } else { subject.wall }.as_secs_f64();
        let seconds = |way: &Way| round.get(way).map(|used| used.wall.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a size for people")]
        let bytes = subject.memory as f64;
        Some(match self.against {
            Against::Way(other) => seconds(&other)? / wall,
            Against::Over(other) => wall / seconds(&other)?,
            Against::Seconds(limit) => wall / limit,
            Against::Bytes(limit) => bytes / limit,
        })
    }
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { name: "pg_no_index", what: "into a table without an index, as fast as psql | psql", bar: 1.0, way: Way::Piton, against: Against::Way(Way::Pipe) },
    Row { name: "pg_new_key", what: "into a new table with its key, as fast as psql | psql and ADD PRIMARY KEY", bar: 1.0, way: Way::PitonThenKey, against: Against::Way(Way::PipeThenKey) },
    Row { name: "pg_pgcopydb", what: "the same, as fast as pgcopydb clone", bar: 2.5, way: Way::PitonThenKey, against: Against::Way(Way::Pgcopydb) },
    Row { name: "pg_pgloader", what: "the same, as fast as pgloader", bar: 8.0, way: Way::PitonThenKey, against: Against::Way(Way::Pgloader) },
    Row { name: "pg_key_there", what: "into a table whose key is there, as fast as the sorted pipe", bar: 0.9, way: Way::PitonIntoKey, against: Against::Way(Way::SortedPipeIntoKey) },
    Row { name: "sqlite_pgloader", what: "SQLite to PostgreSQL, as fast as pgloader", bar: 5.0, way: Way::PitonSqlite, against: Against::Way(Way::PgloaderSqlite) },
    Row { name: "mariadb_pgloader", what: "MariaDB to PostgreSQL, as fast as pgloader", bar: 5.0, way: Way::PitonMariadb, against: Against::Way(Way::PgloaderMariadb) },
    Row { name: "compare", what: "time of a comparison of equal rows / of the slower engine's own hash of them", bar: 2.0, way: Way::PitonCompare, against: Against::Over(Way::HashInEngine) },
    Row { name: "delta", what: "a final delta of 1,000 rows / 100 ms", bar: 1.0, way: Way::PitonDelta, against: Against::Seconds(0.1) },
    Row { name: "memory", what: "peak memory of the copy into a new table / 100 MB", bar: 1.0, way: Way::PitonThenKey, against: Against::Bytes(100_000_000.0) },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value =
        |flag: &str| arguments.iter().position(|a| a == flag).and_then(|at| arguments.get(at + 1)).map(String::as_str);
    let json = arguments.iter().any(|argument| argument == "--json");
    let repeat = value("--repeat").and_then(|text| text.parse().ok()).unwrap_or(3);
    let rows = value("--rows").and_then(|text| text.replace(['_', ','], "").parse().ok()).unwrap_or(ROWS_DEFAULT);
    let only = value("--only");
    let wanted: Vec<&Row> = ROWS.iter().filter(|row| only.is_none_or(|only| only == row.name)).collect();
    let result = measure(&wanted, rows, repeat, json);
    result.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

fn measure(wanted: &[&Row], rows: u64, repeat: usize, json: bool) -> Result<ExitCode, BenchError> {
    let mut ways: Vec<Way> = wanted.iter().flat_map(|row| row.ways()).collect();
    ways.sort_unstable();
    ways.dedup();
    ways.retain(|way| match way.tool().filter(|tool| !is_installed(tool)) {
        Some(tool) => {
            eprintln!("{tool} is not installed: what is held against it is left out");
            false
        }
        None => true,
    });
    let mut field = Field::new(rows, &ways)?;
    let mut failed: Vec<Way> = Vec::new();
    let mut rounds: Vec<BTreeMap<Way, Used>> = Vec::new();
    for _ in 0..repeat {
        let mut round = BTreeMap::new();
        for way in ways.iter().filter(|way| !failed.contains(way)).copied().collect::<Vec<_>>() {
            match field.run(way) {
                Ok(used) => {
                    round.insert(way, used);
                }
                Err(error) => {
                    eprintln!("{way:?}: {error}");
                    failed.push(way);
                }
            }
        }
        rounds.push(round);
    }
    if !json {
        print_ways(&ways, &rounds, rows);
        println!("\n{:<17} {:>7} {:>5}  {:<5} {:>15}  what", "ratio", "median", "bar", "holds", "from .. to");
    }
    for row in wanted {
        let ratios: Vec<f64> = rounds.iter().filter_map(|round| row.ratio(round)).collect();
        if !ratios.is_empty() {
            print(row, ratios, json);
        }
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_ways(ways: &[Way], rounds: &[BTreeMap<Way, Used>], rows: u64) {
    println!("{rows} rows\n{:<18} {:>8} {:>10} {:>7}", "way", "seconds", "M rows/s", "MB");
    for way in ways {
        let figures = |of: fn(&Used) -> f64| median(rounds.iter().filter_map(|round| round.get(way).map(of)).collect());
        let seconds = figures(|used| used.wall.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (speed, memory) = (rows as f64 / 1e6 / seconds, figures(|used| used.memory as f64 / 1e6));
        println!("{:<18} {seconds:>8.2} {speed:>10.3} {memory:>7.0}", format!("{way:?}"));
    }
}

fn print(row: &Row, ratios: Vec<f64>, json: bool) {
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    let ratio = median(ratios);
    let holds = if row.is_higher_better() { ratio >= row.bar } else { ratio <= row.bar };
    if json {
        let ratio = (ratio * 1000.0).round() / 1000.0;
        let better = if row.is_higher_better() { "higher" } else { "lower" };
        let line = serde_json::json!({
            "name": row.name, "ratio": ratio, "bar": row.bar, "better": better, "holds": holds, "what": row.what,
        });
        println!("{line}");
    } else {
        let word = if holds { "yes" } else { "NO" };
        println!("{:<17} {ratio:>7.2} {:>5.1}  {word:<5} {least:>6.2} .. {most:>5.2}  {}", row.name, row.bar, row.what);
    }
}

//! How much a durable step costs: Piton against commits to the disk, `xargs` and `make`, both sides in one run.
//!
//! Every ratio is the median of ratios of neighbouring measurements, so that a noisy machine moves both sides alike.
//! Started by `benches/run engine [--json] [--only ROW] [--repeat N]`; `docs/performance.md` explains each row.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints what it measured")]

mod measure;
mod runbooks;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use measure::{BenchError, Folder, children_cpu, commits, median, piton, time, watch};
use runbooks::{Work, chain, independent, layers, makefile};

/// The allocator of the program: the replay is measured inside of this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes that a chained step adds to the journal: the end of one attempt and the start of the next.
const STEP_BYTES: usize = 600;
const CHAIN: usize = 1000;
/// Commands that are run one after the other by Piton and by a peer that takes long for each.
const PEER_CHAIN: usize = 100;

/// One ratio. Less is better in every row.
struct Row {
    name: &'static str,
    what: &'static str,
    bar: f64,
    measure: fn(&Bench) -> Result<Vec<f64>, BenchError>,
}

const ROWS: &[Row] = &[
    Row { name: "step_vs_commit", what: "a chained in-process step / one commit on disk", bar: 1.3, measure: step },
    Row { name: "chain_true", what: "chain of 1,000 `true` / xargs -P1 + 1,000 commits", bar: 1.3, measure: chained },
    Row { name: "independent_true", what: "1,000 `true` at 8 / xargs -P8", bar: 1.3, measure: parallel },
    Row { name: "layers_vs_make", what: "10 layers of 100 `true` at 8 / make -j8", bar: 1.3, measure: layered },
    Row {
        name: "chain_vs_doit",
        what: "chain of 1,000 `true` / doit, which keeps nothing safe",
        bar: 1.0,
        measure: doit,
    },
    Row {
        name: "chain_vs_ansible",
        what: "chain of 100 `true` / ansible-playbook on this host",
        bar: 0.1,
        measure: ansible,
    },
    Row { name: "cold_start", what: "CPU of a run of one step / 20 ms", bar: 1.0, measure: cold_start },
    Row { name: "long_chain", what: "a step of a chain of 10,000 / of 1,000", bar: 1.1, measure: long_chain },
    Row { name: "memory_100k", what: "peak memory of 100,000 steps / 250 MB", bar: 1.0, measure: memory },
    Row { name: "masked_output", what: "200 MB of output with 3 secrets to hide / without", bar: 1.1, measure: masked },
    Row {
        name: "masked_stream",
        what: "200 MB read from commands, every byte looked at for 3 secrets / kept as it is",
        bar: 1.1,
        measure: stream,
    },
    Row { name: "replay_100k", what: "replay of 100,000 steps / 1 s", bar: 1.0, measure: replay },
];

struct Bench {
    repeat: usize,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn commits(&self, folder: &Folder, count: usize) -> Result<Duration, BenchError> {
        self.runtime.block_on(commits(folder, count, STEP_BYTES))
    }

    /// Pairs of measurements as ratios, the first pair thrown away: it warms the caches.
    fn ratios(&self, mut pair: impl FnMut() -> Result<f64, BenchError>) -> Result<Vec<f64>, BenchError> {
        pair()?;
        (0..self.repeat).map(|_| pair()).collect()
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value =
        |flag: &str| arguments.iter().position(|a| a == flag).and_then(|at| arguments.get(at + 1)).map(String::as_str);
    let json = arguments.iter().any(|argument| argument == "--json");
    let repeat = value("--repeat").and_then(|text| text.parse().ok()).unwrap_or(5);
    let only = value("--only");
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let bench = Bench { repeat, runtime };
    if !json {
        println!("{:<18} {:>7} {:>5}  {:<5} {:>15}  what", "ratio", "median", "bar", "holds", "from .. to");
    }
    for row in ROWS.iter().filter(|row| only.is_none_or(|only| only == row.name)) {
        match (row.measure)(&bench) {
            Ok(ratios) => print(row, ratios, json),
            Err(BenchError::Missing(program)) => eprintln!("{}: not measured, `{program}` is not installed", row.name),
            Err(error) => {
                eprintln!("{}: {error}", row.name);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn print(row: &Row, ratios: Vec<f64>, json: bool) {
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    let ratio = median(ratios);
    let holds = ratio <= row.bar;
    if json {
        let ratio = (ratio * 1000.0).round() / 1000.0;
        let line = serde_json::json!({
            "name": row.name, "ratio": ratio, "bar": row.bar, "better": "lower", "holds": holds, "what": row.what,
        });
        println!("{line}");
    } else {
        let word = if holds { "yes" } else { "NO" };
        println!("{:<18} {ratio:>7.2} {:>5.1}  {word:<5} {least:>6.2} .. {most:>5.2}  {}", row.name, row.bar, row.what);
    }
}

fn over(subject: Duration, baseline: Duration) -> f64 {
    subject.as_secs_f64() / baseline.as_secs_f64()
}

/// Time of a run of `text` beyond the start and end of the process, which a run of one step has as well.
fn beyond_start(text: &str, work: Work) -> Result<Duration, BenchError> {
    let folder = Folder::new()?;
    let one = folder.write("one.yaml", &chain(1, work))?;
    let many = folder.write("many.yaml", text)?;
    let start = time(&mut piton(&folder, &one, "one"))?.wall;
    Ok(time(&mut piton(&folder, &many, "many"))?.wall.saturating_sub(start))
}

fn step(bench: &Bench) -> Result<Vec<f64>, BenchError> {
    let text = chain(CHAIN + 1, Work::Nothing);
    bench.ratios(|| {
        let baseline = bench.commits(&Folder::new()?, CHAIN)?;
        Ok(over(beyond_start(&text, Work::Nothing)?, baseline))
    })
}

fn xargs(folder: &Folder, parallel: usize) -> Result<Duration, BenchError> {
    let list = folder.write("list", &"x\n".repeat(CHAIN))?;
    let mut command = Command::new("xargs");
    command.arg("-a").arg(&list).arg("-n1").arg(format!("-P{parallel}")).arg("true");
    Ok(time(&mut command)?.wall)
}

fn chained(bench: &Bench) -> Result<Vec<f64>, BenchError> {
    let text = chain(CHAIN, Work::True);
    bench.ratios(|| {
        let folder = Folder::new()?;
        let path = folder.write("chain.yaml", &text)?;
        let baseline = xargs(&folder, 1)? + bench.commits(&folder, CHAIN)?;
        Ok(over(time(&mut piton(&folder, &path, "chain"))?.wall, baseline))
    })
}

/// The same commands, one after the other, by Piton and by a peer.
fn against(
    bench: &Bench,
    steps: usize,
    peer: impl Fn(&Folder) -> Result<Command, BenchError>,
) -> Result<Vec<f64>, BenchError> {
    let text = chain(steps, Work::True);
    bench.ratios(|| {
        let folder = Folder::new()?;
        let path = folder.write("chain.yaml", &text)?;
        let baseline = time(&mut peer(&folder)?)?.wall;
        Ok(over(time(&mut piton(&folder, &path, "chain"))?.wall, baseline))
    })
}

fn doit(bench: &Bench) -> Result<Vec<f64>, BenchError> {
    against(bench, CHAIN, |folder| {
        let tasks = folder.write("dodo.py", &runbooks::doit(CHAIN))?;
        let mut command = measure::installed("doit")?;
        command.arg("-f").arg(&tasks).current_dir(folder.path());
        Ok(command)
    })
}

fn ansible(bench: &Bench) -> Result<Vec<f64>, BenchError> {
    against(bench, PEER_CHAIN, |folder| {
        let playbook = folder.write("play.yaml", &runbooks::playbook(PEER_CHAIN))?;
        let mut command = measure::installed("ansible-playbook")?;
        command.args(["-i", "localhost,"]).arg(&playbook).current_dir(folder.path());
        Ok(command)
    })
}

fn parallel(bench: &Bench) -> Result<Vec<f64>, BenchError> {
    let text = independent(CHAIN, 8, Work::True);
    bench.ratios(|| {
        let folder = Folder::new()?;
        let path = folder.write("independent.yaml", &text)?;
        let baseline = xargs(&folder, 8)?;
        Ok(over(time(&mut piton(&folder, &path, "independent"))?.wall, baseline))
    })
}

fn layered(bench: &Bench) -> Result<Vec<f64>, BenchError> {
    let text = layers(10, 100, 8, Work::True);
    let makefile = makefile(10, 100);
    bench.ratios(|| {
        let folder = Folder::new()?;
        let path = folder.write("layers.yaml", &text)?;
        let rules = folder.write("Makefile", &makefile)?;
        let mut make = Command::new("make");
        make.arg("-j8").arg("-f").arg(&rules).current_dir(folder.path());
        let baseline = time(&mut make)?.wall;
        Ok(over(time(&mut piton(&folder, &path, "layers"))?.wall, baseline))
    })
}

/// What a command says: ten megabytes.
fn output() -> String {
    "a line of output, sixty-four bytes long with its end of line....\n".repeat(160_000)
}

fn hidden(name: &str) -> String {
    format!("secret number {name}, with \"quotes\" & more")
}

/// Twenty commands that print ten megabytes each, where secrets must be hidden and where there are none.
fn masked(bench: &Bench) -> Result<Vec<f64>, BenchError> {
    let folder = Folder::new()?;
    let (text, site) = runbooks::talk(20, &folder.write("said", &output())?);
    let site = folder.write("site.yaml", &site)?;
    let plain = folder.write("plain.yaml", &text.replace("HIDDEN", "nothing"))?;
    let hiding =
        folder.write("hiding.yaml", &text.replace("HIDDEN", "{{ secrets.a }} {{ secrets.b }} {{ secrets.c }}"))?;
    let mut round = 0;
    bench.ratios(|| {
        round += 1;
        let run = |path, name: &str| {
            let mut command = piton(&folder, path, &format!("{name}{round}"));
            command.arg("--site").arg(&site);
            for secret in ["A", "B", "C"] {
                command.env(format!("TALK_{secret}"), hidden(secret));
            }
            time(&mut command)
        };
        let baseline = run(&plain, "plain")?.wall;
        Ok(over(run(&hiding, "hiding")?.wall, baseline))
    })
}

/// Reads a file to its end and keeps what is left of it.
type Look<'l> = dyn Fn(&Path, &mut Vec<u8>) -> Result<(), BenchError> + 'l;

/// The same commands read by this process, whose every byte goes through a masker or is kept as it is.
fn stream(bench: &Bench) -> Result<Vec<f64>, BenchError> {
    let folder = Folder::new()?;
    let file = folder.write("said", &output())?;
    let masker = piton::action::mask::Masker::new(["A", "B", "C"].map(hidden));
    let all = |look: &Look| {
        let mut kept = Vec::with_capacity(16 << 20);
        let started = Instant::now();
        for _ in 0..20 {
            kept.clear();
            look(&file, &mut kept)?;
        }
        Ok::<_, BenchError>((started.elapsed(), kept))
    };
    bench.ratios(|| {
        let (baseline, plain) = all(&|file, kept| {
            measure::read_output(Command::new("cat").arg(file), |chunk| kept.extend_from_slice(chunk))
        })?;
        let (subject, hidden) = all(&|file, kept| {
            let mut stream = masker.stream();
            measure::read_output(Command::new("cat").arg(file), |chunk| stream.push(chunk, kept))?;
            stream.finish(kept);
            Ok(())
        })?;
        assert!(plain == hidden, "nothing is hidden in what holds no secret");
        Ok(over(subject, baseline))
    })
}

/// Processor time of whole runs of one step, an upper bound of the way to the first step.
fn cold_start(bench: &Bench) -> Result<Vec<f64>, BenchError> {
    const RUNS: u32 = 20;
    let folder = Folder::new()?;
    let path = folder.write("one.yaml", &chain(1, Work::Nothing))?;
    let mut round = 0;
    bench.ratios(|| {
        let before = children_cpu()?;
        for number in 0..RUNS {
            time(&mut piton(&folder, &path, &format!("r{round}-{number}")))?;
        }
        round += 1;
        let used = children_cpu()?.saturating_sub(before) / RUNS;
        Ok(over(used, Duration::from_millis(20)))
    })
}

fn long_chain(bench: &Bench) -> Result<Vec<f64>, BenchError> {
    let (short, long) = (chain(CHAIN, Work::Nothing), chain(10 * CHAIN, Work::Nothing));
    bench.ratios(|| {
        let baseline = beyond_start(&short, Work::Nothing)?;
        Ok(over(beyond_start(&long, Work::Nothing)?, 10 * baseline))
    })
}

/// A run of 100,000 steps in a folder of its own, and what it used.
fn hundred_thousand() -> Result<(Folder, measure::Used), BenchError> {
    let folder = Folder::new()?;
    let path = folder.write("many.yaml", &independent(100_000, 64, Work::Nothing))?;
    let used = watch(&mut piton(&folder, &path, "many"))?;
    Ok((folder, used))
}

#[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^52")]
fn memory(_: &Bench) -> Result<Vec<f64>, BenchError> {
    let (_, used) = hundred_thousand()?;
    Ok(vec![used.memory as f64 / 250e6])
}

/// Reading every record of a run from the disk and folding it into the state.
fn replay(bench: &Bench) -> Result<Vec<f64>, BenchError> {
    let (folder, _) = hundred_thousand()?;
    let store = folder.path().join("many.db").display().to_string();
    let wrong = |error: &dyn std::fmt::Display| BenchError::Journal(error.to_string());
    let run = piton::ids::RunId::new("many");
    bench.runtime.block_on(async {
        let journal = piton::journal::Journal::open(&store).await.map_err(|error| wrong(&error))?;
        let told = piton::driver::read(&journal, &run).await.map_err(|error| wrong(&error))?;
        let flow = told.state.workflow().clone();
        let mut ratios = Vec::new();
        for _ in 0..bench.repeat {
            let started = Instant::now();
            let records = journal.read(&run, 1).await.map_err(|error| wrong(&error))?;
            let events = records.iter().map(|record| (&record.event, record.at));
            let state = piton::scheduler::State::fold(flow.clone(), events).map_err(|error| wrong(&error))?;
            ratios.push(started.elapsed().as_secs_f64());
            assert_eq!(state.outcome(), told.state.outcome(), "the replay ends where the run did");
        }
        Ok(ratios)
    })
}

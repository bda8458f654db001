//! Times of whole processes and of the disk, one after the other, so that both sides of a ratio meet the same noise.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The binary that is measured.
pub(crate) const PITON: &str = env!("CARGO_BIN_EXE_piton");

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A file could not be made.
    #[error("`{0}`: {1}")]
    File(PathBuf, std::io::Error),
    /// A peer is not there to be compared with.
    #[error("`{0}` is not installed")]
    Missing(&'static str),
    /// A program did not start.
    #[error("`{0}` does not start: {1}")]
    Start(String, std::io::Error),
    /// A program did not end well.
    #[error("`{0}` ended with {1}")]
    Ended(String, std::process::ExitStatus),
    /// The baseline's database failed.
    #[error("the baseline's database: {0}")]
    Database(#[from] sqlx::Error),
    /// A run could not be read back.
    #[error("the measured run cannot be read back: {0}")]
    Journal(String),
    /// The kernel does not tell what was used.
    #[error("the kernel does not tell what was used: {0}")]
    Used(#[from] procfs::ProcError),
}

/// A folder for one measurement, on the disk that the project stands on.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Result<Self, BenchError> {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = tempfile::Builder::new().prefix("engine-").tempdir_in(root);
        folder.map(Self).map_err(|error| BenchError::File(root.to_owned(), error))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, BenchError> {
        let path = self.path().join(name);
        std::fs::write(&path, text).map_err(|error| BenchError::File(path.clone(), error))?;
        Ok(path)
    }
}

/// What one process used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// From start to end.
    pub(crate) wall: Duration,
    /// Largest resident set, in bytes.
    pub(crate) memory: u64,
}

/// Runs a command to its end and times it.
pub(crate) fn time(command: &mut Command) -> Result<Used, BenchError> {
    let name = format!("{command:?}");
    let started = Instant::now();
    let mut child = spawn(command, &name)?;
    let status = child.wait().map_err(|error| BenchError::Start(name.clone(), error))?;
    let wall = started.elapsed();
    if status.success() { Ok(Used { wall, memory: 0 }) } else { Err(BenchError::Ended(name, status)) }
}

/// Runs a command and takes what it says chunk by chunk, as Piton reads it.
pub(crate) fn read_output(command: &mut Command, mut take: impl FnMut(&[u8])) -> Result<(), BenchError> {
    let name = format!("{command:?}");
    let failed = |error| BenchError::Start(name.clone(), error);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut buffer = vec![0; 16 * 1024];
    if let Some(mut output) = child.stdout.take() {
        while let count @ 1.. = output.read(&mut buffer).map_err(failed)? {
            take(&buffer[..count]);
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(BenchError::Ended(name, status)) }
}

/// As [`time`]; also watches the memory, which costs the process a little.
pub(crate) fn watch(command: &mut Command) -> Result<Used, BenchError> {
    let name = format!("{command:?}");
    let started = Instant::now();
    let mut child = spawn(command, &name)?;
    let mut memory = 0;
    let status = loop {
        if let Some(peak) = peak(child.id()) {
            memory = memory.max(peak);
        }
        match child.try_wait().map_err(|error| BenchError::Start(name.clone(), error))? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let wall = started.elapsed();
    if status.success() { Ok(Used { wall, memory }) } else { Err(BenchError::Ended(name, status)) }
}

fn spawn(command: &mut Command, name: &str) -> Result<Child, BenchError> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| BenchError::Start(name.to_owned(), error))
}

fn peak(pid: u32) -> Option<u64> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    process.status().ok()?.vmhwm.map(|kibibytes| kibibytes * 1024)
}

/// Processor time, user and system, of all children that ended so far.
pub(crate) fn children_cpu() -> Result<Duration, BenchError> {
    let stat = procfs::process::Process::myself()?.stat()?;
    let ticks = u64::try_from(stat.cutime + stat.cstime).unwrap_or(0);
    Ok(Duration::from_secs_f64(seconds(ticks) / seconds(procfs::ticks_per_second())))
}

#[expect(clippy::cast_precision_loss, reason = "ticks of a few seconds are far below 2^52")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64
}

/// A peer's program, if it is on this machine.
pub(crate) fn installed(program: &'static str) -> Result<Command, BenchError> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&folders).any(|folder| folder.join(program).is_file());
    if is_there { Ok(Command::new(program)) } else { Err(BenchError::Missing(program)) }
}

/// `piton run` of a runbook with a store of its own.
pub(crate) fn piton(folder: &Folder, runbook: &Path, run: &str) -> Command {
    let mut command = Command::new(PITON);
    command.arg("--store").arg(folder.path().join(format!("{run}.db"))).arg("run").arg(runbook);
    command.args(["--yes", "--run-id", run]).current_dir(folder.path());
    command
}

/// So many commits of one row of `bytes` each, every one on the disk before the next begins.
pub(crate) async fn commits(folder: &Folder, count: usize, bytes: usize) -> Result<Duration, BenchError> {
    use sqlx::ConnectOptions as _;
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

    let path = folder.path().join("commits.db");
    for name in ["commits.db", "commits.db-wal", "commits.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join(name));
    }
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    let mut database = options.connect().await?;
    sqlx::query("CREATE TABLE facts (seq INTEGER PRIMARY KEY, text TEXT NOT NULL)").execute(&mut database).await?;
    let text = "x".repeat(bytes);
    let started = Instant::now();
    for _ in 0..count {
        sqlx::query("INSERT INTO facts (text) VALUES (?)").bind(&text).execute(&mut database).await?;
    }
    Ok(started.elapsed())
}

/// The middle of some figures; of an even number, the lower one.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

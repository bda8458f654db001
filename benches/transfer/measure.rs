//! Times of whole processes, what they use of memory, and why nothing could be measured.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A file could not be made.
    #[error("`{0}`: {1}")]
    File(PathBuf, std::io::Error),
    /// A program did not start.
    #[error("`{0}` does not start: {1}")]
    Start(String, std::io::Error),
    /// A program did not end well.
    #[error("`{0}` failed: {1}")]
    Said(String, String),
    /// A server's program is missing.
    #[error("`{0}` is not installed: apt install {1}")]
    Missing(String, &'static str),
    /// The SQLite file could not be made.
    #[error("the SQLite source: {0}")]
    Database(#[from] sqlx::Error),
    /// A run did not say what it did.
    #[error("`piton show` of the measured run has no {0}")]
    Silent(&'static str),
}

/// What one way of copying used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// From start to end.
    pub(crate) wall: Duration,
    /// Largest resident set, in bytes; 0 where nobody looked.
    pub(crate) memory: u64,
    /// Time of the measured action alone, as its run tells.
    pub(crate) action: Duration,
}

/// Runs a command to its end, times it and watches its memory.
pub(crate) fn watch(command: &mut Command) -> Result<Used, BenchError> {
    let name = format!("{command:?}");
    let log = tempfile::NamedTempFile::new().map_err(|error| BenchError::Start(name.clone(), error))?;
    let output = || log.reopen().map_err(|error| BenchError::Start(name.clone(), error));
    command.stdin(Stdio::null()).stdout(output()?).stderr(output()?);
    let started = Instant::now();
    let mut child = command.spawn().map_err(|error| BenchError::Start(name.clone(), error))?;
    let mut memory = 0;
    let status = loop {
        memory = memory.max(peak(child.id()).unwrap_or(0));
        match child.try_wait().map_err(|error| BenchError::Start(name.clone(), error))? {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let wall = started.elapsed();
    let said = || std::fs::read_to_string(log.path()).unwrap_or_default();
    if status.success() { Ok(Used { wall, memory, ..Used::default() }) } else { Err(BenchError::Said(name, said())) }
}

fn peak(pid: u32) -> Option<u64> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    process.status().ok()?.vmhwm.map(|kibibytes| kibibytes * 1024)
}

/// The middle of some figures; of an even number, the lower one.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

//! What a run of the sweep is struck by, and how.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::super::cli::Said;
use super::{Sitting, Store};

/// Bytes of a page in SQLite's log, with its header.
const FRAME: u64 = 4096 + 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    /// The driver is killed before an append.
    KilledBefore,
    /// The driver is killed behind an append.
    KilledAfter,
    /// The server is killed before an append and starts again.
    ServerGone,
    /// The disk has no room for a page.
    DiskFull,
}

impl Blow {
    /// Runs the program; what it said, and whether it was struck.
    pub(super) fn strikes(self, sitting: &Sitting<'_>, args: &[&str], number: u64) -> (Said, bool) {
        match self {
            Self::KilledBefore => killed(sitting, args, &format!("crash-before-append={number}")),
            Self::KilledAfter => killed(sitting, args, &format!("crash-after-append={number}")),
            Self::ServerGone => server_gone(sitting, args, &format!("stop-before-append={number}")),
            Self::DiskFull => disk_full(sitting, args, number),
        }
    }
}

fn killed(sitting: &Sitting<'_>, args: &[&str], fault: &str) -> (Said, bool) {
    let said = sitting.piton(args, Some(fault));
    let is_struck = said.code == -1;
    assert!(!is_struck || said.out.contains(fault), "the first line names the fault: {}", said.out);
    (said, is_struck)
}

/// The driver stops itself; meanwhile its server goes and comes back.
fn server_gone(sitting: &Sitting<'_>, args: &[&str], fault: &str) -> (Said, bool) {
    let Store::Own(server, _) = sitting.store else { panic!("a server that others use is not killed") };
    let mut command = sitting.command(args);
    let driver = command.env("PITON_FAULT", fault).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut driver = driver.expect("the program starts");
    let is_struck = stops(&mut driver);
    if is_struck {
        server.kill();
        server.start_again();
        kill(pid(&driver), Signal::SIGCONT).expect("it is there");
    }
    (driver.wait_with_output().expect("it ends").into(), is_struck)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process number"))
}

/// Waits until a process has stopped itself; false when it ended.
fn stops(child: &mut Child) -> bool {
    let process = procfs::process::Process::new(pid(child).as_raw()).expect("it is there");
    loop {
        if process.stat().is_ok_and(|stat| stat.state == 'T') {
            return true;
        }
        if child.try_wait().expect("it can be waited for").is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// No file may grow beyond what SQLite's log holds now and `number - 1` pages: writes fail as on a disk that is full.
fn disk_full(sitting: &Sitting<'_>, args: &[&str], number: u64) -> (Said, bool) {
    let log = std::fs::read(sitting.desk.path(".piton/piton.db-wal")).expect("is there");
    let most = committed(&log) + (number - 1) * FRAME;
    let plain = sitting.command(args);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' XFSZ; exec prlimit --fsize={most}:{most} \"$@\""), "sh"]);
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(sitting.desk.path("."));
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.stdin(Stdio::null()).output().expect("prlimit (util-linux) is there");
    assert_eq!(output.status.signal(), None, "the limit is an error, not the end");
    let said = Said::from(output);
    let is_struck = said.code == 1;
    assert!(!is_struck || (said.err.contains("piton.db") && said.err.contains("full")), "{}", said.err);
    (said, is_struck)
}

/// Where the latest transaction in SQLite's log ends; behind it there may be room, or what was taken back. See
/// <https://www.sqlite.org/fileformat2.html#walformat>.
fn committed(log: &[u8]) -> u64 {
    let (header, frames) = log.split_at(32);
    let frame = usize::try_from(FRAME).expect("a few thousand");
    let is_last = |frame: &[u8]| frame[8..16] == header[16..24] && frame[4..8] != [0; 4];
    let last = frames.chunks_exact(frame).rposition(is_last).expect("a transaction");
    header.len() as u64 + (last as u64 + 1) * FRAME
}

/// A reader that keeps SQLite's log from beginning anew, and a log larger than the file, so that what grows first is the log.
pub(super) struct PinnedLog {
    /// Works by itself; the connection ends with it.
    _runtime: tokio::runtime::Runtime,
    _reader: SqliteConnection,
}

impl PinnedLog {
    pub(super) fn of(sitting: &Sitting<'_>) -> Self {
        let steps: Vec<String> =
            (0..20).map(|number| format!("{{ id: s{number}, wait.for: {{ duration: 0s }} }}")).collect();
        sitting.desk.runbook("pad", &format!("limits: {{ parallel: 1 }}\nsteps: [{}]\n", steps.join(", ")));
        let pad = |number: u64| {
            sitting.piton(&["run", "pad.yaml", "--run-id", &format!("pad-{number}")], None).exits(0);
        };
        pad(0);
        let file = sitting.desk.path(".piton/piton.db");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let reader = runtime.block_on(async {
            let mut reader = SqliteConnectOptions::new().filename(&file).connect().await.expect("the store is there");
            reader.ping().await.expect("it answers");
            sqlx::raw_sql("BEGIN; SELECT count(*) FROM runs").execute(&mut reader).await.expect("reads");
            reader
        });
        let length = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let log = sitting.desk.path(".piton/piton.db-wal");
        for number in 1.. {
            if length(&log) > length(&file) {
                break;
            }
            pad(number);
        }
        Self { _runtime: runtime, _reader: reader }
    }
}

//! Runs one command to its end: own session, bounded memory, no orphans, secrets hidden.
//!
//! Refuses to wait for ever: when the command is over, or must end, its whole process group goes with it. A process that
//! left the session by itself (a daemon) is out of reach. Called by `exec`, control commands, readiness checks and
//! notifications.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessGroup, ProcessSession};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zeroize::{Zeroize as _, Zeroizing};

use super::mask::Masker;
use super::wiped::Wiped;

/// Variables that a command inherits; all others must be said.
pub const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "TZ", "USER", "TMPDIR"];

/// From the polite signal to the one that cannot be refused.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long the pipes of a finished command are still read when a process outside its group holds them.
const PIPE_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes read at once of a command that says much.
const READ_MAX: usize = 16 * 1024;

/// Bytes kept of the beginning and of the end of a stream each.
pub const KEPT: usize = 64 * 1024;

/// What becomes of processes that a command leaves behind in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Leftovers {
    /// They are killed.
    Kill,
    /// They stay: starting something is what the command is for. Killed all the same after a cancel.
    Keep,
}

/// A command to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CommandLine {
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Variables on top of [`INHERITED`].
    pub(crate) env: BTreeMap<String, Wiped>,
    /// Folder to run in.
    pub(crate) cwd: PathBuf,
    /// Text for standard input; nothing is an empty input.
    pub(crate) stdin: Option<Wiped>,
    /// What becomes of what it leaves behind.
    pub(crate) leftovers: Leftovers,
}

impl CommandLine {
    /// A command without extras, run in `folder`.
    pub(crate) fn new(argv: &[String], folder: &Path) -> Self {
        Self {
            argv: argv.to_vec(),
            env: BTreeMap::new(),
            cwd: folder.to_path_buf(),
            stdin: None,
            leftovers: Leftovers::Kill,
        }
    }

    /// The program as people know it.
    pub(crate) fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }
}

/// A command that could not be started; nothing happened.
#[derive(Debug, thiserror::Error)]
#[error("cannot start `{program}`: {source}")]
pub(crate) struct NotStarted {
    program: String,
    source: std::io::Error,
}

impl NotStarted {
    /// Whether it may start another time.
    pub(crate) fn may_pass(&self) -> bool {
        may_pass(&self.source)
    }
}

/// Whether what kept a program from starting may pass by itself.
pub(crate) fn may_pass(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidInput, NotFound, PermissionDenied};
    !matches!(error.kind(), NotFound | PermissionDenied | InvalidInput)
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its exit status.
    pub(crate) status: ExitStatus,
    /// What it printed.
    pub(crate) stdout: Captured,
    /// What it complained about.
    pub(crate) stderr: Captured,
    /// Whether it was told to end.
    pub(crate) cancelled: bool,
}

impl Finished {
    /// How it ended, with the last lines of its complaint, for an error message.
    pub(crate) fn describe(&self) -> String {
        let end = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => {
                let name = Signal::try_from(signal).map_or_else(|_| signal.to_string(), |s| s.as_str().to_owned());
                format!("killed by {name}")
            }
            (None, None) => "no exit code".to_owned(),
        };
        let end = if self.cancelled { format!("stopped ({end})") } else { end };
        let complaint = [&self.stderr, &self.stdout].into_iter().map(|c| c.last_lines(5)).find(|text| !text.is_empty());
        match complaint {
            Some(text) => format!("{end}: {text}"),
            None => end,
        }
    }
}

/// The beginning and the end of a stream; the middle is only counted. Secrets are hidden when it is shown.
#[derive(Debug)]
pub(crate) struct Captured {
    masker: Masker,
    head: Zeroizing<Vec<u8>>,
    tail: VecDeque<u8>,
    total: u64,
}

impl Drop for Captured {
    fn drop(&mut self) {
        self.tail.make_contiguous().zeroize();
    }
}

impl Captured {
    fn new(masker: &Masker) -> Self {
        Self { masker: masker.clone(), head: Zeroizing::default(), tail: VecDeque::new(), total: 0 }
    }

    /// A stream of which another process kept this much.
    pub(crate) fn of_parts(masker: &Masker, head: Vec<u8>, tail: Vec<u8>, total: u64) -> Self {
        Self { masker: masker.clone(), head: head.into(), tail: tail.into(), total }
    }

    /// Head, tail and the count of all bytes, with secrets.
    pub(crate) fn into_parts(mut self) -> (Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>, u64) {
        let tail: Vec<u8> = std::mem::take(&mut self.tail).into();
        (std::mem::take(&mut self.head), tail.into(), self.total)
    }

    fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = (KEPT - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        self.tail.extend(&bytes[room..]);
        let over = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..over);
    }

    fn missing(&self) -> u64 {
        self.total.saturating_sub((self.head.len() + self.tail.len()) as u64)
    }

    /// Everything that was printed, with its secrets; nothing when it was more than is kept.
    pub(crate) fn raw(&self) -> Option<Zeroizing<String>> {
        if self.missing() > 0 {
            return None;
        }
        let mut bytes = self.head.clone();
        bytes.extend(&self.tail);
        Some(String::from_utf8_lossy(&bytes).into_owned().into())
    }

    /// Bytes printed in all.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// What is kept, without the secrets of this masker.
    pub(crate) fn masked(&self, masker: &Masker) -> Masked {
        let tail: Zeroizing<Vec<u8>> = self.tail.iter().copied().collect::<Vec<u8>>().into();
        let (mut stream, mut head) = (masker.stream(), Vec::with_capacity(self.head.len()));
        stream.push(&self.head, &mut head);
        if self.missing() == 0 {
            stream.push(&tail, &mut head);
            stream.finish(&mut head);
            return Masked { head, tail: Vec::new(), left_out: 0 };
        }
        // A secret that the gap cuts in two is shown on neither side.
        let margins = stream.withheld() + masker.margin().min(tail.len());
        Masked { head, tail: masker.tail(&tail), left_out: self.missing() + margins as u64 }
    }

    /// What is kept, without secrets; a gap says how much is missing.
    pub(crate) fn text(&self) -> String {
        let Masked { head: mut bytes, tail, left_out } = self.masked(&self.masker);
        if left_out > 0 {
            bytes.extend_from_slice(format!("\n[... {left_out} bytes left out ...]\n").as_bytes());
        }
        bytes.extend(tail);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines that are not empty, without secrets, joined by ` | `.
    pub(crate) fn last_lines(&self, count: usize) -> String {
        let text = self.text();
        let mut lines: Vec<&str> = text.lines().rev().map(str::trim).filter(|l| !l.is_empty()).take(count).collect();
        lines.reverse();
        let joined: String = lines.join(" | ").chars().filter(|c| !c.is_control()).collect();
        match joined.char_indices().rev().nth(999) {
            Some((cut, _)) if cut > 0 => format!("...{}", &joined[cut..]),
            _ => joined,
        }
    }
}

/// What may be shown of a stream: all of it in `head`, or its beginning and its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Masked {
    /// The beginning.
    pub(crate) head: Vec<u8>,
    /// The end, if something was left out.
    pub(crate) tail: Vec<u8>,
    /// Bytes left out between them.
    pub(crate) left_out: u64,
}

/// Kills a process group when the future that watches it is dropped.
pub(crate) struct GroupGuard(Option<Pid>);

impl GroupGuard {
    /// Watches over a group.
    pub(crate) fn of(group: Pid) -> Self {
        Self(Some(group))
    }

    /// Lets the group go: it has ended.
    pub(crate) fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for GroupGuard {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            signal_group(group, Signal::SIGKILL);
        }
    }
}

/// Sends a signal to a group; one that is gone needs none.
pub(crate) fn signal_group(group: Pid, signal: Signal) {
    if let Err(error) = killpg(group, signal)
        && error != nix::errno::Errno::ESRCH
    {
        tracing::warn!(group = group.as_raw(), %signal, %error, "signal not delivered");
    }
}

/// The file of its program: found here, so that the system starts it without a copy of this process that would search.
fn path_of(line: &CommandLine) -> PathBuf {
    let program = line.program();
    if program.contains('/') {
        return line.cwd.join(program);
    }
    let folders = line.env.get("PATH").map(|path| (**path).to_owned()).or_else(|| crate::config::variable("PATH"));
    // What is not found here is not found by the system either, which says so best.
    which::which_in(program, folders, &line.cwd).unwrap_or_else(|_| PathBuf::from(program))
}

/// A tokio command with the minimal environment; a program with a relative path is looked up from `cwd`.
pub(crate) fn prepared(line: &CommandLine) -> CommandWrap {
    CommandWrap::with_new(path_of(line), |command| {
        command.arg0(line.program()).args(line.argv.get(1..).unwrap_or_default()).current_dir(&line.cwd).env_clear();
        for name in INHERITED {
            if let Some(value) = crate::config::variable(name) {
                command.env(name, value);
            }
        }
        command.envs(&line.env);
    })
}

/// Runs the command to its end; after a cancel it gets [`GRACE`] to end by itself.
///
/// # Errors
/// Only when it could not be started at all.
pub(crate) async fn run(
    line: &CommandLine,
    cancel: &CancellationToken,
    masker: &Masker,
) -> Result<Finished, NotStarted> {
    let fail = |source| NotStarted { program: masker.text(line.program()), source };
    start(line).map_err(fail)?.finish(cancel, masker).await.map_err(fail)
}

/// A command that runs. Dropped, it is killed.
pub(crate) struct Started {
    child: Box<dyn ChildWrapper>,
    guard: GroupGuard,
    /// The process group that it leads.
    pub(crate) group: Pid,
    stdin: Wiped,
    leftovers: Leftovers,
}

/// Starts a command in a session of its own: no terminal can stop it, and it can ask nothing there.
pub(crate) fn start(line: &CommandLine) -> std::io::Result<Started> {
    spawn(line, |command| command.wrap(ProcessSession))
}

/// Starts a command in a process group of its own, from a process that has no terminal. This is several times cheaper.
pub(crate) fn start_without_terminal(line: &CommandLine) -> std::io::Result<Started> {
    spawn(line, |command| command.wrap(ProcessGroup::leader()))
}

fn spawn(line: &CommandLine, apart: impl FnOnce(&mut CommandWrap) -> &mut CommandWrap) -> std::io::Result<Started> {
    let mut command = prepared(line);
    command.command_mut().stdin(if line.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    command.command_mut().stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = apart(&mut command).spawn().map_err(|error| about_the_folder(line, error))?;
    let group = group_of(child.as_ref())?;
    let stdin = line.stdin.clone().unwrap_or_default();
    Ok(Started { child, guard: GroupGuard(Some(group)), group, stdin, leftovers: line.leftovers })
}

/// The system reports a missing folder as if the program were missing.
fn about_the_folder(line: &CommandLine, error: std::io::Error) -> std::io::Error {
    if error.kind() != std::io::ErrorKind::NotFound || line.cwd.is_dir() {
        return error;
    }
    let text = format!("its folder `{}` does not exist; create it or set `cwd`", line.cwd.display());
    std::io::Error::new(std::io::ErrorKind::NotFound, text)
}

impl Started {
    /// Waits for its end; after a cancel it gets [`GRACE`] to end by itself.
    pub(crate) async fn finish(mut self, cancel: &CancellationToken, masker: &Masker) -> std::io::Result<Finished> {
        let group = self.group;
        let child = &mut self.child;
        let (mut stdout, mut stderr) = (Captured::new(masker), Captured::new(masker));
        let (out, err, input) = (child.stdout().take(), child.stderr().take(), child.stdin().take());
        let text = std::mem::take(&mut self.stdin);
        let mut cancelled = false;
        let status = {
            let feed = async move {
                if let Some(mut input) = input {
                    // A command need not read its input; a closed pipe is its choice.
                    let _ = input.write_all(text.as_bytes()).await;
                }
            };
            let pipes = async { tokio::join!(drain(out, &mut stdout), drain(err, &mut stderr), feed) };
            tokio::pin!(pipes);
            let mut piping = true;
            let mut kill_at: Option<Instant> = None;
            // The leader alone is waited for here: what it leaves behind is ended below.
            let status = loop {
                let deadline = kill_at.unwrap_or_else(Instant::now);
                tokio::select! {
                    status = child.inner_mut().wait() => break status,
                    _ = &mut pipes, if piping => piping = false,
                    () = cancel.cancelled(), if !cancelled => {
                        cancelled = true;
                        signal_group(group, Signal::SIGTERM);
                        kill_at = Some(Instant::now() + GRACE);
                    }
                    () = tokio::time::sleep_until(deadline), if kill_at.is_some() => {
                        signal_group(group, Signal::SIGKILL);
                        kill_at = None;
                    }
                }
            };
            if self.leftovers == Leftovers::Kill || cancelled {
                signal_group(group, Signal::SIGKILL);
            }
            self.guard.0 = None;
            if piping {
                let keeps = self.leftovers == Leftovers::Keep;
                let patience = if keeps { Duration::from_millis(200) } else { PIPE_PATIENCE };
                let _ = tokio::time::timeout(patience, &mut pipes).await;
            }
            status
        };
        Ok(Finished { status: status?, stdout, stderr, cancelled })
    }
}

/// The group that a fresh child leads.
pub(crate) fn group_of(child: &dyn ChildWrapper) -> Result<Pid, std::io::Error> {
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    pid.map(Pid::from_raw).ok_or_else(|| std::io::Error::other("the child has no process id"))
}

async fn drain(pipe: Option<impl AsyncRead + Unpin>, into: &mut Captured) {
    let Some(mut pipe) = pipe else { return };
    // Most commands say nothing or little.
    let mut buffer = Zeroizing::new(vec![0; 512]);
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        into.push(&buffer[..count]);
        if count == buffer.len() && count < READ_MAX {
            buffer = Zeroizing::new(vec![0; READ_MAX]);
        }
    }
}

//! The driver's side: starts the holder when the first command asks for it, and takes results, also those of a holder
//! that an earlier driver left behind.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessSession};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::{Answer, Claims, Held, Opening, Reply, Request, Slot, Trace};
use crate::action::Context;
use crate::action::process::{self, CommandLine, Finished, GRACE};
use crate::action::service::proc::{self, Identity};

/// Pause between two looks at a command that another holder holds.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Pause before a holder without room is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Of a command that is left to the next driver.
const LET_GO: &str = "this driver can record nothing more; the command goes on";

/// Why there is no result of a held command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeldError {
    /// It could not be started; nothing happened.
    #[error("{error}")]
    NotStarted {
        /// Why.
        error: String,
        /// Whether it may start another time.
        may_pass: bool,
    },
    /// The holder could not be asked; nothing happened.
    #[error("the process that holds commands is not to be had: {0}")]
    NoHolder(String),
    /// The attempt's command has been started already.
    #[error("the command of this attempt was started already")]
    Taken,
    /// It was started, and nobody knows how it ended.
    #[error("how the command ended is lost: {0}")]
    Lost(String),
}

/// What taking up an attempt comes to.
pub(crate) enum Attached {
    /// It ended; whether this driver ended it.
    Ended(Finished),
    /// It was never started and may start now.
    NeverStarted,
}

/// Commands in the care of a holder process; clones share it.
#[derive(Clone)]
pub struct Commands(Arc<Inner>);

struct Inner {
    program: PathBuf,
    link: tokio::sync::Mutex<Option<Link>>,
    next: AtomicU64,
    /// Results that were taken and are not on record yet: the holder's id, or none if they lie in the state folder.
    taken: Mutex<HashMap<Slot, Option<u64>>>,
    /// Results on record that the holder may forget.
    recorded: Mutex<Vec<u64>>,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// A holder at work.
struct Link {
    requests: OwnedWriteHalf,
    waiting: Waiting,
    gone: CancellationToken,
    /// Kept so that the runtime reaps it.
    _holder: Box<dyn ChildWrapper>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Commands {
    /// Commands held by `program hold-commands`, which is started when the first one comes at the latest.
    pub fn new(program: PathBuf) -> Self {
        Self(Arc::new(Inner {
            program,
            link: tokio::sync::Mutex::default(),
            next: AtomicU64::new(1),
            taken: Mutex::default(),
            recorded: Mutex::default(),
        }))
    }

    /// Starts the holder ahead of the first command; where that fails, the first command says why.
    pub(crate) async fn warm(&self) {
        let mut link = self.0.link.lock().await;
        if link.is_none() {
            *link = Link::open(&self.0.program).ok();
        }
    }

    /// Runs a command in its slot. Where there is no room to claim it, that is waited for: nothing fails because a disk is full.
    pub(crate) async fn run(&self, line: &CommandLine, cx: &Context, held: &Held) -> Result<Finished, HeldError> {
        let mut line = line.clone();
        line.cwd = std::path::absolute(&line.cwd).unwrap_or(line.cwd);
        loop {
            let id = self.0.next.fetch_add(1, Ordering::Relaxed);
            return match self.ask(id, &line, cx, held).await? {
                Answer::Ended(end) => {
                    lock(&self.0.taken).insert(held.slot.clone(), Some(id));
                    end.finished(&cx.masker)
                }
                Answer::Taken => Err(HeldError::Taken),
                Answer::NoSlot(error) => Err(HeldError::NoHolder(error)),
                Answer::NoRoom(error) => {
                    let what = format!("waiting for room in `{}`: {error}", held.slot.folder().display());
                    (cx.progress)(crate::action::Progress { what, ..Default::default() });
                    tokio::select! {
                        biased;
                        () = held.detached.cancelled() => return Err(HeldError::NoHolder(error)),
                        () = cx.cancel.cancelled() => return Err(HeldError::NoHolder(error)),
                        () = tokio::time::sleep(ASK_AGAIN) => continue,
                    }
                }
            };
        }
    }

    /// Asks the holder once, and waits for what it says.
    async fn ask(&self, id: u64, line: &CommandLine, cx: &Context, held: &Held) -> Result<Answer, HeldError> {
        let start = Request::Start { id, slot: held.slot.clone(), line: line.clone(), generation: held.generation };
        let mut answer = self.start(id, &start).await.map_err(|error| HeldError::NoHolder(error.to_string()))?;
        let mut guard = StopGuard { commands: self.clone(), id: Some(id) };
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = held.detached.cancelled() => {
                guard.id = None;
                return Err(HeldError::Lost(LET_GO.to_owned()));
            }
            () = cx.cancel.cancelled() => {
                self.send(&Request::Stop { id }).await;
                answer.await
            }
        };
        guard.id = None;
        match answer {
            Ok(answer) => Ok(answer),
            Err(_) => Err(Self::without_holder(held).await),
        }
    }

    /// The holder died: nothing of its commands may run on unseen.
    async fn without_holder(held: &Held) -> HeldError {
        let slot = &held.slot;
        let own = Identity::of(i32::try_from(std::process::id()).unwrap_or(0));
        let take = |holder| {
            let by = Opening { boot: proc::boot_id(), holder, at_ms: crate::config::now().as_millisecond() };
            Claims::open(&slot.claims()).and_then(|mut claims| claims.claim(slot, by, held.generation))
        };
        if own.is_some_and(|own| take(own).is_ok()) {
            return HeldError::NoHolder("it died".to_owned());
        }
        if let Ok(Some(process)) = Trace::of(slot).map(|trace| trace.process) {
            let mut stopping = Stopping::new(process);
            while process.is_alive() {
                stopping.go_on();
                tokio::time::sleep(LOOK_EVERY).await;
            }
            process::signal_group(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        HeldError::Lost("the process that held it died; the command was stopped".to_owned())
    }

    /// Waits for the result of a command that an earlier driver had started.
    pub(crate) async fn attach(&self, cx: &Context, held: &Held) -> Result<Attached, HeldError> {
        let slot = &held.slot;
        let mut stopping: Option<Stopping> = None;
        let mut told = false;
        let lost = |error: io::Error| HeldError::Lost(error.to_string());
        let mut trace = Trace::of(slot).map_err(lost)?;
        loop {
            trace.look().map_err(lost)?;
            let process = trace.process;
            if trace.opening.is_none() {
                return Ok(Attached::NeverStarted);
            }
            let is_held = Slot::is_held(trace.opening.as_ref());
            if let Some(end) = slot.result() {
                lock(&self.0.taken).insert(slot.clone(), None);
                let mut finished = end.finished(&cx.masker)?;
                finished.cancelled |= stopping.is_some();
                return Ok(Attached::Ended(finished));
            }
            if !is_held {
                return Err(HeldError::Lost("the process that held it is gone".to_owned()));
            }
            if let (Some(process), false) = (process, told) {
                told = true;
                let what = format!("re-attached to process {}", process.pid);
                (cx.progress)(super::super::Progress { what, ..Default::default() });
            }
            if held.detached.is_cancelled() {
                return Err(HeldError::Lost(LET_GO.to_owned()));
            }
            if let (true, Some(process)) = (cx.cancel.is_cancelled(), process) {
                stopping.get_or_insert_with(|| Stopping::new(process)).go_on();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Says that the result of a slot is on record; its trace is removed.
    pub fn recorded(&self, slot: &Slot) {
        match lock(&self.0.taken).remove(slot) {
            Some(Some(id)) => lock(&self.0.recorded).push(id),
            Some(None) => slot.forget(),
            None => {}
        }
    }

    /// Tells the holder what is on record, if there is one.
    pub async fn settle(&self) {
        let ids = std::mem::take(&mut *lock(&self.0.recorded));
        if !ids.is_empty() {
            self.send(&Request::Forget { ids }).await;
        }
    }

    async fn start(&self, id: u64, start: &Request) -> io::Result<oneshot::Receiver<Answer>> {
        let mut link = self.0.link.lock().await;
        if link.as_ref().is_none_or(|link| link.gone.is_cancelled()) {
            *link = Some(Link::open(&self.0.program)?);
        }
        let link = link.as_mut().expect("it was just opened");
        let (sender, receiver) = oneshot::channel();
        lock(&link.waiting).insert(id, sender);
        let mut text = Zeroizing::new(Vec::with_capacity(start.size_hint()));
        let ids = std::mem::take(&mut *lock(&self.0.recorded));
        if !ids.is_empty() {
            push_line(&mut text, &Request::Forget { ids })?;
        }
        push_line(&mut text, start)?;
        // What was not written whole is not obeyed; whether it was is found out by the slot.
        let _ = link.requests.write_all(&text).await;
        if link.gone.is_cancelled() {
            lock(&link.waiting).remove(&id);
        }
        Ok(receiver)
    }

    async fn send(&self, request: &Request) {
        let mut text = Vec::new();
        if let Some(link) = self.0.link.lock().await.as_mut()
            && push_line(&mut text, request).is_ok()
        {
            // A holder that is gone has nothing to stop or to forget.
            let _ = link.requests.write_all(&text).await;
        }
    }
}

/// `text` should have room: what it outgrows is not wiped.
fn push_line(text: &mut Vec<u8>, request: &Request) -> io::Result<()> {
    serde_json::to_writer(&mut *text, request).map_err(io::Error::other)?;
    text.push(b'\n');
    Ok(())
}

impl Link {
    fn open(program: &std::path::Path) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        // A session of its own: Ctrl-C and the end of a terminal do not reach it.
        let mut command = CommandWrap::with_new(program, |command| {
            command.arg("hold-commands").current_dir("/");
            command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        });
        let holder = command.wrap(ProcessSession).spawn()?;
        let (replies, requests) = UnixStream::from_std(ours)?.into_split();
        let (waiting, gone) = (Waiting::default(), CancellationToken::new());
        tokio::spawn(listen(replies, waiting.clone(), gone.clone()));
        Ok(Self { requests, waiting, gone, _holder: holder })
    }
}

/// Hands answers to whoever waits for them. When the holder is gone, nobody waits any longer.
async fn listen(replies: OwnedReadHalf, waiting: Waiting, gone: CancellationToken) {
    let mut lines = BufReader::new(replies).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = Zeroizing::new(line);
        let Ok(Reply { id, answer }) = serde_json::from_str(&line) else { break };
        if let Some(sender) = lock(&waiting).remove(&id) {
            let _ = sender.send(answer);
        }
    }
    gone.cancel();
    lock(&waiting).clear();
}

/// Stops a command when the future that waits for it is dropped.
struct StopGuard {
    commands: Commands,
    id: Option<u64>,
}

impl Drop for StopGuard {
    fn drop(&mut self) {
        if let (Some(id), Ok(runtime)) = (self.id, tokio::runtime::Handle::try_current()) {
            let commands = self.commands.clone();
            runtime.spawn(async move { commands.send(&Request::Stop { id }).await });
        }
    }
}

/// Ends a process that somebody else holds: politely, then by force.
struct Stopping {
    process: Identity,
    since: Instant,
    killed: bool,
}

impl Stopping {
    fn new(process: Identity) -> Self {
        if process.is_alive() {
            process::signal_group(Pid::from_raw(process.pid), Signal::SIGTERM);
        }
        Self { process, since: Instant::now(), killed: false }
    }

    fn go_on(&mut self) {
        if !self.killed && self.since.elapsed() >= GRACE && self.process.is_alive() {
            process::signal_group(Pid::from_raw(self.process.pid), Signal::SIGKILL);
            self.killed = true;
        }
    }
}

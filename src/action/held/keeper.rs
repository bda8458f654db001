//! The holder: a process of its own that starts commands for a driver and keeps their results until they are on record.
//!
//! When the driver dies it waits for what runs, writes each result beside its slot and ends. It starts nothing that
//! does not have its slot. Called by the hidden subcommand of the program.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use super::{Answer, Claims, End, Opening, Reply, Request, Slot};
use crate::action::mask::Masker;
use crate::action::process::{self, CommandLine, Started};
use crate::action::service::proc::{self, Identity};

/// How long a result may wait for its driver before it is written down.
const UNREAD: Duration = Duration::from_secs(1);
/// Pause before a result that could not be written is written again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// How often that is tried.
const WRITES_MAX: u32 = 600;

/// A result that is not on record yet.
#[derive(Clone)]
struct Unread {
    slot: Slot,
    end: End,
    /// Whether it lies beside its slot.
    is_kept: bool,
}

/// A holder at work.
struct Keeper {
    boot: String,
    me: Identity,
    replies: tokio::sync::Mutex<OwnedWriteHalf>,
    /// Where slots are claimed, by folder of the run.
    claims: Mutex<HashMap<PathBuf, Claims>>,
    /// What runs: how to stop it.
    running: Mutex<HashMap<u64, CancellationToken>>,
    /// What ended and is not on record yet.
    unread: Mutex<HashMap<u64, Unread>>,
    /// Cancelled once the driver is gone.
    alone: CancellationToken,
}

/// Holds commands for the driver at the other end of standard input; returns when it is gone and nothing runs.
///
/// # Errors
/// When standard input is not the socket of a driver.
pub async fn serve() -> io::Result<()> {
    let stream = std::os::unix::net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.set_nonblocking(true)?;
    let (requests, replies) = UnixStream::from_std(stream)?.into_split();
    let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let keeper = Arc::new(Keeper {
        boot: proc::boot_id(),
        me: Identity::of(pid).ok_or_else(|| io::Error::other("this process is not visible in /proc"))?,
        replies: tokio::sync::Mutex::new(replies),
        claims: Mutex::default(),
        running: Mutex::default(),
        unread: Mutex::default(),
        alone: CancellationToken::new(),
    });
    let tasks = TaskTracker::new();
    let mut lines = BufReader::new(requests).lines();
    // An error while reading is the end of the driver as well.
    while let Ok(Some(line)) = lines.next_line().await {
        let line = Zeroizing::new(line);
        match serde_json::from_str(&line) {
            Ok(Request::Start { id, slot, line, generation }) => {
                let stop = CancellationToken::new();
                lock(&keeper.running).insert(id, stop.clone());
                let keeper = Arc::clone(&keeper);
                tasks.spawn(async move {
                    // Starting a process holds up its thread until the other program is loaded.
                    let begun = keeper.begin(&slot, generation, &line);
                    keeper.hold(id, slot, begun, stop).await;
                });
            }
            Ok(Request::Stop { id }) => {
                if let Some(stop) = lock(&keeper.running).get(&id) {
                    stop.cancel();
                }
            }
            Ok(Request::Forget { ids }) => keeper.forget(&ids),
            // Half a line: the driver died while it wrote.
            Err(_) => break,
        }
    }
    keeper.alone.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "the error of a result that is mapped")]
fn not_started(error: io::Error) -> End {
    End::NotStarted { error: error.to_string(), may_pass: process::may_pass(&error) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// Waits for what began, tells how it ended and keeps that until it is on record.
    async fn hold(
        self: Arc<Self>,
        id: u64,
        slot: Slot,
        begun: Result<Result<Started, End>, Answer>,
        stop: CancellationToken,
    ) {
        let end = match begun {
            Ok(Ok(started)) => started.finish(&stop, &Masker::default()).await.map_or_else(not_started, End::of),
            Ok(Err(end)) => end,
            Err(answer) => {
                lock(&self.running).remove(&id);
                return self.reply(id, answer).await;
            }
        };
        lock(&self.running).remove(&id);
        lock(&self.unread).insert(id, Unread { slot, end: end.clone(), is_kept: false });
        self.reply(id, Answer::Ended(end)).await;
        tokio::select! {
            () = self.alone.cancelled() => {}
            () = tokio::time::sleep(UNREAD) => {}
        }
        self.write_down(id).await;
    }

    /// Takes the slot and starts the command in it.
    fn begin(&self, slot: &Slot, generation: u64, line: &CommandLine) -> Result<Result<Started, End>, Answer> {
        let by = Opening { boot: self.boot.clone(), holder: self.me, at_ms: crate::config::now().as_millisecond() };
        self.in_claims(slot, |claims| claims.claim(slot, by, generation)).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Answer::Taken,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Answer::NoRoom(error.to_string())
            }
            _ => Answer::NoSlot(error.to_string()),
        })?;
        let before = proc::ticks();
        let started = match process::start_without_terminal(line) {
            Ok(started) => started,
            Err(error) => return Ok(Err(not_started(error))),
        };
        if let Some(process) = Identity::started(started.group.as_raw(), before)
            && let Err(error) = self.in_claims(slot, |claims| claims.note(slot, process))
        {
            tracing::warn!(%error, "the process of a command is not written down");
        }
        Ok(Ok(started))
    }

    /// Does something with the claims of the run that a slot is of.
    fn in_claims(&self, slot: &Slot, work: impl FnOnce(&mut Claims) -> io::Result<()>) -> io::Result<()> {
        let mut all = lock(&self.claims);
        if all.get(slot.folder()).is_none_or(Claims::is_gone) {
            // Whatever came to rest is let go of at this occasion.
            all.retain(|_, claims| !claims.is_gone());
            all.insert(slot.folder().to_owned(), Claims::open(&slot.claims())?);
        }
        all.get_mut(slot.folder()).map_or(Ok(()), work)
    }

    async fn reply(&self, id: u64, answer: Answer) {
        let Ok(line) = serde_json::to_vec(&Reply { id, answer }) else { return };
        let mut line = Zeroizing::new(line);
        line.push(b'\n');
        // A driver that is gone reads its results from the slots.
        let _ = self.replies.lock().await.write_all(&line).await;
    }

    fn forget(&self, ids: &[u64]) {
        for id in ids {
            if let Some(Unread { slot, is_kept: true, .. }) = lock(&self.unread).remove(id) {
                slot.forget();
            }
        }
    }

    /// Writes a result beside its slot unless it is on record by now.
    async fn write_down(&self, id: u64) {
        for _ in 0..WRITES_MAX {
            let found = lock(&self.unread).get_mut(&id).map(|unread| {
                unread.is_kept = true;
                unread.clone()
            });
            let Some(Unread { slot, end, .. }) = found else { return };
            match slot.keep(&self.boot, end) {
                Ok(()) => return,
                // The run is over and its folder is gone: nobody will ask.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) => tracing::warn!(%error, "a result is not written down"),
            }
            tokio::time::sleep(WRITE_AGAIN).await;
        }
    }
}

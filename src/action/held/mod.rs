//! Commands that outlive their driver: a holder process starts them, and a later driver takes their results.
//!
//! Before a command starts, its *slot* is claimed in a file in which only the first claim counts; so no attempt's command is
//! ever started twice, whoever dies when. A slot that cannot be judged counts as lost: a person must decide. Called by
//! `exec` and the driver. `docs/design/commands.md` goes through every point at which something can die.

mod claims;
mod keeper;
mod link;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::durable;
use super::mask::Masker;
use super::process::{Captured, CommandLine, Finished};
use super::service::proc::{self, Identity};
use super::wiped::Wiped;
use crate::config::rights::own_folder;
use crate::ids::{RunId, StepId};

use claims::{Claims, Trace};
pub use keeper::serve;
pub use link::Commands;
pub(crate) use link::{Attached, HeldError};

/// Where the slots of a run are claimed, in its folder.
const CLAIMS: &str = "claims";
/// Longest name of a step in a file name; longer ones are told apart by their hash.
const NAME_MAX: usize = 120;

/// What an action needs to have its command held.
#[derive(Clone)]
pub struct Held {
    /// The holder, as seen by this driver.
    pub commands: Commands,
    /// Where the attempt's command leaves its trace.
    pub slot: Slot,
    /// The generation of the driver that asks.
    pub generation: u64,
    /// Cancelled when this driver can record nothing more: its commands go on for the next one.
    pub detached: CancellationToken,
}

/// The trace of one attempt's command in the state folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The folder of its run.
    folder: PathBuf,
    /// Step and attempt, as a file can be named.
    name: String,
}

/// Who took a slot. The command starts behind it.
#[derive(Debug, Serialize, Deserialize)]
struct Opening {
    boot: String,
    holder: Identity,
    at_ms: i64,
}

/// How a held command ended, as it lies in the state folder.
#[derive(Debug, Serialize, Deserialize)]
struct Ending {
    boot: String,
    end: End,
}

/// How a held command ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    /// It ran.
    Exited { wait_status: i32, cancelled: bool, stdout: Kept, stderr: Kept },
    /// It could not be started; nothing happened.
    NotStarted { error: String, may_pass: bool },
}

/// What is kept of a stream, with secrets; in base64.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    head: Wiped,
    tail: Wiped,
    total: u64,
}

impl Kept {
    fn of(captured: Captured) -> Self {
        let (head, tail, total) = captured.into_parts();
        Self { head: STANDARD.encode(&*head).into(), tail: STANDARD.encode(&*tail).into(), total }
    }

    fn captured(&self, masker: &Masker) -> io::Result<Captured> {
        let bytes = |text: &str| STANDARD.decode(text).map_err(io::Error::other);
        Ok(Captured::of_parts(masker, bytes(&self.head)?, bytes(&self.tail)?, self.total))
    }
}

impl End {
    fn of(finished: Finished) -> Self {
        let Finished { status, stdout, stderr, cancelled } = finished;
        let (stdout, stderr) = (Kept::of(stdout), Kept::of(stderr));
        Self::Exited { wait_status: status.into_raw(), cancelled, stdout, stderr }
    }

    fn finished(self, masker: &Masker) -> Result<Finished, HeldError> {
        match self {
            Self::NotStarted { error, may_pass } => Err(HeldError::NotStarted { error, may_pass }),
            Self::Exited { wait_status, cancelled, stdout, stderr } => Ok(Finished {
                status: ExitStatus::from_raw(wait_status),
                stdout: stdout.captured(masker).map_err(|error| HeldError::Lost(error.to_string()))?,
                stderr: stderr.captured(masker).map_err(|error| HeldError::Lost(error.to_string()))?,
                cancelled,
            }),
        }
    }
}

/// What a driver asks of its holder; one JSON line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    /// Take the slot, start the command, answer when it ended.
    Start { id: u64, slot: Slot, line: CommandLine, generation: u64 },
    /// End it: politely, then by force.
    Stop { id: u64 },
    /// Its result is on record; nothing of it need be kept.
    Forget { ids: Vec<u64> },
}

impl Request {
    /// Bytes that its line takes at most, as long as few characters must be escaped.
    fn size_hint(&self) -> usize {
        let Self::Start { line, .. } = self else { return 0 };
        let argv: usize = line.argv.iter().map(|word| word.len() + 3).sum();
        let env: usize = line.env.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        2 * (argv + env + line.stdin.as_ref().map_or(0, |text| text.len()) + line.cwd.as_os_str().len()) + 1024
    }
}

/// What a holder answers to a start.
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    id: u64,
    answer: Answer,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// It ended.
    Ended(End),
    /// Somebody else has taken the slot.
    Taken,
    /// The slot could not be written; nothing was started.
    NoSlot(String),
    /// There was no room to write it; nothing was started, and it may be another time.
    NoRoom(String),
}

/// What can be told of an attempt that a dead driver left without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its result lies there.
    Ended,
    /// It is held: it runs, or its result is about to be written.
    Held,
    /// It was never started, for certain.
    NeverStarted,
    /// It cannot be told.
    Lost,
}

/// Folder of the slots of a run.
fn folder(state_dir: &Path, run: &RunId) -> PathBuf {
    state_dir.join("commands").join(durable::file_name(run.as_str()))
}

fn generation_file(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("claims-{generation}"))
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "not removed");
    }
}

/// Makes the folder of a run and notes that the driver of this generation keeps its slots there. From here on, a slot
/// that is not there was never taken. A new run finds nothing of an older one of the same name.
pub fn open(state_dir: &Path, run: &RunId, generation: u64, is_new: bool) -> io::Result<()> {
    let folder = folder(state_dir, run);
    if is_new {
        close(state_dir, run);
    }
    own_folder(&folder)?;
    claims::make(&folder.join(CLAIMS))?;
    write_new(&generation_file(&folder, generation), proc::boot_id().as_bytes())
}

/// Removes all slots of a run in which nothing is held any more.
pub fn close(state_dir: &Path, run: &RunId) {
    if let Err(error) = fs::remove_dir_all(folder(state_dir, run))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%run, %error, "the folder of its commands is not removed");
    }
}

/// A new file that only its owner reads.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)
}

impl Slot {
    /// The slot of an attempt.
    pub fn of(state_dir: &Path, run: &RunId, step: &StepId, attempt: u32) -> Self {
        let mut name = durable::file_name(step.as_str());
        if name.len() > NAME_MAX {
            let hash = crate::plan::sha256_hex(name.as_bytes());
            name = format!("{}-{hash}", &name[..40]);
        }
        let folder = std::path::absolute(folder(state_dir, run)).unwrap_or_else(|_| folder(state_dir, run));
        Self { folder, name: format!("{name}.{attempt}") }
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it is claimed.
    fn claims(&self) -> PathBuf {
        self.folder.join(CLAIMS)
    }

    fn ended(&self) -> PathBuf {
        self.with_ending("ended")
    }

    fn with_ending(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", self.name))
    }

    /// When the slot was taken.
    pub fn taken_at(&self) -> Option<jiff::Timestamp> {
        let opening = Trace::of(self).ok()?.opening?;
        jiff::Timestamp::from_millisecond(opening.at_ms).ok()
    }

    /// Forgets a result that is on record. Who took the slot stays written until the run rests: whoever comes late must find it taken.
    fn forget(&self) {
        remove(&self.ended());
    }

    /// Puts the result beside the slot, whole or not at all.
    fn keep(&self, boot: &str, end: End) -> io::Result<()> {
        let path = self.with_ending("ending");
        let content = serde_json::to_vec(&Ending { boot: boot.to_owned(), end }).map_err(io::Error::other)?;
        durable::remove(&path)?;
        write_new(&path, &content)?;
        fs::rename(&path, self.ended())
    }

    /// The result, if one of this boot lies there. After a crash of the machine a file may hold anything.
    fn result(&self) -> Option<End> {
        let content = durable::read(&self.ended()).ok()??;
        let ending: Ending = serde_json::from_slice(&content).ok()?;
        (ending.boot == proc::boot_id()).then_some(ending.end)
    }

    /// Whether the process that took the slot can still write a result.
    fn is_held(opening: Option<&Opening>) -> bool {
        opening.is_some_and(|opening| opening.holder.is_alive() && opening.boot == proc::boot_id())
    }
}

/// What became of the command of an attempt that the driver of `generation` recorded as started.
pub fn standing(state_dir: &Path, run: &RunId, step: &StepId, attempt: u32, generation: u64) -> Standing {
    let slot = Slot::of(state_dir, run, step, attempt);
    match Trace::of(&slot).map(|trace| trace.opening) {
        Ok(Some(opening)) => {
            // The holder writes the result before it goes, so it is looked for after the holder.
            let held = Slot::is_held(Some(&opening));
            if slot.result().is_some() {
                Standing::Ended
            } else if held {
                Standing::Held
            } else {
                Standing::Lost
            }
        }
        Ok(None) => {
            let boot = durable::read(&generation_file(&folder(state_dir, run), generation)).ok().flatten();
            let here = boot.is_some_and(|boot| boot == proc::boot_id().as_bytes());
            if here { Standing::NeverStarted } else { Standing::Lost }
        }
        Err(_) => Standing::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_taken_once_and_stays_taken() {
        let place = tempfile::tempdir().expect("a temp dir");
        let (run, step) = (RunId::new("r"), StepId::new("each[a]"));
        let me = Identity::of(i32::try_from(std::process::id()).expect("a number")).expect("is there");
        let slot = Slot::of(place.path(), &run, &step, 1);
        let take = |generation| {
            let by = Opening { boot: proc::boot_id(), holder: me, at_ms: 1 };
            let taken = Claims::open(&slot.claims()).and_then(|mut claims| claims.claim(&slot, by, generation));
            taken.map_err(|error| error.kind())
        };
        let stands = || standing(place.path(), &run, &step, 1, 2);
        assert_eq!(take(2), Err(io::ErrorKind::NotFound), "the run rests");
        open(place.path(), &run, 2, true).expect("opens");
        assert_eq!(take(1), Err(io::ErrorKind::NotFound), "who asked worked before the run rested");
        assert_eq!(stands(), Standing::NeverStarted);
        assert_eq!(take(2), Ok(()));
        assert_eq!((take(2), stands()), (Err(io::ErrorKind::AlreadyExists), Standing::Held));
        let end = End::NotStarted { error: "no".into(), may_pass: false };
        slot.keep(&proc::boot_id(), end).expect("is kept");
        assert_eq!(stands(), Standing::Ended);
        slot.forget();
        assert_eq!((take(2), slot.result().is_none()), (Err(io::ErrorKind::AlreadyExists), true), "late and refused");
        // Where it cannot be seen who took what, nothing is certain.
        fs::remove_file(slot.claims()).expect("is there");
        assert_eq!(stands(), Standing::Lost);
    }
}

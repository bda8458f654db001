//! Who may start which command: a file of each run to which claims are only ever added. The first claim of a slot counts.
//!
//! A claim is one write at the end of the file, and the kernel lets such writes of several processes follow each other whole. Whoever
//! reads what stands before its own claim knows whether it was the first. A file that is gone takes no claim: its run rests or is over.
//! Used by holders, by drivers whose holder died, and by drivers that look what became of an attempt. `docs/design/commands.md`.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Opening, Slot, generation_file};
use crate::action::service::proc::Identity;

/// What one line says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// Somebody is about to start a command.
    Claim { slot: String, by: Opening },
    /// It runs, as this process.
    Runs { slot: String, process: Identity },
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600);
    options
}

/// Makes the file, if it is not there.
pub(super) fn make(path: &Path) -> io::Result<()> {
    options().create(true).open(path).map(drop)
}

/// The bytes from `from` up to `to`.
fn part(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// What stands in whole lines. One that is torn, because a disk was full, says nothing, and the next one begins behind it.
fn lines(bytes: &[u8]) -> impl Iterator<Item = Line> {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

/// The file of one run, open to claim slots of it.
#[derive(Debug)]
pub(super) struct Claims {
    file: File,
    /// How far it was read.
    read: u64,
    claimed: HashSet<String>,
    /// Drivers that are known to have worked in its folder.
    generations: HashSet<u64>,
}

impl Claims {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = options().open(path)?;
        Ok(Self { file, read: 0, claimed: HashSet::new(), generations: HashSet::new() })
    }

    /// Whether its run may have come to rest, so that there may be another file by now.
    pub(super) fn is_gone(&self) -> bool {
        self.file.metadata().map_or(true, |file| file.nlink() == 0)
    }

    /// Takes a slot for a driver of this generation; nobody can take it twice.
    ///
    /// Refused once the folder in which that driver worked is gone: its run came to rest meanwhile.
    pub(super) fn claim(&mut self, slot: &Slot, by: Opening, generation: u64) -> io::Result<()> {
        if !self.generations.contains(&generation) {
            fs::metadata(generation_file(slot.folder(), generation))?;
            self.generations.insert(generation);
        }
        self.add(&Line::Claim { slot: slot.name.clone(), by })?;
        if self.is_gone() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the run came to rest meanwhile"));
        }
        if self.claimed.insert(slot.name.clone()) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "the command of this attempt was started already"))
    }

    /// Notes which process runs in a slot that was taken.
    pub(super) fn note(&mut self, slot: &Slot, process: Identity) -> io::Result<()> {
        self.add(&Line::Runs { slot: slot.name.clone(), process })
    }

    /// Adds a line and takes in what others added before it.
    fn add(&mut self, line: &Line) -> io::Result<()> {
        // The first break ends a line that somebody could not write whole.
        let mut text = b"\n".to_vec();
        serde_json::to_writer(&mut text, line).map_err(io::Error::other)?;
        text.push(b'\n');
        let written = self.file.write(&text)?;
        if written < text.len() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "there is no room to write down who started it"));
        }
        let end = self.file.stream_position()?;
        let begin = end - text.len() as u64;
        if begin > self.read {
            for line in lines(&part(&self.file, self.read, begin)?) {
                if let Line::Claim { slot, .. } = line {
                    self.claimed.insert(slot);
                }
            }
        }
        self.read = end;
        Ok(())
    }
}

/// What is written of one slot.
#[derive(Debug)]
pub(super) struct Trace<'s> {
    slot: &'s Slot,
    file: File,
    read: u64,
    /// Who took it, if anybody did.
    pub(super) opening: Option<Opening>,
    /// The process that runs in it.
    pub(super) process: Option<Identity>,
}

impl<'s> Trace<'s> {
    pub(super) fn of(slot: &'s Slot) -> io::Result<Self> {
        let mut trace = Self { slot, file: File::open(slot.claims())?, read: 0, opening: None, process: None };
        trace.look()?;
        Ok(trace)
    }

    /// Takes in what was added since the last look.
    pub(super) fn look(&mut self) -> io::Result<()> {
        let bytes = part(&self.file, self.read, self.file.metadata()?.len())?;
        // What is being written has no end yet.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in lines(&bytes[..whole]) {
            match line {
                Line::Claim { slot, by } if slot == self.slot.name => drop(self.opening.get_or_insert(by)),
                Line::Runs { slot, process } if slot == self.slot.name => self.process = Some(process),
                Line::Claim { .. } | Line::Runs { .. } => {}
            }
        }
        self.read += whole as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{folder, open};
    use super::*;
    use crate::action::service::proc;
    use crate::ids::{RunId, StepId};

    fn me() -> Opening {
        let pid = i32::try_from(std::process::id()).expect("a number");
        Opening { boot: proc::boot_id(), holder: Identity::of(pid).expect("is there"), at_ms: 1 }
    }

    fn kind(result: io::Result<()>) -> Result<(), io::ErrorKind> {
        result.map_err(|error| error.kind())
    }

    #[test]
    fn of_many_who_want_the_same_slots_each_is_had_once() {
        let place = tempfile::tempdir().expect("a temp dir");
        let run = RunId::new("r");
        open(place.path(), &run, 1, true).expect("opens");
        let slots: Vec<Slot> =
            (0..200).map(|step| Slot::of(place.path(), &run, &StepId::new(format!("s{step}")), 1)).collect();
        let taken: usize = std::thread::scope(|scope| {
            let wants = |_| {
                scope.spawn(|| {
                    let mut claims = Claims::open(&slots[0].claims()).expect("opens");
                    let mut mine = 0;
                    for slot in &slots {
                        if kind(claims.claim(slot, me(), 1)) == Ok(()) {
                            claims.note(slot, me().holder).expect("is written");
                            mine += 1;
                        }
                    }
                    mine
                })
            };
            let wanting: Vec<_> = (0..4).map(wants).collect();
            wanting.into_iter().map(|one| one.join().expect("ends")).sum()
        });
        assert_eq!(taken, slots.len());
        for slot in &slots {
            let trace = Trace::of(slot).expect("reads");
            assert!(trace.opening.is_some() && trace.process.is_some(), "{slot:?}");
        }
    }

    #[test]
    fn a_line_that_is_torn_is_no_claim_and_hides_none() {
        let place = tempfile::tempdir().expect("a temp dir");
        let (run, step) = (RunId::new("r"), StepId::new("a"));
        open(place.path(), &run, 1, true).expect("opens");
        let slot = Slot::of(place.path(), &run, &step, 1);
        let whole = serde_json::to_vec(&Line::Claim { slot: slot.name.clone(), by: me() }).expect("JSON");
        std::fs::write(slot.claims(), &whole[..whole.len() - 1]).expect("writes");
        let mut claims = Claims::open(&slot.claims()).expect("opens");
        assert!(Trace::of(&slot).expect("reads").opening.is_none());
        assert_eq!(kind(claims.claim(&slot, me(), 1)), Ok(()));
        assert!(Trace::of(&slot).expect("reads").opening.is_some());
        let mut late = Claims::open(&slot.claims()).expect("opens");
        assert_eq!(kind(late.claim(&slot, me(), 1)), Err(io::ErrorKind::AlreadyExists));
    }

    #[test]
    fn what_comes_after_the_run_rested_starts_nothing() {
        let place = tempfile::tempdir().expect("a temp dir");
        let (run, step) = (RunId::new("r"), StepId::new("a"));
        let slot = Slot::of(place.path(), &run, &step, 1);
        open(place.path(), &run, 1, true).expect("opens");
        let mut claims = Claims::open(&slot.claims()).expect("opens");
        std::fs::remove_dir_all(folder(place.path(), &run)).expect("the run rests");
        assert_eq!(kind(claims.claim(&slot, me(), 1)), Err(io::ErrorKind::NotFound));
        open(place.path(), &run, 2, false).expect("the run goes on");
        assert!(claims.is_gone());
        let mut again = Claims::open(&slot.claims()).expect("opens");
        assert_eq!(kind(again.claim(&slot, me(), 1)), Err(io::ErrorKind::NotFound), "who asked is of before");
        assert_eq!(kind(again.claim(&slot, me(), 2)), Ok(()));
    }
}

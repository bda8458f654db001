//! The anchor: how far each run had come, in a file beside the journal, so that a lost end does not go unnoticed.
//!
//! A journal that was cut off is a shorter journal with a whole hash chain; nothing in it says that there was more. So
//! after each commit the place and hash of the latest record are written to a slot of a small file, without a sync:
//! the anchor may stay behind the journal, but a journal that stays behind its anchor has lost facts.
//! `docs/design/journal.md` says what the file looks like.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::event::Record;
use crate::ids::RunId;
use crate::journal::chain::Row;

const SLOTS: u64 = 1024;
const SLOT_BYTES: usize = 512;
const HEAD: &str = "piton-anchor-v1";

/// How far a run had come for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) run: RunId,
    pub(super) seq: u64,
    pub(super) hash: String,
    /// When that was recorded, in milliseconds since 1970.
    at_ms: i64,
}

impl Mark {
    /// Whether the record is there that this mark is of.
    pub(super) fn is_among(&self, rows: &[Row]) -> bool {
        let index = rows.partition_point(|row| row.seq < self.seq);
        rows.get(index).is_some_and(|row| row.seq == self.seq && row.hash == self.hash)
    }
}

/// The anchor file of a journal; clones share the handle.
#[derive(Debug, Clone)]
pub(super) struct Anchor(Arc<File>);

/// Where the anchor of the journal at `path` is.
pub(super) fn path_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-anchor");
    PathBuf::from(name)
}

impl Anchor {
    /// Opens the anchor of the journal at `path`, or makes an empty one.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(path_of(path)).map(|file| Self(Arc::new(file)))
    }

    /// Notes the last of `records`. A full disk does not fail the append that is already durable.
    pub(super) fn note(&self, run: &RunId, records: &[Record]) {
        let Some(last) = records.last() else { return };
        let body = format!("{HEAD}\n{run}\n{}\n{}\n{}\n", last.seq, last.hash, last.at.as_millisecond());
        let mut slot = format!("{body}{}\n", check(&body)).into_bytes();
        // Ids of that length are not given by people; such a run goes without an anchor.
        if slot.len() > SLOT_BYTES {
            return;
        }
        slot.resize(SLOT_BYTES, 0);
        if let Err(error) = self.0.write_all_at(&slot, place(run)) {
            tracing::warn!(%run, %error, "the anchor of the journal was not written");
        }
    }

    /// How far `run` had come, if its slot still says so.
    pub(super) fn of(&self, run: &RunId) -> Option<Mark> {
        let mut slot = [0; SLOT_BYTES];
        self.0.read_exact_at(&mut slot, place(run)).ok()?;
        parse(&slot).filter(|mark| mark.run == *run)
    }

    /// The latest mark of all runs.
    pub(super) fn latest(&self) -> io::Result<Option<Mark>> {
        let mut bytes = vec![0; usize::try_from(self.0.metadata()?.len()).unwrap_or(0).min(WHOLE)];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(bytes.chunks(SLOT_BYTES).filter_map(parse).max_by_key(|mark| mark.at_ms))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "half a megabyte fits every usize")]
const WHOLE: usize = SLOTS as usize * SLOT_BYTES;

/// Runs share slots by chance; the later one wins, and it is the later one that a lost end would take.
fn place(run: &RunId) -> u64 {
    let digest = Sha256::digest(run.as_str().as_bytes());
    u64::from(u16::from_be_bytes([digest[0], digest[1]])) % SLOTS * SLOT_BYTES as u64
}

fn check(body: &str) -> String {
    hex::encode(&Sha256::digest(body)[..8])
}

/// A slot that was never written, or was cut by a crash of the machine, says nothing.
fn parse(slot: &[u8]) -> Option<Mark> {
    if slot.first() != Some(&b'p') {
        return None;
    }
    let text = std::str::from_utf8(slot).ok()?.trim_end_matches('\0');
    let (body, sum) = text.trim_end_matches('\n').rsplit_once('\n')?;
    let body = format!("{body}\n");
    if check(&body) != sum {
        return None;
    }
    let mut lines = body.lines();
    if lines.next() != Some(HEAD) {
        return None;
    }
    let run = RunId::new(lines.next()?);
    let seq = lines.next()?.parse().ok()?;
    let hash = lines.next()?.to_owned();
    Some(Mark { run, seq, hash, at_ms: lines.next()?.parse().ok()? })
}

//! Room in the write-ahead log ahead of what is written: a sync that need not make the file's new length durable as well is faster.
//!
//! Made by SQLite itself: pages of a transaction that outgrows its cache spill into the log, and stay there, worth nothing, when it
//! is taken back. Only for runs that go on appending. Asked with each append; never fails one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use sqlx::{Connection as _, SqliteConnection};

/// Appends in a row that made the file longer before room is made.
const GROWN_MAX: u32 = 8;
/// Bytes of room, as much as there is already within these bounds.
const ROOM: std::ops::RangeInclusive<u64> = (256 << 10)..=(1 << 20);
/// With so many bytes SQLite begins the file anew (1,000 pages, as it comes), or somebody keeps it from that.
const LENGTH_MAX: u64 = 4 << 20;

/// What is known of the log of one store.
#[derive(Debug)]
pub(super) struct Room {
    log: PathBuf,
    length: AtomicU64,
    grown: AtomicU32,
}

impl Room {
    /// Of the store at `path`.
    pub(super) fn of(path: &Path) -> Self {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Self { log: log.into(), length: AtomicU64::new(0), grown: AtomicU32::new(0) }
    }

    fn length(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |file| file.len())
    }

    /// Whether the latest appends had none. Asked while an append is on its way, which may be counted or not.
    pub(super) fn is_short(&self) -> bool {
        let known = self.length.load(Ordering::Relaxed);
        if known >= LENGTH_MAX {
            return false;
        }
        let length = self.length();
        self.length.store(length, Ordering::Relaxed);
        length > known && self.grown.fetch_add(1, Ordering::Relaxed) >= GROWN_MAX
    }

    /// Makes room. What comes of it shows in the next sync, and nowhere else.
    pub(super) async fn make(&self, writer: &mut SqliteConnection) {
        self.grown.store(0, Ordering::Relaxed);
        let length = self.length();
        let bytes = length.clamp(*ROOM.start(), *ROOM.end());
        if let Err(error) = spill(writer, bytes).await {
            tracing::debug!(%error, "no room was made in the log");
        }
        self.length.store(self.length(), Ordering::Relaxed);
    }
}

/// Writes so many bytes into the log and takes them back. Whoever is dropped in the middle of it leaves a transaction that the next
/// user of the connection finds taken back.
async fn spill(writer: &mut SqliteConnection, bytes: u64) -> Result<(), sqlx::Error> {
    // A cache of a few pages spills the others.
    sqlx::raw_sql("PRAGMA cache_size = 10").execute(&mut *writer).await?;
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await?;
    let spilled = sqlx::query("INSERT INTO transcripts VALUES ('', zeroblob(?))")
        .bind(bytes.cast_signed())
        .execute(&mut *tx)
        .await;
    tx.rollback().await?;
    sqlx::raw_sql("PRAGMA cache_size = -2000").execute(&mut *writer).await?;
    spilled.map(drop)
}

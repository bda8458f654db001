//! What a comparison remembers over a crash: tables that are done, and how far the current one has come.
//!
//! Lives with whoever asks, never in the databases that are compared; losing it costs time, not truth. What was asked otherwise, or with
//! another version, is not taken up, nor is a table whose counts have changed since. See `docs/design/compare.md`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::sums::SideState;
use super::{CompareMode, CompareRequest};
use crate::transfer::rows::Side;

/// Keeps one text over a crash.
pub trait Keep: Send + Sync {
    /// The text that was kept last.
    fn load(&self) -> Option<String>;
    /// Keeps a text in place of the last one.
    fn save(&self, text: &str);
    /// Keeps nothing any more.
    fn clear(&self);
}

/// Rows of both sides.
pub(super) type RowCounts = [u64; 2];

/// A table under way.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Current {
    pub(super) table: String,
    pub(super) counts: RowCounts,
    pub(super) sides: [SideState; 2],
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Kept {
    /// By table: the counts and the hash of both sides.
    equal: BTreeMap<String, (RowCounts, String)>,
    current: Option<Current>,
}

/// The memory of one comparison.
#[derive(Clone)]
pub(super) struct Memory {
    asked: String,
    keep: Option<Arc<dyn Keep>>,
    kept: Arc<Mutex<Kept>>,
}

impl Memory {
    pub(super) fn open(request: &CompareRequest, keep: Option<Arc<dyn Keep>>) -> Self {
        let asked = asked(request);
        let stored = keep.as_ref().filter(|_| request.mode == CompareMode::Content).and_then(|keep| keep.load());
        let kept = stored.and_then(|text| read(&text, &asked)).unwrap_or_default();
        Self { asked, keep, kept: Arc::new(Mutex::new(kept)) }
    }

    fn change(&self, change: impl FnOnce(&mut Kept)) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut kept);
        if let Some(keep) = &self.keep {
            keep.save(&text(&kept, &self.asked));
        }
    }

    /// The hash of a table that was found equal before, if it still has as many rows.
    pub(super) fn equal(&self, table: &str, counts: RowCounts) -> Option<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.equal.get(table).filter(|(then, _)| *then == counts).map(|(_, hash)| hash.clone())
    }

    /// How far the table had come with so many buckets, if it still has as many rows; `true` where that is anything.
    pub(super) fn begin(&self, table: &str, counts: RowCounts, buckets: usize) -> ([SideState; 2], bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |current: &&Current| {
            current.table == table && current.counts == counts && current.sides[0].buckets.len() == buckets
        };
        if let Some(current) = kept.current.as_ref().filter(same) {
            return (current.sides.clone(), true);
        }
        let sides = [SideState::new(buckets), SideState::new(buckets)];
        kept.current = Some(Current { table: table.to_owned(), counts, sides: sides.clone() });
        (sides, false)
    }

    /// The number of buckets that the table was last summed up with.
    pub(super) fn buckets(&self, table: &str) -> Option<usize> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.current.as_ref().filter(|current| current.table == table).map(|current| current.sides[0].buckets.len())
    }

    pub(super) fn advance(&self, side: Side, state: &SideState) {
        self.change(|kept| {
            if let Some(current) = &mut kept.current {
                current.sides[usize::from(side == Side::Target)] = state.clone();
            }
        });
    }

    pub(super) fn finish(&self, table: &str, counts: RowCounts, hash: Option<String>) {
        self.change(|kept| {
            kept.current = None;
            if let Some(hash) = hash {
                kept.equal.insert(table.to_owned(), (counts, hash));
            }
        });
    }

    /// The answer is known: nothing is to be taken up again.
    pub(super) fn end(&self) {
        if let Some(keep) = &self.keep {
            keep.clear();
        }
    }
}

/// What must be the same for a comparison to be taken up.
fn asked(request: &CompareRequest) -> String {
    let all = format!("{} {:?} {} {:?}", env!("CARGO_PKG_VERSION"), request.mapping, request.set, request.range);
    hex::encode(Sha256::digest(all))
}

fn text(kept: &Kept, asked: &str) -> String {
    let equal: serde_json::Map<String, Json> =
        kept.equal.iter().map(|(table, (counts, hash))| (table.clone(), json!([counts[0], counts[1], hash]))).collect();
    let current = kept.current.as_ref().map(|current| {
        let sides: Vec<Json> = current.sides.iter().map(SideState::to_json).collect();
        json!({ "table": current.table, "counts": current.counts, "sides": sides })
    });
    json!({ "asked": asked, "equal": equal, "current": current }).to_string()
}

fn read(text: &str, asked: &str) -> Option<Kept> {
    let stored: Json = serde_json::from_str(text).ok()?;
    if stored.get("asked")?.as_str()? != asked {
        return None;
    }
    let mut kept = Kept::default();
    for (table, one) in stored.get("equal")?.as_object()? {
        let counts = [one.get(0)?.as_u64()?, one.get(1)?.as_u64()?];
        kept.equal.insert(table.clone(), (counts, one.get(2)?.as_str()?.to_owned()));
    }
    let current = stored.get("current")?;
    if !current.is_null() {
        let counts = current.get("counts")?;
        let sides = current.get("sides")?;
        let sides = [SideState::from_json(sides.get(0)?)?, SideState::from_json(sides.get(1)?)?];
        if sides[0].buckets.len() != sides[1].buckets.len() {
            return None;
        }
        let counts = [counts.get(0)?.as_u64()?, counts.get(1)?.as_u64()?];
        kept.current = Some(Current { table: current.get("table")?.as_str()?.to_owned(), counts, sides });
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::compare::slices::Position;

    #[test]
    fn what_is_kept_is_read_back_by_whoever_asks_the_same() {
        let mut sides = [SideState::new(2), SideState::new(2)];
        sides[0].buckets[1].rows = 7;
        sides[1].position = Position::Page(3);
        let current = Some(Current { table: "t".to_owned(), counts: [7, 8], sides });
        let equal = BTreeMap::from([("done".to_owned(), ([1, 1], "ff".to_owned()))]);
        let kept = Kept { equal, current };
        assert_eq!(read(&text(&kept, "this"), "this"), Some(kept.clone()));
        assert_eq!(read(&text(&kept, "this"), "that"), None);
        assert_eq!(read("{", "this"), None);
    }
}

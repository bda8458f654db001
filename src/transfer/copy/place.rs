//! How far a copy by pages has come, and which rows a later snapshot may still find on the pages that are left.
//!
//! Pure values; kept in the checkpoint, used by `heap`. The argument why nothing is lost or doubled is in `docs/design/transfer.md`.

use serde_json::{Value as Json, json};

/// Transactions that may lie between a pin and a later look; PostgreSQL's numbers come round after twice as many.
const HORIZON: u64 = 1 << 31;
/// Numbers of transactions before they come round.
const ROUND: u64 = 1 << 32;

/// The pages of a table as one snapshot saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Pages {
    /// Every transaction below this one had ended when the copy began.
    pub(super) xmin: u64,
    /// The file in which the table stood.
    pub(super) filenode: u64,
    /// Pages that the table had.
    pub(super) total: u64,
    /// Half-open ranges that are done, in order, none touching another.
    pub(super) done: Vec<(u64, u64)>,
}

impl Pages {
    /// Notes a range as done.
    pub(super) fn finish(&mut self, range: (u64, u64)) {
        self.done.push(range);
        self.done.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(self.done.len());
        for (from, to) in self.done.drain(..) {
            match joined.last_mut() {
                Some(last) if last.1 >= from => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        self.done = joined;
    }

    /// The ranges that are left.
    pub(super) fn left(&self) -> Vec<(u64, u64)> {
        let mut left = Vec::new();
        let mut at = 0;
        for (from, to) in &self.done {
            if *from > at {
                left.push((at, *from));
            }
            at = at.max(*to);
        }
        if at < self.total {
            left.push((at, self.total));
        }
        left
    }

    /// Whether the pages that are left still hold what they held: same file, numbers of transactions not come round.
    pub(super) fn holds(&self, filenode: u64, xmin: u64) -> bool {
        self.filenode == filenode && xmin.checked_sub(self.xmin).is_some_and(|passed| passed < HORIZON / 2)
    }

    /// True for a row version that stood where it stands when the copy began.
    pub(super) fn is_old(&self) -> String {
        format!("NOT {}", self.is_young())
    }

    /// True for a row version that may be younger than the copy's beginning.
    pub(super) fn is_young(&self) -> String {
        let round = self.xmin % ROUND;
        format!("((xmin::text::int8 - {round} + {ROUND}) % {ROUND} < {HORIZON})")
    }

    /// The form in the checkpoint.
    pub(in super::super) fn to_stored(&self) -> Json {
        json!({ "xmin": self.xmin, "filenode": self.filenode, "pages": self.total, "done": self.done })
    }

    pub(in super::super) fn from_stored(stored: &Json) -> Option<Self> {
        let number = |name: &str| stored.get(name).and_then(Json::as_u64);
        let done = stored.get("done")?.as_array()?.iter();
        let done = done.map(|range| Some((range.get(0)?.as_u64()?, range.get(1)?.as_u64()?)));
        Some(Self {
            xmin: number("xmin")?,
            filenode: number("filenode")?,
            total: number("pages")?,
            done: done.collect::<Option<Vec<_>>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages() -> Pages {
        Pages { xmin: 5_000_000_000, filenode: 7, total: 100, done: Vec::new() }
    }

    #[test]
    fn what_is_done_and_what_is_left_cover_every_page_once() {
        let mut place = pages();
        for _ in 0..200 {
            let from = fastrand::u64(0..100);
            let to = (from + 1 + fastrand::u64(0..20)).min(100);
            place.finish((from, to));
            let covered: u64 = place.done.iter().chain(&place.left()).map(|(from, to)| to - from).sum();
            assert_eq!(covered, 100, "{place:?}");
            assert!(place.done.windows(2).all(|pair| pair[0].1 < pair[1].0), "{place:?}");
        }
        assert_eq!(Pages::from_stored(&place.to_stored()), Some(place));
    }

    #[test]
    fn a_rewritten_table_and_a_long_pause_are_seen() {
        let place = pages();
        assert!(place.holds(7, 5_000_000_001));
        assert!(!place.holds(8, 5_000_000_001), "another file");
        assert!(!place.holds(7, 4_999_999_999), "numbers that go back are those of another server");
        assert!(!place.holds(7, 8_000_000_000), "come round");
        assert!(place.is_young().contains("- 705032704 +"), "{}", place.is_young());
    }
}

//! What commands said, as people and programs read it: which step and attempt, which stream, and where a gap is.

use indicatif::HumanCount;
use serde_json::{Value as Json, json};

use crate::event::{Event, Gap, Record, Transcript};
use crate::ids::StepId;

/// What one command said on one stream.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'r> {
    /// The record of its end.
    pub record: &'r Record,
    /// Of which step.
    pub step: &'r StepId,
    /// Which attempt, or which attempt to undo it.
    pub attempt: u32,
    /// Whether it undid the step.
    pub undo: bool,
    /// What it said.
    pub said: &'r Transcript,
}

/// Everything that the commands of a run said, in the order in which they ended.
pub fn entries(records: &[Record]) -> impl Iterator<Item = Entry<'_>> {
    records.iter().flat_map(|record| {
        let (step, attempt, undo) = match &record.event {
            Event::AttemptSucceeded { step, attempt, .. } | Event::AttemptFailed { step, attempt, .. } => {
                (Some(step), *attempt, false)
            }
            Event::UndoSucceeded { step, attempt, .. } | Event::UndoFailed { step, attempt, .. } => {
                (Some(step), *attempt, true)
            }
            _ => (None, 0, false),
        };
        let said = record.event.said().iter();
        said.filter_map(move |said| Some(Entry { record, step: step?, attempt, undo, said }))
    })
}

impl Entry<'_> {
    /// What it is, in one line.
    pub fn heading(&self) -> String {
        let what = if self.undo { "undo" } else { "attempt" };
        let (stream, bytes) = (self.said.stream.words(), HumanCount(self.said.bytes));
        format!("{}, {what} {}, {stream} ({bytes} bytes)", self.step, self.attempt)
    }

    /// The text with its gap, if there is one, in words.
    pub fn text(&self, kept: &[u8]) -> Vec<u8> {
        let (head, tail) = self.parts(kept);
        let mut text = head.to_vec();
        if let Some(Gap { bytes, .. }) = self.said.gap {
            text.extend_from_slice(format!("\n… {} bytes left out …\n", HumanCount(bytes)).as_bytes());
        }
        text.extend_from_slice(tail);
        text
    }

    /// The same for programs; bytes that are no UTF-8 are replaced.
    pub fn to_json(&self, kept: &[u8]) -> Json {
        let (head, tail) = self.parts(kept);
        let tail = self.said.gap.map(|_| String::from_utf8_lossy(tail));
        json!({
            "run": self.record.run, "step": self.step, "attempt": self.attempt, "undo": self.undo,
            "stream": self.said.stream, "at": self.record.at, "bytes": self.said.bytes,
            "left_out": self.said.gap.map_or(0, |gap| gap.bytes), "digest": self.said.digest,
            "text": String::from_utf8_lossy(head), "tail": tail,
        })
    }

    /// What stands before and behind the gap; all of it before, if there is none.
    fn parts<'k>(&self, kept: &'k [u8]) -> (&'k [u8], &'k [u8]) {
        let at = self.said.gap.and_then(|gap| usize::try_from(gap.at).ok());
        kept.split_at(at.unwrap_or(kept.len()).min(kept.len()))
    }
}

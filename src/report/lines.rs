//! The JSON lines of a run: one object for each event, flat, as `run --json` shows it and `audit --json` repeats it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use super::live;
use crate::action::Progress;
use crate::event::{Outcome, Record};
use crate::ids::{RunId, StepId};

/// How often a step may tell how far it has come.
const EVERY: Duration = Duration::from_secs(1);

/// One event: `run, seq, at, kind`, then what belongs to the kind, then `generation` and `hash`.
pub fn event(record: &Record) -> Json {
    let mut line = Map::new();
    line.insert("run".into(), json!(record.run));
    line.insert("seq".into(), json!(record.seq));
    line.insert("at".into(), json!(record.at));
    line.insert("kind".into(), json!(record.event.kind()));
    if let Ok(Json::Object(fields)) = serde_json::to_value(&record.event) {
        line.extend(fields.into_iter().filter(|(key, _)| key != "kind"));
    }
    // Who it was is always the name; how that is known stands beside it.
    if let Some(Json::Object(mut known)) = line.get("by").cloned() {
        line.insert("by".into(), known.remove("name").unwrap_or_default());
        line.insert("identity".into(), Json::Object(known));
    }
    line.insert("generation".into(), json!(record.generation));
    line.insert("hash".into(), json!(record.hash));
    Json::Object(line)
}

/// A sign of life of a step, which is no event and is not kept: `run, at, kind: progress, step`, then how far it has come.
pub fn progress(run: &RunId, step: &StepId, progress: &Progress, at: Timestamp) -> Json {
    json!({
        "run": run, "at": at, "kind": "progress", "step": step, "what": progress.what, "done": progress.done,
        "total": progress.total, "is_estimate": progress.is_estimate, "per_second": progress.per_second,
        "bytes_per_second": progress.bytes_per_second,
        "left_ms": live::left(progress).map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
    })
}

/// When each step was last heard of; a line of progress for each of them once a second is enough.
#[derive(Debug, Default)]
pub struct Heard(BTreeMap<(RunId, StepId), Instant>);

impl Heard {
    /// Whether a second has passed since the step was first or last heard.
    pub fn is_due(&mut self, run: &RunId, step: &StepId, now: Instant) -> bool {
        let last = self.0.entry((run.clone(), step.clone())).or_insert(now);
        let is_due = now.saturating_duration_since(*last) >= EVERY;
        if is_due {
            *last = now;
        }
        is_due
    }
}

/// The first line of a run.
pub fn first(run: &RunId) -> Json {
    json!({ "run": run })
}

/// The last line of a run.
pub fn last(run: &RunId, outcome: Outcome, note: Option<&str>) -> Json {
    json!({ "run": run, "outcome": outcome, "note": note })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_heard_once_a_second_beginning_with_its_second_one() {
        let (run, step, now) = (RunId::new("r"), StepId::new("copy"), Instant::now());
        let mut heard = Heard::default();
        let due: Vec<bool> =
            [0, 400, 1_000, 1_400, 2_100].map(|ms| heard.is_due(&run, &step, now + Duration::from_millis(ms))).into();
        assert_eq!(due, [false, false, true, false, true]);
        let told = Progress { done: 2, total: Some(6), per_second: 2.0, ..Progress::default() };
        let line = progress(&run, &step, &told, Timestamp::UNIX_EPOCH);
        assert_eq!((&line["kind"], &line["left_ms"]), (&json!("progress"), &json!(2_000)));
    }
}

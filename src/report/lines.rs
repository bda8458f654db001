//! The JSON lines of a run: one object for each event, flat, as `run --json` shows it and `audit --json` repeats it.

use serde_json::{Map, Value as Json, json};

use crate::event::{Outcome, Record};
use crate::ids::RunId;

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
    line.insert("generation".into(), json!(record.generation));
    line.insert("hash".into(), json!(record.hash));
    Json::Object(line)
}

/// The first line of a run.
pub fn first(run: &RunId) -> Json {
    json!({ "run": run })
}

/// The last line of a run.
pub fn last(run: &RunId, outcome: Outcome, note: Option<&str>) -> Json {
    json!({ "run": run, "outcome": outcome, "note": note })
}

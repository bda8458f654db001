//! The records of a run in forms that other tools read: a table for spreadsheets, CloudEvents for collectors of events.
//!
//! Refuses nothing and proves nothing: that is the bundle's. Called by `piton audit export`.

use serde_json::{Value as Json, json};

use super::audit::Entry;
use super::lines;
use crate::event::Record;

/// What a spreadsheet takes for the beginning of a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Comma-separated values as of RFC 4180, one line for each record: `run, seq, at, kind, who, what, details, generation, hash`; details are lines.
///
/// What would start a formula in a spreadsheet has an apostrophe before it.
pub fn to_csv(entries: &[Entry<'_>]) -> String {
    let mut table = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let names = ["run", "seq", "at", "kind", "who", "what", "details", "generation", "hash"];
    let rows = entries.iter().map(|Entry { record, line, details, .. }| {
        [
            cell(record.run.as_str()),
            record.seq.to_string(),
            record.at.to_string(),
            record.event.kind().to_owned(),
            cell(&line.who),
            cell(&line.text),
            cell(&details.join("\n")),
            record.generation.to_string(),
            record.hash.clone(),
        ]
    });
    table.write_record(names).expect("memory takes what is written to it");
    for row in rows {
        table.write_record(row).expect("every row has as many cells");
    }
    let bytes = table.into_inner().expect("memory takes what is written to it");
    String::from_utf8(bytes).expect("texts and commas are text")
}

fn cell(text: &str) -> String {
    if text.starts_with(FORMULA) { format!("'{text}") } else { text.to_owned() }
}

/// CloudEvents 1.0 in their JSON form, one on each line; `source` and `id` together are unique.
pub fn to_cloud_events(records: &[Record]) -> String {
    let mut lines = String::new();
    for record in records {
        lines.push_str(&cloud_event(record).to_string());
        lines.push('\n');
    }
    lines
}

/// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>
fn cloud_event(record: &Record) -> Json {
    let mut event = json!({
        "specversion": "1.0",
        "id": record.seq.to_string(),
        "source": format!("urn:piton:run:{}", record.run),
        "type": format!("piton.{}.v1", record.event.kind()),
        "time": record.at,
        "datacontenttype": "application/json",
        "data": lines::event(record),
    });
    if let Some(step) = record.event.step() {
        event["subject"] = json!(step);
    }
    event
}

//! Who signed what a run goes by, in words and for programs.

use serde_json::{Value as Json, json};

use crate::event::{Event, Record, Signed, SignedFiles};

/// Each thing that is signed, with its signers.
fn things(signed: &Signed) -> impl Iterator<Item = (&'static str, &SignedFiles)> {
    let all =
        [("runbook", &signed.runbook), ("site", &signed.site), ("new site, by the people before it", &signed.new_site)];
    all.into_iter().filter_map(|(what, files)| Some((what, files.as_ref()?)))
}

/// One line for each thing that is signed: by whom, with which keys, and how many files that covers.
pub fn lines(signed: Option<&Signed>) -> Vec<String> {
    let one = |(what, files): (&str, &SignedFiles)| {
        let by: Vec<String> = files.by.iter().map(|by| format!("{} ({})", by.name, by.fingerprint)).collect();
        let count = files.list.lines().filter(|line| !line.starts_with('#')).count();
        let covers = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
        format!("{what} signed by {}; {covers}", by.join(", "))
    };
    signed.map(|signed| things(signed).map(one).collect()).unwrap_or_default()
}

/// The signers by what they signed: `{ runbook: [{ name, fingerprint }], site: .. }`; null if nothing is signed.
pub fn to_json(signed: Option<&Signed>) -> Json {
    let Some(signed) = signed else { return Json::Null };
    let by = |files: &Option<SignedFiles>| -> Json {
        let one = |files: &SignedFiles| -> Json {
            files.by.iter().map(|by| json!({ "name": by.name, "fingerprint": by.fingerprint })).collect()
        };
        files.as_ref().map_or(Json::Null, one)
    };
    json!({ "runbook": by(&signed.runbook), "site": by(&signed.site) })
}

/// What the latest record about it says.
pub fn of_records(records: &[Record]) -> Option<&Signed> {
    records.iter().rev().find_map(|record| match &record.event {
        Event::RunStarted { signed, .. } | Event::RunAmended { signed, .. } => Some(signed.as_deref()),
        _ => None,
    })?
}

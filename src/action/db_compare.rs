//! `db.compare`: the proof that two databases hold the same, or the keys in which they differ.
//!
//! How far it came is kept in a file of Piton's own state folder, so that a comparison cut by a crash goes on; neither database is written to.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::db::{failure, limits};
use super::db_copy::{mapping, range, token};
use super::{Action, Context, Failure, Preview, Progress, durable};
use crate::config::rights::own_folder;
use crate::event::Outputs;
use crate::spec::actions::{self, DbCompare};
use crate::transfer::{self, CompareOptions, CompareReport, CompareRequest, Keep, Sample, TableComparison};

/// Differences that an error message names.
const NAMED: usize = 5;
/// What is kept is written no more often than this.
const KEPT_EVERY: Duration = Duration::from_secs(1);

/// Where the comparisons of one step keep how far they came.
fn folder(cx: &Context) -> PathBuf {
    cx.state_dir.join("compare").join(durable::file_name(cx.run.as_str())).join(durable::file_name(cx.step.as_str()))
}

/// Forgets how far the comparisons of a step had come: what they saw may have been taken back since.
pub(super) fn forget(cx: &Context) {
    // What cannot be removed is told apart by the counts of its tables.
    let _ = std::fs::remove_dir_all(folder(cx));
}

/// A file that keeps a text over a crash.
struct KeptFile {
    path: PathBuf,
    written: Mutex<Option<Instant>>,
}

impl KeptFile {
    fn new(path: PathBuf) -> Self {
        Self { path, written: Mutex::new(None) }
    }
}

impl Keep for KeptFile {
    fn load(&self) -> Option<String> {
        std::fs::read_to_string(&self.path).ok()
    }

    fn save(&self, text: &str) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        // A comparison that ends at once writes nothing.
        let last = written.get_or_insert_with(Instant::now);
        if last.elapsed() < KEPT_EVERY {
            return;
        }
        *last = Instant::now();
        // A state that cannot be kept costs time after a crash, and nothing else.
        if let Some(folder) = self.path.parent()
            && own_folder(folder).is_ok()
        {
            let _ = durable::replace(&self.path, text.as_bytes(), None);
        }
    }

    fn clear(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl DbCompare {
    fn options(&self, cx: &Context) -> CompareOptions {
        let asked = Sha256::digest(format!("{self:?}").as_bytes());
        let name = hex::encode(&asked[..8]);
        let own = Sha256::digest(token(cx).as_bytes());
        let own = own.iter().take(6).fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        let sink = cx.progress.clone();
        CompareOptions {
            sample: self.sample.map(|one_in| Sample { one_in, seed: self.seed.unwrap_or(own) }),
            keep: Some(Arc::new(KeptFile::new(folder(cx).join(format!("{name}.json"))))),
            progress: Some(Arc::new(move |seen: transfer::CopyProgress| {
                sink(Progress {
                    what: seen.table,
                    done: seen.rows_done,
                    total: Some(seen.rows_total),
                    per_second: seen.rows_per_second,
                    ..Progress::default()
                });
            })),
            limits: limits(self.statement_timeout, self.lock_timeout),
            cancel: cx.cancel.clone(),
            ..CompareOptions::default()
        }
    }
}

/// One difference in words.
fn describe(difference: &transfer::Difference) -> String {
    match difference {
        transfer::Difference::Missing { key } => format!("{} is missing", json!(key)),
        transfer::Difference::Extra { key } => format!("{} is extra", json!(key)),
        transfer::Difference::Different { key, source, target } => {
            format!("{} should be {} and is {}", json!(key), json!(source), json!(target))
        }
    }
}

/// What is wrong with one table.
fn unequal(table: &TableComparison) -> String {
    let named: Vec<String> = table.differences.iter().take(NAMED).map(describe).collect();
    let sample = table.sampled.map(|met| {
        format!("in a sample of {} of {} chunks, {} rows, seed {}, ", met.chunks, met.of, met.rows, met.seed)
    });
    format!(
        "`{}` has {} rows in the source and {} in the target ({}{} missing, {} extra, {} different) {}",
        table.table,
        table.source_rows,
        table.target_rows,
        sample.unwrap_or_default(),
        table.missing,
        table.extra,
        table.different,
        named.join(", ")
    )
}

fn outputs(report: &CompareReport) -> Outputs {
    let sum = |of: fn(&TableComparison) -> u64| report.tables.iter().map(of).sum::<u64>();
    let both = |table: &TableComparison| table.source_rows + table.target_rows;
    let looked_at: u64 =
        report.tables.iter().map(|table| table.sampled.map_or_else(|| both(table), |met| met.rows)).sum();
    let seed = report.tables.iter().find_map(|table| table.sampled).map(|met| met.seed);
    Outputs::from([
        ("rows".to_owned(), json!(sum(|table| table.source_rows))),
        ("tables".to_owned(), json!(report.tables.len())),
        ("looked_at".to_owned(), json!(looked_at)),
        ("seed".to_owned(), json!(seed)),
        ("resumed".to_owned(), json!(report.tables.iter().any(|table| table.resumed))),
    ])
}

#[async_trait]
impl Action for DbCompare {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let (from, to) = (cx.databases.get(&self.from).await?, cx.databases.get(&self.to).await?);
        let request = CompareRequest {
            mapping: mapping(cx, &self.map)?,
            set: self.tables.clone(),
            range: range(self.range.as_ref()),
            mode: match self.mode {
                actions::CompareMode::Count => transfer::CompareMode::Count,
                actions::CompareMode::Content => transfer::CompareMode::Content,
            },
            limit: usize::try_from(self.limit).unwrap_or(usize::MAX),
        };
        let report = transfer::compare_with(&from, &to, &request, &self.options(cx)).await;
        let report = report.map_err(|error| failure(&error))?;
        if report.is_equal() {
            return Ok(outputs(&report));
        }
        let wrong: Vec<String> = report.tables.iter().filter(|table| !table.is_equal()).map(unequal).collect();
        Err(Failure::harmless(wrong.join("; ")))
    }

    async fn undone(&self, cx: &Context) -> Result<(), Failure> {
        forget(cx);
        Ok(())
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::NoChange(format!("compares table set `{}` of `{}` and `{}`", self.tables, self.from, self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_text_is_read_back_until_it_is_cleared_and_is_not_written_all_the_time() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let path = folder.path().join("a/b/c.json");
        let kept = KeptFile::new(path.clone());
        kept.save("too early");
        assert_eq!(kept.load(), None);
        *kept.written.lock().expect("not poisoned") = Instant::now().checked_sub(KEPT_EVERY);
        kept.save("one");
        kept.save("two");
        assert_eq!(KeptFile::new(path).load().as_deref(), Some("one"));
        kept.clear();
        assert_eq!(kept.load(), None);
    }
}

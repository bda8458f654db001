//! `db.copy`: rows from one database to another, exactly once.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::db::failure;
use super::{Action, Context, Failure, Preview, Progress};
use crate::event::Outputs;
use crate::spec::actions::{DbCopy, MergePolicy, TimeRange};
use crate::transfer::{self, CopyRequest, Mapping, Policy, Range};

/// The mapping as it was when the plan was made.
pub(super) fn mapping(cx: &Context, path: &str) -> Result<Mapping, Failure> {
    let text = match cx.files.get(path) {
        Some(text) => text.clone(),
        None => std::fs::read_to_string(cx.base.join(path))
            .map_err(|error| Failure::permanent(format!("mapping `{path}` cannot be read: {error}")))?,
    };
    Mapping::from_yaml(&text).map_err(|error| Failure::permanent(format!("mapping `{path}`: {error}")))
}

/// A range of a runbook.
pub(super) fn range(range: Option<&TimeRange>) -> Range {
    range.map_or_else(Range::default, |range| Range { from: range.from, to: range.to })
}

impl DbCopy {
    fn request(&self, cx: &Context) -> Result<CopyRequest, Failure> {
        let policy = match (self.policy, self.at) {
            (MergePolicy::SourceWins, _) => Policy::SourceWins { replace_row: true },
            (MergePolicy::Fill, _) => Policy::Fill,
            (MergePolicy::SplitAt, Some(at)) => Policy::SplitAt { at },
            (MergePolicy::SplitAt, None) => return Err(Failure::permanent("`split_at` needs `at`")),
            (MergePolicy::Fail, _) => Policy::Fail,
            (MergePolicy::BestCoverage, _) => Policy::BestCoverage,
            (MergePolicy::MergeAdditive, _) => Policy::MergeAdditive,
        };
        Ok(CopyRequest {
            range: range(self.range.as_ref()),
            chunk_rows: usize::try_from(self.chunk_rows).unwrap_or(usize::MAX),
            hook: cx.chunks.clone(),
            timestep: self.timestep.and_then(|seconds| i64::try_from(seconds).ok()),
            ..CopyRequest::new(mapping(cx, &self.map)?, &self.tables, policy, token(cx))
        })
    }
}

/// The identity of a copy: one step of one run, the same through every resume.
pub(super) fn token(cx: &Context) -> String {
    format!("{}/{}", cx.run, cx.step)
}

#[async_trait]
impl Action for DbCopy {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let (from, to) = (cx.databases.get(&self.from).await?, cx.databases.get(&self.to).await?);
        let request = self.request(cx)?;
        let sink = cx.progress.clone();
        let progress = move |seen: transfer::CopyProgress| {
            sink(Progress {
                what: seen.table,
                done: seen.rows_done,
                total: Some(seen.rows_total),
                per_second: seen.rows_per_second,
            });
        };
        let started = std::time::Instant::now();
        let report =
            transfer::copy(&from, &to, &request, &progress, &cx.cancel).await.map_err(|error| failure(&error))?;
        let sum = |of: fn(&transfer::TableReport) -> u64| report.tables.iter().map(of).sum::<u64>();
        Ok(Outputs::from([
            ("rows".to_owned(), (sum(|table| table.read) + sum(|table| table.skipped)).into()),
            ("inserted".to_owned(), sum(|table| table.all.inserted).into()),
            ("updated".to_owned(), sum(|table| table.all.updated).into()),
            ("unchanged".to_owned(), sum(|table| table.all.unchanged + table.all.kept).into()),
            ("skipped".to_owned(), sum(|table| table.skipped).into()),
            ("tables".to_owned(), report.tables.len().into()),
            ("seconds".to_owned(), json!(started.elapsed().as_secs_f64())),
        ]))
    }

    async fn undone(&self, cx: &Context) -> Result<(), Failure> {
        let to = cx.databases.get(&self.to).await?;
        super::db_compare::forget(cx);
        transfer::forget(&to, &token(cx)).await.map_err(|error| failure(&error))
    }

    async fn preview(&self, cx: &Context) -> Preview {
        let overlap = async {
            let (from, to) = (cx.databases.get(&self.from).await?, cx.databases.get(&self.to).await?);
            let request = self.request(cx)?;
            transfer::overlap(&from, &to, &request).await.map_err(|error| failure(&error))
        };
        match overlap.await {
            Ok(report) => {
                let selected: u64 = report.tables.iter().map(|table| table.selected).sum();
                let (common, forbidden) = (report.common(), report.forbidden());
                if forbidden > 0 {
                    return Preview::WillChange(format!(
                        "would abort: {forbidden} of {selected} rows may not be written"
                    ));
                }
                Preview::WillChange(format!("copies {selected} rows; the target has {common} of their keys already"))
            }
            Err(failure) => Preview::Unknown(failure.error),
        }
    }
}

//! `db.preflight`: whether a copy could work, before anything is changed. It only looks.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::db::failure;
use super::db_copy::mapping;
use super::{Action, Context, Failure, Preview};
use crate::event::Outputs;
use crate::spec::actions::DbPreflight;
use crate::transfer::{self, PreflightFinding, PreflightReport, PreflightRequest, Severity};

/// Findings that an error message names.
const NAMED: usize = 20;

impl DbPreflight {
    async fn look(&self, cx: &Context) -> Result<PreflightReport, Failure> {
        let (from, to) = (cx.databases.get(&self.from).await?, cx.databases.get(&self.to).await?);
        let request = PreflightRequest {
            mapping: mapping(cx, &self.map)?,
            set: self.tables.clone(),
            connections: self.connections,
            extensions: self.extensions.clone(),
        };
        let work = transfer::preflight(&from, &to, &request);
        tokio::select! {
            found = work => found.map_err(|error| failure(&error)),
            () = cx.cancel.cancelled() => Err(Failure::harmless("the preflight was cancelled")),
        }
    }

    /// Whether a finding must be mended first.
    fn counts(&self, finding: &PreflightFinding) -> bool {
        match finding.severity {
            Severity::Error => true,
            Severity::Warning => self.strict,
            Severity::Note => false,
        }
    }

    /// What must be mended first, in words; nothing when it may go on.
    fn refusal(&self, report: &PreflightReport) -> Option<String> {
        let counted: Vec<&PreflightFinding> = report.findings.iter().filter(|finding| self.counts(finding)).collect();
        if counted.is_empty() {
            return None;
        }
        let mut named: Vec<String> = counted
            .iter()
            .take(NAMED)
            .map(|finding| format!("{}: {} (to do: {})", finding.side, finding.found, finding.help))
            .collect();
        if counted.len() > NAMED {
            named.push(format!("and {} more", counted.len() - NAMED));
        }
        Some(format!("{} findings must be mended first: {}", counted.len(), named.join("; ")))
    }
}

#[async_trait]
impl Action for DbPreflight {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let report = self.look(cx).await?;
        if !self.report
            && let Some(error) = self.refusal(&report)
        {
            return Err(Failure::harmless(error));
        }
        Ok(Outputs::from([
            ("findings".to_owned(), json!(report.findings)),
            ("errors".to_owned(), report.count(Severity::Error).into()),
            ("warnings".to_owned(), report.count(Severity::Warning).into()),
            ("source".to_owned(), json!(report.source)),
            ("target".to_owned(), json!(report.target)),
        ]))
    }

    async fn preview(&self, cx: &Context) -> Preview {
        match self.look(cx).await {
            Ok(report) => match self.refusal(&report) {
                None => {
                    Preview::NoChange(format!("{} findings, none of which must be mended first", report.findings.len()))
                }
                Some(error) => Preview::Unknown(error),
            },
            Err(failure) => Preview::Unknown(failure.error),
        }
    }
}

//! The evidence at the end of a demo: figures, invariants, the history of the option, and where the audit is.

use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::{DemoError, Stage};
use crate::ids::RunId;
use crate::lab::invariants::InvariantResult;
use crate::lab::loss::Loss;
use crate::lab::{Arg, Lab, LabDb};

/// What one procedure did.
#[derive(Debug, Clone)]
pub(super) struct Evidence {
    pub(super) procedure: &'static str,
    pub(super) measured: Loss,
    pub(super) predicted: Loss,
    pub(super) rows_moved: i64,
    pub(super) invariants: Vec<InvariantResult>,
    pub(super) history: Vec<String>,
    /// Whether this procedure promises to lose nothing.
    pub(super) guarded: bool,
    pub(super) audit: String,
}

impl Evidence {
    /// Whether the procedure kept its promise: never more than predicted; for the guarded one, every invariant as well.
    pub(super) fn holds(&self) -> bool {
        self.measured.within(&self.predicted) && (!self.guarded || self.invariants.iter().all(|result| result.holds))
    }

    fn to_json(&self) -> Json {
        let invariants: Map<String, Json> =
            self.invariants.iter().map(|result| (result.id.clone(), result.holds.into())).collect();
        json!({
            "procedure": self.procedure,
            "missing": self.measured.missing, "partial": self.measured.partial, "overwritten": self.measured.overwritten,
            "predicted": self.predicted, "rows_moved": self.rows_moved, "invariants": invariants, "audit": self.audit,
        })
    }

    /// Prints it for people, or as one JSON object on a line.
    pub(super) fn show(&self, stage: &Stage, store: &Path, run: &RunId) {
        if stage.out.json {
            let _ = stage.out.json_line(&self.to_json());
            return;
        }
        let line = |text: &str| stage.line(text);
        line("");
        line(&format!("evidence for {} (run {run})", self.procedure));
        line(&format!("  rows moved   {}", self.rows_moved));
        line("                 missing  partial  overwritten");
        for (name, loss) in [("predicted", &self.predicted), ("measured", &self.measured)] {
            line(&format!("  {name:<12} {:>9} {:>8} {:>12}", loss.missing, loss.partial, loss.overwritten));
        }
        line("  invariants");
        for result in &self.invariants {
            let mark = if result.holds { "ok " } else { "NO " };
            line(&format!("    {mark} {:<4} {}", result.id, result.measured));
        }
        line("  option AllowMigratePerformance");
        for change in &self.history {
            line(&format!("    {change}"));
        }
        line(&format!("  audit        piton --store {} audit {run}", store.display()));
    }
}

/// The option's values in the order in which they were set.
pub(super) async fn option_history(lab: &Lab) -> Result<Vec<String>, DemoError> {
    let mut db = LabDb::open(lab, "piton-demo").await?;
    let sql = "SELECT at, who, old_value, new_value FROM genesys.option_history WHERE name = 'AllowMigratePerformance' ORDER BY at";
    let rows = db.rows(sql, &[]).await?;
    db.close().await?;
    let shown = |value: Option<&Arg>| match value.and_then(Arg::text) {
        Some("") => "(empty)".to_owned(),
        Some(text) => text.to_owned(),
        None => "(absent)".to_owned(),
    };
    let text = |value: Option<&Arg>| match value {
        Some(arg) => arg.text().map_or_else(|| arg.int().map(|n| n.to_string()).unwrap_or_default(), str::to_owned),
        None => String::new(),
    };
    let line = |row: &Vec<Arg>| {
        format!("{}  {:<24} {} -> {}", text(row.first()), text(row.get(1)), shown(row.get(2)), shown(row.get(3)))
    };
    Ok(rows.iter().map(line).collect())
}

/// All procedures side by side.
pub(super) fn table(rows: &[Evidence], stage: &Stage) {
    stage.line("");
    stage.line("                        predicted                        measured");
    stage.line("procedure          missing  partial  overwritten   missing  partial  overwritten");
    for row in rows {
        let (p, m) = (&row.predicted, &row.measured);
        stage.line(&format!(
            "{:<17} {:>8} {:>8} {:>12}  {:>8} {:>8} {:>12}",
            row.procedure, p.missing, p.partial, p.overwritten, m.missing, m.partial, m.overwritten
        ));
    }
}

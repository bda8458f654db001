//! Runs of other runbooks as steps: the driver's side of the `runbook` action.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use super::{Ended, Options};
use crate::action::{Failure, RunChild};
use crate::event::Outcome;
use crate::ids::{RunId, StepId};
use crate::journal::{Journal, JournalError};
use crate::plan::Plan;
use crate::site::LoadedSite;

/// Starts and resumes child runs in the same store and on the same site.
pub(super) struct Children {
    journal: Journal,
    options: Options,
    site: LoadedSite,
}

impl Children {
    pub(super) fn new(journal: Journal, options: Options, site: LoadedSite) -> Self {
        Self { journal, options, site }
    }
}

#[async_trait]
impl RunChild for Children {
    async fn run_child(
        &self,
        parent: &RunId,
        step: &StepId,
        runbook: &Path,
        params: &BTreeMap<String, Json>,
        cancel: CancellationToken,
    ) -> Result<(RunId, Outcome), Failure> {
        let run = RunId::new(format!("{parent}.{step}"));
        let options = Options {
            by: self.options.by.unsigned(),
            wait: true,
            stop: cancel.clone(),
            stop_now: cancel,
            parent: Some((parent.clone(), step.clone())),
            ..self.options.clone()
        };
        let known = match self.journal.head(&run).await {
            Ok(head) => head.seq > 0,
            Err(JournalError::UnknownRun(_)) => false,
            Err(error) => return Err(Failure::harmless(error.to_string())),
        };
        let ended = if known {
            let told = super::read(&self.journal, &run).await.map_err(|error| Failure::unknown(error.to_string()))?;
            match told.state.outcome() {
                Some(outcome) if outcome.is_final() => Ok(Ended { run: run.clone(), outcome, note: None }),
                _ => super::resume(&self.journal, run.clone(), options).await,
            }
        } else {
            let plan = Plan::load(runbook, self.site.clone(), params).map_err(|e| Failure::permanent(e.to_string()))?;
            super::start(plan, &self.journal, run.clone(), options).await
        };
        let ended = ended.map_err(|error| Failure::unknown(format!("run `{run}`: {error}")))?;
        Ok((run, ended.outcome))
    }
}

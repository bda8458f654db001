//! Runs of other runbooks as steps: the driver's side of the `runbook` action.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{Cover, DriverError, Ended, Options};
use crate::action::{ChildRun, Failure, RunChild};
use crate::event::{Outcome, Signed};
use crate::ids::RunId;
use crate::journal::{Journal, JournalError};
use crate::plan::{OUTSIDE_HELP, Plan, Unreachable, Walls};
use crate::site::LoadedSite;

/// Starts and resumes child runs in the same store and on the same site.
pub(super) struct Children {
    journal: Journal,
    options: Options,
    site: LoadedSite,
    /// Who signed what the run goes by that starts them.
    signed: Signed,
}

impl Children {
    pub(super) fn new(journal: Journal, options: Options, site: LoadedSite, signed: Signed) -> Self {
        Self { journal, options, site, signed }
    }
}

#[async_trait]
impl RunChild for Children {
    async fn run_child(&self, child: ChildRun<'_>, cancel: CancellationToken) -> Result<(RunId, Outcome), Failure> {
        let ChildRun { parent, step, base, path, params, pins, walls } = child;
        let run = RunId::new(format!("{parent}.{step}"));
        let options = Options {
            by: self.options.by.unsigned(),
            wait: true,
            stop: cancel.clone(),
            stop_now: cancel,
            parent: Some((parent.clone(), step.clone())),
            cover: Some(Arc::new(Cover { signed: self.signed.clone(), path: path.to_owned() })),
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
            let place = base.join(path);
            if let Some(Err(why @ (Unreachable::Outside | Unreachable::Link))) = walls.map(|walls| walls.admit(&place))
            {
                return Err(Failure::permanent(format!("`{path}` {why}; {OUTSIDE_HELP}")));
            }
            let site = self.site.clone().reading(walls.into_iter().flat_map(Walls::folders).cloned());
            let plan = Plan::load(&place, site, params);
            let plan = plan.map_err(|error| Failure::permanent(error.to_string()))?;
            if let Some(changed) = pins.and_then(|pins| pins.changed(path, &plan.parts())) {
                let help = "put it back, or go on with what it is now: `piton resume RUN --runbook FILE --reason TEXT`";
                return Err(Failure::permanent(format!("{changed} since this run was planned; {help}")));
            }
            match super::start(plan, &self.journal, run.clone(), options).await {
                Err(DriverError::Unsigned(why)) => return Err(Failure::permanent(why)),
                started => started,
            }
        };
        let ended = ended.map_err(|error| Failure::unknown(format!("run `{run}`: {error}")))?;
        Ok((run, ended.outcome))
    }
}

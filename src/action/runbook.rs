//! `runbook`: runs another runbook as a step, in the same store and on the same site. Its run is named after the step,
//! so that a second attempt finds the first one's run and goes on with it.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Action, ChildRun, Context, Failure, Preview};
use crate::event::{Effect, Outcome, Outputs};
use crate::spec::actions::SubRunbook;

#[async_trait]
impl Action for SubRunbook {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let child = ChildRun {
            parent: &cx.run,
            step: &cx.step,
            base: &cx.base,
            path: &self.path,
            params: &self.params,
            pins: cx.pins.as_deref(),
            walls: cx.walls.as_deref(),
        };
        let (run, outcome) = cx.children.run_child(child, cx.cancel.clone()).await?;
        let effect = match outcome {
            Outcome::Succeeded => {
                let outputs = [("run".to_owned(), json!(run)), ("outcome".to_owned(), json!(outcome))];
                return Ok(Outputs::from(outputs));
            }
            Outcome::RolledBack => Effect::None,
            Outcome::Failed | Outcome::Stuck | Outcome::Cancelled | Outcome::Waiting => Effect::Unknown,
        };
        let word = json!(outcome).as_str().unwrap_or_default().replace('_', " ");
        let error = format!("run `{run}` ended as {word}; see `piton show {run}`");
        Err(Failure { error, effect, retryable: outcome != Outcome::RolledBack })
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::Unknown(format!("runs `{}`; plan that runbook to see what it does", self.path))
    }
}

//! `wait.until`: repeats an action that only looks until it holds. Nothing is changed, so it may run again any time.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Action, Context, Failure, Preview, Progress, build};
use crate::event::Outputs;
use crate::spec::actions::WaitUntil;
use crate::spec::decode::Decoder;
use crate::spec::problem::Source;

#[async_trait]
impl Action for WaitUntil {
    async fn before(&self, _cx: &Context) -> Result<Value, Failure> {
        // The wait counts from its first attempt, also through a crash.
        Ok(json!({ "since_ms": crate::config::now().as_millisecond() }))
    }

    async fn run(&self, cx: &Context, before: &Value) -> Result<Outputs, Failure> {
        let since = before["since_ms"].as_i64().unwrap_or_else(|| crate::config::now().as_millisecond());
        let mut looks: u64 = 0;
        loop {
            looks += 1;
            let Err(failure) = self.look(cx).await else {
                let at = crate::config::now().as_second();
                return Ok(Outputs::from([("looks".to_owned(), looks.into()), ("at".to_owned(), at.into())]));
            };
            if !failure.retryable {
                return Err(failure);
            }
            let waited = crate::config::now().as_millisecond() - since;
            if self.timeout.is_some_and(|limit| u64::try_from(waited).unwrap_or(0) >= limit.0) {
                let limit = self.timeout.map(|limit| limit.to_string()).unwrap_or_default();
                return Err(Failure::permanent(format!("did not hold within {limit}: {}", failure.error)));
            }
            (cx.progress)(Progress { what: failure.error, done: looks, ..Progress::default() });
            tokio::select! {
                () = tokio::time::sleep(self.every.duration().max(Duration::from_millis(10))) => {}
                () = cx.cancel.cancelled() => return Err(Failure::harmless("the wait was cancelled")),
            }
        }
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::NoChange(format!("waits until `{}` holds, looking every {}", self.check.kind.key(), self.every))
    }
}

impl WaitUntil {
    async fn look(&self, cx: &Context) -> Result<Outputs, Failure> {
        let source = Source { name: "wait.until".into(), text: String::new() };
        let mut d = Decoder::new(source.into());
        let args = self.check.kind.decode(&self.check.args, &mut d);
        let Some(args) = args.filter(|_| d.problems.is_empty()) else {
            let reasons: Vec<_> = d.problems.into_iter().map(|problem| problem.message).collect();
            return Err(Failure::permanent(reasons.join("; ")));
        };
        let action = build::action(args);
        // Each look is new, so a command of an earlier one is nothing to go on with.
        let cx = &Context { held: None, ..cx.clone() };
        let before = action.before(cx).await?;
        // What a check finds wrong is what is being waited for to go away, whatever it says about effects.
        action.run(cx, &before).await
    }
}

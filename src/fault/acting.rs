//! Actions under faults: the real action, or the mock in its place, with something going wrong before or after it.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::{Armed, Fault, Point};
use crate::action::build::{self, Part, Swap};
use crate::action::{Action, Context, Failure, Preview};
use crate::event::{Effect, Finding, Outputs};
use crate::spec::actions::Args;

/// Puts a disturbed action in the place of each.
pub(super) struct Disturbed {
    pub(super) armed: Arc<Armed>,
    pub(super) mocks: Option<Arc<dyn Swap>>,
}

impl Swap for Disturbed {
    fn swap(&self, cx: &Context, part: Part, args: Args) -> Box<dyn Action> {
        let inner = build::action_for(self.mocks.as_ref(), cx, part, args);
        Box::new(Acting { armed: Arc::clone(&self.armed), inner, part })
    }
}

struct Acting {
    armed: Arc<Armed>,
    inner: Box<dyn Action>,
    part: Part,
}

impl Acting {
    /// Whether it acts twice.
    async fn before_act(&self, cx: &Context, part: Part) -> Result<bool, Failure> {
        let point = Point::BeforeAct { step: &cx.step, attempt: cx.attempt, part };
        self.strike(cx, self.armed.faults.at(&point)).await
    }

    async fn after_act(&self, cx: &Context, part: Part) -> Result<bool, Failure> {
        let point = Point::AfterAct { step: &cx.step, attempt: cx.attempt, part };
        self.strike(cx, self.armed.faults.at(&point)).await
    }

    async fn strike(&self, cx: &Context, fault: Option<Fault>) -> Result<bool, Failure> {
        match fault {
            Some(Fault::Crash) => self.armed.crash().await,
            Some(Fault::Delay(time)) => tokio::select! {
                () = tokio::time::sleep(time) => {}
                // As an action does that is told to stop before it did anything it could name.
                () = cx.cancel.cancelled() => return Err(Failure::unknown("stopped in the middle of a delay")),
            },
            Some(Fault::Fail { effect, retryable }) => {
                let said = if effect == Effect::None { "nothing was changed" } else { "what it did is unknown" };
                return Err(Failure { error: format!("a fault was set here; {said}"), effect, retryable });
            }
            Some(Fault::Stop) => super::stop(),
            Some(Fault::Repeat) => return Ok(true),
            Some(Fault::DiskFull | Fault::Conflict | Fault::LostAnswer) | None => {}
        }
        Ok(false)
    }
}

#[async_trait]
impl Action for Acting {
    async fn before(&self, cx: &Context) -> Result<Value, Failure> {
        self.inner.before(cx).await
    }

    async fn run(&self, cx: &Context, before: &Value) -> Result<Outputs, Failure> {
        let twice = self.before_act(cx, self.part).await?;
        let cx = &Context { chunks: self.armed.chunk_hook(), ..cx.clone() };
        let mut outputs = self.inner.run(cx, before).await?;
        // A command is held once for an attempt, so a second one is the driver's own.
        let again = &Context { held: None, ..cx.clone() };
        if twice {
            outputs = self.inner.run(again, before).await?;
        }
        if self.after_act(cx, self.part).await? {
            outputs = self.inner.run(again, before).await?;
        }
        Ok(outputs)
    }

    async fn take_up(&self, cx: &Context, before: &Value) -> Result<Outputs, Failure> {
        self.inner.take_up(cx, before).await
    }

    async fn probe(&self, cx: &Context, before: &Value) -> Finding {
        self.inner.probe(cx, before).await
    }

    async fn undo(&self, cx: &Context, before: &Value) -> Result<(), Failure> {
        let twice = self.before_act(cx, Part::Undo).await?;
        self.inner.undo(cx, before).await?;
        if twice {
            self.inner.undo(cx, before).await?;
        }
        if self.after_act(cx, Part::Undo).await? {
            self.inner.undo(cx, before).await?;
        }
        Ok(())
    }

    async fn undone(&self, cx: &Context) -> Result<(), Failure> {
        self.inner.undone(cx).await
    }

    async fn preview(&self, cx: &Context) -> Preview {
        self.inner.preview(cx).await
    }
}

//! `approval` and `manual`: people do the work, so the driver never runs these; it only renders what they are asked.

use async_trait::async_trait;
use serde_json::Value;

use super::{Action, Context, Failure, Preview};
use crate::event::Outputs;
use crate::spec::actions::{Approval, Manual};

const NOT_RUN: &str = "people answer this step; it does not run by itself";

#[async_trait]
impl Action for Approval {
    async fn run(&self, _cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        Err(Failure::permanent(NOT_RUN))
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        let who = if self.groups.is_empty() { "anybody".to_owned() } else { self.groups.join(", ") };
        Preview::NoChange(format!("waits for {} approval(s) by {who}", self.quorum))
    }
}

#[async_trait]
impl Action for Manual {
    async fn run(&self, _cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        Err(Failure::permanent(NOT_RUN))
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::Unknown("a person does it by hand".into())
    }
}

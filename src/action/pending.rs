//! Actions whose files arrive with the next merges; each fails plainly until then.

use async_trait::async_trait;
use serde_json::Value;

use super::{Action, Context, Failure};
use crate::event::Outputs;
use crate::spec::actions::{
    FileWrite, HttpRequest, NotifyCommand, NotifyWebhook, OptionCheck, OptionSet, OptionUnset, WaitAt, WaitBoundary,
    WaitFor,
};

macro_rules! pending {
    ($($args:ty),*) => {$(
        #[async_trait]
        impl Action for $args {
            async fn run(&self, _cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
                Err(Failure::permanent("this action is not built in yet"))
            }
        }
    )*};
}

pending!(
    OptionSet,
    OptionUnset,
    OptionCheck,
    WaitFor,
    WaitBoundary,
    WaitAt,
    FileWrite,
    HttpRequest,
    NotifyWebhook,
    NotifyCommand
);

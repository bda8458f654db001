//! From rendered arguments to the action that they describe, or to what stands in for it.

use std::sync::Arc;

use super::db::{Execute, Query};
use super::service::{ServiceAction, ServiceVerb};
use super::{Action, Context};
use crate::spec::actions::Args;

/// What of a step an action is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Its action.
    Action,
    /// Its postcondition.
    Verify,
    /// Its inverse.
    Undo,
}

/// Puts another action in the place of the real one; for tests of runbooks and for faults on purpose.
pub trait Swap: Send + Sync {
    /// What acts in the place of the action of these arguments.
    fn swap(&self, cx: &Context, part: Part, args: Args) -> Box<dyn Action>;
}

/// The action of these arguments, or what takes its place.
pub fn action_for(swap: Option<&Arc<dyn Swap>>, cx: &Context, part: Part, args: Args) -> Box<dyn Action> {
    match swap {
        Some(swap) => swap.swap(cx, part, args),
        None => action(args),
    }
}

/// The action of these arguments.
pub fn action(args: Args) -> Box<dyn Action> {
    let service = |verb, args: Box<_>| Box::new(ServiceAction { verb, args: *args });
    match args {
        Args::Exec(args) => args,
        Args::ServiceStart(args) => service(ServiceVerb::Start, args),
        Args::ServiceStop(args) => service(ServiceVerb::Stop, args),
        Args::ServiceRestart(args) => service(ServiceVerb::Restart, args),
        Args::ServiceCheck(args) => service(ServiceVerb::Check, args),
        Args::OptionSet(args) => args,
        Args::OptionUnset(args) => args,
        Args::OptionCheck(args) => args,
        Args::DbExecute(args) => Box::new(Execute(*args)),
        Args::DbQuery(args) => Box::new(Query(*args)),
        Args::DbAssert(args) => args,
        Args::DbMigrate(args) => args,
        Args::DbCopy(args) => args,
        Args::DbCompare(args) => args,
        Args::DbGaps(args) => args,
        Args::DbWatermark(args) => args,
        Args::DbPreflight(args) => args,
        Args::DbSessions(args) => args,
        Args::DbBackup(args) => args,
        Args::DbRestore(args) => args,
        Args::WaitUntil(args) => args,
        Args::WaitFor(args) => args,
        Args::WaitBoundary(args) => args,
        Args::WaitAt(args) => args,
        Args::Approval(args) => args,
        Args::Manual(args) => args,
        Args::FileWrite(args) => args,
        Args::HttpRequest(args) => args,
        Args::NotifyWebhook(args) => args,
        Args::NotifyCommand(args) => args,
        Args::Runbook(args) => args,
    }
}

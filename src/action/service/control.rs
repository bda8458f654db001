//! Services behind a control command: any program that starts, stops and tells the state.
//!
//! The state command exits with 0 when the service runs and with 3 when it does not; anything else is an error, never a
//! guess. Used by the service actions.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::super::process::{self, CommandLine, Finished, Leftovers};
use super::super::wiped::wiped;
use super::super::{Context, Failure};
use super::{Control, Status};
use crate::event::Effect;
use crate::site::CommandProvider;

/// Exit code of a state command for a service that does not run (as `systemctl` and LSB scripts have it).
const STOPPED: i32 = 3;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One service behind a control command.
pub(crate) struct Controlled<'a> {
    pub(crate) cx: &'a Context,
    pub(crate) name: &'a str,
    pub(crate) spec: &'a CommandProvider,
}

#[async_trait]
impl Control for Controlled<'_> {
    async fn status(&self) -> Result<Status, Failure> {
        let finished = self.call("status", &self.spec.status).await.map_err(harmless)?;
        match finished.status.code() {
            Some(0) => Ok(Status::Running { pid: None, since_ms: None }),
            Some(STOPPED) => Ok(Status::Stopped { at_ms: None }),
            Some(_) | None => Err(Failure::harmless(self.say("status", &finished.describe()))),
        }
    }

    async fn is_ready(&self) -> Result<bool, Failure> {
        Ok(self.status().await?.is_running())
    }

    async fn start(&self) -> Result<bool, Failure> {
        self.bring_to(true, "start", &self.spec.start).await
    }

    async fn stop(&self) -> Result<bool, Failure> {
        self.bring_to(false, "stop", &self.spec.stop).await
    }
}

impl Controlled<'_> {
    fn say(&self, verb: &str, text: &str) -> String {
        self.cx.masker.text(&format!("service `{}`: {verb}: {text}", self.name))
    }

    /// Runs `argv` unless the state is as wanted, then waits until it is.
    async fn bring_to(&self, running: bool, verb: &str, argv: &[String]) -> Result<bool, Failure> {
        if self.status().await?.is_running() == running {
            return Ok(false);
        }
        let finished = self.call(verb, argv).await?;
        if !finished.status.success() {
            return Err(Failure::unknown(self.say(verb, &finished.describe())));
        }
        let deadline = Instant::now() + self.spec.timeout.duration();
        loop {
            let seen = self.status().await.map_err(|f| Failure { effect: Effect::Unknown, ..f })?;
            if seen.is_running() == running {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                let text = format!("the command succeeded, but the state did not follow within {}", self.spec.timeout);
                return Err(Failure::unknown(self.say(verb, &text)));
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = self.cx.cancel.cancelled() => return Err(Failure::unknown(self.say(verb, "cancelled"))),
            }
        }
    }

    async fn call(&self, verb: &str, argv: &[String]) -> Result<Finished, Failure> {
        let mut line = CommandLine::new(argv, &self.cx.site.base);
        line.leftovers = Leftovers::Keep;
        line.env = wiped(self.cx.fences.variables());
        let cancel = self.cx.cancel.child_token();
        let run = process::run(&line, &cancel, &self.cx.masker);
        tokio::pin!(run);
        let finished = tokio::select! {
            finished = &mut run => finished,
            () = sleep(self.spec.timeout.duration()) => {
                cancel.cancel();
                run.await
            }
        };
        let finished = finished.map_err(|error| {
            let text = self.say(verb, &error.to_string());
            if error.may_pass() { Failure::harmless(text) } else { Failure::permanent(text) }
        })?;
        if finished.cancelled {
            return Err(Failure::unknown(self.say(verb, &finished.describe())));
        }
        Ok(finished)
    }
}

/// A state command changes nothing, however it fails.
fn harmless(failure: Failure) -> Failure {
    Failure { effect: Effect::None, ..failure }
}

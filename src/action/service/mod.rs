//! `service.start`, `service.stop`, `service.restart`, `service.check`: services of a site, in dependency order.
//!
//! A stop with `hold` keeps a service down beyond the run; starting a held service is refused until the hold is
//! released. Who really starts and stops is the provider's business. Called by the driver.

pub mod hold;
pub(crate) mod proc;

mod control;
mod select;
mod supervisor;

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Action, Context, Failure, Preview, durable};
use crate::event::{Effect, Finding, Outputs};
use crate::spec::actions::{RunState, Services};
use control::Controlled;
use hold::Hold;
use supervisor::Supervised;

/// What can be done with services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceVerb {
    /// Starts those that do not run.
    Start,
    /// Stops those that run.
    Stop,
    /// Stops and starts.
    Restart,
    /// Only looks.
    Check,
}

/// A service action: what to do, with which services.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceAction {
    /// What to do.
    pub verb: ServiceVerb,
    /// With which.
    pub args: Services,
}

/// Whether a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// It runs.
    Running {
        /// Its process, if the provider knows.
        pid: Option<i32>,
        /// Since when, milliseconds since the epoch, if the provider knows.
        since_ms: Option<i64>,
    },
    /// It does not.
    Stopped {
        /// When it was stopped, milliseconds since the epoch, if the provider knows.
        at_ms: Option<i64>,
    },
}

impl Status {
    pub(crate) fn is_running(self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

/// Who really starts and stops a service.
#[async_trait]
pub(crate) trait Control: Send + Sync {
    /// Whether it runs.
    async fn status(&self) -> Result<Status, Failure>;
    /// Whether it runs and says that it is ready.
    async fn is_ready(&self) -> Result<bool, Failure>;
    /// Starts it and waits until it is ready; false when it ran already.
    async fn start(&self) -> Result<bool, Failure>;
    /// Stops it and waits until it is gone; false when it did not run.
    async fn stop(&self) -> Result<bool, Failure>;
}

/// Where states, logs and holds of the site's services are kept.
pub(crate) fn folder(cx: &Context) -> PathBuf {
    cx.state_dir.join("services").join(durable::file_name(&cx.site.site.name))
}

/// What a service was before the first change.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Was {
    status: Status,
    hold: Option<Hold>,
}

type Before = BTreeMap<String, Was>;

#[async_trait]
impl Action for ServiceAction {
    async fn before(&self, cx: &Context) -> Result<Value, Failure> {
        let mut before = Before::new();
        for name in self.names(cx)? {
            let status = control(cx, name)?.status().await?;
            before.insert(name.to_owned(), Was { status, hold: read_hold(cx, name)? });
        }
        Ok(json!({ "services": before }))
    }

    async fn run(&self, cx: &Context, before: &Value) -> Result<Outputs, Failure> {
        let names = self.names(cx)?;
        match self.verb {
            ServiceVerb::Check => return self.check(cx, &names).await,
            ServiceVerb::Start | ServiceVerb::Restart => self.open_holds(cx, &names)?,
            ServiceVerb::Stop => self.set_holds(cx, &names)?,
        }
        let mut done = Done::default();
        if matches!(self.verb, ServiceVerb::Stop | ServiceVerb::Restart) {
            sweep(cx, &names, Sweep::Stop, &mut done).await?;
        }
        if matches!(self.verb, ServiceVerb::Start | ServiceVerb::Restart) {
            sweep(cx, &names, Sweep::Start, &mut done).await?;
        }
        self.outputs(cx, &names, &parse(before), &done.changed).await
    }

    async fn probe(&self, cx: &Context, before: &Value) -> Finding {
        let Ok(names) = self.names(cx) else { return Finding::Unknown };
        let before = parse(before);
        for name in &names {
            let Ok(control) = control(cx, name) else { return Finding::Unknown };
            let as_wanted = match self.verb {
                ServiceVerb::Check => return Finding::NotDone,
                ServiceVerb::Stop => control.status().await.map(|status| !status.is_running()),
                ServiceVerb::Start => control.is_ready().await,
                ServiceVerb::Restart => match (control.is_ready().await, control.status().await) {
                    (Ok(ready), Ok(status)) => Ok(ready && is_younger(status, before.get(*name))),
                    (Err(failure), _) | (_, Err(failure)) => Err(failure),
                },
            };
            match as_wanted {
                // Both directions are safe to repeat, so half done counts as not done.
                Ok(false) => return Finding::NotDone,
                Ok(true) => {}
                Err(_) => return Finding::Unknown,
            }
        }
        if self.verb == ServiceVerb::Stop && self.args.hold {
            let held = |name: &&str| matches!(Hold::read(cx, name), Ok(Some(_)));
            if !names.iter().all(held) {
                return Finding::NotDone;
            }
        }
        let restarted = self.verb == ServiceVerb::Restart;
        let is_changed =
            |(_, was): &(&String, &Was)| restarted || was.status.is_running() == (self.verb == ServiceVerb::Stop);
        let changed: Vec<String> = before.iter().filter(is_changed).map(|(name, _)| name.clone()).collect();
        match self.outputs(cx, &names, &before, &changed).await {
            Ok(outputs) => Finding::Done(outputs),
            Err(_) => Finding::Unknown,
        }
    }

    async fn undo(&self, cx: &Context, before: &Value) -> Result<(), Failure> {
        let before = parse(before);
        let names: Vec<&str> = cx.site.site.services.names().filter(|name| before.contains_key(*name)).collect();
        let (ran, rested): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| before[**name].status.is_running());
        // A hold that somebody else set in between is theirs: it stays, and what it holds is not started.
        for name in &names {
            let was = &before[*name];
            let now = read_hold(cx, name)?;
            let ours = now.as_ref().is_none_or(|hold| hold.run == cx.run.as_str());
            if !ours && now != was.hold && was.status.is_running() {
                let text =
                    format!("service `{name}` is {}; it stays down", now.map_or_else(String::new, |h| h.to_string()));
                return Err(Failure::permanent(text));
            }
            match &was.hold {
                Some(hold) if ours => hold.write(cx, name).map_err(|error| unkept(name, &error))?,
                None if ours => Hold::release(cx, name).map_err(|error| unkept(name, &error))?,
                Some(_) | None => {}
            }
        }
        let mut done = Done::default();
        sweep(cx, &rested, Sweep::Stop, &mut done).await?;
        sweep(cx, &ran, Sweep::Start, &mut done).await
    }

    async fn preview(&self, cx: &Context) -> Preview {
        let names = match self.names(cx) {
            Ok(names) => names,
            Err(failure) => return Preview::Unknown(failure.error),
        };
        let mut changing = Vec::new();
        for name in &names {
            let status = match control(cx, name) {
                Ok(control) => control.status().await,
                Err(failure) => Err(failure),
            };
            match status {
                Ok(status)
                    if self.verb == ServiceVerb::Restart || status.is_running() == (self.verb == ServiceVerb::Stop) =>
                {
                    changing.push(*name);
                }
                Ok(_) => {}
                Err(failure) => return Preview::Unknown(failure.error),
            }
        }
        let list = changing.join(", ");
        match self.verb {
            ServiceVerb::Check => Preview::NoChange("only looks".into()),
            ServiceVerb::Start | ServiceVerb::Stop if changing.is_empty() => Preview::NoChange("already so".into()),
            ServiceVerb::Start => Preview::WillChange(format!("starts {list}")),
            ServiceVerb::Stop => Preview::WillChange(format!("stops {list}")),
            ServiceVerb::Restart => Preview::WillChange(format!("restarts {list}")),
        }
    }
}

impl ServiceAction {
    fn names<'a>(&self, cx: &'a Context) -> Result<Vec<&'a str>, Failure> {
        select::select(&cx.site.site, &self.args)
    }

    /// Refuses held services, or releases them all when that is asked.
    fn open_holds(&self, cx: &Context, names: &[&str]) -> Result<(), Failure> {
        let mut held = Vec::new();
        for name in names {
            if let Some(hold) = read_hold(cx, name)? {
                held.push(format!("service `{name}` is {hold}"));
            }
        }
        if !held.is_empty() && !self.args.release_hold {
            let text = format!("{}; say `release_hold: true` to start it all the same", held.join("; "));
            return Err(Failure::permanent(text));
        }
        for name in names {
            Hold::release(cx, name).map_err(|error| unkept(name, &error))?;
        }
        Ok(())
    }

    /// Sets the holds before anything stops, so that nothing is revived in between. An older hold stays as it is.
    fn set_holds(&self, cx: &Context, names: &[&str]) -> Result<(), Failure> {
        for name in names.iter().filter(|_| self.args.hold) {
            if read_hold(cx, name)?.is_none() {
                Hold::by(cx).write(cx, name).map_err(|error| unkept(name, &error))?;
            }
        }
        Ok(())
    }

    async fn check(&self, cx: &Context, names: &[&str]) -> Result<Outputs, Failure> {
        let wanted = self.args.state == RunState::Running;
        let mut wrong = Vec::new();
        for name in names {
            let running = control(cx, name)?.status().await?.is_running();
            match read_hold(cx, name)? {
                Some(hold) if running => wrong.push(format!("`{name}` runs although it is {hold}: it was revived")),
                Some(_) | None if running != wanted => {
                    let state = if running { "runs" } else { "does not run" };
                    wrong.push(format!("`{name}` {state}"));
                }
                Some(_) | None => {}
            }
        }
        if wrong.is_empty() {
            return Ok(Outputs::from([("services".to_owned(), json!(names))]));
        }
        Err(Failure::harmless(wrong.join("; ")))
    }

    /// `services`, `changed`, `started_at` or `stopped_at` per service, `at` (seconds) and `at_ms` of the latest of them.
    async fn outputs(
        &self,
        cx: &Context,
        names: &[&str],
        before: &Before,
        changed: &[String],
    ) -> Result<Outputs, Failure> {
        let now = crate::config::now().as_millisecond();
        let mut times = BTreeMap::new();
        for name in names {
            let status = control(cx, name)?.status().await.map_err(|f| Failure { effect: Effect::Unknown, ..f })?;
            // A service that was as wanted before has no time of its own in this step.
            let known = match status {
                Status::Running { since_ms, .. } => since_ms,
                Status::Stopped { at_ms } => at_ms,
            };
            times.insert(*name, known.unwrap_or(now));
        }
        let touched = times.iter().filter(|(name, _)| changed.iter().any(|c| c == *name)).map(|(_, at)| *at);
        let at_ms = touched.max().unwrap_or(now);
        let stopped = self.verb == ServiceVerb::Stop;
        let key = if stopped { "stopped_at" } else { "started_at" };
        let mut outputs = Outputs::from([
            ("services".to_owned(), json!(names)),
            ("changed".to_owned(), json!(changed)),
            (key.to_owned(), json!(times)),
            ("at".to_owned(), json!(at_ms.div_euclid(1000))),
            ("at_ms".to_owned(), json!(at_ms)),
        ]);
        let held: Vec<&String> = before.iter().filter(|(_, was)| was.hold.is_some()).map(|(name, _)| name).collect();
        if !held.is_empty() {
            outputs.insert("held_before".to_owned(), json!(held));
        }
        Ok(outputs)
    }
}

/// Direction of a sweep over services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sweep {
    Start,
    Stop,
}

#[derive(Debug, Default)]
struct Done {
    changed: Vec<String>,
}

/// Starts (needs first) or stops (needs last) the services, those of one wave side by side.
async fn sweep(cx: &Context, names: &[&str], direction: Sweep, done: &mut Done) -> Result<(), Failure> {
    let mut waves = select::waves(&cx.site.site, names);
    if direction == Sweep::Stop {
        waves.reverse();
    }
    for wave in waves {
        let results = join_all(wave.iter().map(|name| async move {
            let control = control(cx, name)?;
            match direction {
                Sweep::Start => control.start().await,
                Sweep::Stop => control.stop().await,
            }
        }))
        .await;
        let mut failure: Option<Failure> = None;
        for (name, result) in wave.iter().zip(results) {
            match result {
                Ok(true) if !done.changed.iter().any(|seen| seen == name) => done.changed.push((*name).to_owned()),
                Ok(_) => {}
                Err(found) => failure = Some(failure.map_or(found.clone(), |first| both(&first, &found))),
            }
        }
        if let Some(failure) = failure {
            // What other services of this action went through is a change, whatever became of this one.
            let effect = if done.changed.is_empty() { failure.effect } else { Effect::Unknown };
            return Err(Failure { effect, ..failure });
        }
    }
    Ok(())
}

fn both(first: &Failure, second: &Failure) -> Failure {
    let known = first.effect == Effect::None && second.effect == Effect::None;
    Failure {
        error: format!("{}; {}", first.error, second.error),
        effect: if known { Effect::None } else { Effect::Unknown },
        retryable: first.retryable && second.retryable,
    }
}

/// The provider of a service of the site.
fn control<'a>(cx: &'a Context, name: &'a str) -> Result<Box<dyn Control + 'a>, Failure> {
    let service = cx.site.site.services.get(name);
    let service = service.ok_or_else(|| Failure::permanent(format!("the site has no service `{name}`")))?;
    match (&service.provider.process, &service.provider.command) {
        (Some(spec), _) => Ok(Box::new(Supervised { cx, name, spec })),
        (None, Some(spec)) => Ok(Box::new(Controlled { cx, name, spec })),
        (None, None) => Err(Failure::permanent(format!("service `{name}` has no provider"))),
    }
}

fn parse(before: &Value) -> Before {
    before.get("services").cloned().and_then(|services| serde_json::from_value(services).ok()).unwrap_or_default()
}

fn is_younger(now: Status, was: Option<&Was>) -> bool {
    let since = |status: Status| match status {
        Status::Running { since_ms, .. } => since_ms,
        Status::Stopped { .. } => None,
    };
    match (since(now), was.map(|was| was.status)) {
        (Some(now), Some(was)) => since(was).is_none_or(|was| now > was),
        // Without a start time, or without knowing what was, a restart cannot be told.
        (None, _) | (_, None) => false,
    }
}

fn read_hold(cx: &Context, name: &str) -> Result<Option<Hold>, Failure> {
    Hold::read(cx, name).map_err(|error| Failure::permanent(format!("the hold of service `{name}`: {error}")))
}

fn unkept(name: &str, error: &std::io::Error) -> Failure {
    Failure::unknown(format!("the hold of service `{name}` cannot be kept: {error}"))
}

#[cfg(test)]
mod tests;

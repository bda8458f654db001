//! `db.sessions`: who is connected to a database, and ends them where that is asked for.
//!
//! Ending is safe to repeat: it looks again and ends what is there. A session of this run, of this driver and of a journal is never listed.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::db::failure;
use super::{Action, Context, Failure, Preview, Progress};
use crate::event::Outputs;
use crate::spec::actions::{DbSessions, SessionState as State};
use crate::transfer::{self, Database, Ended, SessionFilter, SessionInfo, SessionState};

/// Sessions that a message names.
const NAMED: usize = 10;
/// Sessions that the outputs keep.
const ROWS_KEPT: usize = 1_000;
/// Pause between two looks for sessions that were ended.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

impl DbSessions {
    fn filter(&self) -> SessionFilter {
        let state = |state: &State| match state {
            State::Active => SessionState::Active,
            State::Idle => SessionState::Idle,
            State::IdleInTransaction => SessionState::IdleInTransaction,
        };
        SessionFilter {
            users: self.users.clone(),
            applications: self.applications.clone(),
            except: self.except.clone(),
            states: self.states.iter().map(state).collect(),
            longer_than_ms: self.longer_than.map(|limit| limit.0),
            whole_server: self.whole_server,
            statements: self.statements,
        }
    }

    async fn look(&self, database: &Database) -> Result<Vec<SessionInfo>, Failure> {
        transfer::sessions(database, &self.filter()).await.map_err(|error| failure(&error))
    }

    async fn list(&self, cx: &Context) -> Result<Outputs, Failure> {
        let found = self.look(&cx.databases.get(&self.database).await?).await?;
        if self.none && !found.is_empty() {
            return Err(Failure::harmless(format!("{} sessions are there: {}", found.len(), named(&found))));
        }
        Ok(outputs(&found, &[]))
    }

    /// Tells the server to end each one: those that it accepted, and those that it refused with the reason.
    async fn end(
        &self,
        database: &Database,
        found: &[SessionInfo],
    ) -> Result<(Vec<SessionInfo>, Vec<String>), Failure> {
        let (mut told, mut refused) = (Vec::new(), Vec::new());
        for info in found {
            match transfer::end_session(database, info).await {
                Ok(Ended::Told | Ended::Gone) => told.push(info.clone()),
                Ok(Ended::Refused(why)) => refused.push(format!("{info}: {why}")),
                Err(error) => return Err(Failure::unknown(error.to_string())),
            }
        }
        Ok((told, refused))
    }

    /// Waits until those that were told to end are gone; those that are left when the time is over come back.
    async fn wait(&self, cx: &Context, database: &Database, told: &[SessionInfo]) -> Result<Vec<SessionInfo>, Failure> {
        let end = Instant::now() + self.within.duration();
        let everyone = SessionFilter { whole_server: true, ..SessionFilter::default() };
        loop {
            let now = transfer::sessions(database, &everyone).await;
            let mut left = now.map_err(|error| Failure::unknown(error.to_string()))?;
            left.retain(|info| told.iter().any(|told| told.id == info.id && told.began == info.began));
            if left.is_empty() || Instant::now() >= end {
                return Ok(left);
            }
            let done = u64::try_from(told.len() - left.len()).unwrap_or(u64::MAX);
            let what = format!("sessions end: {}", named(&left));
            (cx.progress)(Progress { what, done, total: u64::try_from(told.len()).ok(), ..Progress::default() });
            tokio::select! {
                () = tokio::time::sleep(LOOK_PAUSE) => {}
                () = cx.cancel.cancelled() => return Ok(left),
            }
        }
    }

    async fn list_and_end(&self, cx: &Context) -> Result<Outputs, Failure> {
        let database = cx.databases.get(&self.database).await?;
        let found = self.look(&database).await?;
        let (told, refused) = self.end(&database, &found).await?;
        let left = self.wait(cx, &database, &told).await?;
        let is_left = |info: &&SessionInfo| left.iter().any(|left| left.id == info.id);
        let gone: Vec<SessionInfo> = told.iter().filter(|info| !is_left(info)).cloned().collect();
        if refused.is_empty() && left.is_empty() {
            return Ok(outputs(&found, &gone));
        }
        let mut why = refused;
        why.extend(left.iter().map(|info| format!("{info}: still there after {}", self.within)));
        let ended = if gone.is_empty() { "none".to_owned() } else { named(&gone) };
        let error =
            format!("{} of {} sessions could not be ended: {}; ended: {ended}", why.len(), found.len(), why.join("; "));
        if gone.is_empty() && left.is_empty() { Err(Failure::harmless(error)) } else { Err(Failure::unknown(error)) }
    }
}

/// The first ones in words.
fn named(found: &[SessionInfo]) -> String {
    let mut names: Vec<String> = found.iter().take(NAMED).map(ToString::to_string).collect();
    if found.len() > NAMED {
        names.push(format!("and {} more", found.len() - NAMED));
    }
    names.join(", ")
}

fn outputs(found: &[SessionInfo], ended: &[SessionInfo]) -> Outputs {
    Outputs::from([
        ("rows".to_owned(), json!(found.iter().take(ROWS_KEPT).collect::<Vec<_>>())),
        ("count".to_owned(), found.len().into()),
        ("ended".to_owned(), json!(ended.iter().map(|info| info.id).collect::<Vec<_>>())),
    ])
}

#[async_trait]
impl Action for DbSessions {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        if self.terminate {
            return self.list_and_end(cx).await;
        }
        tokio::select! {
            found = self.list(cx) => found,
            () = cx.cancel.cancelled() => Err(Failure::harmless("the look at the sessions was cancelled")),
        }
    }

    async fn preview(&self, cx: &Context) -> Preview {
        let found = match cx.databases.get(&self.database).await {
            Ok(database) => self.look(&database).await,
            Err(failure) => Err(failure),
        };
        match found {
            Err(failure) => Preview::Unknown(failure.error),
            Ok(found) if found.is_empty() => Preview::NoChange("no session is there".into()),
            Ok(found) if self.terminate => {
                Preview::WillChange(format!("ends {} sessions: {}", found.len(), named(&found)))
            }
            Ok(found) if self.none => {
                Preview::Unknown(format!("does not hold now: {} sessions are there: {}", found.len(), named(&found)))
            }
            Ok(found) => Preview::NoChange(format!("{} sessions are there", found.len())),
        }
    }
}

//! Piton's own supervisor, without a daemon: starts a process in its own session, finds it again, stops it.
//!
//! The intent to start, with a token that the process carries in its environment, is on disk before the process exists;
//! so it is found again even if Piton dies before its number is written. A recycled process number is never signalled.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use process_wrap::tokio::ProcessSession;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::super::process::{self, CommandLine};
use super::super::wiped::wiped;
use super::super::{Context, Failure, durable};
use super::proc::{self, Identity, LOOK_EVERY, TOKEN_VARIABLE};
use super::{Control, Status};
use crate::config::rights::own_folder;
use crate::site::{ProcessProvider, Ready};

/// How long a process without a way to say that it is ready must live to count as started.
const SETTLE: Duration = Duration::from_millis(200);
/// How long a start that was cut off is searched for before it counts as never happened.
const SEARCH: Duration = Duration::from_millis(500);
/// How young such a start must be to be searched for more than once.
const SEARCH_AGE_MS: i64 = 10_000;
/// How long killed processes may take to go.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long another Piton may work on the same service.
const LOCK_PATIENCE: Duration = Duration::from_mins(2);
/// File times lag behind the clock by up to a timer tick.
const FILE_TIME_SLACK: Duration = Duration::from_millis(20);
/// One look with a readiness command takes no longer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is on disk about the last start of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What its processes carry in their environment.
    pub(crate) token: String,
    /// The boot in which it was started.
    pub(crate) boot: String,
    /// The command.
    pub(crate) argv: Vec<String>,
    /// When the start was decided, milliseconds since the epoch; the process is younger.
    pub(crate) intended_at_ms: i64,
    /// The process, once it is known.
    pub(crate) process: Option<Identity>,
    /// When Piton stopped it.
    pub(crate) stopped_at_ms: Option<i64>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

/// One service run by Piton.
pub(crate) struct Supervised<'a> {
    pub(crate) cx: &'a Context,
    pub(crate) name: &'a str,
    pub(crate) spec: &'a ProcessProvider,
}

#[async_trait]
impl Control for Supervised<'_> {
    async fn status(&self) -> Result<Status, Failure> {
        let Some(record) = self.read()? else { return Ok(Status::Stopped { at_ms: None }) };
        Ok(match self.find(&record).await {
            Some(found) => Status::Running { pid: Some(found.pid), since_ms: Some(record.intended_at_ms) },
            None => Status::Stopped { at_ms: record.stopped_at_ms },
        })
    }

    async fn is_ready(&self) -> Result<bool, Failure> {
        match self.read()? {
            Some(record) if self.find(&record).await.is_some() => Ok(self.looks_ready(&record).await),
            Some(_) | None => Ok(false),
        }
    }

    async fn start(&self) -> Result<bool, Failure> {
        let _lock = self.lock().await?;
        if let Some(record) = self.read()? {
            if let Some(found) = self.find(&record).await {
                self.wait_ready(&record, found).await?;
                return Ok(false);
            }
            if record.boot == proc::boot_id() {
                // What a crashed predecessor left running would get in the way of the new start.
                self.end(&record, None, &self.cx.cancel).await?;
            }
        }
        let (record, started) = self.spawn()?;
        match self.wait_ready(&record, started).await {
            Ok(()) => Ok(true),
            Err(failure) => {
                // It is cleared away also when the start was cut short by a cancel.
                self.end(&record, Some(started), &CancellationToken::new()).await?;
                Err(failure)
            }
        }
    }

    async fn stop(&self) -> Result<bool, Failure> {
        let _lock = self.lock().await?;
        let Some(mut record) = self.read()? else { return Ok(false) };
        if record.boot != proc::boot_id() {
            return Ok(false);
        }
        let leader = self.find(&record).await;
        let ran = self.end(&record, leader, &self.cx.cancel).await?;
        if ran {
            record.stopped_at_ms = Some(crate::config::now().as_millisecond());
            self.write(&record).map_err(|error| Failure::unknown(self.say(&error)))?;
        }
        Ok(ran)
    }
}

impl Supervised<'_> {
    fn path(&self, ending: &str) -> PathBuf {
        super::folder(self.cx).join(format!("{}.{ending}", durable::file_name(self.name)))
    }

    fn say(&self, error: &dyn std::fmt::Display) -> String {
        self.cx.masker.text(&format!("service `{}`: {error}", self.name))
    }

    async fn lock(&self) -> Result<durable::Lock, Failure> {
        let path = self.path("lock");
        tokio::select! {
            lock = durable::Lock::take(&path, LOCK_PATIENCE) => {
                lock.map_err(|error| Failure::harmless(self.say(&error)))
            }
            () = self.cx.cancel.cancelled() => Err(Failure::harmless(self.say(&"cancelled while another Piton works on it"))),
        }
    }

    fn read(&self) -> Result<Option<Record>, Failure> {
        let path = self.path("json");
        let read = durable::read(&path).and_then(|content| {
            content.map(|content| serde_json::from_slice(&content).map_err(std::io::Error::other)).transpose()
        });
        read.map_err(|error| Failure::permanent(self.say(&format!("`{}` cannot be read: {error}", path.display()))))
    }

    fn write(&self, record: &Record) -> std::io::Result<()> {
        durable::replace(&self.path("json"), &serde_json::to_vec_pretty(record).map_err(std::io::Error::other)?, None)
    }

    /// The running leader that the record speaks of.
    async fn find(&self, record: &Record) -> Option<Identity> {
        if record.boot != proc::boot_id() {
            return None;
        }
        if let Some(process) = record.process {
            return process.is_alive().then_some(process);
        }
        // Cut off between the intent and the number. The token shows once the new process has become the program.
        let young = crate::config::now().as_millisecond() - record.intended_at_ms < SEARCH_AGE_MS;
        let deadline = Instant::now() + if young { SEARCH } else { Duration::ZERO };
        loop {
            let members = proc::members(&record.token, None);
            let leader = members.iter().find(|member| member.leads).or(members.first());
            if let Some(leader) = leader {
                return Some(leader.identity);
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Writes down what will be started; the process that carries the token is this service from here on.
    fn intend(&self) -> Result<Record, Failure> {
        let fail = |error: std::io::Error| Failure::harmless(self.say(&error));
        own_folder(&super::folder(self.cx)).map_err(fail)?;
        let record = Record {
            token: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
            boot: proc::boot_id(),
            argv: self.spec.argv.clone(),
            intended_at_ms: crate::config::now().as_millisecond(),
            process: None,
            stopped_at_ms: None,
            log: self.path("log"),
        };
        self.write(&record).map_err(fail)?;
        Ok(record)
    }

    fn spawn(&self) -> Result<(Record, Identity), Failure> {
        let mut record = self.intend()?;
        let fail = |error: std::io::Error| Failure::harmless(self.say(&error));
        let log = File::options().create(true).append(true).mode(0o600).open(&record.log).map_err(fail)?;
        let errors = log.try_clone().map_err(fail)?;
        let mut command = process::prepared(&self.line(&record.token));
        command.command_mut().stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.wrap(ProcessSession).spawn().map_err(|error| {
            Failure::permanent(self.say(&format!("cannot start `{}`: {error}", self.spec.argv.join(" "))))
        })?;
        // Dropping the child does not end it; the runtime reaps it if Piton is still there when it ends.
        let group = process::group_of(child.as_ref()).map_err(fail)?;
        let started = Identity::of(group.as_raw())
            .ok_or_else(|| Failure::unknown(self.say(&"the process is not visible in /proc")))?;
        record.process = Some(started);
        if let Err(error) = self.write(&record) {
            process::signal_group(group, Signal::SIGKILL);
            return Err(Failure::unknown(self.say(&error)));
        }
        Ok((record, started))
    }

    fn line(&self, token: &str) -> CommandLine {
        let base = &self.cx.site.base;
        let base = std::path::absolute(base).unwrap_or_else(|_| base.to_path_buf());
        let cwd = self.spec.cwd.as_ref().map_or_else(|| base.clone(), |cwd| base.join(cwd));
        let mut line = CommandLine::new(&self.spec.argv, &cwd);
        line.env = wiped(self.cx.fences.variables());
        line.env.extend(wiped(self.spec.env.clone()));
        line.env.insert(TOKEN_VARIABLE.into(), token.into());
        line
    }

    async fn wait_ready(&self, record: &Record, started: Identity) -> Result<(), Failure> {
        let deadline = Instant::now() + self.spec.start_timeout.duration();
        let quick = self.spec.ready.is_none();
        let settled = record.intended_at_ms + i64::try_from(SETTLE.as_millis()).unwrap_or(0);
        loop {
            if !started.is_alive() {
                let last = self.log_end(&record.log);
                return Err(Failure::unknown(self.say(&format!("it ended before it was ready; its log ends: {last}"))));
            }
            let ready =
                if quick { crate::config::now().as_millisecond() >= settled } else { self.looks_ready(record).await };
            if ready {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let timeout = self.spec.start_timeout;
                return Err(Failure::unknown(self.say(&format!("it was not ready within {timeout} and was stopped"))));
            }
            tokio::select! {
                () = sleep(LOOK_EVERY * 2) => {}
                () = self.cx.cancel.cancelled() => {
                    return Err(Failure::unknown(self.say(&"cancelled before it was ready; it was stopped")));
                }
            }
        }
    }

    /// Whether everything that speaks for readiness does; true when nothing is asked.
    async fn looks_ready(&self, record: &Record) -> bool {
        let Some(Ready { file, tcp, exec }) = &self.spec.ready else { return true };
        if let Some(file) = file {
            let written = fs::metadata(self.cx.site.base.join(file)).and_then(|metadata| metadata.modified());
            let intended = u64::try_from(record.intended_at_ms).unwrap_or(0);
            let intended = SystemTime::UNIX_EPOCH + Duration::from_millis(intended);
            if !written.is_ok_and(|written| written + FILE_TIME_SLACK >= intended) {
                return false;
            }
        }
        if let Some(address) = tcp {
            let connected = tokio::time::timeout(PROBE_TIMEOUT, tokio::net::TcpStream::connect(address)).await;
            if !matches!(connected, Ok(Ok(_))) {
                return false;
            }
        }
        if exec.is_empty() {
            return true;
        }
        let mut line = self.line("");
        line.env.remove(TOKEN_VARIABLE);
        line.argv.clone_from(exec);
        let run = process::run(&line, &self.cx.cancel, &self.cx.masker);
        matches!(tokio::time::timeout(PROBE_TIMEOUT, run).await, Ok(Ok(finished)) if finished.status.success())
    }

    /// Ends every process of the service: politely, then not; true when there was one. A cancel ends the wait, not the
    /// process: it was told to stop and may still be at it.
    async fn end(
        &self,
        record: &Record,
        leader: Option<Identity>,
        cancel: &CancellationToken,
    ) -> Result<bool, Failure> {
        // Once the leader is gone its session cannot be told by number, so members are remembered.
        let mut known = proc::members(&record.token, leader);
        if known.is_empty() {
            return Ok(false);
        }
        let mut polite_until = Some(Instant::now() + self.spec.stop_timeout.duration());
        let mut give_up = None;
        self.signal(leader, &known, Signal::SIGTERM);
        loop {
            for member in proc::members(&record.token, leader) {
                if !known.contains(&member) {
                    known.push(member);
                }
            }
            known.retain(|member| member.identity.is_alive());
            if known.is_empty() {
                return Ok(true);
            }
            let now = Instant::now();
            if polite_until.is_some_and(|at| now >= at) {
                polite_until = None;
                give_up = Some(now + KILL_PATIENCE);
            }
            if polite_until.is_none() {
                self.signal(leader, &known, Signal::SIGKILL);
            }
            if give_up.is_some_and(|at| now >= at) {
                let pids: Vec<String> = known.iter().map(|member| member.identity.pid.to_string()).collect();
                let text = format!("these processes cannot be killed: {}", pids.join(", "));
                return Err(Failure::unknown(self.say(&text)));
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = cancel.cancelled() => {
                    return Err(Failure::unknown(self.say(&"cancelled; it was told to stop and has not ended yet")));
                }
            }
        }
    }

    fn signal(&self, leader: Option<Identity>, members: &[proc::Member], signal: Signal) {
        // Members of the leader's group get the signal once; while one of them lives, the number means this group.
        let grouped = |leader: &Identity| members.iter().any(|m| m.group == leader.pid && m.identity.is_alive());
        if let Some(leader) = leader.filter(grouped) {
            process::signal_group(Pid::from_raw(leader.pid), signal);
        }
        for member in members.iter().filter(|member| leader.is_none_or(|leader| member.group != leader.pid)) {
            member.identity.signal(signal);
        }
        tracing::debug!(service = self.name, %signal, count = members.len(), "signalled");
    }

    /// The last lines of the log, without secrets.
    fn log_end(&self, log: &Path) -> String {
        let read = || {
            let mut file = File::open(log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
            let mut bytes = Vec::new();
            file.take(4096).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let text = lines[lines.len().saturating_sub(3)..].join(" | ");
        if text.is_empty() { "(nothing)".to_owned() } else { self.cx.masker.text(&text) }
    }
}

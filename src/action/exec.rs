//! `exec`: runs a command and takes outputs from what it prints.
//!
//! A shell only when asked. What the command did is unknown after any failure but one to start. Called by the driver.

use async_trait::async_trait;
use serde_json::Value;

use super::held::{Attached, HeldError};
use super::process::{self, CommandLine, Finished, KEPT, Leftovers};
use super::wiped::wiped;
use super::{Action, Context, Failure, Preview};
use crate::event::Outputs;
use crate::spec::actions::{Exec, OutputRule};

#[async_trait]
impl Action for Exec {
    async fn run(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let line = self.line(cx);
        if line.argv.is_empty() {
            return Err(Failure::permanent("`argv` is empty: there is nothing to run"));
        }
        cx.unchanged_program(self.cwd.as_deref(), line.program())?;
        let finished = match &cx.held {
            Some(held) => held.commands.run(&line, cx, held).await.map_err(|error| failed(&line, cx, &error))?,
            None => process::run(&line, &cx.cancel, &cx.masker).await.map_err(|error| {
                let text = error.to_string();
                if error.may_pass() { Failure::harmless(text) } else { Failure::permanent(text) }
            })?,
        };
        self.conclude(&line, cx, finished)
    }

    async fn take_up(&self, cx: &Context, _before: &Value) -> Result<Outputs, Failure> {
        let Some(held) = &cx.held else { return Err(Failure::unknown("nothing holds the command")) };
        let line = self.line(cx);
        loop {
            match held.commands.attach(cx, held).await.map_err(|error| failed(&line, cx, &error))? {
                Attached::Ended(finished) => return self.conclude(&line, cx, finished),
                Attached::NeverStarted => {
                    cx.unchanged_program(self.cwd.as_deref(), line.program())?;
                    match held.commands.run(&line, cx, held).await {
                        Ok(finished) => return self.conclude(&line, cx, finished),
                        // The holder of the dead driver was faster.
                        Err(HeldError::Taken) => {}
                        Err(error) => return Err(failed(&line, cx, &error)),
                    }
                }
            }
        }
    }

    async fn preview(&self, _cx: &Context) -> Preview {
        Preview::Unknown("what a command does cannot be told beforehand".into())
    }
}

/// What is known of the world when a held command gave no result.
fn failed(line: &CommandLine, cx: &Context, error: &HeldError) -> Failure {
    let text = format!("cannot start `{}`: {}", cx.masker.text(line.program()), cx.masker.text(&error.to_string()));
    match error {
        HeldError::NotStarted { may_pass: false, .. } => Failure::permanent(text),
        HeldError::NotStarted { .. } | HeldError::NoHolder(_) => Failure::harmless(text),
        HeldError::Taken | HeldError::Lost(_) => {
            let program = cx.masker.text(line.program());
            Failure::unknown(format!("`{program}`: {}", cx.masker.text(&error.to_string())))
        }
    }
}

impl Exec {
    /// What a command that ended means for the step; what it said is left for the record.
    fn conclude(&self, line: &CommandLine, cx: &Context, finished: Finished) -> Result<Outputs, Failure> {
        let result = self.judge(line, cx, &finished);
        cx.said.keep(finished.stdout, finished.stderr);
        result
    }

    fn judge(&self, line: &CommandLine, cx: &Context, finished: &Finished) -> Result<Outputs, Failure> {
        let what = format!("`{}`", cx.masker.text(line.program()));
        let expected = finished.status.code().is_some_and(|code| self.expect.codes.contains(&code));
        if !expected || finished.cancelled {
            return Err(Failure::unknown(format!("{what}: {}", finished.describe())));
        }
        let mut outputs = Outputs::new();
        for (name, rule) in &self.outputs {
            let value = take(rule, finished)
                .map_err(|why| Failure::unknown(format!("{what} did its work, but output `{name}`: {why}")))?;
            outputs.insert(name.clone(), cx.masker.json(value));
        }
        Ok(outputs)
    }

    fn line(&self, cx: &Context) -> CommandLine {
        let mut env = wiped(cx.fences.variables());
        // What the author sets himself goes before.
        env.extend(self.env.iter().map(|(name, value)| (name.clone(), value.expose().into())));
        let argv = match &self.shell {
            Some(text) => vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()],
            None => self.argv.clone(),
        };
        CommandLine {
            argv,
            env,
            cwd: self.cwd.as_ref().map_or_else(|| cx.base.to_path_buf(), |cwd| cx.base.join(cwd)),
            stdin: self.stdin.as_ref().map(|text| text.expose().into()),
            leftovers: Leftovers::Kill,
        }
    }
}

/// The value that a rule takes from standard output, or why it cannot.
fn take(rule: &OutputRule, finished: &Finished) -> Result<Value, String> {
    let Some(text) = finished.stdout.raw() else {
        let (printed, most) = (finished.stdout.total(), 2 * KEPT);
        return Err(format!("the command printed {printed} bytes, outputs are taken from {most} at most"));
    };
    if let Some(pointer) = &rule.json {
        let value: Value =
            serde_json::from_str(&text).map_err(|error| format!("standard output is no JSON: {error}"))?;
        return value.pointer(pointer).cloned().ok_or_else(|| format!("standard output has no `{pointer}`"));
    }
    if let Some(pattern) = &rule.regex {
        let regex = regex::Regex::new(pattern).map_err(|error| error.to_string())?;
        let found = regex.captures(&text).ok_or_else(|| format!("standard output has no match of `{pattern}`"))?;
        let group = found.get(1).or_else(|| found.get(0)).map_or("", |group| group.as_str());
        return Ok(Value::from(group));
    }
    Ok(Value::from(text.trim()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::super::mask::Masker;
    use super::super::testing::{Place, until};
    use super::*;
    use crate::event::Effect;
    use crate::spec::actions::ExpectCodes;

    fn shell(text: &str) -> Exec {
        Exec {
            argv: Vec::new(),
            shell: Some(text.into()),
            env: BTreeMap::new(),
            cwd: None,
            stdin: None,
            expect: ExpectCodes { codes: vec![0] },
            outputs: BTreeMap::new(),
        }
    }

    fn rule(json: Option<&str>, regex: Option<&str>) -> OutputRule {
        let stdout = json.is_none() && regex.is_none();
        OutputRule { json: json.map(Into::into), regex: regex.map(Into::into), stdout }
    }

    #[tokio::test]
    async fn outputs_come_from_standard_output() {
        let place = Place::new();
        let mut exec = shell("cat; printf %s \"$EXTRA\"");
        exec.stdin = Some(crate::spec::values::SecretText::new("{\"a\":[1,2]".into()));
        exec.env.insert("EXTRA".into(), crate::spec::values::SecretText::new("}".into()));
        exec.outputs.insert("second".into(), rule(Some("/a/1"), None));
        exec.outputs.insert("digit".into(), rule(None, Some(r"\[(\d)")));
        exec.outputs.insert("all".into(), rule(None, None));
        let outputs = exec.run(&place.cx, &Value::Null).await.expect("runs");
        assert_eq!(outputs["second"], json!(2));
        assert_eq!(outputs["digit"], json!("1"));
        assert_eq!(outputs["all"], json!("{\"a\":[1,2]}"));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_changed_nothing() {
        let place = Place::new();
        let mut exec = shell("");
        (exec.shell, exec.argv) = (None, vec!["piton-no-such-program".into()]);
        let failure = exec.run(&place.cx, &Value::Null).await.expect_err("missing");
        assert_eq!((failure.effect, failure.retryable), (Effect::None, false), "{failure}");
    }

    #[tokio::test]
    async fn a_failure_says_code_and_complaint_without_secrets() {
        let mut place = Place::new();
        place.cx.masker = Masker::new(["hunter2"]);
        let failure = shell("echo 'no: hunter2' >&2; exit 3").run(&place.cx, &Value::Null).await.expect_err("fails");
        assert_eq!(failure.error, "`/bin/sh`: exit code 3: no: ***");
        assert_eq!(failure.effect, Effect::Unknown);
    }

    #[tokio::test]
    async fn other_codes_can_be_expected_and_the_environment_is_small() {
        let place = Place::new();
        let mut exec = shell("env | sed 's/=.*//' | sort | tr '\\n' ' '; exit 4");
        exec.expect.codes = vec![4];
        exec.outputs.insert("names".into(), rule(None, None));
        let outputs = exec.run(&place.cx, &Value::Null).await.expect("4 is fine");
        let names = outputs["names"].as_str().expect("text").to_owned();
        let own = ["PWD", "SHLVL", "_", "OLDPWD"];
        for name in names.split_whitespace() {
            assert!(process::INHERITED.contains(&name) || own.contains(&name), "{name} leaked");
        }
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_is_killed() {
        let place = Place::new();
        let file = place.path("pid");
        let text = format!(
            "(trap '' TERM; exec >/dev/null 2>&1 </dev/null; sh -c 'trap \"\" TERM; echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 1; done') & while [ ! -s {0} ]; do sleep 0.02; done",
            file.display()
        );
        shell(&text).run(&place.cx, &Value::Null).await.expect("the leader is fine");
        let pid: i32 = std::fs::read_to_string(&file).expect("written").trim().parse().expect("a pid");
        until("the grandchild is gone", || !super::super::service::proc::is_alive(pid)).await;
    }

    #[tokio::test]
    async fn a_cancel_ends_the_whole_group() {
        let place = Place::new();
        let file = place.path("ready");
        let exec = shell(&format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display()));
        let cancel = place.cx.cancel.clone();
        let started = Instant::now();
        let stop = async {
            until("it is under way", || file.exists()).await;
            cancel.cancel();
        };
        let (result, ()) = tokio::join!(exec.run(&place.cx, &Value::Null), stop);
        let failure = result.expect_err("cancelled");
        assert!(failure.error.contains("stopped (killed by SIGTERM)"), "{failure}");
        assert!(started.elapsed() < process::GRACE);
        let pid: i32 = std::fs::read_to_string(&file).expect("written").trim().parse().expect("a pid");
        until("the sleeper is gone", || !super::super::service::proc::is_alive(pid)).await;
    }

    #[tokio::test]
    async fn a_dropped_future_leaves_nothing() {
        let place = Place::new();
        let file = place.path("pid");
        let exec = shell(&format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 600", file.display()));
        tokio::select! {
            _ = exec.run(&place.cx, &Value::Null) => panic!("it sleeps for ten minutes"),
            () = until("it is under way", || file.exists()) => {}
        }
        let pid: i32 = std::fs::read_to_string(&file).expect("written").trim().parse().expect("a pid");
        until("it is gone", || !super::super::service::proc::is_alive(pid)).await;
    }

    #[tokio::test]
    async fn endless_output_is_kept_in_bounded_memory() {
        let place = Place::new();
        let line = shell("head -c 100000000 /dev/urandom; echo the end").line(&place.cx);
        let finished = process::run(&line, &place.cx.cancel, &Masker::new(["never"])).await.expect("starts");
        assert_eq!(finished.stdout.total(), 100_000_008);
        assert!(finished.stdout.raw().is_none());
        let text = finished.stdout.text();
        assert!(text.contains("bytes left out") && text.ends_with("the end\n"));
        assert!(text.len() < 8 * KEPT, "{}", text.len());
        let mut exec = shell("head -c 200000 /dev/zero");
        exec.outputs.insert("all".into(), rule(None, None));
        let failure = exec.run(&place.cx, &Value::Null).await.expect_err("too much for an output");
        assert!(failure.error.contains("printed 200000 bytes"), "{failure}");
    }

    #[tokio::test]
    async fn a_daemon_that_holds_the_pipe_does_not_hold_the_step() {
        let place = Place::new();
        let started = Instant::now();
        let file = place.path("pid");
        let text = format!(
            "setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; sleep 30' & while [ ! -s {0} ]; do sleep 0.02; done",
            file.display()
        );
        shell(&text).run(&place.cx, &Value::Null).await.expect("the leader is fine");
        assert!(started.elapsed() < Duration::from_secs(20));
        let pid: i32 = std::fs::read_to_string(&file).expect("written").trim().parse().expect("a pid");
        process::signal_group(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

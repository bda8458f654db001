//! `piton new`: a commented runbook to start from.

use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
use super::exit::Exit;
use super::out::Out;

/// Arguments of `piton new`.
#[derive(Debug, Args)]
pub struct New {
    /// Its name; the file is NAME.yaml
    name: String,
}

/// The runbook; `NAME` is replaced.
const STARTER: &str = "\
# Check it with `piton check NAME.yaml`, see what it would do with `piton plan NAME.yaml`,
# start it with `piton run NAME.yaml`.
apiVersion: piton/v1
kind: Runbook
name: NAME
version: 0.1.0
description: Says what this procedure is for.

params: # given with --param name=value
  greeting: { type: string, default: hello, description: what is said first }

limits: { parallel: 4, timeout: 1h }
on_failure: rollback # what was done is undone, last first; or: stop, continue

steps:
  # Preflight steps only look; all of them pass before anything is changed.
  - id: look
    phase: preflight
    exec: { argv: [\"true\"] }

  - id: begin
    needs: [look]
    # Each element is one argument; nothing is interpreted by a shell.
    exec: { argv: [echo, \"{{ params.greeting }}\"], outputs: { said: { stdout: true } } }
    idempotent: yes # may run again after a crash; without this a person is asked
    undo: { exec: { argv: [echo, taking it back] } }

  # A person decides: `piton approve RUN go`.
  - id: go
    needs: [begin]
    approval: { prompt: \"It said {{ steps.begin.outputs.said }}. Go on?\" }

  - id: finish
    needs: [go]
    exec: { argv: [echo, done] }
    idempotent: yes

finally: # runs at the end, whatever happened
  - id: tell
    exec: { argv: [echo, \"{{ run.outcome }}\"] }
    idempotent: yes
";

pub(super) fn run(args: &New, out: Out) -> Result<Exit, CliError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if args.name.is_empty() || !args.name.chars().all(legal) {
        let message = format!("`{}` is no name for a runbook; take letters, digits, `-` and `_`", args.name);
        return Err(CliError::Usage(message));
    }
    let path = PathBuf::from(format!("{}.yaml", args.name));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = file.map_err(|error| CliError::unwritable(&path, &error))?;
    let text = STARTER.replace("NAME", &args.name);
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(|error| CliError::unwritable(&path, &error))?;
    out.line(format!("wrote {}", path.display()))?;
    Ok(Exit::SUCCEEDED)
}

//! A lab of real processes for a test: made in a temp folder, stopped when the test ends, also by a panic.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;

/// The binary under test.
pub(crate) const PITON: &str = env!("CARGO_BIN_EXE_piton");

/// A lab with WFM 6.5 running in it.
pub(crate) struct RunningLab {
    folder: tempfile::TempDir,
}

impl RunningLab {
    /// Makes a lab with `arguments` for `piton demo --prepare`.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let lab = Self { folder: tempfile::Builder::new().prefix("piton-lab-").tempdir().expect("a temp folder") };
        let dir = lab.dir().display().to_string();
        let made = Command::new(PITON)
            .args(["demo", "--prepare", "--dir", &dir])
            .args(arguments)
            .current_dir(lab.folder.path())
            .output()
            .expect("piton starts");
        assert!(made.status.success(), "the lab was not made: {}", said(&made));
        lab
    }

    /// The folder of the lab.
    pub(crate) fn dir(&self) -> PathBuf {
        self.folder.path().join("lab")
    }

    /// The journal of the lab.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir().join(".piton/piton.db")
    }

    /// A WFM runbook of the lab.
    pub(crate) fn runbook(&self, name: &str) -> PathBuf {
        self.dir().join("runbooks/wfm").join(name)
    }

    /// A `piton` command on the lab's store and site.
    pub(crate) fn piton(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PITON);
        command.arg("--store").arg(self.store()).arg("--site").arg(self.dir().join("site.yaml")).args(arguments);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// Runs a `piton` command to its end.
    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.piton(arguments).output().expect("piton starts")
    }

    /// What `piton demo --evidence` measures for a run.
    pub(crate) fn evidence(&self, run: &str) -> Json {
        let dir = self.dir().display().to_string();
        let output = Command::new(PITON).args(["demo", "--evidence", run, "--dir", &dir, "--json"]).output();
        let output = output.expect("piton starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|_| panic!("no evidence: {}", said(&output)))
    }
}

impl Drop for RunningLab {
    fn drop(&mut self) {
        let dir = self.dir().display().to_string();
        let _ = Command::new(PITON).args(["demo", "--stop", "--dir", &dir]).stdout(Stdio::null()).status();
    }
}

/// Everything that a command said, for a failing assertion.
pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The events of a run as `piton audit --json` tells them.
pub(crate) fn events(lab: &RunningLab, run: &str) -> Vec<Json> {
    let output = lab.output(&["audit", run, "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Asserts that every invariant holds and nothing was lost.
pub(crate) fn assert_nothing_lost(evidence: &Json) {
    for figure in ["missing", "partial", "overwritten"] {
        assert_eq!(evidence[figure], 0, "{figure}: {evidence}");
    }
    let invariants = evidence["invariants"].as_object().expect("invariants");
    assert_eq!(invariants.len(), 17, "{evidence}");
    for (id, holds) in invariants {
        assert_eq!(*holds, true, "{id} does not hold: {evidence}");
    }
}

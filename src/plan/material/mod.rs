//! What a runbook is made of besides its own text: read or compared when it is planned, so that a later change cannot
//! slip into a run.
//!
//! Owned here: which files the steps of a runbook name (`named`), reading them (`reader`), and the runbooks that it runs
//! with everything that those are made of (`children`). Refused: what cannot be read, and what lies outside of the walls
//! (`walls`). Called for `check` and for a plan;
//! `docs/design/signed-files.md` lists what belongs to a runbook.

mod children;
mod named;
mod paths;
mod reader;
mod walls;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{PlanStep, sha256_hex};
use crate::spec::actions::ActionSpec;
use crate::spec::problem::Problem;
use crate::spec::runbook::{Runbook, Step, Undo};

pub use named::program_path;
pub(super) use named::{Named, Use, named};
pub use paths::{Pattern, normalized};
pub(super) use reader::Reader;
pub use reader::is_migration;
pub use walls::{HELP as OUTSIDE_HELP, Unreachable, Walls};

/// Texts by the path that the runbook uses.
pub type Files = BTreeMap<String, String>;

/// SHA-256, in hex, by path from the folder of the runbook.
pub type Digests = BTreeMap<String, String>;

/// What is compared in the run with what it was when the plan was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// Programs with a relative path, and files under `uses`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: Digests,
    /// By the runbook that a step runs: all that it is made of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runbooks: BTreeMap<String, Digests>,
    /// Those of them some of whose files only their runs can name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub open: BTreeSet<String>,
}

impl Pins {
    /// Whether there is nothing to compare.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.runbooks.is_empty()
    }

    /// What of the runbook at `path` is not as it was, if anything; `now` is what it is made of, by paths from its own folder.
    pub fn changed(&self, path: &str, now: &Digests) -> Option<String> {
        let was = self.runbooks.get(&normalized(path))?;
        let now = from_folder_of(path, now);
        // What only its run could name was not known.
        let is_open = self.open.contains(&normalized(path));
        let other = now.iter().find_map(|(path, digest)| match was.get(path) {
            Some(known) if known == digest => None,
            Some(_) => Some(format!("`{path}` was changed")),
            None if is_open => None,
            None => Some(format!("`{path}` was added")),
        });
        let gone = || was.keys().find(|path| !now.contains_key(*path)).map(|path| format!("`{path}` was taken away"));
        other.or_else(|| gone().filter(|_| !is_open))
    }
}

/// Paths from the folder of the runbook at `path` as paths from the folder that this path starts at.
pub fn from_folder_of(path: &str, parts: &Digests) -> Digests {
    parts.iter().map(|(part, digest)| (beside(path, part), digest.clone())).collect()
}

/// A path from the folder of the file at `path`, as one from the folder that `path` starts at.
pub fn beside(path: &str, other: &str) -> String {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    normalized(&folder.join(other).to_string_lossy())
}

/// What a runbook is made of besides its own text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Material {
    /// Texts of files.
    pub files: Files,
    /// Digests of all else.
    pub pins: Pins,
    /// Programs that are not there, so that nothing can be said about them.
    pub absent: BTreeSet<String>,
}

/// Every part of a runbook with its digest, its own text under its own name.
pub fn parts(name: &str, text: &str, files: &Files, pins: &Pins) -> Digests {
    let mut all: Digests = pins.runbooks.values().flatten().chain(&pins.files).map(own).collect();
    all.extend(files.iter().map(|(path, text)| (normalized(path), sha256_hex(text.as_bytes()))));
    let file = Path::new(name).file_name().map_or_else(|| name.to_owned(), |name| name.to_string_lossy().into_owned());
    all.insert(file, sha256_hex(text.as_bytes()));
    all
}

fn own((path, digest): (&String, &String)) -> (String, String) {
    (path.clone(), digest.clone())
}

/// What all steps of a runbook name, as far as `values` (params, site) give the names values.
pub(super) fn of_runbook(
    (base, walls): (&Path, &Walls),
    runbook: &Runbook,
    values: &Json,
    problems: &mut Vec<Problem>,
) -> Material {
    let mut reader = Reader::new(base, walls, values);
    for step in runbook.steps.iter().chain(&runbook.finally) {
        reader.step(step, values, problems);
    }
    reader.found
}

/// What the steps of a plan name beside `found`, now that all values are known that can be known before a run.
pub(super) fn of_steps(
    (base, walls): (&Path, &Walls),
    steps: &[PlanStep],
    mut values: Json,
    found: Material,
    problems: &mut Vec<Problem>,
) -> Material {
    let mut reader = Reader::new(base, walls, &values);
    reader.found = found;
    for step in steps {
        if let Some(item) = &step.item {
            values["item"] = item.as_ref().clone();
        }
        for action in step.actions() {
            reader.action(action, &values, problems);
        }
    }
    reader.found
}

/// The actions of a step: what it does, its postcondition, its undo.
pub(super) fn actions(step: &Step) -> impl Iterator<Item = &ActionSpec> {
    let undo = match &step.fields.undo {
        Some(Undo::Action(action)) => Some(action),
        Some(Undo::Auto(_)) | None => None,
    };
    std::iter::once(&step.action).chain(step.fields.verify.as_ref().map(|verify| &verify.0)).chain(undo)
}

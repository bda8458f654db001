//! Reads what the steps of a runbook name, each file once.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::children::Child;
use super::{Material, Named, Pattern, Use, actions, named};
use crate::plan::sha256_hex;
use crate::spec::actions::ActionSpec;
use crate::spec::problem::{Problem, Span};
use crate::spec::runbook::Step;

/// Most files that a pattern of `uses` looks at.
const LOOKED_AT_MAX: usize = 20_000;

/// How the name of a migration ends.
const MIGRATION: &str = ".sql";

/// The way through runbooks that run others.
#[derive(Debug, Clone, Default)]
pub struct Walk {
    /// Runbooks that are being read.
    pub open: Vec<PathBuf>,
    /// How many were read so far.
    pub read: usize,
}

/// Reads files below the folder of a runbook.
pub struct Reader<'a> {
    base: &'a Path,
    /// What runbooks that are run see as `site`.
    site: Json,
    pub(super) walk: Walk,
    /// Patterns that were looked at.
    seen: BTreeSet<String>,
    /// Whether something is named that only a run can name.
    pub is_open: bool,
    /// What was found.
    pub found: Material,
}

impl<'a> Reader<'a> {
    /// Starts at the folder of a runbook; `values` are those that names may hold.
    pub fn new(base: &'a Path, values: &Json) -> Self {
        let site = values.get("site").cloned().unwrap_or_default();
        Self { base, site, walk: Walk::default(), seen: BTreeSet::new(), is_open: false, found: Material::default() }
    }

    /// Takes in what a step names.
    pub fn step(&mut self, step: &Step, values: &Json, problems: &mut Vec<Problem>) {
        for action in actions(step) {
            self.action(action, values, problems);
        }
        for pattern in &step.fields.uses {
            if self.seen.insert(pattern.value.clone())
                && let Err(problem) = self.pattern(&pattern.value)
            {
                let (message, label) = problem;
                let problem = Problem::new("plan::no_file", message, pattern.span).label(label);
                problems.push(problem.help("paths start at the folder of the runbook"));
            }
        }
    }

    /// Takes in what an action names.
    pub fn action(&mut self, action: &ActionSpec, values: &Json, problems: &mut Vec<Problem>) {
        for file in named(action, values) {
            if !file.is_known {
                self.is_open = true;
            } else if let Err(problem) = self.take(&file) {
                problems.push(problem);
            }
        }
    }

    fn take(&mut self, file: &Named) -> Result<(), Problem> {
        let cannot = |what: &str, error: &io::Error| {
            no_file(format!("{what} `{}` cannot be read: {}", file.path, plain(error)), file.span)
        };
        match &file.used {
            Use::Text if self.found.files.contains_key(&file.path) => {}
            Use::Text => {
                let text = read_text(&self.base.join(&file.path)).map_err(|error| cannot("file", &error))?;
                self.found.files.insert(file.path.clone(), text);
            }
            Use::Folder => {
                for (path, text) in
                    migrations(self.base, &file.path).map_err(|error| cannot("migrations in", &error))?
                {
                    self.found.files.entry(path).or_insert(text);
                }
            }
            Use::Program if self.found.pins.files.contains_key(&file.path) => {}
            Use::Program => match read_bytes(&self.base.join(&file.path)) {
                Ok(bytes) => {
                    self.found.pins.files.insert(file.path.clone(), sha256_hex(&bytes));
                }
                // An earlier step may make it.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.found.absent.insert(file.path.clone());
                }
                Err(error) => return Err(cannot("program", &error)),
            },
            Use::Runbook(params) => {
                let child = Child { base: self.base, path: &file.path, params, site: &self.site };
                let found = child.read(&mut self.walk).map_err(|why| {
                    let problem = no_file(format!("runbook `{}` cannot be read: {why}", file.path), file.span);
                    problem.help(format!("paths start at the folder of the runbook; see `piton check {}`", file.path))
                })?;
                let path = super::normalized(&file.path);
                if found.is_open {
                    self.found.pins.open.insert(path.clone());
                }
                self.found.pins.runbooks.entry(path).or_default().extend(found.parts);
                self.found.absent.extend(found.absent);
            }
        }
        Ok(())
    }

    /// Takes in every file that a pattern fits; what is wrong, and a label for it.
    fn pattern(&mut self, text: &str) -> Result<(), (String, &'static str)> {
        let pattern = Pattern::new(text).map_err(|why| (format!("`{text}` is no pattern: {why}"), "here"))?;
        let files = matching(self.base, &pattern)
            .map_err(|error| (format!("`{text}` cannot be looked up: {}", plain(&error)), "looked up here"))?;
        if files.is_empty() {
            return Err((format!("no file fits `{text}`"), "named here"));
        }
        for path in files {
            let bytes = read_bytes(&self.base.join(&path))
                .map_err(|error| (format!("file `{path}` cannot be read: {}", plain(&error)), "named here"))?;
            self.found.pins.files.insert(path, sha256_hex(&bytes));
        }
        Ok(())
    }
}

fn no_file(message: String, span: Span) -> Problem {
    Problem::new("plan::no_file", message, span).label("named here").help("paths start at the folder of the runbook")
}

/// The bytes of a file. What is no file cannot be read: a pipe would be waited for.
fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(ErrorKind::IsADirectory, "it is no file"));
    }
    std::fs::read(path)
}

fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// The texts of all migrations in a folder, by the path from the folder of the runbook: those that `db.migrate` would look at.
fn migrations(base: &Path, folder: &str) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(base.join(folder))? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        if is_migration(&name) && std::fs::metadata(&path)?.is_file() {
            let text = read_text(&path)
                .map_err(|error| io::Error::new(error.kind(), format!("`{name}`: {}", plain(&error))))?;
            found.push((format!("{}/{name}", folder.trim_end_matches('/')), text));
        }
    }
    Ok(found)
}

/// `VERSION_name.sql`.
pub fn is_migration(name: &str) -> bool {
    name.split_once('_').is_some_and(|(_, rest)| rest.ends_with(MIGRATION))
}

/// The files that fit, as paths from `base`, in order. Folders that are links are not entered, hidden ones only if they are named.
fn matching(base: &Path, pattern: &Pattern) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut folders = vec![(pattern.folder.clone(), 0)];
    let mut looked_at = 0;
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(base.join(&folder))? {
            let entry = entry?;
            looked_at += 1;
            if looked_at > LOOKED_AT_MAX {
                let text = format!("more than {LOOKED_AT_MAX} files would have to be looked at");
                return Err(io::Error::other(text));
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path =
                if folder.is_empty() { name.clone() } else { format!("{}/{name}", folder.trim_end_matches('/')) };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if pattern.depth.is_none_or(|most| depth < most) && !name.starts_with('.') {
                    folders.push((path, depth + 1));
                }
            } else if pattern.fits(&path) && std::fs::metadata(base.join(&path))?.is_file() {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

/// What the system says, for people.
pub(super) fn plain(error: &io::Error) -> String {
    if error.kind() == ErrorKind::InvalidData {
        return "it is not UTF-8 text".to_owned();
    }
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

//! Reads what the steps of a runbook name, each file once.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::children::Child;
use super::{Material, Named, OUTSIDE_HELP, Pattern, Unreachable, Use, Walls, actions, named};
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
    /// The folders that it stays in.
    walls: &'a Walls,
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
    pub fn new(base: &'a Path, walls: &'a Walls, values: &Json) -> Self {
        let site = values.get("site").cloned().unwrap_or_default();
        Self {
            base,
            walls,
            site,
            walk: Walk::default(),
            seen: BTreeSet::new(),
            is_open: false,
            found: Material::default(),
        }
    }

    /// Takes in what a step names.
    pub fn step(&mut self, step: &Step, values: &Json, problems: &mut Vec<Problem>) {
        for action in actions(step) {
            self.action(action, values, problems);
        }
        for pattern in &step.fields.uses {
            if self.seen.insert(pattern.value.clone())
                && let Err(problem) = self.pattern(&pattern.value, pattern.span)
            {
                problems.push(problem);
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
        let path = file.path.as_str();
        let cannot = |what: &'static str| move |error: Unreachable| unreadable(what, path, file.span, &error);
        match &file.used {
            Use::Text if self.found.files.contains_key(path) => {}
            Use::Text => {
                let text = self.text(path).map_err(cannot("file"))?;
                self.found.files.insert(file.path.clone(), text);
            }
            Use::Folder => {
                for (path, text) in self.migrations(path).map_err(cannot("migrations in"))? {
                    self.found.files.entry(path).or_insert(text);
                }
            }
            Use::Program if self.found.pins.files.contains_key(path) => {}
            Use::Program => match self.bytes(path) {
                Ok(bytes) => {
                    self.found.pins.files.insert(file.path.clone(), sha256_hex(&bytes));
                }
                // An earlier step may make it.
                Err(Unreachable::Io(error)) if error.kind() == ErrorKind::NotFound => {
                    self.found.absent.insert(file.path.clone());
                }
                Err(error) => return Err(cannot("program")(error)),
            },
            Use::Runbook(params) => {
                self.walls.admit(&self.base.join(path)).map_err(cannot("runbook"))?;
                let child = Child { base: self.base, path, params, site: &self.site, walls: self.walls };
                let found = child.read(&mut self.walk).map_err(|why| {
                    let problem = no_file(format!("runbook `{path}` cannot be read: {why}"), file.span);
                    problem.help(format!("paths start at the folder of the runbook; see `piton check {path}`"))
                })?;
                let path = super::normalized(path);
                if found.is_open {
                    self.found.pins.open.insert(path.clone());
                }
                self.found.pins.runbooks.entry(path).or_default().extend(found.parts);
                self.found.absent.extend(found.absent);
            }
        }
        Ok(())
    }

    /// Takes in every file that a pattern fits.
    fn pattern(&mut self, text: &str, span: Span) -> Result<(), Problem> {
        let pattern = Pattern::new(text).map_err(|why| {
            let problem = no_file(format!("`{text}` is no pattern: {why}"), span).label("here");
            problem.help("write a path, with `*` for any name, or `**` for any folders")
        })?;
        let files = self.matching(&pattern).map_err(|error| unreadable("files of", text, span, &error))?;
        if files.is_empty() {
            return Err(no_file(format!("no file fits `{text}`"), span));
        }
        for path in files {
            let bytes = self.bytes(&path).map_err(|error| unreadable("file", &path, span, &error))?;
            self.found.pins.files.insert(path, sha256_hex(&bytes));
        }
        Ok(())
    }

    /// The bytes of a file. What is no file cannot be read: a pipe would be waited for.
    fn bytes(&self, path: &str) -> Result<Vec<u8>, Unreachable> {
        let place = self.base.join(path);
        self.walls.admit(&place)?;
        if !std::fs::metadata(&place)?.is_file() {
            return Err(io::Error::new(ErrorKind::IsADirectory, "it is no file").into());
        }
        Ok(std::fs::read(&place)?)
    }

    fn text(&self, path: &str) -> Result<String, Unreachable> {
        let bytes = self.bytes(path)?;
        Ok(String::from_utf8(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?)
    }

    /// The texts of all migrations in a folder, by the path from the folder of the runbook: those that `db.migrate` would
    /// look at.
    fn migrations(&self, folder: &str) -> Result<Vec<(String, String)>, Unreachable> {
        let place = self.base.join(folder);
        self.walls.admit(&place)?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(place)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if is_migration(name) && std::fs::metadata(&path)?.is_file() {
                let path = format!("{}/{name}", folder.trim_end_matches('/'));
                let text = self.text(&path).map_err(|error| match error {
                    Unreachable::Io(error) => {
                        io::Error::new(error.kind(), format!("`{name}`: {}", plain(&error))).into()
                    }
                    other => other,
                })?;
                found.push((path, text));
            }
        }
        Ok(found)
    }

    /// The files that fit, as paths from the folder of the runbook, in order. Folders that are links are not entered, nor
    /// hidden ones.
    fn matching(&self, pattern: &Pattern) -> Result<BTreeSet<String>, Unreachable> {
        let mut found = BTreeSet::new();
        let mut folders = vec![(pattern.folder.clone(), 0)];
        let mut looked_at = 0;
        while let Some((folder, depth)) = folders.pop() {
            let place = self.base.join(&folder);
            self.walls.admit(&place)?;
            for entry in std::fs::read_dir(place)? {
                let entry = entry?;
                looked_at += 1;
                if looked_at > LOOKED_AT_MAX {
                    let text = format!("more than {LOOKED_AT_MAX} files would have to be looked at");
                    return Err(io::Error::other(text).into());
                }
                let Ok(name) = entry.file_name().into_string() else { continue };
                let path =
                    if folder.is_empty() { name.clone() } else { format!("{}/{name}", folder.trim_end_matches('/')) };
                if entry.file_type()?.is_dir() {
                    if pattern.depth.is_none_or(|most| depth < most) && !name.starts_with('.') {
                        folders.push((path, depth + 1));
                    }
                } else if pattern.fits(&path) && std::fs::metadata(self.base.join(&path))?.is_file() {
                    found.insert(path);
                }
            }
        }
        Ok(found)
    }
}

fn no_file(message: String, span: Span) -> Problem {
    Problem::new("plan::no_file", message, span).label("named here").help("paths start at the folder of the runbook")
}

/// What is wrong with a file that cannot be read.
fn unreadable(what: &str, path: &str, span: Span, error: &Unreachable) -> Problem {
    match error {
        Unreachable::Outside | Unreachable::Link => {
            Problem::new("plan::outside", format!("`{path}` {error}"), span).label("outside").help(OUTSIDE_HELP)
        }
        Unreachable::Io(error) => no_file(format!("{what} `{path}` cannot be read: {}", plain(error)), span),
    }
}

/// `VERSION_name.sql`.
pub fn is_migration(name: &str) -> bool {
    name.split_once('_').is_some_and(|(_, rest)| rest.ends_with(MIGRATION))
}

/// What the system says, for people.
pub(super) fn plain(error: &io::Error) -> String {
    if error.kind() == ErrorKind::InvalidData {
        return "it is not UTF-8 text".to_owned();
    }
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

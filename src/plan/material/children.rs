//! What a runbook that a step runs is made of: its own text, what its steps name, and the runbooks that it runs itself.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::named::Params;
use super::reader::Walk;
use super::{Digests, Material, Reader, Walls, from_folder_of, parts};
use crate::config::folder_of;
use crate::plan::sources::read_source;
use crate::spec::runbook::{self, Loaded};

/// Most runbooks that are read for one.
const READ_MAX: usize = 500;

/// A runbook that a step of another one runs.
pub struct Child<'a> {
    /// The folder of the runbook that runs it.
    pub base: &'a Path,
    /// Its path from there.
    pub path: &'a str,
    /// The parameters that it gets.
    pub params: &'a Params,
    /// What it sees as `site`.
    pub site: &'a Json,
    /// The folders that the runbook that runs it stays in.
    pub walls: &'a Walls,
}

/// What a runbook is made of, by paths from the folder of the one that runs it.
#[derive(Default)]
pub struct Found {
    pub parts: Digests,
    pub absent: BTreeSet<String>,
    /// Whether only its run can name some of them.
    pub is_open: bool,
}

impl Child<'_> {
    /// Reads it; nothing new about one that is being read already.
    ///
    /// # Errors
    /// What cannot be read, in words.
    pub fn read(&self, walk: &mut Walk) -> Result<Found, String> {
        let place = self.base.join(self.path);
        let real = place.canonicalize().map_err(|error| super::reader::plain(&error))?;
        if walk.open.contains(&real) {
            return Ok(Found::default());
        }
        walk.read += 1;
        if walk.read > READ_MAX {
            return Err(format!("more than {READ_MAX} runbooks would have to be read"));
        }
        let source = read_source(&place).map_err(|error| error.to_string())?;
        let Loaded { runbook, problems, .. } = runbook::read(&source).map_err(|wrong| wrong_in(wrong.list.len()))?;
        let Some(runbook) = runbook.filter(|_| problems.is_empty()) else { return Err(wrong_in(problems.len())) };
        let mut params = self.params.known.clone();
        for (key, param) in &runbook.params.0 {
            if let Some(default) = param.default.as_ref().filter(|_| !self.params.unknown.contains(&key.text)) {
                params.entry(key.text.clone()).or_insert_with(|| default.value.clone());
            }
        }
        let values = json!({ "params": params, "site": self.site });
        let folder = folder_of(&place).to_path_buf();
        let walls = self.walls.of_child(&folder);
        let mut reader = Reader::new(&folder, &walls, &values);
        reader.walk = walk.clone();
        reader.walk.open.push(real);
        let mut problems = Vec::new();
        for step in runbook.steps.iter().chain(&runbook.finally) {
            reader.step(step, &values, &mut problems);
        }
        if let Some(first) = problems.into_iter().next() {
            return Err(first.message);
        }
        walk.read = reader.walk.read;
        let is_open = reader.is_open || !reader.found.pins.open.is_empty();
        let Material { files, pins, absent } = reader.found;
        let parts = parts(&source.name, &source.text, &files, &pins);
        let absent = absent.into_iter().map(|path| (path, String::new())).collect();
        Ok(Found {
            parts: from_folder_of(self.path, &parts),
            absent: from_folder_of(self.path, &absent).into_keys().collect(),
            is_open,
        })
    }
}

fn wrong_in(count: usize) -> String {
    let noun = if count == 1 { "problem" } else { "problems" };
    format!("it has {count} {noun}")
}

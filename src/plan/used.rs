//! What the steps of a plan use of its files, for comparing two versions of a runbook and for looking again in the run.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::material::{Pattern, Use, named, normalized};
use super::{Plan, PlanStep, sha256_hex};
use crate::spec::actions::ActionSpec;

/// How closely the files of two plans can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Only texts: one of the plans is of an earlier version, which kept nothing else.
    Texts,
    /// Everything.
    All,
}

impl Depth {
    /// How closely these two can be compared.
    pub fn of(one: &Plan, other: &Plan) -> Self {
        if one.pins.is_some() && other.pins.is_some() { Self::All } else { Self::Texts }
    }
}

impl Plan {
    /// Digests of the files that `actions` of a step use, by what they are used as and by name.
    pub(super) fn used<'a>(
        &self,
        step: &PlanStep,
        actions: impl Iterator<Item = &'a ActionSpec>,
        depth: Depth,
    ) -> BTreeMap<String, Json> {
        let values = json!({ "params": self.params, "site": self.site.site.scope(), "item": step.item });
        let mut found = BTreeMap::new();
        let of = |text: &String| sha256_hex(text.as_bytes());
        for file in actions.flat_map(|action| named(action, &values)).filter(|file| file.is_known) {
            match &file.used {
                Use::Text if depth == Depth::All || !file.is_template => {
                    found.insert(file.path.clone(), json!(self.files.get(&file.path).map(of)));
                }
                Use::Folder if depth == Depth::All => {
                    found.extend(self.in_folder(&file.path).map(|(path, text)| (path.clone(), of(text).into())));
                }
                Use::Program if depth == Depth::All => {
                    let digest = self.pins.as_ref().and_then(|pins| pins.files.get(&file.path));
                    found.insert(format!("run {}", file.path), json!(digest));
                }
                Use::Runbook(_) if depth == Depth::All => {
                    let parts = self.pins.as_ref().and_then(|pins| pins.runbooks.get(&normalized(&file.path)));
                    found.insert(format!("run {}", file.path), json!(parts));
                }
                Use::Text | Use::Folder | Use::Program | Use::Runbook(_) => {}
            }
        }
        found
    }

    /// The texts of the files in a folder.
    fn in_folder(&self, folder: &str) -> impl Iterator<Item = (&String, &String)> {
        in_folder(&self.files, folder)
    }

    /// Digests of the files that a step names under `uses`, as they were when the plan was made.
    pub fn used_by_patterns(&self, step: &PlanStep) -> BTreeMap<String, Json> {
        let patterns: Vec<Pattern> = step.uses.iter().filter_map(|text| Pattern::new(text).ok()).collect();
        let pins = self.pins.iter().flat_map(|pins| &pins.files);
        let fits = pins.filter(|(path, _)| patterns.iter().any(|pattern| pattern.fits(path)));
        fits.map(|(path, digest)| (path.clone(), digest.as_str().into())).collect()
    }
}

/// The texts of the files in a folder, and in none below it.
pub fn in_folder<'a>(
    files: &'a BTreeMap<String, String>,
    folder: &str,
) -> impl Iterator<Item = (&'a String, &'a String)> {
    let start = format!("{}/", folder.trim_end_matches('/'));
    let is_in = move |path: &str| path.strip_prefix(&start).is_some_and(|name| !name.contains('/'));
    files.iter().filter(move |(path, _)| is_in(path))
}

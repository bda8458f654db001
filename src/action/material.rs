//! Files of the runbook that an action uses: those of the plan, and what must still be as it was when that was made.
//!
//! Read now is only what nobody could name before the run. Called by the actions that read files or start programs, and
//! by the driver before each attempt.

use std::borrow::Cow;
use std::io;

use super::{Context, Failure};
use crate::plan::{
    OUTSIDE_HELP, Plan, PlanStep, Unreachable, in_folder, is_migration, normalized, program_path, sha256_hex,
};
use crate::transfer::Migrations;

impl Context {
    /// Whether the site runs only what was signed, so that nothing may be used that no list names.
    fn only_signed(&self) -> bool {
        self.pins.is_some() && self.site.site.runbooks.as_ref().is_some_and(|runbooks| runbooks.signed.is_some())
    }

    /// Refuses a path that leads out of where the runbook may read its files from. One that is not there says so itself.
    fn inside(&self, path: &str) -> Result<(), Failure> {
        match self.walls.as_ref().map(|walls| walls.admit(&self.base.join(path))) {
            None | Some(Ok(()) | Err(Unreachable::Io(_))) => Ok(()),
            Some(Err(why @ (Unreachable::Outside | Unreachable::Link))) => {
                Err(Failure::permanent(format!("`{path}` {why}; {OUTSIDE_HELP}")))
            }
        }
    }

    /// Refuses a file that only the run could name, and that lies outside or that no list of signed files names.
    fn covered(&self, path: &str) -> Result<(), Failure> {
        self.inside(path)?;
        let path = normalized(path);
        match self.pins.as_ref().and_then(|pins| pins.files.get(&path)) {
            Some(digest) => self.unchanged(&path, digest),
            None if self.only_signed() => Err(Failure::permanent(format!(
                "`{path}` is covered by no signature, and this site runs only what was signed; list it under `uses` of the step"
            ))),
            None => Ok(()),
        }
    }

    /// The text of a file of the runbook.
    pub(super) fn text(&self, path: &str) -> Result<Cow<'_, str>, Failure> {
        if let Some(text) = self.files.get(path) {
            return Ok(Cow::Borrowed(text));
        }
        self.covered(path)?;
        std::fs::read_to_string(self.base.join(path))
            .map(Cow::Owned)
            .map_err(|error| Failure::permanent(format!("`{path}` cannot be read: {error}")))
    }

    /// The migrations of a folder of the runbook.
    pub(super) fn migrations(&self, folder: &str) -> Result<Migrations, Failure> {
        let named =
            |(path, text): (&String, &String)| (path.rsplit('/').next().unwrap_or_default().to_owned(), text.clone());
        let kept: Vec<_> = in_folder(&self.files, folder).map(named).collect();
        if !kept.is_empty() {
            return Ok(Migrations::Texts(folder.to_owned(), kept));
        }
        self.inside(folder)?;
        let place = self.base.join(folder);
        if self.only_signed() {
            let fail = |error: io::Error| Failure::permanent(format!("`{folder}` cannot be read: {error}"));
            for entry in std::fs::read_dir(&place).map_err(fail)? {
                let name = entry.map_err(fail)?.file_name();
                let name = name.to_string_lossy();
                if is_migration(&name) {
                    self.covered(&format!("{}/{name}", folder.trim_end_matches('/')))?;
                }
            }
        }
        Ok(Migrations::Folder(place))
    }

    /// Refuses a program of the runbook that is not what it was when the plan was made.
    pub(super) fn unchanged_program(&self, cwd: Option<&str>, program: &str) -> Result<(), Failure> {
        program_path(cwd.unwrap_or_default(), program).map_or(Ok(()), |path| self.covered(&path))
    }

    /// Refuses a file that is not what it was when the plan was made.
    fn unchanged(&self, path: &str, digest: &str) -> Result<(), Failure> {
        let why = match std::fs::read(self.base.join(path)) {
            Ok(bytes) if sha256_hex(&bytes) == digest => return Ok(()),
            Ok(_) => "was changed since this run was planned".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => "is gone since this run was planned".to_owned(),
            Err(error) => format!("cannot be compared with what it was: {error}"),
        };
        let help = "put it back, or go on with what it is now: `piton resume RUN --runbook FILE --reason TEXT`; \
                    what a step of the run makes itself is named by an absolute path";
        Err(Failure::permanent(format!("`{path}` {why}; {help}")))
    }
}

/// Refuses to start a step one of whose further files is not what it was when the plan was made.
///
/// # Errors
/// Naming the first one.
pub fn unchanged(plan: &Plan, step: &PlanStep, cx: &Context) -> Result<(), Failure> {
    if step.uses.is_empty() {
        return Ok(());
    }
    let used = plan.used_by_patterns(step);
    used.iter().try_for_each(|(path, digest)| cx.unchanged(path, digest.as_str().unwrap_or_default()))
}

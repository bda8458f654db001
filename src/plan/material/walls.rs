//! Where the files of a runbook may lie: in its project, and where somebody other than its author allows it.
//!
//! A path is judged twice: by its text, so that nothing outside is even looked for, and by where it leads through links.

use std::io;
use std::path::{Path, PathBuf};

use super::normalized;

/// The folders that the files of a runbook may lie in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walls {
    /// As they are named, and where they lead.
    roots: Vec<(PathBuf, PathBuf)>,
}

/// Why a file is out of reach.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// Its path leads out.
    #[error("leads out of the project")]
    Outside,
    /// A link leads out.
    #[error("is a link that leads out of the project")]
    Link,
    /// It cannot be looked at.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What to do about a file that lies outside.
pub const HELP: &str = "keep what a runbook uses in its project, the nearest folder above it that has `.piton` or `.git`; \
    or have a folder allowed: `runbooks: { reads: [FOLDER] }` in the site, or `--allow-reads FOLDER`";

impl Walls {
    /// Those of a runbook in the folder `base`: its project, and the folders that are allowed.
    pub fn of(base: &Path, allowed: &[PathBuf]) -> Self {
        let project = crate::config::project_of(base);
        Self::around(std::iter::once(project).chain(allowed.iter().cloned()))
    }

    /// Those of a runbook in the folder `base` that is run by one that stays in these.
    #[must_use]
    pub fn of_child(&self, base: &Path) -> Self {
        let allowed: Vec<PathBuf> = self.folders().cloned().collect();
        Self::of(base, &allowed)
    }

    /// Those around these folders.
    pub fn around(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        let root = |folder: PathBuf| {
            let named = absolute(&folder);
            let real = named.canonicalize().unwrap_or_else(|_| named.clone());
            (named, real)
        };
        Self { roots: folders.into_iter().map(root).collect() }
    }

    /// The folders.
    pub fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        self.roots.iter().map(|(named, _)| named)
    }

    /// Refuses a path that leads out, by its text or through a link.
    ///
    /// # Errors
    /// Why it is out of reach; also when it is not there.
    pub fn admit(&self, path: &Path) -> Result<(), Unreachable> {
        let named = absolute(path);
        // A runbook that was reached through a link names its files from there.
        let within =
            |path: &Path| self.roots.iter().any(|(named, real)| path.starts_with(named) || path.starts_with(real));
        if !within(&named) {
            return Err(Unreachable::Outside);
        }
        // Not the tidy path: behind a link, `..` leads elsewhere.
        let real = path.canonicalize()?;
        if self.roots.iter().any(|(_, root)| real.starts_with(root)) { Ok(()) } else { Err(Unreachable::Link) }
    }
}

/// The path from the root, without `.` and `..`.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    PathBuf::from(normalized(&path.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_leads_out_is_out_of_reach() {
        let outer = tempfile::tempdir().expect("a folder");
        let project = outer.path().join("project");
        let base = project.join("runbooks");
        std::fs::create_dir_all(&base).expect("made");
        std::fs::create_dir(project.join(".git")).expect("made");
        for file in ["secret", "project/schema.sql", "project/runbooks/a.sql"] {
            std::fs::write(outer.path().join(file), "").expect("written");
        }
        symlink("../../secret", base.join("link.sql")).expect("linked");
        symlink("../schema.sql", base.join("inner.sql")).expect("linked");
        symlink("../..", base.join("up")).expect("linked");
        let walls = Walls::of(&base, &[]);
        let admits = |path: &str| walls.admit(&base.join(path)).map_err(|error| error.to_string());
        for inside in ["a.sql", "./a.sql", "../schema.sql", "../runbooks/../schema.sql", "inner.sql"] {
            assert_eq!(admits(inside), Ok(()), "{inside}");
        }
        let absolute = outer.path().join("secret").display().to_string();
        for outside in ["../../secret", "../../nothing", "../../project-2/a.sql", absolute.as_str(), "/"] {
            assert_eq!(admits(outside), Err("leads out of the project".to_owned()), "{outside}");
        }
        for link in ["link.sql", "up/secret", "up/project/../secret"] {
            assert_eq!(admits(link), Err("is a link that leads out of the project".to_owned()), "{link}");
        }
        assert!(admits("gone.sql").is_err_and(|why| why.to_lowercase().contains("no such file")));
        let wider = Walls::of(&base, &[outer.path().to_path_buf()]);
        wider.admit(&base.join("../../secret")).expect("is allowed");
        wider.admit(&base.join("link.sql")).expect("is allowed");
    }

    #[test]
    fn a_project_that_is_reached_through_a_link_is_the_same_project() {
        let outer = tempfile::tempdir().expect("a folder");
        let project = outer.path().join("project");
        std::fs::create_dir_all(project.join("sub")).expect("made");
        std::fs::create_dir(project.join(".piton")).expect("made");
        std::fs::write(project.join("sub/a.sql"), "").expect("written");
        symlink("project", outer.path().join("current")).expect("linked");
        let base = outer.path().join("current/sub");
        Walls::of(&base, &[]).admit(&base.join("a.sql")).expect("inside");
        Walls::of(&project, &[]).admit(&base.join("a.sql")).expect_err("by its name it is elsewhere");
    }
}

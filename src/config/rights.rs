//! Who besides the user of this process may do something with a file.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Who may do what with a file or folder, as its mode and its owner say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Its owner, if that is neither this user nor root.
    pub stranger: Option<String>,
    /// Its permissions, without its kind.
    pub mode: u32,
    /// Whether it is a folder in which nobody can take away what is not theirs.
    pub is_sticky: bool,
}

impl Rights {
    /// Looks at a file, through links.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        let (owner, own) = (metadata.uid(), nix::unistd::geteuid().as_raw());
        let name = || {
            let user = nix::unistd::User::from_uid(owner.into()).ok().flatten();
            user.map_or_else(|| format!("user {owner}"), |user| user.name)
        };
        let stranger = (owner != own && owner != 0).then(name);
        let mode = metadata.permissions().mode() & 0o7777;
        Ok(Self { stranger, mode, is_sticky: metadata.is_dir() && mode & 0o1000 != 0 })
    }

    /// Whether others than the owner can change it, by its mode.
    pub fn others_write(&self) -> bool {
        self.mode & 0o022 != 0 && !self.is_sticky
    }

    /// Whether others than the owner can read it, by its mode.
    pub fn others_read(&self) -> bool {
        self.mode & 0o044 != 0
    }

    /// What lets somebody else change it, in words; nothing if nothing does.
    pub fn why_writable(&self) -> Option<String> {
        if let Some(owner) = &self.stranger {
            return Some(format!("belongs to {owner}"));
        }
        self.others_write().then(|| format!("can be changed by others (mode {:04o})", self.mode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_says_who_may() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "").expect("written");
        let with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("is ours");
            Rights::of(&path).expect("is there")
        };
        assert_eq!(with(0o600).why_writable(), None);
        assert!(!with(0o600).others_read() && with(0o640).others_read() && !with(0o640).others_write());
        assert_eq!(with(0o620).why_writable().as_deref(), Some("can be changed by others (mode 0620)"));
        assert!(with(0o602).others_write());
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o1777)).expect("is ours");
        assert_eq!(Rights::of(folder.path()).expect("is there").why_writable(), None, "as /tmp is");
    }
}

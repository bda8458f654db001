//! Who besides the user of this process may do something with a file.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User};

/// Makes a folder of Piton's own, and what is missing above it, for its user only.
///
/// # Errors
/// When it cannot be made.
pub fn own_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Who may do what with a file or folder, as its mode and its owner say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Its owner, if that is neither this user nor root.
    pub stranger: Option<String>,
    /// Its permissions, without its kind.
    pub mode: u32,
    /// Whether nobody can take away from this folder what is not theirs.
    pub is_sticky: bool,
    /// Whether its group may have other members than its owner.
    pub is_shared: bool,
}

impl Rights {
    /// Looks at a file, through links.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        let (owner, own) = (metadata.uid(), nix::unistd::geteuid().as_raw());
        let user = || User::from_uid(Uid::from_raw(owner)).ok().flatten();
        let name = || user().map_or_else(|| format!("user {owner}"), |user| user.name);
        let stranger = (owner != own && owner != 0).then(name);
        let mode = metadata.permissions().mode() & 0o7777;
        let is_shared = mode & 0o070 != 0 && {
            let group = Group::from_gid(Gid::from_raw(metadata.gid())).ok().flatten();
            group.is_none_or(|group| !is_private(&group.name, &group.mem, user().as_ref().map(|user| &*user.name)))
        };
        Ok(Self { stranger, mode, is_sticky: metadata.is_dir() && mode & 0o1000 != 0, is_shared })
    }

    fn others(&self, bit: u32) -> bool {
        self.mode & bit != 0 || (self.is_shared && self.mode & (bit << 3) != 0)
    }

    /// Whether others than the owner can change it, by its mode.
    pub fn others_write(&self) -> bool {
        self.others(0o002) && !self.is_sticky
    }

    /// Whether others than the owner can read it, by its mode.
    pub fn others_read(&self) -> bool {
        self.others(0o004)
    }

    /// Whether others than the owner can get at what is in this folder, by its mode.
    pub fn others_enter(&self) -> bool {
        self.others(0o001)
    }

    /// What lets somebody else change it, in words; nothing if nothing does.
    pub fn why_writable(&self) -> Option<String> {
        if let Some(owner) = &self.stranger {
            return Some(format!("belongs to {owner}"));
        }
        self.others_write().then(|| format!("can be changed by others (mode {:04o})", self.mode))
    }
}

/// Whether a group is the owner's alone, as many systems make one for each user.
fn is_private(group: &str, members: &[String], owner: Option<&str>) -> bool {
    owner.is_some_and(|owner| owner == group && members.iter().all(|member| member == owner))
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
        assert!(!with(0o600).others_read() && with(0o604).others_read() && !with(0o604).others_write());
        assert_eq!(with(0o602).why_writable().as_deref(), Some("can be changed by others (mode 0602)"));
        let of_group = |is_shared| Rights { is_shared, ..with(0o660) };
        assert!(of_group(true).others_write() && of_group(true).others_read() && !of_group(false).others_write());
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o1777)).expect("is ours");
        let shared = Rights::of(folder.path()).expect("is there");
        assert_eq!(shared.why_writable(), None, "as /tmp is");
        assert!(shared.others_enter());
    }

    #[test]
    fn a_group_of_one_is_nobody_else() {
        let only = |members: &[&str]| members.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(is_private("ann", &only(&[]), Some("ann")) && is_private("ann", &only(&["ann"]), Some("ann")));
        assert!(!is_private("ann", &only(&["ann", "bob"]), Some("ann")));
        assert!(!is_private("ops", &only(&[]), Some("ann")) && !is_private("ops", &only(&[]), None));
    }
}

//! What this machine can see of a database's files. Says nothing where it is not sure that they are here.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

/// Bytes that an ordinary user could still write beside `path`; nothing where it cannot be seen.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let seen = statvfs(path).ok()?;
    Some(seen.blocks_available().saturating_mul(seen.fragment_size()))
}

/// Whether this process may write `path`.
pub(super) fn may_write(path: &Path) -> bool {
    access(path, AccessFlags::W_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_room_and_what_is_not_there_has_none() {
        let folder = tempfile::tempdir().expect("a temp dir");
        assert!(free_bytes(folder.path()).is_some_and(|bytes| bytes > 0));
        assert!(may_write(folder.path()));
        let missing = folder.path().join("missing");
        assert_eq!((free_bytes(&missing), may_write(&missing)), (None, false));
    }
}

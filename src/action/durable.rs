//! Files that are replaced whole or not at all, whatever dies in between.
//!
//! Writes beside the file, syncs, renames, syncs the folder. Keeps mode and owner of the file that it replaces and
//! refuses when it cannot. Used by file actions, option stores and the supervisor.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::folder_of;
use crate::config::rights::own_folder;

/// Mode of a file that did not exist before and has no mode asked for.
const MODE_NEW: u32 = 0o644;

/// Replaces `path` (or the file that a link there leads to) by `content`; `mode` overrules the mode it had.
pub(crate) fn replace(path: &Path, content: &[u8], mode: Option<u32>) -> io::Result<()> {
    let path = resolved(path)?;
    let folder = folder_of(&path);
    let old = match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => Some(metadata),
        Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut file = tempfile::Builder::new().prefix(".piton-").tempfile_in(folder)?;
    Write::write_all(&mut file, content)?;
    if let Some(old) = &old {
        let new = file.as_file().metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            chown(file.path(), Some(old.uid()), Some(old.gid()))?;
        }
    }
    let mode = mode.or_else(|| old.map(|old| old.mode() & 0o7777)).unwrap_or(MODE_NEW);
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Removes `path` for good; fine when it is not there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path.parent().unwrap_or(Path::new("."))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The content, or nothing when the file does not exist.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// An advisory lock between processes of Piton, free again when dropped or when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock on `path` (made when missing), waiting up to `patience`.
    pub(crate) async fn take(path: &Path, patience: Duration) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            own_folder(folder)?;
        }
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "another Piton is working on it"));
                }
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

/// `name` as one component of a path: other characters than letters, digits, `.`, `_`, `-` become `%XX`.
pub(crate) fn file_name(name: &str) -> String {
    let mut out = String::new();
    for (index, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || b"_-".contains(&byte) || (byte == b'.' && index > 0) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn resolved(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_path_buf()),
        Err(error) => Err(error),
    }
}

/// Makes the names in a folder last.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_a_link_and_the_mode_stays() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        replace(&real, b"one", Some(0o600)).expect("written");
        std::os::unix::fs::symlink(&real, &link).expect("linked");
        replace(&link, b"two", None).expect("written");
        assert!(link.is_symlink());
        assert_eq!(fs::read(&real).expect("there"), b"two");
        assert_eq!(fs::metadata(&real).expect("there").mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "nothing is left beside it");
    }

    #[test]
    fn names_become_one_component() {
        assert_eq!(file_name("../a b"), "%2E.%2Fa%20b");
        assert_eq!(file_name("wfm65-server.1"), "wfm65-server.1");
    }

    #[tokio::test]
    async fn a_lock_is_held_by_one() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let path = folder.path().join("x.lock");
        let first = Lock::take(&path, Duration::ZERO).await.expect("free");
        assert!(Lock::take(&path, Duration::ZERO).await.is_err());
        drop(first);
        assert!(Lock::take(&path, Duration::ZERO).await.is_ok());
    }
}

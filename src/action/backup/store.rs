//! A backup is a folder: the file that the engine's tool wrote, and a manifest with its size and checksum.
//!
//! Both come into being with one rename, so a folder in its place is a whole backup or somebody else's. Nothing is ever written over.
//! Refuses to read what does not match its manifest. Used by `db.backup` and `db.restore`.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::super::durable;
use crate::config::folder_of;

/// The manifest's name in the folder.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The form of the manifest that is written and read.
const FORM: u32 = 1;
/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;
/// Bytes of a manifest that are read.
const MANIFEST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What is known about a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The form of this manifest.
    pub(crate) form: u32,
    /// The run that made it.
    pub(crate) run: String,
    /// The step that made it.
    pub(crate) step: String,
    /// Name of the database on the site.
    pub(crate) database: String,
    /// Who served the database: `PostgreSQL`, `MariaDB`, `MySQL` or `SQLite`.
    pub(crate) product: String,
    /// The server's version.
    pub(crate) server_version: String,
    /// What the tool says about itself.
    pub(crate) tool: String,
    /// Name of the file in the folder.
    pub(crate) file: String,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub(crate) sha256: String,
    /// The tables that were there when it was begun.
    pub(crate) tables: Vec<String>,
    /// When it was begun, RFC 3339: what it holds is as of then or a moment later.
    pub(crate) begun_at: String,
}

impl Manifest {
    /// The form that is written here.
    pub(crate) fn form() -> u32 {
        FORM
    }
}

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// There is nothing.
    #[error("`{0}` is not there")]
    Missing(PathBuf),
    /// It cannot be read or written.
    #[error("`{path}`: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is no backup of ours.
    #[error("`{path}` is no backup that can be read: {why}")]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It is not what it was.
    #[error("`{path}` is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What differs.
        why: String,
    },
}

impl StoreError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_path_buf(), source }
    }
}

/// Reads the manifest of the backup in `folder`.
pub(crate) fn manifest(folder: &Path) -> Result<Manifest, StoreError> {
    let path = folder.join(MANIFEST);
    let not_ours = |why: String| StoreError::NotOurs { path: folder.to_path_buf(), why };
    if let Err(error) = std::fs::symlink_metadata(folder)
        && error.kind() == io::ErrorKind::NotFound
    {
        return Err(StoreError::Missing(folder.to_path_buf()));
    }
    let mut text = String::new();
    match File::open(&path).and_then(|file| file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(not_ours(format!("it has no `{MANIFEST}`")));
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(not_ours(error.to_string())),
        read => read.map_err(StoreError::io(&path))?,
    };
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| not_ours(format!("`{MANIFEST}`: {error}")))?;
    if manifest.form != FORM {
        return Err(not_ours(format!("`{MANIFEST}` has form {}, not {FORM}", manifest.form)));
    }
    if Path::new(&manifest.file).file_name().is_none_or(|name| name != manifest.file.as_str()) {
        return Err(not_ours(format!("`{}` is no plain file name", manifest.file)));
    }
    Ok(manifest)
}

/// Opens the file of a backup, at its beginning, after its size and checksum were found to be those of the manifest.
pub(crate) fn verified(folder: &Path) -> Result<(Manifest, File), StoreError> {
    let manifest = manifest(folder)?;
    let path = folder.join(&manifest.file);
    let mut file = File::open(&path).map_err(StoreError::io(&path))?;
    let damaged = |why| StoreError::Damaged { path: path.clone(), why };
    let bytes = file.metadata().map_err(StoreError::io(&path))?.len();
    if bytes != manifest.bytes {
        return Err(damaged(format!("it has {bytes} bytes, its manifest says {}", manifest.bytes)));
    }
    let sum = Sum::read(&mut file).map_err(StoreError::io(&path))?;
    if sum.hex() != manifest.sha256 {
        return Err(damaged(format!("its SHA-256 is not {}, as its manifest says", manifest.sha256)));
    }
    file.rewind().map_err(StoreError::io(&path))?;
    Ok((manifest, file))
}

/// [`verified`], away from the threads that others wait on.
pub(crate) async fn verify(folder: &Path) -> Result<(Manifest, File), StoreError> {
    let path = folder.to_path_buf();
    let work = tokio::task::spawn_blocking(move || verified(&path)).await;
    work.map_err(|error| StoreError::Io { path: folder.to_path_buf(), source: io::Error::other(error) })?
}

/// Size and checksum of what passes by.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sum {
    hash: Sha256,
    /// Bytes so far.
    pub(crate) bytes: u64,
}

impl Sum {
    /// Adds what passes by.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Those of a file.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Self::read(&mut File::open(path)?)
    }

    fn read(file: &mut File) -> io::Result<Self> {
        let mut sum = Self::default();
        let mut buffer = vec![0; READ_BYTES];
        while let read @ 1.. = file.read(&mut buffer)? {
            sum.add(&buffer[..read]);
        }
        Ok(sum)
    }

    /// The checksum.
    pub(crate) fn hex(self) -> String {
        hex::encode(self.hash.finalize())
    }
}

/// A backup that is not yet in its place; dropped, it goes away.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The folder in which it is made.
    pub(crate) folder: PathBuf,
    place: PathBuf,
}

impl Draft {
    /// A new folder beside `place`, of its owner only. Its name is that of the step (`token`), so what a killed attempt of the same step left is
    /// found and removed, and nothing else.
    pub(crate) fn beside(place: &Path, token: &str) -> Result<Self, StoreError> {
        match std::fs::symlink_metadata(place) {
            Ok(_) => {
                let source =
                    io::Error::new(io::ErrorKind::AlreadyExists, "it is there already, and no backup is written over");
                return Err(StoreError::Io { path: place.to_path_buf(), source });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StoreError::Io { path: place.to_path_buf(), source }),
        }
        let parent = folder_of(place);
        std::fs::create_dir_all(parent).map_err(StoreError::io(parent))?;
        let folder = parent.join(format!(".piton-backup-{token}.part"));
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StoreError::io(&folder)(error)),
            Ok(()) | Err(_) => {}
        }
        DirBuilder::new().mode(0o700).create(&folder).map_err(StoreError::io(&folder))?;
        Ok(Self { folder, place: place.to_path_buf() })
    }

    /// A new file in it that only its owner reads.
    pub(crate) fn file(&self, name: &str) -> Result<File, StoreError> {
        let path = self.folder.join(name);
        File::options().create_new(true).write(true).mode(0o600).open(&path).map_err(StoreError::io(&path))
    }

    /// Gives it its place for good. The file is on the disk first, then the manifest, then both names, then the folder's.
    pub(crate) fn keep(self, manifest: &Manifest) -> Result<(), StoreError> {
        let path = self.folder.join(&manifest.file);
        File::open(&path).and_then(|file| file.sync_all()).map_err(StoreError::io(&path))?;
        let path = self.folder.join(MANIFEST);
        let text = serde_json::to_vec_pretty(manifest).map_err(io::Error::other).map_err(StoreError::io(&path))?;
        let mut file = self.file(MANIFEST)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(StoreError::io(&path))?;
        durable::sync_folder(&self.folder).map_err(StoreError::io(&self.folder))?;
        std::fs::rename(&self.folder, &self.place).map_err(StoreError::io(&self.place))?;
        durable::sync_folder(folder_of(&self.place)).map_err(StoreError::io(&self.place))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder = %self.folder.display(), %error, "an unfinished backup was not removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn made(place: &Path, token: &str) -> Manifest {
        let draft = Draft::beside(place, token).expect("a draft");
        draft.file("data").expect("new").write_all(b"content").expect("written");
        let mut sum = Sum::default();
        sum.add(b"content");
        let manifest = Manifest {
            form: Manifest::form(),
            run: "r".into(),
            step: "s".into(),
            database: "d".into(),
            product: "SQLite".into(),
            server_version: "3".into(),
            tool: "t".into(),
            file: "data".into(),
            bytes: sum.bytes,
            sha256: sum.hex(),
            tables: vec!["t".into()],
            begun_at: "2026-01-01T00:00:00Z".into(),
        };
        draft.keep(&manifest).expect("kept");
        manifest
    }

    #[test]
    fn what_is_kept_is_whole_and_its_owners_only() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let place = folder.path().join("deep/backup");
        let manifest = made(&place, "a1");
        assert_eq!(verified(&place).expect("whole").0, manifest);
        assert_eq!(std::fs::metadata(&place).expect("there").permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(place.join("data")).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path().join("deep")).expect("a folder").count(), 1, "no draft is left");
        let again = Draft::beside(&place, "a1").expect_err("never written over");
        assert!(again.to_string().contains("there already"), "{again}");
    }

    #[test]
    fn a_draft_removes_what_its_own_step_left_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let place = folder.path().join("backup");
        let other = Draft::beside(&folder.path().join("other"), "a12").expect("a draft");
        let left = Draft::beside(&place, "a1").expect("a draft");
        left.file("data").expect("new").write_all(b"half").expect("written");
        std::mem::forget(left);
        let draft = Draft::beside(&place, "a1").expect("a draft again");
        assert_eq!(std::fs::read_dir(&draft.folder).expect("a folder").count(), 0);
        assert!(other.folder.exists(), "the draft of another step");
        drop(draft);
        assert!(matches!(verified(&place), Err(StoreError::Missing(_))));
    }

    #[test]
    fn any_damage_is_found_and_named() {
        let folder = tempfile::tempdir().expect("a temp dir");
        let place = folder.path().join("backup");
        let manifest = made(&place, "a1");
        let says = |wanted: &str| {
            let error = verified(&place).expect_err(wanted).to_string();
            assert!(error.contains(wanted), "{error}");
        };
        let data = place.join("data");
        std::fs::write(&data, b"contenT").expect("written");
        says("SHA-256");
        std::fs::write(&data, b"content and more").expect("written");
        says("it has 16 bytes");
        std::fs::remove_file(&data).expect("removed");
        says("No such file");
        let path = place.join(MANIFEST);
        std::fs::write(&path, serde_json::to_vec(&Manifest { file: "../x".into(), ..manifest.clone() }).expect("JSON"))
            .expect("written");
        says("no plain file name");
        std::fs::write(&path, serde_json::to_vec(&Manifest { form: 2, ..manifest }).expect("JSON")).expect("written");
        says("form 2");
        std::fs::write(&path, "{").expect("written");
        says("manifest.json");
        std::fs::remove_file(&path).expect("removed");
        says("it has no `manifest.json`");
    }
}

//! Signatures over files: a list of paths and digests in the form of `sha256sum`, and OpenSSH signatures of it.
//!
//! Owned here: the form of the list, what differs from it, and whose signatures hold. Pure. `docs/design/signed-files.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{IdentityError, Signed, Signers, verify_in};

/// Namespace of the signatures: `ssh-keygen -Y sign -n piton-file`.
pub const FILE_NAMESPACE: &str = "piton-file";

/// The first line of a list. `sha256sum` takes it for a comment.
const HEAD: &str = "# piton-files-v1";

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";

/// SHA-256 in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Files and their digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileList {
    /// The file that the others belong to.
    pub entry: String,
    /// SHA-256, in hex, by path.
    pub files: BTreeMap<String, String>,
}

impl FileList {
    /// A list of these files; `entry` is the one that the others belong to.
    ///
    /// # Errors
    /// When a name cannot stand in a list, or `entry` is none of the files.
    pub fn new(entry: &str, files: BTreeMap<String, String>) -> Result<Self, String> {
        if let Some(name) = files.keys().find(|name| name.contains(['\\', '\n', '\r']) || name.is_empty()) {
            return Err(format!("a file whose name holds a backslash or a line break cannot be listed: {name:?}"));
        }
        if !files.contains_key(entry) {
            return Err(format!("`{entry}` is none of the files"));
        }
        Ok(Self { entry: entry.to_owned(), files })
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        let others = self.files.iter().filter(|(path, _)| **path != self.entry);
        for (path, digest) in self.files.get_key_value(&self.entry).into_iter().chain(others) {
            let _ = writeln!(text, "{digest}  {path}");
        }
        text
    }

    /// Reads a list: exactly what [`FileList::text`] writes and nothing else, so that no two texts say the same.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(format!("its first line is not `{HEAD}`"));
        }
        let mut files = BTreeMap::new();
        let mut entry = None;
        for (number, line) in (2..).zip(lines) {
            let (digest, path) = line.split_once("  ").ok_or_else(|| format!("line {number} is no digest and path"))?;
            if digest.len() != 64 || !digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(format!("line {number} begins with no SHA-256"));
            }
            entry.get_or_insert_with(|| path.to_owned());
            if files.insert(path.to_owned(), digest.to_owned()).is_some() {
                return Err(format!("line {number} lists `{path}` a second time"));
            }
        }
        let list = Self::new(&entry.ok_or("it lists nothing")?, files)?;
        if list.text() == text {
            Ok(list)
        } else {
            Err("its lines are not in the order in which they are written".into())
        }
    }

    /// How `files` differ from the list, the first difference in words; of a part of what is listed, only what it has is compared.
    pub fn differs(&self, files: &BTreeMap<String, String>, is_part: bool) -> Option<String> {
        let changed = files.iter().find_map(|(path, digest)| match self.files.get(path) {
            Some(listed) if listed == digest => None,
            Some(_) => Some(format!("`{path}` was changed since")),
            None => Some(format!("`{path}` is not in the list")),
        });
        let gone = || self.files.keys().find(|path| !files.contains_key(*path));
        changed.or_else(|| gone().filter(|_| !is_part).map(|path| format!("`{path}` is listed and not used any more")))
    }
}

/// The signatures of a file that holds one after the other.
pub fn signatures(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        let Some(end) = rest[start..].find(END) else { break };
        let end = start + end + END.len();
        found.push(format!("{}\n", &rest[start..end]));
        rest = &rest[end..];
    }
    found
}

/// Whose signature of `list` this is, and the signature; judged by the keys as they are at `at`.
///
/// # Errors
/// Why it is nobody's.
pub fn signer(signers: &Signers, list: &str, signature: &str, at: Timestamp) -> Result<Owned, IdentityError> {
    let signed = Signed::read(signature)?;
    // Nobody's and several people's keys are refused with their reason.
    let name = signers.owners(&signed.key).first().copied().unwrap_or_default().to_owned();
    verify_in(FILE_NAMESPACE, signers, &name, list, signature, at)?;
    Ok(Owned { name, signed })
}

/// A signature and the person whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Who.
    pub name: String,
    /// The signature.
    pub signed: Signed,
}

/// What lies beside a file to show who signed it; not judged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The text of the list.
    pub list: String,
    /// The signatures of it.
    pub signatures: Vec<String>,
    /// The entry of the list that is meant, if it is not the first.
    pub entry: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> FileList {
        let digest = |letter: &str| letter.repeat(64);
        let files = [("sql/a.sql", "b"), ("move.yaml", "a"), ("../shared/map.yaml", "c"), ("with  blanks", "d")];
        let files = files.map(|(path, letter)| (path.to_owned(), digest(letter)));
        FileList::new("move.yaml", files.into()).expect("a list")
    }

    #[test]
    fn a_list_is_written_in_one_way() {
        let text = list().text();
        assert!(text.starts_with(&format!(
            "{HEAD}\n{}  move.yaml\n{}  ../shared/map.yaml\n",
            "a".repeat(64),
            "c".repeat(64)
        )));
        assert_eq!(FileList::read(&text), Ok(list()));
        for other in [
            text.replace(HEAD, "# piton-files-v2"),
            text.replace('\n', "\r\n"),
            format!("{text}\n"),
            text.trim_end().to_owned(),
            text.replace("aaaa", "AAAA"),
            format!("{text}{}  move.yaml\n", "e".repeat(64)),
            format!("{HEAD}\n"),
            text.replacen(&format!("{}  move.yaml\n", "a".repeat(64)), "", 1)
                + &format!("{}  move.yaml\n", "a".repeat(64)),
            text.replace("sql/a.sql", "sql\\a.sql"),
        ] {
            assert!(FileList::read(&other).is_err(), "{other}");
        }
    }

    #[test]
    fn sha256sum_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a b"), "hello\n").expect("written");
        let digest = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03".to_owned();
        let list = FileList::new("a b", [("a b".to_owned(), digest)].into()).expect("a list");
        std::fs::write(folder.path().join("list"), list.text()).expect("written");
        let mut sums = std::process::Command::new("sha256sum");
        let checked = sums.args(["--strict", "-c", "list"]).current_dir(folder.path()).output().expect("is there");
        assert!(checked.status.success(), "{checked:?}");
    }

    #[test]
    fn what_differs_is_named() {
        let known = list();
        let mut files = known.files.clone();
        assert_eq!(known.differs(&files, false), None);
        files.insert("sql/a.sql".into(), "0".repeat(64));
        assert_eq!(known.differs(&files, true).as_deref(), Some("`sql/a.sql` was changed since"));
        files.remove("sql/a.sql");
        assert_eq!(known.differs(&files, true), None);
        assert_eq!(known.differs(&files, false).as_deref(), Some("`sql/a.sql` is listed and not used any more"));
        files.insert("sql/b.sql".into(), "0".repeat(64));
        assert_eq!(known.differs(&files, true).as_deref(), Some("`sql/b.sql` is not in the list"));
    }

    #[test]
    fn a_file_may_hold_many_signatures() {
        let one = format!("{BEGIN}\nAAAA\n{END}\n");
        assert_eq!(signatures(&format!("{one}\n{one}junk")), [one.clone(), one]);
        assert_eq!(signatures(BEGIN), Vec::<String>::new());
    }
}

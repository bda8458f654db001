//! Seals: signatures of how far a run has come, so that nobody without the key can write its history anew.
//!
//! A seal is an OpenSSH signature over the place and the hash of one record, and with the hash over everything before it. It
//! is stored in the transaction of the records that it is about: no outcome is on record without its seal. Owned here:
//! the key of a place, what is signed, and when. Called by the stores and by `proof`. `docs/design/seals.md`.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use signature::{Signer as _, Verifier};
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, Signature, SshSig};

use super::Append;
use crate::config::rights::own_folder;
use crate::event::{Event, Record};
use crate::ids::RunId;

/// Namespace of the signatures: `ssh-keygen -Y verify -n piton-seal`.
pub const NAMESPACE: &str = "piton-seal";
/// A run is sealed at the latest when a record comes whose place is a multiple of this.
pub(super) const EVERY: u64 = 1000;

/// Why there is no key to seal with.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file.
    #[error("the key `{path}` cannot be used: {source}; make it readable, or name another one with PITON_SEAL_KEY")]
    File {
        /// Where it lies.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What it holds.
    #[error(
        "`{path}` holds no OpenSSH key that can be used ({why}); make one with `ssh-keygen -t ed25519 -N '' -f FILE`"
    )]
    Key {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Others can read it.
    #[error("the key `{path}` can be read by others, who could sign with it; run `chmod 600` on it")]
    Open {
        /// Where it lies.
        path: PathBuf,
    },
}

/// A key to seal with; clones share it.
#[derive(Clone)]
pub struct SealKey {
    key: Arc<PrivateKey>,
    public: Arc<str>,
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SealKey {
    /// Reads the key at `path`; makes one if there is none, with its public half beside it.
    ///
    /// # Errors
    /// When it cannot be read or written, is no Ed25519 key, has a passphrase, or can be read by others.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        let fail = |source| SealError::File { path: path.to_owned(), source };
        match fs::metadata(path) {
            Ok(meta) if meta.permissions().mode() & 0o077 != 0 => Err(SealError::Open { path: path.to_owned() }),
            Ok(_) => Self::read(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match make(path) {
                // Another process was faster.
                Err(SealError::File { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                    Self::read(path)
                }
                made => made.and_then(|()| Self::read(path)),
            },
            Err(error) => Err(fail(error)),
        }
    }

    fn read(path: &Path) -> Result<Self, SealError> {
        let text = fs::read(path).map_err(|source| SealError::File { path: path.to_owned(), source })?;
        let wrong = |why: String| SealError::Key { path: path.to_owned(), why };
        let key = PrivateKey::from_openssh(&text).map_err(|error| wrong(error.to_string()))?;
        if key.is_encrypted() {
            return Err(wrong("it has a passphrase, and nobody is there to type it".into()));
        }
        if key.algorithm() != Algorithm::Ed25519 {
            return Err(wrong(format!("it is a key of the kind {}, not Ed25519", key.algorithm())));
        }
        let public = plain(key.public_key()).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { key: Arc::new(key), public: public.into() })
    }

    /// Its public half: `ssh-ed25519 AAAA...`, without a comment.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// A signature over `text` as `ssh-keygen -Y sign -n NAMESPACE` writes it.
    pub(super) fn signed(&self, namespace: &str, text: &[u8]) -> Result<String, ssh_key::Error> {
        self.key.sign(namespace, HashAlg::Sha512, text).and_then(|sig| sig.to_pem(LineEnding::LF))
    }

    /// The seal of the last of `records`.
    pub(super) fn seal(&self, records: &[Record]) -> Option<Seal> {
        let last = records.last()?;
        let (seq, hash, at_ms) = (last.seq, last.hash.clone(), last.at.as_millisecond());
        let text = statement(&last.run, seq, &hash, at_ms);
        match self.signed(NAMESPACE, text.as_bytes()) {
            Ok(signature) => Some(Seal { seq, hash, at_ms, key: self.public.to_string(), signature }),
            Err(error) => {
                tracing::warn!(run = %last.run, %error, "a record was not sealed");
                None
            }
        }
    }

    /// A bare Ed25519 signature, 64 bytes.
    pub(super) fn sign(&self, text: &[u8]) -> Result<Vec<u8>, ssh_key::Error> {
        let signature: Signature = self.key.try_sign(text)?;
        Ok(signature.as_bytes().to_vec())
    }
}

/// The key, if what `append` says is to be sealed: an outcome, and a driver's record now and then.
pub(super) fn due<'k>(key: Option<&'k SealKey>, append: &Append<'_>) -> Option<&'k SealKey> {
    let behind = append.expected_seq + append.events.len() as u64;
    let ends = append.events.iter().any(|event| matches!(event, Event::RunFinished { .. }));
    let is_driver = append.generation.is_some_and(|generation| generation > 0);
    key.filter(|_| is_driver && (ends || behind / EVERY > append.expected_seq / EVERY))
}

/// Makes a key and its public half; refuses to replace one.
fn make(path: &Path) -> Result<(), SealError> {
    let fail = |source| SealError::File { path: path.to_owned(), source };
    let wrong = |error: ssh_key::Error| SealError::Key { path: path.to_owned(), why: error.to_string() };
    let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).map_err(wrong)?;
    key.set_comment("piton seals");
    if let Some(folder) = path.parent() {
        own_folder(folder).map_err(fail)?;
    }
    let private = key.to_openssh(LineEnding::LF).map_err(wrong)?;
    let public = key.public_key().to_openssh().map_err(wrong)? + "\n";
    // Whole before it has its name, and never in the place of another one.
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(fail)?;
    let placed = file
        .write_all(private.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&draft, path))
        .and_then(|()| fs::write(path.with_extension("pub"), public));
    let _ = fs::remove_file(&draft);
    placed.map_err(fail)
}

/// A public key as one word of kind and one of content.
fn plain(key: &PublicKey) -> Result<String, ssh_key::Error> {
    PublicKey::from(key.key_data().clone()).to_openssh().map(|text| text.trim_end().to_owned())
}

/// Reads a public key in the form of `id_ed25519.pub`.
pub(super) fn public_key(text: &str) -> Result<String, ssh_key::Error> {
    plain(&PublicKey::from_openssh(text.trim())?)
}

/// The keys of a file that is a public key or an allowed-signers file (`principals [options] type key`).
///
/// # Errors
/// When a line is neither.
pub fn trusted_keys(text: &str) -> Result<Vec<String>, String> {
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // Options hold no `ssh-`, so the key begins where its kind does.
        let at = line.find("ssh-ed25519 ").ok_or_else(|| format!("line {number} holds no ssh-ed25519 key"))?;
        let key = line[at..].split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        keys.push(public_key(&key).map_err(|error| format!("line {number}: {error}"))?);
    }
    Ok(keys)
}

/// How people tell keys apart: `SHA256:...`, as `ssh-keygen -l` shows it.
pub fn fingerprint(key: &str) -> String {
    PublicKey::from_openssh(key).map_or_else(|_| key.to_owned(), |key| key.fingerprint(HashAlg::Sha256).to_string())
}

/// What a seal signs.
pub(super) fn statement(run: &RunId, seq: u64, hash: &str, at_ms: i64) -> String {
    format!("piton-seal-v1\n{run}\n{seq}\n{hash}\n{at_ms}\n")
}

/// Whether `signature`, as `ssh-keygen -Y sign` writes it, is one of `key` over `text`.
pub(super) fn holds(namespace: &str, text: &[u8], key: &str, signature: &str) -> bool {
    let (Ok(key), Ok(signature)) = (PublicKey::from_openssh(key), SshSig::from_pem(signature)) else {
        return false;
    };
    key.verify(namespace, text, &signature).is_ok()
}

/// Whether `signature` is a bare one of `key` over `text`.
pub(super) fn is_signed(text: &[u8], key: &str, signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (PublicKey::from_openssh(key), Signature::new(Algorithm::Ed25519, signature)) else {
        return false;
    };
    Verifier::verify(&key, text, &signature).is_ok()
}

/// The signature of how far a run had come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// Place of the record.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// Its time, in milliseconds since 1970.
    pub at_ms: i64,
    /// The public key: `ssh-ed25519 AAAA...`.
    pub key: String,
    /// The signature as `ssh-keygen -Y sign` writes it.
    pub signature: String,
}

/// As stores keep it: place, hash, time, key, signature.
impl From<(i64, String, i64, String, String)> for Seal {
    fn from((seq, hash, at_ms, key, signature): (i64, String, i64, String, String)) -> Self {
        Self { seq: seq.cast_unsigned(), hash, at_ms, key, signature }
    }
}

impl Seal {
    /// Whether its key signed it, for this run.
    pub fn is_good(&self, run: &RunId) -> bool {
        let text = statement(run, self.seq, &self.hash, self.at_ms);
        holds(NAMESPACE, text.as_bytes(), &self.key, &self.signature)
    }

    /// When the record was made.
    pub fn at(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.at_ms).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_privately_and_read_again() {
        let place = tempfile::tempdir().expect("a temp dir");
        let path = place.path().join("keys/seal");
        let first = SealKey::open(&path).expect("is made");
        assert_eq!(SealKey::open(&path).expect("is read").public(), first.public());
        assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
        let public = fs::read_to_string(path.with_extension("pub")).expect("is there");
        assert_eq!(trusted_keys(&public), Ok(vec![first.public().to_owned()]));
        let signers = format!("# ours\nops@site namespaces=\"piton-seal\" {public}");
        assert_eq!(trusted_keys(&signers), Ok(vec![first.public().to_owned()]));
        assert_eq!(trusted_keys("nobody"), Err("line 1 holds no ssh-ed25519 key".to_owned()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("is ours");
        assert!(SealKey::open(&path).expect_err("is refused").to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("is ours");
        fs::write(&path, "no key").expect("is ours");
        assert!(SealKey::open(&path).expect_err("is refused").to_string().contains("ssh-keygen -t ed25519"));
    }

    #[test]
    fn a_seal_holds_for_its_run_its_place_and_its_key_only() {
        let place = tempfile::tempdir().expect("a temp dir");
        let key = SealKey::open(&place.path().join("a")).expect("is made");
        let other = SealKey::open(&place.path().join("b")).expect("is made");
        let run = RunId::new("r");
        let record = Record {
            run: run.clone(),
            seq: 7,
            at: Timestamp::UNIX_EPOCH,
            generation: 1,
            event: Event::RunTimedOut,
            hash: "h".into(),
        };
        let seal = key.seal(std::slice::from_ref(&record)).expect("is sealed");
        assert!(seal.is_good(&run));
        assert!(!seal.is_good(&RunId::new("s")));
        for changed in [
            Seal { seq: 8, ..seal.clone() },
            Seal { hash: "g".into(), ..seal.clone() },
            Seal { at_ms: 1, ..seal.clone() },
            Seal { key: other.public().to_owned(), ..seal.clone() },
            Seal { signature: seal.signature.replacen('A', "B", 1), ..seal.clone() },
        ] {
            assert!(!changed.is_good(&run), "{changed:?}");
        }
    }
}

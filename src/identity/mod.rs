//! Who somebody is: the public keys of people, and signatures by them over what they said and over files.
//!
//! Owned here: keys of a site and of an OpenSSH allowed-signers file, the texts that a person signs, and whether a
//! signature holds. Pure: the time comes as a value. Refused: keys of a kind that cannot be verified here, certificate
//! authorities, and a key that is listed for two people. Called by `site` and by the driver for every word of a person.
//! `docs/design/identity.md`.

use std::fmt::Write as _;

use jiff::Timestamp;
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

use crate::ids::RunId;

mod files;
mod signers;

pub use files::{FILE_NAMESPACE, FileList, Offered, Owned, sha256_hex, signatures, signer};
pub use signers::Signers;

/// Namespace of the signatures of words: `ssh-keygen -Y sign -n piton`.
pub const NAMESPACE: &str = "piton";

/// Why somebody is not who the name says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The site's keys cannot be used.
    #[error("{0}")]
    Keys(String),
    /// What was handed in is no signature.
    #[error("the signature cannot be read ({0}); make it with `ssh-keygen -Y sign`")]
    Unreadable(String),
    /// It was made for something else.
    #[error("the signature is for `{is}`, not for `{wanted}`; make it with `ssh-keygen -Y sign -n {wanted}`")]
    Namespace {
        /// What for.
        is: String,
        /// What for it should be.
        wanted: &'static str,
    },
    /// The key is nobody's.
    #[error("the key {0} is not listed on this site")]
    Unknown(String),
    /// The key is somebody else's.
    #[error("the key {key} belongs to `{of}`, not to `{name}`")]
    Other {
        /// Its fingerprint.
        key: String,
        /// Whose it is.
        of: String,
        /// Who it was handed in for.
        name: String,
    },
    /// The key is listed for more than one person, so it says nothing about who signed.
    #[error("the key {key} is listed for {of} and tells nobody apart; give each person a key of their own")]
    Shared {
        /// Its fingerprint.
        key: String,
        /// For whom.
        of: String,
    },
    /// The key does not count at that time.
    #[error("the key {key} is valid {when} only, not at {at}")]
    Time {
        /// Its fingerprint.
        key: String,
        /// When it counts.
        when: String,
        /// When it was used.
        at: Timestamp,
    },
    /// The key is not for these signatures.
    #[error("the key {key} is listed for other namespaces than `{wanted}`")]
    NotFor {
        /// Its fingerprint.
        key: String,
        /// What it was used for.
        wanted: &'static str,
    },
    /// It does not fit what was said.
    #[error(
        "the signature does not hold: it is of another run, question, plan, answer, comment or person, or was changed"
    )]
    Bad,
    /// It does not fit a list of files.
    #[error("the signature does not hold: it is of another list, or one of the two was changed")]
    BadList,
    /// The key cannot sign.
    #[error("`{path}` cannot be signed with: {why}")]
    Key {
        /// Which file.
        path: String,
        /// Why not.
        why: String,
    },
}

/// What a person signs: one word, about one question, of one run, under one plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The run.
    pub run: &'a RunId,
    /// The step, or nothing for the run as a whole.
    pub step: &'a str,
    /// Hash of the record that asked, or that put in question what is decided.
    pub request: &'a str,
    /// How many words about it the same person has said already.
    pub again: usize,
    /// Digest of the plan that the run goes by.
    pub plan: &'a str,
    /// Digest of the rendered inputs of the question; empty when it has none.
    pub input: &'a str,
    /// The word: `approved`.
    pub word: &'a str,
    /// Digest of all that is said with it: comment, form, evidence, reason.
    pub says: &'a str,
    /// Who says it.
    pub name: &'a str,
}

impl Statement<'_> {
    /// The text that is signed. Names are written as JSON, so no line can be taken for another.
    pub fn text(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut text = String::from("piton-word-v1\n");
        for (key, value) in [
            ("run", quoted(self.run.as_str())),
            ("step", quoted(self.step)),
            ("request", self.request.to_owned()),
            ("again", self.again.to_string()),
            ("plan", self.plan.to_owned()),
            ("input", self.input.to_owned()),
            ("word", self.word.to_owned()),
            ("says", self.says.to_owned()),
            ("name", quoted(self.name)),
        ] {
            let _ = writeln!(text, "{key} {value}");
        }
        text
    }
}

/// A signature and the key that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The public key: `ssh-ed25519 AAAA...`.
    pub key: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// The signature as `ssh-keygen -Y sign` writes it.
    pub signature: String,
}

impl Signed {
    /// Takes in what `ssh-keygen -Y sign` wrote; whether it holds is not looked at.
    ///
    /// # Errors
    /// When it is no signature.
    pub fn read(signature: &str) -> Result<Self, IdentityError> {
        let unreadable = |error: ssh_key::Error| IdentityError::Unreadable(error.to_string());
        let parsed = SshSig::from_pem(signature).map_err(unreadable)?;
        let key = PublicKey::from(parsed.public_key().clone());
        Ok(Self {
            key: key.to_openssh().map_err(unreadable)?.trim_end().to_owned(),
            fingerprint: fingerprint(&key),
            signature: signature.to_owned(),
        })
    }
}

/// How people tell keys apart.
fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Signs with the text of a private key file that needs no passphrase; nothing if the text is no such key.
///
/// # Errors
/// When the key is of a kind that cannot sign here.
pub fn sign(private: &str, namespace: &str, statement: &str) -> Result<Option<String>, IdentityError> {
    let Ok(key) = PrivateKey::from_openssh(private) else { return Ok(None) };
    if key.is_encrypted() {
        return Ok(None);
    }
    let fail = |error: ssh_key::Error| IdentityError::Unreadable(error.to_string());
    let signed = key.sign(namespace, HashAlg::Sha512, statement.as_bytes()).map_err(fail)?;
    signed.to_pem(LineEnding::LF).map(Some).map_err(fail)
}

/// Whether `name` signed `statement` at `at`, judged by the keys of the site.
///
/// # Errors
/// Why not.
pub fn verify(
    signers: &Signers,
    name: &str,
    statement: &str,
    signature: &str,
    at: Timestamp,
) -> Result<(), IdentityError> {
    verify_in(NAMESPACE, signers, name, statement, signature, at)
}

/// The same for signatures of this namespace.
fn verify_in(
    wanted: &'static str,
    signers: &Signers,
    name: &str,
    statement: &str,
    signature: &str,
    at: Timestamp,
) -> Result<(), IdentityError> {
    let parsed = SshSig::from_pem(signature).map_err(|error| IdentityError::Unreadable(error.to_string()))?;
    if parsed.namespace() != wanted {
        return Err(IdentityError::Namespace { is: parsed.namespace().to_owned(), wanted });
    }
    let key = PublicKey::from(parsed.public_key().clone());
    signers.admit(&key, name, wanted, at)?;
    let bad = if wanted == FILE_NAMESPACE { IdentityError::BadList } else { IdentityError::Bad };
    key.verify(wanted, statement.as_bytes(), &parsed).map_err(|_| bad)
}

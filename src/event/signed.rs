//! Signatures over the files that a run goes by, as they were judged when it started or was amended.

use serde::{Deserialize, Serialize};

use super::Event;
use crate::ids::Actor;

/// Who signed what a run goes by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The runbook and what it is made of, by people of the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<SignedFiles>,
    /// The site, by signers whom the host or the store trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SignedFiles>,
    /// Of an amendment that brings another site: that, by people of the site before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_site: Option<SignedFiles>,
    /// Whether an amendment brings another site.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub brings_site: bool,
}

/// A list of files and signatures of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedFiles {
    /// The list that was signed: one line for each file, as `sha256sum` writes it.
    pub list: String,
    /// The entry of the list that it is about: of a runbook that another one runs, not the first.
    pub entry: String,
    /// Whose signatures hold.
    pub by: Vec<FileSigner>,
    /// The allowed signers by which it was judged; of people of the site, those of the site.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted: Vec<String>,
}

/// A signature of a list, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSigner {
    /// Who.
    pub name: Actor,
    /// The public key: `ssh-ed25519 AAAA...`.
    pub key: String,
    /// Its fingerprint, as `ssh-keygen -l` shows it.
    pub fingerprint: String,
    /// The signature as `ssh-keygen -Y sign` writes it.
    pub signature: String,
}

impl Event {
    /// The same start or amendment, by what was signed like this.
    #[must_use]
    pub fn with_signatures(mut self, new: Option<Box<Signed>>) -> Self {
        if let Self::RunStarted { signed, .. } | Self::RunAmended { signed, .. } = &mut self {
            *signed = new;
        }
        self
    }
}

impl SignedFiles {
    /// The names of the signers, for people.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.by.iter().map(|signer| signer.name.as_str()).collect();
        names.join(", ")
    }
}

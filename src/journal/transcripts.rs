//! What commands said, kept beside the events that name it: by the hash of its content, once however often it was said.
//!
//! It is stored in the transaction of the first event that names it, so no event ever names what is not there. Nothing
//! here knows of secrets: they are hidden before. `docs/design/outputs.md`.

use std::collections::BTreeSet;

use super::chain::{self, Row};
use super::prune::Stones;
use super::{Journal, JournalError};
use crate::event::Transcript;
use crate::ids::RunId;
use crate::plan::sha256_hex;

/// What is kept of a transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptText {
    digest: String,
    bytes: Vec<u8>,
}

impl TranscriptText {
    /// Takes bytes without secrets.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { digest: sha256_hex(&bytes), bytes }
    }

    /// SHA-256 in hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What is wrong with what was found under a digest; nothing if it is as it was kept.
pub(super) fn wrong(digest: &str, found: Option<&[u8]>) -> Option<&'static str> {
    match found {
        None => Some("is missing"),
        Some(bytes) if sha256_hex(bytes) != digest => Some("is not as it was kept"),
        Some(_) => None,
    }
}

/// The first record of a chain that names a transcript which is not as it was kept, and what is wrong.
pub(super) async fn first_bad(
    journal: &Journal,
    run: &RunId,
    rows: &[Row],
    stones: &Stones,
) -> Result<Option<(u64, String)>, JournalError> {
    let mut good = BTreeSet::new();
    for row in rows.iter().filter(|row| row.names_texts()) {
        let may_be_gone = stones.texts_taken(row.seq).is_some();
        for said in chain::event(run, row)?.said() {
            if good.contains(&said.digest) {
                continue;
            }
            let found = journal.find_transcript(&said.digest).await?;
            if found.is_none() && may_be_gone {
                continue;
            }
            if let Some(wrong) = wrong(&said.digest, found.as_deref()) {
                let stream = said.stream.words();
                return Ok(Some((row.seq, format!("what its command said on {stream} {wrong} ({})", said.digest))));
            }
            good.insert(said.digest.clone());
        }
    }
    Ok(None)
}

impl Journal {
    /// What is kept of a transcript; refused if it is not what the event names.
    pub async fn transcript(&self, said: &Transcript) -> Result<Vec<u8>, JournalError> {
        let found = self.find_transcript(&said.digest).await?;
        match (wrong(&said.digest, found.as_deref()), found) {
            (None, Some(bytes)) => Ok(bytes),
            (why, _) => Err(JournalError::Transcript { digest: said.digest.clone(), why: why.unwrap_or_default() }),
        }
    }
}
